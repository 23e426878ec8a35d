"""The user's words on AWS: tables, refusals, and the requests made from them. No network."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import botocore.session
import pytest
from botocore.validate import ParamValidator

from runner_action.errors import InputError
from runner_action.model import Identity, Machine
from runner_action.providers.aws import plan as words
from runner_action.providers.aws.plan import AwsPlacement
from tests.test_launch import cloud_of

GOLDEN = Path(__file__).parents[1] / "golden" / "aws-run-instances.json"


@pytest.mark.parametrize(
    ("region", "native", "zone"),
    [
        ("us-west", "us-west-1", None),
        ("us-east", "us-east-1", None),
        ("eu-north", "eu-north-1", None),
        ("eu-west", "eu-west-1", None),
        ("eu-central-1", "eu-central-1", None),
        ("us-east-1b", "us-east-1", "us-east-1b"),
        ("us-gov-west-1", "us-gov-west-1", None),
    ],
)
def test_regions(region: str, native: str, zone: str | None) -> None:
    plan = words.plan(cloud_of(f"--cloud-region={region}"))
    assert (plan.region, plan.zone) == (native, zone)


@pytest.mark.parametrize(
    ("argv", "native", "architecture"),
    [
        ([], "m6i.2xlarge", "x64"),
        (["--cloud-type=s"], "t3.small", "x64"),
        (["--cloud-type=t2.micro"], "t2.micro", "x64"),
        (["--cloud-type=m+t4"], "g4dn.xlarge", "x64"),
        (["--cloud-type=m", "--cloud-gpu=l4"], "g6.xlarge", "x64"),
        (["--cloud-gpu=nogpu"], "m6i.2xlarge", "x64"),
        (["--cloud-type=xl", "--cloud-gpu=v100"], "p3.16xlarge", "x64"),
        (["--cloud-type=m7g.large"], "m7g.large", "arm64"),
        (["--cloud-type=t4g.nano"], "t4g.nano", "arm64"),
        (["--cloud-type=c7gn.large"], "c7gn.large", "arm64"),
        (["--cloud-type=g5g.xlarge"], "g5g.xlarge", "arm64"),
        (["--cloud-type=a1.large"], "a1.large", "arm64"),
        (["--cloud-type=g5.xlarge"], "g5.xlarge", "x64"),
        (["--cloud-type=g4ad.xlarge"], "g4ad.xlarge", "x64"),
    ],
)
def test_types(argv: list[str], native: str, architecture: str) -> None:
    plan = words.plan(cloud_of(*argv))
    assert (plan.instance_type, plan.architecture) == (native, architecture)
    assert ("amd64" if architecture == "x64" else "arm64") in plan.image


def test_every_type_we_name_is_one_of_ec2s() -> None:
    known = set(botocore.session.get_session().get_service_model("ec2").shape_for("InstanceType").enum)  # type: ignore[attr-defined]
    assert {*words.TYPES.values(), *words.GPU_TYPES.values()} <= known


@pytest.mark.parametrize(("gpu", "word"), [("k80", "gone"), ("tesla", "v100"), ("t4", "driver")])
def test_old_words_are_told(gpu: str, word: str) -> None:
    assert word in " ".join(words.plan(cloud_of("--cloud-type=m", f"--cloud-gpu={gpu}")).notes)


def test_a_pair_that_does_not_exist_is_refused_with_those_that_do() -> None:
    with pytest.raises(InputError, match=r"m\+a100 does not exist on AWS; write one of xl\+a100"):
        words.plan(cloud_of("--cloud-type=m", "--cloud-gpu=a100"))
    with pytest.raises(InputError, match="write one of a100, a10g"):
        words.plan(cloud_of("--cloud-type=m+mystery"))


def test_images_are_never_asked_for_by_name_alone() -> None:
    query = words.image_query(words.plan(cloud_of()).image, "x64")
    assert query["Owners"] == ["099720109477"]
    assert {"Name": "architecture", "Values": ["x86_64"]} in query["Filters"]
    assert words.image_query("ami-0123456789abcdef0", "x64") == {"ImageIds": ["ami-0123456789abcdef0"]}


@pytest.mark.parametrize(("asked", "image", "taken"), [(35, 8, 35), (8, 30, 30)])
def test_the_disk_is_never_smaller_than_the_image(asked: int, image: int, taken: int) -> None:
    cloud = cloud_of(f"--cloud-hdd-size={asked}")
    found = {"ImageId": "ami-1", "RootDeviceName": "/dev/sda1", "BlockDeviceMappings": [{"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": image}}]}
    subnet = {"AvailabilityZone": "us-west-1a", "SubnetId": "subnet-1", "VpcId": "vpc-1"}
    assert words.placement(words.plan(cloud), cloud, found, subnet).disk_gb == taken


PLACEMENT = AwsPlacement(
    region="us-west-1",
    zone="us-west-1a",
    instance_type="m6i.2xlarge",
    spot=False,
    image_id="ami-0123456789abcdef0",
    root_device="/dev/sda1",
    disk_gb=35,
    subnet_id="subnet-0123456789abcdef0",
    vpc_id="vpc-1",
    security_groups=(),
    with_ssh=False,
    spot_price=None,
    profile_arn=None,
)
MACHINE = Machine(identity=Identity(name="cml-1", key="k"), user_data=b"#cloud-config\n", tags={"Name": "cml-1", "cml-runner": "runner"})


def test_golden_run_instances() -> None:
    """The whole request, word for word, and fit for EC2's own model."""
    spot = replace(PLACEMENT, spot=True, spot_price=0.25, profile_arn="arn:aws:iam::123456789012:instance-profile/x")
    found = [words.run_instances(placement, MACHINE, ["sg-1"], "token") for placement in (PLACEMENT, spot)]
    shape = botocore.session.get_session().get_service_model("ec2").operation_model("RunInstances").input_shape
    assert shape is not None
    for one in found:
        report = ParamValidator().validate({**one, "UserData": "text"}, shape)
        assert not report.has_errors(), report.generate_report()
    text = json.dumps(found, indent=1, default=bytes.decode)
    if not GOLDEN.exists():
        GOLDEN.write_text(text + "\n")
        pytest.fail("the golden file was missing and has been written: read it, then run again")
    assert json.loads(text) == json.loads(GOLDEN.read_text())
