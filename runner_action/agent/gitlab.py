"""What a machine must do to be a GitLab runner: join with gitlab-runner, know its jobs, leave the list, retry jobs."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple
from urllib.parse import quote, urlsplit

from . import restart as policy
from . import room
from .events import Event, JobFinished, JobStarted, Online, RunnerExited, Settled
from .forge import Member
from .lifecycle import GONE, Leaving
from .process import Child, run_to_end

IMAGE = "ubuntu:24.04"
"""For jobs that name none, where there is Docker."""
STARTED, RECEIVED, FORBIDDEN, ENDED = "Starting runner for", "Checking for jobs... received", "Checking for jobs... forbidden", ("Job succeeded", "Job failed")
"""Messages of gitlab-runner (commands/single.go, network/gitlab.go, common/build.go)."""
QUIT_SECONDS = 3.0
FORCE = {"force": True}


class Forge(Member):
    """`folder` holds gitlab-runner."""

    credentials = "PRIVATE-TOKEN", "%s"
    _job: Tuple[str, int] = "", 0
    _retired = False

    @property
    def command(self) -> Tuple[str, ...]:  # type: ignore[override]
        argv = ("./gitlab-runner", "--log-format", "json", "run-single", "--config", "config.toml", "--runner", self._spec.name)
        return argv + (("--max-builds", "1") if self._spec.single else ())

    def join(self) -> Optional[str]:
        """The launcher has made the runner; its token is all there is to joining."""
        return None

    def environment(self, hooks: Path, events: Path) -> Dict[str, str]:
        docker = shutil.which("docker", path=self._env.get("PATH")) and run_to_end(["docker", "info"], self._folder, self._env, 20, **self._identity) is None
        config = self._folder / "config.toml"
        config.touch(0o600)
        if self._identity:
            shutil.chown(str(config), self._identity["user"], self._identity["group"])
        config.write_text(toml(self.config(bool(docker))), "utf-8")
        return dict(self._env)

    def config(self, docker: bool, sysfs: Path = Path("/sys")) -> Dict[str, Any]:
        """https://docs.gitlab.com/runner/configuration/advanced-configuration/"""
        spec = self._spec
        runner: Dict[str, Any] = {
            "name": spec.name,
            "url": spec.api_url.rsplit("/api/", 1)[0],
            "token": spec.runner_token,
            "executor": "docker" if docker else "shell",
            "environment": ["%s=%s" % pair for pair in spec.environment.items()],
        }
        namespace = self._env.get("CML_RUNNER_NAMESPACE")
        if namespace:  # a pod, which may make others there
            return {**runner, "executor": "kubernetes", "kubernetes": {"namespace": namespace, "image": IMAGE}}
        if not docker:
            return {**runner, "shell": "bash", "builds_dir": str(self._folder / "builds"), "cache_dir": str(self._folder / "cache")}
        volumes = ["/cache", *spec.docker_volumes]
        # The Docker beside a pod has none of its node's.
        gpus = {"gpus": "all"} if spec.cloud != "kubernetes" and room.gpu(sysfs) else {}
        return {**runner, "docker": {"image": IMAGE, "volumes": volumes, **gpus}}

    # --- its jobs

    def hook(self, words: List[str], at: float, born: float) -> List[Event]:
        return []  # its own log tells of jobs

    def heard(self, line: str, at: float) -> List[Event]:
        try:
            return self._meant(json.loads(line), at)
        except (ValueError, TypeError, KeyError, AttributeError):  # another's line
            return []

    def _meant(self, told: Dict[str, Any], at: float) -> List[Event]:
        said = told["msg"]
        if said.startswith(STARTED):
            return [Online(at)]
        if said.startswith(FORBIDDEN):
            return [RunnerExited(at, 1, True)]
        if said.startswith(RECEIVED):
            base = urlsplit(self._spec.api_url).path.rsplit("/api/", 1)[0]
            project = urlsplit(told.get("repo_url", "")).path[len(base) :].strip("/")
            self._job = project[:-4] if project.endswith(".git") else project, int(told["job"])
            # GitLab has no limit of its own: a job that takes longer than its `timeout` has failed by itself.
            return [JobStarted(at, self._name(), float("inf"), ref=(*self._job, None))]
        return [JobFinished(at, self._name()), Settled(at)] if said.startswith(ENDED) and "job" in told else []

    def _name(self) -> str:
        return "%d of %s" % (self._job[1], self._job[0])

    def ended(self, code: int) -> Tuple[int, bool]:
        """A runner that was asked to quit and then had a job is started anew, as actions/runner's code 2 asks for."""
        retired, self._retired = self._retired, False
        return (2 if retired else 1 if code else 0), False

    def retire(self, child: Optional[Child]) -> bool:
        """SIGQUIT: it ends after the job it may just have been given. It may also sit in a long poll, which is no job."""
        path = "/runners/%s" % self._spec.runner_id
        if child is None:
            return not self.is_claimed("PUT", path, {"paused": True})
        if child.quit(QUIT_SECONDS):
            # Asked last, so that next to no time lies between answer and end; if claimed, gitlab-runner is started anew.
            self._retired = self.is_claimed("GET", path)
            return not self._retired
        text = (self._folder.parent / "runner.log").read_text("utf-8", "replace")
        self._retired = text.count(RECEIVED) > text.count('"job-status"')
        return not self._retired

    # --- leaving

    def leave(self, timeout: float = 10) -> str:
        """With the runner's own token, which is good for nothing else; 403 says that GitLab does not know it any more."""
        try:
            status, _ = self.ask("DELETE", "/runners", {"token": self._spec.runner_token}, timeout)
        except Exception as error:
            return "%s: %s" % (type(error).__name__, error)
        return GONE if status in (204, 403, 404) else "HTTP %d" % status

    # --- restarting

    def waiting(self) -> Optional[Tuple[str, int, Optional[int]]]:
        spec = self._spec
        if not spec.launch_run or not spec.launch_job:
            return None
        pending = [one for one in self._jobs(spec.launch_project, spec.launch_run) if one["status"] == "pending"]
        return (spec.launch_project, spec.launch_job, None) if any(set(one["tag_list"]).intersection(spec.labels) for one in pending) else None

    def restart(self, job: Tuple[str, int, Optional[int]], plan: Leaving) -> str:
        """The launch job first, so that there is a machine, then the job; never more."""
        (project, number, _), began, why, asked = job, time.monotonic(), "no answer", 0
        if not self._spec.restart_limit:
            return "not restarted: restarting is switched off"
        while time.monotonic() - began < plan.restart:
            waited = time.monotonic() - began
            try:
                told = self.get("%s/jobs/%d" % (_project(project), number))
                jobs = self._jobs(project, told["pipeline"]["id"])
                verdict = policy.tried(number, [one["id"] for one in jobs if one["name"] == told["name"]], self._spec.restart_limit, plan.restarts)
                if verdict:
                    return "not restarted: " + verdict
                if told["status"] in ("failed", "canceled") or number == self._spec.launch_job:
                    return self._retry(project, told, jobs)
                if told["status"] == "success":
                    return "not restarted: the job ended well in time"
                if asked < (waited >= plan.gentle) + (waited >= plan.restart / 2):
                    asked += 1
                    self.ask("POST", "%s/jobs/%d/cancel" % (_project(project), number), FORCE if asked == 2 else {})
                why = "the job did not end"
            except Exception as error:  # the forge may be back in a moment
                why = "%s: %s" % (type(error).__name__, error)
            time.sleep(policy.LOOK)
        return "not restarted: " + why

    def _retry(self, project: str, job: Dict[str, Any], jobs: List[Dict[str, Any]]) -> str:
        spec = self._spec
        done: List[str] = []
        refused: List[str] = []
        launches = [one for one in jobs if spec.launch_job and project == spec.launch_project and one["name"] == spec.launch_job_name]
        latest = max(launches, key=lambda one: int(one["id"]), default=None)
        again = [latest] if latest and latest["status"] in ("success", "failed", "canceled") else []
        for one in [*again, *([job] if not latest or job["name"] != latest["name"] else [])]:
            no = self.post("%s/jobs/%d/retry" % (_project(project), one["id"]))
            (refused if no else done).append(one["name"] + (": " + no if no else ""))
        return " and ".join(done) + (" (" + "; ".join(refused) + ")" if refused else "") if done else "not restarted: " + "; ".join(refused)

    def _jobs(self, project: str, pipeline: int) -> List[Dict[str, Any]]:
        """All tries of all jobs of a pipeline."""
        found: List[Dict[str, Any]] = []
        page = 1
        while len(found) == (page - 1) * 100:
            found += self.get("%s/pipelines/%d/jobs?include_retried=true&per_page=100&page=%d" % (_project(project), pipeline, page))
            page += 1
        return found


def _project(path: str) -> str:
    return "/projects/" + quote(path, "")


def toml(runner: Dict[str, Any]) -> str:
    """One runner's configuration; JSON's strings, numbers and lists are TOML's."""

    def lines(table: Dict[str, Any]) -> List[str]:
        return ["%s = %s" % (key, json.dumps(value, ensure_ascii=False)) for key, value in table.items() if not isinstance(value, dict)]

    tables = [["[runners.%s]" % name, *lines(table)] for name, table in runner.items() if isinstance(table, dict)]
    return "\n".join(["concurrent = 1", "[[runners]]", *lines(runner), *(line for table in tables for line in table)]) + "\n"
