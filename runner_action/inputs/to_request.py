"""From checked values to a request: the one place where the user's words become ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from runner_action.inputs.conversion import public_half
from runner_action.model import App, ForgeName, ProviderName, Repository, Secret
from runner_action.request import (
    AwsOptions,
    AzureAccount,
    AzureOptions,
    CloudRequest,
    Containers,
    GcpOptions,
    KubernetesOptions,
    LaunchRequest,
    RestartRequest,
    Reuse,
    Spot,
)

DIRECT = ("localhost", "127.0.0.1", "169.254.169.254", "metadata.google.internal")
"""Never reached through a proxy."""
CA_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
"""The machine's own bundle, which holds our certificates too once cloud-init has put them there.
Debian's and Ubuntu's path."""


def _pairs(items: Sequence[str]) -> dict[str, str]:
    return {key.strip(): value for key, _, value in (item.partition("=") for item in items)}


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
    """The token, if it is as good in days as it is now: those of an App, and a job's own, last
    for an hour at most.
    https://docs.github.com/en/authentication/keeping-your-account-and-data-secure/about-authentication-to-github#githubs-token-formats
    """
    token: str | None = value["token"]
    return None if value["app-id"] or (token or "").startswith("ghs_") else token


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
        metadata=_pairs(value["cloud-metadata"]),
        startup_script=value["cloud-startup-script"],
        ssh_public_key=public_half(private_key) if private_key else None,
        aws=_aws(value),
        gcp=_gcp(value),
        azure=_azure(value),
        kubernetes=_kubernetes(value),
    )


def _spot(said: bool | str) -> Spot:
    if said == "prefer":
        return Spot.PREFER
    return Spot.ONLY if said else Spot.NEVER


def _secret(text: str | None) -> Secret | None:
    return Secret(text) if text else None


def _aws(value: Mapping[str, Any]) -> AwsOptions:
    return AwsOptions(
        security_group=value["cloud-aws-security-group"],
        subnets=tuple(value["cloud-aws-subnet"]),
        kms_key=value["cloud-aws-kms-key"],
        hdd_iops=value["cloud-aws-hdd-iops"],
        hdd_throughput=value["cloud-aws-hdd-throughput"],
    )


def _gcp(value: Mapping[str, Any]) -> GcpOptions:
    return GcpOptions(
        project=value["gcp-project"],
        credentials=_secret(value["gcp-credentials"]),
        network=value["cloud-gcp-network"] or "default",
        subnetwork=value["cloud-gcp-subnetwork"],
        private=bool(value["cloud-gcp-private"]),
        kms_key=value["cloud-gcp-kms-key"],
    )


def _azure(value: Mapping[str, Any]) -> AzureOptions:
    return AzureOptions(
        account=AzureAccount(
            client_id=value["azure-client-id"],
            tenant_id=value["azure-tenant-id"],
            subscription_id=value["azure-subscription-id"],
        ),
        subnet=value["cloud-azure-subnet"],
        private=bool(value["cloud-azure-private"]),
        disk_encryption_set=value["cloud-azure-disk-encryption-set"],
    )


def _kubernetes(value: Mapping[str, Any]) -> KubernetesOptions:
    return KubernetesOptions(
        configuration=_secret(value["kubernetes-configuration"]),
        context=value["cloud-kubernetes-context"],
        namespace=value["cloud-kubernetes-namespace"],
        node_selector=_pairs(value["cloud-kubernetes-node-selector"]),
        tolerations=tuple(value["cloud-kubernetes-tolerations"]),
        pod_template=value["cloud-kubernetes-pod-template"],
        containers=Containers(value["cloud-kubernetes-containers"]),
        schedule_timeout=value["cloud-kubernetes-schedule-timeout"],
    )
