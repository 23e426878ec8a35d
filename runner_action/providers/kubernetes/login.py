"""How the user of a kubeconfig logs in: with what is written there, with a program that is
installed, or, for the programs of the big clouds where they are not, with the cloud's SDK."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePath
from typing import Any

from kubernetes.config.config_exception import ConfigException
from kubernetes.config.dateutil import parse_rfc3339
from kubernetes.config.exec_provider import ExecProvider
from kubernetes.config.kube_config import ConfigNode

from runner_action import guarding
from runner_action.errors import CredentialsError
from runner_action.loading import ALONE
from runner_action.plain import plain
from runner_action.providers.aws import facts as aws_facts
from runner_action.providers.azure import facts as azure_facts
from runner_action.providers.gcp import facts as gcp_facts
from runner_action.providers.kubernetes.kubeconfig import Chosen
from runner_action.providers.kubernetes.programs import PROGRAMS, Asked, asked
from runner_action.providers.kubernetes.tokens import Around, Token
from runner_action.providers.traits import Traits

TRAITS: Mapping[str, Traits] = {
    "aws": aws_facts.TRAITS,
    "aws-iam-authenticator": aws_facts.TRAITS,
    "gke-gcloud-auth-plugin": gcp_facts.TRAITS,
    "kubelogin": azure_facts.TRAITS,
}
"""Of the cloud whose SDK does what a program does."""
SAID = 300
"""Characters of what a program said that are quoted."""


@dataclass(frozen=True)
class LoggedIn:
    """`user`: as in a kubeconfig, with a token or a certificate in it. `ends`: when that is no
    longer to be used, if it is known. `way`: the program that it is of."""

    user: Mapping[str, Any]
    ends: datetime | None = None
    way: str = ""


def logged_in(chosen: Chosen, around: Around) -> LoggedIn:
    """Raises CredentialsError."""
    user = chosen.user
    provider = user.get("auth-provider") or {}
    if legacy := _legacy(provider.get("name", ""), provider.get("config") or {}):
        return _made(legacy, around)
    settings = user.get("exec") or {}
    command = str(settings.get("command") or "")
    if not command or user.get("token") or user.get("tokenFile"):
        return LoggedIn(user)
    if shutil.which(command, path=around.environ.get("PATH")):
        return _run(command, chosen)
    name = PurePath(command.replace("\\", "/")).name.removesuffix(".exe")
    if name in PROGRAMS:
        return _made(asked(name, settings), around)
    raise CredentialsError(
        f"The kubeconfig logs in with the program `{command}`, which is not installed here.",
        f"Without their programs cml-runner can do what {', '.join(PROGRAMS)} do. Otherwise use a"
        " kubeconfig with a token or a certificate in it: `kubectl create token …` of a service"
        " account (docs/kubernetes.md).",
    )


def _legacy(name: str, config: Mapping[str, str]) -> Asked | None:
    """What `auth-provider` asks for, which kubectl itself has no longer known since 1.26.
    Raises CredentialsError for one that no cluster accepts today.
    https://kubernetes.io/blog/2022/05/03/kubernetes-1-24-release-announcement/"""
    if name == "gcp":
        return Asked("gke-gcloud-auth-plugin", {})
    if name != "azure":
        return None
    fields = {"server": "apiserver-id", "tenant": "tenant-id", "environment": "environment"}
    values = {ours: config[theirs] for ours, theirs in fields.items() if config.get(theirs)}
    if "server" not in values or config.get("config-mode", "0") == "0":
        raise CredentialsError(
            "The kubeconfig logs in with `auth-provider: azure` of the retired Entra integration"
            " of AKS.",
            "Get a new one with `az aks get-credentials`.",
        )
    return Asked("kubelogin", values)


def _made(wanted: Asked, around: Around) -> LoggedIn:
    """By the SDK of the cloud, which is loaded now."""
    traits = TRAITS[wanted.program]
    variables = {**around.environ, **wanted.variables}
    with guarding.configured(traits.title, traits.variables, variables, CredentialsError):
        token = _token(wanted, around)
    return LoggedIn({"token": token.value.reveal()}, token.ends, wanted.program)


def _token(wanted: Asked, around: Around) -> Token:
    if wanted.program == "gke-gcloud-auth-plugin":
        with ALONE:
            from runner_action.providers.kubernetes import gke

        return gke.token(wanted, around)
    if wanted.program == "kubelogin":
        with ALONE:
            from runner_action.providers.kubernetes import aks

        return aks.token(wanted, around)
    with ALONE:
        from runner_action.providers.kubernetes import eks

    return eks.token(wanted, around)


def _run(command: str, chosen: Chosen) -> LoggedIn:
    """Asks the program.
    https://kubernetes.io/docs/reference/access-authn-authz/authentication/#client-go-credential-plugins
    """
    cluster = ConfigNode("cluster", dict(chosen.cluster))
    try:
        status = ExecProvider(ConfigNode("exec", chosen.user["exec"]), None, cluster).run()
    except (ConfigException, OSError) as error:
        raise CredentialsError(
            f"The kubeconfig logs in with the program `{command}`, which failed:"
            f" {plain(str(error))[:SAID]}",
            f"Run `{command}` as the kubeconfig does, in the place and with the variables of this"
            " launch.",
        ) from None
    ends = status.get("expirationTimestamp")
    return LoggedIn(_user_of(command, status), parse_rfc3339(ends) if ends else None, command)


def _user_of(command: str, status: Mapping[str, Any]) -> dict[str, str]:
    if status.get("token"):
        return {"token": status["token"]}
    names = {"client-certificate-data": "clientCertificateData", "client-key-data": "clientKeyData"}
    if not all(status.get(name) for name in names.values()):
        raise CredentialsError(
            f"The kubeconfig logs in with the program `{command}`, which gave neither a token nor a"
            " certificate with its key.",
        )
    return {ours: base64.b64encode(status[name].encode()).decode() for ours, name in names.items()}
