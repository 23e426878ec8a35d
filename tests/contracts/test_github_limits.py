"""GitHub when it does not answer, or wants to be asked less often: faults, limits, thousands of
runners."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask

from runner_action.errors import AuthError, ForgeError
from runner_action.forges.github.answers import RateLimited
from runner_action.forges.github.client import GitHub, Patience
from runner_action.model import Registration, Repository, Secret
from runner_action.sandbox.forges.github.api import FakeGitHub
from runner_action.sandbox.served import Served
from tests.fakes import FakeClock


@pytest.fixture
def server() -> Iterator[FakeGitHub]:
    fake = FakeGitHub(tokens={"canary-admin": "admin"})
    yield fake
    fake.close()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def at(server: FakeGitHub, **more: Any) -> GitHub:
    return GitHub(Repository(url=server.repo_url), Secret("canary-admin"), **more)


def statuses(server: FakeGitHub) -> list[int]:
    return [status for _, _, status in server.requests]


# --- what passes by itself


@pytest.mark.parametrize(("status", "times"), [(500, 1), (502, 2), (503, 4), (0, 2)])
def test_what_passes_by_itself_is_asked_again(
    status: int, times: int, server: FakeGitHub, clock: FakeClock
) -> None:
    """A gateway's page, an answer that is lost on its way."""
    server.fail("GET", "runners$", status, times=times)
    assert at(server, patience=Patience(clock)).runners() == []
    assert len(clock.slept) == times
    assert sum(clock.slept) < 8


def test_a_slow_answer_is_not_waited_for_for_ever(server: FakeGitHub, clock: FakeClock) -> None:
    server.fail("GET", "runners$", 200, slow=3)
    began = time.monotonic()
    assert at(server, patience=Patience(clock, answer=1)).runners() == []
    assert time.monotonic() - began < 20


def test_what_does_not_pass_is_told(server: FakeGitHub, clock: FakeClock) -> None:
    server.fail("POST", "registration-token$", 503, times=9, body={"message": "Unicorn"})
    with pytest.raises(
        ForgeError, match=r"GitHub answered 503 to POST .*registration-token: Unicorn"
    ):
        at(server, patience=Patience(clock)).registration_token()
    server.fail("GET", "runners$", 0, times=9)
    with pytest.raises(ForgeError, match=r"Cannot reach GitHub \(GET .*ConnectionError") as caught:
        at(server, patience=Patience(clock)).runners()
    assert f"{server.url}/api/v3" in caught.value.hint
    assert statuses(server).count(503) == 5


@pytest.mark.parametrize(
    ("status", "headers"), [(301, {"Location": "https://elsewhere.test/api/v3/repos"}), (200, {})]
)
def test_something_else_stands_there(
    status: int, headers: dict[str, str], clock: FakeClock
) -> None:
    """A server that wants TLS, a portal that wants a password."""
    app = Flask("portal")
    app.add_url_rule("/<path:path>", view_func=lambda path: ("<html>", status, headers))
    portal = Served(app, "/api/v3")
    with pytest.raises(ForgeError) as caught:
        GitHub(
            Repository(url=f"{portal.url}/octo/train"),
            Secret("canary-admin"),
            patience=Patience(clock),
        ).runners()
    assert (
        "to another host" in str(caught.value)
        if headers
        else "JSONDecodeError" in str(caught.value)
    )
    assert "`repo`" in caught.value.hint
    portal.close()


def test_a_lost_answer_registers_nobody_twice(server: FakeGitHub, clock: FakeClock) -> None:
    server.fail("POST", "generate-jitconfig$", 502, late=True)
    made = at(server, patience=Patience(clock)).register_one("cml-1", ["cml"], "x64")
    assert [seat.id for seat in server.forge.seats()] == [made.runner_id]
    assert server.forge.ever == ["cml-1", "cml-1"], "the one whose answer was lost made room"


# --- limits

SECONDARY = {
    "message": (
        "You have exceeded a secondary rate limit. Please wait a few minutes before you try again."
    )
}
PRIMARY = {"message": "API rate limit exceeded for user ID 1."}


@pytest.mark.parametrize(
    ("status", "body", "headers", "waited"),
    [
        (403, SECONDARY, {"Retry_After": "30"}, 30),
        (403, SECONDARY, {}, 60),
        (429, SECONDARY, {"Retry_After": "20"}, 20),
        (429, {"message": "Too many requests"}, {}, 60),
        (503, {"message": "Busy"}, {"Retry_After": "10"}, 10),
    ],
)
def test_a_limit_is_waited_for_as_long_as_github_asks(
    status: int,
    body: dict[str, str],
    headers: dict[str, Any],
    waited: float,
    server: FakeGitHub,
    clock: FakeClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    server.fail("GET", "runners$", status, body=body, **headers)
    with caplog.at_level(logging.WARNING, "runner_action"):
        assert at(server, patience=Patience(clock, until=clock.at + 600)).runners() == []
    assert clock.slept == [waited]
    assert f"waiting for {waited} s" in caplog.text


def test_the_hourly_limit_is_waited_for_if_its_end_is_near(
    server: FakeGitHub, clock: FakeClock
) -> None:
    server.fail("GET", "runners$", 403, body=PRIMARY, X_RateLimit_Reset=str(int(time.time()) + 20))
    assert at(server, patience=Patience(clock, until=clock.at + 600)).runners() == []
    (waited,) = clock.slept
    assert 10 < waited < 23


@pytest.mark.parametrize(
    ("status", "body", "headers"),
    [
        (403, PRIMARY, {"X_RateLimit_Reset": str(int(time.time()) + 3000)}),
        (403, SECONDARY, {"Retry_After": "3000"}),
        (429, SECONDARY, {"Retry_After": "3000"}),
        (403, SECONDARY, {}),
    ],
)
def test_nobody_waits_longer_than_the_launch_has(
    status: int, body: dict[str, str], headers: dict[str, Any], server: FakeGitHub, clock: FakeClock
) -> None:
    """And GitHub is left alone until then: who goes on asking may be locked out."""
    forge = at(server, patience=Patience(clock, until=clock.at + 40, least=1))
    server.fail("GET", "runners$", status, body=body, **headers)
    for _ in range(3):
        with pytest.raises(RateLimited, match="longer than this launch can wait") as caught:
            forge.runners()
    assert not isinstance(caught.value, AuthError), (
        "another token's scope would not help, and no machine is ended for it"
    )
    assert "1,500 in five minutes" in caught.value.hint
    assert (statuses(server), clock.slept) == ([status], [])
    clock.at += 3100
    assert forge.runners() == []


def test_what_has_not_changed_costs_nothing_of_the_limit(server: FakeGitHub) -> None:
    forge = at(server)
    assert forge.runners() == []
    assert forge.runners() == []
    seat = server.forge.seat("one", ["cml"], ephemeral=False)
    assert [(one.name, one.online) for one in forge.runners()] == [("one", False)]
    server.forge.set_online(seat, True)
    assert [(one.name, one.online) for one in forge.runners()] == [("one", True)]
    assert statuses(server) == [200, 304, 200, 200]


def test_three_thousand_runners(server: FakeGitHub) -> None:
    for number in range(3000):
        server.forge.seat(f"runner-{number}", ["cml"], ephemeral=False)
    forge = at(server)
    assert len({one.name for one in forge.runners()}) == 3000
    assert len(server.requests) == 30
    server.requests.clear()
    awaited = server.forge.by_name("runner-2999")
    assert awaited
    server.forge.set_online(awaited, True)
    assert forge.online({"runner-2999": Registration(token=Secret("canary"))}) == ["runner-2999"]
    assert forge.online(
        {"runner-2999": Registration(jit_config=Secret("canary"), runner_id=awaited.id)}
    ) == ["runner-2999"]
    assert (
        forge.online({"runner-1": Registration(jit_config=Secret("canary"), runner_id=99999)}) == []
    ), "gone"
    assert len(server.requests) == 3, "one question each, whatever else is there"
    server.requests.clear()
    many = {
        f"runner-{number}": Registration(token=Secret("canary")) for number in range(2900, 3000)
    }
    found = [list(forge.online(many)) for _ in range(8)]
    assert found == [["runner-2999"], [], [], [], [], [], [], ["runner-2999"]]
    assert statuses(server).count(200) == 1, "only the last page has changed"
    assert len(server.requests) == 60


@pytest.mark.parametrize("others", [0, 3])
def test_a_namesake_is_neither_taken_for_the_launchs_runner_nor_removed(
    server: FakeGitHub, others: int
) -> None:
    """The label is that of the launch whose machine could not register its own runner."""
    seat = server.forge.seat("train", ["cml", "cml-aws-20260102030405-aaaaaaaa"], ephemeral=False)
    server.forge.set_online(seat, True)
    forge = at(server)
    token = Secret("canary")
    another = Registration(token=token, label="cml-aws-20260102030405-bbbbbbbb")
    own = Registration(token=token, label="cml-aws-20260102030405-aaaaaaaa")
    missing = {f"missing-{number}": another for number in range(others)}
    assert list(forge.online({"train": another, **missing})) == []
    assert list(forge.online({"train": own, **missing})) == ["train"]
    assert forge.deregister("train", label=another.label) is False
    assert server.forge.by_name("train")
    assert forge.deregister("train", label=own.label) is True
