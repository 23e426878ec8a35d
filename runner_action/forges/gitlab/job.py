"""A GitLab job, read from its environment.
https://docs.gitlab.com/ci/variables/predefined_variables/"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from pathlib import Path

from runner_action.files import ReadFile
from runner_action.forges.gitlab import ref
from runner_action.forges.jobs import JobEnvironment
from runner_action.model import CiJob

DISTINCT = ("CI_SERVER_URL", "CI_PROJECT_PATH", "CI_PIPELINE_ID", "CI_JOB_ID")

UNCOMMON = re.compile(r"[^\w./=+@-]")
"""Characters that not every tag may have.
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/Using_Tags.html#tag-restrictions"""
NAME_PART = 64
FIRST_TRY = timedelta(minutes=1)
"""Within this time no machine is launched, interrupted and replaced."""


class GitLabJob(JobEnvironment):
    """Its ID tokens are variables, so `id_tokens` has none to request."""

    @property
    def is_here(self) -> bool:
        return bool(self.environ.get("GITLAB_CI"))

    @property
    def succeeded(self) -> bool:
        return self.environ.get("CI_JOB_STATUS") == "success"

    @property
    def checkout(self) -> str:
        return self.environ.get("CI_PROJECT_DIR", "")

    @property
    def shared_folder(self) -> str:
        """Next to the checkout, where GitLab Runner keeps a job's own files: on the same volume,
        and where no file of a branch can be. gitlab-ci-local sets a CI_PROJECT_DIR that exists only
        in its containers.

        https://docs.gitlab.com/ci/yaml/#after_script (changes outside of the working tree) and
        https://gitlab.com/gitlab-org/gitlab-runner/-/blob/main/common/build.go (TmpProjectDir)
        """
        project = Path(self.environ.get("CI_PROJECT_DIR", "."))
        folder = project if project.is_dir() else Path()
        return f"{folder.absolute()}.tmp"

    @property
    def certificates_file(self) -> str:
        return self.environ.get("CI_SERVER_TLS_CA_FILE", "")

    def distinct(self) -> tuple[str, ...]:
        if not self.environ.get("CI_JOB_ID"):
            return ()
        return tuple(self.environ.get(name, "") for name in DISTINCT)

    def title(self) -> str:
        environ = self.environ
        pipeline = f"{environ.get('CI_PROJECT_PATH')} pipeline {environ.get('CI_PIPELINE_ID')}"
        name = UNCOMMON.sub("-", environ.get("CI_JOB_NAME", ""))[:NAME_PART]
        return f"{pipeline} {name} job {environ['CI_JOB_ID']}"

    def job(self) -> CiJob | None:
        environ = self.environ
        try:
            return CiJob(
                repository_url=environ["CI_PROJECT_URL"],
                run_id=int(environ["CI_PIPELINE_ID"]),
                attempt=2 if self._may_be_again() else 1,
                id=int(environ["CI_JOB_ID"]),
                name=environ["CI_JOB_NAME"],
                project=environ["CI_PROJECT_PATH"],
            )
        except (KeyError, ValueError):
            return None

    def _may_be_again(self) -> bool:
        """GitLab numbers no tries, but a job that starts soon after its pipeline is the first."""
        names = "CI_PIPELINE_CREATED_AT", "CI_JOB_STARTED_AT"
        try:
            created, started = (datetime.fromisoformat(self.environ[name]) for name in names)
            return started - created > FIRST_TRY
        except (KeyError, ValueError, TypeError):
            return False

    def withheld(self) -> str:
        """https://docs.gitlab.com/ci/variables/#protect-a-cicd-variable"""
        unprotected = ref.unprotected(self.environ)
        if not unprotected:
            return ""
        if ref.of_merge_request(self.environ):
            return (
                "a variable that is protected (Settings > CI/CD > Variables) is not given to this"
                f" job: {ref.MERGE_REQUESTS}; clear `Protect variable` of the variable"
            )
        return (
            "a variable that is protected (Settings > CI/CD > Variables) is not given to this job,"
            f" because its {unprotected} is not protected: protect that (Settings > Repository), or"
            " clear `Protect variable` of the variable"
        )

    def stranger(self, read_file: ReadFile) -> str | None:
        """https://docs.gitlab.com/ci/variables/predefined_variables/#predefined-variables-for-merge-request-pipelines"""
        source = self.environ.get("CI_MERGE_REQUEST_SOURCE_PROJECT_ID")
        target = self.environ.get("CI_MERGE_REQUEST_PROJECT_ID")
        if not (source and target) or source == target:
            return None
        fork = self.environ.get("CI_MERGE_REQUEST_SOURCE_PROJECT_PATH", "another project")
        upstream = self.environ.get("CI_MERGE_REQUEST_PROJECT_PATH", "another project")
        return f"{fork}, a fork of {upstream}"
