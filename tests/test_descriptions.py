"""The judges are what their README says, and nothing reaches out of the checkout for one."""

from __future__ import annotations

import hashlib
from pathlib import Path

from tests.descriptions import FOLDER

ROOT = Path(__file__).parents[1]


def test_the_descriptions_are_those_whose_digests_are_written_down() -> None:
    lines = (FOLDER / "SHA256SUMS").read_text("utf-8").splitlines()
    told = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    found = {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in FOLDER.glob("*.json")
    }
    assert found == told
    readme = (FOLDER / "README.md").read_text("utf-8")
    assert [name for name in told if f"`{name}`" not in readme] == []


def test_no_test_needs_a_file_beside_the_checkout() -> None:
    places = [ROOT / "tests", ROOT / "runner_action", ROOT / "benchmarks", ROOT / "image"]
    sources = [file for place in places for file in place.rglob("*.py")]
    beside = "shared" + "/"
    offenders = [
        file
        for file in sources
        if "node_modules" not in file.parts
        and (beside in (text := file.read_text("utf-8")) or "parents[3] / " in text)
        and file != Path(__file__)
    ]
    assert offenders == []
