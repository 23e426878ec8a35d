"""A runner that wants to leave, and launches that count on it: the agent's calls, held to the
forges' own descriptions."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from runner_action import claim
from runner_action.agent.forge import Member, member
from runner_action.agent.process import Child
from runner_action.forges.base import Forge
from runner_action.forges.github.client import GitHub
from runner_action.forges.github.levels import root_of
from runner_action.forges.gitlab.client import GitLab
from runner_action.model import Repository, Runner, Secret
from runner_action.sandbox.forges.github.api import FakeGitHub
from runner_action.sandbox.forges.gitlab.api import FakeGitLab
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
