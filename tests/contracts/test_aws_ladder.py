"""A whole launch on EC2, the forge in memory: every kind of refusal at every rung of the ladder,
and nothing is ever left."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import pytest

from runner_action.commands.launch import Launch
from runner_action.errors import (
    CapacityError,
    ConfigurationError,
    CredentialsError,
    ProviderError,
    QuotaError,
)
from runner_action.model import Registration
from runner_action.runners.siblings import Siblings
from runner_action.sandbox.clouds.aws.ec2 import FakeEC2
from tests.contracts.test_provider import Side, aws, ec2
from tests.fakes import FakeClock, FakeForge
from tests.test_launch import RUN, request

__all__ = ["ec2"]
LADDER = [("us-east-1", True), ("eu-west-1", True), ("us-east-1", False), ("eu-west-1", False)]
WORDS = (
    "--cloud-region=us-east,eu-west",
    "--cloud-type=g6.xlarge,g5.xlarge",
    "--cloud-spot=prefer",
    "--count=3",
)
REFUSALS: dict[str, type[ProviderError]] = {
    "InsufficientInstanceCapacity": CapacityError,
    "MaxSpotInstanceCountExceeded": QuotaError,
    "UnauthorizedOperation": CredentialsError,
    "InvalidParameterValue": ConfigurationError,
}


class Forge(FakeForge):
    """Every machine's runner is online at once."""

    def online(self, registrations: Mapping[str, Registration]) -> Collection[str]:
        return list(registrations)


def rung_of(form: Mapping[str, str]) -> int:
    return LADDER.index((form["region"], form.get("InstanceMarketOptions.MarketType") == "spot"))


def launched(ec2: FakeEC2) -> Launch:
    clock = FakeClock()
    return Launch(request(*WORDS), Siblings(RUN), Forge, lambda: aws(ec2), clock, clock.at)


@pytest.mark.parametrize(
    ("code", "rung"),
    [
        (code, rung)
        for code in REFUSALS
        for rung in range(len(LADDER))
        if rung in (0, 3) or code == "InsufficientInstanceCapacity"
    ],
)
def test_a_refusal_at_any_rung(code: str, rung: int, ec2: FakeEC2) -> None:
    """The rungs before it have no machines."""
    ec2.refuse(
        lambda form: form["Action"] == "RunInstances" and rung_of(form) < rung,
        "InsufficientInstanceCapacity",
    )
    ec2.refuse(lambda form: form["Action"] == "RunInstances" and rung_of(form) == rung, code)
    launch = launched(ec2)
    helps = REFUSALS[code] in (CapacityError, QuotaError) and rung + 1 < len(LADDER)
    if not helps:
        with pytest.raises(REFUSALS[code]):
            launch.launch()
        assert Side(aws(ec2), ec2).provider.find({}, ["us-east-1", "eu-west-1"]) == []
        return
    report = launch.launch()
    assert len(report.launched) == 3
    assert {
        (one.instance.region, one.instance.spot) for one in report.launched if one.instance
    } == {LADDER[rung + 1]}
    told = "\n".join(report.tried)
    assert all(
        f"{'spot' if spot else 'on-demand'} in {region}" in told
        for region, spot in LADDER[: rung + 1]
    )
    assert report.tried[-1].endswith(": 3 of 3")


def test_machines_from_several_rungs_and_all_of_them_gone_when_one_is_missing(ec2: FakeEC2) -> None:
    ec2.stock = {
        ("g6.xlarge", "spot"): 1,
        ("g5.xlarge", "spot"): 0,
        ("g6.xlarge", "on-demand"): 0,
        ("g5.xlarge", "on-demand"): 2,
    }
    report = launched(ec2).launch()
    assert sorted(
        (one.instance.instance_type, one.instance.spot) for one in report.launched if one.instance
    ) == [
        ("g5.xlarge", False),
        ("g5.xlarge", False),
        ("g6.xlarge", True),
    ]
    other = Side(aws(ec2), ec2).provider
    for one in report.launched:
        assert one.instance
        other.destroy("", one.instance)
    ec2.stock[("g5.xlarge", "on-demand")] = 1
    ec2.stock[("g6.xlarge", "spot")] = 1
    again = launched(ec2)
    again.run = RUN.__class__(derived_name="cml-again", key="again", title="again")
    with pytest.raises(CapacityError, match="No placement had 3 such machines"):
        again.launch()
    assert other.find({}, ["us-east-1", "eu-west-1"]) == []
