"""What the sandbox's Google Cloud has, and in which zones; and how it says no."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from flask import request

from runner_action.sandbox.clouds.gcp.rules import asked

T = TypeVar("T")
Json = dict[str, Any]
PROJECT = "octo-train"
SERIAL_BYTES = 1024 * 1024
"""What is kept of a serial port.
https://cloud.google.com/compute/docs/reference/rest/v1/instances/getSerialPortOutput"""
ZONES = (
    "us-east1-b",
    "us-east1-c",
    "us-east1-d",
    "us-west1-a",
    "us-west1-b",
    "us-west1-c",
    "europe-west1-b",
    "europe-west1-d",
    "europe-north1-a",
    "us-central1-f",
)
NOT_EVERYWHERE = {
    "a3-highgpu-8g": ("us-west1-a",),
    "g2-standard-4": ("us-east1-b", "us-east1-d"),
    "n4-standard-4": ("us-east1-c",),
    "t2a-standard-4": ("us-east1-b",),
}
ACCELERATORS = {
    "nvidia-tesla-t4": (
        "us-east1-c",
        "us-east1-d",
        "us-west1-a",
        "us-west1-b",
        "us-central1-f",
        "europe-west1-b",
        "europe-west1-d",
    ),
    "nvidia-tesla-v100": ("us-east1-c", "us-west1-a", "us-west1-b"),
}
IMAGES = {
    ("ubuntu-os-cloud", "ubuntu-2404-lts-amd64"): (
        "ubuntu-2404-noble-amd64-v20261101",
        "X86_64",
        "10",
    ),
    ("ubuntu-os-cloud", "ubuntu-2404-lts-arm64"): (
        "ubuntu-2404-noble-arm64-v20261101",
        "ARM64",
        "10",
    ),
    ("deeplearning-platform-release", "common-cu129-ubuntu-2404-nvidia-580"): (
        "common-cu129-ubuntu-2404-nvidia-580-v20261105",
        "X86_64",
        "50",
    ),
    (PROJECT, "ours"): ("ours-20261101", "X86_64", "20"),
    (PROJECT, "bios"): ("bios-20201101", "X86_64", "20"),
}


@dataclass
class Refusal:
    """Creations that `applies` chooses end with an error, `times` times (None: always): in the
    answer with `status`, else in their operation."""

    applies: Callable[[Json, str], bool]
    code: str
    status: int = 0
    message: str = "No."
    times: int | None = None
    leaves: bool = False
    """The machine is there nevertheless."""
    details: list[Json] = field(default_factory=list)


def zones_of(name: str) -> tuple[str, ...]:
    """Of a machine type or an accelerator; none that is not known."""
    if name in ACCELERATORS:
        return ACCELERATORS[name]
    return (
        NOT_EVERYWHERE.get(name, ZONES)
        if re.fullmatch(r"(e2|n1|n2|n4|g2|a2|a3|t2a|c4a)-[a-z]+(-\d+g?)?", name)
        else ()
    )


def listed(kind: str, size: int) -> Any:
    """An aggregated list of `machineType`s or `acceleratorType`s, by the names in the request's
    filter."""
    wanted = asked(r'name = "([^"]+)"', "OR", request.args.get("filter", ""))
    if wanted is None:
        return error(
            400,
            "invalid",
            f"Invalid value for field 'filter': '{request.args['filter']}'. Invalid list filter"
            " expression.",
        )
    return aggregated(
        kind,
        [
            (zone, _entry(kind, name, zone))
            for zone in ZONES
            for (name,) in wanted
            if zone in zones_of(name)
        ],
        size,
    )


def paged(things: list[T], size: int) -> tuple[list[T], dict[str, str]]:
    """One page of at most `size`, or as few as the request wants, and where the next begins."""
    start, most = (
        int(request.args.get("pageToken") or 0),
        min(size, int(request.args.get("maxResults") or size)),
    )
    return things[start : start + most], (
        {"nextPageToken": str(start + most)} if start + most < len(things) else {}
    )


def aggregated(kind: str, found: list[tuple[str, Json]], size: int) -> Json:
    """A page of things by zone: every zone is in it, and one without any says so.
    https://cloud.google.com/compute/docs/reference/rest/v1/instances/aggregatedList"""
    here, more = paged(found, size)
    items: Json = {}
    for zone in ZONES:
        nothing = {
            "code": "NO_RESULTS_ON_PAGE",
            "message": f"There are no results for scope 'zones/{zone}' on this page.",
        }
        inside = [one for where, one in here if where == zone]
        items[f"zones/{zone}"] = (
            {f"{kind}s": inside}
            if inside
            else {"warning": {**nothing, "data": [{"key": "scope", "value": f"zones/{zone}"}]}}
        )
    link = f"https://www.googleapis.com/compute/v1/aggregated/{kind}s"
    return {
        "kind": f"compute#{kind}AggregatedList",
        "id": f"{kind}s",
        "items": items,
        "selfLink": link,
        **more,
    }


def _entry(kind: str, name: str, zone: str) -> Json:
    return {"kind": f"compute#{kind}", "id": "1", "name": name, "zone": zone}


def missing_in_zone(body: Json, zone: str) -> tuple[Mapping[str, Any], int] | None:
    """The refusal of a machine whose type or accelerator its zone does not have."""
    for card in body.get("guestAccelerators", ()):
        if zone not in zones_of(card["acceleratorType"].rpartition("/")[2]):
            return error(
                404,
                "notFound",
                f"The resource 'projects/{PROJECT}/{card['acceleratorType']}' was not found",
            )
    kind = body["machineType"].rpartition("/")[2]
    if zone in NOT_EVERYWHERE.get(kind, ZONES):
        return None
    where = f"Invalid value for field 'resource.machineType': '{body['machineType']}'."
    return error(
        400, "invalid", f"{where} Machine type with name '{kind}' does not exist in zone '{zone}'."
    )


def error(status: int, reason: str, message: str) -> tuple[Mapping[str, Any], int]:
    """As Google words it."""
    return {
        "error": {
            "code": status,
            "message": message,
            "errors": [{"message": message, "domain": "global", "reason": reason}],
        }
    }, status
