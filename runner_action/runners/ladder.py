"""Requests one placement after another until a group has its machines."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from runner_action.errors import CapacityError, ProviderError, QuotaError
from runner_action.model import Instance, Machine, Placement, Pool
from runner_action.providers.base import Created, Provider
from runner_action.runners.group import Creation, RunnerGroup

log = logging.getLogger(__name__)


def is_lost(pool: Pool, lost: Iterable[Instance]) -> bool:
    """Whether any of the machines was of this pool."""
    own = pool.instance_type, pool.zone
    return any(own == (machine.instance_type, machine.zone) for machine in lost)


def after(placements: Sequence[Placement], lost: Sequence[Instance]) -> tuple[Placement, ...]:
    """The order in which to try all pools of the placements after these spot machines were taken
    back: on demand before spot, where both may be requested, and of each their pools last. Pure."""
    if not lost:
        return tuple(placements)
    parts = [part for placement in placements for part in _parted(placement, lost)]
    return tuple(sorted(parts, key=lambda part: (part.spot, is_lost(part.pools[0], lost))))


def _parted(placement: Placement, lost: Sequence[Instance]) -> Iterator[Placement]:
    """A placement without its lost pools, and one of these alone; neither is empty."""
    for wanted in (False, True):
        pools = tuple(pool for pool in placement.pools if is_lost(pool, lost) is wanted)
        if pools:
            yield replace(placement, pools=pools)


class Ladder:
    """The placements of a launch, in the order in which each of its groups tries them. `tried`:
    each request with its result, for people."""

    def __init__(
        self, placements: Sequence[Placement], provider: Provider, stopping: Callable[[], bool]
    ) -> None:
        self._placements = placements
        self._provider = provider
        self._stopping = stopping
        self.tried: list[str] = []

    def climb(self, group: RunnerGroup, machine: Machine) -> None:
        """Creates the machines of a group. Without capacity it tries the next placement; without
        quota the next that needs another one. Raises CapacityError or QuotaError if
        all are refused, and at once any error that another placement would not help."""
        exhausted: set[object] = set()
        refusal: ProviderError | None = None
        for placement in self._placements:
            if self._stopping():
                break
            if placement.quota in exhausted:
                continue
            refusal = self._try(placement, group, machine)
            if refusal is None:
                return
            log.warning("%s", refusal)
            if not isinstance(refusal, CapacityError | QuotaError):
                raise refusal
            if isinstance(refusal, QuotaError):
                exhausted.add(placement.quota)
        if isinstance(refusal, QuotaError):
            raise refusal
        raise self._no_capacity(group, refusal)

    def _try(
        self, placement: Placement, group: RunnerGroup, machine: Machine
    ) -> ProviderError | None:
        """Requests the missing machines. Returns why there are fewer; None if there are not."""
        missing = group.missing
        log.info("Requesting %s%s.", f"{missing} × " if missing > 1 else "", placement)
        group.creation = Creation.UNANSWERED
        try:
            created = self._provider.create(placement, machine, missing)
        except (CapacityError, QuotaError) as error:
            if not group.instances:
                group.creation = Creation.NOT_REQUESTED
            self.tried.append(f"{placement}: {error}")
            return error
        group.instances += created.instances
        self.tried += [*created.refused, f"{placement}: {_result(created, group.count, missing)}"]
        return created.shortage

    def _no_capacity(self, group: RunnerGroup, last: ProviderError | None) -> CapacityError:
        what = "such a machine" if group.count == 1 else f"{group.count} such machines"
        tried = "; ".join(self.tried)
        return CapacityError(f"No placement had {what}: {tried}", last.hint if last else "")


def _result(created: Created, count: int, requested: int) -> str:
    return "yes" if count == 1 else f"{len(created.instances)} of {requested}"
