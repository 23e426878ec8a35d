"""What a launch learns from the machines of its run's earlier attempts: whether the cloud took one
back, and where. The first attempt asks nothing."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from runner_action.errors import ProviderError
from runner_action.model import RUN_TAG, Instance, Placement, Plan, Run
from runner_action.providers.base import Provider
from runner_action.runners import console
from runner_action.runners.ladder import is_lost

log = logging.getLogger(__name__)
MOST = 20
"""Machines that are looked at."""


@dataclass(frozen=True)
class Memory:
    """The spot machines that were taken back, if the latest attempt lost one."""

    reclaimed: tuple[Instance, ...] = ()

    def sentence(self, ladder: Sequence[Placement]) -> str:
        """What happened to the latest machines, and what the ladder begins with because of that;
        empty if nothing happened."""
        if not self.reclaimed:
            return ""
        title = self.reclaimed[0].tags[RUN_TAG]
        latest = [machine for machine in self.reclaimed if machine.tags[RUN_TAG] == title]
        attempt = " ".join(title.split()[-2:])
        zones = ", ".join(dict.fromkeys(machine.zone for machine in latest))
        machines = "The machine of {} was" if len(latest) == 1 else "Machines of {} were"
        return f"{machines.format(attempt)} reclaimed in {zones}: {self._consequence(ladder)}."

    def _consequence(self, ladder: Sequence[Placement]) -> str:
        if not ladder[0].spot:
            return "requesting on demand"
        if not is_lost(ladder[0].pools[0], self.reclaimed):
            return "requesting another zone or type first"
        return "requesting the same again, as there is no other zone or type"


def common_title(title: str) -> str:
    """What the titles of all attempts begin with, before their numbers."""
    return title.rstrip("0123456789")


def number_of(title: str, own: str) -> int:
    """The number of an earlier attempt by its title and that of this one; -1 for other titles."""
    numbers = [text.removeprefix(common_title(own)) for text in (title, own)]
    if not all(map(str.isdecimal, numbers)):
        return -1
    number, limit = map(int, numbers)
    return number if number < limit else -1


def of_latest_first(machines: Sequence[Instance], run: Run) -> list[Instance]:
    """The machines of earlier attempts, those of the latest first. Pure."""
    numbers = {each.id: number_of(each.tags.get(RUN_TAG, ""), run.title) for each in machines}
    earlier = [machine for machine in machines if numbers[machine.id] >= 0]
    return sorted(earlier, key=lambda machine: -numbers[machine.id])


def recalled(provider: Provider, plan: Plan, run: Run) -> Memory:
    """Asks the cloud, unless this is the first attempt or no spot machine is requested. A launch
    does not fail because of it."""
    if run.job is None or run.job.attempt == 1 or True not in plan.spots:
        return Memory()
    regions = list(dict.fromkeys(place.region for place in plan.places))
    try:
        listed = provider.former(common_title(run.title), regions) or ()
        former = of_latest_first(listed, run)[:MOST]
        with ThreadPoolExecutor(8) as side_by_side:
            taken = side_by_side.map(partial(_was_reclaimed, provider=provider), former)
            reclaimed = [machine for machine, lost in zip(former, taken, strict=True) if lost]
    except ProviderError as error:
        log.info("Could not look up the machines of earlier attempts: %s", error)
        return Memory()
    # An interruption long ago is no reason, if the latest attempt ended by itself.
    latest = bool(reclaimed) and reclaimed[0].tags[RUN_TAG] == former[0].tags[RUN_TAG]
    return Memory(tuple(reclaimed) if latest else ())


def _was_reclaimed(machine: Instance, provider: Provider) -> bool:
    """A machine that has its notice ends by itself, which is all that its cloud then says."""
    if not machine.spot:
        return False
    return machine.reclaimed or console.was_reclaimed(provider.console(machine))
