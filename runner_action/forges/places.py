"""Whose an address is: GitHub's or GitLab's, and which jobs may run on the runners of a place.
Pure."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from runner_action.forges import traits_of
from runner_action.model import ForgeName, Repository


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
