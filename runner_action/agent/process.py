"""The forge's runner as a child process: whole lines out of it, and a bounded end for it and all
its children."""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional

PASSED_ON = [
    "PATH",
    "LANG",
    "RUNNER_ALLOW_RUNASROOT",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
    "NODE_EXTRA_CA_CERTS",
]
"""Variables that jobs see; in a pod (`pod.py`) all that its container was given."""
PROXIES = ("http_proxy", "https_proxy", "no_proxy", "all_proxy")
LINE_LIMIT = 65536
"""Bytes of one line; a longer one is read in pieces, so that a runaway job cannot fill the
memory."""


def job_user(name: str, environ: Dict[str, str]) -> pwd.struct_passwd:
    """Who runs the jobs: the user of that name, or whoever runs the agent where that is not
    root, or where the variable of actions/runner for containers, RUNNER_ALLOW_RUNASROOT, allows
    root.

    Raises KeyError if there is no such user: jobs never become root by accident.
    """
    if os.geteuid() != 0 or environ.get("RUNNER_ALLOW_RUNASROOT"):
        try:
            return pwd.getpwuid(os.geteuid())
        except KeyError:  # a container need not know its user
            return pwd.struct_passwd(
                (name, "", os.geteuid(), os.getegid(), "", environ["HOME"], "")
            )
    return pwd.getpwnam(name)


def identity(user: pwd.struct_passwd) -> Dict[str, Any]:
    """Keyword arguments for Popen that make a child that user; none where it is that user
    already."""
    if user.pw_uid == os.geteuid():
        return {}
    return {
        "user": user.pw_uid,
        "group": user.pw_gid,
        "extra_groups": os.getgrouplist(user.pw_name, user.pw_gid),
    }


def child_environment(user: pwd.struct_passwd, environ: Dict[str, str]) -> Dict[str, str]:
    """What a child sees: path, language, proxies and certificates of this process, and its own
    home. No secrets of ours."""
    passed = {
        key: value for key, value in environ.items() if key in PASSED_ON or key.lower() in PROXIES
    }
    passed.setdefault("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    return {**passed, "HOME": user.pw_dir, "USER": user.pw_name, "LOGNAME": user.pw_name}


class Tail:
    """New whole lines of a growing file; a line still being written waits for the next look,
    unless it never ends."""

    def __init__(self, path: Path, offset: int = 0) -> None:
        self._path = path
        self.offset = offset

    def lines(self) -> List[str]:
        try:
            with self._path.open("rb") as file:
                file.seek(self.offset)
                text = file.read(LINE_LIMIT)
        except OSError:
            return []
        whole = (
            text if len(text) == LINE_LIMIT and b"\n" not in text else text[: text.rfind(b"\n") + 1]
        )
        self.offset += len(whole)
        return [
            line.decode("utf-8", "replace").rstrip("\r")
            for line in whole.split(b"\n")
            if line.strip()
        ]


class Child:
    """A process in a session of its own that writes to a file, so that it outlives an agent that
    is killed, and is found again."""

    def __init__(
        self, pid: int, wait: Callable[[], int], exited: Callable[[int], None], stdin: Any = None
    ) -> None:
        # A guard's standard input closes when this process ends, however it ends.
        self.pid = pid
        self._exited = exited
        self._over = threading.Event()
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
        more.setdefault("stdin", subprocess.DEVNULL)
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
        """Somebody else's child, left by an agent before this one; its exit code cannot be
        known."""

        def wait() -> int:
            while session(pid):
                time.sleep(0.5)
            return -1

        return cls(pid, wait, exited)

    def _wait(self, wait: Callable[[], int]) -> None:
        code = wait()
        if self._stdin:
            self._stdin.close()
        self._over.set()
        self._exited(code)

    def quit(self, seconds: float) -> bool:
        """SIGQUIT to the group; whether it ended in time."""
        _signal(os.killpg, self.pid, signal.SIGQUIT)
        return self._over.wait(seconds)

    def stop(self, seconds: float, hurry: Callable[[], bool]) -> None:
        """SIGINT to the group, which actions/runner takes as a wish to leave; after `seconds`,
        or when there is a hurry, SIGKILL to all that is left of the session."""
        end = time.monotonic() + seconds
        _signal(os.killpg, self.pid, signal.SIGINT)
        while time.monotonic() < end and not hurry() and not self._over.wait(0.1):
            pass
        kill_session(self.pid)
        self._over.wait(5)


def kill_session(leader: int) -> None:
    _signal(os.killpg, leader, signal.SIGKILL)
    for pid in session(leader):
        _signal(os.kill, pid, signal.SIGKILL)


def _signal(send: Callable[[int, int], None], pid: int, number: int) -> None:
    try:
        send(pid, number)
    except (ProcessLookupError, PermissionError):
        pass


def session(leader: int) -> List[int]:
    """Living processes of a session. run.sh of actions/runner puts its listener into a group of
    its own, but not into another session.

    Where there is no /proc (macOS), the descendants.
    """
    if not os.path.isdir("/proc/self"):
        from .guard import descendants

        return descendants(leader)
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text("utf-8", "replace").rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == leader and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


def _echo(file: int, offset: int, echo: Callable[[str], object]) -> int:
    """Tells the whole lines from there on; gives where it stopped. The file's own position is
    the command's."""
    while True:
        read = os.pread(file, LINE_LIMIT, offset)
        whole = read[: read.rfind(b"\n") + 1] or read[: len(read) // LINE_LIMIT * LINE_LIMIT]
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
    **identity: Any,
) -> Optional[str]:
    """Runs a command. None if it ended well; else what happened, with the last `keep` lines it
    said. `echo` gets all its lines while it runs."""
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
        told = 0
        code: Optional[int] = None
        while code is None and time.monotonic() < end:
            try:
                code = process.wait(min(seconds, 0.5))
            except subprocess.TimeoutExpired:
                pass
            told = _echo(out.fileno(), told, echo) if echo else 0
        if code is None:
            _signal(os.killpg, process.pid, signal.SIGINT)
            time.sleep(0.5)
            kill_session(process.pid)
            process.wait()
        out.seek(-min(out.seek(0, os.SEEK_END), LINE_LIMIT), os.SEEK_END)
        said = " / ".join(out.read().decode("utf-8", "replace").splitlines()[-keep:])
    if code is None:
        return "no end after %d s: %s" % (seconds, said)
    return "exit code %d: %s" % (code, said) if code else None
