"""A virtual machine as Azure tells it, in our words. Pure."""

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


def instance_of(told: Mapping[str, Any], address: str = "") -> Instance:
    """`told`: with or without its instance view."""
    properties, tags = told["properties"], told.get("tags") or {}
    zones = told.get("zones") or []
    view = properties.get("instanceView", {}).get("statuses", ())
    image = properties["storageProfile"].get("imageReference") or {}
    return Instance(
        provider=ProviderName.AZURE,
        id=properties["vmId"],
        name=tags.get(NAME_TAG, told["name"]),
        region=told["location"],
        zone=f"{told['location']}-{zones[0]}" if zones else told["location"],
        instance_type=properties["hardwareProfile"]["vmSize"],
        image=image.get("id")
        or ":".join(image.get(part, "") for part in ("publisher", "offer", "sku", "version")),
        spot=properties.get("priority") == "Spot",
        address=address,
        launched=properties.get("timeCreated", ""),
        alive=properties.get("provisioningState") not in ENDING
        and not any(one["code"] in STOPPED for one in view),
        login=properties.get("osProfile", {}).get("adminUsername", ""),
        group=group_of(told["id"]),
        proven=is_named_as(tags.get(NAME_TAG, told["name"]), group_of(told["id"])),
        tags=ours_of(tags),
    )


def group_as_instance(told: Mapping[str, Any]) -> Instance:
    """A resource group, as if it were its machine: that may still be on its way."""
    tags = told.get("tags") or {}
    name = tags.get(NAME_TAG, "")
    return Instance(
        provider=ProviderName.AZURE,
        id=told["name"],
        name=name,
        region=told["location"],
        group=told["name"],
        tags=ours_of(tags),
        proven=is_named_as(name, told["name"]),
    )


def is_of(launch: str, machine: Mapping[str, Any]) -> bool:
    """Whether a machine in a group of that launch is its own, too."""
    return (machine.get("tags") or {}).get(LAUNCH_TAG) == launch


def ours_of(tags: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in tags.items() if name.startswith(OWNER_TAG)}


def group_of(resource: str) -> str:
    """The resource group in an id, whose case Azure does not keep."""
    parts = resource.split("/")
    return parts[[part.lower() for part in parts].index("resourcegroups") + 1]
