"""What a cluster tells of a pod's log."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from flask import Response, request

from runner_action.sandbox.kubernetes.nodes import containers
from runner_action.sandbox.kubernetes.rules import Failed
from runner_action.sandbox.kubernetes.shelf import Json


def statuses_of(pod: Json) -> list[Json]:
    return [
        *pod["status"].get("initContainerStatuses", ()),
        *pod["status"].get("containerStatuses", ()),
    ]


def waiting(pod: Json, statuses: Sequence[Json], container: str) -> str | None:
    """What that container waits for; None if it was started, or the pod has no node."""
    for one in statuses:
        if one["name"] == container and "waiting" in one["state"]:
            return str(one["state"]["waiting"]["reason"])
    return None if statuses or not pod["spec"].get("nodeName") else "ContainerCreating"


def log_of(pod: Json, console: Callable[[str], str]) -> Response:
    """Of a pod that no node has there is none, which is no error. `console`: what a pod has said,
    by its uid."""
    spec = pod["spec"]
    name = pod["metadata"]["name"]
    number = pod["metadata"]["uid"]
    every = [one["name"] for one in containers(spec)]
    wanted = request.args.get(
        "container", "" if len(spec["containers"]) > 1 else spec["containers"][0]["name"]
    )
    if wanted not in every:
        choose = (
            f"a container name must be specified for pod {name}, choose one of: [{' '.join(every)}]"
        )
        raise Failed(
            400,
            "BadRequest",
            f"container {wanted} is not valid for pod {name}" if wanted else choose,
        )
    statuses = statuses_of(pod)
    waits = waiting(pod, statuses, wanted)
    if waits:
        text = (
            "trying and failing to pull image"
            if waits in ("ErrImagePull", "ImagePullBackOff")
            else f"waiting to start: {waits}"
        )
        raise Failed(400, "BadRequest", f'container "{wanted}" in pod "{name}" is {text}')
    lines = (console(number) if statuses else "").splitlines(keepends=True)
    tail = request.args.get("tailLines", len(lines), type=int)
    text = "".join(lines[max(0, len(lines) - tail) :])
    # From where it begins to be told, not up to the end of it.
    return Response(
        text.encode()[: request.args.get("limitBytes", None, type=int)],
        content_type="text/plain",
    )
