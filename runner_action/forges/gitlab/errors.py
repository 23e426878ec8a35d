"""Turns python-gitlab's exceptions into the launcher's errors, which say what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import requests
from gitlab.exceptions import GitlabError

from runner_action import retrying
from runner_action.errors import AuthError, ForgeError
from runner_action.forges.gitlab import answers
from runner_action.forges.gitlab.permissions import HINT


class NotThere(ForgeError):
    """404: it does not exist, or the token may not see it."""


class Unanswered(ForgeError):
    """No response, or one that does not say whether the call succeeded."""


@contextmanager
def translated(call: str) -> Iterator[None]:
    """Raises ForgeError in place of the library's exceptions, with GitLab's own message and without
    the token. `call`: verb and path."""
    try:
        yield
    except GitlabError as error:
        raise _translate(error, call) from None
    except requests.RequestException as error:
        raise Unanswered(
            f"Cannot reach GitLab ({call}): {retrying.reason(error)}.",
            "Check the network, the proxy, `ca-certificates` and `repo`.",
        ) from None


def _translate(error: GitlabError, call: str) -> ForgeError:
    status = error.response_code or 0
    refusal = answers.refusal(status, error.response_body, str(error.error_message))
    meaning = answers.meaning(refusal)
    if meaning is answers.NO_API:  # the text is a page
        return ForgeError(f"{status} to {call}. {meaning.sentence}", meaning.hint)
    answer = f"GitLab answered {status} to {call}: {refusal.words.rstrip('.')}."
    if meaning is not None:
        kind = AuthError if meaning.by_token else ForgeError
        return kind(f"{answer} {meaning.sentence}".rstrip(), meaning.hint)
    if status == 404:
        return NotThere(answer, HINT)
    return (Unanswered if status >= 500 else ForgeError)(answer, answers.HEALTH)
