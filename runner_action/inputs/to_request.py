"""From checked values to a request: the one place where the user's words become ours."""

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
"""The machine's own bundle, which holds our certificates too once cloud-init has put them there.
Debian's and Ubuntu's path."""


def restart_request(value: Mapping[str, Any]) -> RestartRequest:
    return RestartRequest(
        forge=ForgeName(value["driver"]),
        repository=Repository(url=value["repo"]),
        token=_asker(value),
        run_id=value["run-id"],
        restart_limit=value["restart-limit"],
        dry_run=value["dry-run"],
        log=value["log"],
        ca_certificates=value["ca-certificates"],
        allow_forks=value["allow-forks"],
    )


def launch_request(value: Mapping[str, Any]) -> LaunchRequest:
    """The one place where the user's words become ours: `no-retry` turns into `restart`,
    `driver` into `forge`, -1 into never."""
    # Of this machine jobs could read a file as well as this process, in which the token is anyway.
    kept = value["restart-token"] or (None if value["cloud"] else lasting(value))
    restart_limit = value["restart-limit"] if kept and not value["no-retry"] else 0
    first = (
        value["first-job-timeout"]
        if value["first-job-timeout"] is not None
        else value["idle-timeout"]
    )
    reuse = Reuse.IDLE if value["reuse-idle"] else Reuse.NEVER
    if value["reuse"]:
        reuse = Reuse.ANY
    return LaunchRequest(
        name=value["name"],
        labels=tuple(value["labels"]),
        count=value["count"],
        idle_timeout=value["idle-timeout"] if value["idle-timeout"] > 0 else None,
        first_job_timeout=first if first > 0 else None,
        max_lifetime=value["max-lifetime"] if value["max-lifetime"] > 0 else None,
        start_timeout=value["start-timeout"],
        single=value["single"],
        reuse=reuse,
        restart_limit=restart_limit,
        forge=ForgeName(value["driver"]),
        repository=Repository(url=value["repo"]),
        token=_asker(value),
        restart_token=Secret(kept) if kept and restart_limit else None,
        runner_group=value["runner-group"],
        default_labels=not value["no-default-labels"],
        runner_version=value["runner-version"],
        runner_downloads=value["runner-downloads"],
        agent_downloads=value["agent-downloads"],
        docker_volumes=tuple(value["docker-volumes"]),
        dry_run=value["dry-run"],
        log=value["log"],
        checkpoint_script=value["checkpoint-script"],
        job_sudo=value["job-sudo"],
        environment=_environment(value),
        ca_certificates=value["ca-certificates"],
        cloud=cloud_request(value) if value["cloud"] else None,
    )


def _asker(value: Mapping[str, Any]) -> Secret | App:
    return (
        App(id=value["app-id"], key=Secret(value["app-private-key"]))
        if value["app-id"]
        else Secret(value["token"])
    )


def lasting(value: Mapping[str, Any]) -> str | None:
    """The token, if it is as good in days as it is now: those of an App, and a job's own, are
    not."""
    token: str | None = value["token"]
    passing = traits_of(ForgeName(value["driver"])).passing_tokens
    return None if value["app-id"] or (token or "").startswith(passing) else token


def _environment(value: Mapping[str, Any]) -> dict[str, str]:
    """Proxies and certificates as programs look for them: in both cases of letters, and in the
    words of Node and Python."""
    found = {}
    if value["https-proxy"] not in (None, "none"):
        direct = ",".join(filter(None, [value["no-proxy"], *DIRECT]))
        found = {
            "https_proxy": value["https-proxy"],
            "http_proxy": value["https-proxy"],
            "no_proxy": direct,
        }
        found |= {name.upper(): text for name, text in found.items()}
    if value["ca-certificates"]:
        found |= dict.fromkeys(
            ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"), CA_BUNDLE
        )
    return found


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


def _spot(said: bool | str) -> Spot:
    if said == "prefer":
        return Spot.PREFER
    return Spot.ONLY if said else Spot.NEVER
