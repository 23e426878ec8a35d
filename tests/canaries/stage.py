"""A launch at one point, in this process, and what it has shown."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from urllib3.connectionpool import HTTPConnectionPool

from runner_action import cli, environment
from runner_action.model import ForgeName, ProviderName
from runner_action.sandbox.forges.github.api import FakeGitHub
from runner_action.sandbox.forges.gitlab.api import FakeGitLab
from tests.canaries.parrot import Parrot
from tests.canaries.points import DRESSES, Canary, Point, Road, Source, canary_of

PART = 12
"""Characters of a secret that must not be shown."""
TOKEN = "harmless-admin-token"
ID = "00000000-0000-0000-0000-000000000000"
KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


@dataclass(frozen=True)
class Shown:
    """What a launch ended with, and all that it has written but masks."""

    code: int
    text: str

    def leaks(self, canary: Canary) -> list[str]:
        """The parts of a canary that are in it, in any spelling."""
        small = self.text.lower()
        plain = [part for part in _parts(canary.first, canary.second, canary.text) if part in small]
        return plain + [part for part in _parts(*_encoded(canary)) if part in self.text]


def _parts(*texts: str) -> Iterator[str]:
    for text in texts:
        for start in range(len(text) - PART + 1):
            part = text[start : start + PART]
            if part.strip("=") == part:
                yield part


def _encoded(canary: Canary) -> Iterator[str]:
    """Base64, at each of the three places in its groups; without what others determine."""
    for before in range(3):
        for text in (canary.text, canary.first, canary.second):
            content = b"\0" * before + text.encode()
            yield base64.b64encode(content).decode()[4:-4]


@cache
def google_key() -> str:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()


class Stage:
    """The servers that all launches share: a parrot, a GitHub and a GitLab that accept TOKEN."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._parrot = Parrot(folder)
        self._servers = {
            ForgeName.GITHUB: FakeGitHub(tokens={TOKEN: "admin"}),
            ForgeName.GITLAB: FakeGitLab(tokens={TOKEN: ["api"]}, prefix=""),
        }

    def close(self) -> None:
        self._parrot.close()
        for server in self._servers.values():
            server.close()

    def shown(self, point: Point, canary: Canary, **others: str) -> Shown:
        """`others`: further variables; FOLDER, BROKEN and BINARY stand for paths."""
        folder = Path(tempfile.mkdtemp(dir=self._folder))
        argv, environ = self._told(point, canary, folder)
        paths = _useless(folder) if others else {}
        for name in others:
            environ |= self._needed(name)
        environ |= environment.tidied(
            {name: paths.get(text, text) for name, text in others.items()}
        )
        self._parrot.spelling = sum(map(ord, canary.first))
        self._parrot.page = point.road is Road.CUT
        out = io.StringIO()
        with _only(environ), _raising(point.road), redirect_stdout(out), redirect_stderr(out):
            try:
                code = cli.main(argv, environ)
            except SystemExit as stopped:
                code = int(stopped.code or 0)
        texts = [out.getvalue(), *_written(folder)]
        shutil.rmtree(folder, ignore_errors=True)  # threads of the launch may still write
        lines = "\n".join(texts).splitlines()
        return Shown(code, "\n".join(line for line in lines if "::add-mask::" not in line))

    def _told(self, point: Point, canary: Canary, folder: Path) -> tuple[list[str], dict[str, str]]:
        """Words and variables of the launch."""
        source = point.source
        argv = ["launch", "--dry-run", "--log=debug", f"--cloud={point.cloud}"]
        environ = {**self._job(point, folder), **self._credentials(point.cloud)}
        environ |= self._needed(source.name)
        value = DRESSES[source.dress](canary, self._parrot.url)
        if source.file:
            (folder / "given").mkdir()
            (folder / "given/file").write_text(value, newline="")
            value = str(folder / "given/file")
        if source.name.startswith("--"):
            argv.append(f"{source.name}={value}")
        else:
            environ[source.name] = value
        return argv, environment.tidied(environ)

    def _job(self, point: Point, folder: Path) -> dict[str, str]:
        """Variables of a job of GitHub or GitLab. The token is good only where it is not the
        point."""
        there: Any = self._servers[point.forge]
        about_token = "TOKEN" in point.source.name.upper() and not _is_of_cloud(point.source.name)
        url = self._parrot.url if about_token else there.url
        common = {
            "HOME": str(folder),
            "PATH": "/nowhere",
            "CML_RUNNER_ALLOW_HTTP": "true",
            "NO_PROXY": "127.0.0.1",
            "CML_RUNNER_REPO": f"{url}/octo/train",
            "CML_RUNNER_DRIVER": point.forge.value,
            "CI_PROJECT_DIR": str(folder),
            **({} if about_token else {"REPO_TOKEN": TOKEN}),
        }
        if point.forge is ForgeName.GITLAB:
            job = {"GITLAB_CI": "true", "CI_JOB_ID": "7", "CI_SERVER_URL": url}
            return {**common, **job, "CI_PROJECT_URL": f"{url}/octo/train"}
        files = ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY", "GITHUB_STATE")
        return {
            **common,
            **{name: str(folder / name) for name in files},
            "GITHUB_ACTIONS": "true",
            "GITHUB_SERVER_URL": url,
            "GITHUB_API_URL": f"{url}/api/v3",
            "GITHUB_REPOSITORY": "octo/train",
            "GITHUB_RUN_ID": "7",
        }

    def _credentials(self, cloud: str) -> dict[str, str]:
        """Harmless ones, with the addresses of the parrot."""
        there = {"AWS_EC2_METADATA_DISABLED": "true", "NO_GCE_CHECK": "true"}
        if cloud == ProviderName.AWS:
            return {**there, **dict.fromkeys(KEYS, "harmless"), "AWS_ENDPOINT_URL": self._url()}
        if cloud == ProviderName.AZURE:
            ids = ("AZURE_CLIENT_ID", "AZURE_TENANT_ID", "AZURE_SUBSCRIPTION_ID")
            safe = self._parrot.safe_url
            return {
                **dict.fromkeys(ids, ID),
                "AZURE_CLIENT_SECRET": "harmless",
                "AZURE_AUTHORITY_HOST": safe,
                "AZURE_RESOURCE_MANAGER_ENDPOINT": safe,
                "AZURE_POD_IDENTITY_AUTHORITY_HOST": self._url(),
                "REQUESTS_CA_BUNDLE": str(self._parrot.authority),
            }
        if cloud == ProviderName.GCP:
            key = {
                "type": "service_account",
                "project_id": "octo",
                "client_email": "octo@train.example",
                "private_key": google_key(),
                "token_uri": f"{self._url()}/oauth2/token",
            }
            return {
                **there,
                "GOOGLE_APPLICATION_CREDENTIALS_DATA": json.dumps(key),
                "CLOUDSDK_API_ENDPOINT_OVERRIDES_COMPUTE": self._url(),
            }
        if cloud == ProviderName.KUBERNETES:
            config = DRESSES["kubeconfig"](Canary("harmless", "token", ""), self._url())
            return {"KUBERNETES_CONFIGURATION": config, "CML_RUNNER_CLOUD_IMAGE": "runner:1"}
        return {}

    def _url(self) -> str:
        return self._parrot.url

    def _needed(self, name: str) -> dict[str, str]:
        """What makes an SDK use this variable; empty is absent."""
        url, no_keys = self._parrot.url, dict.fromkeys(KEYS, "")
        no_secret = {"AZURE_CLIENT_SECRET": ""}
        container = {**no_keys, "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{url}/container"}
        needed: Mapping[str, Mapping[str, str]] = {
            "AWS_SHARED_CREDENTIALS_FILE": no_keys,
            "AWS_CONFIG_FILE": no_keys,
            "AWS_WEB_IDENTITY_TOKEN_FILE": {**no_keys, "AWS_ROLE_ARN": "arn:aws:iam::1:role/octo"},
            "AWS_CONTAINER_AUTHORIZATION_TOKEN": container,
            "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": container,
            "AZURE_PASSWORD": {**no_secret, "AZURE_USERNAME": "octo"},
            "AZURE_CLIENT_CERTIFICATE_PATH": no_secret,
            "AZURE_FEDERATED_TOKEN_FILE": no_secret,
            "IDENTITY_HEADER": {**no_secret, "IDENTITY_ENDPOINT": f"{url}/identity"},
            "MSI_SECRET": {**no_secret, "MSI_ENDPOINT": f"{url}/identity"},
            "ACTIONS_ID_TOKEN_REQUEST_TOKEN": {
                **no_secret,
                "ACTIONS_ID_TOKEN_REQUEST_URL": f"{url}/id-token",
            },
            "GOOGLE_APPLICATION_CREDENTIALS": {"GOOGLE_APPLICATION_CREDENTIALS_DATA": ""},
            "KUBECONFIG": {"KUBERNETES_CONFIGURATION": ""},
        }
        return dict(needed.get(name, {}))


def _is_of_cloud(name: str) -> bool:
    return name.startswith(("AWS_", "AZURE_", "GOOGLE_", "ACTIONS_"))


def _useless(folder: Path) -> dict[str, str]:
    """A folder, a file that no SDK can parse, and one that is no text."""
    given = folder / "given"
    given.mkdir(exist_ok=True)
    (given / "broken").write_text("[default\n\tfoo: [bar\n")
    (given / "binary").write_bytes(bytes(range(128, 256)))
    return {
        "FOLDER": str(given),
        "BROKEN": str(given / "broken"),
        "BINARY": str(given / "binary"),
    }


def _written(folder: Path) -> Iterator[str]:
    """What the launch has written there."""
    for path in folder.rglob("*"):
        if path.is_file() and path.parent.name != "given":
            with suppress(FileNotFoundError):  # temporary, and gone
                yield path.read_text("utf-8", "replace")


@contextmanager
def _only(environ: Mapping[str, str]) -> Iterator[None]:
    """SDKs read the environment of the process."""
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update({name: text for name, text in environ.items() if "\0" not in text})
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _raise(pool: Any, method: str, url: str, body: Any = None, *_: Any, **options: Any) -> NoReturn:
    raise ArithmeticError(f"{method} {url}: {body!r}, {options.get('headers')}")


@contextmanager
def _raising(road: Road) -> Iterator[None]:
    """All SDKs send by urllib3, which raises what nobody expects."""
    usual = HTTPConnectionPool.urlopen
    if road is Road.RAISED:
        HTTPConnectionPool.urlopen = _raise  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        HTTPConnectionPool.urlopen = usual  # type: ignore[method-assign]


@dataclass(frozen=True)
class Outcome:
    """What was wrong; empty: nothing."""

    where: str
    problem: str
    shown: Shown


def tried(point: Point, stage: Stage, seed: int) -> Outcome:
    canary = canary_of(point, seed)
    shown = stage.shown(point, canary)
    if leaks := shown.leaks(canary):
        return Outcome(str(point), f"leak: {leaks[0]}", shown)
    crashed = shown.code == cli.BUG_EXIT_CODE and point.road is not Road.RAISED
    return Outcome(str(point), "exit 70" if crashed else "", shown)


def useless(cloud: str, name: str, value: str, stage: Stage) -> Outcome:
    """A launch with a variable that nobody can use."""
    point = Point(Source("UNREAD"), "nothing", cloud, ForgeName.GITHUB, Road.QUOTED)
    shown = stage.shown(point, Canary("harmless", "text", ""), **{name: value})
    crashed = shown.code == cli.BUG_EXIT_CODE
    return Outcome(f"{name}={value} / {cloud}", "exit 70" if crashed else "", shown)
