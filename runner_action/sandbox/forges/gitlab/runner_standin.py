"""A stand-in for gitlab-runner 19.4 `run-single`, with its command line, configuration, JSON log,
API and signals.

It runs on the machine as `gitlab-runner`. Standard library only, Python 3.9 or later. From
commands/single.go: after SIGQUIT it exits when its job has ended; after SIGINT or SIGTERM it aborts
the job, which is a system failure; while idle it checks every three seconds.
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
"""Seconds between two requests for a job; gitlab-runner waits three."""
REPORT_SECONDS = 0.3


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
            start_new_session=True,
        )

    def why(self, code: int, cancelled: bool) -> tuple[str, str]:
        """Why a job failed: for the log, and as GitLab's API calls it."""
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
        self.send("PUT", "/jobs/%d" % number, {"token": job["token"], "state": "running"})
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
        result = {"token": job["token"], "state": "failed" if code or cancelled else "success"}
        if result["state"] == "failed":
            result.update(failure_reason=reason)
        self.report(job, output)
        for _ in range(10):
            if self.send("PUT", "/jobs/%d" % number, result)[0]:
                break
            time.sleep(0.5)
        if result["state"] == "success":
            log("info", "Job succeeded", **{"job-status": "success"}, duration_s=1, **about)
        else:
            prefix = "Job failed (system failure): " if self.aborted else "Job failed: "
            log(
                "warning",
                prefix + why,
                **{"job-status": "failed"},
                failure_reason=reason,
                duration_s=1,
                **about,
            )

    def watch(self, job: dict[str, Any], output: list[bytes]) -> bool:
        """Waits until the script ends. Returns whether the job was cancelled."""
        cancelled = False
        assert self.step is not None
        while self.step.poll() is None:
            if self.report(job, output) in ("canceling", "canceled") and not cancelled:
                cancelled = True
                self.end_step()
            time.sleep(REPORT_SECONDS)
        return cancelled

    def report(self, job: dict[str, Any], output: list[bytes]) -> str:
        """Sends the new output. Returns the job's status at GitLab."""
        new = b"".join(output)
        output[:] = []
        code, state, _ = self.call(
            "PATCH",
            "/jobs/%d/trace" % job["id"],
            new,
            {"JOB-TOKEN": job["token"], "Content-Type": "text/plain"},
        )
        if new and code == 202:
            # network/gitlab.go: such a line for every part of the log.
            log(
                "info",
                "Appending trace to coordinator...ok",
                job=job["id"],
                **{"job-status": state},
            )
        return state

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
    arguments = options.parse_args(argv)
    config = configuration(arguments.config, arguments.runner)
    return Runner(config, arguments.max_builds).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
