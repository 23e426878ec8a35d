"""A clock, a forge and a cloud in memory. They pass the same contract suites as the real ones
(tests/contracts)."""

from __future__ import annotations

import base64
import bz2
import gzip
import json
import re
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import count, product
from typing import Any

from runner_action import claim
from runner_action.agent.restart import Run as ForgeRun
from runner_action.agent.spec import AgentSpec
from runner_action.errors import CapacityError, ForgeError, RunnerBusy
from runner_action.forges.base import Try
from runner_action.model import (
    OWNER_TAG,
    RUN_TAG,
    CiJob,
    Deletion,
    Download,
    Instance,
    LaunchJob,
    Machine,
    Place,
    Placement,
    Plan,
    Pool,
    ProviderName,
    Registration,
    Runner,
    Secret,
)
from runner_action.providers.base import Created
from runner_action.request import CloudRequest
from runner_action.waiting import Clock


def unpacked(user_data: bytes) -> dict[str, str]:
    """Path -> text of all that the user data brings to a machine."""
    parts = iter(bz2.decompress(base64.b64decode(brought(user_data))).decode().split("\0"))
    return dict(zip(parts, parts, strict=True))


def brought(user_data: bytes) -> str:
    """All that the user data brings, as it stands in the script that cloud-init gets."""
    config = json.loads(gzip.decompress(user_data).split(b"\n", 1)[1])
    packed: str = re.findall(r"b64decode\('([^']+)'\)", config["bootcmd"][0])[0]
    return packed


def agent_spec(**fields: Any) -> AgentSpec:
    """What a machine is told, with `fields` in place of the usual."""
    usual: dict[str, Any] = {
        "name": "cml-1",
        "forge": "github",
        "repository_url": "https://forge.test/octo/train",
        "api_url": "https://forge.test/api/v3",
        "labels": ("train",),
        "idle_timeout": 300,
        "first_job_timeout": 300,
        "max_lifetime": 432000,
        "start_timeout": 600,
        "single": False,
        "runner_url": "https://forge.test/runner.tar.gz",
        "runner_sha256": "0" * 64,
    }
    return AgentSpec(**{**usual, **fields})


@dataclass
class FakeClock:
    """Time that passes only by sleeping; `each` is called after every sleep, as the world goes
    on meanwhile."""

    at: float = 1000.0
    each: Callable[[], None] = lambda: None
    slept: list[float] = field(default_factory=list)

    def monotonic(self) -> float:
        return self.at

    def now(self) -> datetime:
        return datetime(2026, 11, 23, tzinfo=UTC) + timedelta(seconds=self.at)

    def sleep(self, seconds: float) -> None:
        self.at += seconds
        self.slept.append(seconds)
        self.each()


class FakeForge:
    """A list of runners. `trouble[method]` is raised instead of an answer."""

    api_url = "https://forge.test/api"
    together = True

    def __init__(self) -> None:
        self.listed: dict[str, Runner] = {}
        self.trouble: dict[str, BaseException] = {}
        self.calls: list[str] = []
        self.runs: dict[int, ForgeRun] = {}
        self.forks: dict[int, str] = {}
        self.notes: dict[int, list[tuple[str, str]]] = {}
        self.reruns: list[tuple[str, int, int | None]] = []
        self.refuses: tuple[str, ...] = ()
        self.in_groups: list[int] = []
        self.cancelled: list[int] = []
        self.limit = ""
        """What ends jobs early."""
        self.opens: str | None = None
        """What a token for restarts opens beyond its runs."""
        self._lock, self._ids = threading.Lock(), count(1)

    def _called(self, method: str) -> None:
        with self._lock:
            self.calls.append(method)
        if method in self.trouble:
            raise self.trouble[method]

    def reach(self, token: Secret) -> str | None:
        self._called("reach")
        return self.opens

    def add(
        self,
        name: str,
        labels: Sequence[str] = (),
        *,
        online: bool = True,
        busy: bool = False,
        contacted: bool = True,
    ) -> Runner:
        runner = Runner(
            id=next(self._ids),
            name=name,
            labels=frozenset(labels),
            online=online,
            busy=busy,
            contacted=contacted,
        )
        self.listed[name] = runner
        return runner

    def come_and_go(self, name: str) -> None:
        self.listed[name] = replace(self.listed[name], contacted=True)

    def runners(self, *, labels: bool = True, offline: bool = False) -> Sequence[Runner]:
        self._called("runners")
        return list(self.listed.values())

    def online(self, registrations: Mapping[str, Registration]) -> Collection[str]:
        return [
            runner.name
            for runner in self.runners()
            if runner.online and runner.name in registrations
        ]

    def download(self, architecture: str, version: str, system: str = "linux") -> Download:
        self._called("download")
        return Download(
            url=f"https://forge.test/{architecture}/{version}.tar.gz",
            sha256="0" * 64,
            version="2.336.0",
        )

    def registration_token(self) -> Secret:
        self._called("registration_token")
        return Secret("canary-registration")

    def removal_token(self) -> Secret:
        self._called("removal_token")
        return Secret("canary-removal")

    def cautions(self, longest: int | None) -> Sequence[str]:
        """Nothing is asked that `runners` has not asked."""
        if "cautions" in self.trouble:
            raise self.trouble["cautions"]
        return [f"{self.limit} {longest}."] if self.limit else []

    def launch_job(self, job: CiJob) -> LaunchJob | None:
        self._called("launch_job")
        return LaunchJob(run_id=job.run_id, id=4711, name="launch")

    def run(self, run_id: int, now: datetime) -> ForgeRun:
        self._called("run")
        return self.runs[run_id]

    def fork(self, run_id: int) -> str | None:
        return self.forks.get(run_id)

    def annotations(self, job_id: int) -> Sequence[tuple[str, str]]:
        self._called("annotations")
        return self.notes.get(job_id, [])

    def rivals(self, run_id: int) -> Sequence[int]:
        self._called("rivals")
        return self.in_groups

    def unfinished(self) -> Sequence[int]:
        return [run.id for run in self.runs.values() if not run.done]

    def tries(self, run_id: int, now: datetime) -> Sequence[Try]:
        return [Try(job, 0.0) for job in self.runs[run_id].jobs]

    def cancel(self, run_id: int) -> None:
        self._called("cancel")
        self.cancelled.append(run_id)

    def rerun(self, what: str, run_id: int, job_id: int | None) -> str | None:
        self._called(f"rerun {what}")
        self.reruns.append((what, run_id, job_id))
        return "refused" if what in self.refuses else None

    def register_one(
        self,
        name: str,
        labels: Sequence[str],
        architecture: str,
        system: str = "linux",
        longest: int | None = None,
    ) -> Registration:
        self._called("register_one")
        there = self.listed.get(name)
        if there and not {*labels[-1:]} <= there.labels:
            raise ForgeError(f"{name} is the name of another launch's runner")
        return Registration(
            jit_config=Secret("canary-jit"),
            runner_id=self.add(name, labels, online=False, contacted=False).id,
        )

    def claim(self, runner: Runner, mark: str, clock: Clock, *, shared: bool) -> bool:
        self._called("claim")
        with self._lock:
            there = self.listed.get(runner.name)
            granted = there is not None and claim.allows(
                there.claims, mark, clock.now(), shared=shared
            )
            if there and granted:
                self.listed[runner.name] = replace(there, claims=there.claims | {mark})
            return granted

    def take_turn(self, turn: str, mark: str, clock: Clock, *, labels: Sequence[str] = ()) -> bool:
        self._called("take_turn")
        with self._lock:
            there = self.listed.get(turn)
            if there and {
                claim.holder_of(one) for one in claim.alive(there.claims, clock.now())
            } - {claim.holder_of(mark)}:
                return False
            self.listed[turn] = Runner(
                id=1000,
                name=turn,
                labels=frozenset(labels),
                online=False,
                busy=False,
                claims=frozenset([mark]),
            )
            return True

    def end_turn(self, turn: str, holder: str) -> None:
        self._called("end_turn")
        with self._lock:
            if turn in self.listed and holder in map(claim.holder_of, self.listed[turn].claims):
                del self.listed[turn]

    def deregister(
        self,
        name: str,
        runner_id: int | None = None,
        *,
        twins: bool = False,
        label: str | None = None,
    ) -> bool:
        self._called("deregister")
        there = self.listed.get(name)
        if there is None or runner_id not in (None, there.id):
            return False
        if runner_id is None and label is not None and label not in there.labels:
            return False
        if there.busy:
            raise RunnerBusy(f"{name} is still running a job")
        del self.listed[name]
        return True


class FakeProvider:
    """A cloud with two zones. `trouble[method or zone]` is raised instead of an answer; `born`
    is called for each new instance."""

    name, regional = ProviderName.AWS, True
    user_data_limit = 16384

    def __init__(
        self, born: Callable[[Instance, Machine], None] = lambda _instance, _machine: None
    ) -> None:
        self.instances: dict[str, Instance] = {}
        self.machines: dict[str, Machine] = {}
        self.trouble: dict[str, BaseException] = {}
        self.calls: list[str] = []
        self.consoles: dict[str, str] = {}
        self.room: dict[str, int] = {}  # zone -> how many machines it has
        self.spots: tuple[bool, ...] = (False,)
        self.born = born
        self.deleting: Deletion | None = None
        self._lock = threading.Lock()

    def _called(self, method: str) -> None:
        with self._lock:
            self.calls.append(method)
        if method in self.trouble:
            raise self.trouble[method]

    def regions(self) -> Sequence[str]:
        self._called("regions")
        return ("r1", "r2")

    def plan(self, request: CloudRequest) -> Plan:
        return Plan(
            places=(Place(region="r1"), Place(region="r2")),
            instance_types=("small",),
            architecture="x64",
            image="ubuntu",
            disk_gb=request.disk_gb,
            spots=self.spots,
            spot_price=request.spot_price,
        )

    def deletion(self, request: CloudRequest) -> Deletion | None:
        return self.deleting

    def resolve(self, plan: Plan, request: CloudRequest) -> Sequence[Placement]:
        self._called("resolve")
        return [
            Placement(region=zone[:2], spot=spot, pools=(Pool(instance_type="small", zone=zone),))
            for spot, zone in product(plan.spots, ("r1a", "r1b", "r2a"))
        ]

    def create(self, placement: Placement, machine: Machine, count: int = 1) -> Created:
        self._called("create")
        zone = placement.pools[0].zone
        if zone in self.trouble:
            raise self.trouble[zone]
        made = [
            self._one(placement, machine, machine.identity.token(zone, str(number)))
            for number in range(min(count, self.room.get(zone, count)))
        ]
        if "after-create" in self.trouble:
            raise self.trouble["after-create"]
        return Created(
            tuple(made), CapacityError(f"no more in {zone}") if len(made) < count else None
        )

    def _one(self, placement: Placement, machine: Machine, token: str) -> Instance:
        with self._lock:
            if token not in self.instances:
                name = machine.identity.name
                pool = placement.pools[0]
                instance = Instance(
                    provider=ProviderName.AWS,
                    id=f"i-{len(self.instances):08}",
                    name=name,
                    region=placement.region,
                    zone=pool.zone,
                    instance_type=pool.instance_type,
                    spot=placement.spot,
                    login="ubuntu",
                    tags={
                        key: value
                        for key, value in machine.tags.items()
                        if key.startswith(OWNER_TAG)
                    },
                    proven=True,
                )
                self.instances[token], self.machines[name] = instance, machine
                self.born(instance, machine)
        return self.instances[token]

    def settle(self, instances: Sequence[Instance]) -> None:
        self._called("settle")

    def destroy(self, name: str, instance: Instance | None = None) -> bool:
        self._called("destroy")
        ended = [
            token
            for token, one in self.instances.items()
            if one.name == name and one.alive and (instance is None or one.id == instance.id)
        ]
        for token in ended:
            self.instances[token] = replace(self.instances[token], alive=False)
        return bool(ended)

    def find(self, tags: Mapping[str, str], regions: Sequence[str] = ()) -> Sequence[Instance]:
        self._called("find")
        marked = {**tags, OWNER_TAG: "runner"}
        return [
            one
            for one in self.instances.values()
            if one.alive and marked.items() <= one.tags.items()
        ]

    def former(self, title: str, regions: Sequence[str]) -> Sequence[Instance]:
        self._called("former")
        return [one for one in self.instances.values() if one.tags[RUN_TAG].startswith(title)]

    def tidy(self, now: datetime) -> None:
        self._called("tidy")

    def look(self, instance: Instance) -> Instance:
        self._called("look")
        now = next(one for one in self.instances.values() if one.id == instance.id)
        return replace(now, address="203.0.113.7")

    def cost(self, instance: Instance, now: datetime) -> float | None:
        return 0.25 if instance.spot else None

    def console(self, instance: Instance) -> str:
        self._called("console")
        return self.consoles.get(instance.name, "")

    @property
    def alive(self) -> list[Instance]:
        return [one for one in self.instances.values() if one.alive]
