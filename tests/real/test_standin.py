"""The stand-in, as if it were of the same version, says what the real gitlab-runner says: the same
messages in the same order, with the same fields. All other tests of the agent rest on that."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from runner_action.agent.process import kill_session
from runner_action.sandbox.forges.gitlab.releases import program_of
from runner_action.sandbox.forges.jobs import Job
from tests.sandbox.conftest import until
from tests.sandbox.test_gitlab_runner import Life

NO_FIELDS = ("time", "correlation_id")
PROGRESS = re.compile("coordinator\\.\\.\\.|Updating job|Waiting before")
"""How often these come depends on intervals, which the stand-in shortens."""
LASTING = "while sleep 0.3; do echo on; done"
Said = tuple[str, str, tuple[str, ...]]


def said(line: str, server: str) -> Said:
    """Level, words and fields of a message."""
    entry = json.loads(line)
    words = entry["msg"].replace(server, "SERVER").replace("\n", "\\n")
    return entry["level"], words, tuple(sorted(set(entry) - set(NO_FIELDS)))


class Story:
    """A life of a runner with one of the two programs."""

    def __init__(self, folder: Path, program: bytes, single: bool) -> None:
        self.life = Life(folder, "19.4.0", program=program, single=single)
        self.life.served.forge.lost_after = 100
        self.life.served.poll = 1

    def queue(self, command: str, always: str = "") -> Job:
        forge = self.life.served.forge
        run = forge.queue_run()
        forge.add_job(run, "train", ["train"], 0, command, always=always)
        return forge.begin(run).jobs[0]

    def ended(self, job: Job) -> Job:
        until(lambda: job.status == "completed", "the job", 60)
        return job

    def begun(self) -> Job:
        job = self.queue(LASTING)
        until(lambda: "on" in self.life.served.jobs.traces.get(job.id, ""), "its output", 30)
        return job

    def signal(self, number: int) -> None:
        os.kill(self.life.child.pid, number)

    def over(self) -> None:
        until(lambda: self.life.codes, "its end", 30)

    def quit(self) -> None:
        """Whatever it has to say of its last job comes before."""
        if not self.life.codes:
            self.signal(signal.SIGQUIT)
        self.over()

    def messages(self) -> tuple[list[Said], set[Said], list[int]]:
        """Those about states, in order; those about progress; its exit codes."""
        self.life.heard()
        server = self.life.served.server_url
        everything = [said(line, server) for line in self.life.lines]
        states = [one for one in everything if not PROGRESS.search(one[1])]
        return list(dict.fromkeys(states)), set(everything) - set(states), self.life.codes


def jobs(story: Story) -> None:
    assert story.ended(story.queue("true")).conclusion == "success"
    assert story.ended(story.queue("exit 3")).reason == "script_failure"


def one_job(story: Story) -> None:
    story.ended(story.queue("exit 3"))
    story.over()  # by itself


def handed_over(change: str) -> Callable[[Story], None]:
    def play(story: Story) -> None:
        story.life.served.jobs.at_hand_over.append(change)
        story.queue(LASTING)
        story.ended(story.queue("true"))

    return play


def cancelled(force: bool) -> Callable[[Story], None]:
    def play(story: Story) -> None:
        job = story.begun()
        story.life.served.forge.cancel_job(job, force=force)
        until(lambda: story.life.heard() and "Failed to process" in story.life.lines[-1], "it", 60)
        assert job.conclusion == "cancelled"

    return play


def aborted(number: int) -> Callable[[Story], None]:
    def play(story: Story) -> None:
        job = story.begun()
        story.signal(number)
        story.over()
        assert job.conclusion == "failure"

    return play


def asked_to_quit(story: Story) -> None:
    job = story.queue("echo on; sleep 4")
    until(lambda: story.life.heard() and "received" in str(story.life.lines), "it to begin")
    story.signal(signal.SIGQUIT)
    assert story.ended(job).conclusion == "success"
    story.over()


def removed(story: Story) -> None:
    story.ended(story.queue("true"))
    story.life.served.forge.remove(1, force=True)
    until(lambda: story.life.heard() and "not healthy" in story.life.lines[-1], "a refusal", 30)
    story.signal(signal.SIGTERM)
    story.over()


def unfinished(story: Story) -> None:
    """As GitLab.com does: it has to be told of the end again."""
    story.life.served.jobs.unfinished = 2
    story.ended(story.queue("true"))


def failing(status: int) -> Callable[[Story], None]:
    def play(story: Story) -> None:
        story.life.served.fail("POST", "/jobs/request$", status, times=6)
        until(lambda: "for jobs" in str(story.life.heard() and story.life.lines), "it", 30)
        story.ended(story.queue("true"))

    return play


STORIES: dict[str, Callable[[Story], None]] = {
    "jobs": jobs,
    "single": one_job,
    "canceling at hand-over": handed_over("canceling"),
    "canceled at hand-over": handed_over("canceled"),
    "cancelled": cancelled(force=False),
    "cancelled by force": cancelled(force=True),
    "SIGINT": aborted(signal.SIGINT),
    "SIGTERM": aborted(signal.SIGTERM),
    "SIGQUIT": asked_to_quit,
    "removed": removed,
    "unfinished": unfinished,
    "500": failing(500),
    "503": failing(503),
}


@pytest.fixture(scope="session")
def version(gitlab_runner: Path) -> str:
    shown = subprocess.run([gitlab_runner, "--version"], capture_output=True, text=True, check=True)
    (number,) = re.findall(r"^Version: +(\d+\.\d+\.\d+)", shown.stdout, re.M)
    return str(number)


@pytest.fixture
def tell(tmp_path: Path) -> Iterator[Callable[[str, bytes], Any]]:
    stories: list[Story] = []

    def tell(name: str, program: bytes) -> Any:
        folder = tmp_path / str(len(stories))
        folder.mkdir()
        stories.append(Story(folder, program, name == "single"))
        STORIES[name](stories[-1])
        stories[-1].quit()
        return stories[-1].messages()

    yield tell
    for story in stories:
        kill_session(story.life.child.pid)
        story.life.close()


@pytest.mark.parametrize("name", STORIES)
def test_the_stand_in_says_what_the_program_says(
    name: str, gitlab_runner: Path, version: str, tell: Callable[[str, bytes], Any]
) -> None:
    ours = tell(name, program_of(version))
    theirs = tell(name, gitlab_runner.read_bytes())
    assert ours[0] == theirs[0]
    assert ours[1] == theirs[1]
    assert ours[2] == theirs[2]
