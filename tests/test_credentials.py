"""Every credential in every form in which people and CIs pass it: as its text, on one line, in
quotes, in Base64, from Windows, as the path of a file."""

from __future__ import annotations

import base64
import json
import textwrap
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from runner_action import credentials, inputs
from runner_action.errors import InputError
from runner_action.inputs.conversion import check_rsa, convert, public_half

PATH = "/builds/octo/train.tmp/CREDENTIAL"
KEY = (
    rsa.generate_private_key(65537, 2048)
    .private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    .decode()
)
GOOGLE = {"type": "service_account", "private_key": KEY, "client_email": "a@b.example"}
CLUSTER = {"apiVersion": "v1", "clusters": [], "contexts": [], "users": []}
YAML = "apiVersion: v1\nclusters: []\ncontexts: []\nusers:\n- name: lab\n  user: {token: canary}\n"
CERTIFICATE = f"-----BEGIN CERTIFICATE-----\n{'TUlJQw' * 9}\n-----END CERTIFICATE-----"
TOKEN = "canary_AZaz09-token"

FORMS: dict[str, Callable[[str], str]] = {
    "text": str,
    "blanks": lambda text: f" \n{text}\n\n",
    "windows": lambda text: text.replace("\n", "\r\n") + "\r\n",
    "byte order mark": lambda text: f"\ufeff{text}",
    "invisible": lambda text: f"\u200b{text}\u00a0",
    "quotes": lambda text: f"'{text}'",
    "double quotes": lambda text: f'"{text}"\n',
    "quotes of a web page": lambda text: f"\u201c{text}\u201d",
    "quotes of a word processor": lambda text: f"\u00ab{text}\u00bb",
}
"""For all credentials."""
PACKED: dict[str, Callable[[str], str]] = {
    "one line": lambda text: text.replace("\n", "\\n"),
    "one line, windows": lambda text: text.replace("\n", "\\r\\n"),
    "one line, quotes": lambda text: '"' + text.replace("\n", "\\n") + '"',
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "base64, wrapped": lambda text: base64.encodebytes(text.encode()).decode(),
    "base64, windows": lambda text: (
        base64.encodebytes(text.encode()).decode().replace("\n", "\r\n")
    ),
    "base64, no padding": lambda text: base64.b64encode(text.encode()).decode().rstrip("="),
    "base64 of windows": lambda text: base64.b64encode(
        text.replace("\n", "\r\n").encode()
    ).decode(),
    "base64 of one line": lambda text: base64.b64encode(
        text.replace("\n", "\\n").encode()
    ).decode(),
}
"""For credentials of several lines."""
LINES: dict[str, Callable[[str], str]] = {
    "blanks for lines": lambda text: " ".join(text.split("\n")),
    "indented": lambda text: textwrap.indent(text, "    "),
}
"""For keys alone."""
CREDENTIALS: dict[str, tuple[str, Any]] = {
    "app-private-key": (KEY, KEY),
    "cloud-ssh-private": (KEY, KEY),
    "gcp-credentials": (json.dumps(GOOGLE), GOOGLE),
    "kubernetes-configuration": (YAML, YAML),
    "ca-certificates": (CERTIFICATE, CERTIFICATE),
    "token": (TOKEN, TOKEN),
    "restart-token": (TOKEN, TOKEN),
}


def nothing(_path: str) -> None:
    """There is no file."""


CASES = [
    pytest.param(name, form, id=f"{name}: {words}")
    for name in CREDENTIALS
    for words, form in (
        *FORMS.items(),
        *(() if "token" in name else PACKED.items()),
        *(LINES.items() if "key" in name or "private" in name else ()),
    )
]


@pytest.mark.parametrize("in_a_file", [False, True])
@pytest.mark.parametrize(("name", "form"), CASES)
def test_a_credential_in_every_form(
    name: str, form: Callable[[str], str], *, in_a_file: bool
) -> None:
    """As given, and as GitLab's variable of type File."""
    text, value = CREDENTIALS[name]
    files = {PATH: form(text)}
    given = f"{PATH}\n" if in_a_file else form(text)
    result = convert([given], inputs.schema()["properties"][name], files.get)
    if isinstance(value, dict):
        assert json.loads(result) == value
    else:
        assert result.strip() == value.strip()


@pytest.mark.parametrize(
    "form",
    [
        lambda text: text.replace("\\n", "\n"),
        lambda text: text.replace("\\n", "\\\\n"),
        lambda text: text.replace('"', '\\"'),
        lambda text: json.dumps(json.loads(text), indent=2),
        json.dumps,
    ],
    ids=["real line ends", "doubled backslashes", "escaped quotes", "pretty", "JSON in JSON"],
)
def test_a_google_key_as_it_comes_out_of_shells(form: Callable[[str], str]) -> None:
    assert credentials.account_key(form(json.dumps(GOOGLE)), nothing) == GOOGLE


def test_a_read_key_can_be_used() -> None:
    for name, form in {**FORMS, **PACKED, **LINES}.items():
        key = credentials.private_key(form(KEY), nothing)
        assert key, name
        check_rsa(key)
        assert public_half(key).startswith("ssh-rsa ")


def test_a_kubeconfig_may_be_json() -> None:
    text = json.dumps(CLUSTER)
    assert credentials.kubeconfig(text, nothing) == text
    assert credentials.kubeconfig("canary: true", nothing) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "an empty text"),
        (" '' ", "an empty text"),
        ("$GCP_KEY", "an unexpanded $VARIABLE"),
        ("${GCP_KEY}", "an unexpanded $VARIABLE"),
        ("${{ secrets.GCP_KEY }}", "an unexpanded $VARIABLE"),
        ("%GCP_KEY%", "an unexpanded $VARIABLE"),
        ("$(cat key.json)", "an unexpanded $VARIABLE"),
        ("/nowhere/key", "the path of a file that does not exist here or cannot be read"),
        ("key.json", "the path of a file that does not exist here or cannot be read"),
        (
            "/home/runner/work/train/train/gha-creds-0123.json",
            (
                "the path of a file that does not exist here or cannot be read (actions/checkout"
                " after google-github-actions/auth removes it)"
            ),
        ),
        (PATH, "the path of a file that holds a public key"),
        (CERTIFICATE, "a certificate"),
        ("ssh-rsa AAAAcanary octo", "a public key"),
        ("-----BEGIN ENCRYPTED PRIVATE KEY-----\ncanary", "a key with a passphrase"),
        (KEY[:-40], "a key whose end is missing"),
        ('{"type": "canary"', "damaged JSON"),
        ('{"kind": "canary"}', "JSON without the fields that it needs"),
        ("<html>canary", "a web page"),
        ("***", "the asterisks that a log shows in place of a secret"),
        (base64.b64encode(b"canary").decode(), "Base64 of something else"),
        ("canary text", ""),
    ],
)
def test_what_cannot_be_read_is_described_and_never_quoted(text: str, words: str) -> None:
    described = credentials.looks_like(text, {PATH: "ssh-rsa AAAAcanary octo"}.get)
    assert described == words
    assert "canary" not in described


@pytest.mark.parametrize("name", ["token", "restart-token"])
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("canary\ntoken", "contains a line break, which no token does: copy it again"),
        ("canary\u200btoken", "contains an invisible character (U+200B), which no token does"),
        ("canary token", "contains a blank"),
        ("canary\u00a0token", "contains a blank"),
        ("canary-t\u00f6ken", "contains a character that is not ASCII"),
        ("$REPO_TOKEN", "must be a token; this is an unexpanded $VARIABLE"),
        ("/nowhere/canary", "must be a token; this is the path of a file that does not exist"),
    ],
)
def test_what_is_no_token(name: str, text: str, words: str) -> None:
    flags = {"repo": ["octo/train"], "token": ["good-token"], name: [text]}
    with pytest.raises(InputError) as caught:
        inputs.parse(inputs.Raw(flags=flags, environ={}), lambda _: None)
    (problem,) = caught.value.problems
    assert problem.startswith(f"--{name} {words}")
    assert "canary" not in problem
