"""`coldstream arms`: the arms of a trial beside each other, with intervals that say what chance alone could do."""

from __future__ import annotations

import math
import urllib.error
import urllib.parse
import urllib.request
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import click

from streams.errors import ColdstreamError

if TYPE_CHECKING:
    from streams.settings import Settings

EXAMPLES = """\b
Examples:  coldstream arms
           coldstream arms --prometheus http://127.0.0.1:9090 --window 7d
           coldstream arms --json | jq .differences
"""
Z: Final = 1.959963984540054
"""Standard normal quantile of a 95 % interval."""
SECONDS: Final = 30.0
RATES: Final = {
    "click_rate": ("clicked lists", "coldstream_list_outcomes_total", {"outcome": "clicked"}, {"outcome": "sent"}),
    "conversion_rate": (
        "converted lists", "coldstream_list_outcomes_total", {"outcome": "converted"}, {"outcome": "sent"},
    ),
    "hit_rate": ("hit rate", "coldstream_hits_total", {"list": "coldstream", "hit": "yes"}, {"list": "coldstream"}),
    "popular_hit_rate": (
        "… of what is popular", "coldstream_hits_total", {"list": "popular", "hit": "yes"}, {"list": "popular"},
    ),
}  # fmt: skip
"""Each rate: how it is called, its metric, and the labels of what succeeded and of what was tried."""
CAVEAT: Final = (
    "95 % intervals: Wilson's score for a rate (1927), Newcombe's hybrid of two of them for a difference (1998, method "
    "10). They take lists and choices as independent; where few users make many of them the truth is less certain."
)

Sample = tuple[dict[str, str], float]


@click.command("arms", epilog=EXAMPLES)
@click.option("--prometheus", metavar="URL", help="Ask a Prometheus, over all workers, not the worker at hand.")
@click.option("--window", default="1d", show_default=True, help="With --prometheus: how far back, as PromQL writes it.")
@click.option("--against", metavar="ARM", help="The arm that the others are compared with; else the first.")
@click.option("--json", "as_json", is_flag=True, help="One line of JSON.")
def command(*, prometheus: str | None, window: str, against: str | None, as_json: bool) -> None:
    """Compare the arms of a trial (COLDSTREAM_ARMS): clicked and converted lists, and first choices found in lists.

    Without --prometheus the worker at COLDSTREAM_HTTP is asked, which counts its own users since it started.
    """
    from streams.commands.output import write_json
    from streams.settings import load

    settings = load()
    if prometheus is None:
        samples, source = _ask_worker(settings), f"the worker at {settings.http}, since it started"
    else:
        samples, source = _ask_prometheus(prometheus, window), f"{prometheus}, the last {window}"
    arms = count(samples)
    if not arms:
        raise ColdstreamError(f"{source} knows of no list yet")
    names = sorted(arms, key=lambda name: (list(settings.arms).index(name) if name in settings.arms else 99, name))
    reference = names[0] if against is None else against
    if reference not in arms:
        raise ColdstreamError(f"there is no arm {reference!r}; there are: {', '.join(names)}")
    answer = {
        "source": source,
        "arms": [{"arm": name, **{rate: trial.describe() for rate, trial in arms[name].items()}} for name in names],
        "against": reference,
        "differences": [
            {"arm": name, **{rate: _difference(arms[name][rate], arms[reference][rate]) for rate in RATES}}
            for name in names
            if name != reference
        ],
    }
    if as_json:
        write_json(answer)
    else:
        _show(answer)


@dataclass(frozen=True, slots=True)
class Trial:
    """Successes among tries."""

    successes: float
    tries: float

    @property
    def rate(self) -> float:
        """The observed rate; 0 without a try."""
        return self.successes / self.tries if self.tries else 0.0

    def interval(self) -> tuple[float, float]:
        """Wilson's score interval of the rate (E. B. Wilson, JASA 22, 1927): (0, 1) without a try."""
        if not self.tries:
            return 0.0, 1.0
        square = Z * Z / self.tries
        middle = self.rate + square / 2
        half = Z * math.sqrt(max(self.rate * (1 - self.rate), 0.0) / self.tries + square / (4 * self.tries))
        return max((middle - half) / (1 + square), 0.0), min((middle + half) / (1 + square), 1.0)

    def describe(self) -> dict[str, float]:
        """For JSON."""
        low, high = self.interval()
        return {"successes": self.successes, "tries": self.tries, "rate": self.rate, "low": low, "high": high}


def difference(one: Trial, other: Trial) -> tuple[float, float, float]:
    """(difference of the rates, low, high): Newcombe's hybrid score interval (Statistics in Medicine 17, 1998)."""
    (low, high), (other_low, other_high) = one.interval(), other.interval()
    delta = one.rate - other.rate
    return (
        delta,
        delta - math.hypot(one.rate - low, other_high - other.rate),
        delta + math.hypot(high - one.rate, other.rate - other_low),
    )


def count(samples: dict[str, list[Sample]]) -> dict[str, dict[str, Trial]]:
    """The trials of each arm, by name of the rate. A success that was counted before its try makes no rate above 1."""
    counted: defaultdict[tuple[str, str, bool], float] = defaultdict(float)
    arms: dict[str, None] = {}
    for rate, (_, metric, success, tried) in RATES.items():
        for labels, value in samples.get(metric, ()):
            arms.setdefault(labels.get("arm", ""))
            for wanted, succeeded in ((success, True), (tried, False)):
                if wanted.items() <= labels.items():
                    counted[labels.get("arm", ""), rate, succeeded] += value
    return {
        arm: {
            rate: Trial(counted[arm, rate, True], max(counted[arm, rate, False], counted[arm, rate, True]))
            for rate in RATES
        }
        for arm in arms
    }  # fmt: skip


def _difference(one: Trial, other: Trial) -> dict[str, Any]:
    delta, low, high = difference(one, other)
    return {"difference": delta, "low": low, "high": high, "beyond_chance": low > 0 or high < 0}


def _ask_worker(settings: Settings) -> dict[str, list[Sample]]:
    from prometheus_client.parser import text_string_to_metric_families

    from streams.commands.client import fetch

    found: dict[str, list[Sample]] = {}
    for family in text_string_to_metric_families(fetch(settings, ["metrics"]).decode()):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((dict(sample.labels), sample.value))
    return found


def _ask_prometheus(url: str, window: str) -> dict[str, list[Sample]]:
    import msgspec

    found: dict[str, list[Sample]] = {}
    for metric, labels in (
        ("coldstream_list_outcomes_total", "arm, outcome"), ("coldstream_hits_total", "arm, list, hit"),
    ):  # fmt: skip
        query = urllib.parse.urlencode({"query": f"sum by ({labels}) (increase({metric}[{window}]))"})
        if not url.startswith(("http://", "https://")):
            raise click.UsageError("--prometheus must be an http or https URL")
        try:
            with urllib.request.urlopen(f"{url.rstrip('/')}/api/v1/query?{query}", timeout=SECONDS) as answer:  # noqa: S310  (looked at above)
                result = msgspec.json.decode(answer.read())["data"]["result"]
        except urllib.error.HTTPError as error:
            raise ColdstreamError(
                f"Prometheus at {url} refuses the question (is the window {window!r} right?)"
            ) from error
        except (OSError, msgspec.DecodeError, KeyError, TypeError) as error:
            raise ColdstreamError(f"no Prometheus answers at {url} ({error})") from error
        found[metric] = [(one["metric"], float(one["value"][1])) for one in result]
    return found


def _show(answer: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from streams.commands.output import clean

    console = Console(highlight=False)
    compared = {one["arm"]: one for one in answer["differences"]}
    for rate, (title, *_) in RATES.items():
        table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False,
                      header_style="bright_black")  # fmt: skip
        table.add_column("arm", min_width=12)
        against = (f"against {clean(answer['against']) or 'no name'}", "95 %", "") if compared else ()
        for name in ("of", "rate", "95 %", *against):
            table.add_column(name, justify="right")
        for arm in answer["arms"]:
            one = arm[rate]
            row: list[Text | str] = [Text(clean(arm["arm"]) or "(no trial)"), f"{one['tries']:,.0f}", f"{one['rate']:.2%}",
                   f"{one['low']:.2%} … {one['high']:.2%}"]  # fmt: skip
            delta = compared.get(arm["arm"], {}).get(rate)
            if delta is not None:
                row += [f"{delta['difference']:+.2%}", f"{delta['low']:+.2%} … {delta['high']:+.2%}",
                        "beyond chance" if delta["beyond_chance"] else "may be chance"]  # fmt: skip
            table.add_row(*row)
        console.print(table)
        console.print()
    console.print(Text(f"Source: {answer['source']}.", "bright_black"))
    console.print(Text(CAVEAT, "bright_black"))
