"""What the user asked for, after validation. Times are seconds, None for never."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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


class CloudOptions:
    """What only one cloud knows of: each has a class of its own in `providers/NAME/options.py`."""


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
    options: CloudOptions
    """Those of `provider`."""


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


def pairs(items: Sequence[str]) -> dict[str, str]:
    """`key=value` each."""
    return {key.strip(): value for key, _, value in (item.partition("=") for item in items)}
