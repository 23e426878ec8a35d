"""Azure Resource Manager: the account, and the calls, all through one client of azure-mgmt-compute
with its policies (tokens, throttling, retries).

That client is used for groups and networks, too: azure-mgmt-network takes seconds to load, for five
calls.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from azure.core.credentials import TokenCredential
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError
from azure.core.rest import HttpRequest
from azure.mgmt.compute import ComputeManagementClient
from azure.mgmt.core.exceptions import ARMErrorFormat

from runner_action.errors import CredentialsError, ProviderError
from runner_action.model import Secret
from runner_action.providers.azure.credentials import TIMEOUTS, credential, prove
from runner_action.providers.azure.options import AzureAccount
from runner_action.providers.base import address_in
from runner_action.waiting import Clock, wait_for

log = logging.getLogger(__name__)
ENDPOINT, AUTHORITY = "https://management.azure.com", "https://login.microsoftonline.com"
GROUPS = "2021-04-01"
COMPUTE = "2026-04-01"
SKUS = "2021-07-01"
NETWORK = "2024-05-01"
"""API versions."""
SETTLE_SECONDS = 120.0
Json = dict[str, Any]


@dataclass(frozen=True)
class Account:
    """Credentials and subscription. `secret`: as JSON, what a service principal logs in with, if
    the launcher has it."""

    credential: TokenCredential
    subscription: str
    secret: Secret | None = None


def account_of(
    account: AzureAccount,
    environ: Mapping[str, str],
    id_token: Callable[[str], str] | None,
    scope: str,
) -> Account:
    """The account, with credentials that work. Raises CredentialsError that names what is
    missing."""
    secret, given = environ.get("AZURE_CLIENT_SECRET"), environ.get("AZURE_AUTHORITY_HOST")
    token_credential = credential(account, id_token, secret, given)
    prove(token_credential, account, scope)
    if not account.subscription_id:
        raise CredentialsError(
            "The Azure subscription is not known.",
            "Give its id as `azure-subscription-id`, or in AZURE_SUBSCRIPTION_ID.",
        )
    authority = (given or AUTHORITY).rstrip("/")
    authority = authority if "://" in authority else f"https://{authority}"
    login = {
        "tenant": account.tenant_id,
        "client": account.client_id,
        "secret": secret,
        "authority": authority,
    }
    return Account(
        token_credential,
        account.subscription_id,
        Secret(json.dumps(login)) if all(login.values()) else None,
    )


class Arm:
    """Resource Manager of one subscription. `who` returns the account, when it is first needed;
    `endpoint`: the address."""

    def __init__(self, who: Callable[[], Account], clock: Clock, endpoint: str = ENDPOINT) -> None:
        self._who = who
        self._clock = clock
        self.endpoint = endpoint.rstrip("/")
        self._account: Account | None = None
        self._client: ComputeManagementClient | None = None
        self._lock = threading.RLock()

    @classmethod
    def from_environment(
        cls,
        account: AzureAccount,
        environ: Mapping[str, str],
        id_token: Callable[[str], str] | None,
        clock: Clock,
    ) -> Arm:
        """With the ids of the request, AZURE_CLIENT_SECRET, and, in sovereign clouds, the addresses
        in AZURE_AUTHORITY_HOST and AZURE_RESOURCE_MANAGER_ENDPOINT."""
        endpoint = address_in(environ, "AZURE_RESOURCE_MANAGER_ENDPOINT", ENDPOINT)
        return cls(
            lambda: account_of(account, environ, id_token, f"{endpoint}/.default"),
            clock,
            endpoint,
        )

    @property
    def account(self) -> Account:
        with self._lock:
            self._account = self._account or self._who()
            return self._account

    @property
    def compute(self) -> ComputeManagementClient:
        with self._lock:
            if self._client is None:
                scopes = [f"{self.endpoint}/.default"]
                # A redirect would take request bodies, and so user data, to another host.
                options: dict[str, Any] = {
                    "base_url": self.endpoint,
                    "credential_scopes": scopes,
                    "permit_redirects": False,
                }
                self._client = ComputeManagementClient(
                    self.account.credential, self.account.subscription, **options, **TIMEOUTS
                )
            return self._client

    def group(self, name: str) -> str:
        return f"/subscriptions/{self.account.subscription}/resourceGroups/{name}"

    def get(self, path: str, version: str, **parameters: str) -> Json:
        return self._send("GET", path, version, None, parameters)

    def listed(self, path: str, version: str, **parameters: str) -> Iterator[Json]:
        """Yields the entries of all pages of a list below the subscription."""
        page = self.get(f"/subscriptions/{self.account.subscription}{path}", version, **parameters)
        yield from page["value"]
        while page.get("nextLink"):
            page = self._read(self.compute.send_request(HttpRequest("GET", page["nextLink"])))
            yield from page["value"]

    def put(self, path: str, version: str, body: Json) -> Json:
        """Creates or updates a resource, and returns it once it is provisioned, so that others can
        refer to it. Raises ProviderError if that fails, TimedOut if it takes too long."""
        created = self._send("PUT", path, version, body, {})

        name = path.rpartition("/")[2]

        def probe() -> Json | None:
            resource = created if _state(created) == "Succeeded" else self.get(path, version)
            if _state(resource) in ("Failed", "Canceled"):
                raise ProviderError(
                    f"Azure did not create {name}: its state is {_state(resource)}.",
                    "Try again, or use another `cloud-region`.",
                )
            return resource if _state(resource) == "Succeeded" else None

        return probe() or wait_for(
            probe,
            f"Azure, while creating {name}",
            clock=self._clock,
            timeout=SETTLE_SECONDS,
            first=0.5,
            most=3,
        )

    def delete_group(self, name: str) -> bool:
        """Deletes a group, without shutting its machines down first. An accepted deletion cannot
        be undone. False: there was no such group."""
        try:
            self._send(
                "DELETE",
                self.group(name),
                GROUPS,
                None,
                {"forceDeletionTypes": "Microsoft.Compute/virtualMachines"},
            )
        except ResourceNotFoundError:
            return False
        return True

    def _send(
        self, method: str, path: str, version: str, body: Json | None, parameters: Mapping[str, str]
    ) -> Json:
        query = {"api-version": version, **parameters}
        request = (
            HttpRequest(method, path, params=query)
            if body is None
            else HttpRequest(method, path, params=query, json=body)
        )
        return self._read(self.compute.send_request(request))

    @staticmethod
    def _read(response: Any) -> Json:
        if response.status_code == 404:
            raise ResourceNotFoundError(response=response, error_format=ARMErrorFormat)
        if response.status_code >= 300:
            raise HttpResponseError(response=response, error_format=ARMErrorFormat)
        payload: Json = response.json() if response.content else {}
        return payload


def _state(resource: Json) -> str:
    return str(resource["properties"].get("provisioningState", "Succeeded"))
