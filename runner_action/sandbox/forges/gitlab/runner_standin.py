"""A stand-in for gitlab-runner's `run-single` from 17.0 to 19.4, with its command line,
configuration, JSON log, API and signals.

It runs on the machine as `gitlab-runner`. Standard library only, Python 3.9 or later. From
commands/single.go: after SIGQUIT it exits when its job has ended; after SIGINT or SIGTERM it aborts
the job, which is a system failure; while idle it checks every three seconds. A job that GitLab
takes back as it is handed over ends without a word.
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

VERSION = "19.4.0"
"""The embedded GitLab serves one of each release (`sandbox/forges/gitlab/releases.py`)."""
NUMBER = tuple(int(part) for part in VERSION.split("."))
WITH_CONFIG = (17, 1, 0)
WITH_HAND_OVER = (18, 5, 0)
WITH_STATUS = (18, 6, 0)
"""The first releases with `run-single --config`, with the check of a job as it is handed over, and
with `job-status` in the message about a job's end."""
CHECK_SECONDS = 0.5
"""Seconds between two requests for a job; gitlab-runner waits three."""
UNHEALTHY_SECONDS = 3.0
"""Seconds until it asks again after a refusal; gitlab-runner waits 300."""
REPORT_SECONDS = 0.3
TOUCH_SECONDS = 1.0
"""Seconds without new output until it tells GitLab that the job goes on; gitlab-runner waits 30."""


def log(level: str, text: str, **fields: Any) -> None:
    print(
        json.dumps(
            {
                **fields,
                "level": level,
                "msg": text,
                "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            },
            separators=(",", ":"),
        ),
        file=sys.stderr,
        flush=True,
    )


def configuration(path: Path, name: str) -> dict[str, Any]:
    """The configuration of the runner with that name. Reads only TOML whose values are JSON."""
    runner: dict[str, Any] = {}
    table = runner
    for line in path.read_text("utf-8").splitlines():
        if line == "[[runners]]":
            runner = table = {}
        elif line.startswith("[runners."):
            table = runner.setdefault(line[9:-1], {})
        elif " = " in line:
            key, _, value = line.partition(" = ")
            table[key] = json.loads(value)
    if runner.get("name") != name:
        log("fatal", "Error loading runner by name: could not find a runner with the name " + name)
        sys.exit(1)
    return runner


class Runner:
    """Requests jobs and runs them, one at a time."""

    def __init__(self, config: dict[str, Any], builds: int) -> None:
        self.config = config
        self.builds = builds
        self.forever = not builds
        self.finished = self.aborted = False
        self.step: subprocess.Popen[bytes] | None = None
        self.about: dict[str, Any] = {}
        for number in (signal.SIGQUIT, signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self.on_signal)

    def on_signal(self, number: int, _: object) -> None:
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
        """Sends a request. Returns status, the job's status at GitLab, and text."""
        request = urllib.request.Request(
            self.config["url"] + "/api/v4" + path, body, headers, method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return response.status, response.headers.get("Job-Status", ""), response.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.headers.get("Job-Status", ""), error.read()
        except OSError:
            return 0, "", b""

    def send(self, method: str, path: str, body: dict[str, Any]) -> tuple[int, str, bytes]:
        """The same with JSON."""
        headers = {"Content-Type": "application/json"}
        return self.call(method, path, json.dumps(body).encode(), headers)

    def run(self) -> int:
        log(
            "info",
            "Starting runner for %s with token %s ..."
            % (self.config["url"], self.config["token"][:8]),
        )
        while not self.finished:
            status, _, text = self.send(
                "POST",
                "/jobs/request",
                {
                    "token": self.config["token"],
                    "info": {"name": "gitlab-runner", "version": VERSION},
                },
            )
            if status == 201:
                self.process(json.loads(text))
            elif status == 403:
                log(
                    "error",
                    "Checking for jobs... forbidden",
                    runner=self.config["token"][:8],
                    status="POST /api/v4/jobs/request: 403 Forbidden",
                )
                log("info", "Runner is not healthy!")
                self.wait(UNHEALTHY_SECONDS)
            elif status != 204:
                log("warning", "Checking for jobs... failed", status="status %d" % status)
            if status != 201 and not self.aborted:
                self.wait(CHECK_SECONDS)
            if self.builds < 1 and not self.forever:
                log("info", "This runner has processed its build limit, so now exiting")
                self.finished = True
        return 0

    def wait(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end and not self.aborted:
            time.sleep(0.05)

    def start(self, job: dict[str, Any]) -> subprocess.Popen[bytes]:
        """Starts the job's script, in a shell whatever the executor is."""
        builds = Path(self.config.get("builds_dir", "builds"))
        builds.mkdir(parents=True, exist_ok=True)
        env = {**os.environ, **dict(text.split("=", 1) for text in self.config["environment"])}
        env.update((variable["key"], variable["value"]) for variable in job["variables"])
        script = "\n".join(["set -e", *(line for step in job["steps"] for line in step["script"])])
        return subprocess.Popen(
            [self.config.get("shell", "bash"), "-c", script],
            cwd=str(builds),
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            preexec_fn=os.setpgrp,  # of the same session (helpers/process/job_unix.go)
        )

    def why(self, code: int, cancelled: bool) -> tuple[str, str]:
        """Why a job failed: for the log, and as GitLab's API calls it."""
        if self.aborted:
            return "aborted: interrupt", "runner_system_failure"
        if cancelled:
            return "canceled", "job_canceled"
        return "exit status %d" % code, "script_failure"

    def process(self, job: dict[str, Any]) -> None:
        """`processBuild`. A job that has failed is an error to it as well."""
        self.about = {
            "job": job["id"],
            "project": job["job_info"]["project_id"],
            "runner": self.config["token"][:8],
        }
        repository = job["git_info"]["repo_url"]
        log("info", "Checking for jobs... received", repo_url=repository, **self.about)
        if "steps" not in job:
            log("error", "Failed to process build", error="no steps")
            return
        if NUMBER >= WITH_HAND_OVER and self.taken_back(job):
            return
        failed = self.work(job)
        self.builds -= 1
        if failed:
            log("error", "Failed to process build", error=failed)

    def taken_back(self, job: dict[str, Any]) -> bool:
        state = self.update(job, "running")
        if state in ("canceled", "failed"):
            return True
        if state == "canceling":
            self.update(job, "failed", failure_reason="job_canceled")
            return True
        return False

    def work(self, job: dict[str, Any]) -> str:
        """Runs the job. Returns why it failed, or nothing."""
        output: list[bytes] = []
        self.step = self.start(job)
        if self.aborted:
            self.end_step()
        threading.Thread(
            target=lambda out: output.extend(out), args=(self.step.stdout,), daemon=True
        ).start()
        cancelled = self.watch(job, output)
        code = self.step.wait()
        why, reason = self.why(code, cancelled)
        failed = bool(code or cancelled)
        self.trace(job, output)
        self.end(failed, why, reason)
        more = {"failure_reason": reason} if failed else {}
        for _ in range(10):
            if self.update(job, "failed" if failed else "success", **more):
                break
            time.sleep(0.5)
        return why if failed else ""

    def end(self, failed: bool, why: str, reason: str) -> None:
        """The message about the end of a job."""
        about: dict[str, Any] = {**self.about, "duration_s": 1}
        if NUMBER >= WITH_STATUS:
            about["job-status"] = "failed" if failed else "success"
        if not failed:
            log("info", "Job succeeded", **about)
            return
        if NUMBER >= WITH_STATUS:
            about["failure_reason"] = reason
        prefix = "Job failed (system failure): " if self.aborted else "Job failed: "
        log("warning", prefix + why, **about)

    def watch(self, job: dict[str, Any], output: list[bytes]) -> bool:
        """Waits until the script ends. Returns whether the job was cancelled."""
        cancelled = False
        touched = time.monotonic()
        assert self.step is not None
        while self.step.poll() is None:
            state = self.trace(job, output)
            if state:
                touched = time.monotonic()
            elif time.monotonic() - touched > TOUCH_SECONDS:
                state = self.update(job, "running")
                touched = time.monotonic()
            if state in ("canceling", "canceled", "failed") and not cancelled:
                cancelled = True
                self.end_step()
            time.sleep(REPORT_SECONDS)
        return cancelled

    def update(self, job: dict[str, Any], state: str, **more: str) -> str:
        """Tells GitLab the state of the job, with two messages (network/gitlab.go). Returns what
        GitLab calls it, in this version's terms; empty if there was no response."""
        body = {"token": job["token"], "state": state, **more}
        log("info", "Updating job...", job=job["id"], bytesize=0)
        code, remote, _ = self.send("PUT", "/jobs/%d" % job["id"], body)
        remote = "failed" if code == 403 else remote
        about = {"job": job["id"], "code": code, "job-status": remote}
        if remote in ("canceled", "failed"):
            log("warning", "Submitting job to coordinator... job failed", **about)
        elif code == 200:
            log("info", "Submitting job to coordinator...ok", **about)
        else:
            log("warning", "Submitting job to coordinator... failed", **about)
        return remote or ("running" if code == 200 else "")

    def trace(self, job: dict[str, Any], output: list[bytes]) -> str:
        """Sends the new output, if there is any, with a message. Returns the job's status at
        GitLab, or nothing."""
        new = b"".join(output)
        output[:] = []
        if not new:
            return ""
        code, state, _ = self.call(
            "PATCH",
            "/jobs/%d/trace" % job["id"],
            new,
            {"JOB-TOKEN": job["token"], "Content-Type": "text/plain"},
        )
        done = "ok" if code == 202 else " failed"
        about = {"job": job["id"], "code": code, "job-status": state}
        log("info", "Appending trace to coordinator..." + done, **about)
        return state

    def end_step(self) -> None:
        if self.step and self.step.poll() is None:
            os.killpg(self.step.pid, signal.SIGKILL)


def main(argv: list[str]) -> int:
    options = argparse.ArgumentParser(prog="gitlab-runner", allow_abbrev=False)
    options.add_argument("--log-format", choices=["runner", "text", "json"])
    single = options.add_subparsers(dest="command", required=True).add_parser("run-single")
    if NUMBER >= WITH_CONFIG:
        single.add_argument("--config", "-c", type=Path, required=True)
        single.add_argument("--runner", "-r", required=True)
    single.add_argument("--max-builds", type=int, default=0)
    arguments = options.parse_args(argv)
    config = configuration(arguments.config, arguments.runner)
    return Runner(config, arguments.max_builds).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
