"""What commands work with, and where they search for machines."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from runner_action.forges.base import Forge
from runner_action.marks import address_tag
from runner_action.model import OWNER_TAG, REPOSITORY_TAG, Instance, Repository
from runner_action.providers.base import Provider
from runner_action.waiting import Clock


@dataclass(frozen=True)
class Context:
    """The collaborators of a command: a repository with its clients, and the clock."""

    repository: Repository
    forge: Forge
    provider: Provider
    clock: Clock


@dataclass(frozen=True)
class Search:
    """A search for the machines of a repository at a cloud."""

    repository: Repository
    provider: Provider
    only: Sequence[str] | None = None
    """The regions to search; None for all regions that may have machines."""

    @cached_property
    def regions(self) -> Sequence[str]:
        """The regions that are searched; none if the cloud lists all its machines at once."""
        return self.provider.regions() if self.only is None else self.only

    @property
    def is_complete(self) -> bool:
        """Whether all machines of the repository at this cloud are found."""
        return self.only is None or not self.provider.regional

    def machines(self) -> Sequence[Instance]:
        """The machines with the repository's tag, which may be forged: see `created_for`."""
        tags = {REPOSITORY_TAG: address_tag(self.repository)}
        return self.provider.find(tags, self.regions)


def created_for(repository: Repository, machines: Iterable[Instance]) -> list[Instance]:
    """The machines that launches of the repository created: by their tags, and by what the cloud
    recorded at their creation (`proven`), since tags can be forged."""
    tags = {OWNER_TAG: "runner", REPOSITORY_TAG: address_tag(repository)}
    return [
        machine for machine in machines if machine.proven and tags.items() <= machine.tags.items()
    ]
