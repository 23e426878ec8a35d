"""Turns python-gitlab's exceptions into the launcher's errors, which say what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import requests
from gitlab.exceptions import GitlabError

from runner_action import retrying
from runner_action.errors import AuthError, ForgeError
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
    message = str(error.error_message).rstrip(".")
    answer = f"GitLab answered {error.response_code} to {call}: {message}."
    if error.response_code == 401:
        return AuthError(f"{answer} The token is wrong or expired, or is a job's own.", HINT)
    if error.response_code == 403:
        return AuthError(f"{answer} The token lacks a scope, or its owner a role.", HINT)
    if error.response_code == 404:
        return NotThere(answer, HINT)
    kind = Unanswered if (error.response_code or 0) >= 500 else ForgeError
    return kind(
        answer,
        "If this repeats, look at your instance's health, for gitlab.com at"
        " https://status.gitlab.com.",
    )
