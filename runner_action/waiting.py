"""The clock, and waiting for a state. The only importer of tenacity and the only place where the
launcher sleeps."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol, TypeVar

from runner_action.errors import TimedOut

T = TypeVar("T")


class Clock(Protocol):
    """Time as it comes in as an argument, so that tests own it."""

    def monotonic(self) -> float:
        """Seconds that never go back."""
        ...

    def now(self) -> datetime:
        """The time of day in UTC."""
        ...

    def sleep(self, seconds: float) -> None: ...


class SystemClock:
    """The real one."""

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
    """Calls `probe` until it gives something, and gives that.

    The pauses grow from `first` to `most` seconds. Raises TimedOut after `timeout` seconds by
    `clock` (tenacity's own `stop_after_delay` asks the real clock, so it is not used); what
    `probe` raises passes.
    """
    # Imported here: a launch spends its first second on requests, not on waiting.
    from tenacity import Retrying, retry_if_result, wait_exponential

    end = clock.monotonic() + timeout

    def expired(_: object) -> bool:
        return clock.monotonic() >= end

    def give_up(_: object) -> T:
        raise TimedOut(f"Waited {timeout:.0f} s for {what}, in vain.")

    retrying = Retrying(
        retry=retry_if_result(lambda result: result is None),
        wait=wait_exponential(multiplier=first, max=most, exp_base=1.5),
        stop=expired,
        sleep=clock.sleep,
        retry_error_callback=give_up,
    )
    found = retrying(probe)
    assert found is not None
    return found
