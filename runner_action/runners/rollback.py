"""Rolling back what a launch made: by itself when it fails or is cancelled, and by `cleanup`,
after its job, when it was killed.

A group's instances are known by the tags of the run that made them, so that even one whose
creation gave no answer is found.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait

from runner_action.errors import RunnerActionError
from runner_action.forges.base import Forge
from runner_action.marks import Mark
from runner_action.model import Identity, Instance, Repository, Run
from runner_action.providers.base import Provider
from runner_action.request import LaunchRequest, Reuse
from runner_action.runners.group import Creation, RunnerGroup, groups_of
from runner_action.runners.reuse import Reusing
from runner_action.waiting import Clock

log = logging.getLogger(__name__)
FINDS = 3
"""Looks for an instance whose create call gave no answer: a new one may not show at once."""
SETTLE_SECONDS = 4.0
"""How long create calls on their way are waited for, whose instances must be known to be
deleted."""
LATE_SECONDS = 60.0
"""And again, when what there was has been deleted."""
LOOK_SECONDS = 0.2
"""Between looks at the time that is left: a signal may shorten it."""


def roll_back(
    groups: Sequence[RunnerGroup],
    forge: Forge,
    provider: Provider,
    clock: Clock,
    left: Callable[[], float] = lambda: float("inf"),
) -> list[str]:
    """All side by side, each step even if one before failed, and no longer than seconds are
    `left`. Returns, and logs, what could not be done."""
    threads = ThreadPoolExecutor(2 * len(groups) or 1, "rollback")
    steps: dict[Future[list[str]], str] = {}
    for group in groups:
        name = group.identity.name
        deleting = threads.submit(_delete_machines, group, provider, clock, ())
        leaving = threads.submit(_leave_list, group, forge, deleting)
        steps[deleting] = f"the end of {name}'s machine"
        steps[leaving] = f"{name} deregistered"
    return _problems_of(steps, threads, left)


def cleanup(
    noted: Sequence[str] | None,
    request: LaunchRequest,
    run: Run,
    forge: Forge,
    provider: Provider,
    clock: Clock,
    left: Callable[[], float],
) -> None:
    """After a job that failed. `noted`: the names that its launch was about to give; None: it
    noted nothing, so that it may have made whatever it would. Raises RunnerActionError if
    something may be left."""
    assert request.cloud
    groups = groups_of(request, run, forge.together)
    if noted:
        like = groups[0]
        identities = [Identity(name=name, key=run.key) for name in noted]
        groups = [RunnerGroup(one, like.count, like.suffixed) for one in identities]
    if request.reuse is Reuse.ANY:
        Reusing(request, run, forge, clock).end_turn()
    regions = [place.region for place in provider.plan(request.cloud).places]
    threads = ThreadPoolExecutor(len(groups) + 1, "rollback")
    steps: dict[Future[list[str]], str] = {}
    for group in groups:
        group.creation = Creation.UNANSWERED
        deleting = threads.submit(_delete_machines, group, provider, clock, regions)
        steps[deleting] = f"the end of {group.identity.name}'s machine"
    leaving = threads.submit(_deregister_own, run, request.repository, forge, list(steps))
    steps[leaving] = "its runners deregistered"
    problems = _problems_of(steps, threads, left)
    if problems:
        raise RunnerActionError(
            "Not everything could be deleted: " + " ".join(problems),
            "Look for it in your cloud's console and on the list of runners.",
        )


def _problems_of(
    steps: Mapping[Future[list[str]], str],
    threads: ThreadPoolExecutor,
    left: Callable[[], float],
) -> list[str]:
    """Of the steps that are done in time; of the others that they were not."""
    while wait(steps, timeout=max(min(left(), LOOK_SECONDS), 0)).not_done and left() > 0:
        continue
    threads.shutdown(wait=False, cancel_futures=True)
    problems = []
    for step, what in steps.items():
        if step.done():
            problems += step.result()
        else:
            problems.append(f"There was no time to see {what}: it is not known to be gone.")
    for problem in problems:
        log.error("%s", problem)
    return problems


# --- machines


def _delete_machines(
    group: RunnerGroup, provider: Provider, clock: Clock, regions: Sequence[str]
) -> list[str]:
    """Once more, if one may have come into being meanwhile."""
    settled = group.is_settled(SETTLE_SECONDS)
    problems = _delete_known(group, provider, clock, regions)
    if not settled:
        settled = group.is_settled(LATE_SECONDS)
        problems += _delete_known(group, provider, clock, regions)
    if not settled:
        problems.append(
            f"Whether {group.identity.name} gets a machine is not known: the cloud has not"
            " answered. It would end itself after its start timeout."
        )
    return problems


def _delete_known(
    group: RunnerGroup, provider: Provider, clock: Clock, regions: Sequence[str]
) -> list[str]:
    name = group.identity.name
    problems = []
    try:
        group.instances = _instances(group, provider, clock, regions)
    except Exception as error:  # what is known is deleted, whatever happened here
        problems.append(
            f"Whether {name} has a machine that nobody knows of could not be asked: {error} It"
            " would end itself after its start timeout."
        )
    for instance in group.instances:
        if instance.id in group.deleted:
            continue
        try:
            provider.destroy(name, instance)
            group.deleted.add(instance.id)
            log.info("Ended the machine %s of %s.", instance.id, name)
        except Exception as error:  # the others come next, and then the forge's list
            problems.append(
                f"The machine {instance.id} of {name} could not be ended: {error} It ends itself"
                " after its start timeout."
            )
    return problems


def _instances(
    group: RunnerGroup, provider: Provider, clock: Clock, regions: Sequence[str]
) -> list[Instance]:
    """Those that are known, and, if a call's answer is missing, those that bear the tags."""
    if group.is_known:
        return group.instances
    known = {instance.id: instance for instance in group.instances}
    for _ in range(FINDS):
        if found := provider.find(group.identity.marks, regions):
            return list(({instance.id: instance for instance in found} | known).values())
        clock.sleep(1)
    return group.instances


# --- runners


def _leave_list(group: RunnerGroup, forge: Forge, deleting: Future[list[str]]) -> list[str]:
    """At once, if it is known which runner; one that its machine registers by itself, when the
    machine is deleted."""
    group.is_settled(SETTLE_SECONDS)
    runner_id = group.registration.runner_id if group.registration else None
    if runner_id is None:
        wait([deleting])
    if not group.may_be_listed:
        return []
    runners = list(group.runners) if group.suffixed else [group.identity.name]
    return [problem for name in runners if (problem := _deregister(forge, name, runner_id))]


def _deregister_own(
    run: Run, repository: Repository, forge: Forge, deletions: Collection[Future[list[str]]]
) -> list[str]:
    """Runners of this very launch, when its machines are deleted: those with its label, which
    nobody else can know, and with our mark. Whatever a note, or a name, says of others, they
    stay."""
    wait(deletions)
    try:
        listed = forge.runners(offline=True)
    except RunnerActionError as error:
        name = run.derived_name
        return [f"Whether runners of {name} are still registered is not known: {error}"]
    own = [one for one in listed if run.derived_name in one.labels and Mark.of(one, repository)]
    problems = [_deregister(forge, one.name, one.id, twins=False) for one in own]
    return [problem for problem in problems if problem]


def _deregister(forge: Forge, name: str, runner_id: int | None, *, twins: bool = True) -> str:
    """What went wrong, if something did: so that the user can do it; the others come next."""
    try:
        if forge.deregister(name, runner_id, twins=twins):
            log.info("Deregistered runner %s.", name)
    except Exception as error:
        return f"Runner {name} is still registered: {error}"
    return ""
