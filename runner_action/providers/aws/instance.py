"""An instance as EC2 describes it, in our words. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runner_action.model import OWNER_TAG, Instance, ProviderName

LIVING = ("pending", "running", "stopping", "stopped")
"""States in which an instance costs money, or may again."""


def instance_of(told: Mapping[str, Any], region: str, name: str = "", login: str = "") -> Instance:
    known = {tag["Key"]: tag["Value"] for tag in told.get("Tags", ())}
    return Instance(
        provider=ProviderName.AWS,
        id=told["InstanceId"],
        name=name or known.get(f"{OWNER_TAG}:name", ""),
        region=region,
        zone=told.get("Placement", {}).get("AvailabilityZone", ""),
        instance_type=told["InstanceType"],
        image=told.get("ImageId", ""),
        spot=told.get("InstanceLifecycle") == "spot",
        address=told.get("PublicIpAddress") or told.get("PrivateIpAddress", ""),
        launched=told["LaunchTime"].isoformat() if "LaunchTime" in told else "",
        alive=told.get("State", {}).get("Name") in LIVING,
        login=login,
        tags={key: value for key, value in known.items() if key.startswith(OWNER_TAG)},
    )
