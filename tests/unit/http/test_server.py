from __future__ import annotations

import json
import socket
import uuid

import pytest

from streams.errors import ConfigurationError
from streams.http.routes import MOST_EXCLUDED
from streams.http.server import LARGEST_LINE_BYTES, HttpServer, is_loopback, parse_address
from streams.metrics import Metrics
from streams.settings import Settings
from tests.support.http_service import serve

__all__ = ["serve"]  # a fixture is found by its name in this module


async def test_a_list_is_the_value_of_the_topic_and_wishes_arrive(serve):
    async with serve() as site:
        status, answer = await site.get(
            "/recommendations/a%2Fb%20c?limit=3&exclude=item/0,item/1&exclude=item/2&category=Drama&query=heist&profile=cars"
        )
        assert status == 200
        assert answer["user_id"] == "a/b c"
        assert [item["item_id"] for item in answer["items"]] == ["item/3", "item/4", "item/5"]
        ((user, wish),) = site.service.wishes
        assert (user, wish.limit, wish.category, wish.query, wish.profile) == ("a/b c", 3, "Drama", "heist", "cars")
        assert {"item/0", "item/1", "item/2", "item/0,item/1"} <= wish.exclude


async def test_the_word_null_is_a_word_and_a_thousand_exclusions_fit(serve):
    async with serve() as site:
        await site.get("/recommendations/u?query=null&category=null&profile=null")
        exclude = "&".join(f"exclude={uuid.UUID(int=number)}" for number in range(MOST_EXCLUDED))
        status, _ = await site.get(f"/recommendations/u?{exclude}")
        assert status == 200
        first, second = (wish for _, wish in site.service.wishes)
        assert (first.query, first.category, first.profile) == ("null", "null", "null")
        assert len(second.exclude) == MOST_EXCLUDED
        assert (second.query, second.category, second.profile) == (None, None, None)


async def test_without_a_limit_the_list_is_as_long_as_on_the_topic(serve):
    async with serve(list_size=7) as site:
        _, answer = await site.get("/recommendations/u")
        assert len(answer["items"]) == 7


async def test_similar_items_and_none_such(serve):
    async with serve() as site:
        status, answer = await site.get("/items/item%2F1/similar?limit=2")
        assert (status, len(answer["items"])) == (200, 2)
        status, answer = await site.get("/items/nothing/similar")
        assert (status, answer) == (404, {"error": "there is no item 'nothing' in the catalogue"})


async def test_items_by_id_and_by_words(serve):
    async with serve() as site:
        _, answer = await site.get("/items?id=item/2&id=none&id=item/1")
        assert [item["item_id"] for item in answer["items"]] == ["item/2", "item/1"]
        _, answer = await site.get("/items?query=%3E14&limit=3")
        assert [item["item_id"] for item in answer["items"]] == ["item/14", "item/140", "item/141"]


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/recommendations/u?limit=0", "limit"),
        ("/recommendations/u?limit=101", "limit"),
        ("/recommendations/u?limit=ten", "limit"),
        ("/recommendations/u?limit=null", "limit"),
        ("/recommendations/u?limit=5&limit=6", "twice"),
        ("/recommendations/u?limt=5", "no parameter 'limt'"),
        ("/recommendations/u?query=", "query"),
        (f"/recommendations/u?profile={'x' * 2001}", "profile"),
        (f"/recommendations/{'u' * 513}", "512"),
        ("/items", "either"),
        ("/items?id=1&query=x", "either"),
        ("/items/item%2F1/similar?limit=-1", "limit"),
    ],
)
async def test_bad_input_is_400_with_a_sentence(serve, path, words):
    async with serve() as site:
        status, answer = await site.get(path)
        assert status == 400
        assert words in answer["error"]


async def test_health_and_readiness(serve):
    async with serve() as site:
        assert await site.get("/healthz") == (200, {"status": "alive", "reasons": []})
        assert (await site.get("/readyz"))[0] == 200
        site.service.missing.append("no partition is assigned yet")
        assert await site.get("/readyz") == (
            503,
            {"status": "not ready", "reasons": ["no partition is assigned yet"]},
        )
        assert "coldstream_ready 0.0" in (await site.get("/metrics"))[1]


async def test_metrics_count_requests_by_route_and_not_by_user(serve):
    async with serve() as site:
        for number in range(5):
            await site.get(f"/recommendations/user-{number}")
        await site.get("/nowhere/at/all")
        status, text = await site.get("/metrics")
        assert status == 200
        assert 'coldstream_http_requests_total{route="/recommendations/{user}",status="2xx"} 5.0' in text
        assert 'coldstream_http_requests_total{route="none",status="4xx"} 1.0' in text
        assert "user-1" not in text


async def test_failures_are_sentences_and_never_tracebacks(serve):
    async with serve() as site:
        site.service.away = True
        assert await site.get("/recommendations/u") == (503, {"error": "the index does not answer"})
        site.service.away, site.service.broken = False, True
        status, answer = await site.get("/recommendations/u")
        assert status == 500
        assert "secret" not in json.dumps(answer)
        status, answer = await site.get("/nowhere")
        assert (status, answer) == (404, {"error": "there is no such route: /openapi.json lists them"})
        async with site.session.delete(site.server.url + "/items") as response:
            assert response.status == 405
            assert "GET" in response.headers["Allow"]


async def test_a_request_that_can_not_be_read_is_one_line_of_the_log(serve, caplog):
    async with serve() as site:
        async with site.session.get(site.server.url + "/items?query=" + "x" * LARGEST_LINE_BYTES) as response:
            assert response.status == 400
        assert (await site.get("/healthz"))[0] == 200
    (line,) = [record for record in caplog.records if record.name == "aiohttp.server"]
    assert (line.levelname, line.exc_info) == ("WARNING", None)
    assert line.getMessage().startswith("a request could not be read: ")
    assert len(line.getMessage()) < 120


async def test_a_token_is_asked_of_everything_but_the_probes(serve, tmp_path):
    secret = tmp_path / "token"
    secret.write_text("opened sesame\n")
    async with serve(http_token_file=str(secret)) as site:
        assert (await site.get("/healthz"))[0] == 200
        assert (await site.get("/readyz", Host="10.1.2.3:9464"))[0] == 200
        for path in ("/metrics", "/recommendations/u", "/openapi.json", "/", "/live/stream", "/nowhere"):
            status, answer = await site.get(path)
            assert status == 401, path
            assert "sesame" not in json.dumps(answer)
        assert (await site.get("/metrics", Authorization="Bearer wrong"))[0] == 401
        assert (await site.get("/metrics", Authorization="Bearer opened sesame"))[0] == 200
        assert (await site.get("/metrics", Host="worker.example", Authorization="Bearer opened sesame"))[0] == 200


async def test_without_a_token_only_loopback_names_are_answered(serve):
    async with serve() as site:
        for name in ("evil.example", "127.0.0.1.evil.example", "10.0.0.1:80", ""):
            assert (await site.get("/metrics", Host=name))[0] == 403, name
        for name in ("localhost:9464", "127.0.0.1", "[::1]:9464"):
            assert (await site.get("/metrics", Host=name))[0] == 200, name


def test_beyond_loopback_it_refuses_to_start_without_a_token():
    for address in ("0.0.0.0:9464", "[::]:9464", "192.168.1.2:80", "example.org:80"):
        with pytest.raises(ConfigurationError, match="COLDSTREAM_HTTP_TOKEN_FILE"):
            HttpServer(None, Metrics(), Settings(http=address))


async def test_a_taken_port_is_said_in_one_sentence(serve):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        server = HttpServer(None, Metrics(), Settings(http=f"127.0.0.1:{taken.getsockname()[1]}"))
        with pytest.raises(ConfigurationError, match="set COLDSTREAM_HTTP to another address"):
            await server.start()


@pytest.mark.parametrize("text", ["9464", "host", "host:", ":80", "host:http", "host:99999", ""])
def test_addresses_that_are_none(text):
    with pytest.raises(ConfigurationError, match="host:port"):
        parse_address(text)


def test_addresses():
    assert parse_address("127.0.0.1:0") == ("127.0.0.1", 0)
    assert parse_address("[::1]:9464") == ("::1", 9464)
    assert is_loopback("127.5.5.5")
    assert is_loopback("LOCALHOST")
    assert not is_loopback("0.0.0.0")
    assert not is_loopback("localhost.evil.example")


async def test_every_answer_forbids_what_a_browser_need_not_do(serve):
    async with serve() as site, site.session.get(site.server.url + "/recommendations/u") as response:
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Cache-Control"] == "no-store"


async def test_each_route_answers_as_the_document_promises(serve):
    jsonschema = pytest.importorskip("jsonschema")
    async with serve() as site:
        _, document = await site.get("/openapi.json")
        examples = {"{user}": "u", "{id}": "item%2F1"}
        for path, operations in document["paths"].items():
            url = path
            for variable, example in examples.items():
                url = url.replace(variable, example)
            status, answer = await site.get(url + ("?id=item/1" if path == "/items" else ""))
            assert status == 200, path
            (content,) = operations["get"]["responses"]["200"]["content"].values()
            schema = {**content["schema"], "components": document["components"]}
            jsonschema.Draft202012Validator(schema).validate(answer)
