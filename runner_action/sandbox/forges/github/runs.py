"""The REST API of the embedded GitHub for workflow runs and jobs: read, cancel, re-run,
annotations."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from flask import Response, request

from runner_action.sandbox.forges.jobs import Job, Refusal, Run
from runner_action.sandbox.forges.memory import Forge

SHA = "0" * 40
NOT_THERE = ({"message": "Not Found", "status": "404"}, 404)
NOWHERE = "https://forge.test/nowhere"
"""For URLs that GitHub's responses must contain, but that nobody follows here."""
OF_REPOSITORY = """archive assignees blobs branches collaborators comments commits compare contents
    contributors deployments downloads events forks git_commits git_refs git_tags hooks html
    issue_comment issue_events issues keys labels languages merges milestones notifications pulls
    releases stargazers statuses subscribers subscription tags teams trees"""
OF_USER = (
    "avatar events followers following gists html organizations received_events repos starred"
    " subscriptions"
)


def routes(forge: Forge) -> list[tuple[str, str, Callable[..., Any]]]:
    repo = "/api/v3/repos/<owner>/<name>"
    runs = f"{repo}/actions/runs/<int:run_id>"
    shown = Rest(forge)
    return [
        ("GET", runs, shown.run),
        ("GET", f"{runs}/jobs", shown.jobs),
        ("GET", f"{runs}/attempts/<int:attempt>/jobs", shown.jobs),
        ("POST", f"{runs}/cancel", lambda run_id: shown.cancel(run_id, force=False)),
        ("POST", f"{runs}/force-cancel", lambda run_id: shown.cancel(run_id, force=True)),
        ("POST", f"{runs}/rerun", lambda run_id: shown.rerun(run_id, lambda run: None)),
        ("POST", f"{runs}/rerun-failed-jobs", lambda run_id: shown.rerun(run_id, failed)),
        ("POST", f"{repo}/actions/jobs/<int:job_id>/rerun", shown.rerun_job),
        ("GET", f"{runs}/concurrency_groups", shown.groups_of),
        ("GET", f"{repo}/actions/concurrency_groups/<path:group>", shown.group),
        ("GET", f"{repo}/check-runs/<int:job_id>/annotations", shown.annotations),
    ]


MOST_OF_A_PAGE = 100
"""https://docs.github.com/en/rest/using-the-rest-api/using-pagination-in-the-rest-api"""


def paged(key: str, items: Sequence[object]) -> Response:
    """The requested page, with a link to the next one. Without a key it is a bare list."""
    size = min(int(request.args.get("per_page", 30)), MOST_OF_A_PAGE)
    page = int(request.args.get("page", 1))
    shown = items[(page - 1) * size : page * size]
    content = {"total_count": len(items), key: shown} if key else shown
    response = Response(json.dumps(content), content_type="application/json")
    if page * size < len(items):
        url = f"{request.base_url}?per_page={size}&page={page + 1}"
        response.headers["Link"] = f'<{url}>; rel="next"'
    return response


def failed(run: Run) -> set[str]:
    return {job.name for job in run.jobs if job.conclusion not in ("success", "skipped")}


class Rest:
    """The views."""

    def __init__(self, forge: Forge) -> None:
        self._forge = forge

    def run(self, run_id: int) -> Any:
        run = self._forge.run(run_id)
        return _run(run) if run else NOT_THERE

    def jobs(self, run_id: int, attempt: int | None = None) -> Any:
        run = self._forge.run(run_id)
        if run is None or (attempt or 1) > run.attempt:
            return NOT_THERE
        jobs = run.jobs
        if attempt not in (None, run.attempt):
            jobs = [job for job in run.all_jobs if job.attempt == attempt]
        if request.args.get("filter") == "all":
            jobs = run.all_jobs
        return paged("jobs", [_job(job) for job in jobs])

    def cancel(self, run_id: int, *, force: bool) -> Any:
        run = self._forge.run(run_id)
        if run is None:
            return NOT_THERE
        if self._forge.cancel(run, force=force):
            return {}, 202
        message = "Cannot cancel a workflow run that is completed."
        return {"message": message, "status": "409"}, 409

    def rerun(self, run_id: int, names: Callable[[Run], set[str] | None]) -> Any:
        run = self._forge.run(run_id)
        if run is None:
            return NOT_THERE
        try:
            self._forge.rerun(run, names(run))
        except Refusal as refusal:
            return {"message": str(refusal), "status": "403"}, 403
        return {}, 201

    def rerun_job(self, job_id: int) -> Any:
        job = self._forge.job(job_id)
        return self.rerun(job.run_id, lambda run: {job.name}) if job else NOT_THERE

    def groups_of(self, run_id: int) -> Any:
        """Only the run's own place in its group, if it is there."""
        run = self._forge.run(run_id)
        if run is None:
            return NOT_THERE
        own = [
            {**_member(member), "position": place, "position_url": NOWHERE}
            for place, member in enumerate(self._forge.members(run.group))
            if member is run
        ]
        group = {"group_name": run.group, "group_url": NOWHERE, "group_members": own}
        return paged("concurrency_groups", [group] if run.group else [])

    def group(self, group: str) -> Any:
        """404 if nothing runs or waits in it."""
        members = [_member(member) for member in self._forge.members(group)]
        if not members:
            return NOT_THERE
        return {
            "group_name": group,
            "group_url": NOWHERE,
            "total_count": len(members),
            "group_members": members,
        }

    def annotations(self, job_id: int) -> Any:
        job = self._forge.job(job_id)
        if job is None:
            return NOT_THERE
        annotations = [
            {
                "path": ".github",
                "blob_href": NOWHERE,
                "start_line": 1,
                "end_line": 1,
                "start_column": None,
                "end_column": None,
                "annotation_level": "warning",
                "title": title,
                "message": text,
                "raw_details": None,
            }
            for title, text in job.notes
        ]
        return paged("", annotations)


def _member(run: Run) -> dict[str, Any]:
    """A run as the API lists it in its concurrency group."""
    return {
        "run_id": run.id,
        "run_name": "train",
        "run_url": NOWHERE,
        "run_html_url": NOWHERE,
        "status": "pending" if run.pending else "in_progress",
    }


def _at(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _urls(kinds: str) -> dict[str, str]:
    return dict.fromkeys(["url", *(f"{kind}_url" for kind in kinds.split())], NOWHERE)


def account() -> dict[str, Any]:
    """The organization that owns everything."""
    return {
        **_urls(OF_USER),
        "login": "octo",
        "id": 1,
        "node_id": "",
        "gravatar_id": "",
        "type": "Organization",
        "site_admin": False,
    }


def _repository() -> dict[str, Any]:
    return {
        **_urls(OF_REPOSITORY),
        "id": 1,
        "node_id": "",
        "name": "train",
        "full_name": "octo/train",
        "private": True,
        "fork": False,
        "description": None,
        "owner": account(),
    }


def _status(run: Run) -> str:
    if run.done:
        return "completed"
    return "pending" if run.pending else "in_progress"


def _run(run: Run) -> dict[str, Any]:
    """A run as GitHub's API returns it."""
    return {
        **_urls("html jobs logs check_suite cancel rerun artifacts workflow"),
        "repository": _repository(),
        "head_repository": _repository(),
        "id": run.id,
        "name": "train",
        "node_id": "",
        "head_branch": "main",
        "head_sha": SHA,
        "path": ".github/workflows/train.yml",
        "run_number": 1,
        "run_attempt": run.attempt,
        "event": "push",
        "status": _status(run),
        "conclusion": run.conclusion or None,
        "workflow_id": 1,
        "display_title": "train",
        "created_at": _at(run.created),
        "updated_at": _at(run.started),
        "run_started_at": _at(run.started),
        "pull_requests": [],
        "head_commit": None,
    }


def _job(job: Job) -> dict[str, Any]:
    """A job as GitHub's API returns it."""
    return {
        **_urls("run html check_run"),
        "node_id": "",
        "id": job.id,
        "run_id": job.run_id,
        "run_attempt": job.attempt,
        "head_sha": SHA,
        "head_branch": "main",
        "workflow_name": "train",
        "name": job.name,
        "status": job.status,
        "conclusion": job.conclusion or None,
        "created_at": _at(job.began),
        "started_at": _at(job.began),
        "completed_at": None,
        "labels": sorted(job.labels),
        "runner_id": None,
        "runner_name": job.runner_name or None,
        "runner_group_id": None,
        "runner_group_name": None,
    }
