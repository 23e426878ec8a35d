"""Google's token service: the key of one account, what is bought with it, and which permissions
Compute Engine asks for."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from functools import cache
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from flask import Flask, request

COMPUTE = "https://compute.googleapis.com/"
SCOPE = "https://www.googleapis.com/auth/{}"
ENOUGH = {SCOPE.format("compute"), SCOPE.format("cloud-platform")}
EMAIL = "launcher@octo-train.iam.gserviceaccount.com"
SECONDS = 3600


@cache
def _private_key() -> rsa.RSAPrivateKey:
    """One for all worlds of a process: making it takes a while."""
    return rsa.generate_private_key(65537, 2048)


class Tokens:
    """`key` is the text of the launcher's key; a bearer has a token given out here, or one
    signed with that key."""

    def __init__(self, app: Flask) -> None:
        self._given: dict[str, frozenset[str]] = {}
        self.signed = 0
        """How many calls came with a token that its bearer had signed itself."""
        app.add_url_rule("/token", "token", self._exchange, methods=["POST"])

    def key(self, url: str, project: str) -> dict[str, str]:
        form = (
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        told = {
            "type": "service_account",
            "project_id": project,
            "private_key_id": "k1",
            "client_id": "1",
            "client_email": EMAIL,
        }
        return {
            **told,
            "private_key": _private_key().private_bytes(*form).decode(),
            "token_uri": f"{url}/token",
        }

    def issue(self, scopes: list[str]) -> dict[str, Any]:
        """A token as the metadata service gives it to a machine."""
        token = f"canary-ya29.{secrets.token_urlsafe(60)}"
        self._given[token] = frozenset(scopes)
        return {"access_token": token, "expires_in": SECONDS, "token_type": "Bearer"}

    def refusal(self) -> tuple[str, str, int] | None:
        """Reason, message and status for the request at hand; None if it may be asked.
        https://google.aip.dev/auth/4111"""
        _, _, token = request.headers.get("Authorization", "").partition("Bearer ")
        scopes = self._given.get(token)
        if scopes is None:
            claims = self._read(token)
            if (
                claims is None
                or jwt.get_unverified_header(token).get("kid") != "k1"
                or claims.get("aud", COMPUTE) != COMPUTE
            ):
                return "authError", "Request had invalid authentication credentials.", 401
            self.signed += 1
            scopes = frozenset(claims["scope"].split()) if "scope" in claims else frozenset(ENOUGH)
        return (
            None
            if scopes & ENOUGH
            else ("insufficientPermissions", "Request had insufficient authentication scopes.", 403)
        )

    def _exchange(self) -> Any:
        claims = self._read(request.form.get("assertion", ""))
        if claims is None:
            return {"error": "invalid_grant", "error_description": "Invalid JWT Signature."}, 400
        return self.issue(claims["scope"].split())

    def _read(self, token: str) -> dict[str, Any] | None:
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                _private_key().public_key(),
                algorithms=["RS256"],
                options={"verify_aud": False},
                leeway=60,
            )
        except jwt.InvalidTokenError:
            return None
        known = claims.get("iss") == EMAIL and claims.get("exp", 0) <= time.time() + SECONDS + 60
        return claims if known else None


def implied(permission: str, body: dict[str, Any], project: str) -> Iterator[str]:
    """What Compute Engine asks for besides.
    https://cloud.google.com/compute/docs/reference/rest/v1/instances/insert, …/firewalls/insert"""
    if permission in ("compute.firewalls.create", "compute.firewalls.delete"):
        yield "compute.networks.updatePolicy"
    if permission != "compute.instances.create":
        return
    disk = body["disks"][0]["initializeParams"]
    interfaces = body["networkInterfaces"]
    yield from ("compute.disks.create", "compute.subnetworks.use")
    for wanted, reason in (
        ("compute.instances.setLabels", body.get("labels")),
        ("compute.instances.setMetadata", body.get("metadata")),
        ("compute.instances.setTags", body.get("tags")),
        ("compute.disks.setLabels", disk.get("labels")),
        ("compute.subnetworks.useExternalIp", any(one.get("accessConfigs") for one in interfaces)),
        ("compute.instances.setServiceAccount", body.get("serviceAccounts")),
        ("iam.serviceAccounts.actAs", body.get("serviceAccounts")),
        ("compute.images.useReadOnly", disk["sourceImage"].startswith(f"projects/{project}/")),
    ):
        if reason:
            yield wanted
