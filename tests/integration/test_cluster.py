"""A benchmark or a chaos that is terminated, by `timeout` perhaps, leaves no broker running."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.kafka import FOLDER

ROOT = Path(__file__).parents[2]
SCRIPT = """
import asyncio
from benchmarks.rig import cluster

async def measure():
    with cluster() as (kafka, folder):
        print(kafka, folder, flush=True)
        await asyncio.sleep(600)

asyncio.run(measure())
"""


@pytest.mark.skipif(not (FOLDER / "run").is_file(), reason="there is no Apache Kafka here: set COLDSTREAM_TEST_KAFKA")
def test_what_is_terminated_stops_its_own_broker():
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        servers, folder = process.stdout.readline().split()
        host, _, port = servers.partition(":")
        socket.create_connection((host, int(port)), 5).close()
        process.send_signal(signal.SIGTERM)
        os.killpg(process.pid, signal.SIGTERM)  # as `timeout` does it
        assert process.wait(30) != 0
    finally:
        process.kill()
        process.communicate()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)), 5)
    assert not Path(folder).exists()
