"""What every provider keeps, be it EC2 over HTTP (moto, made stricter) or the fake in memory."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import boto3
import pytest
from google.auth.credentials import AnonymousCredentials
from moto.backends import get_backend

from runner_action.errors import ConfigurationError, NotOurs, ProviderError
from runner_action.marks import address_tag, tags
from runner_action.model import (
    REPOSITORY_TAG,
    Identity,
    Instance,
    Machine,
    Placement,
    ProviderName,
    Repository,
)
from runner_action.providers.aws.client import AwsProvider
from runner_action.providers.aws.instance import TEMPLATE_TAG
from runner_action.providers.azure.client import AzureProvider
from runner_action.providers.base import Provider
from runner_action.providers.gcp.client import GcpProvider
from runner_action.providers.gcp.compute import Compute
from runner_action.providers.gcp.credentials import Account
from runner_action.providers.kubernetes.client import KubernetesProvider
from runner_action.request import CloudRequest
from runner_action.runners.context import created_for
from runner_action.sandbox.clouds.aws.ec2 import ACCOUNT, ONLOOKER, FakeEC2
from runner_action.sandbox.clouds.azure.arm import FakeAzure
from runner_action.sandbox.clouds.gcp.catalogue import PROJECT
from runner_action.sandbox.clouds.gcp.compute import FakeGcp
from runner_action.sandbox.kubernetes.api import FakeKubernetes
from runner_action.sandbox.machine.machines import Machines
from runner_action.sandbox.world import POD_IMAGE
from tests.contracts.squatters import SQUATTERS, Moment, appear, own_groups_gone, there
from tests.contracts.test_azure import azure, served
from tests.contracts.test_azure import provider as azure_provider
from tests.contracts.test_kubernetes import cluster
from tests.contracts.test_kubernetes import provider as kubernetes_provider
from tests.fakes import FakeClock, FakeProvider
from tests.test_launch import cloud_of

__all__ = ["azure", "cluster", "served"]


ONLINE_BY, EXPIRY = (
    datetime(2026, 11, 23, 12, 34, 56, tzinfo=UTC),
    datetime(2026, 11, 28, 12, 34, 56, tzinfo=UTC),
)


def machine(
    name: str = "cml-1", key: str = "key", user_data: bytes = b"#cloud-config\n{}\n"
) -> Machine:
    identity = Identity(name=name, key=key)
    told = tags(
        identity,
        Repository(url="https://github.com/octo/train"),
        "octo/train run 77 attempt 1",
        ONLINE_BY,
        EXPIRY,
        {},
    )
    return Machine(identity=identity, user_data=user_data, tags=told)


@pytest.fixture
def ec2(tmp_path: Path) -> Iterator[FakeEC2]:
    fake = FakeEC2(Machines(tmp_path / "machines", boots=False))
    yield fake
    fake.close()


@cache
def session() -> boto3.session.Session:
    """One for all: each reads EC2's description anew, which takes a second."""
    return boto3.session.Session(aws_access_key_id="canary-id", aws_secret_access_key="canary-key")


def aws(ec2: FakeEC2) -> AwsProvider:
    return AwsProvider(
        lambda service, region, config: session().client(  # type: ignore[call-overload]
            service, region_name=region, endpoint_url=ec2.url, config=config
        ),
        FakeClock(),
    )


@pytest.fixture
def compute() -> Iterator[FakeGcp]:
    fake = FakeGcp()
    yield fake
    fake.close()


def gcp(fake: FakeGcp, project: str = PROJECT) -> GcpProvider:
    return GcpProvider(
        Compute(lambda: Account(AnonymousCredentials(), project), fake.url),  # type: ignore[no-untyped-call]
        FakeClock(),
    )


@dataclass
class Side:
    provider: Provider
    ec2: FakeEC2 | None
    words: tuple[str, ...] = ("--cloud-region=us-east",)

    def ladder(self, *argv: str) -> list[Placement]:
        cloud = self.request(*argv)
        return list(self.provider.resolve(self.provider.plan(cloud), cloud))

    def create(self, placement: Placement | None = None, of: Machine | None = None) -> Instance:
        """Some time after it was created."""
        (made,) = self.provider.create(placement or self.ladder()[0], of or machine()).instances
        if self.ec2:
            self.ec2.consistency.settle()
        return made

    def request(self, *argv: str) -> CloudRequest:
        where = [] if any(word.startswith("--cloud-region") for word in argv) else self.words
        return cloud_of(*where, *argv)


@pytest.fixture(params=["aws", "azure", "gcp", "kubernetes", "fake"])
def side(request: pytest.FixtureRequest) -> Side:
    if request.param == "fake":
        return Side(FakeProvider(), None)
    if request.param == "azure":
        words = ("--cloud=azure", "--cloud-region=us-east")
        return Side(azure_provider(request.getfixturevalue("azure")), None, words)
    if request.param == "kubernetes":
        where = ("--cloud=kubernetes", "--cloud-region=zone-a,zone-b", f"--cloud-image={POD_IMAGE}")
        return Side(kubernetes_provider(request.getfixturevalue("cluster")), None, where)
    if request.param == "gcp":
        words = ("--cloud=gcp", "--cloud-region=us-east")
        return Side(gcp(request.getfixturevalue("compute")), None, words)
    ec2: FakeEC2 = request.getfixturevalue("ec2")
    return Side(aws(ec2), ec2)


def test_the_plan_is_pure(side: Side) -> None:
    assert side.provider.plan(side.request()) == side.provider.plan(side.request())
    assert side.ec2 is None or side.ec2.calls == []


def test_the_ladder_has_every_zone_once_and_creates_nothing(side: Side) -> None:
    ladder = side.ladder()
    pools = [pool for placement in ladder for pool in placement.pools]
    assert len({pool.zone for pool in pools}) == len(pools) > 1
    assert side.provider.find({}) == []


def test_an_instance_is_made_found_looked_at_and_destroyed(side: Side) -> None:
    made = side.create()
    assert [one.id for one in side.provider.find({"cml-runner:name": "cml-1"})] == [made.id]
    assert side.provider.find({"cml-runner:name": "cml-2"}) == []
    end = time.monotonic() + 10
    while (
        not (now := side.provider.look(made)).address and time.monotonic() < end
    ):  # a pod gets one when it starts
        time.sleep(0.2)
    assert now.alive
    assert now.address
    assert isinstance(side.provider.console(made), str)
    assert side.provider.destroy("cml-1", made) is True
    assert side.provider.look(made).alive is False
    assert side.provider.find({}) == []


def test_what_a_machine_was_tagged_with_can_be_read_again(side: Side) -> None:
    """Whatever the cloud makes of capitals, colons and addresses."""
    made = side.create()
    (found,) = side.provider.find(
        {"cml-runner:repository": "https://github.com/octo/train"}, side.provider.regions()
    )
    for one in (found, side.provider.look(made)):
        assert (one.name, one.online_by, one.expiry) == ("cml-1", ONLINE_BY, EXPIRY)
        assert one.tags["cml-runner:repository"] == "https://github.com/octo/train"
        assert one.tags["cml-runner:run"] == "octo/train run 77 attempt 1"
        assert {
            "cml-runner:launch": one.tags["cml-runner:launch"],
            "cml-runner:name": one.name,
        } == machine().identity.marks
    assert datetime.fromisoformat(found.launched or "1970-01-01T00:00:00Z").tzinfo
    assert side.provider.find({"cml-runner:repository": "https://github.com/octo/tra"}) == []
    assert side.provider.cost(found, EXPIRY) is None


@pytest.mark.parametrize("more", [1, 12], ids=["short", "long"])
def test_a_repository_with_a_long_address_has_its_machine_and_finds_it(
    more: int, side: Side
) -> None:
    """GitLab's groups may be twenty deep, and a tag has 256 characters."""
    repository = Repository(
        url="https://gitlab.example.com/"
        + "/".join(f"group-{number}" + "x" * 40 for number in range(more))
    )
    told = tags(
        Identity(name="cml-1", key="key"),
        repository,
        f"{repository.url} job 1",
        ONLINE_BY,
        EXPIRY,
        {},
    )
    made = side.create(of=replace(machine(), tags=told))
    found = side.provider.find({REPOSITORY_TAG: address_tag(repository)}, side.provider.regions())
    assert [one.id for one in created_for(repository, found)] == [made.id]
    assert created_for(Repository(url=f"{repository.url}x"), side.provider.find({})) == []


def test_a_machine_that_only_bears_our_tags_is_not_ours(
    side: Side, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever may tag a machine, and no more, does not get it deleted."""
    made = side.create()
    stranger = disguised(side, request, made)
    assert [one.id for one in side.provider.find({})] == [made.id]
    assert [one.id for one in side.provider.find(machine().identity.marks)] == [made.id]
    assert stranger in caplog.text
    assert "was not created by it" in caplog.text
    assert side.provider.destroy("cml-1") is True
    assert side.provider.destroy("cml-1") is False
    caplog.clear()
    assert side.provider.find({}) == []
    assert stranger in caplog.text, "it is still there"


def disguised(side: Side, request: pytest.FixtureRequest, made: Instance) -> str:
    """Makes a machine by other means than ours, puts all tags of `made` to it, and returns a word
    by which it is told."""
    if side.ec2:
        client = session().client(
            "ec2",
            region_name=made.region,
            endpoint_url=side.ec2.url,
            aws_access_key_id=ONLOOKER,
            aws_secret_access_key="canary-key",
        )
        answer = client.describe_instances(InstanceIds=[made.id])
        born = answer["Reservations"][0]["Instances"][0]
        template = client.create_launch_template(
            LaunchTemplateName="database", LaunchTemplateData={"InstanceType": "m6i.large"}
        )["LaunchTemplate"]["LaunchTemplateId"]
        (running,) = client.run_instances(
            ImageId=born["ImageId"],
            InstanceType="m6i.large",
            SubnetId=born["SubnetId"],
            MinCount=1,
            MaxCount=1,
            ClientToken="terraform-20261127",
        )["Instances"]
        own = [tag for tag in born["Tags"] if not tag["Key"].startswith("aws:")]
        client.create_tags(Resources=[running["InstanceId"]], Tags=own)
        get_backend("ec2")[ACCOUNT][made.region].tags[running["InstanceId"]][TEMPLATE_TAG] = (
            template
        )
        return str(running["InstanceId"])
    if isinstance(side.provider, GcpProvider):
        fake: FakeGcp = request.getfixturevalue("compute")
        (((zone, _), like),) = fake.instances.items()
        items = [{"key": "startup-script", "value": "#!/bin/sh"}]
        victim = {**like, "name": "database", "id": "77", "metadata": {"items": items}}
        fake.instances[zone, "database"] = victim
        return "77"
    if isinstance(side.provider, AzureProvider):
        arm: FakeAzure = request.getfixturevalue("azure")
        arm.groups["database"] = {**arm.groups[made.group], "name": "database"}
        return "database"
    if isinstance(side.provider, KubernetesProvider):
        control: FakeKubernetes = request.getfixturevalue("cluster")
        (job,) = control.shelf.of("jobs")
        metadata = {**job["metadata"], "name": "database", "uid": "77"}
        with control.shelf.changed:
            control.shelf.put("jobs", {**job, "metadata": metadata})
        return "database"
    pytest.skip("the fake in memory has no strangers")


def test_creating_again_gives_the_same_instance(side: Side) -> None:
    placement = side.ladder()[0]
    assert side.create(placement, machine()).id == side.create(placement, machine()).id
    assert len(side.provider.find({})) == 1
    other = side.create(placement, machine(name="cml-2"))
    assert len({one.id for one in side.provider.find({})} | {other.id}) == 2


def test_a_repeated_launch_finds_its_instance_though_its_registration_token_is_another(
    side: Side,
) -> None:
    placement = side.ladder()[0]
    first = side.create(placement, machine(user_data=b"#cloud-config\n{a: 1}\n"))
    again = side.create(placement, machine(user_data=b"#cloud-config\n{a: 2}\n"))
    assert again.id == first.id
    assert len(side.provider.find({})) == 1


def test_two_launches_of_one_name_are_told_apart_by_their_marks(side: Side) -> None:
    placement = side.ladder()[0]
    one, two = machine(key="one"), machine(key="two")
    made = side.create(placement, one)
    assert [found.id for found in side.provider.find(one.identity.marks)] == [made.id]
    assert side.provider.find(two.identity.marks) == []


def test_destroy_needs_only_the_name_and_absent_is_success(side: Side) -> None:
    side.create()
    assert side.provider.destroy("cml-1") is True
    assert side.provider.destroy("cml-1") is False
    assert side.provider.destroy("never-was") is False


def test_user_data_has_a_limit(side: Side) -> None:
    assert side.provider.user_data_limit >= 16384


# --- a name that is taken


def test_every_cloud_has_names_that_can_be_taken() -> None:
    assert set(SQUATTERS) == set(ProviderName)


@pytest.mark.parametrize("moment", Moment)
@pytest.mark.parametrize(
    ("side", "kind"),
    [(cloud, kind) for cloud, kinds in SQUATTERS.items() for kind in kinds],
    indirect=["side"],
)
def test_what_others_made_under_a_wanted_name_is_neither_used_nor_changed_nor_deleted(
    side: Side, kind: str, moment: Moment, request: pytest.FixtureRequest
) -> None:
    """Whenever it appears, and whatever becomes of the call that would have taken the name."""
    cloud = str(side.provider.name)
    fake, again = served_by(cloud, request)
    squatter = SQUATTERS[cloud][kind]
    wanted = replace(side.request(), ssh_public_key="ssh-rsa AAAA" if squatter.with_key else None)
    (placement, *_) = side.provider.resolve(side.provider.plan(wanted), wanted)
    own = side.create(placement)
    side.provider.destroy("cml-1", own)
    if side.ec2:
        eventually(lambda: side.ec2 is not None and not side.ec2.alive())
        own_groups_gone(side.ec2)
    before = there(fake)
    provider = again()  # which remembers nothing
    if moment is Moment.BEFORE:
        squat = appear(fake, cloud, squatter, own, moment)
    (placement, *_) = provider.resolve(provider.plan(wanted), wanted)
    if moment is not Moment.BEFORE:
        squat = appear(fake, cloud, squatter, own, moment)
    try:
        with pytest.raises(ProviderError) as raised:
            provider.create(placement, machine())
    finally:
        (fake if side.ec2 else fake.served).between = None
    if moment is not Moment.REFUSED:
        assert isinstance(raised.value, NotOurs)
        assert re.match(squatter.reported, str(raised.value))
        assert str(raised.value).endswith("that this launch did not create.")
        assert raised.value.hint
        assert raised.value.exit_code == ConfigurationError.exit_code
    unchanged(fake, before, squat, moment)
    # Nor by the rollback of the launch, nor by `destroy`.
    for instance in provider.find(machine().identity.marks):
        provider.destroy("cml-1", instance)
    provider.destroy("cml-1", own)
    if not squatter.launched:
        provider.destroy("cml-1")
    unchanged(fake, before, squat, moment)


def served_by(cloud: str, request: pytest.FixtureRequest) -> tuple[Any, Callable[[], Provider]]:
    """The fake of a cloud, and what makes a provider of it."""
    fixture, provider_of = {
        "aws": ("ec2", aws),
        "azure": ("azure", azure_provider),
        "gcp": ("compute", gcp),
        "kubernetes": ("cluster", kubernetes_provider),
    }[cloud]
    fake = request.getfixturevalue(fixture)
    return fake, lambda: provider_of(fake)  # type: ignore[operator]


def unchanged(fake: Any, before: dict[Any, Any], squat: dict[Any, Any], moment: Moment) -> None:
    """The squatter is there, and nothing of the launch. Azure takes a group's tags from whoever
    comes last, and what was put into a group of others stays there."""
    assert squat
    if isinstance(fake, FakeAzure) and moment is not Moment.BEFORE:
        now = there(fake)
        assert before.keys() | squat.keys() <= now.keys()
        machines = {key: one for key, one in squat.items() if "/virtualmachines/" in key}
        assert machines.items() <= now.items()
    else:
        eventually(lambda: there(fake) == before | squat)


def eventually(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not true() and time.monotonic() < end:
        time.sleep(0.1)
    assert true()
