"""Who a launch is to Azure: a client secret, the CI job's own id token, a managed identity, or
`az login`; the first that is there.

azure-identity knows all of them but GitHub's: a job there is given an address at which it may
ask for id tokens, no token.
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
"""Seconds. Left to itself the SDK waits five minutes for an answer, and then asks again."""
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
    """`id_token`: gives the CI job's id token for an audience, where the CI has such; `secret`:
    of a service principal, which comes first. `authority`: of the token service; None: as
    AZURE_AUTHORITY_HOST says. Asks nobody yet."""
    # No need to ask Microsoft whether that authority exists.
    where: dict[str, Any] = {
        "disable_instance_discovery": True,
        **TIMEOUTS,
        **({"authority": authority} if authority else {}),
    }
    if secret and account.client_id and account.tenant_id:
        return ClientSecretCredential(account.tenant_id, account.client_id, secret, **where)
    if id_token and account.client_id and account.tenant_id:
        return ClientAssertionCredential(
            account.tenant_id, account.client_id, partial(id_token, AUDIENCE), **where
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
    # A CI's variable for a secret that does not exist is empty, which the SDK takes for a secret.
    return DefaultAzureCredential(
        **where, **ids, **people, exclude_environment_credential=secret == ""
    )


def prove(found: TokenCredential, account: AzureAccount, scope: str = SCOPE) -> None:
    """Gets the first token, which the SDK then keeps. Raises CredentialsError that names what is
    missing."""
    try:
        found.get_token(scope)
    except AzureError as error:
        raise _translated(error, account) from None  # its own text may quote what was sent


def _translated(error: AzureError, account: AzureAccount) -> CredentialsError:
    missing = [name for name, value in vars(account).items() if not value]
    if missing:
        return CredentialsError(
            "No Azure credentials were found; not given:"
            f" {', '.join(f'azure-{name}'.replace('_', '-') for name in missing)}.",
            HINT,
        )
    # Entra's own sentence, such as AADSTS700213: no matching federated identity record found for
    # presented assertion subject …
    said = next(
        (
            line.strip()
            for line in error.message.splitlines()
            if "AADSTS" in line or "Authentication failed" in line
        ),
        None,
    )
    if said is None:
        return CredentialsError(
            "No Azure credentials were found: neither a client secret, nor an id token, a managed"
            " identity or `az login`.",
            HINT,
        )
    return CredentialsError(
        f"Azure does not accept the credentials of {account.client_id}: {said}", HINT
    )
