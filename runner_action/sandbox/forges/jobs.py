"""Jobs, runs of jobs, and registered runners, as an embedded forge knows them. `memory` keeps
them."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field

DEFAULT_LABELS = ("self-hosted", "Linux", "X64")


class Refusal(Exception):
    """The forge refuses a request; the text is its own."""


Hosted = Callable[["Job"], str]
"""What a job on one of the forge's own machines does; returns its conclusion."""
Note = tuple[str, str]
"""Title and message of an annotation."""


@dataclass
class Job:
    """A job of a workflow run. It runs `command`, and takes `seconds`. `needs`: names of jobs that
    must succeed first."""

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
    """Why it failed: GitLab's `failure_reason`."""
    notes: list[Note] = field(default_factory=list)
    began: float = field(default_factory=time.time)

    def for_runner(self, repository: str) -> dict[str, object]:
        names = ("id", "name", "run_id", "attempt", "seconds", "command")
        return {**{name: getattr(self, name) for name in names}, "repository": repository}


@dataclass
class Run:
    """A workflow run. `jobs`: of its latest attempt; `all_jobs`: of all attempts."""

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
        if not self.done:
            return ""
        conclusions = {job.conclusion for job in self.jobs}
        if "cancelled" in conclusions:
            return "cancelled"
        return "failure" if "failure" in conclusions else "success"

    def dependants(self, names: set[str]) -> set[str]:
        """These jobs, and all that need them directly or indirectly."""
        more = names | {job.name for job in self.jobs if names.intersection(job.needs)}
        return more if more == names else self.dependants(more)


@dataclass
class Seat:
    """A registered runner. On GitHub: of `owner`, such as `orgs/octo` (empty: the repository), in
    its runner group `group`."""

    id: int
    name: str
    labels: tuple[str, ...]
    ephemeral: bool
    untagged: bool = False
    """Also takes jobs without labels."""
    owner: str = ""
    group: int = 1
    secret: str = field(default_factory=lambda: secrets.token_hex(16))
    online: bool = False
    contacted: bool = False
    """Has ever been online."""
    job: Job | None = None
    heard: float = field(default_factory=time.monotonic)
    """When it last sent a request."""
    note: str = ""
    paused: bool = False

    def takes(self, job: Job) -> bool:
        """Whether it can run the job."""
        if self.paused or not job.labels <= set(self.labels):
            return False
        return bool(job.labels) or self.untagged
