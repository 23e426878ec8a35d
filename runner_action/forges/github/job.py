"""A GitHub job, read from its environment.
https://docs.github.com/en/actions/reference/workflows-and-actions/variables"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from runner_action.files import ReadFile
from runner_action.forges.github import id_token, origin
from runner_action.forges.jobs import JobEnvironment
from runner_action.model import CiJob

DISTINCT = (
    "GITHUB_SERVER_URL",
    "GITHUB_REPOSITORY",
    "GITHUB_RUN_ID",
    "GITHUB_RUN_ATTEMPT",
    "GITHUB_JOB",
    "GITHUB_ACTION",
    "RUNNER_NAME",
)


class GitHubJob(JobEnvironment):
    @property
    def is_here(self) -> bool:
        return self.environ.get("GITHUB_ACTIONS") == "true"

    @property
    def passes_inputs(self) -> bool:
        return bool(self.environ.get("GITHUB_ACTIONS"))

    @property
    def checkout(self) -> str:
        return self.environ.get("GITHUB_WORKSPACE", "")

    @property
    def shared_folder(self) -> str:
        """GitHub mounts it into containers, too; a `docker run` of the user's does not."""
        folder = self.environ.get("RUNNER_TEMP", "")
        return folder if Path(folder).is_dir() else ""

    def distinct(self) -> tuple[str, ...]:
        if not self.environ.get("GITHUB_RUN_ID"):
            return ()
        return tuple(self.environ.get(name, "") for name in DISTINCT)

    def title(self) -> str:
        attempt = self.environ.get("GITHUB_RUN_ATTEMPT", "1")
        run = f"run {self.environ['GITHUB_RUN_ID']} attempt {attempt}"
        return f"{self.environ.get('GITHUB_REPOSITORY')} {run}"

    def job(self) -> CiJob | None:
        environ = self.environ
        try:
            return CiJob(
                repository_url=f"{environ['GITHUB_SERVER_URL']}/{environ['GITHUB_REPOSITORY']}",
                run_id=int(environ["GITHUB_RUN_ID"]),
                attempt=int(environ.get("GITHUB_RUN_ATTEMPT", "1")),
                runner_name=environ["RUNNER_NAME"],
            )
        except (KeyError, ValueError):
            return None

    def stranger(self, read_file: ReadFile) -> str | None:
        """https://docs.github.com/en/webhooks/webhook-events-and-payloads"""
        name = self.environ.get("GITHUB_EVENT_NAME", "")
        if not (name or self.environ.get("GITHUB_ACTIONS")):
            return None
        return origin.stranger(name, origin.event_of(self._event_text(read_file)))

    def is_public(self, read_file: ReadFile) -> bool:
        return origin.is_public(origin.event_of(self._event_text(read_file)))

    def triggering_run(self, read_file: ReadFile) -> tuple[int, str] | None:
        if self.environ.get("GITHUB_EVENT_NAME") == "schedule":
            return 0, "GITHUB_EVENT_NAME"
        if self.environ.get("GITHUB_EVENT_NAME") != "workflow_run":
            return None
        run = origin.event_of(self._event_text(read_file)).get("workflow_run")
        if not isinstance(run, dict) or "id" not in run:
            return None
        return run["id"], "GITHUB_EVENT_PATH"

    def id_tokens(self) -> Callable[[str], str] | None:
        return id_token.of_job(self.environ)

    def _event_text(self, read_file: ReadFile) -> str | None:
        return read_file(self.environ.get("GITHUB_EVENT_PATH", ""))
