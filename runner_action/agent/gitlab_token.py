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
LOOK = 1.0
"""Seconds between two checks of a job that has to end."""


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
        with contextlib.suppress(Exception):  # `restart` looks again
            self._of_this_runner(self.get("%s/jobs/%d" % (_project(job[0]), job[1])))
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
        if not self._spec.restart_limit:
            return "not restarted: restarting is switched off"
        while time.monotonic() - began < plan.seconds:
            due = policy.cancels_due(time.monotonic() - began, plan.force)
            try:
                outcome = self._tried(job[0], job[1], plan)
                if outcome:
                    return outcome
                if cancels < due:
                    cancels += 1
                    path = "%s/jobs/%d/cancel" % (_project(job[0]), job[1])
                    self.ask("POST", path, FORCE if cancels == 2 else {})
                why = "the job did not end"
            except Exception as error:  # GitLab may be back in a moment
                why = "%s: %s" % (type(error).__name__, error)
            time.sleep(LOOK)
        return "not restarted: " + why

    def _tried(self, project: str, number: int, plan: Leaving) -> str:
        """Retries the job if it has ended. Returns the outcome; empty while it is running."""
        spec = self._spec
        job = self.get("%s/jobs/%d" % (_project(project), number))
        launch = number == spec.launch_job
        if not launch and not self._of_this_runner(job):
            return "not restarted: job %d of %s is not on this runner" % (number, project)
        jobs = self._jobs(project, job["pipeline"]["id"])
        tries = [other["id"] for other in jobs if other["name"] == job["name"]]
        why = policy.tried(number, tries, spec.restart_limit, plan.restarts)
        if not why and (launch or job["status"] in ("failed", "canceled")):
            return self._retry(project, job, jobs)
        if not why and job["status"] == "success":
            why = "the job succeeded"
        return why and "not restarted: " + why

    def _retry(self, project: str, job: Dict[str, Any], jobs: List[Dict[str, Any]]) -> str:
        spec = self._spec
        done: List[str] = []
        refused: List[str] = []
        launches = [
            other
            for other in jobs
            if spec.launch_job
            and project == spec.launch_project
            and other["name"] == spec.launch_job_name
        ]
        latest = max(launches, key=lambda launch: int(launch["id"]), default=None)
        again = [latest] if latest and latest["status"] in ("success", "failed", "canceled") else []
        if not latest or job["name"] != latest["name"]:
            again.append(job)
        for ended in again:
            refusal = self.post("%s/jobs/%d/retry" % (_project(project), ended["id"]))
            if refusal:
                refused.append(ended["name"] + ": " + refusal)
            else:
                done.append(ended["name"])
        refusals = "; ".join(refused)
        if not done:
            return "not restarted: " + refusals
        return " and ".join(done) + (" (" + refusals + ")" if refused else "")

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
