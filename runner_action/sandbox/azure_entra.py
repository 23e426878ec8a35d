"""Microsoft Entra's token service: one service principal, who may ask Resource Manager, and which actions it asks for."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from typing import Any

from flask import Flask, request

SUBSCRIPTION = "11111111-2222-3333-4444-555555555555"
AUDIENCE = "api://AzureADTokenExchange"
TENANT, CLIENT, SECRET = "99999999-aaaa-bbbb-cccc-000000000001", "99999999-aaaa-bbbb-cccc-000000000002", "canary-client-secret"


class Entra:
    """`logins` counts tokens given for the secret. `trusted`: a forge's id tokens, and the audience of each, by a federated credential."""

    def __init__(self, app: Flask) -> None:
        self._given: set[str] = set()
        self.logins = 0
        self.trusted: Mapping[str, str] = {}
        app.add_url_rule("/<tenant>/v2.0/.well-known/openid-configuration", "configuration", self._configuration)
        app.add_url_rule("/<tenant>/oauth2/v2.0/token", "token", self._token, methods=["POST"])
        app.add_url_rule("/identity", "identity", self._identity)

    def issue(self) -> str:
        token = f"canary-eyJ0{secrets.token_urlsafe(60)}"
        self._given.add(token)
        return token

    def knows(self, header: str) -> bool:
        return header.removeprefix("Bearer ") in self._given

    def _identity(self) -> Any:
        """A managed identity, as App Service gives it to what runs there. https://learn.microsoft.com/azure/app-service/overview-managed-identity"""
        if not request.headers.get("X-IDENTITY-HEADER") or request.args.get("api-version") != "2019-08-01":
            return {"statusCode": 400}, 400
        return {"access_token": self.issue(), "expires_on": "4000000000", "resource": request.args["resource"], "token_type": "Bearer"}

    def _configuration(self, tenant: str) -> Any:
        base = f"{request.url_root.rstrip('/')}/{tenant}"
        return {"issuer": f"{base}/v2.0", "authorization_endpoint": f"{base}/oauth2/v2.0/authorize", "token_endpoint": f"{base}/oauth2/v2.0/token"}

    def _token(self, tenant: str) -> Any:
        form = request.form
        if (tenant, form.get("client_id")) == (TENANT, CLIENT) and self.trusted.get(form.get("client_assertion", "")) == AUDIENCE:
            return {"access_token": self.issue(), "expires_in": 3600, "token_type": "Bearer"}
        if (tenant, form.get("client_id"), form.get("client_secret")) != (TENANT, CLIENT, SECRET):
            return {"error": "invalid_client", "error_description": "AADSTS7000215: Invalid client secret provided."}, 401
        self.logins += 1
        return {"access_token": self.issue(), "expires_in": 3600, "token_type": "Bearer"}


def implied(action: str, body: dict[str, Any]) -> list[str]:
    """What Azure asks for besides when a machine is made: network card, address and disk that come with it, and what they are joined to."""
    if action != "Microsoft.Compute/virtualMachines/write" or not body:
        return []
    found = ["Microsoft.Compute/disks/write", "Microsoft.Network/networkInterfaces/write", "Microsoft.Network/networkInterfaces/join/action"]
    found += ["Microsoft.Network/networkSecurityGroups/join/action", "Microsoft.Network/virtualNetworks/subnets/join/action"]
    if "publicIPAddressConfiguration" in json.dumps(body):
        found += ["Microsoft.Network/publicIPAddresses/write", "Microsoft.Network/publicIPAddresses/join/action"]
    if body.get("identity"):
        found += ["Microsoft.ManagedIdentity/userAssignedIdentities/assign/action"]
    if "diskEncryptionSet" in body["properties"]["storageProfile"]["osDisk"]["managedDisk"]:
        found += ["Microsoft.Compute/diskEncryptionSets/read"]
    if "id" in body["properties"]["storageProfile"]["imageReference"]:
        found += ["Microsoft.Compute/images/read"]
    return found
