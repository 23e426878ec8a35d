"""Warnings for a launch from a GitLab job. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

LATE_IDS = ("CI_PIPELINE_ID", "CI_JOB_ID")
"""Variables that GitLab does not expand in `tags:`, because they do not exist before the job.
https://docs.gitlab.com/ci/variables/where_variables_can_be_used/#persisted-variables"""


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
