"""The agent's source on its way to a machine: smaller, and of the same meaning."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from runner_action import agent
from runner_action.bootstrap import POD_ENTRY
from runner_action.bootstrap.slim import OF_PYTHON, joined, keywords, own_names, slim

MODULES = sorted(Path(agent.__file__).parent.glob("*.py"))


def run(source: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(compile(source, "slimmed", "exec"), names)
    return names


def test_slim_keeps_the_meaning() -> None:
    source = (
        '"""Doc."""\nfrom __future__ import annotations\nimport dataclasses\nfrom typing import'
        " Callable, List\n\nAlias = Callable[[], int]\n\ndef f(a: int, *b: str, c: List[int] = [],"
        ' **d: int) -> str:  # why\n    """Doc."""\n    x: int = a\n    y: str\n    return "# kept'
        ' %s" % x\n\n@dataclasses.dataclass\nclass C:\n    """Doc."""\n    a: int\n    b: List[int]'
        ' = dataclasses.field(default_factory=list)\n    """Doc."""\n\nclass E(Exception):\n   '
        ' """Only a doc."""\n'
    )
    slimmed = slim(source, keywords([source]))
    for word in ("Doc", "why", "List", "int = a", "str"):
        assert word not in slimmed.replace("a + str", "")
    names = run(slimmed)
    assert names["f"](1) == "# kept 1"
    assert names["C"](2).b == []
    assert issubclass(names["E"], Exception)


@pytest.mark.parametrize(
    ("source", "value"),
    [
        (
            "def f(count):\n total = count\n return [total + item for item in range(count)]",
            [3, 4, 5],
        ),
        (
            (
                "def f(count):\n def inner(item, *, extra=1):\n  nonlocal_sum = item + extra\n "
                " return nonlocal_sum\n return inner(count, extra=2)"
            ),
            5,
        ),
        (
            (
                "def f(count):\n total = 0\n def add():\n  nonlocal total\n  total += count\n"
                " add()\n return total"
            ),
            3,
        ),
        (
            (
                "total = 10\ndef f(count):\n def inner():\n  total = count\n  return total\n return"
                " inner() + total"
            ),
            13,
        ),
        (
            (
                "def f(count):\n def inner():\n  len = count\n  return len\n return inner() +"
                " len('ab')"
            ),
            5,
        ),
        (
            (
                "def f(count):\n import os.path as place\n from math import floor\n value ="
                " floor(count + .5)\n return place.basename('x/%d' % value)"
            ),
            "3",
        ),
        (
            (
                "def f(count):\n try:\n  raise ValueError(count)\n except ValueError as error:\n "
                " found = error.args[0]\n return found"
            ),
            3,
        ),
        ("def f(count):\n a = count\n other = a + 1\n return (lambda value: value + other)(a)", 7),
        (
            (
                "def f(count):\n kept: int = count\n for kept, item in ((kept, 1),):\n  pass\n with"
                " open('/dev/null') as file:\n  file.read()\n return kept + item"
            ),
            4,
        ),
    ],
)
def test_short_names_mean_what_the_long_ones_did(source: str, value: object) -> None:
    assert run(source)["f"](3) == value
    assert run(slim(source, keywords([source])))["f"](3) == value


def test_what_only_a_function_uses_is_short_though_an_argument_elsewhere_has_its_name() -> None:
    source = "def f(path):\n folder = path + 1\n return folder\n\ndef g(path=1):\n return path\n"
    slimmed = slim(source, frozenset({"folder", "path"}))
    assert "folder" not in slimmed
    assert run(slimmed)["f"](path=3) == 4
    assert "\n\n" not in slimmed


@pytest.mark.parametrize("module", MODULES, ids=lambda file: file.name)
def test_functions_keep_the_parameters_that_callers_write(module: Path) -> None:
    written = keywords(file.read_text("utf-8") for file in MODULES)

    def signatures(source: str) -> list[tuple[str, list[str]]]:
        functions = [
            node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)
        ]
        return [
            (
                function.name,
                [
                    argument.arg
                    for argument in (*function.args.args, *function.args.kwonlyargs)
                    if argument.arg in written
                ],
            )
            for function in functions
        ]

    source = module.read_text("utf-8")
    kept = signatures(slim(source, written))
    assert [signature for signature in kept if signature not in signatures(source)] == []
    assert bool(kept) == bool(signatures(source))


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("if a:\n b\nc\n", "if a:b\nc\n"),
        ("if a:\n b\nelse:\n c\n", "if a:b\nelse:c\n"),
        ("if a:\n b\n c\n", "if a:\n b\n c\n"),
        ("if a:\n if b:\n  c\n", "if a:\n if b:c\n"),
        ("if a:\n if b:\n  c\n d\n", "if a:\n if b:c\n d\n"),
        ("@a\ndef b(c):\n return c\n", "@a\ndef b(c):return c\n"),
        ("class A:\n b=1\n", "class A:\n b=1\n"),
        ("try:\n a\nexcept B:\n pass\n", "try:a\nexcept B:pass\n"),
    ],
)
def test_a_short_block_is_in_the_line_of_its_head(text: str, line: str) -> None:
    assert joined(text) == line


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)
def test_shorter_blocks_mean_the_same(module: Path) -> None:
    text = ast.unparse(ast.parse(module.read_text()))
    text = re.sub("^( +)", lambda match: " " * (len(match[1]) // 4), text, flags=re.M)
    text = re.sub(r'"""(.|\n)*?"""', "0", text)  # only docstrings have several lines
    text = re.sub(r"\n{2,}", "\n", text)
    assert len(joined(text)) <= len(text)
    assert ast.dump(ast.parse(joined(text))) == ast.dump(ast.parse(text))


PACKAGE = {
    "__init__": "",
    "one": (
        "import enum, signal\nLIMIT = 7\nPAUSE, MOST = 1, 2\n"
        "GONE = 'gone'\nSIGTERM = 1\nCOUNT = 0\n"
        "class Phase(enum.Enum):\n BUSY = 1\n GONE = 2\n"
        "def grown():\n global COUNT\n COUNT += 1\n return COUNT + signal.SIGTERM\n"
        "def named():\n return 'PAUSE'\n"
        "class Failed(ValueError):\n pass\n"
        "class Counter:\n _times = 0\n"
        " def __init__(self):\n  self._name = self._times\n"
        " def stop(self):\n  return 'stopped'\n"
        " def counted(self, named=1):\n  return named\n"
    ),
    "two": (
        "from . import one\nfrom .one import LIMIT, PAUSE as WAIT, Counter, Phase\nBUSY = LIMIT\n"
        "def all():\n return LIMIT, WAIT, one.MOST, one.GONE, Phase.BUSY.value, BUSY, one.SIGTERM\n"
        "def both():\n counter = Counter()\n return counter.counted(named=2), counter.stop()\n"
    ),
}


def test_names_are_changed_in_all_modules_where_nothing_else_has_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = own_names(PACKAGE.values())
    assert set(names) == {"LIMIT", "MOST", "Counter", "Phase", "both", "counted", "grown", "_name"}
    folder = tmp_path / "slimmed_package"
    folder.mkdir()
    for name, source in PACKAGE.items():
        slimmed = slim(source, keywords(PACKAGE.values()), names)
        assert "LIMIT" not in slimmed
        (folder / f"{name}.py").write_text(slimmed)
    monkeypatch.syspath_prepend(tmp_path)
    two = importlib.import_module("slimmed_package.two")
    short = {name: f"A{number}" for number, name in enumerate(names)}
    assert two.all() == (7, 1, 2, "gone", 1, 7, 1)
    assert getattr(two, short["both"])() == (2, "stopped")
    assert getattr(two.one, short["grown"])() == 1 + 15
    assert two.one.named() == "PAUSE"
    assert issubclass(two.one.Failed, ValueError)


def methods_of(module: ModuleType) -> set[str]:
    kinds = [value for value in vars(module).values() if isinstance(value, type)]
    return {name for kind in kinds for name in dir(kind) if name.islower() and name[0] != "_"}


def test_no_method_of_the_library_has_a_name_that_is_changed() -> None:
    sources = [module.read_text() for module in MODULES]
    trees = [ast.parse(source) for source in [*sources, POD_ENTRY]]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    plain = [node for node in nodes if isinstance(node, ast.Import)]
    whole = [alias.name for node in plain for alias in node.names]
    parts = [node for node in nodes if isinstance(node, ast.ImportFrom) and not node.level]
    modules = {*whole, *(node.module or "" for node in parts), "builtins"} - {"agent.pod"}
    methods = set().union(*(methods_of(importlib.import_module(name)) for name in modules))
    defined = {node.name for node in nodes if isinstance(node, ast.FunctionDef)}
    assert sorted(defined & methods) == sorted(OF_PYTHON)


def test_no_name_in_the_agent_is_like_a_changed_one() -> None:
    sources = [module.read_text() for module in MODULES]
    assert 250 < len(own_names(sources)) <= 520, "as many as there are short names"
    nodes = [node for source in sources for node in ast.walk(ast.parse(source))]
    names = {node.id for node in nodes if isinstance(node, ast.Name)}
    assert not [name for name in names if re.fullmatch(r"[A-Za-z]\d", name)]
