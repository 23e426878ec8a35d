"""Signals: the first one cancels a command, which must roll back before the process is killed.

On GitHub a cancelled step gets SIGINT, SIGTERM 7.5 s later, and is killed after another 2.5 s
(https://docs.github.com/en/actions/reference/workflow-cancellation-reference). The step of a
container action is `docker run`, which forwards signals. GitLab's Docker executor sends SIGTERM
and removes the container after 10 s; its shell executor waits ten minutes.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from runner_action.errors import Cancelled
from runner_action.waiting import Clock

GRACE_SECONDS = 8.0
"""From the first signal until the process exits, finished or not. Every CI above waits at least
two seconds longer."""


class Signals:
    """Register `hear` with `signal.signal`. The first signal raises Cancelled; after `shield` it
    only starts the countdown that `left` returns. Later signals are ignored."""

    def __init__(self, clock: Clock, grace: float = GRACE_SECONDS) -> None:
        self._clock = clock
        self._grace = grace
        self._at = 0.0
        self._shielded = False
        self.number = 0
        """Number of the first signal; 0 if there was none."""

    def hear(self, number: int, _frame: FrameType | None = None) -> None:
        if self.number:
            return
        self.number = number
        self._at = self._clock.monotonic()
        if not self._shielded:
            raise Cancelled(number)

    def shield(self) -> None:
        """From now on a signal interrupts nothing."""
        self._shielded = True

    def left(self) -> float:
        """Seconds left for the rollback; infinite before the first signal."""
        if not self.number:
            return float("inf")
        return self._at + self._grace - self._clock.monotonic()


@contextmanager
def signals(clock: Clock) -> Iterator[Signals]:
    """Installs handlers: the first signal raises Cancelled in this block, and starts the countdown
    that `Signals.left` returns."""
    received = Signals(clock)
    with handled_by(received.hear):
        yield received


@contextmanager
def handled_by(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Lets `handler` have the signals that end a command, in this block."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    previous = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, handler_before in previous.items():
            signal.signal(number, handler_before)
