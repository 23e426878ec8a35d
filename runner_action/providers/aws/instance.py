"""An instance as EC2 describes it, in our words. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from runner_action.model import OWNER_TAG, Instance, ProviderName, is_client_token

LIVING = ("pending", "running", "stopping", "stopped")
"""States in which an instance costs money, or may again."""


TEMPLATE_TAG = "aws:ec2launchtemplate:id"
"""EC2 puts it on what was launched from a template, as every machine of a fleet is, and nobody
can edit it. https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/launch-instances-from-launch-template.html"""


def template_of(told: Mapping[str, Any]) -> str:
    """Id of the launch template that an instance was launched from; empty: of none."""
    return next((tag["Value"] for tag in told.get("Tags", ()) if tag["Key"] == TEMPLATE_TAG), "")


def instance_of(
    told: Mapping[str, Any],
    region: str,
    name: str = "",
    login: str = "",
    templates: Collection[str] = (),
) -> Instance:
    """`templates`: ids of ours."""
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
        proven=is_client_token(told.get("ClientToken", "")) or template_of(told) in templates,
    )
