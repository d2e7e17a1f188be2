"""The wheel is what a user installs: it holds the whole product, takes nobody else's names, and runs."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("streams", "encoder", "export", "evaluation")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    (path,) = out.glob("*.whl")
    return path


def committed(folder: str) -> set[str]:
    listed = subprocess.run(["git", "ls-files", folder], cwd=ROOT, capture_output=True, text=True, check=True)
    return {name for name in listed.stdout.splitlines() if (ROOT / name).exists()}


def test_top_level_names_are_ours_alone(wheel: Path) -> None:
    names = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {name for name in names if not name.endswith(".dist-info")} == set(PACKAGES)
    owners = packages_distributions()
    for name in PACKAGES:
        assert set(owners.get(name, ["coldstream"])) == {"coldstream"}, f"{name} belongs to {owners[name]} too"


@pytest.mark.parametrize("package", PACKAGES)
def test_everything_committed_below_a_package_is_in_the_wheel(wheel: Path, package: str) -> None:
    inside = set(zipfile.ZipFile(wheel).namelist())
    assert f"{package}/py.typed" in inside
    assert not committed(package) - inside


def test_the_bundle_is_inside_and_runs_from_the_wheel(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        assert [name for name in archive.namelist() if name.startswith("encoder/") and name.endswith(".onnx")]
        archive.extractall(tmp_path)
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import encoder; assert encoder.__file__.startswith(sys.argv[1]), encoder.__file__\n"
        "vectors = encoder.open_bundle(provider='cpu').encode(['a red bicycle', ''])\n"
        "assert vectors.shape[0] == 2 and abs((vectors ** 2).sum(1) - 1).max() < 1e-3, vectors.shape\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert ran.returncode == 0, ran.stderr


def test_metadata_names_program_and_licence(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        texts = {name.rpartition("/")[2]: name for name in archive.namelist() if ".dist-info/" in name}
        points = archive.read(texts["entry_points.txt"]).decode()
        metadata = archive.read(texts["METADATA"]).decode()
        assert "coldstream = streams.commands.main:main" in points
        assert "License-Expression: Apache-2.0" in metadata
        assert "Apache License" in archive.read(texts["LICENSE"]).decode()
