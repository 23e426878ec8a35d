"""From placement to placement until a group has its machines."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from runner_action.errors import CapacityError, ProviderError, QuotaError
from runner_action.model import Machine, Placement
from runner_action.providers.base import Created, Provider
from runner_action.runners.group import Creation, RunnerGroup

log = logging.getLogger(__name__)


class Ladder:
    """The placements of a launch, in the order in which they are tried by each of its groups.
    `tried` tells how each answered."""

    def __init__(
        self, placements: Sequence[Placement], provider: Provider, stopping: Callable[[], bool]
    ) -> None:
        self._placements = placements
        self._provider = provider
        self._stopping = stopping
        self.tried: list[str] = []

    def climb(self, group: RunnerGroup, machine: Machine) -> None:
        """No capacity: the next placement. No quota: the next region, or on demand after spot.
        Raises what no other placement would help, or CapacityError or QuotaError at the end."""
        exhausted: set[tuple[str, bool]] = set()
        refusal: ProviderError | None = None
        for placement in self._placements:
            if self._stopping():
                break
            if (placement.region, placement.spot) in exhausted:
                continue
            refusal = self._try(placement, group, machine)
            if refusal is None:
                return
            log.warning("%s", refusal)
            if not isinstance(refusal, CapacityError | QuotaError):
                raise refusal
            if isinstance(refusal, QuotaError):
                exhausted.add((placement.region, placement.spot))
        if isinstance(refusal, QuotaError):
            raise refusal
        raise self._no_capacity(group, refusal)

    def _try(
        self, placement: Placement, group: RunnerGroup, machine: Machine
    ) -> ProviderError | None:
        """Why it has not all that are missing, if so."""
        wanted = group.missing
        log.info("Asking for %s%s.", f"{wanted} × " if wanted > 1 else "", placement)
        group.creation = Creation.UNANSWERED
        try:
            made = self._provider.create(placement, machine, wanted)
        except (CapacityError, QuotaError) as error:
            if not group.instances:
                group.creation = Creation.NOT_ASKED
            self.tried.append(f"{placement}: {error}")
            return error
        group.instances += made.instances
        self.tried += [*made.refused, f"{placement}: {_answer(made, group.count, wanted)}"]
        return made.shortage

    def _no_capacity(self, group: RunnerGroup, last: ProviderError | None) -> CapacityError:
        what = "such a machine" if group.count == 1 else f"{group.count} such machines"
        tried = "; ".join(self.tried)
        return CapacityError(f"No placement had {what}: {tried}", last.hint if last else "")


def _answer(made: Created, count: int, wanted: int) -> str:
    return "yes" if count == 1 else f"{len(made.instances)} of {wanted}"
