"""What a GitLab job runs for: a branch, a tag or a merge request, and whether that is protected.
Pure."""

from __future__ import annotations

from collections.abc import Mapping

from runner_action.plain import plain

MERGE_REQUESTS = (
    "merge request pipelines get no protected variables and runners, unless the project allows it"
    " (Settings > CI/CD > Variables) and both branches are protected, of the same project"
)
"""Older GitLab has no such setting, and it is off in older projects.
https://docs.gitlab.com/ci/pipelines/merge_request_pipelines/ and
https://gitlab.com/groups/gitlab-org/-/epics/17186"""


def of_merge_request(environ: Mapping[str, str]) -> bool:
    """Whether the pipeline is that of a merge request."""
    return bool(environ.get("CI_MERGE_REQUEST_IID"))


def unprotected(environ: Mapping[str, str]) -> str:
    """The branch or tag of this job, in words, if GitLab says that it is not protected; empty
    otherwise. In the pipeline of a merge request GitLab says so whatever the branches are.

    https://docs.gitlab.com/ci/variables/predefined_variables/
    """
    if environ.get("CI_COMMIT_REF_PROTECTED") != "false":
        return ""
    kind = "tag" if environ.get("CI_COMMIT_TAG") else "branch"
    return f"{kind} {plain(environ.get('CI_COMMIT_REF_NAME', ''))}".strip()
