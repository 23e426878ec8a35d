"""The life of a machine as one pure function: (state, event, spec) -> state. It uses no clock,
no process and no network.

No phase depends on one source alone. A job has ended when its hook and its runner say so. It is
lost if its runner exits or listens anew before that, or if nothing on the machine works on it any
more, whatever the runner's exit code is.
"""

from __future__ import annotations

import dataclasses
import enum
from typing import Optional

from .events import (
    RUN_LIMIT,
    UNIT,
    Event,
    Failed,
    Interrupted,
    JobFinished,
    JobStarted,
    Online,
    Refused,
    RunnerExited,
    Settled,
    Signalled,
    Tick,
)
from .reasons import Reason
from .spec import AgentSpec

SINGLE_GRACE = 60.0
"""Seconds for a single-job runner to exit after it has reported its job."""
HANG = 300.0
"""Seconds for a runner to report its job after the job's last step; also how long the forge may
report an idle runner as busy."""
UPLOAD = 900.0
"""The same while a process still works on the job, such as on its logs: the forge may be slow."""
LOST = 120.0
"""Seconds after which a job is lost that nothing on the machine works on."""
SILENCE = 120.0
"""Seconds without a heartbeat after which the watchdog considers the agent dead."""
MARGIN = 60.0
"""Seconds by which the watchdog acts later than the agent would."""
DISK_PATIENCE = 60.0
"""Seconds the disk may stay full: a job may clean up after itself."""
UNFIT_RETRY = 5.0
"""Seconds after which an unfit machine tries again to leave, where its runner had to stay."""
LIMIT_MARGIN = 300.0
"""Seconds before a time limit at which a busy machine leaves, so that there is time for checkpoint
and restart; for short limits a tenth of the limit."""
RELAUNCHES = 10
"""How often a runner that exits may be started again: codes 3, 4 and 6 come with updates and new
settings, 2 and 5 may be temporary, as is anything before it first listens."""
NOTICE_PATIENCE = 3.0
"""Seconds to wait for a notice once the system shuts down. Google gives notice and shuts down at
the same time; those of EC2 and Azure come long before."""
INF = float("inf")
URGENT_SECONDS = 4.0
"""Time limit for everything after a second signal."""
GONE, REFUSED = "gone", "busy"
"""Outcomes of deregistering: off the list, or kept for its job. Anything else is an error."""


class Phase(enum.Enum):
    STARTING = "starting"
    IDLE = "idle"
    BUSY = "busy"
    DONE = "done"  # the job's last step is over, but the runner has not reported it or not exited
    LEAVING = "leaving"


@dataclasses.dataclass(frozen=True)
class State:
    """Times are in seconds on the machine's monotonic clock. `since`: when the phase began;
    `born`: when the agent first started."""

    phase: Phase
    since: float
    born: float
    reason: Optional[Reason] = None
    job: str = ""
    """The job that the runner has not reported yet, or had not when the machine began to leave."""
    finished: bool = False
    """The last step of that job is over."""
    unseen: Optional[float] = None
    """Since when nothing on the machine has worked on that job."""
    job_ends: Optional[float] = None
    """When to leave because the forge is about to cancel that job."""
    worked: bool = False
    """There has been a job."""
    starts: int = 1
    """How often the runner process was started."""
    ends: float = INF
    """When the machine must have left."""
    refused: Optional[float] = None
    """Since when the forge has reported the idle runner as busy."""
    full: Optional[float] = None
    """Since when the disk has been full."""
    unfit: Optional[float] = None
    """When to leave, as soon as the runner has reported its job, since it can run no other (or,
    at the start, none)."""
    off: Optional[float] = None
    """Since when the system has been shutting down: the first signal that counts."""


def born(at: float) -> State:
    return State(Phase.STARTING, at, at)


def resumed(beat: State, at: float) -> State:
    """The state of an agent that was killed and started again: it carries on if a job was running,
    and otherwise leaves."""
    if beat.phase in (Phase.BUSY, Phase.DONE) or (beat.phase is Phase.LEAVING and beat.reason):
        return beat
    return leaves(beat, at, Reason.AGENT_CRASHED)


def advance(state: State, event: Event, spec: AgentSpec) -> State:
    """The state after an event. Leaving is final, unless the reason allows a refusal and one
    comes."""
    if isinstance(event, Failed):
        state = dataclasses.replace(state, unfit=event.at)
    if state.phase is Phase.LEAVING:
        return _while_leaving(state, event)
    if isinstance(event, Interrupted):
        if event.seconds is None:
            return state
        return leaves(state, event.at, Reason.TAKEN, event.seconds)
    if isinstance(event, Signalled):
        return _on_signal(state, event, spec)
    if isinstance(event, RunnerExited):
        return _on_exit(state, event, spec)
    if isinstance(event, (Online, JobStarted, JobFinished, Settled)):
        return _on_job(state, event, spec)
    return _on_tick(state, event, spec)


def _on_job(state: State, event: Event, spec: AgentSpec) -> State:
    """What the runner and its hooks report."""
    if isinstance(event, Online):
        if state.job:  # a new listener, which knows nothing of it
            return leaves(state, event.at, Reason.CRASHED)
        return _phase(state, Phase.IDLE, event.at) if state.phase is Phase.STARTING else state
    if isinstance(event, JobFinished):
        if not state.job:
            return state
        return dataclasses.replace(_phase(state, Phase.DONE, event.at), finished=True)
    if not isinstance(event, JobStarted):
        return _settled(state, event.at, spec)
    if state.phase is Phase.BUSY and not event.ref:  # the hook was faster than the runner's word
        return state
    return _phase(_started(state, event), Phase.BUSY, event.at)


def _started(state: State, event: JobStarted) -> State:
    ends = event.at + event.limit - margin(event.limit)
    if event.run_ends is not None:
        ends = min(ends, event.run_ends - margin(RUN_LIMIT))
    state = _over(state)
    return dataclasses.replace(
        state, job=event.job, job_ends=ends, worked=True, refused=None, starts=1
    )


def margin(limit: float) -> float:
    return min(LIMIT_MARGIN, limit / 10)


def _on_signal(state: State, event: Signalled, spec: AgentSpec) -> State:
    if event.stops == "":
        return state
    state = dataclasses.replace(state, off=state.off or event.at)
    if event.stops == UNIT:
        return leaves(state, event.at, Reason.STOPPED)
    if event.stops is None:
        return leaves(state, event.at, Reason.TAKEN if spec.cloud else Reason.ASKED)
    return state


def _while_leaving(state: State, event: Event) -> State:
    """The end can only come nearer. A first signal does not move it: Google's comes with the
    notice."""
    reason = state.reason
    assert reason
    if isinstance(event, Signalled) and event.stops != "":
        if state.off:
            return _sooner(state, event.at + URGENT_SECONDS)
        return dataclasses.replace(state, off=event.at)
    if isinstance(event, Interrupted) and event.seconds is not None:
        if reason.may_refuse:  # a job or a launch does not keep a machine that is taken
            state = dataclasses.replace(state, reason=Reason.TAKEN)
        return _sooner(state, event.at + event.seconds)
    if isinstance(event, JobStarted):
        return _started(state, event)
    if isinstance(event, Settled) and state.finished:
        return _over(state)
    if isinstance(event, Refused) and reason.may_refuse:
        # Not BUSY: the job may end before its hook runs, and then the idle time starts again.
        since = event.at if state.refused is None else state.refused
        refused = None if event.claimed else since
        unfit = state.unfit and event.at + UNFIT_RETRY
        phase = _phase(state, Phase.BUSY if state.job else Phase.IDLE, event.at)
        return dataclasses.replace(phase, refused=refused, unfit=unfit, ends=State.ends)
    return state


def _sooner(state: State, end: float) -> State:
    return dataclasses.replace(state, ends=min(state.ends, end))


def _on_exit(state: State, event: RunnerExited, spec: AgentSpec) -> State:
    """Exit codes of actions/runner: 0 success, 1 terminated, 2 retryable, 3 and 4 updating, 5
    session conflict, 6 configuration refreshed, 7 version deprecated
    (src/Runner.Common/Constants.cs). Each says something only of a runner without a job."""
    if spec.single and state.worked and not state.job:
        return leaves(state, event.at, Reason.SINGLE)
    if event.removed:
        return leaves(state, event.at, Reason.REMOVED)
    if event.code == 7:
        return leaves(state, event.at, Reason.VERSION)
    again = event.code in (2, 3, 4, 5, 6) or state.phase is Phase.STARTING
    if again and state.starts <= RELAUNCHES and not state.job:
        return dataclasses.replace(
            _over(_phase(state, Phase.STARTING, event.at)), starts=state.starts + 1
        )
    return leaves(state, event.at, Reason.CRASHED)


def _settled(state: State, at: float, spec: AgentSpec) -> State:
    """The state after the runner's own report, with or without the job's hook before it."""
    if not state.job:
        return state
    phase = Phase.DONE if spec.single else Phase.IDLE
    return dataclasses.replace(_over(state), phase=phase, since=at)


def _on_tick(state: State, event: Event, spec: AgentSpec) -> State:
    """The state after some time without any other event."""
    at = event.at
    full = isinstance(event, Tick) and event.disk_full
    unseen = isinstance(event, Tick) and not event.works
    state = dataclasses.replace(
        state,
        full=_since(state.full, at, full),
        unseen=_since(state.unseen, at, unseen),
    )
    reason = _limit(state, at, spec) or _patience(state, at, spec)
    return leaves(state, at, reason) if reason else state


def _since(began: Optional[float], at: float, lasts: bool) -> Optional[float]:
    """When something began that still lasts; None if it does not."""
    if not lasts:
        return None
    return at if began is None else began


def _limit(state: State, at: float, spec: AgentSpec) -> Optional[Reason]:
    """The reason to leave if a limit that applies in every phase has been reached."""
    busy = state.phase is Phase.BUSY
    life: Optional[float] = spec.max_lifetime
    if busy and life is not None:
        life -= margin(life)
    if state.off is not None and at - state.off >= NOTICE_PATIENCE:
        return Reason.SHUT_DOWN
    if life is not None and at - state.born >= life:
        return Reason.LIFETIME
    if busy and state.job_ends is not None and at >= state.job_ends:
        return Reason.JOB_LIMIT
    if state.full is not None and at - state.full >= DISK_PATIENCE:
        return Reason.DISK_FULL
    if state.unfit and at >= state.unfit and state.phase is not Phase.DONE:
        return Reason.UNFIT if state.worked else Reason.START_FAILED
    return None


def _patience(state: State, at: float, spec: AgentSpec) -> Optional[Reason]:
    """The reason to leave if the current phase has lasted too long."""
    waited = at - state.since
    if state.phase is Phase.STARTING and waited >= spec.start_timeout:
        return Reason.NEVER_ONLINE
    if state.phase is Phase.BUSY and state.unseen is not None and at - state.unseen >= LOST:
        return Reason.CRASHED
    if state.phase is Phase.DONE and not state.job and waited >= SINGLE_GRACE:
        return Reason.SINGLE
    if state.phase is Phase.DONE and waited >= (UPLOAD if state.unseen is None else HANG):
        return Reason.HUNG
    patience = spec.idle_timeout if state.worked else spec.first_job_timeout
    if state.phase is not Phase.IDLE or patience is None or waited < patience:
        return None
    if state.refused is not None and at - state.refused >= HANG:
        return Reason.HUNG
    return Reason.IDLE if state.worked else Reason.NO_JOB


def _phase(state: State, phase: Phase, at: float) -> State:
    since = state.since if phase is state.phase else at
    return dataclasses.replace(state, phase=phase, since=since, reason=None)


def _over(state: State) -> State:
    """The state without a job."""
    return dataclasses.replace(state, job="", job_ends=None, finished=False, unseen=None)


def leaves(state: State, at: float, reason: Reason, seconds: Optional[float] = None) -> State:
    seconds = reason.seconds if seconds is None else max(seconds, URGENT_SECONDS)
    return dataclasses.replace(
        state, phase=Phase.LEAVING, since=at, reason=reason, ends=at + seconds
    )


def watchdog(
    beat: Optional[State],
    beat_at: float,
    now: float,
    spec: AgentSpec,
    disk_full: bool,
    restarted: bool = False,
) -> Optional[str]:
    """Returns why the watchdog must end the machine, or None.

    `beat`: the state in the agent's last heartbeat, which was written at `beat_at`; None if there
    never was one, and then `beat_at` is when the watchdog first looked. `restarted`: the machine
    has booted again since that heartbeat.
    """
    if restarted or beat_at > now:
        return "the machine was restarted"
    started = beat.born if beat else beat_at
    if spec.max_lifetime is not None and now - started >= spec.max_lifetime + MARGIN:
        return "maximum lifetime reached"
    # While it leaves, which has a time limit of its own, the agent writes no heartbeat.
    if beat is not None and now - beat_at >= SILENCE + (beat.reason.seconds if beat.reason else 0):
        return "the disk is full" if disk_full else "the agent is silent"
    if beat is None or beat.phase is Phase.STARTING:
        waited = now - (beat.since if beat else beat_at)
        return "never online" if waited >= spec.start_timeout + MARGIN else None
    return None
