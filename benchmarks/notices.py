"""Two hundred machines of two hundred runs, all with one token, get their notice within two
seconds: how many jobs are restarted before the machines are taken, and how many points that costs.

    python -m benchmarks.notices [MACHINES [SECONDS OF THE NOTICE [SEED]]]

In simulated time, with the agent's own policy, against a GitHub that counts points as its page has
it, once for each endpoint and once, more strictly than the page says, for all of them together:
https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api#about-secondary-rate-limits
"""

from __future__ import annotations

import heapq
import random
import sys
import threading
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from runner_action.agent.plan import Leaving
from runner_action.agent.reasons import ALWAYS
from runner_action.agent.restart import Job, Later, Restart, Run
from runner_action.agent.spec import AgentSpec

POINTS = 900
"""A minute, "to a single endpoint"; a GET costs one, every other method five."""
MINUTE = 60.0
ANSWER = 0.2
"""Seconds of a call."""
STEP_SECONDS = (0.5, 11.0)
"""From the cancellation to the end of the job: its step ends at once, or is killed."""
COMPLETED_SECONDS = (20.0, 60.0)
"""From the end of a run's last job until it is completed and accepts a re-run."""


class Clock:
    """Simulated time for threads: it goes on when all of them sleep."""

    def __init__(self, threads: int) -> None:
        self._now = 0.0
        self._awake = threads
        self._sleepers: list[tuple[float, int, threading.Event]] = []
        self._count = 0
        self._lock = threading.Lock()

    def monotonic(self) -> float:
        return self._now

    def sleep(self, seconds: float) -> None:
        woken = threading.Event()
        with self._lock:
            self._count += 1
            heapq.heappush(self._sleepers, (self._now + seconds, self._count, woken))
            self._rest()
        woken.wait()

    def end(self) -> None:
        """A thread ends."""
        with self._lock:
            self._rest()

    def _rest(self) -> None:
        self._awake -= 1
        if not self._awake and self._sleepers:
            self._now, _, woken = heapq.heappop(self._sleepers)
            self._awake = 1
            woken.set()


class GitHub:
    """Counts points by endpoint, or of `all_together`, over the last minute."""

    def __init__(self, clock: Clock, *, all_together: bool) -> None:
        self._clock = clock
        self._all_together = all_together
        self._spent: dict[str, deque[tuple[float, int]]] = {}
        self.calls = Counter[str]()
        self.refused = Counter[str]()

    def call(self, endpoint: str) -> None:
        """Raises Later if the points are spent."""
        self._clock.sleep(ANSWER)
        now = self._clock.monotonic()
        spent = self._spent.setdefault("" if self._all_together else endpoint, deque())
        while spent and spent[0][0] <= now - MINUTE:
            spent.popleft()
        points = 1 if endpoint.startswith("GET") else 5
        self.calls[endpoint] += 1
        if sum(cost for _, cost in spent) + points > POINTS:
            self.refused[endpoint] += 1
            raise Later(MINUTE)
        spent.append((now, points))


@dataclass
class Machine:
    """One machine, its run, and what its agent calls."""

    number: int
    github: GitHub
    clock: Clock
    chance: random.Random
    job_ends: float = 1e9
    restarted: float | None = None
    lag: float = field(init=False)

    def __post_init__(self) -> None:
        self.lag = self.chance.uniform(*COMPLETED_SECONDS)

    def run(self, run_id: int) -> Run:
        self.github.call("GET run")
        done = self.clock.monotonic() >= self.job_ends + self.lag
        return Run(run_id, 1, done, 60)

    def jobs(self, _run: int) -> tuple[Job, ...]:
        self.github.call("GET jobs")
        launch = Job(1, "launch", "completed", "success", "GitHub Actions 1")
        job = Job(2, "train", "in_progress", "", f"cml-{self.number}", ("cml",))
        over = self.clock.monotonic() >= self.job_ends
        return launch, replace(job, status="completed", conclusion="cancelled") if over else job

    def cancel(self, _run: int, _force: bool) -> str | None:
        self.github.call("POST cancel")
        return None

    def rerun(self, _what: str, _run: int, _job: int | None) -> str | None:
        self.github.call("POST rerun")
        self.restarted = self.clock.monotonic()
        return None

    def rivals(self, _run: int) -> list[int]:
        self.github.call("GET groups")
        return []

    def handed_over(self, _run: Run) -> set[int]:
        self.github.call("GET runners")
        return set()

    def attempt(self, call: str) -> None:
        try:
            self.github.call(call)
        except Later:
            pass

    def leave(self, seconds: float) -> None:
        """As `agent/restarting.py` does, until the machine is taken."""
        self.clock.sleep(self.chance.uniform(0, 2))
        ends = self.clock.monotonic() + seconds
        self.attempt("POST labels")
        spec = AgentSpec(
            f"cml-{self.number}", "github", "", "", ("cml",), 0, "", "",
            restart_limit=5, launch_job=1, launch_job_name="launch",
        )  # fmt: skip
        restart = Restart(self, ("", self.number, 1), spec, self.clock, self.chance.random)
        try:
            alone = restart.end(ALWAYS)
        except Later:
            alone = False
        self.clock.sleep(self.chance.uniform(*STEP_SECONDS))
        self.job_ends = self.clock.monotonic()
        self.attempt("DELETE runner")
        left = ends - self.clock.monotonic()
        restart.restart(Leaving(left, left / 2, alone))


class Storm(NamedTuple):
    """`restarted`: seconds from the first notice, of each machine whose job was restarted."""

    restarted: list[float]
    calls: Counter[str]
    refused: Counter[str]


def storm(machines: int, seconds: float, seed: int, *, all_together: bool) -> Storm:
    clock = Clock(machines)
    github = GitHub(clock, all_together=all_together)
    fleet = [
        Machine(number, github, clock, random.Random(seed * 1000 + number))
        for number in range(machines)
    ]

    def life(machine: Machine) -> Callable[[], None]:
        def living() -> None:
            machine.leave(seconds)
            clock.end()

        return living

    threads = [threading.Thread(target=life(machine)) for machine in fleet]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    times = [machine.restarted for machine in fleet if machine.restarted is not None]
    return Storm(sorted(times), github.calls, github.refused)


def main(machines: int, seconds: float, seed: int) -> int:
    print(
        f"{machines} machines of as many runs, one token, a notice of {seconds:.0f} s, seed {seed}"
    )
    for all_together in (False, True):
        outcome = storm(machines, seconds, seed, all_together=all_together)
        counted = "of all endpoints together" if all_together else "of each endpoint"
        print(f"\n{POINTS} points a minute {counted}:")
        times = outcome.restarted or [0.0]
        middle = times[len(times) // 2]
        print(
            f"  {len(outcome.restarted)} of {machines} restarted, after {middle:.0f} s (median),"
            f" {times[-1]:.0f} s (last)"
        )
        for call, count in outcome.calls.most_common():
            print(f"  {call:14}{count:6}, of which refused {outcome.refused[call]}")
    return 0


if __name__ == "__main__":
    arguments = [*sys.argv[1:], *("200", "120", "1")[len(sys.argv) - 1 :]]
    sys.exit(main(int(arguments[0]), float(arguments[1]), int(arguments[2])))
