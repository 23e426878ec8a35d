"""Inputs that the CI job's environment provides. Pure, except for reading the event's file."""

from __future__ import annotations

from collections.abc import Mapping

from runner_action.forges import job_environments
from runner_action.forges.places import forge_of, project_of, servers_of
from runner_action.inputs.conversion import ReadFile, repository_url
from runner_action.inputs.sources import Given


def infer(given: dict[str, Given], environ: Mapping[str, str], read_file: ReadFile) -> None:
    """Adds to `given` what is missing of the repository, its forge, and the run whose end started
    this one."""
    for job in job_environments(environ):
        if "run-id" not in given and (run := job.triggering_run(read_file)):
            given["run-id"] = Given(*run)
    servers = servers_of(environ)
    if "repo" not in given and (project := project_of(environ)):
        given["repo"] = Given(*project)
    if "repo" not in given:
        return
    driver = given["driver"].value if "driver" in given else None
    source = given["repo"].source
    url = repository_url(str(given["repo"].value), driver, servers)
    given["repo"] = Given(url, source)
    if driver is None and (forge := forge_of(url, servers)):
        given["driver"] = Given(forge.value, source)
