"""What cml-runner writes to a CI or a terminal; each implements `Front`."""

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
    """Writes logs, errors and results the way one CI displays them."""

    def handler(self) -> logging.Handler: ...

    def mask(self, secret: str) -> None:
        """Asks the CI to replace a text by asterisks in all of its log."""
        ...

    def error(self, error: RunnerActionError) -> None: ...

    def crash(self, traceback: str) -> None:
        """Reports a bug: the traceback, folded where possible, and where to report it."""
        ...

    def done(self, outputs: Mapping[str, str], summary: str) -> None:
        """Writes the outputs for later jobs, and the summary in Markdown."""
        ...

    def forget(self) -> None:
        """Deletes names that were remembered before this launch began: they are not its own.
        Raises InputError if outputs could not be written."""
        ...

    def remember(self, names: Sequence[str]) -> None:
        """Stores the names of the runners that are about to be created, for `cleanup` after the
        job; no names once everything is rolled back."""
        ...

    def remembered(self) -> list[str] | None:
        """The names that `remember` stored, read in the step after the job; None if unknown."""
        ...


MARK_TITLE = "cml-runner"
"""Title of the annotations in which `cml-runner restart` finds launch jobs and interruptions."""


def online_mark(names: Sequence[str]) -> str:
    """The annotation of a launch job: the names of its runners."""
    return f"Runner online: {', '.join(names)}"


def runners_marked(message: str) -> list[str]:
    """The names in an annotation of `online_mark`; none in any other."""
    head, _, names = message.partition("Runner online: ")
    return names.split(", ") if not head and names else []


LISTS = ("runners", "status", "removed")
"""Outputs that are JSON."""
BUG = (
    "This is a bug in cml-runner. Everything that it had created was deleted, unless a line above"
    " says otherwise. Please report it with these lines."
)


def checked(outputs: Mapping[str, str]) -> Mapping[str, str]:
    """The outputs, unchanged. Raises RunnerActionError if a value is more than a line of text: a
    line break would start a second output, or a second variable of later jobs."""
    for name, value in outputs.items():
        if not is_plain(value):
            raise RunnerActionError(
                f"Output {name} contains control characters or a workflow command, which no output"
                f" may; without them it would be {plain(value)!r}.",
                "Find the runner or the machine with such a name, and rename it.",
            )
    return outputs


def with_hint(error: RunnerActionError) -> str:
    """Message and hint of an error, as plain lines."""
    return lines(f"{error}\n{error.hint}" if error.hint else str(error))


class PlainFormatter(logging.Formatter):
    """Formats a record as one line; an error, which may quote a console, keeps its lines."""

    def format(self, record: logging.LogRecord) -> str:
        return text_of(record, super().format(record))


def text_of(record: logging.LogRecord, text: str) -> str:
    """`text` without control characters; on several lines only for an error."""
    return lines(text) if record.levelno >= logging.ERROR else plain(text)
