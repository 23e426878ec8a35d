"""The permissions that a token needs at GitHub, by its kind and the level of the runners. The
single source for `permissions`, the documentation and error hints. Pure.

https://docs.github.com/en/rest/actions/self-hosted-runners and
https://docs.github.com/en/rest/actions/workflow-runs list them call by call.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlencode

from runner_action.errors import InputError
from runner_action.forges.github.levels import Level, level_of, misread
from runner_action.model import Repository

SCOPES = {
    Level.REPOSITORY: ("repo",),
    Level.ORGANISATION: ("admin:org",),
    Level.ENTERPRISE: ("manage_runners:enterprise",),
}
"""Of classic personal access tokens."""
RUNNERS = {
    Level.REPOSITORY: ("administration", "repository permission Administration"),
    Level.ORGANISATION: (
        "organization_self_hosted_runners",
        "organisation permission Self-hosted runners",
    ),
}
"""Permission of fine-grained tokens and Apps, which GitHub accepts for repositories and
organisations only: its name in the API, and on GitHub's pages."""
RESTART = ("actions", "repository permission Actions")
OWNER = {
    Level.REPOSITORY: "an administrator of the repository",
    Level.ORGANISATION: "an owner of the organisation",
    Level.ENTERPRISE: "an owner of the enterprise",
}
APPS_NOT_HERE = "GitHub accepts only classic personal access tokens for an enterprise's runners"
OWN_TOKEN = (
    "The job's own GITHUB_TOKEN can never manage runners: store a token as a secret and pass it"  # noqa: S105
    " as `token: ${{ secrets.PERSONAL_ACCESS_TOKEN }}`."
)
EXAMPLES = (
    "https://github.com/OWNER/NAME",
    "https://github.com/ORGANISATION",
    "https://github.com/enterprises/ENTERPRISE",
)
"""One address of each level, used when no repository is given."""


def scopes(level: Level, restart: bool) -> tuple[str, ...]:
    """Restarting a job is a call to its repository, whatever the runners belong to."""
    if not restart or level is Level.REPOSITORY:
        return SCOPES[level]
    return (*SCOPES[level], "repo")


def permissions(level: Level, restart: bool) -> list[tuple[str, str]]:
    """Pairs of the API's name and the page's name, each with read and write access; empty if GitHub
    accepts no such token."""
    if level not in RUNNERS:
        return []
    return [RUNNERS[level], RESTART] if restart else [RUNNERS[level]]


def hint(level: Level) -> str:
    """What the token needs, in a few sentences for the hint of an error."""
    classic = f"It needs scope `{'`, `'.join(SCOPES[level])}` (classic), of {OWNER[level]}"
    fine = (
        f", or {RUNNERS[level][1]}: write (fine-grained or App)"
        if level in RUNNERS
        else f"; {APPS_NOT_HERE}"
    )
    return f"{classic}{fine}. {OWN_TOKEN} `cml-runner permissions github` prints all details."


def text(repository: Repository, restart: bool) -> str:
    """What to grant to each kind of `token`, and where to create it; with `restart`, of
    `restart-token`, for which an App's token expires too soon. Two of the pages open with their
    form filled in. Markdown.

    https://docs.github.com/en/apps/sharing-github-apps/registering-a-github-app-using-url-parameters
    """
    level = level_of(repository)
    purpose = "`token`, to launch runners"
    if restart:
        purpose = "`restart-token`, only if machines restart interrupted jobs"
    article = "a" if level is Level.REPOSITORY else "an"
    lines = [f"{purpose}, for {article} {level}; one of:", "", *_classic(repository, restart)]
    if level is Level.ENTERPRISE:
        others = "no fine-grained token" if restart else "no fine-grained token and no App"
        lines.append(f"- {others}: {APPS_NOT_HERE}")
        return "\n".join([*lines, ""])
    rights = permissions(level, restart)
    listed = ", ".join(f"{title}: read and write" for _, title in rights)
    lines += [
        f"- fine-grained personal access token of {OWNER[level]}: {listed}",
        f"  {repository.server}/settings/personal-access-tokens/new",
    ]
    if not restart:
        lines += _app(repository, listed, [name for name, _ in rights])
    return "\n".join([*lines, ""])


def _classic(repository: Repository, restart: bool) -> list[str]:
    level = level_of(repository)
    needed = scopes(level, restart)
    private = ""
    if level is Level.ORGANISATION and not restart:
        private = " (and repo, where repositories are private)"
    listed = f"scope {' and '.join(needed)}{private}"
    form = urlencode({"description": "cml-runner", "scopes": ",".join(needed)}, safe=":,")
    return [
        f"- personal access token (classic) of {OWNER[level]}: {listed}",
        f"  {repository.server}/settings/tokens/new?{form}",
    ]


def _app(repository: Repository, listed: str, names: Sequence[str]) -> list[str]:
    """`listed`: the permissions in words; `names`: as the API calls them."""
    server = repository.server
    account = server
    place = "on the repository"
    if level_of(repository) is Level.ORGANISATION:
        account = f"{server}/organizations/{repository.path}"
        place = "in the organisation"
    fields = {"webhook_active": "false", "url": server, **dict.fromkeys(names, "write")}
    return [
        f"- GitHub App, installed {place}: {listed}",
        f"  {account}/settings/apps/new?{urlencode(fields, safe=':/')}",
    ]


def policy_for(repository: Repository | None, restart: bool) -> str:
    """What `token` needs for the repository's runners, or for each level if that is None; with
    `restart`, also what `restart-token` needs. Markdown. Raises InputError for an address without
    runners."""
    places = [repository] if repository else [Repository(url=url) for url in EXAMPLES]
    if problems := [problem for place in places for problem in misread(place)]:
        raise InputError(problems)
    tokens = (False, True) if restart else (False,)
    return "\n".join(text(place, for_restart) for place in places for for_restart in tokens)
