"""Microsoft Entra's token service: one service principal, and whose each token is."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

from flask import Flask, request

SUBSCRIPTION = "11111111-2222-3333-4444-555555555555"
SCOPE = f"/subscriptions/{SUBSCRIPTION}"
AUDIENCE = "api://AzureADTokenExchange"
TENANT = "99999999-aaaa-bbbb-cccc-000000000001"
CLIENT = "99999999-aaaa-bbbb-cccc-000000000002"
SECRET = "canary-client-secret"
LAUNCHER, HOST = CLIENT, "99999999-aaaa-bbbb-cccc-000000000003"
"""Principals besides user-assigned identities, which go by their id: the launcher's service
principal, and the identity of the machine it runs on."""


class Entra:
    """`logins` counts tokens given for the secret. `trusted`: a forge's id tokens, and the
    audience of each, by a federated credential."""

    def __init__(self, app: Flask) -> None:
        self.given: dict[str, str] = {}
        """Token -> principal."""
        self.scopes: dict[str, str] = {}
        """Token -> what it was asked for."""
        self.logins = 0
        self.down = False
        """No token is given for a secret or an id token."""
        self.trusted: Mapping[str, str] = {}
        app.add_url_rule(
            "/<tenant>/v2.0/.well-known/openid-configuration", "configuration", self._configuration
        )
        app.add_url_rule("/<tenant>/oauth2/v2.0/token", "token", self._token, methods=["POST"])
        app.add_url_rule("/identity", "identity", self._identity)

    def issue(self, principal: str, scope: str = "") -> str:
        token = f"canary-eyJ0{secrets.token_urlsafe(60)}"
        self.given[token] = principal
        self.scopes[token] = scope
        return token

    def who(self, header: str) -> str | None:
        """The principal that asks; None: the token is nobody's."""
        return self.given.get(header.removeprefix("Bearer "))

    def _identity(self) -> Any:
        """A managed identity, as App Service gives it to what runs there.
        https://learn.microsoft.com/azure/app-service/overview-managed-identity"""
        if (
            not request.headers.get("X-IDENTITY-HEADER")
            or request.args.get("api-version") != "2019-08-01"
        ):
            return {"statusCode": 400}, 400
        return {
            "access_token": self.issue(HOST, request.args["resource"]),
            "expires_on": "4000000000",
            "resource": request.args["resource"],
            "token_type": "Bearer",
        }

    def _configuration(self, tenant: str) -> Any:
        base = f"{request.url_root.rstrip('/')}/{tenant}"
        return {
            "issuer": f"{base}/v2.0",
            "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
            "token_endpoint": f"{base}/oauth2/v2.0/token",
        }

    def _token(self, tenant: str) -> Any:
        form = request.form
        if self.down:
            return {
                "error": "temporarily_unavailable",
                "error_description": "AADSTS90033: A transient error has occurred.",
            }, 503
        if (tenant, form.get("client_id")) == (TENANT, CLIENT) and self.trusted.get(
            form.get("client_assertion", "")
        ) == AUDIENCE:
            return {
                "access_token": self.issue(LAUNCHER, form["scope"]),
                "expires_in": 3600,
                "token_type": "Bearer",
            }
        if (tenant, form.get("client_id"), form.get("client_secret")) != (TENANT, CLIENT, SECRET):
            return {
                "error": "invalid_client",
                "error_description": "AADSTS7000215: Invalid client secret provided.",
            }, 401
        self.logins += 1
        return {
            "access_token": self.issue(LAUNCHER, form["scope"]),
            "expires_in": 3600,
            "token_type": "Bearer",
        }
