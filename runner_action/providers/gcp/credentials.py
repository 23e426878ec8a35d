"""Who a launch is to Google: the text of a key, the file that google-github-actions/auth or a person leaves, or the machine's own account."""

from __future__ import annotations

import json
import warnings
from typing import Any

import google.auth
from google.auth.credentials import Credentials, with_scopes_if_required
from google.auth.exceptions import GoogleAuthError
from google.auth.transport.requests import Request

from runner_action.errors import CredentialsError
from runner_action.providers.gcp.errors import KEYS_HINT
from runner_action.request import GcpOptions

SCOPE = "https://www.googleapis.com/auth/cloud-platform"


def credentials(options: GcpOptions, file: str | None) -> tuple[Credentials, str]:
    """Credentials that have proven themselves, and the project. `file`: what GOOGLE_APPLICATION_CREDENTIALS names. Raises
    CredentialsError, in one sentence and without any of their text."""
    found, project = _find(options, file)
    project = options.project or project or ""
    if not project:
        raise CredentialsError(
            "Google Cloud's project is not known: the credentials do not name one.", "Give its id as `gcp-project`, or in GOOGLE_CLOUD_PROJECT."
        )
    scoped: Credentials = with_scopes_if_required(found, [SCOPE])  # type: ignore[no-untyped-call]
    try:
        scoped.refresh(Request())  # type: ignore[no-untyped-call]
    except GoogleAuthError as error:
        # Its text may quote the token service's whole answer.
        raise CredentialsError(f"Google Cloud does not accept the credentials of {_who(scoped)}: {_reason(error)}.", KEYS_HINT) from None
    return scoped, project


def _find(options: GcpOptions, file: str | None) -> tuple[Any, str | None]:
    """Asks nobody yet, but for the machine's own account."""
    try:
        # Google warns of texts from strangers; these are the user's own.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if options.credentials:
                return google.auth.load_credentials_from_dict(_read(options.credentials.reveal()))  # type: ignore[no-any-return,no-untyped-call]
            if file:
                return google.auth.load_credentials_from_file(file)  # type: ignore[no-any-return,no-untyped-call]
        return google.auth.default()
    except (GoogleAuthError, ValueError, KeyError, OSError):
        where = "GOOGLE_APPLICATION_CREDENTIALS_DATA holds" if options.credentials else f"The file {file} holds" if file else ""
        if where:
            raise CredentialsError(f"{where} no key of a service account, and no configuration of a workload identity federation.", KEYS_HINT) from None
        raise CredentialsError("No Google Cloud credentials were found.", KEYS_HINT) from None


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
    known = [word.partition(":")[0] for word in words if word.partition(":")[0].replace("_", "").isalpha()]
    return known[0] if known else type(error).__name__
