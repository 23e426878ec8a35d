"""`destroy`: deletes everything of one launch by its name, at the cloud and at GitHub or GitLab."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence

from runner_action.commands.reap import Removal
from runner_action.errors import InputError, RunnerActionError, RunnerBusy, TimedOut
from runner_action.marks import Mark
from runner_action.model import Instance, Repository, Runner
from runner_action.naming import is_requested_as
from runner_action.runners.context import Context, Search, created_for
from runner_action.runners.failure import Failure, failures_in, summary_of
from runner_action.waiting import Clock, wait_for

log = logging.getLogger(__name__)
WHY = "its removal was requested"
GONE_SECONDS = 120.0
"""How long a cloud may list a machine that it has agreed to delete."""
LET_GO_SECONDS = 30.0
"""How long GitHub or GitLab may keep a runner whose machine was deleted during a job."""


def named(
    name: str, machines: Iterable[Instance], runners: Iterable[Runner], repository: Repository
) -> list[Removal]:
    """Everything of the launch of that name; or, if it is the name of one of several runners,
    that runner and its machine. Machines come first. Pure.

    A runner is only removed if its mark says that a launch created it, whatever its name.
    """
    own = created_for(repository, machines)
    removed = [Removal(why=WHY, machine=each) for each in own if name in each.runner_names]
    for runner in runners:
        mark = Mark.of(runner, repository)
        if mark and name in (runner.name, mark.name):
            removed.append(Removal(why=WHY, runner=runner))
    return removed


def launch_of(
    name: str, machines: Iterable[Instance], runners: Iterable[Runner], repository: Repository
) -> str:
    """The name, if something of the repository has it; else the name of the only launch that
    requested it, to which a part was added. Raises InputError if there are several. Pure."""
    machines, runners = list(machines), list(runners)
    if named(name, machines, runners, repository):
        return name
    marks = [Mark.of(runner, repository) for runner in runners]
    launches = {machine.name for machine in created_for(repository, machines)}
    launches |= {mark.name for mark in marks if mark}
    candidates = sorted(launch for launch in launches if is_requested_as(name, launch))
    if len(candidates) > 1:
        raise InputError([f"several launches are named {name}: {', '.join(candidates)}"])
    return candidates[0] if candidates else name


def destroy(
    name: str,
    context: Context,
    regions: Sequence[str] | None = None,
    *,
    dry_run: bool = False,
) -> list[Removal]:
    """Removes everything of that name, which may be the one that a launch requested, waits until it
    is gone, and returns it; nothing to remove is a success. `regions` as in `reap`. Raises
    RunnerActionError if something is left, or if several launches requested the name."""
    search = Search(context.repository, context.provider, regions)
    where = f" in {', '.join(search.regions)}" if context.provider.regional else ""
    log.info("Looking for %s%s.", name, where)

    def look() -> list[Removal]:
        return named(launch, search.machines(), listed(), context.repository)

    def listed() -> Sequence[Runner]:
        return context.forge.runners(offline=True)

    machines, runners = search.machines(), listed()
    launch = launch_of(name, machines, runners, context.repository)
    removed = named(launch, machines, runners, context.repository)
    has_runners = any(removal.runner for removal in removed)
    if not has_runners and any(runner.name == name for runner in runners):
        log.warning("Runner %s was not created by cml-runner: it stays registered.", name)
    if not removed:
        log.info("Found nothing named %s.", name)
    if dry_run or not removed:
        return removed
    failures = failures_in(_remove(removal, context) for removal in removed)
    failures = failures or _left(look, context.clock)
    if failures:
        raise RunnerActionError(
            f"Not everything could be removed: {summary_of(failures)}",
            f"Run `cml-runner destroy {name}` again in a few minutes.",
        )
    return removed


def _left(look: Callable[[], Sequence[Removal]], clock: Clock) -> list[Failure]:
    """What is still listed after some time: a cloud may list for a while what it is deleting."""
    left: list[Failure] = []

    def probe() -> bool | None:
        left[:] = [
            Failure(f"{removal}, but it is still there.")
            for removal in look()
            if removal.machine is None or removal.machine.alive
        ]
        return None if left else True

    try:
        wait_for(probe, "everything to be gone", clock=clock, timeout=GONE_SECONDS)
    except TimedOut:
        return left
    return []


def _remove(removal: Removal, context: Context) -> Failure | None:
    try:
        if removal.machine:
            context.provider.destroy(removal.machine.name, removal.machine)
        if removal.runner:
            _deregister(removal.runner, context)
    except RunnerActionError as error:  # the others come next
        return Failure(f"{removal}: {error}")
    log.info("Removed %s.", removal)
    return None


def _deregister(runner: Runner, context: Context) -> None:
    """Deregisters a runner, several times while it is busy: GitHub and GitLab may take a while to
    end the job of a machine that was deleted."""
    refusals: list[RunnerBusy] = []

    def probe() -> bool | None:
        try:
            context.forge.deregister(runner.name, runner.id)
        except RunnerBusy as error:
            refusals.append(error)
            return None
        return True

    what = f"the job of {runner.name} to end"
    try:
        wait_for(probe, what, clock=context.clock, timeout=LET_GO_SECONDS)
    except RunnerActionError as error:
        raise refusals[-1] if refusals else error from None
