"""What EC2 refuses by the request, and moto takes: tags, names, tokens, user data, prices, options
out of bounds, parts that do not fit. Pure.

Bounds and words are those of EC2's API reference,
https://docs.aws.amazon.com/AWSEC2/latest/APIReference/ with API_Tag.html, API_RunInstances.html,
API_CreateFleet.html, API_CreateSecurityGroup.html, API_CreateLaunchTemplate.html and the types
named there.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from moto.ec2.models.instance_types import INSTANCE_TYPES

Form = dict[str, str]
Problem = tuple[str, str]
"""Code and message."""
USER_DATA_LIMIT = 16384
"""Before Base64.
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-add-user-data.html"""
TAGS = 50
TAG_KEY = 127
TAG_VALUE = 256
"""https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_Tag.html"""
TAGGED = {
    "RunInstances": {"instance", "volume", "network-interface", "spot-instances-request"},
    "CreateFleet": {"fleet", "instance", "volume", "network-interface"},
    "CreateSecurityGroup": {"security-group"},
    "CreateLaunchTemplate": {"launch-template"},
}
"""What each call may tag at birth; a fleet only if it is `instant`."""
GROUP_TEXT = re.compile(r"[a-zA-Z0-9 ._\-:/()#,@\[\]+=&;{}!$*]{1,255}")
TEMPLATE_NAME = re.compile(r"[a-zA-Z0-9().\-/_]{3,128}")
LEAST_PRICE = 0.001


def problem(form: Form) -> Problem | None:
    """Why EC2 takes no such request; None if it does."""
    return next(
        (one for rule in (_tags, _user_data, _texts, _numbers, _volumes) for one in rule(form)),
        None,
    )


def _matching(form: Form, pattern: str) -> Iterator[tuple[re.Match[str], str]]:
    for key, value in form.items():
        if match := re.fullmatch(pattern, key):
            yield match, value


def _tags(form: Form) -> Iterator[Problem]:
    allowed = TAGGED.get(form["Action"])
    for _, kind in _matching(form, r"TagSpecification\.\d+\.ResourceType"):
        if allowed is not None and kind not in allowed:
            yield (
                "InvalidParameterValue",
                f"'{kind}' is not a valid taggable resource type for this operation.",
            )
    keys: dict[str, list[str]] = {}
    for match, key in _matching(form, r"((?:TagSpecification\.\d+\.)?)Tag\.\d+\.Key"):
        keys.setdefault(match[1], []).append(key)
        if not 1 <= len(key) <= TAG_KEY:
            yield (
                "InvalidParameterValue",
                f"Tag key exceeds the maximum length of {TAG_KEY + 1} characters",
            )
        if key.startswith("aws:"):
            yield (
                "InvalidParameterValue",
                "Tag keys starting with 'aws:' are reserved for internal use",
            )
    for of_one in keys.values():
        if len(of_one) > TAGS:
            yield "TagLimitExceeded", f"More than {TAGS} tags specified"
        for key, times in Counter(of_one).items():
            if times > 1:
                yield "InvalidParameterValue", f"Duplicate tag key '{key}' specified."
    for _, value in _matching(form, r"(?:TagSpecification\.\d+\.)?Tag\.\d+\.Value"):
        if len(value) > TAG_VALUE:
            yield (
                "InvalidParameterValue",
                f"Tag value exceeds the maximum length of {TAG_VALUE} characters",
            )


def _user_data(form: Form) -> Iterator[Problem]:
    for _, text in _matching(form, r"(?:.*\.)?(?:UserData|LaunchTemplateSpecificationUserData)"):
        try:
            size = len(base64.b64decode(text, validate=True))
        except binascii.Error:
            yield "InvalidUserData.Malformed", "Invalid BASE64 encoding of user data."
        else:
            if size > USER_DATA_LIMIT:
                yield "InvalidParameterValue", f"User data is limited to {USER_DATA_LIMIT} bytes"


def _texts(form: Form) -> Iterator[Problem]:
    token = form.get("ClientToken", "")
    if (
        len(token) > (128 if form["Action"] == "CreateLaunchTemplate" else 64)
        or not token.isascii()
    ):
        yield (
            "InvalidParameterValue",
            "Value for parameter clientToken is invalid. Token is too long.",
        )
    if form["Action"] == "CreateSecurityGroup":
        for name, text in (
            ("groupName", form["GroupName"]),
            ("GroupDescription", form["GroupDescription"]),
        ):
            if not GROUP_TEXT.fullmatch(text) or (name == "groupName" and text.startswith("sg-")):
                yield "InvalidParameterValue", f"Value ({text}) for parameter {name} is invalid."
    for _, text in _matching(form, r"IpPermissions\.\d+\.IpRanges\.\d+\.Description"):
        if not GROUP_TEXT.fullmatch(text):
            yield "InvalidParameterValue", "Invalid rule description."
    for _, name in _matching(form, r"(?:.*\.)?LaunchTemplateName"):
        if not TEMPLATE_NAME.fullmatch(name):
            yield (
                "InvalidLaunchTemplateName.MalformedException",
                f"The launch template name '{name}' is invalid.",
            )


def _numbers(form: Form) -> Iterator[Problem]:
    for _, hops in _matching(form, r"(?:.*\.)?MetadataOptions\.HttpPutResponseHopLimit"):
        if not 1 <= int(hops) <= 64:
            yield (
                "InvalidParameterValue",
                f"Value ({hops}) for parameter HttpPutResponseHopLimit is invalid.",
            )
    for _, price in _matching(form, r"(?:.*\.)?MaxPrice"):
        if float(price) < LEAST_PRICE:
            yield (
                "InvalidParameterValue",
                f"The specified maximum price {price} is below USD {LEAST_PRICE}.",
            )
    for _, priority in _matching(form, r".*\.Overrides\.\d+\.Priority"):
        if float(priority) < 0 or float(priority) % 1:
            yield "InvalidParameterValue", f"The priority {priority} is no whole number from 0."
    if (
        form["Action"] == "CreateFleet"
        and not 1 <= int(form["TargetCapacitySpecification.TotalTargetCapacity"]) <= 10000
    ):
        yield "InvalidTargetCapacitySpecification", "A fleet has 1 to 10000 instances."


def _volumes(form: Form) -> Iterator[Problem]:
    """gp3: https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_EbsBlockDevice.html"""
    for match, kind in _matching(form, r"(.*BlockDeviceMapping\.\d+\.Ebs\.)VolumeType"):
        size, iops, throughput = (
            int(form.get(match[1] + name, least))
            for name, least in (("VolumeSize", 1), ("Iops", 3000), ("Throughput", 125))
        )
        if kind == "gp3" and not (
            1 <= size <= 65536
            and 3000 <= iops <= max(3000, min(80000, 500 * size))
            and 125 <= throughput <= min(2000, iops // 4)
        ):
            yield (
                "InvalidParameterCombination",
                f"gp3 has no volume of {size} GiB with {iops} IOPS and {throughput} MiB/s.",
            )


def misfit(form: Form, backend: Any) -> Problem | None:
    """Why the parts of a RunInstances do not go together, by what moto's backend of the region
    has."""
    image, kind = backend.amis.get(form["ImageId"]), form["InstanceType"]
    known = INSTANCE_TYPES.get(kind, {}).get("ProcessorInfo", {}).get("SupportedArchitectures")
    if image and known and image.architecture not in known:
        told = (
            f"The architecture '{','.join(known)}' of the specified instance type does not match"
            f" the architecture '{image.architecture}' of the specified AMI."
        )
        return "InvalidParameterValue", told
    needed = image.ebs_snapshot.volume.size if image else 0
    for match, device in _matching(form, r"(BlockDeviceMapping\.\d+\.)DeviceName"):
        size = int(form.get(f"{match[1]}Ebs.VolumeSize", needed))
        if image and device == image.root_device_name and size < needed:
            told = (
                f"Volume of size {size}GB is smaller than snapshot '{image.ebs_snapshot.id}',"
                f" expect size >= {needed}GB"
            )
            return "InvalidBlockDeviceMapping", told
    subnet = backend.get_subnet(form["SubnetId"]) if "SubnetId" in form else None
    for _, number in _matching(form, r"SecurityGroupId\.\d+"):
        group = backend.get_security_group_from_id(number)
        if group and subnet and group.vpc_id != subnet.vpc_id:
            return (
                "InvalidParameter",
                f"Security group {number} and subnet {subnet.id} belong to different networks.",
            )
    return None
