"""Where machines come from: the contract every cloud keeps, in prose on the members.

What is created for a runner has the tags of `marks.tags`, and its cloud recorded something at its
creation that nobody can change since; what does not have both is never touched. Vendor exceptions
never leave a provider: it raises CapacityError, QuotaError, CredentialsError,
ConfigurationError or NotOurs, by what the caller does next.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from runner_action.errors import CapacityError, CredentialsError, ProviderError, QuotaError
from runner_action.model import (
    LAUNCH_TAG,
    Deletion,
    Instance,
    Machine,
    Placement,
    Plan,
    ProviderName,
)
from runner_action.plain import parts_of
from runner_action.request import CloudRequest

log = logging.getLogger(__name__)
MOST_AT_ONCE = 20
"""How many machines are created in parallel."""


def address_in(environ: Mapping[str, str], name: str, default: str) -> str:
    """The address of an API in a variable. Raises CredentialsError if it is none."""
    address = environ.get(name) or default
    if not parts_of(address).hostname:
        raise CredentialsError(f"{name} is not an address.", f"Write one such as {default}.")
    return address.rstrip("/")


@dataclass(frozen=True)
class Created:
    """At least one instance. `shortage`: why there are fewer than requested; None if there are not.
    `refused`: the messages of the pools that had none, for people."""

    instances: tuple[Instance, ...]
    shortage: ProviderError | None = None
    refused: tuple[str, ...] = ()


def proven(instances: Iterable[Instance]) -> list[Instance]:
    """The instances that a launch created; others that have its tags are logged."""
    own = []
    for instance in instances:
        if instance.proven:
            own.append(instance)
        else:
            log.warning(
                "%s (%s) has the tags of a machine of cml-runner, but was not created by it, so it"
                " is not touched.",
                instance.id,
                instance.region,
            )
    return own


def made_by(launch: str, instance: Instance) -> bool:
    """Whether the launch with this token, or an earlier try of the same, created it."""
    return bool(launch) and instance.proven and instance.tags.get(LAUNCH_TAG) == launch


def create_all(creations: Sequence[Callable[[], Instance]]) -> Created:
    """Creates machines in parallel. If all are refused, raises the refusal that decides."""
    instances: list[Instance] = []
    refusals: list[ProviderError] = []
    with ThreadPoolExecutor(min(len(creations), MOST_AT_ONCE)) as threads:
        for future in [threads.submit(create) for create in creations]:
            try:
                instances.append(future.result())
            except ProviderError as error:
                refusals.append(error)
    worst = worst_of(refusals)
    if worst and not instances:
        raise worst
    return Created(tuple(instances), worst, tuple(dict.fromkeys(map(str, refusals))))


def worst_of(refusals: Sequence[ProviderError]) -> ProviderError | None:
    """The error that decides, of several tries in parallel: first one that ends the launch, then
    one that ends a region, then one that ends a pool; the first of its kind."""
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
        """Whether `find` searches the given regions only; else it searches everywhere."""
        ...

    def regions(self) -> Sequence[str]:
        """All regions where there may be machines, if `find` needs them; else none."""
        ...

    @property
    def user_data_limit(self) -> int:
        """How many bytes of user data the cloud takes."""
        ...

    def plan(self, request: CloudRequest) -> Plan:
        """The request in the cloud's own terms. Pure: no network. Raises InputError in the user's
        words."""
        ...

    def resolve(self, plan: Plan, request: CloudRequest) -> Sequence[Placement]:
        """The ladder: the placements to try, in order, with image and network looked up. Creates
        nothing. The first method that needs credentials."""
        ...

    def deletion(self, request: CloudRequest) -> Deletion | None:
        """How a machine deletes itself; None where powering off is enough. Warns a user whose
        machine cannot."""
        ...

    def create(self, placement: Placement, machine: Machine, count: int = 1) -> Created:
        """Up to `count` instances there, all from the same user data. The same machine, placement
        and count give the same instances again. When it raises, it has left nothing.

        Raises NotOurs where a name that it needs is taken by something that this launch did not
        create. Before anything is deleted after a failure it is shown to be of this launch."""
        ...

    def settle(self, instances: Sequence[Instance]) -> None:
        """Their runners are online: deletes what only their start needed and others might read, as
        far as that is possible before they end."""
        ...

    def destroy(self, name: str, instance: Instance | None = None) -> bool:
        """Deletes everything that was created for the runner of that name, or of that instance if
        it is known. Absent is success.

        Returns whether there was something. When it returns, the cloud has accepted the deletion,
        which cannot be undone.
        """
        ...

    def find(self, tags: Mapping[str, str], regions: Sequence[str] = ()) -> Sequence[Instance]:
        """Our instances that have all these tags and still cost money, in these regions and in
        those that were used before."""
        ...

    def former(self, title: str, regions: Sequence[str]) -> Sequence[Instance] | None:
        """Our instances in these regions whose runs have titles that begin so, whatever their
        state: also those that ended, as long as the cloud lists them. None if it never does."""
        ...

    def tidy(self, now: datetime) -> None:
        """Deletes what machines that are gone have left, where a cloud has such things. Errors are
        logged."""
        ...

    def look(self, instance: Instance) -> Instance:
        """The instance as it is now: its address, and whether it is alive."""
        ...

    def cost(self, instance: Instance, now: datetime) -> float | None:
        """USD so far; None if that is not known."""
        ...

    def console(self, instance: Instance) -> str:
        """The output of the machine's console so far; empty if the cloud has none yet."""
        ...
