"""Letter case: labels are compared as GitHub or GitLab does, addresses without capitals."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import UTC, datetime
from typing import cast

import pytest

from runner_action.forges import traits_of
from runner_action.forges.base import Forge
from runner_action.forges.places import holds
from runner_action.marks import Mark, address_tag
from runner_action.model import ForgeName, ProviderName, Repository, Run, Runner
from runner_action.request import Reuse
from runner_action.runners.reuse import Reusing, fitting, labels_with, launched_of
from tests.fakes import FakeClock
from tests.test_launch import request

DEFAULTS = frozenset({"self-hosted", "Linux", "X64", "gpu"})
ADDRESSES = ("https://github.com/octo/train", "https://github.com/Octo/Train")
RUN = Run(derived_name="cml-0123456789", key="0" * 64, title="by hand")


def runner(labels: frozenset[str] = DEFAULTS, name: str = "box") -> Runner:
    return Runner(id=1, name=name, labels=labels, online=True, busy=False)


@pytest.mark.parametrize(
    "labels", [("GPU",), ("self-hosted", "linux", "x64", "gpu"), ("Self-Hosted", "LINUX")]
)
def test_a_runner_is_reused_if_its_labels_are_the_same_to_github_or_gitlab(
    labels: tuple[str, ...],
) -> None:
    for forge, count in ((ForgeName.GITHUB, 1), (ForgeName.GITLAB, 0)):
        key = traits_of(forge).label_key
        assert len(fitting([runner()], None, labels, Reuse.ANY, key)) == count


@pytest.mark.parametrize("dry_run", [True, False])
def test_a_runner_of_another_access_level_is_left_out_and_that_is_said(
    dry_run: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Also in a dry run; nothing is asked of GitLab, so there is no GitLab here."""
    caplog.set_level("INFO")
    protected = replace(runner(frozenset({"cml"})), access_level="ref_protected")
    launching = replace(request(), labels=("cml",), reuse=Reuse.IDLE, dry_run=dry_run)
    reusing = Reusing(launching, RUN, cast("Forge", None), FakeClock())
    assert reusing.claim([protected]) == []
    assert "its access level is ref_protected, and `gitlab-access-level` is not_p" in caplog.text


def test_the_output_label_of_a_reused_runner_is_the_requested_spelling() -> None:
    launching = replace(request(), forge=ForgeName.GITHUB, labels=("other", "GPU"))
    assert launched_of(runner(), launching, 1.0).label == "GPU"


def test_a_label_in_two_spellings_is_one_label_at_github_and_two_at_gitlab() -> None:
    both = replace(request(), labels=("gpu", "GPU", "gpu"))
    at_github = labels_with(replace(both, forge=ForgeName.GITHUB), RUN)
    at_gitlab = labels_with(replace(both, forge=ForgeName.GITLAB), RUN)
    assert at_github == ("gpu", RUN.derived_name)
    assert at_gitlab == ("gpu", "GPU", RUN.derived_name)


@pytest.mark.parametrize(("here", "there"), [*itertools.product(ADDRESSES, repeat=2)])
def test_a_repository_is_the_same_in_any_spelling(here: str, there: str) -> None:
    first, second = Repository(url=here), Repository(url=there)
    until = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    mark = Mark(provider=ProviderName.AWS, online_by=until, name="cml-1")
    marked = runner(frozenset({mark.label(first)}), "cml-1")
    assert Mark.of(marked, second) == mark
    assert address_tag(first) == address_tag(second)
    assert holds(ForgeName.GITHUB, first, there)
