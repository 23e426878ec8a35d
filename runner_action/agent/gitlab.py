"""A GitLab runner: runs gitlab-runner, recognizes its jobs, deregisters. With an API token it can
also do what is in `gitlab_token.py`."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple
from urllib.parse import urlsplit

from . import room
from .events import Event, JobFinished, JobStarted, Online, RunnerExited, Settled
from .forge import Member
from .lifecycle import GONE
from .process import Child, run_to_end

IMAGE = "ubuntu:24.04"
"""The image of jobs that name none, where there is Docker."""
STARTED = "Starting runner for"
RECEIVED = "Checking for jobs... received"
FORBIDDEN = "Checking for jobs... forbidden"
ENDED = ("Job succeeded", "Job failed")
"""Messages of gitlab-runner (commands/single.go, network/gitlab.go, common/build.go)."""
RUNNING = "[ -e running ] || timeout 9 docker ps -q >running 2>/dev/null"
REMOVE = """timeout 9 docker ps --format '{{.CreatedAt}} {{.ID}} {{.Labels}}' 2>/dev/null |
grep -v gitlab-runner.managed=true | awk '$1" "$2<ENVIRON["END"]{print $5}' |
grep -vxFf running | xargs -r timeout 60 docker rm -f"""
"""Lists the containers that run before the first job; removes those that jobs left running. What
gitlab-runner itself starts has this label, in some versions with a prefix too many
(https://gitlab.com/gitlab-org/gitlab-runner/-/issues/38674). `END`: when the job ended, in the
machine's time: the next job may already have started some. A Docker that hangs must not hold up the
runner."""
QUIT_SECONDS = 3.0
"""Seconds for an idle gitlab-runner to quit; it may be in a long poll."""


class Forge(Member):
    """`folder` holds gitlab-runner."""

    credentials = "PRIVATE-TOKEN", "%s"
    _job: Tuple[str, int] = "", 0
    _retired = False
    _end = ""

    @property
    def command(self) -> Tuple[str, ...]:  # type: ignore[override]
        argv = (
            "./gitlab-runner",
            "--log-format",
            "json",
            "run-single",
            "--config",
            "config.toml",
            "--runner",
            self._spec.name,
        )
        return argv + (("--max-builds", "1") if self._spec.single else ())

    def join(self) -> Optional[str]:
        """Nothing to do: the launcher has created the runner, and the spec has its token."""
        return None

    def environment(self, hooks: Path, events: Path) -> Dict[str, str]:
        chosen = self._spec.executor
        docker = chosen != "shell" and (
            shutil.which("docker", path=self._env.get("PATH"))
            and run_to_end(["docker", "info"], self._folder, self._env, 20, **self._identity)
            is None
        )
        if chosen == "docker" and not docker:
            raise OSError("`gitlab-executor: docker`, but Docker does not work for the jobs' user")
        # The folder belongs to the job user, and jobs may have put anything there: so write a new
        # file and move it into place.
        fresh = self._folder / ("config-" + os.urandom(8).hex())
        with open(
            os.open(str(fresh), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w", encoding="utf-8"
        ) as file:
            if self._identity:
                os.fchown(file.fileno(), self._identity["user"], self._identity["group"])
            file.write(toml(self.config(bool(docker))))
        fresh.replace(self._folder / "config.toml")
        self._containers(RUNNING)
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
        if namespace:  # a pod that may create pods in this namespace
            return {
                **runner,
                "executor": "kubernetes",
                "kubernetes": {"namespace": namespace, "image": IMAGE},
            }
        if not docker:
            return {
                **runner,
                "shell": "bash",
                "builds_dir": str(self._folder / "builds"),
                "cache_dir": str(self._folder / "cache"),
            }
        docker_: Dict[str, Any] = {"image": IMAGE, "volumes": ["/cache", *spec.docker_volumes]}
        if spec.privileged:
            docker_["privileged"] = True
        # Docker beside a pod has none of the node's GPUs.
        if spec.cloud != "kubernetes" and room.gpu(sysfs):
            # PyTorch's loaders share memory; Docker's default is 64 MB. Bytes.
            memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
            docker_.update(gpus="all", shm_size=memory // 2)
        return {**runner, "docker": docker_}

    def _containers(self, script: str) -> None:
        """Only on a machine of a cloud: elsewhere others may have started some."""
        if self._spec.cloud not in ("", "kubernetes"):
            env = {**self._env, "END": self._end}
            run_to_end(["sh", "-c", script], self._folder, env, 80, **self._identity)

    def tidy(self) -> None:
        self._containers(REMOVE)

    # --- its jobs

    def hook(self, words: List[str], at: float, born: float) -> List[Event]:
        return []  # jobs are read from the runner's own log

    def heard(self, line: str, at: float) -> List[Event]:
        try:
            return self._events(json.loads(line), at)
        except (ValueError, TypeError, KeyError, AttributeError):  # not gitlab-runner's own line
            return []

    def _events(self, entry: Dict[str, Any], at: float) -> List[Event]:
        """The events that an entry of gitlab-runner's log means."""
        message = entry["msg"]
        if message.startswith(STARTED):
            return [Online(at)]
        if message.startswith(FORBIDDEN):
            return [RunnerExited(at, 1, True)]
        if message.startswith(RECEIVED):
            base = urlsplit(self._spec.api_url).path.rsplit("/api/", 1)[0]
            project = urlsplit(entry.get("repo_url", "")).path[len(base) :].strip("/")
            self._job = project[:-4] if project.endswith(".git") else project, int(entry["job"])
            # GitLab has no limit besides the job's `timeout`, after which the job has failed.
            return [JobStarted(at, self._name(), float("inf"), ref=(*self._job, None))]
        if not message.startswith(ENDED) or "job" not in entry:
            return []
        self._end = str(entry.get("time"))[:19].replace("T", " ")
        return [JobFinished(at, self._name()), Settled(at)]

    def _name(self) -> str:
        return "%d of %s" % (self._job[1], self._job[0])

    def ended(self, code: int) -> Tuple[int, bool]:
        """A runner that was told to quit but had to stay is started again: this is code 2 of
        actions/runner."""
        retired = self._retired
        self._retired = False
        if retired:
            return 2, False
        return (1 if code else 0), False

    def retire(self, child: Optional[Child]) -> bool:
        """Sends SIGQUIT, on which gitlab-runner exits after the job that it may just have been
        given, or after its long poll."""
        path = "/runners/%s" % self._spec.runner_id
        if child is None:
            return not self.is_claimed("PUT", path, {"paused": True})
        if child.quit(QUIT_SECONDS):
            # Checked last, so that hardly any time passes between the answer and the end. If there
            # is a claim, gitlab-runner is started again.
            self._retired = self.is_claimed("GET", path)
            return not self._retired
        text = (self._folder.parent / "runner.log").read_text("utf-8", "replace")
        # Not by `job-status`, which is in each line about a job's log.
        ended = sum(text.count('"msg":"' + words) for words in ENDED)
        self._retired = text.count(RECEIVED) > ended
        return not self._retired

    # --- leaving

    def leave(self, timeout: float = 10) -> str:
        """Uses the runner's own token, which can do nothing else. 403 means that GitLab no longer
        knows it."""
        try:
            status, _ = self.ask("DELETE", "/runners", {"token": self._spec.runner_token}, timeout)
        except Exception as error:
            return "%s: %s" % (type(error).__name__, error)
        return GONE if status in (204, 403, 404) else "HTTP %d" % status


def toml(runner: Dict[str, Any]) -> str:
    """The configuration of one runner as TOML, whose strings, numbers and lists are JSON's."""

    def lines(table: Dict[str, Any]) -> List[str]:
        return [
            "%s = %s" % (key, json.dumps(value, ensure_ascii=False))
            for key, value in table.items()
            if not isinstance(value, dict)
        ]

    tables = [
        ["[runners.%s]" % name, *lines(table)]
        for name, table in runner.items()
        if isinstance(table, dict)
    ]
    return (
        "\n".join(
            [
                "concurrent = 1",
                "[[runners]]",
                *lines(runner),
                *(line for table in tables for line in table),
            ]
        )
        + "\n"
    )
