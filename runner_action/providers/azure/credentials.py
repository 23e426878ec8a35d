"""How a launch authenticates to Azure: with a client secret, the CI job's own id token, a managed
identity, or `az login`; the first that is available.

azure-identity knows all of them except GitHub's, where a job gets no token but an address that
issues tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from azure.core.credentials import TokenCredential
from azure.core.exceptions import AzureError
from azure.identity import ClientAssertionCredential, ClientSecretCredential, DefaultAzureCredential

from runner_action.errors import CredentialsError
from runner_action.providers.azure.options import AzureAccount

AUDIENCE = "api://AzureADTokenExchange"
"""https://learn.microsoft.com/entra/workload-id/workload-identity-federation-create-trust"""
TIMEOUTS: dict[str, Any] = {"connection_timeout": 10, "read_timeout": 30}
"""Seconds. By default the SDK waits five minutes for an answer, and then retries."""
SCOPE = "https://management.azure.com/.default"
HINT = (
    "On GitHub: `permissions: id-token: write`, inputs azure-client-id, azure-tenant-id and"
    " azure-subscription-id, and a federated credential of that app for this repository"
    " (examples/oidc-azure.yml); on GitLab gitlab-component/examples/azure.yml; anywhere"
    " AZURE_CLIENT_ID, AZURE_CLIENT_SECRET and AZURE_TENANT_ID."
)


def credential(
    account: AzureAccount,
    id_token: Callable[[str], str] | None,
    secret: str | None = None,
    authority: str | None = None,
) -> TokenCredential:
    """The credential to use; makes no call yet. `id_token`: returns the CI job's id token for an
    audience, where the CI has such; `secret`: of a service principal, which comes first.
    `authority`: the address of the token service; None: that of AZURE_AUTHORITY_HOST."""
    # Microsoft need not be asked whether that authority exists.
    options: dict[str, Any] = {
        "disable_instance_discovery": True,
        **TIMEOUTS,
        **({"authority": authority} if authority else {}),
    }
    if secret and account.client_id and account.tenant_id:
        return ClientSecretCredential(account.tenant_id, account.client_id, secret, **options)
    if id_token and account.client_id and account.tenant_id:
        return ClientAssertionCredential(
            account.tenant_id, account.client_id, partial(id_token, AUDIENCE), **options
        )
    ids = {
        "managed_identity_client_id": account.client_id,
        "workload_identity_client_id": account.client_id,
        "workload_identity_tenant_id": account.tenant_id,
    }
    people = {
        f"exclude_{name}_credential": True
        for name in (
            "developer_cli",
            "powershell",
            "shared_token_cache",
            "visual_studio_code",
            "broker",
        )
    }
    # In CI the variable of a missing secret is empty, which the SDK would take for a secret.
    return DefaultAzureCredential(
        **options, **ids, **people, exclude_environment_credential=secret == ""
    )


def prove(token_credential: TokenCredential, account: AzureAccount, scope: str = SCOPE) -> None:
    """Gets the first token, which the SDK then caches. Raises CredentialsError that names what is
    missing."""
    try:
        token_credential.get_token(scope)
    except AzureError as error:
        raise _translated(error, account) from None  # the SDK's message may quote the request


def _translated(error: AzureError, account: AzureAccount) -> CredentialsError:
    missing = [name for name, value in vars(account).items() if not value]
    if missing:
        return CredentialsError(
            "There are no Azure credentials; missing:"
            f" {', '.join(f'azure-{name}'.replace('_', '-') for name in missing)}.",
            HINT,
        )
    reason = reason_of(error)
    if reason is None:
        return CredentialsError(
            "There are no Azure credentials: no client secret, id token, managed identity or"
            " `az login`.",
            HINT,
        )
    return CredentialsError(
        f"Azure does not accept the credentials of {account.client_id}: {reason}", HINT
    )


def reason_of(error: AzureError) -> str | None:
    """Entra's own sentence, such as AADSTS700213: no matching federated identity record found for
    presented assertion subject …; None if no credentials were found at all."""
    return next(
        (
            line.strip()
            for line in error.message.splitlines()
            if "AADSTS" in line or "Authentication failed" in line
        ),
        None,
    )
