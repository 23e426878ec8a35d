"""What the user asked for, after validation. Times are seconds, None for never."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from runner_action.model import App, ForgeName, ProviderName, Repository, Secret


class Reuse(StrEnum):
    """When an existing runner serves instead of a new one."""

    NEVER = "never"
    ANY = "reuse"
    IDLE = "reuse-idle"


class Spot(StrEnum):
    """Whether the machine may be one that the cloud takes back when it likes."""

    NEVER = "false"
    ONLY = "true"
    PREFER = "prefer"


@dataclass(frozen=True, kw_only=True)
class AwsOptions:
    """What only AWS knows: network and disk."""

    security_group: str | None = None
    """Id or name."""
    subnets: tuple[str, ...] = ()
    kms_key: str | None = None
    hdd_iops: int | None = None
    hdd_throughput: int | None = None
    """MiB a second."""


@dataclass(frozen=True, kw_only=True)
class GcpOptions:
    """What only Google Cloud knows: who asks, who pays, network, disk."""

    project: str | None = None
    credentials: Secret | None = None
    """Text of a key, or of a federation's configuration; None for those of the environment."""
    network: str = "default"
    subnetwork: str | None = None
    private: bool = False
    """No external address."""
    kms_key: str | None = None
    """Its path; None: Google's own keys."""


@dataclass(frozen=True, kw_only=True)
class AzureAccount:
    """Who asks Azure, and for what it pays: ids, none of them secret."""

    client_id: str | None = None
    tenant_id: str | None = None
    subscription_id: str | None = None


@dataclass(frozen=True, kw_only=True)
class AzureOptions:
    """What only Azure knows: who asks, network, disk."""

    account: AzureAccount
    subnet: str | None = None
    """Its id; None: a network of the machine's own."""
    private: bool = False
    """No public address."""
    disk_encryption_set: str | None = None
    """Its id; None: Azure's own keys."""


class Containers(StrEnum):
    """How jobs in a pod get containers."""

    NONE = "none"
    DOCKER = "docker"
    KUBERNETES = "kubernetes"


@dataclass(frozen=True, kw_only=True)
class KubernetesOptions:
    """What only Kubernetes knows: which cluster, which nodes, what else the pod is."""

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


@dataclass(frozen=True, kw_only=True)
class CloudRequest:
    """The machine the user asked for, in the user's words."""

    provider: ProviderName
    regions: tuple[str, ...]
    sizes: tuple[str, ...]
    """Both in the order in which they are to be tried."""
    gpu: str | None
    """Kind, or kind and number as in `l4:4`."""
    disk_gb: int
    spot: Spot
    spot_price: float | None
    """USD an hour; None for the market price."""
    image: str | None
    permission_set: str | None
    metadata: Mapping[str, str]
    startup_script: str | None
    ssh_public_key: str | None
    """The public half of `cloud-ssh-private`; the private one is dropped at the door."""
    aws: AwsOptions
    gcp: GcpOptions
    azure: AzureOptions
    kubernetes: KubernetesOptions


@dataclass(frozen=True, kw_only=True)
class LaunchRequest:
    """What the user asked for, after validation. Times are seconds, None for never."""

    name: str | None
    labels: tuple[str, ...]
    count: int
    idle_timeout: int | None
    first_job_timeout: int | None
    max_lifetime: int | None
    start_timeout: int
    single: bool
    reuse: Reuse
    restart_limit: int
    """How often a workflow run may be restarted; 0: never."""
    forge: ForgeName
    repository: Repository
    """Or organisation, enterprise, group: what gets the runners."""
    token: Secret | App
    restart_token: Secret | None
    """What a machine may hold; None: nothing that lasts, or nothing to restart."""
    runner_group: str | None
    default_labels: bool
    runner_version: str
    runner_downloads: str | None
    agent_downloads: str | None
    """Where the agent is, for a machine that has to fetch it; None: nowhere."""
    docker_volumes: tuple[str, ...]
    dry_run: bool
    log: str
    checkpoint_script: str | None
    job_sudo: bool
    environment: Mapping[str, str]
    """Proxies and certificates, for agent, runner and jobs."""
    ca_certificates: str | None = None
    cloud: CloudRequest | None
    """None: this machine becomes the runner."""


@dataclass(frozen=True, kw_only=True)
class RestartRequest:
    """What `restart` was asked for, after validation."""

    forge: ForgeName
    repository: Repository
    token: Secret | App
    run_id: int
    restart_limit: int
    dry_run: bool
    log: str
    ca_certificates: str | None = None
    allow_forks: bool = False
