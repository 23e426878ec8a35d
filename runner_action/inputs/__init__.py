"""From raw texts to a checked request. Flags, variables, defaults and rules are all in the schema.
The validated document never contains a secret, because jsonschema prints documents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from runner_action.errors import InputError
from runner_action.files import ReadFile
from runner_action.forges import job_environments
from runner_action.inputs import advice, problems, to_request
from runner_action.inputs.infer import infer
from runner_action.inputs.sources import (
    Raw,
    Schema,
    collect,
    command_of,
    defaults,
    schema,
    secrets,
    source_of_token,
    spellings,
)
from runner_action.model import ForgeName, Repository
from runner_action.request import CloudRequest, LaunchRequest, RestartRequest

__all__ = ["Raw", "Schema", "command_of", "schema", "secrets", "spellings"]

EVERYWHERE = ("status", "destroy", "reap")
"""Commands that search all regions unless some are named."""
HERE = "local"
"""The `cloud` that is none: this machine becomes the runner."""


def parse(raw: Raw, read_file: ReadFile) -> tuple[LaunchRequest, list[str]]:
    """Checks all inputs. Returns the request and warnings for the user; raises InputError with all
    problems at once."""
    values = _checked(raw, read_file, forks=False)
    if values.get("command") in EVERYWHERE:
        whole = _whole({"cloud-region": []}, values)
        return to_request.launch_request(whole), _warnings(raw, whole)
    whole = _whole({**advice.least(values), **advice.sized(values)}, values)
    public = any(job.is_public(read_file) for job in job_environments(raw.environ))
    warnings = advice.launch(whole, raw.environ, public)
    return to_request.launch_request(whole), [*_warnings(raw, whole), *warnings]


def parse_restart(raw: Raw, read_file: ReadFile) -> tuple[RestartRequest, list[str]]:
    """The same for `restart`."""
    whole = {**defaults(), **_checked(raw, read_file)}
    return to_request.restart_request(whole), _warnings(raw, whole)


@dataclass(frozen=True)
class Question:
    """What `permissions` is to print; no token is needed. `forge` and `repository`: None if
    unknown; `restart`: whether machines may restart runs."""

    cloud: CloudRequest | None
    forge: ForgeName | None
    repository: Repository | None
    restart: bool


def parse_question(raw: Raw, read_file: ReadFile) -> Question:
    """Raises InputError with all problems at once."""
    value = {**defaults(), **_checked(raw, read_file, forge=False)}
    return Question(
        cloud=to_request.cloud_request(value) if value["cloud"] else None,
        forge=ForgeName(value["driver"]) if value["driver"] else None,
        repository=Repository(url=value["repo"]) if value["repo"] else None,
        restart=bool(value["restart-limit"] and not value["no-retry"]),
    )


def _whole(preset: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """All inputs. `preset`: defaults that depend on the values."""
    # Without a cloud, there is no machine whose end would save money.
    here = {} if "cloud" in values else {"max-lifetime": -1}
    return {**defaults(), **here, **preset, **values}


def _warnings(raw: Raw, whole: Mapping[str, Any]) -> list[str]:
    return [*advice.unused(raw), *advice.to_another(whole, raw.environ, source_of_token(raw))]


def _checked(
    raw: Raw, read_file: ReadFile, *, forge: bool = True, forks: bool = True
) -> dict[str, Any]:
    """`forge`: whether GitHub or GitLab is needed; `forks`: whether code from forks is allowed even
    if `allow-forks` is not set."""
    given = dict(collect(raw, read_file))
    infer(given, raw.environ, read_file)
    here = "cloud" in given and given["cloud"].value == HERE
    if here:
        # From here on the same as no cloud, also for the rules of the schema.
        del given["cloud"]
    wrong = list(problems.problems(raw, given, read_file))
    if not forks:
        wrong += problems.strangers(given, raw.environ, read_file)
    missing = list(problems.missing(given, raw.environ, here=here)) if forge else []
    if wrong:
        raise InputError(wrong, besides=missing)
    if missing:
        raise InputError(missing)
    return {name: entry.value for name, entry in given.items()}
