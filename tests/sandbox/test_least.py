"""What a launch gets that says nothing but where its machine comes from: no token of the user's,
no label that others know."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import pytest

from runner_action.model import ForgeName
from runner_action.sandbox.world import TOKEN, World
from tests.fakes import unpacked
from tests.sandbox.conftest import LEAST, Launch, all_gone, until
from tests.sandbox.test_lives import only_machine
from tests.sandbox.test_story import stages

pytestmark = pytest.mark.sandbox


@pytest.fixture
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    with World(*request.param, timer_factor=0.02) as made:
        yield made


@pytest.mark.parametrize(
    "world",
    [(ForgeName.GITHUB, cloud) for cloud in ("aws", "azure", "gcp", "kubernetes")],
    indirect=True,
)
@pytest.mark.parametrize("admin_flow", [True, False], ids=["by its API", "by its pools"])
def test_no_token_of_the_users_is_on_a_machine_and_its_runner_leaves_all_the_same(
    admin_flow: bool, world: World, launch: Launch
) -> None:
    world.github.admin_flow = admin_flow
    launcher = launch("--idle-timeout=3", "--first-job-timeout=60", **LEAST)
    assert launcher.wait() == 0, launcher.told
    (seat,) = world.forge.seats()
    assert all(label.startswith("cml-") for label in seat.labels), seat.labels
    found = subprocess.run(
        ["grep", "-rlF", TOKEN, world.machines.root(only_machine(world)).parent],
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.stdout == ""
    job = world.forge.queue_job([launcher.outputs["label"]], 0.1)
    until(lambda: job.status == "completed", "the job")
    all_gone(world)


@pytest.mark.parametrize("world", [(ForgeName.GITHUB,), (ForgeName.GITLAB,)], indirect=True)
def test_what_is_used_up_is_not_on_the_machine_any_more(world: World, launch: Launch) -> None:
    launcher = launch("--idle-timeout=3", **LEAST)
    assert launcher.wait() == 0, launcher.told
    (given,) = world.machines.user_data.values()
    brought = json.loads(unpacked(given)["var/lib/cml-runner/spec.json"])
    left = json.loads(
        (world.machines.root(only_machine(world)) / "var/lib/cml-runner/spec.json").read_text()
    )
    assert set(brought) - set(left) == (
        {"registration_token"} if world.kind is ForgeName.GITHUB else set()
    )
    all_gone(world)


@pytest.mark.parametrize("world", [(ForgeName.GITHUB,), (ForgeName.GITLAB,)], indirect=True)
def test_an_interrupted_job_is_told_of_and_nothing_is_restarted(
    world: World, launch: Launch
) -> None:
    launcher = launch(
        "--labels=train", "--idle-timeout=30", "--cloud-spot", CML_RUNNER_RESTART_TOKEN=""
    )
    assert launcher.wait() == 0, launcher.told
    assert "has no token to restart it" in launcher.told
    job = world.forge.queue_job(["train"], 60)
    until(lambda: "job-started" in stages(world), "the job")
    world.metadata.notice(only_machine(world), 20)
    until(lambda: job.status == "completed", "the end of the job")
    all_gone(world)
    assert "restart" in stages(world)
    assert len([one for one in world.forge.jobs() if one.name == job.name]) == 1
