"""How GitHub, GitLab and a terminal want log lines, folded groups, errors, masks, outputs and
summaries. The only place that prints."""

from __future__ import annotations

import json
import logging
import os
import secrets
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, TextIO

from runner_action import files
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


class GitHubFront:
    """Workflow commands on standard output; files named by the job for outputs and summary.

    https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands
    """

    def __init__(self, environ: Mapping[str, str], out: TextIO) -> None:
        self._environ = environ
        self._out = out

    def handler(self) -> logging.Handler:
        handler = logging.StreamHandler(self._out)
        handler.setFormatter(_WorkflowCommands())
        return handler

    def mask(self, secret: str) -> None:
        for line in filter(None, secret.splitlines()):
            print(f"::add-mask::{_escaped(line)}", file=self._out, flush=True)

    def error(self, error: RunnerActionError) -> None:
        print(f"::error title=cml-runner::{_escaped(_full(error))}", file=self._out, flush=True)

    def crash(self, traceback: str) -> None:
        shown = lines(traceback)
        print(f"::group::Traceback, for the report\n{shown}\n::endgroup::", file=self._out)
        print(f"::error title=cml-runner::{_escaped(BUG)}", file=self._out, flush=True)

    def done(self, told: Mapping[str, str], report: str) -> None:
        values = checked(told)
        made = [
            one["runner-name"]
            for one in json.loads(told.get("runners", "[]"))
            if one["reused"] != "true"
        ]
        if made:
            mark = _escaped(plain(online_mark(made)))
            print(f"::notice title={MARK_TITLE}::{mark}", file=self._out, flush=True)
        if path := self._environ.get("GITHUB_OUTPUT"):
            with Path(path).open("a", encoding="utf-8") as file:
                file.writelines(f"{name}={value}\n" for name, value in values.items())
        if path := self._environ.get("GITHUB_STEP_SUMMARY"):
            with Path(path).open("a", encoding="utf-8") as file:
                file.write(lines(report) + "\n")

    def forget(self) -> None:
        """GitHub's file is new for every step."""

    def remember(self, names: Sequence[str]) -> None:
        if path := self._environ.get("GITHUB_STATE"):
            with Path(path).open("a", encoding="utf-8") as file:
                file.write(f"runners={checked({'runners': ','.join(names)})['runners']}\n")

    def remembered(self) -> list[str] | None:
        """None also under act, which gives a container no state."""
        noted = self._environ.get("STATE_runners")
        return None if noted is None else list(filter(None, noted.split(",")))


LISTS = ("runners", "status", "removed")
"""Outputs that are JSON."""
DOTENV_LIMIT = 5120
"""Bytes. https://docs.gitlab.com/ci/yaml/artifacts_reports/#artifactsreportsdotenv"""


def dotenv_name(output: str) -> str:
    """A variable of later jobs, there stronger than the job's own: all of ours begin with RUNNER
    or INSTANCE."""
    name = output.upper().replace("-", "_")
    return name if name.startswith(("RUNNER", "INSTANCE")) else f"RUNNER_{name}"


class GitLabFront:
    """Plain lines, red errors, and a dotenv file for `artifacts: reports: dotenv`."""

    def __init__(self, environ: Mapping[str, str], out: TextIO) -> None:
        # gitlab-ci-local names a folder that is only in its containers.
        folder = Path(environ.get("CI_PROJECT_DIR", "."))
        place = folder if folder.is_dir() else Path()
        self._file = place / "cml-runner.env"
        self._job = f"{environ.get('CI_SERVER_URL', '')} {environ.get('CI_JOB_ID', '')}"
        self._note = Path(f"{place.absolute()}.tmp") / f"cml-runner-{environ.get('CI_JOB_ID', '0')}"
        self._out = out

    def handler(self) -> logging.Handler:
        handler = logging.StreamHandler(self._out)
        handler.setFormatter(_Plain("%(message)s"))
        return handler

    def mask(self, secret: str) -> None:
        """GitLab masks variables by its own settings; a job cannot add to them."""

    def error(self, error: RunnerActionError) -> None:
        print(f"\x1b[31;1m{_full(error)}\x1b[0m", file=self._out, flush=True)

    def crash(self, traceback: str) -> None:
        print(f"{lines(traceback)}\n\x1b[31;1m{BUG}\x1b[0m", file=self._out, flush=True)

    def done(self, told: Mapping[str, str], report: str) -> None:
        values = checked(told)
        found = {
            name: f"{dotenv_name(name)}={value}\n"
            for name, value in values.items()
            if name != "instanceIp"
        }
        if len("".join(found.values()).encode()) > DOTENV_LIMIT:
            for name in filter(found.__contains__, LISTS):
                logging.getLogger(__name__).warning(
                    "%s is left out of the dotenv report, which GitLab limits to %d bytes.",
                    dotenv_name(name),
                    DOTENV_LIMIT,
                )
                del found[name]
        files.replace(self._file, "".join(found.values()))
        print(lines(report), file=self._out)

    def forget(self) -> None:
        with suppress(OSError):
            self._note.unlink(missing_ok=True)

    def remember(self, names: Sequence[str]) -> None:
        """Beside the checkout, where GitLab Runner keeps a job's own files: on the same volume, so
        that `after_script` sees it, and out of reach of what a branch may bring. Where it cannot be
        written, nobody knows, and `cleanup` looks for what bears this launch's marks.

        https://docs.gitlab.com/ci/yaml/#after_script (changes outside of the working tree) and
        https://gitlab.com/gitlab-org/gitlab-runner/-/blob/main/common/build.go (TmpProjectDir)
        """
        try:
            files.write_own(self._note, json.dumps({"job": self._job, "runners": list(names)}))
        except OSError as error:
            logging.getLogger(__name__).debug("%s was not written: %s", self._note, error)

    def remembered(self) -> list[str] | None:
        """Empty if a note could have been written, and was not; None if it is not this job's."""
        if not os.path.lexists(self._note):
            return [] if os.access(self._note.parent, os.W_OK) else None
        try:
            note = json.loads(files.read_own(self._note) or "")
            return list(map(str, note["runners"])) if note["job"] == self._job else None
        except (ValueError, KeyError, TypeError):
            return None


class TerminalFront:
    """For a person: log lines to standard error, the result to standard output, as JSON if
    asked."""

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
            rich.setFormatter(_Plain("%(message)s"))
            return rich
        handler = logging.StreamHandler(self._err)
        handler.setFormatter(_Plain("%(levelname)s: %(message)s"))
        return handler

    def mask(self, secret: str) -> None:
        """Nothing here keeps a log."""

    def error(self, error: RunnerActionError) -> None:
        print(f"Error: {_full(error)}", file=self._err, flush=True)

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


BUG = (
    "This is a bug in cml-runner. What it had created has been deleted, unless a line above says"
    " otherwise. Please report it with these lines."
)


def front_for(environ: Mapping[str, str], *, as_json: bool) -> Front:
    if environ.get("GITHUB_ACTIONS") == "true" and not as_json:
        return GitHubFront(environ, sys.stdout)
    if environ.get("GITLAB_CI") and not as_json:
        return GitLabFront(environ, sys.stdout)
    return TerminalFront(sys.stdout, sys.stderr, as_json=as_json)


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


def _full(error: RunnerActionError) -> str:
    return lines(f"{error}\n{error.hint}" if error.hint else str(error))


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


class _Plain(logging.Formatter):
    """A record is a line; only an error may have more, as it may show a console."""

    def format(self, record: logging.LogRecord) -> str:
        return _text_of(record, super().format(record))


class _WorkflowCommands(logging.Formatter):
    """Log records as GitHub's workflow commands; several lines at once are folded."""

    def format(self, record: logging.LogRecord) -> str:
        text = _text_of(record, record.getMessage())
        if "\n" in text:
            title, _, rest = text.partition("\n")
            # What a machine says must not be taken for a command to this job.
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


def _text_of(record: logging.LogRecord, text: str) -> str:
    return lines(text) if record.levelno >= logging.ERROR else plain(text)
