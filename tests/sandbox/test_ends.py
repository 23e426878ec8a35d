"""Ends of a machine that nobody planned: no good token any more, all processes at once, a full
disk, nobody who reads what it says, a Python that does not start."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner_action.runners import console
from runner_action.sandbox.machine.machine import kill_descendants
from runner_action.sandbox.machine.systemd import descendants
from runner_action.sandbox.world import World
from tests.matrix.trial import sweep
from tests.sandbox.conftest import Launch, all_gone, busy, job_of, training, until
from tests.sandbox.test_lives import only_machine
from tests.sandbox.test_story import agent_of, command_lines, stages

pytestmark = pytest.mark.sandbox


def ended(world: World) -> bool:
    return not world.ec2.alive() and not world.processes()


def test_a_machine_whose_tokens_are_no_longer_good_ends_and_the_sweep_takes_its_runner(
    world: World, launch: Launch
) -> None:
    tokens = world.github.tokens
    world.github.tokens = {**tokens, "canary-of-the-machine": "admin"}
    assert launch("--idle-timeout=4", "--restart-token=canary-of-the-machine").wait() == 0
    until(lambda: "online" in stages(world), "the agent")
    world.github.tokens = tokens  # revoked since
    until(lambda: ended(world), "the machine to end", 120)
    assert "still-registered" in stages(world)
    (seat,) = world.forge.seats()
    world.forge.set_online(seat, online=False)  # as GitHub sees it by and by
    sweep(world)
    assert world.left() == []


def test_a_machine_that_is_gone_at_once_leaves_a_runner_to_the_sweep(
    world: World, launch: Launch
) -> None:
    """As after a kernel's panic: nobody said goodbye."""
    assert launch().wait() == 0
    (living,) = world.machines.living.values()
    kill_descendants(living.process.pid)
    living.process.kill()
    until(lambda: ended(world), "the cloud to see it", 30)
    (seat,) = world.forge.seats()
    world.forge.set_online(seat, online=False)
    sweep(world)
    assert world.left() == []


@pytest.fixture
def small_disk(world: World) -> Iterator[Path]:
    """All machines live on it."""
    place = world.machines.folder
    place.mkdir(parents=True, exist_ok=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=100m", "tmpfs", str(place)],
        check=False,
        capture_output=True,
    )
    if mounted.returncode:
        pytest.skip("SKIPPED LOUDLY: a small disk can be mounted by root only")
    yield place
    world.machines.close()
    subprocess.run(["umount", "-l", str(place)], check=True)


def consoles(world: World) -> str:
    return "".join(
        one.console.read_text("utf-8", "replace") for one in world.machines.living.values()
    )


def test_a_machine_whose_disk_is_full_ends_and_its_job_is_told(
    small_disk: Path, world: World, launch: Launch
) -> None:
    assert launch("--idle-timeout=600").wait() == 0
    job = world.forge.queue_job(["cml"], 0.2, "sleep 300")
    until(lambda: "job-started" in consoles(world), "the job", 30)
    with (small_disk / "filling").open("wb") as file:
        try:
            while True:
                file.write(bytes(1 << 20))
        except OSError:
            pass
    until(lambda: ended(world), "the machine to end", 150)
    assert "the disk is full" in consoles(world) or not world.forge.seats()
    warnings = [text for title, text in job.notes if title == "cml-runner"]
    assert [text.split(" (")[0] for text in warnings] == ["interrupted: the disk is full"]


@pytest.mark.parametrize("world", ["github", "gitlab"], indirect=True)
def test_a_machine_whose_docker_a_job_broke_takes_no_other(world: World, launch: Launch) -> None:
    assert launch("--idle-timeout=600").wait() == 0
    (instance,) = world.machines.living
    breaks = f"ln -sf false {world.machines.root(instance)}/usr/bin/docker"
    job = world.forge.queue_job(["cml"], 0.1, breaks)
    world.forge.wait(lambda: job.status == "completed", "the job")
    all_gone(world)
    assert job.conclusion == "success"
    entries = list(console.entries(world.machines.console(instance)))
    (why,) = [str(entry["why"]) for entry in entries if entry["stage"] == "leaving"]
    assert why.startswith("the machine can run no more jobs")
    (unfit,) = [str(entry["why"]) for entry in entries if entry["stage"] == "unfit"]
    assert "docker: not found" in unfit


READER = "reader-of-the-agent"


def interpreter(world: World, script: str) -> None:
    """What `python3` is on the machines: a script in front of this Python."""
    python = world.folder / "python3"
    python.write_text(f'#!/bin/bash\n{script}\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    world.machines.python = str(python)


def test_an_agent_that_nobody_hears_restarts_its_job_and_leaves(
    world: World, launch: Launch
) -> None:
    """As when journald is killed: what the agent says goes into a broken pipe."""
    piped = f'exec {sys.executable} "$@" > >(exec -a {READER} cat)'
    interpreter(world, f'[[ "$*" != "-m agent run" ]] || {piped}')
    run = training(world, launch, "--idle-timeout=4", "--cloud-spot")
    busy(world, run)
    instance = only_machine(world)
    supervisor = world.machines.living[instance].process.pid
    readers = [pid for pid in descendants(supervisor) if READER in command_lines([pid])]
    assert readers != []
    for pid in readers:
        os.kill(pid, signal.SIGKILL)
    world.metadata.notice(instance, 120)
    until(lambda: run.attempt == 2 and run.done, "the second attempt", 60)
    second = job_of(run, "train", 2)
    assert second
    assert second.conclusion == "success"
    all_gone(world)


def python_is_broken(world: World) -> Path:
    """A file that keeps Python from starting on the machines, as while a package is upgraded."""
    flag = world.folder / "broken"
    interpreter(world, f"[ ! -e {flag} ] || {{ echo ImportError >&2; exit 1; }}")
    return flag


def test_a_python_that_does_not_start_for_a_while_ends_no_job(world: World, launch: Launch) -> None:
    flag = python_is_broken(world)
    breaks = f"touch {flag}; sleep 9; rm {flag}; sleep 1"
    assert launch("--idle-timeout=4").wait() == 0
    job = world.github.forge.queue_job(["cml"], 0, breaks)
    world.github.forge.wait(lambda: job.status == "completed", "the job")
    assert job.conclusion == "success"
    all_gone(world)


def test_a_machine_ends_whose_agent_hangs_and_whose_python_is_gone(
    world: World, launch: Launch
) -> None:
    flag = python_is_broken(world)
    assert launch("--idle-timeout=600").wait() == 0
    until(lambda: "online" in stages(world), "the agent")
    os.kill(agent_of(world), signal.SIGSTOP)
    flag.touch()
    home = world.machines.root(only_machine(world)) / "var/lib/cml-runner"
    os.utime(home / "heartbeat", (0, 0))
    until(lambda: ended(world), "the machine to end", 60)
    console = world.machines.console(only_machine(world))
    assert console.count("ImportError") >= 3
    assert "power off: cml-runner-failed.service was started 2 times" in console
