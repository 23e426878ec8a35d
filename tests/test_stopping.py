"""Signals at the moments that no call marks: while a failed launch is rolled back, while the
outputs are written, when there is no time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from runner_action.commands.launch import LEFT, Launch
from runner_action.errors import Cancelled, ConfigurationError
from runner_action.forges.base import Forge
from runner_action.model import Identity, Instance, Machine, Placement, Pool, Report, Repository
from runner_action.runners.context import Context
from runner_action.runners.group import Creation, RunnerGroup
from runner_action.runners.rollback import roll_back
from runner_action.runners.siblings import Siblings
from runner_action.stopping import Signals
from runner_action.waiting import SystemClock
from tests.fakes import FakeClock, FakeForge, FakeProvider
from tests.test_launch import RUN, Story


class Stopped(Story):
    """A story in which `signals` come by hand."""

    def __init__(self, *argv: str, boot: float = 3.0) -> None:
        super().__init__(*argv, boot=boot)
        self.signals = Signals(self.clock)
        self.notes: list[list[str]] = []

    def go(self, tell: Callable[[Report], None] = lambda _: None) -> Report:
        launch = Launch(
            self.request,
            Siblings(RUN),
            self._forge,
            lambda: self.provider,
            self.clock,
            self.clock.at,
            lambda names: self.notes.append([*names]),
            self.signals,
        )
        return launch.launch(tell)

    def _forge(self) -> Forge:
        return self.forge

    @property
    def left(self) -> tuple[int, int]:
        return len(self.provider.alive), len(self.forge.listed)


def test_a_signal_while_a_failed_launch_is_rolled_back_does_not_cut_that_short() -> None:
    story = Stopped("--single")
    ending = story.provider.destroy

    def destroy(name: str, instance: Instance | None = None) -> bool:
        story.signals.hear(15)
        return ending(name, instance)

    story.provider.destroy = destroy  # type: ignore[method-assign]
    story.provider.trouble["after-create"] = ConfigurationError("no")
    with pytest.raises(Cancelled) as caught:
        story.go()
    assert (caught.value.exit_code, caught.value.hint, story.left) == (
        143,
        "Everything that was created has been deleted.",
        (0, 0),
    )


def test_a_signal_while_the_outputs_are_written_rolls_everything_back() -> None:
    story = Stopped()
    with pytest.raises(Cancelled):
        story.go(lambda _: story.signals.hear(2))
    assert story.left == (0, 0)
    assert story.notes[-1] == []


def test_outputs_that_cannot_be_written_are_a_failed_launch() -> None:
    story = Stopped()

    def full(_: Report) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        story.go(full)
    assert story.left == (0, 0)


def test_a_signal_after_the_end_comes_too_late() -> None:
    story = Stopped()
    assert story.go().launched
    story.signals.hear(15)
    assert story.left == (1, 1)


def test_a_silent_cloud_is_waited_for_until_the_grace_ends_and_that_is_reported() -> None:
    story, answered = (
        Stopped("--single", "--agent-downloads=http://127.0.0.1:1/nobody"),
        threading.Event(),
    )
    story.signals = Signals(SystemClock(), 3)

    def destroy(name: str, instance: Instance | None = None) -> bool:
        return answered.wait(30)

    story.provider.destroy = destroy  # type: ignore[method-assign]
    began = time.monotonic()
    with pytest.raises(Cancelled) as caught:
        story.go(lambda _: story.signals.hear(2))
    assert time.monotonic() - began < 25
    answered.set()
    assert caught.value.hint == LEFT
    assert story.forge.listed == {}, "the list need not wait for the machine"
    assert story.notes == [["cml-0123456789"]], "the cleanup after the job will look again"


def test_a_machine_that_comes_into_being_during_the_rollback_is_deleted_too() -> None:
    """No search finds it at first; the call that creates it is answered after that."""
    looked = threading.Event()

    class Slow(FakeProvider):
        def find(self, tags: Mapping[str, str], regions: Sequence[str] = ()) -> Sequence[Instance]:
            looked.set()
            return []

    provider = Slow()
    repository = Repository(url="https://github.com/octo/train")
    context = Context(repository, FakeForge(), provider, FakeClock())
    group = RunnerGroup(Identity(name="cml-1", key="key"), creation=Creation.UNANSWERED)

    def create() -> None:
        looked.wait(30)
        machine = Machine(identity=group.identity, user_data=b"", tags={})
        group.instances += provider.create(
            Placement(region="r1", spot=False, pools=(Pool(instance_type="small", zone="r1a"),)),
            machine,
        ).instances

    with ThreadPoolExecutor(1) as creating:
        group.creating = creating.submit(create)
        assert roll_back([group], context) == []
    assert provider.alive == []
    assert provider.instances
