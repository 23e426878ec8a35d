"""The machines that start from the same user data, and what exists for them so far at the cloud
and at GitHub or GitLab: enough to roll them back at any moment."""

from __future__ import annotations

from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from enum import Enum, auto

from runner_action.model import (
    Identity,
    Instance,
    Registration,
    Run,
    runner_name,
)
from runner_action.naming import base_name, names
from runner_action.request import LaunchRequest


class Creation(Enum):
    """What is known about a group's machines at the cloud."""

    NOT_REQUESTED = auto()
    """Only `instances` exist: nothing else was requested, or the request was refused."""
    UNANSWERED = auto()
    """A request is under way, or ended without a list of all that it created."""


class Joining(Enum):
    """Who registers the runners of a group."""

    BY_THE_MACHINE = auto()
    """Each machine registers its runner, with a token for any number of them."""
    BY_THE_LAUNCH = auto()
    """The launch registers it, or is about to: it may be registered without any machine."""


@dataclass
class RunnerGroup:
    """Changed by one thread at a time: that of its creation, then that of its rollback."""

    identity: Identity
    count: int = 1
    """How many machines it must have."""
    suffixed: bool = False
    """Whether each machine appends the end of its instance's ID to its runner's name."""
    label: str | None = None
    """The mark of its runners."""
    joining: Joining = Joining.BY_THE_MACHINE
    creation: Creation = Creation.NOT_REQUESTED
    registration: Registration | None = None
    instances: list[Instance] = field(default_factory=list)
    creating: Future[None] | None = None
    deleted: set[str] = field(default_factory=set)
    """IDs of the instances that a rollback has deleted."""

    @property
    def runners(self) -> dict[str, Instance]:
        """The instances by the names of their runners."""
        return {
            runner_name(self.identity, instance.id, not self.suffixed): instance
            for instance in self.instances
        }

    @property
    def missing(self) -> int:
        """How many machines have not been created."""
        return self.count - len(self.instances)

    @property
    def is_known(self) -> bool:
        """Whether `instances` has all its machines, so that a rollback need not search for any."""
        return not self.missing or self.creation is Creation.NOT_REQUESTED

    @property
    def may_be_registered(self) -> bool:
        """Whether a runner of its name can be its own. Without a machine or a registration of the
        group, such a runner belongs to another launch."""
        may_have_machines = bool(self.instances) or self.creation is Creation.UNANSWERED
        return may_have_machines or self.joining is Joining.BY_THE_LAUNCH

    def is_settled(self, seconds: float) -> bool:
        """Whether the creation has ended, or ends within so many seconds."""
        return self.creating is None or not wait([self.creating], timeout=seconds).not_done


def groups_of(
    request: LaunchRequest, run: Run, together: bool, reused: int = 0
) -> list[RunnerGroup]:
    """The groups of a launch, without the machines that reused runners replace: one group if all
    may start from the same user data (`together`), else one for each machine."""
    base = base_name(request.name, run)
    count = request.count - reused
    if together and request.count > 1:
        identity = Identity(name=base, key=run.key)
        return [RunnerGroup(identity, count, suffixed=True)] if count else []
    chosen = names(base, request.count)[:count]
    return [RunnerGroup(Identity(name=name, key=run.key)) for name in chosen]
