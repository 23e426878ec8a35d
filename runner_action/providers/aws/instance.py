"""From EC2's description of an instance to ours. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from runner_action.model import OWNER_TAG, Instance, ProviderName, is_client_token

LIVING = ("pending", "running", "stopping", "stopped")
"""States in which an instance costs money, or may again."""


RECLAIMED = "Server.SpotInstanceTermination"
"""https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_StateReason.html"""
TEMPLATE_TAG = "aws:ec2launchtemplate:id"
"""EC2 gives it to what was launched from a template, as every instance of a fleet is, and nobody
can change it. https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/launch-instances-from-launch-template.html"""


def template_of(description: Mapping[str, Any]) -> str:
    """The id of the launch template that an instance was launched from; empty if from none."""
    return next(
        (tag["Value"] for tag in description.get("Tags", ()) if tag["Key"] == TEMPLATE_TAG), ""
    )


def instance_of(
    description: Mapping[str, Any],
    region: str,
    name: str = "",
    login: str = "",
    templates: Collection[str] = (),
) -> Instance:
    """`templates`: the ids of ours, by which an instance is proven."""
    known = {tag["Key"]: tag["Value"] for tag in description.get("Tags", ())}
    return Instance(
        provider=ProviderName.AWS,
        id=description["InstanceId"],
        name=name or known.get(f"{OWNER_TAG}:name", ""),
        region=region,
        zone=description.get("Placement", {}).get("AvailabilityZone", ""),
        instance_type=description["InstanceType"],
        image=description.get("ImageId", ""),
        spot=description.get("InstanceLifecycle") == "spot",
        address=description.get("PublicIpAddress") or description.get("PrivateIpAddress", ""),
        launched=description["LaunchTime"].isoformat() if "LaunchTime" in description else "",
        alive=description.get("State", {}).get("Name") in LIVING,
        login=login,
        reclaimed=description.get("StateReason", {}).get("Code") == RECLAIMED,
        tags={key: value for key, value in known.items() if key.startswith(OWNER_TAG)},
        proven=is_client_token(description.get("ClientToken", ""))
        or template_of(description) in templates,
    )
