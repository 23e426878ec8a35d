"""Runners, labels and refusals as GitHub's API returns them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runner_action.sandbox.forges.github.archive import VERSION
from runner_action.sandbox.forges.jobs import DEFAULT_LABELS, Seat


def labels_of(seat: Seat) -> dict[str, Any]:
    """A runner's labels as GitHub's API returns them."""
    labels = [
        {"id": number, "name": label, "type": "read-only" if label in DEFAULT_LABELS else "custom"}
        for number, label in enumerate(seat.labels, 1)
    ]
    return {"total_count": len(labels), "labels": labels}


def shown(seat: Seat) -> dict[str, Any]:
    """A runner as GitHub's API returns it."""
    status = "online" if seat.online else "offline"
    return {
        "id": seat.id,
        "name": seat.name,
        "os": "linux" if seat.contacted else "unknown",
        "status": status,
        "busy": seat.busy,
        "ephemeral": seat.ephemeral,
        "version": VERSION if seat.contacted else None,
        "runner_group_id": seat.group,
        "labels": labels_of(seat)["labels"],
    }


def refused(
    status: int, message: str, headers: Mapping[str, str] | None = None
) -> tuple[dict[str, str], int, Mapping[str, str]]:
    return (
        {
            "message": message,
            "documentation_url": "https://docs.github.com/rest",
            "status": str(status),
        },
        status,
        headers or {},
    )
