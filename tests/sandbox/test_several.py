"""Several machines from one call and one user data: whole lives of each."""

from __future__ import annotations

import json

import pytest

from runner_action.sandbox.world import World
from tests.sandbox.conftest import Launch, all_gone

pytestmark = pytest.mark.sandbox


@pytest.mark.parametrize("argv", [[], ["--single"]], ids=["lasting", "single"])
def test_three_machines_of_one_call_become_three_runners_and_go(
    argv: list[str], world: World, launch: Launch
) -> None:
    world.ec2.consistency.looks = 0  # or it would ask again
    launcher = launch("--count=3", "--labels=train", "--idle-timeout=6", *argv)
    assert launcher.wait() == 0, launcher.told
    runners = json.loads(launcher.outputs["runners"])
    assert [one["runner-name"] for one in runners] == [
        f"{runners[0]['runner-name'][:-9]}-{one['instance-id'][-8:]}" for one in runners
    ]
    assert sorted(one["runner-name"] for one in runners) == sorted(
        seat.name for seat in world.forge.seats()
    )
    assert [
        call["Action"]
        for call in world.ec2.calls
        if call["Action"] in ("CreateFleet", "RunInstances")
    ] == ["CreateFleet"] * 2
    jobs = [world.forge.queue_job(["train"], seconds=2) for _ in runners]
    world.forge.wait(lambda: all(job.status == "completed" for job in jobs), "the jobs")
    assert {job.conclusion for job in jobs} == {"success"}
    assert len({job.runner_name for job in jobs}) == 3
    all_gone(world, 40)
