"""A machine with the agent as root and its jobs as another user, and somebody else's things that
must not be touched."""

from __future__ import annotations

import ast
import json
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from runner_action.model import ForgeName
from runner_action.sandbox.forges.github.api import FakeGitHub
from runner_action.sandbox.forges.gitlab.api import FakeGitLab
from runner_action.sandbox.forges.jobs import Run, Seat
from tests.fakes import agent_spec

AGENT = Path(__file__).parents[2] / "runner_action/agent"
ATTACKER = Path(__file__).parent / "attacker.py"
SYSTEM = "/usr/bin/python3"
"""Everybody may run it, which is not so of a developer's own."""
KNOWN = {user.pw_name for user in pwd.getpwall()}
USERS = [name for name in ("nobody", "games", "news", "backup", "uucp", "proxy") if name in KNOWN]
"""Whose jobs run at the same time must not be one another's: what belongs to one of them is
closed to the others."""
ADMIN = "canary-admin-token"
CANARIES = (
    "canary-admin-token",
    "canary-download-token",
    "canary-register",
    "canary-remove",
    "canary-secret-of-root",
)
"""What stands in a spec and is not the runner's own, which its jobs have anyway."""
DONE = ("deregistered", "still-registered")


def names() -> list[str]:
    """Of files that the agent makes or reads, or that the runners do: every text in its source
    that may be one."""
    found = {
        ".runner",
        ".credentials",
        ".credentials_rsaparams",
        "config.sh",
        "run.sh",
        "run-helper.sh",
        "_work",
        "_diag",
        "bin",
    }
    for path in AGENT.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if (
                isinstance(node, ast.Constant)
                and isinstance(node.value, str)
                and re.fullmatch(r"[\w.-]{3,40}", node.value)
            ):
                found.add(node.value)
    return sorted(found)


@dataclass
class Machine:
    """One life. `restart`: with a token for the API; else with what is good for leaving only."""

    forge: ForgeName
    restart: bool
    folder: Path
    server: FakeGitHub | FakeGitLab
    user: str

    # --- the world around

    def __post_init__(self) -> None:
        memory = self.server.forge
        memory.lost_after = 3.0
        self.theirs = memory.seat("theirs", ["prod"], ephemeral=False)
        memory.set_online(self.theirs, True)
        self.theirs.heard = float("inf")
        self.victims = [self._run("prod", done=False), self._run("prod", done=True)]
        self.labels = self.theirs.labels
        self.home, self.loot, self.victim = (
            self.folder / name for name in ("var/lib/cml-runner", "loot", "victim")
        )
        self.home.mkdir(parents=True)
        self.loot.mkdir()
        self.loot.chmod(0o777)
        self.victim.mkdir(0o700)
        (self.victim / "secret").write_text("canary-secret-of-root")
        (self.victim / "secret").chmod(0o600)
        self._tools()
        shutil.copytree(AGENT, self.home / "agent", ignore=shutil.ignore_patterns("__pycache__"))
        for name in (ATTACKER.name, "facts.json"):
            (self.folder / name).write_text(
                ATTACKER.read_text("utf-8") if name == ATTACKER.name else "{}"
            )

    def _run(self, label: str, *, done: bool) -> Run:
        """A run with a job on the other runner: one that runs, and one that has failed there."""
        memory = self.server.forge
        run = memory.queue_run()
        job = memory.add_job(run, "deploy", [label])
        memory.begin(run)
        job.runner_name = self.theirs.name
        if done:
            job.status, job.conclusion = "completed", "failure"
        else:
            job.status, self.theirs.job = "in_progress", job
        return run

    def _tools(self) -> None:
        tools = self.folder / "tools"
        tools.mkdir()
        for name, text in (
            ("nft", "cat >/dev/null"),
            ("docker", "exit 1"),
            ("systemctl", f"cat {self.folder}/stopping 2>/dev/null || :"),
        ):
            (tools / name).write_text(f"#!/bin/sh\n{text}\n")
            (tools / name).chmod(0o755)
        self.environ = {"PATH": f"{tools}:/usr/bin:/bin", "HOME": "/root"}

    def write_spec(self, **more: Any) -> None:
        common = {
            "name": "cml-1",
            "labels": ("train",),
            "cloud": "other",
            "job_user": self.user,
            "idle_timeout": 2,
            "max_lifetime": 20,
            "close_metadata": True,
            "confined": True,
        }
        common |= {
            "restart_limit": 5 if self.restart else 0,
            "api_token": ADMIN if self.restart else None,
            "start_timeout": 60,
            **more,
        }
        server = self.server
        if isinstance(server, FakeGitHub):
            root = "repos/octo/train"
            own: dict[str, Any] = {
                "repository_url": server.repo_url,
                "api_url": f"{server.url}/api/v3",
                "registration_token": server.forge.new_token("register", root),
                "removal_token": None if self.restart else server.forge.new_token("remove", root),
                "download_token": "canary-download-token",
                "runner_url": (
                    f"{server.url}/actions/runner/releases/download/v2.336.0/actions-runner-linux-x64-2.336.0.tar.gz"
                ),
                "runner_sha256": server._archive.sha256,
            }
        else:
            seat = server.forge.seat("cml-1", ["train"], ephemeral=False)
            program, digest = gitlab_program(server)
            own = {
                "forge": "gitlab",
                "repository_url": server.repo_url,
                "api_url": f"{server.server_url}/api/v4",
                "runner_token": seat.secret,
                "runner_id": seat.id,
                "runner_url": program,
                "runner_sha256": digest,
            }
        spec = self.home / "spec.json"
        spec.touch(0o600)
        spec.write_text(agent_spec(**{**common, **own}).to_json())

    # --- the life

    def start(
        self, word: str = "run", wait: bool = False, **environ: str
    ) -> subprocess.Popen[bytes]:
        with (self.folder / f"console-{time.monotonic_ns()}-{word}").open("wb") as out:
            made = subprocess.Popen(
                [SYSTEM, "-m", "agent", word],
                cwd=self.home,
                env={**self.environ, **environ},
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        if wait:
            made.wait(90)
        return made

    @property
    def console(self) -> str:
        return "".join(
            path.read_text("utf-8", "replace") for path in sorted(self.folder.glob("console-*"))
        )

    def note(self, variant: str) -> None:
        """What the attacker has to know."""
        other = {"runner": self.theirs.id, "runs": [run.id for run in self.victims]}
        facts = {
            "home": self.home,
            "loot": self.loot,
            "victim": self.victim,
            "variant": variant,
            "names": names(),
            "other": other,
        }
        (self.folder / "facts.json").write_text(
            json.dumps({**facts, "repository": "octo/train"}, default=str)
        )

    def attack(self, variant: str, then: str = "") -> Run:
        """A job that attacks, and ends unless `then` keeps it."""
        self.note(variant)
        memory = self.server.forge
        run = memory.queue_run()
        command = (
            f"{SYSTEM} -S {self.folder}/{ATTACKER.name} {self.folder}/facts.json"
            f" 2>{self.loot}/errors\n{then}"
        )
        memory.add_job(run, "train", ["train"], 0.1, command)
        return memory.begin(run)

    def stop_all(self) -> None:
        """All that is left of this machine's processes."""
        for process in Path("/proc").glob("[0-9]*"):
            try:
                where = os.readlink(process / "cwd")
                if where.startswith(str(self.folder)):
                    os.kill(int(process.name), signal.SIGKILL)
            except OSError:
                continue

    # --- what it came to

    def attempts(self) -> int:
        return sum(json.loads(path.read_text())["tried"] for path in self.loot.glob("report-*"))

    def gains(self) -> Iterator[str]:
        """What the attacker should not have got."""
        for path in self.loot.glob("report-*"):
            yield from json.loads(path.read_text())["gains"]
        own = [*CANARIES, *(token for token in ("canary-download",))]
        for path in self.loot.iterdir():
            text = path.read_bytes().decode("utf-8", "replace")
            yield from (f"{canary} is in {path.name}" for canary in own if canary in text)
            if path.name.startswith("ran-") and text.startswith("0\n"):
                yield f"{path.name} was run by root"
        yield from (f"{canary} is on the console" for canary in CANARIES if canary in self.console)
        secret, now = self.victim / "secret", (self.victim / "secret").stat()
        if (secret.read_text(), now.st_uid, now.st_mode & 0o777, now.st_nlink) != (
            "canary-secret-of-root",
            0,
            0o600,
            1,
        ):
            yield f"a file of root's is changed: {now}"
        yield from (f"{path} was made for it" for path in self.victim.iterdir() if path != secret)
        yield from (
            f"{path} is not root's"
            for path in (self.home, *self.home.iterdir())
            if path.lstat().st_uid and path.name not in ("runner", "jobs")
        )
        yield from self._touched()

    def _touched(self) -> Iterator[str]:
        """Of what belongs to somebody else at GitHub or GitLab."""
        memory = self.server.forge
        if (
            memory.by_id(self.theirs.id) is not self.theirs
            or not self.theirs.online
            or self.theirs.labels != self.labels
        ):
            yield "another runner was changed"
        running, failed = self.victims
        if (
            self.theirs.job is None
            or self.theirs.job.cancelled
            or len(failed.all_jobs) != 1
            or len(running.all_jobs) != 1
        ):
            yield "another run was changed"
        other = {f"runners/{self.theirs.id}", *(f"runs/{run.id}" for run in self.victims)}
        other |= {f"jobs/{job.id}" for run in self.victims for job in run.all_jobs}
        for method, path, status in self.server.requests:
            pairs = {"/".join(pair) for pair in pairwise(path.split("/"))}
            if method != "GET" and (pairs & other or "victim" in path or "/../" in path):
                yield f"{method} {path} ({status})"


def gitlab_program(server: FakeGitLab) -> tuple[str, str]:
    """Address and digest of the stand-in for gitlab-runner."""
    from runner_action.forges.gitlab.client import GitLab
    from runner_action.model import Repository, Secret

    found = GitLab(
        Repository(url=server.repo_url),
        Secret(ADMIN),
        f"{server.server_url}/api/v4",
        downloads=server.downloads,
    ).download("x64", "latest")
    return found.url, found.sha256


@contextmanager
def machine(forge: ForgeName, *, restart: bool, number: int | None = None) -> Iterator[Machine]:
    """`number`: of the thread or process, of which each has a user of its own."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) if number is None else number
    folder = Path(tempfile.mkdtemp(prefix="cml-hostile-"))
    folder.chmod(0o755)
    server: FakeGitHub | FakeGitLab
    server = (
        FakeGitHub({ADMIN: "admin"})
        if forge is ForgeName.GITHUB
        else FakeGitLab({ADMIN: ["api"]}, prefix="/git")
    )
    made = Machine(forge, restart, folder, server, USERS[worker % len(USERS)])
    try:
        yield made
    finally:
        made.stop_all()
        server.close()
        shutil.rmtree(folder, ignore_errors=True)


def until(condition: Callable[[], object], what: str, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {seconds} s for {what}")
        time.sleep(0.05)


def seat_of(one: Machine) -> Seat | None:
    return one.server.forge.by_name("cml-1")


if __name__ == "__main__":
    print("\n".join(names()), file=sys.stdout)
