"""EC2 is eventually consistent: what a call has just made, other calls may not know yet.

https://docs.aws.amazon.com/ec2/latest/devguide/eventual-consistency.html names a machine that was
started, a security group and a tag. Here each kind of call does not know what is new when it first
asks for it, nor lists it then.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from xml.etree import ElementTree as ET

Form = dict[str, str]
Problem = tuple[str, str]
"""Code and message."""
NAMES = re.compile(
    r"(?:InstanceId|GroupId|SecurityGroupId|ResourceId|LaunchTemplateId)(?:\.\d+)?"
    r"|LaunchTemplateConfigs\.\d+\.LaunchTemplateSpecification\.LaunchTemplateName"
)
"""Parameters that name what must be there."""
LISTED = {
    "DescribeInstances": ("instancesSet", "instanceId"),
    "DescribeSecurityGroups": ("securityGroupInfo", "groupId"),
    "DescribeLaunchTemplates": ("launchTemplates", "launchTemplateId"),
}
"""Where an answer has its list, and the id of an entry."""
UNKNOWN = {
    "i-": ("InvalidInstanceID.NotFound", "The instance ID '{}' does not exist"),
    "sg-": ("InvalidGroup.NotFound", "The security group '{}' does not exist"),
    "sir-": (
        "InvalidSpotInstanceRequestID.NotFound",
        "The spot instance request ID '{}' does not exist",
    ),
    "lt-": (
        "InvalidLaunchTemplateId.NotFound",
        "The specified launch template, with template ID {}, does not exist.",
    ),
    "": (
        "InvalidLaunchTemplateName.NotFoundException",
        "The specified launch template, with template name {}, does not exist.",
    ),
}
"""By how an id begins. A template may also be named.
https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html"""


@dataclass
class Consistency:
    """`looks`: how often each kind of call does not know what is new. `seconds`: how long it is
    new."""

    looks: int = 1
    seconds: float = 1.0
    _unknown: dict[str, Counter[str]] = field(default_factory=dict)
    """What is new, and how often each kind of call has not known it."""
    _since: dict[str, float] = field(default_factory=dict)

    def new(self, *names: str) -> None:
        for name in names:
            self._unknown.setdefault(name, Counter())
            self._since.setdefault(name, time.monotonic())

    def settle(self) -> None:
        """Some time later everything is known."""
        self._unknown.clear()
        self._since.clear()

    def problem(self, form: Form) -> Problem | None:
        """Why a call fails that names what is new; None if it names nothing of that kind."""
        unknown = [name for name in named(form) if not self._knows(form["Action"], name)]
        for name in unknown:
            code, message = next(UNKNOWN[start] for start in UNKNOWN if name.startswith(start))
            return code, message.format(name)
        return None

    def listed(self, form: Form, content: bytes) -> bytes:
        """The answer to a call that lists, without what is new."""
        action = form["Action"]
        there = {name for name in list(self._unknown) if name.encode() in content}
        if action not in LISTED or named(form):
            return content
        hidden = {name for name in there if not self._knows(action, name)}
        return without(content, action, hidden) if hidden else content

    def _knows(self, action: str, name: str) -> bool:
        if name not in self._unknown or self._unknown[name][action] >= self.looks:
            return True
        if time.monotonic() - self._since[name] > self.seconds:
            return True
        self._unknown[name][action] += 1
        return False


def named(form: Form) -> list[str]:
    return [value for key, value in form.items() if NAMES.fullmatch(key)]


def without(content: bytes, action: str, hidden: Collection[str]) -> bytes:
    """An answer without the entries of these ids."""
    root = ET.fromstring(content)
    listing, key = LISTED[action]
    for entries in list(root.iter(f"{{*}}{listing}")):
        for entry in list(entries):
            if entry.findtext(f"{{*}}{key}") in hidden:
                entries.remove(entry)
    namespace = root.tag[1:].partition("}")[0]
    return ET.tostring(root, default_namespace=namespace)
