"""What a token for restarts opens, as the forges tell of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from runner_action.errors import AuthError
from runner_action.forges.github.client import GitHub
from runner_action.forges.gitlab.client import GitLab
from runner_action.model import Repository, Secret
from runner_action.sandbox.forges.github.api import FakeGitHub
from runner_action.sandbox.forges.gitlab.api import FakeGitLab

CLASSIC = {
    "repo": "every repository",
    "repo,workflow": "every repository",
    "admin:org": "every organisation",
    "repo,write:org": "every organisation",
    "admin:enterprise,admin:org": "every enterprise",
    "manage_runners:enterprise": "every enterprise",
}


@pytest.fixture
def github() -> Iterator[FakeGitHub]:
    kinds = {scopes: f"scopes:{scopes}" for scopes in CLASSIC}
    fake = FakeGitHub({"canary-admin": "admin", **kinds})
    yield fake
    fake.close()


@pytest.fixture
def gitlab() -> Iterator[FakeGitLab]:
    scopes = {"canary-admin": ["api"], "canary-person": ["api"], "canary-group": ["api"]}
    fake = FakeGitLab({**scopes, "canary-runners": ["create_runner", "read_api"]})
    fake.tokens = {**fake.tokens, "canary-fine": ["granular", "read_user"]}
    fake.users = {"canary-person": "ada_bot", "canary-group": "group_7_bot_0123456789abcdef"}
    yield fake
    fake.close()


@pytest.mark.parametrize(("scopes", "opens"), CLASSIC.items())
def test_a_classic_token_opens_more_than_one_repository(
    github: FakeGitHub, scopes: str, opens: str
) -> None:
    told = GitHub(Repository(url=github.repo_url), Secret("canary-admin")).reach(Secret(scopes))
    assert told
    assert opens in told
    assert all(f"`{scope}`" in told for scope in scopes.split(","))


def test_a_fine_grained_token_says_nothing_of_scopes(github: FakeGitHub) -> None:
    forge = GitHub(Repository(url=github.repo_url), Secret("canary-admin"))
    assert forge.reach(Secret("canary-admin")) is None


def test_a_token_that_is_none_is_found_before_a_job_is_interrupted(
    github: FakeGitHub, gitlab: FakeGitLab
) -> None:
    for forge in (
        GitHub(Repository(url=github.repo_url), Secret("canary-admin")),
        GitLab(Repository(url=gitlab.repo_url), Secret("canary-admin")),
    ):
        with pytest.raises(AuthError, match="401") as caught:
            forge.reach(Secret("canary-expired"))
        assert "canary" not in f"{caught.value} {caught.value.hint}"


def test_at_gitlab_a_project_s_token_opens_the_least(gitlab: FakeGitLab) -> None:
    forge = GitLab(Repository(url=gitlab.repo_url), Secret("canary-admin"))
    assert forge.reach(Secret("canary-admin")) is None
    assert forge.reach(Secret("canary-fine")) is None, "its permissions are elsewhere"
    assert "every project of the group" in (forge.reach(Secret("canary-group")) or "")
    assert "personal token" in (forge.reach(Secret("canary-person")) or "")


def test_a_token_that_may_not_restart_at_gitlab_is_told_so(gitlab: FakeGitLab) -> None:
    forge = GitLab(Repository(url=gitlab.repo_url), Secret("canary-admin"))
    with pytest.raises(AuthError, match="restarts need `api`"):
        forge.reach(Secret("canary-runners"))
