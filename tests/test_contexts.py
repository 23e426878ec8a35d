"""GitHub's expressions in what we ship use only contexts that are there: in workflows to copy, in
the blocks of our pages and in our own.

https://docs.github.com/en/actions/reference/workflows-and-actions/contexts#context-availability
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.shipped import Definition, workflows
from tests.test_workflows import parser

__all__ = ["parser"]  # a fixture
CONTEXTS = (
    "env",
    "github",
    "inputs",
    "job",
    "jobs",
    "matrix",
    "needs",
    "runner",
    "secrets",
    "steps",
    "strategy",
    "vars",
)
START = {"github", "inputs", "vars"}
OF_JOB = {*START, "needs", "strategy", "matrix"}
RUNNING = {*OF_JOB, "job", "runner", "env", "steps"}
AVAILABLE = {
    "run-name": START,
    "concurrency": START,
    "env": {*START, "secrets"},
    "jobs.concurrency": OF_JOB,
    "jobs.container": OF_JOB,
    "jobs.env": {*OF_JOB, "secrets"},
    "jobs.environment": OF_JOB,
    "jobs.if": {*START, "needs"},
    "jobs.name": OF_JOB,
    "jobs.outputs": {*RUNNING, "secrets"},
    "jobs.runs-on": OF_JOB,
    "jobs.services": OF_JOB,
    "jobs.steps.env": {*RUNNING, "secrets"},
    "jobs.steps.if": RUNNING,
    "jobs.steps.name": {*RUNNING, "secrets"},
    "jobs.steps.run": {*RUNNING, "secrets"},
    "jobs.steps.with": {*RUNNING, "secrets"},
    "jobs.steps.working-directory": {*RUNNING, "secrets"},
    "jobs.strategy": {*START, "needs"},
    "jobs.timeout-minutes": OF_JOB,
    "jobs.with": OF_JOB,
    "on.workflow_call.outputs": {*START, "jobs"},
}
"""By the key of a workflow, ids of jobs and numbers of steps left out. Elsewhere: none."""
NAMED = re.compile(rf"(?<![\w.-])({'|'.join(CONTEXTS)})(?=[.\[])")


def keys(part: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, str]]:
    """Every text of a workflow with its key, as in the table."""
    if isinstance(part, dict):
        for name, one in part.items():
            yield from keys(one, (*path, str(name)))
    elif isinstance(part, list):
        for one in part:
            yield from keys(one, path)
    elif isinstance(part, str):
        yield ".".join(path[:1] + path[2:] if path[0] == "jobs" else path), part


def wrong(workflow: Definition) -> list[str]:
    """Contexts that are not there where they are asked, as `key: context`."""
    found = []
    for key, text in keys(workflow):
        allowed = next((AVAILABLE[one] for one in _above(key) if one in AVAILABLE), set[str]())
        expressions = [text] if key.endswith(".if") else re.findall(r"\$\{\{(.*?)\}\}", text, re.S)
        for expression in expressions:
            named = NAMED.findall(re.sub(r"'[^']*'", "", expression))
            found += [f"{key}: {name}" for name in named if name not in allowed]
    return found


def _above(key: str) -> Iterator[str]:
    """The key and those that it is in."""
    while key:
        yield key
        key = key.rpartition(".")[0]


# --- the table is GitHub's own, by its parser


def using(key: str, context: str) -> Definition:
    """A workflow with that context at that key."""
    text = f"${{{{ {context}.x }}}}"
    text = text[4:-3] if key.endswith(".if") else text
    inner = key.removeprefix("jobs.").removeprefix("steps.")
    shape: Any = {
        "env": {"A": text},
        "with": {"a": text},
        "outputs": {"a": text},
        "services": {"a": {"image": text}},
        "strategy": {"matrix": {"a": [text]}},
    }.get(inner, text)
    if key == "jobs.with":
        return {
            "on": "push",
            "jobs": {"a": {"uses": "./.github/workflows/b.yml", "with": {"a": text}}},
        }
    step = {"uses": "a/b@v1"} if inner == "with" else {"run": "true"}
    job: dict[str, Any] = {"runs-on": "x", "steps": [step]}
    whole: Definition = {"on": "push", "jobs": {"a": job}}
    if key == "on.workflow_call.outputs":
        return {**whole, "on": {"workflow_call": {"outputs": {"a": {"value": text}}}}}
    place = job if key.startswith("jobs.") else whole
    if key.startswith("jobs.steps."):
        place = step
    place[inner] = shape
    return whole


CASES = [(key, context) for key in AVAILABLE for context in CONTEXTS]


def test_githubs_parser_allows_what_the_table_allows(parser: Path, tmp_path: Path) -> None:
    files = {tmp_path / f"{key}-{context}.yml": (key, context) for key, context in CASES}
    for file, case in files.items():
        file.write_text(yaml.safe_dump(using(*case)))
    told = subprocess.run(
        ["node", str(parser), *map(str, files)],
        capture_output=True,
        text=True,
        check=True,
    )
    refused = {files[Path(name)] for name, found in json.loads(told.stdout).items() if found}
    assert {case for case in CASES if wrong(using(*case))} == refused


@pytest.mark.parametrize(
    ("key", "context"),
    [case for case in CASES if case[1] not in AVAILABLE[case[0]]],
)
def test_a_context_that_is_not_there_is_found(key: str, context: str) -> None:
    (found,) = wrong(using(key, context))
    assert found.startswith(key)
    assert found.endswith(f": {context}")


# --- what we ship


@pytest.mark.parametrize("name", workflows())
def test_a_workflow_asks_only_contexts_that_are_there(name: str) -> None:
    assert wrong(workflows()[name]) == []


def test_everything_is_looked_at() -> None:
    assert {
        "README.md 1",
        "docs/github.md 1",
        "docs/restart.md 1",
        "examples/organisation.yml",
        ".github/workflows/release.yml",
    } <= set(workflows())
