"""Claims: texts at the forge, valid until a given time, that keep independent launches and agents
out of each other's way. Pure.

A claim on a runner reserves it for a launch: no other launch uses it while it is idle, and its
agent does not shut down. A runner that is shutting down has a claim of its agent's. A turn is an
entry on the forge's list of runners that only one launch can have, and that launch may go ahead.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable
from datetime import datetime

PREFIX, TURN = "cml-claim-", "cml-turn-"
LEAVING = "leaving"
"""Holder of an agent's claim. The holders of all other claims are launches."""
CLAIM = re.compile(rf"{PREFIX}([0-9a-z]+)-(\d+)")
KEY_LENGTH = 10
"""Characters of a run's key that name a holder and end the label of its runners."""
DIGEST_LENGTH = 10
"""Hexadecimal digits of the digest that ends the name of a turn."""
HOLD_SECONDS = 300
"""How long a reused runner waits for the job of the launch that claimed it."""


def claim(holder: str, until: datetime) -> str:
    """The text of a claim, which is valid as a label at GitHub."""
    return f"{PREFIX}{holder}-{int(until.timestamp())}"


def turn(labels: Iterable[str]) -> str:
    """Name of the turn that all launches with these labels compete for."""
    return f"{TURN}{hashlib.sha256(','.join(sorted(labels)).encode()).hexdigest()[:DIGEST_LENGTH]}"


def is_turn(name: str) -> bool:
    """Whether the name is that of a turn, which never has a machine. No launch has such a name: a
    requested one gets a hyphen and eight digits of a key."""
    return bool(re.fullmatch(f"{TURN}[0-9a-f]{{{DIGEST_LENGTH}}}", name))


def claims_in(text: str) -> list[str]:
    return [match[0] for match in CLAIM.finditer(text)]


def holder_of(mark: str) -> str:
    """The launch that made the claim: beginning of the key of its run."""
    return mark.removeprefix(PREFIX).rpartition("-")[0]


def alive(marks: Iterable[str], now: datetime) -> set[str]:
    """The claims that have not expired."""
    return {mark for mark in marks if int(mark.rpartition("-")[2]) > now.timestamp()}


def allows(marks: Collection[str], own: str, now: datetime, *, shared: bool) -> bool:
    """Whether the holder of the claim `own` may use a runner with these claims: not if the runner
    is shutting down, nor, unless it may be `shared`, if another launch has claimed it."""
    others = {holder_of(mark) for mark in alive(marks, now)} - {holder_of(own)}
    return LEAVING not in others if shared else not others
