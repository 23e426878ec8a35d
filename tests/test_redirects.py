"""No token follows a redirect to another origin, nor from https to http, whoever asks: every
client of the launcher, each kind of redirect, each kind of another origin."""

from __future__ import annotations

import base64
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import trustme
from azure.core.credentials import AccessToken

from runner_action import retrying
from runner_action.bootstrap import published
from runner_action.ci import job
from runner_action.errors import RunnerActionError
from runner_action.forges.github.api import Patience
from runner_action.forges.github.client import GitHub
from runner_action.forges.gitlab.client import GitLab
from runner_action.model import App, Repository, Secret
from runner_action.providers.aws.client import AwsProvider
from runner_action.providers.azure.arm import Account as AzureAccount
from runner_action.providers.azure.arm import Arm
from runner_action.providers.gcp.client import GcpProvider
from runner_action.providers.gcp.compute import Compute
from runner_action.providers.gcp.credentials import Account, account
from runner_action.providers.gcp.options import GcpOptions
from runner_action.providers.kubernetes.cluster import Cluster
from runner_action.providers.kubernetes.options import KubernetesOptions
from tests.fakes import FakeClock
from tests.providers.test_gcp_credentials import KEY

# Launches end with their process: nobody closes the clients of libraries here.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
CANARY = "canary-token"
CARRIERS = ("authorization", "private-token", "job-token", "cookie", "x-amz-security-token")
CODES = (301, 302, 303, 307, 308)


@dataclass
class Server:
    """Answers each request with `answer`; keeps what it was sent."""

    server: ThreadingHTTPServer
    scheme: str
    host: str
    seen: list[tuple[dict[str, str], str]] = field(default_factory=list)
    target: str = ""
    code: int = 200

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.host}:{self.server.server_address[1]}"

    @property
    def secrets(self) -> list[str]:
        """What it was sent that nobody but the one who was asked should have."""
        found = [
            f"{name}: {text}"
            for headers, _ in self.seen
            for name, text in headers.items()
            if name in CARRIERS
        ]
        return [*found, *(body for _, body in self.seen if CANARY in body or "assertion" in body)]


class Handler(BaseHTTPRequestHandler):
    made: Server

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        self.made.seen.append(({name.lower(): text for name, text in self.headers.items()}, body))
        self.send_response(self.made.code if self.made.target else 200)
        if self.made.target:
            self.send_header("Location", f"{self.made.target}{self.path}")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = _answer  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


def served(host: str, tls: ssl.SSLContext | None = None) -> Server:
    handler = type("Its", (Handler,), {})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    one = Server(server, "https" if tls else "http", host)
    handler.made = one  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    return one


@dataclass
class World:
    here: Server
    """Over TLS for those who ask nothing else."""
    secure: Server
    elsewhere: dict[str, Server]
    folder: Path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(tls)
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    servers = [
        served("127.0.0.1"),
        served("127.0.0.1", tls),
        served("localhost"),
        served("127.0.0.1"),
        served("localhost", tls),
    ]
    here, secure, host, port, tls_host = servers
    yield World(
        here,
        secure,
        {"another host": host, "another port": port, "another host, by TLS": tls_host},
        folder,
    )
    for one in servers:
        one.server.shutdown()
        one.server.server_close()


@pytest.fixture
def world(made: World, monkeypatch: pytest.MonkeyPatch) -> World:
    for one in (made.here, made.secure, *made.elsewhere.values()):
        one.seen.clear()
        one.target = ""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(made.folder / "ca.pem"))
    for name, value in {
        "AWS_ACCESS_KEY_ID": "AKIA",
        "AWS_SECRET_ACCESS_KEY": CANARY,
        "AWS_SESSION_TOKEN": CANARY,
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", made.here.url)
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    return made


# --- everyone who asks


def github(world: World, **_: object) -> None:
    forge = GitHub(
        Repository(url=f"{world.here.url}/octo/train"),
        Secret(CANARY),
        world.here.url,
        patience=Patience(FakeClock()),
    )
    for ask in (forge.runners, forge.registration_token, lambda: forge.deregister("x", 1)):
        with suppress(RunnerActionError, KeyError):
            ask()


def github_app(world: World) -> None:
    forge = GitHub(
        Repository(url=f"{world.here.url}/octo/train"),
        App(id="1", key=Secret(KEY)),
        world.here.url,
        patience=Patience(FakeClock()),
    )
    with suppress(RunnerActionError, KeyError):
        forge.runners()


def gitlab(world: World) -> None:
    forge = GitLab(
        Repository(url=f"{world.here.url}/octo/train"),
        Secret(CANARY),
        f"{world.here.url}/api/v4",
        downloads=world.here.url,
    )
    asks: list[Callable[[], object]] = [
        lambda: forge._api.get("/version"),
        lambda: forge._api.post("/user/runners", {"token": CANARY}),
        lambda: forge._api.put("/runners/1", {"note": CANARY}),
        lambda: forge._list.remove(1),
        lambda: forge.download("x64", "latest"),
    ]
    for ask in asks:
        with suppress(RunnerActionError):
            ask()


def github_id_token(world: World) -> None:
    ask = job.id_tokens(
        {
            "ACTIONS_ID_TOKEN_REQUEST_URL": f"{world.here.url}/oidc",
            "ACTIONS_ID_TOKEN_REQUEST_TOKEN": CANARY,
        }
    )
    assert ask
    with suppress(RunnerActionError):
        ask("sts.amazonaws.com")


def agents_file(world: World) -> None:
    with suppress(RunnerActionError):
        published.check(f"{world.here.url}/agent.zip", "0" * 64)


def google_tokens(world: World) -> None:
    key = {"type": "service_account", "project_id": "p", "private_key_id": "k", "private_key": KEY}
    key |= {
        "client_email": "a@p.iam.gserviceaccount.com",
        "client_id": "1",
        "token_uri": f"{world.here.url}/token",
    }
    with suppress(RunnerActionError):
        account(GcpOptions(credentials=Secret(json.dumps(key))), None)


def google(world: World) -> None:
    from google.oauth2.credentials import Credentials

    who = Account(Credentials(CANARY), "p")  # type: ignore[no-untyped-call]
    with suppress(Exception):
        GcpProvider(Compute(lambda: who, world.here.url), FakeClock())._zones()


def aws(world: World) -> None:
    with suppress(Exception):  # an answer that is no XML is not the cloud's
        AwsProvider.from_environment(FakeClock()).find({}, ["us-east-1"])


class Known:
    """A credential of Azure's SDK."""

    def get_token(self, *_: object, **__: object) -> AccessToken:
        return AccessToken(CANARY, 1 << 40)


def azure(world: World) -> None:
    arm = Arm(lambda: AzureAccount(Known(), "s"), FakeClock(), world.secure.url)
    for ask in (
        lambda: arm.get("/x", "1"),
        lambda: arm.put("/x", "1", {"secret": CANARY}),
        lambda: arm.delete_group("x"),
    ):
        with suppress(Exception):
            ask()


def kubernetes(world: World) -> None:
    config: dict[str, Any] = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u", "namespace": "n"}}],
        "clusters": [{"name": "k", "cluster": {"server": world.here.url}}],
        "users": [{"name": "u", "user": {"token": CANARY}}],
    }
    text = base64.b64encode(json.dumps(config).encode()).decode()
    cluster = Cluster.from_environment(KubernetesOptions(configuration=Secret(text)), {})
    secret = {"stringData": {"x": CANARY}}
    asks: list[Callable[[], object]] = [
        lambda: cluster.get("pods"),
        lambda: cluster.create("secrets", secret),
    ]
    for ask in asks:
        with suppress(Exception):
            ask()


CLIENTS = [
    github,
    github_app,
    gitlab,
    github_id_token,
    agents_file,
    google_tokens,
    google,
    aws,
    azure,
    kubernetes,
]
PUBLIC = (gitlab, agents_file)
"""These ask for what is nobody's secret, too: such questions may go on to a mirror."""


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("where", ["another host", "another port", "another host, by TLS"])
@pytest.mark.parametrize("client", CLIENTS)
def test_nobody_else_gets_what_was_meant_for_one(
    client: Callable[[World], None], where: str, code: int, world: World
) -> None:
    there = world.elsewhere[where]
    for one in (world.here, world.secure):
        one.target, one.code = there.url, code
    client(world)
    assert world.here.seen or world.secure.seen, "it asked"
    assert there.secrets == []
    if client not in PUBLIC:
        assert [body for _, body in there.seen if body] == []


@pytest.mark.parametrize("client", CLIENTS)
def test_all_of_them_do_have_a_secret(client: Callable[[World], None], world: World) -> None:
    """Else the test above would say nothing."""
    client(world)
    sent = [*world.here.secrets, *world.secure.secrets]
    assert bool(sent) is (client is not agents_file)


@pytest.mark.parametrize("public", [True, False])
def test_nothing_goes_from_https_to_http(public: bool, world: World) -> None:
    world.secure.target, world.secure.code = world.here.url, 302
    with (
        retrying.session(public=public) as session,
        pytest.raises(retrying.Elsewhere, match="redirected from https://"),
    ):
        session.get(world.secure.url, timeout=5)
    assert world.here.seen == []


def test_what_is_public_may_be_at_a_mirror_and_all_else_at_another_path(world: World) -> None:
    there = world.elsewhere["another host"]
    world.here.target, world.here.code = there.url, 302
    with retrying.session(public=True) as session:
        assert session.get(world.here.url, timeout=5).json() == {}
    assert there.seen


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("https://a.test/x", "https://A.test:443/y", True),
        ("http://a.test", "https://a.test", False),
        ("https://a.test", "https://a.test:8443", False),
        ("https://a.test", "https://b.a.test", False),
        ("https://a.test", "https://a.test@evil.test", False),
    ],
)
def test_an_origin_is_scheme_host_and_port(one: str, other: str, same: bool) -> None:
    assert (retrying.origin(one) == retrying.origin(other)) is same


class Renamed(BaseHTTPRequestHandler):
    """A GitHub whose repository has another address. `seen`: what arrives there."""

    code = 307
    seen: list[tuple[str, str]]

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        new = "/api/v3/repositories/7/"
        there = self.path.startswith(new)
        if there:
            self.seen.append((self.command, body))
        self.send_response(200 if there else self.code)
        old = "/api/v3/repos/octo/train/"
        path = self.path.replace(old, new)
        self.send_header("Location", f"http://{self.headers['Host']}{path}")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", "16")
        self.end_headers()
        self.wfile.write(b'{"message": "x"}')

    do_GET = do_POST = do_DELETE = answer  # noqa: N815  http.server's names

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize("verb", ["GET", "POST", "DELETE"])
@pytest.mark.parametrize("code", [301, 302, 307, 308])
def test_a_renamed_repository_gets_the_whole_call(code: int, verb: str) -> None:
    body = {"labels": ["cml"]} if verb == "POST" else None
    handler = type("Handler", (Renamed,), {"code": code, "seen": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/octo/train"
        github = GitHub(Repository(url=url), Secret(CANARY))
        assert github._api.call(verb, f"{github._api.root}/actions/x", body) == {"message": "x"}
        server.shutdown()
    ((method, text),) = handler.seen  # type: ignore[attr-defined]
    assert (method, json.loads(text) if text else None) == (verb, body)
