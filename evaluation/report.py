"""The report of a replay as one HTML file that needs nothing else: bars by method and slice, intervals, tables."""

from __future__ import annotations

from html import escape
from typing import Any, Final

from evaluation.evaluate import Result
from evaluation.replay import OURS

_STYLE: Final = """
body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1c2733}
h1{font-size:1.5rem}h2{font-size:1.1rem;margin-top:2rem}table{border-collapse:collapse}
td,th{padding:.15rem .8rem .15rem 0;text-align:right}td:first-child,th:first-child{text-align:left}
rect.ours{fill:#0b7285}rect.other{fill:#adb5bd}text{font-size:12px;fill:#1c2733}small{color:#5c6773}
"""
_WIDTH: Final = 420
_ROW: Final = 20


def to_html(result: Result) -> str:
    """The report. Every text of the data set is escaped."""
    summary = result.summary()
    options = result.options
    said = f"cut {options.cut:g}, until {options.until:g}, at most {options.max_steps} steps"
    said += ", repeats" * options.repeats + (
        f", {options.simulate_cold:.0%} of the items hidden" if options.simulate_cold else ""
    )
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(summary['dataset'])}</title>",
        f"<style>{_STYLE}</style><h1>{escape(summary['dataset'])}</h1>",
        f"<p>{summary['steps']:,} steps, {summary['events']:,} events, {summary['items']:,} items; {said}.</p>",
        *(_slice(result, name) for name in summary["methods"][OURS]),
    ]
    if "ratings" in summary:
        parts.append("<h2>Ratings</h2>" + _table(summary["ratings"]))
    beyond = dict(summary["beyond"])
    fairness, floors = beyond.pop("fairness", {}), beyond.pop("floors", {})
    parts.append("<h2>Beyond accuracy</h2>" + _table({name: {"": value} for name, value in beyond.items()}))
    parts.append("<h2>Exposure floors</h2>" + _table(floors))
    parts += [f"<h2>Fairness: {escape(name)}</h2>{_table(groups)}" for name, groups in fairness.items() if groups]
    return "\n".join(parts)


def _slice(result: Result, name: str) -> str:
    means = {
        method: slices[name] for method, slices in result.outcome.tally.summary().items() if name in slices
    }  # fmt: skip
    most = max((value["ndcg@10"] for value in means.values()), default=0.0) or 1.0
    ordered = sorted(means.items(), key=lambda pair: -pair[1]["ndcg@10"])
    bars = "".join(
        f'<text x="0" y="{row * _ROW + 14}">{escape(method)}</text>'
        f'<rect class="{"ours" if method == OURS else "other"}" x="120" y="{row * _ROW + 3}" height="14" '
        f'width="{_WIDTH * value["ndcg@10"] / most:.1f}"/>'
        f'<text x="{126 + _WIDTH * value["ndcg@10"] / most:.1f}" y="{row * _ROW + 14}">{value["ndcg@10"]:.4f}</text>'
        for row, (method, value) in enumerate(ordered)
    )
    best = result.best_baseline(name)
    ratio = ""
    if best is not None:
        factor, error = result.outcome.tally.ratio(OURS, best, name)
        ratio = f"<p><small>{factor:.3f} ± {error:.3f} × {escape(best)} (paired standard error)</small></p>"
    return (
        f"<h2>{escape(name)} <small>{means[OURS]['n']:,.0f} steps</small></h2>"
        f'<svg width="{_WIDTH + 200}" height="{len(ordered) * _ROW}" role="img" aria-label="NDCG@10">{bars}</svg>'
        f"{ratio}"
    )


def _table(rows: dict[str, dict[str, Any]]) -> str:
    names = list(dict.fromkeys(name for values in rows.values() for name in values))
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    body = "".join(
        f"<tr><td>{escape(row)}</td>" + "".join(f"<td>{_shown(values.get(name))}</td>" for name in names) + "</tr>"
        for row, values in rows.items()
    )
    return f"<table><tr><th></th>{head}</tr>{body}</table>"


def _shown(value: Any) -> str:
    return "" if value is None else f"{value:.4f}" if isinstance(value, float) else escape(str(value))


def comparison(found: dict[str, Any]) -> str:
    """What `python -m evaluation.learned` found, as lines of a terminal; a row for each method."""
    methods, against = found["methods"], found["against_coldstream"]
    counts = {name: one["n"] for name, one in methods[OURS].items() if name != "known_user"}
    lines = [
        f"{found['dataset']}: {found['steps']:,} steps, {found['lessons']:,} lessons, {found['seconds']:.0f} s",
        f"{'NDCG@10 (÷ coldstream ± SE)':28}"
        + "".join(f"{f'{name} ({count:,})':>25}" for name, count in counts.items())
        + "   CPU ms a lesson, a list",
    ]
    for method, slices in methods.items():
        cells = [f"{slices[name]['ndcg@10']:.4f}" for name in counts]
        for place, name in enumerate(counts):
            one = against.get(method, {}).get(name)
            cells[place] += f" ({one['ratio']:.3f} ± {one['standard_error']:.3f})" if one else ""
        spent = found["cpu_ms"].get(method, {})
        costs = "".join(f"{spent[what]:>8.2f}" if what in spent else f"{'–':>8}" for what in ("learn", "score"))
        lines.append(f"{method:28}" + "".join(f"{cell:>25}" for cell in cells) + costs)
    return "\n".join(lines)
