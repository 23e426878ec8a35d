"""What a forge knows of: jobs, runs of jobs, and the seats of runners. `memory` keeps them."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field

DEFAULT_LABELS = ("self-hosted", "Linux", "X64")


class Refusal(Exception):
    """What the forge will not do, in its words."""


Hosted = Callable[["Job"], str]
"""What a job on one of the forge's own machines does; gives its conclusion."""
Note = tuple[str, str]
"""Title and message of an annotation."""


@dataclass
class Job:
    """A job of a workflow run. `command`: what it does, besides taking `seconds`; `needs`: names
    of jobs that have to succeed before."""

    id: int
    labels: frozenset[str]
    seconds: float
    command: str
    name: str
    run_id: int
    needs: tuple[str, ...] = ()
    hosted: Hosted | None = None
    status: str = "waiting"
    conclusion: str = ""
    runner_name: str = ""
    attempt: int = 1
    cancelled: bool = False
    reason: str = ""
    """Why it failed, in GitLab's words."""
    notes: list[Note] = field(default_factory=list)
    began: float = field(default_factory=time.time)

    def for_runner(self, repository: str) -> dict[str, object]:
        told = {
            name: getattr(self, name)
            for name in ("id", "name", "run_id", "attempt", "seconds", "command")
        }
        return {**told, "repository": repository}


@dataclass
class Run:
    """A workflow run; `jobs` are those of its latest attempt, `all_jobs` of all."""

    id: int
    jobs: list[Job] = field(default_factory=list)
    all_jobs: list[Job] = field(default_factory=list)
    attempt: int = 1
    created: float = field(default_factory=time.time)
    started: float = field(default_factory=time.time)

    @property
    def done(self) -> bool:
        return all(job.status == "completed" for job in self.jobs)

    @property
    def conclusion(self) -> str:
        ends = {job.conclusion for job in self.jobs}
        return (
            next((end for end in ("cancelled", "failure") if end in ends), "success")
            if self.done
            else ""
        )

    def dependants(self, names: set[str]) -> set[str]:
        """These jobs and all that need them, however indirectly."""
        more = names | {job.name for job in self.jobs if names.intersection(job.needs)}
        return more if more == names else self.dependants(more)


@dataclass
class Seat:
    """A registered runner; on GitHub of its `owner`, such as `orgs/octo` (empty: the
    repository), in a `group` there."""

    id: int
    name: str
    labels: tuple[str, ...]
    ephemeral: bool
    untagged: bool = False
    """Takes jobs that ask for no label, too."""
    owner: str = ""
    group: int = 1
    secret: str = field(default_factory=lambda: secrets.token_hex(16))
    online: bool = False
    contacted: bool = False
    """Has ever been online."""
    job: Job | None = None
    heard: float = field(default_factory=time.monotonic)
    note: str = ""
    paused: bool = False

    def takes(self, job: Job) -> bool:
        return (
            not self.paused
            and job.labels <= set(self.labels)
            and (bool(job.labels) or self.untagged)
        )
