"""Histories: events in, phase and reason out. No clock, no process, no fake."""

from __future__ import annotations

import pytest

from runner_action.agent.lifecycle import (
    MARGIN,
    SILENCE,
    SINGLE_GRACE,
    Asked,
    Event,
    Failed,
    JobFinished,
    JobStarted,
    Online,
    Phase,
    Policy,
    Reason,
    Refused,
    RunnerExited,
    State,
    Tick,
    advance,
    born,
    watchdog,
)

POLICY = Policy(idle_timeout=300, max_lifetime=86400, start_timeout=600, single=False)
SINGLE = Policy(idle_timeout=300, max_lifetime=86400, start_timeout=600, single=True)
NEVER = Policy(idle_timeout=None, max_lifetime=86400, start_timeout=600, single=False)

HISTORIES: list[tuple[str, Policy, list[Event], Phase, Reason | None]] = [
    ("still starting", POLICY, [Tick(599)], Phase.STARTING, None),
    ("never online", POLICY, [Tick(600)], Phase.LEAVING, Reason.NEVER_ONLINE),
    ("online", POLICY, [Online(30), Tick(31)], Phase.IDLE, None),
    ("the idle time starts when online, not at birth", POLICY, [Online(299), Tick(598)], Phase.IDLE, None),
    ("idle for too long", POLICY, [Online(30), Tick(330)], Phase.LEAVING, Reason.IDLE),
    ("idle for ever", NEVER, [Online(30), Tick(86399)], Phase.IDLE, None),
    ("busy is not idle", POLICY, [Online(30), JobStarted(40), Tick(5000)], Phase.BUSY, None),
    ("the idle time starts anew after a job", POLICY, [Online(30), JobStarted(40), JobFinished(1000), Tick(1299)], Phase.IDLE, None),
    ("idle after a job", POLICY, [Online(30), JobStarted(40), JobFinished(1000), Tick(1300)], Phase.LEAVING, Reason.IDLE),
    ("two jobs", POLICY, [Online(30), JobStarted(40), JobFinished(50), JobStarted(60), Tick(900)], Phase.BUSY, None),
    ("a session found again while busy", POLICY, [Online(30), JobStarted(40), Online(50), Tick(900)], Phase.BUSY, None),
    ("a job before the listener's line was read", POLICY, [JobStarted(20), Online(21), Tick(700)], Phase.BUSY, None),
    ("lifetime while idle", NEVER, [Online(30), Tick(86400)], Phase.LEAVING, Reason.LIFETIME),
    ("lifetime while busy", POLICY, [Online(30), JobStarted(40), Tick(86400)], Phase.LEAVING, Reason.LIFETIME),
    ("lifetime while starting", Policy(300, 100, 600, False), [Tick(100)], Phase.LEAVING, Reason.LIFETIME),
    ("start failed", POLICY, [Failed(5, "no tar")], Phase.LEAVING, Reason.START_FAILED),
    ("runner crashed idle", POLICY, [Online(30), RunnerExited(40, 1)], Phase.LEAVING, Reason.ENDED),
    ("runner crashed busy", POLICY, [Online(30), JobStarted(40), RunnerExited(50, 137)], Phase.LEAVING, Reason.ENDED),
    ("runner ended before it was online", POLICY, [RunnerExited(10, 0)], Phase.LEAVING, Reason.ENDED),
    ("a lasting runner that ends well has ended all the same", POLICY, [Online(30), RunnerExited(40, 0)], Phase.LEAVING, Reason.ENDED),
    ("asked while idle", POLICY, [Online(30), Asked(40)], Phase.LEAVING, Reason.ASKED),
    ("asked while busy", POLICY, [Online(30), JobStarted(40), Asked(50)], Phase.LEAVING, Reason.ASKED),
    ("asked while starting", POLICY, [Asked(1)], Phase.LEAVING, Reason.ASKED),
    ("asked while leaving idle", POLICY, [Online(30), Tick(330), Asked(331)], Phase.LEAVING, Reason.ASKED),
    ("the forge refuses the idle timer: a job is there", POLICY, [Online(30), Tick(330), Refused(331), Tick(332)], Phase.IDLE, None),
    ("and the job's hook comes", POLICY, [Online(30), Tick(330), Refused(331), JobStarted(332), Tick(5000)], Phase.BUSY, None),
    ("or it was cancelled at once", POLICY, [Online(30), Tick(330), Refused(331), Tick(631)], Phase.LEAVING, Reason.IDLE),
    ("a refusal does not keep a machine that was asked to go", POLICY, [Online(30), JobStarted(40), Asked(50), Refused(51)], Phase.LEAVING, Reason.ASKED),
    ("nor one at the end of its life", POLICY, [Online(30), JobStarted(40), Tick(86400), Refused(86401)], Phase.LEAVING, Reason.LIFETIME),
    ("single: online and waiting", SINGLE, [Online(30), Tick(329)], Phase.IDLE, None),
    ("single: never got a job", SINGLE, [Online(30), Tick(330)], Phase.LEAVING, Reason.IDLE),
    ("single: job done, runner still sends its log", SINGLE, [Online(30), JobStarted(40), JobFinished(50), Tick(60)], Phase.DONE, None),
    ("single: runner ends by itself", SINGLE, [Online(30), JobStarted(40), JobFinished(50), RunnerExited(55, 0)], Phase.LEAVING, Reason.SINGLE),
    (
        "single: runner hangs after its job",
        SINGLE,
        [Online(30), JobStarted(40), JobFinished(50), Tick(50 + SINGLE_GRACE)],
        Phase.LEAVING,
        Reason.SINGLE,
    ),
    ("single: hooks were lost, the runner ends well", SINGLE, [Online(30), RunnerExited(400, 0)], Phase.LEAVING, Reason.SINGLE),
    ("single: crashed", SINGLE, [Online(30), JobStarted(40), RunnerExited(50, 2)], Phase.LEAVING, Reason.ENDED),
    ("single: the forge still says busy at the end", SINGLE, [Online(30), JobStarted(40), RunnerExited(50, 0), Refused(51)], Phase.LEAVING, Reason.SINGLE),
    ("leaving is final", POLICY, [Online(30), RunnerExited(40, 1), JobStarted(41), Online(42), Tick(43)], Phase.LEAVING, Reason.ENDED),
]


@pytest.mark.parametrize(("policy", "events", "phase", "reason"), [line[1:] for line in HISTORIES], ids=[line[0] for line in HISTORIES])
def test_history(policy: Policy, events: list[Event], phase: Phase, reason: Reason | None) -> None:
    state = born(0)
    for event in events:
        state = advance(state, event, policy)
    assert (state.phase, state.reason) == (phase, reason)


def test_every_reason_has_a_history() -> None:
    assert {line[4] for line in HISTORIES} >= set(Reason)


def test_the_second_signal_is_urgent() -> None:
    once = advance(born(0), Asked(1), POLICY)
    assert not once.urgent
    assert advance(once, Asked(2), POLICY).urgent


def _beat(phase: Phase, birth: float = 0) -> State:
    return State(phase, birth, birth)


WATCHES: list[tuple[str, State | None, float, float, str | None]] = [
    ("alive", _beat(Phase.BUSY), 1000, 1010, None),
    ("silent", _beat(Phase.BUSY), 1000, 1000 + SILENCE, "the agent is silent"),
    ("silent while starting is judged by the start timeout", _beat(Phase.STARTING), 5, 500, None),
    ("never online", _beat(Phase.STARTING), 5, 600 + MARGIN, "never online"),
    ("the agent never wrote anything", None, 10, 10 + 600 + MARGIN, "never online"),
    ("not yet", None, 10, 100, None),
    ("lifetime over", _beat(Phase.BUSY), 86460, 86400 + MARGIN, "maximum lifetime is over"),
    ("a job restarted the machine", _beat(Phase.BUSY), 5000, 20, "the machine was restarted"),
]


@pytest.mark.parametrize(("beat", "beat_at", "now", "why"), [line[1:] for line in WATCHES], ids=[line[0] for line in WATCHES])
def test_the_watchdog(beat: State | None, beat_at: float, now: float, why: str | None) -> None:
    assert watchdog(beat, beat_at, now, POLICY) == why
