"""Story 5, reap: what earlier launches of this repository left at cloud and forge is removed,
and nothing else is touched.

A machine is ours by its tags, a runner by its mark (`model.Mark`). A launch that is still on its
way is left alone: until its start timeout is over a machine may be without a runner, and a
runner without a machine.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby

from runner_action.claim import is_turn
from runner_action.errors import RunnerActionError
from runner_action.forges.base import Forge
from runner_action.marks import Mark, address_tag, is_alone, marks_of
from runner_action.model import (
    OWNER_TAG,
    REPOSITORY_TAG,
    Instance,
    ProviderName,
    Repository,
    Runner,
)
from runner_action.plain import dumps, markdown
from runner_action.providers.base import Provider
from runner_action.request import CloudRequest
from runner_action.waiting import Clock

log = logging.getLogger(__name__)
SKEW = timedelta(minutes=2)
"""How far the clocks of two launchers may be apart."""
SWEEP_SECONDS, LAST_SECONDS = 120.0, 1.0
"""How long a launch sweeps at most; and how long it lets the last step end when it is done
itself."""


@dataclass(frozen=True, kw_only=True)
class Removal:
    """A machine or a runner, and why it goes."""

    why: str
    machine: Instance | None = None
    runner: Runner | None = None

    def __str__(self) -> str:
        what = ""
        if self.machine:
            what = f"machine {self.machine.id} ({self.machine.name})"
        elif self.runner:
            what = f"runner {self.runner.name}"
        return f"{what}: {self.why}"


def ours(machines: Iterable[Instance], repository: Repository) -> list[Instance]:
    """Of this repository, by their tags, and made by a launch, by what their cloud recorded."""
    whose = {OWNER_TAG: "runner", REPOSITORY_TAG: address_tag(repository)}
    return [one for one in machines if one.proven and whose.items() <= one.tags.items()]


def removals(
    machines: Iterable[Instance],
    runners: Sequence[Runner],
    repository: Repository,
    provider: ProviderName,
    now: datetime,
    *,
    everywhere: bool = True,
) -> list[Removal]:
    """What is past its lease or has no counterpart: machines, then runners. Pure.

    `everywhere`: whether `machines` are all there are at `provider`; else a runner without one
    may have it elsewhere, and stays.
    """
    mine, late = ours(machines, repository), now - SKEW
    marks = marks_of(runners, repository, provider)
    going: list[Removal] = []
    # Pods of one Job are made and removed together.
    for _, unit in groupby(sorted(mine, key=_unit), key=_unit):
        whys = {
            one: _why(one, [runner for runner in runners if runner.name in one.runner_names], late)
            for one in unit
        }
        going += (
            [Removal(why=why, machine=one) for one, why in whys.items() if why]
            if all(whys.values())
            else []
        )
    for runner in runners:
        if (mark := marks.get(runner.id)) is None:
            continue
        if end := next(
            (one.machine for one in going if one.machine and belongs(runner, mark, one.machine)),
            None,
        ):
            going.append(Removal(why=f"its machine {end.id} is removed", runner=runner))
        elif is_turn(mark.name) and is_alone(runner, ()) and mark.online_by < late:
            going.append(Removal(why="its launch is over", runner=runner))
        elif everywhere and is_alone(runner, mine) and mark.online_by < late:
            going.append(Removal(why="it is offline, and has no machine", runner=runner))
    return going


def belongs(runner: Runner, mark: Mark, machine: Instance) -> bool:
    """Of the very launch that made the machine: another of the same name has another time."""
    return runner.name in machine.runner_names and (mark.name, mark.online_by) == (
        machine.name,
        machine.online_by,
    )


def where_asked(cloud: CloudRequest, provider: Provider) -> list[str] | None:
    """The regions of `cloud-region`; None: it was not given, so wherever there may be machines."""
    return (
        list(dict.fromkeys(place.region for place in provider.plan(cloud).places))
        if cloud.regions
        else None
    )


def told(removed: Sequence[Removal], dry_run: bool) -> tuple[dict[str, str], str]:
    """Outputs and story of `reap` and `destroy`."""
    head = "### Nothing to remove"
    if removed:
        head = "### Would be removed" if dry_run else "### Removed"
    each = [
        {
            "instance-id": one.machine.id if one.machine else None,
            "runner-name": one.runner.name if one.runner else None,
            "why": one.why,
        }
        for one in removed
    ]
    return {"removed": dumps(each)}, "\n".join(
        [head, "", *(f"- {markdown(str(one))}" for one in removed)]
    ) + "\n"


def _unit(machine: Instance) -> tuple[str, str]:
    return machine.region, machine.group or machine.id


def _why(machine: Instance, runners: Sequence[Runner], late: datetime) -> str:
    """Empty: it stays. `runners`: those that may be its own."""
    if machine.expiry and machine.expiry < late:
        return f"its lease ended at {machine.expiry:%Y-%m-%d %H:%M} UTC"
    if not machine.alive:
        return "it has stopped, and nobody starts it again"
    if machine.online_by is None or machine.online_by >= late:
        return ""
    if not runners:
        return "it has no runner, and its start timeout is over"
    return (
        ""
        if any(one.contacted for one in runners)
        else "its runner was never online, and its start timeout is over"
    )


def reap(
    repository: Repository,
    forge: Forge,
    provider: Provider,
    clock: Clock,
    *,
    dry_run: bool = False,
    regions: Sequence[str] | None = None,
    go_on: Callable[[], bool] = lambda: True,
) -> list[Removal]:
    """Removes it, or only says what it would. `regions`: where to look for machines; None:
    wherever they may be. `go_on` is asked before each step.

    Machines are listed before runners: of what is made meanwhile, only a runner without its
    machine could be seen, and that is too young. Raises RunnerActionError if something could not
    be removed, after all else was.
    """
    everywhere = regions is None or not provider.regional
    machines = provider.find(
        {REPOSITORY_TAG: address_tag(repository)},
        provider.regions() if regions is None else regions,
    )
    runners = forge.runners(offline=True) if go_on() else []
    found = (
        removals(machines, runners, repository, provider.name, clock.now(), everywhere=everywhere)
        if go_on()
        else []
    )
    problems = (
        []
        if dry_run
        else [problem for one in found if go_on() and (problem := _remove(one, forge, provider))]
    )
    if not dry_run and go_on():
        provider.tidy(clock.now())
    if problems:
        raise RunnerActionError(
            "Not everything could be removed: " + " ".join(problems),
            "It is tried again by the next sweep.",
        )
    return found


def _remove(one: Removal, forge: Forge, provider: Provider) -> str:
    """What went wrong, if something did: the others come next."""
    try:
        if one.machine:
            provider.destroy(one.machine.name, one.machine)
        if one.runner:
            forge.deregister(one.runner.name, one.runner.id)
    except RunnerActionError as error:
        return f"{one}: {error}"
    log.info("Removed the %s.", one)
    return ""


class Sweep:
    """`reap` beside a launch that waits for its machine, where that launch has looked already.
    Whatever happens here, the launch goes on, and does not wait for it: what is not done in time
    the next sweep does."""

    def __init__(
        self, repository: Repository, forge: Forge, provider: Provider, clock: Clock
    ) -> None:
        self._end = clock.monotonic() + SWEEP_SECONDS
        self._over = threading.Event()
        self._thread = threading.Thread(
            target=self._run, args=(repository, forge, provider, clock), name="sweep", daemon=True
        )

    def __enter__(self) -> Sweep:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(LAST_SECONDS)

    def _run(self, repository: Repository, forge: Forge, provider: Provider, clock: Clock) -> None:
        def go_on() -> bool:
            return not self._over.is_set() and clock.monotonic() < self._end

        try:
            reap(repository, forge, provider, clock, regions=(), go_on=go_on)
        except Exception as error:  # no part of the launch
            if not self._over.is_set():
                log.info("What earlier launches left could not be swept: %s", error)
