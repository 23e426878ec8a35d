"""The bodies of requests to Compute Engine. Pure; tests check them against Google's discovery
document."""

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
"""Metadata with the launch's token, which is also in a label: whoever may only set labels cannot
change it. https://cloud.google.com/compute/docs/access/iam-permissions"""
NO_LABELS = (REPOSITORY_TAG, RUN_TAG)
"""Tags whose values Google does not take as labels."""
LABELS_OF_USER = 56
"""Of 64 per resource."""
LONGEST_RUN = 120 * 86400
"""https://cloud.google.com/compute/docs/instances/limit-vm-runtime"""


RULE = "cml-runner: asked for by cloud-ssh-private"
"""The description of our firewall rules, by which they are known."""


@dataclass(frozen=True, kw_only=True)
class GcpPlacement(Placement):
    """One zone, one type, one market. `image`: the path of one exact image; `login`: its user.
    `with_rule`: a firewall rule opens port 22. `shielded`: image and type support it; `signed`:
    all modules of the kernel are signed."""

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
    """The user's labels, and their problems: those that break Google's rules are refused, not
    mangled."""
    problems = []
    for key, value in metadata.items():
        if not LABEL_KEY.fullmatch(key):
            problems.append(
                f"cloud-metadata {key}=… is not a Google Cloud label: a key has at most 63"
                " lower-case letters, digits, _ and -, a letter first"
            )
        if not LABEL_VALUE.fullmatch(value):
            problems.append(
                f"cloud-metadata {key}={value} is not a Google Cloud label: a value has at most 63"
                " lower-case letters, digits, _ and -"
            )
    if len(metadata) > LABELS_OF_USER:
        problems.append(
            f"cloud-metadata has {len(metadata)} pairs; Google Cloud takes {LABELS_OF_USER} in"
            " addition to those of cml-runner"
        )
    return dict(metadata), problems


def labels_of(tags: Mapping[str, str]) -> dict[str, str]:
    """A machine's tags as labels: `cml-runner:name` becomes `cml-runner-name`. Labels cannot have
    addresses and titles, which are in `description`."""
    own = {
        key.replace(":", "-"): re.sub(r"[^a-z0-9_-]", "-", value.lower())
        for key, value in tags.items()
        if key.startswith(OWNER_TAG)
    }
    for tag in NO_LABELS:
        own.pop(tag.replace(":", "-"), None)
    return {
        **{
            key: value
            for key, value in tags.items()
            if not key.startswith(OWNER_TAG) and key != "Name"
        },
        **own,
    }


def description(tags: Mapping[str, str]) -> str:
    return f"cml-runner: {tags.get(RUN_TAG, '')} of {tags.get(REPOSITORY_TAG, '')}"


def tags_of(labels: Mapping[str, str], described: str) -> dict[str, str]:
    """The reverse of `labels_of` and `description`, for our own tags."""
    own = {
        OWNER_TAG + key.removeprefix(OWNER_TAG).replace("-", ":", 1): value
        for key, value in labels.items()
        if key.startswith(OWNER_TAG)
    }
    run, of, repository = described.removeprefix("cml-runner: ").rpartition(" of ")
    return {**own, **({RUN_TAG: run, REPOSITORY_TAG: repository} if of else {})}


def account_of(permission_set: str | None) -> tuple[dict[str, Any] | None, list[str]]:
    """`email[,scopes=a,b]` as a service account, and its problems. Without scopes it has none, as
    in CML."""
    if permission_set is None:
        return None, []
    email, _, rest = permission_set.partition(",")
    if not re.fullmatch(r"[^@\s,]+@[^@\s,]+", email) or (rest and not rest.startswith("scopes=")):
        return None, [
            (
                f"cloud-permission-set {permission_set} is not a service account; write"
                " my-sa@my-project.iam.gserviceaccount.com,scopes=storage-rw,datastore"
            )
        ]
    scopes = [word for word in rest.removeprefix("scopes=").split(",") if word]
    unknown = [word for word in scopes if word not in SCOPES and not word.startswith("https://")]
    problems = [
        f"cloud-permission-set: {word} is not a scope; write an address or one of"
        f" {', '.join(SCOPES)}"
        for word in unknown
    ]
    return {
        "email": email,
        "scopes": [SCOPE.format(SCOPES[word]) if word in SCOPES else word for word in scopes],
    }, problems


def may_delete(permission_set: str | None) -> bool:
    """Whether the machine's own account has a scope that permits deleting instances."""
    account, _ = account_of(permission_set)
    return account is not None and bool(
        {SCOPE.format("compute"), SCOPE.format("cloud-platform")} & set(account["scopes"])
    )


def instance(placement: GcpPlacement, machine: Machine, name: str) -> Body:
    """instances.insert: a machine that Google deletes at the end of its lifetime in any case, with
    everything that belongs to it."""
    pool = placement.pools[0]
    zone = f"zones/{pool.zone}"
    machine_type, _, accelerator = pool.instance_type.partition("+")
    labels = labels_of(machine.tags)
    body: Body = {
        "name": name,
        "description": description(machine.tags),
        "machine_type": f"{zone}/machineTypes/{machine_type}",
        "labels": labels,
        "disks": [_disk(placement, machine_type, labels)],
        "network_interfaces": [_network(placement)],
        "metadata": {"items": _metadata(machine)},
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


def _disk(placement: GcpPlacement, machine_type: str, labels: dict[str, str]) -> Body:
    zone = placement.pools[0].zone
    disk: Body = {
        "boot": True,
        "auto_delete": True,
        "initialize_params": {
            "source_image": placement.image,
            "disk_size_gb": placement.disk_gb,
            "disk_type": f"zones/{zone}/diskTypes/{disk_type(machine_type)}",
            "labels": labels,
        },
    }
    if placement.kms_key:
        disk["disk_encryption_key"] = {"kms_key_name": placement.kms_key}
    return disk


def _metadata(machine: Machine) -> list[Body]:
    return [
        {"key": "user-data", "value": base64.b64encode(machine.user_data).decode()},
        {"key": "user-data-encoding", "value": "base64"},
        {"key": "block-project-ssh-keys", "value": "true"},
        {"key": LAUNCH_ITEM, "value": machine.identity.token()},
        # Else the guest agent writes a client certificate for port 443 of the metadata service
        # that every user can read.
        # https://docs.cloud.google.com/compute/docs/metadata/querying-metadata
        {"key": "disable-https-mds-setup", "value": "TRUE"},
    ]


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
    """The path of a network of this project by its name; of another project (a shared VPC), the
    whole path is given."""
    return name if "/" in name else f"{kind}/{name}"


def opens_port(request: CloudRequest, project: str | None) -> bool:
    """Whether our firewall rule opens port 22. In a network of another project it cannot."""
    match = re.search(r"projects/([^/]+)/", options_of(request).network)
    return request.ssh_public_key is not None and (match is None or match[1] == project)


def disk_type(machine_type: str) -> str:
    """The newest families support Hyperdisk only."""
    return (
        "hyperdisk-balanced"
        if machine_type.startswith(HYPERDISK) or machine_type.endswith("-metal")
        else "pd-balanced"
    )


def scheduling(machine_type: str, spot: bool, lifetime: int) -> Body:
    """A machine with a GPU cannot migrate to another host. A spot machine is deleted when it is
    preempted, and every machine at the end of its lifetime."""
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
        # Google refuses it for a standard machine without a lifetime.
        # https://github.com/cloudpilot-ai/karpenter-provider-gcp/issues/155
        **({"instance_termination_action": "DELETE"} if spot or lifetime else {}),
        **({"max_run_duration": {"seconds": min(lifetime, LONGEST_RUN)}} if lifetime else {}),
    }


def has_gpu(machine_type: str) -> bool:
    return "+" in machine_type or machine_type.startswith(WITH_GPU)


def rule_name(machine: str) -> str:
    return f"{machine}-ssh"


def firewall(placement: GcpPlacement, name: str) -> Body:
    """firewalls.insert: SSH to this machine alone, deleted with it."""
    return {
        "name": rule_name(name),
        "description": RULE,
        "network": _path("global/networks", placement.network),
        "direction": "INGRESS",
        "allowed": [{"I_p_protocol": "tcp", "ports": ["22"]}],
        "source_ranges": ["0.0.0.0/0"],
        "target_tags": [name],
    }
