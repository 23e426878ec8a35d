"""The forge's own memory: runners and their seats, tokens, and jobs waiting for a runner that has all their labels."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

DEFAULT_LABELS = ("self-hosted", "Linux", "X64")


class Refusal(Exception):
    """What the forge will not do, in its words."""


@dataclass
class Job:
    """A job of a workflow run. `command`: what it does, besides taking `seconds`."""

    id: int
    labels: frozenset[str]
    seconds: float
    command: str
    status: str = "queued"
    conclusion: str = ""
    runner_name: str = ""
    attempt: int = 1

    def for_runner(self, repository: str) -> dict[str, object]:
        return {
            "id": self.id,
            "name": f"train-{self.id}",
            "run_id": self.id + 1000,
            "attempt": self.attempt,
            "seconds": self.seconds,
            "command": self.command,
            "repository": repository,
        }


@dataclass
class Seat:
    """A registered runner."""

    id: int
    name: str
    labels: tuple[str, ...]
    ephemeral: bool
    secret: str = field(default_factory=lambda: secrets.token_hex(16))
    online: bool = False
    job: Job | None = None


class Forge:
    """All of it behind one lock, with a bell that rings at every change."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._seats: dict[int, Seat] = {}
        self._tokens: dict[str, str] = {}
        self._jobs: list[Job] = []
        self._last_id = 0
        self.ever: list[str] = []
        """Names of all runners that were ever registered."""

    # --- for tests and the demo

    def queue_job(self, labels: Sequence[str], seconds: float = 0.5, command: str = "") -> Job:
        with self._changed:
            job = Job(len(self._jobs) + 1, frozenset(labels), seconds, command)
            self._jobs.append(job)
            self._changed.notify_all()
        return job

    def wait(self, condition: Callable[[], object], what: str, timeout: float = 20) -> None:
        """Until the condition holds; raises TimeoutError naming `what`."""
        end = time.monotonic() + timeout
        with self._changed:
            while not condition():
                left = end - time.monotonic()
                if left <= 0:
                    raise TimeoutError(f"waited {timeout} s for {what}")
                self._changed.wait(min(left, 0.1))

    def jobs(self) -> list[Job]:
        return list(self._jobs)

    # --- runners

    def seats(self) -> list[Seat]:
        with self._changed:
            return list(self._seats.values())

    def by_id(self, runner_id: int) -> Seat | None:
        return self._seats.get(runner_id)

    def by_name(self, name: str) -> Seat | None:
        return next((seat for seat in self.seats() if seat.name == name), None)

    def new_token(self, kind: str) -> str:
        token = f"canary-{kind}-{secrets.token_hex(8)}"
        self._tokens[token] = kind
        return token

    def token_kind(self, token: str) -> str | None:
        return self._tokens.get(token)

    def seat(self, name: str, labels: Sequence[str], *, ephemeral: bool) -> Seat:
        with self._changed:
            self._last_id += 1
            seat = self._seats[self._last_id] = Seat(self._last_id, name, tuple(dict.fromkeys(labels)), ephemeral)
            self.ever.append(name)
            self._changed.notify_all()
        return seat

    def remove(self, runner_id: int) -> bool:
        with self._changed:
            seat = self._seats.get(runner_id)
            if seat and seat.job:
                raise Refusal(f'Runner "{seat.name}" is still running a job"')
            self._changed.notify_all()
            return self._seats.pop(runner_id, None) is not None

    def set_online(self, seat: Seat, online: bool) -> None:
        with self._changed:
            seat.online = online
            if not online and seat.job:
                self._over(seat, "cancelled")
            self._changed.notify_all()

    # --- jobs

    def next_job(self, seat: Seat, wait: float) -> Job | None:
        """A long poll: a job whose labels this runner all has, or None after `wait` seconds."""
        end = time.monotonic() + wait
        with self._changed:
            while seat.id in self._seats:
                job = next((job for job in self._jobs if job.status == "queued" and job.labels <= set(seat.labels)), None)
                if job and seat.online:
                    job.status, job.runner_name, seat.job = "in_progress", seat.name, job
                    self._changed.notify_all()
                    return job
                if time.monotonic() >= end:
                    break
                self._changed.wait(max(end - time.monotonic(), 0.01))
        return None

    def complete(self, seat: Seat, conclusion: str) -> None:
        with self._changed:
            self._over(seat, conclusion)
            self._changed.notify_all()

    def _over(self, seat: Seat, conclusion: str) -> None:
        if seat.job:
            seat.job.status, seat.job.conclusion, seat.job = "completed", conclusion, None
        if seat.ephemeral:
            self._seats.pop(seat.id, None)
