"""No input is ignored in silence: where nothing reads it, by where the runner runs and what it is a
runner of, it is refused."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from runner_action import inputs
from runner_action.errors import InputError

SCHEMA = inputs.schema()
HERE = ""
CLOUDS = (HERE, "local", "aws", "azure", "gcp", "kubernetes")
MACHINES = ("aws", "azure", "gcp")
FORGES = ("github", "gitlab")
GROUP = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/g"
SUBNET = f"{GROUP}/providers/Microsoft.Network/virtualNetworks/v/subnets/s"
KEYS = f"{GROUP}/providers/Microsoft.Compute/diskEncryptionSets/d"
ALWAYS = [
    "command",
    "labels",
    "name",
    "idle-timeout",
    "first-job-timeout",
    "max-lifetime",
    "start-timeout",
    "single",
    "reuse",
    "reuse-idle",
    "no-retry",
    "restart-limit",
    "checkpoint-script",
    "https-proxy",
    "no-proxy",
    "ca-certificates",
    "dry-run",
    "log",
    "driver",
    "repo",
    "token",
    "restart-token",
    "allow-forks",
    "allow-http",
    "runner-version",
]
"""Read in every combination."""
AMBIENT = [
    "run-id",
    "gcp-project",
    "gcp-credentials",
    "azure-client-id",
    "azure-tenant-id",
    "azure-subscription-id",
    "kubernetes-configuration",
    "app-id",
    "app-private-key",
    "agent-downloads",
]
"""Credentials, ids and mirrors, which a job's environment may hold for several launches."""
Reads = Callable[[str, str], bool]


def machine(cloud: str, forge: str) -> bool:
    return cloud in MACHINES


def launched(cloud: str, forge: str) -> bool:
    return cloud not in (HERE, "local")


def github(cloud: str, forge: str) -> bool:
    return forge == "github"


def gitlab(cloud: str, forge: str) -> bool:
    return forge == "gitlab"


def gitlab_docker(cloud: str, forge: str) -> bool:
    """A pod has Docker only with `cloud-kubernetes-containers: docker`."""
    return forge == "gitlab" and cloud != "kubernetes"


def of(name: str) -> Reads:
    return lambda cloud, forge: cloud == name


READ: dict[str, tuple[Reads, list[str]]] = {
    "count": (launched, ["--count=2"]),
    "job-sudo": (launched, ["--job-sudo=false"]),
    "docker": (machine, ["--docker=none"]),
    "docker-privileged": (gitlab_docker, ["--docker-privileged"]),
    "docker-volumes": (gitlab_docker, ["--docker-volumes=/a:/b"]),
    "gitlab-access-level": (gitlab, ["--gitlab-access-level=ref_protected"]),
    "gitlab-executor": (gitlab_docker, ["--gitlab-executor=docker"]),
    "keep-workspace": (github, ["--keep-workspace"]),
    "runner-group": (github, ["--runner-group=gpu"]),
    "no-default-labels": (github, ["--no-default-labels"]),
    "runner-downloads": (gitlab, ["--runner-downloads=https://mirror.example/runner"]),
    "cloud": (launched, []),
    "cloud-region": (launched, ["--cloud-region=us-west"]),
    "cloud-type": (launched, ["--cloud-type=l"]),
    "cloud-gpu": (launched, ["--cloud-gpu=t4"]),
    "cloud-hdd-size": (launched, ["--cloud-hdd-size=50"]),
    "cloud-spot": (launched, ["--cloud-spot"]),
    "cloud-spot-price": (machine, ["--cloud-spot", "--cloud-spot-price=0.5"]),
    "cloud-image": (launched, ["--cloud-image=ami-0123456789abcdef0"]),
    "cloud-permission-set": (
        launched,
        ["--cloud-permission-set=arn:aws:iam::123456789012:instance-profile/jobs"],
    ),
    "cloud-metadata": (launched, ["--cloud-metadata=team=vision"]),
    "cloud-startup-script": (launched, ["--cloud-startup-script=#!/bin/sh"]),
    "cloud-ssh-private": (machine, []),
    "cloud-aws-security-group": (of("aws"), ["--cloud-aws-security-group=sg-0123456789abcdef0"]),
    "cloud-aws-subnet": (of("aws"), ["--cloud-aws-subnet=subnet-0123456789abcdef0"]),
    "cloud-aws-kms-key": (of("aws"), ["--cloud-aws-kms-key=alias/jobs"]),
    "cloud-aws-hdd-iops": (of("aws"), ["--cloud-aws-hdd-iops=4000"]),
    "cloud-aws-hdd-throughput": (of("aws"), ["--cloud-aws-hdd-throughput=500"]),
    "cloud-gcp-network": (of("gcp"), ["--cloud-gcp-network=jobs"]),
    "cloud-gcp-subnetwork": (of("gcp"), ["--cloud-gcp-subnetwork=jobs"]),
    "cloud-gcp-private": (of("gcp"), ["--cloud-gcp-private"]),
    "cloud-gcp-kms-key": (
        of("gcp"),
        ["--cloud-gcp-kms-key=projects/p/locations/global/keyRings/r/cryptoKeys/k"],
    ),
    "cloud-azure-subnet": (
        of("azure"),
        [f"--cloud-azure-subnet={SUBNET}"],
    ),
    "cloud-azure-private": (
        of("azure"),
        ["--cloud-azure-private", f"--cloud-azure-subnet={SUBNET}"],
    ),
    "cloud-azure-disk-encryption-set": (
        of("azure"),
        [f"--cloud-azure-disk-encryption-set={KEYS}"],
    ),
    "cloud-kubernetes-node-selector": (
        of("kubernetes"),
        ["--cloud-kubernetes-node-selector=pool=gpu"],
    ),
    "cloud-kubernetes-tolerations": (of("kubernetes"), ["--cloud-kubernetes-tolerations=gpu"]),
    "cloud-kubernetes-context": (of("kubernetes"), ["--cloud-kubernetes-context=jobs"]),
    "cloud-kubernetes-namespace": (of("kubernetes"), ["--cloud-kubernetes-namespace=jobs"]),
    "cloud-kubernetes-pod-template": (
        of("kubernetes"),
        ["--cloud-kubernetes-pod-template=spec: {}"],
    ),
    "cloud-kubernetes-containers": (of("kubernetes"), ["--cloud-kubernetes-containers=docker"]),
    "cloud-kubernetes-schedule-timeout": (
        of("kubernetes"),
        ["--cloud-kubernetes-schedule-timeout=60"],
    ),
    "cloud-kubernetes-queue": (of("kubernetes"), ["--cloud-kubernetes-queue=gpus"]),
}
"""Where an input is read, and the flags that give it."""


def test_of_every_input_it_is_known_where_it_is_read() -> None:
    assert {*ALWAYS, *AMBIENT, *READ} == {*SCHEMA["properties"]}


def refused(words: list[str]) -> str:
    flags = {
        key: [value or "true"] for key, _, value in (word[2:].partition("=") for word in words)
    }
    try:
        inputs.parse(inputs.Raw(flags=flags, environ={}), lambda path: None)
    except InputError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("name", [name for name, (_, flags) in READ.items() if flags])
def test_an_input_that_nothing_reads_is_refused(name: str) -> None:
    reads, flags = READ[name]
    for cloud, forge in itertools.product(CLOUDS, FORGES):
        usual = [f"--repo=https://{forge}.com/octo/train", "--token=canary", "--labels=cml"]
        words = [*usual, *([f"--cloud={cloud}"] if cloud else []), *flags]
        problem = refused(words)
        assert bool(problem) is not reads(cloud, forge), (cloud or "here", forge, problem)
        assert not problem or any(word.partition("=")[0] in problem for word in flags)
