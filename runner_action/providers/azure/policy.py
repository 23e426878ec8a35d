"""The custom role that a launch needs, by its options: what the calls of this package ask for,
and no more. Pure.

A test launches with it against an Azure that refuses all else.
https://learn.microsoft.com/azure/role-based-access-control/resource-provider-operations
"""

from __future__ import annotations

import json

from runner_action.providers.azure.options import options_of
from runner_action.request import CloudRequest

GROUPS = {
    f"Microsoft.Resources/subscriptions/resourceGroups/{verb}"
    for verb in ("read", "write", "delete")
}
MACHINES = {
    f"Microsoft.Compute/virtualMachines/{verb}"
    for verb in ("read", "write", "delete", "retrieveBootDiagnosticsData/action")
}
OPERATIONS = {"Microsoft.Compute/locations/operations/read"}
"""How a creation goes is asked at an address of the region, not of the machine.
https://learn.microsoft.com/azure/azure-resource-manager/management/async-operations"""
PROOF = {"Microsoft.Authorization/permissions/read"}
"""What a machine with the launcher's secret proves with that it may delete its group.
https://learn.microsoft.com/rest/api/authorization/permissions/list-for-resource-group"""
LOOKING = {
    "Microsoft.Compute/skus/read",
    "Microsoft.Compute/locations/publishers/artifacttypes/offers/skus/versions/read",
}
SECURITY = {
    f"Microsoft.Network/networkSecurityGroups/{verb}"
    for verb in ("read", "write", "delete", "join/action")
}
CARDS = {
    f"Microsoft.Network/networkInterfaces/{verb}"
    for verb in ("read", "write", "delete", "join/action")
}
ADDRESSES = {
    f"Microsoft.Network/publicIPAddresses/{verb}"
    for verb in ("read", "write", "delete", "join/action")
}
NETWORKS = {f"Microsoft.Network/virtualNetworks/{verb}" for verb in ("read", "write", "delete")}
DISKS = {f"Microsoft.Compute/disks/{verb}" for verb in ("read", "write", "delete")}
JOIN = "Microsoft.Network/virtualNetworks/subnets/join/action"
ASSIGN = "Microsoft.ManagedIdentity/userAssignedIdentities/assign/action"


def actions(request: CloudRequest) -> set[str]:
    """The least that lets this request launch, be taken back and be cleaned up after."""
    found = (
        GROUPS
        | MACHINES
        | OPERATIONS
        | PROOF
        | SECURITY
        | CARDS
        | DISKS
        | {JOIN, "Microsoft.Compute/skus/read"}
    )
    found |= (
        {"Microsoft.Network/publicIPAddresses/read"} if options_of(request).private else ADDRESSES
    )
    if options_of(request).subnet is None:
        found |= NETWORKS
    if request.permission_set:
        found |= {ASSIGN}
    if options_of(request).disk_encryption_set:
        found |= {"Microsoft.Compute/diskEncryptionSets/read"}
    if request.image is None or not request.image.startswith("/"):
        found |= LOOKING
    else:
        kind = "galleries/images/versions" if "/galleries/" in request.image else "images"
        found |= {f"Microsoft.Compute/{kind}/read"}
    return found


def text(request: CloudRequest) -> str:
    """JSON, for `az role definition create --role-definition`."""
    told = {
        "Name": "cml-runner",
        "Description": "What a launch of cml-runner with these inputs asks for",
        "Actions": sorted(actions(request)),
        "AssignableScopes": [
            f"/subscriptions/{options_of(request).account.subscription_id or 'SUBSCRIPTION'}"
        ],
    }
    return json.dumps(told, indent=2) + "\n"
