"""How the time is divided in which a machine leaves, in simulated time."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

from runner_action.agent.leave import CHECKPOINT, REPORT, STOP, Leave, limit
from runner_action.agent.restarting import LAST_STEPS, LOOK, RERUN

STEPS = {
    "report": REPORT,
    "checkpoint": CHECKPOINT,
    "look": LOOK,
    "last steps": LAST_STEPS,
    "stop": STOP,
    "re-run": RERUN,
}
NOTICES = [4, 25, 30, 120, 300]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("left", [-5, 0, 1, *NOTICES])
def test_no_step_takes_more_than_is_left(step: str, left: float) -> None:
    assert limit(STEPS[step], left) <= max(left, 0)


@pytest.mark.parametrize("left", NOTICES)
@pytest.mark.parametrize(
    "without",
    [("report",), ("report", "checkpoint"), ("report", "checkpoint", "look", "last steps")],
)
def test_what_a_step_does_not_need_goes_to_the_next(left: float, without: tuple[str, ...]) -> None:
    """Each in turn takes all that it may. Without a checkpoint script nothing waits for one, and
    nothing for the report of a job that still runs."""
    remaining = float(left)
    for name, step in STEPS.items():
        if name not in without and name != "re-run":
            remaining -= limit(step, remaining)
    assert 0 < remaining < left
    if len(without) == 4 and left >= 30:
        assert remaining >= left / 5, "the re-run has time"


@dataclass
class Machine:
    """An agent whose end moves at some times."""

    ends: dict[float, float]
    at: float = 0.0
    state: SimpleNamespace = field(default_factory=lambda: SimpleNamespace(ends=0.0))

    def now(self) -> float:
        return self.at

    def look(self) -> None:
        self.state.ends = min(end for since, end in self.ends.items() if since <= self.at)


def lasted(over: Callable[[], bool], machine: Machine) -> float:
    began = machine.at
    while not over():
        machine.at += 0.1
    return machine.at - began


@pytest.mark.parametrize(
    ("step", "ends", "seconds"),
    [
        (CHECKPOINT, {0: 120}, 60),
        (CHECKPOINT, {0: 30}, 15),
        (CHECKPOINT, {0: 300, 10: 130}, 70),  # a notice of 120 s in the margin of a time limit
        (CHECKPOINT, {0: 300, 140: 170}, 155),
        (CHECKPOINT, {0: 120, 50: 80}, 65),
        (CHECKPOINT, {0: 120, 10: 14}, 12),  # a second signal
        (CHECKPOINT, {0: 120, 10: 500}, 60),  # it never moves away
        (STOP, {0: 120}, 20),
        (STOP, {0: 120, 5: 9}, 8.2),
        (RERUN, {0: 120}, 120),
        (RERUN, {0: 120, 100: 104}, 104),
    ],
)
def test_a_second_notice_shortens_the_step_that_runs(
    step: tuple[float, float], ends: dict[float, float], seconds: float
) -> None:
    machine = Machine(ends)
    machine.look()
    assert lasted(Leave(machine).over(step), machine) == pytest.approx(seconds, abs=0.3)


@pytest.mark.parametrize("notice", NOTICES)
@pytest.mark.parametrize(("moved", "to"), [*itertools.product([0, 3, 20, 110], [4, 30, 120])])
def test_all_steps_end_in_time_however_it_moves(notice: float, moved: float, to: float) -> None:
    machine = Machine({0: notice, moved: moved + to})
    machine.look()
    leave = Leave(machine)
    for step in STEPS.values():
        lasted(leave.over(step), machine)
    machine.look()
    assert machine.at <= max(machine.state.ends, moved) + 0.5
