"""What a token must be allowed at GitHub, by its kind and the level of the runners: the one
source of what is printed, documented and hinted. Pure.

https://docs.github.com/en/rest/actions/self-hosted-runners and
https://docs.github.com/en/rest/actions/workflow-runs tell it call by call.
"""

from __future__ import annotations

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
"""Of fine-grained tokens and Apps, which GitHub takes for repositories and organisations only:
its word in the API, and on its pages."""
RESTART = ("actions", "repository permission Actions")
OWNER = {
    Level.REPOSITORY: "an administrator of the repository",
    Level.ORGANISATION: "an owner of the organisation",
    Level.ENTERPRISE: "an owner of the enterprise",
}
APPS_NOT_HERE = (
    "GitHub's calls for an enterprise's runners take classic personal access tokens only"
)
OWN_TOKEN = (
    "The job's own GITHUB_TOKEN can never manage runners: store a token as a secret and pass it"  # noqa: S105
    " as `token: ${{ secrets.PERSONAL_ACCESS_TOKEN }}`."
)
EXAMPLES = (
    "https://github.com/OWNER/NAME",
    "https://github.com/ORGANISATION",
    "https://github.com/enterprises/ENTERPRISE",
)
"""A place of each level, for whoever does not say where."""


def scopes(level: Level, restart: bool) -> tuple[str, ...]:
    """Restarting is a call to the repository whose job it was."""
    return SCOPES[level] if not restart or level is Level.REPOSITORY else (*SCOPES[level], "repo")


def permissions(level: Level, restart: bool) -> list[tuple[str, str]]:
    """Pairs of API word and page word, each with read and write access; none where no such token
    will do."""
    if level not in RUNNERS:
        return []
    return [RUNNERS[level], RESTART] if restart else [RUNNERS[level]]


def hint(level: Level) -> str:
    """In one or two sentences, for errors."""
    classic = f"It needs scope `{'`, `'.join(SCOPES[level])}` (classic), of {OWNER[level]}"
    fine = (
        f", or {RUNNERS[level][1]}: write (fine-grained or App)"
        if level in RUNNERS
        else f"; {APPS_NOT_HERE}"
    )
    return f"{classic}{fine}. {OWN_TOKEN} `cml-runner permissions github` prints it all."


def text(repository: Repository, restart: bool) -> str:
    """What to give to each kind of `token`, and where it is made; with `restart`, of
    `restart-token`, which an App's is too short-lived for. The forms of two kinds can be filled
    in by their address. Markdown.

    https://docs.github.com/en/apps/sharing-github-apps/registering-a-github-app-using-url-parameters
    """
    level, server = level_of(repository), repository.server
    wanted = (
        "`restart-token`, only if machines restart interrupted jobs"
        if restart
        else "`token`, to launch runners"
    )
    scope = scopes(level, restart)
    lines = [f"{wanted}, for {'a' if level is Level.REPOSITORY else 'an'} {level}; one of:", ""]
    private = (
        " (and repo, where repositories are private)"
        if level is Level.ORGANISATION and not restart
        else ""
    )
    lines += [
        f"- personal access token (classic) of {OWNER[level]}: scope {' and '.join(scope)}{private}"
    ]
    query = urlencode({"description": "cml-runner", "scopes": ",".join(scope)}, safe=":,")
    lines += [f"  {server}/settings/tokens/new?{query}"]
    if level is Level.ENTERPRISE:
        others = "no fine-grained token" if restart else "no fine-grained token and no App"
        return "\n".join([*lines, f"- {others}: {APPS_NOT_HERE}", ""])
    rights = permissions(level, restart)
    listed = ", ".join(f"{page}: read and write" for _, page in rights)
    lines += [
        f"- fine-grained personal access token of {OWNER[level]}: {listed}",
        f"  {server}/settings/personal-access-tokens/new",
    ]
    if restart:
        return "\n".join([*lines, ""])
    account = f"{server}/organizations/{repository.path}" if level is Level.ORGANISATION else server
    form = urlencode(
        {"webhook_active": "false", "url": server, **{word: "write" for word, _ in rights}},
        safe=":/",
    )
    where = "on the repository" if level is Level.REPOSITORY else "in the organisation"
    return "\n".join(
        [
            *lines,
            f"- GitHub App, installed {where}: {listed}",
            f"  {account}/settings/apps/new?{form}",
            "",
        ]
    )


def policy_for(repository: Repository | None, restart: bool) -> str:
    """What `token` needs for runners there, or, if that is not said, at each level; and, with
    `restart`, what `restart-token` does. Raises InputError for what is no place of GitHub's."""
    places = [repository] if repository else [Repository(url=url) for url in EXAMPLES]
    if problems := [problem for place in places for problem in misread(place)]:
        raise InputError(problems)
    tokens = (False, True) if restart else (False,)
    return "\n".join(text(place, kept) for place in places for kept in tokens)
