"""Pipelines of the embedded GitLab from a CI definition: components are put in, `tags:` expanded
when the pipeline is made, its jobs queued.

https://docs.gitlab.com/ci/yaml/, as far as what we ship uses it: a keyword that is not known here
is an error, and never passed over.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import yaml

from runner_action.sandbox.forges.gitlab import variables as gitlab_variables
from runner_action.sandbox.forges.gitlab.variables import Project, Values, iid_of
from runner_action.sandbox.forges.jobs import Job, Run
from runner_action.sandbox.forges.memory import Forge

Definition = Mapping[str, Any]
Hosted = Callable[[Job, Values], str]
"""What a job without tags does, with these variables, on a runner that the instance has for all;
gives its conclusion."""
NO_JOBS = ("default", "include", "stages", "variables", "workflow")
JOB_KEYWORDS = (
    "after_script",
    "artifacts",
    "before_script",
    "environment",
    "id_tokens",
    "image",
    "inherit",
    "interruptible",
    "needs",
    "retry",
    "rules",
    "script",
    "stage",
    "tags",
    "timeout",
    "variables",
)
"""Known, not obeyed: `rules`, for one, let every job be."""
STAGES = (".pre", "build", "test", "deploy", ".post")
"""Unless the definition has others. https://docs.gitlab.com/ci/yaml/#stages"""
TAGS_LIMIT = 50
"""A job has fewer. lib/gitlab/ci/config/entry/tags.rb"""
STUCK = (
    "This job is stuck because of one of the following problems. There are no active runners "
    "online, no runners for the protected branch, or no runners that match all of the job's tags: "
)
"""On the page of a job that waits so; the API says `pending`, as of all that wait. It fails after
an hour. app/services/ci/stuck_builds/drop_pending_service.rb"""


class ConfigError(Exception):
    """The pipeline is not made, for the reason that is told."""


@dataclass(frozen=True)
class PlannedJob:
    """A job as it is made, before any has run. `needs`: None if the definition does not say."""

    name: str
    stage: str
    tags: tuple[str, ...]
    needs: tuple[str, ...] | None
    script: tuple[str, ...]
    variables: Values
    """Of the definition, not expanded."""
    raw: Values
    """Those with `expand: false`."""


@dataclass(frozen=True)
class Pipelines:
    """Of one project. `components`: text of their templates, by their address without a version.

    `settings`: variables of the project's settings, which are stronger than those of a definition:
    https://docs.gitlab.com/ci/variables/#cicd-variable-precedence.
    """

    forge: Forge
    project: Project
    components: Mapping[str, str]
    settings: Values = field(default_factory=dict)

    def create(self, definition: Definition, hosted: Hosted) -> Run:
        """Makes a pipeline and begins it. Raises ConfigError."""
        run = self.forge.queue_run()
        for one in self.plan(definition, iid_of(run.id)):
            theirs = None if one.tags else self._theirs(one, run, hosted)
            script = "\n".join(one.script)
            needs = one.needs or ()
            self.forge.add_job(run, one.name, one.tags, 0.5, script, needs, theirs)
        return self.forge.begin(run)

    def _theirs(self, planned: PlannedJob, run: Run, hosted: Hosted) -> Callable[[Job], str]:
        def begin(job: Job) -> str:
            known = self.project.at_creation(iid_of(run.id), planned.name, planned.stage)
            known |= self.project.persisted(run.id, job.id)
            variables = gitlab_variables.at_run_time(planned.variables, known)
            return hosted(job, {**variables, **planned.raw, **self.settings})

        return begin

    def plan(self, definition: Definition, iid: int) -> list[PlannedJob]:
        """Its jobs in the order of their stages. Raises ConfigError.

        Nothing is known yet that GitLab knows only once it has saved them.
        """
        whole = self.resolved(definition)
        order = {stage: number for number, stage in enumerate(_stages(whole))}
        found = sorted(self._jobs(whole, iid), key=lambda one: order[one.stage])
        for number, one in enumerate(found):
            if one.needs is None:
                before = (other.name for other in found if order[other.stage] < order[one.stage])
                found[number] = replace(one, needs=tuple(before))
        needed = {need for one in found for need in one.needs or ()}
        if missing := sorted(needed - {one.name for one in found}):
            raise ConfigError(f"a job needs `{missing[0]}`, which does not exist in the pipeline")
        return found

    def _jobs(self, whole: Definition, iid: int) -> Iterator[PlannedJob]:
        for name, own in whole.items():
            if name in NO_JOBS or name.startswith("."):
                continue
            job = {**whole.get("default", {}), **own}
            if strange := sorted(set(job) - set(JOB_KEYWORDS)):
                raise ConfigError(f"jobs:{name} has unknown keywords: {', '.join(strange)}")
            if len(job.get("tags", ())) >= TAGS_LIMIT:
                raise ConfigError(f"jobs:{name}:tags must be less than the limit of {TAGS_LIMIT}")
            variables = {**whole.get("variables", {}), **job.get("variables", {})}
            yield self._job(name, job, variables, iid)

    def _job(self, name: str, job: Definition, variables: Definition, iid: int) -> PlannedJob:
        words: dict[bool, dict[str, str]] = {True: {}, False: {}}
        for key, one in variables.items():
            detailed = one if isinstance(one, dict) else {"value": one}
            words[detailed.get("expand", True)][key] = str(detailed["value"])
        values = words[True]
        raw = words[False]
        stage = job.get("stage", "test")
        known = {**self.project.at_creation(iid, name, stage), **values, **raw, **self.settings}
        needs = (one["job"] if isinstance(one, dict) else one for one in job.get("needs", ()))
        return PlannedJob(
            name=name,
            stage=stage,
            tags=tuple(gitlab_variables.in_tags(str(tag), known) for tag in job.get("tags", ())),
            needs=tuple(needs) if "needs" in job else None,
            script=(*job.get("before_script", ()), *job.get("script", ())),
            variables=values,
            raw=raw,
        )

    def resolved(self, definition: Definition) -> dict[str, Any]:
        """The definition with what it includes: mappings are merged, all else is replaced by it.

        https://docs.gitlab.com/ci/yaml/includes/#merge-method-for-include
        """
        whole: dict[str, Any] = {}
        for include in definition.get("include", ()):
            given = gitlab_variables.in_include(include["component"], self.project.variables)
            address, _, version = given.partition("@")
            if address not in self.components or not version:
                raise ConfigError(f"component '{given}' - content not found")
            # No variable in an input is expanded: mapper/variables_expander.rb of GitLab's source.
            part = interpolated(self.components[address], include.get("inputs", {}))
            whole = _merged(whole, part)
        return _merged(whole, {key: one for key, one in definition.items() if key != "include"})


def stuck(forge: Forge, job: Job) -> str:
    """What the page says of a job that waits though no runner that is online would take it."""
    takers = [seat for seat in forge.seats() if seat.online and seat.takes(job)]
    return STUCK + ", ".join(sorted(job.labels)) if job.status == "queued" and not takers else ""


def _stages(whole: Definition) -> tuple[str, ...]:
    return (STAGES[0], *whole["stages"], STAGES[-1]) if "stages" in whole else STAGES


def _merged(below: Definition, above: Definition) -> dict[str, Any]:
    whole = dict(below)
    for key, one in above.items():
        deeper = isinstance(one, dict) and isinstance(below.get(key), dict)
        whole[key] = _merged(below[key], one) if deeper else one
    return whole


def interpolated(template: str, given: Definition) -> dict[str, Any]:
    """A component's template with these inputs. Raises ConfigError for what it does not take.

    https://docs.gitlab.com/ci/inputs/
    """
    spec, body = yaml.safe_load_all(template)
    known = spec["spec"]["inputs"]
    if unknown := sorted(set(given) - set(known)):
        raise ConfigError(f"unknown input arguments: {', '.join(unknown)}")
    values = {name: given.get(name, rule.get("default")) for name, rule in known.items()}
    for name, value in values.items():
        if value is None:
            raise ConfigError(f"`{name}` input: required value has not been provided")
        if not isinstance(value, str):
            raise ConfigError(f"`{name}` input: provided value is not a string")
        if value not in known[name].get("options", (value,)):
            raise ConfigError(f"`{name}` input: `{value}` is not in the list of allowed options")
    found: dict[str, Any] = _filled(body, values)
    return found


def _filled(part: Any, values: Values) -> Any:
    if isinstance(part, dict):
        return {_filled(key, values): _filled(one, values) for key, one in part.items()}
    if isinstance(part, list):
        return [_filled(one, values) for one in part]
    if isinstance(part, str):
        return re.sub(r"\$\[\[ inputs\.([\w-]+) \]\]", lambda match: values[match[1]], part)
    return part
