"""Inputs that follow from others and from the CI job's environment. Pure, except for reading
files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from runner_action.files import ReadFile
from runner_action.forges import job_environments
from runner_action.forges.places import forge_of, project_of, servers_of
from runner_action.inputs.addresses import origin_of, repository_url, unfit
from runner_action.inputs.sources import Given
from runner_action.model import ProviderName
from runner_action.providers import traits_of

GIT_CONFIG = ".git/config"


def infer(given: dict[str, Given], environ: Mapping[str, str], read_file: ReadFile) -> None:
    """Adds to `given` what is missing of the repository, its forge, and the run whose end started
    this one; and reads regions as the cloud's tools do."""
    for job in job_environments(environ):
        if "run-id" not in given and (run := job.triggering_run(read_file)):
            given["run-id"] = Given(*run)
    if entry := given.get("cloud-region"):
        cloud = given["cloud"].value if "cloud" in given else None
        given["cloud-region"] = replace(entry, value=regions(entry.value, cloud))
    servers = servers_of(environ)
    repository = given.get("repo") or _repository(environ, read_file)
    if repository is None:
        return
    driver = given["driver"].value if "driver" in given else None
    url = repository_url(str(repository.value), driver, servers)
    if driver is None and (forge := forge_of(url, servers)):
        driver = forge.value
        given["driver"] = Given(driver, repository.source)
    given["repo"] = Given(url, repository.source, unfit=unfit(url, driver))


def _repository(environ: Mapping[str, str], read_file: ReadFile) -> Given | None:
    """The repository of the CI job; outside of one, that of the checkout in the current folder."""
    if project := project_of(environ):
        return Given(*project)
    in_ci = any(job.is_here for job in job_environments(environ))
    origin = "" if in_ci else origin_of(read_file(GIT_CONFIG) or "")
    return Given(origin, GIT_CONFIG) if origin else None


def regions(items: Sequence[str], cloud: str | None) -> list[str]:
    """Regions by the cloud's names, from items that may have spaces: between two regions, or, on
    Azure, within the name of one, as in `West Europe`."""
    named: list[str] = []
    names = [name for name in ProviderName if name == cloud]
    words = {word for name in names for word in traits_of(name).words_of_regions}
    for item in items:
        parts = item.lower().split()
        if words & {*parts}:
            parts = ["".join(parts)]
        named += parts
    return list(dict.fromkeys(named))
