"""What the rest of the launcher needs to know about GitHub. Pure."""

from __future__ import annotations

from runner_action.forges.traits import Traits

TRAITS = Traits(
    title="GitHub",
    hosted="https://github.com",
    hosts=("github.com", ".ghe.com"),
    server_variable="GITHUB_SERVER_URL",
    api_variable="GITHUB_API_URL",
    project_variable="GITHUB_REPOSITORY",
    just_in_time=True,
    restarts_from_outside=True,
    own_label_suffices=True,
    names_no_owner="enterprises/",
    # https://docs.github.com/en/authentication/keeping-your-account-and-data-secure/about-authentication-to-github#githubs-token-formats
    passing_tokens=("ghs_",),
)
"""https://docs.github.com/en/actions/reference/workflows-and-actions/variables"""
