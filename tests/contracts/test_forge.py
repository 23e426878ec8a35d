"""What every forge keeps, be it GitHub or GitLab over HTTP or the fake in memory; calls and
answers held to the forges' own descriptions."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any

import pytest

from runner_action import claim, inputs
from runner_action.commands.reap import removals
from runner_action.errors import AuthError, ForgeError, InputError, RunnerActionError, RunnerBusy
from runner_action.forges.base import Forge
from runner_action.forges.github.client import GitHub, runner_of
from runner_action.forges.github.levels import root_of
from runner_action.forges.gitlab.client import GitLab
from runner_action.marks import Mark
from runner_action.model import ID_END, ProviderName, Repository, Run, Runner, Secret
from runner_action.naming import base_name
from runner_action.sandbox.forges.github.api import FakeGitHub
from runner_action.sandbox.forges.github.archive import VERSION
from runner_action.sandbox.forges.gitlab.api import FakeGitLab
from runner_action.waiting import SystemClock
from tests.contracts.openapi import Contract, description, gitlab_judge
from tests.fakes import FakeClock, FakeForge

TOKENS = {"canary-admin": "admin", "canary-readonly": "readonly"}


@dataclass
class Side:
    """A forge under test, and the hand that moves its other side."""

    forge: Forge
    server: FakeGitHub | FakeGitLab | None
    owner: str = ""

    def add(self, name: str, labels: list[str], *, online: bool = True, busy: bool = False) -> None:
        if self.server is None:
            assert isinstance(self.forge, FakeForge)
            self.forge.add(name, labels, online=online, busy=busy)
            return
        memory = self.server.forge
        seat = memory.seat(name, labels, ephemeral=False, owner=self.owner)
        memory.set_online(seat, online)
        if busy:
            memory.queue_job(labels)
            assert memory.next_job(seat, wait=0)

    def come_and_go(self, name: str) -> None:
        """The runner is online once, and then no more."""
        if self.server is None:
            assert isinstance(self.forge, FakeForge)
            self.forge.come_and_go(name)
            return
        seat = self.server.forge.by_name(name)
        assert seat
        self.server.forge.set_online(seat, True)
        self.server.forge.set_online(seat, False)


JUDGES = {
    "api.github.com": ("", "/octo"),
    "ghec": ("", "/octo", "/enterprises/acme"),
    "ghes-3.19": ("", "/octo", "/enterprises/acme"),
}
"""GitHub's descriptions of itself, and the levels of runners that they know: a repository, an
organisation, an enterprise."""
SIDES = [(judge, path) for judge, paths in JUDGES.items() for path in paths]


@cache
def github_description(name: str) -> dict[str, Any]:
    return description(name, "/actions/runners", "/actions/runner-groups", "/releases/tags")


@pytest.fixture
def server() -> Iterator[FakeGitHub]:
    fake = FakeGitHub(tokens=TOKENS)
    yield fake
    fake.close()


def github(server: FakeGitHub, token: str = "canary-admin", repo: str = "octo/train") -> GitHub:
    return GitHub(Repository(url=f"{server.url}/{repo}"), Secret(token))


@pytest.fixture(
    params=[*SIDES, "gitlab", "fake"],
    ids=[*(f"{judge}{path or '/octo/train'}" for judge, path in SIDES), "gitlab", "fake"],
)
def side(request: pytest.FixtureRequest) -> Iterator[Side]:
    if request.param == "fake":
        yield Side(FakeForge(), None)
        return
    if request.param == "gitlab":
        gitlab = FakeGitLab({"canary-admin": ["api"]})
        with gitlab_judge(gitlab.server_url):
            yield Side(
                GitLab(
                    Repository(url=gitlab.repo_url),
                    Secret("canary-admin"),
                    f"{gitlab.server_url}/api/v4",
                    downloads=gitlab.downloads,
                ),
                gitlab,
            )
        gitlab.close()
        return
    server: FakeGitHub = request.getfixturevalue("server")
    judge, path = request.param
    where = Repository(url=server.url + (path or "/octo/train"))
    # 304 is the answer to a question whose answer is known already; GitHub describes it for few of
    # its calls.
    with Contract(
        github_description(judge), f"{server.url}/api/v3", undeclared=(304, 404)
    ) as contract:
        yield Side(GitHub(where, Secret("canary-admin")), server, root_of(where)[1:])
        assert contract.seen, "nothing went by the judge"


def test_runners_are_listed_with_labels_and_state(side: Side) -> None:
    side.add("one", ["cml", "gpu"])
    side.add("two", ["cml"], online=False)
    side.add("three", ["cml"], busy=True)
    listed = {runner.name: runner for runner in side.forge.runners()}
    assert (listed["one"].online, listed["one"].busy, listed["one"].labels >= {"cml", "gpu"}) == (
        True,
        False,
        True,
    )
    assert not listed["two"].online
    assert listed["three"].busy
    assert len({runner.id for runner in listed.values()}) == 3


def test_an_offline_runner_shows_its_labels_when_they_are_asked_for(side: Side) -> None:
    side.forge.register_one("cml-1", ["train", "cml-runner-aws-20261124140500-1a2b3c4d"], "x64")
    (found,) = side.forge.runners(offline=True)
    assert {"train", "cml-runner-aws-20261124140500-1a2b3c4d"} <= found.labels
    assert not found.online


def test_a_runner_that_was_never_online_is_told_from_one_that_left(side: Side) -> None:
    side.forge.register_one("cml-1", ["cml"], "x64")
    (never,) = side.forge.runners(offline=True)
    side.come_and_go("cml-1")
    (gone,) = side.forge.runners(offline=True)
    assert [(one.online, one.contacted) for one in (never, gone)] == [(False, False), (False, True)]


def test_where_github_tells_no_version_a_runner_may_have_been_online() -> None:
    told = {
        "id": 1,
        "name": "cml-1",
        "os": "unknown",
        "status": "offline",
        "busy": False,
        "labels": [],
    }
    assert [
        runner_of(one).contacted
        for one in (told, {**told, "version": None}, {**told, "version": VERSION})
    ] == [True, False, True]


def test_many_runners_are_all_listed(side: Side) -> None:
    for number in range(250):
        side.add(f"runner-{number}", ["cml"])
    assert len(side.forge.runners()) == 250


def test_a_single_runner_is_registered_at_once_and_only_once(side: Side) -> None:
    made = side.forge.register_one("cml-1", ["cml"], "x64")
    assert made.jit_config or made.runner_token
    assert made.token is None
    assert [(runner.name, runner.id, runner.online) for runner in side.forge.runners()] == [
        ("cml-1", made.runner_id, False)
    ]


def accepted(driver: str, labels: list[str], name: str = "cml-1") -> bool:
    """Whether the inputs take them."""
    given = {
        "repo": "https://forge.test/octo/train",
        "driver": driver,
        "token": "canary",
        "cloud": "aws",
        "labels": ",".join(labels),
        "name": name,
    }
    try:
        inputs.parse(
            inputs.Raw(flags={key: [text] for key, text in given.items()}, environ={}),
            lambda _: None,
        )
    except InputError:
        return False
    return True


def test_what_the_inputs_take_the_forge_takes(side: Side) -> None:
    """The most labels, the longest ones and the longest name, with those that a launch adds."""
    if side.server is None:
        pytest.skip("the fake in memory takes everything")
    driver = "gitlab" if isinstance(side.server, FakeGitLab) else "github"
    most = max(
        number
        for number in range(1, 200)
        if accepted(driver, [f"label-{one}" for one in range(number)])
    )
    length = max(number for number in range(1, 500) if accepted(driver, ["l" * number]))
    longest = "n" * max(
        number for number in range(1, 500) if accepted(driver, ["cml"], "n" * number)
    )
    name = base_name(longest, Run(derived_name="cml-0123456789", key="0123456789", title=""))
    ours = [
        "cml-0123456789",
        Mark(provider=ProviderName.KUBERNETES, online_by=HERE, name=name).label(
            Repository(url="https://forge.test/octo/train")
        ),
    ]
    labels = [f"{number:03}".ljust(length, "l") for number in range(most)]
    side.forge.register_one(f"{name}-{'i' * ID_END}", [*labels, *ours], "x64")
    (found,) = side.forge.runners(offline=True)
    assert found.labels >= set(labels)


def test_registering_again_replaces_the_runner_that_was_left_behind(side: Side) -> None:
    first = side.forge.register_one("cml-1", ["cml"], "x64")
    second = side.forge.register_one("cml-1", ["cml"], "x64")
    assert [runner.name for runner in side.forge.runners()] == ["cml-1"]
    assert (second.runner_id != first.runner_id) or side.server is None


def test_a_namesake_of_another_launch_stays(side: Side) -> None:
    """Whatever is registered, retried or rolled back: the last label is the launch's own."""
    theirs = side.forge.register_one("cml-1", ["cml", "theirs"], "x64").runner_id
    with suppress(ForgeError):  # GitHub allows a name only once
        side.forge.register_one("cml-1", ["cml", "ours"], "x64")
    side.forge.deregister("cml-1", label="ours")
    assert [runner.id for runner in side.forge.runners()] == [theirs]


def test_tokens_register_nobody(side: Side) -> None:
    for token in (side.forge.registration_token(), side.forge.removal_token()):
        assert token is None or token.reveal()
    assert side.forge.runners() == []


def test_deregister_by_name_or_id_and_absent_is_success(side: Side) -> None:
    side.add("one", ["cml"])
    made = side.forge.register_one("two", ["cml"], "x64")
    assert side.forge.deregister("one") is True
    assert side.forge.deregister("one") is False
    assert side.forge.deregister("two", made.runner_id) is True
    assert side.forge.deregister("two", made.runner_id) is False
    assert side.forge.runners() == []


def test_a_busy_runner_is_not_deregistered(side: Side) -> None:
    side.add("one", ["cml"], busy=True)
    with pytest.raises(RunnerBusy):
        side.forge.deregister("one")
    assert len(side.forge.runners()) == 1


def test_the_runner_program_comes_with_its_checksum(side: Side) -> None:
    found = {
        architecture: side.forge.download(architecture, "latest")
        for architecture in ("x64", "arm64")
    }
    assert found["x64"].url != found["arm64"].url
    assert {len(download.sha256) for download in found.values()} == {64}


# --- claims and turns

HERE = FakeClock().now()
MINE, OTHERS = (
    claim.claim(holder, HERE + timedelta(seconds=1300)) for holder in ("0123456789", "abcdef0123")
)
OVER, LEAVES = (
    claim.claim("fedcba9876", HERE),
    claim.claim(claim.LEAVING, HERE + timedelta(seconds=1300)),
)


def only(side: Side) -> Runner:
    (runner,) = side.forge.runners()
    return runner


def claims(side: Side, mark: str, clock: FakeClock, *, shared: bool = False) -> bool:
    return side.forge.claim(only(side), mark, clock, shared=shared)


def test_a_claim_is_seen_by_all_and_is_no_label(side: Side) -> None:
    side.add("one", ["cml"])
    assert claims(side, MINE, FakeClock())
    assert only(side).claims == {MINE}
    assert "cml" in only(side).labels
    assert not any(label.startswith(claim.PREFIX) for label in only(side).labels)


def test_a_runner_is_claimed_by_one_launch_and_a_shared_one_by_many(side: Side) -> None:
    side.add("one", ["cml"])
    clock = FakeClock()
    assert claims(side, MINE, clock)
    assert claims(side, MINE, clock), "a step that is repeated"
    assert not claims(side, OTHERS, clock)
    assert MINE in only(side).claims
    assert OTHERS not in only(side).claims
    assert claims(side, OTHERS, clock, shared=True)


def test_a_claim_that_is_over_is_none(side: Side) -> None:
    side.add("one", ["cml"])
    assert claims(side, OVER, FakeClock(1000.0 - 60))
    assert claims(side, MINE, FakeClock())
    assert MINE in only(side).claims


def test_a_runner_that_leaves_or_is_gone_cannot_be_claimed(side: Side) -> None:
    side.add("one", ["cml"])
    there = only(side)
    assert claims(side, LEAVES, FakeClock())
    assert not claims(side, MINE, FakeClock(), shared=True)
    assert not claims(side, MINE, FakeClock())
    side.forge.deregister("one")
    assert not side.forge.claim(there, MINE, FakeClock(), shared=True)


def test_many_at_once_and_one_has_it(side: Side) -> None:
    side.add("one", ["cml"])
    clock, runner = SystemClock(), only(side)
    marks = [
        claim.claim(f"{number:010}", clock.now() + timedelta(seconds=300)) for number in range(8)
    ]
    with ThreadPoolExecutor(len(marks)) as side_by_side:
        won = list(
            side_by_side.map(
                lambda mark: side.forge.claim(runner, mark, clock, shared=False), marks
            )
        )
    assert won.count(True) <= 1
    # GitHub's answer is what the first has added, so that there always is a first.
    assert won.count(True) == 1 or isinstance(side.server, FakeGitLab)


def test_a_turn_is_one_launchs(side: Side) -> None:
    turn, clock = claim.turn(["cml"]), FakeClock()
    assert side.forge.take_turn(turn, MINE, clock)
    assert side.forge.take_turn(turn, MINE, clock), "its answer was lost, or the step is repeated"
    assert not side.forge.take_turn(turn, OTHERS, clock)
    assert side.forge.take_turn(claim.turn(["other"]), OTHERS, clock)
    held = [runner for runner in side.forge.runners() if runner.name.split(" ")[0] == turn]
    assert {mark for runner in held for mark in runner.claims} == {MINE}
    assert not any(runner.online for runner in held)
    side.forge.end_turn(turn, claim.holder_of(OTHERS))
    assert not side.forge.take_turn(turn, OTHERS, clock), "nobody ends another's"
    side.forge.end_turn(turn, claim.holder_of(MINE))
    side.forge.end_turn(turn, claim.holder_of(MINE))
    assert side.forge.take_turn(turn, OTHERS, clock)


def test_a_turn_that_is_over_is_removed_by_who_wants_it(side: Side) -> None:
    turn, clock = claim.turn(["cml"]), FakeClock()
    assert side.forge.take_turn(turn, OVER, FakeClock(1000.0 - 60))
    assert side.forge.take_turn(turn, MINE, clock) or side.forge.take_turn(turn, MINE, clock)
    assert {mark for runner in side.forge.runners() for mark in runner.claims} == {MINE}


def test_a_turn_bears_the_mark_by_which_a_sweep_knows_it(side: Side) -> None:
    repository, turn = Repository(url="https://forge.test/octo/train"), claim.turn(["cml"])
    mark = Mark(provider=ProviderName.AWS, online_by=HERE, name=turn)
    assert side.forge.take_turn(turn, MINE, FakeClock(), labels=[mark.label(repository)])
    (runner,) = side.forge.runners(offline=True)
    assert Mark.of(runner, repository) == mark
    assert removals([], [runner], repository, ProviderName.AWS, HERE) == []
    # In whatever regions machines were looked for: a turn has none.
    over = removals(
        [], [runner], repository, ProviderName.AWS, HERE + timedelta(minutes=3), everywhere=False
    )
    assert [(one.runner, one.why) for one in over] == [(runner, "its launch is over")]


def test_many_want_the_turn_at_once(side: Side) -> None:
    turn, marks = (
        claim.turn(["cml"]),
        [claim.claim(f"{number:010}", HERE + timedelta(seconds=2000)) for number in range(8)],
    )
    with ThreadPoolExecutor(len(marks)) as side_by_side:
        won = list(
            side_by_side.map(lambda mark: side.forge.take_turn(turn, mark, FakeClock()), marks)
        )
    assert won.count(True) == 1
    assert len(side.forge.runners()) == 1, "the others took theirs back"


def test_a_github_without_just_in_time_runners_lets_everybody_go_ahead(
    server: FakeGitHub, caplog: pytest.LogCaptureFixture
) -> None:
    server.fail("POST", "generate-jitconfig$", 404, body={"message": "Not Found"})
    assert github(server).take_turn("cml-turn-1", MINE, FakeClock())
    assert "may create machines at the same time" in caplog.text


# --- GitHub alone: what it refuses, in the user's words


ERRORS: list[tuple[str, str, int, dict[str, Any], type[RunnerActionError], str]] = [
    ("GET", "runners$", 401, {"message": "Bad credentials"}, AuthError, "scope `repo`"),
    (
        "GET",
        "runners$",
        403,
        {"message": "Resource not accessible by integration"},
        AuthError,
        "GITHUB_TOKEN can never",
    ),
    ("GET", "runners$", 404, {"message": "Not Found"}, ForgeError, "Administration: write"),
    (
        "POST",
        "registration-token",
        403,
        {"message": "Must have admin rights"},
        AuthError,
        "scope `repo`",
    ),
    ("POST", "registration-token", 422, {"message": "odd"}, ForgeError, "githubstatus"),
]


@pytest.mark.parametrize(("method", "path", "status", "body", "kind", "hint"), ERRORS)
def test_refusals(
    method: str,
    path: str,
    status: int,
    body: dict[str, Any],
    kind: type[RunnerActionError],
    hint: str,
    server: FakeGitHub,
) -> None:
    server.fail(method, path, status, times=9, body=body)
    forge = github(server)
    ask = forge.runners if method == "GET" else forge.registration_token
    with pytest.raises(kind, match=str(body["message"])) as caught:
        ask()
    assert hint in caught.value.hint
    assert "canary" not in str(caught.value) + repr(caught.value) + caught.value.hint
    assert caught.value.exit_code == 3


def test_a_wrong_and_a_weak_token(server: FakeGitHub) -> None:
    with pytest.raises(AuthError, match="wrong or expired"):
        github(server, "canary-wrong").runners()
    weak = github(server, "canary-readonly")
    assert weak.runners() == []
    with pytest.raises(AuthError, match="lacks the permission administration=write"):
        weak.registration_token()
    with pytest.raises(ForgeError, match="does not exist"):
        github(server, repo="octo/other").runners()


def test_what_passes_by_itself_is_asked_again(server: FakeGitHub) -> None:
    server.fail("GET", "runners$", 502, times=2)
    assert github(server).runners() == []
    assert [status for _, _, status in server.requests] == [502, 502, 200]


def test_nobody_there_is_told_without_the_token(server: FakeGitHub) -> None:
    server.close()
    with pytest.raises(ForgeError, match="Cannot reach") as caught:
        GitHub(
            Repository(url="http://127.0.0.1:9/octo/train"), Secret("canary-admin")
        ).registration_token()
    assert "canary" not in repr(caught.value)


def test_another_version_comes_from_the_releases_with_its_digest(server: FakeGitHub) -> None:
    assert github(server).download("x64", "latest").version == VERSION
    assert github(server).download("x64", VERSION).version == VERSION
    with pytest.raises(ForgeError):
        github(server).download("x64", "2.1.0")


def test_the_job_labels_of_a_just_in_time_runner(server: FakeGitHub) -> None:
    github(server).register_one("cml-1", ["cml"], "arm64")
    assert server.forge.seats()[0].labels == ("self-hosted", "Linux", "ARM64", "cml")
