"""The runner program as a child process: its output line by line, and an end within a time limit
for it and all of its children."""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, List, Optional

PASSED_ON = [
    "PATH",
    "LANG",
    "RUNNER_ALLOW_RUNASROOT",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
    "NODE_EXTRA_CA_CERTS",
    "PIP_BREAK_SYSTEM_PACKAGES",
]
"""Environment variables that jobs see; in a pod (`pod.py`) also all of its container's."""
PROXIES = ("http_proxy", "https_proxy", "no_proxy", "all_proxy")
LINE_LIMIT = 65536
"""Bytes of a line. A longer line is read in pieces, so that a runaway job cannot fill the
memory."""


def job_user(name: str, environ: Dict[str, str]) -> pwd.struct_passwd:
    """The user that runs the jobs: the one of that name; or the agent's own, if that is not root
    or if RUNNER_ALLOW_RUNASROOT is set (the variable of actions/runner for containers).

    Raises KeyError if there is no such user, so that jobs never run as root by accident.
    """
    if os.geteuid() != 0 or environ.get("RUNNER_ALLOW_RUNASROOT"):
        try:
            return pwd.getpwuid(os.geteuid())
        except KeyError:  # a container's user may be missing in its /etc/passwd
            return pwd.struct_passwd(
                (name, "", os.geteuid(), os.getegid(), "", environ["HOME"], "")
            )
    return pwd.getpwnam(name)


def identity(user: pwd.struct_passwd) -> Dict[str, Any]:
    """The keyword arguments by which Popen runs a child as `user`; empty if this process is that
    user."""
    if user.pw_uid == os.geteuid():
        return {}
    return {
        "user": user.pw_uid,
        "group": user.pw_gid,
        "extra_groups": os.getgrouplist(user.pw_name, user.pw_gid),
    }


def child_environment(user: pwd.struct_passwd, environ: Dict[str, str]) -> Dict[str, str]:
    """The environment of a child: path, language, proxies and certificates of this process, and
    the user's own home. None of the agent's secrets."""
    passed_on = {
        key: value for key, value in environ.items() if key in PASSED_ON or key.lower() in PROXIES
    }
    passed_on.setdefault("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    if user.pw_uid:
        # Where `pip install` puts programs. Root never looks there, as the user can write it.
        passed_on["PATH"] += ":/snap/bin:%s/.local/bin" % user.pw_dir
    return {**passed_on, "HOME": user.pw_dir, "USER": user.pw_name, "LOGNAME": user.pw_name}


class Tail:
    """Reads the new complete lines of a growing file. The rest of a line comes with a later call,
    or in pieces if the line is too long.

    The file is opened once, and without waiting: a job may put something else in its place.
    """

    def __init__(self, path: Path, offset: int = 0) -> None:
        self._path = path
        self._file: Optional[int] = None
        self.offset = offset

    def lines(self) -> List[str]:
        try:
            if not self._file:
                self._file = os.open(self._path, os.O_NONBLOCK)
            text = os.pread(self._file, LINE_LIMIT, self.offset)
        except OSError:
            return []
        end = text.rfind(b"\n") + 1
        if len(text) == LINE_LIMIT:
            end = end or LINE_LIMIT
        self.offset += end
        return [line.decode("utf-8", "replace") for line in text[:end].splitlines() if line.strip()]


class Child:
    """A process in a session of its own with its output in a file: it outlives an agent that is
    killed, and the next agent can adopt it."""

    def __init__(
        self, pid: int, wait: Callable[[], int], exited: Callable[[int], None], stdin: Any = None
    ) -> None:
        # The standard input of a guard closes when this process ends, however it ends.
        self.pid = pid
        self._exited = exited
        self.over = threading.Event()
        self._stdin = stdin
        threading.Thread(target=self._wait, args=(wait,), daemon=True).start()

    @classmethod
    def start(
        cls,
        argv: List[str],
        cwd: Path,
        env: Dict[str, str],
        out: Path,
        exited: Callable[[int], None],
        **more: Any,
    ) -> Child:
        with out.open("ab") as file:
            process = subprocess.Popen(
                argv,
                cwd=str(cwd),
                env=env,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                **more,
            )
        return cls(process.pid, process.wait, exited, process.stdin)

    @classmethod
    def adopt(cls, pid: int, exited: Callable[[int], None]) -> Child:
        """The child of an earlier agent. Its exit code is unknown: -1."""

        def wait() -> int:
            while session(pid):
                time.sleep(0.5)
            return -1

        return cls(pid, wait, exited)

    def _wait(self, wait: Callable[[], int]) -> None:
        code = wait()
        if self._stdin:
            self._stdin.close()
        self.over.set()
        self._exited(code)

    def quit(self, seconds: float) -> bool:
        """Sends SIGQUIT to the process group. Returns whether the child ended within `seconds`."""
        _signal(os.killpg, self.pid, signal.SIGQUIT)
        return self.over.wait(seconds)

    def stop(self, seconds: float, hurry: Callable[[], bool]) -> None:
        """Sends SIGINT to the process group, by which actions/runner shuts down. After `seconds`,
        or as soon as `hurry()`, kills what is left of the session."""
        end = time.monotonic() + seconds
        _signal(os.killpg, self.pid, signal.SIGINT)
        while time.monotonic() < end and not hurry() and not self.over.wait(0.1):
            pass
        kill_session(self.pid)
        self.over.wait(5)


def kill_session(leader: int) -> None:
    _signal(os.killpg, leader, signal.SIGKILL)
    for pid in session(leader):
        _signal(os.kill, pid, signal.SIGKILL)


def _signal(send: Callable[[int, int], None], pid: int, number: int) -> None:
    try:
        send(pid, number)
    except (ProcessLookupError, PermissionError):
        pass


def session(leader: int) -> Dict[int, int]:
    """The living processes of a session: the pid of each, and of its parent. run.sh of
    actions/runner puts its listener into another process group, but not into another session.

    Without /proc (macOS), the leader and its descendants, with 0 for their parents.
    """
    if not os.path.isdir("/proc/self"):
        from .guard import descendants

        return dict.fromkeys(descendants(leader), 0)
    living = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text("utf-8", "replace").rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == leader and fields[0] != "Z":
            living[int(stat.parent.name)] = int(fields[1])
    return living


def named(word: bytes, pids: Iterable[int]) -> List[int]:
    """Those of the processes that have this in their command line."""
    found = []
    for pid in pids:
        try:
            if word in Path("/proc/%d/cmdline" % pid).read_bytes():
                found.append(pid)
        except OSError:
            continue
    return found


def _echo(file: int, offset: int, echo: Callable[[str], object]) -> int:
    """Passes the complete lines from `offset` on to `echo`; returns where it stopped. Leaves the
    position of the file alone, which the command uses."""
    while True:
        text = os.pread(file, LINE_LIMIT, offset)
        whole = text[: text.rfind(b"\n") + 1] or text[: len(text) // LINE_LIMIT * LINE_LIMIT]
        if not whole:
            return offset
        offset += len(whole)
        for line in whole.decode("utf-8", "replace").splitlines():
            echo(line)


def run_to_end(
    argv: List[str],
    cwd: Path,
    env: Dict[str, str],
    seconds: float,
    keep: int = 20,
    echo: Optional[Callable[[str], object]] = None,
    over: Callable[[], bool] = lambda: False,
    **identity: Any,
) -> Optional[str]:
    """Runs a command for at most `seconds`, or until `over()`. Returns None if it succeeded, else
    what happened, with the last `keep` lines of its output. `echo` gets each line while the command
    runs."""
    with tempfile.TemporaryFile() as out:
        process = subprocess.Popen(
            argv,
            cwd=str(cwd),
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            **identity,
        )
        end = time.monotonic() + seconds
        echoed = 0
        code: Optional[int] = None
        while code is None and time.monotonic() < end and not over():
            try:
                code = process.wait(min(seconds, 0.5))
            except subprocess.TimeoutExpired:
                pass
            echoed = _echo(out.fileno(), echoed, echo) if echo else 0
        if code is None:
            _signal(os.killpg, process.pid, signal.SIGINT)
            time.sleep(0.5)
            kill_session(process.pid)
            # Not waited for: a driver or a mount that hangs keeps it, whatever the signal.
            threading.Thread(target=process.wait, daemon=True).start()
        out.seek(-min(out.seek(0, os.SEEK_END), LINE_LIMIT), os.SEEK_END)
        last = " / ".join(out.read().decode("utf-8", "replace").splitlines()[-keep:])
    if code is None:
        return "timed out after %d s: %s" % (seconds, last)
    return "exit code %d: %s" % (code, last) if code else None
