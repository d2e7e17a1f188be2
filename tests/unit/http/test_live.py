from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import msgspec
import pytest

from streams.decide.arms import PARTS
from streams.errors import PoisonError
from streams.http import live
from streams.http.live import MOST_WATCHERS, SHOWN_AT_ONCE, Feed, parse_value
from streams.http.routes import BadRequestError
from streams.values import Topic
from streams.wire import Event, Item
from tests.support.http_service import make_list, serve

__all__ = ["serve"]

WRITE = {"X-Coldstream": "1"}


async def read_tick(response):
    while True:
        line = await asyncio.wait_for(response.content.readline(), 5)
        if line.startswith(b"data: "):
            return json.loads(line[6:])


async def test_a_watcher_hears_lists_with_titles_and_latency(serve):
    async with serve() as site, site.session.get(site.server.url + "/live/stream") as response:
        assert response.content_type == "text/event-stream"
        assert (await read_tick(response))["lists"] == []
        site.server.feed.show(make_list("u", ["item/1"]), 0.012)
        tick = await read_tick(response)
        assert tick["delivered"] == 1
        assert tick["titles"] == {"item/1": "Film <b>1</b>"}
        ((happening),) = tick["lists"]
        assert happening["milliseconds"] == 12
        assert happening["recommendation"]["user_id"] == "u"


def test_a_fast_stream_never_hides_the_user_who_is_followed():
    feed = Feed()
    assert not feed.watched
    watcher = feed.join("me")
    feed.show(make_list("me", ["item/1"]), None)
    for number in range(1000):
        feed.show(make_list(f"u{number}", []), 0.001)
    lists, delivered = watcher.take()
    assert delivered == 1001
    assert len(lists) == SHOWN_AT_ONCE + 1
    assert "me" in [happening.recommendation.user_id for happening in lists]
    assert watcher.take() == ((), 0)


def test_watchers_are_bounded():
    feed = Feed()
    watchers = [feed.join(None) for _ in range(MOST_WATCHERS)]
    with pytest.raises(BadRequestError, match="close one"):
        feed.join(None)
    feed.leave(watchers[0])
    feed.join(None)


async def test_a_page_that_is_closed_leaves_and_a_stop_ends_the_open_ones(serve):
    async with serve() as site:
        async with site.session.get(site.server.url + "/live/stream") as response:
            await read_tick(response)
            assert site.server.feed.watched
        for _ in range(100):
            site.server.feed.show(make_list("u", []), None)
            if not site.server.feed.watched:
                break
            await asyncio.sleep(0.05)
        assert not site.server.feed.watched
        open_one = await site.session.get(site.server.url + "/live/stream")
        await read_tick(open_one)
        await asyncio.wait_for(site.server.stop(), 3)
        open_one.close()


async def test_writes_are_refused_unless_enabled(serve):
    async with serve() as site:
        answer = await site.session.post(site.server.url + "/live/publish/events", json={}, headers=WRITE)
        assert answer.status == 403
        assert "COLDSTREAM_HTTP_WRITES" in (await answer.json())["error"]
        assert (await site.get("/live/may"))[1] == {"writes": False}
        assert site.service.published == []


async def test_an_event_and_an_item_can_be_published(serve):
    async with serve(http_writes=True) as site:
        event = {"user_id": "u", "type": "like", "item_id": "item/1"}
        answer = await site.session.post(site.server.url + "/live/publish/events", json=event, headers=WRITE)
        assert answer.status == 202
        answer = await site.session.post(
            site.server.url + "/live/publish/items", json={"item_id": "n", "title": "New"}, headers=WRITE
        )
        assert answer.status == 202
        first, second = site.service.published
        assert isinstance(first, Event)
        assert first.event_id.startswith("live-")
        assert isinstance(second, Item)
        assert second.title == "New"


async def test_a_foreign_page_and_bad_values_are_refused(serve):
    async with serve(http_writes=True) as site:
        url = site.server.url + "/live/publish/events"
        good = {"user_id": "u", "type": "like", "item_id": "i"}
        refused = [
            await site.session.post(url, json=good),
            await site.session.post(url, data=json.dumps(good), headers={**WRITE, "Content-Type": "text/plain"}),
            await site.session.post(url, json={**good, "type": "stare"}, headers=WRITE),
            await site.session.post(url, json={"user_id": "u", "type": "search"}, headers=WRITE),
            await site.session.post(url, data="{", headers={**WRITE, "Content-Type": "application/json"}),
            await site.session.post(site.server.url + "/live/publish/users", json={}, headers=WRITE),
            await site.session.post(url, json={**good, "query": "x" * 100_000}, headers=WRITE),
        ]
        assert [answer.status for answer in refused] == [400, 400, 400, 400, 400, 404, 413]
        assert site.service.published == []


def test_values_are_checked_as_on_the_topic():
    event = parse_value(Topic.EVENTS, b'{"user_id":"u","type":"search","query":"boots"}', 1_700_000_000.0)
    assert event.timestamp == "2023-11-14T22:13:20.000Z"
    with pytest.raises(PoisonError, match="more than a day ahead"):
        parse_value(Topic.EVENTS, b'{"user_id":"u","type":"view","item_id":"i","timestamp":4e9}', 1_700_000_000.0)
    with pytest.raises(PoisonError, match="no JSON object"):
        parse_value(Topic.ITEMS, b"[" * 20_000, 0.0)


async def test_the_page_asks_nothing_of_other_hosts_and_runs_no_inline_script(serve):
    async with serve() as site:
        for path in live.PAGE:
            async with site.session.get(site.server.url + path) as response:
                assert response.status == 200
                assert "default-src 'none'" in response.headers["Content-Security-Policy"]
                text = await response.text()
                assert not re.search(r"https?://|//cdn", text)
                assert " on" + "click=" not in text


def test_the_page_never_writes_markup_from_data():
    script = (Path(live.__file__).parent / "page/page.js").read_text()
    for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
        assert way not in script


def test_the_page_has_a_colour_for_each_part_of_a_score():
    page = Path(live.__file__).parent / "page"
    (listed,) = re.findall(r"const PARTS = (\[.*\]);", (page / "page.js").read_text())
    assert sorted(json.loads(listed)) == sorted(PARTS)
    style = (page / "page.css").read_text()
    for part in PARTS:
        (colour,) = re.findall(rf"\.part-{part} {{ --part: var\((--\w+)\); }}", style)
        assert len(re.findall(rf"{colour}: #", style)) == 2, "in light and in dark"


def luminance(colour: str) -> float:
    """Relative luminance of #rgb or #rrggbb (WCAG 2)."""
    digits = colour if len(colour) == 6 else "".join(2 * digit for digit in colour)
    parts = [int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_what_is_read_stands_out_from_what_is_behind_it(scheme):
    style = (Path(live.__file__).parent / "page" / "page.css").read_text()
    blocks = re.findall(r":root \{(.*?)\n *\}", style, re.DOTALL)
    colours = {name: luminance(value) for name, value in re.findall(r"--(\w+): #(\w+)", blocks[scheme])}
    text = ("ink", "dull", "accent", "good", "bad")
    parts = ("history", "similar", "popular", "new", "profile", "wish")
    for names, wanted in ((text, 4.5), (parts, 3.0)):  # WCAG 2.2, 1.4.3 and 1.4.11
        for name in names:
            for behind in ("card", "back"):
                light, dark = sorted((colours[name], colours[behind]), reverse=True)
                assert (light + 0.05) / (dark + 0.05) >= wanted, f"{name} on {behind}"


def test_a_tick_is_small_enough_for_a_second_of_a_fast_stream():
    lists = tuple(
        live.Happening(make_list("u", [f"item/{n}" for n in range(10)]), 1.0) for _ in range(2 * SHOWN_AT_ONCE)
    )
    assert len(msgspec.json.encode(live.Tick(lists, 0, {}, (), 0.0))) < 64_000
