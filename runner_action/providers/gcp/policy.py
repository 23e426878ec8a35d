"""The custom IAM role that a launch needs, by its options: what the calls of this package need,
and no more. Pure.

A test records every call and compares.
https://cloud.google.com/compute/docs/reference/rest/v1/instances/insert (IAM permissions)
"""

from __future__ import annotations

from runner_action.providers.gcp import plan as planning
from runner_action.providers.gcp.options import options_of
from runner_action.providers.gcp.requests import opens_port
from runner_action.request import CloudRequest

LOOKING = {
    "compute.instances.get",
    "compute.instances.list",
    "compute.machineTypes.list",
    "compute.zoneOperations.get",
    "compute.zones.list",
}
CREATING = {
    f"compute.instances.{verb}" for verb in ("create", "setLabels", "setMetadata", "setTags")
} | {"compute.disks.create", "compute.disks.setLabels"}
NETWORK = {"compute.subnetworks.use"}
ENDING = {"compute.instances.delete", "compute.instances.getSerialPortOutput"}
RULES = {
    "compute.firewalls.create",
    "compute.firewalls.delete",
    "compute.firewalls.list",
    "compute.networks.updatePolicy",
}
ACCOUNT = {"compute.instances.setServiceAccount", "iam.serviceAccounts.actAs"}
PUBLIC = (
    "ubuntu-os-cloud/",
    "deeplearning-platform-release/",
    "ubuntu-os-accelerator-images/",
    "debian-cloud/",
)
"""Projects with public images."""


def permissions(request: CloudRequest) -> set[str]:
    """The permissions that this request needs to launch, to roll back and to clean up."""
    needed = LOOKING | CREATING | NETWORK | ENDING
    if not options_of(request).private:
        needed |= {"compute.subnetworks.useExternalIp"}
    if opens_port(request, options_of(request).project):
        needed |= RULES
    if request.permission_set:
        needed |= ACCOUNT
    if any("+" in kind for kind in planning.plan(request).instance_types):
        needed |= {"compute.acceleratorTypes.list"}
    if not planning.plan(request).image.removeprefix("projects/").startswith(PUBLIC):
        needed |= {
            "compute.images.get",
            "compute.images.getFromFamily",
            "compute.images.useReadOnly",
        }
    return needed


def text(request: CloudRequest) -> str:
    """YAML, for `gcloud iam roles create --file`."""
    lines = [
        "title: cml-runner",
        "description: What a launch of cml-runner with these inputs asks for",
        "stage: GA",
        "includedPermissions:",
    ]
    return (
        "\n".join([*lines, *(f"- {permission}" for permission in sorted(permissions(request)))])
        + "\n"
    )
