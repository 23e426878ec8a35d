"""Runs that have not ended: the launcher's client and the embedded GitHub, which GitHub's
description judges."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from runner_action.errors import ForgeError
from runner_action.forges.github.client import GitHub
from runner_action.model import Repository, Secret
from runner_action.sandbox.forges.github.api import FakeGitHub
from runner_action.sandbox.forges.github.reruns import expire
from runner_action.sandbox.forges.github.runs import failed
from runner_action.sandbox.forges.jobs import Run
from tests.contracts.openapi import Contract, description

PATHS = tuple(f"/repos/{{owner}}/{{repo}}/{part}" for part in ("actions/run", "check-runs"))


@pytest.fixture
def server() -> Iterator[FakeGitHub]:
    server = FakeGitHub(tokens={"canary-of-the-job": "actions"})
    try:
        with Contract(
            description("ghec", *PATHS), f"{server.url}/api/v3", undeclared=(304, 401, 403, 404)
        ):
            yield server
    finally:
        server.close()


def client_of(server: FakeGitHub) -> GitHub:
    return GitHub(Repository(url=f"{server.url}/octo/train"), Secret("canary-of-the-job"))


def waiting(server: FakeGitHub) -> Run:
    """A run whose second attempt waits for a runner."""
    forge = server.forge
    run = forge.queue_run()
    forge.add_job(run, "launch", ["ubuntu-latest"], hosted=lambda _job: "success")
    forge.add_job(run, "train", ["cml-0123456789"], needs=["launch"])
    forge.begin(run)
    forge.wait(lambda: run.jobs[1].status == "queued", "the first job")
    run.jobs[1].status = "completed"
    run.jobs[1].conclusion = "failure"
    forge.rerun(run, failed(run))
    return run


def test_a_run_that_waits_is_found_and_cancelled_by_the_jobs_own_token(server: FakeGitHub) -> None:
    client, run = client_of(server), waiting(server)
    assert client.unfinished() == [run.id]
    tries = client.tries(run.id, datetime.now(UTC))
    assert [(one.job.name, one.job.status) for one in tries] == [
        ("launch", "completed"),
        ("train", "completed"),
        ("train", "queued"),
    ]
    assert all(-1 <= one.age < 60 for one in tries)
    client.cancel(run.id)
    assert (client.unfinished(), run.conclusion) == ([], "cancelled")
    with pytest.raises(ForgeError, match="completed"):
        client.cancel(run.id)
    with pytest.raises(ForgeError, match="not accessible by integration"):
        client.runners()


def test_a_job_that_nobody_took_is_cancelled_in_githubs_words(server: FakeGitHub) -> None:
    run = waiting(server)
    expire(server.forge, run.jobs[1])
    assert client_of(server).run(run.id, datetime.now(UTC)).done
    assert run.jobs[1].conclusion == "cancelled"
    ((_, text),) = client_of(server).annotations(run.jobs[1].id)
    assert "while awaiting a runner" in text
