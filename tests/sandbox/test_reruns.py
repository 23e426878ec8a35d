"""Whole lives with "Re-run failed jobs": a re-run of the training job alone, with the outputs of
the launch job of an earlier attempt."""

from __future__ import annotations

import time

import pytest

from runner_action.agent.restart import LAUNCH_JOB
from runner_action.sandbox.forges.github.runs import failed
from runner_action.sandbox.forges.jobs import Job, Run
from runner_action.sandbox.world import World
from tests.sandbox.conftest import LEAST, Launch, all_gone, job_of, until

pytestmark = pytest.mark.sandbox


def bound(world: World, launch: Launch, command: str) -> Run:
    """A run whose second job has the output `label` of the first in `runs-on`, and nothing else.
    No token is on its machine."""
    run = world.forge.queue_run()

    def launching(job: Job) -> str:
        environ = world.job_environ(run.id, job.id, job.name, job.attempt, job.runner_name)
        launcher = launch("--idle-timeout=10", **{**environ, **LEAST})
        code = launcher.wait()
        job.notes += launcher.notes
        (needing,) = [other for other in run.jobs if other.name == "train"]
        needing.labels = frozenset({launcher.outputs["label"]})
        return "failure" if code else "success"

    world.forge.add_job(run, "launch", ["ubuntu-latest"], hosted=launching)
    world.forge.add_job(run, "train", [], 0.2, command, needs=["launch"])
    return world.forge.begin(run)


def test_the_machine_takes_the_job_again_while_it_is_there_and_else_a_new_one_is_launched(
    world: World, launch: Launch
) -> None:
    run = bound(world, launch, f"test -e {world.folder}/repaired || exit 3")
    until(lambda: run.done, "the first attempt", 90)
    world.forge.rerun(run, failed(run))
    until(lambda: run.done, "the second attempt", 60)
    first, second = job_of(run, "train", 1), job_of(run, "train", 2)
    assert first
    assert second
    assert (first.runner_name, first.labels) == (second.runner_name, second.labels)
    all_gone(world, 60)

    (world.folder / "repaired").touch()
    world.forge.rerun(run, failed(run))
    waiting = job_of(run, "train", 3)
    assert waiting
    world.github.tokens = {**world.github.tokens, "canary-of-the-job": "actions"}
    schedule = {"GITHUB_EVENT_NAME": "schedule", "REPO_TOKEN": "canary-of-the-job"}
    early = launch("restart", **schedule)
    assert early.wait() == 0, early.told
    assert "a runner may come within 600 s" in early.summary
    assert (waiting.status, run.attempt) == ("queued", 3)

    waiting.began = time.time() - 601
    restart = launch("restart", **schedule)
    assert restart.wait() == 0, restart.told
    assert restart.outputs["restarted"] == LAUNCH_JOB
    assert f"`train` needs a runner with {', '.join(waiting.labels)}" in restart.summary
    until(lambda: run.attempt == 4 and run.done, "the fourth attempt", 90)
    last = job_of(run, "train", 4)
    assert last
    assert (waiting.conclusion, last.conclusion) == ("cancelled", "success")
    assert len(world.machines.living) == 2
    all_gone(world, 60)
