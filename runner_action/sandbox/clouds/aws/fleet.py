"""CreateFleet of type `instant`, which moto takes for something else: pool by pool in the order
of their priority, each as a RunInstances."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from xml.sax.saxutils import escape

Form = dict[str, str]
Answer = tuple[str, list[tuple[str, str]], bytes]
CONFIG = "LaunchTemplateConfigs.1."
SPEC = f"{CONFIG}LaunchTemplateSpecification."
NAMESPACE = "http://ec2.amazonaws.com/doc/2016-11-15/"


def template_name(form: Form) -> str:
    return form[f"{SPEC}LaunchTemplateName"]


def overrides(form: Form) -> list[Form]:
    """One for each pool that is asked for, in the order of the request."""
    numbers = sorted(
        {
            int(match[1])
            for key in form
            if (match := re.match(rf"{re.escape(CONFIG)}Overrides\.(\d+)\.", key))
        }
    )
    return [_below(form, f"{CONFIG}Overrides.{number}.") for number in numbers]


def pools(form: Form, template: Mapping[str, Any]) -> Iterator[Form]:
    """A RunInstances form for each override. What a fleet gives nowhere else comes from the
    launch template."""
    spot = form["TargetCapacitySpecification.DefaultTargetCapacityType"] == "spot"
    tags = {key: value for key, value in form.items() if key.startswith("TagSpecification.")}
    fleet_tags = [key.rpartition(".")[0] for key, value in tags.items() if value == "fleet"]
    tags = {
        key: value
        for key, value in tags.items()
        if not any(key.startswith(f"{prefix}.") for prefix in fleet_tags)
    }
    common: Form = {
        "Action": "RunInstances",
        "Version": form["Version"],
        "MinCount": "1",
        "UserData": form.get(f"{SPEC}LaunchTemplateSpecificationUserData", ""),
        "InstanceInitiatedShutdownBehavior": template["InstanceInitiatedShutdownBehavior"],
        **{
            f"SecurityGroupId.{number}": group
            for number, group in enumerate(template.get("SecurityGroupIds", ()), 1)
        },
        **{
            f"MetadataOptions.{key}": str(value)
            for key, value in template.get("MetadataOptions", {}).items()
        },
        **_renumbered(tags),
    }
    for override in sorted(overrides(form), key=lambda one: float(one.pop("Priority", "0"))):
        price = override.pop("MaxPrice", None)
        market = {"InstanceMarketOptions.MarketType": "spot"} if spot else {}
        if spot and price:
            market["InstanceMarketOptions.SpotOptions.MaxPrice"] = price
        yield {**common, **override, **market}


def _below(form: Form, prefix: str) -> Form:
    return {
        key.removeprefix(prefix): value for key, value in form.items() if key.startswith(prefix)
    }


def _renumbered(tags: Form) -> Form:
    """Tag specifications without gaps, as moto reads them from the first on."""
    order = {
        number: str(place)
        for place, number in enumerate(dict.fromkeys(key.split(".")[1] for key in tags), 1)
    }
    return {
        ".".join([key.split(".")[0], order[key.split(".")[1]], *key.split(".")[2:]]): value
        for key, value in tags.items()
    }


def instances_in(answer: bytes) -> list[str]:
    return re.findall(r"<instanceId>(i-[0-9a-f]+)</instanceId>", answer.decode())


def error_in(answer: bytes) -> tuple[str, str]:
    text = answer.decode()
    return (
        re.findall("<Code>(.*?)</Code>", text)[0],
        re.findall("<Message>(.*?)</Message>", text, re.S)[0],
    )


def fill(form: Form, template: Mapping[str, Any], launch: Callable[[Form], Answer]) -> bytes:
    """The answer to a CreateFleet: `launch` is RunInstances."""
    left = int(form["TargetCapacitySpecification.TotalTargetCapacity"])
    lifecycle = form["TargetCapacitySpecification.DefaultTargetCapacityType"]
    made, errors = [], []
    for pool in pools(form, template):
        if not left:
            break
        status, _, content = launch({**pool, "MaxCount": str(left)})
        override = (
            f"<instanceType>{pool['InstanceType']}</instanceType>"
            f"<subnetId>{pool['SubnetId']}</subnetId>"
        )
        about = (
            f"<launchTemplateAndOverrides><overrides>{override}</overrides>"
            f"</launchTemplateAndOverrides><lifecycle>{lifecycle}</lifecycle>"
        )
        if status.startswith("200"):
            ids = instances_in(content)
            left -= len(ids)
            items = "".join(f"<item>{one}</item>" for one in ids)
            made.append(
                f"<item>{about}<instanceIds>{items}</instanceIds>"
                f"<instanceType>{pool['InstanceType']}</instanceType></item>"
            )
        else:
            code, message = error_in(content)
            errors.append(
                f"<item>{about}<errorCode>{code}</errorCode>"
                f"<errorMessage>{escape(message)}</errorMessage></item>"
            )
    body = (
        f"<fleetId>fleet-{form['ClientToken'][:8]}</fleetId>"
        f"<fleetInstanceSet>{''.join(made)}</fleetInstanceSet>"
        f"<errorSet>{''.join(errors)}</errorSet>"
    )
    return (
        "<CreateFleetResponse"
        f' xmlns="{NAMESPACE}"><requestId>r</requestId>{body}</CreateFleetResponse>'.encode()
    )
