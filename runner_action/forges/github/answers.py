"""What GitHub's refusals mean, in the user's words. Pure.

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
    "The token has asked too often, or too many runners were registered: GitHub takes 1,500 in five"
    " minutes for a repository, an organisation or an enterprise. Launch fewer at once, or give"
    " cml-runner a token or an App of its own."
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
"""What a token of an App is told, and the job's own GITHUB_TOKEN is one."""


class NotThere(ForgeError):
    """404: what was asked for does not exist, or the token may not see it."""


class Taken(ForgeError):
    """409: the name is in use."""


class RateLimited(ForgeError):
    """GitHub wants to be left alone for `wait` seconds, which is longer than anybody waits here."""

    wait = 0.0


def refusal(error: GithubException, doing: str, level: Level, by_app: bool = False) -> ForgeError:
    """`by_app`: an App of the user's asked."""
    headers = {name.lower(): str(value) for name, value in (error.headers or {}).items()}
    message = str(error.data.get("message", "")) if isinstance(error.data, dict) else ""
    said = f"GitHub answered {error.status} to {doing}" + (
        f": {message.rstrip('.')}." if message else "."
    )
    if (
        error.status == 429
        or isinstance(error, RateLimitExceededException)
        or "rate limit" in message.lower()
    ):
        return limited(
            said,
            (error.wait if isinstance(error, RateLimitExceededExceedsMaxWait) else None) or 0.0,
        )
    if error.status == 401:
        return AuthError(f"{said} The token is wrong or expired.", hint(level))
    if error.status in (403, 404) and (
        why := _lacking(headers) or _forbidden(error.status, message, headers, level, by_app)
    ):
        return AuthError(f"{said} {why}", _remedy(headers, level))
    if error.status == 404:
        return NotThere(f"{said} {NOT_THERE[level]}", hint(level))
    if error.status == 409:
        return Taken(said, "Choose another `name`, or wait until the other runner has ended.")
    if error.status == 422 and "running a job" in message:
        return RunnerBusy(said, "The runner ends by itself after its job.")
    return ForgeError(said, "If this repeats, look at https://www.githubstatus.com.")


def limited(said: str, wait: float) -> RateLimited:
    found = RateLimited(
        said
        + (
            f" It wants {wait:.0f} s without another question, which is more than is left."
            if wait
            else ""
        ),
        LIMITED,
    )
    found.wait = wait
    return found


def _words(text: str) -> set[str]:
    return {word.strip() for word in text.split(",") if word.strip()}


def _lacking(headers: Mapping[str, str]) -> str:
    """A classic token's missing scope: GitHub tells which it has, and which would do. Also
    behind a 404, by which it hides what is private."""
    if "x-oauth-scopes" not in headers:
        return ""
    given, accepted = (
        _words(headers["x-oauth-scopes"]),
        _words(headers.get("x-accepted-oauth-scopes", "")),
    )
    if not accepted or given & accepted:
        return ""
    has = f"scope `{'`, `'.join(sorted(given))}`" if given else "no scope at all"
    return f"The token has {has}; it lacks `{'` or `'.join(sorted(accepted))}`."


def _forbidden(
    status: int, message: str, headers: Mapping[str, str], level: Level, by_app: bool
) -> str:
    if status != 403:
        return ""
    if headers.get("x-github-sso", "").startswith("required"):
        return "The token is not authorised for the single sign-on of this organisation."
    wanted = headers.get("x-accepted-github-permissions", "").replace(";", " or")
    if INTEGRATION in message and not by_app:
        need = f" without the permission {wanted}" if wanted else ""
        return (
            "It is the job's own GITHUB_TOKEN, which can never manage runners, or an App's"
            f" token{need}."
        )
    if wanted:
        return f"The {'App' if by_app else 'token'} lacks the permission {wanted}."
    return f"The token lacks a permission, or its owner is not {OWNER[level]}."


def _remedy(headers: Mapping[str, str], level: Level) -> str:
    sso = dict(
        part.strip().partition("=")[::2] for part in headers.get("x-github-sso", "").split(";")
    )
    return (
        f"Authorise it at {sso['url']} (the link is good for an hour), or use a fine-grained token"
        " or an App."
        if "url" in sso
        else hint(level)
    )
