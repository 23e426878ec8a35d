"""The login programs of the big clouds, as kubeconfigs call them: which arguments and variables
they take. The tokens are made by `eks`, `gke` and `aks`, where the program is not installed. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from runner_action.errors import CredentialsError


@dataclass(frozen=True)
class Program:
    """`words`: the subcommand. `flags` take a value, `switches` do not; both lead to the name of
    what they set, which is empty for what makes no difference here. `variables`: those that a
    kubeconfig may set for the program. `needed`: what must be set."""

    words: tuple[str, ...]
    flags: Mapping[str, str]
    switches: Mapping[str, str] = field(default_factory=dict)
    variables: frozenset[str] = frozenset()
    needed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Asked:
    """The token that a kubeconfig asks a program for."""

    program: str
    values: Mapping[str, str]
    variables: Mapping[str, str] = field(default_factory=dict)


AWS = frozenset({"AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_STS_REGIONAL_ENDPOINTS"})
ENTRA = frozenset(
    {
        "AAD_LOGIN_METHOD",
        "AAD_SERVICE_PRINCIPAL_CLIENT_CERTIFICATE",
        "AAD_SERVICE_PRINCIPAL_CLIENT_CERTIFICATE_PASSWORD",
        "AAD_SERVICE_PRINCIPAL_CLIENT_ID",
        "AAD_SERVICE_PRINCIPAL_CLIENT_SECRET",
        "AZURE_AUTHORITY_HOST",
        "AZURE_CLIENT_CERTIFICATE_PASSWORD",
        "AZURE_CLIENT_CERTIFICATE_PATH",
        "AZURE_CLIENT_ID",
        "AZURE_CLIENT_SECRET",
        "AZURE_FEDERATED_TOKEN_FILE",
        "AZURE_TENANT_ID",
    }
)
"""https://azure.github.io/kubelogin/cli/get-token.html"""
PROGRAMS: Mapping[str, Program] = {
    # https://docs.aws.amazon.com/cli/latest/reference/eks/get-token.html
    "aws": Program(
        words=("eks", "get-token"),
        flags={
            "--cluster-name": "cluster",
            "--cluster-id": "cluster",
            "--role-arn": "role",
            "--role": "role",  # as `aws eks update-kubeconfig` shortens it
            "--session-name": "session",
            "--region": "region",
            "--profile": "profile",
            "--output": "",
        },
        switches={"--no-cli-pager": ""},
        variables=AWS,
        needed=("--cluster-name",),
    ),
    # https://github.com/kubernetes-sigs/aws-iam-authenticator
    "aws-iam-authenticator": Program(
        words=("token",),
        flags={
            "--cluster-id": "cluster",
            "-i": "cluster",
            "--role": "role",
            "-r": "role",
            "--external-id": "external",
            "-e": "external",
            "--session-name": "session",
            "-s": "session",
            "--region": "region",
        },
        switches={"--cache": ""},
        variables=AWS,
        needed=("--cluster-id",),
    ),
    # https://github.com/kubernetes/cloud-provider-gcp/tree/master/cmd/gke-gcloud-auth-plugin
    "gke-gcloud-auth-plugin": Program(
        words=(),
        flags={"--impersonate_service_account": "account"},
        switches={"--use_application_default_credentials": ""},
        variables=frozenset({"GOOGLE_APPLICATION_CREDENTIALS"}),
    ),
    # https://azure.github.io/kubelogin/cli/get-token.html
    "kubelogin": Program(
        words=("get-token",),
        flags={
            "--server-id": "server",
            "--client-id": "client",
            "--tenant-id": "tenant",
            "-t": "tenant",
            "--login": "login",
            "-l": "login",
            "--environment": "environment",
            "-e": "environment",
            "--authority-host": "authority",
            "--client-secret": "secret",
            "--client-certificate": "certificate",
            "--client-certificate-password": "password",
            "--federated-token-file": "file",
            "--identity-resource-id": "resource",
            "--token-cache-dir": "",
            "--cache-dir": "",
            "--timeout": "",
            "--redirect-url": "",
            "--login-hint": "",
        },
        switches={"--disable-instance-discovery": ""},
        variables=ENTRA,
        needed=("--server-id",),
    ),
}
"""By the name of their file."""


def asked(name: str, settings: Mapping[str, Any]) -> Asked:
    """What the `exec` of a kubeconfig asks the program of that name for. Raises CredentialsError
    with all that cannot be done here. Values may be secrets and are never quoted."""
    program = PROGRAMS[name]
    arguments = [str(word) for word in settings.get("args") or ()]
    set_here = {entry["name"]: str(entry["value"]) for entry in settings.get("env") or ()}
    values, unknown, words = _parsed(program, arguments)
    problems = [f"the argument `{word}` is not known" for word in unknown]
    if tuple(words[: len(program.words)]) != program.words:
        problems.append(f"it is not called as `{' '.join([name, *program.words])}`")
    problems += [
        f"`{flag}` is missing" for flag in program.needed if program.flags[flag] not in values
    ]
    problems += [
        f"the variable {variable} is not known"
        for variable in set_here
        if variable not in program.variables
    ]
    if problems:
        raise CredentialsError(
            f"The kubeconfig logs in with the program `{name}`, which is not installed here, and"
            f" cml-runner cannot do the same: {'; '.join(problems)}.",
            f"Known here: {' '.join([name, *program.words])} with"
            f" {', '.join([*program.flags, *program.switches])}; variables:"
            f" {', '.join(sorted(program.variables))}. Others can be variables of the CI job.",
        )
    return Asked(name, values, set_here)


def _parsed(
    program: Program, arguments: Sequence[str]
) -> tuple[dict[str, str], list[str], list[str]]:
    """What the arguments set, the flags that are not known, and the words that are no flags; one
    that follows an unknown flag may be a secret. Flags and their values may have an equals sign
    between them."""
    values: dict[str, str] = {}
    unknown: list[str] = []
    words: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        flag, equals, value = argument.partition("=")
        if flag in program.flags:
            values[program.flags[flag]] = value if equals else next(rest, "")
        elif flag in program.switches:
            values[program.switches[flag]] = value or "true"
        elif flag.startswith("-"):
            unknown.append(flag)
        else:
            words.append(argument)
    return values, unknown, words
