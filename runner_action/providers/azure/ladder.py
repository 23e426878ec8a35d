"""From Azure's answers to placements: which image, which sizes where, in which order. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from runner_action.errors import ConfigurationError
from runner_action.model import Place, Plan, Pool
from runner_action.providers.azure.options import options_of
from runner_action.providers.azure.plan import has_gpu
from runner_action.providers.azure.requests import AzurePlacement, identities_of
from runner_action.providers.azure.table import ARCHITECTURES, ROOM_GB, WITH_DRIVER
from runner_action.request import CloudRequest

Json = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Facts:
    """`image`: Azure's description of it, None for an image of the user's own. `reference`: the
    image with its newest version. `skus`: the sizes that each region offers, None if the
    credentials may not ask."""

    image: Json | None
    reference: str
    skus: Mapping[str, Sequence[Json] | None]


def placements(plan: Plan, request: CloudRequest, facts: Facts) -> list[AzurePlacement]:
    """A rung for each market, place, size and zone, in the user's order; a region as a whole
    comes before its zones. Raises ConfigurationError if there is none."""
    _check(plan, facts.image)
    rungs = [
        _placement(plan, request, facts, spot, place, kind, zone)
        for spot, place, kind in product(plan.spots, plan.places, plan.instance_types)
        for zone in _zones(place, kind, facts)
    ]
    if not rungs:
        where = ", ".join(
            f"{place.region}-{place.zone}" if place.zone else place.region for place in plan.places
        )
        text = (
            f"Azure does not offer {', '.join(plan.instance_types)} to this subscription in"
            f" {where}."
        )
        raise ConfigurationError(
            text,
            "Write another `cloud-type` or `cloud-region`; `az vm list-skus --location …` lists"
            " what each region has.",
        )
    return rungs


def _check(plan: Plan, image: Json | None) -> None:
    properties = (image or {}).get("properties", {})
    architecture = properties.get("architecture", ARCHITECTURES[plan.architecture])
    if architecture != ARCHITECTURES[plan.architecture]:
        text = (
            f"The image {plan.image} is for {architecture}, the size {plan.instance_types[0]} is"
            f" {ARCHITECTURES[plan.architecture]}."
        )
        raise ConfigurationError(text, "Choose `cloud-image` and `cloud-type` of one architecture.")


def _zones(place: Place, kind: str, facts: Facts) -> list[str]:
    """The zones to try, without those that do not offer the size or are restricted for this
    subscription. `""`: the region as a whole."""
    skus = facts.skus[place.region]
    if skus is None:
        return [place.zone or ""]
    sku = next((entry for entry in skus if entry["name"].lower() == kind.lower()), None)
    if sku is None:
        return []
    restrictions = sku.get("restrictions", ())
    if any(entry.get("type") == "Location" for entry in restrictions):
        return []
    of_zones = [entry for entry in restrictions if entry.get("type") == "Zone"]
    shut = {
        zone for entry in of_zones for zone in entry.get("restrictionInfo", {}).get("zones", ())
    }
    zones = sorted(
        {zone for info in sku.get("locationInfo", ()) for zone in info.get("zones", ())} - shut
    )
    if place.zone:
        return [place.zone] if place.zone in zones else []
    return ["", *zones]


def _placement(
    plan: Plan, request: CloudRequest, facts: Facts, spot: bool, place: Place, kind: str, zone: str
) -> AzurePlacement:
    properties = (facts.image or {}).get("properties", {})
    features = {feature["name"]: feature["value"] for feature in properties.get("features", ())}
    trusted = "TrustedLaunch" in features.get("SecurityType", "") and _may_be_trusted(
        kind, facts.skus[place.region]
    )
    return AzurePlacement(
        region=place.region,
        spot=spot,
        pools=(Pool(instance_type=kind, zone=f"{place.region}-{zone}" if zone else ""),),
        image=facts.reference,
        disk_gb=max(
            plan.disk_gb,
            int(properties.get("osDiskImage", {}).get("sizeInGb", 0))
            + (ROOM_GB if plan.image == WITH_DRIVER else 0),
        ),
        subnet=options_of(request).subnet,
        private=options_of(request).private,
        identities=identities_of(request.permission_set)[0],
        ssh_public_key=request.ssh_public_key,
        encryption=options_of(request).disk_encryption_set,
        purchase=properties.get("plan"),
        max_price=plan.spot_price,
        trusted=trusted,
        signed=trusted
        and not has_gpu(kind),  # NVIDIA's modules are not signed by a key that the firmware knows
    )


def _may_be_trusted(kind: str, skus: Sequence[Json] | None) -> bool:
    """Whether the size has firmware of the second generation and does not exclude trusted launch.
    https://learn.microsoft.com/azure/virtual-machines/trusted-launch"""
    sku = next((entry for entry in skus or () if entry["name"].lower() == kind.lower()), None)
    capabilities = {entry["name"]: entry["value"] for entry in (sku or {}).get("capabilities", ())}
    return (
        "V2" in capabilities.get("HyperVGenerations", "")
        and capabilities.get("TrustedLaunchDisabled") != "True"
    )
