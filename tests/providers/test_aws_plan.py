"""The user's words on AWS: tables, refusals, and the requests made from them. No network."""

from __future__ import annotations

import base64
import dataclasses
import random
from typing import Any

import botocore.session
import pytest
from botocore.validate import ParamValidator

from runner_action import bootstrap
from runner_action.agent.spec import AgentSpec
from runner_action.bootstrap import fitting
from runner_action.errors import InputError
from runner_action.model import Download, Identity, Machine, Place, Registration, Secret
from runner_action.providers.aws import ladder, plan, requests, table
from runner_action.providers.aws.ladder import Facts
from tests import goldens
from tests.fakes import unpacked
from tests.test_launch import cloud_of
from tests.test_launch import request as launch_request

EC2 = botocore.session.get_session().get_service_model("ec2")


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
        ("us-gov-west-1b", "us-gov-west-1", "us-gov-west-1b"),
        ("us-west-2-lax-1a", "us-west-2", "us-west-2-lax-1a"),
    ],
)
def test_regions(region: str, native: str, zone: str | None) -> None:
    assert plan.plan(cloud_of(f"--cloud-region={region}")).places == (
        Place(region=native, zone=zone),
    )


@pytest.mark.parametrize(
    ("argv", "native", "architecture"),
    [
        ([], "m6i.2xlarge", "x64"),
        (["--cloud-type=s"], "t3.small", "x64"),
        (["--cloud-type=t2.micro"], "t2.micro", "x64"),
        (["--cloud-type=m+t4"], "g4dn.xlarge", "x64"),
        (["--cloud-type=m", "--cloud-gpu=l4"], "g6.xlarge", "x64"),
        (["--cloud-type=m", "--cloud-gpu=nvidia-tesla-t4"], "g4dn.xlarge", "x64"),
        (["--cloud-type=g4dn.2xlarge", "--cloud-gpu=t4"], "g4dn.2xlarge", "x64"),
        (["--cloud-gpu=l4:4"], "g6.12xlarge", "x64"),
        (["--cloud-type=l", "--cloud-gpu=l4:4"], "g6.12xlarge", "x64"),
        (["--cloud-type=m+h100:8"], "p5.48xlarge", "x64"),
        (["--cloud-gpu=nogpu"], "m6i.2xlarge", "x64"),
        (["--cloud-type=xl", "--cloud-gpu=k80"], "g4dn.metal", "x64"),
        (["--cloud-type=xl", "--cloud-gpu=v100"], "g5.48xlarge", "x64"),
        (
            ["--cloud-type=xl", "--cloud-gpu=v100", "--cloud-image=ami-0123456789abcdef0"],
            "p3.16xlarge",
            "x64",
        ),
        (["--cloud-type=m7g.large"], "m7g.large", "arm64"),
        (["--cloud-type=t4g.nano"], "t4g.nano", "arm64"),
        (["--cloud-type=c7gn.large"], "c7gn.large", "arm64"),
        (["--cloud-type=g5g.xlarge"], "g5g.xlarge", "arm64"),
        (["--cloud-type=a1.large"], "a1.large", "arm64"),
        (["--cloud-type=p6e-gb200.36xlarge"], "p6e-gb200.36xlarge", "arm64"),
        (["--cloud-type=p6-b200.48xlarge"], "p6-b200.48xlarge", "x64"),
        (["--cloud-type=g5.xlarge"], "g5.xlarge", "x64"),
        (["--cloud-type=g4ad.xlarge"], "g4ad.xlarge", "x64"),
    ],
)
def test_types(argv: list[str], native: str, architecture: str) -> None:
    found = plan.plan(cloud_of(*argv))
    assert (found.instance_types, found.architecture) == ((native,), architecture)


def test_every_type_we_name_is_one_of_ec2s() -> None:
    known = set(EC2.shape_for("InstanceType").enum)  # type: ignore[attr-defined]
    named = {
        *table.TYPES.values(),
        *(kind for counts in table.GPUS.types.values() for kind in counts.values()),
    }
    assert named <= known
    families = {kind.partition(".")[0] for kind in known}
    assert families >= table.UNDRIVEN
    assert table.DRIVEN - families <= {
        "gr6",
        "p6e-gb300",
    }  # not in this botocore's list, but in AWS's notes


def test_the_architecture_of_every_type_of_ec2_can_be_told() -> None:
    """Apple's and the FPGA's among them are none of ours; what begins with the letters of
    Graviton's families must be arm64."""
    known = [
        kind
        for kind in EC2.shape_for("InstanceType").enum  # type: ignore[attr-defined]
        if not kind.startswith(("mac", "u-", "u7"))
    ]
    arm = {kind.partition(".")[0] for kind in known if plan.architecture_of(kind) == "arm64"}
    assert {
        "m7g",
        "c8gn",
        "r8gd",
        "t4g",
        "x2gd",
        "im4gn",
        "is4gen",
        "hpc7g",
        "i8g",
        "g5g",
        "a1",
    } <= arm
    assert not {"g4dn", "g5", "g6", "m6i", "m7a", "p5", "inf2", "trn1", "hpc7a", "gr6", "g6e"} & arm


@pytest.mark.parametrize(
    ("argv", "image"),
    [
        ([], "099720109477:ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-amd64-server-*"),
        (
            ["--cloud-type=m7g.large"],
            "099720109477:ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-arm64-server-*",
        ),
        (
            ["--cloud-type=m+l4"],
            "amazon:Deep Learning Base OSS Nvidia Driver GPU AMI (Ubuntu 24.04) *",
        ),
        (
            ["--cloud-type=g5g.xlarge"],
            "amazon:Deep Learning ARM64 Base OSS Nvidia Driver GPU AMI (Ubuntu 24.04) *",
        ),
        (
            ["--cloud-type=p3.2xlarge"],
            "099720109477:ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-amd64-server-*",
        ),
        (["--cloud-image=ssm:/aws/service/x"], "ssm:/aws/service/x"),
    ],
)
def test_images(argv: list[str], image: str) -> None:
    assert plan.plan(cloud_of(*argv)).image == image


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--cloud-gpu=k80"], ["AWS has retired its machines with K80 GPUs (p2)", "`t4`"]),
        (["--cloud-gpu=tesla"], ["no longer have a driver for V100", "`a10g` in place of `tesla`"]),
        (["--cloud-gpu=tesla", "--cloud-image=ami-0123456789abcdef0"], ["`tesla` means `v100`"]),
        (["--cloud-type=p3.2xlarge"], ["driver for the GPU of p3"]),
    ],
)
def test_old_words_are_told(argv: list[str], words: list[str]) -> None:
    notes = " ".join(plan.plan(cloud_of(*argv)).notes)
    assert all(word in notes for word in words)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (
            ["--cloud-gpu=a100"],
            (
                r"m\+a100 does not exist on AWS; AWS has a100 by 8: write `xl\+a100`, or `m` with a"
                r" number as in `a100:8`"
            ),
        ),
        (
            ["--cloud-gpu=l4:2"],
            (
                r"m\+l4:2 does not exist on AWS; AWS has l4 by 1, 4, 8: write `m\+l4`, `l\+l4`,"
                r" `xl\+l4`, or"
            ),
        ),
        (["--cloud-type=l", "--cloud-gpu=l4:8"], r"l\+l4:8 does not exist"),
        (["--cloud-type=m+mystery"], "write one of t4, l4"),
        (
            ["--cloud-type=p2.xlarge", "--cloud-gpu=k80"],
            r"cloud-type p2.xlarge: AWS has retired .* K80 GPUs \(p2\); write g4dn.xlarge",
        ),
        (
            ["--cloud-type=g5.xlarge", "--cloud-gpu=nvidia-tesla-t4"],
            r"g5.xlarge has a GPU of its own \(a10g\), so leave cloud-gpu t4 out",
        ),
        (
            ["--cloud-type=g6e.xlarge", "--cloud-gpu=t4"],
            "g6e.xlarge has a GPU of its own, so leave cloud-gpu t4 out",
        ),
        (
            ["--cloud-type=m5.large", "--cloud-gpu=t4"],
            "m5.large has no GPU: leave cloud-gpu out, or write cloud-type `m` for",
        ),
        (["--cloud-type=m6i.large,m7g.large"], r"types of two architectures \(m7g.large arm64"),
        (
            ["--cloud-hdd-size=8", "--cloud-aws-hdd-iops=5000"],
            "more than 500 a GB; write at most 4000",
        ),
        (["--cloud-aws-hdd-throughput=1000"], "needs `cloud-aws-hdd-iops` of at least 4000"),
        (
            ["--cloud-region=us-east,eu-west", "--cloud-aws-subnet=subnet-0123456789abcdef0"],
            "one region, but cloud-region lists eu-west-1, us-east-1",
        ),
        ([f"--cloud-metadata=key{number}=x" for number in range(41)], "has 41 pairs; AWS takes 40"),
    ],
)
def test_what_aws_cannot_do_is_refused_with_what_it_can(argv: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        plan.plan(cloud_of(*argv))


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(InputError) as caught:
        plan.plan(cloud_of("--cloud-gpu=a100:2", "--cloud-aws-hdd-throughput=1000"))
    assert len(caught.value.problems) == 2


def test_images_are_never_asked_for_by_name_alone() -> None:
    query = requests.image_query(plan.plan(cloud_of()).image, "x64")
    assert query["Owners"] == ["099720109477"]
    assert {"Name": "architecture", "Values": ["x86_64"]} in query["Filters"]
    assert requests.image_query("ami-0123456789abcdef0", "x64") == {
        "ImageIds": ["ami-0123456789abcdef0"]
    }


def image_of(size: int = 8, name: str = "ubuntu/images/x") -> dict[str, Any]:
    return {
        "ImageId": "ami-0123456789abcdef0",
        "Name": name,
        "RootDeviceName": "/dev/sda1",
        "BlockDeviceMappings": [{"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": size}}],
    }


def found(cloud: Any, **fields: Any) -> Facts:
    architecture = table.ARCHITECTURES[plan.plan(cloud).architecture][1]
    region = plan.plan(cloud).places[0].region
    subnets = [
        {
            "AvailabilityZone": f"{region}{zone}",
            "SubnetId": f"subnet-0123456789abcdef{number}",
            "VpcId": "vpc-1",
            "AvailableIpAddressCount": 99,
        }
        for number, zone in enumerate("abc")
    ]
    zone = plan.plan(cloud).places[0].zone
    usual = {
        "images": [{**image_of(), "Architecture": architecture}],
        "subnets": [one for one in subnets if not zone or one["AvailabilityZone"] == zone],
    }
    return Facts(**{"region": region, "groups": None, "offered": None, **usual, **fields})


@pytest.mark.parametrize(("asked", "image", "taken"), [(35, 8, 35), (8, 30, 30)])
def test_the_disk_is_never_smaller_than_the_image(asked: int, image: int, taken: int) -> None:
    cloud = cloud_of(f"--cloud-hdd-size={asked}")
    images = [{**image_of(image), "Architecture": "x86_64"}]
    assert (
        ladder.placements(plan.plan(cloud), cloud, found(cloud, images=images))[0].disk.size_gb
        == taken
    )


@pytest.mark.parametrize(
    ("name", "user"),
    [
        ("ubuntu/images/x", "ubuntu"),
        ("al2023-ami-2023", "ec2-user"),
        ("debian-12-amd64", "admin"),
        ("ours", "ubuntu"),
    ],
)
def test_the_images_user_is_told_from_its_name(name: str, user: str) -> None:
    assert ladder.login(image_of(name=name)) == user


# --- golden plans, requests and user data


NASTY = 'he said "it\'s $HOME"; `x` \\ ünïcode 🚂'
SCRIPT = base64.b64encode(f"#!/bin/bash\necho '{NASTY}'\n\n# end\n".encode()).decode()
REQUESTS: dict[str, list[str]] = {
    "default": [],
    "small": ["--cloud-type=s"],
    "large in a zone": ["--cloud-type=l", "--cloud-region=us-east-1b"],
    "two regions": ["--cloud-region=eu-west,us-east"],
    "two zones": ["--cloud-region=us-east-1c,us-east-1a"],
    "several types": ["--cloud-type=g6.xlarge,g5.xlarge,g4dn.xlarge"],
    "spot": ["--cloud-spot"],
    "spot with a cap": ["--cloud-spot", "--cloud-spot-price=0.3", "--cloud-region=us-west-1a"],
    "spot, then on demand": ["--cloud-spot=prefer", "--cloud-spot-price=0.3"],
    "gpu": ["--cloud-type=m+t4"],
    "gpus by number": ["--cloud-gpu=a10g:4"],
    "old gpu": ["--cloud-gpu=tesla", "--cloud-type=m"],
    "old gpu with an image": ["--cloud-gpu=v100", "--cloud-image=123456789012:ours with blanks-*"],
    "arm64": ["--cloud-type=m7g.large,m6g.large"],
    "image": ["--cloud-image=ami-0123456789abcdef0"],
    "parameter": ["--cloud-image=ssm:/our/image"],
    "profile": [
        "--cloud-permission-set=arn:aws:iam::123456789012:instance-profile/path/train",
        "--cloud-region=us-west-1a",
    ],
    "profile of a fleet": [
        "--cloud-permission-set=arn:aws:iam::123456789012:instance-profile/train"
    ],
    "disk": [
        "--cloud-hdd-size=500",
        "--cloud-aws-hdd-iops=6000",
        "--cloud-aws-hdd-throughput=1000",
        "--cloud-aws-kms-key=alias/disks",
    ],
    "tags": [
        f"--cloud-metadata=note={NASTY}",
        "--cloud-metadata=team=a=b, c",
        "--cloud-region=us-west-1a",
    ],
    "startup script": [f"--cloud-startup-script={SCRIPT}"],
    "startup script as text": [f"--cloud-startup-script=#!/bin/sh\necho '{NASTY}'\n"],
    "checkpoint and sudo": [f"--checkpoint-script={SCRIPT}", "--job-sudo"],
    "proxy and nothing left to time": [
        "--https-proxy=http://proxy.test:3128",
        "--no-proxy=*.corp,10.0.0.1",
        "--idle-timeout=never",
    ],
    "many": ["--count=20", "--single", "--labels=a b,ü"],
    "all that may be": [
        "--count=2",
        "--cloud-spot=prefer",
        "--no-retry",
        "--cloud-hdd-size=8",
        f"--cloud-startup-script={SCRIPT}",
        "--cloud-metadata=a=b",
    ],
}


def told(argv: list[str]) -> dict[str, Any]:
    """All that AWS and the machine get to know of a request."""
    asked = launch_request(*argv)
    assert asked.cloud
    planned = plan.plan(asked.cloud)
    name = "cml-1" if asked.count == 1 else f"cml-1-{bootstrap.INSTANCE}"
    download = Download(url="https://forge.test/runner.tar.gz", sha256="0" * 64, version="2")
    spec: AgentSpec = bootstrap.spec_of(
        asked,
        name,
        Registration(token=Secret("canary-registration")),
        download,
        "https://api.github.com",
        None,
    )
    data = fitting.user_data(spec, asked, plan.USER_DATA_LIMIT)
    machine = Machine(
        identity=Identity(name="cml-1", key="k"),
        user_data=b"the user data",
        tags={"Name": "cml-1", **asked.cloud.metadata},
    )
    made = []
    for placement in ladder.placements(planned, asked.cloud, found(asked.cloud)):
        if len(placement.pools) > 1:
            operation, request = (
                "CreateFleet",
                requests.create_fleet(placement, machine, asked.count, "sg-1", "token"),
            )
        else:
            operation, request = (
                "RunInstances",
                requests.run_instances(
                    placement, placement.pools[0], machine, asked.count, "sg-1", "token"
                ),
            )
            request["UserData"] = request["UserData"].decode()
        report = ParamValidator().validate(request, EC2.operation_model(operation).input_shape)  # type: ignore[arg-type]
        assert not report.has_errors(), report.generate_report()
        made.append({operation: request})
    files = {
        path: text
        for path, text in unpacked(data).items()
        if "/agent/" not in path and "systemd" not in path
    }
    return {"asked": argv, "plan": dataclasses.asdict(planned), "made": made, "files": files}


def test_golden_plans_requests_and_user_data() -> None:
    """Word for word, and fit for EC2's own model."""
    assert len(REQUESTS) >= 25
    goldens.check(goldens.ROOT / "aws", {name: told(argv) for name, argv in REQUESTS.items()})


def test_a_script_fits_up_to_the_edge_of_sixteen_kib() -> None:
    """Random bytes do not compress, so each adds to the user data."""

    def size(length: int) -> int:
        noise = base64.b64encode(random.Random(length).randbytes(length)).decode()
        asked = launch_request(f"--cloud-startup-script=#!/bin/sh\n# {noise}\n")
        download = Download(url="https://forge.test/runner.tar.gz", sha256="0" * 64, version="2")
        spec = bootstrap.spec_of(
            asked,
            "cml-1",
            Registration(token=Secret("canary-registration")),
            download,
            "https://api.github.com",
            None,
        )
        return len(fitting.user_data(spec, asked, plan.USER_DATA_LIMIT))

    fits = [length for length in range(0, 4000, 20) if _fits(size, length)]
    assert fits
    # Byte by byte, as what a step of twenty adds depends on what stands beside it.
    edge = [size(length) for length in range(fits[-1], fits[-1] + 20) if _fits(size, length)]
    assert plan.USER_DATA_LIMIT - 40 < max(edge) <= plan.USER_DATA_LIMIT
    with pytest.raises(
        InputError,
        match=(
            r"the user data would have 16[0-9]{3} bytes.*: cloud-startup-script [0-9]{3,4}; .*"
            r"shorten cloud-startup-script"
        ),
    ):
        size(fits[-1] + 60)


def _fits(size: Any, length: int) -> bool:
    try:
        size(length)
    except InputError:
        return False
    return True
