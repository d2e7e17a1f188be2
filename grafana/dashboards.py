"""Measures and rows as Grafana's classic dashboards. Data source and instance are variables; no numeric id is fixed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Final

from grafana_foundation_sdk.builders import common, dashboard, heatmap, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as common_models
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models import heatmap as heatmap_models
from grafana_foundation_sdk.models import prometheus as prometheus_models

from grafana import catalogue, recommendations, service
from grafana.measures import Measure, Query, Row, View

DASHBOARDS: Final = {
    "service": (service.TITLE, service.ROWS),
    "recommendations": (recommendations.TITLE, recommendations.ROWS),
    "catalogue": (catalogue.TITLE, catalogue.ROWS),
}
"""By the name of the file."""

WHERE: Final = 'instance=~"$instance"'
WINDOW: Final = "$__rate_interval"
COLUMNS: Final = 24
NUMBER_COLUMNS: Final = 4
HEIGHT: Final = 7
TAG: Final = "coldstream"
_SOURCE: Final = models.DataSourceRef(type_val="prometheus", uid="${datasource}")

Panel = stat.Panel | timeseries.Panel | heatmap.Panel


def render(name: str) -> str:
    """One dashboard as JSON text, ending in a line's end."""
    title, rows = DASHBOARDS[name]
    return json.dumps(_build(name, title, rows), cls=JSONEncoder, indent=2, ensure_ascii=False) + "\n"


def _build(name: str, title: str, rows: Sequence[Row]) -> models.Dashboard:
    board = (
        dashboard.Dashboard(title)
        .uid(f"coldstream-{name}")
        .tags([TAG])
        .editable()
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .time("now-1h", "now")
        .refresh("10s")
        .timezone("browser")
        .with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"))
        .with_variable(
            dashboard.QueryVariable("instance")
            .label("Worker")
            .datasource(_SOURCE)
            .query("label_values(coldstream_build_info, instance)")
            .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
            .multi(multi=True)
            .include_all(include_all=True)
            .all_value(".+")
            .sort(models.VariableSort.ALPHABETICAL_ASC)
        )
        .link(
            dashboard.DashboardLink("Coldstream")
            .type(models.DashboardLinkType.DASHBOARDS)
            .tags([TAG])
            .keep_time(keep_time=True)
            .include_vars(include_vars=True)
        )
    )
    top = 0
    for row in rows:
        place = models.GridPos(h=1, w=COLUMNS, x=0, y=top)
        board.with_row(dashboard.Row(row.title).collapsed(collapsed=False).grid_pos(place))
        for measure, x, width in _arrange(row.measures):
            board.with_panel(_panel(measure).grid_pos(models.GridPos(h=HEIGHT, w=width, x=x, y=top + 1)))
        top += 1 + HEIGHT
    return board.build()


def _arrange(measures: Sequence[Measure]) -> Iterator[tuple[Measure, int, int]]:
    """Each measure of a row with its left edge and width: numbers are narrow, the others share what is left."""
    wide = [measure for measure in measures if measure.view is not View.NUMBER]
    left = COLUMNS - NUMBER_COLUMNS * (len(measures) - len(wide))
    x = 0
    for measure in measures:
        width = NUMBER_COLUMNS if measure.view is View.NUMBER else left // len(wide)
        yield measure, x, width
        x += width


def _panel(measure: Measure) -> Panel:
    panel: Panel
    if measure.view is View.NUMBER:
        panel = (
            stat.Panel()
            .graph_mode(common_models.BigValueGraphMode.NONE)
            .color_mode(common_models.BigValueColorMode.VALUE)
            .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        )
    elif measure.view is View.HEATMAP:
        panel = (
            heatmap.Panel()
            .calculate(calculate=False)
            .color(
                heatmap.HeatmapColorOptions().mode(heatmap_models.HeatmapColorMode.SCHEME).scheme("Viridis").steps(64)
            )
            .y_axis(heatmap.YAxisConfig().unit(measure.unit))
            .cell_gap(1)
            .show_legend()
            .mode(common_models.TooltipDisplayMode.SINGLE)
        )
    else:
        panel = _lines(measure)
    panel.title(measure.title).description(measure.description).datasource(_SOURCE)
    if measure.view is not View.HEATMAP:
        panel.unit(measure.unit)
    panel.thresholds(_thresholds(measure))
    for position, query in enumerate(measure.queries):
        panel.with_target(_target(query, chr(ord("A") + position), measure.view))
    return panel


def _lines(measure: Measure) -> timeseries.Panel:
    panel = (
        timeseries.Panel()
        .line_width(1)
        .show_points(common_models.VisibilityMode.NEVER)
        .min(0)
        .legend(
            common.VizLegendOptions()
            .display_mode(common_models.LegendDisplayMode.LIST)
            .placement(common_models.LegendPlacement.BOTTOM)
            .show_legend(show_legend=True)
        )
        .tooltip(
            common.VizTooltipOptions()
            .mode(common_models.TooltipDisplayMode.MULTI)
            .sort(common_models.SortOrder.DESCENDING)
        )
    )
    if measure.view is View.STACK:
        panel.stacking(common.StackingConfig().mode(common_models.StackingMode.NORMAL)).fill_opacity(40)
    else:
        panel.fill_opacity(8)
    if measure.view is View.STATES:
        panel.line_interpolation(common_models.LineInterpolation.STEP_AFTER)
    if measure.warn is not None:
        mode = common_models.GraphThresholdsStyleMode.DASHED
        panel.thresholds_style(common.GraphThresholdsStyleConfig().mode(mode))
    return panel


def _thresholds(measure: Measure) -> dashboard.ThresholdsConfig:
    if measure.warn is None or measure.bad is None:
        marks: list[tuple[float | None, str]] = [(None, "green")]
    elif measure.rising:
        marks = [(None, "green"), (measure.warn, "orange"), (measure.bad, "red")]
    else:
        marks = [(None, "red"), (measure.bad, "orange"), (measure.warn, "green")]
    steps = [models.Threshold(value=value, color=color) for value, color in marks]
    return dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps)


def _target(query: Query, letter: str, view: View) -> prometheus.Dataquery:
    expression = query.ask(where=WHERE, window=WINDOW)
    target = prometheus.Dataquery().expr(expression).legend_format(query.legend).ref_id(letter)
    if view is View.NUMBER:
        return target.instant()
    if view is View.HEATMAP:
        return target.range().format(prometheus_models.PromQueryFormat.HEATMAP)
    return target.range()
