"""Whole lives with the real gitlab-runner: launcher and agent as processes, against the embedded
GitLab."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runner_action.runners import console
from runner_action.sandbox.forges.jobs import Job
from runner_action.sandbox.machine.image import tools
from runner_action.sandbox.world import World
from tests.sandbox.conftest import Launch, Launcher, all_gone, busy, job_of, training, until
from tests.sandbox.test_lives import only_machine, said

LASTING = "while sleep 0.3; do echo on; done"
EXECUTORS = ("shell", "docker")


@pytest.fixture
def world(gitlab_runner: Path) -> Iterator[World]:
    with World("gitlab", timer_factor=0.02) as made:
        made.gitlab.program = gitlab_runner.read_bytes()
        made.gitlab.sha256 = hashlib.sha256(made.gitlab.program).hexdigest()
        made.forge.lost_after = 100
        yield made


@pytest.fixture(params=EXECUTORS)
def executor(request: pytest.FixtureRequest, world: World) -> str:
    """The executor, on machines that have what it needs."""
    if request.param == "docker":
        program = request.getfixturevalue("docker")
        host = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
        world.machines.folder.mkdir(exist_ok=True)
        there = tools(world.machines.folder) / "docker"
        there.write_text(f'#!/bin/sh\nDOCKER_HOST={host} exec {program} "$@"\n')
        there.chmod(0o755)
    return str(request.param)


Start = Callable[..., Launcher]


@pytest.fixture
def start(world: World, launch: Launch, executor: str) -> Start:
    def start(*argv: str) -> Launcher:
        launcher = launch("--labels=cml", f"--gitlab-executor={executor}", *argv)
        assert launcher.wait(120) == 0, launcher.told
        return launcher

    return start


def stages(world: World) -> list[str]:
    """Of all machines, in order; without what runs beside a job."""
    return [
        str(line["stage"])
        for instance in world.machines.living
        for line in console.entries(world.machines.console(instance))
    ]


def ended(world: World, job: Job, seconds: float = 90) -> Job:
    until(lambda: job.status == "completed", f"the job to end; {world.gitlab.jobs.traces}", seconds)
    return job


def log_of(world: World, job: Job) -> str:
    """Without the time and the stream that come before each line since 18.7."""
    log = world.gitlab.jobs.traces.get(job.id, "").replace("\r", "")
    return re.sub(r"^\S+Z \w{3}[ +]", "", log, flags=re.M)


def begun(world: World) -> Job:
    job = world.forge.queue_job(["cml"], 0, LASTING)
    until(lambda: "\non\n" in log_of(world, job), "its output", 90)
    return job


def test_jobs_and_the_idle_end(world: World, start: Start) -> None:
    start("--idle-timeout=5")
    good = ended(world, world.forge.queue_job(["cml"], 0, "echo hello; pwd; umask"))
    bad = ended(world, world.forge.queue_job(["cml"], 0, "exit 3"))
    assert (good.conclusion, bad.conclusion) == ("success", "failure"), log_of(world, good)
    assert "\nhello\n" in log_of(world, good)
    assert bad.reason == "script_failure"
    all_gone(world, 60)
    assert stages(world).count("job-started") == stages(world).count("job-finished") == 2
    ends = ("leaving", "deregistered", "end")
    assert tuple(stage for stage in stages(world) if stage in ends) == ends


def test_a_single_one_is_gone_after_a_job_that_fails(world: World, start: Start) -> None:
    start("--single")
    assert ended(world, world.forge.queue_job(["cml"], 0, "exit 3")).conclusion == "failure"
    all_gone(world, 60)


@pytest.mark.parametrize("change", ["canceling", "canceled"])
def test_a_job_that_is_cancelled_at_hand_over_leaves_an_idle_runner(
    change: str, world: World, start: Start
) -> None:
    start("--idle-timeout=5")
    world.gitlab.jobs.at_hand_over.append(change)
    world.forge.queue_job(["cml"], 0, LASTING)
    assert ended(world, world.forge.queue_job(["cml"], 0, "true")).conclusion == "success"
    all_gone(world, 60)


@pytest.mark.parametrize("force", [False, True])
def test_a_job_that_is_cancelled_leaves_an_idle_runner(
    force: bool, world: World, start: Start
) -> None:
    start("--idle-timeout=5")
    job = begun(world)
    world.forge.cancel_job(job, force=force)
    assert ended(world, job).conclusion == "cancelled"
    assert ended(world, world.forge.queue_job(["cml"], 0, "true")).conclusion == "success"
    all_gone(world, 60)


def test_a_runner_that_is_asked_to_quit_ends_its_job_first(world: World, start: Start) -> None:
    """It is asked in a long poll, and gets a job all the same."""
    world.gitlab.poll = 20
    start("--idle-timeout=5")
    until(lambda: "leaving" in stages(world), "idle time to be over", 60)
    job = ended(world, world.forge.queue_job(["cml"], 3, "true"))
    assert job.conclusion == "success"
    all_gone(world, 60)
    assert "staying" in stages(world)


def test_a_job_whose_end_gitlab_has_to_be_told_again_is_not_lost(
    world: World, start: Start
) -> None:
    """gitlab-runner says `Job succeeded` first. The runner has been idle for long when GitLab
    accepts it."""
    world.gitlab.jobs.unfinished = 12
    start("--idle-timeout=5")
    assert ended(world, world.forge.queue_job(["cml"], 0, "true")).conclusion == "success"
    all_gone(world, 60)


def test_a_runner_that_is_removed_ends(world: World, start: Start) -> None:
    start("--idle-timeout=600")
    world.forge.remove(world.forge.seats()[0].id)
    all_gone(world, 60)


@pytest.mark.parametrize("retry", [(), ("runner_system_failure", "runner_interrupted")])
@pytest.mark.parametrize("executor", ["shell"], indirect=True)
def test_an_interrupted_job_runs_again_once_on_a_new_machine(
    retry: tuple[str, ...], world: World, launch: Launch, executor: str
) -> None:
    """Where GitLab has already tried it again, by `retry:` of the job, the agent does not."""
    world.gitlab.jobs.retried = retry
    spot = ("--idle-timeout=5", "--cloud-spot", f"--gitlab-executor={executor}")
    run = training(world, launch, *spot)
    until(lambda: run.jobs[1].status == "in_progress", "a launch with so large a program", 150)
    first = busy(world, run)
    instance = only_machine(world)
    world.metadata.notice(instance, 120)
    tried = "launch" if retry else "launch and train"
    assert said(world, instance, "restart")["outcome"] == tried
    assert first.reason in ("runner_system_failure", "runner_interrupted")
    until(lambda: job_of(run, "train", 2) and run.done, "the second try", 120)
    second = job_of(run, "train", 2)
    assert second
    assert second.conclusion == "success"
    assert len(run.all_jobs) == 4
    all_gone(world, 60)


@pytest.mark.parametrize("executor", ["shell"], indirect=True)
def test_variables_for_later_jobs_are_kept(world: World, start: Start) -> None:
    """`artifacts: reports: dotenv`. A container does not reach the embedded GitLab."""
    report = {"name": "", "paths": ["more.env"], "artifact_type": "dotenv"}
    world.gitlab.jobs.more = {
        "artifacts": [{**report, "artifact_format": "gzip", "when": "always", "untracked": False}]
    }
    start("--idle-timeout=5")
    job = ended(world, world.forge.queue_job(["cml"], 0, "echo MODEL=größe > more.env"))
    assert job.conclusion == "success", log_of(world, job)
    assert world.gitlab.jobs.reports.dotenv[job.id] == {"MODEL": "größe"}
    all_gone(world, 60)


@pytest.mark.parametrize("executor", ["docker"], indirect=True)
def test_volumes_and_services_of_docker(world: World, start: Start, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/set").write_text("of images")
    service = {"name": "ubuntu:24.04", "alias": "db", "command": ["sleep", "100"]}
    world.gitlab.jobs.more = {"services": [service]}
    start("--idle-timeout=5", f"--docker-volumes={tmp_path}/data:/data:ro")
    job = ended(world, world.forge.queue_job(["cml"], 0, "cat /data/set; getent hosts db"), 300)
    assert job.conclusion == "success", log_of(world, job)
    assert "of images" in log_of(world, job)
    all_gone(world, 60)


@pytest.mark.parametrize("executor", ["docker"], indirect=True)
def test_an_image_that_is_not_there_is_no_end_of_the_runner(world: World, start: Start) -> None:
    start("--idle-timeout=5")
    world.gitlab.jobs.more = {"image": {"name": "localhost:9/nothing:1"}}
    bad = ended(world, world.forge.queue_job(["cml"], 0, "true"), 300)
    assert bad.conclusion == "failure"
    assert bad.reason in ("image_pull_failure", "runner_external_dependency_failure")
    world.gitlab.jobs.more = {}
    assert ended(world, world.forge.queue_job(["cml"], 0, "true"), 300).conclusion == "success"
    all_gone(world, 60)
