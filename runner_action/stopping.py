"""Signals: the first one ends a launch, and what was made has to be taken back before whoever
sent it kills.

A cancelled step of GitHub's gets SIGINT, 7.5 s later SIGTERM, and is killed after 2.5 s more
(https://docs.github.com/en/actions/reference/workflow-cancellation-reference); for a container
action that is `docker run`, which passes signals on. GitLab's Docker executor sends SIGTERM and
removes the container after 10 s; its shell executor waits ten minutes.
"""

from __future__ import annotations

from types import FrameType

from runner_action.errors import Cancelled
from runner_action.waiting import Clock

GRACE_SECONDS = 8.0
"""From the first signal until the process ends, done or not: two less than all of them give."""


class Signals:
    """What `signal.signal` is given is `hear`. The first signal raises Cancelled, unless the
    story is shielded by then: it is noted, and shortens what is being done. Later ones change
    nothing."""

    def __init__(self, clock: Clock, grace: float = GRACE_SECONDS) -> None:
        self._clock = clock
        self._grace = grace
        self._at = 0.0
        self._shielded = False
        self.number = 0
        """Of the first signal; 0 for none."""

    def hear(self, number: int, _frame: FrameType | None = None) -> None:
        if self.number:
            return
        self.number = number
        self._at = self._clock.monotonic()
        if not self._shielded:
            raise Cancelled(number)

    def shield(self) -> None:
        """From now on nothing is interrupted."""
        self._shielded = True

    def left(self) -> float:
        """Seconds that may still be spent: no end of them without a signal."""
        return self._at + self._grace - self._clock.monotonic() if self.number else float("inf")
