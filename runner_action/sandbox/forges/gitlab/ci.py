"""Creates pipelines of the embedded GitLab from a CI definition: includes components, expands
`tags:` when the pipeline is created, and queues its jobs.

https://docs.gitlab.com/ci/yaml/, as far as our component and examples use it. An unknown keyword is
an error, and never ignored.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import yaml

from runner_action.sandbox.forges.gitlab import variables as gitlab_variables
from runner_action.sandbox.forges.gitlab.variables import Project, Values, iid_of
from runner_action.sandbox.forges.jobs import Job, Run
from runner_action.sandbox.forges.memory import Forge

Definition = Mapping[str, Any]
Hosted = Callable[[Job, Values], str]
"""What a job without tags does, with these variables, on a runner of the instance; returns its
conclusion."""
NO_JOBS = ("default", "include", "stages", "variables", "workflow")
DEFAULT_KEYWORDS = (
    "after_script",
    "artifacts",
    "before_script",
    "cache",
    "hooks",
    "id_tokens",
    "image",
    "interruptible",
    "retry",
    "services",
    "tags",
    "timeout",
)
"""Keywords that `default:` may have and `inherit: default:` may name.
https://docs.gitlab.com/ci/yaml/#default"""
JOB_KEYWORDS = (
    "after_script",
    "artifacts",
    "before_script",
    "cache",
    "environment",
    "hooks",
    "id_tokens",
    "image",
    "inherit",
    "interruptible",
    "needs",
    "retry",
    "rules",
    "script",
    "services",
    "stage",
    "tags",
    "timeout",
    "variables",
)
"""Keywords that are accepted, though not all have an effect: with any `rules`, every job runs."""
INPUT = re.compile(r"\$\[\[ inputs\.([\w-]+) \]\]")
TYPES: Mapping[str, type] = {"string": str, "array": list}
"""Types of inputs that our component has. https://docs.gitlab.com/ci/inputs/#input-types"""
ARTICLES = {"string": "a", "array": "an"}
STAGES = (".pre", "build", "test", "deploy", ".post")
"""The default stages. https://docs.gitlab.com/ci/yaml/#stages"""
TAGS_LIMIT = 50
"""A job must have fewer tags. lib/gitlab/ci/config/entry/tags.rb"""
STUCK = (
    "This job is stuck because of one of the following problems. There are no active runners "
    "online, no runners for the protected branch, or no runners that match all of the job's tags: "
)
"""On the page of such a job; in the API it is `pending` like all jobs that wait. It fails after an
hour. app/services/ci/stuck_builds/drop_pending_service.rb"""


class ConfigError(Exception):
    """Why the pipeline cannot be created."""


@dataclass(frozen=True)
class PlannedJob:
    """A job when the pipeline is created. `needs`: None if the definition has none."""

    name: str
    stage: str
    tags: tuple[str, ...]
    needs: tuple[str, ...] | None
    script: tuple[str, ...]
    variables: Values
    """Those of the definition, not expanded."""
    raw: Values
    """Those of the definition with `expand: false`."""


@dataclass(frozen=True)
class Pipelines:
    """The pipelines of one project. `components`: the texts of their templates, by address without
    version.

    `settings`: the variables in the project's settings, which override those of a definition:
    https://docs.gitlab.com/ci/variables/#cicd-variable-precedence.
    """

    forge: Forge
    project: Project
    components: Mapping[str, str]
    settings: Values = field(default_factory=dict)

    def create(self, definition: Definition, hosted: Hosted) -> Run:
        """Creates a pipeline and starts it. Raises ConfigError."""
        run = self.forge.queue_run()
        for job in self.plan(definition, iid_of(run.id)):
            on_instance = None if job.tags else self._on_instance(job, run, hosted)
            script = "\n".join(job.script)
            needs = job.needs or ()
            self.forge.add_job(run, job.name, job.tags, 0.5, script, needs, on_instance)
        return self.forge.begin(run)

    def _on_instance(self, planned: PlannedJob, run: Run, hosted: Hosted) -> Callable[[Job], str]:
        """What a job without tags does once it runs, with its variables."""

        def begin(job: Job) -> str:
            known = self.project.at_creation(iid_of(run.id), planned.name, planned.stage)
            known |= self.project.persisted(run.id, job.id)
            variables = gitlab_variables.at_run_time(planned.variables, known)
            return hosted(job, {**variables, **planned.raw, **self.settings})

        return begin

    def plan(self, definition: Definition, iid: int) -> list[PlannedJob]:
        """The jobs in the order of their stages, with what GitLab knows before it saves them.
        Raises ConfigError."""
        whole = self.resolved(definition)
        order = {stage: number for number, stage in enumerate(_stages(whole))}
        jobs = sorted(self._jobs(whole, iid), key=lambda job: order[job.stage])
        for number, job in enumerate(jobs):
            if job.needs is None:
                before = (other.name for other in jobs if order[other.stage] < order[job.stage])
                jobs[number] = replace(job, needs=tuple(before))
        needed = {need for job in jobs for need in job.needs or ()}
        if missing := sorted(needed - {job.name for job in jobs}):
            raise ConfigError(f"a job needs `{missing[0]}`, which does not exist in the pipeline")
        return jobs

    def _jobs(self, whole: Definition, iid: int) -> Iterator[PlannedJob]:
        for name, own in whole.items():
            if name in NO_JOBS or name.startswith("."):
                continue
            job = with_defaults(name, own, whole.get("default", {}))
            if unknown := sorted(set(job) - set(JOB_KEYWORDS)):
                raise ConfigError(f"jobs:{name} has unknown keywords: {', '.join(unknown)}")
            if len(job.get("tags", ())) >= TAGS_LIMIT:
                raise ConfigError(f"jobs:{name}:tags must be less than the limit of {TAGS_LIMIT}")
            shared = _inherited(job, "variables", whole.get("variables", {}))
            variables = {**shared, **job.get("variables", {})}
            yield self._job(name, job, variables, iid)

    def _job(self, name: str, job: Definition, variables: Definition, iid: int) -> PlannedJob:
        values: dict[str, str] = {}
        raw: dict[str, str] = {}
        for key, variable in variables.items():
            detailed = variable if isinstance(variable, dict) else {"value": variable}
            group = values if detailed.get("expand", True) else raw
            group[key] = str(detailed["value"])
        stage = job.get("stage", "test")
        known = {**self.project.at_creation(iid, name, stage), **values, **raw, **self.settings}
        needs = (need["job"] if isinstance(need, dict) else need for need in job.get("needs", ()))
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
        """The definition merged into what it includes: mappings are merged, other values replaced.

        https://docs.gitlab.com/ci/yaml/includes/#merge-method-for-include
        """
        whole: dict[str, Any] = {}
        for include in definition.get("include", ()):
            component = gitlab_variables.in_include(include["component"], self.project.variables)
            address, _, version = component.partition("@")
            if address not in self.components or not version:
                raise ConfigError(f"component '{component}' - content not found")
            # Variables in inputs are not expanded: mapper/variables_expander.rb of GitLab's source.
            part = interpolated(self.components[address], include.get("inputs", {}))
            whole = _merged(whole, part)
        own = {key: value for key, value in definition.items() if key != "include"}
        return _merged(whole, own)


def with_defaults(name: str, own: Definition, defaults: Definition) -> Definition:
    """The job with the defaults that it inherits, as its own keywords replace them whole. Raises
    ConfigError.

    https://docs.gitlab.com/ci/yaml/#inheritdefault; `timeout` has no effect there.
    """
    wanted = own.get("inherit", {}).get("default", [])
    named = wanted if isinstance(wanted, list) else []
    if unknown := sorted({*defaults, *named} - {*DEFAULT_KEYWORDS}):
        raise ConfigError(f"jobs:{name} config contains unknown values: {', '.join(unknown)}")
    inherited = _inherited(own, "default", defaults)
    return {**{key: value for key, value in inherited.items() if key != "timeout"}, **own}


def _inherited(job: Definition, kind: str, given: Definition) -> Definition:
    """What a job takes from `default:` or from the pipeline's `variables:`."""
    wanted = job.get("inherit", {}).get(kind, True)
    if isinstance(wanted, list):
        return {key: value for key, value in given.items() if key in wanted}
    return given if wanted else {}


def stuck(forge: Forge, job: Job) -> str:
    """The text on the page of a job that waits while no online runner can take it; else empty."""
    if job.status != "queued" or any(seat.online and seat.takes(job) for seat in forge.seats()):
        return ""
    return STUCK + ", ".join(sorted(job.labels))


def _stages(whole: Definition) -> tuple[str, ...]:
    return (STAGES[0], *whole["stages"], STAGES[-1]) if "stages" in whole else STAGES


def _merged(below: Definition, above: Definition) -> dict[str, Any]:
    whole = dict(below)
    for key, value in above.items():
        deeper = isinstance(value, dict) and isinstance(below.get(key), dict)
        whole[key] = _merged(below[key], value) if deeper else value
    return whole


def interpolated(template: str, inputs: Definition) -> dict[str, Any]:
    """A component's template with these inputs. Raises ConfigError for invalid inputs.

    An input that is a whole value keeps its type; inside of a text it becomes text.
    https://docs.gitlab.com/ci/inputs/#input-types; lib/gitlab/ci/config/interpolation/template.rb
    """
    spec, body = _documents(template)
    known = spec["spec"]["inputs"]
    if unknown := sorted(set(inputs) - set(known)):
        raise ConfigError(f"unknown input arguments: {', '.join(unknown)}")
    values = {name: inputs.get(name, rule.get("default")) for name, rule in known.items()}
    for name, value in values.items():
        if value is None:
            raise ConfigError(f"`{name}` input: required value has not been provided")
        kind = known[name].get("type", "string")
        if not isinstance(value, TYPES[kind]):
            raise ConfigError(f"`{name}` input: provided value is not {ARTICLES[kind]} {kind}")
        if value not in known[name].get("options", (value,)):
            raise ConfigError(f"`{name}` input: `{value}` is not in the list of allowed options")
    definition: dict[str, Any] = _filled(body, values)
    return definition


@cache
def _documents(template: str) -> tuple[Any, Any]:
    spec, body = yaml.safe_load_all(template)
    return spec, body


def _filled(part: Any, values: Definition) -> Any:
    """A part of a template with the inputs in place of their references."""
    if isinstance(part, dict):
        return {_filled(key, values): _filled(value, values) for key, value in part.items()}
    if isinstance(part, list):
        return [_filled(item, values) for item in part]
    if not isinstance(part, str):
        return part
    if whole := INPUT.fullmatch(part):
        return values[whole[1]]
    return INPUT.sub(lambda match: str(values[match[1]]), part)
