"""Turns GitHub's error responses into errors that say what to do. Pure.

https://docs.github.com/en/rest/using-the-rest-api/troubleshooting-the-rest-api
"""

from __future__ import annotations

from collections.abc import Mapping

from github import GithubException
from github.GithubException import RateLimitExceededExceedsMaxWait, RateLimitExceededException

from runner_action.errors import AuthError, ForgeError, RunnerBusy
from runner_action.forges.github.levels import Level
from runner_action.forges.github.permissions import OWNER, hint

LIMITED = (
    "The token has made too many requests, or too many runners were registered: GitHub allows 1,500"
    " in five minutes for a repository, an organisation or an enterprise. Launch fewer at once, or"
    " give cml-runner a token or an App of its own."
)
NOT_THERE = {
    Level.REPOSITORY: "The repository does not exist, or the token may not manage its runners.",
    Level.ORGANISATION: (
        "There is no organisation of that name (a person has no runners: write the repository), or"
        " the token may not manage its runners."
    ),
    Level.ENTERPRISE: (
        "There is no enterprise of that name, or the token may not manage its runners."
    ),
}
INTEGRATION = "by integration"
"""Part of GitHub's message to an App's token. The job's own GITHUB_TOKEN is such a token."""


class NotThere(ForgeError):
    """404: it does not exist, or the token may not see it."""


class Taken(ForgeError):
    """409: the name is in use."""


class RateLimited(ForgeError):
    """GitHub accepts no request for `wait` seconds, which is longer than the launch can wait."""

    wait = 0.0


def refusal(error: GithubException, call: str, level: Level, by_app: bool = False) -> ForgeError:
    """`call`: verb and path. `by_app`: whether the user's App made it."""
    headers = {name.lower(): str(value) for name, value in (error.headers or {}).items()}
    message = str(error.data.get("message", "")) if isinstance(error.data, dict) else ""
    reason = f": {message.rstrip('.')}" if message else ""
    answer = f"GitHub answered {error.status} to {call}{reason}."
    if _is_limit(error, message):
        return limited(answer, _wait_of(error))
    if error.status == 401:
        return AuthError(f"{answer} The token is wrong or expired.", hint(level))
    if error.status in (403, 404):
        lacking = _lacking(headers) or _forbidden(error.status, message, headers, level, by_app)
        if lacking:
            return AuthError(f"{answer} {lacking}", _remedy(headers, level))
    if error.status == 404:
        return NotThere(f"{answer} {NOT_THERE[level]}", hint(level))
    if error.status == 409:
        return Taken(answer, "Choose another `name`, or wait until the other runner has ended.")
    if error.status == 422 and "running a job" in message:
        return RunnerBusy(answer, "The runner shuts down by itself after its job.")
    return ForgeError(answer, "If this repeats, look at https://www.githubstatus.com.")


def _is_limit(error: GithubException, message: str) -> bool:
    return (
        error.status == 429
        or isinstance(error, RateLimitExceededException)
        or "rate limit" in message.lower()
    )


def _wait_of(error: GithubException) -> float:
    """Seconds that GitHub asks to wait; 0 if unknown."""
    wait = error.wait if isinstance(error, RateLimitExceededExceedsMaxWait) else None
    return wait or 0.0


def limited(answer: str, wait: float) -> RateLimited:
    text = answer
    if wait:
        text += f" GitHub asks to wait {wait:.0f} s, which is longer than this launch can wait."
    error = RateLimited(text, LIMITED)
    error.wait = wait
    return error


def _words(text: str) -> set[str]:
    return {word.strip() for word in text.split(",") if word.strip()}


def _lacking(headers: Mapping[str, str]) -> str:
    """A classic token's missing scope, from GitHub's headers: the scopes it has, and those of
    which any would do. GitHub also sends them with a 404 that hides what is private."""
    if "x-oauth-scopes" not in headers:
        return ""
    scopes = _words(headers["x-oauth-scopes"])
    accepted = _words(headers.get("x-accepted-oauth-scopes", ""))
    if not accepted or scopes & accepted:
        return ""
    has = f"scope `{'`, `'.join(sorted(scopes))}`" if scopes else "no scope at all"
    return f"The token has {has}; it lacks `{'` or `'.join(sorted(accepted))}`."


def _forbidden(
    status: int, message: str, headers: Mapping[str, str], level: Level, by_app: bool
) -> str:
    if status != 403:
        return ""
    if headers.get("x-github-sso", "").startswith("required"):
        return "The token is not authorised for the single sign-on of this organisation."
    needed = headers.get("x-accepted-github-permissions", "").replace(";", " or")
    if INTEGRATION in message and not by_app:
        lacking = f" without the permission {needed}" if needed else ""
        return (
            "It is the job's own GITHUB_TOKEN, which can never manage runners, or an App's"
            f" token{lacking}."
        )
    if needed:
        return f"The {'App' if by_app else 'token'} lacks the permission {needed}."
    return f"The token lacks a permission, or its owner is not {OWNER[level]}."


def _remedy(headers: Mapping[str, str], level: Level) -> str:
    fields = headers.get("x-github-sso", "").split(";")
    sso = dict(field.strip().partition("=")[::2] for field in fields)
    if "url" not in sso:
        return hint(level)
    return (
        f"Authorise it at {sso['url']} (the link is valid for an hour), or use a fine-grained token"
        " or an App."
    )
