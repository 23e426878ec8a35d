"""What the fake GitHub must refuse because GitHub does.

Joining tokens of another kind, place or hour; bodies and pages past their limits; Apps elsewhere.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest
import requests

from runner_action.sandbox.forges.github.api import FakeGitHub

LEVELS = {
    "repos/octo/train": "octo/train",
    "orgs/octo": "octo",
    "enterprises/acme": "enterprises/acme",
}
"""Where runners are, in the API's paths and in the addresses that `config.sh` is told."""


@pytest.fixture
def server() -> Iterator[FakeGitHub]:
    fake = FakeGitHub(tokens={"canary-admin": "admin", "canary-fine": "readonly"})
    yield fake
    fake.close()


def ask(
    server: FakeGitHub, method: str, path: str, body: object = None, token: str = "canary-admin"
) -> requests.Response:
    return requests.request(
        method,
        f"{server.url}/api/v3/{path}",
        json=body,
        headers={"Authorization": f"Bearer {token}"},
        timeout=10,
    )


def joining(server: FakeGitHub, kind: str, level: str = "repos/octo/train") -> dict[str, str]:
    told = ask(server, "POST", f"{level}/actions/runners/{kind}-token").json()
    return {"token": told["token"], "expires_at": told["expires_at"]}


def config(
    server: FakeGitHub, event: str, token: str, where: str = "octo/train", **more: Any
) -> requests.Response:
    """What the stand-in's `config.sh` sends."""
    asked = {
        "runner_event": event,
        "url": f"{server.url}/{where}",
        "name": "cml-1",
        "labels": ["cml"],
        "ephemeral": False,
        "replace": True,
    }
    whole = {**asked, "group": "Default", "default_labels": True, **more}
    return requests.post(
        f"{server.url}/api/v3/actions/runner-registration",
        json=whole,
        headers={"Authorization": f"RemoteAuth {token}"},
        timeout=10,
    )


# --- tokens by which runners join and leave


@pytest.mark.parametrize("level", LEVELS)
def test_a_joining_token_is_of_one_kind_and_one_place(level: str, server: FakeGitHub) -> None:
    token = {kind: joining(server, kind, level)["token"] for kind in ("registration", "remove")}
    for other, where in LEVELS.items():
        assert config(server, "register", token["registration"], where).status_code == (
            200 if other == level else 404
        )
        assert config(server, "register", token["remove"], where).status_code == 404
    assert [seat.owner for seat in server.forge.seats()] == [level]
    for other, where in LEVELS.items():
        assert config(server, "remove", token["registration"], where).status_code == 404
        if other != level:
            assert config(server, "remove", token["remove"], where).status_code == 404
    told = config(server, "remove", token["remove"], LEVELS[level]).json()
    assert (told["use_v2_flow"], told["token_schema"]) == (True, "OAuthAccessToken")
    assert len(server.forge.seats()) == 1, "what follows is another call"


def removal(server: FakeGitHub, token: str, root: str, number: int, method: str = "DELETE") -> int:
    """The status of the answer."""
    url = f"{server.url}/api/v3/{root}/actions/runners/{number}"
    return requests.request(
        method, url, headers={"Authorization": f"RemoteAuth {token}"}, timeout=10
    ).status_code


@pytest.mark.parametrize("level", LEVELS)
def test_a_removal_token_takes_off_runners_of_its_own_place_and_does_nothing_else(
    level: str, server: FakeGitHub
) -> None:
    assert (
        config(
            server, "register", joining(server, "registration", level)["token"], LEVELS[level]
        ).status_code
        == 200
    )
    (seat,) = server.forge.seats()
    other = next(one for one in LEVELS if one != level)
    assert removal(server, joining(server, "remove", other)["token"], level, seat.id) == 401
    assert removal(server, joining(server, "registration", level)["token"], level, seat.id) == 401
    token = joining(server, "remove", level)["token"]
    assert removal(server, token, level, seat.id, "GET") == 401
    assert removal(server, token, level, seat.id) == 204
    assert server.forge.seats() == []
    assert removal(server, token, level, seat.id) == 404


def test_where_runners_are_in_pools_it_is_good_for_the_token_of_the_pools(
    server: FakeGitHub,
) -> None:
    server.admin_flow = False
    assert (
        config(
            server, "register", joining(server, "registration", "orgs/octo")["token"], "octo"
        ).status_code
        == 200
    )
    (seat,) = server.forge.seats()
    token = joining(server, "remove", "orgs/octo")["token"]
    assert removal(server, token, "orgs/octo", seat.id) == 401
    told = config(server, "remove", token, "octo").json()
    assert told["use_v2_flow"] is False

    def leave(pool: int, bearer: str) -> int:
        place = f"{told['url']}_apis/distributedtask/pools/{pool}/agents/{seat.id}"
        place += "?api-version=6.0-preview"
        return requests.delete(
            place, headers={"Authorization": f"Bearer {bearer}"}, timeout=10
        ).status_code

    assert (leave(1, token), leave(7, told["token"])) == (401, 404)
    assert leave(1, told["token"]) == 200
    assert server.forge.seats() == []


@pytest.mark.parametrize(("kind", "event"), [("registration", "register"), ("remove", "remove")])
def test_a_joining_token_is_good_for_an_hour(kind: str, event: str, server: FakeGitHub) -> None:
    left = datetime.fromisoformat(joining(server, kind)["expires_at"]) - datetime.now(UTC)
    assert timedelta(minutes=59) < left <= timedelta(hours=1)
    server.joining_lasts = 0.0
    assert config(server, event, joining(server, kind)["token"]).status_code == 404


# --- what a request may say


JIT = {"name": "cml-1", "runner_group_id": 1, "labels": ["cml"]}
BODIES: list[tuple[str, dict[str, Any], str]] = [
    ("generate-jitconfig", {**JIT, "name": "r" * 65}, "name"),
    ("generate-jitconfig", {**JIT, "name": ""}, "name"),
    ("generate-jitconfig", {**JIT, "labels": []}, "labels"),
    (
        "generate-jitconfig",
        {**JIT, "labels": [f"label-{number}" for number in range(101)]},
        "labels",
    ),
    ("generate-jitconfig", {**JIT, "labels": ["l" * 257]}, "labels"),
    (
        "generate-jitconfig",
        {"name": "cml-1", "labels": ["cml"]},
        '"runner_group_id" wasn\'t supplied.',
    ),
    ("generate-jitconfig", {**JIT, "ephemeral": True}, '"ephemeral" is not a permitted key.'),
    ("{id}/labels", {"labels": []}, "labels"),
    ("{id}/labels", {"labels": [f"label-{number}" for number in range(101)]}, "labels"),
    ("{id}/labels", {"label": "gpu"}, '"label" is not a permitted key.'),
]


@pytest.mark.parametrize(("path", "body", "told"), BODIES, ids=range(len(BODIES)))
def test_a_body_past_its_limits_is_refused(
    path: str, body: dict[str, Any], told: str, server: FakeGitHub
) -> None:
    seat = server.forge.seat("there", ["cml"], ephemeral=False)
    answer = ask(
        server, "POST", f"repos/octo/train/actions/runners/{path.format(id=seat.id)}", body
    )
    assert answer.status_code == 422
    assert told in answer.json()["message"]
    assert [(one.name, one.labels) for one in server.forge.seats()] == [("there", ("cml",))]


@pytest.mark.parametrize("bad", [{"name": "r" * 65}, {"labels": ["l" * 257]}])
def test_config_registers_nothing_past_the_limits(bad: dict[str, Any], server: FakeGitHub) -> None:
    assert (
        config(server, "register", joining(server, "registration")["token"], **bad).status_code
        == 422
    )
    assert server.forge.seats() == []


def test_no_page_is_longer_than_100(server: FakeGitHub) -> None:
    for number in range(150):
        server.forge.seat(f"runner-{number}", ["cml"], ephemeral=False)
    job = server.forge.queue_job(["cml"])
    job.notes += [("", str(number)) for number in range(150)]
    for path, key in (("actions/runners", "runners"), (f"check-runs/{job.id}/annotations", "")):
        for asked, told in (
            ("", 30),
            ("?per_page=100", 100),
            ("?per_page=1000", 100),
            ("?per_page=100&page=2", 50),
            ("?page=9", 0),
        ):
            found = ask(server, "GET", f"repos/octo/train/{path}{asked}").json()
            assert len(found[key] if key else found) == told


# --- Apps


def signed(server: FakeGitHub, **claims: Any) -> str:
    now = int(time.time())
    return jwt.encode(
        {"iss": str(server.github_app.id), "iat": now - 60, "exp": now + 300, **claims},
        server.github_app.key,
        algorithm="RS256",
    )


def test_an_app_is_installed_where_it_is_and_nowhere_else(server: FakeGitHub) -> None:
    token = signed(server)
    for path, status in (
        ("repos/octo/train", 200),
        ("orgs/octo", 200),
        ("repos/octo/other", 404),
        ("orgs/other", 404),
    ):
        assert ask(server, "GET", f"{path}/installation", token=token).status_code == status
    for number, status in ((1, 201), (2, 404)):
        assert (
            ask(
                server, "POST", f"app/installations/{number}/access_tokens", token=token
            ).status_code
            == status
        )


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": None},
        {"exp": int(time.time()) + 3600},
        {"iat": int(time.time()) + 3600},
        {"exp": int(time.time()) - 10},
        {"iss": "1"},
    ],
)
def test_an_apps_own_document_is_good_for_ten_minutes(
    claims: dict[str, Any], server: FakeGitHub
) -> None:
    kept = {key: value for key, value in claims.items() if value is not None}
    token = (
        signed(server, **kept)
        if kept
        else jwt.encode(
            {"iss": str(server.github_app.id)}, server.github_app.key, algorithm="RS256"
        )
    )
    assert ask(server, "GET", "repos/octo/train/installation", token=token).status_code == 401


def test_a_suspended_installation_has_no_tokens(server: FakeGitHub) -> None:
    token = ask(server, "POST", "app/installations/1/access_tokens", token=signed(server)).json()[
        "token"
    ]
    assert len(token) > 40, "https://docs.github.com says that they are no longer 40 characters"
    server.github_app.suspended = True
    assert (
        ask(server, "POST", "app/installations/1/access_tokens", token=signed(server)).status_code
        == 403
    )
    assert ask(server, "GET", "repos/octo/train/actions/runners", token=token).status_code == 403


def test_runners_of_an_enterprise_are_for_classic_tokens_alone(server: FakeGitHub) -> None:
    token = ask(server, "POST", "app/installations/1/access_tokens", token=signed(server)).json()[
        "token"
    ]
    for weak in (token, "canary-fine"):
        assert ask(server, "GET", "enterprises/acme/actions/runners", token=weak).status_code == 403
    assert ask(server, "GET", "enterprises/acme/actions/runners").status_code == 200


# --- the runner program


def test_the_program_lies_elsewhere(server: FakeGitHub) -> None:
    offered = ask(server, "GET", "repos/octo/train/actions/runners/downloads").json()
    answer = requests.get(offered[0]["download_url"], allow_redirects=False, timeout=10)
    assert (answer.status_code, answer.content[:2]) != (200, b"\x1f\x8b")
    assert (
        hashlib.sha256(requests.get(offered[0]["download_url"], timeout=10).content).hexdigest()
        == offered[0]["sha256_checksum"]
    )
