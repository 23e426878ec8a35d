"""Why a cluster does not accept a token, as far as it can be told from here. Pure.

The API server says only `Unauthorized`, whatever the reason is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from runner_action.plain import text_from_base64
from runner_action.providers.kubernetes.errors import KEYS_HINT

PAGE = "docs/kubernetes.md"
OF_PROGRAMS: Mapping[str, str] = {
    "aws": (
        "The cluster gets to know an identity by an access entry: `aws eks create-access-entry"
        " --cluster-name … --principal-arn …`. Compare the cluster's name and region in the"
        f" kubeconfig, too; {PAGE}#without-a-secret shows all of it."
    ),
    "gke-gcloud-auth-plugin": (
        f"Check that the kubeconfig's `server` is this cluster's; {PAGE}#without-a-secret shows how"
        " an account gets its role."
    ),
    "kubelogin": (
        "Check that the cluster has Entra integration (`az aks show --query aadProfile`), that it"
        f" trusts this tenant, and the kubeconfig's `--server-id`; {PAGE}#without-a-secret shows"
        " how an account gets its role."
    ),
}
"""What to do, by login program."""
OF_AGENT = (
    "The project of this job must be in `ci_access` of the agent's configuration, and the token is"
    f" valid for as long as the job runs; {PAGE}#gitlabs-agent-for-kubernetes."
)


def reason(token: str, way: str, now: datetime) -> tuple[str, str]:
    """What is wrong with a refused token, empty if that cannot be told, and what to do. `way`: the
    program that it is of, if it is of one."""
    claims = _claims(token)
    ends = claims.get("exp")
    if isinstance(ends, int | float) and ends <= now.timestamp():
        when = datetime.fromtimestamp(ends, UTC)
        return f"the token{_whose(claims)} expired on {when:%Y-%m-%d at %H:%M} UTC", _new(claims)
    if token.startswith("ci:"):
        return "GitLab's agent does not accept the token of this job", OF_AGENT
    known = OF_PROGRAMS.get("aws" if way.startswith("aws") else way)
    return "", known or KEYS_HINT


def _account(claims: Mapping[str, Any]) -> tuple[str, str] | None:
    """Namespace and name of the service account that a token is of.
    https://kubernetes.io/docs/reference/access-authn-authz/authentication/#service-account-tokens
    """
    kind, _, rest = str(claims.get("sub", "")).partition("system:serviceaccount:")
    namespace, _, name = rest.partition(":")
    return (namespace, name) if not kind and name else None


def _whose(claims: Mapping[str, Any]) -> str:
    account = _account(claims)
    return f" of the service account {account[1]} in {account[0]}" if account else ""


def _new(claims: Mapping[str, Any]) -> str:
    """How to get another one."""
    account = _account(claims)
    if not account:
        return KEYS_HINT
    namespace, name = account
    return (
        f"`kubectl create token {name} --namespace {namespace} --duration 24h` makes a new one; for"
        f" one that does not expire see {PAGE}#a-token-that-lasts."
    )


def _claims(token: str) -> Mapping[str, Any]:
    """What a JSON Web Token says of itself; nothing if it is none.
    https://www.rfc-editor.org/rfc/rfc7519"""
    parts = token.split(".")
    if len(parts) != 3:
        return {}
    padded = parts[1] + "=" * (-len(parts[1]) % 4)
    text = text_from_base64(padded.replace("-", "+").replace("_", "/"))
    try:
        claims = json.loads(text or "")
    except ValueError:
        return {}
    return claims if isinstance(claims, Mapping) else {}
