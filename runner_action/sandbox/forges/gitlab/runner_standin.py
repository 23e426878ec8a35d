"""A stand-in for gitlab-runner's `run-single` from 17.0 to 19.4, with its command line,
configuration, JSON log, API and signals.

It runs on the machine as `gitlab-runner`. Standard library only, Python 3.9 or later. From
commands/single.go: after SIGQUIT it exits when its job has ended; after SIGINT or SIGTERM it aborts
the job. A job that GitLab takes back as it is handed over ends without a word.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
import zlib
from pathlib import Path
from typing import Any

VERSION = "19.4.0"
"""The embedded GitLab serves one of each release (`sandbox/forges/gitlab/releases.py`)."""
NUMBER = tuple(int(part) for part in VERSION.split("."))
WITH_CONFIG = (17, 1, 0)
WITH_RETRIES = (18, 3, 0)
WITH_HAND_OVER = (18, 5, 0)
WITH_STATUS = (18, 6, 0)
WITH_NAME = (18, 9, 0)
WITH_PIPELINE = (19, 0, 0)
WITH_INTERRUPTED = (19, 1, 0)
"""The first releases with `run-single --config`, with another try of a request that a 5xx answered,
with the check of a job as it is handed over, with `job-status` in the message about a job's end,
with the runner's name and then the pipeline in messages, and with `runner_interrupted` for a job
that was aborted."""
IDS = ("gitlab_user_id", "namespace_id", "organization_id", "root_namespace_id")
CHECK_SECONDS = 0.5
"""Seconds between two requests for a job; gitlab-runner waits three."""
UNHEALTHY_SECONDS = 3.0
"""Seconds until it asks again after a refusal, whatever it is told meanwhile but SIGTERM;
gitlab-runner waits 300."""
REPORT_SECONDS = 0.3
TOUCH_SECONDS = 1.0
"""Seconds without new output until it tells GitLab that the job goes on; gitlab-runner waits 30."""
SHUTDOWN_SECONDS = 10.0
"""Seconds from SIGTERM until it exits although its job goes on; gitlab-runner waits 30. A job's
processes get SIGTERM, and SIGKILL ten minutes later, which it does not live to see."""
UNAFFECTED = "after_script failed, but job will continue unaffected: "
NOT_REMOVED = "Error while executing file based variables removal script"
Answer = tuple[int, dict[str, str], bytes]
"""Status, headers and text."""


def log(level: str, text: str, **fields: Any) -> None:
    """As logrus does it: one object, sorted."""
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    entry = {**fields, "level": level, "msg": text, "time": now}
    line = json.dumps(entry, separators=(",", ":"), sort_keys=True)
    print(line, file=sys.stderr, flush=True)


def shortened(token: str) -> str:
    """What its messages show of a token (helpers/shorten_token.go)."""
    return re.sub(r"^glrt-(t[123]_)?", "", token)[:9]


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
        self.finished = False
        self.aborted = ""
        """The signal that ended the job."""
        self.step: subprocess.Popen[bytes] | None = None
        self.about: dict[str, Any] = {}
        self.output: list[bytes] = []
        self.sent = b""
        """The job's log: what GitLab does not have yet, and what it has."""
        self.named = {"runner": shortened(config["token"])}
        if NUMBER >= WITH_NAME:
            self.named["runner_name"] = config["name"]
        for number in (signal.SIGQUIT, signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self.on_signal)

    def on_signal(self, number: int, _: object) -> None:
        self.finished = True
        if number == signal.SIGQUIT and not self.aborted:
            log("warning", "Requested quit, waiting for builds to finish")
            return
        words = {signal.SIGINT: "interrupt", signal.SIGTERM: "terminated", signal.SIGQUIT: "quit"}
        if self.aborted:
            self.give_up("forced exit: " + words[signal.Signals(number)])
        self.aborted = words[signal.Signals(number)]
        log("warning", "Requested exit: " + self.aborted)
        signal.signal(signal.SIGALRM, lambda *_: self.give_up("shutdown timed out"))
        signal.setitimer(signal.ITIMER_REAL, SHUTDOWN_SECONDS)
        self.end_step()

    def give_up(self, why: str) -> None:
        log("fatal", why)
        os._exit(1)

    def call(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> Answer:
        """Sends a request, since 18.3 up to five times. Returns status, headers and text."""
        for pause in (0.1, 0.2, 0.4, 0.8, 0):
            answer = self.once(method, path, body, headers)
            if NUMBER < WITH_RETRIES or answer[0] not in (408, 429, 500, 502, 503, 504):
                return answer
            if pause:
                about = {"method": method, "url": path, "duration": pause, "context": "requester"}
                log("info", "Waiting before making the next call", **about)
                time.sleep(pause)
        return answer

    def once(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> Answer:
        request = urllib.request.Request(
            self.config["url"] + "/api/v4" + path, body, headers, method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return response.status, dict(response.headers), response.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, dict(error.headers), error.read()
        except OSError:
            return 0, {}, b""

    def send(self, method: str, path: str, body: dict[str, Any]) -> Answer:
        """The same with JSON."""
        headers = {"Content-Type": "application/json"}
        return self.call(method, path, json.dumps(body).encode(), headers)

    def run(self) -> int:
        place = "for %s with token %s ..." % (self.config["url"], self.named["runner"])
        log("info", "Starting runner " + place)
        while not self.finished:
            info = {"name": "gitlab-runner", "version": VERSION}
            body = {"token": self.config["token"], "info": info}
            status, _, text = self.send("POST", "/jobs/request", body)
            if status == 201:
                self.process(json.loads(text))
            else:
                self.wait(self.refused(status))
            if self.builds < 1 and not self.forever:
                log("info", "This runner has processed its build limit, so now exiting")
                self.finished = True
        return 0

    def refused(self, status: int) -> float:
        """There is no job. Returns how long to wait."""
        said = "Checking for jobs... "
        why = {**self.named, "status": "POST /api/v4/jobs/request: %d" % status}
        if status == 403:
            log("error", said + "forbidden", **why)
            log("info", "Runner is not healthy!")
            return UNHEALTHY_SECONDS
        if status == 503 and NUMBER >= WITH_RETRIES:
            log("warning", said + "GitLab instance currently unavailable", **why)
        elif status != 204:
            log("warning", said + "failed", **why)
        return CHECK_SECONDS

    def wait(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end and not self.aborted:
            time.sleep(0.05)

    def start(self, job: dict[str, Any], name: str) -> subprocess.Popen[bytes]:
        """Starts one of the job's scripts, in a shell whatever the executor is."""
        builds = Path(self.config.get("builds_dir", "builds"))
        builds.mkdir(parents=True, exist_ok=True)
        env = {**os.environ, **dict(text.split("=", 1) for text in self.config["environment"])}
        env.update((variable["key"], variable["value"]) for variable in job["variables"])
        steps = [step["script"] for step in job["steps"] if step["name"] == name]
        return subprocess.Popen(
            [self.config.get("shell", "bash"), "-c", "\n".join(["set -e", *sum(steps, [])])],
            cwd=str(builds),
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            preexec_fn=os.setpgrp,  # of the same session (helpers/process/job_unix.go)
        )

    def why(self, code: int, cancelled: bool) -> tuple[str, str]:
        """Why a job failed: for the log, and as gitlab-runner calls it."""
        if self.aborted:
            late = NUMBER >= WITH_INTERRUPTED
            reason = "runner_interrupted" if late else "runner_system_failure"
            return "aborted: " + self.aborted, reason
        if cancelled:
            return "canceled", "job_canceled"
        return "exit status %d" % code, "script_failure"

    def process(self, job: dict[str, Any]) -> None:
        """`processBuild`. A job that has failed is an error to it as well."""
        info = job["job_info"]
        self.about = {"job": job["id"], "project": info["project_id"], **self.named}
        if NUMBER >= WITH_HAND_OVER:
            self.about.update(dict.fromkeys(IDS, 0), project_full_path="")
        if NUMBER >= WITH_PIPELINE:
            self.about["pipeline_id"] = info.get("pipeline_id", 0)
        self.output = []
        self.sent = b""
        about = {"job": job["id"], "repo_url": job["git_info"]["repo_url"], **self.named}
        log("info", "Checking for jobs... received", **about)
        try:
            tempfile.TemporaryFile(dir=os.environ.get("TMPDIR")).close()  # for the job's log
        except OSError as error:
            log("error", "Failed to process build", error=str(error))
            return
        if NUMBER >= WITH_HAND_OVER and self.taken_back(job):
            return
        failed = self.work(job)
        self.builds -= 1
        if failed:
            log("error", "Failed to process build", error=failed)

    def taken_back(self, job: dict[str, Any]) -> bool:
        """Until 19.1 it told GitLab nothing of a job that is `canceling`, which remained so."""
        state = self.update(job, "running")
        if state == "canceling" and NUMBER >= WITH_INTERRUPTED:
            self.end(job, "failed", "job_canceled", "")
        return state in ("canceled", "failed", "canceling")

    def work(self, job: dict[str, Any]) -> str:
        """Runs the job. Returns why it failed, or nothing."""
        code, state = self.play(job, "script")
        cancelled = state != "running"
        if cancelled and state == "canceling":
            log("warning", "script canceled externally (UI, API)", **self.about)
        if self.aborted or state in ("canceled", "failed"):
            log("warning", UNAFFECTED + "context canceled", **self.about)
            log("warning", NOT_REMOVED, error="context canceled", **self.about)
        else:
            self.play(job, "after_script")
        failed = bool(code or cancelled or self.aborted)
        why, reason = self.why(code, cancelled)
        about: dict[str, Any] = {**self.about, "duration_s": 1.0}
        outcome = "failed" if failed else "success"
        if NUMBER >= WITH_STATUS:
            about["job-status"] = outcome
        if not failed:
            log("info", "Job succeeded", **about)
            self.end(job, outcome, "", "Job succeeded\n")
            return ""
        if NUMBER >= WITH_STATUS:
            about.update(error=why, exit_code=code, failure_reason=reason)
        system = " (system failure)" if reason == "runner_system_failure" else ""
        text = "Job failed%s: %s" % (system, why)
        log("warning", text + "\n" * (NUMBER < WITH_STATUS), **about)
        self.end(job, outcome, reason, "ERROR: %s\n" % text)
        return why

    def play(self, job: dict[str, Any], name: str) -> tuple[int, str]:
        """Runs one script of the job. Returns its exit code, and the job's status at GitLab:
        `running`, or why it was ended."""
        self.step = self.start(job, name)
        if self.aborted:
            self.end_step()
        reader = threading.Thread(
            target=lambda out: self.output.extend(out), args=(self.step.stdout,), daemon=True
        )
        reader.start()
        seen = "running"
        touched = time.monotonic()
        while self.step.poll() is None:
            state = self.trace(job)
            if not state and time.monotonic() - touched > TOUCH_SECONDS:
                state = self.update(job, "running")
            if state:
                touched = time.monotonic()
            if state in ("canceling", "canceled", "failed") and name == "script":
                seen = state if seen == "running" else seen
                self.end_step()
            time.sleep(REPORT_SECONDS)
        reader.join(0.5)
        return self.step.wait(), seen

    def end(self, job: dict[str, Any], state: str, reason: str, last: str) -> None:
        """Tells GitLab how the job ended, until it knows, and what its log says `last`; after
        `Job succeeded` or `Job failed` (`finalUpdate` in network/trace.go)."""
        self.output.append(last.encode())
        known = ("script_failure", "runner_system_failure", "job_execution_timeout")
        if reason and reason not in (*known, *job["features"]["failure_reasons"]):
            reason = "unknown_failure"
        more = {"failure_reason": reason} if reason else {}
        for _ in range(10):
            self.trace(job)
            if self.update(job, state, **more):
                return
            time.sleep(0.5)

    def update(self, job: dict[str, Any], state: str, **more: str) -> str:
        """Tells GitLab the state of the job, with two messages (network/gitlab.go). Returns what
        GitLab calls it; empty if it has to be told again."""
        checksum = "crc32:%08x" % zlib.crc32(self.sent) if self.step else ""
        output = {"checksum": checksum, "bytesize": len(self.sent)}
        body = {"token": job["token"], "state": state, "output": output, **more}
        about: dict[str, Any] = {"job": job["id"], **self.named, **output}
        log("info", "Updating job...", **about)
        code, headers, _ = self.send("PUT", "/jobs/%d" % job["id"], body)
        remote = headers.get("Job-Status", "")
        about.update({"code": code, "job-status": remote, "update-interval": 0})
        said = "Submitting job to coordinator..."
        over = remote in ("canceled", "failed") or code == 403
        if not over and code in (200, 202):
            words = "ok" if code == 200 else "accepted, but not yet completed"
            log("info", said + words, **about)
            return (remote or "running") if code == 200 else ""
        log("warning", said + (" job failed" if over else " failed"), status=str(code), **about)
        return (remote or "failed") if over else ""

    def trace(self, job: dict[str, Any]) -> str:
        """Sends the new output, if there is any, with a message. Returns the job's status at
        GitLab, or nothing."""
        pieces = len(self.output)
        new = b"".join(self.output[:pieces])
        if not new:
            return ""
        place = "%d-%d" % (len(self.sent), len(self.sent) + len(new) - 1)
        code, headers, _ = self.call(
            "PATCH",
            "/jobs/%d/trace" % job["id"],
            new,
            {"JOB-TOKEN": job["token"], "Content-Type": "text/plain", "Content-Range": place},
        )
        state = headers.get("Job-Status", "")
        about = {"code": code, "job": job["id"], "job-log": headers.get("Range", "")}
        about.update({"job-status": state, "sent-log": place, "status": str(code)})
        about.update({"update-interval": 0, **self.named})
        said = "Appending trace to coordinator..."
        if state in ("canceled", "failed") or code == 403:
            log("warning", said + " job failed", **about)
            return state or "failed"
        if code != 202:
            log("warning", said + " failed", **about)
            return ""
        self.sent += new
        del self.output[:pieces]
        log("info", said + "ok", **about)
        return state

    def end_step(self) -> None:
        if self.step and self.step.poll() is None:
            os.killpg(self.step.pid, signal.SIGTERM)


def announce(folder: Path) -> None:
    """Its first lines, and a file beside the configuration."""
    about = {"arch": "amd64", "os": "linux", "pid": os.getpid(), "revision": "0"}
    log("info", "Runtime platform", version=VERSION, **about)
    file = folder / ".runner_system_id"
    if not file.exists():
        file.write_text("s_0123456789ab")
        log("info", "Created missing unique system ID", system_id="s_0123456789ab")


def main(argv: list[str]) -> int:
    options = argparse.ArgumentParser(prog="gitlab-runner", allow_abbrev=False)
    options.add_argument("--log-format", choices=["runner", "text", "json"])
    single = options.add_subparsers(dest="command", required=True).add_parser("run-single")
    if NUMBER >= WITH_CONFIG:
        single.add_argument("--config", "-c", type=Path, required=True)
        single.add_argument("--runner", "-r", required=True)
    single.add_argument("--max-builds", type=int, default=0)
    arguments = options.parse_args(argv)
    announce(arguments.config.parent)
    config = configuration(arguments.config, arguments.runner)
    return Runner(config, arguments.max_builds).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
