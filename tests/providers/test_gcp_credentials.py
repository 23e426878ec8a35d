"""Who a launch is to Google, against a token service on this machine: each way in, and one
sentence for each that does not work."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from flask import Flask, request
from werkzeug.serving import make_server

from runner_action.errors import CredentialsError, ProviderError
from runner_action.model import Secret
from runner_action.providers.gcp.credentials import account
from runner_action.providers.gcp.options import GcpOptions

KEY = (
    rsa.generate_private_key(65537, 2048)
    .private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    .decode()
)


class Tokens:
    """Google's token service and its security token service."""

    def __init__(self) -> None:
        app = Flask("tokens")
        self.asked: list[dict[str, Any]] = []
        self.refusal: tuple[dict[str, str], int] | None = None
        app.add_url_rule("/token", "token", self._token, methods=["POST"])
        app.add_url_rule("/sts", "sts", self._token, methods=["POST"])
        self._server = make_server("127.0.0.1", 0, app, threaded=True)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def _token(self) -> Any:
        self.asked.append(request.form.to_dict())
        return self.refusal or {
            "access_token": "canary-access",
            "expires_in": 3600,
            "token_type": "Bearer",
            "issued_token_type": "x",
        }

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def tokens(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Tokens]:
    for name in ("GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_CLOUD_PROJECT", "GCLOUD_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path / "nothing"))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    made = Tokens()
    yield made
    made.close()


def key(tokens: Tokens, **more: str) -> dict[str, str]:
    email = "launcher@octo-train.iam.gserviceaccount.com"
    told = {
        "type": "service_account",
        "project_id": "octo-train",
        "private_key_id": "k",
        "private_key": KEY,
        "client_email": email,
        "client_id": "1",
    }
    return {**told, "token_uri": f"{tokens.url}/token", **more}


def test_a_key_as_text(tokens: Tokens) -> None:
    found = account(GcpOptions(credentials=Secret(json.dumps(key(tokens)))), None)
    assert (found.credentials.token, found.project) == ("canary-access", "octo-train")
    assert tokens.asked[0]["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer"


def test_a_key_as_a_file_and_another_project(tokens: Tokens, tmp_path: Path) -> None:
    (tmp_path / "key.json").write_text(json.dumps(key(tokens)))
    assert (
        account(GcpOptions(project="octo-other"), str(tmp_path / "key.json")).project
        == "octo-other"
    )


def test_a_federation_as_googles_action_leaves_it(tokens: Tokens, tmp_path: Path) -> None:
    (tmp_path / "id-token").write_text("canary-id-token")
    audience = (
        "//iam.googleapis.com/projects/123/locations/global/workloadIdentityPools/pool"
        "/providers/github"
    )
    told = {
        "type": "external_account",
        "audience": audience,
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
    }
    told |= {
        "token_url": f"{tokens.url}/sts",
        "credential_source": {"file": str(tmp_path / "id-token")},  # type: ignore[dict-item]
    }
    (tmp_path / "federation.json").write_text(json.dumps(told))
    file = str(tmp_path / "federation.json")
    assert account(GcpOptions(project="octo-train"), file).credentials.token == "canary-access"
    assert tokens.asked[0]["subject_token"] == "canary-id-token"
    with pytest.raises(CredentialsError, match="project is not known") as caught:
        account(GcpOptions(), file)
    assert "gcp-project" in caught.value.hint


@pytest.mark.parametrize(
    "text",
    [
        "no json, canary",
        '["canary"]',
        '{"type": "canary"}',
        '{"type": "service_account", "private_key": "canary"}',
    ],
)
def test_a_text_that_is_no_key(text: str, tokens: Tokens) -> None:
    with pytest.raises(
        CredentialsError,
        match="GOOGLE_APPLICATION_CREDENTIALS_DATA holds neither a service account's key",
    ) as caught:
        account(GcpOptions(credentials=Secret(text)), None)
    assert "canary" not in str(caught.value) + caught.value.hint
    assert caught.value.__suppress_context__


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(
        CredentialsError,
        match=(
            r"GOOGLE_APPLICATION_CREDENTIALS holds neither a service account's key nor .*, but the"
            r" path of a file that does not exist"
        ),
    ):
        account(GcpOptions(), "/nowhere/key.json")


def test_none_at_all(tokens: Tokens) -> None:
    with pytest.raises(CredentialsError, match="There are no Google Cloud credentials") as caught:
        account(GcpOptions(), None)
    assert "google-github-actions/auth" in caught.value.hint


def test_a_token_service_that_does_not_answer_is_told_as_that(tokens: Tokens) -> None:
    text = json.dumps({**key(tokens), "token_uri": "http://127.0.0.1:9/token"})
    with pytest.raises(
        ProviderError, match="token service did not answer: TransportError"
    ) as caught:
        account(GcpOptions(credentials=Secret(text)), None)
    assert not isinstance(caught.value, CredentialsError)
    assert "BEGIN" not in str(caught.value)


def test_credentials_that_google_does_not_accept(tokens: Tokens) -> None:
    tokens.refusal = (
        {
            "error": "invalid_grant",
            "error_description": "canary: Invalid JWT Signature.",
        },
        400,
    )
    with pytest.raises(
        CredentialsError,
        match=(
            r"does not accept the credentials of launcher@octo-train\.iam\.gserviceaccount\.com:"
            r" invalid_grant"
        ),
    ) as caught:
        account(GcpOptions(credentials=Secret(json.dumps(key(tokens)))), None)
    assert "canary" not in str(caught.value)
