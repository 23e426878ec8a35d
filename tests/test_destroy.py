"""Everything of a launch is deleted by its name; what cml-runner did not create stays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from runner_action.commands.destroy import LET_GO_SECONDS, destroy, launch_of, named
from runner_action.errors import InputError, ProviderError, RunnerActionError
from runner_action.model import Instance, Runner
from runner_action.runners.context import Context
from tests.fakes import FakeClock, FakeForge, FakeProvider
from tests.test_reap import HERE, OLD, THERE, Generated, Launch, embodied

ONE, OTHER = (
    Launch(timedelta(hours=1), "trainer", alone=False, number=number) for number in (1, 2)
)
ELSEWHERE = Launch(timedelta(hours=1), "trainer", THERE, number=3)
BY_HAND = Runner(id=77, name="trainer", labels=frozenset({"cml"}), online=True, busy=False)


def gone(name: str, machines: list[Instance], runners: list[Runner]) -> tuple[list[str], list[str]]:
    removed = named(name, machines, runners, HERE)
    return (
        [removal.machine.id for removal in removed if removal.machine],
        [removal.runner.name for removal in removed if removal.runner],
    )


def test_the_name_of_a_launch_means_all_of_it_and_a_runners_name_that_one() -> None:
    machines, runners = (
        [launch.machine for launch in (ONE, OTHER, OLD, ELSEWHERE)],
        [
            ONE.runner(),
            OTHER.runner(online=True),
            OLD.runner(),
            BY_HAND,
        ],
    )
    assert gone("trainer", machines, runners) == (
        ["i-000000000001", "i-000000000002"],
        ["trainer-00000001", "trainer-00000002"],
    )
    assert gone("trainer-00000002", machines, runners) == (["i-000000000002"], ["trainer-00000002"])
    assert gone("train", machines, runners) == ([], [])


def test_a_requested_name_means_its_launch_if_there_is_only_one() -> None:
    """Its launches have a part of their own behind it."""
    names = ("train-0123abcd", "train-fedcba98", "train-gpu-01234567", "traina-01234567")
    launches = [Launch(OLD.ago, name, number=number) for number, name in enumerate(names, 1)]

    def named_as(name: str, *numbers: int) -> str:
        some = [launches[number] for number in numbers]
        return launch_of(name, [one.machine for one in some], [one.runner() for one in some], HERE)

    assert named_as("train", 0, 2, 3) == names[0]
    assert named_as("train-gpu", 0, 1, 2, 3) == names[2]
    assert named_as("train", 2, 3) == named_as("train") == "train"
    assert named_as(names[1], 0, 1) == names[1]
    with pytest.raises(
        InputError, match=f"several launches are named train: {names[0]}, {names[1]}"
    ):
        named_as("train", 0, 1, 2)
    elsewhere = Launch(OLD.ago, names[0], THERE)
    assert launch_of("train", [elsewhere.machine], [elsewhere.runner()], HERE) == "train"


def test_it_removes_the_launch_that_requested_the_name() -> None:
    forge, provider = world(Launch(OLD.ago, "train-0123abcd", number=1), OLD)
    assert len(destroy("train", Context(HERE, forge, provider, FakeClock()))) == 2
    assert list(forge.listed) == ["cml-0123456789"]


def world(*launches: Launch) -> tuple[FakeForge, FakeProvider]:
    return embodied(
        Generated(
            machines=[launch.machine for launch in launches],
            runners=[launch.runner() for launch in launches],
        )
    )


def test_it_looks_removes_and_looks_again() -> None:
    forge, provider = world(ONE, OTHER, OLD)
    assert len(destroy("trainer", Context(HERE, forge, provider, FakeClock()))) == 4
    assert ([machine.id for machine in provider.alive], list(forge.listed)) == (
        [OLD.machine.id],
        ["cml-0123456789"],
    )
    assert provider.calls.count("find") == 2


class Slow(FakeProvider):
    """Shows what it is deleting as if it lived, for so many looks."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self.looks = looks

    def destroy(self, name: str, instance: Instance | None = None) -> bool:
        return True

    def find(self, tags: Mapping[str, str], regions: Sequence[str] = ()) -> Sequence[Instance]:
        self.looks -= 1
        return super().find(tags, regions) if self.looks >= 0 else []


def test_a_cloud_has_time_to_show_the_end() -> None:
    for looks, gone in ((4, True), (10000, False)):
        forge, provider = FakeForge(), Slow(looks)
        provider.instances = {"i": OLD.machine}
        if gone:
            assert len(destroy("cml-0123456789", Context(HERE, forge, provider, FakeClock()))) == 1
        else:
            with pytest.raises(RunnerActionError, match="it is still there"):
                destroy("cml-0123456789", Context(HERE, forge, provider, FakeClock()))


def test_absent_is_success_and_a_runner_by_hand_stays(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    forge, provider = embodied(Generated(runners=[BY_HAND]))
    assert destroy("trainer", Context(HERE, forge, provider, FakeClock()), regions=["r1"]) == []
    assert list(forge.listed) == ["trainer"]
    assert "it stays" in caplog.text
    assert "Looking for trainer in r1." in caplog.text
    assert "Found nothing named trainer." in caplog.text


def test_a_runner_that_is_kept_for_its_job_is_deregistered_later() -> None:
    forge, provider = world(OLD)
    busy = forge.listed["cml-0123456789"] = replace(
        forge.listed["cml-0123456789"], online=True, busy=True
    )
    clock = FakeClock()
    clock.each = lambda: (
        forge.listed.update({busy.name: replace(busy, busy=False)})
        if clock.at > 1010 and forge.listed
        else None
    )
    destroy("cml-0123456789", Context(HERE, forge, provider, clock))
    assert (provider.alive, forge.listed) == ([], {})


def test_what_could_not_be_removed_is_reported_and_all_else_is_gone() -> None:
    forge, provider = world(OLD)
    forge.listed["cml-0123456789"] = replace(forge.listed["cml-0123456789"], online=True, busy=True)
    clock = FakeClock()
    with pytest.raises(RunnerActionError, match="still running a job"):
        destroy("cml-0123456789", Context(HERE, forge, provider, clock))
    assert provider.alive == []
    assert clock.at - 1000 < 2 * LET_GO_SECONDS
    forge, provider = world(OLD)
    provider.trouble["destroy"] = ProviderError("No.")
    with pytest.raises(
        RunnerActionError,
        match=r"machine i-000000000000 \(cml-0123456789\): its removal was requested: No",
    ):
        destroy("cml-0123456789", Context(HERE, forge, provider, FakeClock()))
    assert forge.listed == {}
