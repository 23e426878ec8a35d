"""The same requests to a real API server and to the embedded one: status, reason, message and
details must be the same."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest

from runner_action.sandbox.kubernetes.api import FakeKubernetes
from tests.providers.test_kubernetes_plan import made
from tests.real.apiserver import Api
from tests.real.cluster import Space

Json = dict[str, Any]
POD = "spec.template.spec"
RUNNER = f"{POD}.containers.0"
GPU = "nvidia.com/gpu"


def changed(manifest: Json, path: str, value: Any) -> Json:
    """A copy with another value at a place."""
    result = copy.deepcopy(manifest)
    place: Any = result
    *way, last = path.split(".")
    for step in way:
        place = place[int(step)] if step.isdigit() else place[step]
    place[last] = value
    return result


def job(path: str, value: Any, *argv: str) -> tuple[str, str, Json]:
    return "POST", "jobs", changed(made(list(argv))[0][0], path, value)


def secret(data: Json) -> tuple[str, str, Json]:
    return "POST", "secrets", changed(made([])[1], "data", data)


SAME: dict[str, tuple[str, str, Json | None]] = {
    "a name in capitals": job("metadata.name", "A_b"),
    "no name": job("metadata.name", ""),
    "a bad label": job("metadata.labels", {"a b": "c d"}),
    "a bad annotation": job("metadata.annotations", {"a b": "c d"}),
    "another namespace": job("metadata.namespace", "other"),
    "fewer than none": job("spec.parallelism", -1),
    "a deadline in the past": job("spec.activeDeadlineSeconds", -1),
    "limits of indexes without any": job("spec.backoffLimitPerIndex", 0),
    "indexes without a number": job("spec.completions", None, "--count=20"),
    "hosts too long": job("metadata.name", "b" * 61, "--count=20"),
    "pods that never end": job(f"{POD}.restartPolicy", "Always"),
    "no container": job(f"{POD}.containers", []),
    "no image": job(f"{RUNNER}.image", ""),
    "a container's bad name": job(f"{RUNNER}.name", "A b"),
    "a mount of nothing": job(f"{RUNNER}.volumeMounts.0.name", "nope"),
    "a limit below the request": job(
        f"{RUNNER}.resources", {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}
    ),
    "no quantity": job(f"{RUNNER}.resources.limits", {"cpu": "abc"}),
    "a GPU without a limit": job(f"{RUNNER}.resources", {"requests": {GPU: "1"}}),
    "half a GPU": job(f"{RUNNER}.resources", {"requests": {GPU: "1"}, "limits": {GPU: "2"}}),
    "unknown words of tolerations": job(
        f"{POD}.tolerations", [{"key": "a", "operator": "Is", "effect": "Never"}]
    ),
    "a volume twice": job(f"{POD}.volumes.0.name", "program"),
    "no Base64": secret({"a": "???"}),
    "a large Secret": secret({"a": "eHh4" * 400_000}),
    "a large request": secret({"a": "eHh4" * 1_000_000}),
    "an empty object": ("POST", "jobs", {}),
    "no such Job": ("GET", "jobs/none", None),
    "no such pod": ("GET", "pods/none", None),
    "no such Secret": ("GET", "secrets/none", None),
    "no such log": ("GET", "pods/none/log", None),
    "deleting no Job": ("DELETE", "jobs/none", {}),
    "patching no Job": ("PATCH", "jobs/none", {"spec": {}}),
    "an unknown field of pods": ("GET", "pods?fieldSelector=spec.x=1", None),
    "an unknown field of events": ("GET", "events?fieldSelector=spec.x=1", None),
    "putting all": ("PUT", "jobs", {}),
    "creating with a name": ("POST", "jobs/x", {}),
    "deleting a log": ("DELETE", "pods/none/log", {}),
    "an unknown resource": ("GET", "nothings", None),
    "another kind": job("kind", "Nope"),
    "another version": job("apiVersion", "batch/v7"),
    "another version's kind": job("apiVersion", "v1"),
    "an object of another kind": ("POST", "secrets", changed(made([])[1], "kind", "Pod")),
    "a word for a number": job("spec.completions", "x"),
    "a fraction for a number": job("spec.completions", 1.5),
    "a number that is too large": job("spec.completions", 3_000_000_000),
    "a number for a word": job(f"{RUNNER}.image", 7),
    "a number for a label": job("spec.template.metadata.labels", {"a.b/c": 1}),
    "an object for a list": job(f"{POD}.containers", {}),
    "a number for Base64": secret({"a": 5}),
    "more failures than pods": job("spec.maxFailedIndexes", 21, "--count=20"),
    "one name for two containers": job(f"{POD}.initContainers.0.name", "runner"),
    "a toleration of nothing": job(f"{POD}.tolerations", [{"value": "b c"}]),
    "a toleration of any value": job(
        f"{POD}.tolerations", [{"key": "a", "operator": "Exists", "value": "b"}]
    ),
    "a label with two domains": job(f"{POD}.nodeSelector", {"a/b/c": "x"}),
    "a label with an empty domain": job(f"{POD}.nodeSelector", {"/c": "x"}),
    "a label with a domain alone": job(f"{POD}.nodeSelector", {"a/": "x"}),
    "a bad key of a Secret": secret({"a b": "eA=="}),
    "an owner without anything": job("metadata.ownerReferences", [{"apiVersion": "a/"}]),
    "an unreadable selector": ("GET", "jobs?labelSelector=a b", None),
    "an unknown field of Jobs": ("GET", "jobs?fieldSelector=spec.x=1", None),
    "a field without a value": ("GET", "jobs?fieldSelector=metadata.name", None),
    "a selector without brackets": ("GET", "jobs?labelSelector=a in b", None),
    "a selector without an end": ("GET", "jobs?labelSelector=a in (b", None),
    "two values": ("GET", "jobs?labelSelector=a=b c", None),
    "a selector's bad value": ("GET", "jobs?labelSelector=a=b@", None),
    "a selector's bad key": ("GET", "jobs?labelSelector=a/b/c", None),
    "a comma too many": ("GET", "jobs?labelSelector=a,", None),
}
UNLIKE: dict[str, tuple[tuple[str, str, Any], str]] = {
    "a long name": (job("metadata.name", "a" * 64), "characters, newer ones: bytes"),
    "an unknown field": (job(f"{POD}.restartPolicyy", "Never"), "the tests' judge refuses it here"),
    "a list for an object": (("POST", "jobs", []), "quotes Go's JSON reader"),
    "a comparison with a word": (("GET", "jobs?labelSelector=a<b", None), "wants a number"),
}
"""And in what the original differs."""


@pytest.fixture(scope="module")
def embedded() -> Iterator[Api]:
    fake = FakeKubernetes()
    yield Api(fake.kubeconfig)
    fake.close()


def answer(api: Api, namespace: str, call: tuple[str, str, Any]) -> tuple[int, str, str, Any]:
    method, what, body = call
    resource, _, query = what.partition("?")
    root = "/apis/batch/v1" if resource.startswith("jobs") else "/api/v1"
    words = dict([query.split("=", 1)]) if query else {}
    if method == "POST":
        words |= {"fieldValidation": "Strict", "dryRun": "All"}
    path = f"{root}/namespaces/{namespace}/{resource}"
    status, said, _ = api.send(method, path, copy.deepcopy(body), **words)
    return status, str(said.get("reason")), str(said.get("message")), said.get("details")


@pytest.mark.parametrize("name", SAME)
def test_both_answer_the_same(space: Space, embedded: Api, name: str) -> None:
    real = answer(space.admin, space.name, SAME[name])
    assert real[0] >= 400
    assert answer(embedded, "ci", SAME[name]) == real


@pytest.mark.parametrize("name", UNLIKE)
def test_the_original_refuses_these_in_other_words(space: Space, name: str) -> None:
    call, how = UNLIKE[name]
    status, reason, message, _ = answer(space.admin, space.name, call)
    assert (status, reason) in ((400, "BadRequest"), (422, "Invalid")), f"{how}: {message}"
