"""Where machines come from: the contract every cloud keeps, in prose on the members.

What is made for a runner carries the tags of `model.tags`, and its cloud recorded something at
its creation that nobody can change since; what has not both is never touched. Vendor exceptions
never leave a provider: it raises CapacityError, QuotaError, CredentialsError,
ConfigurationError or NotOurs, by what the caller does next.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from runner_action.errors import CapacityError, ProviderError, QuotaError
from runner_action.model import (
    LAUNCH_TAG,
    Deletion,
    Instance,
    Machine,
    Placement,
    Plan,
    ProviderName,
)
from runner_action.request import CloudRequest

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Created:
    """At least one instance; `shortage` says why there are not more, if there are fewer than
    asked for. `refused`: what had none, for people."""

    instances: tuple[Instance, ...]
    shortage: ProviderError | None = None
    refused: tuple[str, ...] = ()


def proven(found: Iterable[Instance]) -> list[Instance]:
    """Those that a launch made; of the others it is told that they bear its tags."""
    made = []
    for one in found:
        if one.proven:
            made.append(one)
        else:
            log.warning(
                "%s (%s) has the tags of a machine of cml-runner's, but was not created by it: it"
                " is left alone.",
                one.id,
                one.region,
            )
    return made


def made_by(launch: str, instance: Instance) -> bool:
    """Whether the launch with this token, or an earlier try of the same, created it."""
    return bool(launch) and instance.proven and instance.tags.get(LAUNCH_TAG) == launch


def worst_of(refusals: Sequence[ProviderError]) -> ProviderError | None:
    """Of several tries side by side: what ends the launch comes first, then what ends a region,
    then what ends a pool; of one kind the first."""
    return min(refusals, key=_reach, default=None)


def _reach(error: ProviderError) -> int:
    if isinstance(error, CapacityError):
        return 2
    return 1 if isinstance(error, QuotaError) else 0


class Provider(Protocol):
    @property
    def name(self) -> ProviderName: ...

    @property
    def regional(self) -> bool:
        """Whether `find` asks region by region; else it sees all there are, whatever regions it
        is given."""
        ...

    def regions(self) -> Sequence[str]:
        """All where there may be machines, if they are asked one by one; else none."""
        ...

    @property
    def user_data_limit(self) -> int:
        """Bytes of user data the cloud takes."""
        ...

    def plan(self, request: CloudRequest) -> Plan:
        """The request in the cloud's own words. Pure: no network. Raises InputError in the
        user's words."""
        ...

    def resolve(self, plan: Plan, request: CloudRequest) -> Sequence[Placement]:
        """The ladder: placements to try, in order, with image and network looked up. Creates
        nothing; the first call that needs credentials."""
        ...

    def deletion(self, request: CloudRequest) -> Deletion | None:
        """How a machine deletes itself; None where its power-off is its end. A user whose
        machine cannot is warned."""
        ...

    def create(self, placement: Placement, machine: Machine, count: int = 1) -> Created:
        """Up to `count` instances there, all from the same user data. The same machine,
        placement and count again give the same instances. When it raises, it has left nothing.

        Raises NotOurs where a name that it needs is taken by something that this launch did not
        create. Before anything is deleted after a failure it is shown to be of this launch."""
        ...

    def settle(self, instances: Sequence[Instance]) -> None:
        """Their runners are online: what was there only to make them, and may be read, goes.
        What cannot go yet goes with them."""
        ...

    def destroy(self, name: str, instance: Instance | None = None) -> bool:
        """Removes everything made for the runner of that name, by the instance if it is known.
        Absent is success.

        Returns whether there was something; when it returns, the cloud has confirmed the end.
        """
        ...

    def find(self, tags: Mapping[str, str], regions: Sequence[str] = ()) -> Sequence[Instance]:
        """Our instances that carry all these tags and still cost money, in these regions and
        those that were asked before."""
        ...

    def tidy(self, now: datetime) -> None:
        """Removes what machines that are gone could not take along, where there is such a thing.
        What does not work is logged."""
        ...

    def look(self, instance: Instance) -> Instance:
        """The same instance as it is now: address and whether it lives."""
        ...

    def cost(self, instance: Instance, now: datetime) -> float | None:
        """USD so far; None where the cloud does not tell what its machines cost."""
        ...

    def console(self, instance: Instance) -> str:
        """What the machine said on its console so far; empty if the cloud has nothing yet."""
        ...
