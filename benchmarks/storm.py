"""Two hundred launches at once, on every cloud and forge, while one call in twenty goes wrong:
how they end, and what is left.

    python -m benchmarks.storm [LAUNCHES [SHARE OF CALLS [SEED]]]

The launchers are real processes (forked with their libraries loaded), and so is HTTP; machines
do not boot, but come to their forge.
"""

from __future__ import annotations

import random
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from itertools import product
from typing import Any

from runner_action.ci import job
from runner_action.model import Secret
from runner_action.sandbox.served import Application, Start
from runner_action.sandbox.world import World
from tests.matrix.gate import answered, arrive, machines
from tests.matrix.nursery import Nursery
from tests.matrix.points import CLOUDS, FORGES, Fate
from tests.matrix.trial import TOLD, rest, sweep
from tests.matrix.warm import warm

ONE_MOTO = ("aws", "gitlab")
"""The embedded EC2 has one memory for all of a process: its worlds cannot live beside one
another."""
ARRIVAL_SECONDS = 0.5
"""How often machines that were made meanwhile come to their forge."""
FAULTS = (Fate.ERROR, Fate.CUT, Fate.LOST, Fate.TWICE)


class Weather:
    """Between all launchers and one world."""

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
        """Machines that no launcher has asked for come now."""
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


def main(launches: int, share: float, seed: int) -> int:
    print(f"{launches} launches at once, {share:.0%} of all calls go wrong, seed {seed}")
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
        started: dict[int, tuple[World, str, float]] = {}
        for number in range(launches):
            world = worlds[number % len(worlds)]
            environ = world.job_environ(run=1000 + number, number=number + 1)
            folder = world.folder / str(number)
            folder.mkdir()
            files = {
                name: str(folder / name)
                for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY", "GITHUB_STATE")
            }
            argv = [f"--cloud={world.provider}", "--max-lifetime=3600", "--start-timeout=600"]
            told = {**environ, **files, "CI_PROJECT_DIR": str(folder), "HOME": str(folder)}
            started[nursery.launch(argv, told, folder / "log")] = (
                world,
                job.run_of(environ, Secret(environ["REPO_TOKEN"])).derived_name,
                time.monotonic(),
            )
        print(f"all started after {time.monotonic() - began:.1f} s")
        ends = [nursery.wait() for _ in range(launches)]
        for weather in weathers:
            weather.end()
        nursery.close()
        problems = [text for world in worlds for text in _judge(world, started, ends)]
    took = [at - started[pid][2] for pid, _, at in ends]
    print(f"exit codes: {dict(Counter(code for _, code, _ in ends).most_common())}")
    print(
        f"calls: {sum(happened.values())};"
        f" {', '.join(f'{count} {fate}' for fate, count in happened.most_common())}"
    )
    print(
        f"seconds of a launch: {statistics.median(took):.1f} in the middle, {max(took):.1f} at"
        f" most; all in {max(at for _, _, at in ends) - began:.1f}"
    )
    print(*problems, sep="\n")
    print(f"{launches} launches, {len(problems)} problems")
    return 1 if problems else 0


def _judge(
    world: World, started: dict[int, tuple[World, str, float]], ends: list[tuple[int, int, float]]
) -> Iterable[str]:
    """All ended as the catalogue says; who said yes has a machine and a runner, who said no has
    left nothing without a word; and then the sweep."""
    names = [one["name"] for one in machines(world).values() if one]
    for number, code in [(pid, code) for pid, code, _ in ends if started[pid][0] is world]:
        name = started[number][1]
        seats = [seat for seat in world.forge.seats() if seat.name == name and seat.online]
        if code not in (0, 3, 4, 5, 6):
            yield f"{world.provider} {world.kind} {name}: exit code {code}"
        if code == 0 and (names.count(name), len(seats)) != (1, 1):
            yield (
                f"{world.provider} {world.kind} {name}: {names.count(name)} machines and"
                f" {len(seats)} runners"
            )
        if (
            code != 0
            and (name in names or seats)
            and not any(words in _log(world, name) for words in TOLD)
        ):
            yield f"{world.provider} {world.kind} {name}: left without a word"
    sweep(world)
    if left := rest(world):
        yield f"{world.provider} {world.kind}: after the sweep there is {', '.join(left)}"


def _log(world: World, name: str) -> str:
    return "".join(
        text
        for file in world.folder.glob("*/log")
        if name in (text := file.read_text("utf-8", "replace"))
    )


if __name__ == "__main__":
    given = [*sys.argv[1:], *("200", "0.05", "1")[len(sys.argv) - 1 :]]
    sys.exit(main(int(given[0]), float(given[1]), int(given[2])))
