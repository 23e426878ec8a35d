"""Whole lives of runners that are an organisation's or an enterprise's, and of such that an App
registered. Real launcher, agent and runner."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from runner_action.sandbox.world import TOKEN, World
from tests.fakes import unpacked
from tests.sandbox.conftest import Launch, all_gone, busy, training, until
from tests.sandbox.test_lives import only_machine, ran_again, said

pytestmark = pytest.mark.sandbox


def spec_of(world: World, instance: str) -> dict[str, object]:
    spec: dict[str, object] = json.loads(
        (world.machines.root(instance) / "var/lib/cml-runner/spec.json").read_text("utf-8")
    )
    return spec


def test_an_organisations_runner_in_a_group(world: World, launch: Launch) -> None:
    launcher = launch(
        f"--repo={world.github.organisation_url}",
        "--runner-group=gpu",
        "--no-default-labels",
        "--idle-timeout=4",
    )
    assert launcher.wait() == 0, launcher.told
    (seat,) = world.forge.seats()
    assert (seat.owner, seat.group) == ("orgs/octo", 7)
    assert "cml" in seat.labels
    assert "self-hosted" not in seat.labels
    job = world.forge.queue_job(["cml"])
    world.forge.wait(lambda: job.status == "completed", "the job")
    assert job.conclusion == "success"
    all_gone(world)
    assert {path for method, path, _ in world.github.requests if method == "DELETE"} == {
        f"/api/v3/orgs/octo/actions/runners/{seat.id}"
    }


def test_a_group_that_is_not_there_costs_nothing(world: World, launch: Launch) -> None:
    launcher = launch(f"--repo={world.github.organisation_url}", "--runner-group=cpu")
    assert launcher.wait() == 2
    assert "has no group of that name; it has `Default`, `gpu`" in launcher.told
    assert world.machines.living == {}


@pytest.mark.parametrize("level", ["organisation", "enterprise"])
def test_a_single_one_is_made_just_in_time(level: str, world: World, launch: Launch) -> None:
    where = (
        world.github.organisation_url if level == "organisation" else world.github.enterprise_url
    )
    launcher = launch(f"--repo={where}", "--runner-group=gpu", "--single")
    assert launcher.wait() == 0, launcher.told
    (seat,) = world.forge.seats()
    assert (seat.owner, seat.group, seat.ephemeral) == (
        "orgs/octo" if level == "organisation" else "enterprises/acme",
        7,
        True,
    )
    given = json.loads(
        unpacked(world.machines.user_data[only_machine(world)])["var/lib/cml-runner/spec.json"]
    )
    assert ("jit" in given, "registration_token" in given) == (True, False)
    assert "jit" not in spec_of(world, only_machine(world)), "used up"
    job = world.forge.queue_job(["cml"])
    world.forge.wait(lambda: job.status == "completed", "the job")
    all_gone(world)


def test_an_old_server_takes_a_single_one_by_its_token(world: World, launch: Launch) -> None:
    world.github._has_jit = False
    launcher = launch("--single")
    assert launcher.wait() == 0, launcher.told
    assert "no just-in-time configuration" in launcher.told
    (seat,) = world.forge.seats()
    assert seat.ephemeral
    job = world.forge.queue_job(["cml"])
    world.forge.wait(lambda: job.status == "completed", "the job")
    all_gone(world)


@pytest.mark.parametrize("level", ["organisation", "enterprise"])
def test_an_interrupted_job_runs_again_in_its_own_repository(
    level: str, world: World, launch: Launch
) -> None:
    """An organisation has no runs: the machine asks for that of the repository whose job it had."""
    where = (
        world.github.organisation_url if level == "organisation" else world.github.enterprise_url
    )
    run = training(world, launch, f"--repo={where}", "--idle-timeout=4", "--cloud-spot")
    busy(world, run)
    world.metadata.notice(only_machine(world), 120)
    ran_again(world, run)
    all_gone(world)


def test_a_machine_of_an_organisation_taken_before_its_job_came(
    world: World, launch: Launch
) -> None:
    run = training(
        world, launch, f"--repo={world.github.organisation_url}", "--idle-timeout=60", lasting=False
    )
    run.jobs[1].labels |= {"nobody-has-this"}
    until(lambda: world.machines.living, "the machine", 40)
    instance = only_machine(world)
    said(world, instance, "online")
    until(lambda: run.jobs[0].status == "completed", "the launch job", 40)
    world.metadata.notice(instance, 120)
    assert str(said(world, instance, "restart")["outcome"]).endswith("attempt 2")


def test_a_launch_outlives_what_github_is_not_always_at_its_best(
    world: World, launch: Launch
) -> None:
    """Lost answers, limits and gateways' pages while it lists, registers, and waits."""
    world.github.fail(
        "GET",
        "runners$",
        403,
        body={"message": "You have exceeded a secondary rate limit."},
        Retry_After="6",
    )
    world.github.fail("GET", "downloads$", 0)
    world.github.fail("POST", "generate-jitconfig$", 502, late=True)
    world.github.fail("GET", r"runners/\d+$", 503, times=2)
    launcher = launch("--single")
    assert launcher.wait() == 0, launcher.told
    assert "GitHub's rate limit is reached: waiting for 6 s." in launcher.told
    assert len(world.forge.ever) == 2
    assert len(world.forge.seats()) == len(world.machines.living) == 1
    job = world.forge.queue_job(["cml"])
    world.forge.wait(lambda: job.status == "completed", "the job")
    all_gone(world)


def test_a_limit_that_lasts_longer_than_the_launch_costs_nothing(
    world: World, launch: Launch
) -> None:
    world.github.fail("GET", "downloads$", 429, times=99, Retry_After="900")
    launcher = launch("--start-timeout=60")
    assert launcher.wait() == 3
    assert "GitHub asks to wait 900 s, which is longer than this launch can wait" in launcher.told
    assert world.machines.living == {}
    assert [path for _, path, status in world.github.requests if status == 429] == [
        "/api/v3/repos/octo/train/actions/runners/downloads"
    ]


def test_the_jobs_own_token_is_refused_before_anything_is_made(
    world: World, launch: Launch
) -> None:
    world.github.tokens = {**world.github.tokens, "ghs_canary_job": "job"}
    launcher = launch("--no-retry", "--single", REPO_TOKEN="ghs_canary_job")
    assert launcher.wait() == 3
    assert "It is the job's own GITHUB_TOKEN, which can never manage runners" in launcher.told
    assert "secrets.PERSONAL_ACCESS_TOKEN" in launcher.told
    assert world.machines.living == {}


def files_with(folder: Path, text: str) -> str:
    return subprocess.run(
        ["grep", "-rlF", text, folder], capture_output=True, text=True, check=False
    ).stdout


def test_an_apps_runner_holds_nothing_of_the_app(world: World, launch: Launch) -> None:
    key = world.github.github_app.key
    launcher = launch(
        f"--repo={world.github.organisation_url}",
        "--idle-timeout=4",
        INPUT_TOKEN="",
        REPO_TOKEN="",
        CML_RUNNER_RESTART_TOKEN="",
        **{"INPUT_APP-ID": "4711", "INPUT_APP-PRIVATE-KEY": key},
    )
    assert launcher.wait() == 0, launcher.told
    spec = spec_of(world, only_machine(world))
    assert ("api_token" in spec, "restart_limit" in spec, "removal_token" in spec) == (
        False,
        False,
        True,
    )
    job = world.forge.queue_job(["cml"])
    world.forge.wait(lambda: job.status == "completed", "the job")
    all_gone(world)
    secrets = [
        *world.github.github_app.tokens,
        *(line for line in key.splitlines() if "-----" not in line),
    ]
    assert secrets
    for secret in secrets:
        assert not files_with(world.folder, secret)
        assert secret not in launcher.told.replace(f"::add-mask::{secret}", "")
    assert len(world.github.github_app.tokens) == 1


def test_an_app_launches_and_another_token_restarts(world: World, launch: Launch) -> None:
    app = {
        "INPUT_APP-ID": "4711",
        "INPUT_APP-PRIVATE-KEY": world.github.github_app.key,
        "REPO_TOKEN": "",
    }
    run = world.forge.queue_run()
    job = world.forge.add_job(run, "train", ["cml"], 60)
    launcher = launch(
        "--idle-timeout=4", CML_RUNNER_RESTART_TOKEN=TOKEN, GITHUB_RUN_ID=str(run.id), **app
    )
    assert launcher.wait() == 0, launcher.told
    assert "last an hour" not in launcher.told
    world.forge.begin(run)
    until(lambda: job.status == "in_progress", "the job")
    instance = only_machine(world)
    said(world, instance, "job-started")
    world.metadata.notice(instance, 120)
    until(lambda: run.attempt == 2, "the second attempt", 40)
