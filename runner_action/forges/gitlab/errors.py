"""What goes wrong at GitLab, in the launcher's words and without the library's exceptions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import requests
from gitlab.exceptions import GitlabError

from runner_action import retrying
from runner_action.errors import AuthError, ForgeError
from runner_action.forges.gitlab.permissions import HINT


class NotThere(ForgeError):
    """404: what was asked for does not exist, or the token may not see it."""


class Unanswered(ForgeError):
    """No answer, or one that does not say whether it was done."""


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """No exception of the library leaves this block, and no token: only GitLab's own message is
    passed on."""
    try:
        yield
    except GitlabError as error:
        raise _translate(error, doing) from None
    except requests.RequestException as error:
        hint = "Check the network, the proxy, `ca-certificates` and `repo`."
        raise Unanswered(
            f"GitLab could not be reached for {doing}: {retrying.reason(error)}.", hint
        ) from None


def _translate(error: GitlabError, doing: str) -> ForgeError:
    said = (
        f"GitLab answered {error.response_code} to {doing}: {str(error.error_message).rstrip('.')}."
    )
    if error.response_code == 401:
        return AuthError(f"{said} The token is wrong or expired, or is a job's own.", HINT)
    if error.response_code == 403:
        return AuthError(f"{said} The token lacks a scope, or its owner a role.", HINT)
    if error.response_code == 404:
        return NotThere(said, HINT)
    kind = Unanswered if (error.response_code or 0) >= 500 else ForgeError
    return kind(
        said,
        "If this repeats, look at your instance's health, for gitlab.com at"
        " https://status.gitlab.com.",
    )
