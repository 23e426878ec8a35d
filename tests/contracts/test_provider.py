"""What every provider keeps, be it EC2 over HTTP (moto, made stricter) or the fake in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import boto3
import pytest

from runner_action.errors import CapacityError, ConfigurationError, CredentialsError, ProviderError, QuotaError
from runner_action.model import CloudRequest, Identity, Instance, Machine, Placement
from runner_action.providers.aws import errors as aws_errors
from runner_action.providers.aws.client import AwsProvider
from runner_action.providers.base import Provider
from runner_action.sandbox.ec2 import FakeEC2
from tests.fakes import FakeClock, FakeProvider
from tests.test_launch import cloud_of


def machine(name: str = "cml-1", key: str = "key", user_data: bytes = b"#cloud-config\n{}\n") -> Machine:
    identity = Identity(name=name, key=key)
    tags = {"Name": name, "cml-runner": "runner", **identity.marks, "cml-runner:repository": "https://github.com/octo/train"}
    return Machine(identity=identity, user_data=user_data, tags=tags)


@pytest.fixture
def ec2(tmp_path: Path) -> Iterator[FakeEC2]:
    fake = FakeEC2(tmp_path / "machines", boots=False)
    yield fake
    fake.close()


def aws(ec2: FakeEC2) -> AwsProvider:
    session = boto3.session.Session(aws_access_key_id="canary-id", aws_secret_access_key="canary-key")
    return AwsProvider(lambda region, config: session.client("ec2", region_name=region, endpoint_url=ec2.url, config=config), FakeClock())


@dataclass
class Side:
    provider: Provider
    ec2: FakeEC2 | None

    def ladder(self, *argv: str) -> list[Placement]:
        cloud = self.request(*argv)
        return list(self.provider.resolve(self.provider.plan(cloud), cloud))

    def request(self, *argv: str) -> CloudRequest:
        return cloud_of("--cloud-region=us-east", *argv)


@pytest.fixture(params=["aws", "fake"])
def side(request: pytest.FixtureRequest) -> Side:
    if request.param == "fake":
        return Side(FakeProvider(), None)
    ec2: FakeEC2 = request.getfixturevalue("ec2")
    return Side(aws(ec2), ec2)


def test_the_plan_is_pure(side: Side) -> None:
    assert side.provider.plan(side.request()) == side.provider.plan(side.request())
    assert side.ec2 is None or side.ec2.calls == []


def test_the_ladder_has_every_zone_once_and_creates_nothing(side: Side) -> None:
    ladder = side.ladder()
    assert len({placement.zone for placement in ladder}) == len(ladder) > 1
    assert side.provider.find({}) == []


def test_an_instance_is_made_found_looked_at_and_destroyed(side: Side) -> None:
    made = side.provider.create(side.ladder()[0], machine())
    assert [one.id for one in side.provider.find({"cml-runner:name": "cml-1"})] == [made.id]
    assert side.provider.find({"cml-runner:name": "cml-2"}) == []
    now = side.provider.look(made)
    assert now.alive
    assert now.address
    assert isinstance(side.provider.console(made), str)
    assert side.provider.destroy("cml-1", made) is True
    assert side.provider.look(made).alive is False
    assert side.provider.find({}) == []


def test_creating_again_gives_the_same_instance(side: Side) -> None:
    placement = side.ladder()[0]
    assert side.provider.create(placement, machine()).id == side.provider.create(placement, machine()).id
    assert len(side.provider.find({})) == 1
    other = side.provider.create(placement, machine(name="cml-2"))
    assert len({one.id for one in side.provider.find({})} | {other.id}) == 2


def test_a_repeated_launch_finds_its_instance_though_its_registration_token_is_another(side: Side) -> None:
    placement = side.ladder()[0]
    first = side.provider.create(placement, machine(user_data=b"#cloud-config\n{a: 1}\n"))
    again = side.provider.create(placement, machine(user_data=b"#cloud-config\n{a: 2}\n"))
    assert again.id == first.id
    assert len(side.provider.find({})) == 1


def test_two_launches_of_one_name_are_told_apart_by_their_marks(side: Side) -> None:
    placement = side.ladder()[0]
    one, two = machine(key="one"), machine(key="two")
    made = side.provider.create(placement, one)
    assert [found.id for found in side.provider.find(one.identity.marks)] == [made.id]
    assert side.provider.find(two.identity.marks) == []


def test_destroy_needs_only_the_name_and_absent_is_success(side: Side) -> None:
    side.provider.create(side.ladder()[0], machine())
    assert side.provider.destroy("cml-1") is True
    assert side.provider.destroy("cml-1") is False
    assert side.provider.destroy("never-was") is False


def test_user_data_has_a_limit(side: Side) -> None:
    assert side.provider.user_data_limit >= 16384


# --- AWS alone


def test_every_call_is_made_once(ec2: FakeEC2) -> None:
    side = Side(aws(ec2), ec2)
    side.provider.create(side.ladder()[0], machine())
    assert sorted(ec2.actions()) == ["CreateSecurityGroup", "DescribeImages", "DescribeSecurityGroups", "DescribeSubnets", "RunInstances"]
    ec2.calls.clear()
    again = Side(aws(ec2), ec2)
    again.provider.create(again.ladder()[0], machine("cml-2"))
    assert sorted(ec2.actions()) == ["DescribeImages", "DescribeSecurityGroups", "DescribeSubnets", "RunInstances"]


def test_the_image_is_canonicals_though_somebody_has_a_newer_one_of_that_name(ec2: FakeEC2) -> None:
    Side(aws(ec2), ec2).ladder()
    asked = next(call for call in ec2.calls if call["Action"] == "DescribeImages")
    assert asked["Owner.1"] == "099720109477"
    side = Side(aws(ec2), ec2)
    side.provider.create(side.ladder()[0], machine())
    assert next(call for call in ec2.calls if call["Action"] == "RunInstances")["ImageId"] == "ami-" + "a" * 17
    arm = Side(aws(ec2), ec2)
    arm.provider.create(arm.ladder("--cloud-type=t4g.small")[0], machine("cml-arm"))
    assert [call for call in ec2.calls if call["Action"] == "RunInstances"][-1]["ImageId"] == "ami-" + "b" * 17


def test_a_missing_image_is_an_error_and_no_other_system(ec2: FakeEC2) -> None:
    with pytest.raises(ConfigurationError, match="There is no image 099720109477:iterative-cml for x64 in us-east-1"):
        Side(aws(ec2), ec2).ladder("--cloud-image=099720109477:iterative-cml")


def test_an_image_of_the_other_architecture_is_refused(ec2: FakeEC2) -> None:
    with pytest.raises(ConfigurationError, match=r"is for arm64, the type m6i\.2xlarge is x86_64"):
        Side(aws(ec2), ec2).ladder(f"--cloud-image=ami-{'b' * 17}")


def _client(ec2: FakeEC2, region: str = "us-east-1"):  # type: ignore[no-untyped-def]
    return boto3.client("ec2", region_name=region, endpoint_url=ec2.url, aws_access_key_id="x", aws_secret_access_key="y")


def test_what_an_instance_is_made_of(ec2: FakeEC2) -> None:
    side = Side(aws(ec2), ec2)
    made = side.provider.create(side.ladder("--cloud-hdd-size=8")[0], machine())
    client = _client(ec2)
    seen = client.describe_instances(InstanceIds=[made.id])["Reservations"][0]["Instances"][0]
    group = client.describe_security_groups(GroupIds=[seen["SecurityGroups"][0]["GroupId"]])["SecurityGroups"][0]
    assert group["GroupName"] == "cml-runner"
    assert group["IpPermissions"] == []
    assert {"Key": "cml-runner", "Value": "security-group"} in group["Tags"]
    volume = client.describe_volumes(VolumeIds=[seen["BlockDeviceMappings"][0]["Ebs"]["VolumeId"]])["Volumes"][0]
    assert (volume["VolumeType"], volume["Encrypted"]) == ("gp3", True)
    for tagged in (seen["Tags"], volume["Tags"]):
        assert {"Key": "cml-runner:name", "Value": "cml-1"} in tagged
    asked = next(call for call in ec2.calls if call["Action"] == "RunInstances")
    assert asked["InstanceInitiatedShutdownBehavior"] == "terminate"
    assert (asked["MetadataOptions.HttpTokens"], asked["MetadataOptions.HttpPutResponseHopLimit"]) == ("required", "1")


def test_ssh_opens_port_22_and_nothing_else(ec2: FakeEC2) -> None:
    side = Side(aws(ec2), ec2)
    cloud = replace(side.request(), ssh_public_key="ssh-rsa AAAA")
    placement = next(iter(side.provider.resolve(side.provider.plan(cloud), cloud)))
    side.provider.create(placement, machine())
    groups = {group["GroupName"]: group for group in _client(ec2).describe_security_groups()["SecurityGroups"]}
    assert [(rule["FromPort"], rule["ToPort"]) for rule in groups["cml-runner-ssh"]["IpPermissions"]] == [(22, 22)]


def test_a_group_of_ours_that_somebody_opened_is_refused(ec2: FakeEC2) -> None:
    side = Side(aws(ec2), ec2)
    side.provider.create(side.ladder()[0], machine())
    client = _client(ec2)
    group = next(one for one in client.describe_security_groups()["SecurityGroups"] if one["GroupName"] == "cml-runner")
    client.authorize_security_group_ingress(
        GroupId=group["GroupId"], IpPermissions=[{"IpProtocol": "tcp", "FromPort": 1, "ToPort": 65535, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]
    )
    with pytest.raises(ConfigurationError, match="inbound rules that are not ours"):
        Side(aws(ec2), ec2).ladder()


def test_two_launches_race_for_the_security_group(ec2: FakeEC2) -> None:
    one, two = Side(aws(ec2), ec2), Side(aws(ec2), ec2)
    ladders = one.ladder(), two.ladder()
    assert isinstance(one.provider.create(ladders[0][0], machine("cml-1")), Instance)
    assert isinstance(two.provider.create(ladders[1][0], machine("cml-2")), Instance)
    groups = [group for group in _client(ec2).describe_security_groups()["SecurityGroups"] if group["GroupName"] == "cml-runner"]
    assert len(groups) == 1


def test_given_subnet_zone_and_group_are_taken(ec2: FakeEC2) -> None:
    subnet = _client(ec2).describe_subnets(Filters=[{"Name": "availability-zone", "Values": ["us-east-1b"]}])["Subnets"][0]
    by_subnet = Side(aws(ec2), ec2).ladder(f"--cloud-aws-subnet={subnet['SubnetId']}", "--cloud-aws-security-group=sg-0123456789abcdef0")
    by_zone = Side(aws(ec2), ec2).ladder("--cloud-region=us-east-1b")
    assert [placement.zone for placement in by_subnet] == [placement.zone for placement in by_zone] == ["us-east-1b"]
    with pytest.raises(ConfigurationError, match="InvalidSubnetID"):
        Side(aws(ec2), ec2).ladder("--cloud-aws-subnet=subnet-0123456789abcdef0")


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


@pytest.mark.parametrize(("code", "status", "kind"), CODES)
def test_each_refusal_is_the_class_that_says_what_to_do_next(code: str, status: int, kind: type[ProviderError], ec2: FakeEC2) -> None:
    side = Side(aws(ec2), ec2)
    ladder = side.ladder()
    ec2.refuse(lambda form: form["Action"] == "RunInstances", code, status, "Words of AWS. Encoded authorization failure message: canary-blob")
    with pytest.raises(kind, match=rf"creating m6i.2xlarge on demand in us-east-1.: {code}: Words of AWS") as caught:
        side.provider.create(ladder[0], machine())
    assert ec2.actions().count("RunInstances") == 1
    assert caught.value.hint
    assert "canary" not in str(caught.value) + caught.value.hint


def test_throttling_is_waited_out_with_the_same_token(ec2: FakeEC2) -> None:
    side = Side(aws(ec2), ec2)
    ladder = side.ladder()
    ec2.refuse(lambda form: form["Action"] == "RunInstances", "RequestLimitExceeded", 503, "Slow down.", times=3)
    side.provider.create(ladder[0], machine())
    tokens = {call["ClientToken"] for call in ec2.calls if call["Action"] == "RunInstances"}
    assert len(tokens) == 1
    assert ec2.actions().count("RunInstances") == 4


def test_a_lost_answer_is_asked_for_again_and_makes_no_second_instance(ec2: FakeEC2) -> None:
    side = Side(aws(ec2), ec2)
    ladder = side.ladder()
    ec2.lose_answers["RunInstances"] = 1
    made = side.provider.create(ladder[0], machine())
    assert [one.id for one in side.provider.find({})] == [made.id]
    assert ec2.actions().count("RunInstances") == 2


def test_a_token_that_remembers_an_instance_of_the_past_makes_a_new_one(ec2: FakeEC2) -> None:
    side = Side(aws(ec2), ec2)
    ladder = side.ladder()
    first = side.provider.create(ladder[0], machine())
    side.provider.destroy("cml-1", first)
    second = side.provider.create(ladder[0], machine())
    assert second.alive
    assert second.id != first.id


def test_no_credentials_are_told_in_one_sentence(ec2: FakeEC2, monkeypatch: pytest.MonkeyPatch) -> None:
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
    sets = [aws_errors.CAPACITY, aws_errors.QUOTA, aws_errors.CREDENTIALS, aws_errors.THROTTLING, aws_errors.PASSING]
    assert sum(map(len, sets)) == len(set().union(*sets))


def test_an_id_token_that_is_not_there_is_a_matter_of_credentials(ec2: FakeEC2, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/cml-runner")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", "/nowhere/id-token")
    provider = AwsProvider.from_environment(FakeClock())
    with pytest.raises(CredentialsError, match=r"No such file or directory: '/nowhere/id-token'") as caught:
        provider.resolve(provider.plan(cloud_of()), cloud_of())
    assert "`id_tokens` on GitLab" in caught.value.hint
