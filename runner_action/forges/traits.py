"""What the rest of the launcher needs to know of GitHub and GitLab without loading either: all
that tells them apart outside their own folders. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import assert_never
from urllib.parse import urlsplit

from runner_action.model import ForgeName, Repository


@dataclass(frozen=True, kw_only=True)
class Traits:
    """Of one of them. Variables are those that it gives to its jobs."""

    title: str
    hosted: str
    """Address of the one that its maker runs."""
    hosts: tuple[str, ...]
    """Hosts that are nobody else's; those that begin with a dot, with all below them."""
    server_variable: str
    api_variable: str
    project_variable: str
    """The job's own project: its address, or its path at the server."""
    just_in_time: bool
    """A runner for a single job can be registered beforehand, by a configuration."""
    restarts_from_outside: bool
    """Something of ours can start when a run ends, without any machine."""
    own_label_suffices: bool
    """Jobs may ask for the label that a launch puts out, so that a machine needs no other."""
    names_no_owner: str | None = None
    """What the paths of places begin with that do not tell whose repositories they hold."""
    late_ids: tuple[str, ...] = ()
    """Variables whose values no job can ask for by label, since they are made with the job."""


GITHUB = Traits(
    title="GitHub",
    hosted="https://github.com",
    hosts=("github.com", ".ghe.com"),
    server_variable="GITHUB_SERVER_URL",
    api_variable="GITHUB_API_URL",
    project_variable="GITHUB_REPOSITORY",
    just_in_time=True,
    restarts_from_outside=True,
    own_label_suffices=True,
    names_no_owner="enterprises/",
)
"""https://docs.github.com/en/actions/reference/workflows-and-actions/variables"""
GITLAB = Traits(
    title="GitLab",
    hosted="https://gitlab.com",
    hosts=("gitlab.com",),
    server_variable="CI_SERVER_URL",
    api_variable="CI_API_V4_URL",
    project_variable="CI_PROJECT_URL",
    just_in_time=False,
    restarts_from_outside=False,
    own_label_suffices=False,
    # https://docs.gitlab.com/ci/variables/where_variables_can_be_used/#persisted-variables
    late_ids=("CI_PIPELINE_ID", "CI_JOB_ID"),
)
"""https://docs.gitlab.com/ci/variables/predefined_variables/"""


def traits_of(forge: ForgeName) -> Traits:
    match forge:
        case ForgeName.GITHUB:
            return GITHUB
        case ForgeName.GITLAB:
            return GITLAB
        case _ as unknown:
            assert_never(unknown)


def holds(forge: ForgeName, repository: Repository, job_repository_url: str) -> bool:
    """Whether jobs of that repository may run on this one's runners, as far as addresses tell."""
    beginning = traits_of(forge).names_no_owner
    anybodys = beginning is not None and repository.path.startswith(beginning)
    base = repository.server if anybodys else repository.url
    return f"{job_repository_url}/".startswith(f"{base}/")


def servers_of(environ: Mapping[str, str]) -> dict[ForgeName, str]:
    """Where the CI job itself runs, as far as it says so; empty for the others."""
    return {name: environ.get(traits_of(name).server_variable, "") for name in ForgeName}


def project_of(environ: Mapping[str, str]) -> tuple[str, str] | None:
    """Address of the CI job's own project, and the variable that says it."""
    for name in ForgeName:
        traits = traits_of(name)
        said = environ.get(traits.project_variable, "")
        server = environ.get(traits.server_variable, "")
        if said.startswith(("https://", "http://")):
            return said, traits.project_variable
        if said and server:
            return f"{server}/{said}", traits.project_variable
    return None


def forge_of(url: str, servers: Mapping[ForgeName, str]) -> ForgeName | None:
    """Whose an address is: by a well-known host, or because the CI job itself runs there."""
    host = urlsplit(url).netloc
    for name in ForgeName:
        for known in traits_of(name).hosts:
            if host == known or (known.startswith(".") and host.endswith(known)):
                return name
    at_job = (
        name for name, server in servers.items() if server and urlsplit(server).netloc == host
    )
    return next(at_job, None)
