"""`permissions`: what a launch with these inputs needs at its cloud, or at GitHub or GitLab."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from runner_action import forges, inputs, providers
from runner_action.errors import InputError
from runner_action.files import ReadFile
from runner_action.inputs import Question, Raw
from runner_action.model import ForgeName, ProviderName

SERVICES = (*ProviderName, *ForgeName)
TOO_WIDE = (
    "Without `repo`, this policy allows a launch to delete the machines of all repositories that"
    " use the account, and to read their consoles: add `--repo=OWNER/NAME`."
)


def permissions(service: str, raw: Raw, read_file: ReadFile, warn: Callable[[str], object]) -> str:
    """The permissions of one of `SERVICES`, as its own policy or as text. Raises InputError."""
    if service in [*ForgeName]:
        return _of_token(ForgeName(service), inputs.parse_question(raw, read_file))
    chosen = replace(raw, flags={**raw.flags, "cloud": [service]})
    return _of_cloud(inputs.parse_question(chosen, read_file), warn)


def _of_token(forge: ForgeName, question: Question) -> str:
    if question.forge not in (None, forge):
        where = question.repository.url if question.repository else f"driver {question.forge}"
        raise InputError(
            [f"permissions {forge}: {where} belongs to `permissions {question.forge}`"]
        )
    return forges.policy_for(forge, question.repository, question.restart)


def _of_cloud(question: Question, warn: Callable[[str], object]) -> str:
    assert question.cloud
    by_repository = providers.traits_of(question.cloud.provider).policy_by_repository
    if question.repository is None and by_repository:
        warn(TOO_WIDE)
    return providers.policy_for(question.cloud, question.forge or forges.USUAL, question.repository)
