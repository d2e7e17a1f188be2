"""A small process that ends the demonstration's helpers and removes its folder when the demonstration itself is killed.

Started as a script with nothing but the standard library. Lines on its standard input: `process ID` names the leader of
a process group to end, `done` that everything was tidied up. When the input ends without `done`, its other end was
killed: only then does it act.
"""

import contextlib
import os
import shutil
import signal
import sys
import time

GRACE_SECONDS = 3.0
"""For the helpers to end by themselves before they are killed."""


def main() -> None:
    """Guard until the input ends."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    folder, groups = sys.argv[1], []
    for line in sys.stdin:
        word, _, value = line.strip().partition(" ")
        if word == "done":
            return
        groups.append(int(value))
    for number in (signal.SIGTERM, signal.SIGKILL):
        for group in groups:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(group, number)
        deadline = time.monotonic() + GRACE_SECONDS
        while number == signal.SIGTERM and time.monotonic() < deadline and any(map(_lives, groups)):
            time.sleep(0.05)
    shutil.rmtree(folder, ignore_errors=True)


def _lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


if __name__ == "__main__":
    main()
