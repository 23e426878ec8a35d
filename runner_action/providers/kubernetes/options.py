"""What a launch can ask of Kubernetes alone. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from runner_action.model import Secret, secret_of
from runner_action.request import CloudOptions, CloudRequest, pairs

QUEUE_SECONDS = 2700
"""In a queue at most: GitHub's registration token, which the launch has by then, lasts an hour.
https://docs.github.com/en/rest/actions/self-hosted-runners#create-a-registration-token-for-a-repository"""


class Containers(StrEnum):
    """How jobs in a pod get containers."""

    NONE = "none"
    DOCKER = "docker"
    KUBERNETES = "kubernetes"


ACCOUNTS = {
    "AZURE_CLIENT_ID": "azure-client-id",
    "AZURE_TENANT_ID": "azure-tenant-id",
    "GOOGLE_APPLICATION_CREDENTIALS_DATA": "gcp-credentials",
}
"""Variables with which a launch signs in to the cloud of its cluster, and the inputs that say the
same."""


@dataclass(frozen=True, kw_only=True)
class KubernetesOptions(CloudOptions):
    """What only Kubernetes knows: which cluster, which nodes, what else the pod is."""

    accounts: Mapping[str, Secret] = field(default_factory=dict)
    """Who signs in to the cloud of the cluster: values of ACCOUNTS that inputs give."""
    configuration: Secret | None = None
    """Text of a kubeconfig; None for that of the environment."""
    context: str | None = None
    namespace: str | None = None
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[str, ...] = ()
    """As `kubectl taint` writes taints."""
    pod_template: str | None = None
    """YAML."""
    containers: Containers = Containers.NONE
    schedule_timeout: int = 300
    queue: str | None = None

    @property
    def patience(self) -> int:
        return self.schedule_timeout + (QUEUE_SECONDS if self.queue else 0)


def from_inputs(value: Mapping[str, Any]) -> KubernetesOptions:
    """`value`: the checked inputs, by their names."""
    return KubernetesOptions(
        accounts={
            variable: Secret(value[name]) for variable, name in ACCOUNTS.items() if value[name]
        },
        configuration=secret_of(value["kubernetes-configuration"]),
        context=value["cloud-kubernetes-context"],
        namespace=value["cloud-kubernetes-namespace"],
        node_selector=pairs(value["cloud-kubernetes-node-selector"]),
        tolerations=tuple(value["cloud-kubernetes-tolerations"]),
        pod_template=value["cloud-kubernetes-pod-template"],
        containers=Containers(value["cloud-kubernetes-containers"]),
        schedule_timeout=value["cloud-kubernetes-schedule-timeout"],
        queue=value["cloud-kubernetes-queue"],
    )


def options_of(request: CloudRequest) -> KubernetesOptions:
    assert isinstance(request.options, KubernetesOptions)
    return request.options
