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
from runner_action.ci.base import BUG, LISTS, PlainFormatter, checked, full
from runner_action.errors import RunnerActionError
from runner_action.plain import lines

DOTENV_LIMIT = 5120
"""Bytes. https://docs.gitlab.com/ci/yaml/artifacts_reports/#artifactsreportsdotenv"""


def dotenv_name(output: str) -> str:
    """A variable of later jobs, there stronger than the job's own: all of ours begin with RUNNER
    or INSTANCE."""
    name = output.upper().replace("-", "_")
    return name if name.startswith(("RUNNER", "INSTANCE")) else f"RUNNER_{name}"


class GitLabFront:
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
        handler.setFormatter(PlainFormatter("%(message)s"))
        return handler

    def mask(self, secret: str) -> None:
        """GitLab masks variables by its own settings; a job cannot add to them."""

    def error(self, error: RunnerActionError) -> None:
        print(f"\x1b[31;1m{full(error)}\x1b[0m", file=self._out, flush=True)

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
