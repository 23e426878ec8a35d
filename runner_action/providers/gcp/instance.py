"""From Compute Engine's description of an instance to ours. Pure."""

from __future__ import annotations

from typing import Any

from runner_action.model import LAUNCH_TAG, NAME_TAG, Instance, ProviderName
from runner_action.providers.gcp.requests import LAUNCH_ITEM, tags_of

RUNNING = ("PROVISIONING", "STAGING", "RUNNING", "REPAIRING", "PENDING")


def instance_of(description: Any) -> Instance:
    tags, zone = (
        tags_of(dict(description.labels), description.description),
        description.zone.rpartition("/")[2],
    )
    items = {item.key: item.value for item in description.metadata.items}
    launch = tags.get(LAUNCH_TAG, "")
    interfaces = list(description.network_interfaces)
    configs = [config for interface in interfaces for config in interface.access_configs]
    public = [config.nat_i_p for config in configs if config.nat_i_p]
    return Instance(
        provider=ProviderName.GCP,
        id=str(description.id),
        name=tags.get(NAME_TAG, description.name),
        region=zone.rpartition("-")[0],
        zone=zone,
        instance_type=description.machine_type.rpartition("/")[2],
        image=next(
            (disk.initialize_params.source_image for disk in description.disks if disk.boot), ""
        ),
        spot=description.scheduling.provisioning_model == "SPOT",
        address=(public or [interface.network_i_p for interface in interfaces] or [""])[0],
        launched=description.creation_timestamp,
        alive=description.status in RUNNING,
        tags=tags,
        proven=bool(launch) and items.get(LAUNCH_ITEM) == launch,
    )
