"""Everything that Coldstream brings to a user's machine has a licence that allows this."""

from __future__ import annotations

import re
from importlib.metadata import Distribution, PackageNotFoundError, distribution

from packaging.requirements import Requirement

BROUGHT = ("cpu", "gpu", "train", "demo", "otel")
ALLOWED = re.compile(
    r"\b(MIT|MIT-CMU|BSD|BSD-[23]-Clause|0BSD|Apache|Apache-2\.0|ISC|PSF-2\.0|Python Software Foundation|MPL-2\.0|"
    r"Mozilla Public License 2\.0|Zlib|CC0-1\.0|BSL-1\.0|CNRI-Python|Repoze Public License|Unlicense|HPND|"
    r"LLVM-exception)(?![\w.-])",
    re.IGNORECASE,
)
REFUSED = re.compile(r"\b(A?GPL|LGPL|SSPL|BUSL|Commons Clause|non-?commercial|proprietary)", re.IGNORECASE)
TOLD_APART = {"cuda-toolkit", "nvidia"}  # NVIDIA's own licence; extras `gpu` and `train` bring them on purpose


def licence_of(found: Distribution) -> str:
    """What a distribution says of its licence, the most precise statement first; of a long text its first line."""
    said = found.metadata.get("License-Expression")
    if said:
        return str(said)
    classifiers = [str(line).rpartition(" :: ")[2] for line in found.metadata.get_all("Classifier") or ()
                   if str(line).startswith("License :: ")]  # fmt: skip
    lines = str(found.metadata.get("License") or "").strip().splitlines()
    return "; ".join([*classifiers, *lines[:1]])


def brought(root: str, extras: tuple[str, ...]) -> dict[str, Distribution]:
    """The installed distributions that `root` with these extras requires, itself excepted."""
    seen: dict[str, Distribution] = {}
    waiting = [(root, extras)]
    while waiting:
        name, wanted = waiting.pop()
        try:
            found = distribution(name)
        except PackageNotFoundError:
            continue  # an extra that is not installed here (gpu beside cpu)
        if name in seen and not wanted:
            continue
        seen[name] = found
        for line in found.requires or ():
            requirement = Requirement(line)
            marker = requirement.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *wanted)):
                below = re.sub(r"[-_.]+", "-", requirement.name).lower()
                if below not in seen or set(requirement.extras) - {""}:
                    waiting.append((below, tuple(requirement.extras)))
    del seen[root]
    return seen


def test_every_licence_is_allowed() -> None:
    found = brought("coldstream", BROUGHT)
    assert len(found) > 20
    said = {name: licence_of(each) for name, each in found.items() if not name.startswith(tuple(TOLD_APART))}
    wrong = {name: text for name, text in said.items() if REFUSED.search(text) or not ALLOWED.search(text)}
    assert not wrong, f"not on the list of licences: {wrong}"


def test_refused_licences_are_recognised() -> None:
    assert REFUSED.search("GPL-3.0")
    assert REFUSED.search("GNU AGPL v3")
    assert not ALLOWED.search("All rights reserved")
