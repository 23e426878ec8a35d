"""Our security groups, two in each VPC: one without inbound rules, and one with port 22 open, for
launches with an SSH key."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from botocore.exceptions import ClientError

from runner_action.errors import ConfigurationError, NotOurs
from runner_action.providers.aws import requests
from runner_action.providers.aws.errors import code_of
from runner_action.waiting import Clock, wait_for

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client

T = TypeVar("T")
SSH = (22, 22)
KNOWN_SECONDS = 30.0
"""How long other calls may not know a new group: EC2 is eventually consistent. AWS recommends to
wait until DescribeSecurityGroups knows it.
https://docs.aws.amazon.com/ec2/latest/devguide/eventual-consistency.html"""


def complete(client: EC2Client, with_ssh: bool) -> dict[str, str]:
    """The ids of our groups that are ready, by VPC. Raises ConfigurationError if somebody has
    opened one further."""
    return {
        vpc: group["GroupId"]
        for vpc, group in _own(client, with_ssh).items()
        if not with_ssh or SSH in _ports(group)
    }


def create(client: EC2Client, vpc: str, with_ssh: bool, clock: Clock) -> str:
    """Creates the group that a VPC lacks, or completes one that another launch has begun, perhaps
    one that ended before it opened the port. Returns its id."""
    try:
        group = client.create_security_group(**requests.security_group(vpc, with_ssh))["GroupId"]
    except ClientError as error:
        if code_of(error) != "InvalidGroup.Duplicate":
            raise
        group = _waited(clock, lambda: _other_launch_s(client, vpc, with_ssh))
    _waited(clock, lambda: _known(client, group))
    if with_ssh:
        _waited(clock, lambda: _opened(client, group))
    return group


def _waited(clock: Clock, probe: Callable[[], T | None]) -> T:
    return wait_for(probe, "EC2 to know the security group", clock=clock, timeout=KNOWN_SECONDS)


def _other_launch_s(client: EC2Client, vpc: str, with_ssh: bool) -> str | None:
    """The id of the group that another launch has just created; None if it is not listed yet.
    Raises NotOurs."""
    own = _own(client, with_ssh).get(vpc)
    if own:
        return str(own["GroupId"])
    name = requests.group_name(with_ssh)
    query = requests.filters({"group-name": name, "vpc-id": vpc})
    if not client.describe_security_groups(Filters=query)["SecurityGroups"]:  # type: ignore[arg-type]
        return None
    raise NotOurs(
        f"a security group {name} in {vpc}",
        "Rename it, or give a group of your own as `cloud-aws-security-group`.",
    )


def _known(client: EC2Client, group: str) -> bool | None:
    return _unless_unknown(lambda: client.describe_security_groups(GroupIds=[group]))


def _opened(client: EC2Client, group: str) -> bool | None:
    try:
        return _unless_unknown(
            lambda: client.authorize_security_group_ingress(GroupId=group, **requests.SSH_IN)
        )
    except ClientError as error:
        if code_of(error) != "InvalidPermission.Duplicate":
            raise
        return True


def _unless_unknown(call: Callable[[], object]) -> bool | None:
    """True; None if EC2 does not know the group yet."""
    try:
        call()
    except ClientError as error:
        if code_of(error) == "InvalidGroup.NotFound":
            return None
        raise
    return True


def _own(client: EC2Client, with_ssh: bool) -> dict[str, Mapping[str, Any]]:
    """Our groups by VPC: those with our name and tag, and with our description."""
    answer = client.describe_security_groups(**requests.group_query(None, with_ssh))
    description = requests.group_description(with_ssh)
    groups = [group for group in answer["SecurityGroups"] if group["Description"] == description]
    for group in groups:
        if _ports(group) - ({SSH} if with_ssh else set()):
            text = (
                f"The security group {group['GroupId']} ({requests.group_name(with_ssh)}) has"
                " inbound rules that cml-runner did not add."
            )
            raise ConfigurationError(
                text, "Remove the rules, or give a group of your own as `cloud-aws-security-group`."
            )
    return {group["VpcId"]: group for group in groups}


def _ports(group: Mapping[str, Any]) -> set[tuple[int | None, int | None]]:
    return {(rule.get("FromPort"), rule.get("ToPort")) for rule in group["IpPermissions"]}
