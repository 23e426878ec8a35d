"""From the cluster's description of a pod to ours: the instance, what it waits for, and why it will
never be a runner. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from runner_action.marks import is_named_as
from runner_action.model import NAME_TAG, OWNER_TAG, Instance, ProviderName

Json = Mapping[str, Any]
JOB_LABEL = "batch.kubernetes.io/job-name"
"""Since Kubernetes 1.27; `job-name` before that."""
OVER = ("Succeeded", "Failed")
HOPELESS = (
    "InvalidImageName",
    "ErrImageNeverPull",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
)
"""Reasons to wait that never pass. https://github.com/kubernetes/kubernetes:
pkg/kubelet/images/types.go, kuberuntime"""
STUMBLES, NOT_STARTED = 3, ("StartError", "ContainerCannotRun")
NO_SUCH_IMAGE = re.compile(
    r"not found|manifest unknown|denied|unauthorized|authorization failed|authentication"
    r" required|40[134] ",
    re.I,
)
"""Messages of failed pulls that another try would not change."""


def instance_of(pod: Json, size: str = "", spot: bool = False) -> Instance:
    metadata, status = pod["metadata"], pod.get("status", {})
    labels, tags = metadata.get("labels") or {}, tags_of(pod)
    container: Json = next(
        (part for part in pod["spec"]["containers"] if part["name"] == "runner"), {}
    )
    return Instance(
        provider=ProviderName.KUBERNETES,
        id=metadata["name"],
        name=tags.get(NAME_TAG, ""),
        region=metadata["namespace"],
        zone=pod["spec"].get("nodeName") or "",
        instance_type=size,
        image=container.get("image", ""),
        spot=spot,
        address=status.get("podIP") or "",
        launched=metadata.get("creationTimestamp") or "",
        alive=status.get("phase") not in OVER and not metadata.get("deletionTimestamp"),
        group=labels.get(JOB_LABEL) or labels.get("job-name", ""),
        trouble=trouble(pod),
        tags=tags,
        proven=is_named_as(tags.get(NAME_TAG, ""), metadata["name"]),
    )


def job_as_instance(job: Json) -> Instance:
    """A Job, as if it were a pod of it: it may still get one."""
    metadata = job["metadata"]
    tags = tags_of(job)
    name = tags.get(NAME_TAG, "")
    return Instance(
        provider=ProviderName.KUBERNETES,
        id=metadata["name"],
        name=name,
        region=metadata["namespace"],
        launched=metadata.get("creationTimestamp") or "",
        group=metadata["name"],
        tags=tags,
        proven=is_named_as(name, metadata["name"]),
    )


def is_controlled_by(uid: str, pod: Json) -> bool:
    """Whether the pod is of the Job with that uid: a label may be given by others."""
    owners = pod["metadata"].get("ownerReferences") or ()
    return any(owner["uid"] == uid for owner in owners)


def tags_of(resource: Json) -> dict[str, str]:
    """Our tags, from the labels and annotations of a pod, a Job or a Secret."""
    metadata = resource["metadata"]
    entries = {**(metadata.get("annotations") or {}), **(metadata.get("labels") or {})}
    return {
        key.replace("/", ":"): value
        for key, value in entries.items()
        if key == OWNER_TAG or key.startswith(f"{OWNER_TAG}/")
    }


def has_node(pod: Json) -> bool:
    return bool(pod["spec"].get("nodeName"))


def is_refused(pod: Json) -> bool:
    """Whether the kubelet of its node has refused it, before any of its containers started: for
    example, since a new node's GPUs are not ready. The reason is UnexpectedAdmissionError, OutOfcpu
    or another of https://github.com/kubernetes/kubernetes: pkg/kubelet/lifecycle/predicate.go.
    """
    status = pod.get("status", {})
    started = any(
        {"running", "terminated"} & set(container.get("state") or {})
        for container in _containers(status)
    )
    return has_node(pod) and status.get("phase") == "Failed" and not started


def is_placed(pod: Json) -> bool:
    """Whether it has a node, whose kubelet may not have seen it yet."""
    return has_node(pod) and not is_refused(pod)


def is_settled(pod: Json) -> bool:
    """Whether nothing more needs to be waited for: it has started, or never will."""
    return is_over(pod) or (has_node(pod) and bool(pod.get("status", {}).get("startTime")))


def is_over(pod: Json) -> bool:
    return pod.get("status", {}).get("phase") in OVER


def unschedulable(pod: Json) -> str:
    """The scheduler's own message; empty if it has not refused the pod."""
    conditions = pod.get("status", {}).get("conditions") or ()
    return next(
        (
            str(condition.get("message") or condition.get("reason"))
            for condition in conditions
            if condition["type"] == "PodScheduled" and condition["status"] == "False"
        ),
        "",
    )


def trouble(pod: Json) -> str:
    """Why this pod will not be a runner, or no longer is one; empty if it may be."""
    status = pod.get("status", {})
    for container in _containers(status):
        state: Json = container.get("state") or {}
        waiting = state.get("waiting") or {}
        ended = (
            state.get("terminated") or (container.get("lastState") or {}).get("terminated") or {}
        )
        reason, message = waiting.get("reason", ""), waiting.get("message") or ""
        if reason in HOPELESS or (
            reason in ("ErrImagePull", "ImagePullBackOff") and NO_SUCH_IMAGE.search(message)
        ):
            return f"{reason} of container {container['name']}: {message or 'no message'}"
        # A sidecar that fails is started again; one that cannot be started never will be.
        again = (
            container["name"] not in ("runner", "hand-over")
            and container.get("restartCount", 0) < STUMBLES
            and ended.get("reason") not in NOT_STARTED
        )
        if ended.get("exitCode") and not again and not state.get("running"):
            detail = f": {ended['message'].strip()}" if ended.get("message") else ""
            return (
                f"container {container['name']} ended with code {ended['exitCode']}"
                f" ({ended.get('reason') or 'Error'}){detail}"
            )
    if status.get("phase") == "Failed":
        return (
            f"{status.get('reason') or 'Failed'}: {status.get('message') or 'the pod has failed'}"
        )
    return ""


def _containers(status: Json) -> Iterable[Json]:
    yield from status.get("initContainerStatuses") or ()
    yield from status.get("containerStatuses") or ()


def explanation(pod: Json, events: Sequence[Json] = ()) -> list[str]:
    """What the pod waits for, in the cluster's words: scheduler, containers, then warnings, each
    once. Empty for a running pod."""
    if pod.get("status", {}).get("phase") == "Running":
        return []
    lines = [unschedulable(pod)]
    for container in _containers(pod.get("status", {})):
        waiting = (container.get("state") or {}).get("waiting") or {}
        if waiting.get("message"):
            lines.append(f"{waiting.get('reason')}: {waiting['message']}")
    lines += [
        f"{event.get('reason')}: {event.get('message')}"
        for event in events
        if event.get("type") != "Normal" or event.get("reason") in ("Pulling", "TriggeredScaleUp")
    ]
    unique = list(dict.fromkeys(line.strip() for line in lines if line))
    # The event FailedScheduling repeats the condition.
    return [
        line
        for line in unique
        if not any(line != other and line.endswith(other) for other in unique)
    ]
