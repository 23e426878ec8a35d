"""How a launch logs in to a cluster: the kubeconfigs that people have, on a machine without the
clouds' programs, against authenticators as strict as the clouds'."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import botocore.auth
import jwt
import pytest
import trustme
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from flask import Flask, request
from google.auth import iam as google_iam

from runner_action import providers
from runner_action.errors import CredentialsError
from runner_action.model import Secret
from runner_action.providers.kubernetes.cluster import Cluster
from runner_action.providers.kubernetes.errors import Refused, translated
from runner_action.providers.kubernetes.kubeconfig import Chosen
from runner_action.providers.kubernetes.login import logged_in
from runner_action.providers.kubernetes.options import KubernetesOptions, options_of
from runner_action.providers.kubernetes.tokens import Around
from runner_action.request import CloudRequest
from runner_action.sandbox.clouds.azure.entra import CLIENT, SECRET, TENANT, Entra
from runner_action.sandbox.kubernetes.api import FakeKubernetes
from runner_action.sandbox.kubernetes.authentication import Door, Iam, Issued
from runner_action.sandbox.served import Served
from tests import test_launch
from tests.contracts.kubernetes_types import Judge

KEY = "AKIACANARY0000000000"
KEY_SECRET = "canary-secret-access-key"
ROLE_KEY = "ASIACANARY0000000000"
ROLE_SECRET = "canary-role-secret"
SESSION = "canary-session"
ID_TOKEN = "canary-id-token-of-the-job"
SERVER_APP = "6dae42f8-4368-4678-94ff-3960e28e3630"
"""The application of all AKS clusters with Entra integration.
https://learn.microsoft.com/azure/aks/kubelogin-authentication"""
NONE_OF_OURS = ("AWS_", "AZURE_", "AAD_", "GOOGLE_", "CLOUDSDK_", "KUBE", "ACTIONS_ID_TOKEN")


@dataclass
class Later:
    """The time, and what has been added to it."""

    after: timedelta = timedelta(0)

    def monotonic(self) -> float:
        return self.after.total_seconds()

    def now(self) -> datetime:
        return datetime.now(UTC) + self.after

    def sleep(self, seconds: float) -> None:
        self.after += timedelta(seconds=seconds)


@dataclass
class Place:
    """A machine without any login program, and a cluster."""

    kubernetes: FakeKubernetes
    clock: Later
    environ: dict[str, str]
    id_token: Callable[[str], str] | None = None

    def cluster(self, user: Mapping[str, Any] | str, **options: Any) -> Cluster:
        """As a launch gets it, for a kubeconfig with this user, or that text of
        one; without a text for that of the environment."""
        text = user if isinstance(user, str) else self.kubeconfig(user)
        given = KubernetesOptions(configuration=Secret(text) if text else None, **options)
        cloud = cast("CloudRequest", test_launch.request("--cloud=kubernetes").cloud)
        object.__setattr__(cloud, "options", given)
        provider: Any = providers.provider_for(cloud, self.environ, self.id_token, self.clock)
        return cast("Cluster", provider._cluster)

    def kubeconfig(self, user: Mapping[str, Any]) -> str:
        config = json.loads(self.kubernetes.kubeconfig)
        config["users"][0]["user"] = user
        return yaml.safe_dump(config)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    for name in [name for name in os.environ if name.startswith(NONE_OF_OURS)]:
        monkeypatch.delenv(name)
    for name, value in {
        "HOME": str(tmp_path),
        "PATH": str(tmp_path / "bin"),
        "AWS_EC2_METADATA_DISABLED": "true",
        "CLOUDSDK_CONFIG": str(tmp_path / "nothing"),
        "NO_GCE_CHECK": "true",
        "AZURE_POD_IDENTITY_AUTHORITY_HOST": "http://127.0.0.1:9",
    }.items():
        monkeypatch.setenv(name, value)
    fake = FakeKubernetes()
    judge = Judge(fake)
    yield Place(fake, Later(), {"PATH": str(tmp_path / "bin"), "HOME": str(tmp_path)})
    fake.close()
    assert judge.problems == []


def program(command: str, *args: str, **env: str) -> dict[str, Any]:
    """The user of a kubeconfig that logs in with a program."""
    variables = [{"name": name, "value": value} for name, value in env.items()]
    return {
        "exec": {
            "apiVersion": "client.authentication.k8s.io/v1beta1",
            "command": command,
            "args": list(args),
            "env": variables or None,
            "interactiveMode": "IfAvailable",
            "provideClusterInfo": False,
        }
    }


# --- EKS

EKS = program(
    "aws", "--region", "us-west-2", "eks", "get-token", "--cluster-name", "ours", "--output", "json"
)
"""As `aws eks update-kubeconfig` writes it."""


@pytest.fixture
def iam(place: Place, monkeypatch: pytest.MonkeyPatch) -> Iam:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", KEY_SECRET)

    def dated(remove_tzinfo: bool = True) -> datetime:
        now = place.clock.now()
        return now.replace(tzinfo=None) if remove_tzinfo else now

    monkeypatch.setattr(botocore.auth, "get_current_datetime", dated)
    return Iam("ours", {KEY: KEY_SECRET}, place.clock.now)


@pytest.mark.parametrize(
    "user",
    [
        EKS,
        program("/usr/local/bin/aws", "eks", "get-token", "--cluster-name=ours"),
        program("aws.exe", "eks", "get-token", "--cluster-name", "ours", AWS_REGION="eu-west-1"),
        program("aws-iam-authenticator", "token", "-i", "ours"),
    ],
    ids=["as written", "a path", "Windows", "authenticator"],
)
def test_a_kubeconfig_of_eks_works_without_its_program(
    place: Place, iam: Iam, user: dict[str, Any]
) -> None:
    door = Door(place.kubernetes, iam.refusal)
    assert place.cluster(user).get("pods")["items"] == []
    assert door.refused == []


def test_a_token_of_eks_is_of_one_cluster(place: Place, iam: Iam) -> None:
    iam.cluster = "theirs"
    door = Door(place.kubernetes, iam.refusal)
    with pytest.raises(Exception, match="Unauthorized") as caught:
        place.cluster(EKS).get("pods")
    assert door.refused == ["signed for another cluster"] * 2
    assert "create-access-entry" in caught.value.hint  # type: ignore[attr-defined]
    assert "canary" not in f"{caught.value}{door.tokens[0]}"


def test_a_token_of_eks_is_renewed_before_it_ends(place: Place, iam: Iam) -> None:
    door = Door(place.kubernetes, iam.refusal)
    cluster = place.cluster(EKS)
    for _ in range(5):
        cluster.get("pods")
        place.clock.sleep(6 * 60)
    assert door.refused == []
    assert len(set(door.tokens)) == 2, "one for some thirteen minutes"


def test_a_token_that_is_refused_is_renewed_at_once(place: Place, iam: Iam) -> None:
    """As by a role session that ends before the token, or a clock that is wrong."""
    ended = {"yes": True}

    def refusal(token: str) -> str | None:
        return "once" if ended.pop("yes", False) else iam.refusal(token)

    door = Door(place.kubernetes, refusal)
    assert place.cluster(EKS).get("pods")["items"] == []
    assert door.refused == ["once"]


class Sts:
    """AssumeRole, and the same with a job's ID token."""

    def __init__(self, iam: Iam, tls: tuple[str, str]) -> None:
        app = Flask("sts")
        app.add_url_rule("/", "assume", self._assume, methods=["POST"])
        self.served = Served(app, "/", tls)
        self.asked: list[dict[str, str]] = []
        iam.hosts.add(self.served.url.removeprefix("https://"))
        iam.keys, iam.sessions = {ROLE_KEY: ROLE_SECRET}, {ROLE_KEY: SESSION}

    def _assume(self) -> Any:
        form = request.form.to_dict()
        self.asked.append(form)
        signed = "Authorization" in request.headers
        if not signed and form.get("WebIdentityToken") != ID_TOKEN:
            return "<ErrorResponse><Error><Code>AccessDenied</Code></Error></ErrorResponse>", 403
        credentials = {
            "AccessKeyId": ROLE_KEY,
            "SecretAccessKey": ROLE_SECRET,
            "SessionToken": SESSION,
            "Expiration": "2099-01-01T00:00:00Z",
        }
        fields = "".join(f"<{name}>{value}</{name}>" for name, value in credentials.items())
        action = form["Action"]
        return (
            f'<{action}Response xmlns="https://sts.amazonaws.com/doc/2011-06-15/">'
            f"<{action}Result><Credentials>{fields}</Credentials></{action}Result>"
            f"</{action}Response>"
        )


@dataclass
class Tls:
    """Files of a certificate for this machine, and of the authority that gave it."""

    pair: tuple[str, str]
    authority: str


@pytest.fixture
def tls(tmp_path: Path) -> Tls:
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    issued.private_key_pem.write_to_path(tmp_path / "key.pem")
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    pair = str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")
    return Tls(pair, str(tmp_path / "authority.pem"))


ROLE = "arn:aws:iam::123456789012:role/launcher"


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        (
            program("aws", *EKS["exec"]["args"], "--role", ROLE),
            {"RoleSessionName": "EKSGetTokenAuth"},
        ),
        (
            program(
                "aws-iam-authenticator",
                *("token", "-i", "ours", "-r", ROLE, "-e", "octo", "--region=us-west-2"),
            ),
            {"ExternalId": "octo"},
        ),
    ],
    ids=["aws", "authenticator"],
)
def test_the_role_of_the_kubeconfig_is_assumed(
    place: Place,
    iam: Iam,
    tls: Tls,
    monkeypatch: pytest.MonkeyPatch,
    user: dict[str, Any],
    expected: dict[str, str],
) -> None:
    sts = Sts(iam, tls.pair)
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", sts.served.url)
    monkeypatch.setenv("AWS_CA_BUNDLE", tls.authority)
    door = Door(place.kubernetes, iam.refusal)
    assert place.cluster(user).get("pods")["items"] == []
    assert door.refused == []
    assert sts.asked[0].items() >= {"RoleArn": ROLE, **expected}.items()
    sts.served.close()


def test_a_jobs_own_id_token_is_enough_for_eks(
    place: Place, iam: Iam, tls: Tls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a job of GitLab: aws-actions/configure-aws-credentials leaves keys on GitHub."""
    sts = Sts(iam, tls.pair)
    (tmp_path / "id-token").write_text(ID_TOKEN)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", sts.served.url)
    monkeypatch.setenv("AWS_CA_BUNDLE", tls.authority)
    monkeypatch.setenv("AWS_ROLE_ARN", ROLE)
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "id-token"))
    door = Door(place.kubernetes, iam.refusal)
    assert place.cluster(EKS).get("pods")["items"] == []
    assert door.refused == []
    assert [call["Action"] for call in sts.asked] == ["AssumeRoleWithWebIdentity"]
    sts.served.close()


def test_the_profile_of_the_kubeconfig_is_used(
    place: Place, iam: Iam, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile = f"[ours]\naws_access_key_id = {ROLE_KEY}\naws_secret_access_key = {ROLE_SECRET}\n"
    (tmp_path / "credentials").write_text(profile)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    iam.keys = {ROLE_KEY: ROLE_SECRET}
    door = Door(place.kubernetes, iam.refusal)
    arguments = ("eks", "get-token", "--cluster-name", "ours")
    user = program("aws", *arguments, AWS_PROFILE="ours")
    assert place.cluster(user).get("pods")["items"] == []
    assert door.refused == []
    with pytest.raises(CredentialsError, match="theirs") as caught:
        place.cluster(program("aws", *arguments, AWS_PROFILE="theirs")).get("pods")
    assert "AWS_PROFILE" in caught.value.hint


def test_eks_without_credentials_of_aws_is_told(place: Place) -> None:
    with pytest.raises(CredentialsError, match=r"No AWS credentials.*EKS cluster ours") as caught:
        place.cluster(EKS).get("pods")
    assert "configure-aws-credentials" in caught.value.hint


# --- GKE

GKE = program("gke-gcloud-auth-plugin")
"""As `gcloud container clusters get-credentials` writes it."""
PRIVATE = rsa.generate_private_key(65537, 2048)
PEM = PRIVATE.private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
).decode()
HOUR = timedelta(hours=1)


class Google:
    """The token service, for a service account's key with the right scopes, and for a job's ID
    token; both give access tokens that end after an hour. A cluster knows an account by its email
    only if the token has the scope for that."""

    def __init__(self, clock: Later) -> None:
        app = Flask("tokens")
        app.add_url_rule("/token", "token", self._token, methods=["POST"])
        app.add_url_rule("/sts", "sts", self._exchanged, methods=["POST"])
        app.add_url_rule("/as/<account>", "as", self._as, methods=["POST"])
        self.served = Served(app, "/")
        self.issued = Issued(clock.now)
        self.impersonated = Issued(clock.now)
        self.impersonating = Issued(clock.now)

    def _as(self, account: str) -> Any:
        """https://cloud.google.com/iam/docs/reference/credentials/rest/v1/projects.serviceAccounts/generateAccessToken"""
        who = request.headers["Authorization"].removeprefix("Bearer ")
        scopes = {scope.rpartition("/")[2] for scope in (request.json or {})["scope"]}
        if account != "octo@cats.example" or self.impersonating.refusal(who):
            return {"error": {"code": 403, "status": "PERMISSION_DENIED"}}, 403
        if scopes != {"cloud-platform", "userinfo.email"}:
            return {"error": {"code": 400, "status": "INVALID_ARGUMENT"}}, 400
        ends = self.issued.now() + HOUR
        self.impersonated.ends["canary-ya29-octo"] = ends
        return {"accessToken": "canary-ya29-octo", "expireTime": f"{ends:%Y-%m-%dT%H:%M:%SZ}"}

    def _given(self, issued: Issued) -> dict[str, Any]:
        token = f"canary-ya29-{len(issued.ends)}"
        issued.ends[token] = issued.now() + HOUR
        return {"access_token": token, "expires_in": 3600, "token_type": "Bearer"}

    def _token(self) -> Any:
        claims = jwt.decode(
            request.form["assertion"],
            PRIVATE.public_key(),
            algorithms=["RS256"],
            audience="https://oauth2.googleapis.com/token",
        )
        scopes = "https://www.googleapis.com/auth/"
        by_scope = {
            frozenset({f"{scopes}cloud-platform", f"{scopes}userinfo.email"}): self.issued,
            frozenset({f"{scopes}iam"}): self.impersonating,
        }
        issued = by_scope.get(frozenset(claims["scope"].split()))
        return self._given(issued) if issued else ({"error": "invalid_scope"}, 400)

    def _exchanged(self) -> Any:
        if request.form["subject_token"] != "canary-id-token":
            return {"error": "invalid_grant"}, 400
        if "userinfo.email" not in request.form["scope"]:
            return {"error": "invalid_scope"}, 400
        kind = "urn:ietf:params:oauth:token-type:access_token"
        return {**self._given(self.issued), "issued_token_type": kind}

    def key(self) -> str:
        return json.dumps(
            {
                "type": "service_account",
                "private_key_id": "k",
                "private_key": PEM,
                "client_email": "launcher@octo.iam.gserviceaccount.com",
                "token_uri": f"{self.served.url}/token",
            }
        )

    def federation(self, id_token: Path) -> str:
        """As google-github-actions/auth leaves it, or a job of GitLab makes it."""
        return json.dumps(
            {
                "type": "external_account",
                "audience": "//iam.googleapis.com/projects/1/locations/global/pools/p",
                "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
                "token_url": f"{self.served.url}/sts",
                "credential_source": {"file": str(id_token)},
            }
        )


@pytest.fixture
def google(place: Place) -> Iterator[Google]:
    made = Google(place.clock)
    yield made
    made.served.close()


def legacy(name: str, **config: str) -> dict[str, Any]:
    return {"auth-provider": {"name": name, "config": config}}


@pytest.mark.parametrize(
    "user",
    [
        GKE,
        program("gke-gcloud-auth-plugin", "--use_application_default_credentials"),
        legacy("gcp", **{"cmd-path": "/usr/lib/google-cloud-sdk/bin/gcloud"}),
    ],
    ids=["as written", "application default", "before 1.26"],
)
@pytest.mark.parametrize("way", ["key", "federation", "text"])
def test_a_kubeconfig_of_gke_works_without_its_program(
    place: Place, google: Google, tmp_path: Path, user: dict[str, Any], way: str
) -> None:
    (tmp_path / "id-token").write_text("canary-id-token")
    text = google.federation(tmp_path / "id-token") if way == "federation" else google.key()
    (tmp_path / "google.json").write_text(text)
    if way == "text":
        place.environ["GOOGLE_APPLICATION_CREDENTIALS_DATA"] = text
    else:
        place.environ["GOOGLE_APPLICATION_CREDENTIALS"] = str(tmp_path / "google.json")
    door = Door(place.kubernetes, google.issued.refusal)
    assert place.cluster(user).get("pods")["items"] == []
    assert door.refused == []


def test_the_account_of_the_kubeconfig_is_impersonated(
    place: Place, google: Google, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = f"{google.served.url}/as/{{}}"
    monkeypatch.setattr(google_iam, "_IAM_ENDPOINT", address)
    place.environ["GOOGLE_APPLICATION_CREDENTIALS_DATA"] = google.key()
    user = program("gke-gcloud-auth-plugin", "--impersonate_service_account=octo@cats.example")
    door = Door(place.kubernetes, google.impersonated.refusal)
    assert place.cluster(user).get("pods")["items"] == []
    assert door.refused == []


def test_a_token_of_gke_is_renewed_before_it_ends(place: Place, google: Google) -> None:
    place.environ["GOOGLE_APPLICATION_CREDENTIALS_DATA"] = google.key()
    door = Door(place.kubernetes, google.issued.refusal)
    cluster = place.cluster(GKE)
    for _ in range(4):
        cluster.get("pods")
        place.clock.sleep(25 * 60)
    assert door.refused == []
    assert len(google.issued.ends) == 2


def test_gke_without_credentials_is_told(place: Place) -> None:
    with pytest.raises(CredentialsError, match="There are no Google Cloud credentials") as caught:
        place.cluster(GKE).get("pods")
    assert "google-github-actions/auth" in caught.value.hint


# --- AKS

AKS = ("get-token", "--environment", "AzurePublicCloud", "--server-id", SERVER_APP)
PERSON = ("--client-id", "80faf920-1908-4b52-b5ef-a8e7bedfc67a", "--tenant-id", TENANT)
"""Kubelogin's own application, for people: https://learn.microsoft.com/azure/aks/kubelogin-authentication"""


@dataclass
class Azure:
    """Entra, and the authenticator of a cluster with Entra integration."""

    entra: Entra
    served: Served

    def refusal(self, token: str) -> str | None:
        if token not in self.entra.given:
            return "unknown"
        audience = self.entra.scopes[token].split()[0].removesuffix("/.default")
        return None if audience == SERVER_APP else f"of another application: {audience}"


@pytest.fixture
def azure(place: Place, tls: Tls, monkeypatch: pytest.MonkeyPatch) -> Iterator[Azure]:
    app = Flask("entra")
    made = Azure(Entra(app), Served(app, "/", tls.pair))
    made.entra.trusted = {ID_TOKEN: "api://AzureADTokenExchange"}
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", tls.authority)
    given(place, monkeypatch, AZURE_AUTHORITY_HOST=made.served.url)
    yield made
    made.served.close()


def given(place: Place, monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    """The job's variables, which SDKs read from the process."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    place.environ.update(variables)


IDS = {"AZURE_CLIENT_ID": CLIENT, "AZURE_TENANT_ID": TENANT}
SPN = {
    "AAD_SERVICE_PRINCIPAL_CLIENT_ID": CLIENT,
    "AAD_SERVICE_PRINCIPAL_CLIENT_SECRET": SECRET,
}


@pytest.mark.parametrize(
    ("user", "variables"),
    [
        (
            program("kubelogin", *AKS, *PERSON, "--login", "devicecode"),
            {"AZURE_CLIENT_ID": CLIENT, "AZURE_CLIENT_SECRET": SECRET},
        ),
        (program("kubelogin", *AKS, "-l", "azurecli"), {**IDS, "AZURE_CLIENT_SECRET": SECRET}),
        (program("kubelogin", *AKS, "--login=spn", "-t", TENANT), SPN),
        (program("kubelogin", *AKS, "--tenant-id", TENANT), {**SPN, "AAD_LOGIN_METHOD": "spn"}),
        (
            program(
                "kubelogin",
                *(*AKS, "--login", "spn", "--client-id", CLIENT, "--tenant-id", TENANT),
                *("--client-secret", SECRET),
            ),
            {},
        ),
        (program("kubelogin", *AKS, "--login", "spn", **SPN, AZURE_TENANT_ID=TENANT), {}),
        (
            legacy(
                "azure",
                **{"apiserver-id": SERVER_APP, "tenant-id": TENANT, "config-mode": "1"},
            ),
            {"AZURE_CLIENT_ID": CLIENT, "AZURE_CLIENT_SECRET": SECRET},
        ),
    ],
    ids=["device code", "az", "spn", "method", "arguments", "env", "before 1.26"],
)
def test_a_kubeconfig_of_aks_works_without_its_program(
    place: Place,
    azure: Azure,
    monkeypatch: pytest.MonkeyPatch,
    user: dict[str, Any],
    variables: dict[str, str],
) -> None:
    given(place, monkeypatch, **variables)
    door = Door(place.kubernetes, azure.refusal)
    assert place.cluster(user).get("pods")["items"] == []
    assert door.refused == []
    assert azure.entra.logins == 1


@pytest.mark.parametrize("login", ["devicecode", "workloadidentity", "spn", "azurecli"])
@pytest.mark.parametrize("ci", ["GitHub", "GitLab"])
def test_a_jobs_own_id_token_is_enough_for_aks(
    place: Place,
    azure: Azure,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    login: str,
    ci: str,
) -> None:
    given(place, monkeypatch, **IDS)
    if ci == "GitHub":
        place.id_token = {"api://AzureADTokenExchange": ID_TOKEN}.__getitem__
    else:
        (tmp_path / "id-token").write_text(ID_TOKEN)
        given(place, monkeypatch, AZURE_FEDERATED_TOKEN_FILE=str(tmp_path / "id-token"))
    door = Door(place.kubernetes, azure.refusal)
    user = program("kubelogin", *AKS, "--login", login)
    assert place.cluster(user).get("pods")["items"] == []
    assert door.refused == []
    assert azure.entra.logins == 0, "by no secret"


def test_inputs_say_who_signs_in_as_variables_do(
    place: Place, azure: Azure, google: Google
) -> None:
    arguments = [f"--azure-client-id={CLIENT}", f"--azure-tenant-id={TENANT}"]
    given = test_launch.request(
        "--cloud=kubernetes", *arguments, f"--gcp-credentials={google.key()}"
    )
    assert given.cloud
    accounts = options_of(given.cloud).accounts
    place.id_token = {"api://AzureADTokenExchange": ID_TOKEN}.__getitem__
    door = Door(place.kubernetes, azure.refusal)
    user = program("kubelogin", *AKS, "--login", "azurecli")
    assert place.cluster(user, accounts=accounts).get("pods")["items"] == []
    Door(place.kubernetes, google.issued.refusal)
    assert place.cluster(GKE, accounts=accounts).get("pods")["items"] == []
    assert door.refused == []


def test_a_managed_identity_is_enough_for_aks(
    place: Place, azure: Azure, monkeypatch: pytest.MonkeyPatch
) -> None:
    given(
        place,
        monkeypatch,
        IDENTITY_ENDPOINT=f"{azure.served.url}/identity",
        IDENTITY_HEADER="canary-header",
    )
    door = Door(place.kubernetes, azure.refusal)
    user = program("kubelogin", *AKS, "--login", "msi")
    assert place.cluster(user).get("pods")["items"] == []
    assert door.refused == []


@pytest.mark.parametrize(
    ("arguments", "variables", "message", "hint"),
    [
        (AKS, {}, "There are no Azure credentials to sign in to the AKS cluster", "id-token"),
        (
            (*AKS, "--login", "spn"),
            {**IDS, "AZURE_CLIENT_SECRET": "canary-other"},
            "AADSTS7000215: Invalid client secret",
            "AZURE_CLIENT_SECRET",
        ),
        ((*AKS, "--login", "telepathy"), {}, "`--login telepathy` is not known", "devicecode"),
    ],
    ids=["nothing", "wrong secret", "unknown"],
)
def test_what_is_wrong_with_a_login_of_aks_is_told(
    place: Place,
    azure: Azure,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    variables: dict[str, str],
    message: str,
    hint: str,
) -> None:
    given(place, monkeypatch, **variables)
    with pytest.raises(CredentialsError, match=message) as caught:
        place.cluster(program("kubelogin", *arguments)).get("pods")
    assert hint in caught.value.hint
    assert "canary" not in f"{caught.value} {caught.value.hint}"


# --- any program


@pytest.mark.parametrize(
    ("user", "message"),
    [
        (program("aws", "eks", "get-token"), "`--cluster-name` is missing"),
        (
            program("aws", "eks", "get-token", "--cluster-name", "c", "--query", "x", FOO="canary"),
            "the argument `--query` is not known; the variable FOO is not known",
        ),
        (
            program("aws", "sts", "get-token", "--cluster-name", "c"),
            "it is not called as `aws eks get-token`",
        ),
        (program("gke-gcloud-auth-plugin", "--use_edge_cloud"), "`--use_edge_cloud` is not known"),
        (program("kubelogin", *AKS, "--pop-enabled"), "`--pop-enabled` is not known"),
        (program("kubelogin", "get-token", "--oidc-issuer-url=canary"), "`--server-id` is missing"),
    ],
)
def test_what_cannot_be_done_without_a_program_is_told_at_once(
    place: Place, user: dict[str, Any], message: str
) -> None:
    with pytest.raises(CredentialsError, match="which is not installed here, and") as caught:
        place.cluster(user).get("pods")
    assert message in str(caught.value)
    assert "canary" not in f"{caught.value} {caught.value.hint}"


def script(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / "bin").mkdir(exist_ok=True)
    (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{text}\n")
    (tmp_path / "bin" / name).chmod(0o755)


def test_a_program_that_is_installed_comes_before_the_sdk(place: Place, tmp_path: Path) -> None:
    status = {"token": place.kubernetes.token}
    answer = {**EXEC_CREDENTIAL, "status": status}
    script(tmp_path, "aws", f"echo '{json.dumps(answer)}'")
    assert place.cluster(EKS).get("pods")["items"] == []


EXEC_CREDENTIAL = {
    "apiVersion": "client.authentication.k8s.io/v1beta1",
    "kind": "ExecCredential",
}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("echo Token expired, run login >&2; exit 255", "process returned 255. Token expired"),
        (f"echo '{json.dumps({**EXEC_CREDENTIAL, 'status': {}})}'", "neither a token nor"),
        ("echo not JSON", "failed to decode process output"),
    ],
)
def test_a_program_that_fails_is_told(
    place: Place, tmp_path: Path, text: str, message: str
) -> None:
    script(tmp_path, "mine", text)
    with pytest.raises(CredentialsError, match="program `mine`") as caught:
        place.cluster(program("mine")).get("pods")
    assert message in str(caught.value)


def test_a_programs_token_is_renewed_before_it_ends(place: Place, tmp_path: Path) -> None:
    """The program gives tokens of ten minutes."""
    issued = Issued(place.clock.now)
    door = Door(place.kubernetes, issued.refusal)
    script(tmp_path, "mine", f"read answer < {tmp_path}/answer; echo $answer")
    cluster = place.cluster(program("mine"))
    for number in range(12):
        token, ends = f"canary-{number}", place.clock.now() + timedelta(minutes=10)
        issued.ends[token] = ends
        status = {"token": token, "expirationTimestamp": f"{ends:%Y-%m-%dT%H:%M:%SZ}"}
        (tmp_path / "answer").write_text(json.dumps({**EXEC_CREDENTIAL, "status": status}) + "\n")
        cluster.get("pods")
        place.clock.sleep(240)
    assert door.refused == []
    assert len(set(door.tokens)) == 4, "each for three of the calls"


def test_a_program_may_give_a_certificate(place: Place, tmp_path: Path) -> None:
    """Which the client reads from files, and sends where the server's address begins so."""
    status = {"clientCertificateData": "CERTIFICATE\n", "clientKeyData": "canary-KEY\n"}
    answer = json.dumps({**EXEC_CREDENTIAL, "status": status}).replace("\\", "\\\\")
    script(tmp_path, "mine", f"echo '{answer}'")
    cluster = {"server": place.kubernetes.url.replace("http:", "https:")}
    chosen = Chosen("c", cluster, program("mine"), "ci")
    login = logged_in(chosen, Around(place.environ))
    read = {name: base64.b64decode(value).decode() for name, value in login.user.items()}
    assert read == {
        "client-certificate-data": "CERTIFICATE\n",
        "client-key-data": "canary-KEY\n",
    }


@pytest.mark.parametrize(
    ("user", "message"),
    [
        (legacy("azure", **{"apiserver-id": SERVER_APP}), "retired Entra integration"),
        (legacy("oidc", **{"id-token": "canary"}), "`auth-provider: oidc`, which gave no token"),
        (legacy("openstack"), "`auth-provider: openstack`, which gave no token"),
    ],
)
def test_an_auth_provider_of_yesterday_is_told(
    place: Place, user: dict[str, Any], message: str
) -> None:
    with pytest.raises(CredentialsError, match=message) as caught:
        place.cluster(user).get("pods")
    assert caught.value.hint
    assert "canary" not in str(caught.value)


# --- tokens of service accounts


def account_token(ends: datetime) -> str:
    claims = {"sub": "system:serviceaccount:runners:launcher", "exp": int(ends.timestamp())}
    return jwt.encode(claims, "canary-key-of-the-cluster-0123456789", algorithm="HS256")


def test_an_expired_token_of_a_service_account_is_told_as_that(place: Place) -> None:
    ends = datetime(2026, 11, 20, 8, 30, tzinfo=UTC)
    token = account_token(ends)
    Door(place.kubernetes, Issued(place.clock.now, {token: ends}).refusal)
    cluster = place.cluster({"token": token})
    with pytest.raises(Refused) as caught:
        cluster.get("pods")
    assert str(caught.value) == (
        "Unauthorized: the token of the service account launcher in runners expired on 2026-11-20"
        " at 08:30 UTC"
    )
    assert "kubectl create token launcher --namespace runners" in caught.value.hint
    assert "#a-token-that-lasts" in caught.value.hint
    assert token not in caught.value.hint
    with pytest.raises(CredentialsError, match="while listing: Unauthorized: the token") as told:
        with translated("listing"):
            cluster.get("pods")
    assert told.value.hint == caught.value.hint


def test_a_token_that_nobody_knows_is_not_told_as_expired(place: Place) -> None:
    Door(place.kubernetes, Issued(place.clock.now).refusal)
    token = account_token(place.clock.now() + HOUR)
    with pytest.raises(Refused) as caught:
        place.cluster({"token": token}).get("pods")
    assert str(caught.value) == "Unauthorized"
    assert "KUBERNETES_CONFIGURATION" in caught.value.hint


# --- GitLab's agent

AGENTS = {
    "octo/infra:cluster": "ci:7:canary-job-token",
    "octo/infra:other": "ci:8:canary-job-token",
}


def of_agents(url: str, **context: str) -> str:
    """What GitLab writes into KUBECONFIG of a job: contexts, none of which is the current one.
    https://docs.gitlab.com/user/clusters/agent/ci_cd_workflow"""
    users = {name: f"agent:{token.split(':')[1]}" for name, token in AGENTS.items()}
    contexts = [
        {"name": name, "context": {"cluster": "gitlab", "user": users[name], **context}}
        for name in AGENTS
    ]
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "gitlab", "cluster": {"server": f"{url}/k8s-proxy"}}],
            "users": [{"name": users[n], "user": {"token": t}} for n, t in AGENTS.items()],
            "contexts": contexts,
        }
    )


def test_gitlabs_agent_is_a_way_to_a_cluster(place: Place, tmp_path: Path) -> None:
    (tmp_path / "KUBECONFIG").write_text(of_agents(place.kubernetes.url, namespace="ci"))
    place.environ["KUBECONFIG"] = str(tmp_path / "KUBECONFIG")
    ends = {AGENTS["octo/infra:cluster"]: place.clock.now() + HOUR}
    door = Door(place.kubernetes, Issued(place.clock.now, ends).refusal, "/k8s-proxy")
    options = {"context": "octo/infra:cluster"}
    assert place.cluster("", **options).get("pods")["items"] == []
    assert place.kubernetes.calls == ["list pods ci"]
    with pytest.raises(Refused, match="GitLab's agent does not accept") as caught:
        place.cluster("", context="octo/infra:other").get("pods")
    assert "ci_access" in caught.value.hint
    assert door.refused == ["unknown"] * 2


def test_without_a_context_the_agents_are_named(place: Place, tmp_path: Path) -> None:
    text = of_agents(place.kubernetes.url)
    with pytest.raises(
        CredentialsError,
        match=r"has no current context; it has octo/infra:cluster, octo/infra:other\.",
    ) as caught:
        place.cluster(text).get("pods")
    assert "cloud-kubernetes-context" in caught.value.hint
    assert "canary" not in f"{caught.value} {caught.value.hint}"


# --- files


def test_several_files_are_one_kubeconfig_as_for_kubectl(place: Place, tmp_path: Path) -> None:
    """Of each name the first; a file that is not there does not matter."""
    whole = json.loads(place.kubernetes.kubeconfig)
    wrong = {"name": "launcher", "user": {"token": "canary-wrong"}}
    files = {
        "contexts": {"contexts": whole["contexts"], "current-context": "sandbox"},
        "users": {"users": whole["users"]},
        "rest": {
            "clusters": whole["clusters"],
            "users": [wrong],
            "contexts": None,
            "current-context": "another",
        },
    }
    for name, content in files.items():
        (tmp_path / name).write_text(yaml.safe_dump(content))
    (tmp_path / "empty").write_text("")
    named = [str(tmp_path / name) for name in ("gone", "empty", *files)]
    place.environ["KUBECONFIG"] = ":".join(named)
    assert place.cluster("").get("pods")["items"] == []


def test_paths_in_a_kubeconfig_are_relative_to_it(place: Place, tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "token").write_text(place.kubernetes.token)
    (folder / "config").write_text(place.kubeconfig({"tokenFile": "token"}))
    place.environ["KUBECONFIG"] = str(folder / "config")
    assert place.cluster("").get("pods")["items"] == []
    answer = {**EXEC_CREDENTIAL, "status": {"token": place.kubernetes.token}}
    (folder / "login").write_text(f"#!/bin/sh\necho '{json.dumps(answer)}'\n")
    (folder / "login").chmod(0o755)
    (folder / "config").write_text(place.kubeconfig(program("./login")))
    assert place.cluster("").get("pods")["items"] == []


# --- what the pages show

ROOT = Path(__file__).parents[2]
SHOWN = [
    yaml.safe_load(block)
    for block in re.findall(
        r"```yaml\n(.*?)```", (ROOT / "docs/kubernetes.md").read_text("utf-8"), re.S
    )
    if block.startswith(("apiVersion: v1", "users:"))
]
USERS = {one["name"]: one["user"] for block in SHOWN for one in block["users"]}


def signed_in(place: Place, google: Google, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after the steps before a launch; for AWS that is so already."""
    given(place, monkeypatch, **IDS)
    place.id_token = {"api://AzureADTokenExchange": ID_TOKEN}.__getitem__
    place.environ["GOOGLE_APPLICATION_CREDENTIALS_DATA"] = google.key()


@pytest.mark.parametrize("name", ["eks", "gke", "aks"])
def test_a_kubeconfig_of_the_page_works(
    place: Place,
    iam: Iam,
    google: Google,
    azure: Azure,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    signed_in(place, google, monkeypatch)
    refusals = {"eks": iam.refusal, "gke": google.issued.refusal, "aks": azure.refusal}
    door = Door(place.kubernetes, refusals[name])
    (whole,) = [block for block in SHOWN if "clusters" in block]
    whole["clusters"][0]["cluster"] = {"server": place.kubernetes.url}
    whole["users"][0]["user"] = USERS[name]
    place.kubernetes.namespaces.add("runners")
    assert place.cluster(yaml.safe_dump(whole)).get("pods")["items"] == []
    assert place.kubernetes.calls == ["list pods runners"]
    assert door.refused == []


def examples() -> dict[str, str]:
    """The kubeconfigs of the examples, by cloud and CI."""
    found = {}
    for cloud in ("eks", "gke", "aks"):
        workflow = yaml.safe_load((ROOT / f"examples/kubernetes-{cloud}.yml").read_text("utf-8"))
        step = workflow["jobs"]["launch"]["steps"][-1]
        found[f"{cloud} on GitHub"] = step["env"]["KUBERNETES_CONFIGURATION"]
    example = ROOT / "gitlab-component/examples/kubernetes-eks.yml"
    job = yaml.safe_load(example.read_text("utf-8"))["launch-runner"]
    return {**found, "eks on GitLab": job["variables"]["KUBERNETES_CONFIGURATION"]}


@pytest.mark.parametrize("name", examples())
def test_the_kubeconfig_of_an_example_works(
    place: Place,
    iam: Iam,
    google: Google,
    azure: Azure,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    signed_in(place, google, monkeypatch)
    refusals = {"eks": iam.refusal, "gke": google.issued.refusal, "aks": azure.refusal}
    text = re.sub(r"server: .*", f"server: {place.kubernetes.url}", examples()[name])
    text = re.sub(r"(?m)^ *certificate-authority-data: .*$", "", text)
    door = Door(place.kubernetes, refusals[name.partition(" ")[0]])
    place.kubernetes.namespaces.add("runners")
    assert place.cluster(text).get("pods")["items"] == []
    assert place.kubernetes.calls == ["list pods runners"]
    assert door.refused == []


def test_the_context_of_the_agents_example_is_one_that_gitlab_gives() -> None:
    example = ROOT / "gitlab-component/examples/kubernetes-agent.yml"
    (component,) = yaml.safe_load(example.read_text("utf-8"))["include"]
    context = component["inputs"]["cloud-kubernetes-context"]
    assert re.fullmatch(r"[\w./-]+:[a-z0-9-]+", context)
    assert context.count(":") == 1


def test_no_sdk_of_a_cloud_is_loaded_for_a_token() -> None:
    program = (
        "import sys; from runner_action.providers.kubernetes import client, cluster;"
        "sys.exit(' '.join({'boto3', 'azure.identity', 'azure.core'} & {*sys.modules}) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert (done.returncode, done.stderr) == (0, "")
