"""A stand-in for the worker of actions/runner 2.336: runs the steps of one job.

It runs on the machine as bin/Runner.Worker. Standard library only, Python 3.9 or later.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any


class Worker:
    """Runs the steps of one job, reads workflow commands from their output, and returns conclusion
    and annotations."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.job = job
        self.notes: list[tuple[str, str]] = []
        self.step: subprocess.Popen[bytes] | None = None
        self.shutdown = self.cancelled = False
        signal.signal(signal.SIGINT, self.on_shutdown)
        signal.signal(signal.SIGUSR1, self.on_cancel)

    def on_shutdown(self, *_: object) -> None:
        if not self.shutdown:
            text = (
                "The runner has received a shutdown signal. This can happen when the runner service"
                " is stopped, or a manually started runner is canceled."
            )
            self.notes.append(("", text))
        self.shutdown = True
        self.end_step()

    def on_cancel(self, *_: object) -> None:
        self.cancelled = True
        self.end_step()

    def end_step(self) -> None:
        """Asks the step to end, twice, and then kills it (ProcessInvoker.cs)."""
        if self.step:
            threading.Thread(target=self.stop, args=(self.step,), daemon=True).start()

    def stop(self, step: subprocess.Popen[bytes]) -> None:
        gently, firmly = self.job["stop"]
        for number, patience in ((signal.SIGINT, gently), (signal.SIGTERM, firmly)):
            if patience:
                step.send_signal(number)
                try:
                    step.wait(patience)
                except subprocess.TimeoutExpired:
                    continue
                return
        step.kill()

    def work(self) -> dict[str, Any]:
        job = self.job
        work = Path("_work").absolute()
        env = {
            **os.environ,
            "GITHUB_ACTIONS": "true",
            "GITHUB_RUN_ID": str(job["run_id"]),
            "GITHUB_RUN_ATTEMPT": str(job["attempt"]),
            "GITHUB_JOB": job["name"],
            "GITHUB_REPOSITORY": job["repository"],
            "GITHUB_SERVER_URL": job["server_url"],
            "GITHUB_WORKSPACE": str(work / "train/train"),
            "RUNNER_WORKSPACE": str(work / "train"),
            "RUNNER_TEMP": str(work / "_temp"),
            "RUNNER_NAME": job["runner"],
        }
        # PipelineDirectoryManager.cs: an existing workspace is used as it is, a missing one is
        # created; anything but a folder fails the job. TempDirectoryManager.cs: the temporary
        # folder is emptied before and after each job, even through mounts in it.
        Path(env["GITHUB_WORKSPACE"]).mkdir(parents=True, exist_ok=True)
        self.empty(work / "_temp")
        self.pause(job["setup"])
        codes = [] if self.shutdown or self.cancelled else [self.run(hook_of("STARTED"), env)]
        if not (self.shutdown or self.cancelled):
            codes.append(
                self.run(["sh", "-c", "%s\nsleep %s" % (job["command"], job["seconds"])], env)
            )
        # A cancelled job still runs the steps that have `if: always()`, unless its runner shuts
        # down: then no condition is evaluated any more (StepsRunner.cs).
        if not self.shutdown and job["always"]:
            codes.append(self.run(["sh", "-c", job["always"]], env))
        if not self.shutdown:
            codes.append(self.run(hook_of("COMPLETED"), env))
        self.empty(work / "_temp")
        conclusion = "failure" if self.shutdown or any(codes) else "success"
        if self.cancelled and not self.shutdown:
            conclusion = "cancelled"
        return {"conclusion": conclusion, "notes": self.notes}

    def pause(self, seconds: float) -> None:
        """The job's actions are downloaded."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and not (self.shutdown or self.cancelled):
            time.sleep(0.1)

    @staticmethod
    def empty(folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            ["find", str(folder), "-mindepth", "1", "-delete"], capture_output=True, check=False
        )

    def run(self, argv: list[str], env: dict[str, str]) -> int:
        if not argv:
            return 0
        self.step = subprocess.Popen(
            argv,
            env=env,
            cwd=env["GITHUB_WORKSPACE"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        )
        threading.Thread(target=self.read, args=(self.step.stdout,), daemon=True).start()
        code = self.step.wait()
        self.step = None
        time.sleep(0.05)  # its last output is still being read
        return code

    def read(self, out: Any) -> None:
        for line in out:
            command, _, text = (
                line.decode("utf-8", "replace").rstrip("\n").partition("::")[2].partition("::")
            )
            kind, _, properties = command.partition(" ")
            if kind in ("warning", "notice", "error"):
                self.notes.append((properties.partition("title=")[2], text))


def hook_of(event: str) -> list[str]:
    script = os.environ.get("ACTIONS_RUNNER_HOOK_JOB_" + event)
    return ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", script] if script else []


if __name__ == "__main__":
    print(json.dumps(Worker(json.load(sys.stdin)).work()))
