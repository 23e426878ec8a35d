"""A world, and the real launcher as a process in it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from runner_action.model import ForgeName
from runner_action.sandbox.forges.jobs import Job, Run
from runner_action.sandbox.world import TOKEN, World
from tests.shipped import USES, released

EXAMPLES = Path(__file__).parents[2] / "examples"


USUAL = {"CML_RUNNER_LABELS": "cml", "CML_RUNNER_RESTART_TOKEN": TOKEN}
"""What most stories need, and flags override; those about a machine without them say `**LEAST`."""
LEAST = dict.fromkeys(USUAL, "")


class Launcher:
    """`cml-runner launch` as a user's CI job runs it: a process of its own, inputs and
    credentials from the environment."""

    def __init__(self, world: World, folder: Path, *argv: str, **environ: str) -> None:
        self.world = world
        self.folder = folder
        self._one_reader = threading.Lock()
        names = {
            "GITHUB_OUTPUT": "output",
            "GITHUB_STEP_SUMMARY": "summary",
            "GITHUB_STATE": "state",
            "CI_PROJECT_DIR": "",
        }
        self.files = {name: str(folder / file) for name, file in names.items()}
        base = {key: os.environ[key] for key in ("PATH", "HOME", "LANG") if key in os.environ}
        everything = {**base, **world.job_environ(), **USUAL, **self.files, **environ}
        has_cloud = not {"--cloud=local", "restart"} & {*argv}
        words = [f"--cloud={world.provider}"] if has_cloud else []
        command = [sys.executable, "-m", "runner_action", *words, *argv]
        self.process = subprocess.Popen(
            command, env=everything, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def wait(self, seconds: float = 60) -> int:
        with self._one_reader:
            self.told, _ = self.process.communicate(timeout=seconds)
        return self.process.returncode

    def kill(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    @property
    def outputs(self) -> dict[str, str]:
        file = self.folder / ("output" if self.world.kind is ForgeName.GITHUB else "cml-runner.env")
        return dict(line.split("=", 1) for line in file.read_text("utf-8").splitlines())

    @property
    def summary(self) -> str:
        return Path(self.files["GITHUB_STEP_SUMMARY"]).read_text("utf-8")

    @property
    def notes(self) -> list[tuple[str, str]]:
        """Annotations, as GitHub reads them from a job's log."""
        return re.findall(r"^::(?:notice|warning|error) title=([^:]*)::(.*)$", self.told, re.M)


Launch = Callable[..., Launcher]


def example(name: str, **values: str) -> dict[str, str]:
    """The variables by which GitHub gives the action the inputs of examples/NAME.yml, with the
    values of the variables that are named there."""
    (found,) = [
        step["with"]
        for job in yaml.safe_load(released(EXAMPLES / f"{name}.yml"))["jobs"].values()
        for step in job["steps"]
        if step.get("uses", "").startswith(USES)
    ]
    known = {f"vars.{key}": value for key, value in values.items()} | {
        "secrets.PERSONAL_ACCESS_TOKEN": TOKEN,
        "github.run_id": "77",
    }
    return {
        f"INPUT_{key.upper()}": re.sub(
            r"\$\{\{ (.*?) \}\}", lambda match: known[match[1]], str(value)
        )
        for key, value in found.items()
    }


@pytest.fixture
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    with World(getattr(request, "param", "github"), timer_factor=0.02) as made:
        yield made


@pytest.fixture
def launch(world: World, tmp_path: Path) -> Iterator[Launch]:
    started: list[Launcher] = []

    def start(*argv: str, **environ: str) -> Launcher:
        folder = tmp_path / str(len(started))
        folder.mkdir()
        started.append(Launcher(world, folder, *argv, **environ))
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        one.wait()


def training(
    world: World,
    launch: Launch,
    *argv: str,
    command: str = "",
    label: str = "train",
    lasting: bool = True,
) -> Run:
    """A run of two jobs, as in the README: one on the forge's machine that launches, and one
    that needs it and runs on what was launched.

    The first time it runs the second job lasts for a minute, unless not `lasting`; after that it
    is short.
    """
    run = world.forge.queue_run()

    def launching(job: Job) -> str:
        environ = world.job_environ(run.id, job.id, job.name, job.attempt, job.runner_name)
        launcher = launch(f"--labels={label}", *argv, **environ)
        code = launcher.wait()
        job.notes += launcher.notes
        return "failure" if code else "success"

    world.forge.add_job(run, "launch", ["ubuntu-latest"], hosted=launching)
    first = f"mkdir {world.folder}/first-of-{run.id} 2>/dev/null && sleep 60; " if lasting else ""
    work = first + (command or "true")
    world.forge.add_job(run, "train", [label], 0.2, work, needs=["launch"])
    return world.forge.begin(run)


def job_of(run: Run, name: str, number: int) -> Job | None:
    """Its first, second, … try."""
    tries = [job for job in run.all_jobs if job.name == name]
    return tries[number - 1] if len(tries) >= number else None


def busy(world: World, run: Run, attempt: int = 1) -> Job:
    """The training job, as soon as it runs and its agent knows."""

    def found() -> Job | None:
        job = job_of(run, "train", attempt)
        return job if job and job.status == "in_progress" else None

    until(found, "the job to run", 60)
    until(
        lambda: any(
            "job-started" in world.machines.console(instance) for instance in world.machines.living
        ),
        "the agent to know",
    )
    job = found()
    assert job
    return job


def until(condition: Callable[[], object], what: str, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds} s for {what}"
        time.sleep(0.05)


def all_gone(world: World, seconds: float = 25) -> None:
    """Both sides are asked, and the process table."""
    end = time.monotonic() + seconds
    while world.left() or world.processes():
        assert time.monotonic() < end, (
            f"after {seconds} s there is left: {world.left()}, processes {world.processes()}"
        )
        time.sleep(0.05)
