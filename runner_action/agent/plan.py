"""What a restart may do. A module of its own, which both sides of a pod have."""

from __future__ import annotations

import dataclasses

from .reasons import ALWAYS


@dataclasses.dataclass(frozen=True)
class Leaving:
    """A restart has `seconds`; after `force` seconds the run is cancelled by force. `cancelled`: it
    already was, gently. `restarts`: as in the reason. `runs`: the runner still takes jobs, so that
    nothing is re-run before it has stopped: it would get that job, and end with it."""

    seconds: float
    force: float
    cancelled: bool = False
    restarts: int = ALWAYS
    runs: bool = False
