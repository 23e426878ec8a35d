"""Pods of a Job that a real API server refuses: quotas, limits, Pod Security, accounts; in its own
words, and as the launcher reports them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from runner_action.errors import ConfigurationError, ProviderError, QuotaError
from tests.real.cluster import Node, Space
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


@pytest.mark.xfail(
    reason="a Job whose pods have indexes 0 and 2 keeps three, and gets the other pod later",
    strict=False,  # of pods that are created at once, any may be those that are refused
)
def test_a_quota_for_some_of_many_leaves_no_index_for_later(working: Space, node: Node) -> None:
    """Here two of the eight pods that are created at once."""
    working.quota("pods", "9")
    launcher = Launcher(working)
    made = launcher.create("--cloud-type=s", count=15)
    assert len(made.instances) == 9
    (job,) = working.items("jobs")
    assert (job["spec"]["completions"], job["spec"]["parallelism"]) == (9, 9)


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
