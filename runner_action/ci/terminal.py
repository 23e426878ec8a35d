"""A terminal: log lines to standard error, the result to standard output, as JSON if asked."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from runner_action.ci.base import BUG, LISTS, PlainFormatter, checked, full
from runner_action.errors import RunnerActionError
from runner_action.plain import lines


class TerminalFront:
    def __init__(self, out: TextIO, err: TextIO, *, as_json: bool) -> None:
        self._out = out
        self._err = err
        self._as_json = as_json

    def handler(self) -> logging.Handler:
        if self._err.isatty():
            from rich.console import Console
            from rich.logging import RichHandler

            rich = RichHandler(
                console=Console(file=self._err), show_path=False, log_time_format="%H:%M:%S"
            )
            rich.setFormatter(PlainFormatter("%(message)s"))
            return rich
        handler = logging.StreamHandler(self._err)
        handler.setFormatter(PlainFormatter("%(levelname)s: %(message)s"))
        return handler

    def mask(self, secret: str) -> None:
        """Nothing here keeps a log."""

    def error(self, error: RunnerActionError) -> None:
        print(f"Error: {full(error)}", file=self._err, flush=True)

    def crash(self, traceback: str) -> None:
        print(f"{lines(traceback)}\n{BUG}", file=self._err, flush=True)

    def done(self, told: Mapping[str, str], report: str) -> None:
        if self._as_json:
            lists = {name: json.loads(told[name]) for name in LISTS if name in told}
            values: dict[str, Any] = {**checked(told), **lists}
            print(json.dumps(values, indent=2), file=self._out, flush=True)
        elif self._out.isatty():
            from rich.console import Console
            from rich.markdown import Markdown

            Console(file=self._out).print(Markdown(lines(report)))
        else:
            print(lines(report), file=self._out, flush=True)  # a local runner goes on for hours

    def forget(self) -> None:
        """Nothing is noted."""

    def remember(self, names: Sequence[str]) -> None:
        """A person sees what was made."""

    def remembered(self) -> None:
        return None
