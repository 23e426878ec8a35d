"""The printed policy is what the provider really asks for: every call recorded, both ways."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import boto3
import pytest

from runner_action import cli
from runner_action.errors import ProviderError
from runner_action.providers.aws.policy import IMPLIED, policy
from runner_action.sandbox.clouds.aws.ec2 import ONLOOKER, FakeEC2
from tests.contracts.test_aws import client
from tests.contracts.test_provider import Side, aws, ec2, machine

__all__ = ["ec2"]
SERVICES = {"GetParameter": "ssm", "DecodeAuthorizationMessage": "sts"}
OPTIONS: dict[str, list[str]] = {
    "plain": [],
    "gpu": ["--cloud-type=m+l4"],
    "spot": ["--cloud-spot=prefer"],
    "parameter": ["--cloud-image=ssm:/our/image"],
    "profile": ["--cloud-permission-set=arn:aws:iam::123456789012:instance-profile/train"],
    "group": ["--cloud-aws-security-group=ours"],
    "key": ["--cloud-ssh-private"],
    "kms": ["--cloud-aws-kms-key=alias/disks"],
}


def actions_of(document: dict[str, Any]) -> set[str]:
    return {action for statement in document["Statement"] for action in statement["Action"]}


@pytest.mark.parametrize("name", OPTIONS)
def test_the_recorded_calls_are_the_policy(name: str, ec2: FakeEC2) -> None:
    """All that a provider can do, with everything that can go wrong in a way that makes it ask
    more."""
    words = [word for word in OPTIONS[name] if word != "--cloud-ssh-private"]
    vpc = client(ec2).describe_vpcs()["Vpcs"][0]["VpcId"]
    client(ec2).create_security_group(GroupName="ours", Description="x", VpcId=vpc)
    parameters = boto3.client(
        "ssm",
        region_name="us-east-1",
        endpoint_url=ec2.url,
        aws_access_key_id=ONLOOKER,
        aws_secret_access_key="y",
    )
    parameters.put_parameter(Name="/our/image", Value="ami-" + "a" * 17, Type="String")
    identities = boto3.client(
        "iam",
        region_name="us-east-1",
        endpoint_url=ec2.url,
        aws_access_key_id=ONLOOKER,
        aws_secret_access_key="y",
    )
    with contextlib.suppress(identities.exceptions.EntityAlreadyExistsException):
        identities.create_instance_profile(InstanceProfileName="train")
    ec2.calls.clear()
    asked = None
    for place in ("us-east", "us-east-1a"):  # a fleet, and a single pool
        side = Side(aws(ec2), ec2)
        cloud = side.request(f"--cloud-region={place}", *words)
        asked = replace(cloud, ssh_public_key="ssh-rsa AAAA") if name == "key" else cloud
        ladder = side.provider.resolve(side.provider.plan(asked), asked)
        made = side.create(ladder[0], machine(f"cml-{place}"))
        side.provider.console(side.provider.look(made))
        assert "us-east-1" in side.provider.regions()
        side.provider.cost(side.provider.look(made), datetime.now(UTC))
        side.provider.destroy(made.name)
        assert side.provider.find({}) == []
    ec2.refuse(
        lambda form: form["Action"] == "RunInstances",
        "UnauthorizedOperation",
        403,
        "No. Encoded authorization failure message: blob",
    )
    with pytest.raises(ProviderError):
        side.create(ladder[0], machine("cml-refused"))
    recorded = {f"{SERVICES.get(call['Action'], 'ec2')}:{call['Action']}" for call in ec2.calls}
    assert asked
    allowed = actions_of(policy(asked))
    assert recorded - IMPLIED == {
        action for action in allowed - IMPLIED if not action.startswith("kms:")
    }
    # Tags at a birth are asked for by AWS itself; those of a spot request are given by a call of
    # ours.
    by_call = [
        statement
        for statement in policy(asked)["Statement"]
        if "ec2:CreateTags" in statement["Action"] and "Condition" not in statement
    ]
    assert bool(by_call) is ("ec2:CreateTags" in recorded)
    # What AWS asks for besides is there when its reason is.
    assert (
        "iam:PassRole" in allowed,
        "iam:CreateServiceLinkedRole" in allowed,
        "kms:CreateGrant" in allowed,
    ) == (
        name == "profile",
        name == "spot",
        name == "kms",
    )


def test_the_command_prints_it_and_needs_neither_token_nor_repository(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["permissions", "aws", "--cloud-spot=prefer"], {}) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["Version"] == "2012-10-17"
    assert "ec2:DescribeSpotPriceHistory" in actions_of(document)
    assert "*" not in {action.rpartition(":")[2] for action in actions_of(document)}
    for statement in document["Statement"]:
        assert statement["Sid"].isalnum()


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (
            ["permissions"],
            "permissions must be followed by one of `aws`, `azure`, `gcp`, `kubernetes`, `github`",
        ),
        (["permissions", "aws", "--cloud-gpu=p100"], "--cloud-gpu=p100 must be"),
    ],
)
def test_what_it_does_not_know_is_told(
    argv: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(argv, {}) == 2
    assert words in capsys.readouterr().err


def test_a_launch_may_end_the_machines_of_its_own_repository_alone(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """And who does not say which, is told."""
    assert cli.main(["permissions", "aws", "--repo=https://github.com/octo/train"], {}) == 0
    told = capsys.readouterr()
    assert told.err == ""
    assert ending(told.out) == {
        "ec2:ResourceTag/cml-runner": "runner",
        "ec2:ResourceTag/cml-runner:repository": "https://github.com/octo/train",
    }
    assert cli.main(["permissions", "aws"], {}) == 0
    told = capsys.readouterr()
    assert "the machines of all repositories" in told.err
    assert ending(told.out) == {"ec2:ResourceTag/cml-runner": "runner"}


def ending(text: str) -> dict[str, str]:
    (found,) = [one for one in json.loads(text)["Statement"] if one["Sid"] == "EndWhatIsOurs"]
    condition: dict[str, str] = found["Condition"]["StringEquals"]
    return condition
