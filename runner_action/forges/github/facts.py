"""What the rest of the launcher needs to know about GitHub. Pure."""

from __future__ import annotations

from runner_action.forges.traits import Traits

PAGES = frozenset(
    {
        *("actions", "blob", "branches", "commit", "commits", "compare", "issues", "pull", "pulls"),
        *("releases", "security", "settings", "tags", "tree", "wiki"),
    }
)
TRAITS = Traits(
    title="GitHub",
    hosted="https://github.com",
    hosts=("github.com", ".ghe.com"),
    # https://docs.github.com/en/authentication/troubleshooting-ssh/using-ssh-over-the-https-port
    other_hosts=("www.github.com", "api.github.com", "ssh.github.com"),
    server_variable="GITHUB_SERVER_URL",
    api_variable="GITHUB_API_URL",
    project_variable="GITHUB_REPOSITORY",
    just_in_time=True,
    restarts_from_outside=True,
    own_label_suffices=True,
    # https://docs.github.com/en/actions/how-tos/manage-runners/self-hosted-runners/apply-labels
    case_sensitive_labels=False,
    rerun_advice="*Re-run failed jobs* finds no machine: use *Re-run all jobs* (docs/restart.md)",
    names_no_owner="enterprises/",
    pages=PAGES,
    # https://docs.github.com/en/rest/repos/repos; `api/v3` on an Enterprise Server.
    api_paths="^(api/v3/)?repos/(?=[^/]+/[^/]+)",
    # https://docs.github.com/en/authentication/keeping-your-account-and-data-secure/about-authentication-to-github#githubs-token-formats
    passing_tokens=("ghs_",),
    secret_variables=("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "ACTIONS_RUNTIME_TOKEN"),
)
"""https://docs.github.com/en/actions/reference/workflows-and-actions/variables"""
