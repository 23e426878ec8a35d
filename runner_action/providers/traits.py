"""What the rest of the launcher needs to know about a cloud without loading it. The values are in
`providers/NAME/facts.py`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Traits:
    title: str
    pods: bool = False
    """Its machines are pods: their user data is a program, not a cloud-config, and their jobs are
    never root."""
    default_size: str = "m"
    """Without `cloud-type` and `cloud-gpu`."""
    policy_by_repository: bool = False
    """Its permissions can be limited to the machines of one repository."""
    metadata_hosts: tuple[str, ...] = ("169.254.169.254",)
    """Where a machine asks its cloud about itself: never through a proxy."""
    wiped_too: tuple[str, ...] = ()
    """Files with user data that its source in cloud-init leaves behind."""
    deletion_without_limit: bool = False
    """Before a machine is powered off its deletion is tried until it succeeds, since a machine
    that is off still costs."""
    words_of_regions: frozenset[str] = frozenset()
    """Words of the names of its regions, if people write these with spaces between; none of the
    words is a region by itself."""
    secret_variables: tuple[str, ...] = ()
    """Variables with a secret that its client reads, or that hold one by mistake."""
    secret_files: Mapping[str, str] = field(default_factory=dict)
    """Variables that name a file with secrets, or a folder, followed by `/` and such a file; and
    the file or folder that is read without the variable."""
    variables: tuple[str, ...]
    """How the variables begin that its SDK reads."""
