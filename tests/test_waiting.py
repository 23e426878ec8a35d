"""Waiting goes by our clock."""

from __future__ import annotations

import pytest

from runner_action.errors import TimedOut
from runner_action.waiting import wait_for
from tests.fakes import FakeClock


def test_what_is_there_at_once_costs_no_sleep() -> None:
    clock = FakeClock()
    assert wait_for(lambda: 7, "it", clock=clock, timeout=10) == 7
    assert clock.slept == []


def test_pauses_grow_to_their_most_and_the_timeout_is_kept() -> None:
    clock = FakeClock()
    with pytest.raises(TimedOut, match="Timed out after 60 s waiting for it"):
        wait_for(lambda: None, "it", clock=clock, timeout=60, first=1, most=5)
    assert clock.slept[0] == 1
    assert clock.slept == sorted(clock.slept)
    assert max(clock.slept) == 5
    assert 60 <= clock.at - 1000 < 65


def test_what_the_probe_raises_passes() -> None:
    with pytest.raises(ValueError, match="no"):
        wait_for(lambda: int("no"), "it", clock=FakeClock(), timeout=10)
