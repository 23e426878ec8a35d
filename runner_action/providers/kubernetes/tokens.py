"""A token of a cluster, and what there is to make one of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from runner_action.model import Secret
from runner_action.waiting import Clock, SystemClock


@dataclass(frozen=True)
class Token:
    """`ends`: when to use it no longer, in UTC; None: not known."""

    value: Secret
    ends: datetime | None


@dataclass(frozen=True)
class Around:
    """`id_token`: returns the CI job's own for an audience, where the CI has such."""

    environ: Mapping[str, str]
    id_token: Callable[[str], str] | None = None
    clock: Clock = field(default_factory=SystemClock)
