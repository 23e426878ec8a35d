"""The bodies of requests to Compute Engine, in its own words. Pure: what they may hold is judged
by Google's discovery document in tests."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from runner_action.model import OWNER_TAG, REPOSITORY_TAG, RUN_TAG, Machine, Placement
from runner_action.providers.gcp.options import options_of
from runner_action.providers.gcp.table import FIXED, HYPERDISK, SCOPE, SCOPES, WITH_GPU
from runner_action.request import CloudRequest

Body = dict[str, Any]
LABEL_KEY, LABEL_VALUE = re.compile(r"[a-z][a-z0-9_-]{0,62}"), re.compile(r"[a-z0-9_-]{0,63}")
"""https://cloud.google.com/compute/docs/labeling-resources#requirements"""
LAUNCH_ITEM = f"{OWNER_TAG}-launch"
"""Metadata with the token of the launch, which its label has too: who may only label a machine
cannot change it. https://cloud.google.com/compute/docs/access/iam-permissions"""
NO_LABELS = (REPOSITORY_TAG, RUN_TAG)
"""Tags whose values are none for Google."""
LABELS_OF_USER = 56
"""Of 64 a resource."""
LONGEST_RUN = 120 * 86400
"""https://cloud.google.com/compute/docs/instances/limit-vm-runtime"""


RULE = "cml-runner: asked for by cloud-ssh-private"
"""Description of the firewall rules that we make."""


@dataclass(frozen=True, kw_only=True)
class GcpPlacement(Placement):
    """One zone, one type, one market. `image`: path of the very image; `login`: its user.
    `with_rule`: port 22 is opened by a rule of ours. `shielded`: whether image and type can be;
    `signed`: with a kernel whose modules are."""

    project: str
    image: str
    disk_gb: int
    network: str
    subnetwork: str | None
    private: bool
    account: Mapping[str, Any] | None
    with_rule: bool
    kms_key: str | None = None
    shielded: bool = False
    signed: bool = False
    login: str = "ubuntu"


def own_labels(metadata: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """The user's labels, and what is wrong with them: what does not fit Google's rules is
    refused, not mangled."""
    problems = []
    for key, value in metadata.items():
        if not LABEL_KEY.fullmatch(key):
            problems.append(
                f"cloud-metadata {key}=… is no label of Google Cloud: a key has at most 63"
                " lower-case letters, digits, _ and -, a letter first"
            )
        if not LABEL_VALUE.fullmatch(value):
            problems.append(
                f"cloud-metadata {key}={value} is no label of Google Cloud: a value has at most 63"
                " lower-case letters, digits, _ and -"
            )
    if len(metadata) > LABELS_OF_USER:
        problems.append(
            f"cloud-metadata has {len(metadata)} pairs; Google Cloud takes {LABELS_OF_USER} beside"
            " ours"
        )
    return dict(metadata), problems


def labels_of(tags: Mapping[str, str]) -> dict[str, str]:
    """A machine's tags as labels: `cml-runner:name` becomes `cml-runner-name`. Addresses and
    titles are no labels; `description` has them."""
    ours = {
        key.replace(":", "-"): re.sub(r"[^a-z0-9_-]", "-", value.lower())
        for key, value in tags.items()
        if key.startswith(OWNER_TAG)
    }
    for tag in NO_LABELS:
        ours.pop(tag.replace(":", "-"), None)
    return {
        **{
            key: value
            for key, value in tags.items()
            if not key.startswith(OWNER_TAG) and key != "Name"
        },
        **ours,
    }


def description(tags: Mapping[str, str]) -> str:
    return f"cml-runner: {tags.get(RUN_TAG, '')} of {tags.get(REPOSITORY_TAG, '')}"


def tags_of(labels: Mapping[str, str], told: str) -> dict[str, str]:
    """The way back, for the tags that are ours. `told`: the description."""
    ours = {
        OWNER_TAG + key.removeprefix(OWNER_TAG).replace("-", ":", 1): value
        for key, value in labels.items()
        if key.startswith(OWNER_TAG)
    }
    run, of, repository = told.removeprefix("cml-runner: ").rpartition(" of ")
    return {**ours, **({RUN_TAG: run, REPOSITORY_TAG: repository} if of else {})}


def account_of(permission_set: str | None) -> tuple[dict[str, Any] | None, list[str]]:
    """`email[,scopes=a,b]` as a service account, and what is wrong with it. Without scopes none
    are granted, as in CML."""
    if permission_set is None:
        return None, []
    email, _, rest = permission_set.partition(",")
    if not re.fullmatch(r"[^@\s,]+@[^@\s,]+", email) or (rest and not rest.startswith("scopes=")):
        return None, [
            (
                f"cloud-permission-set {permission_set} is no service account; write"
                " my-sa@my-project.iam.gserviceaccount.com,scopes=storage-rw,datastore"
            )
        ]
    scopes = [word for word in rest.removeprefix("scopes=").split(",") if word]
    unknown = [word for word in scopes if word not in SCOPES and not word.startswith("https://")]
    problems = [
        f"cloud-permission-set: {word} is no scope; write an address or one of {', '.join(SCOPES)}"
        for word in unknown
    ]
    return {
        "email": email,
        "scopes": [SCOPE.format(SCOPES[word]) if word in SCOPES else word for word in scopes],
    }, problems


def may_delete(permission_set: str | None) -> bool:
    """Whether the machine's own account is given a scope in which instances can be deleted."""
    account, _ = account_of(permission_set)
    return account is not None and bool(
        {SCOPE.format("compute"), SCOPE.format("cloud-platform")} & set(account["scopes"])
    )


def instance(placement: GcpPlacement, machine: Machine, name: str) -> Body:
    """instances.insert: a machine that Google deletes when its time is over, whatever else
    happens, with everything it brings."""
    pool = placement.pools[0]
    zone = f"zones/{pool.zone}"
    machine_type, _, accelerator = pool.instance_type.partition("+")
    labels = labels_of(machine.tags)
    body: Body = {
        "name": name,
        "description": description(machine.tags),
        "machine_type": f"{zone}/machineTypes/{machine_type}",
        "labels": labels,
        "disks": [
            {
                "boot": True,
                "auto_delete": True,
                "initialize_params": {
                    "source_image": placement.image,
                    "disk_size_gb": placement.disk_gb,
                    "disk_type": f"{zone}/diskTypes/{disk_type(machine_type)}",
                    "labels": labels,
                },
                **(
                    {"disk_encryption_key": {"kms_key_name": placement.kms_key}}
                    if placement.kms_key
                    else {}
                ),
            }
        ],
        "network_interfaces": [_network(placement)],
        "metadata": {
            "items": [
                {"key": "user-data", "value": base64.b64encode(machine.user_data).decode()},
                {"key": "user-data-encoding", "value": "base64"},
                {"key": "block-project-ssh-keys", "value": "true"},
                {"key": LAUNCH_ITEM, "value": machine.identity.token()},
                # Else the guest agent writes a client certificate for port 443 of the metadata
                # service that everybody may read.
                # https://docs.cloud.google.com/compute/docs/metadata/querying-metadata
                {"key": "disable-https-mds-setup", "value": "TRUE"},
            ]
        },
        "scheduling": scheduling(pool.instance_type, placement.spot, machine.lifetime),
        "tags": {"items": [OWNER_TAG, *([name] if placement.with_rule else [])]},
    }
    if placement.shielded:
        body["shielded_instance_config"] = {
            "enable_secure_boot": placement.signed,
            "enable_vtpm": True,
            "enable_integrity_monitoring": True,
        }
    if accelerator:
        kind, _, number = accelerator.partition("*")
        body["guest_accelerators"] = [
            {
                "accelerator_type": f"{zone}/acceleratorTypes/{kind}",
                "accelerator_count": int(number),
            }
        ]
    if placement.account:
        body["service_accounts"] = [dict(placement.account)]
    return body


def _network(placement: GcpPlacement) -> Body:
    interface: Body = {"network": _path("global/networks", placement.network)}
    if placement.subnetwork:
        interface = {
            "subnetwork": _path(f"regions/{placement.region}/subnetworks", placement.subnetwork)
        }
    if not placement.private:
        interface["access_configs"] = [{"type_": "ONE_TO_ONE_NAT", "name": "External NAT"}]
    return interface


def _path(kind: str, name: str) -> str:
    """A network of this project by its name; one of another project (a shared VPC) by its whole
    path."""
    return name if "/" in name else f"{kind}/{name}"


def opens_port(request: CloudRequest, project: str | None) -> bool:
    """Whether port 22 is opened by a rule of ours. A network of another project takes none."""
    match = re.search(r"projects/([^/]+)/", options_of(request).network)
    return request.ssh_public_key is not None and (match is None or match[1] == project)


def disk_type(machine_type: str) -> str:
    """The newest families take no other than Hyperdisk."""
    return (
        "hyperdisk-balanced"
        if machine_type.startswith(HYPERDISK) or machine_type.endswith("-metal")
        else "pd-balanced"
    )


def scheduling(machine_type: str, spot: bool, lifetime: int) -> Body:
    """A machine with a GPU cannot move to another host; a spot machine is deleted when it is
    taken; each is when its time is over."""
    fixed = (
        spot
        or has_gpu(machine_type)
        or machine_type.startswith(FIXED)
        or machine_type.endswith("-metal")
    )
    return {
        "provisioning_model": "SPOT" if spot else "STANDARD",
        "on_host_maintenance": "TERMINATE" if fixed else "MIGRATE",
        "automatic_restart": False,
        # Refused for a standard machine whose run has no end.
        # https://github.com/cloudpilot-ai/karpenter-provider-gcp/issues/155
        **({"instance_termination_action": "DELETE"} if spot or lifetime else {}),
        **({"max_run_duration": {"seconds": min(lifetime, LONGEST_RUN)}} if lifetime else {}),
    }


def has_gpu(machine_type: str) -> bool:
    return "+" in machine_type or machine_type.startswith(WITH_GPU)


def rule_name(machine: str) -> str:
    return f"{machine}-ssh"


def firewall(placement: GcpPlacement, name: str) -> Body:
    """firewalls.insert: SSH to this machine alone. It is removed with the machine."""
    return {
        "name": rule_name(name),
        "description": RULE,
        "network": _path("global/networks", placement.network),
        "direction": "INGRESS",
        "allowed": [{"I_p_protocol": "tcp", "ports": ["22"]}],
        "source_ranges": ["0.0.0.0/0"],
        "target_tags": [name],
    }
