"""Where jobs come from: the contract every forge keeps, in prose on the members.

Vendor exceptions never leave a forge: it raises AuthError when another token would help,
RunnerBusy when a job holds the runner, ForgeError otherwise. The token it is built with stays in
the launcher.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Protocol

from runner_action.agent.restart import Run
from runner_action.model import CiJob, Download, LaunchJob, Registration, Runner, Secret
from runner_action.waiting import Clock


class Forge(Protocol):
    @property
    def api_url(self) -> str:
        """Base of the REST API, for the agent."""
        ...

    @property
    def together(self) -> bool:
        """Whether any number of machines may join with the same user data, each choosing its
        runner's name."""
        ...

    def runners(self, *, labels: bool = True, offline: bool = False) -> Sequence[Runner]:
        """All runners of the repository. Also the check of the token, before money is spent:
        raises AuthError. `labels`: False where they are of no use, as they may cost a question
        for each runner; those of offline ones may be missing unless asked for.
        """
        ...

    def online(self, registrations: Mapping[str, Registration]) -> Collection[str]:
        """Which of the runners of these names are online. Where that costs many questions it may
        be looked up at some of the calls only."""
        ...

    def download(self, architecture: str, version: str, system: str = "linux") -> Download:
        """The runner program for `x64` or `arm64` and `linux` or `macos`, `latest` or an exact
        version, with its checksum."""
        ...

    def registration_token(self) -> Secret | None:
        """What any number of runners may join with. Short-lived; registers nobody yet. None:
        each runner is registered by itself."""
        ...

    def removal_token(self) -> Secret | None:
        """What a machine without any other token may take its runner off the list with.
        Short-lived. None: it has what it needs."""
        ...

    def reach(self, token: Secret) -> str | None:
        """What else than its runs here a token for restarts opens, in words that follow "it is";
        None: nothing that the forge tells of. Raises AuthError if it is no good."""
        ...

    def launch_job(self, job: CiJob) -> LaunchJob | None:
        """The job that launches, as the forge knows it; None if it cannot be told from others."""
        ...

    def register_one(
        self,
        name: str,
        labels: Sequence[str],
        architecture: str,
        system: str = "linux",
        longest: int | None = None,
    ) -> Registration:
        """Registers one runner, in place of an offline one of that name. To be undone with
        `deregister`. `longest`: seconds that a job of it may last, where the forge takes such a
        limit."""
        ...

    def deregister(self, name: str, runner_id: int | None = None, *, twins: bool = False) -> bool:
        """Takes the runner off the list. Absent is success; returns whether it was there. Raises
        RunnerBusy. `twins`: also those that its registration has left there if it was delivered
        twice."""
        ...

    def claim(self, runner: Runner, mark: str, clock: Clock, *, shared: bool) -> bool:
        """Marks that a launch counts on this runner (`claim.claim`). False: it is leaving or
        gone, or, unless it may be `shared`, another launch was first; never True for two that do
        not share it."""
        ...

    def take_turn(self, turn: str, mark: str, clock: Clock, *, labels: Sequence[str] = ()) -> bool:
        """Whether this launch alone may go ahead, until `end_turn` or its claim's moment. Asked
        if the list shows no other's; what is left of one that is over is removed. On the list it
        is a runner whose name begins with the turn's; `labels` are put to it, by which a sweep
        knows it.
        """
        ...

    def end_turn(self, turn: str, holder: str) -> None:
        """Of that holder. Absent is success."""
        ...


class Rerunning(Forge, Protocol):
    """A forge whose runs can be looked at and run again from outside, for `restart`."""

    def run(self, run_id: int, now: datetime) -> Run:
        """A workflow run with the jobs of its latest attempt. Raises ForgeError."""
        ...

    def fork(self, run_id: int) -> str | None:
        """The fork whose code a run ran, in words; None: the repository's own."""
        ...

    def annotations(self, job_id: int) -> Sequence[tuple[str, str]]:
        """What was noted about a job, by itself or by the forge: titles and messages."""
        ...

    def rerun(self, what: str, run_id: int, job_id: int | None) -> str | None:
        """Asks for one of the re-runs of `agent.restart`. None: granted; else why not."""
        ...
