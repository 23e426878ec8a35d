"""What the project takes from others, and what it gives: nothing moves under a name, nothing runs that
is not the content that was chosen, and nobody's name is in it but its own."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from tests.shipped import ROOT

LOCKS = sorted((ROOT / "requirements").glob("*.txt"))
INSTALLERS = ("Makefile", "Dockerfile", "tests/pythons.py", "benchmarks/image.py")
"""Where packages of registries are installed."""
HASH = r"--hash=sha256:[0-9a-f]{64}"


# --- locks


def unhashed(lock: str) -> list[str]:
    """The lines of a lock that would be believed by name and version alone, or from a place of its own."""
    entries = re.sub(r"\\\n\s*", "", lock).splitlines()
    entry = re.compile(rf"[a-z0-9-]+==[^\s;]+( ; [^#]+?)?( *{HASH})+")
    return [one for one in entries if not entry.fullmatch(one)]


@pytest.mark.parametrize("lock", LOCKS, ids=lambda file: file.stem)
def test_a_lock_names_the_content_of_each_package_and_no_address(lock: Path) -> None:
    text = lock.read_text("utf-8")
    assert unhashed(text) == []
    assert "://" not in text


@pytest.mark.parametrize("line", ["flask==3.1.3", "flask", "--index-url https://x.test", "./here", "a @ https://x.test/a.whl"])
def test_what_is_no_such_line_is_found(line: str) -> None:
    assert unhashed(f"click==8.5.1 --hash=sha256:{'0' * 64}\n{line}\n") == [line]


def installs(text: str) -> list[list[str]]:
    """Each `pip install`, `uv pip install` and `sync` of a file from a list, in words."""
    found = re.findall(r"pip[\", ]+(?:install|sync)[^\n&;]*", text)
    return [shlex.split(re.sub(r"[\",\[\]]", " ", one)) for one in found if re.search(r"\.txt|LOCK", one)]


@pytest.mark.parametrize("name", INSTALLERS)
def test_what_is_not_that_content_is_not_installed(name: str) -> None:
    found = installs((ROOT / name).read_text("utf-8"))
    assert found
    assert all("--require-hashes" in words for words in found)


def test_nothing_else_installs() -> None:
    """But the project itself, which brings nothing, and what a job installs for itself."""
    tracked = [*ROOT.glob("image/*"), *ROOT.glob("*.toml"), *ROOT.glob(".github/**/*.yml"), ROOT / ".ci/run"]
    for file in filter(Path.is_file, [*tracked, *map(ROOT.joinpath, INSTALLERS)]):
        for line in file.read_text("utf-8").splitlines():
            if re.search(r"pip[\", ]+(install|sync)\b", line) and not line.startswith("#"):
                assert "--require-hashes" in line or "--no-deps --no-build-isolation -e ." in line, f"{file}: {line}"


def test_so_does_the_lock_of_npm() -> None:
    packages = json.loads((ROOT / "tests/package-lock.json").read_text("utf-8"))["packages"]
    found = {name: one for name, one in packages.items() if name and not one.get("link")}
    assert found
    assert all(one["integrity"].startswith("sha512-") and "resolved" not in one for one in found.values())
    assert "npm ci " in (ROOT / "Makefile").read_text("utf-8")
