"""The bodies of requests to Azure Resource Manager. Pure; tests check them against Azure's own
types."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from runner_action.model import Machine, Placement

Body = dict[str, Any]
NETWORK_API = "2022-11-01"
"""Of the network interface and address that are created and deleted with the machine."""
TAGS_OF_USER = 43
"""Of 50 per resource.
https://learn.microsoft.com/azure/azure-resource-manager/management/tag-resources#limitations"""
NAME_LIMIT, VALUE_LIMIT = 512, 256
IDENTITY = re.compile(
    r"/subscriptions/[^/]+/resourceGroups/[^/]+/providers/Microsoft\.ManagedIdentity/userAssignedIdentities/[^/]+",
    re.I,
)


@dataclass(frozen=True, kw_only=True)
class AzurePlacement(Placement):
    """One region or zone, one size, one market. `trusted`: image and size support trusted launch;
    `signed`: all modules of the kernel are signed. `encryption`: the id of a disk encryption set;
    `purchase`: the marketplace's plan for the image, if it has one.
    """

    image: str
    disk_gb: int
    subnet: str | None
    private: bool
    identities: tuple[str, ...]
    ssh_public_key: str | None
    encryption: str | None = None
    purchase: Mapping[str, str] | None = None
    max_price: float | None = None
    trusted: bool = False
    signed: bool = False
    login: str = "ubuntu"


def own_tags(metadata: Mapping[str, str]) -> list[str]:
    """The problems of the user's tags: those that break Azure's rules are refused, not mangled."""
    problems = []
    for name, value in metadata.items():
        if len(name) > NAME_LIMIT or re.search(r"[<>%&\\?/]", name):
            problems.append(
                f"cloud-metadata {name}=… is not an Azure tag: a name has at most {NAME_LIMIT}"
                " characters, and none of < > % & \\ ? /"
            )
        if len(value) > VALUE_LIMIT:
            problems.append(
                f"cloud-metadata {name}: its value has {len(value)} characters; Azure takes"
                f" {VALUE_LIMIT}"
            )
    if len(metadata) > TAGS_OF_USER:
        problems.append(
            f"cloud-metadata has {len(metadata)} pairs; Azure takes {TAGS_OF_USER} in addition to"
            " those of cml-runner"
        )
    return problems


def identities_of(permission_set: str | None) -> tuple[tuple[str, ...], list[str]]:
    """The ids of user-assigned identities, and their problems."""
    ids = tuple(part.strip() for part in (permission_set or "").split(",") if part.strip())
    wrong = [part for part in ids if not IDENTITY.fullmatch(part)]
    shape = (
        "/subscriptions/…/resourceGroups/…/providers/Microsoft.ManagedIdentity"
        "/userAssignedIdentities/name"
    )
    return ids, [
        f"cloud-permission-set {part} is not a user-assigned identity; write its id, {shape}"
        for part in wrong
    ]


def tags_of(tags: Mapping[str, str]) -> dict[str, str]:
    """Tags as Azure takes them: a run's title may be too long; the user's are checked before."""
    return {name: value[:VALUE_LIMIT] for name, value in tags.items() if name != "Name"}


def group(region: str, tags: Mapping[str, str]) -> Body:
    """resourceGroups: holds all that belongs to one machine, so that one deletion removes it."""
    return {"location": region, "tags": tags_of(tags)}


def security_group(region: str, tags: Mapping[str, str], with_ssh: bool) -> Body:
    """networkSecurityGroups: nothing inbound, not even from the same network, except port 22 if
    the user gave a key."""
    rules = [
        _rule("nothing", 4096, "Deny", "*", "*"),
        *([_rule("ssh", 100, "Allow", "Tcp", "22")] if with_ssh else []),
    ]
    return {"location": region, "tags": tags_of(tags), "properties": {"securityRules": rules}}


def _rule(name: str, priority: int, access: str, protocol: str, port: str) -> Body:
    anywhere = {"sourceAddressPrefix": "*", "sourcePortRange": "*", "destinationAddressPrefix": "*"}
    properties = {
        "priority": priority,
        "direction": "Inbound",
        "access": access,
        "protocol": protocol,
        "destinationPortRange": port,
    }
    return {"name": name, "properties": {**properties, **anywhere}}


def network(region: str, tags: Mapping[str, str]) -> Body:
    """virtualNetworks: for one machine."""
    subnets = [{"name": "machine", "properties": {"addressPrefix": "10.0.0.0/24"}}]
    return {
        "location": region,
        "tags": tags_of(tags),
        "properties": {"addressSpace": {"addressPrefixes": ["10.0.0.0/24"]}, "subnets": subnets},
    }


def virtual_machine(
    placement: AzurePlacement, machine: Machine, subnet: str, security: str, public_key: str
) -> Body:
    """virtualMachines: with disk, network interface and address, which are deleted with it.
    `public_key`: the user's, or one that nobody can use, as Azure requires one."""
    body: Body = {
        "location": placement.region,
        "tags": tags_of(machine.tags),
        "properties": _properties(placement, machine, subnet, security, public_key),
    }
    if zone := placement.pools[0].zone:
        body["zones"] = [zone.rpartition("-")[2]]
    if placement.purchase:
        body["plan"] = dict(placement.purchase)
    if placement.identities:
        body["identity"] = {
            "type": "UserAssigned",
            "userAssignedIdentities": {identity: {} for identity in placement.identities},
        }
    return body


def _properties(
    placement: AzurePlacement, machine: Machine, subnet: str, security: str, public_key: str
) -> Body:
    properties: Body = {
        "hardwareProfile": {"vmSize": placement.pools[0].instance_type},
        "storageProfile": {"imageReference": _image(placement.image), "osDisk": _disk(placement)},
        "networkProfile": {
            "networkApiVersion": NETWORK_API,
            "networkInterfaceConfigurations": [_interface(placement, machine, subnet, security)],
        },
        "osProfile": {
            "computerName": machine.identity.name[:64],
            "adminUsername": placement.login,
            "customData": base64.b64encode(machine.user_data).decode(),
            "linuxConfiguration": _linux(placement.login, public_key),
        },
        "diagnosticsProfile": {"bootDiagnostics": {"enabled": True}},
    }
    if placement.trusted:
        properties["securityProfile"] = {
            "securityType": "TrustedLaunch",
            "uefiSettings": {"secureBootEnabled": placement.signed, "vTpmEnabled": True},
        }
    if placement.spot:
        price = -1 if placement.max_price is None else placement.max_price
        properties |= {
            "priority": "Spot",
            "evictionPolicy": "Delete",
            "billingProfile": {"maxPrice": price},
        }
    return properties


def _linux(login: str, public_key: str) -> Body:
    key = {"path": f"/home/{login}/.ssh/authorized_keys", "keyData": public_key}
    return {"disablePasswordAuthentication": True, "ssh": {"publicKeys": [key]}}


def _image(image: str) -> Body:
    if image.startswith("/"):
        kind = "id"
        if image.startswith("/Shared"):
            kind = "sharedGalleryImageId"
        elif image.startswith("/Community"):
            kind = "communityGalleryImageId"
        return {kind: image}
    return dict(zip(("publisher", "offer", "sku", "version"), image.split(":"), strict=True))


def _disk(placement: AzurePlacement) -> Body:
    kept = {
        "createOption": "FromImage",
        "deleteOption": "Delete",
        "caching": "ReadWrite",
        "diskSizeGB": placement.disk_gb,
    }
    encryption = {"diskEncryptionSet": {"id": placement.encryption}} if placement.encryption else {}
    return {**kept, "managedDisk": {"storageAccountType": "StandardSSD_LRS", **encryption}}


def _interface(placement: AzurePlacement, machine: Machine, subnet: str, security: str) -> Body:
    tags = tags_of(machine.tags)
    address: Body = {"primary": True, "subnet": {"id": subnet}}
    if not placement.private:
        address["publicIPAddressConfiguration"] = {
            "name": "address",
            "sku": {"name": "Standard", "tier": "Regional"},
            "tags": tags,
            "properties": {
                "deleteOption": "Delete",
                "publicIPAllocationMethod": "Static",
                "publicIPAddressVersion": "IPv4",
            },
        }
    properties = {
        "primary": True,
        "deleteOption": "Delete",
        "networkSecurityGroup": {"id": security},
    }
    return {
        "name": "interface",
        "tags": tags,
        "properties": {**properties, "ipConfigurations": [{"name": "ip", "properties": address}]},
    }
