"""What EC2 takes and what not, by size and syntax: the embedded one refuses what EC2's reference
refuses, and nothing of ours is refused by it."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError

from runner_action.errors import InputError
from runner_action.sandbox.clouds.aws.ec2 import FakeEC2
from tests.contracts.test_aws import WAYS, client
from tests.contracts.test_provider import Side, aws, ec2, machine

__all__ = ["ec2"]


@pytest.fixture
def side(ec2: FakeEC2) -> Side:
    return Side(aws(ec2), ec2)


def run(ec2: FakeEC2, **request: Any) -> Any:
    ours = {"ImageId": "ami-" + "a" * 17, "InstanceType": "t3.small", "MinCount": 1, "MaxCount": 1}
    return client(ec2).run_instances(**{**ours, **request})


def tagged(key: str, value: str = "", number: int = 1, kind: str = "instance") -> dict[str, Any]:
    tags = [{"Key": key if one == 0 else f"{key}{one}", "Value": value} for one in range(number)]
    return {"TagSpecifications": [{"ResourceType": kind, "Tags": tags}]}


GP3 = {"VolumeType": "gp3", "VolumeSize": 20}
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "user data of 16 KiB and one byte": ({"UserData": "x" * 16385}, "InvalidParameterValue"),
    "a tag's key of 128": (tagged("k" * 128), "InvalidParameterValue"),
    "a tag's value of 257": (tagged("k", "v" * 257), "InvalidParameterValue"),
    "a tag of AWS' own": (tagged("aws:team"), "InvalidParameterValue"),
    "51 tags": (tagged("k", number=51), "TagLimitExceeded"),
    "tags of what is not made": (tagged("k", kind="vpc"), "InvalidParameterValue"),
    "a token of 65": ({"ClientToken": "t" * 65}, "InvalidParameterValue"),
    "65 hops": ({"MetadataOptions": {"HttpPutResponseHopLimit": 65}}, "InvalidParameterValue"),
    "no price": (
        {"InstanceMarketOptions": {"MarketType": "spot", "SpotOptions": {"MaxPrice": "0.0001"}}},
        "InvalidParameterValue",
    ),
    "a disk below its image": (
        {"BlockDeviceMappings": [{"DeviceName": "/dev/sda1", "Ebs": {**GP3, "VolumeSize": 14}}]},
        "InvalidBlockDeviceMapping",
    ),
    "more IOPS than a disk has": (
        {"BlockDeviceMappings": [{"DeviceName": "/dev/sda1", "Ebs": {**GP3, "Iops": 10001}}]},
        "InvalidParameterCombination",
    ),
    "an image of the other architecture": ({"InstanceType": "t4g.small"}, "InvalidParameterValue"),
}


@pytest.mark.parametrize("name", WRONG)
def test_ec2_refuses(name: str, ec2: FakeEC2) -> None:
    request, code = WRONG[name]
    with pytest.raises(ClientError) as caught:
        run(ec2, **request)
    assert caught.value.response["Error"]["Code"] == code
    assert ec2.alive() == []


def test_ec2_takes_all_up_to_its_limits(ec2: FakeEC2) -> None:
    made = run(
        ec2, UserData="x" * 16384, ClientToken="t" * 64, **tagged("k" * 125, "v" * 256, number=50)
    )
    assert made["Instances"][0]["State"] == {"Code": 0, "Name": "pending"}


def test_a_group_and_a_subnet_of_two_networks(ec2: FakeEC2) -> None:
    ask = client(ec2)
    other = ask.create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
    group = ask.create_security_group(GroupName="theirs", Description="theirs", VpcId=other)[
        "GroupId"
    ]
    subnet = ask.describe_subnets()["Subnets"][0]["SubnetId"]
    with pytest.raises(ClientError, match="belong to different networks"):
        run(ec2, SubnetId=subnet, SecurityGroupIds=[group])


@pytest.mark.parametrize("name", ["sg-ours", "öurs", "x" * 256])
def test_names_of_security_groups(name: str, ec2: FakeEC2) -> None:
    with pytest.raises(ClientError, match="groupName is invalid"):
        client(ec2).create_security_group(GroupName=name, Description="ours")


# --- what the launcher makes of it


@pytest.mark.parametrize("pair", ["k" * 128 + "=v", "k=" + "v" * 257, "aws:team=v"])
def test_metadata_that_is_no_tag_is_refused_before_anything_is_asked(
    pair: str, ec2: FakeEC2, side: Side
) -> None:
    with pytest.raises(InputError, match="a key has at most 127 characters, a value 256"):
        side.ladder(f"--cloud-metadata={pair}")
    assert ec2.calls == []


def test_a_price_that_ec2_refuses_is_refused_before_anything_is_asked(
    ec2: FakeEC2, side: Side
) -> None:
    with pytest.raises(InputError, match=r"cloud-spot-price 0.0001 is below"):
        side.ladder("--cloud-spot", "--cloud-spot-price=0.0001")
    assert ec2.calls == []


def test_user_data_up_to_the_limit_is_taken(ec2: FakeEC2, side: Side) -> None:
    for way in WAYS:
        assert side.create(
            side.ladder(WAYS[way])[0], machine(way, user_data=b"x" * side.provider.user_data_limit)
        ).alive
