"""The runbook knows every line that a worker may log."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LEVELS = {"info", "warning", "error", "exception", "critical"}
TABLE = (ROOT / "docs" / "runbook.md").read_text(encoding="utf-8").split("## Log lines")[1].split("\n## ")[0]


def log_lines() -> Iterator[str]:
    for path in sorted((ROOT / "streams").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in LEVELS
                and isinstance(node.func.value, ast.Name)
                and node.func.value.id == "log"
                and isinstance(node.args[0], ast.Constant)
            ):
                yield str(node.args[0].value)


@pytest.mark.parametrize("line", sorted(set(log_lines())))
def test_the_runbook_explains_a_log_line(line: str) -> None:
    longest = max((part.strip(" :;,") for part in re.split(r"%\.?\d*[sdgfr]", line)), key=len)
    assert longest.split(":")[0] in TABLE, f"docs/runbook.md, Log lines, lacks {line!r}"
