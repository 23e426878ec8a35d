"""What a re-run needs of a forge: the launcher's client, the agent's own, and the fake in memory
keep one contract, and GitHub's description judges."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from runner_action.agent import github_token as agent_github
from runner_action.agent.plan import Leaving
from runner_action.agent.restart import FAILED_JOBS, LAUNCH_JOB, WHOLE_RUN, Restart
from runner_action.agent.restart import Job as SeenJob
from runner_action.agent.restart import Run as SeenRun
from runner_action.commands.restart import restart
from runner_action.errors import ForgeError
from runner_action.forges.github.client import GitHub
from runner_action.model import CiJob, ForgeName, LaunchJob, Repository, Secret
from runner_action.request import RestartRequest
from runner_action.sandbox.forges.github.api import FakeGitHub
from runner_action.sandbox.forges.jobs import Job, Run
from runner_action.waiting import SystemClock
from tests.contracts.openapi import Contract, description
from tests.fakes import FakeForge, agent_spec

PATHS = (
    "/repos/{owner}/{repo}/actions/runs/{run_id}",
    "/repos/{owner}/{repo}/actions/jobs/{job_id}",
    "/repos/{owner}/{repo}/actions/concurrency_groups/",
    "/repos/{owner}/{repo}/actions/runners",
    "/repos/{owner}/{repo}/check-runs",
)


@dataclass
class Repo:
    server: FakeGitHub

    @property
    def launcher(self) -> GitHub:
        return GitHub(Repository(url=f"{self.server.url}/octo/train"), Secret("canary-admin"))

    @property
    def agent(self) -> agent_github.Forge:
        spec = agent_spec(
            repository_url=f"{self.server.url}/octo/train",
            api_url=f"{self.server.url}/api/v3",
            api_token="canary-admin",
        )
        return agent_github.Forge(spec, Path("/nowhere"), {}, {})

    def run(self, *, ended: bool = True, many: int = 0, stubborn: bool = False) -> Run:
        """Two jobs: one launched a machine, the other was lost with it."""
        forge = self.server.forge
        run = forge.queue_run()

        def hosted(job: Job) -> str:
            while not ended and (job.status != "completed" if stubborn else not job.cancelled):
                time.sleep(0.02)
            return "success"

        forge.add_job(run, "launch", ["ubuntu-latest"], hosted=hosted)
        for number in range(many or 1):
            forge.add_job(run, f"train-{number}", ["gpu"], needs=["launch"])
        forge.begin(run)
        if ended:
            forge.wait(lambda: run.jobs[1].status == "queued", "the first job")
            for job in run.jobs[1:]:
                job.status = "completed"
                job.conclusion = "failure"
                job.runner_name = "cml-1"
            run.jobs[1].notes.append(("cml-runner", "interrupted: spot"))
        return run


@functools.cache
def described() -> dict[str, Any]:
    return description("ghec", *PATHS)


@pytest.fixture
def repo() -> Iterator[Repo]:
    server = FakeGitHub(tokens={"canary-admin": "admin"})
    try:
        # 304, 401, 403 and 404 are GitHub's answers everywhere, and seldom described.
        with Contract(
            described(), f"{server.url}/api/v3", undeclared=(304, 401, 403, 404)
        ) as contract:
            yield Repo(server)
        assert contract.seen, "nothing went by the judge"
    finally:
        server.close()


def seen(run: SeenRun) -> list[tuple[str, str, str, str]]:
    return [(job.name, job.status, job.conclusion, job.runner) for job in run.jobs]


def whole(agent: agent_github.Forge, run: Run) -> SeenRun:
    return replace(agent.run(run.id), jobs=agent.jobs(run.id))


def test_launcher_and_agent_see_the_same_run(repo: Repo) -> None:
    run = repo.run()
    theirs, ours = repo.launcher.run(run.id, datetime.now(UTC)), whole(repo.agent, run)
    assert seen(theirs) == seen(ours)
    assert seen(ours)[1] == ("train-0", "completed", "failure", "cml-1")
    assert (
        (ours.id, ours.attempt, ours.done)
        == (theirs.id, theirs.attempt, theirs.done)
        == (run.id, 1, True)
    )
    assert 0 <= ours.age < 60
    assert abs(ours.age - theirs.age) < 5
    assert ours.jobs == theirs.jobs


def test_a_run_of_very_many_jobs_is_read_to_its_end(repo: Repo) -> None:
    run = repo.run(many=250)
    assert (
        len(repo.launcher.run(run.id, datetime.now(UTC)).jobs)
        == len(repo.agent.jobs(run.id))
        == 251
    )


@pytest.mark.parametrize("caller", ["launcher", "agent"])
@pytest.mark.parametrize(
    ("what", "again"),
    [
        (LAUNCH_JOB, {"launch", "train-0"}),
        (FAILED_JOBS, {"train-0"}),
        (WHOLE_RUN, {"launch", "train-0"}),
    ],
)
def test_each_way_to_re_run(what: str, again: set[str], caller: str, repo: Repo) -> None:
    run = repo.run()
    client = getattr(repo, caller)
    assert client.rerun(what, run.id, run.jobs[0].id) is None
    assert run.attempt == 2
    assert {job.name for job in run.all_jobs if job.attempt == 2} == again


@pytest.mark.parametrize("caller", ["launcher", "agent"])
def test_a_refusal_is_told_in_githubs_words(caller: str, repo: Repo) -> None:
    run = repo.run(ended=False)
    refused = getattr(repo, caller).rerun(WHOLE_RUN, run.id, None)
    assert "already running" in (refused or "")
    assert "canary" not in (refused or "")
    assert repo.agent.cancel(run.id, False) is None


def test_the_agent_cancels_gently_and_with_force(repo: Repo) -> None:
    run = repo.run(ended=False, stubborn=True)
    assert repo.agent.cancel(run.id, False) is None
    assert [job.status for job in run.jobs] == ["in_progress", "completed"]
    assert repo.agent.cancel(run.id, True) is None
    assert [job.status for job in run.jobs] == ["completed", "completed"]
    assert "completed" in (repo.agent.cancel(run.id, True) or "")


def test_what_is_not_there(repo: Repo) -> None:
    with pytest.raises(ForgeError):
        repo.launcher.run(4242, datetime.now(UTC))
    with pytest.raises(OSError, match="404"):
        repo.agent.run(4242)
    assert repo.launcher.rerun(LAUNCH_JOB, 4242, 4242)
    assert repo.agent.rerun(LAUNCH_JOB, 4242, 4242)


def test_annotations_of_a_job(repo: Repo) -> None:
    run = repo.run()
    assert repo.launcher.annotations(run.jobs[1].id) == [("cml-runner", "interrupted: spot")]
    assert repo.launcher.annotations(run.jobs[0].id) == []


def test_the_launch_job_is_known_by_its_runner(repo: Repo) -> None:
    run = repo.run(ended=False)
    launching = run.jobs[0]
    asked = CiJob(
        repository_url=f"{repo.server.url}/octo/train",
        run_id=run.id,
        attempt=1,
        runner_name=launching.runner_name,
    )
    assert repo.launcher.launch_job(asked) == LaunchJob(
        run_id=run.id, id=launching.id, name="launch"
    )
    assert repo.launcher.launch_job(replace(asked, runner_name="another")) is None
    repo.agent.cancel(run.id, False)


def test_the_fake_in_memory_answers_alike() -> None:
    """In the shapes that the tests above saw from GitHub."""
    fake = FakeForge()
    fake.runs[1] = SeenRun(
        1,
        1,
        True,
        5.0,
        (SeenJob(1, "launch", "completed", "success", "hosted", ("ubuntu-latest",)),),
    )
    fake.refuses = (WHOLE_RUN,)
    assert fake.run(1, datetime.now(UTC)).attempt == 1
    assert (fake.rerun(LAUNCH_JOB, 1, 1), fake.rerun(WHOLE_RUN, 1, None)) == (None, "refused")
    assert fake.annotations(1) == []
    assert fake.launch_job(
        CiJob(
            repository_url="https://forge.test/octo/train",
            run_id=1,
            attempt=1,
            runner_name="hosted",
        )
    )


# --- concurrency groups


def in_group(repo: Repo, *, cancels: bool = False) -> Run:
    run = repo.server.forge.queue_run("Train-main/1", cancels=cancels)
    repo.server.forge.add_job(run, "train", ["gpu"])
    return repo.server.forge.begin(run)


def taken(repo: Repo, run: Run) -> None:
    """A runner takes the run's job."""
    seat = repo.server.forge.seat(f"cml-{run.id:010x}-{run.attempt}", ["gpu"], ephemeral=True)
    repo.server.forge.set_online(seat, True)
    assert repo.server.forge.next_job(seat, wait=0) is run.jobs[-1]


def ended(repo: Repo, run: Run, conclusion: str = "failure") -> None:
    for seat in repo.server.forge.seats():
        if seat.job in run.jobs:
            repo.server.forge.complete(seat, conclusion)


def states(repo: Repo, *runs: Run) -> list[str]:
    """As GitHub shows them. No runner could take a job of a run that is pending."""
    waiting = [job.status for run in runs if run.pending and not run.done for job in run.jobs]
    assert set(waiting) <= {"waiting"}
    shown = [repo.agent.get(f"/repos/octo/train/actions/runs/{run.id}") for run in runs]
    return [run["conclusion"] or run["status"] for run in shown]


def test_one_run_of_a_group_runs_and_one_waits(repo: Repo) -> None:
    first, second = in_group(repo), in_group(repo)
    taken(repo, first)
    assert states(repo, first, second) == ["in_progress", "pending"]
    third = in_group(repo)
    assert states(repo, first, second, third) == ["in_progress", "cancelled", "pending"]
    ended(repo, first, "success")
    assert states(repo, first, second, third) == ["success", "cancelled", "in_progress"]


def test_a_run_that_cancels_what_runs_begins_when_that_has_ended(repo: Repo) -> None:
    first = in_group(repo, cancels=True)
    taken(repo, first)
    second = in_group(repo, cancels=True)
    assert (first.jobs[0].cancelled, states(repo, first, second)) == (
        True,
        ["in_progress", "pending"],
    )
    ended(repo, first, "cancelled")
    assert states(repo, first, second) == ["cancelled", "in_progress"]


@pytest.mark.parametrize("cancels", [False, True])
def test_a_re_run_enters_its_group_as_a_new_run_does(cancels: bool, repo: Repo) -> None:
    first = in_group(repo, cancels=cancels)
    taken(repo, first)
    ended(repo, first)
    second, third = in_group(repo), in_group(repo)
    taken(repo, second)
    assert repo.agent.rerun(WHOLE_RUN, first.id, None) is None
    assert states(repo, third, first) == ["cancelled", "pending"]
    assert second.jobs[0].cancelled is cancels
    ended(repo, second)
    assert states(repo, first) == ["in_progress"]
    taken(repo, first)


@pytest.mark.parametrize("caller", ["launcher", "agent"])
def test_who_is_in_the_groups_of_a_run(caller: str, repo: Repo) -> None:
    client = getattr(repo, caller)
    assert list(client.rivals(repo.run().id)) == []
    first, second = in_group(repo), in_group(repo)
    taken(repo, first)
    both = [first.id, second.id]
    assert list(client.rivals(first.id)) == list(client.rivals(second.id)) == both
    ended(repo, first)
    assert list(client.rivals(first.id)) == both[1:]
    taken(repo, second)
    ended(repo, second)
    assert list(client.rivals(first.id)) == [], "GitHub does not know a group in which nothing is"
    assert ("GET", 404) in [(method, status) for method, _, status in repo.server.requests]
    repo.server.fail("GET", "concurrency_groups", 404)
    with pytest.raises((ForgeError, OSError), match="404"):
        list(client.rivals(first.id))


def restarted(caller: str, repo: Repo, run: Run) -> str:
    """What the machine of a lost job does, or the other workflow."""
    if caller == "launcher":
        request = RestartRequest(
            forge=ForgeName.GITHUB,
            repository=Repository(url=f"{repo.server.url}/octo/train"),
            token=Secret("canary-admin"),
            log="info",
            run_id=run.id,
            dry_run=False,
            restart_limit=5,
        )
        return restart(request, repo.launcher, SystemClock()).summary
    spec = agent_spec(name=f"cml-{run.id:010x}-1", restart_limit=5)
    return Restart(repo.agent, ("octo/train", run.id, 1), spec).restart(Leaving(5, 2))


@pytest.mark.parametrize("caller", ["launcher", "agent"])
@pytest.mark.parametrize("cancels", [False, True])
@pytest.mark.parametrize("waits", [False, True])
def test_a_restart_cancels_no_other_run(
    waits: bool, cancels: bool, caller: str, repo: Repo
) -> None:
    """Neither one that has begun, nor one that waits behind it, nor one that has superseded it."""
    first = in_group(repo, cancels=cancels)
    taken(repo, first)
    first.jobs[0].notes.append(("cml-runner", "interrupted: the machine is being taken away"))
    newer = [in_group(repo, cancels=cancels)]
    ended(repo, first, "cancelled" if cancels else "failure")
    taken(repo, newer[0])
    if waits:
        newer.append(in_group(repo))
    before = states(repo, *newer)
    outcome = restarted(caller, repo, first)
    assert "ot restarted: " in outcome
    assert f"run {newer[0].id} is in the same concurrency group" in outcome
    assert (first.attempt, states(repo, *newer)) == (1, before)
    assert not any(job.cancelled for run in newer for job in run.jobs)
    while newer:
        run = newer.pop(0)
        ended(repo, run)
        if newer:
            taken(repo, newer[0])
    assert FAILED_JOBS in restarted(caller, repo, first)
    assert first.attempt == 2
