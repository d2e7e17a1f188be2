from __future__ import annotations

import io

import pytest
from rich.cells import cell_len
from rich.console import Console

from streams.demo.plan import Plan
from streams.demo.tally import Tally
from streams.demo.view import Status, View, draw
from tests.unit.demo.test_tally import event, make_list

EVIL = "\x1b]0;owned\x07[bold red]Evil\u202e title\n"


@pytest.fixture
def view():
    items = tuple(
        {"item_id": f"i{number}", "title": f"Film {number} with a title that is long"} for number in range(30)
    )
    late = ({"item_id": "late", "title": EVIL},)
    events = tuple(
        event(str(number), f"u{number % 6}", f"i{number % 30}", kind="rating", value=5) for number in range(100)
    )
    users = tuple({"user_id": f"u{number}", "attributes": {"occupation": "writer", "age": 30}} for number in range(6))
    plan = Plan(items, late, 50, users, events)
    tally, status = Tally(), Status("a data set with quite a long name", "replaying", late_published_at=1.0)
    view = View(plan, tally, status)
    tally.publish_items(items)
    tally.publish_items(late, 0.0)
    for number, one in enumerate(events):
        tally.publish_event(one, number / 50)
        places = ["late", *(f"i{place}" for place in range(9))]
        tally.receive_list(
            make_list(one["user_id"], places, trigger=one["event_id"], version=number), number / 50 + 0.01
        )
        view.tick(100 + number / 10)
    return view


def render(view, width, height):
    console = Console(width=width, height=height, file=io.StringIO(), force_terminal=True, color_system=None)
    console.print(view)
    return console.file.getvalue()


@pytest.mark.parametrize(("width", "height"), [(60, 16), (80, 24), (120, 40), (200, 60)])
def test_it_fits_the_terminal(view, width, height):
    lines = render(view, width, height).splitlines()
    assert len(lines) <= height
    assert max(map(cell_len, lines)) <= width


def test_it_shows_users_lists_latency_and_rates(view):
    text = render(view, 100, 40)
    for words in (
        "100 / 100 events",
        "user u3, writer, 30",
        "★★★★★ Film",
        "p50 10",
        "hit rate@10",
        "of 1 held-back items",
    ):
        assert words in text, words


def test_text_from_outside_can_neither_steer_the_terminal_nor_be_markup(view):
    text = render(view, 100, 40)
    assert "[bold red]Evil title" in text
    assert "\x07" not in text
    assert "\x1b]" not in text
    assert "\u202e" not in text


def test_the_live_page_is_named_while_there_is_one(view):
    view.status.page = "http://127.0.0.1:54321"
    assert "live page http://127.0.0.1:54321" in render(view, 60, 16)
    view.status.done = True
    assert "live page" not in render(view, 60, 16)


def test_an_empty_run_can_be_shown():
    text = render(View(Plan((), (), 0, (), ()), Tally(), Status("x", "starting")), 80, 24)
    assert "starting …" in text


def test_plain_lines(view):
    assert "100 of 100 events" in view.line(3.0)
    assert view.news() == [
        "         new item ']0;owned [bold red]Evil title' reached user u0 at place 1, 0.0 s after it was published"
    ]
    assert view.news() == []


def test_a_user_keeps_its_place_for_a_while(view):
    first = [user.user_id for user in view.choose_users(50.0, 3)]
    view.tally.publish_event(event("x", "newcomer", "i1"), 51.0)
    view.tally.receive_list(make_list("newcomer", ["i1"], trigger="x"), 51.0)
    assert [user.user_id for user in view.choose_users(51.0, 3)] == first
    assert "newcomer" in [user.user_id for user in view.choose_users(70.0, 3)]


def test_the_picture_asks_nothing_of_other_hosts(view):
    picture = draw(view, 100, 32)
    assert picture.startswith("<svg")
    assert "http" not in picture.replace("http://www.w3.org/2000/svg", "")
