"""GitLab: plain lines, red errors, and a dotenv file for `artifacts: reports: dotenv`."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from runner_action import files
from runner_action.ci.base import BUG, LISTS, PlainFormatter, checked, with_hint
from runner_action.errors import RunnerActionError
from runner_action.forges.gitlab.job import GitLabJob
from runner_action.plain import lines

log = logging.getLogger(__name__)
DOTENV_LIMIT = 5120
"""Bytes. https://docs.gitlab.com/ci/yaml/artifacts_reports/#artifactsreportsdotenv"""


def dotenv_name(output: str) -> str:
    """The name of an output as a variable of later jobs. It overrides their own variables, so
    every name begins with RUNNER or INSTANCE."""
    name = output.upper().replace("-", "_")
    return name if name.startswith(("RUNNER", "INSTANCE")) else f"RUNNER_{name}"


class GitLabFront:
    def __init__(self, environ: Mapping[str, str], out: TextIO) -> None:
        # gitlab-ci-local names a folder that exists only in its containers.
        project = Path(environ.get("CI_PROJECT_DIR", "."))
        folder = project if project.is_dir() else Path()
        job_id = environ.get("CI_JOB_ID", "0")
        self._file = folder / "cml-runner.env"
        self._job = f"{environ.get('CI_SERVER_URL', '')} {environ.get('CI_JOB_ID', '')}"
        self._note = Path(GitLabJob(environ).shared_folder) / f"cml-runner-{job_id}"
        self._out = out

    def handler(self) -> logging.Handler:
        handler = logging.StreamHandler(self._out)
        handler.setFormatter(PlainFormatter("%(message)s"))
        return handler

    def mask(self, secret: str) -> None:
        """Nothing to do: GitLab masks variables by their settings, and a job can add none."""

    def error(self, error: RunnerActionError) -> None:
        print(f"\x1b[31;1m{with_hint(error)}\x1b[0m", file=self._out, flush=True)

    def crash(self, traceback: str) -> None:
        print(f"{lines(traceback)}\n\x1b[31;1m{BUG}\x1b[0m", file=self._out, flush=True)

    def done(self, outputs: Mapping[str, str], summary: str) -> None:
        entries = {
            name: f"{dotenv_name(name)}={value}\n"
            for name, value in checked(outputs).items()
            if name != "instanceIp"
        }
        if len("".join(entries.values()).encode()) > DOTENV_LIMIT:
            for name in filter(entries.__contains__, LISTS):
                log.warning(
                    "%s is left out of the dotenv report, which GitLab limits to %d bytes.",
                    dotenv_name(name),
                    DOTENV_LIMIT,
                )
                del entries[name]
        files.replace(self._file, "".join(entries.values()))
        print(lines(summary), file=self._out)

    def forget(self) -> None:
        with suppress(OSError):
            self._note.unlink(missing_ok=True)

    def remember(self, names: Sequence[str]) -> None:
        """Writes a note that `after_script` can read. If it cannot be written, `cleanup` looks for
        whatever has this launch's tags."""
        try:
            files.write_own(self._note, json.dumps({"job": self._job, "runners": list(names)}))
        except OSError as error:
            log.debug("Could not write %s: %s", self._note, error)

    def remembered(self) -> list[str] | None:
        """No names if there is no note although one could be written; None if the note is not
        this job's."""
        if not os.path.lexists(self._note):
            return [] if os.access(self._note.parent, os.W_OK) else None
        try:
            note = json.loads(files.read_own(self._note) or "")
            return list(map(str, note["runners"])) if note["job"] == self._job else None
        except (ValueError, KeyError, TypeError):
            return None
