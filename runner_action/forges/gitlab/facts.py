"""What the rest of the launcher needs to know about GitLab. Pure."""

from __future__ import annotations

from runner_action.forges.traits import Traits

TRAITS = Traits(
    title="GitLab",
    hosted="https://gitlab.com",
    hosts=("gitlab.com",),
    # https://docs.gitlab.com/user/gitlab_com/#alternative-ssh-port
    other_hosts=("www.gitlab.com", "altssh.gitlab.com"),
    server_variable="CI_SERVER_URL",
    api_variable="CI_API_V4_URL",
    project_variable="CI_PROJECT_URL",
    just_in_time=False,
    restarts_from_outside=False,
    own_label_suffices=False,
    case_sensitive_labels=True,  # https://docs.gitlab.com/ci/yaml/#tags
    # https://docs.gitlab.com/api/rest/; no group can be called `api`:
    # https://docs.gitlab.com/user/reserved_names/
    nameless_paths="api/v4/",
    secret_variables=("CI_JOB_TOKEN",),
    secret_files={"PYTHON_GITLAB_CFG": "~/.python-gitlab.cfg"},
)
"""https://docs.gitlab.com/ci/variables/predefined_variables/"""
