"""The printed role is what the provider really asks for: every call recorded in the words of
RBAC, both ways."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from runner_action import cli
from runner_action.model import ForgeName
from runner_action.providers.kubernetes.policy import LAUNCHER, runners
from runner_action.sandbox.kubernetes.api import FakeKubernetes
from tests.contracts.test_kubernetes import QUOTA, Side, cluster, machine, provider, until

__all__ = ["cluster"]


def words(rules: Any) -> set[str]:
    return {
        f"{verb} {'/'.join(filter(None, key))}" for key, verbs in rules.items() for verb in verbs
    }


def test_the_recorded_calls_are_the_role(cluster: FakeKubernetes) -> None:
    side = Side(cluster, provider(cluster))
    made = side.many(
        20, "--cloud-gpu=nvidia.com/gpu"
    )  # not all of which find a node, so that watch, events and deletion of pods are needed
    until(lambda: side.provider.console(side.provider.look(made.instances[0])), "a log")
    again = side.provider.create(
        side.ladder("--cloud-gpu=nvidia.com/gpu")[0], machine(), 20
    )  # which finds what is there
    side.provider.settle(again.instances)
    cluster.refuse_pods(QUOTA, after=1)
    cloud = side.request(patience=20)
    side.provider.create(
        side.provider.resolve(side.provider.plan(cloud), cloud)[0], machine("cml-2"), 2
    )
    side.provider.destroy("cml-2")
    side.provider.destroy("cml-1")
    assert side.provider.find({}) == []
    assert set(cluster.asked) == words(LAUNCHER)


def printed(capsys: pytest.CaptureFixture[str], *argv: str) -> list[dict[str, Any]]:
    assert cli.main(["permissions", "kubernetes", *argv], {}) == 0
    return list(yaml.safe_load_all(capsys.readouterr().out))


def test_the_command_prints_a_role_and_its_binding(capsys: pytest.CaptureFixture[str]) -> None:
    role, binding = printed(capsys, "--cloud-kubernetes-namespace=runners")
    assert (role["kind"], role["metadata"]) == (
        "Role",
        {"name": "cml-runner", "namespace": "runners"},
    )
    assert {
        f"{verb} {'/'.join(filter(None, (rule['apiGroups'][0], rule['resources'][0])))}"
        for rule in role["rules"]
        for verb in rule["verbs"]
    } == words(LAUNCHER)
    assert binding["subjects"] == [
        {"kind": "ServiceAccount", "name": "cml-runner", "namespace": "runners"}
    ]
    assert binding["roleRef"]["name"] == "cml-runner"
    assert not any(
        "*" in verb for rule in role["rules"] for verb in (*rule["verbs"], *rule["resources"])
    )


@pytest.mark.parametrize("forge", ["github", "gitlab"])
def test_jobs_that_are_pods_have_a_role_of_their_own(
    capsys: pytest.CaptureFixture[str], forge: str
) -> None:
    argv = [
        f"--driver={forge}",
        "--cloud-kubernetes-containers=kubernetes",
        "--cloud-permission-set=jobs",
    ]
    found = printed(capsys, *argv)
    assert [one["metadata"]["name"] for one in found] == [
        "cml-runner",
        "cml-runner",
        "cml-runner-jobs",
        "cml-runner-jobs",
    ]
    assert found[3]["subjects"][0]["name"] == "jobs"
    assert len(found[2]["rules"]) == len(runners(ForgeName(forge)))
