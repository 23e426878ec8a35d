"""What a launch sends, and what a real API server makes of it: every manifest of the golden files,
admission, and refusals in its own words. Needs no controllers.

Every manifest is created (`dryRun`: all but stored), so that defaults, validation and admission see
it. https://kubernetes.io/docs/reference/using-api/api-concepts/#dry-run"""

from __future__ import annotations

import time
import uuid
from typing import Any

import pytest
import yaml

from runner_action import cli
from runner_action.errors import ConfigurationError
from runner_action.providers.kubernetes.errors import Refused, refused
from runner_action.sandbox.kubernetes.decoding import QUANTITY
from runner_action.sandbox.kubernetes.nodes import amount
from tests.providers.test_kubernetes_plan import REQUESTS, made
from tests.real.apiserver import Api
from tests.real.cluster import Space
from tests.real.launcher import Launcher

Json = dict[str, Any]
ALL = {"dryRun": "All", "fieldValidation": "Strict"}


def lost(ours: Any, theirs: Any) -> Any:
    """What of our object the server does not have."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        rest = {key: lost(value, theirs.get(key)) for key, value in ours.items()}
        return {key: value for key, value in rest.items() if value}
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        return [rest for pair in zip(ours, theirs, strict=True) if (rest := lost(*pair))]
    return None if not ours or ours == theirs or same(ours, theirs) else ours


def same(ours: Any, theirs: Any) -> bool:
    """As quantities, which the server writes in their shortest form: 32Gi for 32768Mi."""
    both = (str(ours), str(theirs))
    return all(map(QUANTITY.fullmatch, both)) and amount(both[0]) == amount(both[1])


@pytest.mark.parametrize("name", REQUESTS)
def test_every_job_and_secret_is_taken_whole_and_without_a_warning(space: Space, name: str) -> None:
    jobs, secret, _ = made(REQUESTS[name])
    for job in jobs:
        status, answer, warnings = space.admin.send("POST", f"{space.batch}/jobs", job, **ALL)
        assert (status, warnings) == (201, []), answer
        assert lost(job, answer) == {}
    status, answer, warnings = space.admin.send("POST", f"{space.path}/secrets", secret, **ALL)
    assert (status, warnings) == (201, []), answer
    assert lost(secret, answer) == {}


LEVELS = {
    "none": "restricted",
    "kubernetes": "restricted",
    "docker": "privileged",
}
"""The strictest Pod Security Standard that admits a pod, by `cloud-kubernetes-containers`."""
ORDER = ("privileged", "baseline", "restricted")


@pytest.mark.parametrize("containers", LEVELS)
@pytest.mark.parametrize("level", ORDER)
def test_pod_security_admits_each_way_to_containers_up_to_its_level(
    space: Space, level: str, containers: str
) -> None:
    """https://kubernetes.io/docs/concepts/security/pod-security-admission/"""
    space.label(enforce=level, warn=level)
    space.account("jobs")
    argv = [f"--cloud-kubernetes-containers={containers}", "--cloud-permission-set=jobs"]
    (job,), _, _ = made(argv)
    pod = {"kind": "Pod", "apiVersion": "v1", **job["spec"]["template"]}
    pod["metadata"]["name"] = "a"
    status, answer, _ = space.admin.send("POST", f"{space.path}/pods", pod, **ALL)
    _, _, warnings = space.admin.send("POST", f"{space.batch}/jobs", job, **ALL)
    if ORDER.index(level) <= ORDER.index(LEVELS[containers]):
        assert (status, warnings) == (201, []), answer
        return
    assert f'violates PodSecurity "{level}:latest"' in answer["message"]
    told = refused(answer["message"], "creating the pod", status)
    assert type(told) is ConfigurationError
    assert "Pod Security Standard" in told.hint
    (warning,) = warnings
    assert f'would violate PodSecurity "{level}:latest"' in warning.replace("\\", "")


def test_the_role_of_jobs_that_are_pods_is_enough_for_what_they_do(
    space: Space, capsys: pytest.CaptureFixture[str]
) -> None:
    """The calls of https://github.com/actions/runner-container-hooks (packages/k8s/src/k8s) and of
    gitlab-runner's executor. Whoever may make one is told that something is not there."""
    for forge, calls in JOBS_ARE_PODS.items():
        argv = [f"--driver={forge}", "--cloud-kubernetes-containers=kubernetes"]
        argv += [f"--cloud-permission-set={forge}", f"--cloud-kubernetes-namespace={space.name}"]
        assert cli.main(["permissions", "kubernetes", *argv], {}) == 0
        _, _, role, binding = yaml.safe_load_all(capsys.readouterr().out)
        role["metadata"]["name"] = binding["metadata"]["name"] = binding["roleRef"]["name"] = forge
        space.add(role)
        space.add(binding)
        api = Api(space.kubeconfig(forge))
        statuses = {
            call: api.send(call[0], f"{space.path}/{call[1]}", {} if call[0] == "POST" else None)[0]
            for call in calls
        }
        assert {call: status for call, status in statuses.items() if status == 403} == {}
        assert api.send("GET", f"{space.batch}/jobs")[0] == 403


JOBS_ARE_PODS = {
    "github": [
        ("POST", "pods"),
        ("GET", "pods"),
        ("GET", "pods/a"),
        ("DELETE", "pods/a"),
        ("GET", "pods/a/exec"),
        ("GET", "pods/a/log"),
        ("POST", "secrets"),
        ("GET", "secrets"),
        ("DELETE", "secrets/a"),
    ],
    "gitlab": [
        ("POST", "pods"),
        ("GET", "pods/a"),
        ("DELETE", "pods/a"),
        ("POST", "pods/a/exec"),
        ("POST", "pods/a/attach"),
        ("GET", "pods/a/log"),
        ("POST", "secrets"),
        ("PUT", "secrets/a"),
        ("GET", "secrets/a"),
        ("DELETE", "secrets/a"),
        ("GET", "serviceaccounts/default"),
        ("GET", "services/a"),
        ("POST", "services"),
        ("GET", "events"),
    ],
}


# --- calls that the launcher relies on


def test_what_is_deleted_is_what_was_meant(space: Space) -> None:
    cluster = Launcher(space).cluster
    body = {"kind": "Secret", "apiVersion": "v1", "metadata": {"name": "a"}}
    there = cluster.create("secrets", body)
    with pytest.raises(Refused) as caught:
        cluster.create("secrets", body)
    assert (caught.value.status, caught.value.reason) == (409, "AlreadyExists")
    assert cluster.delete("secrets", "a", str(uuid.uuid4())) is False
    assert cluster.there("secrets", "a")
    assert cluster.delete("secrets", "a", there["metadata"]["uid"]) is True
    assert cluster.delete("secrets", "a", there["metadata"]["uid"]) is False
    assert cluster.there("secrets", "a") is None


def test_a_stream_ends_at_its_time_and_has_what_changed(space: Space) -> None:
    cluster = Launcher(space).cluster
    listed = cluster.get("secrets", labelSelector="a=b")
    meta = {"name": "a", "labels": {"a": "b"}}
    there = cluster.create("secrets", {"kind": "Secret", "apiVersion": "v1", "metadata": meta})
    cluster.create("secrets", {"kind": "Secret", "apiVersion": "v1", "metadata": {"name": "c"}})
    cluster.delete("secrets", "a", there["metadata"]["uid"])
    began = time.monotonic()
    events = list(
        cluster.watch(
            "secrets",
            2,
            labelSelector="a=b",
            resourceVersion=listed["metadata"]["resourceVersion"],
        )
    )
    assert 1 < time.monotonic() - began < 10
    assert [(one["type"], one["object"]["metadata"]["name"]) for one in events] == [
        ("ADDED", "a"),
        ("DELETED", "a"),
    ]
