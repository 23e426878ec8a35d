"""The life of a machine as one pure function: (state, event, policy) -> state. It uses no clock,
no process and no network.

                                                                       job        may           exit
  reason         when                                                  restarted  refuse  secs  code
  IDLE           no job for idle-timeout since the last one            no         yes     45    0
  NO_JOB         no first job within first-job-timeout                 no         yes     45    0
  SINGLE         its only job is done and the runner has exited        no         no      80    0
  ASKED          SIGTERM or SIGINT on a machine that is not a cloud's  no         no      45    0
  TAKEN          the cloud gave notice; SIGTERM in a pod               yes        no      30    0
  SHUT_DOWN      the system shuts down without notice from the cloud   once       no      25    0
  STOPPED        systemd stops the agent's unit but not the system     once       no      90    0
  JOB_LIMIT      the forge's time limit of a job or run is near        yes        no      300   0
  LIFETIME       max-lifetime is near (busy) or over                   yes        no      300   0
  CRASHED        the runner process exited unexpectedly                once       no      150   1
  HUNG           the runner does not listen again after its job        no         no      45    1
  DISK_FULL      the disk has been full for a minute                   no         no      45    1
  UNFIT          its GPU or Docker no longer works after a job         once       yes     45    1
  AGENT_CRASHED  the agent was restarted while no job ran              no         no      45    1
  VERSION        the forge refuses this version of the runner          no         no      45    3
  REMOVED        the runner was removed                    no         no      45    3
  START_FAILED   the machine cannot become a runner                    no         no      45    6
  NEVER_ONLINE   not online within start-timeout                       no         no      45    6

`job restarted`: `yes` is as often as the user allows. `once` is after the first attempt only: the
job itself or the system's maintenance may have caused this, and would cause it again. A signal that
systemd did not send is ignored, since any job with sudo can send one. `may refuse`: the machine
stays if the runner has just been given a job, or if a launch counts on it. `secs`: seconds to
leave, or those of the cloud's notice; a notice that comes later can only shorten them. GitHub
re-runs a run 20 to 60 s after its last job, which these seconds allow wherever nobody else sets
them. A second signal makes it leave at once. The steps of leaving are in `leave.py`.
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
from .spec import AgentSpec

SINGLE_GRACE = 60.0
"""Seconds for a single-job runner to upload its logs and exit after its job."""
HANG = 300.0
"""Seconds for a runner to listen again after its job; also how long the forge may report an idle
runner as busy."""
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
settings, 2 and 5 may be temporary."""
NOTICE_PATIENCE = 3.0
"""Seconds to wait for a notice once the system shuts down. Google gives notice and shuts down at
the same time; EC2 is polled every two seconds; notices of EC2 and Azure come long before."""
ONCE, ALWAYS = 1, 10**6
"""Attempts after which a run that ended for this reason is no longer restarted, if the user allows
as many."""
INF = float("inf")
URGENT_SECONDS = 4.0
"""Time limit for everything after a second signal."""
GONE, REFUSED = "gone", "busy"
"""Outcomes of deregistering: off the list, or kept for its job. Anything else is an error."""


class Reason(enum.Enum):
    """Why a machine leaves: its text for users, then the columns of the table above."""

    IDLE = ("idle for too long", 0, True, 45, 0)
    NO_JOB = ("no job came", 0, True, 45, 0)
    SINGLE = ("its single job is done", 0, False, 80, 0)
    ASKED = ("asked to stop", 0, False, 45, 0)
    TAKEN = ("the machine is being taken away", ALWAYS, False, 30, 0)
    SHUT_DOWN = ("the machine was shut down without notice", ONCE, False, 25, 0)
    STOPPED = ("the system stopped the runner's service", ONCE, False, 90, 0)
    JOB_LIMIT = ("GitHub's time limit is near", ALWAYS, False, 300, 0)
    LIFETIME = ("maximum lifetime reached", ALWAYS, False, 300, 0)
    CRASHED = ("the runner exited unexpectedly", ONCE, False, 150, 1)
    HUNG = ("the runner hung after its job", 0, False, 45, 1)
    DISK_FULL = ("the disk is full", 0, False, 45, 1)
    UNFIT = ("the machine can run no more jobs", ONCE, True, 45, 1)
    AGENT_CRASHED = ("the agent crashed", 0, False, 45, 1)
    VERSION = ("GitHub refuses this runner version", 0, False, 45, 3)
    REMOVED = ("the runner was removed", 0, False, 45, 3)
    START_FAILED = ("start-up failed", 0, False, 45, 6)
    NEVER_ONLINE = ("not online in time", 0, False, 45, 6)

    def __init__(
        self, text: str, restarts: int, may_refuse: bool, seconds: int, exit_code: int
    ) -> None:
        self.text = text
        self.restarts = restarts
        self.may_refuse = may_refuse
        self.seconds = seconds
        self.exit_code = exit_code


class Phase(enum.Enum):
    STARTING = "starting"
    IDLE = "idle"
    BUSY = "busy"
    DONE = "done"  # the job is over, but the runner does not listen yet
    LEAVING = "leaving"


@dataclasses.dataclass(frozen=True)
class Policy:
    """Seconds, None for never. `owned`: the machine was created for this runner."""

    idle_timeout: Optional[float]
    first_job_timeout: Optional[float]
    max_lifetime: Optional[float]
    start_timeout: float
    single: bool
    owned: bool = True


def policy_of(spec: AgentSpec) -> Policy:
    return Policy(
        spec.idle_timeout,
        spec.first_job_timeout,
        spec.max_lifetime,
        spec.start_timeout,
        spec.single,
        bool(spec.cloud),
    )


@dataclasses.dataclass(frozen=True)
class State:
    """Times are in seconds on the machine's monotonic clock. `since`: when the phase began;
    `born`: when the agent first started."""

    phase: Phase
    since: float
    born: float
    reason: Optional[Reason] = None
    job: str = ""
    """The job that is running, or was running when the machine began to leave."""
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


def advance(state: State, event: Event, policy: Policy) -> State:
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
        return _on_signal(state, event, policy)
    if isinstance(event, RunnerExited):
        return _on_exit(state, event, policy)
    if isinstance(event, (Online, JobStarted, JobFinished, Settled)):
        return _on_job(state, event, policy)
    return _on_tick(state, event.at, isinstance(event, Tick) and event.disk_full, policy)


def _on_job(state: State, event: Event, policy: Policy) -> State:
    """What the runner and its hooks report."""
    if isinstance(event, Online):
        return _phase(state, Phase.IDLE, event.at) if state.phase is Phase.STARTING else state
    if isinstance(event, JobFinished):
        return _over(_phase(state, Phase.DONE, event.at))
    if not isinstance(event, JobStarted):
        return _settled(state, event.at, policy)
    if state.phase is Phase.BUSY and not event.ref:  # the hook was faster than the runner's word
        return state
    return _phase(_started(state, event), Phase.BUSY, event.at)


def _started(state: State, event: JobStarted) -> State:
    ends = event.at + event.limit - margin(event.limit)
    if event.run_ends is not None:
        ends = min(ends, event.run_ends - margin(RUN_LIMIT))
    return dataclasses.replace(state, job=event.job, job_ends=ends, worked=True, refused=None)


def margin(limit: float) -> float:
    return min(LIMIT_MARGIN, limit / 10)


def _on_signal(state: State, event: Signalled, policy: Policy) -> State:
    if event.stops == "":
        return state
    state = dataclasses.replace(state, off=state.off or event.at)
    if event.stops == UNIT:
        return leaves(state, event.at, Reason.STOPPED)
    if event.stops is None:
        return leaves(state, event.at, Reason.TAKEN if policy.owned else Reason.ASKED)
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


def _on_exit(state: State, event: RunnerExited, policy: Policy) -> State:
    """Exit codes of actions/runner: 0 success, 1 terminated, 2 retryable, 3 and 4 updating, 5
    session conflict, 6 configuration refreshed, 7 version deprecated
    (src/Runner.Common/Constants.cs)."""
    if event.removed:
        return leaves(state, event.at, Reason.REMOVED)
    if event.code == 7:
        return leaves(state, event.at, Reason.VERSION)
    again = state.starts <= RELAUNCHES and state.phase is not Phase.BUSY
    if event.code in (2, 3, 4, 5, 6) and again:
        return dataclasses.replace(
            _over(_phase(state, Phase.STARTING, event.at)), starts=state.starts + 1
        )
    done = policy.single and state.phase is not Phase.STARTING and event.code == 0
    return leaves(state, event.at, Reason.SINGLE if done else Reason.CRASHED)


def _settled(state: State, at: float, policy: Policy) -> State:
    if state.phase is Phase.DONE:
        return state if policy.single else _phase(state, Phase.IDLE, at)
    if state.phase is Phase.BUSY:  # its hook did not run
        return _over(_phase(state, Phase.DONE if policy.single else Phase.IDLE, at))
    return state


def _on_tick(state: State, at: float, full: bool, policy: Policy) -> State:
    """The state after some time without any other event."""
    if full != (state.full is not None):
        state = dataclasses.replace(state, full=at if full else None)
    reason = _limit(state, at, policy) or _patience(state, at, policy)
    return leaves(state, at, reason) if reason else state


def _limit(state: State, at: float, policy: Policy) -> Optional[Reason]:
    """The reason to leave if a limit that applies in every phase has been reached."""
    busy = state.phase is Phase.BUSY
    life = policy.max_lifetime
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


def _patience(state: State, at: float, policy: Policy) -> Optional[Reason]:
    """The reason to leave if the current phase has lasted too long."""
    waited = at - state.since
    if state.phase is Phase.STARTING and waited >= policy.start_timeout:
        return Reason.NEVER_ONLINE
    if state.phase is Phase.DONE and waited >= (SINGLE_GRACE if policy.single else HANG):
        return Reason.SINGLE if policy.single else Reason.HUNG
    patience = policy.idle_timeout if state.worked else policy.first_job_timeout
    if state.phase is not Phase.IDLE or patience is None or waited < patience:
        return None
    if state.refused is not None and at - state.refused >= HANG:
        return Reason.HUNG
    return Reason.IDLE if state.worked else Reason.NO_JOB


def _phase(state: State, phase: Phase, at: float) -> State:
    since = state.since if phase is state.phase else at
    return dataclasses.replace(state, phase=phase, since=since, reason=None)


def _over(state: State) -> State:
    """The state without its job. Not for a machine that leaves: it may have to restart the job."""
    return dataclasses.replace(state, job="", job_ends=None)


def leaves(state: State, at: float, reason: Reason, seconds: Optional[float] = None) -> State:
    seconds = reason.seconds if seconds is None else max(seconds, URGENT_SECONDS)
    return dataclasses.replace(
        state, phase=Phase.LEAVING, since=at, reason=reason, ends=at + seconds
    )


def watchdog(
    beat: Optional[State],
    beat_at: float,
    now: float,
    policy: Policy,
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
    if policy.max_lifetime is not None and now - started >= policy.max_lifetime + MARGIN:
        return "maximum lifetime reached"
    # While it leaves, which has a time limit of its own, the agent writes no heartbeat.
    if beat is not None and now - beat_at >= SILENCE + (beat.reason.seconds if beat.reason else 0):
        return "the disk is full" if disk_full else "the agent is silent"
    if beat is None or beat.phase is Phase.STARTING:
        waited = now - (beat.since if beat else beat_at)
        return "never online" if waited >= policy.start_timeout + MARGIN else None
    return None
