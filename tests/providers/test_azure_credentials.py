"""Who a launch is to Azure: the real azure-identity against a Microsoft Entra and a GitHub token
service of a few lines, over TLS as it insists."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trustme
from flask import Flask, request

from runner_action.ci import job
from runner_action.errors import CredentialsError
from runner_action.providers.azure.credentials import SCOPE, credential, prove
from runner_action.providers.azure.options import AzureAccount
from runner_action.sandbox.served import Served

CLIENT, TENANT, SUBSCRIPTION = (f"{digit * 8}-0000-0000-0000-000000000000" for digit in "123")
ACCOUNT = AzureAccount(client_id=CLIENT, tenant_id=TENANT, subscription_id=SUBSCRIPTION)
ID_TOKEN = "canary-id-token"
ASKING = "canary-request-token"
SECRET = "canary-client-secret"
ACCESS = "canary-access-token"


@dataclass
class Outside:
    """`/oidc` is GitHub's token service, `/TENANT/oauth2/v2.0/token` is Entra's. `trusts`:
    whether Entra has a federated credential."""

    server: Served
    trusts: bool = True
    forms: list[dict[str, str]] = field(default_factory=list)
    audiences: list[str] = field(default_factory=list)

    def job(self) -> dict[str, str]:
        """What GitHub tells a job with `permissions: id-token: write`."""
        return {
            "ACTIONS_ID_TOKEN_REQUEST_URL": f"{self.server.url}/oidc?api-version=2.0",
            "ACTIONS_ID_TOKEN_REQUEST_TOKEN": ASKING,
        }

    def oidc(self) -> Any:
        if (failed := self.server.fault()) is not None:
            return failed
        if (
            request.headers.get("Authorization") != f"Bearer {ASKING}"
            or request.args.get("api-version") != "2.0"
        ):
            return {"message": "Unauthorized"}, 401
        self.audiences.append(request.args["audience"])
        return {"count": 1, "value": ID_TOKEN}

    def configuration(self, tenant: str) -> Any:
        ways = {
            f"{way}_endpoint": f"{self.server.url}/{tenant}/oauth2/v2.0/{way}"
            for way in ("token", "authorization")
        }
        return {**ways, "issuer": f"{self.server.url}/{tenant}/v2.0"}

    def token(self, tenant: str) -> Any:
        form = request.form.to_dict()
        self.forms.append(form)
        by_assertion = (
            form.get("client_assertion") == ID_TOKEN
            and form["client_assertion_type"]
            == "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
        )
        if tenant != TENANT or not (
            (by_assertion and self.trusts) or form.get("client_secret") == SECRET
        ):
            told = (
                "AADSTS700213: No matching federated identity record found for presented assertion"
                " subject 'repo:octo/train'.\nTrace ID: 1"
            )
            return {"error": "invalid_client", "error_description": told}, 401
        return {"token_type": "Bearer", "expires_in": 3599, "access_token": ACCESS}


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Outside]:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    app = Flask(__name__)
    made = Outside(Served(app, "/", (str(tmp_path / "cert.pem"), str(tmp_path / "key.pem"))))
    app.add_url_rule("/oidc", "oidc", made.oidc)
    app.add_url_rule(
        "/<tenant>/v2.0/.well-known/openid-configuration", "configuration", made.configuration
    )
    app.add_url_rule("/<tenant>/oauth2/v2.0/token", "token", made.token, methods=["POST"])
    for name in (
        "AZURE_CLIENT_ID",
        "AZURE_TENANT_ID",
        "AZURE_CLIENT_SECRET",
        "AZURE_FEDERATED_TOKEN_FILE",
        "HTTPS_PROXY",
        "https_proxy",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AZURE_AUTHORITY_HOST", made.server.url)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ca.pem"))
    # No way in but those of the test: neither a metadata service nor somebody's `az login`.
    monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", "http://127.0.0.1:9")
    monkeypatch.setenv("PATH", str(tmp_path))
    yield made
    made.server.close()


def test_a_github_jobs_own_id_token_becomes_a_token_of_azure(
    outside: Outside, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    found = credential(ACCOUNT, job.id_tokens(outside.job()))
    assert outside.audiences == [], "nobody is asked before it is needed"
    prove(found, ACCOUNT)
    assert found.get_token(SCOPE).token == ACCESS
    assert outside.audiences == ["api://AzureADTokenExchange"], (
        "one exchange, then the SDK keeps the token"
    )
    assert outside.forms[0]["client_id"] == CLIENT
    assert outside.forms[0]["scope"] == "https://management.azure.com/.default"
    assert not {secret for secret in (ID_TOKEN, ASKING, ACCESS) if secret in caplog.text}


def test_a_token_service_that_stumbles_is_asked_again(outside: Outside) -> None:
    outside.server.fail("GET", "/oidc", 503, times=1)
    prove(credential(ACCOUNT, job.id_tokens(outside.job())), ACCOUNT)


def test_a_client_secret_is_taken_from_its_variables(
    outside: Outside, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"CLIENT_ID": CLIENT, "CLIENT_SECRET": SECRET, "TENANT_ID": TENANT}.items():
        monkeypatch.setenv(f"AZURE_{name}", value)
    prove(credential(ACCOUNT, None), ACCOUNT)
    assert outside.forms[0]["client_secret"] == SECRET


def test_a_token_file_is_what_gitlab_leaves(
    outside: Outside, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "id-token").write_text(ID_TOKEN)
    monkeypatch.setenv("AZURE_FEDERATED_TOKEN_FILE", str(tmp_path / "id-token"))
    prove(credential(ACCOUNT, job.id_tokens({})), ACCOUNT)
    assert outside.forms[0]["client_assertion"] == ID_TOKEN


def test_an_app_that_does_not_trust_this_repository_is_told_in_entras_words(
    outside: Outside,
) -> None:
    outside.trusts = False
    with pytest.raises(CredentialsError) as caught:
        prove(credential(ACCOUNT, job.id_tokens(outside.job())), ACCOUNT)
    assert "AADSTS700213: No matching federated identity record" in str(caught.value)
    assert "repo:octo/train" in str(caught.value)
    assert "id-token: write" in caught.value.hint
    assert ID_TOKEN not in f"{caught.value} {caught.value.__cause__}"


def test_a_job_that_may_not_ask_is_told_so(outside: Outside) -> None:
    with pytest.raises(CredentialsError, match="GitHub gave no ID token: HTTP 401") as caught:
        prove(
            credential(
                ACCOUNT, job.id_tokens({**outside.job(), "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "other"})
            ),
            ACCOUNT,
        )
    assert "permissions: id-token: write" in caught.value.hint


@pytest.mark.parametrize(
    ("account", "words"),
    [
        (AzureAccount(client_id=CLIENT), "missing: azure-tenant-id, azure-subscription-id"),
        (ACCOUNT, "no client secret, id token, managed identity or `az login`"),
    ],
)
def test_what_is_missing_is_told_by_name(
    outside: Outside, account: AzureAccount, words: str
) -> None:
    with pytest.raises(CredentialsError, match=words):
        prove(credential(account, job.id_tokens({})), account)
