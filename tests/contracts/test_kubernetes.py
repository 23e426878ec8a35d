"""A cluster alone, over HTTP: every request and every answer is judged by Kubernetes' own
description; what is asked, what is made, what each refusal leads to, and that nothing is left."""

from __future__ import annotations

import base64
import json
import logging
import resource
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import trustme
import yaml

from runner_action.errors import (
    CapacityError,
    ConfigurationError,
    CredentialsError,
    InputError,
    ProviderError,
    QuotaError,
)
from runner_action.model import Identity, Instance, Machine, Placement, ProviderName, Secret
from runner_action.providers.base import Created
from runner_action.providers.kubernetes import table
from runner_action.providers.kubernetes.client import KubernetesProvider
from runner_action.providers.kubernetes.cluster import Cluster, access
from runner_action.providers.kubernetes.options import KubernetesOptions, options_of
from runner_action.request import CloudRequest
from runner_action.sandbox.kubernetes.admission import (
    Injector,
    LimitRange,
    SecurityContextConstraints,
    Stated,
)
from runner_action.sandbox.kubernetes.api import FakeKubernetes
from runner_action.sandbox.kubernetes.nodes import Node
from runner_action.sandbox.world import POD_IMAGE
from runner_action.waiting import SystemClock
from tests.contracts.kubernetes_types import Judge
from tests.test_launch import request


@pytest.fixture
def cluster() -> Iterator[FakeKubernetes]:
    labels = {"topology.kubernetes.io/zone": "zone-b"}
    fake = FakeKubernetes(
        factor=0.02,
        nodes=[
            Node("node-1", labels={"topology.kubernetes.io/zone": "zone-a"}),
            Node("node-2", labels=labels),
        ],
    )
    judge = Judge(fake)
    yield fake
    fake.close()
    assert judge.problems == []


class Brisk(SystemClock):
    """That sleeps less than it is told to."""

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds / 50)


def provider(
    fake: FakeKubernetes, clock: SystemClock | None = None, **options: Any
) -> KubernetesProvider:
    return KubernetesProvider(
        Cluster.from_environment(
            KubernetesOptions(configuration=Secret(fake.kubeconfig), **options), {}
        ),
        clock or SystemClock(),
    )


def machine(name: str = "cml-1", key: str = "key", user_data: bytes = b"the agent") -> Machine:
    identity = Identity(name=name, key=key)
    ours = {
        "cml-runner:repository": "https://github.com/octo/train",
        "cml-runner:run": "octo/train run 1",
        "cml-runner:expiry": "2026-11-25T01:26:40Z",
    }
    return Machine(
        identity=identity,
        user_data=user_data,
        tags={"Name": name, "cml-runner": "runner", **identity.marks, **ours, "team": "vision"},
        lifetime=86400,
    )


@dataclass
class Side:
    cluster: FakeKubernetes
    provider: KubernetesProvider

    def request(self, *argv: str, patience: int = 1) -> CloudRequest:
        cloud = request("--cloud=kubernetes", *argv).cloud
        assert cloud
        return replace(
            cloud,
            image=cloud.image or POD_IMAGE,
            options=replace(options_of(cloud), schedule_timeout=patience),
        )

    def ladder(self, *argv: str, patience: int = 1) -> list[Placement]:
        cloud = self.request(*argv, patience=patience)
        return list(self.provider.resolve(self.provider.plan(cloud), cloud))

    def create(self, *argv: str, of: Machine | None = None, patience: int = 1) -> Instance:
        (made,) = self.provider.create(
            self.ladder(*argv, patience=patience)[0], of or machine()
        ).instances
        return made

    def many(self, count: int, *argv: str) -> Created:
        """With time for the fake's scheduler on a busy host."""
        return self.provider.create(self.ladder(*argv, patience=10)[0], machine(), count)

    @property
    def job(self) -> dict[str, Any]:
        (made,) = self.cluster.shelf.of("jobs")
        return made


@pytest.fixture
def side(cluster: FakeKubernetes) -> Side:
    return Side(cluster, provider(cluster))


# --- the contract of providers


def test_an_instance_is_made_found_looked_at_and_destroyed(side: Side) -> None:
    made = side.create()
    assert [one.id for one in side.provider.find({"cml-runner:name": "cml-1"})] == [made.id]
    assert side.provider.find({"cml-runner:name": "cml-2"}) == []
    until(lambda: fresh(side, made).address, "an address")
    now = fresh(side, made)
    assert (now.alive, now.zone, now.region, now.name, now.trouble) == (
        True,
        "node-1",
        "ci",
        "cml-1",
        "",
    )
    assert side.provider.console(made) == "Booting\n"
    assert side.provider.destroy("cml-1", made) is True
    assert fresh(side, made).alive is False
    assert side.provider.find({}) == []
    assert side.provider.destroy("cml-1") is False
    assert side.cluster.alive() == []


def test_without_a_release_a_launch_says_what_to_start_before_anything_is_asked(side: Side) -> None:
    """What is looked for or removed needs none."""
    cloud = replace(side.request(), image=None)
    plan = side.provider.plan(cloud)
    assert plan.image == ""
    with pytest.raises(InputError, match=r"cloud-image is needed here: .*image/runner\.Dockerfile"):
        side.provider.resolve(plan, cloud)
    assert side.cluster.actions() == []


def test_creating_again_gives_the_same_instance(side: Side) -> None:
    first = side.create()
    assert side.create(of=machine(user_data=b"another token")).id == first.id
    assert len(side.cluster.shelf.of("pods")) == 1


def test_two_launches_of_one_name_are_told_apart_by_their_marks(side: Side) -> None:
    one, two = machine(key="one"), machine(key="two")
    made = side.create(of=one)
    assert [found.id for found in side.provider.find(one.identity.marks)] == [made.id]
    assert side.provider.find(two.identity.marks) == []
    assert side.create(of=two).group != made.group


def test_a_job_of_that_name_that_is_not_ours_is_left_alone(side: Side) -> None:
    side.create()
    name = side.job["metadata"]["name"]
    with side.cluster.shelf.changed:
        side.cluster.shelf.put(
            "jobs", {**side.job, "metadata": {**side.job["metadata"], "labels": {}}}
        )
    # Our own clean-up must not take it for ours.
    with pytest.raises(ConfigurationError, match="that this launch did not create"):
        side.create()
    assert side.cluster.shelf.get("jobs", "ci", name)


def test_a_pod_of_others_with_the_label_of_our_job_stays(side: Side) -> None:
    """It has no node, as those of ours that are deleted then."""
    made = side.create()
    (own,) = side.cluster.shelf.of("pods")
    side.provider.destroy("cml-1", made)
    labels = {"batch.kubernetes.io/job-name": made.group}
    spec = {**own["spec"], "nodeSelector": {"disk": "tape"}}
    del spec["nodeName"]
    stranger = {
        "kind": "Pod",
        "apiVersion": "v1",
        "metadata": {"name": "database", "namespace": "ci", "labels": labels},
        "spec": spec,
        "status": {"phase": "Pending"},
    }
    with side.cluster.shelf.changed:
        side.cluster.shelf.put("pods", stranger)
    assert side.create().group == made.group
    assert side.cluster.shelf.get("pods", "ci", "database")


def test_of_a_long_log_the_end_is_read(side: Side) -> None:
    """Where the machine says why it gave up. What `limitBytes` cuts off is the end."""
    side.cluster.said = (
        "".join(f"a line that says little, number {number}\n" for number in range(20_000))
        + "the end\n"
    )
    made = side.create()
    until(lambda: side.provider.console(made), "its log")
    told = side.provider.console(made)
    assert told.endswith("the end\n")
    assert len(told) < 1 << 20, "nor all of it"


# --- what is made


def test_the_secret_belongs_to_the_job_and_goes_when_the_runner_is_online(side: Side) -> None:
    made = side.create()
    (secret,) = side.cluster.shelf.of("secrets")
    assert base64.b64decode(secret["data"]["agent.pyz"]) == b"the agent"
    assert secret["metadata"]["ownerReferences"][0]["uid"] == side.job["metadata"]["uid"]
    side.provider.settle([made])
    assert side.cluster.shelf.of("secrets") == []
    side.provider.settle([made])  # twice is as good


def test_a_secret_of_others_that_took_the_name_stays(side: Side) -> None:
    made = side.create()
    side.provider.settle([made])
    metadata = {"name": made.group, "namespace": "ci"}
    stranger = {"kind": "Secret", "apiVersion": "v1", "type": "Opaque", "metadata": metadata}
    with side.cluster.shelf.changed:
        side.cluster.shelf.put("secrets", stranger)
    side.provider.settle([made])
    assert side.cluster.shelf.get("secrets", "ci", made.group)


AGENT = base64.b64encode(b"the agent").decode()


def made_before(side: Side, owner: str | None, data: dict[str, str]) -> None:
    """In the moment between Job and Secret. It belongs to our Job (`ours`), to something else
    that is there, or to nobody."""
    put = side.cluster.shelf.put
    made: list[str] = []
    with side.cluster.shelf.changed:
        other = put(
            "secrets",
            {
                "metadata": {"name": "other", "namespace": "ci"},
                "kind": "Secret",
                "apiVersion": "v1",
                "type": "Opaque",
            },
        )

    def puts(resource: str, one: dict[str, Any]) -> dict[str, Any]:
        done = put(resource, one)
        if resource == "jobs" and not made:
            made.append(done["metadata"]["uid"])
            belongs = {"apiVersion": "batch/v1", "kind": "Job", "name": done["metadata"]["name"]}
            uid = made[0] if owner == "ours" else other["metadata"]["uid"]
            owners = [{**belongs, "uid": uid}] if owner else []
            meta = {"name": done["metadata"]["name"], "namespace": "ci", "ownerReferences": owners}
            put(
                "secrets",
                {
                    "kind": "Secret",
                    "apiVersion": "v1",
                    "type": "Opaque",
                    "metadata": meta,
                    "data": data,
                },
            )
        return done

    side.cluster.shelf.put = puts  # type: ignore[method-assign]


@pytest.mark.parametrize("owner", [None, "another"])
@pytest.mark.parametrize(
    "data", [{"agent.pyz": AGENT}, {"agent.pyz": base64.b64encode(b"another").decode()}, {}]
)
def test_a_secret_that_is_there_already_is_not_taken_unseen(
    side: Side, owner: str | None, data: dict[str, str]
) -> None:
    """A pod would run its program."""
    made_before(side, owner, data)
    with pytest.raises(
        ConfigurationError,
        match=r"There is a Secret cml-1-[0-9a-f]+ that this launch did not create",
    ):
        side.create()
    until(lambda: not side.cluster.shelf.of("jobs"), "its Job to be gone")


@pytest.mark.parametrize(
    "data",
    [
        {"agent.pyz": AGENT},
        {"agent.pyz": base64.b64encode(b"with another token").decode()},
        {"agent.pyz": AGENT, "more": ""},
    ],
)
def test_one_that_belongs_to_our_job_is_what_it_must_be(side: Side, data: dict[str, str]) -> None:
    """Be it of an answer that got lost, or of an earlier try of this launch."""
    made_before(side, "ours", data)
    side.create()
    assert [one.get("data") for one in side.cluster.shelf.of("secrets")] == [
        None,
        {"agent.pyz": AGENT},
    ]
    assert side.cluster.asked.count("get secrets") == 1


def test_a_finished_job_is_deleted_by_the_cluster_with_its_secret(side: Side) -> None:
    side.create()
    (pod,) = side.cluster.shelf.of("pods")
    with side.cluster.shelf.changed:
        side.cluster.shelf.put("pods", {**pod, "status": {**pod["status"], "phase": "Succeeded"}})
    until(
        lambda: not side.cluster.shelf.of("secrets") and not side.cluster.shelf.of("jobs"),
        "the end of it",
        15,
    )


def test_many_runners_are_one_job_and_one_that_ends_does_not_end_the_others(side: Side) -> None:
    made = side.many(5)
    assert len({one.id for one in made.instances}) == 5
    assert made.shortage is None
    assert (side.job["spec"]["completions"], side.job["spec"]["completionMode"]) == (5, "Indexed")
    assert (
        side.cluster.asked.count("create batch/jobs")
        == side.cluster.asked.count("create secrets")
        == 1
    )
    side.cluster.evict(made.instances[0].id, 0)
    until(lambda: len(side.provider.find({})) == 4, "the others")
    time.sleep(0.3)
    assert len(side.provider.find({})) == 4, "nor is it made anew"
    assert side.provider.destroy("cml-1", made.instances[1])
    assert side.cluster.alive() == []


def test_zones_are_rungs(side: Side) -> None:
    ladder = side.ladder("--cloud-region=zone-b,zone-a", "--cloud-type=s")
    (made,) = side.provider.create(ladder[0], machine()).instances
    assert (str(ladder[0]), made.zone) == ("1 CPU, 1 GiB in zone-b", "node-2")


def test_a_template_that_is_newer_than_the_client_goes_through(side: Side) -> None:
    side.create(
        "--cloud-kubernetes-pod-template=spec: {priorityClassName: batch, hostUsers: false}"
    )
    assert side.job["spec"]["template"]["spec"]["priorityClassName"] == "batch"


# --- no room


def test_a_pod_that_no_node_takes_is_no_capacity_in_the_schedulers_words(
    side: Side, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with pytest.raises(CapacityError, match="2 Insufficient amd") as caught:
        side.create("--cloud-gpu=amd.com/gpu")
    assert "cloud-kubernetes-schedule-timeout" in caught.value.hint
    assert "waits for a node: 0/2 nodes are available" in caplog.text
    assert side.cluster.alive() == []


def test_a_node_that_comes_later_is_waited_for(side: Side) -> None:
    def autoscaler() -> None:
        time.sleep(1)
        with side.cluster.shelf.changed:
            side.cluster.nodes.append(Node("node-3", room={"amd.com/gpu": 1}))

    threading.Thread(target=autoscaler, daemon=True).start()
    assert side.create("--cloud-gpu=amd.com/gpu", patience=20).zone == "node-3"


GPUS = (
    "UnexpectedAdmissionError",
    "Allocate failed due to requested number of devices unavailable for nvidia.com/gpu",
)
NODE = ("NodeAffinity", "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity")


def test_what_a_kubelet_refuses_is_created_again(
    side: Side, caplog: pytest.LogCaptureFixture
) -> None:
    """A node is ready before its GPUs are."""
    caplog.set_level(logging.INFO)
    side = Side(side.cluster, provider(side.cluster, Brisk()))
    side.cluster.kubelet_refusals += [GPUS, NODE]
    made = side.create(patience=60)
    assert fresh(side, made).trouble == ""
    assert side.cluster.asked.count("create batch/jobs") == 3
    assert "UnexpectedAdmissionError: Pod was rejected: Allocate failed" in caplog.text
    (pod,) = side.cluster.shelf.of("pods")
    assert pod["metadata"]["name"] == made.id


def test_what_a_kubelet_goes_on_to_refuse_is_no_capacity(side: Side) -> None:
    side.cluster.kubelet_refusals += [GPUS] * 9
    with pytest.raises(CapacityError, match="UnexpectedAdmissionError"):
        side.create(patience=1)
    assert side.cluster.alive() == []


def test_of_many_those_that_no_kubelet_refuses_are_runners(side: Side) -> None:
    side.cluster.kubelet_refusals += [GPUS]
    made = side.many(3)
    assert len(made.instances) == 2
    assert isinstance(made.shortage, CapacityError)
    assert "UnexpectedAdmissionError" in str(made.shortage)


@pytest.mark.parametrize(
    ("kind", "key"),
    [(kind, key) for kind, keys in table.NOT_INJECTED.items() for key in keys],
)
def test_no_mesh_adds_a_container_unless_a_template_lets_it(
    side: Side, kind: str, key: str
) -> None:
    mesh = Injector(kind, key)
    side.cluster.admission.append(mesh)
    side.create()
    assert mesh.injected == []
    side.create(
        f'--cloud-kubernetes-pod-template=metadata: {{{kind}: {{"{key}": null}}}}',
        of=machine("cml-2"),
    )
    assert len(mesh.injected) == 1


def test_no_autoscaler_moves_it_unless_a_template_lets_it(side: Side) -> None:
    side.create()
    template = side.job["spec"]["template"]["metadata"]["annotations"]
    assert table.UNDISTURBED.items() <= template.items()
    side.provider.destroy("cml-1")
    side.create(
        "--cloud-kubernetes-pod-template=metadata: {annotations: {karpenter.sh/do-not-disrupt:"
        " null}}"
    )
    template = side.job["spec"]["template"]["metadata"]["annotations"]
    assert "karpenter.sh/do-not-disrupt" not in template


CLAIM = "--cloud-gpu=resourceclaimtemplate/one-gpu"


def test_a_claim_is_met_by_a_node_that_has_such_a_device(side: Side) -> None:
    side.cluster.nodes.append(Node("node-9", claims={"one-gpu"}))
    assert side.create(CLAIM, patience=20).zone == "node-9"
    spec = side.job["spec"]["template"]["spec"]
    assert spec["resourceClaims"] == [{"name": "gpu", "resourceClaimTemplateName": "one-gpu"}]
    (runner,) = spec["containers"]
    assert runner["resources"]["claims"] == [{"name": "gpu"}]
    assert not any("/" in name for name in runner["resources"]["limits"])


def test_a_claim_that_no_node_meets_is_no_capacity(side: Side) -> None:
    with pytest.raises(CapacityError, match="cannot allocate all claims"):
        side.create(CLAIM)
    assert side.cluster.alive() == []


def test_a_cluster_that_drops_claims_gives_no_pod_without_a_gpu(side: Side) -> None:
    """One whose version does not have them says nothing."""
    put = side.cluster.shelf.put

    def older(resource: str, one: dict[str, Any]) -> dict[str, Any]:
        if resource == "jobs":
            one["spec"]["template"]["spec"].pop("resourceClaims", None)
        return put(resource, one)

    side.cluster.shelf.put = older  # type: ignore[method-assign]
    with pytest.raises(ConfigurationError, match="no dynamic resource allocation"):
        side.create(CLAIM)
    assert side.cluster.alive() == []


def test_as_many_as_there_is_room_for(side: Side) -> None:
    made = side.many(20, "--cloud-gpu=nvidia.com/gpu")
    assert len(made.instances) == 16
    assert isinstance(made.shortage, CapacityError)
    until(lambda: len(side.cluster.shelf.of("pods")) == 16, "the rest to be removed")
    side.provider.destroy("cml-1", made.instances[0])
    assert side.cluster.alive() == []


def test_streams_that_break_and_history_that_is_gone_are_passed_over(side: Side) -> None:
    def trouble() -> None:
        for _ in range(4):
            time.sleep(0.3)
            side.cluster.cut_watches()
            side.cluster.expire()
        with side.cluster.shelf.changed:
            side.cluster.nodes.append(Node("node-3", room={"amd.com/gpu": 1}))

    threading.Thread(target=trouble, daemon=True).start()
    assert side.create("--cloud-gpu=amd.com/gpu", patience=30).zone == "node-3"


# --- refusals


QUOTA = (
    'pods "x" is forbidden: exceeded quota: compute, requested: limits.cpu=8, used: limits.cpu=40,'
    " limited: limits.cpu=40"
)
SECURITY = (
    'pods "x" is forbidden: violates PodSecurity "restricted:latest": privileged (container'
    ' "docker" must not set securityContext.privileged=true)'
)
NO_ACCOUNT = (
    'pods "x" is forbidden: error looking up service account ci/trainer: serviceaccount "trainer"'
    " not found"
)


@pytest.mark.parametrize(
    ("message", "kind", "hint"),
    [
        (QUOTA, QuotaError, "ResourceQuota"),
        (SECURITY, ConfigurationError, "Pod Security Standard"),
        (NO_ACCOUNT, ConfigurationError, "kubectl create serviceaccount"),
        (
            'admission webhook "policy.example" denied the request: no',
            ConfigurationError,
            "A rule of the cluster",
        ),
        (
            'admission webhook "validate.kyverno.svc-fail" denied the request: require-labels: no',
            ConfigurationError,
            "PolicyException",
        ),
        (
            'admission webhook "validation.gatekeeper.sh" denied the request: [must-have-owner]',
            ConfigurationError,
            "Gatekeeper",
        ),
        (
            "ValidatingAdmissionPolicy 'images' with binding 'images' denied request: no",
            ConfigurationError,
            "A rule of the cluster",
        ),
        (
            'pods "x" is forbidden: minimum cpu usage per Container is 100m, but request is 10m',
            ConfigurationError,
            "requests and limits of the containers `guard` and `hand-over`",
        ),
        (
            'pods "x" is forbidden: cpu max limit to request ratio per Container is 4, not 50',
            ConfigurationError,
            "{name: guard, resources: {requests: {cpu: 500m",
        ),
        (
            'pods "x" is forbidden: failed quota: compute: must specify requests.example.com/a',
            ConfigurationError,
            "LimitRange with defaults",
        ),
    ],
)
def test_pods_that_the_cluster_does_not_make_are_told_by_what_to_do(
    side: Side, message: str, kind: type[ProviderError], hint: str
) -> None:
    side.cluster.refuse_pods(message)
    with pytest.raises(kind) as caught:
        side.create(patience=20)
    assert type(caught.value) is kind
    assert message.rpartition(": ")[2] in str(caught.value)
    assert hint in caught.value.hint
    assert side.cluster.alive() == []


NO_ANSWER = (
    'Internal error occurred: failed calling webhook "validate.kyverno.svc-fail": failed to call'
    ' webhook: Post "https://kyverno-svc.kyverno.svc:443/validate/fail?timeout=10s": context'
    " deadline exceeded"
)


def test_a_webhook_that_does_not_answer_at_first_is_waited_for(
    side: Side, caplog: pytest.LogCaptureFixture
) -> None:
    """The Job controller tries again."""
    caplog.set_level("INFO")
    side.cluster.refuse_pods(NO_ANSWER)
    threading.Timer(6, side.cluster.refuse_pods, [""]).start()
    assert side.create(patience=30)
    assert "has no pod yet: Error creating: Internal error occurred" in caplog.text


def test_a_webhook_that_never_answers_is_no_policy(side: Side) -> None:
    side.cluster.refuse_pods(NO_ANSWER)
    with pytest.raises(ProviderError, match="failed calling webhook") as caught:
        side.create(patience=5)
    assert type(caught.value) is ProviderError
    assert "look whether the pods that serve it run" in caught.value.hint
    assert side.cluster.alive() == []


def test_what_was_said_of_an_earlier_job_of_that_name_is_not_said_of_this(side: Side) -> None:
    """One that this launch has deleted, to create it again without user IDs."""

    def earlier() -> None:
        with side.cluster.shelf.changed:
            (job,) = side.cluster.shelf.of("jobs")
            job = {**job, "metadata": {**job["metadata"], "uid": "earlier"}}
            note = side.cluster.control.note
            note(job, "FailedCreate", f"Error creating: {QUOTA}", "job-controller", warning=True)

    side.cluster.refuse_pods(NO_ANSWER)
    threading.Timer(2, earlier).start()
    threading.Timer(6, side.cluster.refuse_pods, [""]).start()
    assert side.create(patience=30)


@pytest.mark.parametrize("room", [3, 4])
def test_a_quota_for_some_gives_some(side: Side, room: int) -> None:
    """Those before the first gap: of pods that are created at once, any may be refused."""
    side.cluster.refuse_pods(QUOTA, after=room)
    cloud = side.request(patience=20)
    made = side.provider.create(
        side.provider.resolve(side.provider.plan(cloud), cloud)[0], machine(), 7
    )
    assert len(made.instances) == 3
    assert isinstance(made.shortage, QuotaError)
    assert (side.job["spec"]["completions"], side.job["spec"]["parallelism"]) == (3, 3)
    side.cluster.refuse_pods("")
    side.cluster.evict(made.instances[0].id, 0)
    time.sleep(1)
    assert len(side.provider.find({})) == 2, "no machine comes later, when there is room again"


STATED = Stated(
    *("limits.cpu", "limits.memory", "limits.ephemeral-storage"),
    *("requests.cpu", "requests.memory", "requests.ephemeral-storage"),
)


@pytest.mark.parametrize("containers", ["none", "docker", "kubernetes"])
def test_a_quota_that_wants_everything_stated_is_satisfied(side: Side, containers: str) -> None:
    """And no default of a LimitRange decides what jobs in Docker have."""
    small = LimitRange({}, default={"cpu": "100m", "memory": "128Mi"})
    side.cluster.admission += [small, STATED]
    side.create(
        f"--cloud-kubernetes-containers={containers}",
        "--cloud-permission-set=jobs",
        "--cloud-type=s",
    )
    (pod,) = side.cluster.shelf.of("pods")
    every = [*pod["spec"]["initContainers"], *pod["spec"]["containers"]]
    limits = {one["name"]: one["resources"]["limits"] for one in every}
    expected = {
        "none": ("runner", "1024Mi"),
        "docker": ("docker", "1024Mi"),
        "kubernetes": ("runner", "4096Mi"),
    }
    name, memory = expected[containers]
    assert limits[name]["memory"] == memory


def test_a_limit_range_that_allows_less_is_told_with_what_to_write(side: Side) -> None:
    side.cluster.admission.append(LimitRange({"cpu": "4"}))
    with pytest.raises(ConfigurationError, match="maximum cpu usage per Container is 4") as caught:
        side.create("--cloud-type=m", patience=20)
    assert "smaller `cloud-type`" in caught.value.hint
    side.create("--cloud-type=2-4096")


def test_a_template_can_make_requests_and_limits_equal(side: Side) -> None:
    equal = "{requests: {cpu: 500m, memory: 128Mi}, limits: {cpu: 500m, memory: 128Mi}}"
    named = ", ".join(f"{{name: {name}, resources: {equal}}}" for name in ("guard", "hand-over"))
    side.create(
        "--cloud-type=2-4096",
        f"--cloud-kubernetes-pod-template=spec: {{initContainers: [{named}]}}",
    )
    spec = side.job["spec"]["template"]["spec"]
    for one in [*spec["initContainers"], *spec["containers"]]:
        for kind in ("cpu", "memory"):
            assert one["resources"]["requests"][kind] == one["resources"]["limits"][kind]


def test_the_secret_of_a_job_that_this_launch_has_just_deleted_is_replaced(side: Side) -> None:
    """The cluster's garbage collector may be later than the next Job."""
    side.create()
    with side.cluster.shelf.changed:
        (left,) = side.cluster.shelf.of("secrets")
        left["metadata"]["ownerReferences"][0]["uid"] = "earlier"
        before = left["metadata"]["uid"]
        side.cluster.shelf.put("secrets", left)
    side.create()
    (secret,) = side.cluster.shelf.of("secrets")
    assert secret["metadata"]["uid"] != before
    assert secret["metadata"]["ownerReferences"][0]["uid"] == side.job["metadata"]["uid"]


def test_a_cluster_that_assigns_users_gets_a_pod_without_any(side: Side) -> None:
    """OpenShift. What else the pod needs it must not lose."""
    side.cluster.admission.append(SecurityContextConstraints())
    made = side.create(patience=20)
    (pod,) = side.cluster.shelf.of("pods")
    assert pod["metadata"]["name"] == made.id
    every = [*pod["spec"]["initContainers"], *pod["spec"]["containers"]]
    assert {one["securityContext"]["runAsUser"] for one in every} == {1000680000}
    assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
    assert {one["securityContext"]["allowPrivilegeEscalation"] for one in every} == {False}
    assert len(side.cluster.shelf.of("jobs")) == len(side.cluster.shelf.of("secrets")) == 1


def test_what_such_a_cluster_refuses_in_any_case_is_told_once(side: Side) -> None:
    side.cluster.admission.append(SecurityContextConstraints())
    with pytest.raises(ConfigurationError, match="Privileged containers are not") as caught:
        side.create("--cloud-kubernetes-containers=docker", patience=20)
    assert "add-scc-to-user" in caught.value.hint
    assert side.cluster.asked.count("create batch/jobs") == 2
    assert side.cluster.alive() == []


def test_a_deletion_without_a_name_is_none(side: Side) -> None:
    """It would be one of all Jobs of the namespace."""
    with pytest.raises(ValueError, match="without a name"):
        side.provider.destroy(
            "cml-1", Instance(provider=ProviderName.KUBERNETES, id="x", name="cml-1", region="ci")
        )


@pytest.mark.parametrize(
    "words", ["create batch/jobs", "create secrets", "list pods", "watch pods"]
)
def test_a_missing_right_is_named_and_nothing_stays(side: Side, words: str) -> None:
    ladder = side.ladder("--cloud-gpu=amd.com/gpu")
    side.cluster.denied.add(words)
    with pytest.raises(
        CredentialsError, match=words.partition(" ")[2].rpartition("/")[2]
    ) as caught:
        side.provider.create(ladder[0], machine())
    assert "cml-runner permissions kubernetes" in caught.value.hint
    assert side.cluster.alive() == []


def test_rights_are_asked_for_before_anything_is_made(side: Side) -> None:
    side.cluster.denied.add("list batch/jobs")
    with pytest.raises(CredentialsError, match=r"jobs\.batch is forbidden"):
        side.ladder()


@pytest.mark.parametrize(
    ("status", "times", "comes"), [(429, 2, True), (503, 2, True), (500, 9, False)]
)
def test_throttling_and_stumbling_are_passed_over(
    side: Side, status: int, times: int, comes: bool
) -> None:
    side.ladder()
    headers: Any = {"Retry_After": "0"} if status == 429 else {}
    side.cluster.served.fail(
        "POST",
        "/jobs$",
        status,
        times,
        {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "etcd is busy"},
        **headers,
    )
    if comes:
        assert side.create()
    else:
        with pytest.raises(ProviderError, match="HTTP 500"):
            side.create()
        side.cluster.served.faults.clear()
        assert side.cluster.alive() == []


@pytest.mark.parametrize("kind", ["jobs", "secrets"])
def test_an_answer_that_is_lost_is_no_second_machine(side: Side, kind: str) -> None:
    side.ladder()
    side.cluster.served.fail("POST", f"/{kind}$", 503, late=True)
    assert side.create()
    assert (
        len(side.cluster.shelf.of("jobs"))
        == len(side.cluster.shelf.of("secrets"))
        == len(side.cluster.shelf.of("pods"))
        == 1
    )


def test_a_namespace_that_is_not_there(cluster: FakeKubernetes) -> None:
    side = Side(cluster, provider(cluster, namespace="nowhere"))
    with pytest.raises(ConfigurationError, match="nowhere") as caught:
        side.create()
    assert "cloud-kubernetes-namespace" in caught.value.hint


def test_an_image_that_is_not_there_is_told_at_once_and_one_that_is_slow_is_waited_for(
    side: Side,
) -> None:
    side.cluster.broken_images["octo/none:1"] = (
        'failed to pull and unpack image "octo/none:1": octo/none:1: not found'
    )
    side.cluster.broken_images["octo/slow:1"] = (
        "failed to pull and unpack image: dial tcp: i/o timeout"
    )
    none, slow = (
        side.create("--cloud-image=octo/none:1"),
        side.create("--cloud-image=octo/slow:1", of=machine(name="cml-2")),
    )
    until(lambda: fresh(side, none).trouble, "the trouble")
    assert "octo/none:1: not found" in fresh(side, none).trouble
    until(lambda: "i/o timeout" in side.provider.console(slow), "the kubelet's words")
    assert fresh(side, slow).trouble == ""
    assert "Failed" in side.provider.console(slow)


# --- who asks


def told(fake: FakeKubernetes, **user: Any) -> dict[str, Any]:
    config: dict[str, Any] = json.loads(fake.kubeconfig)
    config["users"][0]["user"] = user or config["users"][0]["user"]
    return config


def test_a_kubeconfig_as_text_as_base64_or_as_a_file(
    cluster: FakeKubernetes, tmp_path: Path
) -> None:
    text = yaml.safe_dump(told(cluster))
    (tmp_path / "config").write_text(text)
    packed = base64.b64encode(text.encode()).decode()
    asked: list[tuple[KubernetesOptions, dict[str, str]]] = [
        (KubernetesOptions(configuration=Secret(one)), {}) for one in (text, packed)
    ]
    asked.append((KubernetesOptions(), {"KUBECONFIG": str(tmp_path / "config")}))
    for options, environ in asked:
        assert Cluster.from_environment(options, environ).get("pods")["items"] == []
        assert access(options, environ).namespace == "ci"
    assert (
        access(KubernetesOptions(configuration=Secret(text), namespace="default"), {}).namespace
        == "default"
    )


@pytest.mark.parametrize(
    ("change", "message", "hint"),
    [
        (
            {"current-context": "other"},
            "has no context other: it has sandbox",
            "cloud-kubernetes-context",
        ),
        ({"contexts": []}, "has no context sandbox: it has none", "cloud-kubernetes-context"),
        ({"clusters": []}, "kubeconfig cannot be used", "docs/kubernetes.md"),
    ],
)
def test_a_kubeconfig_that_cannot_be_used(
    cluster: FakeKubernetes, change: dict[str, Any], message: str, hint: str
) -> None:
    with pytest.raises(CredentialsError, match=message) as caught:
        access(
            KubernetesOptions(configuration=Secret(yaml.safe_dump({**told(cluster), **change}))), {}
        )
    assert hint in caught.value.hint
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"contexts": ["canary"]}, "its fields are not as they should be"),
        ({"users": "canary"}, "its fields are not as they should be"),
    ],
)
def test_a_kubeconfig_of_another_shape(
    cluster: FakeKubernetes, change: dict[str, Any], message: str
) -> None:
    text = yaml.safe_dump({**told(cluster), **change})
    with pytest.raises(CredentialsError, match=message) as caught:
        access(KubernetesOptions(configuration=Secret(text)), {})
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    ("server", "token", "message"),
    [
        ("http://[canary", "canary", "its fields are not as they should be"),
        ("canary", "canary", "`server` is not an address"),
        ("", "canary\ntoken", "token contains a line break"),
        ("", "canary\u200btoken", "token contains an invisible character"),
    ],
)
def test_a_kubeconfig_that_no_request_can_be_made_with(
    cluster: FakeKubernetes, server: str, token: str, message: str
) -> None:
    kubeconfig = told(cluster, token=token)
    kubeconfig["clusters"][0]["cluster"]["server"] = server or cluster.url
    with pytest.raises(CredentialsError, match=message) as caught:
        access(KubernetesOptions(configuration=Secret(yaml.safe_dump(kubeconfig))), {})
    assert "canary" not in str(caught.value)


def test_a_token_with_a_line_end_is_used_without_it(cluster: FakeKubernetes) -> None:
    kubeconfig = told(cluster)
    kubeconfig["users"][0]["user"]["token"] += "\r\n"
    options = KubernetesOptions(configuration=Secret(yaml.safe_dump(kubeconfig)))
    assert Cluster.from_environment(options, {}).get("pods")["items"] == []


@pytest.mark.parametrize("kind", ["folder", "broken file", "text"])
def test_a_variable_that_names_no_kubeconfig(kind: str, tmp_path: Path) -> None:
    (tmp_path / "broken").write_text("canary: [secret\n\t: x")
    given = {"folder": tmp_path, "broken file": tmp_path / "broken", "text": "canary: x\ny: z"}
    with pytest.raises(CredentialsError, match="KUBECONFIG is not a kubeconfig") as caught:
        access(KubernetesOptions(), {"KUBECONFIG": str(given[kind])})
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("text", ["canary: [secret", "canary", "- canary"])
def test_what_is_no_kubeconfig_is_not_quoted(text: str) -> None:
    with pytest.raises(CredentialsError, match="is not a kubeconfig") as caught:
        access(KubernetesOptions(configuration=Secret(text)), {})
    assert "canary" not in f"{caught.value}{caught.value.__cause__}"


@pytest.mark.parametrize("program", ["mine", "/opt/tsh", "kubectl"])
def test_a_program_that_logs_in_and_is_not_here_is_told(
    cluster: FakeKubernetes, program: str
) -> None:
    config = told(
        cluster,
        exec={
            "apiVersion": "client.authentication.k8s.io/v1",
            "command": program,
            "interactiveMode": "Never",
        },
    )
    with pytest.raises(
        CredentialsError, match=f"with the program `{program}`, which is not installed here"
    ) as caught:
        access(
            KubernetesOptions(configuration=Secret(yaml.safe_dump(config))), {"PATH": "/nowhere"}
        )
    assert "kubectl create token" in caught.value.hint


def test_a_program_that_is_here_is_asked(
    cluster: FakeKubernetes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "kind": "ExecCredential",
        "status": {"token": cluster.token},
    }
    (tmp_path / "login").write_text(f"#!/bin/sh\necho '{json.dumps(answer)}'\n")
    (tmp_path / "login").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    config = told(
        cluster,
        exec={
            "apiVersion": "client.authentication.k8s.io/v1",
            "command": "login",
            "interactiveMode": "Never",
        },
    )
    options = KubernetesOptions(configuration=Secret(yaml.safe_dump(config)))
    assert (
        Cluster.from_environment(options, {"PATH": f"{tmp_path}:/usr/bin:/bin"}).get("pods")[
            "items"
        ]
        == []
    )


def test_a_wrong_token_and_a_cluster_that_is_not_there(cluster: FakeKubernetes) -> None:
    wrong = Side(
        cluster,
        KubernetesProvider(
            Cluster.from_environment(
                KubernetesOptions(
                    configuration=Secret(yaml.safe_dump(told(cluster, token="canary-x")))
                ),
                {},
            ),
            SystemClock(),
        ),
    )
    with pytest.raises(CredentialsError) as caught:
        wrong.ladder()
    assert "KUBERNETES_CONFIGURATION" in caught.value.hint
    config = told(cluster)
    config["clusters"][0]["cluster"]["server"] = "http://127.0.0.1:9"
    nowhere = Side(
        cluster,
        KubernetesProvider(
            Cluster.from_environment(
                KubernetesOptions(configuration=Secret(yaml.safe_dump(config))), {}
            ),
            SystemClock(),
        ),
    )
    with pytest.raises(ProviderError, match="did not answer") as refused:
        nowhere.ladder()
    assert "private cluster" in refused.value.hint


def test_as_the_pod_that_the_launcher_runs_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over TLS, by what a pod finds in its folder and its environment."""
    authority, pod = trustme.CA(), tmp_path / "serviceaccount"
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "certificate.pem"))
    issued.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    fake = FakeKubernetes(tls=(str(tmp_path / "certificate.pem"), str(tmp_path / "key.pem")))
    pod.mkdir()
    (pod / "token").write_text(fake.token)
    (pod / "namespace").write_text("ci\n")
    authority.cert_pem.write_to_path(str(pod / "ca.crt"))
    environ = {
        "KUBERNETES_SERVICE_HOST": "127.0.0.1",
        "KUBERNETES_SERVICE_PORT": fake.url.rpartition(":")[2],
    }
    monkeypatch.setenv("HOME", str(tmp_path))

    def launcher() -> Side:
        return Side(
            fake,
            KubernetesProvider(
                Cluster(lambda: access(KubernetesOptions(), environ, pod)), SystemClock()
            ),
        )

    try:
        assert launcher().create().region == "ci"
        (pod / "token").write_text("canary-wrong")
        with pytest.raises(CredentialsError):
            launcher().ladder()
    finally:
        fake.close()


def test_nothing_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(CredentialsError, match="There is no kubeconfig"):
        access(KubernetesOptions(), {})


# --- scale


def test_two_hundred_runners_in_one_call(capsys: pytest.CaptureFixture[str]) -> None:
    fake = FakeKubernetes(
        nodes=[Node("node-1", room={"cpu": 400, "memory": "1Ti", "ephemeral-storage": "4Ti"})]
    )
    try:
        side = Side(fake, provider(fake))
        ladder, before = side.ladder("--cloud-type=s", patience=60), len(fake.asked)
        memory, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
        made = side.provider.create(ladder[0], machine(), 200)
        seconds, calls = time.monotonic() - began, fake.asked[before:]
        looked = [side.provider.look(one) for one in made.instances]
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) / 1024
        with capsys.disabled():
            more = len(fake.asked) - before - len(calls)
            print(
                f"\n200 runners: {len(calls)} calls, {seconds:.1f} s, {grown:.0f} MiB more (fake"
                f" and client); {more} call(s) to look at all of them"
            )
        assert len(made.instances) == len(looked) == 200
        assert calls.count("create batch/jobs") == calls.count("create secrets") == 1
        assert len(calls) < 20
        assert seconds < 60
        assert side.provider.destroy("cml-1", made.instances[0])
        assert fake.alive() == []
    finally:
        fake.close()


def fresh(side: Side, instance: Instance) -> Instance:
    """As it is now: a list serves for a second."""
    side.provider._listed.clear()
    return side.provider.look(instance)


def until(condition: Any, what: str, seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds} s for {what}"
        time.sleep(0.05)
