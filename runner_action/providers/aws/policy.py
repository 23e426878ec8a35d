"""The IAM policy that a launch needs, by its options: what the calls of this package need, and
no more. Pure.

A test records every call and compares. Keys:
https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonec2.html
"""

from __future__ import annotations

import json
from typing import Any

from runner_action.marks import address_tag
from runner_action.model import OWNER_TAG, REPOSITORY_TAG, Repository
from runner_action.providers.aws import plan as planning
from runner_action.providers.aws.options import options_of
from runner_action.request import CloudRequest

Statement = dict[str, Any]
IMPLIED = {"ec2:CreateTags", "iam:PassRole", "iam:CreateServiceLinkedRole"}
"""Checked by AWS itself during the other calls: no call of ours is for one of these."""


def text(request: CloudRequest, repository: Repository | None = None) -> str:
    return json.dumps(policy(request, repository), indent=2) + "\n"


def policy(request: CloudRequest, repository: Repository | None = None) -> dict[str, Any]:
    """The policy document, for `aws iam create-policy --policy-document`. `repository`: whose
    machines may be terminated; None: those of all repositories that launch in the account."""
    plan = planning.plan(request)
    statements = [
        _looking(plan.image, True in plan.spots),
        *_creating(True in plan.spots),
        _ending(repository),
        *_network(request),
    ]
    if request.permission_set:
        account = request.permission_set.split(":")[4]
        passing = {"StringEquals": {"iam:PassedToService": "ec2.amazonaws.com"}}
        statements.append(
            _allow(
                "GiveTheRoleOfTheInstanceProfile",
                ["iam:PassRole"],
                f"arn:aws:iam::{account}:role/*",
                passing,
            )
        )
    if True in plan.spots:
        service = {"StringEquals": {"iam:AWSServiceName": "spot.amazonaws.com"}}
        role = "arn:aws:iam::*:role/aws-service-role/spot.amazonaws.com/AWSServiceRoleForEC2Spot"
        statements.append(
            _allow("FirstSpotMachineOfTheAccount", ["iam:CreateServiceLinkedRole"], role, service)
        )
    kms_key = options_of(request).kms_key
    if kms_key:
        through = {"StringLike": {"kms:ViaService": "ec2.*.amazonaws.com"}}
        key = kms_key if kms_key.startswith("arn:") else "*"
        actions = [
            "kms:CreateGrant",
            "kms:Decrypt",
            "kms:DescribeKey",
            "kms:GenerateDataKeyWithoutPlaintext",
            "kms:ReEncryptFrom",
            "kms:ReEncryptTo",
        ]
        statements.append(_allow("EncryptDisks", actions, key, through))
    return {"Version": "2012-10-17", "Statement": statements}


def _looking(image: str, spot: bool) -> Statement:
    """Read access, none of which can be limited to a resource."""
    kinds = (
        "Images",
        "InstanceTypeOfferings",
        "Instances",
        "LaunchTemplates",
        "Regions",
        "SecurityGroups",
        "Subnets",
    )
    actions = [f"ec2:Describe{kind}" for kind in kinds]
    actions += ["ec2:DescribeSpotPriceHistory"] if spot else []
    actions += ["ssm:GetParameter"] if image.startswith("ssm:") else []
    return _allow("Look", [*sorted(actions), "sts:DecodeAuthorizationMessage"])


def _creating(spot: bool) -> list[Statement]:
    """Tags may be set at creation only, except on spot requests, which a fleet cannot tag."""
    creations = ["CreateFleet", "CreateLaunchTemplate", "CreateSecurityGroup", "RunInstances"]
    statements = [
        _allow("Create", ["ec2:CreateFleet", "ec2:CreateLaunchTemplate", "ec2:RunInstances"]),
        _allow(
            "TagWhatIsCreated",
            ["ec2:CreateTags"],
            "arn:aws:ec2:*:*:*/*",
            {"StringEquals": {"ec2:CreateAction": creations}},
        ),
    ]
    return (
        [
            *statements,
            _allow(
                "TagSpotRequests", ["ec2:CreateTags"], "arn:aws:ec2:*:*:spot-instances-request/*"
            ),
        ]
        if spot
        else statements
    )


def _ending(repository: Repository | None) -> Statement:
    """Only machines with our tags may be terminated, or their consoles read.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_variables.html: in a value
    `${` begins a variable, which no address of a repository has.
    """
    whose = {f"ec2:ResourceTag/{OWNER_TAG}": "runner"}
    if repository:
        whose[f"ec2:ResourceTag/{REPOSITORY_TAG}"] = address_tag(repository)
    actions = ["ec2:GetConsoleOutput", "ec2:TerminateInstances"]
    return _allow("EndWhatIsOurs", actions, "arn:aws:ec2:*:*:instance/*", {"StringEquals": whose})


def _network(request: CloudRequest) -> list[Statement]:
    if options_of(request).security_group:
        return []
    actions = ["ec2:CreateSecurityGroup"] + (
        ["ec2:AuthorizeSecurityGroupIngress"] if request.ssh_public_key else []
    )
    return [_allow("MakeOurSecurityGroup", sorted(actions))]


def _allow(
    name: str, actions: list[str], resource: str = "*", condition: dict[str, Any] | None = None
) -> Statement:
    return {
        "Sid": name,
        "Effect": "Allow",
        "Action": actions,
        "Resource": resource,
        **({"Condition": condition} if condition else {}),
    }
