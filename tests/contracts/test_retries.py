"""How a machine leaves GitLab and retries jobs there: the agent's own calls, against the fake
GitLab, judged by GitLab's description."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runner_action.agent import gitlab
from runner_action.agent.gitlab_token import Forge
from runner_action.agent.lifecycle import GONE
from runner_action.agent.plan import Leaving
from runner_action.sandbox.forges.gitlab.api import FakeGitLab
from runner_action.sandbox.forges.jobs import Job, Run
from tests.contracts.openapi import gitlab_judge
from tests.fakes import agent_spec

PLAN = Leaving(seconds=4, force=1)


@pytest.fixture
def server() -> Iterator[FakeGitLab]:
    fake = FakeGitLab({"canary-admin": ["api"], "canary-reader": ["read_api"]}, prefix="/git")
    with gitlab_judge(fake.server_url, undeclared=(401, 403, 404, 503)):
        yield fake
    fake.close()


def agent(server: FakeGitLab, launch: Job | None = None, **fields: Any) -> Forge:
    known: dict[str, Any] = {}
    if launch:
        known = {
            "launch_run": launch.run_id,
            "launch_job": launch.id,
            "launch_job_name": launch.name,
            "launch_project": "octo/train",
        }
    own = server.forge.by_name("cml-1")
    known |= {"api_token": "canary-admin", "restart_limit": 5, "runner_id": own.id if own else None}
    spec = agent_spec(forge="gitlab", api_url=f"{server.server_url}/api/v4", **{**known, **fields})
    return Forge(spec, Path("/nowhere"), {}, {})


def pipeline(
    server: FakeGitLab, *, status: str = "completed", conclusion: str = "failure"
) -> tuple[Run, Job, Job]:
    """A launch job that went well, and a job that ran on what it launched."""
    memory = server.forge
    run = memory.queue_run()
    launch = memory.add_job(run, "launch", ["hosted"], hosted=lambda _: "success")
    train = memory.add_job(run, "train", ["cml"], needs=["launch"])
    memory.begin(run)
    memory.wait(lambda: train.status == "queued", "the first job")
    train.status, train.conclusion = status, conclusion
    train.runner_name = (
        memory.by_name("cml-1") or memory.seat("cml-1", ["cml"], ephemeral=False)
    ).name
    return run, launch, train


def names(run: Run) -> list[str]:
    return [job.name for job in run.all_jobs]


def test_it_leaves_with_its_own_token_which_is_never_in_an_address(server: FakeGitLab) -> None:
    seat = server.forge.seat("cml-1", ["cml"], ephemeral=False)
    one = gitlab.Forge(
        agent_spec(forge="gitlab", api_url=f"{server.server_url}/api/v4", runner_token=seat.secret),
        Path("/nowhere"),
        {},
        {},
    )
    assert one.leave() == GONE
    assert server.forge.seats() == []
    assert one.leave() == GONE, "absent is as good"
    server.fail("DELETE", "/runners$", 503)
    assert one.leave() == "HTTP 503"


def test_the_launch_job_comes_first_then_the_job(server: FakeGitLab) -> None:
    run, launch, train = pipeline(server)
    assert agent(server, launch).restart(("octo/train", train.id, None), PLAN) == "launch and train"
    assert names(run) == ["launch", "train", "launch", "train"]
    assert [
        path.rpartition("/jobs/")[2] for method, path, _ in server.requests if method == "POST"
    ] == [f"{launch.id}/retry", f"{train.id}/retry"]


def test_nobody_is_retried_twice(server: FakeGitLab) -> None:
    """Two machines of one launch are taken at the same time: each retries its own job, and the
    launch job runs already."""
    run, launch, train = pipeline(server)
    memory = server.forge
    other = memory.add_job(run, "eval", ["cml"], needs=["launch"])
    other.status = "completed"
    other.conclusion = "failure"
    other.runner_name = "cml-1"
    launch.hosted = lambda _: time.sleep(5) or "success"  # type: ignore[func-returns-value]
    assert agent(server, launch).restart(("octo/train", train.id, None), PLAN) == "launch and train"
    assert agent(server, launch).restart(("octo/train", other.id, None), PLAN) == "eval"
    assert (
        agent(server, launch).restart(("octo/train", train.id, None), PLAN)
        == "not restarted: it was already retried"
    )
    assert sorted(names(run)) == ["eval", "eval", "launch", "launch", "train", "train"]


def test_a_job_that_does_not_end_is_cancelled_and_then_retried(server: FakeGitLab) -> None:
    run, launch, train = pipeline(server, status="in_progress", conclusion="")
    seat = server.forge.by_name("cml-1")
    assert seat
    seat.job, train.runner_name = train, seat.name
    done: list[str] = []
    thread = threading.Thread(
        target=lambda: done.append(
            agent(server, launch).restart(("octo/train", train.id, None), PLAN)
        )
    )
    thread.start()
    server.forge.wait(lambda: train.conclusion == "cancelled", "the cancellation by force", 10)
    thread.join(10)
    assert done == ["launch and train"]
    assert [path.rpartition("/")[2] for method, path, _ in server.requests if method == "POST"] == [
        "cancel",
        "cancel",
        "retry",
        "retry",
    ]
    assert names(run).count("train") == 2


def test_without_a_launch_job_of_this_project_only_the_job(server: FakeGitLab) -> None:
    run, _, train = pipeline(server)
    assert agent(server).restart(("octo/train", train.id, None), PLAN) == "train"
    assert names(run) == ["launch", "train", "train"]


@pytest.mark.parametrize("whose", ["another runner's", "nobody's"])
def test_a_job_that_is_not_this_runners_is_left_alone_whoever_named_it(
    whose: str, server: FakeGitLab
) -> None:
    run, launch, train = pipeline(server)
    other = server.forge.seat("theirs", ["cml"], ephemeral=False)
    train.runner_name = other.name if whose == "another runner's" else ""
    one = agent(server, launch)
    assert (
        one.restart(("octo/train", train.id, None), PLAN)
        == f"not restarted: job {train.id} of octo/train is not on this runner"
    )
    assert [method for method, _, _ in server.requests if method != "GET"] == []
    assert names(run) == ["launch", "train"]


@pytest.mark.parametrize(
    ("fields", "conclusion", "why"),
    [
        ({"restart_limit": 0}, "failure", "restarting is switched off"),
        ({}, "success", "the job succeeded"),
        ({"api_token": "canary-reader"}, "failure", "launch: HTTP 403"),
        ({"api_token": "canary-wrong"}, "failure", "HTTP 401"),
    ],
)
def test_why_not(fields: dict[str, Any], conclusion: str, why: str, server: FakeGitLab) -> None:
    run, launch, train = pipeline(server, conclusion=conclusion)
    told = agent(server, launch, **fields).restart(("octo/train", train.id, None), PLAN)
    assert told.startswith("not restarted: ")
    assert why in told
    assert len(run.all_jobs) == 2


def test_a_job_that_waits_for_us_is_known_by_its_tags(server: FakeGitLab) -> None:
    _, launch, train = pipeline(server, status="queued", conclusion="")
    one = agent(server, launch, labels=("cml",))
    assert one.waiting() == ("octo/train", launch.id, None)
    assert agent(server, launch, labels=("other",)).waiting() is None
    assert agent(server).waiting() is None
    train.status = "in_progress"
    assert one.waiting() is None
