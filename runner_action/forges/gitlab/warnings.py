"""Warnings for a launch from a GitLab job. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from runner_action.forges.gitlab import ref

PROTECTED = "ref_protected"
"""The `gitlab-access-level` of a runner that gets only jobs of protected branches and tags.
https://docs.gitlab.com/ci/runners/configure_runners/#prevent-runners-from-revealing-sensitive-information"""
LATE_IDS = ("CI_PIPELINE_ID", "CI_JOB_ID")
"""Variables that GitLab does not expand in `tags:`, because they do not exist before the job.
https://docs.gitlab.com/ci/variables/where_variables_can_be_used/#persisted-variables"""


def unprotected(values: Mapping[str, Any], environ: Mapping[str, str]) -> Iterator[str]:
    """Warns that no job of this pipeline will get the runner."""
    here = ref.unprotected(environ)
    if not here or values["gitlab-access-level"] != PROTECTED:
        return
    if ref.of_merge_request(environ):
        yield (
            f"the runner is for protected branches and tags only, and {ref.MERGE_REQUESTS};"
            " otherwise GitLab gives it no job of this pipeline: leave `gitlab-access-level` out"
        )
    else:
        yield (
            f"the runner is for protected branches and tags only, and the {here} is not protected:"
            " GitLab gives it no job of this pipeline; leave `gitlab-access-level` out, or protect"
            " it (Settings > Repository)"
        )


def useless_labels(values: Mapping[str, Any], environ: Mapping[str, str]) -> Iterator[str]:
    """Warns of labels that contain such an ID, because no job can ask for them."""
    own = values["repo"] == environ.get("CI_PROJECT_URL")
    instead = "$CI_PIPELINE_IID" if own else "$CI_PROJECT_ID-$CI_PIPELINE_IID"
    early = [environ.get(name) for name in ("CI_PIPELINE_IID", "CI_PROJECT_ID")]
    for name in LATE_IDS:
        number = environ.get(name, "")
        if not number.isdigit() or number in early:
            continue
        whole = re.compile(rf"(?<![A-Za-z0-9]){number}(?![A-Za-z0-9])")
        for label in filter(whole.search, values["labels"]):
            yield (
                f"GitLab does not expand {name} in `tags:`, so no job can ask for the label"
                f" {label}: write `{whole.sub(instead, label)}` in both places"
            )
