"""Histories of launches: equal or different, one after the other or at the same moment, in one step
or in two runs, each complete, failed or killed at any moment."""

from __future__ import annotations

import itertools
import threading
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from runner_action import cli
from runner_action.ci import job
from runner_action.ci.ordinals import Ordinals
from runner_action.commands.launch import Launch
from runner_action.errors import AuthError, CapacityError
from runner_action.model import Report, Run, Secret
from runner_action.runners.context import Context
from runner_action.runners.rollback import cleanup
from runner_action.runners.siblings import leftovers_of, search
from tests.test_launch import Story, request

TOKEN = Secret("canary-token")
KINDS = [(), ("--single",), ("--count=2",), ("--name=train",), ("--name=train", "--single")]
PHASES = [Phase.explicit, Phase.reuse, Phase.generate]
"""Without shrinking, which takes minutes."""
CALLS = 16
"""More than most launches make to the forge and the cloud."""


@dataclass(frozen=True)
class Try:
    """A launch in one of two `runs` of a workflow. `killed`: at which of its calls, `answered` or
    not; 0 for at none. `beside`: at which of its calls the next launch begins, which is over before
    this one goes on. `full`: the cloud has no machines for it."""

    run: int = 1
    flags: tuple[str, ...] = ()
    killed: int = 0
    answered: bool = False
    beside: int = 0
    full: bool = False


class Killed(AuthError, CapacityError):
    """What a process that was killed asks for gets no answer."""


class Line:
    """The calls of one process to the world. Once it is killed, none arrives."""

    def __init__(self, attempt: Try, meanwhile: Callable[[], None]) -> None:
        self.attempt = attempt
        self.meanwhile = meanwhile
        self.is_dead = False
        self._numbers = itertools.count(1)

    def call(self, method: Callable[..., Any], *args: Any, **named: Any) -> Any:
        # The sweep goes on beside a launch: its calls come at any moment.
        number = 0 if threading.current_thread().name == "sweep" else next(self._numbers)
        if number and number == self.attempt.beside:
            self.meanwhile()
        is_last = number > 0 and number == self.attempt.killed
        if self.is_dead or (is_last and not self.attempt.answered):
            self.is_dead = True
            raise Killed("")
        if self.attempt.full and method.__name__ == "create":
            raise CapacityError("There are no machines.")
        answer = method(*args, **named)
        if is_last:
            self.is_dead = True
            raise Killed("")
        return answer


class Remote:
    """A service at the other end of a line."""

    def __init__(self, line: Line, service: Any) -> None:
        self._line, self._service = line, service

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._service, name)
        return partial(self._line.call, found) if callable(found) else found


class World(Story):
    """In which a machine that was deleted never comes online."""

    def _time_passes(self) -> None:
        alive = {name for one in self.provider.alive for name in one.runner_names}
        self.booting = [boot for boot in self.booting if boot[1] in alive]
        super()._time_passes()


@dataclass
class History:
    """Launches in one world. `shares`: whether the launches of a step share a folder."""

    folder: Path
    shares: bool
    world: World = field(default_factory=World)
    done: list[tuple[Try, Report]] = field(default_factory=list)
    chosen: dict[int, set[str]] = field(default_factory=lambda: defaultdict(set))
    """The names of launches of each run."""
    killed: list[tuple[Try, set[str]]] = field(default_factory=list)
    """With the IDs of the machines that each has left."""
    under_way: int = 0

    def step(self, run: int) -> tuple[Run, Ordinals]:
        environ = {"GITHUB_ACTIONS": "true", "GITHUB_RUN_ID": str(run), "GITHUB_ACTION": "__run"}
        folder = self.folder / str(run)
        folder.mkdir(exist_ok=True)
        if self.shares:
            environ["RUNNER_TEMP"] = str(folder)
        first = job.run_of(environ, TOKEN)
        return first, job.ordinals_of(environ, first)

    def play(self, tries: Sequence[Try]) -> None:
        later = list(tries)
        while later:
            self._launch(later.pop(0), later)

    def _launch(self, attempt: Try, later: list[Try]) -> None:
        line = Line(attempt, lambda: self._launch(later.pop(0), later) if later else None)
        wanted, before = request(*attempt.flags), [] if self.under_way else list(self.killed)
        self.under_way += 1
        first, ordinals = self.step(attempt.run)
        names = set[str]()

        def remember(its_names: Sequence[str]) -> None:
            names.update(its_names)
            if not line.is_dead:
                ordinals.remember(its_names)

        launch = Launch(
            wanted,
            cli._siblings(first, ordinals, wanted),
            lambda: Remote(line, self.world.forge),
            lambda: Remote(line, self.world.provider),
            self.world.clock,
            self.world.clock.at,
            remember,
        )
        try:
            report = launch.launch()
            if not line.is_dead:
                ordinals.succeeded()
                self.done.append((attempt, report))
                self._check_swept(attempt, before, report)
        except CapacityError:
            assert line.is_dead or attempt.full
        ordinals.close()
        self.under_way -= 1
        self.chosen[attempt.run] |= names
        if line.is_dead:
            self.killed.append((attempt, self._machines(names)))
        elif attempt.full:
            assert not self._machines(names)

    def _machines(self, names: Collection[str]) -> set[str]:
        return {one.id for one in self.world.provider.alive if one.name in names}

    def _check_swept(
        self, attempt: Try, before: Sequence[tuple[Try, set[str]]], report: Report
    ) -> None:
        """What launches of its step had left that were killed before it began is gone, unless
        another one is still deleting it, or it is reused."""
        used = {one.instance.id for one in report.launched if one.reused and one.instance}
        if self.shares:
            left = [ids for killed, ids in before if killed.run == attempt.run]
            assert not self._alive() & set().union(*left) - used

    def _alive(self) -> set[str]:
        return {one.id for one in self.world.provider.alive}

    def check(self) -> None:
        """Each launch that succeeded has runners and machines of its own, and they are still
        there."""
        runners = [one for _, report in self.done for one in report.launched]
        assert len({one.runner_name for one in runners}) == len(runners)
        assert len({one.label for one in runners}) == len(self.done)
        machines = {one.instance.id for one in runners if one.instance}
        assert len(machines) == len(runners)
        assert machines <= self._alive()
        assert {one.runner_name for one in runners} <= {*self.world.forge.listed}
        for attempt, report in self.done:
            assert len(report.launched) == request(*attempt.flags).count

    def clean_up(self, run: int) -> None:
        """The step after the job, which has failed."""
        context = Context(
            request().repository, self.world.forge, self.world.provider, self.world.clock
        )
        first, ordinals = self.step(run)
        stored = {entry.ordinal: entry.names for entry in ordinals.left()}
        left = leftovers_of(first, (), stored)
        if not self.shares:
            left = search(first, request(), context)
        cleanup(left, request(), context, lambda: float("inf"))
        assert self._machines(self.chosen[run]) == set()
        self.done = [(attempt, report) for attempt, report in self.done if attempt.run != run]


tries = st.lists(
    st.builds(
        Try,
        run=st.sampled_from([1, 1, 1, 2]),
        flags=st.sampled_from(KINDS),
        killed=st.one_of(st.just(0), st.integers(1, CALLS)),
        answered=st.booleans(),
        beside=st.one_of(st.just(0), st.integers(1, CALLS)),
        full=st.sampled_from([False, False, False, True]),
    ),
    min_size=2,
    max_size=5,
)


def judge(history: Sequence[Try], *, shares: bool) -> None:
    with TemporaryDirectory() as folder:
        played = History(Path(folder), shares)
        played.play(history)
        played.check()
        others = played._machines(played.chosen[2])
        played.clean_up(1)
        played.check()
        assert played._machines(played.chosen[2]) == others


@settings(max_examples=30, deadline=None, phases=PHASES)
@given(tries)
def test_launches_that_share_a_folder(history: list[Try]) -> None:
    """What a killed one has left, the next one of its step deletes."""
    judge(history, shares=True)


@settings(max_examples=4, deadline=None, phases=PHASES)
@given(tries)
def test_launches_that_share_nothing(history: list[Try]) -> None:
    """As in containers that the step itself starts. A cleanup finds what they have left."""
    judge(history, shares=False)


def test_a_runner_of_a_killed_launch_that_is_reused_stays() -> None:
    """Its machine came online after the launcher was killed."""
    with TemporaryDirectory() as folder:
        played = History(Path(folder), shares=True)
        played.play([Try(flags=("--labels=cml",), killed=CALLS - 4)])
        ((_, left),) = played.killed
        assert left
        played.world.clock.sleep(10)
        played.play([Try(flags=("--labels=cml", "--reuse", "--count=2"))])
        ((_, report),) = played.done
        assert [one.reused for one in report.launched] == [False, True]
        assert {one.instance.id for one in report.launched if one.instance} <= played._alive()
        assert left <= played._alive()


def test_two_that_share_nothing_at_the_same_moment() -> None:
    for moment in range(1, CALLS):
        with TemporaryDirectory() as folder:
            played = History(Path(folder), shares=False)
            played.play([Try(beside=moment), Try()])
            played.check()
