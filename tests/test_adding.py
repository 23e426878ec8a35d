"""What a new cloud and a new forge touch: the type checker says it, and docs/adding.md lists it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ADDED = {
    "cloud": ('    KUBERNETES = "kubernetes"\n', '    HETZNER = "hetzner"\n'),
    "forge": ('    GITLAB = "gitlab"\n', '    FORGEJO = "forgejo"\n'),
}


def red(copy: Path) -> set[str]:
    """Files in which a case is missing."""
    command = [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml")]
    command += ["--cache-dir", str(copy.parent / "cache"), "runner_action"]
    done = subprocess.run(command, cwd=copy, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if "assert_never" in line]
    assert len(lines) == done.stdout.count(" error: "), done.stdout
    return {line.partition(":")[0] for line in lines}


@pytest.mark.parametrize("kind", ADDED)
def test_what_a_new_one_touches_is_a_type_error_until_it_is_done_and_stands_in_the_docs(
    kind: str, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    ignored = shutil.ignore_patterns("__pycache__", "sandbox")
    shutil.copytree(ROOT / "runner_action", copy / "runner_action", ignore=ignored)
    shutil.copytree(ROOT / "runner_action/sandbox", copy / "runner_action/sandbox")
    model = copy / "runner_action/model.py"
    before, member = ADDED[kind]
    text = model.read_text("utf-8")
    assert text.count(before) == 1
    model.write_text(text.replace(before, before + member))
    section = re.search(
        rf"^## A {kind}$(.*?)^## ", (ROOT / "docs/adding.md").read_text("utf-8"), re.M | re.S
    )
    assert section
    named = set(re.findall(r"`(runner_action/[\w/]+\.py)` \(type checker\)", section[1]))
    assert red(copy) == named
