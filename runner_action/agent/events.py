"""What happens to a machine. `at`: seconds of its monotonic clock."""

from __future__ import annotations

import dataclasses
from typing import Optional, Tuple

JOB_LIMIT = 5 * 86400.0
"""GitHub ends a job on a self-hosted runner after five days.
https://docs.github.com/en/actions/reference/limits"""


Ref = Optional[Tuple[str, int, Optional[int]]]
"""Repository, run and attempt (None: the latest) on GitHub; project, job and nothing on GitLab."""


SYSTEM, UNIT = "system", "unit"


@dataclasses.dataclass(frozen=True)
class Event:
    at: float


@dataclasses.dataclass(frozen=True)
class Online(Event):
    """The runner listens for jobs."""


@dataclasses.dataclass(frozen=True)
class JobStarted(Event):
    """`limit`: seconds after which the forge ends the job; `run_ends`: when it ends its run, if
    that is known; `ref`: what has to be restarted if this job is interrupted."""

    job: str = "a job"
    limit: float = JOB_LIMIT
    run_ends: Optional[float] = None
    ref: Ref = None


@dataclasses.dataclass(frozen=True)
class JobFinished(Event):
    job: str = ""


@dataclasses.dataclass(frozen=True)
class Settled(Event):
    """The runner itself says that its job is over: after the hook, or without one."""


@dataclasses.dataclass(frozen=True)
class RunnerExited(Event):
    """`code`: of actions/runner; `removed`: it said that the forge no longer knows it."""

    code: int
    removed: bool = False


@dataclasses.dataclass(frozen=True)
class Failed(Event):
    """A step of the start-up failed."""

    why: str


@dataclasses.dataclass(frozen=True)
class Asked(Event):
    """A signal came; the second one is urgent. `stops`: what systemd is about to stop, by its own
    word: SYSTEM, UNIT (the agent's), or "" for nothing; None where a signal needs no other word."""

    stops: Optional[str] = None


@dataclasses.dataclass(frozen=True)
class Interrupted(Event):
    """The cloud takes the machine in `seconds`; None: it only thinks that it might, and nothing
    follows from that alone."""

    why: str
    seconds: Optional[float]


@dataclasses.dataclass(frozen=True)
class Refused(Event):
    """The forge kept the runner: it has a job. `claimed`: it may leave, but a launch counts on
    it."""

    claimed: bool = False


@dataclasses.dataclass(frozen=True)
class Tick(Event):
    disk_full: bool = False
