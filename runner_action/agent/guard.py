"""On a local machine, ends the runner when the agent ends. Cloud machines do not get this
module."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from typing import List

from .process import session

COMMAND = (sys.executable, "-m", "runner_action.agent.guard")
"""Starts it; the command that it guards comes after these arguments."""


def descendants(leader: int) -> List[int]:
    """The pids of a process and its descendants, as listed by ps."""
    listing = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid="],
        stdout=subprocess.PIPE,
        universal_newlines=True,
        check=False,
    ).stdout
    pairs = [(int(line.split()[0]), int(line.split()[1])) for line in listing.splitlines()]
    family = [pid for pid, _ in pairs if pid == leader]
    for parent in family:
        family += [pid for pid, above in pairs if above == parent and pid not in family]
    return family


def guard(argv: List[str], seconds: float = 10) -> int:
    """Runs a command and returns its exit code. When standard input closes, which means that the
    agent is gone, ends the command and all of its children."""
    for number in (signal.SIGINT, signal.SIGQUIT):  # for the command, which is of the same group
        signal.signal(number, lambda *_: None)
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL)
    alone = threading.Event()

    def watch() -> None:
        while os.read(0, 1):
            pass
        alone.set()
        os.killpg(os.getpid(), signal.SIGINT)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            pass
        for _ in range(5):  # a new process may start while the others are killed
            for pid in session(os.getpid()):
                if pid != os.getpid():
                    with contextlib.suppress(OSError):
                        os.kill(pid, signal.SIGKILL)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    code = process.wait()
    if alone.is_set():
        time.sleep(seconds)
    return code


if __name__ == "__main__":
    sys.exit(guard(sys.argv[1:]))
