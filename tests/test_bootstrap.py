"""The user data: the same bytes for the same input, small enough, and what cloud-init will write from it."""

from __future__ import annotations

import base64
import configparser
import dataclasses
import gzip
import io
import json
import shutil
import subprocess
import sys
import traceback
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from runner_action import bootstrap
from runner_action.agent.spec import AgentSpec
from runner_action.errors import InputError

GOLDEN = Path(__file__).parent / "golden" / "user-data.json"
SPEC = AgentSpec(
    name="cml-0123456789",
    forge="github",
    repository_url="https://github.com/octo/train",
    api_url="https://api.github.com",
    labels=("cml", "it's", "größe xl", "a: b # c"),
    idle_timeout=300,
    max_lifetime=432000,
    start_timeout=600,
    single=False,
    runner_url="https://github.com/actions/runner/releases/download/v2.336.0/actions-runner-linux-x64-2.336.0.tar.gz",
    runner_sha256="0" * 64,
    registration_token="A" * 29,
    api_token="ghp_" + "x" * 36,
)
SCRIPT = "#!/bin/bash\necho \"it's $HOME\" 'and' `this`\nEOF\nexit 0\n"


def config(data: bytes) -> dict[str, Any]:
    text = gzip.decompress(data).decode()
    assert text.startswith("#cloud-config\n")
    found: dict[str, Any] = yaml.safe_load(text)
    return found


def written(data: bytes) -> dict[str, tuple[str, bytes]]:
    """Path -> (permissions, content), as cloud-init writes them."""
    found = {}
    for file in config(data)["write_files"]:
        content = file["content"].encode()
        if "b64" in file.get("encoding", ""):
            content = base64.b64decode(content)
        if file.get("encoding", "").startswith("gz"):
            content = gzip.decompress(content)
        found[file["path"]] = (file.get("permissions", "0644"), content)
    return found


def test_golden_user_data() -> None:
    """The whole frame, word for word. After a wanted change: delete the golden file, run once, read the difference."""
    found = config(bootstrap.user_data(SPEC, SCRIPT, "ssh-rsa AAAA me", 16384))
    for file in found["write_files"]:
        if file["path"].endswith("agent.pyz"):
            file["content"] = "(the agent)"
    if not GOLDEN.exists():
        GOLDEN.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        pytest.fail("the golden file was missing and has been written: read it, then run again")
    assert found == json.loads(GOLDEN.read_text(encoding="utf-8"))


def test_same_input_same_bytes() -> None:
    assert bootstrap.user_data(SPEC, SCRIPT, None, 16384) == bootstrap.user_data(SPEC, SCRIPT, None, 16384)


def test_agent_spec_and_frame_keep_to_their_budget() -> None:
    assert len(bootstrap.user_data(SPEC, None, None, 16384)) <= bootstrap.AGENT_BUDGET


def test_a_startup_script_that_does_not_fit_is_refused_with_the_number_of_bytes() -> None:
    script = base64.b85encode(bytes(i * i % 251 for i in range(40000))).decode()
    with pytest.raises(InputError, match=r"cloud-startup-script is too long.*more than the cloud takes"):
        bootstrap.user_data(SPEC, script * 3 + str(list(range(9000))), None, 16384)


def test_the_startup_script_arrives_byte_for_byte_and_keeps_its_shell() -> None:
    assert written(bootstrap.user_data(SPEC, SCRIPT, None, 16384))[f"{bootstrap.HOME}/startup.sh"] == ("0700", SCRIPT.encode())
    plain = written(bootstrap.user_data(SPEC, "echo hello", None, 16384))[f"{bootstrap.HOME}/startup.sh"]
    assert plain == ("0700", b"#!/bin/sh\necho hello")


def test_only_root_can_read_the_spec() -> None:
    permissions, content = written(bootstrap.user_data(SPEC, None, None, 16384))[f"{bootstrap.HOME}/spec.json"]
    assert permissions == "0600"
    assert AgentSpec.from_json(content.decode()) == SPEC


def test_secrets_stand_in_the_spec_and_nowhere_else() -> None:
    files = written(bootstrap.user_data(SPEC, None, None, 16384))
    for path, (_, content) in files.items():
        held = any(secret.encode() in content for secret in SPEC.secrets())
        assert held is path.endswith("spec.json"), path


def test_the_units_end_the_machine_whatever_happens_to_the_agent() -> None:
    units = {Path(path).name: content.decode() for path, (_, content) in written(bootstrap.user_data(SPEC, None, None, 16384)).items() if "systemd" in path}
    parsed = {}
    for name, text in units.items():
        parsed[name] = configparser.ConfigParser(interpolation=None)
        parsed[name].optionxform = str  # type: ignore[assignment,method-assign]
        parsed[name].read_string(text)
    assert parsed["cml-runner.service"]["Unit"]["SuccessAction"] == "poweroff"
    assert parsed["cml-runner.service"]["Unit"]["FailureAction"] == "poweroff-force"
    assert parsed["cml-runner-watchdog.service"]["Unit"]["FailureAction"] == "poweroff-force"
    started = [word for command in config(bootstrap.user_data(SPEC, None, None, 16384))["runcmd"] for word in command if word.endswith((".service", ".timer"))]
    assert set(started) <= set(units)


@pytest.mark.parametrize(
    ("tool", "argv"),
    [
        ("cloud-init", ["cloud-init", "schema", "--config-file", "config.yaml"]),
        ("systemd-analyze", ["systemd-analyze", "verify", "./cml-runner.service", "./cml-runner-watchdog.timer", "./cml-runner-wipe.service"]),
    ],
)
def test_cloud_init_and_systemd_take_what_we_write(tool: str, argv: list[str], tmp_path: Path) -> None:
    if shutil.which(tool) is None:
        pytest.skip(f"SKIPPED LOUDLY: {tool} is not on this machine (Debian packages cloud-init and systemd)")
    data = bootstrap.user_data(SPEC, SCRIPT, "ssh-rsa AAAA me", 16384)
    (tmp_path / "config.yaml").write_bytes(gzip.decompress(data))
    for path, (_, content) in written(data).items():
        if "systemd" in path:
            (tmp_path / Path(path).name).write_bytes(content)
    environ = {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "LANG": "C.UTF-8"}
    done = subprocess.run(argv, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("python", [sys.executable, "/usr/bin/python3"])
def test_the_zip_application_runs(python: str, tmp_path: Path) -> None:
    files = written(bootstrap.user_data(SPEC, None, None, 16384))
    (tmp_path / "agent.pyz").write_bytes(files[f"{bootstrap.HOME}/agent.pyz"][1])
    cache = tmp_path / "cloud" / "instances" / "i-1"
    cache.mkdir(parents=True)
    (cache / "user-data.txt").write_text("secret")
    (cache / "keep.me").write_text("not ours")
    subprocess.run([python, "agent.pyz", "wipe", "cloud"], cwd=tmp_path, check=True)
    assert [path.name for path in cache.iterdir()] == ["keep.me"]


def test_slim_keeps_the_meaning_and_the_lines() -> None:
    source = '"""Doc\nof two lines."""\n\ndef f():  # why\n    """Doc."""\n    return "# kept"  # gone\n\nclass C:\n    """Only a doc."""\n\nx = 1 / 0\n'
    slimmed = bootstrap.slim(source)
    assert "Doc" not in slimmed
    assert "why" not in slimmed
    assert "# kept" in slimmed
    with pytest.raises(ZeroDivisionError) as caught:
        exec(compile(slimmed, "slimmed", "exec"), {})
    assert traceback.extract_tb(caught.value.__traceback__)[-1].lineno == 11


def test_the_agent_in_the_zip_is_all_of_it() -> None:
    names = zipfile.ZipFile(io.BytesIO(bootstrap.agent_zip())).namelist()
    folder = Path(bootstrap.__file__).parent / "agent"
    assert sorted(names) == sorted(["__main__.py", *(f"agent/{file.name}" for file in folder.glob("*.py"))])


def test_spec_has_no_field_that_never_reaches_the_machine() -> None:
    sent = {field.name for field in dataclasses.fields(SPEC) if getattr(SPEC, field.name) is not None}
    assert sent <= set(json.loads(SPEC.to_json()))
