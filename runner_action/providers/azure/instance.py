"""From Azure's description of a virtual machine to our instance. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runner_action.marks import is_named_as
from runner_action.model import LAUNCH_TAG, NAME_TAG, OWNER_TAG, Instance, ProviderName

ENDING = ("Deleting", "Failed")
STOPPED = (
    "PowerState/stopped",
    "PowerState/deallocated",
    "PowerState/stopping",
    "PowerState/deallocating",
)


def instance_of(description: Mapping[str, Any], address: str = "") -> Instance:
    """`description`: with or without its instance view."""
    properties, tags = description["properties"], description.get("tags") or {}
    zones = description.get("zones") or []
    view = properties.get("instanceView", {}).get("statuses", ())
    image = properties["storageProfile"].get("imageReference") or {}
    return Instance(
        provider=ProviderName.AZURE,
        id=properties["vmId"],
        name=tags.get(NAME_TAG, description["name"]),
        region=description["location"],
        zone=f"{description['location']}-{zones[0]}" if zones else description["location"],
        instance_type=properties["hardwareProfile"]["vmSize"],
        image=image.get("id")
        or ":".join(image.get(part, "") for part in ("publisher", "offer", "sku", "version")),
        spot=properties.get("priority") == "Spot",
        address=address,
        launched=properties.get("timeCreated", ""),
        alive=properties.get("provisioningState") not in ENDING
        and not any(status["code"] in STOPPED for status in view),
        login=properties.get("osProfile", {}).get("adminUsername", ""),
        group=group_of(description["id"]),
        proven=is_named_as(tags.get(NAME_TAG, description["name"]), group_of(description["id"])),
        tags=ours_of(tags),
    )


def group_as_instance(group: Mapping[str, Any]) -> Instance:
    """A resource group, as if it were its machine: that may still be on its way."""
    tags = group.get("tags") or {}
    name = tags.get(NAME_TAG, "")
    return Instance(
        provider=ProviderName.AZURE,
        id=group["name"],
        name=name,
        region=group["location"],
        group=group["name"],
        tags=ours_of(tags),
        proven=is_named_as(name, group["name"]),
    )


def is_of(launch: str, machine: Mapping[str, Any]) -> bool:
    """Whether a machine in a group of that launch is its own, too."""
    return (machine.get("tags") or {}).get(LAUNCH_TAG) == launch


def ours_of(tags: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in tags.items() if name.startswith(OWNER_TAG)}


def group_of(resource: str) -> str:
    """The resource group in a resource's id, whose case may differ."""
    parts = resource.split("/")
    return parts[[part.lower() for part in parts].index("resourcegroups") + 1]
