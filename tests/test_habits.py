"""What contributors meet first: hooks, templates and the files that GitHub looks for."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.test_generated import judge

ROOT = Path(__file__).parents[1]
HOOKS = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text("utf-8"))
LINT = re.search(r"^lint:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text("utf-8"), re.M)


def hooks() -> list[dict[str, Any]]:
    return [hook for repo in HOOKS["repos"] for hook in repo["hooks"]]


def test_no_hook_is_fetched_from_elsewhere() -> None:
    assert {repo["repo"] for repo in HOOKS["repos"]} == {"local"}
    assert {hook["language"] for hook in hooks()} == {"system"}
    assert [hook["entry"] for hook in hooks() if not hook["entry"].startswith(".venv/bin/")] == []
    locked = (ROOT / "requirements/dev.txt").read_text("utf-8")
    assert re.search(r"^pre-commit==[\d.]+ \\\n    --hash=sha256:", locked, re.M)


def test_the_hooks_are_what_lint_runs() -> None:
    assert LINT
    lint = [line.strip().replace("$(BIN)", ".venv/bin") for line in LINT[1].splitlines()]
    entries = [hook["entry"].replace(" --force-exclude", "") for hook in hooks()]
    # A hook of ruff gets the files that are committed, and rewrites them.
    assert entries == [line.removesuffix(" .").replace("format --check", "format") for line in lint]


TEMPLATES = [
    *((file, "github-issue-forms") for file in sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*"))),
    (ROOT / ".github/dependabot.yml", "dependabot"),
]


@pytest.mark.parametrize(("file", "schema"), TEMPLATES, ids=lambda one: getattr(one, "name", one))
def test_github_takes_a_template(file: Path, schema: str) -> None:
    by = "github-issue-config" if file.name == "config.yml" else schema
    judge(by).validate(yaml.safe_load(file.read_text("utf-8")))


@pytest.mark.parametrize(
    "name",
    [
        ".editorconfig",
        ".github/CODEOWNERS",
        ".github/pull_request_template.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "LICENSE",
        "SECURITY.md",
    ],
)
def test_what_github_looks_for_is_there(name: str) -> None:
    assert (ROOT / name).read_text("utf-8").strip()


def test_targets_that_pages_name_exist() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = set(re.findall(r"^([a-z][\w-]*):", makefile, re.M))
    named = set(re.findall(r"`make ([a-z][\w-]*)", (ROOT / "CONTRIBUTING.md").read_text("utf-8")))
    assert named
    assert named <= targets
