"""What is looked at: each measure once, with its PromQL, what good looks like, and what to do when it isn't.

In an expression `<where>` stands for the label matchers of a dashboard's variables and `<window>` for the range of a
rate; `Measure.ask` fills them in, so that a panel, an alert and a recording rule ask the very same question.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum


class View(StrEnum):
    """How a measure is drawn."""

    NUMBER = "number"
    LINES = "lines"
    STACK = "stack"
    HEATMAP = "heatmap"
    STATES = "states"


@dataclass(frozen=True, slots=True)
class Query:
    """One question to Prometheus and the name of each answer (Grafana's legend format)."""

    expression: str
    legend: str = ""

    def ask(self, *, where: str = "", window: str = "5m") -> str:
        """The PromQL for these label matchers and this window."""
        filled = self.expression.replace("<where>", where).replace("<window>", window)
        return re.sub(r"\{\s*\}", "", re.sub(r",\s*\}", "}", filled))


@dataclass(frozen=True, slots=True)
class Measure:
    """One thing to look at.

    `unit` is Grafana's name of it; `warn` and `bad` colour a value, `rising` says that more is worse.
    """

    name: str
    title: str
    view: View
    unit: str
    queries: tuple[Query, ...]
    meaning: str
    good: str
    otherwise: str
    warn: float | None = None
    bad: float | None = None
    rising: bool = True

    def ask(self, *, where: str = "", window: str = "5m") -> str:
        """The PromQL of the first query."""
        return self.queries[0].ask(where=where, window=window)

    @property
    def description(self) -> str:
        """The text behind a panel's (i)."""
        return f"{self.meaning}\n\n**Good:** {self.good}\n\n**Otherwise:** {self.otherwise}"


@dataclass(frozen=True, slots=True)
class Row:
    """A dashboard's row: measures that fit side by side on a laptop's screen."""

    title: str
    measures: tuple[Measure, ...]


def quantiles(
    metric: str, by: str = "", matchers: str = "", which: tuple[float, ...] = (0.5, 0.95, 0.99)
) -> tuple[Query, ...]:
    """Quantiles of a histogram, one query each; `by` is a label to keep beside `le`."""
    kept = f"le, {by}" if by else "le"
    name = f"{{{{{by}}}}} " if by else ""
    inner = _inner(matchers)
    return tuple(
        Query(
            f"histogram_quantile({share}, sum by ({kept}) (rate({metric}_bucket{{{inner}}}[<window>])))",
            f"{name}p{share * 100:g}" if len(which) > 1 else f"{name}".strip() or f"p{share * 100:g}",
        )
        for share in which
    )


def heat(metric: str) -> tuple[Query, ...]:
    """The buckets of a histogram as rows of a heatmap."""
    return (Query(f"sum by (le) (increase({metric}_bucket{{<where>}}[<window>]))", "{{le}}"),)


def gauge(metric: str, by: str = "instance", *, how: str = "max", matchers: str = "") -> Query:
    """What a gauge says, by a label (or several): `how` is the aggregation over the others."""
    return Query(f"{how} by ({by}) ({metric}{{{_inner(matchers)}}})", _legend(by))


def total(metric: str, legend: str) -> Query:
    """A counter's events per second, of all workers together."""
    return Query(f"sum(rate({metric}{{<where>}}[<window>]))", legend)


def rate(metric: str, by: str, matchers: str = "") -> Query:
    """A counter's events per second, by a label (or several)."""
    return Query(f"sum by ({by}) (rate({metric}{{{_inner(matchers)}}}[<window>]))", _legend(by))


def ratio(above: str, below: str, by: str = "", legend: str = "all") -> Query:
    """One counter's events for each of another's, by a label or over all; 0 where there are none of the first yet.

    Both are given by name, or with their own matchers as `name{label="value"`, open at the end.
    """
    kept = f" by ({by})" if by else ""
    of = f"sum{kept} (rate({_close(below)}[<window>]))"
    return Query(f"(sum{kept} (rate({_close(above)}[<window>])) or 0 * {of}) / {of}", _legend(by) if by else legend)


def spread(above: str, below: str, by: str) -> Query:
    """One counter's events by a label, each for all of another's: parts that add up. Given as for `ratio`."""
    return Query(
        f"sum by ({by}) (rate({_close(above)}[<window>])) / on () group_left () sum(rate({_close(below)}[<window>]))",
        _legend(by),
    )


def _inner(matchers: str) -> str:
    return f"{matchers}, <where>" if matchers else "<where>"


def _close(given: str) -> str:
    return f"{given}, <where>}}" if "{" in given else f"{given}{{<where>}}"


def _legend(by: str) -> str:
    return " ".join(f"{{{{{label.strip()}}}}}" for label in by.split(","))
