"""Taking back what a launch made: by itself when it fails or is cancelled, and by `cleanup`,
after its job, when it was killed.

A runner's instances are known by the marks of the run that made them, so that even one whose
creation gave no answer is found.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

from runner_action.errors import RunnerActionError
from runner_action.forges.base import Forge
from runner_action.marks import Mark
from runner_action.model import (
    Identity,
    Instance,
    Registration,
    Repository,
    Run,
    names,
    runner_name,
)
from runner_action.providers.base import Provider
from runner_action.request import LaunchRequest, Reuse
from runner_action.reuse import Reusing
from runner_action.waiting import Clock

log = logging.getLogger(__name__)
FINDS = 3
"""Looks for an instance whose create call gave no answer: a new one may not show at once."""
SETTLE_SECONDS, LATE_SECONDS = 4.0, 60.0
"""How long create calls on their way are waited for, whose instances must be known to be ended;
and again, when what there was has been ended."""
LOOK_SECONDS = 0.2
"""Between looks at the time that is left: a signal may shorten it."""


@dataclass
class Ours:
    """What the machines of one user data have at cloud and forge so far: enough to take them
    back at any moment."""

    identity: Identity
    count: int = 1
    """How many machines."""
    suffixed: bool = False
    """Each makes its runner's name from its instance's id."""
    registration: Registration | None = None
    creating: Future[None] | None = None
    instances: list[Instance] = field(default_factory=list)
    asked: bool = False
    """A create call is under way, or ended without a word on whether there is an instance."""
    alone: bool = False
    """A registration of its own is under way, or done."""
    ended: set[str] = field(default_factory=set)
    """Ids of instances that were ended."""

    def settled(self, seconds: float) -> bool:
        """Whether it is known, within so many seconds, how the creation ended."""
        return self.creating is None or not wait([self.creating], timeout=seconds).not_done

    @property
    def runners(self) -> dict[str, Instance]:
        """Instances by the names of their runners."""
        return {
            runner_name(self.identity, instance.id, not self.suffixed): instance
            for instance in self.instances
        }


def all_ours(
    request: LaunchRequest, run: Run, together: bool, reused: int = 0, taken: Collection[str] = ()
) -> list[Ours]:
    """The machines of a launch, less those whose place a reused runner takes: as one, where they
    may join the forge with the same user data, else each by itself."""
    base, count = request.name or run.derived_name, request.count - reused
    if together and request.count > 1:
        return [Ours(Identity(name=base, key=run.key), count, suffixed=True)] if count else []
    return [
        Ours(Identity(name=name, key=run.key)) for name in names(base, request.count, taken)[:count]
    ]


def take_back(
    all_ours: Sequence[Ours],
    forge: Forge,
    provider: Provider,
    clock: Clock,
    left: Callable[[], float] = lambda: float("inf"),
) -> list[str]:
    """All side by side, each step even if one before failed, and no longer than seconds are
    `left`. Returns, and logs, what could not be done."""
    side_by_side = ThreadPoolExecutor(2 * len(all_ours) or 1, "back")
    steps: dict[Future[list[str]], str] = {}
    for ours in all_ours:
        ending = side_by_side.submit(_end_machines, ours, provider, clock, ())
        steps[ending] = f"the end of {ours.identity.name}'s machine"
        steps[side_by_side.submit(_leave_list, ours, forge, ending)] = (
            f"{ours.identity.name} off the forge's list"
        )
    return _done(side_by_side, steps, left)


def _done(
    side_by_side: ThreadPoolExecutor,
    steps: Mapping[Future[list[str]], str],
    left: Callable[[], float],
) -> list[str]:
    while wait(steps, timeout=max(min(left(), LOOK_SECONDS), 0)).not_done and left() > 0:
        continue
    side_by_side.shutdown(wait=False, cancel_futures=True)
    problems = [problem for step in steps if step.done() for problem in step.result()]
    problems += [
        f"There was no time to see {what}: it is not known to be gone."
        for step, what in steps.items()
        if not step.done()
    ]
    for problem in problems:
        log.error("%s", problem)
    return problems


def _end_machines(
    ours: Ours, provider: Provider, clock: Clock, regions: Sequence[str]
) -> list[str]:
    """Once more, if one may have come into being meanwhile."""
    settled = ours.settled(SETTLE_SECONDS)
    problems = _end_known(ours, provider, clock, regions)
    if not settled:
        settled = ours.settled(LATE_SECONDS)
        problems += _end_known(ours, provider, clock, regions)
    if not settled:
        problems.append(
            f"Whether {ours.identity.name} gets a machine is not known: the cloud has not answered."
            " It would end itself after its start timeout."
        )
    return problems


def _end_known(ours: Ours, provider: Provider, clock: Clock, regions: Sequence[str]) -> list[str]:
    name, problems = ours.identity.name, []
    try:
        ours.instances = _instances(ours, provider, clock, regions)
    except Exception as error:  # what is known is ended, whatever happened here
        problems.append(
            f"Whether {name} has a machine that nobody knows of could not be asked: {error} It"
            " would end itself after its start timeout."
        )
    for instance in [one for one in ours.instances if one.id not in ours.ended]:
        try:
            provider.destroy(name, instance)
            ours.ended.add(instance.id)
            log.info("Ended the machine %s of %s.", instance.id, name)
        except Exception as error:  # the others come next, and then the forge's list
            problems.append(
                f"The machine {instance.id} of {name} could not be ended: {error} It ends itself"
                " after its start timeout."
            )
    return problems


def _leave_list(ours: Ours, forge: Forge, ending: Future[list[str]]) -> list[str]:
    """At once, if it is known which runner; one that its machine registers by itself, when the
    machine has ended."""
    ours.settled(SETTLE_SECONDS)
    runner_id = ours.registration.runner_id if ours.registration else None
    if runner_id is None:
        wait([ending])
    # Without a machine and without a registration of its own, a runner of that name would be
    # another launch's.
    mine = ours.instances or ours.alone or ours.asked
    runners = [] if not mine else ours.runners if ours.suffixed else [ours.identity.name]
    return [problem for runner in runners if (problem := _take_off(forge, runner, runner_id))]


def _instances(
    ours: Ours, provider: Provider, clock: Clock, regions: Sequence[str]
) -> list[Instance]:
    """Those that are known, and, if a call's answer is missing, those that carry the marks."""
    known = {instance.id: instance for instance in ours.instances}
    if len(known) == ours.count or not ours.asked:
        return list(known.values())
    for _ in range(FINDS):
        if found := provider.find(ours.identity.marks, regions):
            return list(({instance.id: instance for instance in found} | known).values())
        clock.sleep(1)
    return list(known.values())


def _take_marked(
    run: Run, repository: Repository, forge: Forge, endings: Collection[Future[list[str]]]
) -> list[str]:
    """Runners of this very launch, when its machines have ended: those with its label, which nobody
    else can know, and with our mark. Whatever a note, or a name, says of others, they stay."""
    wait(endings)
    try:
        listed = forge.runners(offline=True)
    except RunnerActionError as error:
        return [
            (
                f"Whether runners of {run.derived_name} are still on the forge's list is not known:"
                f" {error}"
            )
        ]
    ours = [one for one in listed if run.derived_name in one.labels and Mark.of(one, repository)]
    return [problem for one in ours if (problem := _take_off(forge, one.name, one.id, twins=False))]


def _take_off(forge: Forge, name: str, runner_id: int | None, *, twins: bool = True) -> str:
    """What went wrong, if something did: so that the user can do it; the others come next."""
    try:
        if forge.deregister(name, runner_id, twins=twins):
            log.info("Took runner %s off the forge's list.", name)
    except Exception as error:
        return f"Runner {name} is still on the forge's list: {error}"
    return ""


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
    ours = all_ours(request, run, forge.together)
    if noted:
        ours = [
            Ours(Identity(name=name, key=run.key), ours[0].count, ours[0].suffixed)
            for name in noted
        ]
    if request.reuse is Reuse.ANY:
        Reusing(request, run, forge, clock).end_turn()
    regions = [place.region for place in provider.plan(request.cloud).places]
    side_by_side = ThreadPoolExecutor(len(ours) + 1, "back")
    steps: dict[Future[list[str]], str] = {}
    for one in ours:
        one.asked = True
        ending = side_by_side.submit(_end_machines, one, provider, clock, regions)
        steps[ending] = f"the end of {one.identity.name}'s machine"
    leaving = side_by_side.submit(_take_marked, run, request.repository, forge, list(steps))
    steps[leaving] = "its runners off the forge's list"
    problems = _done(side_by_side, steps, left)
    if problems:
        raise RunnerActionError(
            "Not everything could be taken back: " + " ".join(problems),
            "Look for it in your cloud's console and at the forge.",
        )
