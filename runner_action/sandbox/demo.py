"""`cml-runner sandbox`: the whole story on this machine, to watch and to be sure: launch,
online, a job, interrupted, started again on another machine, idle, gone.

Real launcher, real agent, real processes; the forge and the cloud are the embedded world's. Ends
by asking both sides what is left.
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

from rich.console import Console
from rich.table import Table

from runner_action.cli import signals
from runner_action.model import ForgeName, ProviderName
from runner_action.runners import console
from runner_action.sandbox.forges.jobs import Job
from runner_action.sandbox.machine.systemd import die_with_parent
from runner_action.sandbox.world import World
from runner_action.waiting import SystemClock

LABEL = "cml-demo"
IDLE_SECONDS = 3
CLOUDS = {
    ProviderName.AWS: (
        "EC2",
        120,
        "EC2 terminates the instance that powered itself off",
        "instance terminated",
    ),
    ProviderName.AZURE: (
        "Azure",
        30,
        "Azure deletes the resource group, as the machine has asked for that",
        "resource group deleted",
    ),
    ProviderName.GCP: (
        "Compute Engine",
        30,
        "Compute Engine deletes the instance, which has asked for that",
        "instance deleted",
    ),
    ProviderName.KUBERNETES: (
        "The cluster",
        60,
        "The pod has ended, and with it all that cost; its log stays for five minutes",
        "Job complete",
    ),
}
"""Its name, the seconds of its notice, and how its machines end."""
PATIENCE = 40.0
RUNNERS_OWN = re.compile(r"/jobs/(request|\d+|\d+/trace)$")
"""What gitlab-runner says all the time; GitHub's runner has a language of its own."""


class Story:
    """The steps, each with a line, a spinner while it lasts, and its seconds."""

    def __init__(self, world: World, screen: Console, single: bool) -> None:
        self.world = world
        self.screen = screen
        self.single = single
        self.began = time.monotonic()
        self.steps: list[tuple[str, float, float]] = []
        self.told = ""
        self._run = world.forge.queue_run()
        self.title, self.notice, self.ending, self.ended = CLOUDS[world.provider]

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
        # The first time it lasts, to be interrupted.
        work = (
            "true"
            if self.single
            else f"mkdir {self.world.folder}/first 2>/dev/null && sleep 60; echo training"
        )
        forge.add_job(self._run, "train", [LABEL], 1.5, work, needs=["launch"])
        first = self._machine(1)
        if not self.single:
            with self.step(
                f"{self.title} takes the spot machine in {self.notice} s: the agent ends the job,"
                " and restarts it",
                "restarted by the agent",
            ):
                self._wait_for_stage(first, "job-started")
                self.world.interrupt(first, self.notice)
                forge.wait(
                    lambda: self._try("launch", 2), "the launch job to be started again", PATIENCE
                )
            self._machine(2)
        job = self._job("train", 1 if self.single else 2)
        with self.step("The job runs", "job done"):
            forge.wait(lambda: job.status == "completed", "the job to end", PATIENCE)
        if job.conclusion != "success":
            raise AssertionError(f"the job ended with {job.conclusion} on {job.runner_name}")
        if not self.single:
            with self.step(
                f"Idle for {IDLE_SECONDS} s, as idle-timeout says", "idle timeout reached"
            ):
                self._wait_for_stage(list(self.world.machines.living)[-1], "leaving")
        with self.step("Leaving: off the forge's list, then power off", "runner deregistered"):
            forge.wait(lambda: not forge.seats(), "the runner to be off the list", PATIENCE)
        with self.step(self.ending, self.ended):
            forge.wait(lambda: not self.world.cloud.alive(), "the instance to end", PATIENCE)

    def _machine(self, number: int) -> str:
        """The launch job, that many times begun, brings a machine, and the training job is
        taken. Returns the instance."""
        forge = self.world.forge
        with self.step(
            "The launch job: token check, image and network look-ups, registration, one call for a"
            " machine, waiting until online",
            "runner online",
        ):
            if number == 1:
                forge.begin(self._run)
            launch = self._job("launch", number)
            forge.wait(lambda: launch.status == "completed", "the launch job to end", PATIENCE)
        if launch.conclusion != "success":
            raise AssertionError(f"the launch job failed:\n{self.told}")
        with self.step(
            f"A job with label {LABEL} is waiting for a runner", "job taken by the runner"
        ):
            job = self._job("train", number)
            forge.wait(lambda: job.runner_name, "the job to be taken", PATIENCE)
        instance = list(self.world.machines.living)[-1]
        self.screen.print(
            f"  job [cyan]{job.name} {job.id}[/cyan] runs on [cyan]{job.runner_name}[/cyan],"
            f" instance [cyan]{instance}[/cyan]"
        )
        return instance

    def _launch(self, job: Job) -> str:
        """The launch job, on one of the forge's own machines: the launcher as a process, told
        all by its environment."""
        folder = self.world.folder / f"job-{job.id}"
        folder.mkdir()
        words = [
            f"--cloud={self.world.provider}",
            f"--labels={LABEL}",
            f"--idle-timeout={IDLE_SECONDS}",
            "--first-job-timeout=60",
        ]
        words += ["--single"] if self.single else ["--cloud-spot"]
        environ = {
            "PATH": os.environ["PATH"],
            **self.world.job_environ(job.run_id, job.id, job.name, job.attempt, job.runner_name),
        }
        if not self.single:  # it restarts what its end interrupts
            environ["CML_RUNNER_RESTART_TOKEN"] = environ["REPO_TOKEN"]
        command = [sys.executable, "-m", "runner_action", "launch", *words]
        # The child's last word is for whoever looks into a failure.
        done = subprocess.run(
            command,
            env={**environ, "CI_PROJECT_DIR": str(folder)},
            cwd=folder,
            stdout=-1,
            stderr=-2,
            text=True,
            check=False,
            preexec_fn=die_with_parent,
        )
        self.told = done.stdout
        return "failure" if done.returncode else "success"

    def _try(self, name: str, number: int) -> Job | None:
        tries = [job for job in self._run.all_jobs if job.name == name]
        return tries[number - 1] if len(tries) >= number else None

    def _job(self, name: str, number: int) -> Job:
        self.world.forge.wait(
            lambda: self._try(name, number), f"job {name}, time {number}", PATIENCE
        )
        job = self._try(name, number)
        assert job
        return job

    def _wait_for_stage(self, instance_id: str, stage: str) -> None:
        def said() -> bool:
            return any(
                line["stage"] == stage
                for line in console.said(self.world.machines.console(instance_id))
            )

        self.world.forge.wait(said, f"the machine to say {stage}", PATIENCE)

    # --- at the end

    def show(self) -> None:
        """Where the seconds went, and what the servers saw."""
        total = max((end for _, _, end in self.steps), default=1.0)
        table = Table(title="Where the seconds went", box=None, title_justify="left")
        for done, start, end in self.steps:
            before = int(40 * start / total)
            long = max(1, int(40 * (end - start) / total))
            table.add_row(done, f"{end - start:5.1f} s", " " * before + "█" * long, style="cyan")
        self.screen.print(table)
        self.screen.print(f"{self.title} was asked: " + ", ".join(self.world.cloud.actions()))
        server = self.world.server
        told = [
            f"{method} …{path.removeprefix(server.api)} {status}"
            for method, path, status in server.requests
            if not RUNNERS_OWN.search(path)
        ]
        self.screen.print(
            f"{'GitHub' if self.world.kind is ForgeName.GITHUB else 'GitLab'} was asked: "
            + ", ".join(told)
        )
        for instance_id in self.world.machines.living:
            stages = " → ".join(
                str(line["stage"])
                for line in console.said(self.world.machines.console(instance_id))
                if line["stage"] != "runner"
            )
            self.screen.print(f"The machine {instance_id} said: {stages}")


def main(words: Sequence[str]) -> int:
    """0: the story went as told and nothing is left."""
    parser = argparse.ArgumentParser(
        prog="cml-runner sandbox",
        description="Plays the whole story on this machine, without any account.",
    )
    parser.add_argument(
        "--forge",
        choices=[name.value for name in ForgeName],
        default=ForgeName.GITHUB.value,
        help="whose jobs they are",
    )
    parser.add_argument(
        "--cloud",
        choices=[name.value for name in CLOUDS],
        default=ProviderName.AWS.value,
        help="whose machines they are",
    )
    parser.add_argument(
        "--single", action="store_true", help="a runner for one job, that nothing interrupts"
    )
    given = parser.parse_args(list(words))
    screen = Console(highlight=False)
    with signals(SystemClock()), World(given.forge, given.cloud) as world:
        story = Story(world, screen, given.single)
        whole = False
        try:
            story.play()
            whole = True
        except (AssertionError, TimeoutError) as error:
            screen.print(f"[red]✗[/red] {error}")
        story.show()
        left = _left(world)
        ever = world.forge.ever
    verdict = (
        "no runner, no instance and no process is left" if not left else "LEFT: " + ", ".join(left)
    )
    mark = "✓" if whole and not left else "✗"
    screen.print(
        f"[bold]{mark} Runners registered: {len(ever)}. Instances made:"
        f" {len(world.machines.living)}. Now {verdict}.[/bold]"
    )
    return 0 if whole and not left else 1


def _left(world: World, patience: float = 5.0) -> list[str]:
    """What both sides and the process table still hold, once the last process had its moment to
    end."""
    end = time.monotonic() + patience

    def look() -> list[str]:
        return world.left() + [f"process {pid}" for pid in world.processes()]

    while look() and time.monotonic() < end:
        time.sleep(0.05)
    return look()
