"""The launches of one step, which must not share a machine."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from runner_action.errors import RunnerActionError
from runner_action.model import Run
from runner_action.naming import base_name
from runner_action.request import LaunchRequest
from runner_action.runners.context import Context
from runner_action.runners.reuse import is_of_launch
from runner_action.runners.rollback import Leftover, cleanup

log = logging.getLogger(__name__)
MOST = 1000
"""Launches of one step among which the cleanup looks for the one that chose a name."""


@dataclass
class Siblings:
    """A launch, and what it knows about the others of its step. `killed`: those that were killed;
    `swept` is called with the run of each of them that has left nothing any more."""

    first: Run
    """Ordinal 0 of the step."""
    next_ordinal: Callable[[int], int] = lambda ordinal: ordinal + 1
    """Takes the next ordinal above this one."""
    killed: Sequence[Leftover] = ()
    swept: Callable[[Run], None] = lambda _: None
    last: int = 0
    """The highest ordinal that this launch took."""

    @property
    def run(self) -> Run:
        """The run of this launch."""
        return self.first.nth(self.last)

    def another(self) -> Run:
        """The run of an ordinal that no launch of this step has used."""
        self.last = self.next_ordinal(self.last)
        return self.run

    def sweep(self, request: LaunchRequest, context: Context) -> None:
        """Deletes what killed launches of this step left. Failures do not end this launch: the
        cleanup after the job tries again."""
        for leftover in self.killed:
            try:
                cleanup([leftover], request, context, lambda: float("inf"))
                self.swept(leftover.run)
            except RunnerActionError as error:
                log.warning("An earlier launch of this step was killed. %s", error)


def leftovers_of(
    first: Run,
    requested: str | None,
    names: Sequence[str] | None,
    stored: Mapping[int, Sequence[str]],
) -> list[Leftover]:
    """What the launches of a step may have left. `names`: as in `Front.remembered`; `stored`: the
    names of the runners of those that stored them, by ordinal. Pure."""
    known = {ordinal: list(its_names) for ordinal, its_names in stored.items()}
    covered = {name for its_names in stored.values() for name in its_names}
    for name in set(names or ()) - covered:
        known.setdefault(_ordinal_of(name, first, requested), []).append(name)
    if names is None and not stored:
        return [Leftover(first)]
    return [Leftover(first.nth(ordinal), sorted(known[ordinal])) for ordinal in sorted(known)]


def _ordinal_of(name: str, first: Run, requested: str | None) -> int:
    """The ordinal of the launch that chose this name; 0 if none did."""
    return next(
        (
            ordinal
            for ordinal in range(MOST)
            if is_of_launch(name, base_name(requested, first.nth(ordinal)))
        ),
        0,
    )
