"""What a CI is told, the same for each of them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Protocol

from runner_action.errors import RunnerActionError
from runner_action.plain import is_plain, lines, plain

LEVELS = {
    "error": logging.ERROR,
    "warn": logging.WARNING,
    "info": logging.INFO,
    "debug": logging.DEBUG,
}


class Front(Protocol):
    """One CI's way of being told things."""

    def handler(self) -> logging.Handler: ...

    def mask(self, secret: str) -> None:
        """Lets the CI star out a text in everything that is logged."""
        ...

    def error(self, error: RunnerActionError) -> None: ...

    def crash(self, traceback: str) -> None:
        """A surprise: the traceback, folded where possible, and where to report it."""
        ...

    def done(self, told: Mapping[str, str], report: str) -> None:
        """Outputs for later jobs, and the summary."""
        ...

    def forget(self) -> None:
        """What is noted under this job's name before its launch begins is no note of it."""
        ...

    def remember(self, names: Sequence[str]) -> None:
        """Runners that are about to be made, for `cleanup` after the job; none when all was
        taken back."""
        ...

    def remembered(self) -> list[str] | None:
        """The way back, in the step after the job. None: nobody knows."""
        ...


MARK_TITLE = "cml-runner"
"""Title of the annotations by which `cml-runner restart` knows launch jobs and interruptions."""


def online_mark(names: Sequence[str]) -> str:
    return f"Runner online: {', '.join(names)}"


def runners_marked(message: str) -> list[str]:
    """The way back."""
    head, _, names = message.partition("Runner online: ")
    return names.split(", ") if not head and names else []


LISTS = ("runners", "status", "removed")
"""Outputs that are JSON."""
BUG = (
    "This is a bug in cml-runner. What it had created has been deleted, unless a line above says"
    " otherwise. Please report it with these lines."
)


def checked(told: Mapping[str, str]) -> Mapping[str, str]:
    """Outputs as they are. Raises RunnerActionError where one would be more than a value: a line
    end would begin a second output, a second variable of later jobs."""
    for name, value in told.items():
        if not is_plain(value):
            raise RunnerActionError(
                f"Output {name} would be {plain(value)!r}, but for characters that no value may"
                " have.",
                "Look for who gave a runner or a machine such a name, and give it another.",
            )
    return told


def full(error: RunnerActionError) -> str:
    return lines(f"{error}\n{error.hint}" if error.hint else str(error))


class PlainFormatter(logging.Formatter):
    """A record is a line; only an error may have more, as it may show a console."""

    def format(self, record: logging.LogRecord) -> str:
        return text_of(record, super().format(record))


def text_of(record: logging.LogRecord, text: str) -> str:
    return lines(text) if record.levelno >= logging.ERROR else plain(text)
