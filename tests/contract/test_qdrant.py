"""What the adapter for a Qdrant server promises beyond the port: versions, keys, TLS, errors, what is there already."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import grpc
import pytest
from qdrant_client import models

from streams.errors import ConfigurationError, IndexUnavailableError
from streams.index import server as server_module
from streams.index.open import open_index
from streams.index.qdrant import QdrantIndex
from streams.index.server import connect
from streams.index.stored import FIELDS
from streams.ports import Collection, Index, Match, Query
from streams.settings import Settings
from tests.contract.index_contract import DIMENSION, new, point, unit
from tests.support.qdrant_server import Front, start, url

ITEMS, USERS = Collection.ITEMS, Collection.USERS


@pytest.fixture
def front() -> Front:
    return Front()


@pytest.fixture
async def port(front: Front) -> AsyncIterator[int]:
    server, port = await start(front)
    yield port
    await server.stop(grace=None)


async def test_a_server_that_is_too_old_is_refused(front: Front, port: int) -> None:
    front.version = "1.16.9"
    with pytest.raises(ConfigurationError, match=r"1\.16\.9 is too old.*1\.17"):
        await QdrantIndex(partial(connect, url(port))).open(DIMENSION)


@pytest.mark.filterwarnings("ignore:Api key is used with an insecure connection:UserWarning")
async def test_the_key_comes_from_a_file_and_a_wrong_one_is_told(front: Front, port: int, tmp_path: Path) -> None:
    front.api_key = "right"
    secret = tmp_path / "key"
    for text in ("wrong\n", "right\n"):
        secret.write_text(text)
        index = open_index(Settings(index=url(port), qdrant_api_key_file=str(secret)))
        if text == "wrong\n":
            with pytest.raises(ConfigurationError, match="check the API key") as caught:
                await index.open(DIMENSION)
            assert "wrong" not in str(caught.value)
        else:
            await index.open(DIMENSION)
            await index.close()


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """A key and a certificate of localhost that signs itself."""
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)],
        check=True, capture_output=True,
    )  # fmt: skip
    return key, certificate


async def test_tls_with_authorities_of_ones_own(front: Front, tmp_path: Path) -> None:
    key, certificate = make_certificate(tmp_path)
    credentials = grpc.ssl_server_credentials([(key.read_bytes(), certificate.read_bytes())])
    server, port = await start(front, credentials=credentials)
    index = open_index(Settings(index=url(port, "https", "localhost"), qdrant_ca_file=str(certificate)))
    await index.open(DIMENSION)
    await index.write(USERS, new(point("u")))
    await index.close()
    strange = open_index(Settings(index=url(port, "https", "localhost")))
    with pytest.raises(IndexUnavailableError):
        await strange.open(DIMENSION)
    await server.stop(grace=None)


async def test_a_server_away_is_unavailable_and_found_again(front: Front) -> None:
    server, port = await start(front)
    index = QdrantIndex(partial(connect, url(port)))
    await index.open(DIMENSION)
    await index.write(USERS, new(point("u")))
    await server.stop(grace=None)
    calls = (
        index.read(USERS, ["u"]), index.write(USERS, new(point("v"))), index.search(USERS, [Query(1, unit(1))]),
        index.find(USERS, Match(), 1), index.scan(USERS), index.count(USERS),
    )  # fmt: skip
    for call in calls:
        with pytest.raises(IndexUnavailableError, match="Qdrant did not"):
            await call
    server, _ = await start(front, port=port)
    async with asyncio.timeout(30):
        while True:
            try:
                assert await index.read(USERS, ["u"]) != [None]
                break
            except IndexUnavailableError:
                await asyncio.sleep(0.1)
    await index.close()
    await server.stop(grace=None)


async def test_a_slow_server_is_given_up(front: Front, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "REQUEST_SECONDS", 1)
    monkeypatch.setattr("streams.index.qdrant.REQUEST_SECONDS", 1)
    index = QdrantIndex(partial(connect, url(port)))
    await index.open(DIMENSION)
    front.delay_seconds = 5
    with pytest.raises(IndexUnavailableError, match="DEADLINE_EXCEEDED"):
        await index.write(USERS, new(point("u")))
    with pytest.raises(IndexUnavailableError, match="DEADLINE_EXCEEDED"):
        await index.read(USERS, ["u"])
    await index.close()


@pytest.mark.parametrize("code", ["RESOURCE_EXHAUSTED", "INTERNAL", "UNAVAILABLE", "ABORTED", "UNKNOWN", "NOT_FOUND"])
async def test_a_server_that_refuses_is_unavailable(front: Front, port: int, code: str) -> None:
    index = QdrantIndex(partial(connect, url(port)))
    await index.open(DIMENSION)
    front.failure = grpc.StatusCode[code]
    with pytest.raises(IndexUnavailableError, match=code):
        await index.write(USERS, new(point("u")))
    await index.close()


async def test_a_defect_of_ours_is_no_hold(port: int) -> None:
    """What the server calls invalid would be invalid for ever: the batch must be isolated, not held."""
    index = QdrantIndex(partial(connect, url(port)))
    await index.open(DIMENSION)
    with pytest.raises(ValueError, match="dimension"):
        await index.write(USERS, new(point("u", vector=unit(1)[:3])))
    await index.close()


async def test_workers_that_start_together_make_one_collection(front: Front, port: int) -> None:
    indexes = [QdrantIndex(partial(connect, url(port)), prefix="shop-") for _ in range(4)]
    await asyncio.gather(*(index.open(DIMENSION) for index in indexes))
    assert front.aliases == {f"shop-{name}": f"shop-{name}-1" for name in Collection}
    await indexes[0].write(USERS, new(point("u")))
    assert await indexes[3].count(USERS) == 1
    assert await asyncio.gather(*(index.close() for index in indexes)) == [None] * 4


async def test_prefixes_keep_installations_apart(port: int) -> None:
    shops = [QdrantIndex(partial(connect, url(port)), prefix=prefix) for prefix in ("", "a-", "b-")]
    for shop in shops:
        await shop.open(DIMENSION)
    await shops[1].write(USERS, new(point("u")))
    assert [await shop.count(USERS) for shop in shops] == [0, 1, 0]
    for shop in shops:
        await shop.close()


async def test_quantisation_follows_the_setting(front: Front, port: int) -> None:
    for quantization in ("scalar", "none", "scalar"):
        index = open_index(Settings(index=url(port), qdrant_quantization=quantization))  # type: ignore[arg-type]
        await index.open(DIMENSION)
        config = front.held["items-1"].params
        assert config.HasField("quantization_config") == (quantization == "scalar")
        assert not front.held["users-1"].params.HasField("quantization_config")
        await index.write(ITEMS, new(point(quantization + str(id(index)), vector=unit(1))))
        assert (await index.search(ITEMS, [Query(1, unit(1))]))[0][0].score == pytest.approx(1, abs=1e-5)
        await index.close()


async def test_payload_indexes_have_the_types_of_the_fields(front: Front, port: int) -> None:
    index = QdrantIndex(partial(connect, url(port)))
    await index.open(DIMENSION)
    client = connect(url(port))
    users = (await client.get_collection("users")).payload_schema
    await client.close()
    types = {name: known.data_type for name, known in users.items()}
    assert types.keys() == {"version", *FIELDS[USERS]}
    assert types.items() >= {
        "version": models.PayloadSchemaType.INTEGER, "marker": models.PayloadSchemaType.BOOL,
        "home": models.PayloadSchemaType.INTEGER, "floor": models.PayloadSchemaType.FLOAT,
        "list_ids": models.PayloadSchemaType.KEYWORD,
    }.items()  # fmt: skip
    await index.close()


async def test_collections_of_others_are_not_touched(port: int) -> None:
    client = connect(url(port))
    other = {"other": models.VectorParams(size=DIMENSION, distance=models.Distance.COSINE)}
    await client.create_collection("items-1", vectors_config={**other, "dense": other["other"]})
    made = models.CreateAlias(collection_name="items-1", alias_name="items")
    await client.update_collection_aliases([models.CreateAliasOperation(create_alias=made)])
    await client.close()
    with pytest.raises(ConfigurationError, match="not made by Coldstream"):
        await QdrantIndex(partial(connect, url(port))).open(DIMENSION)


@pytest.mark.parametrize(
    "setting", ["edge:", "qdrant", "ftp://host", "http://", "http://host:port", "http://h?grpc_port=x"]
)
async def test_what_names_no_index_is_told_so(setting: str) -> None:
    with pytest.raises(ConfigurationError):
        await open_index(Settings(index=setting)).open(DIMENSION)


def test_the_setting_chooses_the_adapter(tmp_path: Path) -> None:
    chosen: list[Index] = [open_index(Settings(index=f"edge:{tmp_path}")), open_index(Settings(index="http://h:1"))]
    assert [(index.name, index.shared) for index in chosen] == [("edge", False), ("qdrant", True)]
    with pytest.raises(ConfigurationError, match="secret"):
        open_index(Settings(index="http://h", qdrant_api_key_file=str(tmp_path / "absent")))
    with pytest.raises(ConfigurationError, match="authorities"):
        open_index(Settings(index="http://h", qdrant_ca_file=str(tmp_path / "absent")))
