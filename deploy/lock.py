"""Writes constraints.txt beside it: the versions that the images install. `make lock`.

They are what pip resolves now for the extras `cpu` and `gpu`, so that an image built later is the same image.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
HEAD = "# Written by `make lock`: what the images install, for the extras cpu and gpu on Linux, Python 3.11.\n"


def resolve(extra: str) -> dict[str, str]:
    """Name and version of everything that pip would install for an extra; Coldstream itself excepted."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--report", "-"]
    report = subprocess.run([*command, f"{ROOT}[{extra}]"], capture_output=True, text=True, check=True).stdout
    found = (each["metadata"] for each in json.loads(report[report.index("{") :])["install"])
    return {each["name"].lower().replace("_", "-"): each["version"] for each in found if each["name"] != "coldstream"}


def main() -> None:
    """The command. Raises where the two extras need different versions of one library."""
    cpu, gpu = resolve("cpu"), resolve("gpu")
    differing = {name for name in cpu.keys() & gpu.keys() if cpu[name] != gpu[name]}
    if differing:
        raise SystemExit(f"cpu and gpu resolve differently: {sorted(differing)}")
    lines = [f"{name}=={version}" for name, version in sorted({**cpu, **gpu}.items())]
    (ROOT / "deploy" / "constraints.txt").write_text(HEAD + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
