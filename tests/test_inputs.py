"""Inputs: a case is a file in tests/inputs/. Valid ones hold the expected request, invalid ones
the exact problems, in order."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from runner_action import cli, commandline, inputs
from runner_action.errors import InputError
from runner_action.inputs.conversion import public_half
from runner_action.model import App, Secret

FOLDER = Path(__file__).parent / "inputs"
VALID = sorted((FOLDER / "valid").glob("*.json"))
INVALID = sorted((FOLDER / "invalid").glob("*.json"))
FILES = {
    "./setup.sh": "echo from a file\n",
    "./ca.pem": "# our own\n-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
}


def files(found: dict[str, Any]) -> Callable[[str], str | None]:
    """Those of all cases, and those that a case brings, as JSON."""
    return {
        **FILES,
        **{name: json.dumps(content) for name, content in found.get("files", {}).items()},
    }.get


def case(path: Path) -> tuple[dict[str, Any], inputs.Raw]:
    found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    flags, unknown = commandline.flags_of(found["argv"])
    return found, inputs.Raw(flags=flags, environ=found.get("environ", {}), unknown=unknown)


def field(request: object, name: str) -> Any:
    """A field by its dotted name, in JSON's types."""
    value: Any = request
    for part in name.split("."):
        value = getattr(value, part)
    if isinstance(value, Secret):
        return value.reveal()
    return list(value) if isinstance(value, tuple) else value


@pytest.mark.parametrize("path", VALID, ids=lambda path: path.stem)
def test_valid(path: Path) -> None:
    found, raw = case(path)
    request, warnings = inputs.parse(raw, files(found))
    assert {name: field(request, name) for name in found["expect"]} == found["expect"]
    assert warnings == found.get("warnings", [])
    assert "canary" not in repr(request)


@pytest.mark.parametrize("path", INVALID, ids=lambda path: path.stem)
def test_invalid(path: Path) -> None:
    found, raw = case(path)
    with pytest.raises(InputError) as caught:
        (inputs.parse_restart if inputs.command_of(raw) == "restart" else inputs.parse)(
            raw, files(found)
        )
    assert list(caught.value.problems) == found["problems"]
    assert caught.value.exit_code == 2
    assert "canary" not in str(caught.value)


def test_every_rule_of_the_schema_is_refused_by_some_case() -> None:
    """A rule without a case could never fire, and nobody would know."""
    told = " ".join(
        problem for path in INVALID for problem in json.loads(path.read_text("utf-8"))["problems"]
    )
    messages = [rule["x-message"] for rule in inputs.schema()["allOf"]]
    messages += [
        prop["x-message"]
        for name, prop in inputs.schema()["properties"].items()
        if "x-message" in prop and name not in UNREACHED
    ]
    silent = [message for message in messages if message.rpartition("}")[2] not in told]
    assert silent == []


UNREACHED = {
    "runner-group": "refused characters only",
    "cloud-region": "AWS has a stricter rule; the others have no provider yet",
    "cloud-type": "refused characters only",
    "cloud-image": "AWS has a stricter rule",
    "cloud-permission-set": "AWS has a stricter rule",
    "docker-volumes": "its forge has no provider yet",
}


def test_what_is_not_given_at_all_is_told_besides_what_is_wrong(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)  # no checkout, which would say the repository
    assert (
        cli.main(
            [
                "launch",
                "--cloud=aws",
                "--cloud-region=us-wst",
                "--idle-timeout=-7",
                "--single",
                "--reuse",
            ],
            {},
        )
        == 2
    )
    told = capsys.readouterr().err
    assert "3 problems with the inputs" in told
    assert "4." not in told
    assert "Besides, --repo is missing" in told
    assert "Besides, --token is missing" in told


def test_the_command_tells_numbered_problems_and_exits_with_2(
    capsys: pytest.CaptureFixture[str],
) -> None:
    argv = [
        "launch",
        "--cloud=aws",
        "--cloud-region=us-wst",
        "--idle-timeout=-7",
        "--single",
        "--reuse",
    ]
    assert cli.main(argv, {"REPO_TOKEN": "canary", "CML_REPO": "octo/train"}) == 2
    told = capsys.readouterr().err
    assert told.startswith("Error: 3 problems with the inputs:\n  1. --idle-timeout=-7 must be")
    assert "\n  2. --single and --reuse cannot be combined" in told
    assert "\n  3. --cloud-region=us-wst" in told
    assert "did you mean `us-west`?" in told
    assert "canary" not in told


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (
            ["--cloud=aws", "--repo=https://github.com/a/b/c"],
            "is not a repository, organisation or enterprise",
        ),
        (
            ["--cloud=aws", "--repo=octo/train", "--runner-group=big"],
            "a repository has no runner groups",
        ),
        (
            ["restart", "--repo=https://gitlab.com/octo/train", "--run-id=1"],
            "GitLab starts nothing when a pipeline ends",
        ),
    ],
)
def test_what_is_not_there_yet_is_refused_in_one_sentence(
    argv: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(argv, {"REPO_TOKEN": "canary"}) == 2
    assert sentence in capsys.readouterr().err


def test_a_flag_without_its_value_is_told_like_all_else(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["launch", "--name"], {}) == 2
    assert "1. --name: expected one argument" in capsys.readouterr().err


def help_of(capsys: pytest.CaptureFixture[str], command: str) -> str:
    with pytest.raises(SystemExit) as stopped:
        cli.main([command, "--help"], {})
    assert stopped.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("command", ["launch", "status", "reap", "destroy", "restart", "cleanup"])
def test_help_of_a_command_has_what_it_reads_and_nothing_else(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    told = help_of(capsys, command)
    assert f"usage: cml-runner {command} " in told
    assert set(re.findall(r"^  --([a-z-]+)", told, re.M)) - {"version", "json"} == (
        commandline.reads(command)
    )
    flat = " ".join(told.split())
    for name in commandline.reads(command):
        text = inputs.schema()["properties"][name]["description"]
        assert text.split(".")[0].split("`")[0] in flat
    assert " ]" not in told, "no artefacts"


@pytest.mark.parametrize("argv", [["--help"], ["-h"], ["help"]])
def test_help_fits_a_screen_and_has_every_command(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(argv, {}) == 0
    told = capsys.readouterr().out
    assert told.count("\n") <= 40
    assert max(map(len, told.splitlines())) <= 100
    words = inputs.schema()["properties"]["command"]["enum"]
    assert set(words) | {"permissions", "sandbox"} == set(commandline.COMMANDS)
    assert [name for name in commandline.COMMANDS if f"\n  {name} " not in told] == []


@pytest.mark.parametrize("command", ["status", "reap", "destroy", "restart"])
def test_a_flag_that_a_command_does_not_read_is_refused(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = [command, "--repo=octo/train", "--labels=zzz", "--single", "--driver=github"]
    assert cli.main(argv, {"REPO_TOKEN": "canary"}) == 2
    told = capsys.readouterr().err
    for flag in ("--labels", "--single"):
        assert f"{flag} is not read by `{command}`: leave it out" in told
    assert "--driver is not read" not in told


def test_secrets_are_masked_before_anything_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    environ = {
        "GITHUB_ACTIONS": "true",
        "INPUT_TOKEN": "canary-token",
        "INPUT_CLOUD-SSH-PRIVATE": "canary-1\ncanary-2",
        "INPUT_COUNT": "no",
    }
    assert cli.main(["launch"], environ) == 2
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == ["::add-mask::canary-token", "::add-mask::canary-1", "::add-mask::canary-2"]
    assert not any("canary" in line for line in lines[3:])


def test_a_real_key_is_reduced_to_its_public_half() -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

    formats = serialization.PrivateFormat
    both, old = (formats.PKCS8, formats.OpenSSH), rsa.generate_private_key(65537, 2048)
    pairs = [
        (old, formats.TraditionalOpenSSL),
        *((key, form) for key in (old, ed25519.Ed25519PrivateKey.generate()) for form in both),
    ]
    for key, form in pairs:
        text = key.private_bytes(
            serialization.Encoding.PEM, form, serialization.NoEncryption()
        ).decode()
        public = public_half(text)
        assert public.startswith(("ssh-rsa ", "ssh-ed25519 "))
        assert "PRIVATE" not in public


# --- a GitHub App


@pytest.fixture(scope="module")
def key() -> str:
    made = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return made.private_bytes(
        Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()
    ).decode()


@pytest.mark.parametrize(
    "written",
    [
        str,
        lambda pem: base64.b64encode(pem.encode()).decode(),
        lambda pem: pem.replace("\n", "\\n"),
        str.strip,
    ],
)
def test_an_apps_key_as_people_write_it(written: Callable[[str], str], key: str) -> None:
    raw = inputs.Raw(
        flags={},
        environ={
            "INPUT_APP-ID": "Iv23liAbCdEfGhIjKlMn",
            "INPUT_APP-PRIVATE-KEY": written(key),
            "CML_RUNNER_REPO": "octo/train",
        },
    )
    request, warnings = inputs.parse(raw, lambda _: None)
    assert request.token == App(id="Iv23liAbCdEfGhIjKlMn", key=Secret(key))
    assert (request.restart_token, request.restart_limit, warnings) == (None, 0, [])
    assert {key, written(key).strip()} <= set(inputs.secrets(raw, lambda _: None)), (
        "masked as it was written and as it was read"
    )
    assert key.splitlines()[1] not in repr(request)


def test_a_key_that_is_none_is_refused_without_its_text(key: str) -> None:
    public = "-----BEGIN PUBLIC KEY-----\ncanary\n-----END PUBLIC KEY-----"
    for text, kind in (
        (public, ", but a public key"),
        ("canary-key", ""),
        (base64.b64encode(b"canary").decode(), ", but Base64 of something else"),
        (key[:-100], ", but a key whose end is missing"),
    ):
        with pytest.raises(InputError) as caught:
            inputs.parse(
                inputs.Raw(
                    flags={},
                    environ={
                        "INPUT_APP-ID": "4711",
                        "INPUT_APP-PRIVATE-KEY": text,
                        "CML_RUNNER_REPO": "octo/train",
                    },
                ),
                lambda _: None,
            )
        (problem,) = caught.value.problems
        assert (
            problem
            == "input app-private-key must be the private key of a GitHub App: the text of its"
            f" `.pem` file, that in Base64, or its path{kind}"
        )


TEXTS = [
    name
    for name, prop in inputs.schema()["properties"].items()
    if "string" in (prop["type"], *prop.get("items", {}).values()) and name != "command"
]
SERVERS = (
    "GITHUB_SERVER_URL",
    "CI_SERVER_URL",
    "GITHUB_API_URL",
    "CI_API_V4_URL",
    "CI_PROJECT_URL",
)


@pytest.mark.parametrize(
    "text", ["http://[", "https://[::1", "http://h:99999/o/n", "http://h:x/o/n"]
)
@pytest.mark.parametrize("name", [*TEXTS, *SERVERS])
def test_an_address_that_cannot_be_read_is_a_problem_and_no_bug(name: str, text: str) -> None:
    """`urlsplit` refuses some texts itself, and `port` others."""
    given = {"cloud": ["aws"], "repo": ["https://github.com/octo/train"], "token": ["t"]}
    environ = {"GITHUB_REPOSITORY": "octo/train"}
    if name in TEXTS:
        given[name] = [text]
    else:
        environ[name] = text
    alone = {key: texts for key, texts in given.items() if key != "repo"}
    for flags in (given, alone):
        with suppress(InputError):
            inputs.parse(inputs.Raw(flags=flags, environ=environ), lambda _: None)
    if name in ("repo", "runner-downloads"):
        with pytest.raises(InputError, match=name):
            inputs.parse(inputs.Raw(flags=given, environ=environ), lambda _: None)
