"""Builds requests from checked values: the only place where inputs become fields of a request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runner_action import providers
from runner_action.forges import traits_of
from runner_action.inputs.conversion import public_half
from runner_action.model import App, ForgeName, ProviderName, Repository, Secret
from runner_action.request import (
    CloudRequest,
    LaunchRequest,
    RestartRequest,
    Reuse,
    Spot,
    pairs,
)

DIRECT = ("localhost", "127.0.0.1", *providers.METADATA_HOSTS)
"""Never reached through a proxy."""
CA_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
"""The machine's own bundle on Debian and Ubuntu. cloud-init adds `ca-certificates` to it."""


def restart_request(value: Mapping[str, Any]) -> RestartRequest:
    return RestartRequest(
        forge=ForgeName(value["driver"]),
        repository=Repository(url=value["repo"]),
        token=_credentials(value),
        run_id=value["run-id"],
        restart_limit=value["restart-limit"],
        dry_run=value["dry-run"],
        log=value["log"],
        ca_certificates=value["ca-certificates"],
        allow_forks=value["allow-forks"],
    )


def launch_request(value: Mapping[str, Any]) -> LaunchRequest:
    """`no-retry` becomes a `restart_limit` of 0, `driver` the `forge`, and -1 None."""
    stored = _stored(value)
    restart_limit = value["restart-limit"] if stored and not value["no-retry"] else 0
    idle, first = value["idle-timeout"], value["first-job-timeout"]
    first = idle if first is None else first
    return LaunchRequest(
        name=value["name"],
        labels=tuple(value["labels"]),
        count=value["count"],
        idle_timeout=idle if idle > 0 else None,
        first_job_timeout=first if first > 0 else None,
        max_lifetime=value["max-lifetime"] if value["max-lifetime"] > 0 else None,
        start_timeout=value["start-timeout"],
        single=value["single"],
        reuse=_reuse(value),
        restart_limit=restart_limit,
        forge=ForgeName(value["driver"]),
        repository=Repository(url=value["repo"]),
        token=_credentials(value),
        restart_token=Secret(stored) if stored and restart_limit else None,
        runner_group=value["runner-group"],
        default_labels=not value["no-default-labels"],
        runner_version=value["runner-version"],
        runner_downloads=value["runner-downloads"],
        agent_downloads=value["agent-downloads"],
        docker=value["docker"] == "auto",
        docker_volumes=tuple(value["docker-volumes"]),
        docker_privileged=value["docker-privileged"],
        executor=value["gitlab-executor"],
        access_level=value["gitlab-access-level"],
        keep_workspace=value["keep-workspace"],
        dry_run=value["dry-run"],
        log=value["log"],
        checkpoint_script=value["checkpoint-script"],
        job_sudo=value["job-sudo"],
        environment=_environment(value),
        ca_certificates=value["ca-certificates"],
        cloud=cloud_request(value) if value["cloud"] else None,
    )


def _stored(value: Mapping[str, Any]) -> str | None:
    """The token for restarts. Jobs on this machine can read this process, so there its own token
    may as well be stored."""
    given: str | None = value["restart-token"]
    return given or (None if value["cloud"] else lasting(value))


def _reuse(value: Mapping[str, Any]) -> Reuse:
    if value["reuse"]:
        return Reuse.ANY
    return Reuse.IDLE if value["reuse-idle"] else Reuse.NEVER


def _credentials(value: Mapping[str, Any]) -> Secret | App:
    if value["app-id"]:
        return App(id=value["app-id"], key=Secret(value["app-private-key"]))
    return Secret(value["token"])


def lasting(value: Mapping[str, Any]) -> str | None:
    """The token, if it does not expire soon, as those of an App and a job's own do."""
    token: str | None = value["token"]
    passing = traits_of(ForgeName(value["driver"])).passing_tokens
    return None if value["app-id"] or (token or "").startswith(passing) else token


def _environment(value: Mapping[str, Any]) -> dict[str, str]:
    """Variables for proxies and certificates: in lower and upper case, and as Node and Python
    name them."""
    variables = {}
    if value["https-proxy"] not in (None, "none"):
        direct = ",".join(filter(None, [value["no-proxy"], *DIRECT]))
        variables = {
            "https_proxy": value["https-proxy"],
            "http_proxy": value["https-proxy"],
            "no_proxy": direct,
        }
        variables |= {name.upper(): text for name, text in variables.items()}
    if value["ca-certificates"]:
        variables |= dict.fromkeys(
            ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"), CA_BUNDLE
        )
    return variables


def cloud_request(value: Mapping[str, Any]) -> CloudRequest:
    private_key = value["cloud-ssh-private"]
    return CloudRequest(
        provider=ProviderName(value["cloud"]),
        regions=tuple(value["cloud-region"]),
        sizes=tuple(value["cloud-type"]),
        gpu=None if value["cloud-gpu"] == "nogpu" else value["cloud-gpu"],
        disk_gb=value["cloud-hdd-size"],
        spot=_spot(value["cloud-spot"]),
        spot_price=value["cloud-spot-price"] if value["cloud-spot-price"] > 0 else None,
        image=value["cloud-image"],
        permission_set=value["cloud-permission-set"],
        metadata=pairs(value["cloud-metadata"]),
        startup_script=value["cloud-startup-script"],
        ssh_public_key=public_half(private_key) if private_key else None,
        options=providers.options_for(ProviderName(value["cloud"]), value),
    )


def _spot(value: bool | str) -> Spot:
    if value == "prefer":
        return Spot.PREFER
    return Spot.ONLY if value else Spot.NEVER
