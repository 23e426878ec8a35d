"""Who a launch is to Google: the text of a key, the file that google-github-actions/auth or a
person leaves, or the machine's own account."""

from __future__ import annotations

import json
import re
import warnings
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import google.auth
from google.auth.credentials import Credentials, with_scopes_if_required
from google.auth.exceptions import GoogleAuthError, TransportError
from google.auth.transport.requests import Request

from runner_action import retrying
from runner_action.errors import CredentialsError, ProviderError
from runner_action.model import Secret
from runner_action.providers.gcp.errors import KEYS_HINT
from runner_action.providers.gcp.options import GcpOptions

SCOPE = "https://www.googleapis.com/auth/cloud-platform"


class Quiet(Credentials):
    """Credentials that ask nobody but the token service: google-auth's own also look up, at
    iamcredentials.googleapis.com and beside every first call, where their account may be used,
    which a closed network does not let through; or sign a token for each client, though there is
    one.
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
    """What google-auth asks the token service with. Its own way waits for two minutes, and does
    not ask again; a token that nobody has seen costs nothing."""
    return partial(Request(retrying.session()), timeout=retrying.SECONDS)


@dataclass(frozen=True)
class Account:
    """Who asks, and for which project. `key`: as JSON, what signs in the name of a service
    account, if the launcher was given its key."""

    credentials: Credentials
    project: str
    key: Secret | None = None


def account(options: GcpOptions, file: str | None) -> Account:
    """Credentials that have proven themselves. `file`: what GOOGLE_APPLICATION_CREDENTIALS
    names. Raises CredentialsError, in one sentence and without any of their text; ProviderError
    if nobody answers."""
    found, project, told = _find(options, file)
    project = options.project or project or _project_of(told) or ""
    if not project:
        raise CredentialsError(
            "Google Cloud's project is not known: the credentials do not name one.",
            "Give its id as `gcp-project`, or in GOOGLE_CLOUD_PROJECT.",
        )
    scoped: Credentials = with_scopes_if_required(found, [SCOPE])  # type: ignore[no-untyped-call]
    try:
        scoped.refresh(asking())  # type: ignore[no-untyped-call]
    except TransportError as error:
        raise ProviderError(
            f"Google Cloud's token service did not answer: {_reason(error)}.",
            "Try again; is it to be reached from here?",
        ) from None
    except GoogleAuthError as error:
        # Its text may quote the token service's whole answer.
        raise CredentialsError(
            f"Google Cloud does not accept the credentials of {_who(scoped)}: {_reason(error)}.",
            KEYS_HINT,
        ) from None
    key = (
        {name: told[name] for name in ("client_email", "private_key", "private_key_id")}
        if told.get("type") == "service_account"
        else None
    )
    return Account(Quiet(scoped), project, Secret(json.dumps(key)) if key else None)


def _find(options: GcpOptions, file: str | None) -> tuple[Any, str | None, dict[str, Any]]:
    """Credentials, project, and the text they were made from. Asks nobody yet, but for the
    machine's own account."""
    try:
        # Google warns of texts from strangers; these are the user's own.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if options.credentials or file:
                told = _read(
                    options.credentials.reveal()
                    if options.credentials
                    else Path(file or "").read_text("utf-8")
                )
                return *google.auth.load_credentials_from_dict(told), told  # type: ignore[no-untyped-call]
        return *google.auth.default(), {}
    except (GoogleAuthError, ValueError, KeyError, OSError):
        where = f"The file {file} holds" if file else ""
        if options.credentials:
            where = "GOOGLE_APPLICATION_CREDENTIALS_DATA holds"
        if where:
            raise CredentialsError(
                f"{where} no key of a service account, and no configuration of a workload identity"
                " federation.",
                KEYS_HINT,
            ) from None
        raise CredentialsError("No Google Cloud credentials were found.", KEYS_HINT) from None


def _project_of(told: dict[str, Any]) -> str | None:
    """A federation's configuration names the account that it acts as, and its address the
    project."""
    match = re.search(
        r"@([a-z0-9-]+)\.iam\.gserviceaccount\.com:",
        str(told.get("service_account_impersonation_url", "")),
    )
    return match[1] if match else None


def _read(text: str) -> dict[str, Any]:
    told = json.loads(text)
    if not isinstance(told, dict):
        raise ValueError("not an object")
    return told


def _who(found: Any) -> str:
    return str(getattr(found, "service_account_email", None) or "this job")


def _reason(error: GoogleAuthError) -> str:
    """The token service's own word, such as `invalid_grant`; never its whole answer."""
    words = [str(part) for part in error.args if isinstance(part, str)]
    known = [
        word.partition(":")[0]
        for word in words
        if word.partition(":")[0].replace("_", "").isalpha()
    ]
    return known[0] if known else type(error).__name__
