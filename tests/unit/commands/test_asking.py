"""`recommend` and `similar` against a real HTTP port."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from streams.commands import main
from tests.support.http_service import Site, serve_fake


@contextmanager
def running(monkeypatch: pytest.MonkeyPatch, **settings: str) -> Iterator[Site]:
    """A server on a thread of its own, found through the environment."""
    started: list[Site] = []
    ready, stop = threading.Event(), threading.Event()

    async def serve() -> None:
        async with serve_fake(**settings) as site:
            started.append(site)
            ready.set()
            await asyncio.to_thread(stop.wait)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert ready.wait(10)
    monkeypatch.setenv("COLDSTREAM_HTTP", started[0].server.url.removeprefix("http://"))
    try:
        yield started[0]
    finally:
        stop.set()
        thread.join()


def test_recommend_shows_titles_and_reasons(monkeypatch, capsys):
    with running(monkeypatch) as site:
        assert main.run(["recommend", "a/b", "--limit", "2", "--exclude", "item/0", "--query", "heist"]) == 0
        ((user, wish),) = site.service.wishes
    assert (user, wish.limit, wish.query) == ("a/b", 2, "heist")
    said = capsys.readouterr().out
    assert "Film <b>1</b>" in said
    assert "liked by many these days" in said
    assert "item/0" not in said


def test_recommend_json_is_the_value_of_the_topic(monkeypatch, capsys):
    with running(monkeypatch):
        assert main.run(["recommend", "u", "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert [item["rank"] for item in json.loads(line)["items"]] == list(range(1, 11))


def test_similar(monkeypatch, capsys):
    with running(monkeypatch):
        assert main.run(["similar", "item/3", "--limit", "2"]) == 0
        assert "much the same words" in capsys.readouterr().out
        assert main.run(["similar", "nothing"]) == 1
        assert capsys.readouterr().err == "coldstream: there is no item 'nothing' in the catalogue\n"


def test_the_workers_own_sentence_is_passed_on(monkeypatch, capsys):
    with running(monkeypatch) as site:
        site.service.away = True
        assert main.run(["recommend", "u"]) == 1
    assert capsys.readouterr().err == "coldstream: the index does not answer\n"


def test_the_token_is_sent(monkeypatch, capsys, tmp_path):
    secret = tmp_path / "token"
    secret.write_text("sesame")
    with running(monkeypatch, http_token_file=str(secret)):
        assert main.run(["similar", "item/1"]) == 1
        assert "Bearer" in capsys.readouterr().err
        monkeypatch.setenv("COLDSTREAM_HTTP_TOKEN_FILE", str(secret))
        assert main.run(["similar", "item/1"]) == 0


def test_no_worker_is_said_with_what_to_do(monkeypatch, capsys):
    monkeypatch.setenv("COLDSTREAM_HTTP", "127.0.0.1:1")
    assert main.run(["recommend", "u"]) == 1
    said = capsys.readouterr().err
    assert "start `coldstream worker`" in said
    assert said.count("\n") == 1
