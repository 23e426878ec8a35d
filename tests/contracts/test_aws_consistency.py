"""EC2 is eventually consistent, and so is the embedded one: what was created a moment ago is
unknown to other calls for a while, by its id and in lists, in an error and in a fleet's answer.

https://docs.aws.amazon.com/ec2/latest/devguide/eventual-consistency.html
"""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from runner_action.errors import ConfigurationError, NotOurs, TimedOut
from runner_action.model import Repository
from runner_action.runners.context import Context
from runner_action.runners.group import Creation, RunnerGroup
from runner_action.runners.rollback import roll_back
from runner_action.sandbox.clouds.aws.ec2 import FakeEC2
from tests.contracts.test_aws import WAYS, client
from tests.contracts.test_provider import Side, aws, ec2, eventually, machine
from tests.fakes import FakeClock, FakeForge

__all__ = ["ec2"]
FOR_EVER = 10_000
looks = pytest.mark.parametrize("looks", range(4))
"""How often a call of each kind does not know what is new."""


@pytest.fixture
def side(ec2: FakeEC2) -> Side:
    ec2.consistency.seconds = math.inf
    return Side(aws(ec2), ec2)


@looks
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("market", ["--cloud-spot", "--cloud-spot=false"])
@pytest.mark.parametrize("key", [None, "ssh-rsa AAAA"])
def test_the_first_launch_of_an_account_has_its_machines_and_ends_them(
    looks: int, way: str, market: str, key: str | None, ec2: FakeEC2, side: Side
) -> None:
    """Security group, launch template and machines are all new."""
    ec2.consistency.looks = looks
    cloud = replace(side.request(WAYS[way], market), ssh_public_key=key)
    (placement, *_) = side.provider.resolve(side.provider.plan(cloud), cloud)
    created = side.provider.create(placement, machine(), 2)
    assert len(created.instances) == len(ec2.alive()) == 2
    for instance in created.instances:
        assert side.provider.look(instance).alive
        assert side.provider.destroy("cml-1", instance)
    eventually(lambda: not ec2.alive())


@pytest.mark.parametrize("way", WAYS)
def test_a_machine_that_cannot_be_ended_is_not_told_as_ended(
    way: str, ec2: FakeEC2, side: Side
) -> None:
    """`InvalidInstanceID.NotFound` after TerminateInstances "does not mean that the instance is or
    will be terminated"."""
    (made,) = side.provider.create(side.ladder(WAYS[way])[0], machine()).instances
    ec2.consistency.looks = FOR_EVER
    with pytest.raises(TimedOut, match=f"waiting for EC2 to know {made.id}"):
        side.provider.destroy("cml-1", made)
    assert ec2.alive() == [made.id]


@pytest.mark.parametrize("looks", range(3))
def test_a_launch_that_was_not_answered_is_rolled_back_whole(
    looks: int, ec2: FakeEC2, side: Side
) -> None:
    """Some of its machines are listed before others."""
    identity = machine().identity
    (early,) = side.provider.create(side.ladder()[0], machine(), 1).instances
    ec2.consistency.settle()
    ec2.consistency.looks = looks
    side.provider.create(side.ladder()[0], machine(), 2)
    repository = Repository(url="https://github.com/octo/train")
    context = Context(repository, FakeForge(), side.provider, FakeClock())
    group = RunnerGroup(identity, count=3, creation=Creation.UNANSWERED, instances=[early])
    assert roll_back([group], context) == []
    eventually(lambda: not ec2.alive())


@looks
def test_another_launch_that_made_the_group_first_is_no_stranger(
    looks: int, ec2: FakeEC2, side: Side
) -> None:
    """Its group is there, but is not listed yet."""
    ladder = side.ladder()
    other = Side(aws(ec2), ec2)
    other.provider.create(other.ladder()[0], machine("cml-other"))
    ec2.consistency.looks = looks
    assert side.provider.create(ladder[0], machine()).instances


def test_a_strangers_group_is_told_at_once(ec2: FakeEC2, side: Side) -> None:
    ladder = side.ladder()
    vpc = ladder[0].vpc_id  # type: ignore[attr-defined]
    client(ec2).create_security_group(GroupName="cml-runner", Description="x", VpcId=vpc)
    with pytest.raises(NotOurs, match="a security group cml-runner in vpc-"):
        side.provider.create(ladder[0], machine())


def test_a_group_that_never_becomes_known_is_told_and_nothing_is_left(
    ec2: FakeEC2, side: Side
) -> None:
    ladder = side.ladder()
    ec2.consistency.looks = FOR_EVER
    with pytest.raises(TimedOut, match="EC2 to know the security group"):
        side.provider.create(ladder[0], machine())
    assert ec2.alive() == []


def test_a_deleted_group_ends_a_fleet_within_its_time(ec2: FakeEC2, side: Side) -> None:
    """As what never becomes known looks like what is not known yet."""
    side.create()
    ladder = side.ladder()
    for group in client(ec2).describe_security_groups()["SecurityGroups"]:
        if group["GroupName"] == "cml-runner":
            ec2.consistency.new(group["GroupId"])
    ec2.consistency.looks = FOR_EVER
    with pytest.raises(ConfigurationError, match=r"InvalidGroup\.NotFound: The security group"):
        side.provider.create(ladder[0], machine("cml-2"))


def test_a_machine_from_a_new_template_is_ours(ec2: FakeEC2, side: Side) -> None:
    """EC2 proves by the template whose machine it is, and may not know the template yet."""
    (made,) = side.provider.create(side.ladder()[0], machine()).instances
    ec2.consistency.looks = 2
    found = [side.provider.find(machine().identity.marks) for _ in range(3)]
    assert [one.id for one in found[-1]] == [made.id]
