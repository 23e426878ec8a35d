"""The life of a machine as one pure function: (state, event, policy) -> state. No clock, no process, no network.

    reason to leave     when                                             may the forge refuse   exit code
    IDLE                no job for idle-timeout                          yes: it has a job      0
    SINGLE              its one job is done and the runner has ended     no                     0
    ASKED               SIGTERM or SIGINT                                no                     0
    LIFETIME            max-lifetime is over                             no                     0
    ENDED               the runner process ended by itself               no                     1
    START_FAILED        it cannot become a runner                        no                     1
    NEVER_ONLINE        not online within start-timeout                  no                     1

When the forge refuses, a job has just been given to the runner: the machine goes on.
"""

from __future__ import annotations

import dataclasses
import enum
from typing import Optional, Union

SINGLE_GRACE = 60.0
"""Seconds a single-job runner has, after its job, to send its logs and end by itself."""
SILENCE = 120.0
"""Seconds without a heartbeat after which the watchdog takes the agent for dead."""
MARGIN = 60.0
"""Seconds the watchdog gives the agent to act first."""


class Reason(enum.Enum):
    """Why a machine leaves. `may_refuse`: the forge may keep it because a job was given to it in between."""

    IDLE = ("idle for too long", True, 0)
    SINGLE = ("its single job is done", False, 0)
    ASKED = ("asked to stop", False, 0)
    LIFETIME = ("maximum lifetime reached", False, 0)
    ENDED = ("the runner ended by itself", False, 1)
    START_FAILED = ("start-up failed", False, 1)
    NEVER_ONLINE = ("not online in time", False, 1)

    def __init__(self, text: str, may_refuse: bool, exit_code: int) -> None:
        self.text = text
        self.may_refuse = may_refuse
        self.exit_code = exit_code


class Phase(enum.Enum):
    STARTING = "starting"
    IDLE = "idle"
    BUSY = "busy"
    DONE = "done"
    LEAVING = "leaving"


@dataclasses.dataclass(frozen=True)
class Policy:
    """Seconds, None for never."""

    idle_timeout: Optional[float]
    max_lifetime: float
    start_timeout: float
    single: bool


@dataclasses.dataclass(frozen=True)
class State:
    """`since`: when the phase began; `born`: when the agent started. Both in seconds of the machine's monotonic clock."""

    phase: Phase
    since: float
    born: float
    reason: Optional[Reason] = None
    urgent: bool = False


@dataclasses.dataclass(frozen=True)
class Online:
    """The runner listens for jobs."""

    at: float


@dataclasses.dataclass(frozen=True)
class JobStarted:
    at: float
    job: str = ""


@dataclasses.dataclass(frozen=True)
class JobFinished:
    at: float
    job: str = ""


@dataclasses.dataclass(frozen=True)
class RunnerExited:
    at: float
    code: int


@dataclasses.dataclass(frozen=True)
class Failed:
    """A step of the start-up failed."""

    at: float
    why: str


@dataclasses.dataclass(frozen=True)
class Asked:
    """A signal came; the second one is urgent."""

    at: float


@dataclasses.dataclass(frozen=True)
class Refused:
    """The forge kept the runner: it has a job."""

    at: float


@dataclasses.dataclass(frozen=True)
class Tick:
    at: float


Event = Union[Online, JobStarted, JobFinished, RunnerExited, Failed, Asked, Refused, Tick]


def born(at: float) -> State:
    return State(Phase.STARTING, at, at)


def advance(state: State, event: Event, policy: Policy) -> State:
    """What the machine does next. Leaving is final, but for a refusal where the reason allows one."""
    if isinstance(event, Asked):
        return dataclasses.replace(_leave(state, event.at, Reason.ASKED), urgent=state.reason is Reason.ASKED)
    if state.phase is Phase.LEAVING:
        refused = isinstance(event, Refused) and state.reason is not None and state.reason.may_refuse
        # Not BUSY: the job may be over before its hook runs, and the idle time then counts anew.
        return _phase(state, Phase.IDLE, event.at) if refused else state
    if isinstance(event, Failed):
        return _leave(state, event.at, Reason.START_FAILED)
    if isinstance(event, RunnerExited):
        done = policy.single and state.phase is not Phase.STARTING and event.code == 0
        return _leave(state, event.at, Reason.SINGLE if done else Reason.ENDED)
    if isinstance(event, Online) and state.phase is Phase.STARTING:
        return _phase(state, Phase.IDLE, event.at)
    if isinstance(event, JobStarted):
        return _phase(state, Phase.BUSY, event.at)
    if isinstance(event, JobFinished):
        return _phase(state, Phase.DONE if policy.single else Phase.IDLE, event.at)
    return _on_time(state, event.at, policy)


def _on_time(state: State, at: float, policy: Policy) -> State:
    """What the passing of time alone decides."""
    waited = at - state.since
    if at - state.born >= policy.max_lifetime:
        return _leave(state, at, Reason.LIFETIME)
    if state.phase is Phase.STARTING and waited >= policy.start_timeout:
        return _leave(state, at, Reason.NEVER_ONLINE)
    if state.phase is Phase.IDLE and policy.idle_timeout is not None and waited >= policy.idle_timeout:
        return _leave(state, at, Reason.IDLE)
    if state.phase is Phase.DONE and waited >= SINGLE_GRACE:
        return _leave(state, at, Reason.SINGLE)
    return state


def _phase(state: State, phase: Phase, at: float) -> State:
    since = state.since if phase is state.phase else at
    return dataclasses.replace(state, phase=phase, since=since, reason=None)


def _leave(state: State, at: float, reason: Reason) -> State:
    return dataclasses.replace(state, phase=Phase.LEAVING, since=at, reason=reason)


def watchdog(beat: Optional[State], beat_at: float, now: float, policy: Policy) -> Optional[str]:
    """Why the machine must be ended from outside the agent, or None.

    `beat` is the state of the agent's last heartbeat, written at `beat_at`; None if it never wrote one,
    with `beat_at` the time the watchdog first looked.
    """
    if beat_at > now:
        return "the machine was restarted"
    started = beat.born if beat else beat_at
    if now - started >= policy.max_lifetime + MARGIN:
        return "maximum lifetime is over"
    if beat is None or beat.phase is Phase.STARTING:
        return "never online" if now - started >= policy.start_timeout + MARGIN else None
    return "the agent is silent" if now - beat_at >= SILENCE else None
