"""`reap`: removes what earlier launches of this repository left at the cloud and at GitHub or
GitLab, and nothing else.

A machine is known by its tags, a runner by its mark (`marks.Mark`). Launches that are under way
are not touched: until its start timeout a machine may have no runner, and a runner no machine.
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
from runner_action.marks import Mark, is_alone, marks_of
from runner_action.model import Instance, ProviderName, Repository, Runner
from runner_action.plain import dumps, markdown
from runner_action.providers.base import Provider
from runner_action.request import CloudRequest
from runner_action.runners.context import Context, Search, created_for
from runner_action.runners.failure import Failure, failures_in, summary_of

log = logging.getLogger(__name__)
SKEW = timedelta(minutes=2)
"""How far the clocks of two launchers may differ."""
SWEEP_SECONDS = 120.0
"""How long a launch sweeps at most."""
LAST_SECONDS = 1.0
"""How long a launch that is done waits for the current step of its sweep."""


@dataclass(frozen=True, kw_only=True)
class Removal:
    """A machine or a runner that is to be removed, and why."""

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

    `everywhere`: whether `machines` are all there are at `provider`. If not, a runner without a
    machine stays, as its machine may be in another region.
    """
    own = created_for(repository, machines)
    late = now - SKEW
    removed = _machine_removals(own, runners, late)
    marks = marks_of(runners, repository, provider)
    gone = [removal.machine for removal in removed if removal.machine]
    for runner in runners:
        mark = marks.get(runner.id)
        why = _why_runner(runner, mark, own, gone, late, everywhere=everywhere) if mark else None
        if why:
            removed.append(Removal(why=why, runner=runner))
    return removed


def _machine_removals(
    machines: Iterable[Instance], runners: Sequence[Runner], late: datetime
) -> list[Removal]:
    removed: list[Removal] = []
    # Pods of one Job are created and removed together.
    for _, unit in groupby(sorted(machines, key=_unit), key=_unit):
        reasons = []
        for machine in unit:
            own = [runner for runner in runners if runner.name in machine.runner_names]
            reasons.append((machine, _why_machine(machine, own, late)))
        if all(why for _, why in reasons):
            removed += [Removal(why=why, machine=machine) for machine, why in reasons if why]
    return removed


def _unit(machine: Instance) -> tuple[str, str]:
    return machine.region, machine.group or machine.id


def _why_machine(machine: Instance, runners: Sequence[Runner], late: datetime) -> str | None:
    """Why a machine must go; None if it stays. `runners`: those with its name."""
    if machine.expiry and machine.expiry < late:
        return f"its lease ended at {machine.expiry:%Y-%m-%d %H:%M} UTC"
    if not machine.alive:
        return "it is stopped, and will not be started again"
    if machine.online_by is None or machine.online_by >= late:
        return None
    if not runners:
        return "it has no runner, and its start timeout is over"
    if not any(runner.contacted for runner in runners):
        return "its runner was never online, and its start timeout is over"
    return None


def _why_runner(
    runner: Runner,
    mark: Mark,
    machines: Iterable[Instance],
    gone: Iterable[Instance],
    late: datetime,
    *,
    everywhere: bool,
) -> str | None:
    """Why a runner must be deregistered; None if it stays. `gone`: those of `machines` that are
    removed."""
    removed = [machine for machine in gone if belongs(runner, mark, machine)]
    if removed:
        return f"its machine {removed[0].id} is removed"
    if mark.online_by >= late:
        return None
    if is_turn(mark.name) and is_alone(runner, ()):
        return "its launch is over"
    if everywhere and is_alone(runner, machines):
        return "it is offline, and has no machine"
    return None


def belongs(runner: Runner, mark: Mark, machine: Instance) -> bool:
    """Whether the same launch created both: launches of the same name differ in their times."""
    same_launch = (mark.name, mark.online_by) == (machine.name, machine.online_by)
    return same_launch and runner.name in machine.runner_names


def regions_of(cloud: CloudRequest, provider: Provider) -> list[str] | None:
    """The regions of the input `cloud-region`; None if it is not given."""
    if not cloud.regions:
        return None
    return list(dict.fromkeys(place.region for place in provider.plan(cloud).places))


def result_of(removed: Sequence[Removal], dry_run: bool) -> tuple[dict[str, str], str]:
    """Outputs of `reap` and `destroy`, and their summary in Markdown."""
    heading = "### Nothing to remove"
    if removed:
        heading = "### Would be removed" if dry_run else "### Removed"
    entries = [
        {
            "instance-id": removal.machine.id if removal.machine else None,
            "runner-name": removal.runner.name if removal.runner else None,
            "why": removal.why,
        }
        for removal in removed
    ]
    lines = [heading, "", *(f"- {markdown(str(removal))}" for removal in removed)]
    return {"removed": dumps(entries)}, "\n".join(lines) + "\n"


def reap(
    context: Context,
    regions: Sequence[str] | None = None,
    *,
    dry_run: bool = False,
    go_on: Callable[[], bool] = lambda: True,
) -> list[Removal]:
    """Removes what is left, and returns it; a dry run only returns it. `regions`: where to search
    for machines; None for all regions that may have some. `go_on` is called before each step, and
    ends the sweep by returning False.

    Machines are listed before runners. Of a launch in between, only the runner can be seen, and
    that is too young to be removed. Raises RunnerActionError if something could not be removed,
    after everything else was.
    """
    search = Search(context.repository, context.provider, regions)
    machines = search.machines()
    runners = context.forge.runners(offline=True) if go_on() else []
    if not go_on():
        return []
    now = context.clock.now()
    name = context.provider.name
    removed = removals(
        machines, runners, context.repository, name, now, everywhere=search.is_complete
    )
    if dry_run:
        return removed
    failures = failures_in(_remove(removal, context) for removal in removed if go_on())
    if go_on():
        context.provider.tidy(context.clock.now())
    if failures:
        raise RunnerActionError(
            f"Not everything could be removed: {summary_of(failures)}",
            "The next sweep tries again.",
        )
    return removed


def _remove(removal: Removal, context: Context) -> Failure | None:
    try:
        if removal.machine:
            context.provider.destroy(removal.machine.name, removal.machine)
        if removal.runner:
            context.forge.deregister(removal.runner.name, removal.runner.id)
    except RunnerActionError as error:  # the others come next
        return Failure(f"{removal}: {error}")
    log.info("Removed %s.", removal)
    return None


class Sweep:
    """Runs `reap` next to a launch, while that waits for its machine, in the regions that the
    launch has searched already. The launch neither fails because of it nor waits for it: what is
    not done in time is left to the next sweep."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._end = context.clock.monotonic() + SWEEP_SECONDS
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sweep", daemon=True)

    def __enter__(self) -> Sweep:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(LAST_SECONDS)

    def _run(self) -> None:
        def go_on() -> bool:
            return not self._over.is_set() and self._context.clock.monotonic() < self._end

        try:
            reap(self._context, (), go_on=go_on)
        except Exception as error:  # the launch does not depend on it
            if not self._over.is_set():
                log.info("Could not sweep what earlier launches left: %s", error)
