"""Pods of a Job that a real API server refuses: quotas, limits, Pod Security, accounts; in its own
words, and as the launcher reports them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from runner_action.errors import ConfigurationError, ProviderError, QuotaError
from tests.real.cluster import Node, Space, end, until
from tests.real.launcher import Launcher


def limit(space: Space, **limits: Any) -> None:
    body = {"kind": "LimitRange", "apiVersion": "v1", "metadata": {"name": "sizes"}}
    space.add({**body, "spec": {"limits": [limits]}})


def restricted(space: Space) -> None:
    space.label(enforce="restricted")


REFUSALS: dict[str, tuple[Callable[[Space], None], list[str], type[ProviderError], str, str]] = {
    "quota": (
        lambda space: space.quota("requests.cpu", "1"),
        [],
        QuotaError,
        r"exceeded quota: compute, requested: requests\.cpu=.*, used: requests\.cpu=0, limited:",
        "ResourceQuota",
    ),
    "no limit": (
        lambda space: space.quota("limits.cpu", "100"),
        ["--cloud-kubernetes-pod-template=spec: {containers: [{name: beside, image: redis}]}"],
        ConfigurationError,
        r"failed quota: compute: must specify limits\.cpu for: beside",
        "",
    ),
    "smallest container": (
        lambda space: limit(space, type="Container", min={"memory": "64Mi"}),
        [],
        ConfigurationError,
        r"minimum memory usage per Container is 64Mi, but request is 32Mi",
        "",
    ),
    "largest container": (
        lambda space: limit(space, type="Container", max={"cpu": "2", "memory": "4Gi"}),
        [],
        ConfigurationError,
        r"maximum cpu usage per Container is 2, but limit is 8",
        "",
    ),
    "largest pod": (
        lambda space: limit(space, type="Pod", max={"memory": "4Gi"}),
        [],
        ConfigurationError,
        r"maximum memory usage per Pod is 4Gi, but limit is",
        "",
    ),
    "restricted": (
        restricted,
        ["--cloud-kubernetes-containers=docker"],
        ConfigurationError,
        r'violates PodSecurity "restricted:latest".*privileged',
        "Pod Security Standard",
    ),
    "account": (
        lambda _space: None,
        ["--cloud-permission-set=trainer"],
        ConfigurationError,
        r'serviceaccount "trainer" not found',
        "kubectl create serviceaccount",
    ),
    "class": (
        lambda _space: None,
        ["--cloud-kubernetes-pod-template=spec: {priorityClassName: batch}"],
        ConfigurationError,
        r"no PriorityClass with name batch was found",
        "",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_pods_that_admission_refuses_are_told_in_its_words(
    working: Space, node: Node, name: str
) -> None:
    before, argv, kind, words, hint = REFUSALS[name]
    before(working)
    launcher = Launcher(working)
    with pytest.raises(kind, match=words) as caught:
        launcher.create(*argv)
    assert type(caught.value) is kind
    assert hint in caught.value.hint
    launcher.nothing_is_left()


def test_a_quota_for_one_of_many_gives_one(working: Space, node: Node) -> None:
    """The Job controller creates one pod, then two at once, then four."""
    working.quota("pods", "1")
    launcher = Launcher(working)
    made = launcher.create("--cloud-type=s", count=3)
    assert len(made.instances) == 1
    assert isinstance(made.shortage, QuotaError)
    (job,) = working.items("jobs")
    assert (job["spec"]["completions"], job["spec"]["parallelism"]) == (1, 1)
    launcher.provider.destroy("cml-1", made.instances[0])
    launcher.nothing_is_left()


def test_what_a_quota_refused_does_not_come_later(working: Space, node: Node) -> None:
    """Here six of the eight pods that are created at once."""
    working.quota("pods", "9")
    launcher = Launcher(working)
    made = launcher.create("--cloud-type=s", count=15).instances
    assert 7 <= len(made) <= 9
    names = {one.id for one in made}
    until(lambda: working.living() == names, "the others to go")
    working.admin.done("DELETE", f"{working.path}/resourcequotas/compute")
    end(working, made[0].id, "Succeeded")
    time.sleep(3)
    assert working.living() == names
    (job,) = working.items("jobs")
    assert (job["spec"]["completions"], job["spec"]["parallelism"]) == (len(made), len(made))


@pytest.mark.parametrize("containers", ["none", "kubernetes"])
def test_a_launch_passes_the_restricted_standard(
    working: Space, node: Node, containers: str
) -> None:
    restricted(working)
    working.account("jobs")
    argv = [f"--cloud-kubernetes-containers={containers}", "--cloud-permission-set=jobs"]
    launcher = Launcher(working)
    launcher.provider.destroy("cml-1", launcher.one(*argv))
    launcher.nothing_is_left()
