"""Secrets are read from files and told to nobody: not in logs, not by doctor, not in metrics, not by an error."""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
import urllib.request
from pathlib import Path

import msgspec
import pytest

from tests.integration.test_kafka_security import secured
from tests.support import qdrant_server, worker_process
from tests.support.kafka import create_topics

__all__ = ["secured"]

PASSWORD, KEY, TOKEN = "secret", "qdrant-key-3f9a", "bearer-token-77c1"
GUESS = "guessed-wrong-5d20"
WORKER = [sys.executable, "-c", """
import streams.app
from encoder import HashingEncoder
from streams.commands.main import main
streams.app.open_encoder = lambda settings: HashingEncoder(16)
main()
"""]  # fmt: skip


@pytest.fixture
def index_url():
    """An index that asks for the key."""
    loop, front = asyncio.new_event_loop(), qdrant_server.Front(api_key=KEY)
    server, port = loop.run_until_complete(qdrant_server.start(front))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield qdrant_server.url(port)
    asyncio.run_coroutine_threadsafe(server.stop(None), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def ask(environment, path):
    request = urllib.request.Request(
        f"http://{environment['COLDSTREAM_HTTP']}{path}", headers={"Authorization": f"Bearer {TOKEN}"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.read().decode()


def listening(pid):
    """The TCP addresses that a process listens on (Linux)."""
    sockets = {str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()}
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            _, address, _, state, *_, inode = line.split()[:10]
            if state == "0A" and f"socket:[{inode}]" in sockets:
                host, port = address.split(":")
                name = socket.inet_ntoa(bytes.fromhex(host)[::-1]) if table == "tcp" else host
                found.add(f"{name}:{int(port, 16)}")
    return found


@pytest.mark.timeout(180)
def test_nothing_tells_a_secret(secured, index_url, tmp_path, monkeypatch):
    monkeypatch.setattr(worker_process, "PROGRAM", WORKER)
    for name, secret in (("key", KEY), ("token", TOKEN)):
        (tmp_path / name).write_text(secret + "\n")
    settings = msgspec.structs.replace(secured, topic_prefix="secrets-")
    asyncio.run(create_topics(settings))
    kafka = {name: str(value) for name, value in msgspec.structs.asdict(settings).items() if name.startswith("kafka_s")}
    right = worker_process.settings(
        settings.kafka, tmp_path, topic_prefix="secrets-", index=index_url, log_level="DEBUG",
        qdrant_api_key_file=str(tmp_path / "key"), http_token_file=str(tmp_path / "token"), **kafka,
    )  # fmt: skip
    told = {}
    with worker_process.worker(right, tmp_path / "log") as worker:
        assert listening(worker.pid) == {right["COLDSTREAM_HTTP"]}
        for path in ("/metrics", "/readyz", "/openapi.json", "/recommendations/u", "/users/u", "/"):
            told[path] = ask(right, path)
        for command in (["doctor"], ["settings"], ["recommend", "u"]):
            done = worker_process.run(right, *command)
            told[" ".join(command)] = done.stdout + done.stderr
        (tmp_path / "guess").write_text(GUESS)
        done = worker_process.run({**right, "COLDSTREAM_HTTP_TOKEN_FILE": str(tmp_path / "guess")}, "recommend", "u")
        told["wrong token"] = done.stdout + done.stderr
        assert done.returncode == 1
    told["log"] = (tmp_path / "log").read_text()
    assert "ready" in told["/readyz"]
    assert "partitions assigned" in told["log"]
    for name, command in (("KAFKA_SASL_PASSWORD_FILE", "worker"), ("QDRANT_API_KEY_FILE", "doctor")):
        (tmp_path / name).write_text(GUESS)
        done = worker_process.run({**right, f"COLDSTREAM_{name}": str(tmp_path / name)}, command)
        told[f"{name} {command}"] = done.stdout + done.stderr
        assert done.returncode, done.stdout
    for where, text in told.items():
        assert text, where
        words = text.replace("a secret from", "").replace("secrets-", "").replace("-secret.", "")
        for secret in (PASSWORD, KEY, TOKEN, GUESS):
            assert secret not in words, f"{where} tells {secret}: …{words[max(words.find(secret) - 200, 0) :][:400]}"
