"""The house rules that no other tool checks."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from runner_action import errors

ROOT = Path(__file__).parents[1]
SOURCES = sorted([*(ROOT / "runner_action").rglob("*.py"), *(ROOT / "schema").glob("*.py")])


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: str(source.relative_to(ROOT)))
def test_rooms_stay_small_and_say_what_they_are_for(source: Path) -> None:
    text = source.read_text("utf-8")
    tree = ast.parse(text)
    assert text.count("\n") <= 350
    assert ast.get_docstring(tree), "a module says what it is for"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno < 60, node.name


def test_every_error_has_an_exit_code_of_the_table_in_its_module() -> None:
    table = errors.__doc__ or ""
    for error in vars(errors).values():
        if isinstance(error, type) and issubclass(error, errors.RunnerActionError):
            line = next(line for line in table.splitlines() if line.split()[:1] == [error.__name__])
            assert str(error.exit_code) in line


def test_nobody_patches_our_own_code() -> None:
    offenders = [file for file in (ROOT / "tests").rglob("*.py") if "mock." + "patch" in file.read_text("utf-8")]
    assert offenders == []
