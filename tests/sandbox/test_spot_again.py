"""After an interruption the next attempt gets a machine elsewhere, on demand if that may be, and
says why. Real launcher, agent and runner."""

from __future__ import annotations

import pytest
from moto.backends import get_backend

from runner_action.sandbox.clouds.aws.ec2 import ACCOUNT
from runner_action.sandbox.forges.jobs import Job
from runner_action.sandbox.world import World
from tests.sandbox.conftest import Launch, Launcher, all_gone, busy, job_of, until

pytestmark = pytest.mark.sandbox
STARTED = ("2026-11-28T12:00:05Z", "2026-11-28T12:10:00Z")
"""When the tries of GitLab's launch job start. Their pipeline is of noon."""


def interrupted(world: World, launch: Launch, *argv: str) -> list[Launcher]:
    """The launches of a run whose first machine is taken while it works."""
    launchers: list[Launcher] = []
    run = world.forge.queue_run()

    def launching(job: Job) -> str:
        environ = world.job_environ(run.id, job.id, job.name, job.attempt, job.runner_name)
        times = {
            "CI_PIPELINE_CREATED_AT": "2026-11-28T12:00:00Z",
            "CI_JOB_STARTED_AT": STARTED[len(launchers)],
        }
        words = ("--labels=train", "--idle-timeout=4", "--cloud-region=us-west", *argv)
        launchers.append(launch(*words, **environ, **times))
        return "failure" if launchers[-1].wait() else "success"

    world.forge.add_job(run, "launch", ["ubuntu-latest"], hosted=launching)
    first = f"mkdir {world.folder}/first 2>/dev/null && sleep 60; true"
    world.forge.add_job(run, "train", ["train"], 0.2, first, needs=["launch"])
    world.forge.begin(run)
    busy(world, run)
    (machine,) = world.machines.living
    world.interrupt(machine, 120)
    until(lambda: (job := job_of(run, "train", 2)) and job.conclusion, "the second try", 60)
    return launchers


@pytest.mark.parametrize(
    ("world", "market", "then"),
    [("github", "prefer", "requesting on demand"), ("gitlab", "true", "requesting another zone")],
    indirect=["world"],
)
def test_the_next_attempt_is_elsewhere(
    market: str, then: str, world: World, launch: Launch
) -> None:
    first, second = interrupted(world, launch, f"--cloud-spot={market}")
    all_gone(world)
    machines = {
        machine.id: machine
        for reservation in get_backend("ec2")[ACCOUNT]["us-west-1"].reservations.values()
        for machine in reservation.instances
    }
    lost, now = (machines[machine] for machine in world.machines.living)
    assert lost.state_reason.code == "Client.InstanceInitiatedShutdown", "all that EC2 says"
    assert (lost.lifecycle, now.lifecycle == "spot") == ("spot", market == "true")
    zones = [machine.placement.zone for machine in (lost, now)]
    assert zones[0] != zones[1]
    assert "reclaimed" not in first.told
    assert f"was reclaimed in {zones[0]}: {then}" in second.told
