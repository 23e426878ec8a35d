"""AWS alone, over HTTP against moto made stricter: what is asked, what is made, and what each
refusal leads to. Both ways: a single pool by RunInstances, several by CreateFleet."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.backends import get_backend
from moto.ec2.models.instances import StateReason

from runner_action.errors import (
    CapacityError,
    ConfigurationError,
    CredentialsError,
    ProviderError,
    QuotaError,
)
from runner_action.model import RUN_TAG as RUN
from runner_action.model import Instance
from runner_action.providers.aws import errors as aws_errors
from runner_action.providers.aws.client import AwsProvider
from runner_action.sandbox.clouds.aws.ec2 import ACCOUNT, ONLOOKER, FakeEC2
from tests.contracts.test_provider import Side, aws, ec2, machine
from tests.fakes import FakeClock
from tests.test_launch import cloud_of

__all__ = ["ec2"]
WAYS = {"RunInstances": "--cloud-region=us-east-1a", "CreateFleet": "--cloud-region=us-east"}


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def side(ec2: FakeEC2) -> Side:
    return Side(aws(ec2), ec2)


def client(ec2: FakeEC2, region: str = "us-east-1") -> Any:
    return boto3.client(
        "ec2",
        region_name=region,
        endpoint_url=ec2.url,
        aws_access_key_id=ONLOOKER,
        aws_secret_access_key="y",
    )


def seen(ec2: FakeEC2, made: Instance) -> Any:
    return client(ec2, made.region).describe_instances(InstanceIds=[made.id])["Reservations"][0][
        "Instances"
    ][0]


def tags_of(thing: Any) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in thing["Tags"]}


# --- what is asked


LOOKUPS = [
    "DescribeImages",
    "DescribeInstanceTypeOfferings",
    "DescribeSecurityGroups",
    "DescribeSubnets",
]


def test_every_call_is_made_once(ec2: FakeEC2, way: str) -> None:
    """The new security group is looked for before it is used."""
    ec2.consistency.looks = 0
    first = ["CreateSecurityGroup", "DescribeSecurityGroups"]
    first += ["CreateFleet", "CreateLaunchTemplate"] if way == "CreateFleet" else []
    for made, name in ((first, "cml-1"), ([], "cml-2")):
        side = Side(aws(ec2), ec2)
        side.create(side.ladder(WAYS[way])[0], machine(name))
        assert sorted(ec2.actions()) == sorted([*LOOKUPS, *made, way])
        ec2.calls.clear()


def test_the_image_is_canonicals_though_somebody_has_a_newer_one_of_that_name(
    ec2: FakeEC2, side: Side
) -> None:
    assert seen(ec2, side.create())["ImageId"] == "ami-" + "a" * 17
    asked = next(call for call in ec2.calls if call["Action"] == "DescribeImages")
    assert asked["Owner.1"] == "099720109477"
    assert (
        seen(ec2, side.create(side.ladder("--cloud-type=t4g.small")[0], machine("cml-arm")))[
            "ImageId"
        ]
        == "ami-" + "b" * 17
    )


@pytest.mark.parametrize(("kind", "letter"), [("m+t4", "d"), ("g5g.xlarge", "e")])
def test_a_gpu_comes_with_the_image_that_has_its_driver(
    kind: str, letter: str, ec2: FakeEC2, side: Side
) -> None:
    assert (
        seen(ec2, side.create(side.ladder(f"--cloud-type={kind}")[0], machine()))["ImageId"]
        == "ami-" + letter * 17
    )


def test_an_image_from_a_parameter(ec2: FakeEC2, side: Side) -> None:
    parameters = boto3.client(
        "ssm",
        region_name="us-east-1",
        endpoint_url=ec2.url,
        aws_access_key_id=ONLOOKER,
        aws_secret_access_key="y",
    )
    parameters.put_parameter(Name="/our/image", Value="ami-" + "a" * 17, Type="String")
    assert (
        seen(ec2, side.create(side.ladder("--cloud-image=ssm:/our/image")[0], machine()))["ImageId"]
        == "ami-" + "a" * 17
    )
    with pytest.raises(ConfigurationError, match="There is no parameter /our/other in us-east-1"):
        side.ladder("--cloud-image=ssm:/our/other")


@pytest.mark.parametrize("image", ["099720109477:iterative-cml", "ami-0123456789abcdef0"])
def test_a_missing_image_is_an_error_and_no_other_system(image: str, side: Side) -> None:
    with pytest.raises(ConfigurationError, match=f"There is no image {image} for x64 in us-east-1"):
        side.ladder(f"--cloud-image={image}")


def test_an_image_of_the_other_architecture_is_refused(side: Side) -> None:
    with pytest.raises(ConfigurationError, match=r"is for arm64, the type m6i\.2xlarge is x86_64"):
        side.ladder(f"--cloud-image=ami-{'b' * 17}")


def test_only_zones_that_offer_the_type_are_asked(side: Side) -> None:
    """moto's offers are AWS's own: us-east-1e is old."""
    subnets = client(side.ec2).describe_subnets()["Subnets"]  # type: ignore[arg-type]
    assert {one["AvailabilityZone"] for one in subnets} - {
        pool.zone for pool in side.ladder()[0].pools
    } == {"us-east-1e"}
    with pytest.raises(ConfigurationError, match=r"AWS does not offer m6i\.nonsense in us-east-1a"):
        side.ladder("--cloud-type=m6i.nonsense", "--cloud-region=us-east-1a")


def test_older_policies_need_not_allow_what_only_helps_to_choose(ec2: FakeEC2, side: Side) -> None:
    ec2.refuse(
        lambda form: (
            form["Action"] in ("DescribeInstanceTypeOfferings", "DescribeSpotPriceHistory")
        ),
        "UnauthorizedOperation",
        403,
    )
    assert len(side.ladder("--cloud-spot")[0].pools) > 1


def test_the_spot_price_is_told_before_the_launch(
    side: Side, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    side.ladder("--cloud-spot", "--cloud-spot-price=0.01")
    assert "Spot price in us-east-1 now, USD an hour: m6i.2xlarge 0." in caplog.text
    assert "(above `cloud-spot-price`)" in caplog.text


# --- the ladder


def test_regions_types_and_markets_in_the_users_order(side: Side) -> None:
    ladder = side.ladder(
        "--cloud-region=eu-west,us-east-1b",
        "--cloud-type=g6.xlarge,g5.xlarge",
        "--cloud-spot=prefer",
    )
    assert [(rung.region, rung.spot) for rung in ladder] == [
        ("eu-west-1", True),
        ("us-east-1", True),
        ("eu-west-1", False),
        ("us-east-1", False),
    ]
    assert list(dict.fromkeys(pool.instance_type for pool in ladder[1].pools)) == [
        "g6.xlarge",
        "g5.xlarge",
    ]
    assert {pool.zone for pool in ladder[1].pools} == {"us-east-1b"}


def test_a_region_that_cannot_serve_is_told_and_left_out(
    side: Side, caplog: pytest.LogCaptureFixture
) -> None:
    subnets = client(side.ec2, "eu-north-1").describe_subnets()["Subnets"]  # type: ignore[arg-type]
    for subnet in subnets:
        client(side.ec2, "eu-north-1").delete_subnet(SubnetId=subnet["SubnetId"])  # type: ignore[arg-type]
    assert {rung.region for rung in side.ladder("--cloud-region=eu-north,us-east")} == {"us-east-1"}
    assert "This account has no default subnet in eu-north-1" in caplog.text
    with pytest.raises(ConfigurationError, match="no default subnet in eu-north-1") as caught:
        side.ladder("--cloud-region=eu-north")
    assert "create-default-vpc" in caught.value.hint


def test_one_call_tries_all_pools_and_takes_the_one_that_has_a_machine(
    ec2: FakeEC2, side: Side
) -> None:
    ec2.stock, ec2.consistency.looks = {("g6.xlarge",): 0}, 0
    made = side.create(side.ladder("--cloud-type=g6.xlarge,g5.xlarge")[0], machine())
    assert made.instance_type == seen(ec2, made)["InstanceType"] == "g5.xlarge"
    assert made.zone == seen(ec2, made)["Placement"]["AvailabilityZone"]
    assert ec2.actions().count("CreateFleet") == 2  # the first made the launch template known
    assert "RunInstances" not in ec2.actions()


def test_what_a_fleet_has_not_is_told_pool_by_pool(ec2: FakeEC2, side: Side) -> None:
    ec2.stock = {("g6.xlarge",): 2}
    created = side.provider.create(side.ladder("--cloud-type=g6.xlarge")[0], machine(), 5)
    assert len(created.instances) == 2
    assert isinstance(created.shortage, CapacityError)
    with pytest.raises(
        CapacityError,
        match=(
            r"creating g6\.xlarge on-demand in us-east-1a: InsufficientInstanceCapacity.*; AWS"
            r" refused.*us-east-1"
        ),
    ):
        side.provider.create(side.ladder("--cloud-type=g6.xlarge")[0], machine("cml-2"), 5)


def test_without_the_right_to_fleets_it_goes_zone_by_zone(
    ec2: FakeEC2, side: Side, caplog: pytest.LogCaptureFixture
) -> None:
    ec2.consistency.looks = 0
    ec2.refuse(
        lambda form: form["Action"] == "CreateFleet", "UnauthorizedOperation", 403, "You may not."
    )
    ladder = side.ladder()
    ec2.stock = {("m6i.2xlarge", ladder[0].pools[0].subnet_id, "on-demand"): 0}  # type: ignore[attr-defined]
    made = side.create(ladder[0], machine())
    assert made.zone == ladder[0].pools[1].zone
    assert "Asking zone by zone instead" in caplog.text
    assert ec2.actions().count("RunInstances") == 2


def test_several_from_one_call(ec2: FakeEC2, side: Side, way: str) -> None:
    ladder = side.ladder(WAYS[way])
    created = side.provider.create(ladder[0], machine(), 20)
    assert len({one.id for one in created.instances}) == 20
    assert created.shortage is None
    again = side.provider.create(ladder[0], machine(), 20)
    assert {one.id for one in again.instances} == {one.id for one in created.instances}
    assert {one.id for one in side.provider.find({})} == {one.id for one in created.instances}


# --- what is made


def test_what_an_instance_is_made_of(ec2: FakeEC2, side: Side, way: str) -> None:
    made = side.create(
        side.ladder(
            WAYS[way],
            "--cloud-hdd-size=9",
            "--cloud-aws-hdd-iops=4000",
            "--cloud-aws-hdd-throughput=500",
        )[0],
        machine(),
    )
    instance = seen(ec2, made)
    group = client(ec2).describe_security_groups(
        GroupIds=[instance["SecurityGroups"][0]["GroupId"]]
    )["SecurityGroups"][0]
    assert (group["GroupName"], group["IpPermissions"]) == ("cml-runner", [])
    assert tags_of(group)["cml-runner"] == "security-group"
    volume = client(ec2).describe_volumes(
        VolumeIds=[instance["BlockDeviceMappings"][0]["Ebs"]["VolumeId"]]
    )["Volumes"][0]
    assert (volume["VolumeType"], volume["Encrypted"], volume["Size"]) == (
        "gp3",
        True,
        15,
    )  # the image's own size
    asked = next(call for call in reversed(ec2.calls) if call["Action"] == way)
    assert {
        key.rpartition(".")[2]: value
        for key, value in asked.items()
        if key.endswith(("Ebs.Throughput", "Ebs.Iops"))
    } == {
        "Iops": "4000",
        "Throughput": "500",
    }
    for tagged in (instance, volume):
        assert tags_of(tagged)["cml-runner:name"] == "cml-1"
    assert client(ec2).describe_instance_attribute(
        InstanceId=made.id, Attribute="instanceInitiatedShutdownBehavior"
    )["InstanceInitiatedShutdownBehavior"] == {"Value": "terminate"}
    assert client(ec2).describe_instance_attribute(InstanceId=made.id, Attribute="userData")[
        "UserData"
    ]["Value"]


def test_nothing_of_a_launch_stays_in_the_launch_template(ec2: FakeEC2, side: Side) -> None:
    side.create(side.ladder()[0], machine(user_data=b"canary-user-data"))
    (template,) = client(ec2).describe_launch_templates()["LaunchTemplates"]
    version = client(ec2).describe_launch_template_versions(
        LaunchTemplateId=template["LaunchTemplateId"]
    )["LaunchTemplateVersions"]
    assert "canary" not in json.dumps(version, default=str)
    assert tags_of(template)["cml-runner"] == "launch-template"
    assert version[0]["LaunchTemplateData"]["MetadataOptions"]["HttpTokens"] == "required"


def test_spot_with_a_cap_and_tags_on_everything(ec2: FakeEC2, side: Side, way: str) -> None:
    side.create(side.ladder(WAYS[way], "--cloud-spot", "--cloud-spot-price=0.25")[0], machine())
    asked = next(call for call in reversed(ec2.calls) if call["Action"] == way)
    assert "0.25000" in asked.values()
    kinds = {value for key, value in asked.items() if key.endswith("ResourceType")}
    assert {"instance", "volume", "network-interface"} < kinds
    assert seen(ec2, side.provider.find({})[0])["InstanceLifecycle"] == "spot"


def test_a_fleets_spot_requests_get_their_tags_afterwards(ec2: FakeEC2, side: Side) -> None:
    ladder = side.ladder("--cloud-spot")
    side.create(ladder[0], machine())
    tagged = [call for call in ec2.calls if call["Action"] == "CreateTags"]
    assert {call["ResourceId.1"][:4] for call in tagged} == {"sir-"}
    assert "cml-1" in tagged[-1].values()


def test_ssh_opens_port_22_and_nothing_else(ec2: FakeEC2, side: Side) -> None:
    cloud = replace(side.request(), ssh_public_key="ssh-rsa AAAA")
    made = side.create(
        next(iter(side.provider.resolve(side.provider.plan(cloud), cloud))), machine()
    )
    assert made.login == "ubuntu"
    groups = {
        group["GroupName"]: group
        for group in client(ec2).describe_security_groups()["SecurityGroups"]
    }
    assert [
        (rule["FromPort"], rule["ToPort"]) for rule in groups["cml-runner-ssh"]["IpPermissions"]
    ] == [(22, 22)]


@pytest.mark.parametrize("code", ["UnauthorizedOperation", "InvalidGroup.NotFound"])
def test_a_group_whose_port_was_never_opened_is_completed_by_the_next_launch(
    code: str, ec2: FakeEC2
) -> None:
    """It is there and is ours, but nobody could log in; and what was made a moment ago is not
    known everywhere at once."""
    cloud = replace(Side(aws(ec2), ec2).request(), ssh_public_key="ssh-rsa AAAA")
    ec2.refuse(lambda form: form["Action"] == "AuthorizeSecurityGroupIngress", code, times=1)
    for name in ("cml-1", "cml-2"):
        side = Side(aws(ec2), ec2)
        with contextlib.suppress(CredentialsError):
            side.create(
                next(iter(side.provider.resolve(side.provider.plan(cloud), cloud))), machine(name)
            )
    (group,) = [
        group
        for group in client(ec2).describe_security_groups()["SecurityGroups"]
        if group["GroupName"] == "cml-runner-ssh"
    ]
    assert [(rule["FromPort"], rule["ToPort"]) for rule in group["IpPermissions"]] == [(22, 22)]
    assert len(side.provider.find({"cml-runner:name": "cml-2"})) == 1
    assert len(side.provider.find({"cml-runner:name": "cml-1"})) == (
        code == "InvalidGroup.NotFound"
    )


def test_a_group_of_ours_that_somebody_opened_is_refused(ec2: FakeEC2, side: Side) -> None:
    side.create()
    group = next(
        one
        for one in client(ec2).describe_security_groups()["SecurityGroups"]
        if one["GroupName"] == "cml-runner"
    )
    client(ec2).authorize_security_group_ingress(
        GroupId=group["GroupId"],
        IpPermissions=[
            {
                "IpProtocol": "tcp",
                "FromPort": 1,
                "ToPort": 65535,
                "IpRanges": [{"CidrIp": "0.0.0.0/0"}],
            }
        ],
    )
    with pytest.raises(ConfigurationError, match="inbound rules that cml-runner did not add"):
        Side(aws(ec2), ec2).ladder()


def test_two_launches_race_for_group_and_template(ec2: FakeEC2) -> None:
    one, two = Side(aws(ec2), ec2), Side(aws(ec2), ec2)
    ladders = one.ladder(), two.ladder()
    one.create(ladders[0][0], machine("cml-1"))
    ec2.refuse(
        lambda form: form["Action"] == "CreateFleet",
        "InvalidLaunchTemplateName.NotFoundException",
        times=1,
    )
    two.create(ladders[1][0], machine("cml-2"))
    groups = [
        group
        for group in client(ec2).describe_security_groups()["SecurityGroups"]
        if group["GroupName"] == "cml-runner"
    ]
    assert len(groups) == 1
    assert len(client(ec2).describe_launch_templates()["LaunchTemplates"]) == 1


# --- the user's own network


def test_given_subnets_and_zones_are_taken(ec2: FakeEC2, side: Side) -> None:
    subnets = {
        one["AvailabilityZone"]: one["SubnetId"]
        for one in client(ec2).describe_subnets()["Subnets"]
    }
    by_subnet = side.ladder(f"--cloud-aws-subnet={subnets['us-east-1b']},{subnets['us-east-1a']}")
    assert {pool.zone for pool in by_subnet[0].pools} == {"us-east-1a", "us-east-1b"}
    by_zone = side.ladder("--cloud-region=us-east-1c,us-east-1b")
    assert [pool.zone for pool in by_zone[0].pools] == ["us-east-1c", "us-east-1b"]
    with pytest.raises(ConfigurationError, match="InvalidSubnetID"):
        side.ladder("--cloud-aws-subnet=subnet-0123456789abcdef0")
    with pytest.raises(
        ConfigurationError,
        match=r"subnets of `cloud-aws-subnet` is in us-east-1a: subnet-\w+ in us-east-1b",
    ):
        side.ladder("--cloud-region=us-east-1a", f"--cloud-aws-subnet={subnets['us-east-1b']}")


def test_a_private_subnet_gives_no_public_address(ec2: FakeEC2, side: Side) -> None:
    vpc = client(ec2).create_vpc(CidrBlock="10.1.0.0/16")["Vpc"]["VpcId"]
    subnet = client(ec2).create_subnet(
        VpcId=vpc, CidrBlock="10.1.0.0/24", AvailabilityZone="us-east-1a"
    )["Subnet"]["SubnetId"]
    made = side.provider.look(
        side.create(side.ladder(f"--cloud-aws-subnet={subnet}")[0], machine())
    )
    assert made.address.startswith("10.1.0.")
    assert seen(ec2, made)["VpcId"] == vpc


def test_a_security_group_by_id_or_name_in_the_subnets_vpc(ec2: FakeEC2, side: Side) -> None:
    vpc = client(ec2).create_vpc(CidrBlock="10.1.0.0/16")["Vpc"]["VpcId"]
    subnet = client(ec2).create_subnet(
        VpcId=vpc, CidrBlock="10.1.0.0/24", AvailabilityZone="us-east-1a"
    )["Subnet"]["SubnetId"]
    group = client(ec2).create_security_group(GroupName="our runners", Description="x", VpcId=vpc)[
        "GroupId"
    ]
    for word in (group, "our runners"):
        made = side.create(
            side.ladder(f"--cloud-aws-security-group={word}", f"--cloud-aws-subnet={subnet}")[0],
            machine(f"cml-{word[:3].strip()}"),
        )
        assert [one["GroupId"] for one in seen(ec2, made)["SecurityGroups"]] == [group]
    with pytest.raises(
        ConfigurationError,
        match=f"The security group our runners is in {vpc}, the subnets are in vpc-",
    ):
        side.ladder("--cloud-aws-security-group=our runners")
    with pytest.raises(ConfigurationError, match="There is no security group others in us-east-1"):
        side.ladder("--cloud-aws-security-group=others")


# --- refusals


CODES = [
    ("InsufficientInstanceCapacity", 500, CapacityError),
    ("Unsupported", 400, CapacityError),
    ("SpotMaxPriceTooLow", 400, CapacityError),
    ("VcpuLimitExceeded", 400, QuotaError),
    ("MaxSpotInstanceCountExceeded", 400, QuotaError),
    ("UnauthorizedOperation", 403, CredentialsError),
    ("AuthFailure", 401, CredentialsError),
    ("InvalidParameterValue", 400, ConfigurationError),
]


def creating(form: dict[str, str]) -> bool:
    return form["Action"] == "RunInstances"


@pytest.mark.parametrize(("code", "status", "kind"), CODES)
def test_each_refusal_is_the_class_that_says_what_to_do_next(
    code: str, status: int, kind: type[ProviderError], ec2: FakeEC2, side: Side, way: str
) -> None:
    ladder = side.ladder(WAYS[way])
    ec2.refuse(
        creating, code, status, "Words of AWS. Encoded authorization failure message: canary-blob"
    )
    with pytest.raises(
        kind, match=rf"creating m6i.2xlarge on.demand in us-east-1.: {code}: Words of AWS"
    ) as caught:
        side.create(ladder[0], machine())
    assert caught.value.hint
    assert "canary" not in str(caught.value) + caught.value.hint
    assert side.provider.find({}) == []


def test_a_zone_without_the_type_ends_a_fleets_rung_and_not_the_ladder(
    ec2: FakeEC2, side: Side
) -> None:
    """In a fleet's own words; seen where the look-up of offers is not permitted."""
    told = (
        "Your requested instance type (m6i.2xlarge) is not supported in your requested Availability"
        " Zone (us-east-1e)."
    )
    ladder = side.ladder()
    ec2.refuse(creating, "InvalidFleetConfiguration", 400, told)
    with pytest.raises(CapacityError, match="is not supported in your requested Availability Zone"):
        side.create(ladder[0], machine())


def test_the_reason_of_a_missing_permission_is_decoded(ec2: FakeEC2, side: Side) -> None:
    ladder = side.ladder(
        WAYS["RunInstances"],
        "--cloud-permission-set=arn:aws:iam::123456789012:instance-profile/train",
    )
    ec2.refuse(
        creating,
        "UnauthorizedOperation",
        403,
        "You are not authorized. Encoded authorization failure message: canary-blob",
    )
    ec2.decoded = json.dumps(
        {
            "allowed": False,
            "explicitDeny": False,
            "context": {
                "action": "iam:PassRole",
                "resource": "arn:aws:iam::123456789012:role/train",
            },
        }
    )
    with pytest.raises(
        CredentialsError,
        match=(
            r"It needs iam:PassRole on arn:aws:iam::123456789012:role/train, and no policy allows"
            r" it\."
        ),
    ) as caught:
        side.create(ladder[0], machine())
    assert "iam:PassRole" in caught.value.hint


def test_throttling_is_waited_out_with_the_same_token(ec2: FakeEC2, side: Side, way: str) -> None:
    ladder = side.ladder(WAYS[way])
    side.create(ladder[0], machine("cml-0"))
    ec2.calls.clear()
    ec2.refuse(
        lambda form: form["Action"] == way, "RequestLimitExceeded", 503, "Slow down.", times=3
    )
    side.create(ladder[0], machine())
    assert len({call["ClientToken"] for call in ec2.calls if call["Action"] == way}) == 1
    assert ec2.actions().count(way) == 4


def test_a_lost_answer_is_asked_for_again_and_makes_no_second_instance(
    ec2: FakeEC2, side: Side, way: str
) -> None:
    ladder = side.ladder(WAYS[way])
    side.provider.destroy("cml-0", side.create(ladder[0], machine("cml-0")))
    ec2.lose_answers[way] = 1
    made = side.create(ladder[0], machine())
    assert [one.id for one in side.provider.find({})] == [made.id]


def test_tries_without_capacity_leave_the_next_one_a_token(
    ec2: FakeEC2, side: Side, way: str
) -> None:
    """A fleet that created nothing has used up its client token, and each try has another
    registration token. So it is where launches of a step cannot count their tries."""
    (placement, *_) = side.ladder(WAYS[way])
    types = {pool.instance_type for pool in placement.pools}
    tries = [
        replace(machine(), user_data=f"#cloud-config {number}".encode()) for number in range(5)
    ]
    ec2.stock = {(kind,): 0 for kind in types}
    for one in tries[:-1]:
        with pytest.raises(CapacityError):
            side.create(placement, one)
    ec2.stock = {(kind,): 1 for kind in types}
    made = side.create(placement, tries[-1])
    assert [one.id for one in side.provider.find({})] == [made.id]


def test_a_fleet_whose_answer_was_lost_is_found_by_its_marks(ec2: FakeEC2, side: Side) -> None:
    ladder = side.ladder()
    side.provider.destroy("cml-0", side.create(ladder[0], machine("cml-0")))
    ec2.lose_answers["CreateFleet"], ec2.forgetful = 1, True
    created = side.provider.create(ladder[0], machine(), 3)
    assert {one.id for one in created.instances} == {one.id for one in side.provider.find({})}
    assert len(created.instances) == 3


@pytest.mark.parametrize(
    "code", ["InvalidGroup.NotFound", "InvalidLaunchTemplateName.NotFoundException"]
)
def test_what_was_just_made_may_not_be_known_everywhere_yet(
    code: str, ec2: FakeEC2, side: Side
) -> None:
    ladder = side.ladder()
    ec2.refuse(lambda form: form["Action"] == "CreateFleet", code, times=3)
    assert side.create(ladder[0], machine()).alive


def test_what_one_pool_gave_is_not_forgotten_when_the_next_refuses_for_good(
    ec2: FakeEC2, side: Side
) -> None:
    """Zone by zone, and the second refuses with what no other zone would help."""
    ec2.refuse(lambda form: form["Action"] == "CreateFleet", "UnauthorizedOperation", 403)
    ladder = side.ladder()
    first, second = ladder[0].pools[:2]
    ec2.stock = {("m6i.2xlarge", first.subnet_id, "on-demand"): 1}  # type: ignore[attr-defined]
    ec2.refuse(lambda form: form.get("SubnetId") == second.subnet_id, "InvalidParameterValue")  # type: ignore[attr-defined]
    created = side.provider.create(ladder[0], machine(), 3)
    assert len(created.instances) == 1
    assert isinstance(created.shortage, ConfigurationError)


def test_a_token_that_remembers_an_instance_of_the_past_makes_a_new_one(
    ec2: FakeEC2, side: Side
) -> None:
    ladder = side.ladder(WAYS["RunInstances"])
    first = side.create(ladder[0], machine())
    side.provider.destroy("cml-1", first)
    second = side.create(ladder[0], machine())
    assert second.alive
    assert second.id != first.id


CALLS = (*LOOKUPS, "DescribeSpotPriceHistory", "GetParameter", "DescribeInstances", "CreateTags")
CALLS += (
    "CreateSecurityGroup",
    "AuthorizeSecurityGroupIngress",
    "CreateLaunchTemplate",
    "CreateFleet",
    "RunInstances",
)


@pytest.mark.parametrize("action", CALLS)
def test_after_an_error_at_any_call_nothing_is_left(action: str, ec2: FakeEC2) -> None:
    parameters = boto3.client(
        "ssm",
        region_name="us-east-1",
        endpoint_url=ec2.url,
        aws_access_key_id=ONLOOKER,
        aws_secret_access_key="y",
    )
    parameters.put_parameter(Name="/our/image", Value="ami-" + "a" * 17, Type="String")
    cloud = replace(
        Side(aws(ec2), ec2).request("--cloud-spot=prefer", "--cloud-image=ssm:/our/image"),
        ssh_public_key="ssh-rsa AAAA",
    )
    unseen = {"RunInstances"}  # a fleet's own
    for code in (
        "UnauthorizedOperation",
        "InvalidParameterValue",
        "VcpuLimitExceeded",
        "InsufficientInstanceCapacity",
    ):
        side = Side(aws(ec2), ec2)
        ec2.calls.clear()
        ec2.refusals.clear()
        ec2.refuse(lambda form: form["Action"] == action, code)
        name = f"cml-{code.lower()}"
        try:
            created = side.provider.create(
                next(iter(side.provider.resolve(side.provider.plan(cloud), cloud))),
                machine(name),
                3,
            )
        except ProviderError:
            assert action in {*ec2.actions(), *unseen}
            ec2.refusals.clear()
            assert side.provider.find({"cml-runner:name": name}, ["us-east-1"]) == []
        else:  # what only helps to choose, or has another way
            assert action in {*ec2.actions(), *unseen}
            assert len(created.instances) == 3


@pytest.mark.parametrize(
    ("code", "status"), [("RequestLimitExceeded", 503), ("InternalError", 500)]
)
def test_an_end_that_is_refused_in_passing_is_asked_for_again(
    code: str, status: int, ec2: FakeEC2, side: Side
) -> None:
    made = side.create()
    ec2.refuse(lambda form: form["Action"] == "TerminateInstances", code, status, times=2)
    assert side.provider.destroy("cml-1", made) is True
    assert ec2.actions().count("TerminateInstances") == 3
    assert side.provider.find({}) == []


def test_no_credentials_are_told_in_one_sentence(
    ec2: FakeEC2, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    monkeypatch.setenv("AWS_ENDPOINT_URL", ec2.url)
    cloud = cloud_of()
    provider = AwsProvider.from_environment(FakeClock())
    with pytest.raises(CredentialsError, match="No AWS credentials were found") as caught:
        provider.resolve(provider.plan(cloud), cloud)
    assert "AWS_ACCESS_KEY_ID" in caught.value.hint


def test_every_code_we_know_has_one_class() -> None:
    sets = [
        aws_errors.CAPACITY,
        aws_errors.QUOTA,
        aws_errors.CREDENTIALS,
        aws_errors.THROTTLING,
        aws_errors.PASSING,
    ]
    assert sum(map(len, sets)) == len(set().union(*sets))


def test_an_id_token_that_is_not_there_is_a_matter_of_credentials(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/cml-runner")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", "/nowhere/id-token")
    provider = AwsProvider.from_environment(FakeClock())
    with pytest.raises(
        CredentialsError, match=r"No such file or directory: '/nowhere/id-token'"
    ) as caught:
        provider.resolve(provider.plan(cloud_of()), cloud_of())
    assert "`id_tokens` on GitLab" in caught.value.hint


# --- machines of earlier attempts


def test_machines_that_ended_are_listed_with_who_ended_them(ec2: FakeEC2, side: Side) -> None:
    """By the titles of their runs, in which nothing stands for other text."""
    whose = ("octo/t*n run 1 attempt 1", "octo/train run 1 attempt 1", "octo/t*n run 11 attempt 1")
    for number, title in enumerate(whose):
        plain = machine(f"cml-{number}")
        side.create(side.ladder("--cloud-spot")[0], replace(plain, tags={**plain.tags, RUN: title}))
    (first,) = side.provider.former("octo/t*n run 1 attempt ", ["us-east-1"]) or ()
    assert (first.name, first.alive, first.spot, first.reclaimed) == ("cml-0", True, True, False)
    side.provider.destroy(first.name)
    (ended,) = side.provider.former("octo/t*n run 1 attempt ", ["us-east-1"]) or ()
    assert (ended.id, ended.alive, ended.reclaimed) == (first.id, False, False)
    reclaimed = StateReason("", "Server.SpotInstanceTermination")
    get_backend("ec2")[ACCOUNT]["us-east-1"].get_instance(first.id).state_reason = reclaimed
    (taken,) = side.provider.former("octo/t*n run 1 attempt ", ["us-east-1"]) or ()
    assert (taken.id, taken.zone, taken.reclaimed) == (first.id, first.zone, True)
    assert not side.provider.former("octo/t*n run 1 attempt ", ["us-west-1"])
    assert [one.id for one in side.provider.find({}) if one.id == first.id] == []


@pytest.mark.parametrize("alive", [True, False])
def test_of_a_machine_that_ended_the_console_is_read_as_it_was_kept(
    alive: bool, ec2: FakeEC2, side: Side
) -> None:
    """EC2 may have no current output of it."""
    made = side.create()
    ec2.refuse(lambda form: form.get("Latest") == "true", "IncorrectInstanceState")
    side.provider.console(replace(made, alive=alive))
    asked = [call["Latest"] for call in ec2.calls if call["Action"] == "GetConsoleOutput"]
    assert asked == (["true"] if alive else ["true", "false"])
