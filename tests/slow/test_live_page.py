"""The live page in a headless browser, over a real broker and a real worker."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import time
from pathlib import Path

import pytest
from playwright import async_api as api

from streams.demo.helpers import Helpers, find_port
from streams.demo.run import start_broker
from streams.errors import ColdstreamError
from streams.kafka.publisher import KafkaPublisher
from streams.settings import Settings
from streams.values import Message, Topic

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
EVIL = "<img src=x onerror=\"document.title='owned'\">"
TITLES = {
    "boots": ("Alpine hiking boots", ["Outdoor"]), "tent": ("Two-person mountain tent", ["Outdoor"]),
    "pack": ("Trekking backpack, 45 litres", ["Outdoor"]), "poles": ("Carbon trekking poles", ["Outdoor"]),
    "stove": ("Gas stove for camping", ["Outdoor"]), "map": ("Map of Alpine huts and trails", ["Outdoor"]),
    "pan": ("Cast iron frying pan", ["Kitchen"]), "knife": ("Japanese chef's knife", ["Kitchen"]),
    "wok": ("Carbon steel wok", ["Kitchen"]), "mixer": ("Stand mixer with dough hook", ["Kitchen"]),
    "board": ("Walnut cutting board", ["Kitchen"]), "kettle": ("Enamel kettle", ["Kitchen"]),
}  # fmt: skip


@pytest.fixture
async def worker(tmp_path):
    """The URL of a worker with a small catalogue, whose page may write."""
    settings = Settings(
        kafka=f"127.0.0.1:{find_port()}",
        kafka_embedded=True,
        index=f"edge:{tmp_path}/index",
        http=f"127.0.0.1:{find_port()}",
    )
    environment = {
        **os.environ, "COLDSTREAM_KAFKA": settings.kafka, "COLDSTREAM_KAFKA_EMBEDDED": "true",
        "COLDSTREAM_INDEX": settings.index, "COLDSTREAM_HTTP": settings.http, "COLDSTREAM_HTTP_WRITES": "true",
    }  # fmt: skip
    folder = tmp_path / "helpers"
    folder.mkdir()
    with Helpers(folder) as helpers:
        await start_broker(helpers, settings, environment)
        publisher = KafkaPublisher(settings, idempotent=False)
        await publisher.start()
        items = [
            {"item_id": identity, "title": title, "categories": categories}
            for identity, (title, categories) in TITLES.items()
        ]
        await publisher.send([Message(Topic.ITEMS, one["item_id"].encode(), json.dumps(one).encode()) for one in items])
        await publisher.stop()
        helpers.start("worker", [sys.executable, "-m", "streams.commands.main", "worker"], environment)
        await_catalogue(settings, helpers)
        yield f"http://{settings.http}"


def await_catalogue(settings: Settings, helpers: Helpers) -> None:
    from streams.commands.client import read_counter

    deadline = time.monotonic() + 60
    while True:
        helpers.check()
        try:
            if read_counter(settings, "coldstream_known_items") >= len(TITLES):
                return
        except ColdstreamError:
            pass
        assert time.monotonic() < deadline, helpers.tail("worker")
        time.sleep(0.2)


@pytest.fixture
async def browser():
    async with api.async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        await browser.close()


@pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium")
async def test_a_click_changes_a_list_on_the_screen_within_a_second(worker, browser):
    page = await browser.new_page()
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.on("request", lambda request: None if request.url.startswith(worker) else wrong.append(request.url))
    await page.goto(worker)
    await api.expect(page.locator("#health")).to_have_text("ready", timeout=20_000)

    # By keyboard alone: follow a stranger, who gets a list too.
    await page.keyboard.press("Tab")
    await api.expect(page.locator(".skip")).to_be_focused()
    await page.fill("#user", "anna")
    await page.keyboard.press("Enter")
    await api.expect(page.locator("#list li")).to_have_count(10, timeout=10_000)
    await api.expect(page.locator("#user-note")).to_contain_text("Nothing is known")
    await api.expect(page.locator("#no-history")).to_be_visible()

    await page.fill("#search", "a pan for frying")
    await page.keyboard.press("Enter")
    await api.expect(page.locator("#found li").first).to_be_visible()
    before = await order(page)
    started = time.monotonic()
    await page.get_by_role("button", name="like Cast iron frying pan as the user", exact=True).click()
    await page.wait_for_function(
        "before => before !== JSON.stringify([...document.querySelectorAll('#list li')].map(one => one.dataset.item))",
        arg=json.dumps(before, separators=(",", ":")), timeout=5_000,
    )  # fmt: skip
    assert time.monotonic() - started < 1.0
    await api.expect(page.locator("#list-note")).to_contain_text("after the event")
    await api.expect(page.locator("#history li").first).to_contain_text("like: Cast iron frying pan")
    await api.expect(page.locator("#no-history")).to_be_hidden()

    # A click in the list names the list, and leaves the keyboard where it was.
    before = await order(page)
    await page.locator(f"#list li[data-item='{before[3]}'] button[data-act^=like]").focus()
    await page.keyboard.press("Enter")
    await api.expect(page.locator("#act-note")).to_contain_text(f"like of {TITLES[before[3]][0]} published")
    await api.expect(page.locator("#history li")).to_have_count(3)
    assert await page.evaluate("document.activeElement.dataset.act") == f"like {before[3]}"
    before = await order(page)
    await page.locator(f"#list li[data-item='{before[0]}'] button[data-act^=purchase]").focus()
    started = time.monotonic()
    await page.keyboard.press("Enter")
    await page.wait_for_function(
        "before => before !== JSON.stringify([...document.querySelectorAll('#list li')].map(one => one.dataset.item))",
        arg=json.dumps(before, separators=(",", ":")), timeout=5_000,
    )  # fmt: skip
    assert time.monotonic() - started < 1.0
    assert before[0] not in await order(page), "what was bought is not recommended"
    assert await page.evaluate("document.activeElement.id") == "user-panel", "its button is gone"
    joined = await attributed(page, worker)
    assert (joined["like"], joined["purchase"]) == (1, 1)
    assert await page.locator("#spark path").get_attribute("d")

    nameless = await page.evaluate(
        "[...document.querySelectorAll('button, input, textarea')].filter(one => "
        "!(one.ariaLabel || one.labels?.length || one.textContent.trim())).map(one => one.outerHTML)"
    )
    assert nameless == []

    # A new item reaches the catalogue; markup in a title is text.
    await page.fill("#item-form input[name=title]", EVIL)
    await page.fill("#item-form input[name=categories]", "Kitchen")
    await page.get_by_role("button", name="Publish").click()
    await api.expect(page.locator("#item-note")).to_contain_text("published as live-")
    await page.fill("#search", EVIL)
    await page.keyboard.press("Enter")
    await api.expect(page.locator("#found")).to_contain_text(EVIL)
    assert await page.title() == "Coldstream"
    assert await page.locator("#found img").count() == 0
    assert wrong == []


async def attributed(page, worker) -> dict[str, float]:
    """Events that were joined with the list they named, by type."""
    text = await (await page.request.get(f"{worker}/metrics")).text()
    found = re.findall(r'coldstream_attributed_events_total{found="listed",type="(\w+)"} ([0-9.]+)', text)
    return {kind: float(count) for kind, count in found}


async def order(page):
    return await page.eval_on_selector_all("#list li", "lines => lines.map(line => line.dataset.item)")


@pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium")
@pytest.mark.skipif(not os.environ.get("COLDSTREAM_PICTURES"), reason="COLDSTREAM_PICTURES names no folder")
@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_pictures_for_the_documentation(worker, browser, scheme):
    page = await browser.new_page(viewport={"width": 1280, "height": 860}, color_scheme=scheme)
    await page.goto(f"{worker}/?user=anna")
    await api.expect(page.locator("#health")).to_have_text("ready", timeout=20_000)
    await page.fill("#search", "walking in the mountains")
    await page.keyboard.press("Enter")
    chosen = [*TITLES]
    for number in range(24):
        user = ("boris", "anna", "clara", "deniz", "emil")[number % 5]
        item = chosen[(number * 5) % 6] if user == "anna" else chosen[(number * 7) % len(chosen)]
        event = {"user_id": user, "type": ("view", "like", "purchase")[number % 3], "item_id": item}
        await page.evaluate("event => publish('events', event)", event)
        await page.wait_for_timeout(400)
    await page.evaluate("document.activeElement.blur()")
    await page.wait_for_timeout(1_500)
    await page.screenshot(path=Path(os.environ["COLDSTREAM_PICTURES"]) / f"live-page-{scheme}.png")


@pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium")
async def test_it_is_usable_on_a_telephone_and_in_the_dark(worker, browser):
    page = await browser.new_page(viewport={"width": 390, "height": 800}, color_scheme="dark")
    await page.goto(f"{worker}/?user=boris")
    await api.expect(page.locator("#list li")).to_have_count(10, timeout=20_000)
    assert await page.evaluate("document.documentElement.scrollWidth") <= 390
    background = await page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert max(int(part) for part in background[4:-1].split(",")) < 64
