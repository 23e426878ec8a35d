"""Jobs that are lost although their machine, and at first their runner, go on."""

from __future__ import annotations

import pytest

from runner_action.sandbox.forges.jobs import Run
from runner_action.sandbox.world import World
from tests.sandbox.conftest import Launch, all_gone, job_of, training, until
from tests.sandbox.test_lives import ran_again

pytestmark = pytest.mark.sandbox


def fated(run: Run, fate: str) -> None:
    job = job_of(run, "train", 1)
    assert job
    job.fate = fate


def restarted(world: World, run: Run) -> None:
    """GitHub still believes in the job, so the run is cancelled, in the end by force."""
    until(lambda: run.attempt == 2 and run.done, "the second attempt", 120)
    ran_again(world, run)


def test_a_listener_that_starts_anew_has_lost_its_job(world: World, launch: Launch) -> None:
    """run.sh starts it again, so nothing exits. Once, the machine went on for days."""
    world.github.forge.lost_after = 600
    run = training(world, launch, "--idle-timeout=4")
    fated(run, "falls")
    restarted(world, run)
    all_gone(world)


def test_a_single_runner_that_ends_well_without_its_job_has_lost_it(
    world: World, launch: Launch
) -> None:
    world.github.forge.lost_after = 600
    run = training(world, launch, "--single", lasting=False)
    fated(run, "orphans")
    restarted(world, run)
    all_gone(world)
    consoles = [world.machines.console(instance) for instance in world.machines.living]
    assert ["its single job is done" in console for console in consoles] == [False, True]


def test_it_is_told_if_nothing_may_restart_it(world: World, launch: Launch) -> None:
    world.github.forge.lost_after = 5
    run = training(world, launch, "--single", "--no-retry", lasting=False)
    fated(run, "orphans")
    job = job_of(run, "train", 1)
    assert job
    until(lambda: world.github.forge.run(run.id) and job.conclusion == "failure", "its end", 60)
    (instance,) = world.machines.living
    assert "the runner exited unexpectedly" in world.machines.console(instance)
    all_gone(world)
