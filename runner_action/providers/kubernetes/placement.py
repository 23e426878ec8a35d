"""One attempt of a launch on Kubernetes. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from runner_action.model import Placement
from runner_action.providers.kubernetes.options import Containers
from runner_action.providers.kubernetes.plan import Size


@dataclass(frozen=True, kw_only=True)
class PodPlacement(Placement):
    """One size, on nodes of one kind. `region`: of the nodes, empty for any."""

    size: Size
    architecture: str
    image: str
    disk_gb: int
    node_selector: Mapping[str, str]
    tolerations: tuple[str, ...]
    service_account: str | None
    containers: Containers
    template: dict[str, Any] = field(default_factory=dict)
    schedule_timeout: int = 300
    queue: str | None = None
    """Of Kueue, which admits the Job first."""
    assigned_users: bool = False
    """The cluster assigns user IDs and refuses others, as OpenShift does."""

    @property
    def quota(self) -> object:
        """A ResourceQuota counts what is requested, wherever it runs."""
        return self.size

    def __str__(self) -> str:
        nodes = " on spot nodes" if self.spot else ""
        where = f" in {self.region}" if self.region else ""
        return f"{self.size}{nodes}{where}"
