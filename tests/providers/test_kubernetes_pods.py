"""A pod as a cluster tells it: when it will never be a runner, and what it waits for. No
network."""

from __future__ import annotations

from typing import Any

import pytest

from runner_action.providers.kubernetes import pods

PULL = 'failed to pull and unpack image "octo/x:1"'


def pod(
    *,
    phase: str = "Pending",
    runner: dict[str, Any] | None = None,
    guard: dict[str, Any] | None = None,
    **status: Any,
) -> dict[str, Any]:
    """With the states of its containers as the kubelet tells them."""
    told: dict[str, Any] = {"phase": phase, **status}
    if runner:
        told["containerStatuses"] = [{"name": "runner", "restartCount": 0, **runner}]
    if guard:
        told["initContainerStatuses"] = [{"name": "guard", "restartCount": 0, **guard}]
    return {
        "metadata": {"name": "cml-1-0", "namespace": "ci"},
        "spec": {"containers": [{"name": "runner", "image": "octo/x:1"}]},
        "status": told,
    }


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    return {"state": {"waiting": {"reason": reason, "message": message}}}


def ended(code: int, reason: str = "Error", message: str = "", **more: Any) -> dict[str, Any]:
    return {
        "state": {"terminated": {"exitCode": code, "reason": reason, "message": message}},
        **more,
    }


@pytest.mark.parametrize(
    ("told", "why"),
    [
        (
            pod(runner=waiting("InvalidImageName", "couldn't parse image name")),
            "InvalidImageName of container runner: couldn't parse image name",
        ),
        (
            pod(runner=waiting("ErrImageNeverPull")),
            "ErrImageNeverPull of container runner: no message",
        ),
        (
            pod(runner=waiting("CreateContainerConfigError", 'secret "hf" not found')),
            'CreateContainerConfigError of container runner: secret "hf" not found',
        ),
        (
            pod(guard=waiting("CreateContainerError", "no such file")),
            "CreateContainerError of container guard: no such file",
        ),
        (
            pod(runner=waiting("ErrImagePull", f"{PULL}: not found")),
            f"ErrImagePull of container runner: {PULL}: not found",
        ),
        (
            pod(runner=waiting("ImagePullBackOff", f"{PULL}: 403 Forbidden")),
            f"ImagePullBackOff of container runner: {PULL}: 403 Forbidden",
        ),
        (
            pod(runner=ended(137, "OOMKilled"), phase="Failed"),
            "container runner ended with code 137 (OOMKilled)",
        ),
        (
            pod(runner=ended(1, message="no python3\n")),
            "container runner ended with code 1 (Error): no python3",
        ),
        (
            pod(guard=ended(128, "StartError", "exec: python3: not found")),
            "container guard ended with code 128 (StartError): exec: python3: not found",
        ),
        (pod(guard=ended(1, restartCount=3)), "container guard ended with code 1 (Error)"),
        (
            pod(phase="Failed", reason="Evicted", message="The node was low on resource: memory."),
            "Evicted: The node was low on resource: memory.",
        ),
        (pod(phase="Failed"), "Failed: the pod has failed"),
    ],
)
def test_what_will_never_be_a_runner(told: dict[str, Any], why: str) -> None:
    assert pods.trouble(told) == why


@pytest.mark.parametrize(
    "told",
    [
        pod(),
        pod(runner=waiting("ContainerCreating")),
        pod(runner=waiting("ErrImagePull", f"{PULL}: dial tcp: i/o timeout")),
        pod(runner={"state": {"running": {"startedAt": "2026-11-24T12:00:00Z"}}}, phase="Running"),
        pod(runner=ended(0, "Completed"), phase="Succeeded"),
        pod(guard=ended(1, restartCount=1)),
        pod(
            guard={
                "state": {"running": {"startedAt": "2026-11-24T12:00:00Z"}},
                "lastState": {"terminated": {"exitCode": 1, "reason": "Error"}},
                "restartCount": 4,
            },
            phase="Running",
        ),
    ],
)
def test_what_may_be_one(told: dict[str, Any]) -> None:
    assert pods.trouble(told) == ""


def test_what_a_pod_waits_for_is_told_once_and_in_the_clusters_words() -> None:
    why = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
    told = pod(
        conditions=[
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": why}
        ],
        runner=waiting("PodInitializing"),
    )
    events = [
        {"type": "Warning", "reason": "FailedScheduling", "message": why},
        {"type": "Normal", "reason": "TriggeredScaleUp", "message": "pod triggered scale-up"},
        {"type": "Normal", "reason": "Scheduled", "message": "Successfully assigned"},
        {"type": "Warning", "reason": "FailedScheduling", "message": why},
    ]
    assert pods.explanation(told, events) == [why, "TriggeredScaleUp: pod triggered scale-up"]
    assert pods.explanation(pod(runner=waiting("ErrImagePull", "slow"))) == ["ErrImagePull: slow"]
    assert pods.explanation(pod(phase="Running"), events) == []
