"""The predefined variables of the embedded GitLab, when they exist, and how GitLab and its runners
expand them.

https://docs.gitlab.com/ci/variables/where_variables_can_be_used/ and
https://docs.gitlab.com/ci/variables/predefined_variables/; in GitLab's source
`Gitlab::Ci::Variables::Builder#scoped_variables_for_pipeline_seed` and `ExpandVariables`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

Values = Mapping[str, str]
NAME = r"[A-Za-z_]\w*"
REFERENCE = re.compile(rf"\$(?P<plain>{NAME})|\$\{{(?P<braced>{NAME})\}}|%(?P<percent>{NAME})%")
"""A reference to a variable in GitLab; GitLab Runner and shells know only the first two forms."""
AT_RUN_TIME = re.compile(
    rf"\$(?:(?P<plain>{NAME})|\{{(?P<braced>[^}}]*)\}}|(?P<special>[*#$@!?0-9-]))"
)
"""What GitLab Runner replaces in a variable that is not raw: `$?`, `$1` and `${A:-b}` are names of
variables that do not exist, and `$$` is a dollar sign. `$(…)` stays.
common/spec/variables.go of gitlab-runner; https://pkg.go.dev/os#Expand"""

PERSISTED = (
    "CI_PIPELINE_ID",
    "CI_PIPELINE_URL",
    "CI_JOB_ID",
    "CI_JOB_URL",
    "CI_JOB_TOKEN",
    "CI_JOB_STARTED_AT",
    "CI_REGISTRY_USER",
    "CI_REGISTRY_PASSWORD",
    "CI_REPOSITORY_URL",
    "CI_DEPLOY_USER",
    "CI_DEPLOY_PASSWORD",
)
"""Variables that do not exist until pipeline and job are saved, so GitLab itself never expands
them, as in `tags:`.

https://docs.gitlab.com/ci/variables/where_variables_can_be_used/#persisted-variables
"""
JOB_ONLY = (
    *PERSISTED,
    "CI_BUILDS_DIR",
    "CI_CONCURRENT_ID",
    "CI_CONCURRENT_PROJECT_ID",
    "CI_JOB_STATUS",
    "CI_JOB_TIMEOUT",
    "CI_PROJECT_DIR",
    "CI_RUNNER_DESCRIPTION",
    "CI_RUNNER_EXECUTABLE_ARCH",
    "CI_RUNNER_ID",
    "CI_RUNNER_REVISION",
    "CI_RUNNER_SHORT_TOKEN",
    "CI_RUNNER_TAGS",
    "CI_RUNNER_VERSION",
    "CI_SERVER",
    "CI_TRIGGER_SHORT_TOKEN",
)
"""Variables that do not exist until a runner takes the job.

https://docs.gitlab.com/ci/variables/predefined_variables/#variable-availability
"""
BY_RUNNER = (
    "CI_DISPOSABLE_ENVIRONMENT",
    "CI_SHARED_ENVIRONMENT",
    "CI_JOB_IMAGE",
    "CI_DEPENDENCY_PROXY_USER",
    "CI_DEPENDENCY_PROXY_PASSWORD",
    "CI_SERVER_TLS_CA_FILE",
    "CI_SERVER_TLS_CERT_FILE",
    "CI_SERVER_TLS_KEY_FILE",
    "CI_ENVIRONMENT_SLUG",
)
"""Variables that are available in a pipeline according to that page, but in no list of `Builder`:
the runner sets them, or the job once it is saved."""
NEVER_IN_TAGS = (*JOB_ONLY, *BY_RUNNER)
PIPELINES_ELSEWHERE = 70
"""Pipelines of other projects of the instance before our first one, so that a pipeline's number in
its project differs from its id."""


def iid_of(pipeline: int) -> int:
    """The number of a pipeline in its project, by its id."""
    return pipeline - PIPELINES_ELSEWHERE


@dataclass(frozen=True)
class Project:
    """The project of a pipeline. `server`: the instance's URL without a trailing slash."""

    server: str
    id: int
    path: str
    protected: bool = True
    """Whether the branch is protected."""

    @property
    def variables(self) -> dict[str, str]:
        """The variables that exist before any pipeline; `include:` can use only these."""
        scheme, _, rest = self.server.partition("://")
        fqdn = rest.partition("/")[0]
        namespace, _, name = self.path.rpartition("/")
        return {
            "CI": "true",
            "GITLAB_CI": "true",
            "CI_SERVER_URL": self.server,
            "CI_SERVER_PROTOCOL": scheme,
            "CI_SERVER_FQDN": fqdn,
            "CI_SERVER_HOST": fqdn.partition(":")[0],
            "CI_API_V4_URL": f"{self.server}/api/v4",
            "CI_DEFAULT_BRANCH": "main",
            "CI_PROJECT_ID": str(self.id),
            "CI_PROJECT_NAME": name,
            "CI_PROJECT_PATH": self.path,
            "CI_PROJECT_PATH_SLUG": _slug(self.path),
            "CI_PROJECT_NAMESPACE": namespace,
            "CI_PROJECT_ROOT_NAMESPACE": self.path.partition("/")[0],
            "CI_PROJECT_URL": f"{self.server}/{self.path}",
        }

    def at_creation(self, iid: int, job: str, stage: str = "test") -> dict[str, str]:
        """The variables that exist when GitLab creates a job, by which it expands `tags:`. `iid`:
        the pipeline's number in its project."""
        return {
            **self.variables,
            "CI_PIPELINE_IID": str(iid),
            "CI_PIPELINE_SOURCE": "push",
            "CI_JOB_NAME": job,
            "CI_JOB_NAME_SLUG": _slug(job),
            "CI_JOB_STAGE": stage,
            "CI_NODE_TOTAL": "1",
            "CI_COMMIT_BRANCH": "main",
            "CI_COMMIT_REF_NAME": "main",
            "CI_COMMIT_REF_SLUG": "main",
            "CI_COMMIT_REF_PROTECTED": str(self.protected).lower(),
            "CI_COMMIT_SHA": "5a1e" * 10,
            "CI_COMMIT_SHORT_SHA": "5a1e" * 2,
            "GITLAB_USER_LOGIN": "octo",
        }

    def persisted(self, pipeline: int, job: int) -> dict[str, str]:
        """Further variables of a running job, by the ids of pipeline and job; no secrets."""
        return {
            "CI_PIPELINE_ID": str(pipeline),
            "CI_PIPELINE_URL": f"{self.server}/{self.path}/-/pipelines/{pipeline}",
            "CI_JOB_ID": str(job),
            "CI_JOB_URL": f"{self.server}/{self.path}/-/jobs/{job}",
        }


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "-", text.lower())[:63].strip("-")


def references(text: str) -> list[str]:
    """The names of the variables that a text refers to, as GitLab reads it."""
    return [_name(match) for match in REFERENCE.finditer(text)]


def _name(match: re.Match[str]) -> str:
    return match["plain"] or match["braced"] or match["percent"]


def in_tags(tag: str, known: Values) -> str:
    """`ExpandVariables.expand_existing`: references to unknown variables remain, and so do
    references in the value of a variable: https://gitlab.com/gitlab-org/gitlab/-/issues/514678.
    """
    return REFERENCE.sub(lambda match: known.get(_name(match), match[0]), tag)


def in_include(text: str, known: Values) -> str:
    """`ExpandVariables.expand`: references to unknown variables become empty."""
    return REFERENCE.sub(lambda match: known.get(_name(match), ""), text)


def at_run_time(values: Values, known: Values) -> dict[str, str]:
    """A job's `variables:` as its script gets them: expanded recursively, by GitLab and then by the
    runner. References to unknown variables become empty.

    https://docs.gitlab.com/ci/variables/where_variables_can_be_used/#nested-variable-expansion
    """
    everything = {**known, **values}
    return {name: _through(name, everything, ()) for name in everything}


def _through(name: str, everything: Values, seen: tuple[str, ...]) -> str:
    if name in seen or name not in everything:
        return ""

    def expanded(match: re.Match[str]) -> str:
        if match["special"]:
            return "$" if match["special"] == "$" else ""
        return _through(match["plain"] or match["braced"], everything, (*seen, name))

    return AT_RUN_TIME.sub(expanded, everything[name])
