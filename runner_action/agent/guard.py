"""For a machine that is not ours: a runner that never outlives the agent. Not part of what a
cloud's machine gets."""

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
"""How to start it, followed by the command it guards."""


def descendants(leader: int) -> List[int]:
    told = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid="],
        stdout=subprocess.PIPE,
        universal_newlines=True,
        check=False,
    ).stdout
    pairs = [(int(line.split()[0]), int(line.split()[1])) for line in told.splitlines()]
    found = [pid for pid, _ in pairs if pid == leader]
    for parent in found:
        found += [pid for pid, above in pairs if above == parent and pid not in found]
    return found


def guard(argv: List[str], seconds: float = 10) -> int:
    """Runs a command, and ends it with all its children when standard input closes: when whoever
    started this is gone."""
    for meant_for_the_command in (signal.SIGINT, signal.SIGQUIT):  # which is of the same group
        signal.signal(meant_for_the_command, lambda *_: None)
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
        for _ in range(5):  # one may be born while another is killed
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
