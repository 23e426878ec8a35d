"""A launcher that was killed, and the next launch of its step."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from runner_action.sandbox.world import World
from tests.matrix.gate import arrive
from tests.sandbox.conftest import Launch, Launcher, until

pytestmark = pytest.mark.sandbox


@pytest.fixture
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    # The machines never boot, so none ends by itself.
    with World(request.param, boots=False) as made:
        yield made


def succeed(world: World, launcher: Launcher) -> None:
    """Waits for the launch, whose machines' runners come online; those of earlier ones do not."""
    arrived = {*world.ec2.alive()}

    def ended() -> bool:
        arrive(world, arrived)
        return launcher.process.poll() is not None

    until(ended, "the end of the launch", 40)
    assert launcher.wait() == 0, launcher.told


@pytest.mark.parametrize(
    ("world", "argv"),
    [("github", ["--reuse"]), ("github", ["--count=2"]), ("gitlab", ["--single", "--name=train"])],
    indirect=["world"],
)
def test_the_next_launch_deletes_what_a_killed_one_left(
    argv: list[str], world: World, launch: Launch
) -> None:
    """With `reuse` the killed one had the turn, for which launches of others wait. What a launch
    that ended well has created stays."""
    started = launch("--labels=first")
    succeed(world, started)
    kept = {*world.ec2.alive()}
    step = dict.fromkeys(("RUNNER_TEMP", "CI_PROJECT_DIR"), str(started.folder))
    count = 2 if "--count=2" in argv else 1
    killed = launch(*argv, **step)
    until(lambda: len(world.ec2.alive()) == len(kept) + count, "the machines")
    killed.kill(signal.SIGKILL)
    killed.wait()
    left = {*world.ec2.alive()} - kept
    succeed(world, launch(*argv, **step))
    until(lambda: not left.intersection(world.ec2.alive()), "the end of what was left")
    assert kept <= {*world.ec2.alive()}
    assert len(world.ec2.alive()) == len(world.forge.seats()) == len(kept) + count
