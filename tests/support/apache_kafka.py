"""Apache Kafka from the shared folder, for tests about production: brokers on free loopback ports, gone afterwards."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

RUN = Path(os.environ.get("COLDSTREAM_TEST_KAFKA", Path(__file__).parents[2].parent / "shared" / "kafka")) / "run"


@contextmanager
def apache_kafka(folder: Path, *options: str) -> Iterator[str]:
    """The bootstrap servers of a running cluster with its data in `folder`. Skips where there is no Apache Kafka."""
    if not RUN.exists():
        pytest.skip(f"Apache Kafka is not at {RUN.parent}: name its folder in COLDSTREAM_TEST_KAFKA")
    started = subprocess.run(
        [str(RUN), "start", "--dir", str(folder), *options], capture_output=True, text=True, check=False
    )
    assert started.returncode == 0, started.stderr
    try:
        yield started.stdout.strip()
    finally:
        subprocess.run([str(RUN), "stop", "--dir", str(folder), "--kill"], capture_output=True, check=True)
