"""A launch in a queue of Kueue, over HTTP."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from runner_action.errors import CapacityError, InputError
from runner_action.providers.kubernetes.options import QUEUE_SECONDS, options_of
from runner_action.sandbox.kubernetes.api import FakeKubernetes
from runner_action.sandbox.kubernetes.nodes import Node
from runner_action.waiting import SystemClock
from tests.contracts.kubernetes_types import Judge
from tests.contracts.test_kubernetes import Side, machine, provider

QUEUE = "--cloud-kubernetes-queue=gpus"


class Leaping(SystemClock):
    """That sleeps for an instant, after which it is as late as if it had slept."""

    leapt = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.leapt

    def sleep(self, seconds: float) -> None:
        time.sleep(0.05)
        self.leapt += seconds


@pytest.fixture
def side() -> Iterator[Side]:
    fake = FakeKubernetes(factor=0.02, nodes=[Node("node-1")])
    judge = Judge(fake)
    yield Side(fake, provider(fake, Leaping()))
    fake.close()
    assert judge.problems == []


def test_a_job_is_queued_with_its_secret_and_started_when_it_is_admitted(side: Side) -> None:
    """Before, no pod may wait for a Secret; and one that comes back later must not wait for it."""
    side.cluster.control.queues.room["gpus"] = 1
    made = side.create(QUEUE, patience=20)
    assert side.job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpus"
    calls = [one for one in side.cluster.asked if one.partition(" ")[0] in ("create", "patch")]
    assert calls == ["create batch/jobs", "create secrets", "patch batch/jobs"]
    (pod,) = side.cluster.shelf.of("pods")
    assert pod["metadata"]["name"] == made.id
    (bundle,) = [one for one in pod["spec"]["volumes"] if "secret" in one]
    assert bundle["secret"]["optional"] is True


def test_the_wait_in_the_queue_is_none_for_a_node(
    side: Side, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    queues = side.cluster.control.queues
    queues.room["gpus"] = 0
    threading.Timer(1, queues.room.__setitem__, ("gpus", 1)).start()
    clock = side.provider._clock
    began = clock.monotonic()
    assert side.create(QUEUE, patience=20)
    assert clock.monotonic() - began > 30
    assert "insufficient unused quota for nvidia.com/gpu" in caplog.text


def test_two_launches_take_turns(side: Side) -> None:
    side.cluster.control.queues.room["gpus"] = 1
    first = side.create(QUEUE, patience=20)
    threading.Timer(1, side.provider.destroy, ("cml-1", first)).start()
    assert side.create(QUEUE, of=machine("cml-2"), patience=20).group != first.group


@pytest.mark.parametrize(
    ("queues", "why"),
    [({"gpus": 0}, "insufficient unused quota"), ({}, "is there a LocalQueue gpus")],
)
def test_a_queue_that_does_not_admit_it_is_no_capacity_in_its_own_words(
    side: Side, queues: dict[str, int], why: str
) -> None:
    side.cluster.control.queues.room.update(queues)
    clock = side.provider._clock
    began = clock.monotonic()
    with pytest.raises(CapacityError, match=why):
        side.create(QUEUE)
    assert QUEUE_SECONDS <= clock.monotonic() - began < QUEUE_SECONDS + 60
    assert side.cluster.alive() == []


def test_what_was_admitted_as_a_whole_is_given_as_a_whole_or_not_at_all(side: Side) -> None:
    """Kueue takes back a Job that has shrunk."""
    side.cluster.control.queues.room["gpus"] = 1
    with pytest.raises(CapacityError):
        side.provider.create(
            side.ladder(QUEUE, "--cloud-gpu=nvidia.com/gpu:5", patience=2)[0], machine(), 3
        )
    assert side.cluster.alive() == []


def test_it_has_time_for_the_queue_and_one_placement(side: Side) -> None:
    cloud = side.request(QUEUE, patience=300)
    assert cloud.patience == options_of(cloud).patience == QUEUE_SECONDS + 300
    with pytest.raises(InputError, match="one value for cloud-type, cloud-spot: prefer"):
        side.ladder(QUEUE, "--cloud-type=m,l", "--cloud-spot=prefer")


def test_pods_of_jobs_which_the_queue_would_not_count_are_refused(side: Side) -> None:
    """The GPUs would be theirs."""
    pods = ("--cloud-kubernetes-containers=kubernetes", "--cloud-permission-set=jobs")
    with pytest.raises(InputError, match="leave out `cloud-kubernetes-containers: kubernetes`"):
        side.ladder(QUEUE, *pods)
