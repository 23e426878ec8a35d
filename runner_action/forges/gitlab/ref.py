"""The branch or tag of a GitLab job, and whether it is protected. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from runner_action.plain import plain


def unprotected(environ: Mapping[str, str]) -> str:
    """The branch or tag of this job, in words, if GitLab says that it is not protected; empty
    otherwise.

    https://docs.gitlab.com/ci/variables/predefined_variables/
    """
    if environ.get("CI_COMMIT_REF_PROTECTED") != "false":
        return ""
    kind = "tag" if environ.get("CI_COMMIT_TAG") else "branch"
    return f"{kind} {plain(environ.get('CI_COMMIT_REF_NAME', ''))}".strip()
