"""The fake API server and the cluster behind it, through Kubernetes' own client, held to
Kubernetes' own description."""

from __future__ import annotations

import base64
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client, watch
from kubernetes.client.exceptions import ApiException
from kubernetes.config import new_client_from_config_dict

from runner_action.sandbox.kubernetes.api import FakeKubernetes
from runner_action.sandbox.kubernetes.nodes import Node
from runner_action.sandbox.machine.machines import Machines
from tests.contracts.kubernetes_types import Judge

Json = dict[str, Any]
POD = """
import json, os, signal, sys
given = json.load(open(sys.argv[1]))
print("says", given["pod"]["metadata"]["labels"]["job-name"], sorted(given["secrets"]), flush=True)
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
if "exit" in given["pod"]["spec"]["containers"][0].get("args", []):
    sys.exit(3)
signal.pause()
"""


class Cluster:
    """A fake, its judge, and the client's two halves."""

    def __init__(self, machines: Machines | None = None) -> None:
        self.fake = FakeKubernetes(machines=machines, factor=0.1)
        self.judge = Judge(self.fake)
        self.client = new_client_from_config_dict(json.loads(self.fake.kubeconfig))
        self.batch: Any = client.BatchV1Api(self.client)
        self.core: Any = client.CoreV1Api(self.client)

    def create(self, body: Json) -> Any:
        return self.batch.create_namespaced_job("ci", body, field_validation="Strict")

    def pods(self) -> list[Any]:
        return list(self.core.list_namespaced_pod("ci").items)

    def pod(self) -> Any:
        (one,) = self.pods()
        return one

    def job(self, name: str = "train") -> Any:
        return self.batch.read_namespaced_job(name, "ci")

    def reasons(self) -> list[str]:
        return [one.reason for one in self.core.list_namespaced_event("ci").items]

    def conditions(self, name: str = "train") -> list[tuple[str, str]]:
        return [(one.type, one.reason) for one in self.job(name).status.conditions or ()]


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    yield from judged(Cluster())


@pytest.fixture
def living(tmp_path: Path) -> Iterator[Cluster]:
    """Its pods are processes."""
    (tmp_path / "pod.py").write_text(POD)
    machines = Machines(
        tmp_path,
        machine=lambda _, place: [
            sys.executable,
            str(tmp_path / "pod.py"),
            str(place / "user-data"),
        ],
    )
    yield from judged(Cluster(machines))
    machines.close()


def judged(made: Cluster) -> Iterator[Cluster]:
    yield made
    made.client.close()
    made.fake.close()
    assert made.judge.problems == []
    assert made.judge.seen


def until(done: Callable[[], Any], seconds: float = 5) -> Any:
    end = time.monotonic() + seconds
    while not (found := done()):
        assert time.monotonic() < end, "too late"
        time.sleep(0.01)
    return found


def job(
    name: str = "train", pod: Json | None = None, container: Json | None = None, **spec: Any
) -> Json:
    runner = {"name": "runner", "image": "ghcr.io/org/cml-runner:1", **(container or {})}
    template = {
        "metadata": {"labels": {"app": "cml-runner"}},
        "spec": {"restartPolicy": "Never", "containers": [runner], **(pod or {})},
    }
    meta = {"name": name, "labels": {"app": "cml-runner"}}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": meta,
        "spec": {"backoffLimit": 0, **spec, "template": template},
    }


def secret(name: str = "spec", owner: Any = None) -> Json:
    refs = (
        [
            {
                "apiVersion": "batch/v1",
                "kind": "Job",
                "name": owner.metadata.name,
                "uid": owner.metadata.uid,
            }
        ]
        if owner
        else []
    )
    return {"metadata": {"name": name, "ownerReferences": refs}, "stringData": {"spec.json": "{}"}}


def refused(code: int, reason: str, call: Callable[..., Any], *more: Any, **named: Any) -> str:
    with pytest.raises(ApiException) as caught:
        call(*more, **named)
    told = json.loads(caught.value.body or "")
    assert (told["kind"], caught.value.status, told["code"], told["reason"]) == (
        "Status",
        code,
        code,
        reason,
    )
    return str(told["message"])


def test_a_job_waits_for_its_secret_lives_and_goes_with_what_it_owns(cluster: Cluster) -> None:
    mounts = {"volumes": [{"name": "spec", "secret": {"secretName": "spec"}}]}
    made = cluster.create(job(pod=mounts))
    assert (made.metadata.generation, made.spec.backoff_limit, made.spec.parallelism) == (1, 0, 1)
    until(lambda: "FailedMount" in cluster.reasons())
    waiting = cluster.pod()
    assert waiting.status.container_statuses[0].state.waiting.reason == "ContainerCreating"
    refused(400, "BadRequest", cluster.core.read_namespaced_pod_log, waiting.metadata.name, "ci")
    kept = cluster.core.create_namespaced_secret("ci", secret(owner=made))
    assert base64.b64decode(kept.data["spec.json"]) == b"{}"
    until(lambda: cluster.pod().status.phase == "Running")
    pod = cluster.core.list_namespaced_pod(
        "ci",
        label_selector="job-name=train,app in (cml-runner, x),!nope",
        field_selector="status.phase=Running",
    ).items[0]
    assert pod.spec.node_name == "node-1"
    assert pod.status.pod_ip == "10.0.0.1"
    assert {"Scheduled", "Pulling", "Pulled", "Created", "Started", "SuccessfulCreate"} <= set(
        cluster.reasons()
    )
    until(lambda: cluster.job().status.ready == 1)
    assert (
        cluster.core.read_namespaced_pod_log(
            pod.metadata.name, "ci", container="runner", tail_lines=5
        )
        == "Booting\n"
    )
    assert cluster.fake.alive() == ["job ci/train", f"pod ci/{pod.metadata.name}", "secret ci/spec"]
    cluster.batch.patch_namespaced_job(
        "train",
        "ci",
        {"spec": {"activeDeadlineSeconds": 600}},
        _content_type="application/merge-patch+json",
    )
    assert cluster.job().metadata.generation == 2
    # In the body: an API server that gets one does not read the query.
    options = {"gracePeriodSeconds": 0, "propagationPolicy": "Foreground"}
    cluster.batch.delete_namespaced_job("train", "ci", body=options)
    until(lambda: cluster.fake.alive() == [])
    assert {
        "create batch/jobs",
        "create secrets",
        "list pods",
        "get pods/log",
        "patch batch/jobs",
        "delete batch/jobs",
    } <= set(cluster.fake.actions())


def test_an_indexed_job_where_one_pod_fails_alone(cluster: Cluster) -> None:
    cluster.create(
        job(
            completionMode="Indexed",
            completions=3,
            parallelism=3,
            backoffLimitPerIndex=0,
            backoffLimit=100,
            activeDeadlineSeconds=20,
        )
    )
    until(lambda: cluster.job().status.active == 3)
    first, second, third = sorted(cluster.pods(), key=lambda one: one.spec.hostname)
    assert [one.spec.hostname for one in (first, second, third)] == [
        "train-0",
        "train-1",
        "train-2",
    ]
    assert second.metadata.labels["batch.kubernetes.io/job-completion-index"] == "1"
    cluster.fake.evict(second.metadata.name, 0)
    until(lambda: cluster.job().status.failed_indexes == "1")
    assert cluster.job().status.active == 2
    assert cluster.conditions() == []
    until(lambda: ("Failed", "DeadlineExceeded") in cluster.conditions())
    assert cluster.pods() == []


def test_without_a_limit_per_index_one_failure_ends_all_and_ttl_removes_it(
    cluster: Cluster,
) -> None:
    cluster.create(
        job(completionMode="Indexed", completions=2, parallelism=2, ttlSecondsAfterFinished=8)
    )
    until(lambda: cluster.job().status.active == 2)
    cluster.core.delete_namespaced_pod(cluster.pods()[0].metadata.name, "ci")
    until(
        lambda: (
            cluster.conditions()
            == [("FailureTarget", "BackoffLimitExceeded"), ("Failed", "BackoffLimitExceeded")]
        )
    )
    until(lambda: cluster.fake.alive() == [])


def test_a_streams_changes_its_cut_and_its_expiry(cluster: Cluster) -> None:
    told: list[tuple[str, str]] = []
    started = cluster.core.list_namespaced_pod("ci").metadata.resource_version

    def listen() -> None:
        stream = watch.Watch().stream(
            cluster.core.list_namespaced_pod,
            "ci",
            resource_version=started,
            label_selector="job-name=train",
            timeout_seconds=9,
        )
        told.extend((event["type"], event["object"].status.phase) for event in stream)

    thread = threading.Thread(target=listen)
    thread.start()
    cluster.create(job())
    cluster.create(job("other"))
    until(lambda: ("MODIFIED", "Running") in told)
    cluster.batch.delete_namespaced_job("train", "ci", propagation_policy="Background")
    until(lambda: ("DELETED", "Running") in told)
    cluster.fake.expire()
    cluster.fake.cut_watches()
    thread.join(5)
    assert not thread.is_alive()
    assert told[0] == ("ADDED", "Pending")
    answer = cluster.core.list_namespaced_pod(
        "ci", watch=True, resource_version=started, _preload_content=False
    )
    (error,) = (json.loads(line) for line in answer.data.splitlines())
    assert (error["type"], error["object"]["code"], error["object"]["reason"]) == (
        "ERROR",
        410,
        "Expired",
    )
    (there_already,) = watch.Watch().stream(
        cluster.core.list_namespaced_pod, "ci", timeout_seconds=1
    )
    assert there_already["type"] == "ADDED"


def test_pods_go_where_labels_taints_and_room_let_them(cluster: Cluster) -> None:
    full, gpu = (
        Node("full", room={"cpu": "500m"}),
        Node(
            "gpu",
            {"pool": "gpu"},
            {"nvidia.com/gpu": 1},
            [{"key": "sku", "value": "gpu", "effect": "NoSchedule"}],
        ),
    )
    cluster.fake.nodes[:] = [full, gpu, Node("arm", {"kubernetes.io/arch": "arm64"})]
    term = {
        "matchExpressions": [{"key": "kubernetes.io/arch", "operator": "In", "values": ["amd64"]}]
    }
    affinity = {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}
        }
    }
    sidecar = {
        "name": "dind",
        "image": "docker:dind",
        "restartPolicy": "Always",
        "resources": {"limits": {"cpu": "500m"}},
    }
    cluster.create(
        job(
            pod={"affinity": affinity, "initContainers": [sidecar]},
            container={"resources": {"requests": {"cpu": "100m", "memory": "1Gi"}}},
        )
    )
    said = until(
        lambda: next(
            (
                one
                for one in cluster.core.list_namespaced_event("ci").items
                if one.reason == "FailedScheduling"
            ),
            None,
        )
    )
    head, _, preemption = said.message.partition(". preemption: ")
    reasons = (
        "1 Insufficient cpu, 1 node(s) didn't match Pod's node affinity/selector, 1 node(s) had"
        " untolerated taint {sku: gpu}"
    )
    assert head == f"0/3 nodes are available: {reasons}"
    assert preemption.startswith("0/3 nodes are available: ")
    assert said.involved_object.uid == cluster.pod().metadata.uid
    assert [(one.type, one.reason, one.message) for one in cluster.pod().status.conditions] == [
        ("PodScheduled", "Unschedulable", said.message)
    ]
    cluster.fake.nodes.append(Node("late", room={"cpu": "0.6"}))
    until(lambda: cluster.pod().status.phase == "Running")
    assert cluster.pod().spec.node_name == "late"
    assert cluster.pod().status.init_container_statuses[0].state.running
    tolerated = {
        "tolerations": [{"key": "sku", "operator": "Exists"}],
        "nodeSelector": {"pool": "gpu"},
    }
    for name in ("one", "two"):
        cluster.create(
            job(name, pod=tolerated, container={"resources": {"limits": {"nvidia.com/gpu": "1"}}})
        )
    until(lambda: sorted(one.spec.node_name or "" for one in cluster.pods()) == ["", "gpu", "late"])
    until(
        lambda: any(
            "1 Insufficient nvidia.com/gpu" in one.message
            for one in cluster.core.list_namespaced_event("ci").items
        )
    )


def test_what_cannot_be_pulled_and_what_may_not_be_made(cluster: Cluster) -> None:
    cluster.fake.broken_images["ghcr.io/org/cml-runner:1"] = (
        "failed to resolve reference: not found"
    )
    cluster.create(job())
    until(lambda: {"BackOff", "Failed"} <= set(cluster.reasons()))
    waiting = until(lambda: cluster.pod().status.container_statuses[0].state.waiting)
    assert waiting.reason == "ImagePullBackOff"
    assert waiting.message.endswith("ErrImagePull: failed to resolve reference: not found")
    cluster.fake.broken_images.clear()
    until(lambda: cluster.pod().status.phase == "Running")
    quota = (
        'pods "x-" is forbidden: exceeded quota: compute, requested: limits.cpu=8, used:'
        " limits.cpu=40, limited: limits.cpu=40"
    )
    cluster.fake.refuse_pods(quota, after=1)
    made = cluster.create(job("many", completionMode="Indexed", completions=2, parallelism=2))
    chosen = f"involvedObject.uid={made.metadata.uid},type=Warning"
    (said,) = until(lambda: cluster.core.list_namespaced_event("ci", field_selector=chosen).items)
    assert (said.reason, said.message, said.involved_object.kind) == (
        "FailedCreate",
        f"Error creating: {quota}",
        "Job",
    )
    assert cluster.job("many").status.active == 1
    cluster.fake.refuse_pods("")
    until(lambda: cluster.job("many").status.active == 2)


def test_refusals_in_the_servers_words(cluster: Cluster) -> None:
    cluster.create(job())
    assert (
        refused(409, "AlreadyExists", cluster.create, job()) == 'jobs.batch "train" already exists'
    )
    assert refused(404, "NotFound", cluster.job, "gone") == 'jobs.batch "gone" not found'
    assert "spec.completions: Required value" in refused(
        422, "Invalid", cluster.create, job("indexed", completionMode="Indexed")
    )
    assert "RFC 1123" in refused(422, "Invalid", cluster.create, job("Not_a_name"))
    assert (
        refused(404, "NotFound", cluster.core.create_namespaced_secret, "nowhere", secret())
        == 'namespaces "nowhere" not found'
    )
    cluster.fake.denied.add("create batch/jobs")
    why = (
        'User "system:serviceaccount:ci:launcher" cannot create resource "jobs" in API group'
        ' "batch" in the namespace "ci"'
    )
    assert (
        refused(403, "Forbidden", cluster.create, job("more")) == f"jobs.batch is forbidden: {why}"
    )
    cluster.fake.denied.clear()
    cluster.fake.refuse(
        "create batch/jobs", 500, "InternalError", "Internal error occurred: failed calling webhook"
    )
    refused(500, "InternalError", cluster.create, job("more"))
    cluster.create(job("more"))
    cluster.client.set_default_header("authorization", "Bearer canary-other")
    cluster.client.configuration.api_key = {}
    refused(401, "Unauthorized", cluster.job)


GPU = {"nvidia.com/gpu": "1"}
REFUSED: list[tuple[Json, str]] = [
    (
        {"meta": {"labels": {"a b": "c"}}},
        'metadata.labels: Invalid value: "a b": name part must consist of',
    ),
    (
        {"meta": {"annotations": {"team:x": "c"}}},
        'metadata.annotations: Invalid value: "team:x": name part must consist of',
    ),
    (
        {"meta": {"annotations": {"a": "x" * 262144}}},
        "metadata.annotations: Too long: may not be more than 262144 bytes",
    ),
    (
        {
            "name": "a" * 60,
            "spec": {"completionMode": "Indexed", "completions": 101, "parallelism": 101},
        },
        "will not able to create pod with invalid DNS label",
    ),
    ({"container": {"name": "Runner"}}, 'containers[0].name: Invalid value: "Runner"'),
    ({"container": {"name": "r" * 64}}, "must be no more than 63 bytes"),
    ({"container": {"image": ""}}, "containers[0].image: Required value"),
    (
        {"pod": {"initContainers": [{"name": "runner", "image": "x"}]}},
        'spec.initContainers[0].name: Duplicate value: "runner"',
    ),
    (
        {"container": {"volumeMounts": [{"name": "home", "mountPath": "/x"}]}},
        'volumeMounts[0].name: Not found: "home"',
    ),
    (
        {"pod": {"volumes": [{"name": "a_b", "emptyDir": {}}]}},
        'volumes[0].name: Invalid value: "a_b"',
    ),
    (
        {"pod": {"volumes": [{"name": "a", "emptyDir": {}}, {"name": "a", "emptyDir": {}}]}},
        'volumes[1].name: Duplicate value: "a"',
    ),
    (
        {"container": {"resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}}},
        "must be less than or equal to cpu limit of 1",
    ),
    (
        {"container": {"resources": {"requests": GPU}}},
        "Limit must be set for non overcommitable resources",
    ),
    ({"pod": {"nodeSelector": {"pool": "a b"}}}, 'nodeSelector: Invalid value: "a b"'),
    (
        {"pod": {"tolerations": [{"key": "a", "operator": "Exists", "value": "b"}]}},
        "value must be empty when `operator` is 'Exists'",
    ),
    (
        {"pod": {"tolerations": [{"key": "a", "operator": "Exists", "effect": "NoShedule"}]}},
        'tolerations[0].effect: Unsupported value: "NoShedule"',
    ),
    (
        {"pod": {"tolerations": [{"key": "a b", "operator": "Exists"}]}},
        'tolerations[0].key: Invalid value: "a b"',
    ),
    (
        {"spec": {"activeDeadlineSeconds": -1}},
        "spec.activeDeadlineSeconds: Invalid value: -1: must be greater than or equal to 0",
    ),
]


@pytest.mark.parametrize(("parts", "told"), REFUSED, ids=range(len(REFUSED)))
def test_what_a_real_one_refuses_of_a_job(parts: Json, told: str, cluster: Cluster) -> None:
    body = job(
        parts.get("name", "train"),
        parts.get("pod"),
        parts.get("container"),
        **parts.get("spec", {}),
    )
    body["metadata"].update(parts.get("meta", {}))
    assert told in refused(422, "Invalid", cluster.create, body)
    assert cluster.fake.alive() == []


def test_what_cannot_be_read_is_no_request(cluster: Cluster) -> None:
    body = job(container={"resources": {"requests": {"cpu": "a lot"}}})
    assert "quantities must match the regular expression" in refused(
        400, "BadRequest", cluster.create, body
    )


def test_what_a_real_one_refuses_of_a_secret(cluster: Cluster) -> None:
    def made(**data: str) -> Any:
        return cluster.core.create_namespaced_secret(
            "ci", {"metadata": {"name": "spec"}, "data": data}
        )

    def packed(size: int) -> str:
        return base64.b64encode(b"x" * size).decode()

    assert "data[a b]: Invalid value" in refused(422, "Invalid", made, **{"a b": ""})
    assert "data: Too long: may not be more than 1048576 bytes" in refused(
        422, "Invalid", made, spec=packed(1048577)
    )
    assert "illegal base64 data" in refused(400, "BadRequest", made, spec="?")
    assert refused(413, "RequestEntityTooLarge", made, spec=packed(3 << 20))
    assert made(spec=packed(1048576))
    text = {"metadata": {"name": "text"}, "stringData": {"spec": "x" * 1048577}}
    assert "data: Too long" in refused(
        422, "Invalid", cluster.core.create_namespaced_secret, "ci", text
    )


def test_a_long_list_comes_in_pieces_to_who_asks_for_pieces(cluster: Cluster) -> None:
    for number in range(5):
        cluster.core.create_namespaced_secret("ci", secret(f"spec-{number}"))
    seen: list[str] = []
    more: str | None = ""
    for size in (2, 2, 1):
        told = cluster.core.list_namespaced_secret("ci", limit=2, _continue=more)
        assert len(told.items) == size
        seen += [one.metadata.name for one in told.items]
        more = told.metadata._continue
    assert sorted(seen) == [f"spec-{number}" for number in range(5)]
    assert more is None


def test_a_log_is_read_from_its_beginning_as_far_as_asked(cluster: Cluster) -> None:
    cluster.fake.said = "".join(f"line {number}\n" for number in range(100))
    cluster.create(job())
    pod = until(
        lambda: next((one for one in cluster.pods() if one.status.phase == "Running"), None)
    )
    assert (
        cluster.core.read_namespaced_pod_log(pod.metadata.name, "ci", limit_bytes=14)
        == "line 0\nline 1\n"
    )
    assert (
        cluster.core.read_namespaced_pod_log(pod.metadata.name, "ci", tail_lines=1) == "line 99\n"
    )
    assert (
        cluster.core.read_namespaced_pod_log(pod.metadata.name, "ci", tail_lines=2, limit_bytes=8)
        == "line 98\n"
    )


def test_names_of_pods_are_cut_to_what_a_host_may_be_called(cluster: Cluster) -> None:
    cluster.create(job("n" * 60, completionMode="Indexed", completions=12, parallelism=12))
    names = until(
        lambda: [
            found for found in [[one.metadata.name for one in cluster.pods()]] if len(found) == 12
        ]
    )[0]
    assert {len(name) for name in names} == {63}
    assert {name.rsplit("-", 2)[1] for name in names} == {str(number) for number in range(12)}


def test_a_pods_process_its_end_and_its_log(living: Cluster) -> None:
    living.core.create_namespaced_secret("ci", secret())
    living.create(
        job(
            pod={
                "volumes": [{"name": "spec", "secret": {"secretName": "spec"}}],
                "terminationGracePeriodSeconds": 5,
            }
        )
    )
    until(lambda: any(one.status.phase == "Running" for one in living.pods()))
    pod = living.pod()
    until(
        lambda: (
            "says train ['spec']" in living.core.read_namespaced_pod_log(pod.metadata.name, "ci")
        )
    )
    living.fake.evict(pod.metadata.name, 3)
    left = living.fake.shelf.get("pods", "ci", pod.metadata.name)
    assert left is None or left["metadata"]["deletionGracePeriodSeconds"] == 3
    until(lambda: ("Failed", "BackoffLimitExceeded") in living.conditions())
    until(lambda: living.fake.alive() == ["secret ci/spec"])
    living.create(job("stays"))
    stays = until(
        lambda: (
            living.core.list_namespaced_pod(
                "ci", label_selector="job-name=stays", field_selector="status.phase=Running"
            ).items
        )
    )[0]
    until(lambda: "says stays" in living.core.read_namespaced_pod_log(stays.metadata.name, "ci"))
    assert living.fake.machines
    process = living.fake.machines.living[stays.metadata.uid].process
    os.kill(process.pid, signal.SIGSTOP)  # one that does not leave
    living.batch.delete_namespaced_job("stays", "ci", propagation_policy="Foreground")
    until(
        lambda: (
            living.core.read_namespaced_pod(stays.metadata.name, "ci").metadata.deletion_timestamp
        )
    )
    assert living.job("stays").metadata.deletion_timestamp, "it waits for its pod"
    living.core.delete_namespaced_pod(stays.metadata.name, "ci", grace_period_seconds=0)
    until(lambda: living.fake.alive() == ["secret ci/spec"])
    assert process.wait(5) == -signal.SIGKILL
    living.create(job("fails", container={"args": ["exit"]}))
    until(lambda: ("Failed", "BackoffLimitExceeded") in living.conditions("fails"))
    (ended,) = living.core.list_namespaced_pod("ci", label_selector="job-name=fails").items
    assert ended.status.phase == "Failed"
    assert ended.status.container_statuses[0].state.terminated.exit_code == 3
    assert "says fails" in living.core.read_namespaced_pod_log(ended.metadata.name, "ci")


def test_the_judge_hears_what_kubernetes_does_not_know() -> None:
    made = Cluster()
    for method, path, query, body in (
        ("POST", "/apis/batch/v1/namespaces/ci/jobs", [], job(pod={"nodeName2": "x"})),
        ("GET", "/api/v1/namespaces/ci/pods", [("selector", "x")], None),
    ):
        made.client.call_api(
            *made.client.param_serialize(
                method, path, query_params=query, body=body, auth_settings=["BearerToken"]
            )
        ).read()
    made.client.close()
    made.fake.close()
    assert made.judge
    assert any("'nodeName2' was unexpected" in one and "sent" in one for one in made.judge.problems)
    assert any("asked with selector" in one for one in made.judge.problems)
