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


@dataclass(frozen=True)
class Pace:
    """Seconds that the forge and its runner take. The default is none, which keeps tests short;
    `REAL` is GitHub's own pace."""

    stop: tuple[float, float] = (0.0, 0.0)
    """From SIGINT to SIGTERM, and from there until a step is killed."""
    setup: float = 0.0
    """From the start of a job to its first hook: its actions are downloaded first (JobExtension.cs
    in actions/runner)."""
    run: float = 0.0
    """From the end of a run's last job until the run is completed, and can be re-run."""
    busy: float = 0.0
    """From the start of a job until its runner is listed as busy. Until then GitHub deletes the
    runner."""


REAL = Pace(stop=(7.5, 2.5), setup=5.0, run=30.0, busy=40.0)
"""https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-cancellation (`stop`)
https://github.com/github-aws-runners/terraform-aws-github-runner/issues/5085 (`busy`: 25 to 60 s)
`run`: 20 to 60 s; until then a re-run is refused as "already running", as in
https://github.com/runs-on/runs-on/issues/259"""


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
    always: str = ""
    """The command of a last step with `if: always()`."""
    pace: Pace = Pace()
    fate: str = ""
    """What its runner does: `falls`, it fails with a retryable error in the middle of the job;
    `orphans`, it takes the job, and exits with 0 without a word."""
    reason: str = ""
    """Why it failed: GitLab's `failure_reason`."""
    notes: list[Note] = field(default_factory=list)
    began: float = field(default_factory=time.time)

    def for_runner(self, repository: str) -> dict[str, object]:
        names = ("id", "name", "run_id", "attempt", "seconds", "command", "always", "fate")
        return {
            **{name: getattr(self, name) for name in names},
            "repository": repository,
            "stop": self.pace.stop,
            "setup": self.pace.setup,
        }


@dataclass
class Run:
    """A workflow run. `jobs`: of its latest attempt; `all_jobs`: of all attempts."""

    id: int
    jobs: list[Job] = field(default_factory=list)
    all_jobs: list[Job] = field(default_factory=list)
    attempt: int = 1
    created: float = field(default_factory=time.time)
    started: float = field(default_factory=time.time)
    pace: Pace = Pace()
    ended: float | None = None
    """When its last job was first seen to be over, on the monotonic clock."""
    group: str = ""
    """Its workflow's `concurrency.group`."""
    cancels: bool = False
    """Its workflow's `concurrency.cancel-in-progress`."""
    entered: bool = False
    """It has begun, or waits to."""
    pending: bool = False
    """It waits for another run of its group."""

    @property
    def done(self) -> bool:
        """Whether it is completed, which is some time after its last job."""
        if any(job.status != "completed" for job in self.jobs):
            self.ended = None
            return False
        now = time.monotonic()
        self.ended = now if self.ended is None else self.ended
        return now - self.ended >= self.pace.run

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
    given: float = 0.0
    """When it got that job."""
    heard: float = field(default_factory=time.monotonic)
    """When it last sent a request."""
    note: str = ""
    paused: bool = False

    @property
    def busy(self) -> bool:
        """Whether the forge lists it as busy, which it does some time after it has got a job."""
        return self.job is not None and time.monotonic() - self.given >= self.job.pace.busy

    def takes(self, job: Job) -> bool:
        """Whether it can run the job."""
        if self.paused or not job.labels <= set(self.labels):
            return False
        return bool(job.labels) or self.untagged
