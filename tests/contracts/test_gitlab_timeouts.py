"""The default timeout of a GitLab project, an hour, ends a training, and nothing restarts it: a
launch says so."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from runner_action.errors import ForgeError
from runner_action.forges.gitlab.client import GitLab
from runner_action.model import Repository, Secret
from runner_action.sandbox.forges.gitlab.api import FakeGitLab
from tests.contracts.openapi import gitlab_judge

HOUR = 3600
DAY = 24 * HOUR


@pytest.fixture(scope="module")
def server() -> Iterator[FakeGitLab]:
    fake = FakeGitLab({"canary-admin": ["api"]})
    with gitlab_judge(fake.server_url, undeclared=(403, 404)):
        yield fake
    fake.close()


def client(server: FakeGitLab, url: str = "") -> GitLab:
    address = f"{server.server_url}/api/v4"
    return GitLab(Repository(url=url or server.repo_url), Secret("canary-admin"), address)


@pytest.mark.parametrize(
    ("timeout", "longest", "told"),
    [
        (HOUR, 5 * DAY, "after 1 h,"),
        (HOUR, None, "after 1 h,"),
        (90 * 60, 5 * DAY, "after 1 h 30 min,"),
        (10 * 60, 5 * DAY, "after 10 min,"),
        (6 * HOUR, 5 * DAY, "after 6 h,"),
        (6 * HOUR + 1, 5 * DAY, ""),
        (DAY, 5 * DAY, ""),
        (HOUR, HOUR, ""),
        (HOUR, 600, ""),
    ],
)
def test_a_short_default_timeout_is_told_with_what_to_write(
    timeout: int, longest: int | None, told: str, server: FakeGitLab
) -> None:
    server.rules.build_timeout = timeout
    sentences = client(server).cautions(longest)
    assert len(sentences) == bool(told)
    assert all(told in text and "`timeout: 24h`" in text for text in sentences)


def log_of(script: str, timeout: str) -> str:
    """What a job with this timeout in seconds has in its log, if its script begins with this."""
    done = subprocess.run(
        ["sh", "-euc", f"{script}\necho goes on"],
        env={"CI_JOB_TIMEOUT": timeout},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout + done.stderr


@pytest.mark.parametrize("timeout", [HOUR, 10 * 60])
def test_a_job_with_the_short_default_timeout_is_told_in_its_log(
    timeout: int, server: FakeGitLab
) -> None:
    server.rules.build_timeout = timeout
    forge = client(server)
    script = forge.register_one("cml-1", ["cml"], "x64", longest=5 * DAY).before_jobs
    told = log_of(script, str(timeout))
    assert told.startswith("cml-runner: GitLab ends this job after ")
    assert "timeout: 24h" in told
    assert told.endswith("\ngoes on\n")
    assert log_of(script, str(DAY)) == "goes on\n", "it has a timeout of its own"


@pytest.mark.parametrize(("timeout", "longest"), [(DAY, 5 * DAY), (HOUR, HOUR)])
def test_jobs_whose_time_is_not_short_are_told_nothing(
    timeout: int, longest: int, server: FakeGitLab
) -> None:
    server.rules.build_timeout = timeout
    forge = client(server)
    assert forge.register_one("cml-2", ["cml"], "x64", longest=longest).before_jobs == ""


def test_it_costs_no_call_that_the_launch_does_not_make_anyway(server: FakeGitLab) -> None:
    server.rules.build_timeout = HOUR
    forge = client(server)
    forge.runners(labels=False)
    before = len(server.requests)
    assert forge.cautions(5 * DAY)
    assert len(server.requests) == before


def test_a_group_has_no_timeout_to_tell(server: FakeGitLab) -> None:
    assert client(server, server.group_url).cautions(5 * DAY) == []


def test_a_job_of_a_group_with_the_usual_hour_is_told_in_its_log(server: FakeGitLab) -> None:
    forge = client(server, server.group_url)
    script = forge.register_one("cml-3", ["cml"], "x64", longest=5 * DAY).before_jobs
    assert log_of(script, str(HOUR)).startswith("cml-runner: GitLab ends this job after 1 h.")
    assert log_of(script, str(2 * HOUR)) == "goes on\n"
    short = forge.register_one("cml-4", ["cml"], "x64", longest=HOUR)
    assert short.before_jobs == ""


def test_a_project_that_cannot_be_read_is_an_error_of_ours(server: FakeGitLab) -> None:
    server.fail("GET", "/projects/octo/train$", 403)
    with pytest.raises(ForgeError):
        client(server).cautions(5 * DAY)
