"""Who may do what at a real API server: the printed role, which a whole launch needs, and no more;
accounts that may nothing, or are gone."""

from __future__ import annotations

import time

import pytest
import yaml

from runner_action import cli
from runner_action.errors import CapacityError, ConfigurationError, CredentialsError, ProviderError
from runner_action.providers.kubernetes.policy import LAUNCHER
from tests.contracts.test_kubernetes import machine
from tests.real.apiserver import Api
from tests.real.cluster import Node, Space, until
from tests.real.launcher import Launcher


def by_the_printed_role(space: Space, capsys: pytest.CaptureFixture[str]) -> Launcher:
    argv = ["permissions", "kubernetes", f"--cloud-kubernetes-namespace={space.name}"]
    assert cli.main(argv, {}) == 0
    for document in yaml.safe_load_all(capsys.readouterr().out):
        space.add(document)
    return Launcher(space, "cml-runner")


def test_the_printed_role_is_enough_for_a_launch_and_no_verb_of_it_is_unused(
    working: Space, capsys: pytest.CaptureFixture[str]
) -> None:
    node = Node(working, room={"nvidia.com/gpu": "2"})
    try:
        launcher = by_the_printed_role(working, capsys)
        provider, gpu = launcher.provider, "--cloud-gpu=nvidia.com/gpu"
        made = launcher.create(gpu, count=3, patience=6).instances
        assert len(made) == 2
        launcher.create(gpu, count=2)  # which finds what is there
        assert len(provider.find({"cml-runner:name": "cml-1"})) == 2
        assert all(provider.look(one).alive for one in made)
        with pytest.raises(CapacityError):
            launcher.create(gpu, of=machine("cml-2"), patience=3)
        provider.settle(made)
        with pytest.raises(ProviderError, match="HTTP 50"):  # the node has no kubelet to ask
            provider.console(made[0])
        assert provider.destroy("cml-1") is True
        launcher.nothing_is_left()
        working.quota("pods", "1")
        assert len(launcher.create("--cloud-type=s", count=3).instances) == 1
    finally:
        node.close()
    if audit := working.server.asked_by(f"system:serviceaccount:{working.name}:cml-runner"):
        assert audit == {
            f"{verb} {'/'.join(filter(None, key))}"
            for key, verbs in LAUNCHER.items()
            for verb in verbs
        }


def test_the_role_allows_nothing_else(working: Space, capsys: pytest.CaptureFixture[str]) -> None:
    api = Api(by_the_printed_role(working, capsys).space.kubeconfig("cml-runner"))
    for method, path in (
        ("GET", f"{working.path}/secrets"),
        ("GET", f"{working.path}/configmaps"),
        ("POST", f"{working.path}/pods"),
        ("GET", f"{working.path}/pods/x/exec"),
        ("GET", "/api/v1/nodes"),
        ("GET", "/apis/batch/v1/jobs"),
        ("GET", "/api/v1/namespaces/kube-system/pods"),
    ):
        status, answer, _ = api.send(method, path, {} if method == "POST" else None)
        assert (status, answer["reason"]) == (403, "Forbidden"), path


# --- who may nothing


def test_an_account_without_a_role_is_told_what_prints_one(space: Space) -> None:
    launcher = Launcher(space, "nobody")
    with pytest.raises(CredentialsError, match=r"jobs\.batch is forbidden: User") as caught:
        launcher.ladder()
    assert f"system:serviceaccount:{space.name}:nobody" in str(caught.value)
    assert "cml-runner permissions kubernetes" in caught.value.hint


@pytest.mark.parametrize("missing", ["create batch/jobs", "create secrets", "watch pods"])
def test_a_missing_right_is_named_and_nothing_stays(
    working: Space, capsys: pytest.CaptureFixture[str], missing: str
) -> None:
    verb, _, resource = missing.partition(" ")
    plural = resource.rpartition("/")[2]
    launcher = by_the_printed_role(working, capsys)
    path = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{working.name}/roles/cml-runner"
    rules = working.admin.done("GET", path)["rules"]
    for rule in rules:
        if plural in rule["resources"]:
            rule["verbs"].remove(verb)
    working.admin.done("PATCH", path, {"rules": rules})
    time.sleep(1)  # until the authorizer has seen it
    with pytest.raises(CredentialsError, match=f"{plural}.* is forbidden.*cannot {verb}"):
        launcher.create("--cloud-gpu=amd.com/gpu", patience=3)
    launcher.nothing_is_left()


def test_an_account_that_is_gone_is_as_a_token_that_has_expired(space: Space) -> None:
    """Tokens are valid for ten minutes at least; the API server says no more of one than of the
    other."""
    launcher = Launcher(space, "leaver")
    space.admin.done("DELETE", f"{space.path}/serviceaccounts/leaver")
    until(lambda: refusal(launcher).startswith("The cluster refused"), "the refusal")
    with pytest.raises(CredentialsError, match="Unauthorized") as caught:
        launcher.ladder()
    assert "KUBERNETES_CONFIGURATION" in caught.value.hint


def refusal(launcher: Launcher) -> str:
    try:
        launcher.ladder()
    except CredentialsError as error:
        return str(error) if "Unauthorized" in str(error) else ""
    return ""


def test_a_namespace_that_is_not_there(space: Space) -> None:
    """A list of what is in it is empty; only a creation says so."""
    nowhere = Space(space.server, f"{space.name}-nowhere")
    with pytest.raises(ConfigurationError, match=f"{nowhere.name}.* not found") as caught:
        Launcher(nowhere).create()
    assert "cloud-kubernetes-namespace" in caught.value.hint
