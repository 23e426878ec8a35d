"""A runner that wants to leave, and launches that count on it: the agent's calls, held to the
forges' own descriptions."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from runner_action import claim
from runner_action.agent import tokens
from runner_action.agent.forge import Member, member
from runner_action.agent.github_token import Forge as WithToken
from runner_action.agent.lifecycle import GONE, REFUSED
from runner_action.agent.process import Child
from runner_action.agent.restart import Run
from runner_action.forges.base import Forge
from runner_action.forges.github.client import GitHub
from runner_action.forges.github.levels import root_of
from runner_action.forges.gitlab.client import GitLab
from runner_action.model import Repository, Runner, Secret
from runner_action.sandbox.forges.github.api import FakeGitHub
from runner_action.sandbox.forges.gitlab.api import FakeGitLab
from runner_action.sandbox.forges.jobs import Pace
from runner_action.waiting import SystemClock
from tests.contracts.openapi import Contract, description, gitlab_judge
from tests.fakes import agent_spec

CLOCK = SystemClock()
TOKEN = "canary-admin"


class Side:
    """One online runner, as its agent and as a launcher know it."""

    def __init__(self, server: FakeGitHub | FakeGitLab, folder: Path, where: str) -> None:
        self.server = server
        self.folder = folder
        self.where = where
        url, secret = Repository(url=where), Secret(TOKEN)
        self.seat = server.forge.seat(
            "one",
            ["cml"],
            ephemeral=False,
            owner=root_of(url)[1:] if isinstance(server, FakeGitHub) else "",
        )
        server.forge.set_online(self.seat, True)
        self.forge: Forge = (
            GitHub(url, secret)
            if isinstance(server, FakeGitHub)
            else GitLab(url, secret, f"{server.server_url}/api/v4")
        )
        self.agent = self.member(TOKEN)

    def member(self, token: str | None) -> Member:
        on_github = isinstance(self.server, FakeGitHub)
        api = (
            f"{self.server.url}/api/v3"
            if isinstance(self.server, FakeGitHub)
            else f"{self.server.server_url}/api/v4"
        )
        place = {
            "forge": "github" if on_github else "gitlab",
            "repository_url": self.where,
            "api_url": api,
        }
        (self.folder / "runner").mkdir(exist_ok=True)
        return member(
            agent_spec(**place, api_token=token, runner_id=self.seat.id),
            self.folder / "runner",
            {},
            {},
        )

    def runner(self) -> Runner:
        (found,) = self.forge.runners()
        return found

    def claimed(self, seconds: float = 60, *, shared: bool = False) -> bool:
        return self.forge.claim(
            self.runner(),
            claim.claim("0123456789", CLOCK.now() + timedelta(seconds=seconds)),
            CLOCK,
            shared=shared,
        )


@pytest.fixture(params=["octo/train", "octo", "enterprises/acme", "gitlab"])
def side(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Side]:
    if request.param == "gitlab":
        gitlab = FakeGitLab({TOKEN: ["api"]})
        with gitlab_judge(gitlab.server_url):
            yield Side(gitlab, tmp_path, gitlab.repo_url)
        gitlab.close()
        return
    github = FakeGitHub({TOKEN: "admin"})
    with Contract(
        description("ghec", "/actions/runners"), f"{github.url}/api/v3", undeclared=(304, 401)
    ):
        yield Side(github, tmp_path, f"{github.url}/{request.param}")
    github.close()


@pytest.fixture
def child(tmp_path: Path) -> Iterator[Child]:
    """A runner process that ends when it is asked to."""
    started = Child.start(
        ["sleep", "60"],
        tmp_path,
        {"PATH": "/usr/bin:/bin"},
        tmp_path / "runner.log",
        lambda _: None,
    )
    yield started
    started.stop(0, lambda: True)


def test_a_runner_that_nobody_counts_on_may_leave(side: Side, child: Child) -> None:
    assert side.agent.retire(child)
    assert not side.agent.claimed
    if side.runner().claims:
        assert not side.claimed(shared=True), "a launch passes it over from now on"


def test_a_runner_that_is_counted_on_stays_and_its_process_lives_on(
    side: Side, child: Child
) -> None:
    assert side.claimed()
    assert not side.agent.retire(child)
    assert side.agent.claimed
    assert side.agent.ended(0)[0] in (0, 2), "2: started anew"


def test_not_longer_than_the_claim_says(side: Side, child: Child) -> None:
    side.claimed(-1)
    assert side.agent.retire(child)


def test_a_busy_runner_that_is_taken_away_is_passed_over(side: Side) -> None:
    side.server.forge.queue_job(["cml"])
    assert side.server.forge.next_job(side.seat, wait=0)
    side.agent.retire(None)
    assert not side.runner().online or not side.claimed(shared=True)


def test_without_a_token_it_leaves_unasked(side: Side, child: Child) -> None:
    assert side.claimed()
    asked = len(side.server.requests)
    assert side.member(None).retire(child)
    assert len(side.server.requests) == asked


def test_without_an_answer_too(side: Side, child: Child) -> None:
    assert side.claimed()
    side.server.close()
    assert side.agent.retire(child)


def test_what_is_handed_over_to_the_last_machine_of_a_run(side: Side) -> None:
    """A runner that never comes, with a label for each launch job whose machines were taken."""
    agent = side.agent
    if not isinstance(agent, WithToken):
        return
    first = Run(7, 1, False, 60)
    again = Run(7, 2, False, 60)
    other = Run(8, 1, False, 60)
    for launch in (11, 12):
        assert agent.hand_over(first, launch) == "the last machine of the run restarts it"
    assert agent.handed_over(first) == {11, 12}
    assert agent.handed_over(again) == agent.handed_over(other) == set()
    agent.take_back(8)
    assert agent.handed_over(first) == {11, 12}
    agent.take_back(7)
    agent.take_back(7)
    assert agent.handed_over(first) == set()
    assert [runner.name for runner in side.forge.runners()] == ["one"]


def test_a_runner_is_listed_as_busy_only_after_a_while(side: Side) -> None:
    """Until then GitHub deletes it, and its job with it."""
    if not isinstance(side.server, FakeGitHub):
        return
    side.server.forge.pace = Pace(busy=0.5)
    side.server.forge.queue_job(["cml"])
    assert side.server.forge.next_job(side.seat, wait=0)
    assert not side.runner().busy
    time.sleep(0.5)
    assert side.runner().busy
    assert side.agent.leave() == REFUSED
    assert side.seat.job
    side.seat.given = time.monotonic()
    assert side.agent.leave() == GONE


@pytest.mark.parametrize("wrong", [-7, 7])
@pytest.mark.parametrize("left", [-60, 60])
def test_a_claim_is_read_by_the_clock_of_the_server(
    wrong: float, left: float, side: Side, monkeypatch: pytest.MonkeyPatch
) -> None:
    side.claimed(left)
    clock = SimpleNamespace(time=lambda: time.time() + wrong * 3600)
    monkeypatch.setattr(tokens, "time", clock)  # of the agent alone, not of the server
    assert side.agent.is_claimed("GET", path_of(side)) is (left > 0)


def path_of(side: Side) -> str:
    if isinstance(side.agent, WithToken):
        return side.agent._listed % side.seat.id
    return f"/runners/{side.seat.id}"
