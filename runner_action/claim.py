"""Claims: marks at the forge, good until a moment, by which launches that know nothing of each
other, and agents, keep out of each other's way. Pure.

A claim on a runner says that a launch counts on it: no other takes it while it is idle, and its
agent does not leave. A runner that leaves carries one of its own. A turn is a place on the
forge's list that only one launch can hold: who has it may launch.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable
from datetime import datetime

PREFIX, TURN = "cml-claim-", "cml-turn-"
LEAVING = "leaving"
"""Holder of the claim that an agent makes; all others are launches."""
CLAIM = re.compile(rf"{PREFIX}([0-9a-z]+)-(\d+)")
KEY_LENGTH = 10
"""How much of a run's key names a holder, and ends the label of its runners."""
HOLD_SECONDS = 300
"""How long a reused runner waits for the job of the launch that claimed it."""


def claim(holder: str, until: datetime) -> str:
    """Valid as a label at GitHub."""
    return f"{PREFIX}{holder}-{int(until.timestamp())}"


def turn(labels: Iterable[str]) -> str:
    """Name of the turn of all launches with these labels."""
    return f"{TURN}{hashlib.sha256(','.join(sorted(labels)).encode()).hexdigest()[:10]}"


def is_turn(name: str) -> bool:
    """It never has a machine."""
    return name.startswith(TURN)


def claims_in(text: str) -> list[str]:
    return [found[0] for found in CLAIM.finditer(text)]


def holder_of(mark: str) -> str:
    """Who made it: beginning of the key of a run."""
    return mark.removeprefix(PREFIX).rpartition("-")[0]


def alive(marks: Iterable[str], now: datetime) -> set[str]:
    return {mark for mark in marks if int(mark.rpartition("-")[2]) > now.timestamp()}


def allows(marks: Collection[str], mine: str, now: datetime, *, shared: bool) -> bool:
    """Whether the maker of `mine` may count on a runner with these claims: not if it leaves;
    and, unless it may be `shared`, not if another does."""
    others = {holder_of(mark) for mark in alive(marks, now)} - {holder_of(mine)}
    return LEAVING not in others if shared else not others
