"""The launches of one step, which must not share a machine."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count

from runner_action.ci.ordinals import ORDINALS
from runner_action.claim import alive, holder_of
from runner_action.errors import RunnerActionError
from runner_action.forges.base import Forge
from runner_action.model import Run
from runner_action.naming import KEY_PART
from runner_action.request import LaunchRequest, Reuse
from runner_action.runners.context import Context, Search, created_for
from runner_action.runners.reuse import Reusing
from runner_action.runners.rollback import Leftover, cleanup
from runner_action.waiting import Clock

log = logging.getLogger(__name__)
LABEL_PART = 10
"""Hexadecimal digits of a launch's key that are in its label (`Run.derived_name`)."""
PART = re.compile(f"[0-9a-f]{{{KEY_PART}}}|[0-9a-f]{{{LABEL_PART}}}")


@dataclass
class Siblings:
    """A launch, and what it knows about the others of its step. `killed`: those that were killed;
    `swept` is called with the run of each of them that has left nothing any more."""

    first: Run
    """That of the step."""
    take: Callable[[], int] = field(default_factory=lambda: count(1).__next__)
    """Takes an ordinal that no launch of the step has."""
    killed: Sequence[Leftover] = ()
    swept: Callable[[Run], None] = lambda _: None
    last: int = 0
    """The ordinal that this launch took last; 0 for none."""

    @property
    def run(self) -> Run:
        """The run of this launch."""
        return self.first.nth(self.last) if self.last else self.first

    def another(self) -> Run:
        """The run of an ordinal that no launch of this step has used."""
        self.last = self.take()
        return self.run

    def connect(self, request: LaunchRequest, build: Callable[[], Forge], clock: Clock) -> Forge:
        """Builds the client of the forge, and ends the turns of killed launches of this step, for
        which this launch would wait."""
        forge = build()
        for leftover in self.killed if request.reuse is Reuse.ANY else ():
            Reusing(request, leftover.run, forge, clock).end_turn()
        return forge

    def sweep(self, request: LaunchRequest, context: Context) -> None:
        """Deletes what killed launches of this step left, but for runners on which a launch counts:
        one that came online may be reused. Failures do not end this launch: the cleanup after the
        job tries again."""
        for leftover in self.killed:
            try:
                if _is_claimed(leftover, context):
                    continue
                cleanup([leftover], request, context, lambda: float("inf"))
                self.swept(leftover.run)
            except RunnerActionError as error:
                log.warning("An earlier launch of this step was killed. %s", error)


def _is_claimed(leftover: Leftover, context: Context) -> bool:
    own = leftover.run.derived_name
    runners = [runner for runner in context.forge.runners() if own in runner.labels]
    return any(alive(runner.claims, context.clock.now()) for runner in runners)


def leftovers_of(
    first: Run, names: Sequence[str], stored: Mapping[int, Sequence[str]]
) -> list[Leftover]:
    """What the launches of a step may have left. `names`: as in `Front.remembered`; `stored`: the
    names of the runners of those that stored them, by ordinal. Pure."""
    known = {ordinal: list(its_names) for ordinal, its_names in stored.items()}
    covered = {name for its_names in stored.values() for name in its_names}
    for name, ordinal in ordinals_of(set(names) - covered, first).items():
        known.setdefault(ordinal, []).append(name)
    return [Leftover(first.nth(ordinal), sorted(known[ordinal])) for ordinal in sorted(known)]


def search(first: Run, request: LaunchRequest, context: Context) -> list[Leftover]:
    """The launches of a step that have left something, where none could store what it created: by
    the names of machines, the labels of runners, and the claims on turns."""
    assert request.cloud
    regions = [place.region for place in context.provider.plan(request.cloud).places]
    machines = Search(context.repository, context.provider, regions).machines()
    names = {machine.name for machine in created_for(context.repository, machines)}
    labels = set[str]()
    for runner in context.forge.runners(offline=True):
        labels |= runner.labels | {f"cml-{holder_of(mark)}" for mark in runner.claims}
    ordinals = ordinals_of(names | labels, first)
    return [
        Leftover(first.nth(one), [name for name in names if ordinals.get(name) == one])
        for one in sorted({*ordinals.values()})
    ]


def ordinals_of(chosen: Iterable[str], first: Run) -> dict[str, int]:
    """The ordinals of the launches of a step by the names that they chose. A name that no launch of
    it chose is left out, but for one in thousands: only a mark proves anything. Pure."""
    sought: dict[str, set[str]] = {}
    for name in chosen:
        for part in filter(PART.fullmatch, name.split("-")):
            sought.setdefault(part, set()).add(name)
    found: dict[str, int] = {}
    for ordinal in range(ORDINALS if sought else 0):
        part = first.key_of(ordinal)[:LABEL_PART]
        if part in sought or part[:KEY_PART] in sought:
            names = sought.get(part, set()) | sought.get(part[:KEY_PART], set())
            found |= dict.fromkeys(names, ordinal)
    return found
