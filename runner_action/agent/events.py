"""The events in the life of a machine. `at`: seconds on its monotonic clock."""

from __future__ import annotations

import dataclasses
from typing import Optional, Tuple

JOB_LIMIT = 5 * 86400.0
"""GitHub ends a job on a self-hosted runner after five days.
https://docs.github.com/en/actions/reference/limits"""
RUN_LIMIT = 35 * 86400.0
"""GitHub cancels a run after 35 days (on the same page)."""


Ref = Optional[Tuple[str, int, Optional[int]]]
"""Names what to restart. On GitHub: repository, run and attempt (None: the latest). On GitLab:
project, job and None."""
SYSTEM, UNIT = "system", "unit"


def stops(jobs: str) -> str:
    """What systemd is stopping, from the output of `systemctl list-jobs`. `is-system-running` is
    less exact: older versions report `starting` for a system that shuts down before its boot is
    complete, as while cloud-init runs (`manager_state` in systemd 247's src/core/manager.c)."""
    if "shutdown.target" in jobs:
        return SYSTEM
    return UNIT if "cml-runner.service" in jobs else ""


@dataclasses.dataclass(frozen=True)
class Event:
    at: float


@dataclasses.dataclass(frozen=True)
class Online(Event):
    """The runner has begun to listen for jobs."""


@dataclasses.dataclass(frozen=True)
class JobStarted(Event):
    """`limit`: seconds after which the forge cancels the job; `run_ends`: when it cancels the run,
    if known; `ref`: what to restart if this job is interrupted."""

    job: str = "a job"
    limit: float = JOB_LIMIT
    run_ends: Optional[float] = None
    ref: Ref = None


@dataclasses.dataclass(frozen=True)
class JobFinished(Event):
    """The last step of the job is over, by its hook."""

    job: str = ""


@dataclasses.dataclass(frozen=True)
class Settled(Event):
    """The runner itself reports that its job is over, after the job's hook or without one."""


@dataclasses.dataclass(frozen=True)
class RunnerExited(Event):
    """`code`: in terms of actions/runner; `removed`: the runner said that it is no longer
    registered."""

    code: int
    removed: bool = False


@dataclasses.dataclass(frozen=True)
class Failed(Event):
    """The machine cannot run jobs: a step of the start-up failed, or, after a job, what had worked
    until then."""

    why: str


@dataclasses.dataclass(frozen=True)
class Signalled(Event):
    """SIGTERM or SIGINT arrived; a second one is urgent. `stops`: what systemd says that it is
    stopping: SYSTEM, UNIT (the agent's) or "" (nothing); None where systemd is not asked."""

    stops: Optional[str] = None


@dataclasses.dataclass(frozen=True)
class Interrupted(Event):
    """The cloud takes the machine in `seconds`; None: it only warns that it might, which alone
    changes nothing."""

    why: str
    seconds: Optional[float]


@dataclasses.dataclass(frozen=True)
class Refused(Event):
    """The runner must stay, as it has a job; with `claimed`, as a launch counts on it."""

    claimed: bool = False


@dataclasses.dataclass(frozen=True)
class Tick(Event):
    """`works`: there is no job, or the machine shows that it is being worked on."""

    disk_full: bool = False
    works: bool = True
