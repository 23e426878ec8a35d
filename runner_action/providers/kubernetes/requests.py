"""The objects that a launch creates in a cluster: a Job, whose pod is the machine, and its Secret.
Pure; tests check them against the API's own description.

The pod's containers have one image. `hand-over` alone mounts the Secret, and has ended before
another container starts. `guard` reads the Secret's content from a volume in memory, which it
empties at once; it makes the calls that need a token, and deregisters the runner when `runner` has
ended without doing so. `runner` runs the agent and its jobs. It shares the program and a socket
with the guard, and can write neither.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from runner_action.model import OWNER_TAG, Machine
from runner_action.providers.kubernetes import job_pods, nodes, table
from runner_action.providers.kubernetes.merge import merged
from runner_action.providers.kubernetes.options import Containers
from runner_action.providers.kubernetes.placement import PodPlacement
from runner_action.providers.kubernetes.plan import VALUE

Body = dict[str, Any]
HOME = "/var/lib/cml-runner"
BUNDLE, PROGRAM, TOLD, GUARD, END = (
    f"/run/cml-runner/{name}" for name in ("bundle", "program", "told", "guard", "end")
)
"""The Secret; the agent, read-only except in the container that writes it; the Secret's content,
until the guard has read it; the guard's socket; what the guard fills to have the pod evicted."""
USER, GUARD_USER = 1001, 1002
"""`runner` in our image and in GitHub's; it works with any other image, too. The guard has a user
of its own, so that no job has the same, whatever a template makes them share."""
GRACE_SECONDS = 60
"""The agent (at most 30 s when it is interrupted), then the guard (20 s)."""
TTL_SECONDS = 300
"""How long a pod that has ended is kept to be read, which costs nothing."""
PROBES = 3
"""Failed liveness probes in a row, a minute apart, that end the runner's container: under load a
single one can be late (https://github.com/containerd/containerd/issues/5325). An agent that hangs
is so ended after at most six minutes: SILENCE, and three probes."""
LATE_SECONDS = 300
"""The agent ends itself at max-lifetime; this much later the cluster ends it."""
PYTHON = ("python3", "-IS")
"""Ignores PYTHON… variables and site packages.
https://docs.python.org/3/using/cmdline.html#cmdoption-I"""
RESTRICTED: Body = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
"""Of containers, for
https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted"""


def job_name(placement: PodPlacement, machine: Machine) -> str:
    """The runner's name, and eight digits that differ by launch and rung."""
    token = machine.identity.token(placement.region, str(placement.size), str(placement.spot))
    return f"{machine.identity.name}-{token[:8]}"


def labels_of(tags: Mapping[str, str]) -> dict[str, str]:
    """Tags that Kubernetes takes as labels, by which objects are found. Our keys get the form of
    Kubernetes."""
    labels = {
        _key(key): value for key, value in tags.items() if key != "Name" and VALUE.fullmatch(value)
    }
    return {
        **labels,
        "app.kubernetes.io/name": OWNER_TAG,
        "app.kubernetes.io/managed-by": OWNER_TAG,
    }


def annotations_of(tags: Mapping[str, str]) -> dict[str, str]:
    """The other tags, such as addresses."""
    return {
        _key(key): value
        for key, value in tags.items()
        if key != "Name" and not VALUE.fullmatch(value)
    }


def _key(tag: str) -> str:
    return tag.replace(":", "/") if tag.startswith(f"{OWNER_TAG}:") else tag


def job(placement: PodPlacement, machine: Machine, count: int) -> Body:
    """batch/v1 Job. The cluster never retries its pods: the agent restarts the CI job, which
    launches again."""
    labels, annotations = labels_of(machine.tags), annotations_of(machine.tags)
    of_pod = {**table.UNDISTURBED, **table.NOT_INJECTED["annotations"]}
    runner = placement
    if placement.containers is Containers.KUBERNETES:
        of_pod[job_pods.ANNOTATION] = job_pods.template(placement, resources(placement))
        runner = job_pods.runner(placement)
    pod = merged(
        {
            "metadata": {
                "labels": dict(table.NOT_INJECTED["labels"]),
                "annotations": of_pod,
            },
            "spec": _pod(runner, job_name(placement, machine)),
        },
        placement.template,
    )
    pod["metadata"]["labels"] = {**(pod["metadata"].get("labels") or {}), **labels}
    pod["metadata"]["annotations"] = {**annotations, **(pod["metadata"].get("annotations") or {})}
    spec: Body = {
        "completions": count,
        "parallelism": count,
        "backoffLimit": 0,
        "ttlSecondsAfterFinished": TTL_SECONDS,
        "template": pod,
    }
    if count > 1:
        # Without a limit per index, the first pod that fails ends the others. `maxFailedIndexes`
        # is left out: it may not be more than `completions`, which shrink if there are fewer pods.
        spec |= {"completionMode": "Indexed", "backoffLimitPerIndex": 0}
        del spec["backoffLimit"]
    if placement.queue:
        spec["suspend"] = True
    if machine.lifetime:
        spec["activeDeadlineSeconds"] = machine.lifetime + LATE_SECONDS
    metadata = {"name": job_name(placement, machine), "labels": labels, "annotations": annotations}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec}


def secret(created: Mapping[str, Any], machine: Machine) -> Body:
    """v1 Secret with the user data for the pods of a Job; the cluster deletes it with the Job.
    `created`: the Job as the cluster returned it."""
    owner = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "name": created["metadata"]["name"],
        "uid": created["metadata"]["uid"],
    }
    marked = {"labels": labels_of(machine.tags), "annotations": annotations_of(machine.tags)}
    metadata = {"name": created["metadata"]["name"], **marked, "ownerReferences": [owner]}
    data = {"agent.pyz": base64.b64encode(machine.user_data).decode()}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": metadata,
        "type": "Opaque",
        "immutable": True,
        "data": data,
    }


def _pod(placement: PodPlacement, name: str) -> Body:
    docker = placement.containers is Containers.DOCKER
    spec: Body = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": placement.service_account is not None,
        "enableServiceLinks": False,
        "shareProcessNamespace": False,
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "securityContext": {
            "runAsNonRoot": True,
            **_users(placement, runAsUser=USER, runAsGroup=USER, fsGroup=USER),
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "nodeSelector": nodes.selector(placement),
        "tolerations": nodes.tolerations(placement),
        "initContainers": [
            _hand_over(placement),
            _guard(placement),
            *([_docker(placement)] if docker else []),
        ],
        "containers": [_runner(placement)],
        "volumes": _volumes(name, placement),
    }
    if placement.service_account:
        spec["serviceAccountName"] = placement.service_account
    if affinity := nodes.required(placement):
        spec["affinity"] = affinity
    return spec | job_pods.claims(placement)


def _users(placement: PodPlacement, **numbers: int) -> Body:
    """The users and groups of a security context, unless the cluster assigns them."""
    return {} if placement.assigned_users else dict(numbers)


def _volumes(secret_name: str, placement: PodPlacement) -> list[Body]:
    containers = placement.containers
    secret: Body = {"secretName": secret_name, "defaultMode": 0o440}
    if placement.queue:
        # A queue that has taken back a pod creates it again, when its Secret is gone: the pod then
        # fails at once, and does not wait for it for days.
        secret["optional"] = True
    volumes: list[Body] = [
        {"name": "home", "emptyDir": {}},
        {"name": "bundle", "secret": secret},
        {"name": "program", "emptyDir": {}},
        {"name": "end", "emptyDir": {"sizeLimit": "1Mi"}},
    ]
    volumes += [
        {"name": name, "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}}
        for name in ("told", "guard")
    ]
    if containers is Containers.DOCKER:
        volumes += [{"name": name, "emptyDir": {}} for name in ("docker", "docker-data")]
    if containers is Containers.KUBERNETES:
        volumes.append(job_pods.volume())
    return volumes


def _runner(placement: PodPlacement) -> Body:
    """The agent, as process 1, and its jobs. The liveness probe runs the watchdog, as systemd's
    timer does elsewhere."""
    more = {
        Containers.NONE: [],
        Containers.DOCKER: [{"name": "docker", "mountPath": "/run/docker"}],
        Containers.KUBERNETES: [job_pods.mount()],
    }
    return {
        "name": "runner",
        "image": placement.image,
        "workingDir": HOME,
        "command": _agent("run", GUARD),
        "env": _environment(placement),
        "resources": runner_resources(placement),
        "securityContext": RESTRICTED,
        "volumeMounts": [
            {"name": "home", "mountPath": HOME},
            {"name": "program", "mountPath": PROGRAM, "readOnly": True},
            {"name": "guard", "mountPath": GUARD, "readOnly": True},
            *more[placement.containers],
        ],
        "livenessProbe": {
            "exec": {"command": _agent("watchdog", GUARD)},
            "initialDelaySeconds": 60,
            "periodSeconds": 60,
            "timeoutSeconds": 30,
            "failureThreshold": PROBES,
        },
    }


def _environment(placement: PodPlacement) -> list[Body]:
    variables = [{"name": "INSTANCE_ID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]
    if placement.size.for_nvidia:
        variables.append({"name": "CML_RUNNER_GPU", "value": "1"})
    if placement.containers is Containers.DOCKER:
        variables.append({"name": "DOCKER_HOST", "value": "unix:///run/docker/docker.sock"})
    if placement.containers is Containers.KUBERNETES:
        variables += [
            *job_pods.environment(placement.schedule_timeout),
            {
                "name": "ACTIONS_RUNNER_CONTAINER_HOOKS",
                "value": "/opt/cml-runner/k8s-hooks/index.js",
            },
            {
                "name": "ACTIONS_RUNNER_POD_NAME",
                "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}},
            },
            {"name": "ACTIONS_RUNNER_REQUIRE_JOB_CONTAINER", "value": "false"},
            {
                "name": "CML_RUNNER_NAMESPACE",
                "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}},
            },
        ]
    return variables


def _agent(*words: str) -> list[str]:
    return [*PYTHON, f"{PROGRAM}/agent.pyz", *words]


def _hand_over(placement: PodPlacement) -> Body:
    """The one container that mounts the Secret. What is mounted stays for as long as the pod
    lives, whatever becomes of the Secret itself, and nobody can enter a container that has ended.

    https://kubernetes.io/docs/concepts/configuration/secret/#secret-immutable-create: "Existing
    Pods maintain a mount point to the deleted Secret";
    https://kubernetes.io/docs/concepts/workloads/pods/init-containers/
    """
    return {
        **_small(placement, "hand-over"),
        "command": [*PYTHON, f"{BUNDLE}/agent.pyz", "hand-over", PROGRAM, TOLD],
        "volumeMounts": [
            {"name": "bundle", "mountPath": BUNDLE, "readOnly": True},
            {"name": "program", "mountPath": PROGRAM},
            {"name": "told", "mountPath": TOLD},
        ],
    }


def _guard(placement: PodPlacement) -> Body:
    """A native sidecar: it starts before the runner and ends after it."""
    return {
        **_small(placement, "guard"),
        "restartPolicy": "Always",
        "command": _agent("guard", TOLD, GUARD, END),
        "volumeMounts": [
            {"name": "program", "mountPath": PROGRAM, "readOnly": True},
            {"name": "told", "mountPath": TOLD},
            {"name": "guard", "mountPath": GUARD},
            {"name": "end", "mountPath": END},
        ],
    }


def _small(placement: PodPlacement, name: str) -> Body:
    return {
        "name": name,
        "image": placement.image,
        "workingDir": "/",
        "env": [{"name": "INSTANCE_ID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
        "resources": {
            "requests": {"cpu": "10m", "memory": "32Mi", "ephemeral-storage": "16Mi"},
            "limits": {"cpu": "500m", "memory": "128Mi", "ephemeral-storage": "256Mi"},
        },
        "securityContext": {**RESTRICTED, **_users(placement, runAsUser=GUARD_USER)},
    }


def _docker(placement: PodPlacement) -> Body:
    """Another sidecar, which is root on its node: whoever may use it may do anything there. Jobs'
    containers are part of it, so it has the size; the GPUs are those of `runner`."""
    return {
        "name": "docker",
        "image": table.DOCKER_IMAGE,
        "restartPolicy": "Always",
        # Jobs' containers get this socket by its usual path, which is one of this container.
        "args": ["dockerd", "--host=unix:///run/docker.sock", f"--group={USER}"],
        "env": [{"name": "DOCKER_TLS_CERTDIR", "value": ""}],
        "resources": _sized(placement, {}),
        "securityContext": {
            "privileged": True,
            "runAsUser": 0,
            "runAsGroup": 0,
            "runAsNonRoot": False,
        },
        "startupProbe": {
            "exec": {"command": ["docker", "-H", "unix:///run/docker.sock", "version"]},
            "periodSeconds": 1,
            "timeoutSeconds": 10,
            "failureThreshold": 60,
        },
        "volumeMounts": [
            {"name": "home", "mountPath": HOME},
            {"name": "docker", "mountPath": "/run"},
            {"name": "docker-data", "mountPath": "/var/lib/docker"},
        ],
    }


def resources(placement: PodPlacement) -> Body:
    """What a job may use."""
    return _sized(placement, _gpus(placement)) | _claimed(placement)


def runner_resources(placement: PodPlacement) -> Body:
    """The same; beside Docker, which has most of it, little is requested."""
    whole = resources(placement)
    if placement.containers is Containers.DOCKER:
        return whole | {"requests": {**table.LITTLE, **_gpus(placement)}}
    return whole


def _gpus(placement: PodPlacement) -> Body:
    size = placement.size
    return {size.resource: str(size.number)} if size.number and not size.claim else {}


def _claimed(placement: PodPlacement) -> Body:
    return {"claims": [{"name": job_pods.CLAIM}]} if placement.size.claim else {}


def _sized(placement: PodPlacement, gpus: Body) -> Body:
    size, disk = placement.size, placement.disk_gb
    cpus, memory = size.shares
    disk_request = table.SMALL_DISK_GB if disk <= table.DISK_NOT_ASKED else disk * table.CPU_SHARE
    limits = {
        "cpu": _cpus(size.cpus),
        "memory": f"{size.memory_mib}Mi",
        "ephemeral-storage": f"{disk}G",
    }
    requests = {
        "cpu": _cpus(size.cpus * cpus),
        "memory": f"{int(size.memory_mib * memory)}Mi",
        "ephemeral-storage": f"{int(disk_request * 1000)}M",
    }
    return {"requests": requests | gpus, "limits": limits | gpus}


def _cpus(number: float) -> str:
    return f"{number:g}" if number == int(number) else f"{round(number * 1000)}m"
