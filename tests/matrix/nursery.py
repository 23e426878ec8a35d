"""Launchers by the hundred: a process that has loaded everything, and forks one for each launch.

A launch by itself spends its first second loading libraries; a matrix of a thousand would spend
it a thousand times. The nursery is forked before its worker has any thread, has none itself, and
speaks in lines of JSON.
"""

from __future__ import annotations

import gc
import json
import os
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import runner_action.__main__ as command


class Nursery:
    """Begins launches, and waits for those that were begun."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        gc.collect()
        gc.freeze()
        self.pid = os.fork()
        if self.pid == 0:
            ours.close()
            _live(theirs)
        theirs.close()
        self._line = ours.makefile("rw", encoding="utf-8")

    def launch(self, argv: Sequence[str], environ: Mapping[str, str], log: Path) -> int:
        """The process id of `cml-runner` with these words, in an environment of nothing but
        this."""
        return int(self._ask([list(argv), dict(environ), str(log)]))

    def wait(self) -> tuple[int, int, float]:
        """The next that ends: its process id, its exit code, negative for a signal, and when
        that was by the clock that all processes share."""
        pid, code, at = self._ask(None)
        return int(pid), int(code), float(at)

    def _ask(self, what: object) -> Any:
        self._line.write(json.dumps(what) + "\n")
        self._line.flush()
        return json.loads(self._line.readline())

    def close(self) -> None:
        self._line.close()
        os.waitpid(self.pid, 0)


def _live(line: socket.socket) -> NoReturn:
    with line.makefile("rw", encoding="utf-8") as told:
        for asked in map(json.loads, told):
            told.write(json.dumps(_fork(*asked) if asked else _ended()) + "\n")
            told.flush()
    os._exit(0)


def _fork(argv: Sequence[str], environ: Mapping[str, str], log: str) -> int:
    pid = os.fork()
    if pid == 0:
        _launch(argv, environ, log)
    return pid


def _ended() -> tuple[int, int, float]:
    pid, status = os.wait()
    return pid, os.waitstatus_to_exitcode(status), time.monotonic()


def _launch(argv: Sequence[str], environ: Mapping[str, str], log: str) -> NoReturn:
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.environ.clear()
    os.environ.update(environ)
    sys.argv = ["cml-runner", *argv]
    command.run()
    os._exit(70)
