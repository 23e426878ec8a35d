"""Whose code a CI job is about to run: that of the repository itself, or of a fork, which anybody may have. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any


def fork_of(environ: Mapping[str, str], read_file: Callable[[str], str | None]) -> str | None:
    """The fork behind the pull or merge request that this job is for, in words; None for code of the repository itself, or where nobody says.

    https://docs.github.com/en/webhooks/webhook-events-and-payloads and
    https://docs.gitlab.com/ci/variables/predefined_variables/#predefined-variables-for-merge-request-pipelines
    """
    if environ.get("GITHUB_ACTIONS"):
        return _fork_on_github(_event(read_file(environ.get("GITHUB_EVENT_PATH", ""))))
    source, target = environ.get("CI_MERGE_REQUEST_SOURCE_PROJECT_ID"), environ.get("CI_MERGE_REQUEST_PROJECT_ID")
    if not (source and target) or source == target:
        return None
    fork, ours = (environ.get(f"CI_MERGE_REQUEST_{part}PROJECT_PATH", "another project") for part in ("SOURCE_", ""))
    return f"{fork}, a fork of {ours}"


def _event(text: str | None) -> Mapping[str, Any]:
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _fork_on_github(event: Mapping[str, Any]) -> str | None:
    """A pull request says where its code and its target are; so does the run that a `workflow_run` event is about. A fork that was deleted is null."""
    pull, run = event.get("pull_request") or {}, event.get("workflow_run") or {}
    if "head" in pull and "base" in pull:
        head, base = pull["head"]["repo"], pull["base"]["repo"]
    elif "head_repository" in run and "repository" in run:
        head, base = run["head_repository"], run["repository"]
    else:
        return None
    if head and head["id"] == base["id"]:
        return None
    return f"{head['full_name'] if head else 'a repository that was deleted'}, a fork of {base['full_name']}"
