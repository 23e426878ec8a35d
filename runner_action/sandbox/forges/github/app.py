"""A GitHub App of the embedded GitHub: its key, its single installation, and the installation's
tokens, which expire."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from flask import request

from runner_action.sandbox.forges.github import runs

ROOTS = ("/repos/<owner>/<name>", "/orgs/<owner>")
STAMP = "2026-11-01T00:00:00Z"
DOCUMENT_SECONDS = 600
"""The longest that an App's JSON web token may be valid.
https://docs.github.com/en/apps/creating-github-apps/authenticating-with-a-github-app/generating-a-json-web-token-jwt-for-a-github-app"""
TOKEN_BYTES = 400
"""Bytes of an installation's token, in Base64: since 2026 it contains a signed document, and has
more than 40 characters.
https://docs.github.com/en/apps/creating-github-apps/authenticating-with-a-github-app/generating-an-installation-access-token-for-a-github-app"""
SUSPENDED = ({"message": "This installation has been suspended", "status": "403"}, 403)
NUMBER = 1
"""The id of its installation."""


class FakeApp:
    """`places`: where it is installed, such as `orgs/octo`; `permissions`: what was granted
    there; `lasts`: seconds for which its tokens are valid."""

    def __init__(self, places: Collection[str]) -> None:
        self.places = places
        self.id = 4711
        self.lasts = 3600.0
        self.permissions = {
            "administration": "write",
            "organization_self_hosted_runners": "write",
            "actions": "write",
        }
        self.installed = True
        self.suspended = False
        self.tokens: dict[str, float] = {}

    @cached_property
    def _key(self) -> Any:
        from cryptography.hazmat.primitives.asymmetric import rsa

        return rsa.generate_private_key(public_exponent=65537, key_size=2048)

    @cached_property
    def key(self) -> str:
        """The private key as PEM, which GitHub shows only once."""
        from cryptography.hazmat.primitives.serialization import (
            Encoding,
            NoEncryption,
            PrivateFormat,
        )

        return str(
            self._key.private_bytes(
                Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()
            ).decode()
        )

    def knows(self, token: str) -> bool:
        return self.tokens.get(token, 0.0) > time.time()

    def lacking(self) -> str:
        """The permission that the current request needs and the installation lacks; empty if it
        has it."""
        path = request.path
        permission = "organization_self_hosted_runners" if "/orgs/" in path else "administration"
        if "/check-runs/" in path:
            permission = "checks"
        if "/actions/runs/" in path or "/actions/jobs/" in path:
            permission = "actions"
        enough = ("read", "write") if request.method == "GET" else ("write",)
        if self.permissions.get(permission) in enough:
            return ""
        return f"{permission}={enough[0]}"

    def routes(self) -> list[tuple[str, str, Callable[..., Any]]]:
        return [
            *(("GET", f"{root}/installation", self._installation) for root in ROOTS),
            ("POST", "/app/installations/<int:number>/access_tokens", self._token),
        ]

    def _refusal(self) -> Any:
        """The refusal for a request that lacks a valid JSON web token signed by the App; None if it
        has one."""
        import jwt

        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        try:
            claims = jwt.decode(
                token,
                self._key.public_key(),
                algorithms=["RS256"],
                issuer=str(self.id),
                options={"require": ["exp", "iat"]},
            )
        except jwt.InvalidTokenError:
            return {"message": "A JSON web token could not be decoded"}, 401
        if claims["exp"] - time.time() > DOCUMENT_SECONDS:
            return {"message": "'Expiration time' claim ('exp') is too far in the future"}, 401
        return None if self.installed else ({"message": "Not Found"}, 404)

    def _installation(self, **_: Any) -> Any:
        if refused := self._refusal():
            return refused
        if request.path.removeprefix("/api/v3/").removesuffix("/installation") not in self.places:
            return {"message": "Not Found"}, 404
        page = "https://github.test/organizations/octo/settings/installations/1"
        return {
            "id": NUMBER,
            "account": runs.account(),
            "app_id": self.id,
            "app_slug": "cml-runner",
            "target_id": 1,
            "target_type": "Organization",
            "repository_selection": "all",
            "permissions": self.permissions,
            "events": [],
            "single_file_name": None,
            "html_url": page,
            "access_tokens_url": f"{page}/access_tokens",
            "repositories_url": f"{page}/repositories",
            "created_at": STAMP,
            "updated_at": STAMP,
            "suspended_by": None,
            "suspended_at": STAMP if self.suspended else None,
        }

    def _token(self, number: int) -> Any:
        if refused := self._refusal():
            return refused
        if number != NUMBER:
            return {"message": "Not Found"}, 404
        if self.suspended:
            return SUSPENDED
        token = f"ghs_{self.id}_canary{secrets.token_urlsafe(TOKEN_BYTES)}"
        end = time.time() + self.lasts
        self.tokens[token] = end
        return {
            "token": token,
            "expires_at": datetime.fromtimestamp(end, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "permissions": self.permissions,
            "repository_selection": "all",
        }, 201
