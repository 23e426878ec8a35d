"""AWS, as far as the rest of the launcher must know it. Pure."""

from __future__ import annotations

from runner_action.providers.traits import Traits

TRAITS = Traits(
    title="AWS",
    variables=("AWS_",),
    policy_by_repository=True,
    # https://docs.aws.amazon.com/sdkref/latest/guide/environment-variables.html
    secret_variables=(
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_SECURITY_TOKEN",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN",
    ),
    secret_files={
        "AWS_SHARED_CREDENTIALS_FILE": "~/.aws/credentials",
        "AWS_CONFIG_FILE": "~/.aws/config",
        "AWS_CREDENTIAL_FILE": "",
        "BOTO_CONFIG": "~/.boto",
        "AWS_WEB_IDENTITY_TOKEN_FILE": "",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": "",
    },
)
