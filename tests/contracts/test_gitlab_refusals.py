"""GitLab refuses for many reasons, with few words: each is told as what it is, with what to do,
and nothing is left registered."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from runner_action.errors import AuthError, ForgeError
from runner_action.forges.gitlab.answers import why_not_created
from runner_action.forges.gitlab.client import GitLab
from runner_action.forges.gitlab.permissions import NEEDED, missing_for_runners, policy_for
from runner_action.model import Repository, Secret
from runner_action.sandbox.forges.gitlab.api import FakeGitLab
from runner_action.sandbox.forges.gitlab.rules import DEVELOPER, EXPIRED, MAINTAINER, REVOKED

TOKENS = {"canary-admin": ["api"], "canary-narrow": list(NEEDED)}


@pytest.fixture
def server() -> Iterator[FakeGitLab]:
    fake = FakeGitLab(TOKENS, prefix="/git", project="acme/vision/train")
    yield fake
    fake.close()


def launcher(server: FakeGitLab, token: str = "canary-admin", url: str = "") -> GitLab:
    address = f"{server.server_url}/api/v4"
    return GitLab(Repository(url=url or server.repo_url), Secret(token), address)


def create(forge: GitLab) -> None:
    forge.runners()
    forge.register_one("cml-1", ["cml", "mark"], "x64")


def look(forge: GitLab) -> None:
    forge.runners()


@dataclass(frozen=True)
class Case:
    arrange: Callable[[FakeGitLab], None]
    act: Callable[[GitLab], None]
    kind: type[ForgeError]
    told: str
    remedy: str
    group: bool = False


def ends(answer: dict[str, str]) -> Callable[[FakeGitLab], None]:
    return lambda server: server.rules.ends.update({"canary-admin": answer})


def account(words: str) -> Callable[[FakeGitLab], None]:
    return lambda server: server.rules.accounts.update({"canary-admin": words})


def role(level: int) -> Callable[[FakeGitLab], None]:
    return lambda server: server.rules.roles.update({"canary-admin": level})


def setting(name: str, value: object) -> Callable[[FakeGitLab], None]:
    return lambda server: setattr(server.rules, name, value)


def unknown(server: FakeGitLab) -> None:
    server.tokens = {}


def elsewhere(server: FakeGitLab) -> None:
    server.rules.within["canary-admin"] = "acme/other"


BLOCKED = "Your account has been blocked."
TERMS = "You (@octo) must accept the Terms of Service in order to perform this action."
CASES = {
    "unknown": Case(unknown, look, AuthError, "wrong or expired", "CI_JOB_TOKEN can never"),
    "revoked": Case(ends(REVOKED), look, AuthError, "token was revoked", "Create another token"),
    "expired": Case(ends(EXPIRED), look, AuthError, "has expired", "Create another token"),
    "blocked": Case(account(BLOCKED), look, AuthError, BLOCKED, "in a browser as that user"),
    "terms": Case(account(TERMS), look, AuthError, "accept the Terms", "in a browser"),
    "developer": Case(role(DEVELOPER), look, AuthError, "a role: Maintainer", "Maintainer"),
    "elsewhere": Case(elsewhere, look, ForgeError, "may not see it", "some addresses"),
    "switched off": Case(
        setting("creation", False),
        create,
        AuthError,
        "has the role for it, so creating runners is switched off",
        "Admin > Settings > CI/CD > Runners",
    ),
    "off for a group": Case(
        setting("creation", False),
        create,
        AuthError,
        "less than an Owner of the group, or creating runners is switched off",
        "needs an Owner",
        group=True,
    ),
    "maintainer of a group": Case(
        role(MAINTAINER), create, AuthError, "less than an Owner", "needs an Owner", group=True
    ),
    "full": Case(
        setting("most", 0),
        create,
        ForgeError,
        "as many runners as GitLab allows",
        "`cml-runner reap`",
    ),
    "full group": Case(
        setting("most", 0), create, ForgeError, "as many runners", "raise the limit", group=True
    ),
    "maintenance": Case(
        setting("maintenance", True), create, ForgeError, "maintenance mode", "Launch again when"
    ),
    "wall": Case(
        setting("wall", True), look, ForgeError, "not an answer of GitLab's API", "address there"
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_each_refusal_has_its_own_sentence_and_remedy(name: str, server: FakeGitLab) -> None:
    case = CASES[name]
    case.arrange(server)
    forge = launcher(server, url=server.group_url if case.group else "")
    with pytest.raises(case.kind) as caught:
        case.act(forge)
    assert type(caught.value) is not AuthError or case.kind is AuthError, "no token would help"
    assert case.told in str(caught.value)
    assert case.remedy in caught.value.hint
    assert "<" not in str(caught.value), "no page"
    assert "canary" not in str(caught.value) + caught.value.hint
    assert server.forge.seats() == []
    posts = [path for method, path, _ in server.requests if method == "POST"]
    assert len(posts) == (1 if case.act is create else 0), "asked once"


@pytest.mark.parametrize(
    ("permissions", "told"),
    [
        ({"project_access": {"access_level": 30}, "group_access": None}, "less than a Maintainer"),
        ({"project_access": None, "group_access": {"access_level": 50}}, "has the role for it"),
        (
            {"project_access": None, "group_access": None},
            "less than a Maintainer of the project, or",
        ),
        (None, "less than a Maintainer of the project, or"),
    ],
)
def test_why_nothing_was_created_goes_by_the_roles_that_gitlab_tells(
    permissions: Any, told: str
) -> None:
    fields = {"id": 5} if permissions is None else {"id": 5, "permissions": permissions}
    assert told in why_not_created("projects", fields).sentence


@pytest.mark.parametrize("version", ["16.0.0", "16.11.10-ee", "17.0.8"])
def test_before_17_1_only_api_is_enough_and_the_launcher_says_why(
    version: str, server: FakeGitLab
) -> None:
    server.version = version
    with pytest.raises(AuthError, match=r"lacks `api`: GitLab 1[67]\.\d+ has no `manage_runner`"):
        look(launcher(server, "canary-narrow"))
    create(launcher(server))
    assert len(server.forge.seats()) == 1


def test_since_17_1_the_narrow_scopes_are_enough(server: FakeGitLab) -> None:
    server.version = "17.1.0"
    create(launcher(server, "canary-narrow"))
    assert len(server.forge.seats()) == 1


def test_an_unknown_version_is_taken_for_a_new_one() -> None:
    assert missing_for_runners(["read_api"], None) == "`create_runner`, `manage_runner`"
    assert missing_for_runners(["api"], (16, 0)) == ""


def test_the_printed_permissions_say_what_an_older_gitlab_needs() -> None:
    assert "before GitLab 17.1 with scope `api`" in policy_for(None, restart=False)
