"""Names each effect of the agent in this process, writes it down, and lets the fate of a point
happen at it. Runs in every Python of a machine in the agent's kill matrix (`injected`).

Files, folders, signals: by an audit hook, which is called before the effect and may raise.
Processes, the console and free space have no audit event, or one that is not enough.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

FOR_EVER = 1e6
LONGEST = 80
"""Characters of what an effect is done to."""
CHANGES = {
    "os.chmod": 0,
    "os.chown": 0,
    "os.exec": 0,
    "os.link": 1,
    "os.listdir": 0,
    "os.mkdir": 0,
    "os.remove": 0,
    "os.rename": 1,
    "os.rmdir": 0,
    "os.scandir": 0,
    "os.symlink": 1,
    "os.truncate": 0,
    "os.utime": 0,
}
"""Audit events, and which of their arguments is the path that changes."""
SIGNALS = ("os.kill", "os.killpg")
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
LINES = ("/jobs", "/runner.log")
"""Files that the hooks and the runner program write."""
MORE = ("twice", "noise")
NOISE = b"\xff\x00started\t\t{not a line of theirs"
HIDDEN = (
    (r" after .*\d\dZ: ", " after "),
    (r' after .*"msg":"([^"]*).*', r" after \1"),
    (r"/proc/\d+", "/proc/PID"),
    (r"/tmp/?[a-z0-9_]{8}\b", "/tmp/NAME"),
    (r"agent\.new/\w+", "agent.new/NAME"),
    (r"/devices/[\w:.]+", "/devices/NAME"),
    (r"\bi-[0-9a-f]+", "MACHINE"),
    (r"\bwith token \w+", "with token TOKEN"),
    (r"\bcml-[0-9a-z]+(-[0-9a-z]+)*", "NAME"),
    (r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{16,}", "ID"),
    (r"(?<![\w.])\d+(?![\w.])", "N"),
)
"""What is another in every life."""
ERRORS = {
    "read": errno.EIO,
    "lines": errno.EIO,
    "write": errno.ENOSPC,
    "change": errno.EIO,
    "signal": errno.EPERM,
    "start": errno.EAGAIN,
    "request": errno.ECONNREFUSED,
    "connect": errno.ECONNREFUSED,
    "say": errno.EPIPE,
    "space": errno.EIO,
}
"""By kind of effect."""
real_open = builtins.open
real_popen = subprocess.Popen
real_statvfs = os.statvfs
real_write = os.write
real_pread = os.pread


def error(kind: str) -> OSError:
    return OSError(ERRORS[kind], os.strerror(ERRORS[kind]))


def program_of(argv: Sequence[str]) -> str:
    """Which of the agent's programs this process is; empty if it is none."""
    words = list(argv)
    packed = [at for at, word in enumerate(words) if word.endswith("/agent.pyz")]
    if packed:
        return " ".join(["pod", *words[packed[0] + 1 :][:1]])
    if "-m" not in words:
        return ""
    module, *rest = words[words.index("-m") + 1 :]
    if module == "agent":
        return rest[0] if rest else ""
    return module.partition("agent.")[2]


class Injected:
    """`settings`: `agent`, the folder of its source; `folder` for what is shared by all processes;
    `at`: the name of an effect and its fate, or None; `once`; `faster`: constants by module."""

    def __init__(self, settings: dict[str, Any], program: str) -> None:
        self.agent = settings["agent"]
        self.folder = Path(settings["folder"])
        self.at: list[str] | None = settings["at"]
        self.once: bool = settings["once"]
        self.program = program
        self.home = str(Path.cwd())
        self._root = re.sub(r"(/machines/[^/]+).*", r"\1", self.home)
        self.own = threading.local()
        self._known: set[str] = set()
        self._silent = False
        self._log = os.open(self.folder / "effects", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        if not self._claimed("machine", self._root):  # what happens, happens to the first machine
            self.at = None

    def _claimed(self, name: str, text: str) -> bool:
        """Whether this file has, or now gets, this text."""
        file = self.folder / name
        try:
            made = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            return file.read_text() == text
        real_write(made, text.encode())
        os.close(made)
        return True

    def meet(self, kind: str, target: str) -> str:
        """At an effect: what happens there, beyond what is done here. Empty: nothing."""
        if self.busy():
            return ""
        place = self._place(sys._getframe(1))
        if not place:
            return ""
        with self.quiet():
            return self._meet(place, kind, target)

    def busy(self) -> bool:
        return bool(getattr(self.own, "busy", False))

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """What is done here is no effect of the agent's."""
        self.own.busy = True
        try:
            yield
        finally:
            self.own.busy = False

    def _meet(self, place: str, kind: str, target: str) -> str:
        name = f"{self.program}: {place}: {kind} {self.plain(target)}"
        if name not in self._known:
            self._known.add(name)
            real_write(self._log, (name + "\n").encode())
        if self._silent and kind == "say":
            raise error("say")
        if not self.at or self.at[0] != name or not self._comes():
            return ""
        return self._happens(kind, self.at[1])

    def _comes(self) -> bool:
        """Whether it happens now; once is once in a life, whatever processes there are."""
        mine = f"{os.getpid()} {time.monotonic()}"
        first = self._claimed("came", mine)
        return first or not self.once

    def _happens(self, kind: str, fate: str) -> str:
        if fate == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if fate in ("killed", "never returns"):
            time.sleep(FOR_EVER)
        if fate == "fails from then on" and kind == "say":
            self._silent = True
        if fate.startswith("fails"):
            raise error(kind)
        return fate

    def _place(self, frame: FrameType | None) -> str:
        """The function of the agent in which this happens; empty if that is none of its own doing,
        such as an import."""
        while frame:
            file = frame.f_code.co_filename
            if file.startswith("<frozen importlib"):
                return ""
            if file.startswith(self.agent):
                name = getattr(frame.f_code, "co_qualname", frame.f_code.co_name)
                return f"{Path(file).stem}.{re.sub(r'[.]?<[a-z]+>', '', name)}"
            frame = frame.f_back
        return ""

    def plain(self, target: str) -> str:
        """The same in every life."""
        target = target.replace(self.home, "~").replace(self._root + "/root", "")
        target = target.replace(self._root, "")
        for pattern, word in HIDDEN:
            target = re.sub(pattern, word, target)
        return " ".join(target.split())[:LONGEST]


# --- files, folders, signals


def last_line(injected: Injected, path: str) -> str:
    """What the runner program or its hooks have written last; empty for all other files."""
    if not path.endswith(LINES) or not Path(path).exists():
        return ""
    with injected.quiet(), real_open(path, "rb") as file:
        lines = file.read().split(b"\n")[-2:-1]
    return "".join(line.decode("utf-8", "replace") for line in lines)


def add_line(injected: Injected, path: str, fate: str) -> None:
    """The same line once more, or one that means nothing."""
    with injected.quiet():
        with real_open(path, "rb") as file:
            last = file.read().split(b"\n")[-2]
        with real_open(path, "ab") as file:
            file.write((last if fate == MORE[0] else NOISE) + b"\n")


def named(path: Any) -> str:
    """A path of any kind; one that is an open folder has no name."""
    return "." if path is None or isinstance(path, int) else os.fsdecode(path)


def opens(injected: Injected, path: Any, mode: str | None, flags: int) -> None:
    if injected.busy() or not isinstance(path, str) or path == os.devnull:
        return
    writes = bool(set("wax+") & set(mode)) if mode else bool(flags & WRITES)
    said = last_line(injected, path) if mode and not writes else ""
    if said:
        fate = injected.meet("lines", f"{path} after {said}")
    else:
        fate = injected.meet("write" if writes else "read", path)
    injected.own.half = fate.startswith("half") or getattr(injected.own, "half", False)
    if fate in MORE:
        add_line(injected, path, fate)


def hook(injected: Injected) -> Callable[[str, tuple[Any, ...]], None]:
    def heard(event: str, words: tuple[Any, ...]) -> None:
        if event == "open":
            opens(injected, *words)
        elif event in CHANGES:
            injected.meet("change", f"{event[3:]} {named(words[CHANGES[event]])}")
        elif event == "socket.connect" and isinstance(words[1], str):
            injected.meet("connect", words[1])
        elif event in SIGNALS:
            injected.meet("signal", f"{event[3:]} {signal.Signals(words[1]).name}")

    return heard


class Full:
    """A file on a disk that becomes full while it is written."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def write(self, content: Any) -> int:
        self._file.write(content[: len(content) // 2])
        self._file.flush()
        raise error("write")

    def __enter__(self) -> Full:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def opener(injected: Injected) -> Callable[..., Any]:
    def opened(file: Any, mode: str = "r", *more: Any, **options: Any) -> Any:
        injected.own.half = False
        made = real_open(file, mode, *more, **options)
        if not injected.own.half:
            return made
        injected.own.half = False
        if set("wax+") & set(mode):
            return Full(made)
        with made:
            content: Any = made.read()
        content = content[: len(content) // 2]
        return io.BytesIO(content) if "b" in mode else io.StringIO(content)

    return opened


def pread_of(injected: Injected) -> Callable[[int, int, int], bytes]:
    """Lines of the runner program or its hooks, in a file that stays open."""

    def pread(descriptor: int, length: int, offset: int) -> bytes:
        path = str(Path(f"/proc/self/fd/{descriptor}").readlink())
        said = last_line(injected, path)
        fate = injected.meet("lines", f"{path} after {said}") if said else ""
        if fate in MORE:
            add_line(injected, path, fate)
        text = real_pread(descriptor, length, offset)
        return text[: len(text) // 2] if fate.startswith("half") else text

    return pread


def space_of(injected: Injected) -> Callable[..., Any]:
    def space(path: Any) -> os.statvfs_result:
        fate = injected.meet("space", str(path))
        found = real_statvfs(path)
        free_at = 4  # f_bavail
        numbers = [0 if fate and at == free_at else number for at, number in enumerate(found)]
        return os.statvfs_result(numbers)

    return space


# --- processes


def popen_of(injected: Injected) -> type[subprocess.Popen[Any]]:
    class Popen(subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, args: Any, *more: Any, **options: Any) -> None:
            words = [args] if isinstance(args, str) else [str(word) for word in args]
            name = words[2] if words[1:2] == ["-c"] else Path(words[0]).name
            fate = injected.meet("start", name)
            if fate.startswith("exit code"):
                args = ["/bin/false"]
            elif fate == "does not end":
                args = ["/bin/sleep", "1000"]
            injected.own.busy = True
            try:
                super().__init__(args, *more, **options)
            finally:
                injected.own.busy = False

    return Popen


# --- the console


def write_of(injected: Injected) -> Callable[[int, bytes], int]:
    """A line on standard output is named by the stage that is told."""

    def write(descriptor: int, text: bytes) -> int:
        stage = re.search(rb'"stage": "([^"]*)"', text)
        if stage and descriptor == 1:
            injected.meet("say", stage[1].decode())
        return real_write(descriptor, text)

    return write


def inject(injected: Injected) -> None:
    builtins.open = io.open = opener(injected)
    os.statvfs = space_of(injected)
    subprocess.Popen = popen_of(injected)  # type: ignore[assignment,misc]
    os.write = write_of(injected)  # type: ignore[assignment]
    os.pread = pread_of(injected)
    sys.addaudithook(hook(injected))
