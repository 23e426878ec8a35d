"""Taking back what a launch made: by itself when it fails or is cancelled, and by `cleanup`, after its job, when it was killed.

A runner's instances are known by the marks of the run that made them, so that even one whose creation gave no answer is found.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from runner_action.errors import RunnerActionError
from runner_action.forges.base import Forge
from runner_action.model import Identity, Instance, Registration, Run, names, runner_name
from runner_action.providers.base import Provider
from runner_action.request import LaunchRequest, Reuse
from runner_action.reuse import Reusing
from runner_action.waiting import Clock

log = logging.getLogger(__name__)
FINDS = 3
"""Looks for an instance whose create call gave no answer: a new one may not show at once."""


@dataclass
class Ours:
    """What the machines of one user data have at cloud and forge so far: enough to take them back at any moment."""

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
    guessed: bool = False
    """Nobody noted that it was made: it is ours only if an instance with its marks is."""

    @property
    def runners(self) -> dict[str, Instance]:
        """Instances by the names of their runners."""
        return {runner_name(self.identity, instance.id, not self.suffixed): instance for instance in self.instances}


def all_ours(request: LaunchRequest, run: Run, together: bool, reused: int = 0, taken: Collection[str] = ()) -> list[Ours]:
    """The machines of a launch, less those whose place a reused runner takes: as one, where they may join the forge with the same user data,
    else each by itself."""
    base, count = request.name or run.derived_name, request.count - reused
    if together and request.count > 1:
        return [Ours(Identity(name=base, key=run.key), count, suffixed=True)] if count else []
    return [Ours(Identity(name=name, key=run.key)) for name in names(base, request.count, taken)[:count]]


def take_back(all_ours: Sequence[Ours], forge: Forge, provider: Provider, clock: Clock, regions: Sequence[str] = ()) -> list[str]:
    """All side by side, each step even if one before failed. Returns, and logs, what could not be done."""
    with ThreadPoolExecutor(max(len(all_ours), 1), "back") as side_by_side:
        return [problem for problems in side_by_side.map(lambda ours: _one(ours, forge, provider, clock, regions), all_ours) for problem in problems]


def _one(ours: Ours, forge: Forge, provider: Provider, clock: Clock, regions: Sequence[str]) -> list[str]:
    name, problems = ours.identity.name, []
    try:
        found = ours.instances = _instances(ours, provider, clock, regions)
    except Exception as error:  # what is known is ended, whatever happened here
        found = ours.instances
        problems.append(f"Whether {name} has a machine that nobody knows of could not be asked: {error} It would end itself after its start timeout.")
    for instance in found:
        try:
            provider.destroy(name, instance)
            log.info("Ended the machine %s of %s.", instance.id, name)
        except Exception as error:  # the others come next, and then the forge's list
            problems.append(f"The machine {instance.id} of {name} could not be ended: {error} It ends itself after its start timeout.")
    # Without a machine and without a registration of its own, a runner of that name would be another launch's.
    mine = found or ours.alone or (ours.asked and not ours.guessed)
    for runner in [name] if mine and not ours.suffixed else ours.runners if mine else ():
        try:
            if forge.deregister(runner, ours.registration.runner_id if ours.registration else None):
                log.info("Took runner %s off the forge's list.", runner)
        except Exception as error:  # told, so that the user can do it; the first failure is the one that is raised
            problems.append(f"Runner {runner} is still on the forge's list: {error}")
    for problem in problems:
        log.error("%s", problem)
    return problems


def _instances(ours: Ours, provider: Provider, clock: Clock, regions: Sequence[str]) -> list[Instance]:
    """Those that are known, and, if a call's answer is missing, those that carry the marks."""
    known = {instance.id: instance for instance in ours.instances}
    if len(known) == ours.count or not ours.asked:
        return list(known.values())
    for _ in range(FINDS):
        if found := provider.find(ours.identity.marks, regions):
            return list(({instance.id: instance for instance in found} | known).values())
        clock.sleep(1)
    return list(known.values())


def cleanup(noted: Sequence[str] | None, request: LaunchRequest, run: Run, forge: Forge, provider: Provider, clock: Clock) -> None:
    """After a job that failed. `noted`: the names that its launch was about to give; None: it noted nothing, so that it may have made
    whatever it would. Raises RunnerActionError if something may be left."""
    assert request.cloud
    ours = all_ours(request, run, forge.together)
    if noted:
        ours = [Ours(Identity(name=name, key=run.key), ours[0].count, ours[0].suffixed) for name in noted]
    for one in ours:
        one.asked, one.alone, one.guessed = True, noted is not None, noted is None
    if request.reuse is Reuse.ANY:
        Reusing(request, run, forge, clock).end_turn()
    problems = take_back(ours, forge, provider, clock, [place.region for place in provider.plan(request.cloud).places])
    if problems:
        raise RunnerActionError("Not everything could be taken back: " + " ".join(problems), "Look for it in your cloud's console and at the forge.")
