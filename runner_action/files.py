"""Files in and beside a checkout, in which whoever may push may have put a link.

What is written goes to a new file; what is read is a file of ours, or lies where it seems to lie.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterable
from pathlib import Path

LIMIT = 1 << 16
"""Bytes of a note: names of 200 runners, and some."""


def replace(path: Path, text: str) -> None:
    """Puts a new file in its place, whatever is there: a link too is replaced, and not followed.
    It may be read by all, as what uploads a job's artifacts need not be the job's user."""
    number, fresh = tempfile.mkstemp(prefix=".cml-runner-", dir=path.parent)
    try:
        with os.fdopen(number, "w", encoding="utf-8") as file:
            file.write(text)
            os.fchmod(file.fileno(), 0o644)
        Path(fresh).replace(path)
    except BaseException:
        Path(fresh).unlink(missing_ok=True)
        raise


def write_own(path: Path, text: str) -> None:
    """A file that nobody else can read, in place of what had its name. Raises OSError."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    path.unlink(missing_ok=True)
    number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(number, "w", encoding="utf-8") as file:
        file.write(text)


def read_own(path: Path) -> str | None:
    """Of a file that `write_own` may have made; None: there is none, or it is somebody else's."""
    try:
        number = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    with os.fdopen(number, "rb") as file:
        told = os.fstat(number)
        mine = told.st_uid == os.geteuid() and told.st_nlink == 1
        if not (mine and stat.S_ISREG(told.st_mode) and stat.S_IMODE(told.st_mode) == 0o600):
            return None
        return file.read(LIMIT).decode("utf-8", "replace")


def text_of(path: str, trees: Iterable[str]) -> str | None:
    """A file's text, or None if it cannot be read. One in a checkout (`trees`) must lie there: a
    link out of it may lead to this job's own environment, with all its secrets."""
    try:
        given = Path(path).absolute()
        for tree in map(Path, filter(None, trees)):
            if given.is_relative_to(tree) and not given.resolve().is_relative_to(tree.resolve()):
                return None
        return given.read_text("utf-8")
    except (OSError, ValueError):
        return None
