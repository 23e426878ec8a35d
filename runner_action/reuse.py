"""What the runners that are there mean for a launch: one of them serves, or holds the name."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from runner_action.errors import InputError
from runner_action.model import Runner
from runner_action.request import Reuse


def refuse_taken(runners: Sequence[Runner], mine: Collection[str]) -> None:
    """An online runner of that name is somebody's; an offline one was left behind and is replaced at registration. Raises InputError."""
    taken = sorted(runner.name for runner in runners if runner.name in mine and runner.online)
    if taken:
        raise InputError([f"name {', '.join(taken)} is in use by an online runner; choose another `name`, or set `reuse`"])


def matching(runners: Sequence[Runner], name: str | None, labels: Sequence[str], reuse: Reuse) -> Runner | None:
    """The runner that serves instead of a new one: online, of that name or with all labels; with `reuse-idle` also idle."""
    if reuse is Reuse.NEVER:
        return None
    fits = [
        runner
        for runner in runners
        if runner.online and (runner.name == name or runner.labels.issuperset(labels)) and not (reuse is Reuse.IDLE and runner.busy)
    ]
    return min(fits, key=lambda runner: (runner.busy, runner.name), default=None)
