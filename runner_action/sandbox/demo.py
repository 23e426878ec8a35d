"""`cml-runner sandbox`: plays the whole story on this machine. A launch, a job, an interruption, a
restart on another machine, and the end of an idle machine.

Launcher, agent and processes are real; GitHub or GitLab and the cloud are the embedded world's.
Checks at the end that nothing is left.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from runner_action.forges import traits_of
from runner_action.model import ForgeName, ProviderName
from runner_action.runners import console
from runner_action.sandbox.forges.jobs import Job
from runner_action.sandbox.machine.systemd import die_with_parent
from runner_action.sandbox.world import World
from runner_action.stopping import signals
from runner_action.waiting import SystemClock

LABEL = "cml-demo"
IDLE_SECONDS = 3
BAR = 36
"""Columns of the chart, which fits a terminal of 80 with the longest step."""


@dataclass(frozen=True)
class Cloud:
    title: str
    notice: int
    """Seconds from the notice of an interruption until the machine is off."""
    ending: str
    """How a machine ends, while the demo waits for it; `ended`: when it has."""
    ended: str


CLOUDS = {
    ProviderName.AWS: Cloud(
        "EC2",
        120,
        "EC2 terminates the instance, which has powered off",
        "The instance is terminated",
    ),
    ProviderName.AZURE: Cloud(
        "Azure",
        30,
        "Azure deletes the resource group, as the machine has requested",
        "The resource group is deleted",
    ),
    ProviderName.GCP: Cloud(
        "Compute Engine",
        30,
        "Compute Engine deletes the instance, as the machine has requested",
        "The instance is deleted",
    ),
    ProviderName.KUBERNETES: Cloud(
        "Kubernetes",
        60,
        "The pod ends and costs nothing more; its log is kept for five minutes",
        "The Job is complete",
    ),
}
PATIENCE = 40.0
RUNNERS_OWN = re.compile(r"/jobs/(request|\d+|\d+/trace)$")
"""Calls that gitlab-runner makes all the time. GitHub's runner has a protocol of its own."""


class Story:
    """The steps. Each shows a spinner while it lasts, then a line with its seconds."""

    def __init__(self, world: World, screen: Console, single: bool) -> None:
        self.world = world
        self.screen = screen
        self.single = single
        self.began = time.monotonic()
        self.steps: list[tuple[str, float, float]] = []
        self.launch_log = ""
        self._run = world.forge.queue_run()
        self._cloud = CLOUDS[world.provider]
        self._forge_title = traits_of(world.kind).title

    @contextmanager
    def step(self, doing: str, done: str) -> Iterator[None]:
        start = time.monotonic() - self.began
        with self.screen.status(f"[bold]{doing}[/bold]", spinner="dots"):
            yield
        end = time.monotonic() - self.began
        self.steps.append((done, start, end))
        self.screen.print(f"[green]✓[/green] {done} [dim]({end - start:.1f} s)[/dim]")

    def play(self) -> None:
        """A pipeline of two jobs, as in the README: one launches a machine, the other needs it."""
        forge = self.world.forge
        forge.add_job(self._run, "launch", ["hosted"], hosted=self._launch)
        # The first attempt sleeps, so that it can be interrupted.
        script = f"mkdir {self.world.folder}/first 2>/dev/null && sleep 60; echo training"
        forge.add_job(
            self._run, "train", [LABEL], 1.5, "true" if self.single else script, needs=["launch"]
        )
        first = self._machine(1)
        if not self.single:
            self._interrupt(first)
            self._machine(2)
        self._finish_job(1 if self.single else 2)
        self._end_machine()

    def _interrupt(self, instance: str) -> None:
        with self.step(
            f"{self._cloud.title} reclaims the spot machine in {self._cloud.notice} s: the agent"
            " stops the job and restarts it",
            "The job is restarted",
        ):
            self._wait_for_stage(instance, "job-started")
            self.world.interrupt(instance, self._cloud.notice)
            self.world.forge.wait(
                lambda: self._try("launch", 2), "the launch job to be restarted", PATIENCE
            )

    def _finish_job(self, attempt: int) -> None:
        job = self._job("train", attempt)
        with self.step("The job runs", "The job is done"):
            self.world.forge.wait(lambda: job.status == "completed", "the job to end", PATIENCE)
        if job.conclusion != "success":
            raise AssertionError(f"the job ended with {job.conclusion} on {job.runner_name}")

    def _end_machine(self) -> None:
        forge = self.world.forge
        if not self.single:
            with self.step(
                f"The runner is idle for {IDLE_SECONDS} s, its idle-timeout",
                "The idle timeout is over",
            ):
                self._wait_for_stage(self._newest_instance(), "leaving")
        with self.step(
            f"The machine deregisters its runner from {self._forge_title}, then powers off",
            "The runner is deregistered",
        ):
            forge.wait(lambda: not forge.seats(), "the runner to be deregistered", PATIENCE)
        with self.step(self._cloud.ending, self._cloud.ended):
            forge.wait(lambda: not self.world.cloud.alive(), "the instance to end", PATIENCE)

    def _machine(self, attempt: int) -> str:
        """Runs the launch job until a machine is online and has taken the training job. Returns
        the instance's ID."""
        forge = self.world.forge
        with self.step(
            "The launch job checks the token, looks up image and network, registers a runner,"
            " creates a machine, and waits until the runner is online",
            "The runner is online",
        ):
            if attempt == 1:
                forge.begin(self._run)
            launch = self._job("launch", attempt)
            forge.wait(lambda: launch.status == "completed", "the launch job to end", PATIENCE)
        if launch.conclusion != "success":
            raise AssertionError(f"the launch job failed:\n{self.launch_log}")
        with self.step(
            f"A job with the label {LABEL} waits for a runner", "The runner has taken the job"
        ):
            job = self._job("train", attempt)
            forge.wait(lambda: job.runner_name, "the job to be taken", PATIENCE)
        instance = self._newest_instance()
        self.screen.print(
            f"  job [cyan]{job.name} {job.id}[/cyan] runs on [cyan]{job.runner_name}[/cyan],"
            f" instance [cyan]{instance}[/cyan]"
        )
        return instance

    def _newest_instance(self) -> str:
        return list(self.world.machines.living)[-1]

    def _launch(self, job: Job) -> str:
        """The launch job, on a machine of GitHub's or GitLab's own: the launcher as a process that
        reads all its inputs from the environment. Returns the job's conclusion."""
        folder = self.world.folder / f"job-{job.id}"
        folder.mkdir()
        flags = [
            f"--cloud={self.world.provider}",
            f"--labels={LABEL}",
            f"--idle-timeout={IDLE_SECONDS}",
            "--first-job-timeout=60",
        ]
        flags += ["--single"] if self.single else ["--cloud-spot"]
        environ = {
            "PATH": os.environ["PATH"],
            **self.world.job_environ(job.run_id, job.id, job.name, job.attempt, job.runner_name),
        }
        if not self.single:  # the machine restarts the interrupted job
            environ["CML_RUNNER_RESTART_TOKEN"] = environ["REPO_TOKEN"]
        launcher = subprocess.run(
            [sys.executable, "-m", "runner_action", "launch", *flags],
            env={**environ, "CI_PROJECT_DIR": str(folder)},
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            preexec_fn=die_with_parent,
        )
        self.launch_log = launcher.stdout
        return "failure" if launcher.returncode else "success"

    def _try(self, name: str, attempt: int) -> Job | None:
        jobs = [job for job in self._run.all_jobs if job.name == name]
        return jobs[attempt - 1] if len(jobs) >= attempt else None

    def _job(self, name: str, attempt: int) -> Job:
        self.world.forge.wait(
            lambda: self._try(name, attempt), f"attempt {attempt} of job {name}", PATIENCE
        )
        job = self._try(name, attempt)
        assert job
        return job

    def _stages(self, instance_id: str) -> list[str]:
        """Of the machine's life, as it reported them on its console."""
        text = self.world.machines.console(instance_id)
        return [str(line["stage"]) for line in console.entries(text)]

    def _wait_for_stage(self, instance_id: str, stage: str) -> None:
        self.world.forge.wait(
            lambda: stage in self._stages(instance_id),
            f"stage {stage} of machine {instance_id}",
            PATIENCE,
        )

    # --- at the end

    def show(self) -> None:
        """How long each step took, and what the servers received."""
        total = max((end for _, _, end in self.steps), default=1.0)
        table = Table(title="How long each step took", box=None, title_justify="left")
        for done, start, end in self.steps:
            before = int(BAR * start / total)
            length = max(1, int(BAR * (end - start) / total))
            table.add_row(done, f"{end - start:5.1f} s", " " * before + "█" * length, style="cyan")
        self.screen.print(table)
        self.screen.print(f"Calls to {self._cloud.title}: " + ", ".join(self.world.cloud.actions()))
        server = self.world.server
        calls = [
            f"{method} …{path.removeprefix(server.api)} {status}"
            for method, path, status in server.requests
            if not RUNNERS_OWN.search(path)
        ]
        self.screen.print(f"Calls to {self._forge_title}: " + ", ".join(calls))
        for instance_id in self.world.machines.living:
            stages = (stage for stage in self._stages(instance_id) if stage != "runner")
            self.screen.print(f"Stages of machine {instance_id}: {' → '.join(stages)}")


def main(words: Sequence[str]) -> int:
    """Returns 0 if the story went as planned and nothing is left."""
    options = _parser().parse_args(list(words))
    screen = Console(highlight=False)
    with signals(SystemClock()), World(options.forge, options.cloud) as world:
        story = Story(world, screen, options.single)
        complete = False
        try:
            story.play()
            complete = True
        except (AssertionError, TimeoutError) as error:
            screen.print(f"[red]✗[/red] {error}")
        story.show()
        left = _left(world)
        runners = len(world.forge.ever)
    verdict = "Now no runner, no instance and no process is left."
    if left:
        verdict = f"LEFT: {', '.join(left)}."
    success = complete and not left
    screen.print(
        f"[bold]{'✓' if success else '✗'} Runners registered: {runners}. Instances created:"
        f" {len(world.machines.living)}. {verdict}[/bold]"
    )
    return 0 if success else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cml-runner sandbox",
        description="Plays the whole story of a launch on this machine, without any account.",
    )
    parser.add_argument(
        "--forge",
        choices=[name.value for name in ForgeName],
        default=ForgeName.GITHUB.value,
        help="where the jobs come from",
    )
    parser.add_argument(
        "--cloud",
        choices=[name.value for name in CLOUDS],
        default=ProviderName.AWS.value,
        help="where the machines are",
    )
    parser.add_argument(
        "--single", action="store_true", help="a runner for a single job, without an interruption"
    )
    return parser


def _left(world: World, patience: float = 5.0) -> list[str]:
    """Runners, instances and processes that remain after `patience` seconds."""
    end = time.monotonic() + patience

    def look() -> list[str]:
        return world.left() + [f"process {pid}" for pid in world.processes()]

    while look() and time.monotonic() < end:
        time.sleep(0.05)
    return look()
