"""GitHub: workflow commands on standard output; outputs and summary go to files that the
environment names.

https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands
"""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TextIO

from runner_action.ci.base import BUG, MARK_TITLE, checked, online_mark, text_of, with_hint
from runner_action.errors import InputError, RunnerActionError
from runner_action.plain import lines, plain
from runner_action.redaction import lines_of


class GitHubFront:
    def __init__(self, environ: Mapping[str, str], out: TextIO) -> None:
        self._environ = environ
        self._out = out

    def handler(self) -> logging.Handler:
        handler = logging.StreamHandler(self._out)
        handler.setFormatter(_WorkflowCommands())
        return handler

    def mask(self, secret: str) -> None:
        for line in lines_of(secret):
            print(f"::add-mask::{_escaped(line)}", file=self._out, flush=True)

    def error(self, error: RunnerActionError) -> None:
        text = _escaped(with_hint(error))
        print(f"::error title=cml-runner::{text}", file=self._out, flush=True)

    def crash(self, traceback: str) -> None:
        shown = lines(traceback)
        print(f"::group::Traceback, for the report\n{shown}\n::endgroup::", file=self._out)
        print(f"::error title=cml-runner::{_escaped(BUG)}", file=self._out, flush=True)

    def done(self, outputs: Mapping[str, str], summary: str) -> None:
        values = checked(outputs)
        launched = [
            runner["runner-name"]
            for runner in json.loads(outputs.get("runners", "[]"))
            if runner["reused"] != "true"
        ]
        if launched:
            mark = _escaped(plain(online_mark(launched)))
            print(f"::notice title={MARK_TITLE}::{mark}", file=self._out, flush=True)
        if path := self._environ.get("GITHUB_OUTPUT"):
            with Path(path).open("a", encoding="utf-8") as file:
                file.writelines(f"{name}={value}\n" for name, value in values.items())
        if path := self._environ.get("GITHUB_STEP_SUMMARY"):
            try:
                with Path(path).open("a", encoding="utf-8") as file:
                    file.write(lines(summary) + "\n")
            except OSError as error:
                warning = _escaped(f"Could not write the summary (GITHUB_STEP_SUMMARY): {error}")
                print(f"::warning::{warning}", file=self._out, flush=True)

    def forget(self) -> None:
        """Only looks whether later jobs will get the outputs: GitHub creates the file of the state
        anew for each step."""
        try:
            if path := self._environ.get("GITHUB_OUTPUT"):
                Path(path).open("a", encoding="utf-8").close()
        except OSError as error:
            why = f"GITHUB_OUTPUT names a file that cannot be written: {error.strerror}"
            raise InputError([why]) from error

    def remember(self, names: Sequence[str]) -> None:
        if path := self._environ.get("GITHUB_STATE"):
            with Path(path).open("a", encoding="utf-8") as file:
                file.write(f"runners={checked({'runners': ','.join(names)})['runners']}\n")

    def remembered(self) -> list[str] | None:
        """None under act, too, which passes no state to a container."""
        names = self._environ.get("STATE_runners")
        return None if names is None else list(filter(None, names.split(",")))


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


class _WorkflowCommands(logging.Formatter):
    """Formats records as GitHub's workflow commands, and folds those of several lines."""

    def format(self, record: logging.LogRecord) -> str:
        text = text_of(record, record.getMessage())
        if "\n" in text:
            title, _, rest = text.partition("\n")
            # Lines of a console must not be read as commands to this job.
            word = secrets.token_hex(8)
            return "\n".join(
                [
                    f"::group::{_escaped(title)}",
                    f"::stop-commands::{word}",
                    rest,
                    f"::{word}::",
                    "::endgroup::",
                ]
            )
        command = {
            logging.ERROR: "::error::",
            logging.WARNING: "::warning::",
            logging.DEBUG: "::debug::",
        }.get(record.levelno)
        return f"{command}{_escaped(text)}" if command else text
