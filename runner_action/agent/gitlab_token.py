"""What a GitLab runner can do besides if its machine has a token for the API: retry what its end
interrupts."""

from __future__ import annotations

import time
from typing import Any, Dict, List, Optional, Tuple
from urllib.parse import quote

from . import gitlab
from . import restart as policy
from .lifecycle import Leaving

FORCE = {"force": True}


class Forge(gitlab.Forge):
    """With the token of the spec."""

    def waiting(self) -> Optional[Tuple[str, int, Optional[int]]]:
        spec = self._spec
        if not spec.launch_run or not spec.launch_job:
            return None
        pending = [
            one
            for one in self._jobs(spec.launch_project, spec.launch_run)
            if one["status"] == "pending"
        ]
        return (
            (spec.launch_project, spec.launch_job, None)
            if any(set(one["tag_list"]).intersection(spec.labels) for one in pending)
            else None
        )

    def restart(self, job: Tuple[str, int, Optional[int]], plan: Leaving) -> str:
        """The launch job first, so that there is a machine, then the job; never more. A job can
        make up what it was told of: so it must be one of this runner's, or what launched it."""
        project, number, _ = job
        began = time.monotonic()
        why = "no answer"
        asked = 0
        if not self._spec.restart_limit:
            return "not restarted: restarting is switched off"
        while time.monotonic() - began < plan.restart:
            waited = time.monotonic() - began
            try:
                told = self.get("%s/jobs/%d" % (_project(project), number))
                if (
                    number != self._spec.launch_job
                    and (told.get("runner") or {}).get("id") != self._spec.runner_id
                ):
                    return "not restarted: job %d of %s is not on this runner" % (number, project)
                jobs = self._jobs(project, told["pipeline"]["id"])
                verdict = policy.tried(
                    number,
                    [one["id"] for one in jobs if one["name"] == told["name"]],
                    self._spec.restart_limit,
                    plan.restarts,
                )
                if verdict:
                    return "not restarted: " + verdict
                if told["status"] in ("failed", "canceled") or number == self._spec.launch_job:
                    return self._retry(project, told, jobs)
                if told["status"] == "success":
                    return "not restarted: the job ended well in time"
                if asked < (waited >= plan.gentle) + (waited >= plan.restart / 2):
                    asked += 1
                    self.ask(
                        "POST",
                        "%s/jobs/%d/cancel" % (_project(project), number),
                        FORCE if asked == 2 else {},
                    )
                why = "the job did not end"
            except Exception as error:  # the forge may be back in a moment
                why = "%s: %s" % (type(error).__name__, error)
            time.sleep(policy.LOOK)
        return "not restarted: " + why

    def _retry(self, project: str, job: Dict[str, Any], jobs: List[Dict[str, Any]]) -> str:
        spec = self._spec
        done: List[str] = []
        refused: List[str] = []
        launches = [
            one
            for one in jobs
            if spec.launch_job
            and project == spec.launch_project
            and one["name"] == spec.launch_job_name
        ]
        latest = max(launches, key=lambda one: int(one["id"]), default=None)
        again = [latest] if latest and latest["status"] in ("success", "failed", "canceled") else []
        if not latest or job["name"] != latest["name"]:
            again.append(job)
        for one in again:
            no = self.post("%s/jobs/%d/retry" % (_project(project), one["id"]))
            if no:
                refused.append(one["name"] + ": " + no)
            else:
                done.append(one["name"])
        refusals = "; ".join(refused)
        if not done:
            return "not restarted: " + refusals
        return " and ".join(done) + (" (" + refusals + ")" if refused else "")

    def _jobs(self, project: str, pipeline: int) -> List[Dict[str, Any]]:
        """All tries of all jobs of a pipeline."""
        found: List[Dict[str, Any]] = []
        page = 1
        while len(found) == (page - 1) * 100:
            found += self.get(
                "%s/pipelines/%d/jobs?include_retried=true&per_page=100&page=%d"
                % (_project(project), pipeline, page)
            )
            page += 1
        return found


def _project(path: str) -> str:
    return "/projects/" + quote(path, "")
