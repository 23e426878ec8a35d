"""Reads addresses: whether GitHub or GitLab is there, and which jobs may run on whose runners.
Pure."""

from __future__ import annotations

from collections.abc import Mapping

from runner_action.forges import traits_of
from runner_action.marks import address_key
from runner_action.model import ForgeName, Repository
from runner_action.plain import parts_of


def holds(forge: ForgeName, repository: Repository, job_repository_url: str) -> bool:
    """Whether jobs of the other repository may run on the runners of this one, judged by their
    addresses."""
    beginning = traits_of(forge).names_no_owner
    any_owner = beginning is not None and repository.path.startswith(beginning)
    base = address_key(repository.server if any_owner else repository.url)
    return f"{address_key(job_repository_url)}/".startswith(f"{base}/")


def servers_of(environ: Mapping[str, str]) -> dict[ForgeName, str]:
    """Address of the server that the CI job itself runs on; empty for the other forge."""
    return {name: environ.get(traits_of(name).server_variable, "") for name in ForgeName}


def project_of(environ: Mapping[str, str]) -> tuple[str, str] | None:
    """Address of the CI job's own project, and the variable that it is from."""
    for name in ForgeName:
        traits = traits_of(name)
        project = environ.get(traits.project_variable, "")
        server = environ.get(traits.server_variable, "")
        if project.startswith(("https://", "http://")):
            return project, traits.project_variable
        if project and parts_of(server).hostname:
            return f"{server}/{project}", traits.project_variable
    return None


def forge_of(url: str, servers: Mapping[ForgeName, str]) -> ForgeName | None:
    """GitHub or GitLab, by a well-known host, or because the CI job itself runs there; None if
    unknown."""
    host = parts_of(url).netloc
    for name in ForgeName:
        for known in traits_of(name).hosts:
            if host == known or (known.startswith(".") and host.endswith(known)):
                return name
    for name, server in servers.items():
        if server and parts_of(server).netloc == host:
            return name
    return None
