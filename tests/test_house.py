"""The house rules that no other tool checks."""

from __future__ import annotations

import ast
import importlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

import grimp
import pytest

from runner_action import errors

ROOT = Path(__file__).parents[1]
SOURCES = sorted([*(ROOT / "runner_action").rglob("*.py"), *(ROOT / "schema").glob("*.py")])


LONG_FILES = {
    "runner_action/sandbox/clouds/azure/arm.py",
    "runner_action/sandbox/clouds/aws/ec2.py",
    "runner_action/sandbox/clouds/gcp/compute.py",
}
LONG_FUNCTIONS = {
    "runner_action/agent/process.py:run_to_end",
    "runner_action/bootstrap/__init__.py:spec_of",
    "runner_action/providers/aws/policy.py:policy",
    "runner_action/sandbox/clouds/azure/arm.py:__post_init__",
}
"""Over 40 lines; in the embedded world, whose tables of calls are long, over 60. Nothing is added
here; who splits one takes it out."""


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: str(source.relative_to(ROOT)))
def test_rooms_stay_small_and_say_what_they_are_for(source: Path) -> None:
    text = source.read_text("utf-8")
    tree = ast.parse(text)
    name = str(source.relative_to(ROOT))
    lines = text.count("\n")
    assert (lines > 400) == (name in LONG_FILES), f"{name} has {lines} lines"
    assert ast.get_docstring(tree), "a module says what it is for"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno is not None
            height = node.end_lineno - node.lineno + 1
            most = 60 if "/sandbox/" in name else 40
            known = f"{name}:{node.name}" in LONG_FUNCTIONS
            assert (height > most) == known, f"{name}: {node.name} has {height} lines"


PYTHON = sorted(
    file
    for place in ("runner_action", "schema", "image", "benchmarks", "tests")
    for file in (ROOT / place).rglob("*.py")
    if "node_modules" not in file.parts
)
CROWDED: dict[str, set[str]] = {
    "nested conditional": set(),
    "conditional as a statement": set(),
    "parallel assignment": set(),
    "long comprehension": {
        "runner_action/sandbox/clouds/gcp/catalogue.py",
    },
}
"""By kind of crowded line, the files that still have some. Nothing is added here; who unfolds a
file takes it out."""


def crowded(tree: ast.AST, most_clauses: int) -> dict[str, list[int]]:
    """The lines of each kind on which too much is decided at once. `most_clauses`: how many `for`
    and `if` a comprehension may have."""
    found: dict[str, list[int]] = {kind: [] for kind in CROWDED}
    for node in ast.walk(tree):
        for kind in kinds_of(node, most_clauses):
            found[kind].append(node.lineno)  # type: ignore[attr-defined]
    return found


def clauses_of(node: ast.AST) -> int:
    """How many `for` and `if` a comprehension has; 0 for what is none."""
    if not isinstance(node, ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
        return 0
    return sum(1 + len(part.ifs) for part in node.generators)


def kinds_of(node: ast.AST, most_clauses: int) -> Iterator[str]:
    if isinstance(node, ast.IfExp):
        inside = (part for child in ast.iter_child_nodes(node) for part in ast.walk(child))
        if any(isinstance(part, ast.IfExp) for part in inside):
            yield "nested conditional"
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.IfExp):
        yield "conditional as a statement"
    if isinstance(node, ast.Assign) and isinstance(node.value, ast.Tuple):
        targets = [target for target in node.targets if isinstance(target, ast.Tuple)]
        if any(len(target.elts) > 2 for target in targets):
            yield "parallel assignment"
    if clauses_of(node) > most_clauses:
        yield "long comprehension"


@pytest.mark.parametrize("source", PYTHON, ids=lambda source: str(source.relative_to(ROOT)))
def test_a_line_decides_one_thing(source: Path) -> None:
    name = str(source.relative_to(ROOT))
    most_clauses = 3 if name.startswith("tests/") else 2
    for kind, lines in crowded(ast.parse(source.read_text("utf-8")), most_clauses).items():
        assert bool(lines) == (name in CROWDED[kind]), f"{name}: {kind} in the lines {lines}"


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("a if b else c if d else e", {"nested conditional", "conditional as a statement"}),
        ("x = a if b else f(c if d else e)", {"nested conditional"}),
        ("x = a if b else c", set()),
        ("f(x) if y else g(x)", {"conditional as a statement"}),
        ("a, b, c = 1, 2, 3", {"parallel assignment"}),
        ("a, b = b, a", set()),
        ("a, b, c = f()", set()),
        ("[x for y in z for x in y if x]", {"long comprehension"}),
        ("{x for y in z for x in y}", set()),
    ],
)
def test_crowded_lines_are_known(text: str, kinds: set[str]) -> None:
    assert {kind for kind, lines in crowded(ast.parse(text), 2).items() if lines} == kinds


def test_every_error_has_an_exit_code_of_the_table_in_its_module() -> None:
    table = errors.__doc__ or ""
    for error in vars(errors).values():
        if isinstance(error, type) and issubclass(error, errors.RunnerActionError):
            line = next(line for line in table.splitlines() if line.split()[:1] == [error.__name__])
            assert str(error.exit_code) in line


OF_ONE_ALONE = re.compile(
    r"providers/(aws|azure|gcp|kubernetes)/|forges/(github|gitlab)/|agent/|sandbox/"
    r"|ci/(github|gitlab)\.py"
)
"""What belongs to one cloud, GitHub or GitLab, and what is held by rules of its own."""
LISTS = {
    "providers/__init__.py": "the list of clouds",
    "forges/__init__.py": "the list of forges",
    "ci/__init__.py": "the list of how each CI is written to",
    "ci/cml.py": "CML's own words",
    "model.py": "ProviderName and ForgeName themselves",
}
NAMES = re.compile(r"aws|azure|gcp|google|kubernetes|github|gitlab|ec2|\bCI_[A-Z]", re.I)
INPUTS = json.loads((ROOT / "schema/inputs.schema.json").read_text("utf-8"))["properties"]
"""Inputs may have such a name: users write it."""
CORE = {
    str(source.relative_to(ROOT / "runner_action")): source
    for source in (ROOT / "runner_action").rglob("*.py")
}


def names_in(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Identifiers, and texts of one word, with their lines: no prose."""
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name):
                yield name, line
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name) | ast.alias(name=name):
                yield name, line
            case ast.ImportFrom(module=str(name)) | ast.keyword(arg=str(name)):
                yield name, line
            case ast.Constant(value=str(text)) if " " not in text:
                yield text, line


@pytest.mark.parametrize(
    "name", [name for name in CORE if not OF_ONE_ALONE.match(name) and name not in LISTS]
)
def test_the_core_names_no_cloud_and_no_forge(name: str) -> None:
    """What belongs to one of them stands with it, so that a new one is added without reading the
    rest."""
    tree = ast.parse(CORE[name].read_text("utf-8"))
    named = [(word, line) for word, line in names_in(tree) if NAMES.search(word)]
    assert [(word, line) for word, line in named if word not in INPUTS] == []


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("x = GITHUB", True),
        ("x.aws.y", True),
        ("from a.gitlab import b", True),
        ("f(azure=1)", True),
        ("def of_github(): ...", True),
        ('environ["CI_JOB_ID"]', True),
        ('x = "at GitHub and GitLab"', False),
        ("x = forge", False),
    ],
)
def test_a_name_of_a_cloud_or_forge_is_known(text: str, named: bool) -> None:
    assert any(NAMES.search(word) for word, _ in names_in(ast.parse(text))) is named


def test_nobody_patches_our_own_code() -> None:
    offenders = [
        file
        for file in (ROOT / "tests").rglob("*.py")
        if "mock." + "patch" in file.read_text("utf-8")
    ]
    assert offenders == []


SHELL = r"[\s\"']-delete\b|\brm\s+(-\S+\s+)*-\w*[rR]"
REMOVES_TREES = re.compile(rf"\brmtree\b|\bremovedirs\b|topdown\s*=\s*False|{SHELL}")
SHIPPED = ["runner_action", "gitlab-component", "examples"]


def test_folders_are_removed_in_one_place_which_passes_no_mount() -> None:
    """`shutil.rmtree`, `find -delete` and `rm -r` empty what a job has mounted in its workspace:
    `agent/removal.py` does not. Stand-ins are as unkind as what they stand for. boot.sh removes
    what an earlier machine left, before there is a job; tests/test_bootstrap.py mounts a disk."""
    files = [file for place in SHIPPED for file in (ROOT / place).rglob("*")]
    offenders = {}
    for file in [*files, ROOT / "action.yml"]:
        ours = file.suffix in (".py", ".yml", ".sh") and not file.name.endswith("_standin.py")
        if ours and (found := REMOVES_TREES.search(file.read_text("utf-8"))):
            offenders[str(file.relative_to(ROOT))] = found[0]
    assert offenders == {"runner_action/bootstrap/machine/boot.sh": "rm -r"}


@pytest.mark.parametrize(
    ("text", "removes"),
    [
        ("shutil.rmtree(x)", True),
        ("find x -mindepth 1 -delete", True),
        ('["find", x, "-delete"]', True),
        ("rm -rf x", True),
        ("rm -f -r x", True),
        ("os.walk(x, topdown=False)", True),
        ("rm -f x", False),
        ('say("not-deleted")', False),
        ("rsync --delete-after", False),
    ],
)
def test_what_removes_a_tree_is_known_by_its_words(text: str, removes: bool) -> None:
    assert bool(REMOVES_TREES.search(text)) is removes


@pytest.mark.parametrize("name", ["runner_action.providers", "runner_action.forges"])
def test_a_list_hides_none_of_its_folders(name: str) -> None:
    """`import runner_action.providers.azure.credentials as x` reads the attribute `azure`."""
    package = importlib.import_module(name)
    folders = [
        path.parent.name for path in Path(str(package.__file__)).parent.glob("*/__init__.py")
    ]
    for folder in folders:
        assert importlib.import_module(f"{name}.{folder}") is getattr(package, folder)


NEEDED_CIRCLES = {
    frozenset({"agent.guard", "agent.process"}),
    frozenset({"agent.__main__", "agent.become", "agent.ending", "agent.run"}),
}
"""The agent's, whose modules import one another only when they are called: each costs user data."""


def test_the_product_imports_in_no_circle_but_the_agents() -> None:
    graph = grimp.build_graph("runner_action", cache_dir=None)
    names = {name for name in graph.modules if ".sandbox" not in name}
    circles = set()
    for importer in names:
        imported = graph.find_upstream_modules(importer) & names
        circle = {name for name in imported if importer in graph.find_upstream_modules(name)}
        if circle:
            members = (name.removeprefix("runner_action.") for name in {importer, *circle})
            circles.add(frozenset(members))
    assert circles == NEEDED_CIRCLES
