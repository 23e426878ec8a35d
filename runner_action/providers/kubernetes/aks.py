"""A token for AKS: an access token of Microsoft Entra for the application that all AKS clusters
with Entra integration share, as `kubelogin get-token` makes it.

https://learn.microsoft.com/azure/aks/kubelogin-authentication
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from azure.core.credentials import TokenCredential
from azure.core.exceptions import AzureError
from azure.identity import (
    AzureAuthorityHosts,
    CertificateCredential,
    ManagedIdentityCredential,
    WorkloadIdentityCredential,
)

from runner_action.errors import CredentialsError
from runner_action.model import Secret
from runner_action.providers.azure.credentials import TIMEOUTS, credential, reason_of
from runner_action.providers.azure.options import AzureAccount
from runner_action.providers.kubernetes.programs import Asked
from runner_action.providers.kubernetes.tokens import Around, Token

ENVIRONMENTS = {
    "azurepubliccloud": AzureAuthorityHosts.AZURE_PUBLIC_CLOUD,
    "azurechinacloud": AzureAuthorityHosts.AZURE_CHINA,
    "azureusgovernmentcloud": AzureAuthorityHosts.AZURE_GOVERNMENT,
    "azureusgovernment": AzureAuthorityHosts.AZURE_GOVERNMENT,
}
"""Names of `--environment`, in any case.
https://github.com/Azure/go-autorest: autorest/azure/environments.go"""
OWN = ("spn", "msi", "workloadidentity")
"""The values of `--login` with which `--client-id` is who signs in."""
OTHERS = ("devicecode", "interactive", "ropc", "azurecli", "azd", "azurepipelines")
"""Those of people and of other programs, with which `--client-id` is an application of kubelogin's
own. The job signs in as it does to Azure."""
HINT = (
    "AZURE_CLIENT_ID and AZURE_TENANT_ID in the job's environment, and on GitHub `permissions:"
    " id-token: write`, on GitLab AZURE_FEDERATED_TOKEN_FILE, anywhere AZURE_CLIENT_SECRET;"
    " docs/kubernetes.md#without-a-secret shows it."
)


def token(asked: Asked, around: Around) -> Token:
    """Raises CredentialsError if there are no credentials of Azure, or none that it accepts."""
    told = {**around.environ, **asked.variables}
    method = told.get("AAD_LOGIN_METHOD") or asked.values.get("login") or "devicecode"
    if method not in (*OWN, *OTHERS):
        raise CredentialsError(
            f"The kubeconfig's `--login {method}` is not known.",
            f"Write one of {', '.join((*OWN, *OTHERS))}.",
        )
    account = _account(asked, told, method)
    found = _credential(asked, told, method, account, around)
    try:
        made = found.get_token(f"{asked.values['server']}/.default")
    except AzureError as error:
        raise _refused(error, account) from None  # the SDK's message may quote the request
    return Token(Secret(made.token), datetime.fromtimestamp(made.expires_on, UTC))


def _account(asked: Asked, told: Mapping[str, str], method: str) -> AzureAccount:
    """Variables come before arguments, as in kubelogin."""
    client = told.get("AZURE_CLIENT_ID") or told.get("AAD_SERVICE_PRINCIPAL_CLIENT_ID")
    if method in OWN:
        client = client or asked.values.get("client")
    tenant = told.get("AZURE_TENANT_ID") or asked.values.get("tenant")
    return AzureAccount(client_id=client, tenant_id=tenant)


def _credential(
    asked: Asked, told: Mapping[str, str], method: str, account: AzureAccount, around: Around
) -> TokenCredential:
    """The credential to use; makes no call yet."""
    values = asked.values
    environment = values.get("environment", "").lower()
    authority = (
        told.get("AZURE_AUTHORITY_HOST") or values.get("authority") or ENVIRONMENTS.get(environment)
    )
    if method == "msi":
        resource = values.get("resource")
        return ManagedIdentityCredential(
            client_id=account.client_id,
            identity_config={"resource_id": resource} if resource else None,
            **TIMEOUTS,
        )
    options: dict[str, Any] = {
        "disable_instance_discovery": True,
        **TIMEOUTS,
        **({"authority": authority} if authority else {}),
    }
    client, tenant = account.client_id, account.tenant_id
    certificate = _given(told, "CLIENT_CERTIFICATE_PATH", "CLIENT_CERTIFICATE")
    certificate = certificate or values.get("certificate")
    if method == "spn" and certificate and client and tenant:
        password = _given(told, *2 * ["CLIENT_CERTIFICATE_PASSWORD"]) or values.get("password")
        return CertificateCredential(tenant, client, certificate, password=password, **options)
    file = told.get("AZURE_FEDERATED_TOKEN_FILE") or values.get("file")
    if method == "workloadidentity" and file and client and tenant:
        return WorkloadIdentityCredential(
            tenant_id=tenant, client_id=client, token_file_path=file, **options
        )
    secret = _given(told, *2 * ["CLIENT_SECRET"]) or values.get("secret")
    return credential(account, around.id_token, secret, authority)


def _given(told: Mapping[str, str], ours: str, theirs: str) -> str | None:
    """A variable of the SDK, or kubelogin's own."""
    return told.get(f"AZURE_{ours}") or told.get(f"AAD_SERVICE_PRINCIPAL_{theirs}")


def _refused(error: AzureError, account: AzureAccount) -> CredentialsError:
    reason = reason_of(error)
    if reason is None:
        return CredentialsError(
            "There are no Azure credentials to sign in to the AKS cluster with.", f"Give {HINT}"
        )
    return CredentialsError(
        f"Azure does not accept the credentials of {account.client_id}: {reason}", f"Check {HINT}"
    )
