"""A GitHub runner whose machine has an API token: it also respects claims, and restarts the run
that it interrupts."""

from __future__ import annotations

import calendar
import dataclasses
import json
import re
import time
from typing import Any, Dict, Iterator, List, Optional, Set, Tuple
from urllib.parse import quote

from . import github, inheriting
from . import restart as policy
from .events import Event, JobStarted
from .plan import Leaving
from .process import Child
from .reasons import Reason
from .spec import AgentSpec
from .tokens import Unexpected, WithToken

CHECK = 300.0
"""Seconds between two questions whether the job still runs, unless it does not."""
LEAVING = 120
"""Seconds for which a leaving runner is marked as such, so that no launch counts on it."""
HANDED_OVER = "cml-restart-%d"
"""A runner that never comes: a job of this run was interrupted while others went on. GitHub removes
it after a day: https://docs.github.com/en/actions/reference/runners/self-hosted-runners"""


class Forge(WithToken, github.Forge):
    """Uses the API token of the spec."""

    def __init__(self, spec: AgentSpec, *rest: Any) -> None:
        super().__init__(spec, *rest)
        # The runner of an organization serves many repositories: the launch's, then the job's.
        self._repository = spec.launch_project or self._place
        self._restart: Optional[policy.Restart] = None
        self._tags: Dict[str, Tuple[str, Any]] = {}
        self._run: Optional[int] = None
        self._checked = 0.0

    def hook(self, words: List[str], at: float, born: float) -> List[Event]:
        found = super().hook(words, at, born)
        for event in found:
            ref = event.ref if isinstance(event, JobStarted) else None
            if ref and ref[0].lower() == self._repository.lower():
                self._run = ref[1]
                self._checked = time.monotonic()
        return found

    def heard(self, line: str, at: float) -> List[Event]:
        found = super().heard(line, at)
        if found:  # that job is over, or another one has begun
            self._run = None
        return found

    def works(self, leader: int) -> bool:
        """Also False as soon as GitHub says that the job has ended, whatever works on here."""
        if not self._run or time.monotonic() - self._checked < CHECK:
            return super().works(leader)
        jobs = [job for job in self.jobs(self._run) if job.runner == self._spec.name]
        if jobs and all(job.status == "completed" for job in jobs):
            return False
        self._checked = time.monotonic()
        return super().works(leader)

    def ask(self, method: str, path: str, *rest: Any, **more: Any) -> Tuple[int, str]:
        """As in Member. Raises `restart.Later` if GitHub's rate limit is reached."""
        status, text = super().ask(method, path, *rest, **more)
        later = policy.later(status, self.headers, text)
        if later:
            raise later
        return status, text

    def get(self, path: str, timeout: float = 10) -> Any:
        """A response that has not changed does not count against the limit of an hour.
        https://docs.github.com/en/rest/using-the-rest-api/best-practices-for-using-the-rest-api
        """
        tag, content = self._tags.get(path, ("", None))
        status, text = self.ask("GET", path, timeout=timeout, tag=tag)
        if status == 304:
            return content
        if status != 200:
            raise Unexpected(status, path)
        content = json.loads(text)
        self._tags[path] = self.headers.get("ETag", ""), content
        return content

    def retire(self, child: Optional[Child]) -> bool:
        """Adds a label, so that no launch counts on the runner; the response has all labels."""
        path = self._listed % self._id() + "/labels"
        return not self.is_claimed(
            "POST", path, {"labels": ["cml-claim-leaving-%d" % (self.now() + LEAVING)]}
        )

    def _remove(self, runner: int, timeout: float) -> Tuple[int, str]:
        return self.ask("DELETE", self._listed % runner, None, timeout)

    # --- restarting

    def waiting(self) -> Optional[Tuple[str, int, Optional[int]]]:
        run = self._spec.launch_run
        return ("", run, None) if run and policy.waits_for(self._whole(run), *self._own) else None

    @property
    def _own(self) -> Tuple[str, Tuple[str, ...]]:
        return self._spec.name, self._spec.labels

    def last(self, attempt: Optional[int], reason: Reason) -> str:
        limit = self._spec.restart_limit
        return policy.over(attempt, limit, reason.restarts) if limit and attempt else ""

    def end(self, job: Tuple[str, int, Optional[int]], restarts: int) -> bool:
        if not self._spec.restart_limit or job[0] and not self._serves(job[0]):
            return False
        self._repository = job[0] or self._repository
        self._restart = policy.Restart(self, job, self._spec)
        try:
            return self._restart.end(restarts)
        except Exception:  # tried again by `restart`
            return False

    def restart(self, job: Tuple[str, int, Optional[int]], plan: Leaving) -> str:
        """A job can fake the line by which it was reported, so this restarts only a run that has
        a job on this runner, in a repository that this runner serves. What the launcher wrote
        has no repository."""
        repository = job[0]
        if repository and not self._serves(repository):
            return "not restarted: this runner does not serve %r" % repository
        if not self._spec.restart_limit:
            return super().restart(job, plan)
        self._repository = repository or self._repository
        return (self._restart or policy.Restart(self, job, self._spec)).restart(plan)

    def inherit(self, stays: bool, seconds: float) -> str:
        if not (self._spec.launch_run and self._spec.restart_limit):
            return ""
        what = inheriting.inherit(self, self._spec, stays, seconds)
        self.claimed = stays and what == policy.FAILED_JOBS
        return what

    def hand_over(self, run: policy.Run, launch: int) -> str:
        """Leaves a mark from which the last machine of the run learns that a job was lost, of
        which launch job. Returns who restarts it."""
        mark = "cml-lost-%d-%d" % (run.attempt, launch)
        body = {
            "name": HANDED_OVER % run.id,
            "runner_group_id": 1,
            "labels": [mark],
            "work_folder": "_work",
        }
        list_path = self._listed.replace("/%d", "")
        status = self.ask("POST", list_path + "/generate-jitconfig", body)[0]
        if status == 409:
            handed = self._handed_over(run.id)
            path = self._listed % handed["id"] if handed else list_path
            status = self.ask("POST", path + "/labels", {"labels": [mark]})[0]
        if status in (200, 201):
            return "the last machine of the run restarts it"
        return "only the `restart` workflow can restart it"

    def handed_over(self, run: policy.Run) -> Set[int]:
        """The ids of the launch jobs whose machines have handed their jobs over."""
        handed = self._handed_over(run.id) or {"labels": ()}
        marks = [label["name"].split("-")[2:] for label in handed["labels"]]
        return {int(mark[1]) for mark in marks if mark[0] == str(run.attempt)}

    def _handed_over(self, run_id: int) -> Any:
        path = "%s?name=%s" % (self._listed.replace("/%d", ""), HANDED_OVER % run_id)
        runners = self.get(path)["runners"]
        return next((one for one in runners if one["name"] == HANDED_OVER % run_id), None)

    def take_back(self, run_id: int) -> None:
        handed = self._handed_over(run_id)
        if handed:
            self.ask("DELETE", self._listed % handed["id"])

    def _serves(self, repository: str) -> bool:
        if not re.fullmatch(r"[\w.-]+/\w[\w.-]*", repository):
            return False
        place = self._place.lower()
        return place.startswith("enterprises/") or place in (
            repository.lower(),
            repository.lower().split("/")[0],
        )

    def run(self, run_id: int) -> policy.Run:
        """The run without its jobs."""
        run = self.get(self._path("runs/%d", run_id))
        created = calendar.timegm(time.strptime(run["created_at"], "%Y-%m-%dT%H:%M:%SZ"))
        return policy.Run(
            run_id, run["run_attempt"], run["status"] == "completed", self.now() - created
        )

    def _whole(self, run_id: int) -> policy.Run:
        return dataclasses.replace(self.run(run_id), jobs=self.jobs(run_id))

    def jobs(self, run_id: int) -> Tuple[policy.Job, ...]:
        path = self._path("runs/%d", run_id)
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
        return tuple(jobs)

    def rivals(self, run_id: int) -> Iterator[int]:
        """The runs that run or wait in the concurrency groups of this one, itself included."""
        path = self._path("runs/%d/concurrency_groups?per_page=100", run_id)
        for group in self.get(path)["concurrency_groups"]:
            path = self._path("concurrency_groups/%s", quote(group["group_name"], ""))
            try:
                yield from (member["run_id"] for member in self.get(path)["group_members"])
            except Unexpected as error:
                if error.status != 404:  # nothing is in it
                    raise

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
