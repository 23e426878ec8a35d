"""Story 6, destroy: everything of one runner, at cloud and forge, from its name alone."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence

from runner_action.commands.reap import Removal, ours
from runner_action.errors import RunnerActionError, RunnerBusy, TimedOut
from runner_action.forges.base import Forge
from runner_action.marks import Mark, address_tag
from runner_action.model import REPOSITORY_TAG, Instance, Repository, Runner
from runner_action.providers.base import Provider
from runner_action.waiting import Clock, wait_for

log = logging.getLogger(__name__)
WHY = "its end was asked for"
GONE_SECONDS = 120.0
"""How long a cloud may show what it has agreed to delete."""
LET_GO_SECONDS = 30.0
"""How long a forge may hold a runner for the job that its machine was ended with."""


def named(
    name: str, machines: Iterable[Instance], runners: Iterable[Runner], repository: Repository
) -> list[Removal]:
    """All of a launch by its name, or of one of several of its runners by that. Machines, then
    runners. Pure.

    A runner goes only if its mark says that it is ours, whatever it is called.
    """
    found = [one for one in ours(machines, repository) if name in one.runner_names]
    marked = [
        (one, mark)
        for one in runners
        if (mark := Mark.of(one, repository)) and name in (one.name, mark.name)
    ]
    return [
        *(Removal(why=WHY, machine=one) for one in found),
        *(Removal(why=WHY, runner=one) for one, _ in marked),
    ]


def destroy(
    name: str,
    repository: Repository,
    forge: Forge,
    provider: Provider,
    clock: Clock,
    *,
    dry_run: bool = False,
    regions: Sequence[str] | None = None,
) -> list[Removal]:
    """Removes it and looks again. Absent is success. `regions` as in `reap`. Raises
    RunnerActionError if something is left."""
    where = provider.regions() if regions is None else regions
    log.info("Looking for %s%s.", name, f" in {', '.join(where)}" if provider.regional else "")

    def look() -> list[Removal]:
        return named(
            name,
            provider.find({REPOSITORY_TAG: address_tag(repository)}, where),
            listed(),
            repository,
        )

    def listed() -> Sequence[Runner]:
        return forge.runners(offline=True)

    found = look()
    if not any(one.runner for one in found) and any(one.name == name for one in listed()):
        log.warning("Runner %s was not made by cml-runner: it stays registered.", name)
    if not found:
        log.info("There is nothing of %s.", name)
    if dry_run or not found:
        return found
    problems = [problem for one in found if (problem := _remove(one, forge, provider, clock))]
    problems = problems or _left(look, clock)
    if problems:
        raise RunnerActionError(
            "Not everything could be removed: " + " ".join(problems),
            f"Try `cml-runner destroy {name}` again in some minutes.",
        )
    return found


def _left(look: Callable[[], Sequence[Removal]], clock: Clock) -> list[str]:
    """What is still there when there was time to go: a cloud may show for a while what it is
    deleting."""
    seen: list[str] = []

    def probe() -> bool | None:
        seen[:] = [
            f"{one}, and it is still there"
            for one in look()
            if one.machine is None or one.machine.alive
        ]
        return None if seen else True

    try:
        wait_for(probe, "all of it to be gone", clock=clock, timeout=GONE_SECONDS)
    except TimedOut:
        return seen
    return []


def _remove(one: Removal, forge: Forge, provider: Provider, clock: Clock) -> str:
    try:
        if one.machine:
            provider.destroy(one.machine.name, one.machine)
        if one.runner:
            _deregister(one.runner, forge, clock)
    except RunnerActionError as error:  # the others come next
        return f"{one}: {error}"
    log.info("Removed the %s.", one)
    return ""


def _deregister(runner: Runner, forge: Forge, clock: Clock) -> None:
    """A forge may still see the job of a machine that has just ended."""
    refusals: list[RunnerBusy] = []

    def probe() -> bool | None:
        try:
            forge.deregister(runner.name, runner.id)
        except RunnerBusy as error:
            refusals.append(error)
            return None
        return True

    try:
        wait_for(probe, f"the job of {runner.name} to end", clock=clock, timeout=LET_GO_SECONDS)
    except RunnerActionError as error:
        raise refusals[-1] if refusals else error from None
