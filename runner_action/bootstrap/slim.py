"""Python source without what only readers and tools need, as small as it gets while a traceback
still names functions and lines. Pure."""

from __future__ import annotations

import ast
import builtins
import io
import re
import string
import symtable
import tokenize
import typing
from collections.abc import Iterable, Iterator, Set
from functools import cache

LETTERS = string.ascii_lowercase[::-1] + string.ascii_uppercase
"""Short names, in this order: bzip2 packs the agent some 20 bytes smaller than from `a` on."""


def keywords(sources: Iterable[str]) -> frozenset[str]:
    """What may be the name of an argument in a call somewhere in these sources: also the keys of
    mappings, which may be unpacked into a call."""
    nodes = [node for source in sources for node in ast.walk(ast.parse(source))]
    written = {node.arg for node in nodes if isinstance(node, ast.keyword) and node.arg}
    keys = [key for node in nodes if isinstance(node, ast.Dict) for key in node.keys]
    return frozenset(written | {str(key.value) for key in keys if isinstance(key, ast.Constant)})


@cache
def slim(source: str, keywords: frozenset[str]) -> str:
    """Without comments, docstrings, annotations and their names, members that are only
    described, the width of indentation, spaces; and with short names for what is local to a
    function, but for parameters that `keywords` may name.
    """
    tree = _Slim().visit(ast.parse(source))
    shared = {*dir(builtins), *symtable.symtable(source, "agent", "exec").get_identifiers()}
    for function in outermost(tree):
        shorten(function, shared, keywords)
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            node.names = [
                name for name in node.names if (name.asname or name.name) in used
            ]  # with annotations, what is imported for them is gone too
    tree.body = [
        node
        for node in tree.body
        if not isinstance(node, ast.ImportFrom) or (node.names and node.module != "__future__")
    ]
    text = tight(ast.unparse(ast.fix_missing_locations(tree)))
    text = re.sub(r"^( +)", lambda match: " " * (len(match[1]) // 4), text, flags=re.M)
    text = re.sub(r"\n{2,}", "\n", text)  # nor blank lines; in strings they are escaped
    return (
        re.sub(r"=\(([^()]*,[^()]*)\)$", r"=\1", text, flags=re.M) + "\n"
    )  # a pair needs no parentheses there


def outermost(tree: ast.AST) -> Iterator[ast.FunctionDef]:
    """The functions and methods that stand in no other function."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef):
            yield node
        else:
            yield from outermost(node)


def shorten(function: ast.FunctionDef, shared: Set[str], keywords: Set[str]) -> None:
    """Letters for parameters and variables of a function and of those inside it. Names that are
    `shared` with the module or Python stay, since a function inside may mean them; so do
    parameters that callers may name, which are the `keywords`."""
    nodes = list(ast.walk(function))
    names = [node for node in nodes if isinstance(node, ast.Name)]
    parameters = [node for node in nodes if isinstance(node, ast.arg)]
    kept = set(shared)
    kept |= {node.arg for node in parameters if node.arg in keywords}
    kept |= {
        name for node in nodes if isinstance(node, ast.Global | ast.Nonlocal) for name in node.names
    }
    kept |= {
        alias.asname or alias.name
        for node in nodes
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    kept |= {node.name for node in nodes if isinstance(node, ast.FunctionDef)}
    own = [node.arg for node in parameters] + [
        node.id for node in names if isinstance(node.ctx, ast.Store)
    ]
    taken = {*kept, *own, *keywords, *(node.id for node in names)}
    free = iter(letter for letter in LETTERS if letter not in taken)
    short = {
        name: next(free, name) for name in dict.fromkeys(own) if len(name) > 1 and name not in kept
    }
    for name in names:
        name.id = short.get(name.id, name.id)
    for parameter in parameters:
        parameter.arg = short.get(parameter.arg, parameter.arg)
    for node in nodes:
        if isinstance(node, ast.ExceptHandler) and node.name:
            node.name = short.get(node.name, node.name)


def tight(source: str) -> str:
    """Without the spaces that part no two words. The agent has no f-strings, whose inside Python
    3.12 would tell as words too."""
    lines, ends = source.splitlines(keepends=True), (1, 0)
    found: list[str] = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in (tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER):
            continue
        between = (
            lines[ends[0] - 1][ends[1] : token.start[1]]
            if ends[0] == token.start[0]
            else lines[token.start[0] - 1][: token.start[1]]
        )
        words = ends[0] != token.start[0] or (
            found and re.match(r"\w", found[-1][-1:]) and re.match(r"\w", token.string)
        )
        found += [between if words else "", token.string]
        ends = token.end
    return "".join(found)


class _Slim(ast.NodeTransformer):
    """Keeps the annotations of classes, which dataclasses read."""

    def visit_Assert(self, node: ast.Assert) -> None:
        """They tell a type checker what it cannot see."""

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        return (
            None
            if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
            else node
        )

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        kept = [part for part in node.body if isinstance(part, ast.AnnAssign)]
        for part in kept:
            part.annotation = ast.Constant(0)
        node.body = [
            new
            for part in node.body
            if (new := part if part in kept else self.visit(part)) is not None
        ] or [ast.Pass()]
        return node

    def visit_Assign(self, node: ast.Assign) -> ast.AST | None:
        """`Ref = Optional[…]` is only there for annotations."""
        value = node.value
        return (
            None
            if isinstance(value, ast.Subscript)
            and isinstance(value.value, ast.Name)
            and hasattr(typing, value.value.id)
            else node
        )

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST | None:
        self.generic_visit(node)
        if [ast.unparse(part) for part in node.body] == ["raise NotImplementedError"]:
            return None
        node.returns = None
        for argument in (*node.args.args, *node.args.kwonlyargs, node.args.vararg, node.args.kwarg):
            if argument:
                argument.annotation = None
        node.body = node.body or [ast.Pass()]
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST | None:
        return ast.Assign([node.target], node.value, lineno=node.lineno) if node.value else None
