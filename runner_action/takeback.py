"""Taking back what a launch made: by itself when it fails or is cancelled, and by `cleanup`, after its job, when it was killed.

A runner's instances are known by the marks of the run that made them, so that even one whose creation gave no answer is found.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from runner_action.errors import RunnerActionError
from runner_action.forges.base import Forge
from runner_action.model import CloudRequest, Identity, Instance, Registration
from runner_action.providers.base import Provider
from runner_action.waiting import Clock

log = logging.getLogger(__name__)
FINDS = 3
"""Looks for an instance whose create call gave no answer: a new one may not show at once."""


@dataclass
class Ours:
    """What one runner of a launch has at cloud and forge so far: enough to take it back at any moment."""

    identity: Identity
    registration: Registration | None = None
    creating: Future[None] | None = None
    instance: Instance | None = None
    asked: bool = False
    """A create call is under way, or ended without a word on whether there is an instance."""
    alone: bool = False
    """A registration of its own is under way, or done."""
    guessed: bool = False
    """Nobody noted that it was made: it is ours only if an instance with its marks is."""


def take_back(all_ours: Sequence[Ours], forge: Forge, provider: Provider, clock: Clock, regions: Sequence[str] = ()) -> list[str]:
    """All side by side, each step even if one before failed. Returns, and logs, what could not be done."""
    with ThreadPoolExecutor(max(len(all_ours), 1), "back") as side_by_side:
        return [problem for problems in side_by_side.map(lambda ours: _one(ours, forge, provider, clock, regions), all_ours) for problem in problems]


def _one(ours: Ours, forge: Forge, provider: Provider, clock: Clock, regions: Sequence[str]) -> list[str]:
    name, problems = ours.identity.name, []
    found: Sequence[Instance] = ()
    try:
        found = _instances(ours, provider, clock, regions)
        for instance in found:
            provider.destroy(name, instance)
            log.info("Ended the machine %s of %s.", instance.id, name)
    except Exception as error:  # the forge's list comes next, whatever happened here
        problems.append(f"The machine of {name} could not be ended: {error} It ends itself after its start timeout.")
    try:
        runner_id = ours.registration.runner_id if ours.registration else None
        # Without a machine and without a registration of its own, a runner of that name would be another launch's.
        if (found or ours.alone or (ours.asked and not ours.guessed)) and forge.deregister(name, runner_id):
            log.info("Took runner %s off the forge's list.", name)
    except Exception as error:  # told, so that the user can do it; the first failure is the one that is raised
        problems.append(f"Runner {name} is still on the forge's list: {error}")
    for problem in problems:
        log.error("%s", problem)
    return problems


def _instances(ours: Ours, provider: Provider, clock: Clock, regions: Sequence[str]) -> Sequence[Instance]:
    if ours.instance or not ours.asked:
        return [ours.instance] if ours.instance else []
    for _ in range(FINDS):
        found = provider.find(ours.identity.marks, regions)
        if found:
            return found
        clock.sleep(1)
    return []


def cleanup(names: Sequence[str], noted: bool, key: str, request: CloudRequest, forge: Forge, provider: Provider, clock: Clock) -> None:
    """After a job that failed. `names`: of the runners that its launch was about to make; not `noted`: that it may have made. Raises
    RunnerActionError if something may be left."""
    ours = [Ours(Identity(name=name, key=key), asked=True, alone=noted, guessed=not noted) for name in names]
    problems = take_back(ours, forge, provider, clock, [provider.plan(request).region])
    if problems:
        raise RunnerActionError("Not everything could be taken back: " + " ".join(problems), "Look for it in your cloud's console and at the forge.")
