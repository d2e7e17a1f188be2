"""The runbook's section about measures: what each panel asks, what good looks like, what to do otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from grafana.dashboards import DASHBOARDS
from grafana.measures import Measure
from streams import metrics

BEGIN: Final = "<!-- measures: written by `python -m grafana`, from here -->"
END: Final = "<!-- measures: to here -->"


def fill(runbook: str) -> str:
    """The runbook with its section of measures made anew. Raises `ValueError` where a mark is missing."""
    head, _, rest = runbook.partition(BEGIN)
    _, found, tail = rest.partition(END)
    if not found:
        raise ValueError(f"the runbook lacks the marks {BEGIN} … {END}")
    return "\n\n".join((f"{head}{BEGIN}", "\n".join(_sections()).strip(), f"{END}{tail}"))


def used_by(measure: Measure) -> tuple[str, ...]:
    """Names of our metrics that a measure asks for."""
    text = " ".join(query.expression for query in measure.queries)
    return tuple(each.name for each in metrics.MEASURES if each.name in text)


def _sections() -> Iterator[str]:
    told: set[str] = set()
    for title, rows in DASHBOARDS.values():
        yield f"### {title}\n"
        for measure in (measure for row in rows for measure in row.measures):
            if measure.name in told:  # it stands on two dashboards
                continue
            told.add(measure.name)
            names = ", ".join(f"`{name}`" for name in used_by(measure)) or "the process's own"
            yield f"#### {measure.title}\n"
            yield f"{measure.meaning} Metrics: {names}.\n"
            yield f"- Good: {measure.good}"
            yield f"- Otherwise: {measure.otherwise}\n"
