"""The house's own rules that no linter knows: rooms, sizes, surface, and what may stand in a committed file."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("streams", "encoder", "export", "evaluation")
LARGEST_MODULE_LINES = 250
MOST_MODULES = 153
LARGER = {
    "streams/values.py", "streams/ports.py", "streams/wire.py", "streams/settings.py", "streams/app.py",
    "streams/metrics.py", "streams/decide/table.py", "evaluation/protocol.py",
}  # fmt: skip
"""Modules that are one vocabulary, one table, one protocol or the one composition root: splitting them would hide it."""


def committed(*patterns: str) -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z", *patterns], cwd=ROOT, capture_output=True, check=True)
    return [path for name in listed.stdout.decode().split("\0") if name and (path := ROOT / name).is_file()]


def modules() -> list[Path]:
    return [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def imports(path: Path) -> set[str]:
    """Top-level names that a module imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.split(".")[0])
    return found


def loaded_by(statement: str) -> set[str]:
    """Top-level names in sys.modules after a statement, in a fresh interpreter."""
    script = f"{statement}\nimport sys; print(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    ran = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(ran.stdout.split())


def test_the_house_does_not_grow_by_rooms() -> None:
    """Today's number, to be lowered: docs/adr/size-of-the-house.md."""
    counted = [path for path in modules() if path.name != "__init__.py"]
    assert 0 < len(counted) <= MOST_MODULES


def test_a_module_is_a_page_not_a_book() -> None:
    long = {str(path.relative_to(ROOT)): lines for path in modules()
            if (lines := len(path.read_text(encoding="utf-8").splitlines())) > LARGEST_MODULE_LINES}  # fmt: skip
    assert not set(long) - LARGER, f"split, or argue: {long}"


def test_every_module_of_the_service_stands_on_a_floor() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    floors = next(each for each in contracts if each["type"] == "layers")["layers"]
    rooms = {room.strip(" ()") for floor in floors for room in floor.split(":")}
    for path in modules():
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        if name.startswith("streams.") and name != "streams.__init__":
            assert any(f"{name}.".startswith(f"{room}.") for room in rooms), f"{name} has no floor in pyproject.toml"


def test_every_module_says_what_it_is() -> None:
    silent = [str(path.relative_to(ROOT)) for path in modules()
              if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))]  # fmt: skip
    assert not silent


def test_the_encoder_needs_three_libraries_only() -> None:
    needed = set().union(*(imports(path) for path in (ROOT / "encoder").rglob("*.py")))
    assert needed - sys.stdlib_module_names - {"encoder"} <= {"numpy", "tokenizers", "onnxruntime"}


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import encoder", {"torch", "faust", "qdrant_client", "qdrant_edge", "streams", "sentence_transformers"}),
        ("import streams.commands.main", {"torch", "faust", "aiokafka", "onnxruntime", "qdrant_client", "numpy"}),
        ("import streams.wire", {"faust", "aiokafka", "prometheus_client", "qdrant_client", "onnxruntime"}),
    ],
)
def test_imports_are_lean(statement: str, absent: set[str]) -> None:
    assert not loaded_by(statement) & absent


@pytest.mark.parametrize("package", PACKAGES)
def test_what_a_package_offers_exists_and_is_typed(package: str) -> None:
    offered = import_module(package)
    assert (ROOT / package / "py.typed").is_file()
    if package == "export" and find_spec("torch") is None:
        pytest.skip("torch is not installed: make dev-train")
    for name in getattr(offered, "__all__", ()):
        assert hasattr(offered, name)


def test_no_committed_file_names_this_machine_or_a_registry() -> None:
    parts = [("/work", "/"), ("/opt/", "pypi"), ("/opt/", "wheels"), ("pypi", ".org"), ("pythonhosted", ".org")]
    parts += [("registry.npmjs", ".org"), ("deb.debian", ".org"), ("huggingface", ".co/")]
    forbidden = ["".join(halves).encode() for halves in parts]  # in halves, since this file is committed too
    hits = {str(path.relative_to(ROOT)): text.decode() for path in committed() for text in forbidden
            if text in path.read_bytes()}  # fmt: skip
    assert not hits


def test_every_command_of_the_makefile_has_a_word_of_help() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    declared = text.split(".PHONY:")[1].split("\n")[0].split()
    assert {"install", "demo", "test", "check", "simulate", "chaos", "audit"} <= set(declared)
    for target in declared:
        assert f"\n{target}:" in text
        line = next(line for line in text.splitlines() if line.startswith(f"{target}:"))
        assert "## " in line, f"{target} is not in `make help`"
