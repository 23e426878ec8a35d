"""`cml-runner sandbox`: the whole story on this machine, to watch and to be sure: launch, online, a job, idle, gone.

Real launcher, real agent, real processes; the forge and the cloud are the embedded world's. Ends by asking both sides what is left.
"""

from __future__ import annotations

import argparse
import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from rich.console import Console
from rich.table import Table

from runner_action import ci, console, inputs
from runner_action.cli import signals
from runner_action.forges import forge_for
from runner_action.launch import Launch
from runner_action.model import Launched, ProviderName
from runner_action.providers import provider_for
from runner_action.sandbox.world import World
from runner_action.waiting import SystemClock

LABEL = "cml-demo"
IDLE_SECONDS = 3
PATIENCE = 25.0


class Story:
    """The steps, each with a line, a spinner while it lasts, and its seconds."""

    def __init__(self, world: World, screen: Console, single: bool) -> None:
        self.world, self.screen, self.single = world, screen, single
        self.began = time.monotonic()
        self.steps: list[tuple[str, float, float]] = []

    @contextmanager
    def step(self, doing: str, done: str) -> Iterator[None]:
        start = time.monotonic() - self.began
        with self.screen.status(f"[bold]{doing}[/bold]", spinner="dots"):
            yield
        end = time.monotonic() - self.began
        self.steps.append((done, start, end))
        self.screen.print(f"[green]✓[/green] {done} [dim]({end - start:.1f} s)[/dim]")

    def play(self) -> None:
        forge, ec2 = self.world.github.forge, self.world.ec2
        with self.step("Launching: token check, image and network look-ups, registration, RunInstances, waiting until online", "runner online"):
            launched = self._launch()
        instance = launched.instance
        assert instance is not None
        self.screen.print(f"  runner [cyan]{launched.runner_name}[/cyan] on [cyan]{instance.id}[/cyan] ({instance.instance_type}, {instance.zone})")
        with self.step(f"A job with label {LABEL} is waiting for a runner", "job taken by the runner"):
            job = forge.queue_job([LABEL], seconds=1.5, command="echo training")
            forge.wait(lambda: job.runner_name, "the job to be taken", PATIENCE)
        with self.step("The job runs", "job done"):
            forge.wait(lambda: job.status == "completed", "the job to end", PATIENCE)
        if job.runner_name != launched.runner_name or job.conclusion != "success":
            raise AssertionError(f"the job ended with {job.conclusion} on {job.runner_name}")
        if not self.single:
            with self.step(f"Idle for {IDLE_SECONDS} s, as idle-timeout says", "idle timeout reached"):
                self._wait_for_stage(instance.id, "leaving")
        with self.step("Leaving: off the forge's list, then power off", "runner deregistered"):
            forge.wait(lambda: not forge.seats(), "the runner to be off the list", PATIENCE)
        with self.step("EC2 ends the instance that powered itself off", "instance terminated"):
            forge.wait(lambda: not ec2.alive(), "the instance to end", PATIENCE)

    def _launch(self) -> Launched:
        flags = {"cloud": ["aws"], "labels": [LABEL], "idle-timeout": [str(IDLE_SECONDS)], "single": ["true" if self.single else "false"]}
        environ = self.world.environ()
        os.environ.update(environ)  # boto3 reads its own variables
        request, _ = inputs.parse(inputs.Raw(flags=flags, environ=environ), lambda _: None)
        clock = SystemClock()
        forge = partial(forge_for, request)
        provider = partial(provider_for, ProviderName.AWS, clock)
        launch = Launch(request, ci.run_of({}), forge, provider, clock, clock.monotonic())
        return launch.launch().launched[0]

    def _wait_for_stage(self, instance_id: str, stage: str) -> None:
        def said() -> bool:
            return any(line["stage"] == stage for line in console.said(self.world.ec2.console(instance_id)))

        self.world.github.forge.wait(said, f"the machine to say {stage}", PATIENCE)

    # --- at the end

    def show(self) -> None:
        """Where the seconds went, and what the servers saw."""
        total = max(end for _, _, end in self.steps)
        table = Table(title="Where the seconds went", box=None, title_justify="left")
        for done, start, end in self.steps:
            before, long = int(40 * start / total), max(1, int(40 * (end - start) / total))
            table.add_row(done, f"{end - start:5.1f} s", " " * before + "█" * long, style="cyan")
        self.screen.print(table)
        self.screen.print("EC2 was asked: " + ", ".join(self.world.ec2.actions()))
        told = [f"{method} …{path.removeprefix('/api/v3/repos/octo/train')} {status}" for method, path, status in self.world.github.requests]
        self.screen.print("GitHub was asked: " + ", ".join(told))
        for instance_id in self.world.ec2.living:
            stages = " → ".join(str(line["stage"]) for line in console.said(self.world.ec2.console(instance_id)) if line["stage"] != "runner")
            self.screen.print(f"The machine {instance_id} said: {stages}")


def main(words: Sequence[str]) -> int:
    """0: the story went as told and nothing is left."""
    parser = argparse.ArgumentParser(prog="cml-runner sandbox", description="Plays the whole story on this machine, without any account.")
    parser.add_argument("--single", action="store_true", help="a runner for one job, registered just in time")
    single = parser.parse_args(list(words)).single
    logging.getLogger("runner_action").setLevel(logging.ERROR)
    screen = Console(highlight=False)
    with signals(), World() as world:
        story = Story(world, screen, single)
        try:
            story.play()
        except (AssertionError, TimeoutError) as error:
            screen.print(f"[red]✗[/red] {error}")
        story.show()
        left, ever = _left(world), world.github.forge.ever
    whole = len(story.steps) == (5 if single else 6)
    verdict = "no runner, no instance and no process is left" if not left else "LEFT: " + ", ".join(left)
    mark = "✓" if whole and not left else "✗"
    screen.print(f"[bold]{mark} Runners registered: {len(ever)}. Instances made: {len(world.ec2.living)}. Now {verdict}.[/bold]")
    return 0 if whole and not left else 1


def _left(world: World, patience: float = 5.0) -> list[str]:
    """What both sides and the process table still hold, once the last process had its moment to end."""
    end = time.monotonic() + patience

    def look() -> list[str]:
        return world.left() + [f"process {pid}" for pid in world.processes()]

    while look() and time.monotonic() < end:
        time.sleep(0.05)
    return look()
