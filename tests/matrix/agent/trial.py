"""One point in a world of its own: a run whose first job launches a machine and whose second runs
on it, what happens to the agent, and what has become of the machine, its runner and the job."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from runner_action.runners import console
from runner_action.sandbox.forges.jobs import Job
from runner_action.sandbox.machine.machine import STOP_SECONDS
from runner_action.sandbox.world import TOKEN, World, pod_command
from tests.matrix.agent.points import LASTING, Effect, Fate, Life, Point, Story, passes
from tests.matrix.nursery import Nursery
from tests.matrix.trial import environ_of, settle, sweep

ROOT = Path(__file__).parents[3]
AGENT = ROOT / "runner_action/agent"
INJECTED = Path(__file__).parent / "injected"
TIMER_FACTOR = 0.08
"""The watchdog looks each five seconds: more often is half of what a life costs."""
IDLE = 6
FIRST_JOB = 25
START = 40
LIFETIME = 60
TRIES = 3
"""Of a point that does not come up."""
NOTICE = 20
CONSTANTS = {
    "agent.ending": {"LINGER": 1.0, "MOST": 2.0, "MOST_PROVING": 2.0},
    "agent.lifecycle": {
        "DISK_PATIENCE": 6.0,
        "HANG": 20.0,
        "LOST": 12.0,
        "MARGIN": 5.0,
        "SILENCE": 15.0,
        "SINGLE_GRACE": 10.0,
        "UPLOAD": 30.0,
    },
    "agent.run": {"RELAUNCH_SECONDS": 1.0},
    "agent.watchdog": {"CLEAN_UP_SECONDS": 6.0},
}
"""The agent's patience in seconds, by module."""
SECONDS = {"": 15.0, **dict.fromkeys(("JOB_LIMIT", "LIFETIME", "CRASHED", "HUNG"), 30.0)}
"""To leave, by reason."""
BOUND = LIFETIME + CONSTANTS["agent.lifecycle"]["MARGIN"] + 40.0
"""Seconds within which a machine is gone: its lifetime is over, the watchdog looks, and cleans
up."""
UNITS = {"watchdog": 120.0, "cleanup": 100.0}
"""What systemd gives these programs besides; the latter also to an agent that does not stop."""
SETTLED_SECONDS = 3.0
"""Without a machine nothing becomes of a job after that."""
LOST_SECONDS = 3.0
"""After that GitHub fails a job whose runner is not heard."""
WORK_SECONDS = {Life.TAKEN: 45, Life.BARE: 45, Life.CRASH: 45, Life.RESUMED: 12}
"""What the job lasts to which something happens. The others are short."""
CHECKPOINT = base64.b64encode(b"#!/bin/sh\nsleep 1\n").decode()
AGAIN = (Life.TAKEN, Life.CRASH)
"""The job is restarted."""
TELLS = (
    *("crashed", "end", "ended", "failed", "interrupted", "leaving", "restart", "silent"),
    "watchdog",
)
"""Stages on the console by which somebody who looks learns that the machine ended, and why."""


@dataclass(frozen=True)
class Outcome:
    """`problems`: none, if all is well. `log`: of launchers and consoles."""

    point: Point
    came: bool
    seconds: float
    problems: tuple[str, ...]
    log: str


@dataclass
class Stage:
    """A world with a run in it."""

    world: World
    story: Story
    nursery: Nursery
    codes: list[int] = field(default_factory=list)
    launching: int | None = None
    acted: bool = False
    busy_since: float | None = None
    log: str = ""

    def __post_init__(self) -> None:
        self.lock = threading.Lock()
        self.world.forge.lost_after = LOST_SECONDS
        self.run = self.world.forge.queue_run()
        self.world.forge.add_job(self.run, "launch", ["ubuntu-latest"], hosted=self._launch)
        work = "mkdir -p a/b && touch a/b/c a/d"
        if self.story.life in WORK_SECONDS:
            seconds = WORK_SECONDS[self.story.life]
            work = f"mkdir {self.world.folder}/first 2>/dev/null && sleep {seconds}; true"
        self.world.forge.add_job(self.run, "train", ["train"], 0.3, work, needs=["launch"])

    def _launch(self, job: Job) -> str:
        """The job that launches, on a machine of GitHub's or GitLab's."""
        world = self.world
        log = world.folder / f"log-{job.attempt}-{job.id}"
        given = {
            **environ_of(world),
            **world.job_environ(self.run.id, job.id, job.name, job.attempt, job.runner_name),
        }
        if self.story.life is not Life.BARE:
            given["CML_RUNNER_RESTART_TOKEN"] = TOKEN
        with self.lock:
            self.launching = self.nursery.launch(argv_of(world, self.story), given, log)
            _, code, _ = self.nursery.wait()
            self.launching = None
        self.codes.append(code)
        self.log += log.read_text("utf-8", "replace")
        return "failure" if code else "success"

    @property
    def train(self) -> list[Job]:
        """All tries of the job."""
        return [job for job in self.run.all_jobs if job.name == "train"]

    def consoles(self) -> str:
        """What all machines said; of a pod, both of its containers."""
        machines = self.world.machines
        told = [machines.console(instance) for instance in list(machines.living)]
        guards = machines.folder.glob("*/guard.log")
        return "".join([*told, *(guard.read_text("utf-8", "replace") for guard in guards)])

    def act(self) -> None:
        """Interrupts the job, as soon as the agent knows of it or should."""
        life = self.story.life
        if self.acted or life not in WORK_SECONDS:
            return
        if not any(job.status == "in_progress" for job in self.train[:1]):
            return
        self.busy_since = self.busy_since or time.monotonic()
        knows = "job-started" in self.consoles()
        if not knows and time.monotonic() - self.busy_since < SETTLED_SECONDS:
            return
        self.acted = True
        if life is Life.CRASH:
            kill(self.world, (b"Runner.Listener", b"Runner.Worker", b"gitlab-runner"))
        elif life is Life.RESUMED:
            kill(self.world, (b"-m\0agent\0run",))
        else:
            self._interrupt()

    def _interrupt(self) -> None:
        for instance in self.world.machines.running():
            self.world.interrupt(instance, NOTICE)

    def over(self) -> bool:
        """Whether there is no machine, and none is on its way."""
        return not (self.launching or self.world.machines.running() or self.world.cloud.alive())


def kill(world: World, words: Sequence[bytes]) -> None:
    """Kills every process of the machines whose command line has one of these words."""
    for pid in world.processes():
        try:
            line = Path(f"/proc/{pid}/cmdline").read_bytes()
            if any(word in line for word in words):
                os.kill(pid, signal.SIGKILL)
        except OSError:
            continue


def argv_of(world: World, story: Story) -> list[str]:
    words = [
        f"--cloud={world.provider}",
        "--labels=train",
        "--max-lifetime=5m",
        f"--start-timeout={START}",
        f"--first-job-timeout={FIRST_JOB}",
    ]
    if story.life is Life.TAKEN:
        words.append(f"--checkpoint-script={CHECKPOINT}")
    return [*words, "--single" if story.life is Life.SINGLE else f"--idle-timeout={IDLE}"]


def python_for(folder: Path, point: Point | None) -> str:
    """The machine's Python, in which the fate of this point happens."""
    settings = {
        "agent": str(AGENT),
        "folder": str(folder),
        "at": [point.effect.name, point.fate.value] if point else None,
        "once": bool(point and point.fate not in LASTING),
        "constants": CONSTANTS,
        "seconds": SECONDS,
        "lifetime": LIFETIME,
    }
    (folder / "settings").write_text(json.dumps(settings))
    script = folder / "python3"
    isolated = f"exec {sys.executable} -S {INJECTED}/sitecustomize.py"
    script.write_text(
        f"#!/bin/sh\nexport PYTHONPATH={INJECTED}:{ROOT} CML_RUNNER_MATRIX={folder}/settings\n"
        f'[ "$1" != -IS ] || {{ shift; {isolated} "$@"; }}\n'
        f'exec {sys.executable} "$@"\n'
    )
    script.chmod(0o755)
    return str(script)


def world_of(story: Story) -> World:
    return World(story.forge, story.cloud, timer_factor=TIMER_FACTOR)


def record(story: Story, nursery: Nursery) -> list[Effect]:
    """The effects of the agent in a life in which nothing fails."""
    with world_of(story) as world:
        stage = play(world, story, None, nursery)
        assert stage.over(), f"{story}: {world.left()}\n{stage.log}\n{stage.consoles()}"
        tries = [(job.attempt, job.conclusion) for job in stage.train]
        again = story.life in AGAIN
        wanted = "failure" if story.life is Life.BARE else "success"
        assert (len(tries), tries[-1][1]) == (1 + again, wanted), (
            f"{story}: {tries}\n{stage.log}\n{stage.consoles()}"
        )
        assert not world.left(), f"{story}: {world.left()}"
        lines = (world.folder / "effects").read_text().splitlines()
        return [Effect(name) for name in dict.fromkeys(lines)]


def play(world: World, story: Story, point: Point | None, nursery: Nursery) -> Stage:
    """A run, until there is no machine any more and nothing becomes of its jobs."""
    python = python_for(world.folder, point)
    world.machines.python = python
    if world.kubernetes:
        world.machines.machine = partial(pod_command, python, TIMER_FACTOR)
    stage = Stage(world, story, nursery)
    world.forge.begin(stage.run)
    bound = bound_of(point)
    machines, began = 0, time.monotonic()
    quiet = None
    while True:
        time.sleep(0.2)
        now = time.monotonic()
        world.forge.run(stage.run.id)
        stage.act()
        if len(world.machines.living) > machines:  # as it was booted, not as it was seen
            machines, began = len(world.machines.living), now
        if not stage.over():
            quiet = None
        elif stage.run.done:
            break
        else:
            quiet = quiet or now
            if now - quiet > SETTLED_SECONDS + LOST_SECONDS:
                break
        if now - began > bound:
            break
    launching = stage.launching
    if launching:
        os.kill(launching, signal.SIGKILL)
    with stage.lock:
        return stage


def bound_of(point: Point | None) -> float:
    if point is None:
        return BOUND
    more = UNITS.get(point.effect.program, 0.0)
    if point.fate is Fate.HUNG:
        more = max(more, UNITS["cleanup"])
    return BOUND + more


def attempt(point: Point, nursery: Nursery) -> Outcome:
    """What runs side by side is not the same in every life: tried again if it does not come up."""
    for _ in range(TRIES - 1):
        outcome = _attempt(point, nursery)
        if outcome.came or outcome.problems:
            return outcome
    return _attempt(point, nursery)


def _attempt(point: Point, nursery: Nursery) -> Outcome:
    began = time.monotonic()
    with world_of(point.story) as world:
        stage = play(world, point.story, point, nursery)
        came = (world.folder / "came").exists()
        problems = list(judged(point, stage, came))
        log = stage.log + stage.consoles()
    return Outcome(point, came, time.monotonic() - began, tuple(problems), log)


def judged(point: Point, stage: Stage, came: bool) -> Iterator[str]:
    """The problems. A machine that its cloud does not let delete itself stays until the sweep, and
    says so."""
    world = stage.world
    stages = {str(entry.get("stage")) for entry in console.entries(stage.consoles())}
    stays = "not-deleted" in stages and point.fate in LASTING
    if not stage.over() and not stays:
        left = sorted(world.machines.running()) or world.cloud.alive()
        yield f"alive past its bound: {', '.join(map(str, left))}"
    if lost_untold(stage):
        states = [f"{job.status} {job.conclusion}".strip() for job in stage.train]
        yield f"job lost untold: {', '.join(states) or 'none'}"
    if came and passes(point):
        yield from failed(point, stage)
    names = [seat.name for seat in world.forge.seats()]
    killed = point.fate in (Fate.KILLED, Fate.HUNG)  # nobody may have been there to say a word
    if names and not killed and "still-registered" not in stages:
        yield f"runner left without a word: {', '.join(names)}"
    yield from unswept(world)
    said = stage.consoles() + stage.log
    if any("canary" in line for line in said.splitlines() if not line.startswith("::add-mask::")):
        yield "it told a secret"
    for code in stage.codes:
        if code == 70:
            yield "exit code 70"


def failed(point: Point, stage: Stage) -> Iterator[str]:
    """What failed for one fault that passes."""
    if stage.codes[:1] != [0]:
        yield f"one fault ended the launch: exit code {stage.codes[:1]}"
        return
    tries = len(stage.train)
    ended_well = bool(stage.train) and stage.train[-1].conclusion == "success"
    life = point.story.life
    if life is Life.BARE:
        return
    if not ended_well:
        yield "one fault ended the job"
    elif tries > 1 + (life in AGAIN):
        yield f"one fault restarted the job: {tries} tries"


def lost_untold(stage: Stage) -> bool:
    """Whether the job has not succeeded, and neither the console nor its log says why."""
    if stage.train and stage.train[-1].conclusion == "success":
        return False
    if any(stage.codes):  # the launcher has said so, in the job before
        return False
    told: list[Mapping[str, object]] = list(console.entries(stage.consoles()))
    if any(entry.get("stage") in TELLS for entry in told):
        return False
    return not any(re.search("cml-runner", title) for job in stage.train for title, _ in job.notes)


def unswept(world: World) -> Iterator[str]:
    """What is left of a machine and its runner after the sweep. A machine that may not delete
    itself is deleted by the sweep, and has some time to shut down."""
    settle(world)
    for seat in world.forge.seats():
        if not seat.online:
            continue
        world.forge.set_online(seat, online=False)  # as GitHub sees it by and by
    if world.left():
        sweep(world)
        end = time.monotonic() + STOP_SECONDS + SETTLED_SECONDS
        while world.left() and time.monotonic() < end:
            time.sleep(0.1)
        if world.left():
            yield f"after the sweep there is {', '.join(world.left())}"
