"""A stand-in for gitlab-runner 19.4 `run-single`: its command line, configuration, JSON log, API
and signals.

Runs on the machine as `gitlab-runner`: standard library only, any Python from 3.9. From
commands/single.go: after SIGQUIT it ends when its job has; after SIGINT or SIGTERM it aborts the
job, which fails for the system's sake; idle, it looks up every three seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

CHECK_SECONDS = 0.5
"""Between two questions for a job; three in the real one."""
REPORT_SECONDS = 0.3


def log(level: str, text: str, **fields: Any) -> None:
    print(
        json.dumps(
            {
                **fields,
                "level": level,
                "msg": text,
                "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            }
        ),
        file=sys.stderr,
        flush=True,
    )


def configuration(path: Path, name: str) -> dict[str, Any]:
    """The runner of that name. Reads only the TOML that is JSON too."""
    found: dict[str, Any] = {}
    table = found
    for line in path.read_text("utf-8").splitlines():
        if line == "[[runners]]":
            found = table = {}
        elif line.startswith("[runners."):
            table = found.setdefault(line[9:-1], {})
        elif " = " in line:
            key, _, value = line.partition(" = ")
            table[key] = json.loads(value)
    if found.get("name") != name:
        log("fatal", "Error loading runner by name: could not find a runner with the name " + name)
        sys.exit(1)
    return found


class Runner:
    """Asks for jobs and runs them, one at a time."""

    def __init__(self, config: dict[str, Any], builds: int) -> None:
        self.config = config
        self.builds = builds
        self.forever = not builds
        self.finished = self.aborted = False
        self.step: subprocess.Popen[bytes] | None = None
        for number in (signal.SIGQUIT, signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self.asked)

    def asked(self, number: int, _: object) -> None:
        self.finished = True
        if number == signal.SIGQUIT:
            log("warning", "Requested quit, waiting for builds to finish")
            return
        log("warning", "Requested exit: interrupt")
        self.aborted = True
        self.end_step()

    def call(
        self, method: str, path: str, body: bytes, headers: dict[str, str]
    ) -> tuple[int, str, bytes]:
        """Status, the job's status as GitLab knows it, and text."""
        asked = urllib.request.Request(
            self.config["url"] + "/api/v4" + path, body, headers, method=method
        )
        try:
            with urllib.request.urlopen(asked, timeout=60) as answer:
                return answer.status, answer.headers.get("Job-Status", ""), answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.headers.get("Job-Status", ""), error.read()
        except OSError:
            return 0, "", b""

    def tell(self, method: str, path: str, told: dict[str, Any]) -> tuple[int, str, bytes]:
        return self.call(
            method, path, json.dumps(told).encode(), {"Content-Type": "application/json"}
        )

    def run(self) -> int:
        log(
            "info",
            "Starting runner for %s with token %s ..."
            % (self.config["url"], self.config["token"][:8]),
        )
        while not self.finished:
            status, _, text = self.tell(
                "POST",
                "/jobs/request",
                {
                    "token": self.config["token"],
                    "info": {"name": "gitlab-runner", "version": "19.4.0"},
                },
            )
            if status == 201:
                self.work(json.loads(text))
                self.builds -= 1
            elif status == 403:
                log(
                    "error",
                    "Checking for jobs... forbidden",
                    runner=self.config["token"][:8],
                    status="POST /api/v4/jobs/request: 403 Forbidden",
                )
            elif status != 204:
                log("warning", "Checking for jobs... failed", status="status %d" % status)
            if status != 201 and not self.aborted:
                time.sleep(CHECK_SECONDS)
            if self.builds < 1 and not self.forever:
                log("info", "This runner has processed its build limit, so now exiting")
                self.finished = True
        return 0

    def start(self, job: dict[str, Any]) -> subprocess.Popen[bytes]:
        """Whatever the executor, jobs run in this shell."""
        builds = Path(self.config.get("builds_dir", "builds"))
        builds.mkdir(parents=True, exist_ok=True)
        env = {**os.environ, **dict(text.split("=", 1) for text in self.config["environment"])}
        env.update((one["key"], one["value"]) for one in job["variables"])
        script = "\n".join(["set -e", *(line for step in job["steps"] for line in step["script"])])
        return subprocess.Popen(
            [self.config.get("shell", "bash"), "-c", script],
            cwd=str(builds),
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def why(self, code: int, cancelled: bool) -> tuple[str, str]:
        """Why a job failed: in the log's words, and as GitLab's API calls it."""
        if self.aborted:
            return "aborted: interrupt", "runner_system_failure"
        if cancelled:
            return "canceled", "job_canceled"
        return "exit status %d" % code, "script_failure"

    def work(self, job: dict[str, Any]) -> None:
        number = job["id"]
        about = {
            "job": job["id"],
            "project": job["job_info"]["project_id"],
            "runner": self.config["token"][:8],
        }
        log("info", "Checking for jobs... received", repo_url=job["git_info"]["repo_url"], **about)
        self.tell("PUT", "/jobs/%d" % number, {"token": job["token"], "state": "running"})
        said: list[bytes] = []
        self.step = self.start(job)
        if self.aborted:
            self.end_step()
        threading.Thread(
            target=lambda out: said.extend(out), args=(self.step.stdout,), daemon=True
        ).start()
        cancelled = self.watch(job, said)
        code = self.step.wait()
        why, reason = self.why(code, cancelled)
        ended = {"token": job["token"], "state": "failed" if code or cancelled else "success"}
        if ended["state"] == "failed":
            ended.update(failure_reason=reason)
        self.report(job, said)
        for _ in range(10):
            if self.tell("PUT", "/jobs/%d" % number, ended)[0]:
                break
            time.sleep(0.5)
        if ended["state"] == "success":
            log("info", "Job succeeded", **{"job-status": "success"}, duration_s=1, **about)
        else:
            told = "Job failed (system failure): " if self.aborted else "Job failed: "
            log(
                "warning",
                told + why,
                **{"job-status": "failed"},
                failure_reason=reason,
                duration_s=1,
                **about,
            )

    def watch(self, job: dict[str, Any], said: list[bytes]) -> bool:
        """Until the script ends; whether the job was cancelled."""
        cancelled = False
        assert self.step is not None
        while self.step.poll() is None:
            if self.report(job, said) in ("canceling", "canceled") and not cancelled:
                cancelled = True
                self.end_step()
            time.sleep(REPORT_SECONDS)
        return cancelled

    def report(self, job: dict[str, Any], said: list[bytes]) -> str:
        new = b"".join(said)
        said[:] = []
        return self.call(
            "PATCH",
            "/jobs/%d/trace" % job["id"],
            new,
            {"JOB-TOKEN": job["token"], "Content-Type": "text/plain"},
        )[1]

    def end_step(self) -> None:
        if self.step and self.step.poll() is None:
            os.killpg(self.step.pid, signal.SIGKILL)


def main(argv: list[str]) -> int:
    options = argparse.ArgumentParser(prog="gitlab-runner", allow_abbrev=False)
    options.add_argument("--log-format", choices=["runner", "text", "json"])
    single = options.add_subparsers(dest="command", required=True).add_parser("run-single")
    single.add_argument("--config", "-c", type=Path, required=True)
    single.add_argument("--runner", "-r", required=True)
    single.add_argument("--max-builds", type=int, default=0)
    given = options.parse_args(argv)
    return Runner(configuration(given.config, given.runner), given.max_builds).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
