"""GitHub alone: tokens of each kind and what they lack, levels, groups, Apps, versions. Calls
and answers held to its own description."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runner_action.agent.forge import member
from runner_action.agent.lifecycle import GONE, REFUSED
from runner_action.errors import AuthError, ForgeError, InputError
from runner_action.forges.github.client import GitHub, Joining, Patience
from runner_action.forges.github.levels import Level
from runner_action.forges.github.permissions import SCOPES, scopes
from runner_action.model import App, CiJob, Repository, Secret
from runner_action.sandbox.forges.github.api import FakeGitHub
from runner_action.sandbox.forges.github.archive import VERSION
from tests.contracts.openapi import Contract, description
from tests.fakes import FakeClock, agent_spec

TOKENS = {
    "canary-admin": "admin",
    "canary-job": "job",
    "canary-fine": "readonly",
    "canary-none": "scopes:",
    "canary-repo": "scopes:repo,read:org",
}


@pytest.fixture
def server() -> Iterator[FakeGitHub]:
    fake = FakeGitHub(tokens=TOKENS)
    yield fake
    fake.close()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def at(
    server: FakeGitHub, where: str = "octo/train", token: str = "canary-admin", **more: Any
) -> GitHub:
    return GitHub(Repository(url=f"{server.url}/{where}"), Secret(token), **more)


# --- tokens


def test_a_token_that_single_sign_on_does_not_know(server: FakeGitHub) -> None:
    url = "https://github.com/orgs/octo/sso?authorization_request=A1B2"
    body = {
        "message": (
            "Resource protected by organization SAML enforcement. You must grant your Personal"
            " Access token access to this organization."
        )
    }
    server.fail("GET", "runners$", 403, body=body, X_GitHub_SSO=f"required; url={url}")
    with pytest.raises(AuthError, match="not authorised for the single sign-on") as caught:
        at(server, "octo").runners()
    assert url in caught.value.hint


@pytest.mark.parametrize(
    ("where", "token", "told", "hint"),
    [
        ("octo/train", "canary-none", "has no scope at all; it lacks `repo`", "scope `repo`"),
        (
            "octo",
            "canary-repo",
            "has scope `read:org`, `repo`; it lacks `admin:org`",
            "scope `admin:org`",
        ),
        (
            "enterprises/acme",
            "canary-repo",
            "it lacks `manage_runners:enterprise`",
            "only classic personal access tokens",
        ),
        (
            "octo/train",
            "canary-job",
            "the job's own GITHUB_TOKEN, which can never manage runners",
            "as `token: ${{ secrets",
        ),
        ("octo", "canary-wrong", "wrong or expired", "Self-hosted runners: write"),
    ],
)
def test_what_a_token_lacks_is_told(
    where: str, token: str, told: str, hint: str, server: FakeGitHub
) -> None:
    """GitHub answers 404 for a scope that is missing, as for what does not exist."""
    with pytest.raises(AuthError, match=told) as caught:
        at(server, where, token).runners()
    assert hint in caught.value.hint
    assert token not in f"{caught.value}{caught.value.hint}"


def test_a_missing_scope_is_not_taken_for_an_absent_runner(server: FakeGitHub) -> None:
    with pytest.raises(AuthError, match="lacks `admin:org`"):
        at(server, "octo", "canary-repo").deregister("cml-1", 7)


@pytest.mark.parametrize(
    ("where", "told"),
    [
        ("octo/other", "repository does not exist"),
        ("other", "no organisation of that name"),
        ("enterprises/other", "no enterprise of that name"),
    ],
)
def test_what_is_not_there(where: str, told: str, server: FakeGitHub) -> None:
    with pytest.raises(ForgeError, match=told):
        at(server, where).runners()


# --- Apps


def by_app(server: FakeGitHub, where: str = "octo/train", key: str = "", **more: Any) -> GitHub:
    return GitHub(
        Repository(url=f"{server.url}/{where}"),
        App(id=str(server.github_app.id), key=Secret(key or server.github_app.key)),
        **more,
    )


@pytest.mark.parametrize("where", ["octo/train", "octo"])
def test_an_app_finds_its_installation_and_asks_as_that(where: str, server: FakeGitHub) -> None:
    paths = (
        "/actions/runners",
        "/installation",
        "/app/installations/{installation_id}/access_tokens",
    )
    with Contract(
        description("api.github.com", *paths), f"{server.url}/api/v3", undeclared=(404,)
    ) as contract:
        forge = by_app(server, where)
        made = forge.register_one("cml-1", ["cml"], "x64")
        assert [one.id for one in forge.runners()] == [made.runner_id]
    assert contract.seen == ["GET 200", "POST 201", "POST 201", "GET 200"]
    assert len(server.github_app.tokens) == 1


def test_an_apps_token_is_renewed_in_time(server: FakeGitHub) -> None:
    server.github_app.lasts = 15  # PyGithub renews 20 s before the end
    forge = by_app(server)
    forge.runners()
    forge.registration_token()
    assert len(server.github_app.tokens) == 2
    server.github_app.lasts = 3600
    for _ in range(3):
        forge.runners()
    assert len(server.github_app.tokens) == 3


def test_an_app_that_may_not(server: FakeGitHub) -> None:
    app = server.github_app
    app.permissions = {"administration": "read"}
    weak = by_app(server)
    assert weak.runners() == []
    with pytest.raises(
        AuthError, match="The App lacks the permission administration=write"
    ) as caught:
        weak.registration_token()
    assert app.key.splitlines()[1] not in f"{caught.value}{caught.value!r}{caught.value.hint}"
    with pytest.raises(
        AuthError, match="The App lacks the permission organization_self_hosted_runners=read"
    ) as caught:
        by_app(server, "octo").runners()
    assert (
        "organisation permission Self-hosted runners: write (fine-grained or App)"
        in caught.value.hint
    )
    app.suspended = True
    with pytest.raises(AuthError, match="suspended"):
        by_app(server).runners()
    app.installed = False
    with pytest.raises(AuthError, match="App 4711 is not installed on repos/octo/train"):
        by_app(server).runners()
    with pytest.raises(AuthError, match="does not accept the App's key"):
        by_app(server, key=FakeGitHub(tokens={}).github_app.key).runners()


# --- groups, levels, labels


def test_a_runner_group_is_found_by_its_name(server: FakeGitHub) -> None:
    for where in ("octo", "enterprises/acme"):
        with Contract(
            description("ghec", "/actions/runner-groups", "/actions/runners"),
            f"{server.url}/api/v3",
        ) as contract:
            at(server, where, joining=Joining("gpu")).register_one(
                f"cml-{len(where)}", ["cml"], "x64"
            )
        assert contract.seen == ["GET 200", "POST 201"]
    assert [seat.group for seat in server.forge.seats()] == [7, 7]
    with pytest.raises(
        InputError,
        match=r"runner-group cpu: .*/octo has no group of that name; it has `Default`, `gpu`",
    ):
        at(server, "octo", joining=Joining("cpu")).runners()


def test_no_label_but_ours(server: FakeGitHub) -> None:
    at(server, joining=Joining(default_labels=False)).register_one("cml-1", ["cml", "gpu"], "x64")
    assert server.forge.seats()[0].labels == ("cml", "gpu")


def test_runners_of_one_level_are_not_anothers(server: FakeGitHub) -> None:
    made = at(server, "octo").register_one("cml-1", ["cml"], "x64")
    assert at(server).runners() == at(server, "enterprises/acme").runners() == []
    assert at(server).deregister("cml-1") is False
    assert at(server, "octo").deregister("cml-1", made.runner_id) is True


def test_a_server_without_just_in_time_configurations_gives_a_token() -> None:
    server = FakeGitHub(tokens=TOKENS, jit=False)
    made = at(server).register_one("cml-1", ["cml"], "x64")
    assert (made.jit_config, made.runner_id) == (None, None)
    assert made.token
    server.close()


@pytest.mark.parametrize("where", ["octo/train", "octo", "enterprises/acme"])
def test_the_launch_job_is_found_whatever_the_runners_belong_to(
    where: str, server: FakeGitHub
) -> None:
    run = server.forge.queue_run()
    job = server.forge.add_job(run, "launch", ["ubuntu-latest"])
    job.status, job.runner_name = "in_progress", "GitHub Actions 7"
    found = at(server, where).launch_job(
        CiJob(repository_url=f"{server.url}/octo/train", run_id=run.id, runner_name=job.runner_name)
    )
    assert found
    assert (found.id, found.name, found.project) == (
        job.id,
        "launch",
        "" if where == "octo/train" else "octo/train",
    )


@pytest.mark.parametrize("by", ["token", "removal token", "removal token, pools"])
@pytest.mark.parametrize("where", ["octo/train", "octo", "enterprises/acme"])
def test_a_machine_takes_its_runner_off_the_list_of_its_level(
    where: str, by: str, server: FakeGitHub
) -> None:
    server.admin_flow = by != "removal token, pools"
    forge = at(server, where)
    made = forge.register_one("cml-1", ["cml"], "x64")
    removal = forge.removal_token()
    tokens = {"removal_token": removal.reveal() if removal else None}
    if by == "token":
        tokens = {"api_token": "canary-admin"}
    api = f"{server.url}/api/v3"
    spec = agent_spec(
        repository_url=f"{server.url}/{where}", api_url=api, runner_id=made.runner_id, **tokens
    )
    one = member(spec, Path("/nowhere/runner"), {}, {})
    if by == "token":
        with Contract(description("ghec", "/actions/runners"), api, undeclared=(404,)) as contract:
            assert one.leave() == GONE
        assert contract.seen == ["DELETE 204"]
    else:  # what actions/runner itself asks is not in the description
        assert one.leave() == GONE
    assert server.forge.seats() == []


@pytest.mark.parametrize("admin_flow", [True, False])
def test_a_runner_with_a_job_stays_and_one_that_is_not_there_is_gone(
    admin_flow: bool, server: FakeGitHub
) -> None:
    server.admin_flow = admin_flow
    forge = at(server, "octo/train")
    made, removal = forge.register_one("cml-1", ["cml"], "x64"), forge.removal_token()
    seat = server.forge.by_name("cml-1")
    assert seat
    assert removal
    spec = agent_spec(
        repository_url=f"{server.url}/octo/train",
        api_url=f"{server.url}/api/v3",
        runner_id=made.runner_id,
        removal_token=removal.reveal(),
    )
    one = member(spec, Path("/nowhere/runner"), {}, {})
    server.forge.set_online(seat, True)
    server.forge.queue_job(["cml"])
    assert server.forge.next_job(seat, wait=0)
    assert one.leave() == REFUSED
    server.forge.remove(seat.id, force=True)
    assert one.leave() == GONE


def test_a_removal_token_that_is_over_is_not_taken_for_a_runner_that_is_gone(
    server: FakeGitHub,
) -> None:
    server.joining_lasts = 0.0
    forge = at(server, "octo/train")
    made, removal = forge.register_one("cml-1", ["cml"], "x64"), forge.removal_token()
    assert removal
    spec = agent_spec(
        repository_url=f"{server.url}/octo/train",
        api_url=f"{server.url}/api/v3",
        runner_id=made.runner_id,
        removal_token=removal.reveal(),
    )
    assert "HTTP 404 for the removal token" in member(spec, Path("/nowhere/runner"), {}, {}).leave()
    assert len(server.forge.seats()) == 1


# --- versions


def test_an_exact_version_stays_as_it_is_while_that_is_safe(
    server: FakeGitHub, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """GitHub gives no jobs to runners that are 30 days behind a release: not before those are as
    old as that."""
    forge = at(server, patience=Patience(clock))  # its today is 2026-11-23
    assert {
        version: forge.download("x64", version).fixed for version in ("latest", VERSION, "2.335.0")
    } == {"latest": False, VERSION: True, "2.335.0": True}
    with caplog.at_level(logging.WARNING, "runner_action"):
        assert forge.download("x64", "2.330.0").fixed is False
    assert "Runner 2.330.0 is 294 days old and will update itself" in caplog.text
    with pytest.raises(ForgeError, match=r"has no release v2\.1\.0"):
        forge.download("x64", "2.1.0")


# --- permissions


def test_scopes_are_those_that_github_tells_call_by_call() -> None:
    roots = {
        Level.REPOSITORY: "/repos/{owner}/{repo}",
        Level.ORGANISATION: "/orgs/{org}",
        Level.ENTERPRISE: "/enterprises/{enterprise}",
    }
    calls = [
        "",
        "/downloads",
        "/registration-token",
        "/remove-token",
        "/generate-jitconfig",
        "/{runner_id}",
        "/{runner_id}/labels",
    ]
    whole = description(
        "ghec",
        "/actions/runners",
        "/actions/runner-groups",
        "/actions/runs/{run_id}",
        "/actions/jobs/{job_id}/rerun",
    )["paths"]
    for level, root in roots.items():
        groups = [] if level is Level.REPOSITORY else [f"{root}/actions/runner-groups"]
        for path in [*(f"{root}/actions/runners{call}" for call in calls), *groups]:
            for verb, operation in whole[path].items():
                if (
                    verb in ("get", "post", "delete") and "runner-groups" not in path
                ) or verb == "get":
                    assert (
                        re.findall(r"need ?the ?`([a-z:_]+)`", operation["description"])[0]
                        == SCOPES[level][0]
                    ), path
    for ending in (
        "runs/{run_id}/rerun",
        "runs/{run_id}/rerun-failed-jobs",
        "runs/{run_id}/cancel",
        "runs/{run_id}/force-cancel",
        "jobs/{job_id}/rerun",
    ):
        told = whole[f"/repos/{{owner}}/{{repo}}/actions/{ending}"]["post"]["description"]
        assert all("repo" in scopes(level, restart=True) for level in Level)
        assert "`repo` scope" in told
