"""Two hundred simultaneous launches, on every cloud with GitHub and GitLab, while one call in
twenty fails: how they end, and what is left.

    python -m benchmarks.storm [LAUNCHES [SHARE OF CALLS [SEED]]]

The launchers are real processes (forked with their libraries loaded), and HTTP is real; machines do
not boot, but their runners register.
"""

from __future__ import annotations

import random
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from itertools import product
from typing import Any, NamedTuple

from runner_action.naming import is_requested_as
from runner_action.sandbox.served import Application, Start
from runner_action.sandbox.world import World
from tests.matrix.gate import answered, arrive, machines
from tests.matrix.nursery import Nursery
from tests.matrix.points import CLOUDS, FORGES, Fate
from tests.matrix.trial import LEFT_BEHIND, rest, sweep
from tests.matrix.warm import warm

ONE_MOTO = ("aws", "gitlab")
"""Left out: the embedded EC2 has one memory for the whole process, so there can be only one world
of it."""
ARRIVAL_SECONDS = 0.5
"""How often the runners of new machines register."""
FAULTS = (Fate.ERROR, Fate.CUT, Fate.LOST, Fate.TWICE)


class Weather:
    """Makes calls fail between all launchers and one world."""

    def __init__(
        self, world: World, share: float, chance: random.Random, happened: Counter[str]
    ) -> None:
        self._world = world
        self._share = share
        self._chance = chance
        self._happened = happened
        self._lock = threading.Lock()
        self._registered: set[str] = set()
        self._arrived = 0.0
        for service, server in world.services().items():
            server.between = self._between(service)

    def end(self) -> None:
        """Stops. The runners of machines that no launcher has polled for register now."""
        arrive(self._world, self._registered)
        for server in self._world.services().values():
            server.between = None

    def _between(
        self, service: str
    ) -> Callable[[Application, dict[str, Any], Start], Iterable[bytes]]:
        def between(app: Application, environ: dict[str, Any], start: Start) -> Iterable[bytes]:
            body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            with self._lock:
                fate = self._chance.choice(FAULTS) if self._chance.random() < self._share else None
                self._happened[str(fate or "well")] += 1
                if (
                    service == self._world.kind
                    and time.monotonic() > self._arrived + ARRIVAL_SECONDS
                ):
                    arrive(self._world, self._registered)
                    self._arrived = time.monotonic()
            return answered(service, fate, app, environ, body, start, lambda _: None)

        return between


class Started(NamedTuple):
    """A launcher that was started, by `time.monotonic`."""

    world: World
    name: str
    """The requested one."""
    at: float


class End(NamedTuple):
    """Of a launcher: process ID, exit code, and time."""

    pid: int
    code: int
    at: float


def main(launches: int, share: float, seed: int) -> int:
    print(f"{launches} launches at once, {share:.0%} of all calls fail, seed {seed}")
    warm()
    nursery = Nursery()
    chance = random.Random(seed)
    happened = Counter[str]()
    began = time.monotonic()
    with ExitStack() as stack:
        worlds = [
            stack.enter_context(World(forge, cloud, boots=False))
            for cloud, forge in product(CLOUDS, FORGES)
            if (cloud, forge) != ONE_MOTO
        ]
        weathers = [Weather(world, share, chance, happened) for world in worlds]
        started = dict(
            start(nursery, worlds[number % len(worlds)], number) for number in range(launches)
        )
        print(f"all started after {time.monotonic() - began:.1f} s")
        ends = [End(*nursery.wait()) for _ in range(launches)]
        for weather in weathers:
            weather.end()
        nursery.close()
        problems = [text for world in worlds for text in judge(world, started, ends)]
    print(f"exit codes: {dict(Counter(end.code for end in ends).most_common())}")
    fates = ", ".join(f"{count} {fate}" for fate, count in happened.most_common())
    print(f"calls: {sum(happened.values())}; {fates}")
    seconds = [end.at - started[end.pid].at for end in ends]
    print(
        f"seconds of a launch: {statistics.median(seconds):.1f} (median), {max(seconds):.1f}"
        f" (longest); of all: {max(end.at for end in ends) - began:.1f}"
    )
    print(*problems, sep="\n")
    print(f"{launches} launches, {len(problems)} problems")
    return 1 if problems else 0


def start(nursery: Nursery, world: World, number: int) -> tuple[int, Started]:
    """Starts a launcher. Returns its process ID, and what is known about it."""
    environ = world.job_environ(run=1000 + number, number=number + 1)
    folder = world.folder / str(number)
    folder.mkdir()
    files = {
        name: str(folder / name)
        for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY", "GITHUB_STATE")
    }
    name = f"storm-{number}"
    limits = ["--max-lifetime=3600", "--start-timeout=600"]
    flags = [f"--cloud={world.provider}", f"--name={name}", *limits]
    variables = {**environ, **files, "CI_PROJECT_DIR": str(folder), "HOME": str(folder)}
    pid = nursery.launch(flags, variables, folder / "log")
    return pid, Started(world, name, time.monotonic())


def judge(world: World, started: Mapping[int, Started], ends: Sequence[End]) -> Iterable[str]:
    """The problems: of each launch, and what a sweep has not removed."""
    names = [machine["name"] for machine in machines(world).values() if machine]
    for end in ends:
        if started[end.pid].world is world:
            yield from problems_of(world, started[end.pid].name, end.code, names)
    sweep(world)
    if left := rest(world):
        yield f"{world.provider} {world.kind}: left after the sweep: {', '.join(left)}"


def problems_of(world: World, name: str, code: int, names: Sequence[str]) -> Iterable[str]:
    """An exit code of no known error; success without a machine and a runner; failure that leaves
    some without a message. `names`: of all machines."""
    launch = f"{world.provider} {world.kind} {name}"
    online = [seat.name for seat in world.forge.seats() if seat.online]
    seats = [one for one in online if is_requested_as(name, one)]
    own = [one for one in names if is_requested_as(name, one)]
    if code not in (0, 3, 4, 5, 6):
        yield f"{launch}: exit code {code}"
    if code == 0 and (len(own), len(seats)) != (1, 1):
        yield f"{launch}: {len(own)} machines and {len(seats)} runners"
    if code != 0 and (own or seats):
        log = log_of(world, f"{name}-")
        if not any(words in log for words in LEFT_BEHIND):
            yield f"{launch}: left without a message"


def log_of(world: World, name: str) -> str:
    return "".join(
        text
        for file in world.folder.glob("*/log")
        if name in (text := file.read_text("utf-8", "replace"))
    )


if __name__ == "__main__":
    arguments = [*sys.argv[1:], *("200", "0.05", "1")[len(sys.argv) - 1 :]]
    sys.exit(main(int(arguments[0]), float(arguments[1]), int(arguments[2])))
