"""From Compute Engine's answers to placements: which image, which zones, in which order. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from runner_action.errors import ConfigurationError
from runner_action.model import Place, Plan, Pool
from runner_action.providers.gcp.options import options_of
from runner_action.providers.gcp.requests import GcpPlacement, account_of, has_gpu, opens_port
from runner_action.providers.gcp.table import ARCHITECTURES, CANONICAL, SPOT_ONLY
from runner_action.request import CloudRequest


@dataclass(frozen=True, kw_only=True)
class Facts:
    """`image`: Google's description of it. `zones`: the names of those that are up. `offered`: the
    zones that have a type or accelerator, without those that the credentials may not ask about."""

    project: str
    image: Any
    zones: Sequence[str]
    offered: Mapping[str, Collection[str]]


def placements(plan: Plan, request: CloudRequest, facts: Facts) -> list[GcpPlacement]:
    """A rung for each market, place, type and zone, in the user's order. Raises
    ConfigurationError if there is none."""
    _check(plan, facts.image)
    rungs = [
        (spot, place, zone, kind)
        for spot, place, kind in product(plan.spots, plan.places, plan.instance_types)
        for zone in _zones(place, facts)
    ]
    ladder = [
        _placement(plan, request, facts, spot, place, zone, kind)
        for spot, place, zone, kind in rungs
        if _is_offered(facts, spot, zone, kind)
    ]
    if not ladder:
        where = ", ".join(place.zone or place.region for place in plan.places)
        text = f"Google Cloud does not offer {', '.join(plan.instance_types)} in {where}."
        raise ConfigurationError(
            text,
            "Write another `cloud-type` or `cloud-region`; `gcloud compute machine-types list`"
            " lists what each zone has.",
        )
    return ladder


def _check(plan: Plan, image: Any) -> None:
    expected = ARCHITECTURES[plan.architecture]
    if image.architecture and image.architecture != expected:
        text = (
            f"The image {image.name} is for {image.architecture}, the type {plan.instance_types[0]}"
            f" is {expected}."
        )
        raise ConfigurationError(text, "Choose `cloud-image` and `cloud-type` of one architecture.")


def _is_offered(facts: Facts, spot: bool, zone: str, kind: str) -> bool:
    listed = all(zone in facts.offered.get(name, (zone,)) for name in names_of(kind))
    return listed and (spot or kind not in SPOT_ONLY)


def _placement(
    plan: Plan, request: CloudRequest, facts: Facts, spot: bool, place: Place, zone: str, kind: str
) -> GcpPlacement:
    image = facts.image
    # Google shields arm64 machines by default; BIOS firmware cannot be shielded.
    shielded = plan.architecture == "x64" and any(
        feature.type_ == "UEFI_COMPATIBLE" for feature in image.guest_os_features
    )
    canonical = f"/projects/{CANONICAL}/" in image.self_link
    return GcpPlacement(
        region=place.region,
        spot=spot,
        pools=(Pool(instance_type=kind, zone=zone),),
        project=facts.project,
        image=image.self_link.partition("/compute/v1/")[2] or plan.image,
        disk_gb=max(plan.disk_gb, int(image.disk_size_gb)),
        network=options_of(request).network,
        subnetwork=options_of(request).subnetwork,
        private=options_of(request).private,
        account=account_of(request.permission_set)[0],
        with_rule=opens_port(request, facts.project),
        kms_key=options_of(request).kms_key,
        shielded=shielded,
        # NVIDIA's modules are not signed by a key that the firmware knows.
        signed=shielded and canonical and not has_gpu(kind),
    )


def names_of(kind: str) -> list[str]:
    """What a zone must list to have this type. Custom types are in no list, but others of their
    family are."""
    machine_type, _, accelerator = kind.partition("+")
    family, custom, _ = machine_type.partition("custom")
    return [
        f"{family or 'n1-'}standard-4" if custom else machine_type,
        *([accelerator.partition("*")[0]] if accelerator else []),
    ]


def _zones(place: Place, facts: Facts) -> list[str]:
    return [
        zone
        for zone in sorted(facts.zones)
        if zone == place.zone or (place.zone is None and zone.rpartition("-")[0] == place.region)
    ]
