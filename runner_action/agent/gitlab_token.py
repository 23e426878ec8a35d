"""A GitLab runner whose machine has an API token: it also retries the job that it interrupts."""

from __future__ import annotations

import contextlib
import time
from typing import Any, Dict, List, Optional, Tuple
from urllib.parse import quote

from . import gitlab
from . import restart as policy
from .plan import Leaving
from .tokens import WithToken

FORCE = {"force": True}
TIMED_OUT = "job_execution_timeout"
"""Why a job failed. https://docs.gitlab.com/ci/yaml/#retrywhen"""
LOOK = 1.0
"""Seconds between two checks of a job that has to end."""
SOON, LATE = 2.0, 10.0
"""Seconds for the two attempts to learn whose job it is: the runner soon stops."""


def _for_good(job: Dict[str, Any], launch: bool, cancelled: bool) -> str:
    """Why a job has ended for good; empty if not. `launch`: it launched this machine, whatever came
    of it; `cancelled`: by this machine."""
    if job.get("failure_reason") == TIMED_OUT:
        return "the job timed out"
    if launch:
        return ""
    if job["status"] == "success":
        return "the job succeeded"
    if job["status"] == "canceled" and not cancelled:
        return "the job was cancelled by a person or for a newer pipeline"
    return ""


class Forge(WithToken, gitlab.Forge):
    """Uses the API token of the spec."""

    def waiting(self) -> Optional[Tuple[str, int, Optional[int]]]:
        spec = self._spec
        if not spec.launch_run or not spec.launch_job:
            return None
        for job in self._jobs(spec.launch_project, spec.launch_run):
            if job["status"] == "pending" and set(job["tag_list"]).intersection(spec.labels):
                return spec.launch_project, spec.launch_job, None
        return None

    _own = 0
    """The job that was on this runner."""

    def end(self, job: Tuple[str, int, Optional[int]], restarts: int) -> bool:
        """Looks whose job it is, which GitLab forgets when the runner is deregistered."""
        for timeout in (SOON, LATE):
            with contextlib.suppress(Exception):  # `restart` looks again
                self._of_this_runner(self.get("%s/jobs/%d" % (_project(job[0]), job[1]), timeout))
                break
        return False

    def _of_this_runner(self, job: Dict[str, Any]) -> bool:
        if (job.get("runner") or {}).get("id") == self._spec.runner_id:
            self._own = job["id"]
        return bool(job["id"] == self._own)

    def restart(self, job: Tuple[str, int, Optional[int]], plan: Leaving) -> str:
        """Retries the launch job, so that there is a machine, and then the job; nothing else. A
        job can fake the line by which it was reported, so it must have been on this runner, or
        be the launch job."""
        began = time.monotonic()
        why = "no response"
        cancels = 0
        seen = False
        self._requested: Dict[str, bool] = {}
        if not self._spec.restart_limit:
            return "not restarted: restarting is switched off"
        while time.monotonic() - began < plan.seconds:
            due = policy.cancels_due(time.monotonic() - began, plan.force)
            try:
                outcome = self._tried(job[0], job[1], plan, cancels > 0)
                seen = True
                if outcome:
                    return outcome
                if cancels < due:
                    cancels += 1
                    path = "%s/jobs/%d/cancel" % (_project(job[0]), job[1])
                    self.ask("POST", path, FORCE if cancels == 2 else {})
                why = "the job did not end"
            except Exception as error:  # GitLab may be back in a moment
                if not seen and policy.is_final(error):
                    return "not restarted: %s" % error
                why = "%s: %s" % (type(error).__name__, error)
            time.sleep(LOOK)
        return "not restarted: " + why

    def _tried(self, project: str, number: int, plan: Leaving, cancelled: bool) -> str:
        """Retries the job if it has ended. Returns the outcome; empty while it is running.
        `cancelled`: by this machine."""
        spec = self._spec
        job = self.get("%s/jobs/%d" % (_project(project), number))
        launch = number == spec.launch_job
        if not launch and not self._of_this_runner(job):
            return "not restarted: job %d of %s is not on this runner" % (number, project)
        jobs = self._jobs(project, job["pipeline"]["id"])
        tries = [other for other in jobs if other["name"] == job["name"]]
        if any(other["id"] > number for other in tries):
            return self._retried_already(project, job, tries, jobs)
        ids = [other["id"] for other in tries]
        why = policy.tried(number, ids, spec.restart_limit, plan.restarts)
        why = why or _for_good(job, launch, cancelled)
        if why:
            return "not restarted: " + why
        ended = launch or job["status"] in ("failed", "canceled")
        if ended and (self.stopped or not plan.runs):
            return self._retry(project, self._ended_launch(project, jobs), None if launch else job)
        return ""

    def _retried_already(
        self,
        project: str,
        job: Dict[str, Any],
        tries: List[Dict[str, Any]],
        jobs: List[Dict[str, Any]],
    ) -> str:
        """By this machine, if GitLab's response was lost; or by GitLab itself, for `retry:` in the
        job: then the new try waits for a machine."""
        if job["name"] in self._requested:
            return " and ".join(self._requested)
        launch = self._ended_launch(project, jobs)
        if launch and any(other["status"] == "pending" for other in tries):
            return self._retry(project, launch, None)
        return "not restarted: it was already retried"

    def _ended_launch(self, project: str, jobs: List[Dict[str, Any]]) -> Optional[Dict[str, Any]]:
        """The latest try of the launch job; None if it has not ended."""
        spec = self._spec
        if not spec.launch_job or project != spec.launch_project:
            return None
        launches = [other for other in jobs if other["name"] == spec.launch_job_name]
        latest = max(launches, key=lambda launch: int(launch["id"]), default=None)
        ended = latest and latest["status"] in ("success", "failed", "canceled")
        return latest if ended else None

    def _retry(
        self, project: str, launch: Optional[Dict[str, Any]], job: Optional[Dict[str, Any]]
    ) -> str:
        refused: List[str] = []
        for ended in filter(None, (launch, job)):
            name = ended["name"]
            self._requested[name] = True
            refusal = self.post("%s/jobs/%d/retry" % (_project(project), ended["id"]))
            if refusal:
                del self._requested[name]
                refused.append(name + ": " + refusal)
        refusals = "; ".join(refused)
        if not self._requested:
            return "not restarted: " + (refusals or "the launch job has not ended")
        return " and ".join(self._requested) + (" (" + refusals + ")" if refused else "")

    def _jobs(self, project: str, pipeline: int) -> List[Dict[str, Any]]:
        """All jobs of a pipeline, with their earlier tries."""
        jobs: List[Dict[str, Any]] = []
        page = 1
        while len(jobs) == (page - 1) * 100:
            jobs += self.get(
                "%s/pipelines/%d/jobs?include_retried=true&per_page=100&page=%d"
                % (_project(project), pipeline, page)
            )
            page += 1
        return jobs


def _project(path: str) -> str:
    return "/projects/" + quote(path, "")
