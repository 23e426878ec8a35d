"""Minifies Python source: without what only readers and tools need, and with short names. Pure."""

from __future__ import annotations

import ast
import builtins
import io
import re
import string
import symtable
import tokenize
import typing
from collections.abc import Iterable, Iterator, Mapping, Set
from functools import cache
from itertools import chain

LETTERS = string.ascii_lowercase[::-1] + string.ascii_uppercase
"""Short names, in this order: bzip2 packs the agent some 20 bytes smaller than from `a` on."""
CONSTANT = re.compile("[A-Z][A-Z_0-9]+").fullmatch
PRIVATE = re.compile("_[a-z][a-z_]*[a-z]").fullmatch
"""An attribute that no other class uses."""
OF_PYTHON = frozenset(
    {
        *("cancel", "detach", "empty", "end", "get", "handle", "http_response", "join", "lines"),
        *("load", "put", "read", "request", "run", "send", "start", "stop", "verify_request"),
        "wait",
    }
)
"""Names of the agent that are also names of methods in Python's library, which it calls, or which
call it. A test finds them."""
SHORT_BLOCK = re.compile(
    r"^( *)((?:if|elif|else|for|while|try|except|finally|with|def)\b.*:)\n"
    r"\1 ((?!if\b|for\b|while\b|try\b|with\b|def\b|class\b|@)\S.*)\n(?!\1 )",
    re.M,
)
"""A block of a single simple statement, in text that is indented by single spaces."""
NO_TEXT = (tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)


def keywords(sources: Iterable[str]) -> frozenset[str]:
    """The names by which a call somewhere in these sources may pass an argument: those of keyword
    arguments, and the keys of dicts, which may be unpacked into a call."""
    names: set[str] = set()
    for source in sources:
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.keyword) and node.arg:
                names.add(node.arg)
            elif isinstance(node, ast.Dict):
                constants = [key for key in node.keys if isinstance(key, ast.Constant)]
                names.update(str(key.value) for key in constants)
    return frozenset(names)


def own_names(sources: Iterable[str]) -> tuple[str, ...]:
    """The constants, functions, methods, private attributes and classes of modules with these
    sources that may be renamed in all of them: not those whose name is used for anything else, in
    Python's library or in these modules, and no exceptions, whose names are shown to users. In the
    order of their definitions."""
    trees = [ast.parse(source) for source in sources]
    used = {*dir(builtins), *OF_PYTHON, *chain.from_iterable(map(_used_otherwise, trees))}
    own = dict.fromkeys(chain.from_iterable(map(_defined, trees)))
    return tuple(name for name in own if name not in used)


def _defined(tree: ast.Module) -> Iterator[str]:
    for statement in tree.body:
        if isinstance(statement, ast.Assign | ast.AnnAssign):
            yield from filter(CONSTANT, stored(statement))
    definitions = (ast.FunctionDef, ast.ClassDef)
    nodes = (node for node in ast.walk(tree) if isinstance(node, definitions))
    yield from (node.name for node in nodes if not (node.name[:2] == "__" or fails(node)))
    attributes = (node for node in ast.walk(tree) if isinstance(node, ast.Attribute))
    set_ = (node.attr for node in attributes if isinstance(node.ctx, ast.Store))
    yield from filter(PRIVATE, set_)


def fails(node: ast.FunctionDef | ast.ClassDef) -> bool:
    """Whether it is an exception: a class derived from one of Python's."""
    names = [ast.unparse(base) for base in getattr(node, "bases", ())]
    bases = (getattr(builtins, name, object) for name in names)
    return any(issubclass(base, BaseException) for base in bases)


def stored(scope: ast.AST) -> Iterator[str]:
    names = (node for node in ast.walk(scope) if isinstance(node, ast.Name))
    return (name.id for name in names if isinstance(name.ctx, ast.Store))


def _used_otherwise(tree: ast.Module) -> Iterator[str]:
    """The names in a module that must stay: of modules and of what is in those of Python, of
    variables, fields and parameters, and what a string may refer to."""
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import)]
    of_python = {bound(alias) for node in imports for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.arg | ast.keyword) and node.arg:
            yield node.arg
        elif isinstance(node, ast.Attribute):
            is_field = isinstance(node.ctx, ast.Store) and not PRIVATE(node.attr)
            if is_field or _is_of(node, of_python):
                yield node.attr
        elif isinstance(node, ast.ImportFrom):
            yield from _not_ours(node)
    yield from of_python
    for scope in tree.body:
        if isinstance(scope, ast.ClassDef | ast.FunctionDef):
            yield from (name for name in stored(scope) if not PRIVATE(name))


def _is_of(node: ast.Attribute, names: Set[str]) -> bool:
    return isinstance(node.value, ast.Name) and node.value.id in names


def _not_ours(node: ast.ImportFrom) -> Iterator[str]:
    """What an import names besides names in modules of the same package."""
    ours = node.level and node.module
    for alias in node.names:
        yield from [alias.asname] if alias.asname else []
        yield from [] if ours else [alias.name]


@cache
def _short(names: tuple[str, ...]) -> Mapping[str, str]:
    """Names of a letter and a digit, which bzip2 packs better than two letters; those of one module
    begin alike."""
    short = (letter + digit for letter in sorted(LETTERS) for digit in string.digits)
    return dict(zip(names, short, strict=False))


def rename_own(tree: ast.Module, short: Mapping[str, str]) -> None:
    """Gives names of the package their new names where they are defined, imported and used."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            node.id = short.get(node.id, node.id)
        elif isinstance(node, ast.Attribute):
            node.attr = short.get(node.attr, node.attr)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef | ast.alias):
            node.name = short.get(node.name, node.name)


@cache
def slim(source: str, keywords: frozenset[str], own: tuple[str, ...] = ()) -> str:
    """Removes comments, docstrings, annotations with their imports, abstract methods, spaces and
    most of the indentation; and gives short names to the `own` names of the package, and to what is
    local to a function, except for parameters that `keywords` may name."""
    tree = _Slim().visit(ast.parse(source))
    rename_own(tree, _short(own))
    identifiers = symtable.symtable(ast.unparse(tree), "agent", "exec").get_identifiers()
    shared = {*dir(builtins), *identifiers}
    for function in outermost(tree):
        shorten(function, shared, keywords)
    drop_unused_imports(tree)
    text = tight(ast.unparse(ast.fix_missing_locations(tree)))
    text = re.sub(r"^( +)", lambda match: " " * (len(match[1]) // 4), text, flags=re.M)
    text = re.sub(r"\n{2,}", "\n", text)  # no line of a string is blank: its ends are escaped
    # An assigned tuple needs no parentheses.
    text = re.sub(r"=\(([^()]*,[^()]*)\)$", r"=\1", text, flags=re.M) + "\n"
    return joined(text)


def joined(text: str) -> str:
    """Puts each block of a single simple statement into the line of its head."""
    return SHORT_BLOCK.sub(r"\1\2\3\n", text)


def drop_unused_imports(tree: ast.Module) -> None:
    """Removes from `from … import` the names that only annotations have used."""
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    kept: list[ast.stmt] = []
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            node.names = [alias for alias in node.names if bound(alias) in used]
            if not node.names or node.module == "__future__":
                continue
        kept.append(node)
    tree.body = kept


def bound(alias: ast.alias) -> str:
    """The name that an import binds."""
    return alias.asname or alias.name


def outermost(tree: ast.AST) -> Iterator[ast.FunctionDef]:
    """The functions and methods that are not inside another function."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef):
            yield node
        else:
            yield from outermost(node)


def shorten(function: ast.FunctionDef, shared: Set[str], keywords: Set[str]) -> None:
    """Renames the parameters and variables of a function, and of the functions inside it, to
    letters. Two kinds of names stay: those `shared` with the module or Python, which a function
    inside may mean; and parameters that callers may pass by name, which are in `keywords`."""
    nodes = list(ast.walk(function))
    names = [node for node in nodes if isinstance(node, ast.Name)]
    parameters = [node for node in nodes if isinstance(node, ast.arg)]
    kept = {*shared, *fixed(nodes)}
    kept.update(node.arg for node in parameters if node.arg in keywords)
    own = [node.arg for node in parameters]
    own += [node.id for node in names if isinstance(node.ctx, ast.Store)]
    taken = {*kept, *own, *keywords, *(node.id for node in names)}
    free = iter([letter for letter in LETTERS if letter not in taken])
    short: dict[str, str] = {}
    for name in own:
        if name not in short and name not in kept and len(name) > 1:
            short[name] = next(free, name)
    rename(nodes, short)


def fixed(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """Names in a function that must stay: of `global` and `nonlocal`, imports, and functions."""
    for node in nodes:
        if isinstance(node, ast.Global | ast.Nonlocal):
            yield from node.names
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from map(bound, node.names)
        elif isinstance(node, ast.FunctionDef):
            yield node.name


def rename(nodes: Iterable[ast.AST], short: dict[str, str]) -> None:
    """Gives names, parameters and caught exceptions their new names."""
    for node in nodes:
        if isinstance(node, ast.Name):
            node.id = short.get(node.id, node.id)
        elif isinstance(node, ast.arg):
            node.arg = short.get(node.arg, node.arg)
        elif isinstance(node, ast.ExceptHandler) and node.name:
            node.name = short.get(node.name, node.name)


def tight(source: str) -> str:
    """Removes the spaces that do not separate two words. The agent has no f-strings: Python 3.12
    and later also split what is inside them into tokens."""
    lines = source.splitlines(keepends=True)
    row = 1
    column = 0
    text = ""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in NO_TEXT:
            continue
        start_row, start_column = token.start
        if start_row != row:
            text += lines[start_row - 1][:start_column]  # the indentation
        elif re.match(r"\w", text[-1:]) and re.match(r"\w", token.string):
            text += lines[row - 1][column:start_column]
        text += token.string
        row, column = token.end
    return text


class _Slim(ast.NodeTransformer):
    """Removes what does not run. In classes it keeps annotated names, which dataclasses read."""

    def visit_Assert(self, node: ast.Assert) -> None:
        """Asserts are for the type checker."""

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        """Docstrings go."""
        value = node.value
        is_text = isinstance(value, ast.Constant) and isinstance(value.value, str)
        return None if is_text else node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        body: list[ast.stmt] = []
        for part in node.body:
            if isinstance(part, ast.AnnAssign):
                part.annotation = ast.Constant(0)
                body.append(part)
            elif (slimmed := self.visit(part)) is not None:
                body.append(slimmed)
        node.body = body or [ast.Pass()]
        return node

    def visit_Assign(self, node: ast.Assign) -> ast.AST | None:
        """Type aliases such as `Ref = Optional[…]` go: only annotations use them."""
        value = node.value
        if not isinstance(value, ast.Subscript) or not isinstance(value.value, ast.Name):
            return node
        return None if hasattr(typing, value.value.id) else node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST | None:
        """Abstract methods and annotations go."""
        self.generic_visit(node)
        if [ast.unparse(part) for part in node.body] == ["raise NotImplementedError"]:
            return None
        node.returns = None
        parameters = node.args
        every = (*parameters.args, *parameters.kwonlyargs, parameters.vararg, parameters.kwarg)
        for parameter in every:
            if parameter:
                parameter.annotation = None
        node.body = node.body or [ast.Pass()]
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST | None:
        """Annotated assignments in functions and modules become plain ones."""
        if not node.value:
            return None
        return ast.Assign([node.target], node.value, lineno=node.lineno)
