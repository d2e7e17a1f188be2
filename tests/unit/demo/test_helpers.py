from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from streams.demo.helpers import Helpers, find_port
from streams.errors import ColdstreamError

SLEEPER = [sys.executable, "-S", "-c", "import time; print('awake', flush=True); time.sleep(600)"]
STUBBORN = [sys.executable, "-S", "-c", "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)"]


def lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    # A zombie whose parent was killed only waits for init.
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def await_end(process: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while lives(process):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "demo-x"
    folder.mkdir()
    return folder


def test_processes_and_folder_end_with_the_context(folder):
    with Helpers(folder) as helpers:
        helpers.start("sleeper", SLEEPER, os.environ)
        process = helpers._processes["sleeper"].pid
        helpers.check()
    assert not lives(process)
    assert not folder.exists()


def test_a_process_that_does_not_listen_is_killed(folder, monkeypatch):
    monkeypatch.setattr("streams.demo.helpers.STOP_SECONDS", 0.3)
    with Helpers(folder) as helpers:
        helpers.start("stubborn", STUBBORN, os.environ)
        process = helpers._processes["stubborn"].pid
        time.sleep(0.3)
    assert not lives(process)


def test_a_process_that_ends_by_itself_is_an_error_with_its_last_words(folder):
    with Helpers(folder) as helpers:
        helpers.start("broker", [sys.executable, "-c", "import sys; print('port taken'); sys.exit(3)"], os.environ)
        helpers._processes["broker"].wait(10)
        with pytest.raises(ColdstreamError, match="the broker ended by itself with status 3: port taken"):
            helpers.check()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_the_guardian_tidies_up_after_a_demonstration_that_was_killed(folder, number):
    code = (
        "import os, sys, time; from pathlib import Path; from streams.demo.helpers import Helpers\n"
        f"with Helpers(Path({str(folder)!r})) as helpers:\n"
        f"    helpers.start('sleeper', {SLEEPER!r}, os.environ)\n"
        "    print(helpers._processes['sleeper'].pid, helpers._guardian.pid, flush=True); time.sleep(600)\n"
    )
    demonstration = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert demonstration.stdout is not None
    sleeper, guardian = map(int, demonstration.stdout.readline().split())
    assert lives(sleeper)
    demonstration.send_signal(number)
    demonstration.wait(10)
    demonstration.stdout.close()
    assert await_end(sleeper, 8)
    assert await_end(guardian, 8)
    assert not folder.exists()


def test_a_free_port():
    assert 1024 <= find_port() <= 65535
