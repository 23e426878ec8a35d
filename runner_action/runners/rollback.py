"""Deletes what a launch created: when it fails or is cancelled, and in `cleanup`, the step after
the job, when it was killed.

The instances of a group are found by the tags of the launch, even those whose creation was not
answered.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from runner_action.errors import RunnerActionError
from runner_action.forges.base import Forge
from runner_action.marks import Mark
from runner_action.model import Identity, Instance, Run
from runner_action.request import LaunchRequest, Reuse
from runner_action.runners.context import Context
from runner_action.runners.failure import Failure, failures_in, summary_of
from runner_action.runners.group import Creation, RunnerGroup, groups_of
from runner_action.runners.reuse import Reusing

log = logging.getLogger(__name__)
FINDS = 3
"""Searches for an instance whose creation was not answered: a new one may not be listed at
once."""
SETTLE_SECONDS = 4.0
"""How long requests that create machines may take before what exists is deleted."""
LATE_SECONDS = 60.0
"""How long they may take after that, before their machines are searched for once more."""
LOOK_SECONDS = 0.2
"""How often the time left is checked, which a signal may shorten."""
Steps = Mapping[Future[list[Failure]], str]
"""Running steps, with what is true when they succeed."""


def roll_back(
    groups: Sequence[RunnerGroup],
    context: Context,
    left: Callable[[], float] = lambda: float("inf"),
) -> list[Failure]:
    """Deletes all machines and deregisters all runners in parallel, for at most the seconds that
    are `left`; a step that fails does not stop the others. Logs the failures and returns them."""
    threads = ThreadPoolExecutor(2 * len(groups) or 1, "rollback")
    steps: dict[Future[list[Failure]], str] = {}
    for group in groups:
        name = group.identity.name
        deleting = threads.submit(_delete_machines, group, context, ())
        deregistering = threads.submit(_deregister_group, group, context.forge, deleting)
        steps[deleting] = f"the machine of {name} was deleted"
        steps[deregistering] = f"{name} was deregistered"
    return _failures_of(steps, threads, left)


@dataclass(frozen=True)
class Leftover:
    """A launch that may have left something. `names`: those that it stored before it created
    anything; None if unknown, so that it may have created all that the request allows."""

    run: Run
    names: Sequence[str] | None = None

    def groups(self, request: LaunchRequest, together: bool) -> Sequence[RunnerGroup]:
        groups = groups_of(request, self.run, together)
        if not self.names:
            return groups
        first = groups[0]
        identities = [Identity(name=name, key=self.run.key) for name in self.names]
        return [RunnerGroup(identity, first.count, first.suffixed) for identity in identities]


def cleanup(
    leftovers: Sequence[Leftover],
    request: LaunchRequest,
    context: Context,
    left: Callable[[], float],
) -> None:
    """Deletes what launches of a step left. Raises RunnerActionError if something may be left."""
    assert request.cloud
    forge = context.forge
    groups = [each for one in leftovers for each in one.groups(request, forge.together)]
    if request.reuse is Reuse.ANY:
        for leftover in leftovers:
            Reusing(request, leftover.run, forge, context.clock).end_turn()
    regions = [place.region for place in context.provider.plan(request.cloud).places]
    threads = ThreadPoolExecutor(len(groups) + 1, "rollback")
    steps: dict[Future[list[Failure]], str] = {}
    for group in groups:
        group.creation = Creation.UNANSWERED
        deleting = threads.submit(_delete_machines, group, context, regions)
        steps[deleting] = f"the machine of {group.identity.name} was deleted"
    labels = [leftover.run.derived_name for leftover in leftovers]
    deregistering = threads.submit(_deregister_own, labels, context, list(steps))
    steps[deregistering] = "its runners were deregistered"
    failures = _failures_of(steps, threads, left)
    if failures:
        raise RunnerActionError(
            f"Not everything could be deleted: {summary_of(failures)}",
            "Check your cloud's console and the list of runners.",
        )


def _failures_of(
    steps: Steps, threads: ThreadPoolExecutor, left: Callable[[], float]
) -> list[Failure]:
    """Waits for the steps while there is time. Returns their failures, and one for each step that
    was not done in time."""
    while wait(steps, timeout=max(min(left(), LOOK_SECONDS), 0)).not_done and left() > 0:
        continue
    threads.shutdown(wait=False, cancel_futures=True)
    failures = []
    for step, result in steps.items():
        if step.done():
            failures += step.result()
        else:
            failures.append(Failure(f"There was no time to confirm that {result}."))
    for failure in failures:
        log.error("%s", failure)
    return failures


# --- machines


def _delete_machines(group: RunnerGroup, context: Context, regions: Sequence[str]) -> list[Failure]:
    """Deletes the machines of a group: twice, if some may have been created in the meantime."""
    settled = group.is_settled(SETTLE_SECONDS)
    failures = _delete_known(group, context, regions)
    if not settled:
        settled = group.is_settled(LATE_SECONDS)
        failures += _delete_known(group, context, regions)
    if not settled:
        name = group.identity.name
        failures.append(
            Failure(
                f"The cloud has not answered the request for a machine of {name}. If it creates"
                " one, that shuts down after its start timeout."
            )
        )
    return failures


def _delete_known(group: RunnerGroup, context: Context, regions: Sequence[str]) -> list[Failure]:
    name = group.identity.name
    failures = []
    try:
        group.instances = _instances(group, context, regions)
    except Exception as error:  # the known instances are deleted nevertheless
        failures.append(
            Failure(
                f"Could not check whether {name} has another machine: {error} If there is one, it"
                " shuts down after its start timeout."
            )
        )
    for instance in group.instances:
        if instance.id in group.deleted:
            continue
        try:
            context.provider.destroy(name, instance)
            group.deleted.add(instance.id)
            log.info("Deleted machine %s of %s.", instance.id, name)
        except Exception as error:  # the other instances come next, then the runners
            failures.append(
                Failure(
                    f"Could not delete machine {instance.id} of {name}: {error} It shuts down"
                    " after its start timeout."
                )
            )
    return failures


def _instances(group: RunnerGroup, context: Context, regions: Sequence[str]) -> list[Instance]:
    """The known instances, and, if a request was not answered, those that have the group's
    tags."""
    if group.is_known:
        return group.instances
    found = {instance.id: instance for instance in group.instances}
    for _ in range(FINDS):
        tagged = context.provider.find(group.identity.marks, regions)
        found = {instance.id: instance for instance in tagged} | found
        if len(found) >= group.count:
            break
        context.clock.sleep(1)
    return list(found.values())


# --- runners


def _deregister_group(
    group: RunnerGroup, forge: Forge, deleting: Future[list[Failure]]
) -> list[Failure]:
    """Deregisters a group's runners: at once if the launch registered them; runners that their
    machines register only after the machines are deleted."""
    group.is_settled(SETTLE_SECONDS)
    runner_id = group.registration.runner_id if group.registration else None
    if runner_id is None:
        wait([deleting])
    if not group.may_be_registered:
        return []
    names = list(group.runners) if group.suffixed else [group.identity.name]
    return failures_in(_deregister(forge, name, runner_id, label=group.label) for name in names)


def _deregister_own(
    labels: Sequence[str], context: Context, deletions: Collection[Future[list[Failure]]]
) -> list[Failure]:
    """Deregisters the runners of these launches once their machines are deleted: those with one of
    their labels, which no one else can know, and with a mark. Other runners stay, whatever their
    names and whatever was stored about them."""
    wait(deletions)
    try:
        listed = context.forge.runners(offline=True)
    except RunnerActionError as error:
        names = ", ".join(labels)
        return [Failure(f"Could not check whether runners of {names} are registered: {error}")]
    own = [
        runner
        for runner in listed
        if runner.labels.intersection(labels) and Mark.of(runner, context.repository)
    ]
    return failures_in(
        _deregister(context.forge, runner.name, runner.id, twins=False) for runner in own
    )


def _deregister(
    forge: Forge,
    name: str,
    runner_id: int | None,
    *,
    twins: bool = True,
    label: str | None = None,
) -> Failure | None:
    try:
        if forge.deregister(name, runner_id, twins=twins, label=label):
            log.info("Deregistered runner %s.", name)
    except Exception as error:  # the other runners come next
        return Failure(f"Runner {name} is still registered: {error}")
    return None
