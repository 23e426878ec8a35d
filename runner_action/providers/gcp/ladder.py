"""From what Compute Engine answered to placements: which image, which zones, in which order. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from runner_action.errors import ConfigurationError
from runner_action.model import Place, Plan, Pool
from runner_action.providers.gcp.requests import GcpPlacement, account_of
from runner_action.providers.gcp.table import ARCHITECTURES
from runner_action.request import CloudRequest


@dataclass(frozen=True, kw_only=True)
class Found:
    """`zones`: names of those that are up. `offered`: (type, zone); None if the credentials may not ask."""

    project: str
    image: Any
    zones: Sequence[str]
    offered: frozenset[tuple[str, str]] | None


def placements(plan: Plan, request: CloudRequest, found: Found) -> list[GcpPlacement]:
    """A rung for each market, zone and type, in the user's order. Raises ConfigurationError if there is none."""
    image, expected = found.image, ARCHITECTURES[plan.architecture]
    if image.architecture and image.architecture != expected:
        text = f"The image {image.name} is for {image.architecture}, the type {plan.instance_types[0]} is {expected}."
        raise ConfigurationError(text, "Choose `cloud-image` and `cloud-type` of one architecture.")
    rungs = [(spot, place, zone, kind) for spot in plan.spots for place in plan.places for zone in _zones(place, found) for kind in plan.instance_types]
    made = [
        GcpPlacement(
            region=place.region,
            spot=spot,
            pools=(Pool(instance_type=kind, zone=zone),),
            project=found.project,
            image=image.self_link.partition("/compute/v1/")[2] or plan.image,
            disk_gb=max(plan.disk_gb, int(image.disk_size_gb)),
            network=request.gcp.network,
            subnetwork=request.gcp.subnetwork,
            private=request.gcp.private,
            account=account_of(request.permission_set)[0],
            with_ssh=request.ssh_public_key is not None,
        )
        for spot, place, zone, kind in rungs
        if found.offered is None or "custom" in kind or (kind.partition("+")[0], zone) in found.offered
    ]
    if not made:
        where = ", ".join(place.zone or place.region for place in plan.places)
        text = f"Google Cloud does not offer {', '.join(plan.instance_types)} in {where}."
        raise ConfigurationError(text, "Write another `cloud-type` or `cloud-region`; `gcloud compute machine-types list` tells what each zone has.")
    return made


def _zones(place: Place, found: Found) -> list[str]:
    return [zone for zone in sorted(found.zones) if zone == place.zone or (place.zone is None and zone.rpartition("-")[0] == place.region)]
