"""`python -m grafana` writes dashboards, rules, their tests and the runbook's metrics; `--check` only compares."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from grafana import reference, rules
from grafana.dashboards import DASHBOARDS, render

ROOT = Path(__file__).parents[1]


def files(runbook: str = rules.RUNBOOK) -> dict[Path, str]:
    """What is to be committed, by path from the project's root."""
    folder = Path("grafana")
    wanted = {folder / "dashboards" / f"{name}.json": render(name) for name in DASHBOARDS}
    wanted[folder / "rules" / rules.RULES_FILE] = rules.render_rules(runbook)
    wanted[folder / "rules" / rules.TESTS_FILE] = rules.render_tests()
    path = Path(rules.RUNBOOK)
    wanted[path] = reference.fill((ROOT / path).read_text(encoding="utf-8"))
    return wanted


def stale() -> list[str]:
    """Committed files that differ from what the code says."""
    return [str(path) for path, text in files().items()
            if not (ROOT / path).is_file() or (ROOT / path).read_text(encoding="utf-8") != text]  # fmt: skip


def main() -> int:
    """The command. 1 where `--check` finds a difference."""
    parser = argparse.ArgumentParser(prog="python -m grafana", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; name what differs")
    parser.add_argument("--runbook", default=rules.RUNBOOK, help="address of the runbook, for the alerts' links")
    parser.add_argument("--out", type=Path, default=ROOT, help="folder to write below")
    chosen = parser.parse_args()
    if chosen.check:
        differing = stale()
        print("\n".join(f"{name} is not what grafana/*.py says: run make documents" for name in differing), end="")
        return 1 if differing else 0
    for path, text in files(chosen.runbook).items():
        target = chosen.out / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
