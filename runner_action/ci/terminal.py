"""A terminal: the log on standard error, the result on standard output, as JSON if requested."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from runner_action.ci.base import BUG, LISTS, PlainFormatter, checked, with_hint
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
        """Nothing to do: no log is kept."""

    def error(self, error: RunnerActionError) -> None:
        print(f"Error: {with_hint(error)}", file=self._err, flush=True)

    def crash(self, traceback: str) -> None:
        print(f"{lines(traceback)}\n{BUG}", file=self._err, flush=True)

    def done(self, outputs: Mapping[str, str], summary: str) -> None:
        if self._as_json:
            lists = {name: json.loads(outputs[name]) for name in LISTS if name in outputs}
            values: dict[str, Any] = {**checked(outputs), **lists}
            print(json.dumps(values, indent=2), file=self._out, flush=True)
        elif self._out.isatty():
            from rich.console import Console
            from rich.markdown import Markdown

            Console(file=self._out).print(Markdown(lines(summary)))
        else:
            # Flushed, as a runner on this machine goes on for hours.
            print(lines(summary), file=self._out, flush=True)

    def forget(self) -> None:
        """Nothing to do: nothing is remembered."""

    def remember(self, names: Sequence[str]) -> None:
        """Nothing to do: the person at the terminal sees what is created."""

    def remembered(self) -> None:
        return None
