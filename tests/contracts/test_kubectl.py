"""That kubectl judges, and by the description it is given: what it must accept, what it must
refuse, and that another description means another verdict."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.contracts.kubectl import KIND, MISSING, OPENAPI, Kubectl, description, there
from tests.judges import missing


@pytest.fixture(autouse=True)
def _judge() -> None:
    if not there():
        missing(MISSING)


SPEC = "io.k8s.api.batch.v1.JobSpec"


@pytest.fixture(scope="module")
def kubectl() -> Iterator[Kubectl]:
    with Kubectl() as running:
        yield running


def pod() -> dict[str, Any]:
    """With a bit of everything."""
    mounts = [
        {"name": "keys", "mountPath": "/keys", "readOnly": True},
        {"name": "work", "mountPath": "/work"},
    ]
    terms = [
        {"matchExpressions": [{"key": "kubernetes.io/arch", "operator": "In", "values": ["amd64"]}]}
    ]
    return {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 30,
        "securityContext": {
            "runAsUser": 1000,
            "runAsNonRoot": True,
            "fsGroup": 1000,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "initContainers": [
            {
                "name": "docker",
                "image": "docker:dind",
                "restartPolicy": "Always",
                "securityContext": {"privileged": True},
                "volumeMounts": mounts[1:],
            }
        ],
        "containers": [
            {
                "name": "runner",
                "image": "ubuntu:24.04",
                "command": ["sh", "-c", "true"],
                "env": [
                    {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                    {
                        "name": "WORD",
                        "valueFrom": {
                            "secretKeyRef": {"name": "keys", "key": "word", "optional": True}
                        },
                    },
                ],
                "resources": {
                    "requests": {"cpu": 2, "memory": "4Gi"},
                    "limits": {"nvidia.com/gpu": "1"},
                },
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "capabilities": {"drop": ["ALL"]},
                },
                "readinessProbe": {"tcpSocket": {"port": 80}},
                "volumeMounts": mounts,
            }
        ],
        "volumes": [
            {
                "name": "keys",
                "secret": {
                    "secretName": "keys",
                    "defaultMode": 0o400,
                    "items": [{"key": "word", "path": "word"}],
                },
            },
            {"name": "work", "emptyDir": {"sizeLimit": "10Gi", "medium": ""}},
        ],
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
        "affinity": {
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}
            }
        },
    }


def job() -> dict[str, Any]:
    labels = {"app": "runner"}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": "runner",
            "namespace": "ci",
            "labels": labels,
            "annotations": {"told": "so"},
        },
        "spec": {
            "completions": 2,
            "parallelism": 2,
            "completionMode": "Indexed",
            "backoffLimit": 3,
            "backoffLimitPerIndex": 1,
            "activeDeadlineSeconds": 3600,
            "ttlSecondsAfterFinished": 60,
            "template": {"metadata": {"labels": labels}, "spec": pod()},
        },
    }


def secret() -> dict[str, Any]:
    owner = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "name": "runner",
        "uid": "11111111-2222-3333-4444-555555555555",
        "controller": True,
    }
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "keys", "namespace": "ci", "ownerReferences": [owner]},
        "type": "Opaque",
        "immutable": True,
        "data": {"key": "a2V5"},
        "stringData": {"word": "word"},
    }


def container(made: dict[str, Any]) -> Any:
    return made["spec"]["template"]["spec"]["containers"][0]


@pytest.mark.parametrize(
    "manifest",
    [
        job(),
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one"}, "spec": pod()},
        secret(),
    ],
    ids=lambda one: one["kind"],
)
def test_good_manifests_are_accepted(manifest: dict[str, Any], kubectl: Kubectl) -> None:
    assert kubectl.validate(manifest) == ""
    assert OPENAPI in kubectl.requests


WRONG: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "unknown": (
        lambda made: made["spec"].update(restartPolicyy="Never"),
        f'(Job.spec): unknown field "restartPolicyy" in {SPEC}',
    ),
    "type": (
        lambda made: made["spec"].update(backoffLimit="x"),
        f'invalid type for {SPEC}.backoffLimit: got "string", expected "integer"',
    ),
    "missing": (
        lambda made: made["spec"].pop("template"),
        f'missing required field "template" in {SPEC}',
    ),
    "container": (
        lambda made: container(made).update(imagePolicy="Always"),
        '(Job.spec.template.spec.containers[0]): unknown field "imagePolicy"',
    ),
    "deep": (
        lambda made: container(made)["env"][1]["valueFrom"]["secretKeyRef"].update(secret="x"),
        'env[1].valueFrom.secretKeyRef): unknown field "secret"',
    ),
    "map": (
        lambda made: made["metadata"].update(labels=["app"]),
        "(Job.metadata.labels): invalid type for",
    ),
    "list": (
        lambda made: container(made).update(command="true"),
        'Container.command: got "string", expected "array"',
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_ones_are_refused_by_name(name: str, kubectl: Kubectl) -> None:
    change, told = WRONG[name]
    made = job()
    change(made)
    assert told in kubectl.validate(made)


def test_a_wrong_secret_is_refused(kubectl: Kubectl) -> None:
    assert 'unknown field "strings" in io.k8s.api.core.v1.Secret' in kubectl.validate(
        {**secret(), "strings": {}}
    )


def test_the_verdict_is_the_descriptions() -> None:
    """Not what kubectl itself knows of Jobs."""
    other = description()
    fields = other["definitions"][SPEC]["properties"]
    fields["patienceLimit"] = fields.pop("backoffLimit")
    with Kubectl(other) as kubectl:
        assert f'unknown field "backoffLimit" in {SPEC}' in kubectl.validate(job())
        made = job()
        made["spec"]["patienceLimit"] = made["spec"].pop("backoffLimit")
        assert kubectl.validate(made) == ""


def test_what_is_not_described_is_refused() -> None:
    """kubectl would accept any manifest of a kind that its server has and does not describe."""
    other = description()
    del other["definitions"]["io.k8s.api.batch.v1.Job"][KIND]
    with Kubectl(other) as kubectl:
        assert 'no matches for kind "Job"' in kubectl.validate(job())
        assert 'no matches for kind "ServiceAccount"' in kubectl.validate(
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "one"}}
        )
