"""No secret in any text: every secret of the process, in every spelling in which a library may
quote it."""

from __future__ import annotations

import base64
import io
import json
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest

from runner_action import cli, secret_sources
from runner_action.ci.base import Front
from runner_action.ci.github import GitHubFront
from runner_action.ci.gitlab import GitLabFront
from runner_action.ci.redacted import Redacted
from runner_action.ci.terminal import TerminalFront
from runner_action.errors import ProviderError
from runner_action.plain import plain
from runner_action.redaction import PIECE, Redaction, lines_of, parts_of

BODY = ["MIIEcanaryAAAAAAAAAAAAAAAAAAAAAA", "canaryBBBBBBBBBBBBBBBBBBBBBBBBB", "Zc="]
PEM = "\n".join(["-----BEGIN RSA PRIVATE KEY-----", *BODY, "-----END RSA PRIVATE KEY-----", ""])
GOOGLE = {
    "type": "service_account",
    "project_id": "octo-train",
    "private_key": PEM,
    "token_uri": "https://oauth2.googleapis.com/token",
}
KUBECONFIG = """apiVersion: v1
current-context: lab
clusters:
- name: lab
  cluster: {server: "https://10.0.0.1:6443"}
users:
- name: lab
  user: {token: canary-kube/token, client-key-data: Y2FuYXJ5LWtleS1kYXRh}
"""
INI = """[default]
region = us-east-1
aws_access_key_id = AKIACANARYIOSFODNN7
aws_secret_access_key = canary/+secret=with,comma
aws_session_token=canary-session
"""
TOKEN = 'canary-"t/o+k\\en%\r\n-\u200bend'
SPELLINGS: list[Callable[[str], str]] = [
    str,
    repr,
    lambda text: repr(text.encode()),
    json.dumps,
    lambda text: json.dumps(text, ensure_ascii=False),
    quote,
    lambda text: quote(text, safe=""),
    quote_plus,
    plain,
    lambda text: base64.b64encode(text.encode()).decode(),
    lambda text: base64.b64encode(f"octo:{text}".encode()).decode(),
    lambda text: base64.urlsafe_b64encode(f"x:{text}@y".encode()).decode(),
]


@pytest.mark.parametrize("spelled", SPELLINGS)
@pytest.mark.parametrize("secret", ["canary-token", TOKEN, *BODY[:2]])
def test_a_secret_is_removed_in_every_spelling(secret: str, spelled: Callable[[str], str]) -> None:
    redact = Redaction()
    redact.add([secret])
    text = redact(f"Invalid header value {spelled(secret)}: try again")
    assert text.startswith("Invalid header value ")
    assert text.endswith(": try again")
    assert "***" in text
    assert "canary" not in text
    assert base64.b64encode(b"canary").decode()[:7] not in text


@pytest.mark.parametrize(
    ("document", "secrets", "harmless"),
    [
        (PEM, BODY[:2], ["BEGIN RSA", "Zc="]),
        (PEM.replace("\n", "\\n"), BODY[:2], ["BEGIN RSA"]),
        (base64.b64encode(PEM.encode()).decode(), BODY[:2], []),
        (json.dumps(GOOGLE), BODY[:2], ["service_account", "octo-train", "oauth2.googleapis"]),
        (json.dumps(GOOGLE, indent=2), BODY[:2], ["service_account", "octo-train"]),
        (base64.encodebytes(json.dumps(GOOGLE).encode()).decode(), BODY[:2], ["octo-train"]),
        (KUBECONFIG, ["canary-kube/token", "Y2FuYXJ5LWtleS1kYXRh"], ["https://10.0.0.1", "lab"]),
        (INI, ["canary/+secret=with,comma", "canary-session"], ["us-east-1", "[default]"]),
        ("machine x login octo password canary-netrc", ["canary-netrc"], ["machine", "octo"]),
        ('{"headers": {"Authorization": "Bearer canary-bearer"}}', ["canary-bearer"], ["headers"]),
    ],
)
def test_what_is_secret_in_a_document_and_nothing_else(
    document: str, secrets: list[str], harmless: list[str]
) -> None:
    redact = Redaction(lambda: [document])
    for secret in secrets:
        assert secret not in redact(f"line 3: {secret} is wrong")
    text = f"no {' '.join(harmless)} there"
    assert redact(text) == text


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("http://octo:canary@proxy.example:3128/ failed", "http://***@proxy.example:3128/ failed"),
        (f"ghs_{'c' * 36} is wrong", "*** is wrong"),
        (f"token github_pat_{'c' * 30}", "token ***"),
        ("glpat-canary_canary-canary", "***"),
        ("got eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJvY3RvIn0.canary-sig", "got ***"),
        ("Authorization: Bearer canary-1234", "Authorization: Bearer ***"),
        (f"it reads {PEM}", "it reads ***"),
        ("global-training-runner-with-a-long-name", "global-training-runner-with-a-long-name"),
        ("the token in REPO_TOKEN is wrong", "the token in REPO_TOKEN is wrong"),
        ("mail octo@example.com", "mail octo@example.com"),
    ],
)
def test_secrets_that_have_a_shape_of_their_own(text: str, rest: str) -> None:
    assert Redaction()(text).rstrip() == rest


def test_short_texts_are_not_secrets() -> None:
    redact = Redaction()
    redact.add(["", " ", "test", "x\ny"])
    assert redact("the latest test: x") == "the latest test: x"


@pytest.mark.parametrize("spelled", SPELLINGS)
def test_a_piece_of_a_secret_is_no_more_shown_than_all_of_it(
    spelled: Callable[[str], str],
) -> None:
    """A text may have been cut before it came here, or read in another encoding."""
    token = "canary" + "QZkvXbTmRw" * 3
    redact = Redaction(lambda: [token, KUBECONFIG])
    text = spelled(token)
    for cut in (text[:25], text[12:30], f"{token[:15]}\u00e2\u20ac\u2039{token[15:]}"):
        assert len(redact(f"got {cut}!").replace("***", "")) < len("got !") + PIECE
    harmless = 'not https://10.0.0.1:6443 current-context: lab, "gs://canary", QZkvXbTmRw'
    assert redact(harmless) == harmless


@pytest.mark.parametrize(
    "known", ["/github/workspace/gha-creds.json", '{"type":"external_account"}', "a=b-c-d-e-f-g-h"]
)
def test_pieces_of_paths_and_documents_are_no_secrets(known: str) -> None:
    redact = Redaction()
    redact.add([known, f"{known}\nregion=us-east-1-and-more\n"])
    text = "/github/workspace/x external_account a=b-c-d us-east-1-and-more"
    assert redact(text) == text


def test_no_thread_writes_before_the_secrets_are_known() -> None:
    reading, known = threading.Event(), threading.Event()

    def later() -> list[str]:
        reading.set()
        known.wait(10)
        return ["canary-secret"]

    redact = Redaction(later)
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(redact, "first canary-secret")
        reading.wait(10)
        second = threads.submit(redact, "second canary-secret")
        with suppress(TimeoutError):
            second.result(0.2)
        known.set()
        assert first.result() == "first ***"
        assert second.result() == "second ***"


# --- what is masked in GitHub's log


def test_only_lines_that_are_secret_are_masked() -> None:
    """GitHub drops an output that contains a masked line, and all of ours that are JSON contain
    braces."""
    for document in (json.dumps(GOOGLE, indent=2), KUBECONFIG, PEM, INI):
        masked = lines_of(document)
        assert masked
        assert all(len(line) >= 8 and "\n" not in line for line in masked)
        outputs = json.dumps({"runners": [{"runner-name": "cml-1", "type": "service_account"}]})
        assert not [line for line in masked if line in outputs]
    assert set(BODY[:2]) <= set(lines_of(json.dumps(GOOGLE, indent=2)))
    assert lines_of("canary-token\n") == ["canary-token"]


# --- the secrets of variables and files


def test_the_secrets_of_variables_and_files(tmp_path: Path) -> None:
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "credentials").write_text(INI)
    (tmp_path / "jwt").write_text("canary-web-identity\n")
    (tmp_path / "kube").write_text(KUBECONFIG)
    environ = {
        "HOME": str(tmp_path),
        "AWS_SESSION_TOKEN": "canary-variable\r",
        "AWS_WEB_IDENTITY_TOKEN_FILE": str(tmp_path / "jwt"),
        "KUBECONFIG": f"/nowhere:{tmp_path / 'kube'}",
        "HTTPS_PROXY": "http://octo:canary-proxy@proxy.example:3128",
        "DEPLOY_ID_TOKEN": "canary-id-token",
        "CI_REGISTRY_PASSWORD": "canary-registry",
        "GOOGLE_APPLICATION_CREDENTIALS": json.dumps(GOOGLE),
        "AWS_BEARER_TOKEN_BEDROCK": "canary-bearer",
        "SOME_TOKEN": "/builds/octo.tmp/SOME_TOKEN",
        "RUNNER_NAME": "cml-runner-1",
    }

    def read(path: str) -> str | None:
        return Path(path).read_text() if Path(path).is_file() else None

    redact = Redaction(lambda: secret_sources.secrets_of(environ, read))
    text = (
        "canary-variable canary-web-identity canary-kube/token canary-proxy canary-id-token"
        f" canary-registry canary-bearer canary/+secret=with,comma {BODY[0]}"
    )
    assert redact(text) == " ".join(["***"] * 9)
    rest = f"/builds/octo.tmp/SOME_TOKEN cml-runner-1 {tmp_path}/jwt us-east-1"
    assert redact(rest) == rest


def test_every_variable_and_file_of_the_list_is_read() -> None:
    for name in secret_sources.VARIABLES:
        assert list(secret_sources.secrets_of({name: "canary"}, lambda _: None)) == ["canary"], name
    for name in secret_sources.FILES:
        variable, slash, file = name.partition("/")
        files = {f"/there{slash}{file}": "canary"}
        secrets = secret_sources.secrets_of({variable: "/there"}, files.get)
        assert "canary" in list(secrets), name


def test_a_short_word_in_a_variable_of_the_jobs_own_stays() -> None:
    assert not list(secret_sources.secrets_of({"REGISTRY_PASSWORD": "runner"}, lambda _: None))


# --- all roads


@pytest.mark.parametrize("kind", ["github", "gitlab", "terminal", "json"])
def test_no_road_leads_past_the_filter(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    files = {
        name: str(tmp_path / name)
        for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY", "GITHUB_STATE")
    }
    out = io.StringIO()
    fronts: dict[str, Front] = {
        "github": GitHubFront(files, out),
        "gitlab": GitLabFront({"CI_PROJECT_DIR": str(tmp_path)}, out),
        "terminal": TerminalFront(out, out, as_json=False),
        "json": TerminalFront(out, out, as_json=True),
    }
    front = Redacted(fronts[kind], Redaction())
    secret = "canary-secret\r"
    front.mask(secret)
    raw = f"Invalid header value {secret.encode()!r}, {secret}"
    front.error(ProviderError(raw, raw))
    front.crash(f"Traceback\nValueError: {raw}")
    front.done({"region": "us canary-secret", "runners": "[]"}, f"# {raw}")
    logger = logging.Logger("runner_action.test")
    logger.addHandler(front.handler())
    logger.warning("%s", raw)
    try:
        raise ValueError(raw)
    except ValueError:
        logger.exception("failed: %s", raw)
    texts = [out.getvalue(), *(file.read_text() for file in tmp_path.iterdir())]
    lines = [line for text in texts for line in text.splitlines()]
    assert len(lines) > 6
    assert not [line for line in lines if "canary-" in line and not line.startswith("::add-mask::")]


def test_a_library_that_outlives_the_command_writes_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["cleanup"], {}) == 0
    logger = logging.getLogger("azure.identity.test")
    usual, logger.parent = logger.parent, None
    logger.warning("canary-secret")
    logger.parent = usual
    assert "canary" not in capsys.readouterr().err


def test_a_secret_that_contains_another_leaves_no_rest() -> None:
    redact = Redaction()
    redact.add(["canary-1", "canary-1-and-more"])
    assert redact("canary-1-and-more") == "***"
    assert parts_of("canary-1") == ["canary-1"]
