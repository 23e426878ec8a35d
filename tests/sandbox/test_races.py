"""Launches that know nothing of each other, at the same moment: as processes, at both forges,
with delays between them that differ each time."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator

import pytest

from runner_action.claim import PREFIX
from runner_action.sandbox.world import World
from tests.sandbox.conftest import Launch, Launcher, until

pytestmark = pytest.mark.sandbox

REPEATS = int(os.environ.get("CML_RUNNER_TEST_RACES", "1"))
MOMENTS = [0.0, *random.Random(11).choices((0.0, 0.05, 0.2, 0.5, 1.0, 2.0), k=2 * REPEATS)]
"""Seconds from the one launch's start to the other's; a launcher takes about one to its first
call."""


@pytest.fixture(params=["github", "gitlab"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    with World(request.param, timer_factor=0.02) as made:
        yield made


def of_another_job(number: int) -> dict[str, str]:
    return {"GITHUB_JOB": f"job-{number}", "CI_JOB_ID": str(number)}


def racing(launch: Launch, flag: str, number: int, delay: float) -> list[Launcher]:
    """Two launches of two jobs, both ended well."""
    one = launch(flag, "--idle-timeout=600", **of_another_job(number))
    time.sleep(delay)
    both = [one, launch(flag, "--idle-timeout=600", **of_another_job(number + 1))]
    for launcher in both:
        assert launcher.wait(120) == 0, launcher.told
    return both


def told(launcher: Launcher, output: str) -> str:
    return (
        launcher.outputs.get(output)
        or launcher.outputs[f"RUNNER_{output.upper().replace('-', '_').removeprefix('RUNNER_')}"]
    )


def turns(world: World) -> list[str]:
    return [seat.name for seat in world.forge.seats() if seat.name.startswith("cml-turn")]


def forget(world: World) -> None:
    """What was claimed is free again, as after the time of a claim; all but one runner are gone."""
    for seat in world.forge.seats():
        seat.note, seat.labels = (
            "",
            tuple(label for label in seat.labels if not label.startswith(PREFIX)),
        )
    for seat in world.forge.seats()[1:]:
        world.forge.remove(seat.id, force=True)


def test_of_two_launches_one_reuses_the_idle_runner(world: World, launch: Launch) -> None:
    first = launch("--idle-timeout=600")
    assert first.wait() == 0, first.told
    counted: list[list[str]] = []
    for number, delay in enumerate(MOMENTS, 1):
        both = racing(launch, "--reuse-idle", 10 * number, delay)
        counted.append(sorted(told(one, "reused") for one in both))
        reused = next(one for one in both if told(one, "reused") == "true")
        assert told(reused, "runner-name") == told(first, "runner-name")
        assert (
            told(reused, "label")
            == told(first, "label")
            != told(next(one for one in both if one is not reused), "label")
        )
        forget(world)
    assert counted == [["false", "true"]] * len(MOMENTS)


def test_of_two_launches_one_launches_and_the_other_reuses(world: World, launch: Launch) -> None:
    counted: list[list[str]] = []
    for number, delay in enumerate(MOMENTS, 1):
        one, other = racing(launch, "--reuse", 10 * number, delay)
        counted.append(sorted([told(one, "reused"), told(other, "reused")]))
        for output in ("runner-name", "label", "instance-id"):
            name = output if world.kind == "github" else "INSTANCE_ID"
            assert (
                told(one, output) == told(other, output)
                if output != "instance-id"
                else one.outputs[name] == other.outputs[name]
            )
        assert turns(world) == []
        for seat in world.forge.seats():
            world.forge.remove(seat.id, force=True)
    assert counted == [["false", "true"]] * len(MOMENTS)
    assert len(world.machines.living) == len(MOMENTS), (
        "no machine more than is needed was ever made"
    )


def test_a_launch_waits_for_one_that_fails_and_then_launches_itself(
    world: World, launch: Launch
) -> None:
    failing = launch(
        "--reuse", "--cloud-startup-script=c2xlZXAgNTsgZXhpdCAz", **of_another_job(1)
    )  # sleep 5; exit 3
    until(lambda: turns(world), "its turn")
    waiting = launch("--reuse", "--idle-timeout=600", **of_another_job(2))
    assert failing.wait() == 6, failing.told
    assert waiting.wait() == 0, waiting.told
    assert "Waiting for the runner of another launch" in waiting.told
    assert told(waiting, "reused") == "false"
    assert turns(world) == []


def test_a_cancelled_launch_gives_its_turn_back(world: World, launch: Launch) -> None:
    launcher = launch(
        "--reuse", "--cloud-startup-script=c2xlZXAgNjA=", **of_another_job(1)
    )  # sleep 60
    until(lambda: world.machines.living, "the machine")
    assert len(turns(world)) == 1
    launcher.kill()
    assert launcher.wait(30) == 143
    until(lambda: not world.left(), "everything to be gone")


def test_an_idle_runner_stays_for_the_launch_that_claimed_it(world: World, launch: Launch) -> None:
    """Its idle time ends before the job of that launch comes."""
    first = launch("--idle-timeout=6")
    assert first.wait() == 0, first.told
    reusing = launch("--reuse-idle", **of_another_job(2))
    assert reusing.wait() == 0, reusing.told
    assert told(reusing, "reused") == "true"
    until(
        lambda: any(
            "a launch counts on it" in world.machines.console(instance)
            for instance in world.machines.living
        ),
        "the runner to be asked",
        30,
    )
    job = world.forge.queue_job([told(reusing, "label")], seconds=0.2)
    world.forge.wait(lambda: job.status == "completed", "the job", 30)
    assert (job.conclusion, job.runner_name) == ("success", told(first, "runner-name"))
