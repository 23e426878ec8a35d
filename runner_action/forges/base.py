"""The interface of a forge, that is, of GitHub or GitLab: where jobs come from.

Vendor exceptions never leave a forge. It raises AuthError if another token would help, RunnerBusy
if a job is running on the runner, otherwise ForgeError. Its token never leaves the launcher.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from runner_action.agent.restart import Job, Run
from runner_action.model import CiJob, Download, LaunchJob, Registration, Runner, Secret
from runner_action.waiting import Clock


class Forge(Protocol):
    @property
    def api_url(self) -> str:
        """Base address of the REST API, for the agent."""
        ...

    @property
    def together(self) -> bool:
        """Whether any number of machines may register with the same user data, each choosing its
        runner's name."""
        ...

    def runners(self, *, labels: bool = True, offline: bool = False) -> Sequence[Runner]:
        """All runners of the repository. Also checks the token before anything is created: raises
        AuthError. `labels`: whether to include labels, which may cost a call for each runner;
        `offline`: whether those of offline runners are needed too.
        """
        ...

    def online(self, registrations: Mapping[str, Registration]) -> Collection[str]:
        """Which of the runners with these names are online. If that takes many requests, an
        implementation may skip some of the polls and return nothing."""
        ...

    def download(self, architecture: str, version: str, system: str = "linux") -> Download:
        """The runner program for `x64` or `arm64` on `linux` or `macos`, `latest` or an exact
        version, with its checksum."""
        ...

    def registration_token(self) -> Secret | None:
        """A short-lived token with which any number of runners may register. None: each runner is
        registered by `register_one`."""
        ...

    def removal_token(self) -> Secret | None:
        """A short-lived token with which a machine without other tokens may deregister its
        runner. None: the machine needs none."""
        ...

    def reach(self, token: Secret) -> str | None:
        """What a token for restarts gives access to besides this repository, in words that follow
        "it is"; None: nothing, as far as the forge reports. Raises AuthError for a token that the
        forge refuses."""
        ...

    def launch_job(self, job: CiJob) -> LaunchJob | None:
        """The job that launches, as the forge describes it; None if it cannot be identified."""
        ...

    def cautions(self, longest: int | None) -> Sequence[str]:
        """What would end jobs of a runner early, as sentences for the user. `longest`: seconds that
        its jobs may last; None: any. Raises ForgeError."""
        ...

    def register_one(
        self,
        name: str,
        labels: Sequence[str],
        architecture: str,
        system: str = "linux",
        longest: int | None = None,
    ) -> Registration:
        """Registers one runner, in place of one of the same name that the same launch registered
        before. `labels`: the last of them is the launch's own. `deregister` undoes it. `longest`:
        seconds that its jobs may last, if the forge supports such a limit."""
        ...

    def deregister(
        self,
        name: str,
        runner_id: int | None = None,
        *,
        twins: bool = False,
        label: str | None = None,
    ) -> bool:
        """Removes the runner from the list, and returns whether it was there. Raises RunnerBusy.
        `twins`: also removes the runner that exists twice because its registration was delivered
        twice. `label`: without an ID, only a runner with this label is removed, where names do not
        tell launches apart."""
        ...

    def claim(self, runner: Runner, mark: str, clock: Clock, *, shared: bool) -> bool:
        """Claims this runner for a launch. `mark`: the claim (`claim.claim`). False: the runner is
        shutting down or gone, or, unless it may be `shared`, another launch was first. Never True
        for two launches that do not share it."""
        ...

    def take_turn(self, turn: str, mark: str, clock: Clock, *, labels: Sequence[str] = ()) -> bool:
        """Whether this launch alone may go ahead, until `end_turn` or until its claim expires.
        Removes turns that are over. A turn is on the list as a runner whose name begins with
        `turn`; a sweep identifies it by `labels`.
        """
        ...

    def end_turn(self, turn: str, holder: str) -> None:
        """Removes the turn of this holder, if there is one."""
        ...


@dataclass(frozen=True)
class Try:
    """A job in one attempt of its run. `age`: seconds since it was queued."""

    job: Job
    age: float


class Rerunning(Forge, Protocol):
    """A forge whose runs can be read and run again from outside, for `restart`."""

    def run(self, run_id: int, now: datetime) -> Run:
        """A workflow run with the jobs of its latest attempt. Raises ForgeError."""
        ...

    def fork(self, run_id: int) -> str | None:
        """The fork whose code a run ran, in words; None: the repository's own code."""
        ...

    def annotations(self, job_id: int) -> Sequence[tuple[str, str]]:
        """Titles and messages of a job's annotations, by the job itself or by the forge."""
        ...

    def rivals(self, run_id: int) -> Iterable[int]:
        """The runs that run or wait in the concurrency groups of this one, itself included. Raises
        ForgeError, while iterated too."""
        ...

    def unfinished(self) -> Sequence[int]:
        """IDs of the runs that wait or run. Raises ForgeError."""
        ...

    def tries(self, run_id: int, now: datetime) -> Sequence[Try]:
        """The jobs of all attempts of a run. Raises ForgeError."""
        ...

    def cancel(self, run_id: int) -> None:
        """Cancels a run, which takes a while. Raises ForgeError."""
        ...

    def rerun(self, what: str, run_id: int, job_id: int | None) -> str | None:
        """Requests one of the re-runs of `agent.restart`. None: accepted; otherwise the reason."""
        ...
