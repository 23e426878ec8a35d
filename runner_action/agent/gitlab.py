"""A GitLab runner: runs gitlab-runner, recognizes its jobs, deregisters. With an API token it can
also do what is in `gitlab_token.py`."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple
from urllib.parse import urlsplit

from . import room
from .events import Event, JobFinished, JobStarted, Online, RunnerExited, Settled
from .forge import Member
from .lifecycle import GONE
from .process import Child, named, run_to_end, session

IMAGE = "ubuntu:24.04"
"""The image of jobs that name none, where there is Docker."""
STARTED = "Starting runner for"
RECEIVED = "Checking for jobs... received"
FORBIDDEN = "Checking for jobs... forbidden"
ENDED = ("Job succeeded", "Job failed")
BROKEN = "Failed to process build"
"""Messages of gitlab-runner (commands/single.go, network/gitlab.go, common/build.go). The last one
follows a failed job, or is all that is said about one that could not be begun."""
SUBMITTING, OVER = "Submitting", ("success", "failed")
"""GitLab knows of a job's end only when it has answered so, which may take minutes (`finalUpdate`
in network/trace.go; `Job-Status` in GitLab's lib/api/ci/runner.rb). A job that is cancelled while
it runs is BROKEN."""
PROGRESS = "coordinator..."
"""In its messages about a job's log. GitLab asks for one every 3 or 60 s, even if there is nothing
new; they also come if GitLab cannot be reached (network/trace.go)."""
QUIET = 720.0
"""Seconds without one after which they say nothing more of a job: a request can hang for ten
minutes (ResponseHeaderTimeout in network/client.go)."""
RUNNING = "[ -e running ] || timeout 9 docker ps -q >running 2>/dev/null || rm running"
REMOVE = """timeout 9 docker ps --format '{{.CreatedAt}} {{.ID}} {{.Labels}}' 2>/dev/null |
grep -v gitlab-runner.managed=true | awk '$1" "$2<ENVIRON["END"]{print $5}' |
grep -vxFf running | xargs -r timeout 60 docker rm -f"""
"""Lists the containers that run before the first job; removes those that jobs left running. What
gitlab-runner itself starts has this label, in some versions with a prefix too many
(https://gitlab.com/gitlab-org/gitlab-runner/-/issues/38674). `END`: when the job ended, in the
machine's time: the next job may already have started some. A Docker that hangs must not hold up the
runner, and what could not be listed then is not removed."""
PIDS = """[ -f config.toml ] &&
timeout 9 grep -q '^executor = "docker"' config.toml 2>/dev/null || exit 0
ids=$(timeout 9 docker ps -q --filter label=com.gitlab.gitlab-runner.job.id=$JOB) || exit
[ -z "$ids" ] || timeout 9 docker inspect -f {{.State.Pid}} $ids"""
"""Lists the pids of the containers of job JOB (executors/docker/internal/labels/labels.go). A job
may have put something else in the place of the configuration."""
QUIT_SECONDS = 3.0
"""Seconds for an idle gitlab-runner to quit; it may be in a long poll."""


class Forge(Member):
    """`folder` holds gitlab-runner."""

    credentials = "PRIVATE-TOKEN", "%s"
    unpack = "cat >gitlab-runner && chmod 755 gitlab-runner"
    _job: Tuple[str, int] = "", 0
    _retired = False
    _ended = False
    """Whether its log has said how the job ended. GitLab may know better by then, as when a person
    has cancelled it; before 16.9 it does not say so."""
    _end = ""
    _told = 0.0
    """When its log last spoke of a job, as `time.monotonic()`."""

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
        descriptor, fresh = tempfile.mkstemp(dir=str(self._folder))
        with open(descriptor, "w", encoding="utf-8") as file:
            if self._identity:
                os.fchown(file.fileno(), self._identity["user"], self._identity["group"])
            file.write(toml(self.config(bool(docker))))
        os.replace(fresh, str(self._folder / "config.toml"))
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
            "pre_build_script": spec.pre_build_script,
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
            self._sh(script)

    def _sh(self, script: str, echo: Any = None) -> Optional[str]:
        env = {**self._env, "END": self._end, "JOB": "%d" % self._job[1]}
        return run_to_end(["sh", "-c", script], self._folder, env, 80, echo=echo, **self._identity)

    def tidy(self) -> None:
        self._containers(REMOVE)

    # --- its jobs

    def hook(self, words: List[str], at: float, born: float) -> List[Event]:
        return []  # jobs are read from the runner's own log

    def heard(self, line: str, at: float) -> List[Event]:
        try:
            return self._events(json.loads(line), at)
        except Exception:  # not gitlab-runner's own line, or nobody confirms what it says
            return []

    def _events(self, entry: Dict[str, Any], at: float) -> List[Event]:
        """The events that an entry of gitlab-runner's log means."""
        message = entry["msg"]
        if message.startswith(RECEIVED) or PROGRESS in message:
            # After `… job failed`, GitLab wants no more of the job.
            self._told = -QUIET if message.endswith("job failed") else at
        if message.startswith(STARTED):
            return [Online(at)]
        if message.startswith(FORBIDDEN):
            # gitlab-runner asks again itself, after five minutes. The time is short, since a runner
            # that is deregistered while it leaves says this too.
            gone, _ = self._call("POST", "/runners/verify", 5)
            return [RunnerExited(at, 1, True)] if gone else []
        if message.startswith(BROKEN):
            return [Settled(at)]
        if message.startswith(RECEIVED):
            base = urlsplit(self._spec.api_url).path.rsplit("/api/", 1)[0]
            project = urlsplit(entry.get("repo_url", "")).path[len(base) :].strip("/")
            self._ended = False
            self._job = project[:-4] if project.endswith(".git") else project, int(entry["job"])
            # GitLab has no limit besides the job's `timeout`, after which the job has failed.
            return [JobStarted(at, self._name(), float("inf"), ref=(*self._job, None))]
        if message.startswith(SUBMITTING):
            status = entry.get("job-status")
            final = self._ended and status != "running" and entry["code"] in (200, 403, 404)
            return [Settled(at)] if final or status in OVER else []
        if not message.startswith(ENDED) or "job" not in entry:
            return []
        self._ended = True
        self._end = str(entry.get("time"))[:19].replace("T", " ")
        return [JobFinished(at, self._name())]

    def _name(self) -> str:
        return "%d of %s" % (self._job[1], self._job[0])

    def works(self, leader: int) -> bool:
        """Whether the machine shows that its runner has a job: by the runner's log, which also
        speaks while an image is pulled, or by what the runner has started."""
        if time.monotonic() - self._told < QUIET:
            return True
        return self._pids(leader) != []

    def outputs(self, leader: int) -> List[int]:
        """The pids of processes whose standard output is the job's log."""
        return self._pids(leader) or []

    def _pids(self, leader: int) -> Optional[List[int]]:
        """Those of the job's shell, a child of gitlab-runner, and of the first processes of its
        containers; None if Docker does not answer. The Docker beside a pod has other pids."""
        alive = session(leader)
        runners = named(b"run-single", {*alive, *alive.values()})
        pids = [pid for pid in alive if alive[pid] in runners and pid not in runners]
        lines: List[str] = []
        if self._spec.cloud != "kubernetes" and self._sh(PIDS, lines.append):
            return None
        return pids + [int(line) for line in lines if line.isdigit()]

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
        # By what came last: a failed job has two such lines, and one that GitLab takes back at
        # once has none (`processBuild` in commands/single.go).
        over = (text.rfind('"msg":"' + words) for words in (STARTED, *ENDED, BROKEN))
        self._retired = text.rfind(RECEIVED) > max(over)
        return not self._retired

    # --- leaving

    def _call(self, method: str, path: str, timeout: float) -> Tuple[bool, int]:
        """A call with the runner's own token, which can do nothing else. Returns whether GitLab
        says that it does not know the runner, and the status. What stands in front of GitLab may
        answer 403 too, but not in its words. Raises OSError.
        https://docs.gitlab.com/api/runners/#verify-authentication-for-a-registered-runner"""
        status, text = self.ask(method, path, {"token": self._spec.runner_token}, timeout)
        return status == 403 and '"403 Forbidden' in text, status

    def leave(self, timeout: float = 10) -> str:
        try:
            unknown, status = self._call("DELETE", "/runners", timeout)
        except Exception as error:
            return "%s: %s" % (type(error).__name__, error)
        return GONE if unknown or status in (204, 404) else "HTTP %d" % status


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
