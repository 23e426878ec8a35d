"""Numbers the launches of one step (on GitLab, of one job), so that each has a key of its own.

A number is random. It has a file in a folder that the launches share if they can, and its launch
holds a lock on that (`flock`), which ends with the process however that ends. See
docs/decisions/0041.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

ORDINALS = 1 << 20
"""How many there are. Ten launches that draw one at the same moment are all different with a
probability of 99.996 %."""
LIMIT = 1 << 16
"""Most bytes that are read of a file: enough for the names of 200 runners."""


class State(StrEnum):
    """What a launch has left, by its file; an empty file: nothing."""

    CREATED = "created"
    """Requests were made that it has not rolled back, so far."""
    ONLINE = "online"
    DELETED = "deleted"


@dataclass(frozen=True)
class Entry:
    """What a launch wrote: its ordinal, its state, and the names of its runners."""

    ordinal: int
    state: State
    names: tuple[str, ...]


class Ordinals:
    """The ordinals of the launches with the same key. `folder`: None if nothing can be shared;
    `draw`: a random number from 0 to below its argument."""

    def __init__(
        self, folder: Path | None, key: str, draw: Callable[[int], int] = secrets.randbelow
    ) -> None:
        self._folder = folder
        self._draw = draw
        self._stem = f"cml-runner-{hashlib.sha256(key.encode()).hexdigest()[:16]}-"
        self._held: dict[int, int] = {}
        """Descriptors of the locked files, by ordinal."""
        self._names: tuple[str, ...] = ()
        self.own: int | None = None
        """The ordinal of this launch."""

    def take(self) -> int:
        """Takes an ordinal that no launch has used or is using: that of a launch which created
        nothing, or a random one."""
        self.own = next(filter(self._is_free, self._numbers()), None)
        while self.own is None:
            ordinal = 1 + self._draw(ORDINALS - 1)
            if self._is_free(ordinal) or self._folder is None:
                self.own = ordinal
        return self.own

    def _is_free(self, ordinal: int) -> bool:
        """Whether no launch has used it or is using it. Holds its lock then."""
        if not self._lock(ordinal):
            return False
        if os.fstat(self._held[ordinal]).st_size == 0:
            return True
        self._release(ordinal)
        return False

    def note(self, state: State, names: Sequence[str] = (), ordinal: int | None = None) -> None:
        """Stores the state of a launch, by default of this one; not while another process has
        its lock."""
        ordinal = self.own if ordinal is None else ordinal
        if ordinal is None or not (ordinal in self._held or self._lock(ordinal)):
            return
        text = json.dumps({"state": state, "runners": list(names)}).encode()
        with suppress(OSError):
            os.ftruncate(self._held[ordinal], 0)
            os.pwrite(self._held[ordinal], text, 0)

    def remember(self, names: Sequence[str]) -> None:
        """As `Front.remember`."""
        self._names = tuple(names) or self._names
        self.note(State.CREATED if names else State.DELETED, self._names)

    def succeeded(self) -> None:
        """Stores that the runners are online."""
        if self._names:
            self.note(State.ONLINE, self._names)

    def close(self) -> None:
        """Releases all locks, as the end of the process does."""
        for ordinal in list(self._held):
            self._release(ordinal)

    def left(self) -> list[Entry]:
        """The launches of this step that have created something and not deleted it."""
        return [entry for entry in self._entries() if entry.state is not State.DELETED]

    def killed(self) -> list[Entry]:
        """The launches that ended neither with runners online nor with a complete rollback. Holds
        their locks, so that no other launch takes them, too."""
        created = [entry for entry in self._entries() if entry.state is State.CREATED]
        return [entry for entry in created if entry.ordinal != self.own and self._relock(entry)]

    def _relock(self, entry: Entry) -> bool:
        """Whether the launch has ended, and is still as it was read."""
        if not self._lock(entry.ordinal):
            return False
        if self._read(entry.ordinal) == entry:
            return True
        self._release(entry.ordinal)
        return False

    def _entries(self) -> Iterator[Entry]:
        return filter(None, map(self._read, self._numbers()))

    def _numbers(self) -> list[int]:
        """The ordinals of which there is a file."""
        if self._folder is None:
            return []
        names = [path.name.removeprefix(self._stem) for path in self._folder.glob(f"{self._stem}*")]
        return sorted(int(name) for name in names if re.fullmatch("[0-9]{1,7}", name))

    def _read(self, ordinal: int) -> Entry | None:
        path = self._path(ordinal)
        assert path
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            return None
        with os.fdopen(descriptor, "rb") as file:
            try:
                fields = json.loads(file.read(LIMIT))
                names = tuple(map(str, fields["runners"]))
                return Entry(ordinal, State(fields["state"]), names)
            except (ValueError, KeyError, TypeError):
                return None

    def _lock(self, ordinal: int) -> bool:
        path = self._path(ordinal)
        if path is None:
            return False
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
            descriptor = os.open(path, flags, 0o600)
        except OSError:
            self._folder = None
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            if not isinstance(error, BlockingIOError):
                self._folder = None
            return False
        self._held[ordinal] = descriptor
        return True

    def _release(self, ordinal: int) -> None:
        os.close(self._held.pop(ordinal))

    def _path(self, ordinal: int) -> Path | None:
        return self._folder and self._folder / f"{self._stem}{ordinal}"


def shared_folder(path: str) -> Path | None:
    """The folder, which is created if only its last part is missing; None if there is none."""
    if not path:
        return None
    folder = Path(path)
    with suppress(OSError):
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder.resolve()
    return None
