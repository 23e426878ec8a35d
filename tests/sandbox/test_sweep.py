"""What a killed launcher left, on each cloud and at each forge: shown with a note, swept when its
time is over, and everybody else's stays."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from moto.backends import get_backend

from runner_action import cli
from runner_action.marks import MOMENT, Mark
from runner_action.model import ProviderName, Repository, Runner, moment
from runner_action.sandbox.clouds.aws.ec2 import ACCOUNT
from runner_action.sandbox.world import World
from runner_action.waiting import SystemClock
from tests.sandbox.conftest import Launch, Launcher, all_gone, until

pytestmark = pytest.mark.sandbox
CLOUDS = [
    ("aws", "github"),
    ("aws", "gitlab"),
    ("gcp", "github"),
    ("gcp", "gitlab"),
    ("azure", "github"),
    ("azure", "gitlab"),
]
CLOUDS += [("kubernetes", "github"), ("kubernetes", "gitlab")]


class Later(SystemClock):
    """The time of day in some hours; waiting is as ever."""

    def __init__(self, hours: float) -> None:
        self._ahead = timedelta(hours=hours)

    def now(self) -> datetime:
        return datetime.now(UTC) + self._ahead


@pytest.fixture
def kind(request: pytest.FixtureRequest) -> tuple[str, str]:
    cloud, forge = getattr(request, "param", ("aws", "github"))
    return cloud, forge


@pytest.fixture
def world(kind: tuple[str, str]) -> Iterator[World]:
    # The machines never boot: nothing but a sweep can end them before their cloud does.
    with World(kind[1], kind[0], boots=False) as made:
        yield made


def ask(
    world: World,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    *argv: str,
    hours: float = 0,
) -> tuple[int, str]:
    """A command by hand, so many hours later: its exit code and all that it says."""
    for name, value in world.environ().items():
        monkeypatch.setenv(name, value)  # which the SDKs read
    environ = {
        **world.environ(),
        "CML_RUNNER_CLOUD": world.provider.value,
        "CML_RUNNER_LOG": "info",
    }
    code = cli.main(
        [*argv, "--json"] if "--json" not in argv else list(argv), environ, Later(hours)
    )
    out, err = capsys.readouterr()
    return code, out + err


def killed(world: World, launch: Launch, *argv: str) -> Launcher:
    """After its machine was made, and before its runner was online."""
    launcher = launch(*argv)
    until(lambda: world.cloud.alive() or launcher.process.poll() is not None, "the instance", 120)
    assert world.cloud.alive(), f"exit code {launcher.wait()}: {launcher.told}"
    launcher.kill(signal.SIGKILL)
    launcher.wait()
    return launcher


def foreign(world: World) -> None:
    """A runner by hand with a similar name, one that copied a label, one of another repository's
    launch."""
    other = Repository(url=f"{world.server.repo_url}-other")
    past = datetime.now(UTC) - timedelta(days=30)
    theirs = Mark(
        provider=ProviderName(world.provider), online_by=past, name="cml-ffffffffff"
    ).label(other)
    mine = Mark(provider=ProviderName(world.provider), online_by=past, name="cml-0123456789").label(
        Repository(url=world.server.repo_url)
    )
    for name, labels in (
        ("cml-0123456780", ["cml"]),
        ("trainer", ["cml", mine]),
        ("cml-ffffffffff", [theirs]),
    ):
        world.forge.seat(name, labels, ephemeral=False)


STRANGERS = ["cml-0123456780", "cml-ffffffffff", "trainer"]


def names(world: World) -> list[str]:
    return sorted(seat.name for seat in world.forge.seats())


@pytest.mark.parametrize("kind", CLOUDS, indirect=True, ids="-".join)
def test_a_killed_launch_is_odd_then_swept_and_nothing_else(
    world: World,
    launch: Launch,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    foreign(world)
    killed(world, launch, "--single")
    # At once it is on its way.
    code, text = ask(world, capsys, monkeypatch, "status")
    assert code == 0, text
    (row,) = json.loads(text[text.index("{\n") :])["status"]
    assert (row["state"], row["notes"], row["cost-usd"]) == ("starting", "", None)
    assert row["lease-seconds"] > 400000
    assert ask(world, capsys, monkeypatch, "reap")[1].count("Removed ") == 0
    # When its lease is over it is told, then removed; a dry run removes nothing.
    code, text = ask(world, capsys, monkeypatch, "status", hours=130)
    (row,) = json.loads(text[text.index("{\n") :])["status"]
    assert "its lease ended at" in row["notes"]
    before = world.left()
    code, text = ask(world, capsys, monkeypatch, "reap", "--dry-run", hours=130)
    assert (code, world.left()) == (0, before), text
    assert {
        one["why"].partition(" ended")[0].partition(" machine")[0]
        for one in json.loads(text[text.index("{\n") :])["removed"]
    } >= {"its lease"}
    code, text = ask(world, capsys, monkeypatch, "reap", hours=130)
    assert code == 0, text
    until(lambda: not world.cloud.alive(), "the machine to be gone", 60)
    assert names(world) == STRANGERS
    assert "canary" not in text
    assert ask(world, capsys, monkeypatch, "status", hours=130)[1].count("unexpected") == 0


@pytest.mark.parametrize("kind", CLOUDS[::3] + CLOUDS[4:5], indirect=True, ids="-".join)
def test_a_broken_machine_whose_launcher_was_killed_goes_when_its_start_timeout_is_over(
    world: World,
    launch: Launch,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its runner was registered just in time, and nobody ever came for it."""
    killed(world, launch, "--single")
    assert len(world.forge.seats()) == 1
    code, text = ask(world, capsys, monkeypatch, "reap", hours=0.5)
    assert code == 0, text
    assert "its runner was never online, and its start timeout is over" in text
    until(lambda: not world.cloud.alive(), "the machine to be gone", 60)
    assert names(world) == []


@pytest.mark.parametrize("kind", CLOUDS[::3] + CLOUDS[4:5], indirect=True, ids="-".join)
def test_a_machine_whose_runner_is_gone_and_a_runner_whose_machine_is_gone(
    world: World,
    launch: Launch,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    killed(world, launch, "--single")
    (seat,) = world.forge.seats()
    world.forge.remove(seat.id, force=True)
    code, text = ask(world, capsys, monkeypatch, "reap", hours=0.5)
    assert code == 0, text
    assert "it has no runner, and its start timeout is over" in text
    until(lambda: not world.cloud.alive(), "the machine to be gone", 60)
    alone = world.forge.seat(seat.name, seat.labels, ephemeral=True)
    text = ask(world, capsys, monkeypatch, "reap", hours=0.5)[1]
    assert "it is offline, and has no machine" in text
    assert world.forge.by_id(alone.id) is None


@pytest.mark.parametrize("kind", CLOUDS, indirect=True, ids="-".join)
def test_destroy_removes_all_of_a_name_and_is_content_with_nothing(
    world: World,
    launch: Launch,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    foreign(world)
    killed(world, launch, "--name=trained", "--single")
    assert any(name.startswith("trained-") for name in names(world))
    code, text = ask(world, capsys, monkeypatch, "destroy", "trained", "--dry-run")
    assert (code, bool(world.cloud.alive())) == (0, True), text
    code, text = ask(world, capsys, monkeypatch, "destroy", "trained")
    assert code == 0, text
    until(lambda: not world.cloud.alive(), "the machine to be gone", 60)
    assert names(world) == STRANGERS
    code, text = ask(world, capsys, monkeypatch, "destroy", "--name=trained")
    assert code == 0
    assert "Found nothing named trained." in text
    assert (
        "was not created by cml-runner: it stays"
        in ask(world, capsys, monkeypatch, "destroy", "trainer")[1]
    )
    assert names(world) == STRANGERS


def test_on_aws_every_enabled_region_is_searched_or_those_that_are_named(
    world: World,
    launch: Launch,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    killed(world, launch, "--cloud-region=eu-central-1", "--name=far")
    assert (
        "Found nothing named far."
        in ask(world, capsys, monkeypatch, "destroy", "far", "--cloud-region=us-west,us-east-1a")[1]
    )
    assert ask(world, capsys, monkeypatch, "status", "--cloud-region=us-west")[1].count("far") == 0
    code, text = ask(world, capsys, monkeypatch, "destroy", "far")
    assert code == 0, text
    assert re.search(r"Looking for far in .*eu-central-1", text)
    all_gone(world)


@pytest.mark.parametrize(
    "kind", [("aws", "github"), ("aws", "gitlab")], indirect=True, ids="-".join
)
def test_the_next_launch_sweeps_what_a_killed_one_left_and_leaves_others_alone(
    kind: tuple[str, str], launch: Launch, world: World
) -> None:
    """The machine of the past was made by EC2 as it would have been days ago."""
    foreign(world)
    killed(world, launch, "--single", "--name=past")
    age(world, hours=130)
    with_them = set(world.cloud.alive())
    later = launch("--single", "--name=now")
    until(
        lambda: (
            not any(name.startswith("past-") for name in names(world))
            and not with_them & set(world.cloud.alive())
        ),
        "the sweep",
        60,
    )
    later.kill(signal.SIGTERM)
    assert later.wait() == 143, later.told
    assert "Removed machine" in later.told
    assert "its lease ended" in later.told
    assert names(world) == STRANGERS
    assert world.cloud.alive() == []


def age(world: World, hours: float) -> None:
    """All that EC2 and the forge keep becomes so much older: its tags and its marks."""
    repository, past = Repository(url=world.server.repo_url), timedelta(hours=hours)
    for instance in world.ec2.alive():
        backend = next(one for one in get_backend("ec2")[ACCOUNT].values() if instance in one.tags)
        for key in ("cml-runner:expiry", "cml-runner:online-by"):
            when = moment(backend.tags[instance][key])
            assert when
            backend.tags[instance][key] = (when - past).strftime(MOMENT)
    for seat in world.forge.seats():
        for label in seat.labels:
            told = Runner(
                id=seat.id, name=seat.name, labels=frozenset({label}), online=False, busy=False
            )
            if mark := Mark.of(told, repository):
                older = replace(mark, online_by=mark.online_by - past).label(repository)
                seat.labels = tuple(older if one == label else one for one in seat.labels)


def test_a_terminal_is_shown_a_table_and_a_job_gets_a_summary(
    world: World, launch: Launch, capsys: pytest.CaptureFixture[str]
) -> None:
    killed(world, launch, "--cloud-spot=true")
    shown = launch(CML_RUNNER_COMMAND="status")
    assert shown.wait() == 0, shown.told
    assert (
        "| runner | state | machine | type | where | age | lease | cost so far | notes |"
        in shown.summary
    )
    assert "(spot)" in shown.summary
    assert re.search(r"\| \$0\.\d\d \||\| unknown \|", shown.summary)
    assert json.loads(shown.outputs["status"])[0]["state"] == "starting"
    assert "Searched for machines in" in shown.summary
