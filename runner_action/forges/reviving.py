"""What `restart` needs to know of a forge about runs that have not ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from runner_action.agent.restart import Job
from runner_action.forges.base import Rerunning


@dataclass(frozen=True)
class Try:
    """A job in one attempt of its run. `age`: seconds since it was queued."""

    job: Job
    age: float


class Reviving(Rerunning, Protocol):
    """A forge whose runs can be found and cancelled, too."""

    def unfinished(self) -> Sequence[int]:
        """IDs of the runs that wait or run. Raises ForgeError."""
        ...

    def tries(self, run_id: int, now: datetime) -> Sequence[Try]:
        """The jobs of all attempts of a run. Raises ForgeError."""
        ...

    def cancel(self, run_id: int) -> None:
        """Cancels a run, which takes a while. Raises ForgeError."""
        ...
