"""Machines from an image that was made of another one of ours, to save the time of its set-up:
nothing of the old machine counts, and nothing of it is used."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from runner_action.sandbox.world import World
from tests.sandbox.conftest import Launch, all_gone, until
from tests.sandbox.test_lives import only_machine
from tests.sandbox.test_story import stages

pytestmark = pytest.mark.sandbox

HOME = "var/lib/cml-runner"
OLD = "canary-of-the-first-machine"
OF_ANOTHER_BOOT = """if True:
    import dataclasses, os, pathlib, pickle
    file = pathlib.Path("heartbeat")
    beat = pickle.loads(file.read_bytes())
    file.write_bytes(pickle.dumps(dataclasses.replace(beat, boot="another")))
    os.utime(file, (0, 0))
"""
"""A heartbeat's, as all machines here have one kernel."""


@pytest.fixture
def image(world: World, launch: Launch) -> Path:
    """Of a machine that is a runner and has a token, which is not good for long."""
    world.github.tokens = {**world.github.tokens, OLD: "admin"}
    assert launch("--name=first", "--idle-timeout=600", f"--restart-token={OLD}").wait() == 0
    until(lambda: "online" in stages(world), "the agent")
    first = only_machine(world)
    made = world.machines.imaged(first)
    subprocess.run([sys.executable, "-c", OF_ANOTHER_BOOT], cwd=made / HOME, check=True)
    for name in ("gone", "restarted", "first-look", "jobs", "runner/.runner"):
        (made / HOME / name).write_text("gone")
    world.machines.end(first)
    all_gone(world)
    world.github.tokens = {key: text for key, text in world.github.tokens.items() if key != OLD}
    return made


def test_an_image_of_one_of_our_machines_starts_as_a_fresh_one(
    world: World, launch: Launch, image: Path
) -> None:
    world.machines.image = image
    world.machines.network = 3  # later than the first check by a timer of a minute
    refused = [status for _, _, status in world.github.requests].count(401)
    launcher = launch("--name=second", "--idle-timeout=10", GITHUB_JOB="other")
    assert launcher.wait() == 0, launcher.told
    second = launcher.outputs["instance-id"]
    job = world.github.forge.queue_job(["cml"], 0.1)
    world.github.forge.wait(lambda: job.status == "completed", "the job")
    root = world.machines.root(second)
    assert job.conclusion == "success"
    holders = [
        path.name
        for path in root.rglob("*")
        if path.is_file() and OLD.encode() in path.read_bytes()
    ]
    assert holders == []
    all_gone(world)
    console = world.machines.console(second)
    assert "the machine was restarted" not in console
    assert console.count('"stage": "deregistered"') == 1, "the file `gone` is not the old one's"
    assert [status for _, _, status in world.github.requests].count(401) == refused
