"""The clock, and waiting for a condition. The only module that imports tenacity, and the only one
in which the launcher sleeps."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol, TypeVar

from runner_action.errors import TimedOut

T = TypeVar("T")


class Clock(Protocol):
    """The time, passed in as an argument so that tests control it."""

    def monotonic(self) -> float:
        """Seconds from an arbitrary start; never goes backwards."""
        ...

    def now(self) -> datetime:
        """Date and time in UTC."""
        ...

    def sleep(self, seconds: float) -> None: ...


class SystemClock:
    """The clock of this computer."""

    def monotonic(self) -> float:
        return time.monotonic()

    def now(self) -> datetime:
        return datetime.now(UTC)

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


def wait_for(
    probe: Callable[[], T | None],
    what: str,
    *,
    clock: Clock,
    timeout: float,
    first: float = 1.0,
    most: float = 5.0,
) -> T:
    """Calls `probe` until it returns something other than None, and returns that.

    The pauses grow from `first` to `most` seconds. `what` is a noun phrase for the message.
    Raises TimedOut after `timeout` seconds by `clock` (tenacity's `stop_after_delay` reads the
    real clock, so it is not used), and whatever `probe` raises.
    """
    # Imported here: a launch sends its first requests before it has to wait for anything.
    from tenacity import Retrying, retry_if_result, wait_exponential

    end = clock.monotonic() + timeout

    def expired(_: object) -> bool:
        return clock.monotonic() >= end

    def give_up(_: object) -> T:
        raise TimedOut(f"Timed out after {timeout:.0f} s waiting for {what}.")

    retrying = Retrying(
        retry=retry_if_result(lambda result: result is None),
        wait=wait_exponential(multiplier=first, max=most, exp_base=1.5),
        stop=expired,
        sleep=clock.sleep,
        retry_error_callback=give_up,
    )
    result = retrying(probe)
    assert result is not None
    return result
