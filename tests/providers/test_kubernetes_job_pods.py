"""Where each job is a pod of its own: what that is given, and what is left for the runner."""

from __future__ import annotations

import json
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

from runner_action.agent import gitlab, pod
from runner_action.model import Identity, Machine
from runner_action.providers.kubernetes import job_pods, ladder, plan, requests, table
from runner_action.request import CloudRequest
from tests.agent.test_spec import SPEC
from tests.providers.test_kubernetes_plan import cloud_of

MACHINE = Machine(identity=Identity(name="cml-1", key="k"), user_data=b"", tags={}, lifetime=0)


def asked(*argv: str) -> CloudRequest:
    return cloud_of(
        "--cloud-kubernetes-containers=kubernetes", "--cloud-permission-set=jobs", *argv
    )


def made(*argv: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The runner's pod, and the template for the pods of jobs, as the cluster shows it to it."""
    cloud = asked(*argv)
    placement = ladder.placements(plan.plan(cloud), cloud)[0]
    runner = requests.job(placement, MACHINE, 1)["spec"]["template"]
    (volume,) = [one for one in runner["spec"]["volumes"] if "downwardAPI" in one]
    (item,) = volume["downwardAPI"]["items"]
    field = item["fieldRef"]["fieldPath"]
    assert field == f"metadata.annotations['{job_pods.ANNOTATION}']"
    return runner, json.loads(runner["metadata"]["annotations"][job_pods.ANNOTATION])


def test_a_gpu_is_for_the_jobs_and_not_for_the_runner() -> None:
    runner, jobs = made("--cloud-gpu=t4", "--cloud-spot")
    (container,) = runner["spec"]["containers"]
    assert container["resources"]["requests"]["cpu"] == "100m"
    assert "nvidia.com/gpu" not in json.dumps([container, runner["spec"]["tolerations"]])
    assert "affinity" not in runner["spec"], "it is not on a spot node either"
    assert "CML_RUNNER_GPU" not in json.dumps(container["env"])
    (job,) = jobs["spec"]["containers"]
    assert job["name"] == "$job"
    assert job["resources"]["limits"] == {
        "cpu": "4",
        "memory": "16384Mi",
        "ephemeral-storage": "35G",
        "nvidia.com/gpu": "1",
    }
    text = json.dumps(jobs["spec"]["affinity"])
    assert "nvidia-tesla-t4" in text
    assert "gke-spot" in text
    assert {one["key"] for one in jobs["spec"]["tolerations"]} >= {"nvidia.com/gpu"}
    assert jobs["metadata"]["annotations"]["karpenter.sh/do-not-disrupt"] == "true"


def test_no_mesh_adds_a_container_to_a_job() -> None:
    """Which would keep its pod after the job has ended, and block its network before."""
    metadata = made()[1]["metadata"]
    assert metadata["labels"] == table.NOT_INJECTED["labels"]
    assert table.NOT_INJECTED["annotations"].items() <= metadata["annotations"].items()


def test_the_users_nodes_are_for_both() -> None:
    runner, jobs = made("--cloud-kubernetes-node-selector=pool=ci")
    assert runner["spec"]["nodeSelector"]["pool"] == jobs["spec"]["nodeSelector"]["pool"] == "ci"


def test_the_hooks_find_the_template_where_it_is_mounted() -> None:
    (container,) = made()[0]["spec"]["containers"]
    variables = {one["name"]: one.get("value") for one in container["env"]}
    folder, _, name = str(variables["ACTIONS_RUNNER_CONTAINER_HOOK_TEMPLATE"]).rpartition("/")
    (mount,) = [one for one in container["volumeMounts"] if one["name"] == "jobs"]
    assert mount == {"name": "jobs", "mountPath": folder, "readOnly": True}
    assert name == "template.json"
    assert variables["ACTIONS_RUNNER_PREPARE_JOB_TIMEOUT_SECONDS"] == "900"


def test_gitlab_runner_is_told_the_same(tmp_path: Path) -> None:
    _, jobs = made("--cloud-gpu=t4:2")
    (tmp_path / "template.json").write_text(json.dumps(jobs))
    (tmp_path / "runner").mkdir()
    environ = {
        "PATH": str(tmp_path),
        "CML_RUNNER_NAMESPACE": "ci",
        pod.JOB_TEMPLATE: str(tmp_path / "template.json"),
        pod.POD_SECONDS: "900",
    }
    spec = replace(SPEC, forge="gitlab", runner_token="canary")
    kind: Any = type("Forge", (pod.JobPods, gitlab.Forge), {})
    member = kind(spec, tmp_path / "runner", environ, {})
    member.environment(tmp_path, tmp_path)
    (runner,) = tomllib.loads((tmp_path / "runner/config.toml").read_text())["runners"]
    assert runner["feature_flags"] == {"FF_USE_ADVANCED_POD_SPEC_CONFIGURATION": True}
    assert (runner["executor"], runner["kubernetes"]["poll_timeout"]) == ("kubernetes", 900)
    assert runner["kubernetes"]["pod_annotations"] == jobs["metadata"]["annotations"]
    assert runner["kubernetes"]["pod_annotations"]["karpenter.sh/do-not-disrupt"] == "true"
    assert runner["kubernetes"]["pod_labels"] == jobs["metadata"]["labels"]
    (patch,) = runner["kubernetes"]["pod_spec"]
    assert patch["patch_type"] == "strategic"
    told = json.loads(patch["patch"])
    (build,) = told["containers"]
    assert (build["name"], build["resources"]["limits"]["nvidia.com/gpu"]) == ("build", "2")
    assert told["affinity"] == jobs["spec"]["affinity"]


def test_a_claim_is_the_jobs_too() -> None:
    runner, jobs = made("--cloud-gpu=resourceclaimtemplate/one-gpu")
    assert "resourceClaims" not in runner["spec"]
    (job,) = jobs["spec"]["containers"]
    assert job["resources"]["claims"] == [{"name": "gpu"}]
    assert jobs["spec"]["resourceClaims"] == [
        {"name": "gpu", "resourceClaimTemplateName": "one-gpu"}
    ]
