"""Start-up, from a bare machine to a registered runner: startup script, download, GPU self-test,
registration."""

from __future__ import annotations

import os
import pwd
import re
import threading
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional

from . import download, room
from .calls import pauses
from .forge import Member
from .process import child_environment, run_to_end
from .spec import AgentSpec
from .watchdog import Say

FINAL = re.compile(r"HTTP Error 4(?!0[38]|25|29)|Errno 2]|No space|code: (U|NotF)|checksum").search
"""Finds in an error what no other attempt mends: a server refuses, a program is missing, the disk
is full, what was downloaded is something else. `Http response code: NotFound` is config.sh's.
https://github.com/actions/runner/blob/v2.336.0/src/Runner.Listener/Configuration/ConfigurationManager.cs"""
LONGEST = 30.0
"""Seconds between two attempts at most."""


class Start:
    """The start-up of one machine. `user` runs the jobs; with `identity` Popen runs a child as
    that user."""

    joining = False
    """A registration is under way; leaving has to wait for it, and then deregisters."""
    docker = False
    """There is a Docker that works."""

    def __init__(
        self,
        spec: AgentSpec,
        home: Path,
        environ: Dict[str, str],
        user: pwd.struct_passwd,
        identity: Dict[str, Any],
        say: Say,
        sysfs: Path,
    ) -> None:
        self.spec = spec
        self.home = home
        self.environ = environ
        self.user = user
        self.identity = identity
        self.say = say
        self.gpu = room.gpu(sysfs)
        self.problems: List[Exception] = []
        """Why no other attempt to start begins."""
        self.root_env = child_environment(pwd.getpwuid(0) if identity else user, environ)

    def run(self, forge: Member) -> None:
        """Raises ValueError, or any other exception."""
        runner = self.home / "runner"
        jobs = self.home / "jobs"
        runner.mkdir(exist_ok=True)
        jobs.touch()
        if self.identity:
            for path in (runner, jobs):
                os.chown(str(path), self.user.pw_uid, self.user.pw_gid)
        # Independent of each other and of the startup script, so all run at the same time.
        threads = [
            threading.Thread(target=self._try, args=(work,), daemon=True)
            for work in (lambda: self._fetch(forge.unpack), self._prove)
        ]
        for thread in threads:
            thread.start()
        self._equip()
        self._script()
        unfit = self.retried("self-test", self.unfit)
        if unfit:
            raise ValueError(unfit)
        self._close()
        for thread in threads:
            thread.join()
            if self.problems:
                raise self.problems[0]
        self.retried("registration", lambda: self._join(forge))
        self._forget()
        self.say("configured")

    def retried(self, what: str, attempt: Callable[[], Any]) -> Any:
        """Makes attempts until one succeeds, as long as the machine may start; returns its result.
        Logs each different error once. Raises ValueError if another attempt would be in vain, or
        what has failed beside it."""
        logged = ""
        for pause in pauses(LONGEST):
            try:
                return attempt()
            except Exception as error:
                why = "%s: %s" % (what, error)
            if FINAL(why):
                raise ValueError(why)
            if why != logged:
                logged = why
                self.say("waiting", why=why)
            time.sleep(pause)
            if self.problems:
                break
        raise self.problems[0]

    def _join(self, forge: Member) -> None:
        self.joining = True
        try:
            failed = self.problems or forge.join()
        finally:
            self.joining = False
        if failed:
            raise ValueError(failed)

    def _forget(self) -> None:
        """Removes the secrets that are used up from spec.json, if there is one: pods and local
        machines have none."""
        spec = self.home / "spec.json"
        fresh = self.home / "spec.new"
        if spec.exists():
            try:
                fresh.touch(0o600)
                fresh.write_text(self.spec.joined().to_json())
                fresh.replace(spec)
            except OSError as error:  # it may be a mount
                self.say("spec-stays", why=str(error))

    def _close(self) -> None:
        """Closes to jobs what is not for them. Jobs that may become root could open it again, so
        for them a failure is only logged."""
        spec = self.spec
        still_open = (
            room.close_metadata(self.root_env)
            if spec.close_metadata and os.geteuid() == 0
            else None
        )
        if spec.confined:
            from .wall import check

            check(
                still_open,
                self.user.pw_name,
                self.home,
                child_environment(self.user, self.environ),
                self.identity,
            )
        elif still_open:
            self.say("metadata-open", why=still_open)

    def _equip(self) -> None:
        """Installs what jobs expect, and makes sure of Docker, where it is promised."""
        script = self.home / "equip.sh"
        if script.exists():
            self.say("equip")
            began = time.monotonic()
            why = self.retried("Docker does not work", self._install)
            self.say("equipped", seconds=round(time.monotonic() - began, 1), why=why)
        self.docker = bool(self.spec.cloud) and not self._shell("docker info")

    def _install(self) -> Optional[str]:
        """With code 3 the script says that something else than Docker is missing, without which
        the machine starts."""
        why = run_to_end(
            [str(self.home / "equip.sh")], self.home, self.root_env, self.spec.start_timeout
        )
        if why and self.spec.docker and why[:12] != "exit code 3:":
            raise ValueError(why)
        return why

    def _shell(self, script: str) -> Any:
        return self.retried(
            script, lambda: run_to_end(["sh", "-c", script], self.home, self.root_env, 60)
        )

    def unfit(self) -> Optional[str]:
        """Why this machine cannot run a job, by two looks; None if it can: the next job may have
        begun and keep GPU and Docker busy."""
        return self.problem() and self.problem()

    def problem(self) -> Optional[str]:
        """What a look at the machine shows: its GPU, if it has one, and a Docker that worked must
        work. Starts a Docker that has stopped."""
        problem = room.gpu_problem(self.root_env, self.home) if self.gpu else None
        if self.docker and not problem:
            problem = self._shell("docker info >/dev/null || systemctl start docker; docker info")
        return problem

    def _script(self) -> None:
        script = self.home / "startup.sh"
        if script.exists():
            self.say("startup-script")
            failed = run_to_end(
                [str(script)],
                self.home,
                self.root_env,
                self.spec.start_timeout,
                echo=lambda line: self.say("startup-script", line=line),
            )
            if failed:
                raise ValueError("startup script: " + failed)

    def _try(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:  # raised again by the waiting thread
            self.problems.append(error)

    def _fetch(self, command: str) -> None:
        self.retried(
            self.spec.runner_url,
            lambda: download.fetch(self.spec, self.home / "runner", command, **self.identity),
        )
        self.say("downloaded")

    def _prove(self) -> None:
        """Proves that this machine may delete itself, if it has to."""
        if (self.home / "deletion.json").exists():
            from .ending import prove

            prove(self.spec, self.home, self.environ, self.say)
