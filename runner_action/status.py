"""Story 7, status: runners and machines of a repository, side by side, and what is odd about
them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta

from runner_action.errors import ProviderError
from runner_action.forges.base import Forge
from runner_action.marks import Mark, address_tag
from runner_action.model import REPOSITORY_TAG, Instance, ProviderName, Repository, Runner
from runner_action.plain import code, dumps, markdown
from runner_action.providers.base import Provider
from runner_action.reap import ours, removals
from runner_action.waiting import Clock

COLUMNS = ("runner", "state", "machine", "type", "where", "age", "lease", "cost so far", "odd")


@dataclass(frozen=True, kw_only=True)
class Row:
    """A machine and its runner, or one of them alone. `cost`: in USD; None: not known."""

    name: str
    state: str
    machine: Instance | None = None
    runner: Runner | None = None
    age: timedelta | None = None
    lease: timedelta | None = None
    """What is left of it; negative: it is over."""
    cost: float | None = None
    odd: str = ""


def rows(
    machines: Iterable[Instance],
    runners: Sequence[Runner],
    repository: Repository,
    provider: ProviderName | None,
    now: datetime,
    costs: Mapping[str, float | None],
    *,
    everywhere: bool = True,
) -> list[Row]:
    """What is ours, machines first. `provider`: whose machines were looked for; None: nobody's.
    Pure."""
    mine = ours(machines, repository)
    gone = (
        removals(mine, runners, repository, provider, now, everywhere=everywhere)
        if provider
        else []
    )
    whys = {
        one.machine.id if one.machine else one.runner.id: one.why  # type: ignore[union-attr]
        for one in gone
        if one.machine or one.runner
    }
    found, paired = [], set()
    for machine in sorted(mine, key=lambda one: (one.name, one.id)):
        runner = next((one for one in runners if one.name in machine.runner_names), None)
        paired |= {runner.id} if runner else set()
        odd = whys.get(machine.id, "") or (
            "its runner is offline"
            if runner and not runner.online and not _starts(machine, now)
            else ""
        )
        found.append(
            Row(
                name=runner.name if runner else machine.name,
                state=(
                    _state(runner)
                    if runner and (runner.online or not _starts(machine, now))
                    else "starting"
                    if _starts(machine, now)
                    else "none"
                ),
                machine=machine,
                runner=runner,
                age=now - since if (since := _since(machine)) else None,
                lease=machine.expiry - now if machine.expiry else None,
                cost=costs.get(machine.id),
                odd=odd,
            )
        )
    for runner in runners:
        if runner.id not in paired and (mark := Mark.of(runner, repository)):
            known = provider is mark.provider and everywhere
            odd = whys.get(runner.id, "") or (
                "no machine of it was found"
                if known and runner.online
                else ""
                if known
                else f"its machine is at {mark.provider}"
            )
            found.append(
                Row(
                    name=runner.name,
                    state=(
                        "starting" if mark.online_by > now and not runner.online else _state(runner)
                    ),
                    runner=runner,
                    odd=odd,
                )
            )
    return found


def _starts(machine: Instance, now: datetime) -> bool:
    return machine.online_by is not None and machine.online_by > now


def _state(runner: Runner) -> str:
    return "busy" if runner.busy else "online" if runner.online else "offline"


def _since(machine: Instance) -> datetime | None:
    try:
        return datetime.fromisoformat(machine.launched) if machine.launched else None
    except ValueError:
        return None


def table(found: Sequence[Row]) -> str:
    """In Markdown."""
    lines = [f"| {' | '.join(COLUMNS)} |", "|" + " --- |" * len(COLUMNS)]
    for row in found:
        machine = row.machine
        kind = f"{machine.instance_type}{' (spot)' if machine.spot else ''}" if machine else ""
        lease = (
            ""
            if row.lease is None
            else (
                f"{span(row.lease)} left"
                if row.lease > timedelta()
                else f"over for {span(-row.lease)}"
            )
        )
        cost = "" if machine is None else "unknown" if row.cost is None else f"${row.cost:.2f}"
        where = machine.zone or machine.region if machine else ""
        told = (row.state, machine.id if machine else "none", kind, where)
        age = span(row.age) if row.age else ""
        cells = (code(row.name), *map(markdown, told), age, lease, cost, markdown(row.odd))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def span(time: timedelta) -> str:
    """In its two largest units."""
    minutes = int(time.total_seconds() // 60)
    parts = [(minutes // 1440, "d"), (minutes // 60 % 24, "h"), (minutes % 60, "min")]
    told = [f"{number} {unit}" for number, unit in parts if number]
    return " ".join(told[:2]) or "0 min"


def as_json(found: Sequence[Row]) -> str:
    return dumps([_told(row) for row in found])


def _told(row: Row) -> dict[str, object]:
    machine, runner = row.machine, row.runner
    return {
        "name": row.name,
        "state": row.state,
        "runner-id": runner.id if runner else None,
        "labels": sorted(runner.labels) if runner else [],
        "instance-id": machine.id if machine else None,
        "instance-type": machine.instance_type if machine else None,
        "spot": machine.spot if machine else None,
        "region": machine.region if machine else None,
        "zone": machine.zone if machine else None,
        "age-seconds": int(row.age.total_seconds()) if row.age else None,
        "lease-seconds": int(row.lease.total_seconds()) if row.lease is not None else None,
        "cost-usd": None if row.cost is None else round(row.cost, 4),
        "odd": row.odd,
    }


def status(
    repository: Repository,
    forge: Forge,
    provider: Provider | None,
    clock: Clock,
    regions: Sequence[str] | None = None,
) -> tuple[dict[str, str], str]:
    """Outputs, and the story in Markdown. Asks only. `provider`: None, if no cloud was named;
    `regions` as in `reap`."""
    where = provider.regions() if provider and regions is None else regions or ()
    machines = (
        ours(provider.find({REPOSITORY_TAG: address_tag(repository)}, where), repository)
        if provider
        else []
    )
    runners = forge.runners(offline=True)
    now, costs = clock.now(), _costs(provider, machines, clock.now())
    everywhere = provider is not None and (regions is None or not provider.regional)
    found = rows(
        machines,
        runners,
        repository,
        provider.name if provider else None,
        now,
        costs,
        everywhere=everywhere,
    )
    others = len(runners) - len({row.runner.id for row in found if row.runner})
    parts = [
        f"### Runners and machines of {markdown(repository.url)}",
        table(found) if found else "There are none of ours.",
    ]
    if others:
        parts.append(
            f"{others} {'runner' if others == 1 else 'runners'} besides, which no launch of ours"
            " has made."
        )
    if provider is None:
        parts.append("Machines were not looked for: no `cloud` was named.")
    elif provider.regional:
        parts.append(f"Looked for machines in {markdown(', '.join(where))}.")
    if any(row.odd for row in found):
        parts.append(
            "`cml-runner reap --dry-run` says what a sweep would remove, `cml-runner destroy NAME`"
            " removes one."
        )
    return {"status": as_json(found)}, "\n\n".join(parts) + "\n"


def _costs(
    provider: Provider | None, machines: Sequence[Instance], now: datetime
) -> dict[str, float | None]:
    """By the machine's id, asked side by side. A price that may not be asked for is not known."""

    def ask(machine: Instance) -> float | None:
        try:
            return provider.cost(machine, now) if provider else None
        except ProviderError:
            return None

    with ThreadPoolExecutor(8) as side_by_side:
        return dict(zip([one.id for one in machines], side_by_side.map(ask, machines), strict=True))
