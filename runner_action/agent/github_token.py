"""A GitHub runner whose machine has an API token: it also respects claims, and restarts the run
that it interrupts."""

from __future__ import annotations

import calendar
import re
import time
from typing import Any, List, Optional, Tuple

from . import github
from . import restart as policy
from .lifecycle import Leaving, Reason
from .process import Child
from .spec import AgentSpec

LEAVING = 120
"""Seconds for which a leaving runner is marked as such, so that no launch counts on it."""


class Forge(github.Forge):
    """Uses the API token of the spec."""

    def __init__(self, spec: AgentSpec, *rest: Any) -> None:
        super().__init__(spec, *rest)
        # The runner of an organization serves many repositories: the launch's, then the job's.
        self._repository = spec.launch_project or self._place

    def retire(self, child: Optional[Child]) -> bool:
        """Adds a label, so that no launch counts on the runner; the response has all labels."""
        path = self._listed % self._id() + "/labels"
        return not self.is_claimed(
            "POST", path, {"labels": ["cml-claim-leaving-%d" % (time.time() + LEAVING)]}
        )

    def _remove(self, runner: int, timeout: float) -> Tuple[int, str]:
        return self.ask("DELETE", self._listed % runner, None, timeout)

    # --- restarting

    def waiting(self) -> Optional[Tuple[str, int, Optional[int]]]:
        run = self._spec.launch_run
        return (
            ("", run, None) if run and policy.waits_for(self.run(run), self._spec.labels) else None
        )

    def last(self, attempt: Optional[int], reason: Reason) -> str:
        limit = self._spec.restart_limit
        return policy.over(attempt, limit, reason.restarts) if limit and attempt else ""

    def restart(self, job: Tuple[str, int, Optional[int]], plan: Leaving) -> str:
        """A job can fake the line by which it was reported, so this restarts only a run that has
        a job on this runner, in a repository that this runner serves. What the launcher wrote
        has no repository."""
        repository = job[0]
        if repository and not self._serves(repository):
            return "not restarted: this runner does not serve %r" % repository
        self._repository = repository or self._repository
        return policy.restart(self, job, self._spec, plan)

    def _serves(self, repository: str) -> bool:
        if not re.fullmatch(r"[\w.-]+/\w[\w.-]*", repository):
            return False
        place = self._place.lower()
        return place.startswith("enterprises/") or place in (
            repository.lower(),
            repository.lower().split("/")[0],
        )

    def run(self, run_id: int) -> policy.Run:
        path = self._path("runs/%d", run_id)
        run = self.get(path)
        page = 1
        jobs: List[policy.Job] = []
        while len(jobs) == (page - 1) * 100:
            jobs += [
                policy.Job(
                    job["id"],
                    job["name"],
                    job["status"],
                    job["conclusion"] or "",
                    job["runner_name"] or "",
                    tuple(job["labels"]),
                )
                for job in self.get("%s/jobs?per_page=100&page=%d" % (path, page))["jobs"]
            ]
            page += 1
        created = calendar.timegm(time.strptime(run["created_at"], "%Y-%m-%dT%H:%M:%SZ"))
        return policy.Run(
            run_id,
            run["run_attempt"],
            run["status"] == "completed",
            time.time() - created,
            tuple(jobs),
        )

    def cancel(self, run_id: int, force: bool) -> Optional[str]:
        return self.post(self._path("runs/%d/%s", run_id, "force-cancel" if force else "cancel"))

    def rerun(self, what: str, run_id: int, job_id: Optional[int]) -> Optional[str]:
        if what == policy.LAUNCH_JOB:
            return self.post(self._path("jobs/%s/rerun", job_id))
        return self.post(
            self._path(
                "runs/%d/%s", run_id, "rerun-failed-jobs" if what == policy.FAILED_JOBS else "rerun"
            )
        )

    def _path(self, path: str, *parts: Any) -> str:
        return "/repos/%s/actions/" % self._repository + path % parts
