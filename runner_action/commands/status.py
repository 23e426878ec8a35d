"""`status`: the runners and machines of a repository next to each other, with notes on anything
unexpected."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta

from runner_action.commands.reap import Removal, belongs, removals
from runner_action.errors import ProviderError
from runner_action.forges.base import Forge
from runner_action.marks import Mark
from runner_action.model import Instance, ProviderName, Repository, Runner
from runner_action.plain import code, dumps, markdown
from runner_action.providers.base import Provider
from runner_action.runners.context import Search, created_for
from runner_action.waiting import Clock

COLUMNS = ("runner", "state", "machine", "type", "where", "age", "lease", "cost so far", "notes")
NAMESAKE = "a runner that its launch did not create has its name"


@dataclass(frozen=True, kw_only=True)
class Row:
    """A machine and its runner, or one of them without the other."""

    name: str
    state: str
    machine: Instance | None = None
    runner: Runner | None = None
    age: timedelta | None = None
    lease: timedelta | None = None
    """The time left; negative if it is over."""
    cost: float | None = None
    """In USD; None if unknown."""
    notes: str = ""
    """Anything unexpected."""


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
    """What launches of the repository created, machines first. `provider`: the cloud that was
    searched, if any; `costs`: by the machine's ID; `everywhere` as in `removals`. Pure."""
    own = created_for(repository, machines)
    own.sort(key=lambda machine: (machine.name, machine.id))
    removed: Sequence[Removal] = ()
    if provider:
        removed = removals(own, runners, repository, provider, now, everywhere=everywhere)
    reasons = {_id_of(removal): removal.why for removal in removed}
    listed = []
    paired = set[int]()
    for machine in own:
        namesakes = [each for each in runners if each.name in machine.runner_names]
        marked = [each for each in namesakes if _is_of(each, machine, repository)]
        runner = next(iter(marked), None)
        paired |= {each.id for each in marked[:1]}
        why = reasons.get(machine.id, "") or (NAMESAKE if namesakes and not runner else "")
        listed.append(_row_of_machine(machine, runner, now, costs.get(machine.id), why))
    for runner in runners:
        mark = Mark.of(runner, repository)
        if runner.id in paired or not mark:
            continue
        notes = reasons.get(runner.id, "") or _notes_alone(runner, mark, provider, everywhere)
        starts = mark.online_by > now and not runner.online
        state = "starting" if starts else _state(runner)
        listed.append(Row(name=runner.name, state=state, runner=runner, notes=notes))
    return listed


def _is_of(runner: Runner, machine: Instance, repository: Repository) -> bool:
    mark = Mark.of(runner, repository)
    return mark is not None and belongs(runner, mark, machine)


def _id_of(removal: Removal) -> str | int | None:
    if removal.machine:
        return removal.machine.id
    return removal.runner.id if removal.runner else None


def _row_of_machine(
    machine: Instance, runner: Runner | None, now: datetime, cost: float | None, why: str
) -> Row:
    since = _since(machine)
    starts = machine.online_by is not None and machine.online_by > now
    state, notes = "none", ""
    if runner and (runner.online or not starts):
        state = _state(runner)
        notes = "" if runner.online else "its runner is offline"
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
        notes=why or notes,
    )


def _notes_alone(
    runner: Runner, mark: Mark, provider: ProviderName | None, everywhere: bool
) -> str:
    """The notes on a runner whose machine was not found."""
    if provider is not mark.provider or not everywhere:
        return f"its machine is at {mark.provider}"
    return "its machine was not found" if runner.online else ""


def _state(runner: Runner) -> str:
    if runner.busy:
        return "busy"
    return "online" if runner.online else "offline"


def _since(machine: Instance) -> datetime | None:
    try:
        return datetime.fromisoformat(machine.launched) if machine.launched else None
    except ValueError:
        return None


def table(listed: Sequence[Row]) -> str:
    """The rows in Markdown."""
    lines = [f"| {' | '.join(COLUMNS)} |", "|" + " --- |" * len(COLUMNS)]
    lines += [f"| {' | '.join(_cells(row))} |" for row in listed]
    return "\n".join(lines)


def _cells(row: Row) -> list[str]:
    name, state = code(row.name), markdown(row.state)
    age = span(row.age) if row.age else ""
    notes = markdown(row.notes)
    machine = row.machine
    if not machine:
        return [name, state, "none", "", "", age, _lease(row), "", notes]
    kind = f"{machine.instance_type} (spot)" if machine.spot else machine.instance_type
    place = markdown(machine.zone or machine.region)
    cost = "unknown" if row.cost is None else f"${row.cost:.2f}"
    machine_id = markdown(machine.id)
    return [name, state, machine_id, markdown(kind), place, age, _lease(row), cost, notes]


def _lease(row: Row) -> str:
    if row.lease is None:
        return ""
    over = row.lease <= timedelta()
    return f"over for {span(-row.lease)}" if over else f"{span(row.lease)} left"


def span(time: timedelta) -> str:
    """A time span in its two largest units."""
    minutes = int(time.total_seconds() // 60)
    parts = [(minutes // 1440, "d"), (minutes // 60 % 24, "h"), (minutes % 60, "min")]
    units = [f"{number} {unit}" for number, unit in parts if number]
    return " ".join(units[:2]) or "0 min"


def as_json(listed: Sequence[Row]) -> str:
    """The rows as the output `status`."""
    return dumps([_fields_of(row) for row in listed])


def _fields_of(row: Row) -> dict[str, object]:
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
        "notes": row.notes,
    }


def status(
    repository: Repository,
    forge: Forge,
    provider: Provider | None,
    clock: Clock,
    regions: Sequence[str] | None = None,
) -> tuple[dict[str, str], str]:
    """Outputs, and the summary in Markdown; changes nothing. `provider`: None if no cloud is
    given; `regions` as in `reap`."""
    search = Search(repository, provider, regions) if provider else None
    machines = created_for(repository, search.machines()) if search else []
    runners = forge.runners(offline=True)
    now = clock.now()
    costs = _costs(provider, machines, now)
    everywhere = search is not None and search.is_complete
    name = provider.name if provider else None
    listed = rows(machines, runners, repository, name, now, costs, everywhere=everywhere)
    others = len(runners) - len({row.runner.id for row in listed if row.runner})
    return {"status": as_json(listed)}, _summary(repository, search, listed, others)


def _summary(
    repository: Repository, search: Search | None, listed: Sequence[Row], others: int
) -> str:
    """In Markdown. `others`: the number of runners that are not listed."""
    parts = [
        f"### Runners and machines of {markdown(repository.url)}",
        table(listed) if listed else "There are none that cml-runner created.",
    ]
    if others:
        runners = "runner" if others == 1 else "runners"
        parts.append(f"{others} other {runners}, not created by cml-runner.")
    if search is None:
        parts.append("Machines were not searched for, because `cloud` is not given.")
    elif search.provider.regional:
        parts.append(f"Searched for machines in {markdown(', '.join(search.regions))}.")
    if any(row.notes for row in listed):
        parts.append(
            "`cml-runner reap --dry-run` shows what a sweep would remove; `cml-runner destroy NAME`"
            " removes one launch."
        )
    return "\n\n".join(parts) + "\n"


def _costs(
    provider: Provider | None, machines: Sequence[Instance], now: datetime
) -> dict[str, float | None]:
    """By the machine's ID, requested in parallel; None if the credentials may not read prices."""

    def cost_of(machine: Instance) -> float | None:
        try:
            return provider.cost(machine, now) if provider else None
        except ProviderError:
            return None

    with ThreadPoolExecutor(8) as threads:
        ids = [machine.id for machine in machines]
        return dict(zip(ids, threads.map(cost_of, machines), strict=True))
