"""What is GitLab's own: where it may live, what a runner is made with, which token it wants, and
what it must never leave behind."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
import trustme

from runner_action import claim
from runner_action.errors import AuthError, ForgeError, RunnerActionError, RunnerBusy
from runner_action.forges.gitlab.client import GitLab
from runner_action.forges.gitlab.permissions import NEEDED
from runner_action.model import Repository, Secret
from runner_action.sandbox.forges.gitlab.api import FakeGitLab
from runner_action.sandbox.forges.gitlab.releases import VERSION
from tests.contracts.openapi import gitlab_judge
from tests.fakes import FakeClock

TOKENS = {
    "canary-admin": ["api"],
    "canary-narrow": list(NEEDED),
    **{
        f"canary-without-{scope}": [other for other in NEEDED if other != scope] for scope in NEEDED
    },
    "canary-pictures": ["read_registry"],
    "canary-granular": ["granular", "read_user", *NEEDED],
    "canary-granular-reader": ["granular", "read_api"],
}


@pytest.fixture
def server() -> Iterator[FakeGitLab]:
    fake = FakeGitLab(TOKENS, prefix="/git")
    with gitlab_judge(fake.server_url, undeclared=(401, 403, 404, 500, 502)):
        yield fake
    fake.close()


def gitlab(server: FakeGitLab, token: str = "canary-admin", url: str = "", **more: Any) -> GitLab:
    return GitLab(
        Repository(url=url or server.repo_url), Secret(token), downloads=server.downloads, **more
    )


def asked(server: FakeGitLab, method: str) -> list[str]:
    return [path.removeprefix("/git/api/v4") for how, path, _ in server.requests if how == method]


# --- where it lives


def test_below_its_host_it_is_found_without_showing_the_token(server: FakeGitLab) -> None:
    forge = gitlab(server)
    assert forge.api_url == f"{server.server_url}/api/v4"
    assert server.requests == [("GET", "/git/api/v4/version", 401)], (
        "asked without the token, which may not be for whatever stands there"
    )
    assert forge.register_one("cml-1", ["cml"], "x64").runner_id


def test_a_job_that_runs_on_it_knows_where_it_is(server: FakeGitLab) -> None:
    gitlab(server, api_url=f"{server.server_url}/api/v4").runners()
    assert {status for _, _, status in server.requests} == {200}, "nothing was looked for"


def test_a_private_authority_is_trusted_when_its_certificate_is_given(tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = tmp_path / "certificate.pem"
    key = tmp_path / "key.pem"
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_and_cert_chain_pem.write_to_path(str(certificate))
    issued.private_key_pem.write_to_path(str(key))
    server = FakeGitLab(TOKENS, prefix="/git", tls=(str(certificate), str(key)))
    try:
        with pytest.raises(ForgeError, match="Cannot reach GitLab") as refused:
            gitlab(server).runners()
        assert "`ca-certificates`" in refused.value.hint
        trusting = gitlab(server, certificates=authority.cert_pem.bytes().decode())
        assert trusting.runners() == []
        assert trusting.register_one("cml-1", ["cml"], "x64").runner_id
        assert trusting.download("x64", "latest").sha256 == server.sha256, (
            "a mirror behind the same authority"
        )
    finally:
        server.close()


def test_a_group_has_runners_of_its_own(server: FakeGitLab) -> None:
    project, group = gitlab(server), gitlab(server, url=server.group_url)
    project.register_one("of-project", ["cml"], "x64")
    made = group.register_one("of-group", ["cml"], "x64")
    assert [runner.name for runner in group.runners()] == ["of-group"]
    assert [runner.name for runner in project.runners()] == [
        "of-group",
        "of-project",
    ], "which may have jobs of the project"
    assert made.runner_id
    assert server.places[made.runner_id] == ("groups", 8)


def test_what_a_groups_runners_are_called_is_nothing_to_a_project(server: FakeGitLab) -> None:
    """They are on the project's list, and not its own: none is deleted for its name, and a turn
    there is none here."""
    project = gitlab(server)
    group = gitlab(server, url=server.group_url)
    clock = FakeClock()
    theirs = group.register_one("cml-1", ["cml"], "x64").runner_id
    mark = claim.claim("0123456789", clock.now() + timedelta(seconds=60))
    assert group.take_turn("cml-turn-1", mark, clock)
    mine = project.register_one("cml-1", ["cml"], "x64").runner_id
    assert mine
    assert project.take_turn(
        "cml-turn-1", claim.claim("abcdef0123", clock.now() + timedelta(seconds=60)), clock
    )
    project.end_turn("cml-turn-1", "0123456789")
    assert project.deregister("cml-1", mine, twins=True)
    assert project.deregister("cml-1") is False
    assert [(seat.id, seat.name) for seat in server.forge.seats()][:2] == [
        (theirs, "cml-1"),
        (2, f"cml-turn-1 {mark}"),
    ]


def test_an_unknown_project_is_told(server: FakeGitLab) -> None:
    with pytest.raises(ForgeError, match=r"has no project or group .*octo/other"):
        gitlab(
            server, url=f"{server.server_url}/octo/other", api_url=f"{server.server_url}/api/v4"
        ).runners()


# --- making runners


def test_a_runner_is_made_in_one_call_and_takes_only_what_has_its_tags(server: FakeGitLab) -> None:
    forge = gitlab(server)
    made = forge.register_one("cml-1", ["cml", "gpu"], "x64", longest=60)
    assert asked(server, "POST") == ["/user/runners"]
    (seat,) = server.forge.seats()
    assert (seat.name, seat.labels, seat.untagged, server.longest) == (
        "cml-1",
        ("cml", "gpu"),
        False,
        {made.runner_id: 600},
    )
    assert made.runner_token
    assert made.runner_token.reveal() == seat.secret
    server.forge.set_online(seat, online=True)
    untagged, tagged = server.forge.queue_job([]), server.forge.queue_job(["gpu"])
    assert server.forge.next_job(seat, wait=0) is tagged
    assert untagged.status == "queued"


@pytest.mark.parametrize(
    ("version", "path"),
    [
        ("15.11.13", "/runners"),
        ("16.0.0", "/user/runners"),
        ("17.11.2-ee", "/user/runners"),
        (VERSION, "/user/runners"),
    ],
)
def test_the_old_registration_token_is_used_where_there_is_nothing_newer(
    version: str, path: str, server: FakeGitLab
) -> None:
    server.version = version
    forge = gitlab(server)
    forge.runners()
    made = forge.register_one("cml-1", ["cml"], "x64")
    assert asked(server, "POST") == [path], "known from the version, not found out by trying"
    assert (made.runner_id, server.forge.seats()[0].untagged) == (1, False)
    assert forge.deregister("cml-1")


def test_a_lost_answer_leaves_no_ghost(server: FakeGitLab) -> None:
    """The runner was made, its id and token were lost on the way: it goes before another is
    made. Once; then it is left to who takes back."""
    server.fail("POST", "/user/runners$", 502, late=True)
    forge = gitlab(server)
    forge.runners()
    made = forge.register_one("cml-1", ["cml"], "x64")
    assert [seat.id for seat in server.forge.seats()] == [made.runner_id] == [2]
    for _ in range(2):
        server.fail("POST", "/user/runners$", 502, late=True)
    with pytest.raises(ForgeError, match="502"):
        forge.register_one("cml-1", ["cml"], "x64")
    assert [seat.id for seat in server.forge.seats()] == [4]
    assert forge.deregister("cml-1")
    assert server.forge.seats() == []


@pytest.mark.parametrize("status", [400, 403])
def test_a_refused_runner_is_not_asked_for_again(status: int, server: FakeGitLab) -> None:
    server.fail("POST", "/user/runners$", status)
    forge = gitlab(server)
    with pytest.raises(ForgeError, match=str(status)):
        forge.register_one("cml-1", ["cml"], "x64")
    assert asked(server, "POST") == ["/user/runners"]


def test_checksums_are_asked_for_again(server: FakeGitLab) -> None:
    server.fail("GET", "release.sha256$", 503)
    assert gitlab(server).download("x64", "latest").sha256


def test_all_of_one_name_are_deleted_though_one_goes_meanwhile(server: FakeGitLab) -> None:
    for _ in range(3):
        server.forge.seat("cml-1", ["cml"], ephemeral=False)
    server.fail("GET", r"/runners/2/jobs$", 404)
    assert gitlab(server).deregister("cml-1")
    assert [seat.id for seat in server.forge.seats()] == [2]


def test_a_registration_delivered_twice_leaves_no_twin_and_takes_nobody_elses(
    server: FakeGitLab,
) -> None:
    """Its token was lost on the way to a proxy that asked again; what came later, or has been
    online, is another launch's."""
    for _ in range(2):
        server.forge.seat("cml-1", ["cml"], ephemeral=False)
    server.forge.set_online(server.forge.seats()[0], online=True)
    server.forge.seat("cml-2", ["cml"], ephemeral=False)
    mine = server.forge.seat("cml-1", ["cml"], ephemeral=False)
    server.forge.seat("cml-1", ["cml"], ephemeral=False)
    assert gitlab(server).deregister("cml-1", mine.id, twins=True)
    assert [seat.id for seat in server.forge.seats()] == [1, 3, 5]


def test_a_list_that_is_refused_is_told_when_twins_are_looked_for(
    server: FakeGitLab, caplog: pytest.LogCaptureFixture
) -> None:
    mine = server.forge.seat("cml-1", ["cml"], ephemeral=False)
    server.fail("GET", r"/projects/5/runners$", 403)
    assert gitlab(server).deregister("cml-1", mine.id, twins=True)
    assert server.forge.seats() == []
    assert "Could not check whether cml-1 was registered twice" in caplog.text


LIMITS: list[tuple[dict[str, Any], str]] = [
    (
        {"tag_list": [f"tag-{number}" for number in range(51)]},
        "Too many tags specified. Please limit the number of tags to 50",
    ),
    ({"tag_list": ["t" * 256]}, "is too long (maximum is 255 characters)"),
    ({"description": "d" * 1025}, "is too long (maximum is 1024 characters)"),
    ({"maintenance_note": "n" * 1025}, "is too long (maximum is 1024 characters)"),
]


@pytest.mark.parametrize(("bad", "told"), LIMITS, ids=range(len(LIMITS)))
def test_a_runner_past_gitlabs_limits_is_refused(
    bad: dict[str, Any], told: str, server: FakeGitLab
) -> None:
    body = {
        "runner_type": "project_type",
        "project_id": 5,
        "tag_list": ["cml"],
        "description": "cml-1",
        **bad,
    }
    answer = requests.post(
        f"{server.server_url}/api/v4/user/runners",
        json=body,
        headers={"PRIVATE-TOKEN": "canary-admin"},
        timeout=10,
    )
    assert (answer.status_code, server.forge.seats()) == (400, [])
    assert told in answer.text


def test_a_note_past_gitlabs_limit_is_refused(server: FakeGitLab) -> None:
    seat = server.forge.seat("cml-1", ["cml"], ephemeral=False)
    note = {"maintenance_note": "n" * 1025}
    answer = requests.put(
        f"{server.server_url}/api/v4/runners/{seat.id}",
        json=note,
        headers={"PRIVATE-TOKEN": "canary-admin"},
        timeout=10,
    )
    assert (answer.status_code, seat.note) == (400, "")


# --- the list


def test_no_page_is_longer_than_100(server: FakeGitLab) -> None:
    for number in range(150):
        server.forge.seat(f"runner-{number}", ["cml"], ephemeral=False)
    for asked, told in (("", 20), ("?per_page=1000", 100), ("?per_page=1000&page=2", 50)):
        answer = requests.get(
            f"{server.server_url}/api/v4/projects/5/runners{asked}",
            headers={"PRIVATE-TOKEN": "canary-admin"},
            timeout=10,
        )
        assert len(answer.json()) == told


def test_150_runners_are_listed_though_the_links_lead_elsewhere(server: FakeGitLab) -> None:
    for number in range(150):
        server.forge.seat(f"runner-{number}", ["cml"], ephemeral=False)
    assert len(gitlab(server).runners(labels=False)) == 150
    assert asked(server, "GET").count("/projects/5/runners") == 2


def test_runners_of_the_instance_are_listed_but_never_reused(server: FakeGitLab) -> None:
    """Their tags are an administrator's to see."""
    seat = server.forge.seat("shared", ["cml"], ephemeral=False)
    server.forge.set_online(seat, online=True)
    server.shared.add(seat.id)
    (found,) = gitlab(server).runners()
    assert (found.name, found.online, found.labels) == ("shared", True, frozenset())


def test_an_older_gitlab_does_not_tell_in_the_list_who_has_a_job(server: FakeGitLab) -> None:
    seat = server.forge.seat("busy", ["cml"], ephemeral=False)
    server.forge.set_online(seat, online=True)
    server.forge.queue_job(["cml"])
    assert server.forge.next_job(seat, wait=0)
    server.version = "17.11.2"
    forge = gitlab(server)
    assert forge.runners()[0].busy
    with pytest.raises(RunnerBusy):
        forge.deregister("busy")
    assert len(server.forge.seats()) == 1


# --- tokens


@pytest.mark.parametrize("scope", NEEDED)
def test_a_token_without_a_scope_is_told_which_and_nothing_is_made(
    scope: str, server: FakeGitLab
) -> None:
    with pytest.raises(AuthError, match=f"lacks `{scope}`") as caught:
        gitlab(server, f"canary-without-{scope}").runners()
    assert "Maintainer" in caught.value.hint
    assert asked(server, "POST") == []
    assert "canary" not in repr(caught.value) + caught.value.hint


def test_a_narrow_token_does_all_a_launch_needs(server: FakeGitLab) -> None:
    forge = gitlab(server, "canary-narrow")
    forge.runners()
    made = forge.register_one("cml-1", ["cml"], "x64")
    assert list(forge.online({"cml-1": made})) == []
    assert forge.deregister("cml-1", made.runner_id)


def test_a_fine_grained_token_is_judged_by_gitlab(server: FakeGitLab) -> None:
    forge = gitlab(server, "canary-granular")
    forge.runners()
    assert forge.register_one("cml-1", ["cml"], "x64").runner_token
    narrower = gitlab(server, "canary-granular-reader")
    narrower.runners()
    with pytest.raises(AuthError, match="lacks the required permissions"):
        narrower.register_one("cml-2", ["cml"], "x64")


def test_all_scopes_that_are_missing_are_told_at_once(server: FakeGitLab) -> None:
    with pytest.raises(
        AuthError,
        match="has scope read_registry; it lacks `create_runner`, `manage_runner`, `read_api`",
    ):
        gitlab(server, "canary-pictures").runners()


def test_a_job_token_is_no_token_for_this(server: FakeGitLab) -> None:
    with pytest.raises(AuthError, match="or is a job's own") as caught:
        gitlab(server, "canary-job-token").runners()
    assert "CI_JOB_TOKEN can never" in caught.value.hint
    assert "canary" not in repr(caught.value)


ERRORS: list[tuple[int, type[RunnerActionError], str]] = [
    (401, AuthError, "wrong or expired"),
    (403, AuthError, "lacks a scope, or its owner a role"),
    (404, ForgeError, "404"),
    (500, ForgeError, "500"),
]


@pytest.mark.parametrize(("status", "kind", "words"), ERRORS)
def test_refusals(
    status: int, kind: type[RunnerActionError], words: str, server: FakeGitLab
) -> None:
    server.fail("POST", "/user/runners$", status, times=9, body={"message": "because"})
    with pytest.raises(kind, match=words) as caught:
        gitlab(server).register_one("cml-1", ["cml"], "x64")
    assert "because" in str(caught.value)
    assert caught.value.exit_code == 3
    assert "canary" not in repr(caught.value) + caught.value.hint
    assert server.forge.seats() == []


def test_what_passes_by_itself_is_asked_again(server: FakeGitLab) -> None:
    server.fail("GET", "runners$", 502, times=1)
    assert gitlab(server).runners() == []
    assert [status for _, path, status in server.requests if path.endswith("/runners")] == [
        502,
        200,
    ]


def test_nobody_there_is_told_soon_and_without_the_token() -> None:
    began = time.monotonic()
    with pytest.raises(ForgeError, match="Cannot reach GitLab") as caught:
        GitLab(
            Repository(url="http://127.0.0.1:9/octo/train"),
            Secret("canary-admin"),
            "http://127.0.0.1:9/api/v4",
        ).runners()
    assert time.monotonic() - began < 15
    assert "canary" not in repr(caught.value)


# --- the program


def test_a_version_is_fetched_by_its_number(server: FakeGitLab) -> None:
    found = gitlab(server).download("arm64", VERSION)
    assert found.url == f"{server.downloads}/v{VERSION}/binaries/gitlab-runner-linux-arm64"
    assert found.sha256 == server.sha256
    assert (
        gitlab(server).download("arm64", "latest", "macos").url
        == f"{server.downloads}/v{VERSION}/binaries/gitlab-runner-darwin-arm64"
    )


@pytest.mark.parametrize(
    ("instance", "release"),
    [
        ("16.11.10", "v17.1.2"),
        ("17.0.3", "v17.1.2"),
        ("17.1.0-ee", "v17.1.2"),
        ("18.5.4", "v18.5.0"),
        ("18.6.0-ee", "v18.6.6"),
        ("18.9.0", "latest"),
        ("19.5.0-pre", "latest"),
        ("unknown", "latest"),
    ],
)
def test_a_runner_is_of_its_instances_version(
    instance: str, release: str, server: FakeGitLab
) -> None:
    """The newest patch of it; none older than what we need; the latest where there is none."""
    server.version = instance
    if instance == "unknown":
        server.fail("GET", "/version$", 403, times=100)
    found = gitlab(server).download("x64", "latest")
    assert found.url == f"{server.downloads}/{release}/binaries/gitlab-runner-linux-amd64"
    assert found.version == release.removeprefix("v")


def test_the_instances_version_is_looked_up_once(server: FakeGitLab) -> None:
    forge = gitlab(server)
    with ThreadPoolExecutor() as threads:
        listing = threads.submit(forge.runners)
        assert threads.submit(forge.download, "x64", "latest").result()
        assert listing.result() == []
    assert asked(server, "GET").count("/version") == 2, "where GitLab is, and its version"


def test_an_unknown_version_is_told(server: FakeGitLab) -> None:
    with pytest.raises(
        ForgeError, match="no checksum of binaries/gitlab-runner-linux-amd64"
    ) as caught:
        gitlab(server).download("x64", "1.2.3")
    assert "`runner-version`" in caught.value.hint


# --- protected branches


def test_a_protected_runner_gets_no_job_of_a_branch_that_is_not(server: FakeGitLab) -> None:
    forge = gitlab(server, access_level="ref_protected")
    made = forge.register_one("cml-1", ["cml"], "x64")
    assert made.runner_id
    assert made.runner_token
    assert server.levels == {made.runner_id: "ref_protected"}
    server.forge.queue_job(["cml"])
    server.poll = 0.1
    body = {"token": made.runner_token.reveal()}
    statuses = []
    for protected in (False, True):
        server.protected = protected
        answer = requests.post(
            f"{server.server_url}/api/v4/jobs/request", json=body, timeout=10, verify=True
        )
        statuses.append(answer.status_code)
    assert statuses == [204, 201]


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("wanted", ["ref_protected", "not_protected"])
@pytest.mark.parametrize("there", ["ref_protected", "not_protected"])
def test_a_runner_of_another_access_level_is_not_reused(
    there: str, wanted: str, shared: bool, server: FakeGitLab
) -> None:
    """It would run jobs that it must not run, or get none of this pipeline."""
    gitlab(server, access_level=there).register_one("cml-1", ["cml"], "x64")
    server.forge.set_online(server.forge.seats()[0], online=True)
    forge = gitlab(server, access_level=wanted)
    clock = FakeClock()
    mark = claim.claim("0123456789", clock.now() + timedelta(seconds=60))
    (runner,) = forge.runners()
    assert runner.access_level == there
    assert forge.claim(runner, mark, clock, shared=shared) is (there == wanted)
    assert bool(server.forge.seats()[0].note) is (there == wanted)
