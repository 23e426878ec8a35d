"""The REST API of the embedded GitLab for jobs: users read, cancel and retry them, gitlab-runner
requests and updates them.

https://docs.gitlab.com/api/jobs/; for runners, as commands and network of gitlab-runner 19.4 use
it.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any

from flask import Response, request

from runner_action.sandbox.forges.gitlab.reports import Reports
from runner_action.sandbox.forges.gitlab.rest import paged
from runner_action.sandbox.forges.gitlab.variables import Project, iid_of
from runner_action.sandbox.forges.jobs import Job, Refusal, Seat
from runner_action.sandbox.forges.memory import Forge

STATUS = {"waiting": "created", "queued": "pending", "in_progress": "running"}
CONCLUSION = {
    "success": "success",
    "failure": "failed",
    "cancelled": "canceled",
    "skipped": "skipped",
}
JOB_TIMEOUT = 3600
NOT_THERE = ({"message": "404 Not found"}, 404)
FORBIDDEN = ({"message": "403 Forbidden"}, 403)
REASONS = (
    "image_pull_failure",
    "runner_external_dependency_failure",
    "runner_interrupted",
    "unknown_failure",
)
"""Reasons of a failure that gitlab-runner gives only to a GitLab that says that it knows them
(common/network.go). What GitLab does not know is `unknown_failure` to it."""
Route = tuple[str, str, Callable[..., Any], tuple[str, ...]]


class Jobs:
    """The views. `project`: the project of the jobs; its URL is known only once it is served."""

    def __init__(
        self,
        forge: Forge,
        places: Mapping[tuple[str, str], int],
        project: Callable[[], Project],
    ) -> None:
        self._forge = forge
        self._places = places
        self._project = project
        self._tokens: dict[str, Job] = {}
        self.graceful: Callable[[], bool] = lambda: True
        """Whether a running job that is cancelled is `canceling` first."""
        self.may_force: Callable[[], bool] = lambda: True
        """Whether the user of the call may cancel by force a job that is `canceling`."""
        self.tells_status: Callable[[], bool] = lambda: True
        """Whether answers to a job's updates have its status in a header."""
        self.reports = Reports()
        self.traces = self.reports.traces
        self.more: dict[str, Any] = {}
        """What jobs have besides, in the words of the API of runners: `image`, `services`,
        `artifacts`, more `variables`."""
        self.reasons = REASONS
        self.unfinished = 0
        """How often the end of a job is answered with 202, since its log is not stored yet: the
        runner has to tell it again. GitLab.com does that
        (app/services/ci/update_build_state_service.rb)."""
        self.retried: tuple[str, ...] = ()
        """`retry: when:` of all jobs, with `max: 1`.
        https://docs.gitlab.com/ci/yaml/#retrywhen"""
        self.at_hand_over: list[str] = []
        """What becomes of the next jobs just as a runner gets them: `canceling` or `canceled`."""

    def for_users(self) -> list[Route]:
        job = "/projects/<path:place>/jobs/<int:number>"
        return [
            ("GET", job, self._job, ("api", "read_api")),
            ("POST", f"{job}/cancel", self._cancel, ("api",)),
            ("POST", f"{job}/retry", self._retry, ("api",)),
            (
                "GET",
                "/projects/<path:place>/pipelines/<int:number>/jobs",
                self._of_pipeline,
                ("api", "read_api"),
            ),
        ]

    def for_runners(self) -> list[tuple[str, str, Callable[..., Any]]]:
        return [
            ("PUT", "/jobs/<int:number>", self._update),
            ("PATCH", "/jobs/<int:number>/trace", self._trace),
            ("POST", "/jobs/<int:number>/artifacts", self._upload),
        ]

    # --- users

    def _job_of(self, place: str, number: int) -> Job | None:
        return self._forge.job(number) if ("projects", place) in self._places else None

    def _job(self, place: str, number: int) -> Any:
        job = self._job_of(place, number)
        return shown(job, self._forge) if job else NOT_THERE

    def _cancel(self, place: str, number: int) -> Any:
        job = self._job_of(place, number)
        if job is None:
            return NOT_THERE
        force = bool((request.get_json(silent=True) or {}).get("force"))
        if force and not self.may_force():
            return FORBIDDEN
        if job.cancelled or not force:
            self._forge.cancel_job(job, force=force or not self.graceful())
        return shown(job, self._forge), 201

    def _retry(self, place: str, number: int) -> Any:
        job = self._job_of(place, number)
        if job is None:
            return NOT_THERE
        try:
            return shown(self._forge.retry_job(job), self._forge), 201
        except Refusal as refusal:
            return {"message": str(refusal)}, 403

    def _of_pipeline(self, place: str, number: int) -> Any:
        run = self._forge.run(number) if ("projects", place) in self._places else None
        if run is None:
            return NOT_THERE
        jobs = run.all_jobs if request.args.get("include_retried") == "true" else run.jobs
        return paged([shown(job, self._forge) for job in reversed(jobs)])

    # --- gitlab-runner

    def ask(self, wait: float, longest: Mapping[int, int], may_take: Callable[[Seat], bool]) -> Any:
        """A request of gitlab-runner for a job, held for at most `wait` seconds. `longest`: maximum
        timeouts in seconds, by the id of a runner. `may_take`: whether a runner gets jobs at
        all."""
        token = request.get_json().get("token")
        seat = next((seat for seat in self._forge.seats() if seat.secret == token), None)
        if seat is None:
            return FORBIDDEN
        seat.heard = time.monotonic()
        if not seat.online:
            self._forge.set_online(seat, online=True)
        job = self._forge.next_job(seat, wait) if may_take(seat) else None
        if job is None:
            return "", 204
        job_token = f"canary-job-{secrets.token_hex(8)}"
        self._tokens[job_token] = job
        timeout = min(JOB_TIMEOUT, longest.get(seat.id, JOB_TIMEOUT))
        payload = self._payload(job, job_token, timeout, seat.name)
        if self.at_hand_over:
            self._forge.cancel_job(job, force=self.at_hand_over.pop(0) == "canceled")
        return payload, 201

    def _payload(self, job: Job, token: str, timeout: int, runner: str) -> dict[str, Any]:
        """The job for its runner, with the predefined variables that the stand-in and our tests
        read."""
        project = self._project()
        variables = project.at_creation(iid_of(job.run_id), job.name)
        variables |= project.persisted(job.run_id, job.id)
        variables["CI_RUNNER_DESCRIPTION"] = runner
        variables["GIT_STRATEGY"] = "none"  # there is no repository to fetch from
        return {
            "id": job.id,
            "token": token,
            "job_info": {
                "name": job.name,
                "stage": "test",
                "project_id": project.id,
                "project_name": "train",
            },
            "git_info": {
                "repo_url": f"{project.server}/{project.path}.git",
                "ref": "main",
                "ref_type": "branch",
                "sha": variables["CI_COMMIT_SHA"],
                "before_sha": variables["CI_COMMIT_SHA"],
            },
            "runner_info": {"timeout": timeout},
            "features": {"trace_sections": True, "failure_reasons": self.reasons},
            "variables": [
                {"key": key, "value": str(value), "public": True}
                for key, value in variables.items()
            ],
            "steps": [
                {
                    "name": "script",
                    "script": [job.command, f"sleep {job.seconds}"],
                    "timeout": timeout,
                    "when": "on_success",
                },
                *self._after(job, timeout),
            ],
            **self.more,
        }

    def _after(self, job: Job, timeout: int) -> list[dict[str, Any]]:
        """`after_script` of a job that has a last step."""
        if not job.always:
            return []
        after = {"name": "after_script", "script": [job.always], "timeout": timeout}
        return [{**after, "when": "always", "allow_failure": True}]

    def _mine(self, token: str, number: int) -> tuple[Job, Seat] | Response:
        """The job with this token and the runner that has it, or the refusal, which says what has
        become of the job (`authenticate_job!` in lib/api/ci/helpers/runner.rb)."""
        job = self._tokens.get(token)
        if job is None or job.id != number:
            return Response(json.dumps(FORBIDDEN[0]), 403, content_type="application/json")
        seat = self._forge.by_name(job.runner_name)
        if seat is None or job.status != "in_progress":
            text = {"message": "403 Forbidden - Job is not processing on runner"}
            return _acknowledged(job, 403, {}, text)
        seat.heard = time.monotonic()
        return job, seat

    def _update(self, number: int) -> Any:
        response = self._updated(number)
        if response.status_code == 200 and not self.tells_status():
            del response.headers["Job-Status"]
        return response

    def _updated(self, number: int) -> Response:
        body = request.get_json()
        mine = self._mine(body["token"], number)
        if isinstance(mine, Response):
            return mine
        job, seat = mine
        if body["state"] == "running":
            return _acknowledged(job, 200, {})
        if self.unfinished:
            self.unfinished -= 1
            return _acknowledged(job, 202, {"X-GitLab-Trace-Update-Interval": "1"})
        conclusion = "success" if body["state"] == "success" else "failure"
        if job.cancelled:
            conclusion = "cancelled"
        reason = body.get("failure_reason", "")
        self._forge.complete(seat, conclusion, reason=reason)
        if conclusion == "failure" and reason in self.retried:
            self._try_again(job)
        return _acknowledged(job, 200, {})

    def _try_again(self, job: Job) -> None:
        """Once, by GitLab itself: what was tried again already is not."""
        run = self._forge.run(job.run_id)
        if run and sum(one.name == job.name for one in run.all_jobs) == 1:
            self._forge.retry_job(job)

    def _trace(self, number: int) -> Any:
        mine = self._mine(request.headers.get("JOB-TOKEN", ""), number)
        if isinstance(mine, Response):
            return mine
        return _acknowledged(mine[0], *self.reports.append(number))

    def _upload(self, number: int) -> Any:
        """https://docs.gitlab.com/api/job_artifacts/, from runners."""
        mine = self._mine(request.headers.get("JOB-TOKEN", ""), number)
        if isinstance(mine, Response):
            return mine
        self.reports.keep(number)
        return _acknowledged(mine[0], 201, {})


def _acknowledged(job: Job, status: int, headers: Mapping[str, str], body: Any = None) -> Response:
    """A response with the job's status in a header, from which a runner learns that its job was
    cancelled."""
    return Response(
        json.dumps(body),
        status,
        {**headers, "Job-Status": status_of(job)},
        content_type="application/json",
    )


def status_of(job: Job) -> str:
    if job.status == "in_progress" and job.cancelled:
        return "canceling"
    return CONCLUSION[job.conclusion] if job.status == "completed" else STATUS[job.status]


def shown(job: Job, forge: Forge) -> dict[str, Any]:
    """A job as GitLab's API returns it."""
    seat = forge.by_name(job.runner_name)
    return {
        "id": job.id,
        "status": status_of(job),
        "stage": "test",
        "name": job.name,
        "ref": "main",
        "tag": False,
        "allow_failure": False,
        "failure_reason": job.reason or None,
        "web_url": f"https://forge.test/octo/train/-/jobs/{job.id}",
        "pipeline": {"id": job.run_id, "project_id": 5, "ref": "main"},
        "tag_list": sorted(job.labels),
        **({"runner": {"id": seat.id, "description": seat.name}} if seat else {}),
    }
