"""A launch on a cluster that scales from zero, by the clock: how long a node takes, and what is
left for the start."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import pytest

from runner_action.commands.launch import Launch
from runner_action.errors import CapacityError, ProviderError, QuotaError, TimedOut
from runner_action.model import Machine, Placement, Plan
from runner_action.providers.base import Created
from runner_action.providers.kubernetes import ladder, plan
from runner_action.providers.kubernetes.placement import PodPlacement
from runner_action.request import CloudRequest
from runner_action.runners.siblings import Siblings
from runner_action.sandbox.world import POD_IMAGE
from tests.fakes import FakeProvider
from tests.test_launch import RUN, Story


class Autoscaled(FakeProvider):
    """A cluster without nodes: a placement gets one after so many seconds, if it waits so long, or
    is refused."""

    user_data_limit = 1_000_000

    def __init__(self, story: Scaling, nodes: Sequence[float | ProviderError]) -> None:
        super().__init__(story._born)
        self.story = story
        self.nodes = list(nodes)

    def plan(self, request: CloudRequest) -> Plan:
        return plan.plan(request)

    def resolve(self, plan: Plan, request: CloudRequest) -> Sequence[Placement]:
        return ladder.placements(plan, request)

    def create(self, placement: Placement, machine: Machine, count: int = 1) -> Created:
        assert isinstance(placement, PodPlacement)
        node = self.nodes.pop(0)
        if isinstance(node, ProviderError):
            raise node
        self.story.clock.sleep(min(node, placement.schedule_timeout))
        if node >= placement.schedule_timeout:
            raise CapacityError(f"No node for the pod within {placement.schedule_timeout} s")
        return super().create(placement, machine, count)


class Scaling(Story):
    """`boot`: seconds from the node to the runner."""

    def __init__(self, *argv: str, nodes: Sequence[float | ProviderError], boot: float = 5) -> None:
        image = f"--cloud-image={POD_IMAGE}"
        super().__init__("--cloud=kubernetes", image, *argv, boot=boot)
        self.provider = Autoscaled(self, nodes)
        self.clock.each = self._time_passes

    def spec(self, name: str = "cml-0123456789") -> dict[str, Any]:
        packed = zipfile.ZipFile(io.BytesIO(self.provider.machines[name].user_data))
        found: dict[str, Any] = json.loads(packed.read("spec.json"))
        return found


@pytest.mark.parametrize(
    ("argv", "nodes", "boot"),
    [
        (["--cloud-spot=prefer"], [10_000, 220], 90),
        (["--cloud-spot=prefer"], [10_000, 299], 590),
        (["--cloud-type=m+a100,m+t4", "--cloud-spot=prefer"], [10_000, 10_000, 10_000, 290], 400),
        (["--cloud-kubernetes-schedule-timeout=20m"], [1190], 590),
    ],
)
def test_every_placement_has_time_for_a_node_and_its_machine_for_its_start(
    argv: list[str], nodes: list[float], boot: float
) -> None:
    story = Scaling(*argv, nodes=nodes, boot=boot)
    report = story.launch()
    assert len(report.launched) == 1
    # No sweep takes it for dead before, and the cluster does not end it early.
    machine = story.provider.machines["cml-0123456789"]
    began = story.clock.now().timestamp() - (story.clock.at - 1000)
    expiry = datetime.fromisoformat(machine.tags["cml-runner:expiry"]).timestamp()
    online_by = datetime.fromisoformat(machine.tags["cml-runner:online-by"]).timestamp()
    assert online_by - began >= report.stages["online"]
    assert expiry - online_by == story.request.max_lifetime


def test_the_start_is_bounded_from_the_node_on() -> None:
    story = Scaling("--cloud-spot=prefer", nodes=[10_000, 200], boot=700)
    with pytest.raises(TimedOut, match="after 600 s"):
        story.launch()
    assert story.clock.at - 1000 == pytest.approx(300 + 200 + 600, abs=15)
    assert not story.provider.alive


QUOTA = QuotaError("exceeded quota: compute, requested: limits.cpu=32")


def test_a_quota_that_is_too_small_for_one_size_may_do_for_another() -> None:
    """It counts what is requested, on spot nodes as on others: the same size is not tried again."""
    story = Scaling("--cloud-type=l,s", "--cloud-spot=prefer", nodes=[QUOTA, 5])
    (launched,) = story.launch().launched
    assert launched.instance
    assert story.provider.calls.count("create") == 1
    refused = Scaling("--cloud-type=l", "--cloud-spot=prefer", nodes=[QUOTA])
    with pytest.raises(QuotaError):
        refused.launch()


def test_another_launch_with_reuse_waits_as_long_as_this_one_may_take() -> None:
    """Else both would create a machine."""
    first = Scaling("--cloud-spot=prefer", "--reuse", "--labels=a", nodes=[10_000, 290], boot=500)
    second = Scaling("--cloud-spot=prefer", "--reuse", "--labels=a", nodes=[], boot=500)
    second.clock, second.forge = first.clock, first.forge
    turns: list[bool] = []
    waited = first.clock.sleep

    def sleep(seconds: float) -> None:
        waited(seconds)
        if first.clock.at - 1000 < 780 or turns:
            return
        turns.append(True)
        listed = first.forge.listed.values()
        claims = {mark for runner in listed for mark in runner.claims}
        assert claims, "its turn is not over"

    first.clock.sleep = sleep  # type: ignore[method-assign]
    assert len(first.launch().launched) == 1
    assert turns
    reused = Launch(
        second.request,
        Siblings(RUN),
        lambda: second.forge,
        lambda: second.provider,
        second.clock,
        second.clock.at,
    ).launch()
    assert [one.reused for one in reused.launched] == [True]
