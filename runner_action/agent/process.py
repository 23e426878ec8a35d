"""The forge's runner as a child process: whole lines out of it, and a bounded end for it and all its children."""

from __future__ import annotations

import collections
import os
import pwd
import queue
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any, Callable, Deque, Dict, List, Optional

PASSED_ON = ("PATH", "LANG", "RUNNER_ALLOW_RUNASROOT", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS")
PROXIES = ("http_proxy", "https_proxy", "no_proxy", "all_proxy")
LINE_LIMIT = 65536
"""Bytes of one line; a longer one is read in pieces, so that a runaway job cannot fill the memory."""


def job_user(name: str, environ: Dict[str, str]) -> pwd.struct_passwd:
    """Who runs the jobs: the user of that name, or whoever runs the agent where that is not root, or where the
    variable of actions/runner for containers, RUNNER_ALLOW_RUNASROOT, allows root.

    Raises KeyError if there is no such user: jobs never become root by accident.
    """
    if os.geteuid() != 0 or environ.get("RUNNER_ALLOW_RUNASROOT"):
        return pwd.getpwuid(os.geteuid())
    return pwd.getpwnam(name)


def identity(user: pwd.struct_passwd) -> Dict[str, Any]:
    """Keyword arguments for Popen that make a child that user; none where it is that user already."""
    if user.pw_uid == os.geteuid():
        return {}
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": os.getgrouplist(user.pw_name, user.pw_gid)}


def child_environment(user: pwd.struct_passwd, environ: Dict[str, str]) -> Dict[str, str]:
    """What a child sees: path, language, proxies and certificates of this process, and its own home. No secrets of ours."""
    passed = {key: value for key, value in environ.items() if key in PASSED_ON or key.lower() in PROXIES}
    passed.setdefault("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    return {**passed, "HOME": user.pw_dir, "USER": user.pw_name, "LOGNAME": user.pw_name}


class Child:
    """A process in a group of its own, with its output read line by line."""

    def __init__(self, argv: List[str], cwd: Path, env: Dict[str, str], line: Callable[[str], None], exited: Callable[[int], None], **identity: Any) -> None:
        self._process = subprocess.Popen(
            argv, cwd=str(cwd), env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True, **identity
        )
        self._reader = threading.Thread(target=self._read, args=(line,), daemon=True)
        self._reader.start()
        threading.Thread(target=self._wait, args=(exited,), daemon=True).start()

    def _read(self, line: Callable[[str], None]) -> None:
        out = self._process.stdout
        assert out is not None
        with out:
            for raw in iter(lambda: out.readline(LINE_LIMIT), b""):
                line(raw.decode("utf-8", "replace").rstrip("\r\n"))

    def _wait(self, exited: Callable[[int], None]) -> None:
        code = self._process.wait()
        # The last lines first; but a process left behind by a job may hold the pipe for ever.
        self._reader.join(1)
        exited(code)

    def stop(self, seconds: float) -> None:
        """SIGINT to the group, which actions/runner takes as a wish to leave; after `seconds` SIGKILL to all that is left of the session."""
        end = time.monotonic() + seconds
        self._signal(os.killpg, self._process.pid, signal.SIGINT)
        while self._process.poll() is None and time.monotonic() < end:
            time.sleep(0.05)
        self._signal(os.killpg, self._process.pid, signal.SIGKILL)
        for pid in session(self._process.pid):
            self._signal(os.kill, pid, signal.SIGKILL)
        self._process.wait()

    @staticmethod
    def _signal(send: Callable[[int, int], None], pid: int, number: int) -> None:
        try:
            send(pid, number)
        except ProcessLookupError:
            pass


def session(leader: int) -> List[int]:
    """Processes of a session. run.sh of actions/runner puts its listener into a group of its own, but not into another session."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text("utf-8", "replace").rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == leader:
            found.append(int(stat.parent.name))
    return found


def run_to_end(argv: List[str], cwd: Path, env: Dict[str, str], seconds: float, keep: int = 20, **identity: Any) -> Optional[str]:
    """Runs a command. None if it ended well; else what happened, with the last `keep` lines it said."""
    lines: Deque[str] = collections.deque(maxlen=keep)
    codes: "queue.Queue[int]" = queue.Queue()
    child = Child(argv, cwd, env, lines.append, codes.put, **identity)
    try:
        code = codes.get(timeout=seconds)
    except queue.Empty:
        child.stop(2)
        return "no end after %d s: %s" % (seconds, " / ".join(lines))
    return None if code == 0 else "exit code %d: %s" % (code, " / ".join(lines))
