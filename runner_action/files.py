"""Files in and next to a checkout, where anyone with push access may have planted a link.

Writes go to a new file. Reads follow no link out of the checkout.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

ReadFile = Callable[[str], str | None]
"""Returns the text of a file; None if it cannot be read."""
LIMIT = 1 << 16
"""Most bytes that are read of a note: enough for the names of 200 runners."""


def replace(path: Path, text: str) -> None:
    """Puts a new file at `path`; a link there is replaced, not followed. The file is readable by
    everyone, as artifacts may be uploaded by another user than the job's."""
    descriptor, temporary = tempfile.mkstemp(prefix=".cml-runner-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            os.fchmod(file.fileno(), 0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_own(path: Path, text: str) -> None:
    """Writes a file that only this user can read; replaces what is there. Raises OSError."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)


def read_own(path: Path) -> str | None:
    """The text of a file that `write_own` wrote; None if there is none, or if it has another
    owner, other permissions or a second link."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        owned = status.st_uid == os.geteuid() and status.st_nlink == 1
        private = stat.S_ISREG(status.st_mode) and stat.S_IMODE(status.st_mode) == 0o600
        if not (owned and private):
            return None
        return file.read(LIMIT).decode("utf-8", "replace")


def file_text(path: str) -> str | None:
    """A file's text; None if it cannot be read."""
    return text_of(path, ())


def text_of(path: str, trees: Iterable[str]) -> str | None:
    """A file's text, with U+FFFD for what is not UTF-8; None if it cannot be read, or if it is a
    link that leads out of a checkout (`trees`): such a link may point to this job's environment,
    with all its secrets."""
    try:
        file = Path(path).absolute()
        for tree in map(Path, filter(None, trees)):
            if file.is_relative_to(tree) and not file.resolve().is_relative_to(tree.resolve()):
                return None
        return file.read_text("utf-8", errors="replace")
    except (OSError, ValueError):
        return None
