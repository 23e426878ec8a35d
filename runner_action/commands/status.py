"""Story 7, status: runners and machines of a repository, side by side, and what is odd about
them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta

from runner_action.commands.reap import Removal, ours, removals
from runner_action.errors import ProviderError
from runner_action.forges.base import Forge
from runner_action.marks import Mark, address_tag
from runner_action.model import REPOSITORY_TAG, Instance, ProviderName, Repository, Runner
from runner_action.plain import code, dumps, markdown
from runner_action.providers.base import Provider
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
    mine = sorted(ours(machines, repository), key=lambda one: (one.name, one.id))
    removed: Sequence[Removal] = ()
    if provider:
        removed = removals(mine, runners, repository, provider, now, everywhere=everywhere)
    whys = {_id_of(one): one.why for one in removed}
    found = []
    paired = set()
    for machine in mine:
        runner = next((one for one in runners if one.name in machine.runner_names), None)
        if runner:
            paired.add(runner.id)
        why = whys.get(machine.id, "")
        found.append(_row_of_machine(machine, runner, now, costs.get(machine.id), why))
    for runner in runners:
        mark = Mark.of(runner, repository)
        if runner.id in paired or not mark:
            continue
        why = whys.get(runner.id, "") or _alone(runner, mark, provider, everywhere)
        starts = mark.online_by > now and not runner.online
        state = "starting" if starts else _state(runner)
        found.append(Row(name=runner.name, state=state, runner=runner, odd=why))
    return found


def _id_of(removal: Removal) -> str | int | None:
    if removal.machine:
        return removal.machine.id
    return removal.runner.id if removal.runner else None


def _row_of_machine(
    machine: Instance, runner: Runner | None, now: datetime, cost: float | None, why: str
) -> Row:
    since = _since(machine)
    starts = machine.online_by is not None and machine.online_by > now
    state, odd = "none", ""
    if runner and (runner.online or not starts):
        state = _state(runner)
        odd = "" if runner.online else "its runner is offline"
    elif starts:
        state = "starting"
    return Row(
        name=runner.name if runner else machine.name,
        state=state,
        machine=machine,
        runner=runner,
        age=now - since if since else None,
        lease=machine.expiry - now if machine.expiry else None,
        cost=cost,
        odd=why or odd,
    )


def _alone(runner: Runner, mark: Mark, provider: ProviderName | None, everywhere: bool) -> str:
    """What is odd about a runner whose machine was not found."""
    if provider is not mark.provider or not everywhere:
        return f"its machine is at {mark.provider}"
    return "no machine of it was found" if runner.online else ""


def _state(runner: Runner) -> str:
    if runner.busy:
        return "busy"
    return "online" if runner.online else "offline"


def _since(machine: Instance) -> datetime | None:
    try:
        return datetime.fromisoformat(machine.launched) if machine.launched else None
    except ValueError:
        return None


def table(found: Sequence[Row]) -> str:
    """In Markdown."""
    lines = [f"| {' | '.join(COLUMNS)} |", "|" + " --- |" * len(COLUMNS)]
    lines += [f"| {' | '.join(_cells(row))} |" for row in found]
    return "\n".join(lines)


def _cells(row: Row) -> list[str]:
    name, state = code(row.name), markdown(row.state)
    age = span(row.age) if row.age else ""
    odd = markdown(row.odd)
    machine = row.machine
    if not machine:
        return [name, state, "none", "", "", age, _lease(row), "", odd]
    kind = f"{machine.instance_type} (spot)" if machine.spot else machine.instance_type
    place = markdown(machine.zone or machine.region)
    cost = "unknown" if row.cost is None else f"${row.cost:.2f}"
    return [name, state, markdown(machine.id), markdown(kind), place, age, _lease(row), cost, odd]


def _lease(row: Row) -> str:
    if row.lease is None:
        return ""
    over = row.lease <= timedelta()
    return f"over for {span(-row.lease)}" if over else f"{span(row.lease)} left"


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
    machines, where = _machines(repository, provider, regions)
    runners = forge.runners(offline=True)
    now = clock.now()
    costs = _costs(provider, machines, now)
    everywhere = provider is not None and (regions is None or not provider.regional)
    name = provider.name if provider else None
    found = rows(machines, runners, repository, name, now, costs, everywhere=everywhere)
    others = len(runners) - len({row.runner.id for row in found if row.runner})
    return {"status": as_json(found)}, _story(repository, provider, where, found, others)


def _machines(
    repository: Repository, provider: Provider | None, regions: Sequence[str] | None
) -> tuple[list[Instance], Sequence[str]]:
    """Those that are ours, and in which regions they were looked for."""
    if provider is None:
        return [], ()
    where = provider.regions() if regions is None else regions
    found = provider.find({REPOSITORY_TAG: address_tag(repository)}, where)
    return ours(found, repository), where


def _story(
    repository: Repository,
    provider: Provider | None,
    where: Sequence[str],
    found: Sequence[Row],
    others: int,
) -> str:
    """In Markdown. `others`: how many runners there are besides."""
    parts = [
        f"### Runners and machines of {markdown(repository.url)}",
        table(found) if found else "There are none of ours.",
    ]
    if others:
        runners = "runner" if others == 1 else "runners"
        parts.append(f"{others} {runners} besides, which no launch of ours has made.")
    if provider is None:
        parts.append("Machines were not looked for: no `cloud` was named.")
    elif provider.regional:
        parts.append(f"Looked for machines in {markdown(', '.join(where))}.")
    if any(row.odd for row in found):
        parts.append(
            "`cml-runner reap --dry-run` says what a sweep would remove, `cml-runner destroy NAME`"
            " removes one."
        )
    return "\n\n".join(parts) + "\n"


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
