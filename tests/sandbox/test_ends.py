"""Ends of a machine that nobody planned: no good token any more, all processes at once, a full
disk."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner_action.runners import console
from runner_action.sandbox.machine.machine import kill_descendants
from runner_action.sandbox.world import World
from tests.matrix.trial import sweep
from tests.sandbox.conftest import Launch, all_gone, until
from tests.sandbox.test_story import stages

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
