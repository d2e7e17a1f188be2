"""How a demonstration looks: a live view on a terminal, plain lines elsewhere. Reads the tally, changes nothing.

Titles and texts are data: they are cleaned of control characters and never read as markup.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from streams.commands.output import clean, shorten
from streams.dataset import Line
from streams.demo.plan import Plan
from streams.demo.tally import Arrival, Shown, Tally

SVG: Final = """\
<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font: {char_height}px/{line_height}px Menlo, Consolas, "DejaVu Sans Mono", monospace; }}
.{unique_id}-title {{ font: bold 18px sans-serif; }}
{styles}
</style>
<defs><clipPath id="{unique_id}-clip-terminal"><rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/>
</clipPath>{lines}</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}<g class="{unique_id}-matrix">{matrix}</g></g>
</svg>
"""
"""Rich's own template without the fonts that it fetches from another host."""
BARS: Final = "▁▂▃▄▅▆▇█"
CARD_SECONDS: Final = 6.0
"""A user stays on the screen at least this long: eyes are slower than events."""
DULL: Final = "bright_black"
ACCENT: Final = "cyan"
NEW: Final = "magenta"


@dataclass(slots=True)
class Status:
    """What is going on, beside the numbers. `name` is the data set's."""

    name: str
    what: str
    replay_at: float | None = None
    late_published_at: float | None = None
    done: bool = False
    page: str = ""
    """Address of the worker's live page, once there is one."""


class View:
    """Renders the state of a run for a console of any width from 60 on; made anew for each frame by Rich."""

    def __init__(self, plan: Plan, tally: Tally, status: Status) -> None:
        self.plan = plan
        self.tally = tally
        self.status = status
        self.titles: dict[str, str] = {
            item["item_id"]: str(item.get("title", item["item_id"])) for item in (*plan.items, *plan.late_items)
        }
        self._late = frozenset(item["item_id"] for item in plan.late_items)
        self._people = {user["user_id"]: user for user in plan.users}
        self._cards: list[tuple[float, str]] = []
        self.pace: list[tuple[float, float]] = []
        """(events a second, p50 in milliseconds) of each second of the run."""
        self._told = 0
        self._last: tuple[float, int, int] = (0.0, 0, 0)

    def tick(self, now: float) -> None:
        """Note the pace; called a few times a second."""
        then, events, answers = self._last
        if now - then >= 1.0:
            if then and self.tally.events > events:
                latest = len(self.tally.latencies) - answers
                p50 = self.tally.latency_milliseconds(latest).get("p50", 0.0) if latest else 0.0
                self.pace.append(((self.tally.events - events) / (now - then), p50))
            self._last = (now, self.tally.events, len(self.tally.latencies))

    def choose_users(self, now: float, count: int) -> list[Shown]:
        """Users whose lists came last; each keeps its place for a while."""
        users = self.tally.users
        stay = [
            (since, user) for since, user in self._cards if now - since < CARD_SECONDS or users[user].at > now - 1.5
        ]
        shown = {user for _, user in stay}
        fresh = sorted(
            (user for user in users.values() if user.list is not None and user.event and user.user_id not in shown),
            key=lambda user: -user.at,
        )
        self._cards = (stay + [(now, user.user_id) for user in fresh])[:count]
        return [users[user] for _, user in self._cards]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width, height = options.max_width, options.max_height
        cards = max(1, min(4, (height - 7) // 6))
        lines = max(3, min(6, (height - 7) // cards - 2))
        users = self.choose_users(self._last[0], cards)
        yield Group(
            self._header(width),
            self._figures(width),
            *(self._card(user, width, lines) for user in users),
            self._late_panel(width),
        )

    def _header(self, width: int) -> Text:
        done, total = self.tally.events, len(self.plan.events)
        right = f" {done:,} / {total:,} events" if done else f" {self.status.what} …"
        left = f" Coldstream · {shorten(self.status.name, 24)} "
        room = max(width - len(left) - len(right) - 1, 0)
        full = round(room * done / max(total, 1))
        line = Text(no_wrap=True, overflow="crop")
        line.append(left, "bold")
        line.append("━" * full, ACCENT).append("━" * (room - full), DULL)
        return line.append(right)

    def _figures(self, width: int) -> Panel:
        tally = self.tally
        pace = f"{self.pace[-1][0]:,.0f}" if self.pace else "–"
        latency = tally.latency_milliseconds()
        lost = f" · {tally.lost:,} lost" if self.status.done else ""
        counts = Text(f"{pace} events/s · {tally.recommendations:,} lists · {tally.dead_letters:,} refused{lost} · ")
        counts.append("latency ")
        counts.append(" ".join(f"{name} {value:,.0f}" for name, value in latency.items()) or "–", "bold").append(" ms")
        trend = Text("p50 by second ", DULL).append(self._spark(width - 18), ACCENT)
        lines = Group(*(self._fit(line) for line in (counts, trend, self._rates())))
        page = Text(f"live page {self.status.page}", DULL) if self.status.page and not self.status.done else None
        return Panel(lines, box=box.ROUNDED, border_style=DULL, width=width, subtitle=page, subtitle_align="right")

    def _rates(self) -> Text:
        tally = self.tally
        line = Text("hit rate@10: lists ", DULL)
        if not tally.steps:
            return line.append("–")
        ours, popular = (f"{100 * hits / tally.steps:.1f} %" for hits in (tally.hits, tally.popular_hits))
        line.append(ours, "bold green" if tally.hits > tally.popular_hits else "bold")
        line.append(" · recent popularity ", DULL).append(popular)
        return line.append(f" · of {tally.steps:,} liked next", DULL)

    @staticmethod
    def _fit(line: Text) -> Text:
        line.no_wrap, line.overflow = True, "ellipsis"
        return line

    def _spark(self, width: int) -> str:
        values = [p50 for _, p50 in self.pace[-max(width, 8) :]]
        top = max([*values, 1.0])
        return "".join(BARS[min(int(value / top * (len(BARS) - 1) + 0.5), len(BARS) - 1)] for value in values)

    def _card(self, user: Shown, width: int, lines: int) -> Panel:
        table = Table.grid(padding=(0, 1), expand=True)
        table.add_column(width=2, justify="right", style=DULL)
        table.add_column(ratio=5, no_wrap=True, overflow="ellipsis")
        table.add_column(ratio=4, no_wrap=True, overflow="ellipsis", style=DULL)
        for place in user.list.items[:lines] if user.list else ():
            new = place.item_id in self._late
            title = Text(clean(self.titles.get(place.item_id, place.item_id)), NEW if new else "")
            table.add_row(str(place.rank), title, Text(clean(place.reason.text)))
        seconds = f"{1000 * user.seconds:,.0f} ms" if user.seconds is not None else ""
        head = Text(no_wrap=True)
        head.append(f"{shorten(self._who(user.user_id), 30)} ", "bold").append(
            self._did(user.event, width - 46), ACCENT
        )
        return Panel(
            table, box=box.ROUNDED, border_style=DULL, width=width, title=head, title_align="left",
            subtitle=Text(seconds, DULL), subtitle_align="right",
        )  # fmt: skip

    def _late_panel(self, width: int) -> Text:
        line = Text(" ", no_wrap=True, overflow="ellipsis")
        count = len(self._late)
        if not count:
            return line
        if self.status.late_published_at is None:
            return line.append(f"{count} items are held back until the middle of the replay", DULL)
        arrival = self._first_arrival()
        line.append("new ", f"bold {NEW}")
        line.append(f"{len(self.tally.arrivals)} of {count} held-back items reached a list", DULL)
        if arrival is not None:
            title = shorten(self.titles[arrival.item_id], max(width - 75, 12))
            line.append(" · ", DULL).append(title, NEW).append(f" → {shorten(arrival.user_id, 8)}")
            line.append(f" after {arrival.seconds:.1f} s", DULL)
        return line

    def _first_arrival(self) -> Arrival | None:
        arrivals = list(self.tally.arrivals.values())
        return next((one for one in arrivals if one.by_itself), arrivals[0] if arrivals else None)

    def _who(self, user_id: str) -> str:
        attributes: Mapping[str, object] = self._people.get(user_id, {}).get("attributes") or {}
        details = [str(attributes[name]) for name in ("occupation", "age", "country") if name in attributes]
        return ", ".join([f"user {user_id}", *details])

    def _did(self, event: Line | None, room: int) -> str:
        if event is None:
            return ""
        kind = str(event.get("type"))
        what = event.get("query") or self.titles.get(event.get("item_id", ""), event.get("item_id", ""))
        if kind == "rating":
            value = event.get("value", 0)
            kind = "★" * round(value) if 0 < value <= 5 else f"rated {value:g}:"
        return f"{kind} {shorten(str(what), max(room, 12))}"

    def line(self, elapsed: float) -> str:
        """The state in one plain line, for a log."""
        tally = self.tally
        latency = " ".join(f"{name} {value:.0f} ms" for name, value in tally.latency_milliseconds().items())
        text = f"{elapsed:5.0f} s  {tally.events:,} of {len(self.plan.events):,} events"
        text += f"  {tally.recommendations:,} lists  {latency}"
        if tally.steps:
            text += (
                f"  hit rate {tally.hits / tally.steps:.1%}, recent popularity {tally.popular_hits / tally.steps:.1%}"
            )
        return text

    def news(self) -> list[str]:
        """What a reader of plain lines has not been told yet: the first late items that reached somebody."""
        arrivals = list(self.tally.arrivals.values())[self._told : 3]
        self._told += len(arrivals)
        return [
            f"         new item {clean(self.titles[one.item_id])!r} reached user {clean(one.user_id)}"
            f" at place {one.rank}, {one.seconds:.1f} s after it was published{', unasked' if one.by_itself else ''}"
            for one in arrivals
        ]


def draw(view: View, width: int, height: int) -> str:
    """The view as an SVG picture of a terminal of that size."""
    console = Console(
        record=True, width=width, height=height, file=io.StringIO(), force_terminal=True, color_system="truecolor"
    )
    console.print(view)
    return console.export_svg(title="coldstream demo", code_format=SVG, unique_id="demo")
