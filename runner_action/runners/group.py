"""The machines that one user data starts, and what they have at the cloud and at GitHub or GitLab
so far: enough to roll them back at any moment."""

from __future__ import annotations

from collections.abc import Collection
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from enum import Enum, auto

from runner_action.model import Identity, Instance, Registration, Run, names, runner_name
from runner_action.request import LaunchRequest


class Creation(Enum):
    """What is known of a group's machines at the cloud."""

    NOT_ASKED = auto()
    """There are none, beside those that are noted: nothing was asked for, or it was refused."""
    UNANSWERED = auto()
    """A call is under way, or ended without telling all that it made."""


class Joining(Enum):
    """How a group's runners get onto the list."""

    BY_THE_MACHINE = auto()
    """Each machine registers its own, with a token for any number of them."""
    BY_THE_LAUNCH = auto()
    """The launch registers it, or is about to: it may be listed without any machine."""


@dataclass
class RunnerGroup:
    """One thread at a time changes it: that of its creation, then that of its rollback."""

    identity: Identity
    count: int = 1
    """How many machines."""
    suffixed: bool = False
    """Each makes its runner's name from its instance's id."""
    joining: Joining = Joining.BY_THE_MACHINE
    creation: Creation = Creation.NOT_ASKED
    registration: Registration | None = None
    instances: list[Instance] = field(default_factory=list)
    creating: Future[None] | None = None
    deleted: set[str] = field(default_factory=set)
    """Ids of the instances that a rollback has deleted."""

    @property
    def runners(self) -> dict[str, Instance]:
        """Instances by the names of their runners."""
        return {
            runner_name(self.identity, instance.id, not self.suffixed): instance
            for instance in self.instances
        }

    @property
    def missing(self) -> int:
        """How many machines it lacks."""
        return self.count - len(self.instances)

    @property
    def is_known(self) -> bool:
        """Whether all its instances are noted, so that none need be looked for."""
        return not self.missing or self.creation is Creation.NOT_ASKED

    @property
    def may_be_listed(self) -> bool:
        """Whether runners of its names can be its own. If it has neither a machine nor a
        registration, they are another launch's."""
        may_have_machines = bool(self.instances) or self.creation is Creation.UNANSWERED
        return may_have_machines or self.joining is Joining.BY_THE_LAUNCH

    def is_settled(self, seconds: float) -> bool:
        """Whether it is known, within so many seconds, how the creation ended."""
        return self.creating is None or not wait([self.creating], timeout=seconds).not_done


def groups_of(
    request: LaunchRequest, run: Run, together: bool, reused: int = 0, taken: Collection[str] = ()
) -> list[RunnerGroup]:
    """The machines of a launch, less those whose place a reused runner takes: as one group where
    they may join with the same user data, else each by itself. `taken`: names in use."""
    base = request.name or run.derived_name
    count = request.count - reused
    if together and request.count > 1:
        identity = Identity(name=base, key=run.key)
        return [RunnerGroup(identity, count, suffixed=True)] if count else []
    wanted = names(base, request.count, taken)[:count]
    return [RunnerGroup(Identity(name=name, key=run.key)) for name in wanted]
