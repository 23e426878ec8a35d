"""What the rest of the launcher needs to know of a cloud without loading it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

from runner_action.model import ProviderName


@dataclass(frozen=True, kw_only=True)
class Traits:
    pods: bool = False
    """Its machines are pods: they get a program in place of a cloud-config, and their jobs are
    never root."""
    policy_by_repository: bool = False
    """What it has to allow can be narrowed to the machines of one repository."""


def traits_of(provider: ProviderName) -> Traits:
    match provider:
        case ProviderName.AWS:
            return Traits(policy_by_repository=True)
        case ProviderName.AZURE | ProviderName.GCP:
            return Traits()
        case ProviderName.KUBERNETES:
            return Traits(pods=True)
        case _ as unknown:
            assert_never(unknown)
