"""What `coldstream watch` says where there is no broker: one line, whatever else had been begun."""

from __future__ import annotations

import os
import subprocess
import sys


def test_without_a_broker_it_says_so_in_one_line() -> None:
    environment = {**os.environ, "COLDSTREAM_KAFKA": "127.0.0.1:1"}
    ran = subprocess.run(
        [sys.executable, "-m", "streams.commands.main", "watch", "ann"], env=environment, capture_output=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert ran.returncode == 1
    (line,) = ran.stderr.decode().splitlines()
    assert "cannot reach Kafka at 127.0.0.1:1" in line
