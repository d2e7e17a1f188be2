from __future__ import annotations

import asyncio
import fcntl
import json

import pytest

from streams.commands import doctor, main
from streams.commands.doctor import Finding, State
from streams.index.open import open_index
from streams.settings import Settings
from tests.support.qdrant_server import Front, start, url


def only(findings) -> Finding:
    (finding,) = findings
    return finding


def test_an_embedded_index(tmp_path):
    folder = tmp_path / "index"
    settings = Settings(index=f"edge:{folder}")
    assert "will be made" in only(doctor.check_index(settings)).seen
    folder.mkdir()
    assert "is empty" in only(doctor.check_index(settings)).seen
    (folder / "lock").touch()
    assert "no worker uses it" in only(doctor.check_index(settings)).seen
    with (folder / "lock").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert "in use by a worker" in only(doctor.check_index(settings)).seen
    (folder / "lock").unlink()
    (folder / "thesis.tex").touch()
    finding = only(doctor._guarded("index", lambda: doctor.check_index(settings)))
    assert finding.state is State.WRONG
    assert "empty folder" in finding.seen


@pytest.mark.filterwarnings("ignore:Api key is used with an insecure connection:UserWarning")
async def test_a_server(tmp_path):
    front = Front(api_key="sesame")
    server, port = await start(front)
    (tmp_path / "key").write_text("sesame")
    settings = Settings(index=url(port), qdrant_api_key_file=str(tmp_path / "key"))

    async def look():
        return only(
            await asyncio.to_thread(lambda: list(doctor._guarded("index", lambda: doctor.check_index(settings))))
        )

    assert (await look()).seen == f"Qdrant 1.18.3 with no collection of ours yet at {url(port)}"
    index = open_index(settings)
    await index.open(4)
    await index.close()
    assert "with 0 items, 0 users, 0 statistics" in (await look()).seen
    index_on_version = front.held["users-1"].schema.pop("version")
    assert "users has no payload index on version" in (await look()).seen
    front.held["users-1"].schema["version"] = index_on_version
    front.version = "1.9.4"
    finding = await look()
    assert finding.state is State.WRONG
    assert "1.9.4 is too old" in finding.seen
    front.api_key = "another"
    finding = await look()
    assert finding.state is State.WRONG
    assert "check the API key" in finding.seen
    assert "sesame" not in finding.seen
    await server.stop(grace=None)


def test_no_server():
    finding = only(doctor.check_index(Settings(index="http://127.0.0.1:1")))
    assert finding.state is State.WRONG
    assert "gRPC" in finding.remedy


def test_room_on_the_disk(monkeypatch, tmp_path):
    settings = Settings(index=f"edge:{tmp_path}/not/yet")
    assert only(doctor.check_disk(settings)).thing == "disk"
    monkeypatch.setattr(doctor, "FREE_BYTES", 1 << 60)
    assert only(doctor.check_disk(settings)).state is State.WRONG
    assert list(doctor.check_disk(Settings(index="http://qdrant:6333"))) == []


def test_the_clock(monkeypatch):
    assert only(doctor.check_clock(0.0)).state is State.WRONG
    monkeypatch.setattr(doctor, "_is_unsynchronised", lambda: True)
    assert only(doctor.check_clock(1_800_000_000.0)).state is State.NOTE
    monkeypatch.setattr(doctor, "_is_unsynchronised", lambda: False)
    assert only(doctor.check_clock(1_800_000_000.0)).state is State.OK


def test_the_kernel_can_be_asked():
    assert doctor._is_unsynchronised() in (True, False)


def test_the_encoder_is_timed_and_one_runtime_is_enough(monkeypatch):
    bundle, provider = doctor.check_encoder(Settings())
    assert (bundle.thing, bundle.state, provider.thing) == ("bundle", State.OK, "provider")
    assert float(provider.seen.split(", ")[1].split(" ms")[0]) > 0
    monkeypatch.setattr(doctor, "SLOW_SECONDS", 0.0)
    assert list(doctor.check_encoder(Settings()))[1].state is State.NOTE
    monkeypatch.setattr(doctor, "version", lambda name: "1.27.0")
    runtime = next(doctor.check_encoder(Settings()))
    assert (runtime.thing, runtime.state) == ("runtime", State.WRONG)
    assert "pip uninstall onnxruntime onnxruntime-gpu" in runtime.remedy


def test_no_broker_is_wrong_and_says_what_to_do(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("COLDSTREAM_KAFKA", "127.0.0.1:1")
    monkeypatch.setenv("COLDSTREAM_HTTP", "127.0.0.1:1")
    monkeypatch.setenv("COLDSTREAM_INDEX", f"edge:{tmp_path}")
    monkeypatch.setenv("COLDSTREAM_BUNDLE", str(tmp_path / "no-bundle"))
    assert main.run(["doctor", "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    states = {finding["thing"]: finding["state"] for finding in report["findings"]}
    assert report["ok"] is False
    assert states["broker"] == states["encoder"] == "wrong"
    assert states["worker"] == "note"
    assert main.run(["doctor"]) == 1
    said = capsys.readouterr().out
    assert "WRONG broker" in said
    assert "coldstream broker" in said


def test_well_is_0(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "examine", lambda _: iter([Finding("clock", State.OK, "\x1b[2Jtick")]))
    assert main.run(["doctor"]) == 0
    assert "\x1b" not in capsys.readouterr().out
