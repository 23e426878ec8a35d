"""The custom role that a launch needs, by its options: what the calls of this package need, and
no more. Pure.

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
"""The progress of a creation is read at an address of the region, not of the machine.
https://learn.microsoft.com/azure/azure-resource-manager/management/async-operations"""
PROOF = {"Microsoft.Authorization/permissions/read"}
"""With it, a machine that has the launcher's secret checks that it may delete its group.
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
    """The actions that this request needs to launch, to roll back and to clean up."""
    needed = (
        GROUPS
        | MACHINES
        | OPERATIONS
        | PROOF
        | SECURITY
        | CARDS
        | DISKS
        | {JOIN, "Microsoft.Compute/skus/read"}
    )
    needed |= (
        {"Microsoft.Network/publicIPAddresses/read"} if options_of(request).private else ADDRESSES
    )
    if options_of(request).subnet is None:
        needed |= NETWORKS
    if request.permission_set:
        needed |= {ASSIGN}
    if options_of(request).disk_encryption_set:
        needed |= {"Microsoft.Compute/diskEncryptionSets/read"}
    if request.image is None or not request.image.startswith("/"):
        needed |= LOOKING
    else:
        kind = "galleries/images/versions" if "/galleries/" in request.image else "images"
        needed |= {f"Microsoft.Compute/{kind}/read"}
    return needed


def text(request: CloudRequest) -> str:
    """JSON, for `az role definition create --role-definition`."""
    role = {
        "Name": "cml-runner",
        "Description": "What a launch of cml-runner with these inputs asks for",
        "Actions": sorted(actions(request)),
        "AssignableScopes": [
            f"/subscriptions/{options_of(request).account.subscription_id or 'SUBSCRIPTION'}"
        ],
    }
    return json.dumps(role, indent=2) + "\n"
