"""An instance as Compute Engine tells it, in our words. Pure."""

from __future__ import annotations

from typing import Any

from runner_action.model import OWNER_TAG, Instance, ProviderName

RUNNING = ("PROVISIONING", "STAGING", "RUNNING", "REPAIRING", "PENDING")


def instance_of(told: Any) -> Instance:
    labels, zone = dict(told.labels), told.zone.rpartition("/")[2]
    interfaces = list(told.network_interfaces)
    public = [config.nat_i_p for interface in interfaces for config in interface.access_configs if config.nat_i_p]
    return Instance(
        provider=ProviderName.GCP,
        id=str(told.id),
        name=labels.get(f"{OWNER_TAG}-name", told.name),
        region=zone.rpartition("-")[0],
        zone=zone,
        instance_type=told.machine_type.rpartition("/")[2],
        image=next((disk.initialize_params.source_image for disk in told.disks if disk.boot), ""),
        spot=told.scheduling.provisioning_model == "SPOT",
        address=(public or [interface.network_i_p for interface in interfaces] or [""])[0],
        launched=told.creation_timestamp,
        alive=told.status in RUNNING,
    )
