"""What the sandbox's Google Cloud has, and in which zones; and how it says no."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from flask import request

Json = dict[str, Any]
PROJECT = "octo-train"
ZONES = ("us-east1-b", "us-east1-c", "us-east1-d", "us-west1-a", "us-west1-b", "us-west1-c", "europe-west1-b", "europe-west1-d", "europe-north1-a")
NOT_EVERYWHERE = {
    "a3-highgpu-8g": ("us-west1-a",),
    "g2-standard-4": ("us-east1-b", "us-east1-d"),
    "n4-standard-4": ("us-east1-c",),
    "t2a-standard-4": ("us-east1-b",),
}
ACCELERATORS = {
    "nvidia-tesla-t4": ("us-east1-c", "us-east1-d", "us-west1-a", "us-west1-b", "europe-west1-b", "europe-west1-d"),
    "nvidia-tesla-v100": ("us-east1-c", "us-west1-a", "us-west1-b"),
}
IMAGES = {
    ("ubuntu-os-cloud", "ubuntu-2404-lts-amd64"): ("ubuntu-2404-noble-amd64-v20261101", "X86_64", "10"),
    ("ubuntu-os-cloud", "ubuntu-2404-lts-arm64"): ("ubuntu-2404-noble-arm64-v20261101", "ARM64", "10"),
    ("deeplearning-platform-release", "common-cu129-ubuntu-2404-nvidia-580"): ("common-cu129-ubuntu-2404-nvidia-580-v20261105", "X86_64", "50"),
    (PROJECT, "ours"): ("ours-20261101", "X86_64", "20"),
    (PROJECT, "bios"): ("bios-20201101", "X86_64", "20"),
}


def zones_of(name: str) -> tuple[str, ...]:
    """Of a machine type or an accelerator; none that is not known."""
    if name in ACCELERATORS:
        return ACCELERATORS[name]
    return NOT_EVERYWHERE.get(name, ZONES) if re.fullmatch(r"(e2|n1|n2|n4|g2|a2|a3|t2a|c4a)-[a-z]+(-\d+g?)?", name) else ()


def listed(kind: str) -> Json:
    """An aggregated list of `machineType`s or `acceleratorType`s, by the names in the request's filter."""
    wanted = re.findall(r'name = "([^"]+)"', request.args.get("filter", ""))
    items = {f"zones/{zone}": {f"{kind}s": [_entry(kind, name, zone) for name in wanted if zone in zones_of(name)]} for zone in ZONES}
    return {"kind": f"compute#{kind}AggregatedList", "id": "types", "items": items, "selfLink": f"https://www.googleapis.com/compute/v1/aggregated/{kind}s"}


def _entry(kind: str, name: str, zone: str) -> Json:
    return {"kind": f"compute#{kind}", "id": "1", "name": name, "zone": zone}


def missing_in_zone(body: Json, zone: str) -> tuple[Mapping[str, Any], int] | None:
    """The refusal of a machine whose type or accelerator its zone does not have."""
    for asked in body.get("guestAccelerators", ()):
        if zone not in zones_of(asked["acceleratorType"].rpartition("/")[2]):
            return error(404, "notFound", f"The resource 'projects/{PROJECT}/{asked['acceleratorType']}' was not found")
    kind = body["machineType"].rpartition("/")[2]
    if zone in NOT_EVERYWHERE.get(kind, ZONES):
        return None
    where = f"Invalid value for field 'resource.machineType': '{body['machineType']}'."
    return error(400, "invalid", f"{where} Machine type with name '{kind}' does not exist in zone '{zone}'.")


def error(status: int, reason: str, message: str) -> tuple[Mapping[str, Any], int]:
    """As Google words it."""
    return {"error": {"code": status, "message": message, "errors": [{"message": message, "domain": "global", "reason": reason}]}}, status
