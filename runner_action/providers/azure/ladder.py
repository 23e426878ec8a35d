"""From what Azure answered to placements: which image, which sizes where, in which order. Pure."""

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
class Found:
    """`image`: as Azure describes it, None for one of the user's own; with the version that is
    newest now in `reference`. `skus`: region -> sizes offered there, None if the credentials may
    not ask."""

    image: Json | None
    reference: str
    skus: Mapping[str, Sequence[Json] | None]


def placements(plan: Plan, request: CloudRequest, found: Found) -> list[AzurePlacement]:
    """A rung for each market, place, size and zone, in the user's order; a region as a whole
    comes before its zones. Raises ConfigurationError if there is none."""
    _check(plan, found.image)
    made = [
        _placement(plan, request, found, spot, place, kind, zone)
        for spot, place, kind in product(plan.spots, plan.places, plan.instance_types)
        for zone in _zones(place, kind, found)
    ]
    if not made:
        where = ", ".join(
            f"{place.region}-{place.zone}" if place.zone else place.region for place in plan.places
        )
        text = (
            f"Azure does not offer {', '.join(plan.instance_types)} to this subscription in"
            f" {where}."
        )
        raise ConfigurationError(
            text,
            "Write another `cloud-type` or `cloud-region`; `az vm list-skus --location …` tells"
            " what each region has.",
        )
    return made


def _check(plan: Plan, image: Json | None) -> None:
    told = (image or {}).get("properties", {})
    architecture = told.get("architecture", ARCHITECTURES[plan.architecture])
    if architecture != ARCHITECTURES[plan.architecture]:
        text = (
            f"The image {plan.image} is for {architecture}, the size {plan.instance_types[0]} is"
            f" {ARCHITECTURES[plan.architecture]}."
        )
        raise ConfigurationError(text, "Choose `cloud-image` and `cloud-type` of one architecture.")


def _zones(place: Place, kind: str, found: Found) -> list[str]:
    """`""` is the region as a whole. What is not offered, or restricted for this subscription,
    is left out."""
    skus = found.skus[place.region]
    if skus is None:
        return [place.zone or ""]
    sku = next((one for one in skus if one["name"].lower() == kind.lower()), None)
    if sku is None:
        return []
    restrictions = sku.get("restrictions", ())
    if any(one.get("type") == "Location" for one in restrictions):
        return []
    of_zones = [one for one in restrictions if one.get("type") == "Zone"]
    shut = {zone for one in of_zones for zone in one.get("restrictionInfo", {}).get("zones", ())}
    zones = sorted(
        {zone for info in sku.get("locationInfo", ()) for zone in info.get("zones", ())} - shut
    )
    if place.zone:
        return [place.zone] if place.zone in zones else []
    return ["", *zones]


def _placement(
    plan: Plan, request: CloudRequest, found: Found, spot: bool, place: Place, kind: str, zone: str
) -> AzurePlacement:
    told = (found.image or {}).get("properties", {})
    features = {one["name"]: one["value"] for one in told.get("features", ())}
    trusted = "TrustedLaunch" in features.get("SecurityType", "") and _may_be_trusted(
        kind, found.skus[place.region]
    )
    return AzurePlacement(
        region=place.region,
        spot=spot,
        pools=(Pool(instance_type=kind, zone=f"{place.region}-{zone}" if zone else ""),),
        image=found.reference,
        disk_gb=max(
            plan.disk_gb,
            int(told.get("osDiskImage", {}).get("sizeInGb", 0))
            + (ROOM_GB if plan.image == WITH_DRIVER else 0),
        ),
        subnet=options_of(request).subnet,
        private=options_of(request).private,
        identities=identities_of(request.permission_set)[0],
        ssh_public_key=request.ssh_public_key,
        encryption=options_of(request).disk_encryption_set,
        purchase=told.get("plan"),
        max_price=plan.spot_price,
        trusted=trusted,
        signed=trusted
        and not has_gpu(kind),  # NVIDIA's modules are not signed by a key that the firmware knows
    )


def _may_be_trusted(kind: str, skus: Sequence[Json] | None) -> bool:
    """Whether the size has firmware of the second generation, and does not exclude it.
    https://learn.microsoft.com/azure/virtual-machines/trusted-launch"""
    sku = next((one for one in skus or () if one["name"].lower() == kind.lower()), None)
    capabilities = {one["name"]: one["value"] for one in (sku or {}).get("capabilities", ())}
    return (
        "V2" in capabilities.get("HyperVGenerations", "")
        and capabilities.get("TrustedLaunchDisabled") != "True"
    )
