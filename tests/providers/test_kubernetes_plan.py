"""The user's words in a cluster: sizes, refusals, the strategic merge, golden plans and
manifests. No network; every manifest is held to the schemas of the three newest minor versions,
and to kubectl's own eyes where kubectl is."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import zipfile
from typing import Any

import kubernetes_validate
import pytest

from runner_action import bootstrap
from runner_action.agent.spec import AgentSpec
from runner_action.bootstrap import fitting
from runner_action.errors import InputError
from runner_action.model import Download, Identity, Machine, Place, Registration, Secret
from runner_action.providers.kubernetes import ladder, merge, plan, requests
from runner_action.request import CloudRequest, LaunchRequest
from runner_action.sandbox.world import POD_IMAGE
from tests import goldens
from tests.contracts.kubectl import MISSING as KUBECTL_MISSING
from tests.contracts.kubectl import Kubectl
from tests.contracts.kubectl import there as kubectl_is_there
from tests.descriptions import described
from tests.judges import missing
from tests.test_launch import request

VERSIONS = ("1.35.0", "1.36.0", "1.37.0")
TAGS = {
    "Name": "cml-1",
    "cml-runner": "runner",
    "cml-runner:name": "cml-1",
    "cml-runner:launch": "0123456789abcdef",
    "cml-runner:repository": "https://github.com/octo/train",
    "cml-runner:run": "octo/train run 1",
    "cml-runner:expiry": "2026-11-25T01:26:40Z",
}


def cloud_of(*argv: str) -> CloudRequest:
    cloud = asked_for(*argv).cloud
    assert cloud
    return cloud


def asked_for(*argv: str) -> LaunchRequest:
    image = (
        []
        if any(word.startswith("--cloud-image=") for word in argv)
        else [f"--cloud-image={POD_IMAGE}"]
    )
    return request("--cloud=kubernetes", *image, *argv)


@pytest.mark.parametrize(
    ("argv", "size"),
    [
        ([], "8 CPU, 32 GiB"),
        (["--cloud-type=s"], "1 CPU, 1 GiB"),
        (["--cloud-type=xl"], "64 CPU, 256 GiB"),
        (["--cloud-type=4-16384"], "4 CPU, 16 GiB"),
        (["--cloud-type=0.5-512"], "0.5 CPU, 0.5 GiB"),
        (["--cloud-type=m+t4"], "4 CPU, 16 GiB, 1 × t4"),
        (["--cloud-type=m", "--cloud-gpu=t4:2"], "8 CPU, 32 GiB, 2 × t4"),
        (["--cloud-type=l+a100"], "32 CPU, 128 GiB, 4 × a100"),
        (["--cloud-type=m+k80"], "4 CPU, 64 GiB, 1 × k80"),
        (["--cloud-type=xl+k80"], "64 CPU, 768 GiB, 16 × k80"),
        (["--cloud-type=m+v100"], "8 CPU, 64 GiB, 1 × v100"),
        (["--cloud-type=l", "--cloud-gpu=v100"], "32 CPU, 256 GiB, 4 × v100"),
        (["--cloud-gpu=tesla"], "8 CPU, 64 GiB, 1 × v100"),
        (
            ["--cloud-type=s", "--cloud-gpu=nvidia.com/mig-1g.5gb:2"],
            "1 CPU, 1 GiB, 2 × nvidia.com/mig-1g.5gb",
        ),
        (["--cloud-gpu=amd.com/gpu"], "8 CPU, 32 GiB, 1 × amd.com/gpu"),
        (["--cloud-type=4-16384+nvidia.com/gpu*2"], "4 CPU, 16 GiB, 2 × nvidia.com/gpu"),
        (["--cloud-type=4-16384+nvidia-tesla-v100*2"], "4 CPU, 16 GiB, 2 × v100"),
        (["--cloud-type=4-16384", "--cloud-gpu=t4:2"], "4 CPU, 16 GiB, 2 × t4"),
    ],
)
def test_sizes(argv: list[str], size: str) -> None:
    (word,) = plan.plan(cloud_of(*argv)).instance_types
    assert str(plan.size_of(word)) == size


def test_a_share_is_requested_and_the_whole_is_the_limit_but_of_exact_sizes() -> None:
    def resources(*argv: str) -> dict[str, Any]:
        cloud = cloud_of(*argv)
        return requests.resources(ladder.placements(plan.plan(cloud), cloud)[0])

    assert resources()["requests"] | {"ephemeral-storage": ""} == {
        "cpu": "1",
        "memory": "2048Mi",
        "ephemeral-storage": "",
    }, "fits small nodes"
    assert resources("--cloud-type=m") == {
        "requests": {"cpu": "6800m", "memory": "24576Mi", "ephemeral-storage": "8000M"},
        "limits": {"cpu": "8", "memory": "32768Mi", "ephemeral-storage": "35G"},
    }
    assert resources("--cloud-type=4-16384", "--cloud-hdd-size=200", "--cloud-gpu=amd.com/gpu") == {
        "requests": {
            "cpu": "4",
            "memory": "16384Mi",
            "ephemeral-storage": "170000M",
            "amd.com/gpu": "1",
        },
        "limits": {
            "cpu": "4",
            "memory": "16384Mi",
            "ephemeral-storage": "200G",
            "amd.com/gpu": "1",
        },
    }


def test_places_and_architecture() -> None:
    found = plan.plan(
        cloud_of(
            "--cloud-region=us-west,us-central1-a",
            "--cloud-kubernetes-node-selector=kubernetes.io/arch=arm64",
        )
    )
    assert found.places == (Place(region=""), Place(region="us-central1-a"))
    assert found.architecture == "arm64"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (
            ["--cloud-type=g5.xlarge"],
            r"cloud-type g5.xlarge is not a size for Kubernetes; write `shared`, `s`",
        ),
        (["--cloud-type=s+t4"], r"cloud-type s\+t4 is not a size for Kubernetes"),
        (
            ["--cloud-kubernetes-node-selector=kubernetes.io/arch=s390x"],
            "runners need amd64 or arm64",
        ),
        (["--cloud-kubernetes-node-selector=a/b/c=x"], "a/b/c=x is not a Kubernetes label"),
        (["--cloud-gpu=resourceclaimtemplate/one:2"], "leave the number out"),
        (["--cloud-metadata=a b=x"], "is not a Kubernetes label: a key has"),
        (["--cloud-permission-set=Some_One"], "is not a service account"),
        (["--cloud-kubernetes-containers=kubernetes"], "cml-runner permissions kubernetes"),
        (["--cloud-kubernetes-pod-template=spec: [a"], "is not YAML: .* in line"),
        (["--cloud-kubernetes-pod-template=a: b"], "has a; only `metadata` and `spec`"),
        (
            ["--cloud-kubernetes-pod-template=spec: {containers: [{image: x}]}"],
            "each container and volume must have a `name`",
        ),
        (["--cloud-kubernetes-pod-template=spec: [a]"], "`metadata` and `spec` must be mappings"),
    ],
)
def test_what_a_cluster_cannot_do_is_refused_with_what_it_can(
    argv: list[str], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        plan.plan(cloud_of(*argv))


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--cloud-spot", "--cloud-spot-price=1"], "the node pool has a price"),
        (["--cloud-kubernetes-tolerations=a=b:Never"], "must be taints such as"),
        (["--cloud-kubernetes-containers=podman"], "`none` or `docker` or `kubernetes`"),
        (["--cloud-kubernetes-schedule-timeout=1s"], "must be a duration from 5 seconds"),
        (["--cloud-kubernetes-namespace=Ours"], "must be the name of a namespace"),
    ],
)
def test_what_the_schema_refuses(argv: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        request("--cloud=kubernetes", *argv)


@pytest.mark.parametrize(
    "argv",
    [
        ["--cloud-gpu=nvidia.com/gpu"],
        ["--cloud-kubernetes-context=a"],
        ["--cloud-kubernetes-containers=docker"],
    ],
)
def test_words_of_kubernetes_are_refused_on_other_clouds(argv: list[str]) -> None:
    with pytest.raises(InputError, match=argv[0].partition("=")[0]):
        request("--cloud=aws", *argv)


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(InputError) as caught:
        plan.plan(
            cloud_of(
                "--cloud-type=x",
                "--cloud-metadata=a b=x",
                "--cloud-permission-set=Some_One",
                "--cloud-kubernetes-pod-template=a: b",
            )
        )
    assert len(caught.value.problems) == 4


# --- the strategic merge


@pytest.mark.parametrize(
    ("base", "patch", "wanted"),
    [
        ({"a": 1, "b": {"c": 2, "d": 3}}, {"b": {"c": 4}}, {"a": 1, "b": {"c": 4, "d": 3}}),
        ({"a": 1, "b": 2}, {"a": None}, {"b": 2}),
        ({"a": [1]}, {"a": [2]}, {"a": [2]}),
        ({"a": {"x": 1}}, {"a": {"$patch": "replace", "y": 2}}, {"a": {"y": 2}}),
        (
            {"env": [{"name": "A", "value": "1"}]},
            {"env": [{"name": "A", "value": "2"}, {"name": "B"}]},
            {"env": [{"name": "A", "value": "2"}, {"name": "B"}]},
        ),
        (
            {"volumes": [{"name": "a"}, {"name": "b"}]},
            {"volumes": [{"name": "a", "$patch": "delete"}]},
            {"volumes": [{"name": "b"}]},
        ),
        (
            {"volumeMounts": [{"mountPath": "/a", "name": "x"}]},
            {"volumeMounts": [{"mountPath": "/a", "name": "y"}]},
            {"volumeMounts": [{"mountPath": "/a", "name": "y"}]},
        ),
        (
            {"tolerations": [{"key": "a"}]},
            {"tolerations": [{"key": "b"}, {"key": "a"}]},
            {"tolerations": [{"key": "a"}, {"key": "b"}]},
        ),
        (
            {"containers": [{"name": "r", "image": "x"}]},
            {"containers": [{"$patch": "replace"}, {"name": "o"}]},
            {"containers": [{"name": "o"}]},
        ),
        ({}, {"a": {"b": None, "c": 1}}, {"a": {"c": 1}}),
    ],
)
def test_a_strategic_merge(
    base: dict[str, Any], patch: dict[str, Any], wanted: dict[str, Any]
) -> None:
    before = json.dumps([base, patch])
    assert merge.merged(base, patch) == wanted
    assert json.dumps([base, patch]) == before


def test_lists_are_merged_by_the_keys_of_the_description() -> None:
    definitions = described("kubernetes-1.36-swagger.json")["definitions"]
    told: dict[str, str] = {}
    todo, seen = ["io.k8s.api.core.v1.PodTemplateSpec"], set()
    while todo:
        name = todo.pop()
        for field, schema in (
            definitions[name].get("properties", {}).items() if name not in seen else ()
        ):
            if schema.get("x-kubernetes-patch-merge-key") and "ObjectMeta" not in name:
                told[field] = schema["x-kubernetes-patch-merge-key"]
            reference = schema.get("$ref") or (schema.get("items") or {}).get("$ref")
            todo += [reference.rpartition("/")[2]] if reference else []
        seen.add(name)
    assert {field: key for field, key in told.items() if merge.KEYS.get(field) != key} == {}


# --- golden plans and manifests


TEMPLATE = """
metadata: {labels: {team: vision, cml-runner/launch: mine}, annotations: {a: b}}
spec:
  priorityClassName: batch
  tolerations: [{key: dedicated, operator: Exists}]
  containers:
  - name: runner
    env: [{name: HF_HOME, value: /cache}]
    resources: {limits: {rdma/hca: 1}}
    volumeMounts: [{name: cache, mountPath: /cache}]
  - {name: beside, image: redis}
  volumes: [{name: cache, persistentVolumeClaim: {claimName: models}}]
"""
SCRIPT = base64.b64encode(b"#!/bin/sh\necho '$HOME'\n").decode()
REQUESTS: dict[str, list[str]] = {
    "default": [],
    "small": ["--cloud-type=s"],
    "native": ["--cloud-type=4-16384"],
    "half a processor": ["--cloud-type=0.5-512"],
    "several sizes": ["--cloud-type=l,m"],
    "zones": ["--cloud-region=us-central1-a,us-central1-b"],
    "spot": ["--cloud-spot"],
    "spot, then any": ["--cloud-spot=prefer"],
    "spot gpu in a zone": ["--cloud-spot", "--cloud-gpu=t4", "--cloud-region=us-central1-a"],
    "gpu": ["--cloud-type=m+t4"],
    "gpus by number": ["--cloud-gpu=l4:4"],
    "gpus by resource": ["--cloud-gpu=nvidia.com/gpu:2"],
    "a slice": ["--cloud-type=s", "--cloud-gpu=nvidia.com/mig-1g.5gb"],
    "another maker": ["--cloud-gpu=amd.com/gpu:2", "--cloud-image=ghcr.io/octo/rocm:1"],
    "accelerator=infer": ["--cloud-gpu=v100", "--cloud-kubernetes-node-selector=accelerator=infer"],
    "accelerator=infer without": ["--cloud-kubernetes-node-selector=accelerator=infer"],
    "another infer": [
        "--cloud-gpu=a100",
        "--cloud-kubernetes-node-selector=nvidia.com/gpu.product=infer",
    ],
    "nodes": [
        "--cloud-kubernetes-node-selector=pool=ci,disk=ssd",
        "--cloud-kubernetes-tolerations=dedicated=ci:NoSchedule,gpu:NoExecute,any",
    ],
    "arm64": ["--cloud-kubernetes-node-selector=kubernetes.io/arch=arm64"],
    "service account": ["--cloud-permission-set=trainer"],
    "docker": ["--cloud-kubernetes-containers=docker"],
    "pods": ["--cloud-kubernetes-containers=kubernetes", "--cloud-permission-set=jobs"],
    "template": [f"--cloud-kubernetes-pod-template={TEMPLATE}"],
    "metadata": ["--cloud-metadata=team=vision", "--cloud-metadata=note=a sentence, with words"],
    "disk": ["--cloud-hdd-size=500"],
    "short life": ["--max-lifetime=2h", "--start-timeout=5m"],
    "many": ["--count=20"],
    "scripts": [f"--cloud-startup-script={SCRIPT}", f"--checkpoint-script={SCRIPT}"],
}


def made(argv: list[str]) -> tuple[list[dict[str, Any]], dict[str, Any], dict[str, str]]:
    """Jobs, the Secret, and what is in it."""
    asked = asked_for(*argv)
    assert asked.cloud
    name = "cml-1" if asked.count == 1 else f"cml-1-{bootstrap.INSTANCE}"
    download = Download(url="https://forge.test/runner.tar.gz", sha256="0" * 64, version="2")
    spec: AgentSpec = bootstrap.spec_of(
        asked,
        name,
        Registration(token=Secret("canary-registration")),
        download,
        "https://api.github.com",
        None,
    )
    data = fitting.user_data(spec, asked, 1_000_000)
    lifetime = (asked.max_lifetime or 0) + asked.start_timeout
    machine = Machine(
        identity=Identity(name="cml-1", key="k"),
        user_data=b"the agent",
        tags={**asked.cloud.metadata, **TAGS},
        lifetime=lifetime,
    )
    jobs = [
        requests.job(one, machine, asked.count)
        for one in ladder.placements(plan.plan(asked.cloud), asked.cloud)
    ]
    secret = requests.secret({"metadata": {"name": "cml-1-0", "uid": "u"}}, machine)
    with zipfile.ZipFile(io.BytesIO(data)) as packed:
        files = {
            name: packed.read(name).decode()
            for name in packed.namelist()
            if not name.startswith("agent/")
        }
    return jobs, secret, files


def test_golden_plans_and_manifests() -> None:
    """Word for word."""
    told = {}
    for name, argv in REQUESTS.items():
        jobs, secret, files = made(argv)
        told[name] = {
            "asked": argv,
            "plan": dataclasses.asdict(plan.plan(cloud_of(*argv))),
            "jobs": jobs,
            "secret": secret,
            "files": files,
        }
    goldens.check(goldens.ROOT / "kubernetes", told)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_manifest_is_valid_for_the_newest_versions(version: str) -> None:
    for argv in REQUESTS.values():
        jobs, secret, _ = made(argv)
        for manifest in (*jobs, secret):
            kubernetes_validate.validate(manifest, version, strict=True)


def test_kubectl_takes_every_manifest() -> None:
    if not kubectl_is_there():
        missing(KUBECTL_MISSING)
    with Kubectl() as kubectl:
        for argv in REQUESTS.values():
            jobs, secret, _ = made(argv)
            assert [
                said for manifest in (*jobs, secret) if (said := kubectl.validate(manifest))
            ] == []


def test_a_wrong_manifest_would_be_found() -> None:
    (job,), _, _ = made([])
    job["spec"]["template"]["spec"]["restartPolicyy"] = "Never"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(job, VERSIONS[0], strict=True)


def test_a_pod_passes_the_restricted_standard() -> None:
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted"""
    for argv in (argv for name, argv in REQUESTS.items() if name not in ("docker", "template")):
        for job in made(argv)[0]:
            pod = job["spec"]["template"]["spec"]
            assert pod["securityContext"]["runAsNonRoot"] is True
            assert pod["securityContext"]["runAsUser"] > 0
            assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
            for container in (*pod["initContainers"], *pod["containers"]):
                assert {**container["securityContext"], "runAsUser": 1} == {
                    **requests.RESTRICTED,
                    "runAsUser": 1,
                }
                assert container["securityContext"].get("runAsUser", 1) > 0
            assert {kind for volume in pod["volumes"] for kind in volume} <= {
                "name",
                "downwardAPI",
                "emptyDir",
                "secret",
            }


def test_no_secret_is_in_a_job_and_ours_are_the_labels() -> None:
    (job,), secret, files = made(REQUESTS["template"])
    assert "canary" not in json.dumps(job)
    assert "canary-registration" in files["spec.json"]
    labels = job["spec"]["template"]["metadata"]["labels"]
    assert (labels["team"], labels["cml-runner/launch"]) == ("vision", "0123456789abcdef")
    assert secret["metadata"]["ownerReferences"][0]["uid"] == "u"


MAY_WRITE = {
    "hand-over": {"program", "told"},
    "guard": {"end", "told", "guard"},
    "runner": {"home", "docker", "cache"},
    "docker": {"home", "docker", "docker-data"},
}
"""`cache` is the user's own, of a template."""


def test_what_runs_beside_a_job_has_no_secret_mounted_and_nothing_that_a_job_can_write() -> None:
    """The kubelet keeps a Secret's mount for as long as the pod lives: so only what has ended by
    then may have it."""
    for argv in REQUESTS.values():
        for job in made(argv)[0]:
            pod = job["spec"]["template"]["spec"]
            secrets = {volume["name"] for volume in pod["volumes"] if "secret" in volume}
            containers = {one["name"]: one for one in (*pod["initContainers"], *pod["containers"])}
            mounts = {
                name: {mount["name"]: mount for mount in one.get("volumeMounts", ())}
                for name, one in containers.items()
            }
            lasting = {
                name
                for name, one in containers.items()
                if one in pod["containers"] or one.get("restartPolicy") == "Always"
            }
            assert secrets == {"bundle"}
            assert set(containers) - lasting == {"hand-over"}
            assert pod["initContainers"][0]["name"] == "hand-over", (
                "it has ended before any other begins"
            )
            assert not any(secrets & set(mounts[name]) for name in lasting)
            writes = {
                name: {
                    volume
                    for volume, one in has.items()
                    if not one.get("readOnly") and volume not in secrets
                }
                for name, has in mounts.items()
            }
            assert all(writes[name] <= MAY_WRITE.get(name, set()) for name in writes), writes
            assert not writes["guard"] & set(mounts["runner"]) - {"guard"}
            assert not set(mounts["guard"]) & (writes["runner"] | writes.get("docker", set())), (
                "of the guard a job can write nothing"
            )
            assert pod["shareProcessNamespace"] is False
            assert {
                one["securityContext"]["runAsUser"]
                for one in (containers["hand-over"], containers["guard"])
            } == {requests.GUARD_USER}
            assert pod["securityContext"]["runAsUser"] != requests.GUARD_USER


def test_the_program_runs_from_where_nothing_can_be_put_beside_it() -> None:
    """`-I`: no folder of its own, no variable, no user's packages; `-S`: none of others."""
    (job,), _, _ = made([])
    pod = job["spec"]["template"]["spec"]
    (runner,) = pod["containers"]
    commands = [one["command"] for one in (*pod["initContainers"], runner)] + [
        runner["livenessProbe"]["exec"]["command"]
    ]
    assert all(command[:2] == ["python3", "-IS"] for command in commands)
    assert [command[2] for command in commands] == [
        f"{requests.BUNDLE}/agent.pyz",
        *[f"{requests.PROGRAM}/agent.pyz"] * 3,
    ]
    assert requests.PROGRAM == bootstrap.POD_PROGRAM


def test_the_longest_names_fit() -> None:
    """Labels and host names of pods have 63 characters at most: the Job's name, a hyphen and an
    index of three digits."""
    cloud = cloud_of()
    machine = Machine(identity=Identity(name="n" * 50, key="k"), user_data=b"", tags={})
    assert (
        len(f"{requests.job_name(ladder.placements(plan.plan(cloud), cloud)[0], machine)}-199")
        <= 63
    )
