"""Two hundred machines with one token that are taken together: all of their runs are restarted,
within what GitHub allows. In simulated time, so that it costs a second."""

from __future__ import annotations

import pytest

from benchmarks.notices import storm

MACHINES = 200
NOTICE = 120.0
SPREAD = 2.0


@pytest.mark.parametrize("seed", [1, 2])
def test_all_are_restarted_before_they_are_taken(seed: int) -> None:
    outcome = storm(MACHINES, NOTICE, seed, all_together=False)
    count, last = len(outcome.restarted), max(outcome.restarted)
    assert (count, last <= NOTICE + SPREAD) == (MACHINES, True)
    assert outcome.calls["POST rerun"] == MACHINES + outcome.refused["POST rerun"]
    refused = sum(outcome.refused.values())
    assert refused <= sum(outcome.calls.values()) / 10, outcome.refused


def test_a_stricter_count_delays_and_stops_nobody_for_good() -> None:
    """All endpoints together, which is less than GitHub's page allows."""
    outcome = storm(MACHINES, NOTICE, 1, all_together=True)
    count = len(outcome.restarted)
    assert count >= MACHINES / 3
    assert outcome.refused
