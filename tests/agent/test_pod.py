"""The agent in a pod: what the guard hands over, what the runner's container keeps, what the probe sees; and that jobs, the same user, cannot look into the
agent."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from runner_action.agent import lifecycle, pod
from runner_action.agent.spec import AgentSpec
from runner_action.agent.watchdog import Beat, write_beat
from tests.agent.test_spec import SPEC

AGENT = Path(pod.__file__).parent
SYSTEM = "/usr/bin/python3"
CANARIES = {"registration_token": "canary-registration", "api_token": "canary-api", "environment": {"https_proxy": "http://user:canary-proxy@proxy"}}


def bundle(folder: Path, **more: str) -> Path:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for file in AGENT.glob("*.py"):
            archive.writestr("agent/" + file.name, file.read_text("utf-8"))
        archive.writestr("__main__.py", "import os, sys\nfrom agent.pod import main\nsys.exit(main(sys.argv[1:], dict(os.environ)))\n")
        spec = dataclasses.replace(SPEC, name="cml-1-@instance@", cloud="kubernetes", **CANARIES)  # type: ignore[arg-type]
        archive.writestr("spec.json", spec.to_json())
        for name, text in more.items():
            archive.writestr(name.replace("_", "."), text)
    file = folder / "agent.pyz"
    file.write_bytes(packed.getvalue())
    return file


@pytest.mark.parametrize(("name", "runner"), [("cml-1-0a1b2c3d-x7k2p", "cml-1-3d-x7k2p"), ("cml-1-0a1b2c3d-0-x7k2p", "cml-1-0-x7k2p")])
def test_the_guard_hands_over_and_names_the_runner_by_its_pod(tmp_path: Path, name: str, runner: str) -> None:
    home = tmp_path / "home"
    home.mkdir()
    text = pod.hand_over(bundle(tmp_path, startup_sh="#!/bin/sh\n", ca_pem="a certificate\n"), home, {"INSTANCE_ID": name})
    assert AgentSpec.from_json(text).name == runner
    assert (home / "spec.json").read_text() == text
    assert (home / "spec.json").stat().st_mode & 0o777 == 0o600
    assert (home / "startup.sh").stat().st_mode & 0o777 == 0o700
    assert (home / "ca.pem").read_text().endswith("a certificate\n")
    assert (home / "agent" / "run.py").exists()
    assert (home / "ready").exists()


def test_a_guard_that_is_started_again_hands_nothing_over(tmp_path: Path) -> None:
    """By now a job could read it."""
    home = tmp_path / "home"
    home.mkdir()
    packed = bundle(tmp_path, startup_sh="#!/bin/sh\n", ca_pem="a certificate\n")
    text = pod.hand_over(packed, home, {"INSTANCE_ID": "cml-1-x"})
    for name in ("spec.json", "startup.sh", "ca.pem"):
        (home / name).unlink()
    assert pod.hand_over(packed, home, {"INSTANCE_ID": "cml-1-x"}) == text
    assert not any((home / name).exists() for name in ("spec.json", "startup.sh", "ca.pem"))


def test_a_user_that_the_image_does_not_know_has_a_home(tmp_path: Path) -> None:
    assert pod.with_home(tmp_path, {"HOME": "/"}) == {"HOME": "/"}
    if os.geteuid() != 0 or not Path(SYSTEM).exists():
        pytest.skip("SKIPPED LOUDLY: only root can be somebody else, who needs a Python of the system")
    home = Path(f"/var/tmp/cml-runner-home-{os.getpid()}")
    shutil.copytree(str(AGENT), str(home / "agent"), ignore=shutil.ignore_patterns("__pycache__"))
    home.chmod(0o777)
    try:
        code = "import sys; sys.path.insert(0, '.')\nfrom pathlib import Path\nfrom agent import pod, process\n"
        code += "environ = pod.with_home(Path.cwd(), {'HOME': '/'})\nprint(environ['HOME'], process.job_user('runner', environ).pw_dir)"
        done = subprocess.run([SYSTEM, "-c", code], cwd=str(home), user=54321, stdout=subprocess.PIPE, check=True)
        assert done.stdout.decode().split() == [str(home / "user")] * 2
        assert (home / "user").stat().st_uid == 54321
    finally:
        shutil.rmtree(str(home))


def test_what_stays_in_the_runners_container_has_no_secret(tmp_path: Path) -> None:
    spec = dataclasses.replace(SPEC, cloud="kubernetes", **CANARIES)  # type: ignore[arg-type]
    assert len(spec.secrets()) >= 3
    kept = pod.without_secrets(spec)
    assert "canary" not in kept
    assert lifecycle.policy_of(AgentSpec.from_json(kept)) == lifecycle.policy_of(spec)


def test_every_secret_of_a_spec_is_known_as_one() -> None:
    tokens = {field.name for field in dataclasses.fields(AgentSpec) if "token" in field.name or "jit" in field.name}
    assert tokens == set(pod.SECRETS)


def test_the_probe_ends_what_is_silent_and_only_that(tmp_path: Path) -> None:
    assert pod.watchdog(tmp_path) == 0, "nothing was handed over yet"
    (tmp_path / "first-look").write_text(str(time.monotonic() - 1000))
    assert pod.watchdog(tmp_path) == 1, "and never was"
    (tmp_path / pod.LIMITS).write_text(pod.without_secrets(SPEC))
    now = time.monotonic()
    state = lifecycle.State(lifecycle.Phase.IDLE, now - 10, now - 20)
    write_beat(tmp_path, Beat(state, now))
    assert pod.watchdog(tmp_path) == 0
    write_beat(tmp_path, Beat(state, now - 1000))
    assert pod.watchdog(tmp_path) == 1


def look_at(home: Path, code: str) -> subprocess.Popen[bytes]:
    """A process of nobody's that runs `code` with the agent in reach."""
    argv = [SYSTEM, "-c", "import sys; sys.path.insert(0, '.')\nfrom agent import pod\n" + code]
    return subprocess.Popen(argv, cwd=str(home), env={"CANARY": "canary-environment", "PATH": os.environ["PATH"]}, stdout=subprocess.PIPE, user=65534)


@pytest.mark.parametrize("closed", [True, False])
def test_another_process_of_the_same_user_cannot_look_into_the_agent(closed: bool) -> None:
    if os.geteuid() != 0 or not Path(SYSTEM).exists():
        pytest.skip("SKIPPED LOUDLY: only root can be somebody else, who needs a Python of the system")
    home = Path(f"/var/tmp/cml-runner-test-{os.getpid()}-{closed:d}")
    shutil.copytree(str(AGENT), str(home / "agent"), ignore=shutil.ignore_patterns("__pycache__"))
    try:
        process = look_at(home, f"{'pod.close_memory()' if closed else 'pass'}; print('ready', flush=True); import time; time.sleep(60)")
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        read = subprocess.run(["cat", f"/proc/{process.pid}/environ"], user=65534, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False).stdout
        process.kill()
        process.wait()
        process.stdout.close()
        assert (b"canary-environment" in read) is not closed
    finally:
        shutil.rmtree(str(home))


def test_process_one_passes_signals_on_takes_up_orphans_and_ends_with_the_agent(tmp_path: Path) -> None:
    """Its child is an agent whose start-up fails when it is asked to leave."""
    code = """
import os, signal, sys, time
sys.path.insert(0, "ROOT")
from runner_action.agent import pod
def alive(home, environ):
    signal.signal(signal.SIGTERM, lambda *_: os._exit(7))
    if os.fork() == 0:
        time.sleep(0.1); os._exit(3)   # an orphan's end is not the agent's
    print('ready', flush=True)
    while True:
        time.sleep(0.1)
pod.alive = alive
sys.exit(pod.run('.', {}))
"""
    process = subprocess.Popen([sys.executable, "-c", code.replace("ROOT", str(AGENT.parents[1]))], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    time.sleep(0.3)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 7
    process.stdout.close()


def test_without_githubs_hooks_in_the_image_it_says_so(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "spec.json").write_text(dataclasses.replace(SPEC, forge="github", cloud="kubernetes").to_json())
    code = "import sys; sys.path.insert(0, 'ROOT')\nfrom pathlib import Path\nfrom runner_action.agent import pod\n"
    code += "sys.exit(pod.alive(Path('.'), {pod.HOOKS: '/nowhere/index.js'}))"
    done = subprocess.run([sys.executable, "-c", code.replace("ROOT", str(AGENT.parents[1]))], cwd=str(tmp_path), stdout=subprocess.PIPE, check=False)
    assert done.returncode == lifecycle.Reason.START_FAILED.exit_code
    said = json.loads(done.stdout.decode().partition("cml-runner: ")[2])
    assert said["stage"] == "failed"
    assert "/nowhere/index.js" in said["why"]
    assert not (tmp_path / "spec.json").exists()
