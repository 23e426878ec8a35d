"""Whole lives with GitLab: the same stories as with GitHub, the GitLab way. Real launcher, agent
and runner process."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from runner_action.sandbox.forges.gitlab.api import FakeGitLab
from runner_action.sandbox.forges.gitlab.ci import Pipelines, stuck
from runner_action.sandbox.forges.gitlab.variables import Values, iid_of
from runner_action.sandbox.forges.jobs import Job, Run
from runner_action.sandbox.world import KEY, TOKEN, World
from tests import shipped
from tests.sandbox.conftest import Launch, Launcher, all_gone, busy, job_of, training, until
from tests.sandbox.test_lives import only_machine, said
from tests.sandbox.test_story import SIDE_BY_SIDE, agent_of, stages

pytestmark = pytest.mark.sandbox


@pytest.fixture
def world() -> Iterator[World]:
    with World("gitlab", timer_factor=0.02) as made:
        yield made


def calls(world: World, method: str, part: str) -> list[int]:
    return [status for how, path, status in world.gitlab.requests if how == method and part in path]


def retried(world: World, run: Run) -> None:
    """The launch job and the training job were tried again, on a machine of their own, and
    nothing else was."""
    until(lambda: job_of(run, "train", 2) and run.done, "the second try", 60)
    first, second = job_of(run, "train", 1), job_of(run, "train", 2)
    assert first
    assert second
    assert (first.conclusion, second.conclusion) == ("failure", "success")
    assert first.runner_name != second.runner_name
    assert (len(world.machines.living), len(run.all_jobs)) == (2, 4)
    assert len(calls(world, "POST", "/retry")) == 2


def test_the_pipeline_of_the_readme_runs_its_job_on_its_machine(
    world: World,
    launch: Launch,
) -> None:
    definition = shipped.pipelines()["README.md 2"]
    definition["include"][0]["inputs"]["idle-timeout"] = "4"
    definition["train"]["script"] = ["true"]
    template = shipped.released(shipped.ROOT / "gitlab-component/templates/launch-runner.yml")
    project = world.gitlab.project
    address = f"{project.variables['CI_SERVER_FQDN']}/{shipped.REPOSITORY}/launch-runner"
    started: list[Launcher] = []

    def launching(_: Job, variables: Values) -> str:
        started.append(launch(**variables))
        return "failure" if started[0].wait() else "success"

    pipelines = Pipelines(world.forge, project, {address: template}, world.environ())
    run = pipelines.create(definition, launching)
    job = job_of(run, "train", 1)
    assert job
    world.forge.wait(lambda: job.status == "completed" or stuck(world.forge, job), "the job", 60)
    assert stuck(world.forge, job) == ""
    assert started[0].process.returncode == 0, started[0].told
    assert (job.conclusion, job.runner_name) == ("success", started[0].outputs["RUNNER_NAME"])
    assert started[0].outputs["RUNNER_LABELS"] == f"train-{iid_of(run.id)}"
    all_gone(world)


def test_an_idle_runner_from_input_to_gone(world: World, launch: Launch) -> None:
    launcher = launch("--labels=train,gpu", "--idle-timeout=4")
    assert launcher.wait() == 0, launcher.told
    outputs = launcher.outputs
    assert outputs["RUNNER_NAME"].startswith("cml-")
    assert outputs["INSTANCE_IP"]
    assert (outputs["RUNNER_LABELS"], outputs["RUNNER_REGION"]) == ("train,gpu", "us-west-1")
    assert (
        json.loads(outputs["RUNNERS"])[0]["instance-id"]
        == outputs["INSTANCE_ID"]
        == only_machine(world)
    )
    assert all(name.startswith(("RUNNER", "INSTANCE")) for name in outputs), (
        "no variable of the user's is overwritten by chance"
    )

    untagged, job = world.forge.queue_job([]), world.forge.queue_job(["train"], seconds=0.5)
    world.forge.wait(lambda: job.status == "completed", "the job")
    assert (job.conclusion, job.runner_name, untagged.status) == (
        "success",
        outputs["RUNNER_NAME"],
        "queued",
    )
    all_gone(world)
    assert [stage for stage in stages(world) if stage not in SIDE_BY_SIDE] == [
        "agent",
        "downloaded",
        "configured",
        "online",
        "job-started",
        "job-finished",
        "leaving",
        "deregistered",
        "end",
    ]
    assert calls(world, "POST", "/user/runners") == [201]
    assert calls(world, "DELETE", "/runners") == [204], (
        "by the machine, once, with the runner's own token"
    )


def test_a_single_runner_is_gone_after_its_job(world: World, launch: Launch) -> None:
    started = launch("--single")
    assert started.wait() == 0, started.told
    jobs = [world.forge.queue_job(["cml"], seconds=0.2) for _ in range(2)]
    world.forge.wait(lambda: jobs[0].status == "completed", "the job")
    all_gone(world)
    assert [job.status for job in jobs] == ["completed", "queued"]


def test_a_failing_job_is_not_tried_again(world: World, launch: Launch) -> None:
    assert launch("--idle-timeout=4").wait() == 0
    job = world.forge.queue_job(["cml"], 0, "exit 3")
    world.forge.wait(lambda: job.status == "completed", "the job")
    assert (job.conclusion, job.reason) == ("failure", "script_failure")
    all_gone(world)
    assert calls(world, "POST", "/retry") == []


def test_a_spot_notice_while_busy_and_the_job_runs_again_on_a_new_machine(
    world: World, launch: Launch
) -> None:
    run = training(world, launch, "--idle-timeout=4", "--cloud-spot")
    first = busy(world, run)
    instance = only_machine(world)
    world.metadata.notice(instance, 120)
    restarted = said(world, instance, "restart")
    assert restarted["outcome"] == "launch and train"
    assert float(str(restarted["t"])) - float(str(said(world, instance, "notice")["t"])) < 5
    assert first.reason == "runner_interrupted", "gitlab-runner says so itself, since 19.1"
    retried(world, run)
    all_gone(world)


def test_the_restart_limit_counts_the_tries_of_the_job(world: World, launch: Launch) -> None:
    run = training(world, launch, "--idle-timeout=4", "--restart-limit=1", command="sleep 60")
    busy(world, run)
    world.metadata.notice(only_machine(world), 120)
    until(
        lambda: (job := job_of(run, "train", 2)) and job.runner_name,
        "the second try to be taken",
        60,
    )
    second = list(world.machines.living)[1]
    said(world, second, "job-started")
    world.metadata.notice(second, 120)
    assert said(world, second, "restart")["outcome"] == "not restarted: restart-limit 1 is reached"
    all_gone(world)
    assert len(run.all_jobs) == 4


def test_a_machine_taken_before_its_job_came_is_replaced(world: World, launch: Launch) -> None:
    run = training(world, launch, "--idle-timeout=60", lasting=False)
    (job,) = (job for job in run.jobs if job.name == "train")
    job.labels |= {"nobody-has-this"}
    until(lambda: world.machines.living, "the machine", 40)
    instance = only_machine(world)
    said(world, instance, "online")
    until(lambda: job.status == "queued", "the job to wait", 40)
    world.metadata.notice(instance, 120)
    assert said(world, instance, "restart")["outcome"] == "launch"
    job.labels = frozenset({"train"})
    until(
        lambda: len(world.machines.living) == 2 and job.runner_name,
        "the second machine to take the job",
        60,
    )
    assert job_of(run, "train", 2) is None, "it had not begun, so it is not retried"


def test_a_runner_with_a_job_in_a_long_poll_stays(world: World, launch: Launch) -> None:
    """GitLab holds a question for a job for 50 s: a runner asked to quit may still be given one.
    Its end is not the job's end."""
    world.gitlab.poll = 8
    assert launch("--idle-timeout=4").wait() == 0
    until(lambda: "leaving" in stages(world), "idle time to be over")
    job = world.forge.queue_job(["cml"], seconds=3)
    world.forge.wait(lambda: job.status == "completed", "the job", 30)
    assert job.conclusion == "success"
    all_gone(world, 40)
    assert "staying" in stages(world)


def test_a_killed_agent_finds_its_job_again(world: World, launch: Launch) -> None:
    assert launch("--idle-timeout=4").wait() == 0
    job = world.forge.queue_job(["cml"], seconds=4)
    until(lambda: "job-started" in stages(world), "the agent to know")
    os.kill(agent_of(world), signal.SIGKILL)
    world.forge.wait(lambda: job.status == "completed", "the job", 30)
    assert job.conclusion == "success", "the runner outlived the agent"
    all_gone(world, 40)
    assert stages(world)[-6:] == [
        "agent",
        "resumed",
        "job-finished",
        "leaving",
        "deregistered",
        "end",
    ]


@pytest.mark.parametrize("argv", [["--idle-timeout=4"], ["--single"]], ids=["idle", "single"])
def test_a_cancelled_launch_leaves_nothing(argv: list[str], world: World, launch: Launch) -> None:
    launcher = launch(*argv)
    until(lambda: world.machines.living, "the instance")
    launcher.kill()
    assert launcher.wait(20) == 143, launcher.told
    all_gone(world)


def test_a_lost_answer_leaves_no_ghost(world: World, launch: Launch) -> None:
    """Once it is asked again; a GitLab that goes on losing answers ends the launch."""
    world.gitlab.fail("POST", "/user/runners$", 502, late=True)
    launcher = launch("--idle-timeout=4")
    assert launcher.wait() == 0, launcher.told
    assert (len(world.forge.ever), len(world.forge.seats())) == (2, 1)
    all_gone(world)
    world.gitlab.fail("POST", "/user/runners$", 502, times=2, late=True)
    launcher = launch()
    assert launcher.wait() == 3, launcher.told
    assert len(world.forge.ever) == 4
    all_gone(world)


def test_a_weak_token_makes_nothing_and_is_told_what_it_lacks(world: World, launch: Launch) -> None:
    launcher = launch(REPO_TOKEN="canary-readonly-token")
    assert launcher.wait() == 3
    assert "it lacks `create_runner`, `manage_runner`" in launcher.told
    assert (world.forge.ever, list(world.machines.living)) == ([], [])


def test_two_runners_of_one_launch_have_a_registration_each(world: World, launch: Launch) -> None:
    launcher = launch("--count=2", "--idle-timeout=4")
    assert launcher.wait() == 0, launcher.told
    assert calls(world, "POST", "/user/runners") == [201, 201]
    assert len({one["runner-name"] for one in json.loads(launcher.outputs["RUNNERS"])}) == 2
    all_gone(world)


def test_reuse_finds_the_runner_of_another_job(world: World, launch: Launch) -> None:
    assert launch("--idle-timeout=30", "--labels=cml,gpu").wait() == 0
    again = launch("--reuse", "--labels=gpu", CI_JOB_ID="2")
    assert again.wait() == 0, again.told
    assert (again.outputs["RUNNER_REUSED"], len(world.machines.living)) == ("true", 1)


def test_an_idle_runner_is_reused_and_a_busy_one_is_not(world: World, launch: Launch) -> None:
    assert launch("--idle-timeout=30").wait() == 0
    idle = launch("--reuse-idle", CI_JOB_ID="2")
    assert idle.wait() == 0, idle.told
    assert (idle.outputs["RUNNER_REUSED"], len(world.machines.living)) == ("true", 1)
    job = world.forge.queue_job(["cml"], seconds=30)
    world.forge.wait(lambda: job.runner_name, "the runner to be busy")
    busy_one = launch("--reuse-idle", "--idle-timeout=30", CI_JOB_ID="3")
    assert busy_one.wait() == 0, busy_one.told
    assert (busy_one.outputs["RUNNER_REUSED"], len(world.machines.living)) == ("false", 2)


def test_the_authority_that_the_job_knows_its_gitlab_by_is_enough(
    world: World, launch: Launch, tmp_path: Path
) -> None:
    """CI_SERVER_TLS_CA_FILE, which GitLab Runner sets; seen up to the plan, as the machines here
    speak no TLS."""
    authority = trustme.CA()
    certificate = tmp_path / "certificate.pem"
    key = tmp_path / "key.pem"
    known = tmp_path / "ca.pem"
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_and_cert_chain_pem.write_to_path(str(certificate))
    issued.private_key_pem.write_to_path(str(key))
    authority.cert_pem.write_to_path(str(known))
    plain, world.gitlab = (
        world.gitlab,
        FakeGitLab(world.gitlab.tokens, prefix="/git", tls=(str(certificate), str(key))),
    )
    plain.close()
    stranger, trusting = launch("--dry-run"), launch("--dry-run", CI_SERVER_TLS_CA_FILE=str(known))
    assert trusting.wait() == 0, trusting.told
    assert "Plan: nothing was created" in trusting.told
    assert stranger.wait() == 3
    assert "Cannot reach GitLab" in stranger.told


def test_a_job_ends_by_its_own_time_limit_and_the_runner_by_its_lifetime(
    world: World, launch: Launch
) -> None:
    """The limit that GitLab gives the runner is its lifetime."""
    assert launch("--max-lifetime=3600", "--idle-timeout=4").wait() == 0
    assert list(world.gitlab.longest.values()) == [3600]
    all_gone(world)


def test_no_secret_is_where_it_does_not_belong(world: World, launch: Launch) -> None:
    """Of the user's token, the cloud's key and the runner's own token."""
    launcher = launch("--idle-timeout=6", "--no-retry")
    assert launcher.wait() == 0, launcher.told
    (runner,) = (seat.secret for seat in world.forge.seats())
    job = world.forge.queue_job(["cml"], 0, "env; cat /proc/*/cmdline 2>/dev/null | tr '\\0' ' '")
    world.forge.wait(lambda: job.status == "completed", "the job")
    instance = only_machine(world)
    everywhere = (
        launcher.told
        + (launcher.folder / "cml-runner.env").read_text()
        + world.machines.console(instance)
        + world.gitlab.jobs.traces[job.id]
    )
    for secret in (TOKEN, KEY, runner):
        assert secret not in everywhere
    home = world.machines.root(instance) / "var/lib/cml-runner"
    assert TOKEN not in (home / "spec.json").read_text(), (
        "no restart, no token of the user's on the machine"
    )
    assert (home / "runner/config.toml").stat().st_mode & 0o777 == 0o600
    all_gone(world)


def test_the_forge_is_down_for_the_whole_idle_time_and_longer(world: World, launch: Launch) -> None:
    assert launch("--idle-timeout=4").wait() == 0
    world.gitlab.fail("DELETE", "/runners", 503, times=10**6)
    until(lambda: not world.ec2.alive() and not world.processes(), "the machine to end", 90)
    assert "still-registered" in stages(world)


def test_a_machine_that_is_off_the_list_ends(world: World, launch: Launch) -> None:
    """Somebody deleted the runner in GitLab's settings."""
    assert launch("--idle-timeout=600").wait() == 0
    began = time.monotonic()
    world.forge.remove(world.forge.seats()[0].id)
    until(lambda: not world.ec2.alive() and not world.processes(), "the machine to end", 40)
    assert time.monotonic() - began < 40
