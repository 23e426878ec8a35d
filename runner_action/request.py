"""What the user requests, after validation. Times are seconds, None for never."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from runner_action.model import App, ForgeName, ProviderName, Repository, Secret


class Reuse(StrEnum):
    """When an existing runner is used instead of a new one."""

    NEVER = "never"
    ANY = "reuse"
    IDLE = "reuse-idle"


class Spot(StrEnum):
    """Whether the cloud may reclaim the machine at any time."""

    NEVER = "false"
    ONLY = "true"
    PREFER = "prefer"


class CloudOptions:
    """Options of one cloud only: each has a class of its own in `providers/NAME/options.py`."""

    @property
    def patience(self) -> int:
        """For how many seconds a placement may wait until there is room, before that counts as no
        capacity."""
        return 0


@dataclass(frozen=True, kw_only=True)
class CloudRequest:
    """The machine that the user requests, in the user's terms."""

    provider: ProviderName
    regions: tuple[str, ...]
    sizes: tuple[str, ...]
    """Both in the order in which to try them."""
    gpu: str | None
    """Type, or type and number as in `l4:4`."""
    disk_gb: int
    spot: Spot
    spot_price: float | None
    """USD an hour; None for the market price."""
    image: str | None
    permission_set: str | None
    metadata: Mapping[str, str]
    startup_script: str | None
    ssh_public_key: str | None
    """The public half of `cloud-ssh-private`; the private half is discarded when inputs are
    read."""
    options: CloudOptions
    """Those of `provider`."""

    @property
    def patience(self) -> int:
        """For how many seconds all placements together may wait until there is room. The start of
        a machine is counted from then on."""
        markets = 2 if self.spot is Spot.PREFER else 1
        return self.options.patience * markets * len(self.regions) * len(self.sizes)


@dataclass(frozen=True, kw_only=True)
class LaunchRequest:
    """What `launch` is to do, after validation. Times are seconds, None for never."""

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
    """How many times a workflow run may be restarted; 0 for never."""
    forge: ForgeName
    repository: Repository
    """Or the organisation, enterprise or group that gets the runners."""
    token: Secret | App
    restart_token: Secret | None
    """The token that is stored on the machine; None: no lasting token, or nothing to restart."""
    runner_group: str | None
    default_labels: bool
    runner_version: str
    runner_downloads: str | None
    agent_downloads: str | None
    """Address of the agent, for a machine that has to download it; None if there is none."""
    docker: bool
    """A machine whose image has no Docker gets it."""
    docker_volumes: tuple[str, ...]
    docker_privileged: bool
    executor: str
    """`auto`, `docker` or `shell`."""
    access_level: str
    """`not_protected` or `ref_protected`: whether only jobs of protected branches and tags run."""
    keep_workspace: bool
    dry_run: bool
    log: str
    checkpoint_script: str | None
    job_sudo: bool
    environment: Mapping[str, str]
    """Proxies and certificates, for agent, runner and jobs."""
    ca_certificates: str | None = None
    cloud: CloudRequest | None
    """None: this machine becomes the runner."""

    @property
    def launch_timeout(self) -> int:
        """After how many seconds a launch has succeeded or failed."""
        return self.start_timeout + (self.cloud.patience if self.cloud else 0)


@dataclass(frozen=True, kw_only=True)
class RestartRequest:
    """What `restart` is to do, after validation."""

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
    """Parses items of the form `key=value`."""
    return {key.strip(): value for key, _, value in (item.partition("=") for item in items)}
