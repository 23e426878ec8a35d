"""Pods that a runner creates for its jobs: what they are given, and the little that is left for the
runner itself. Pure."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from runner_action.providers.kubernetes import nodes, table
from runner_action.providers.kubernetes.placement import PodPlacement
from runner_action.providers.kubernetes.plan import Size

Body = dict[str, Any]
FOLDER = "/run/cml-runner/jobs"
TEMPLATE = f"{FOLDER}/template.json"
ANNOTATION = "cml-runner/jobs"
"""Of the runner's pod, which reads it as a file: an object of its own would have to be deleted."""
RUNNER = Size(cpus=2, memory_mib=4096, shares=(0.05, 0.125))
"""Of a runner that runs no jobs itself."""
CLAIM = "gpu"
JOB_CONTAINER = "$job"
"""How GitHub's container hooks call the container of a job.
https://github.com/actions/runner-container-hooks/blob/main/docs/adrs/0096-hook-extensions.md"""


def runner(placement: PodPlacement) -> PodPlacement:
    """Where the runner itself is placed: on any node of the user's, with neither GPU nor spot."""
    return replace(placement, size=RUNNER, spot=False)


def template(placement: PodPlacement, resources: Body) -> str:
    """JSON, which is YAML, for GitHub's container hooks; the agent makes GitLab's of it."""
    spec: Body = {
        "nodeSelector": nodes.selector(placement),
        "tolerations": nodes.tolerations(placement),
        "affinity": nodes.required(placement),
        "containers": [{"name": JOB_CONTAINER, "resources": resources}],
        **claims(placement),
    }
    given = {key: value for key, value in spec.items() if value}
    metadata = {
        "labels": dict(table.NOT_INJECTED["labels"]),
        "annotations": {**table.UNDISTURBED, **table.NOT_INJECTED["annotations"]},
    }
    return json.dumps({"metadata": metadata, "spec": given})


def claims(placement: PodPlacement) -> Body:
    """The part of a pod that claims devices; empty if it does not."""
    name = placement.size.claim
    return {"resourceClaims": [{"name": CLAIM, "resourceClaimTemplateName": name}]} if name else {}


def environment(patience: int) -> list[Body]:
    """Where the template is, and how long a job may wait for its pod.
    https://github.com/actions/runner-container-hooks/tree/main/packages/k8s"""
    return [
        {"name": "ACTIONS_RUNNER_CONTAINER_HOOK_TEMPLATE", "value": TEMPLATE},
        {"name": "ACTIONS_RUNNER_PREPARE_JOB_TIMEOUT_SECONDS", "value": str(patience + 600)},
    ]


def volume() -> Body:
    field = {"fieldPath": f"metadata.annotations['{ANNOTATION}']"}
    items = [{"path": TEMPLATE.rpartition("/")[2], "fieldRef": field}]
    return {"name": "jobs", "downwardAPI": {"items": items}}


def mount() -> Body:
    return {"name": "jobs", "mountPath": FOLDER, "readOnly": True}
