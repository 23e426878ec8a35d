"""gitlab-runner's stand-in with the agent's member of GitLab: what its log and its processes say
of a job, in each version whose log differs."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from runner_action.agent import gitlab
from runner_action.agent.events import Event, JobFinished, JobStarted, RunnerExited, Settled
from runner_action.agent.process import Child, Tail, kill_session
from runner_action.sandbox.forges.gitlab.api import FakeGitLab
from runner_action.sandbox.forges.gitlab.releases import program_of
from tests.agent.test_spec import SPEC
from tests.sandbox.conftest import until

VERSIONS = ("17.1.2", "18.5.0", "19.4.0")
ALL = {"canary-token": ("api",)}


class Life:
    """A runner of that version or with that program, and the member that follows it."""

    def __init__(
        self,
        folder: Path,
        version: str,
        *,
        program: bytes = b"",
        single: bool = False,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self.served = FakeGitLab(ALL, version=version)
        seat = self.served.forge.seat("cml-1", ["train"], ephemeral=False, untagged=False)
        seat.secret = "glrt-canary-0123456789"
        self.folder = folder / "runner"
        self.folder.mkdir()
        file = self.folder / "gitlab-runner"
        file.write_bytes(program or program_of(version))
        file.chmod(0o755)
        spec = dataclasses.replace(
            SPEC,
            name="cml-1",
            forge="gitlab",
            runner_token=seat.secret,
            single=single,
            executor="shell",
            api_url=f"{self.served.server_url}/api/v4",
        )
        env = {"PATH": os.environ["PATH"], "HOME": str(folder), **(variables or {})}
        self.member = gitlab.Forge(spec, self.folder, env, {})
        self.codes: list[int] = []
        environment = self.member.environment(folder / "hooks", folder / "jobs")
        self.log = Tail(folder / "runner.log")
        self.child = Child.start(
            list(self.member.command), self.folder, environment, folder / "runner.log", self._ended
        )
        self.events: list[Event] = []
        self.lines: list[str] = []

    def _ended(self, code: int) -> None:
        self.codes.append(code)

    def works(self) -> bool:
        return self.member.works(self.child.pid)

    def heard(self) -> list[type[Event]]:
        """The kinds of all events until now."""
        for line in self.log.lines():
            self.lines.append(line)
            self.events += self.member.heard(line, time.monotonic())
        return [type(event) for event in self.events]

    def until(self, *last: type[Event]) -> None:
        until(lambda: tuple(self.heard()[-len(last) :]) == last, str(last))

    def until_all(self, expected: list[type[Event]]) -> None:
        """Since it is online."""
        until(lambda: self.heard()[1:] == expected, str(expected))

    def close(self) -> None:
        kill_session(self.child.pid)
        self.served.close()


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Callable[[str], Life]]:
    lives: list[Life] = []

    def begin(version: str = VERSIONS[-1], variables: Mapping[str, str] | None = None) -> Life:
        lives.append(Life(tmp_path, version, variables=variables))
        return lives[-1]

    yield begin
    for life in lives:
        life.close()


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("command", ["true", "exit 3"])
def test_an_idle_runner_of_each_version_ends_in_order_whatever_its_jobs_were(
    version: str, command: str, begin: Callable[[str], Life], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked while it is in a long poll: nothing but its log says that it has no job. A failed job
    has two lines about its end, and must not hide the next job's beginning."""
    monkeypatch.setattr(gitlab, "QUIT_SECONDS", 0.3)
    life = begin(version)
    life.served.poll = 20
    whole = [JobStarted, JobFinished, Settled, *[Settled] * (command != "true")]
    for number in (1, 2):
        life.served.forge.queue_job(["train"], 0.1, command)
        life.until_all(whole * number)
    (end, _) = (line for line in life.lines if '"msg":"Job ' in line)
    assert ("job-status" in end) is (version == "19.4.0")
    time.sleep(0.3)  # it asks for another
    assert life.member.retire(life.child)


def test_a_runner_with_a_job_after_a_failed_one_is_busy(
    begin: Callable[[], Life], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gitlab, "QUIT_SECONDS", 0.3)
    life = begin()
    life.served.forge.queue_job(["train"], 0, "exit 3")
    life.until(JobStarted, JobFinished, Settled, Settled)
    life.served.forge.queue_job(["train"], 60)
    life.until(JobStarted)
    assert not life.member.retire(life.child)


@pytest.mark.parametrize("change", ["canceling", "canceled"])
def test_a_job_that_is_taken_back_at_once_is_seen_to_be_none(
    change: str, begin: Callable[[], Life]
) -> None:
    """gitlab-runner has said that it got the job, and only that GitLab wants no more of it."""
    life = begin()
    life.served.jobs.at_hand_over.append(change)
    life.served.forge.queue_job(["train"], 60)
    life.until(JobStarted)
    until(lambda: life.heard() and not life.works(), "nothing to show for it")
    assert life.heard()[-1] is JobStarted
    life.served.forge.queue_job(["train"], 0.1)
    life.until(JobStarted, JobFinished, Settled)


def test_a_job_that_cannot_be_begun_is_over(begin: Callable[..., Life]) -> None:
    """gitlab-runner keeps the log of a job in a temporary file."""
    life = begin(variables={"TMPDIR": "/nowhere"})
    life.served.forge.queue_job(["train"], 60)
    life.until(JobStarted, Settled)


def test_a_job_is_seen_by_the_log_or_by_its_shell(
    begin: Callable[[], Life], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A silent one by lines that come without output; with GitLab out of reach, by its process.
    What an earlier job left behind is none."""
    life = begin()
    life.served.forge.queue_job(["train"], 0, "nohup sleep 50 >/dev/null 2>&1 &")
    life.until(JobStarted, JobFinished, Settled)
    job = life.served.forge.queue_job(["train"], 2.5, "echo")
    life.until(JobStarted)
    monkeypatch.setattr(gitlab.Forge, "outputs", lambda *_: [])
    monkeypatch.setattr(gitlab, "QUIET", 2.0)
    while job.status != "completed":
        assert life.works()
        life.heard()
        time.sleep(0.1)
    life.until(JobFinished, Settled)
    monkeypatch.setattr(gitlab, "QUIET", 0.0)
    assert not life.works()
    job = life.served.forge.queue_job(["train"], 60)
    life.until(JobStarted)
    until(life.works, "its shell")


def test_a_warning_is_written_into_the_log_of_the_job(begin: Callable[[], Life]) -> None:
    life = begin()
    job = life.served.forge.queue_job(["train"], 60, "echo begun; (sleep 60)")
    until(lambda: "begun" in life.served.jobs.traces.get(job.id, ""), "its output")
    (shell,) = life.member.outputs(life.child.pid)
    assert shell != life.child.pid
    with open(f"/proc/{shell}/fd/1", "wb", 0) as log:
        log.write(b"interrupted: idle\n")
    until(lambda: "interrupted: idle" in life.served.jobs.traces[job.id], "the warning")


def test_one_refusal_is_no_removal(begin: Callable[[], Life]) -> None:
    """What stands in front of GitLab answers so too: GitLab itself is asked, and it must say so
    in its own words."""
    life = begin()
    life.served.fail("POST", "/jobs/request$", 403)
    until(lambda: life.heard() and "forbidden" in str(life.lines), "the refusal")
    life.served.fail("POST", "/jobs/request$", 403)
    life.served.fail("POST", "/runners/verify$", 403)
    job = life.served.forge.queue_job(["train"], 0.1)
    until(lambda: job.status == "completed", "the job")
    assert RunnerExited not in life.heard()
    (seat,) = life.served.forge.seats()
    life.served.forge.remove(seat.id, force=True)
    life.until(RunnerExited)
