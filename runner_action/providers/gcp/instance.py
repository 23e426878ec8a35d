"""An instance as Compute Engine tells it, in our words. Pure."""

from __future__ import annotations

from typing import Any

from runner_action.model import LAUNCH_TAG, NAME_TAG, Instance, ProviderName
from runner_action.providers.gcp.requests import LAUNCH_ITEM, tags_of

RUNNING = ("PROVISIONING", "STAGING", "RUNNING", "REPAIRING", "PENDING")


def instance_of(told: Any) -> Instance:
    tags, zone = tags_of(dict(told.labels), told.description), told.zone.rpartition("/")[2]
    items = {item.key: item.value for item in told.metadata.items}
    launch = tags.get(LAUNCH_TAG, "")
    interfaces = list(told.network_interfaces)
    configs = [config for interface in interfaces for config in interface.access_configs]
    public = [config.nat_i_p for config in configs if config.nat_i_p]
    return Instance(
        provider=ProviderName.GCP,
        id=str(told.id),
        name=tags.get(NAME_TAG, told.name),
        region=zone.rpartition("-")[0],
        zone=zone,
        instance_type=told.machine_type.rpartition("/")[2],
        image=next((disk.initialize_params.source_image for disk in told.disks if disk.boot), ""),
        spot=told.scheduling.provisioning_model == "SPOT",
        address=(public or [interface.network_i_p for interface in interfaces] or [""])[0],
        launched=told.creation_timestamp,
        alive=told.status in RUNNING,
        tags=tags,
        proven=bool(launch) and items.get(LAUNCH_ITEM) == launch,
    )
