"""What Compute Engine refuses by a request's size, syntax and sense, where its description of
fields says nothing a schema could. Pure.

Names, tags and metadata: https://cloud.google.com/compute/docs/reference/rest/v1/instances/insert
Labels: https://cloud.google.com/compute/docs/labeling-resources#requirements
Scheduling: https://cloud.google.com/compute/docs/instances/setting-vm-host-options and
https://cloud.google.com/compute/docs/instances/limit-vm-runtime
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from typing import Any

Json = dict[str, Any]
NAME = re.compile(r"[a-z](?:[-a-z0-9]{0,61}[a-z0-9])?")
LABEL_KEY = re.compile(r"[a-z][a-z0-9_-]{0,62}")
LABEL_VALUE = re.compile(r"[a-z0-9_-]{0,63}")
LABELS = 64
METADATA_KEY = re.compile(r"[a-zA-Z0-9_-]{1,127}")
METADATA_VALUE = 262144
METADATA = 512 * 1024
"""Bytes of one value, and of all keys and values together."""
TAGS = 64
RUN_SECONDS = (30, 120 * 86400)


def problem(body: Json, request_id: str, image: Json | None) -> str | None:
    """What is wrong with instances.insert; None if nothing is. `image`: the one the disk is
    made from, if it is known."""
    found = (
        *_names(body),
        *_labels(body),
        *_metadata(body.get("metadata", {}).get("items", ())),
        *_scheduling(body),
        *_disk(body, image),
    )
    if request_id:
        try:
            uuid.UUID(request_id)
        except ValueError:
            return f"Invalid value for field 'requestId': '{request_id}'. Must be a valid UUID"
    return next(iter(found), None)


def _names(body: Json) -> Iterator[str]:
    tags = body.get("tags", {}).get("items", ())
    for field, names in (("resource.name", [body["name"]]), ("resource.tags.items", tags)):
        for name in names:
            if not NAME.fullmatch(name):
                yield (
                    f"Invalid value for field '{field}': '{name}'. Must be a match of regex"
                    f" '(?:{NAME.pattern})'"
                )
    if len(tags) > TAGS:
        yield f"Invalid value for field 'resource.tags.items': too many tags, {len(tags)} of {TAGS}"


def _labels(body: Json) -> Iterator[str]:
    disks = [disk.get("initializeParams", {}).get("labels", {}) for disk in body["disks"]]
    for labels in (body.get("labels", {}), *disks):
        if len(labels) > LABELS:
            yield (
                f"Invalid value for field 'resource.labels': {len(labels)} labels; at most {LABELS}"
            )
        for key, value in labels.items():
            if not LABEL_KEY.fullmatch(key) or not LABEL_VALUE.fullmatch(value):
                yield (
                    f"Invalid value for field 'resource.labels': '{key}={value}'. Label violates"
                    " the format"
                )


def _metadata(items: list[Json]) -> Iterator[str]:
    field = "Invalid value for field 'resource.metadata.items'"
    for one in items:
        if not METADATA_KEY.fullmatch(one["key"]):
            yield f"{field}: '{one['key']}'. Key violates the format"
        if len(one["value"].encode()) > METADATA_VALUE:
            yield (
                f"{field}: the value of '{one['key']}' is too large; at most {METADATA_VALUE} bytes"
            )
    if len({one["key"] for one in items}) < len(items):
        yield f"{field}: duplicate keys"
    if sum(len(one["key"].encode()) + len(one["value"].encode()) for one in items) >= METADATA:
        yield f"{field}: the total size of all keys and values must be less than 512 KB"


def _scheduling(body: Json) -> Iterator[str]:
    told, kind = body.get("scheduling", {}), body["machineType"].rpartition("/")[2]
    spot, moves = (
        told.get("provisioningModel") == "SPOT",
        told.get("onHostMaintenance", "MIGRATE") == "MIGRATE",
    )
    if spot and (moves or told.get("automaticRestart", True)):
        yield (
            "Scheduling must have onHostMaintenance TERMINATE and no automatic restart when the"
            " provisioning model is SPOT"
        )
    if moves and (body.get("guestAccelerators") or kind.startswith(("a2-", "a3-", "g2-"))):
        yield "Instances with guest accelerators do not support live migration"
    if not moves and not spot and kind.startswith("e2-"):
        yield "E2 machines that are not spot must have onHostMaintenance MIGRATE"
    longest = told.get("maxRunDuration", {}).get("seconds")
    if longest and not RUN_SECONDS[0] <= int(longest) <= RUN_SECONDS[1]:
        yield f"Invalid value for field 'resource.scheduling.maxRunDuration.seconds': '{longest}'"
    if told.get("instanceTerminationAction") and not (spot or longest):
        field = "Invalid value for field 'resource.scheduling.instanceTerminationAction'"
        yield (
            f"{field}: You cannot specify a termination action for a VM instance that has the"
            " standard provisioning model (default)."
        )


def _disk(body: Json, image: Json | None) -> Iterator[str]:
    asked = body["disks"][0].get("initializeParams", {})
    if image and int(asked.get("diskSizeGb", image["diskSizeGb"])) < int(image["diskSizeGb"]):
        yield (
            f"Requested disk size cannot be smaller than the image size ({image['diskSizeGb']} GB)"
        )
    arm = body["machineType"].rpartition("/")[2].startswith(("t2a-", "c4a-"))
    if image and (image["architecture"] == "ARM64") is not arm:
        yield f"The machine type does not run images of architecture {image['architecture']}"


def asked(pattern: str, joint: str, text: str) -> list[tuple[str, ...]] | None:
    """What a filter of the form `PATTERN JOINT PATTERN…` asks for: the groups of each pattern.
    None: it is of another form."""
    parts = text.split(f" {joint} ") if text else []
    found = [re.fullmatch(rf"\(?{pattern}\)?", part) for part in parts]
    return [match.groups() for match in found if match] if all(found) else None
