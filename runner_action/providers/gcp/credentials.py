"""How a launch authenticates to Google: with the text of a key, the file that
google-github-actions/auth or a person wrote, or the machine's own account."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

import google.auth
from google.auth.credentials import Credentials, with_scopes_if_required
from google.auth.exceptions import GoogleAuthError, TransportError
from google.auth.transport.requests import Request

from runner_action import retrying
from runner_action.credentials import account_key, instead, trimmed
from runner_action.errors import CredentialsError, ProviderError
from runner_action.files import file_text
from runner_action.model import Secret
from runner_action.providers.gcp.errors import KEYS_HINT
from runner_action.providers.gcp.options import GcpOptions

SCOPE = "https://www.googleapis.com/auth/cloud-platform"
EMAIL_SCOPE = "https://www.googleapis.com/auth/userinfo.email"
"""With it a service knows the account by its email, without it by a number."""


class Quiet(Credentials):
    """Credentials that call the token service only. google-auth's own also look up, at
    iamcredentials.googleapis.com before every first call, where their account may be used, which a
    closed network blocks; or sign a token for each client, although there is one already.
    """

    def __init__(self, inner: Credentials) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._inner = inner
        self.token = inner.token
        self.expiry = inner.expiry

    def refresh(self, _request: Any) -> None:
        self._inner.refresh(asking())  # type: ignore[no-untyped-call]
        self.token = self._inner.token
        self.expiry = self._inner.expiry

    def apply(self, headers: Any, token: str | None = None) -> None:
        self._inner.apply(headers, token)  # type: ignore[no-untyped-call]


def asking() -> Any:
    """How google-auth calls the token service: with retries, and a shorter timeout than its
    default of two minutes. A lost token does no harm."""
    return partial(Request(retrying.session()), timeout=retrying.SECONDS)


@dataclass(frozen=True)
class Account:
    """Credentials and project. `key`: the service account's key, as JSON, if the launcher has
    it."""

    credentials: Credentials
    project: str
    key: Secret | None = None


def account(options: GcpOptions, file: str | None) -> Account:
    """The account, with credentials that work. `file`: what GOOGLE_APPLICATION_CREDENTIALS holds,
    a path or by mistake the key itself. Raises CredentialsError, in one sentence and without any
    part of them; ProviderError if the token service does not answer."""
    credentials, project, source = _find(options, file)
    project = options.project or project or _project_of(source) or ""
    if not project:
        raise CredentialsError(
            "The Google Cloud project is not known: the credentials do not name one.",
            "Give its id as `gcp-project`, or in GOOGLE_CLOUD_PROJECT.",
        )
    scoped = _refreshed(credentials)
    key = (
        {name: source[name] for name in ("client_email", "private_key", "private_key_id")}
        if source.get("type") == "service_account"
        else None
    )
    return Account(Quiet(scoped), project, Secret(json.dumps(key)) if key else None)


def access_token(
    options: GcpOptions,
    file: str | None,
    impersonated: str | None = None,
    scopes: Sequence[str] = (SCOPE,),
) -> tuple[str, datetime | None]:
    """An access token, and when it ends, in UTC. `file`: as for `account`; `impersonated`: a
    service account that the found one acts as; `scopes`: what the token is for. Raises as
    `account`."""
    found, _, _ = _find(options, file)
    if impersonated:
        from google.auth import impersonated_credentials

        found = impersonated_credentials.Credentials(  # type: ignore[no-untyped-call]
            source_credentials=found,
            target_principal=impersonated,
            target_scopes=list(scopes),
        )
    made: Any = _refreshed(found, scopes)
    ends: datetime | None = made.expiry  # without a time zone
    return str(made.token), ends and ends.replace(tzinfo=UTC)


def _refreshed(credentials: Any, scopes: Sequence[str] = (SCOPE,)) -> Credentials:
    scoped: Credentials = with_scopes_if_required(credentials, list(scopes))  # type: ignore[no-untyped-call]
    try:
        scoped.refresh(asking())  # type: ignore[no-untyped-call]
    except TransportError as error:
        raise ProviderError(
            f"Google Cloud's token service did not answer: {_reason(error)}.",
            "Try again, and check that it can be reached from here.",
        ) from None
    except GoogleAuthError as error:
        # The SDK's message may quote the token service's whole answer.
        raise CredentialsError(
            f"Google Cloud does not accept the credentials of {_who(scoped)}: {_reason(error)}.",
            KEYS_HINT,
        ) from None
    return scoped


def _find(options: GcpOptions, file: str | None) -> tuple[Any, str | None, dict[str, Any]]:
    """Credentials, project, and the parsed text that they come from. Makes no call yet, except
    for the machine's own account."""
    try:
        # Google warns of credentials from unknown sources; these are the user's own.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            given = options.credentials
            text = given.reveal() if given else trimmed(file or "")
            if text:
                source = account_key(text, file_text)
                if source is None:
                    raise ValueError("neither a key nor a configuration")
                return *google.auth.load_credentials_from_dict(source), source  # type: ignore[no-untyped-call]
        return *google.auth.default(), {}
    except (GoogleAuthError, ValueError, KeyError, OSError):
        variable = "GOOGLE_APPLICATION_CREDENTIALS"
        if options.credentials:
            variable += "_DATA"
        if text:
            raise CredentialsError(
                f"{variable} holds neither a service account's key nor a workload identity"
                f" federation's configuration{instead(text, file_text)}.",
                KEYS_HINT,
            ) from None
        raise CredentialsError("There are no Google Cloud credentials.", KEYS_HINT) from None


def _project_of(source: dict[str, Any]) -> str | None:
    """The project in the address of the account that a federation's configuration acts as."""
    match = re.search(
        r"@([a-z0-9-]+)\.iam\.gserviceaccount\.com:",
        str(source.get("service_account_impersonation_url", "")),
    )
    return match[1] if match else None


def _who(credentials: Any) -> str:
    return str(getattr(credentials, "service_account_email", None) or "this job")


def _reason(error: GoogleAuthError) -> str:
    """The token service's own code, such as `invalid_grant`; never its whole answer."""
    words = [str(part) for part in error.args if isinstance(part, str)]
    known = [
        word.partition(":")[0]
        for word in words
        if word.partition(":")[0].replace("_", "").isalpha()
    ]
    return known[0] if known else type(error).__name__
