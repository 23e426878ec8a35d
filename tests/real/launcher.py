"""The launcher's own calls, for a namespace of a real API server."""

from __future__ import annotations

from dataclasses import replace

from runner_action.model import Instance, Machine, Placement, Secret
from runner_action.providers.base import Created
from runner_action.providers.kubernetes.client import KubernetesProvider
from runner_action.providers.kubernetes.cluster import Cluster
from runner_action.providers.kubernetes.options import KubernetesOptions, options_of
from runner_action.sandbox.world import POD_IMAGE
from runner_action.waiting import SystemClock
from tests.contracts.test_kubernetes import machine
from tests.real.cluster import Node, Space, until
from tests.test_launch import request


class Launcher:
    """The provider, for a space, as an account of it."""

    def __init__(self, space: Space, account: str = "") -> None:
        self.space = space
        config = Secret(space.kubeconfig(account))
        self.cluster = Cluster.from_environment(KubernetesOptions(configuration=config), {})
        self.provider = KubernetesProvider(self.cluster, SystemClock())

    def ladder(self, *argv: str, patience: int = 20) -> list[Placement]:
        cloud = request("--cloud=kubernetes", Node.chosen(self.space), *argv).cloud
        assert cloud
        options = replace(options_of(cloud), schedule_timeout=patience)
        cloud = replace(cloud, image=cloud.image or POD_IMAGE, options=options)
        return list(self.provider.resolve(self.provider.plan(cloud), cloud))

    def create(
        self, *argv: str, count: int = 1, patience: int = 20, of: Machine | None = None
    ) -> Created:
        placement = self.ladder(*argv, patience=patience)[0]
        return self.provider.create(placement, of or machine(), count)

    def one(self, *argv: str) -> Instance:
        (made,) = self.create(*argv).instances
        return made

    def nothing_is_left(self) -> None:
        kinds = ("jobs", "pods", "secrets")
        until(lambda: not any(map(self.space.items, kinds)), "all of it to go")
