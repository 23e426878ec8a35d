"""Where the agent has effects, by its source: so that one which no story reaches is not forgotten.
Pure."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.matrix.agent.points import Effect

KINDS = {
    "read": ("read_bytes", "read_text"),
    "lines": ("pread",),
    "write": ("touch", "write_bytes", "write_text"),
    "change": (
        "chmod",
        "chown",
        "execv",
        "glob",
        "iterdir",
        "mkdir",
        "rename",
        "rmdir",
        "scandir",
        "symlink_to",
        "unlink",
        "utime",
        "walk",
    ),
    "start": ("Popen", "check_output", "run"),
    "signal": ("kill", "killpg"),
    "connect": ("connect",),
    "request": ("getresponse", "urlopen"),
    "space": ("statvfs",),
}
"""Names of what is called, by kind of effect."""
ALSO = {"write": ("change",), "read": ("lines",)}
"""What else it may be: a file that is there is touched, or one that others write is read."""
KIND_OF = {name: kind for kind, names in KINDS.items() for name in names}
UNREACHED = {
    "guard": "only a runner on a machine that is not a cloud's has it, and there is no story yet",
}
"""Modules that no story has, and why."""
UNREACHED_FUNCTIONS = {
    "__main__.write_line": "only if standard output is broken",
    "__main__.live": "kills itself after an error that nobody foresaw",
    "kept.source": "what it reads is only in cml-runner's own container image",
    "gitlab.Forge.retire": "what it reads is needed only if gitlab-runner is given a job meanwhile",
    "pod.alive.say": "removes a startup script, which no story has",
    "pod.with_home": "only for a user whom the image does not know",
    "pod_guard.evict": "only for a container that a webhook added, which no story has",
    "pod_guard.guard": "what it does to a restarted guard, which has lost everything",
    "removal._Removal.detach": "a job has to mount something, for which it needs privileges",
}
BY_CHANCE = ("stage.late", "watchdog.first_look")
"""Functions that a story may reach or not: the watchdog may look before the agent is there."""


def sites(module: str, source: str) -> Iterator[tuple[str, str]]:
    """Each place, as `module.function`, and the kind of an effect that it has."""
    yield from _below(ast.parse(source), module)


def _below(node: ast.AST, place: str) -> Iterator[tuple[str, str]]:
    for child in ast.iter_child_nodes(node):
        inside = place
        if isinstance(child, ast.FunctionDef | ast.ClassDef):
            inside = f"{place}.{child.name}"
        if isinstance(child, ast.Call):
            kind = kind_of(child)
            if kind:
                yield place, kind
        yield from _below(child, inside)


def kind_of(call: ast.Call) -> str:
    """The kind of effect that this call has by its name; empty if none."""
    name = ast.unparse(call.func)
    last = name.rpartition(".")[2]
    modes = [str(word.value) for word in call.args if isinstance(word, ast.Constant)]
    if last == "open":
        modes += ["w"] * any("O_WRONLY" in ast.unparse(word) for word in call.args)
        return _opened(name, modes)
    if last == "run" and name != "subprocess.run":
        return ""
    if name == "os.write":
        return "say" if ast.unparse(call.args[0]) == "1" else ""  # a pipe of its own
    if last == "replace":  # of a path: of a text it has two arguments, of data keywords
        return "change" if len(call.args) == 1 and not call.keywords else ""
    return KIND_OF.get(last, "")


def _opened(name: str, modes: list[str]) -> str:
    if name in ("OPENER.open", "opener.open"):
        return "request"
    return "write" if any(set("wax+") & set(mode) for mode in modes) else "read"


def unreached(agent: Path, recorded: Iterable[Effect]) -> list[str]:
    """Places with an effect that no story has reached, and that are not listed above; and those
    that are listed in vain."""
    reached = {(effect.place, effect.kind) for effect in recorded}
    known = [
        site for file in sorted(agent.glob("*.py")) for site in sites(file.stem, file.read_text())
    ]
    missed = {(place, kind) for place, kind in known if not _reached(place, kind, reached)}
    found = {
        f"{place}: {kind}"
        for place, kind in missed
        if place.partition(".")[0] not in UNREACHED
        and place not in (*UNREACHED_FUNCTIONS, *BY_CHANCE)
    }
    vain = set(UNREACHED_FUNCTIONS) - {place for place, _ in missed}
    return sorted(found) + [f"{place}: is reached after all" for place in sorted(vain)]


def _reached(place: str, kind: str, reached: set[tuple[str, str]]) -> bool:
    return any((place, one) in reached for one in (kind, *ALSO.get(kind, ())))
