"""The environment is not ours: whatever a variable of an SDK or a CI holds is no bug of ours."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

from runner_action import cli, environment, inputs, providers, secret_sources
from runner_action.ci.github import GitHubFront
from runner_action.errors import CredentialsError, InputError
from runner_action.forges import places
from runner_action.model import ProviderName
from runner_action.request import LaunchRequest
from runner_action.waiting import SystemClock

BROKEN = "[default\ncanary-word = \n\tfoo: [bar\n"
REFUSED = {
    "aws": {
        "AWS_PROFILE": ["unknown"],
        "AWS_DEFAULT_PROFILE": ["unknown"],
        "AWS_CONFIG_FILE": ["BROKEN"],
        "AWS_SHARED_CREDENTIALS_FILE": ["BROKEN"],
        "AWS_ENDPOINT_URL": ["http://[", "garbage"],
        "AWS_ENDPOINT_URL_EC2": ["http://[", "garbage"],
        "AWS_METADATA_SERVICE_TIMEOUT": ["garbage"],
        "AWS_DEFAULTS_MODE": ["garbage"],
    },
    "azure": {
        "AZURE_AUTHORITY_HOST": ["http://["],
        "AZURE_RESOURCE_MANAGER_ENDPOINT": ["http://["],
        "AZURE_TOKEN_CREDENTIALS": ["garbage"],
    },
    "gcp": {"CLOUDSDK_API_ENDPOINT_OVERRIDES_COMPUTE": ["http://["]},
    "kubernetes": {"KUBECONFIG": ["BROKEN", "FOLDER", "/nowhere"]},
}
"""What building a client needs and cannot use."""
UNNEEDED = {"aws": {"AWS_MAX_ATTEMPTS": ["garbage"], "AWS_RETRY_MODE": ["garbage"]}}
NEEDED = {
    "azure": {
        "AZURE_SUBSCRIPTION_ID": "00000000-0000-0000-0000-000000000000",
        "AZURE_TENANT_ID": "00000000-0000-0000-0000-000000000000",
    },
    "gcp": {
        "GOOGLE_APPLICATION_CREDENTIALS_DATA": (
            '{"type": "external_account", "audience": "a", "subject_token_type": "t",'
            ' "token_url": "https://sts.example.com", "credential_source": {"file": "/x"}}'
        )
    },
}


def launch(cloud: str, environ: dict[str, str]) -> LaunchRequest:
    flags = {"repo": ["octo/train"], "token": ["canary"], "cloud": [cloud]}
    return inputs.parse(inputs.Raw(flags=flags, environ=environ), lambda path: None)[0]


def cases(table: dict[str, dict[str, list[str]]]) -> list[tuple[str, str, str]]:
    return [
        (cloud, name, value)
        for cloud, variables in table.items()
        for name, values in variables.items()
        for value in values
    ]


def build(cloud: str, name: str, value: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Builds the cloud's clients in this environment."""
    (folder / "broken").write_text(BROKEN)
    value = {"BROKEN": str(folder / "broken"), "FOLDER": str(folder)}.get(value, value)
    environ = {"HOME": str(folder), **NEEDED.get(cloud, {}), name: value}
    for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(key, "x")
    for key, text in environ.items():
        monkeypatch.setenv(key, text)
    request = launch(cloud, environ)
    assert request.cloud
    provider: Any = providers.provider_for(request.cloud, environ, None, SystemClock())
    built = {
        "aws": lambda: provider._client("us-east-1"),
        "azure": lambda: provider._arm.compute,
        "gcp": lambda: provider._compute.account,
        "kubernetes": lambda: provider._cluster.access,
    }
    with providers.configured(request.cloud.provider, environ):
        built[cloud]()


@pytest.mark.parametrize(("cloud", "name", "value"), cases(REFUSED))
def test_a_variable_of_an_sdk_is_named_and_no_bug(
    cloud: str, name: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CredentialsError) as refused:
        build(cloud, name, value, tmp_path, monkeypatch)
    whole = f"{refused.value} {refused.value.hint}"
    assert name in whole
    assert "canary" not in whole


@pytest.mark.parametrize(("cloud", "name", "value"), cases(UNNEEDED))
def test_what_no_client_needs_does_no_harm(
    cloud: str, name: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(cloud, name, value, tmp_path, monkeypatch)


def test_a_bug_is_not_reported_as_the_users_configuration() -> None:
    with pytest.raises(AssertionError), providers.configured(ProviderName.AWS, {}):
        providers.traits_of(None)  # type: ignore[arg-type]


def test_a_step_without_a_place_for_outputs_creates_nothing(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing/file"):
        with pytest.raises(InputError, match="GITHUB_OUTPUT names a file that cannot be written"):
            GitHubFront({"GITHUB_OUTPUT": str(path)}, io.StringIO()).forget()


def test_a_summary_that_cannot_be_written_is_a_warning(tmp_path: Path) -> None:
    out = io.StringIO()
    environ = {"GITHUB_OUTPUT": str(tmp_path / "out"), "GITHUB_STEP_SUMMARY": str(tmp_path)}
    GitHubFront(environ, out).done({"label": "x"}, "text")
    assert (tmp_path / "out").read_text() == "label=x\n"
    assert "::warning::Could not write the summary (GITHUB_STEP_SUMMARY)" in out.getvalue()


@pytest.mark.parametrize("server", ["http://[", "garbage", "https://"])
def test_a_server_that_is_no_address_names_no_repository(server: str) -> None:
    environ = {"GITHUB_SERVER_URL": server, "GITHUB_REPOSITORY": "octo/train"}
    assert places.project_of(environ) is None


@pytest.mark.parametrize("api", ["http://[", "garbage"])
def test_an_api_that_is_no_address_is_named(api: str) -> None:
    environ = {"GITHUB_SERVER_URL": "https://github.com", "GITHUB_API_URL": api}
    with pytest.raises(InputError, match="GITHUB_API_URL must be an address"):
        cli._api_url(launch("aws", {}), environ)


def test_an_empty_variable_is_an_absent_one() -> None:
    assert environment.tidied({"AWS_PROFILE": " ", "AWS_CA_BUNDLE": "", "C": "c"}) == {"C": "c"}


def test_that_nothing_was_created_is_no_absent_note() -> None:
    assert environment.tidied({"STATE_runners": ""}) == {"STATE_runners": ""}


@pytest.mark.parametrize(
    "around", ["{}\n", "{}\r\n", " {}", '"{}"', "\ufeff{}", "{}\u200b", "{}\u00a0"]
)
@pytest.mark.parametrize("name", sorted(secret_sources.VARIABLES))
def test_what_surrounds_a_credential_is_removed(name: str, around: str) -> None:
    assert environment.tidied({name: around.format("secret/+=")}) == {name: "secret/+="}


@pytest.mark.parametrize(
    ("name", "text", "used"),
    [
        ("HTTPS_PROXY", "proxy.corp.example:3128", "http://proxy.corp.example:3128"),
        ("https_proxy", "http://proxy.corp.example:3128", "http://proxy.corp.example:3128"),
        ("https_proxy", "socks5://proxy.corp.example:1080", None),
        ("HTTPS_PROXY", "http://[", None),
        ("NO_PROXY", "localhost, 127.0.0.1, .corp.example", "localhost,127.0.0.1,.corp.example"),
        ("no_proxy", "a b", "a,b"),
        ("NO_PROXY", "$HOSTS", None),
    ],
)
def test_a_proxy_of_the_ci_is_read_as_other_programs_do(
    name: str, text: str, used: str | None
) -> None:
    environ = {"HTTPS_PROXY": "http://proxy.example", name: text}
    if name == "https_proxy":
        del environ["HTTPS_PROXY"]
    flags = {"repo": ["octo/train"], "token": ["canary"], "cloud": ["aws"]}
    request, warnings = inputs.parse(inputs.Raw(flags, environ), lambda path: None)
    taken = dict(request.environment).get(name.upper(), "")
    assert (taken == used or taken.startswith(f"{used},")) if used else text not in taken
    left_out = [warning for warning in warnings if warning.startswith(f"{name} cannot be used")]
    assert bool(left_out) == (used is None)
