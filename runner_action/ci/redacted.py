"""A front that writes no secret: every text passes one filter on its way to a log, an output, a
summary or a file."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping, Sequence

from runner_action.ci.base import Front
from runner_action.errors import RunnerActionError
from runner_action.redaction import Redaction

OWN = "runner_action"


class Redacted:
    """Wraps the front of a CI."""

    def __init__(self, front: Front, redact: Redaction) -> None:
        self._front = front
        self._redact = redact

    def handler(self) -> logging.Handler:
        return _Handler(self._front.handler(), self._redact)

    def mask(self, secret: str) -> None:
        self._redact.add([secret])
        self._front.mask(secret)

    def error(self, error: RunnerActionError) -> None:
        self._front.error(RunnerActionError(self._redact(str(error)), self._redact(error.hint)))

    def crash(self, traceback: str) -> None:
        self._front.crash(self._redact(traceback))

    def done(self, outputs: Mapping[str, str], summary: str) -> None:
        values = {name: self._redact(value) for name, value in outputs.items()}
        self._front.done(values, self._redact(summary))

    def forget(self) -> None:
        self._front.forget()

    def remember(self, names: Sequence[str]) -> None:
        self._front.remember(names)

    def remembered(self) -> list[str] | None:
        return self._front.remembered()


class _Handler(logging.Handler):
    """Passes records on without secrets. Those of libraries count as debugging: the launcher's
    own errors say the same, and what to do."""

    def __init__(self, inner: logging.Handler, redact: Redaction) -> None:
        super().__init__()
        self._inner = inner
        self._redact = redact

    def emit(self, record: logging.LogRecord) -> None:
        safe = copy.copy(record)
        safe.msg = self._redact(record.getMessage())
        safe.args = None
        if record.exc_info:
            text = record.exc_text or logging.Formatter().formatException(record.exc_info)
            safe.exc_info = None
            safe.exc_text = self._redact(text)
        if record.name.partition(".")[0] != OWN:
            safe.levelno, safe.levelname = logging.DEBUG, "DEBUG"
        self._inner.handle(safe)
