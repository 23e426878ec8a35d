"""The agent in a pod: what its first container parts, what its guard tells whom, what the probe
sees; and that jobs, the same user, cannot look into the agent."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest

from runner_action.agent import lifecycle, pod, pod_guard
from runner_action.agent.reasons import Reason
from runner_action.agent.spec import AgentSpec
from tests.agent.test_spec import SPEC

AGENT = Path(pod.__file__).parent
SYSTEM = "/usr/bin/python3"
CANARIES = {
    "registration_token": "canary-registration",
    "api_token": "canary-api",
    "environment": {"https_proxy": "http://user:canary-proxy@proxy"},
}


def bundle(folder: Path, **more: str) -> Path:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for file in AGENT.glob("*.py"):
            archive.writestr("agent/" + file.name, file.read_text("utf-8"))
        archive.writestr(
            "__main__.py",
            "import os, sys\nfrom agent.pod import main\nsys.exit(main(sys.argv[1:],"
            " dict(os.environ)))\n",
        )
        spec = dataclasses.replace(SPEC, name="cml-1-@instance@", cloud="kubernetes", **CANARIES)  # type: ignore[arg-type]
        archive.writestr("spec.json", spec.to_json())
        for name, text in more.items():
            archive.writestr(name.replace("_", "."), text)
    file = folder / "agent.pyz"
    file.write_bytes(packed.getvalue())
    return file


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path]:
    """The folders for the program, and for the rest."""
    for name in ("program", "secret"):
        (tmp_path / name).mkdir()
    return tmp_path / "program", tmp_path / "secret"


@pytest.mark.parametrize(
    ("name", "runner"),
    [("cml-1-0a1b2c3d-x7k2p", "cml-1-3d-x7k2p"), ("cml-1-0a1b2c3d-0-x7k2p", "cml-1-0-x7k2p")],
)
def test_the_first_container_parts_what_jobs_may_see_and_names_the_runner(
    tmp_path: Path, places: tuple[Path, Path], name: str, runner: str
) -> None:
    program, secret = places
    packed = bundle(tmp_path, startup_sh="#!/bin/sh\n", ca_pem="a certificate\n")
    for _ in range(2):  # a kubelet may do it again
        assert pod.hand_over(packed, program, secret, {"INSTANCE_ID": name}) == 0
    assert AgentSpec.from_json((secret / "spec.json").read_text()).name == runner
    assert {path.name for path in secret.iterdir()} == {"spec.json", "startup.sh"}
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in secret.iterdir())
    assert {path.name for path in program.iterdir()} == {"agent.pyz", "ca.pem"}
    assert all(path.stat().st_mode & 0o777 == 0o444 for path in program.iterdir()), (
        "whoever runs the jobs may read it"
    )
    assert (program / "ca.pem").read_text().endswith("a certificate\n")
    with zipfile.ZipFile(program / "agent.pyz") as archive:
        assert {"__main__.py", "agent/run.py"} < set(archive.namelist())
        assert not any(b"canary" in archive.read(name) for name in archive.namelist())


def test_the_guard_leaves_nothing_of_what_it_was_told(
    tmp_path: Path, places: tuple[Path, Path]
) -> None:
    program, secret = places
    pod.hand_over(
        bundle(tmp_path, startup_sh="#!/bin/sh\n"), program, secret, {"INSTANCE_ID": "cml-1-x"}
    )
    assert set(pod_guard.take(secret)) == {"spec.json", "startup.sh"}
    assert list(secret.iterdir()) == []
    assert pod_guard.take(secret) == {}, "started again, it has nothing"


def test_a_user_that_the_image_does_not_know_has_a_home(tmp_path: Path) -> None:
    assert pod.with_home(tmp_path, {"HOME": "/"}) == {"HOME": "/"}
    if os.geteuid() != 0 or not Path(SYSTEM).exists():
        pytest.skip(
            "SKIPPED LOUDLY: only root can be somebody else, who needs a Python of the system"
        )
    home = Path(f"/var/tmp/cml-runner-home-{os.getpid()}")
    shutil.copytree(str(AGENT), str(home / "agent"), ignore=shutil.ignore_patterns("__pycache__"))
    home.chmod(0o777)
    try:
        code = (
            "import sys; sys.path.insert(0, '.')\nfrom pathlib import Path\nfrom agent import pod,"
            " process\n"
        )
        code += (
            "environ = pod.with_home(Path.cwd(), {'HOME': '/'})\nprint(environ['HOME'],"
            " process.job_user('runner', environ).pw_dir)"
        )
        done = subprocess.run(
            [SYSTEM, "-c", code], cwd=str(home), user=54321, stdout=subprocess.PIPE, check=True
        )
        assert done.stdout.decode().split() == [str(home / "user")] * 2
        assert (home / "user").stat().st_uid == 54321
    finally:
        shutil.rmtree(str(home))


# --- the guard


class Clock:
    """That is moved by hand."""

    at = 1000.0

    def now(self) -> float:
        return self.at


def guarding(clock: Clock | None = None, **more: Any) -> pod_guard.Guard:
    spec = dataclasses.replace(SPEC, forge="github", cloud="kubernetes", **{**CANARIES, **more})
    return pod_guard.Guard(
        spec, {"startup.sh": "canary-script"}, lambda *_, **__: None, (clock or Clock()).now
    )


def beats(**more: Any) -> dict[str, Any]:
    return {
        "call": "beat",
        "phase": "idle",
        "reason": None,
        "since": 1000.0,
        "born": 1000.0,
        **more,
    }


def test_the_agent_is_told_all_but_the_users_tokens_and_once() -> None:
    guard = guarding(removal_token="canary-removal")
    answer = guard.answer({"call": "start"})
    spec = AgentSpec.from_json(answer["spec"])
    assert (spec.api_token, spec.removal_token) == (None, None)
    assert spec.registration_token == "canary-registration"
    assert answer["scripts"] == {"startup.sh": "canary-script"}
    with pytest.raises(PermissionError):
        guard.answer({"call": "start"})


def test_every_secret_of_a_spec_is_known_to_the_agent_or_kept_by_its_guard() -> None:
    """A new one has to be thought of."""
    tokens = {
        field.name
        for field in dataclasses.fields(AgentSpec)
        if "token" in field.name or "jit" in field.name
    }
    spec = AgentSpec.from_json(
        guarding(None, **dict.fromkeys(tokens, "canary")).answer({"call": "start"})["spec"]
    )
    kept = {name for name in tokens if getattr(spec, name) is None}
    assert kept == {"api_token", "removal_token"}
    assert tokens - kept == {
        "download_token",
        "jit_config",
        "registration_token",
        "runner_token",
    }, "used up before there is a job, or gitlab-runner's own"


@pytest.mark.parametrize("key", ["", "0" * 32, None, 7, {}])
@pytest.mark.parametrize(
    "call",
    ["beat", "claimed", "joined", "leave", "restart", "waiting", "start", "__init__", "clean_up"],
)
def test_who_has_no_key_gets_nothing(call: str, key: object) -> None:
    guard = guarding()
    guard.answer({"call": "start"})
    with pytest.raises(PermissionError):
        guard.answer({"call": call, "key": key})


def test_nor_does_the_agent_get_what_is_not_a_call() -> None:
    guard = guarding()
    key = guard.answer({"call": "start"})["key"]
    for call in ("ask", "clean_up", "_member", "answer"):
        with pytest.raises(KeyError):
            guard.answer({"call": call, "key": key})


def test_the_runners_id_is_that_of_its_last_registration_before_it_is_online() -> None:
    """The agent registers again if it got no answer, and the runner is then another one."""
    guard = guarding()
    key = guard.answer({"call": "start"})["key"]

    def joined(number: int) -> None:
        guard.answer({"call": "joined", "key": key, "ids": {"agentId": number, "poolId": 1}})

    joined(7)
    guard.answer(beats(key=key, phase="starting"))
    joined(41)
    assert (guard.spec.runner_id, guard.forge.ids["agentId"]) == (41, 41)
    guard.answer(beats(key=key, phase="idle"))
    joined(99)
    assert guard.spec.runner_id == 41


def test_the_id_of_a_runner_that_the_launcher_registered_stays() -> None:
    guard = guarding(runner_id=41)
    key = guard.answer({"call": "start"})["key"]
    guard.answer({"call": "joined", "key": key, "ids": {"agentId": 7}})
    assert guard.spec.runner_id == 41


def test_it_sees_an_agent_that_is_silent_never_came_or_lives_too_long() -> None:
    clock = Clock()
    guard = guarding(clock, max_lifetime=7200, start_timeout=600)
    look = {"call": "watch"}
    assert guard.answer(dict(look)) is None
    clock.at += lifecycle.SILENCE + 1
    assert guard.answer(dict(look)) == "the agent did not start"
    key = guard.answer({"call": "start"})["key"]
    assert guard.answer(dict(look)) is None
    guard.answer(beats(key=key))
    clock.at += lifecycle.SILENCE - 1
    assert guard.answer(dict(look)) is None
    clock.at += 2
    assert guard.answer(dict(look)) == "the agent is silent"
    assert guard.answer({**look, "full": True}) == "the disk is full"
    guard.answer(beats(key=key))
    assert guard.answer(dict(look)) is None
    guard.answer(beats(key=key, phase="leaving", reason="LIFETIME"))
    clock.at += lifecycle.SILENCE + 200
    assert guard.answer(dict(look)) is None, "leaving has its own bound"
    clock.at += 7200
    assert guard.answer(dict(look)) == "maximum lifetime reached"


def test_it_sees_that_the_pod_goes_on_without_its_runner() -> None:
    """Another container, added by a webhook, would keep it for days."""
    clock = Clock()
    guard = guarding(clock)
    key = guard.start()["key"]
    guard.answer({"call": "beat", "key": key, **beats(born=clock.at, since=clock.at)})
    assert not guard.is_overdue()
    guard.answer({"call": "over", "key": key})
    clock.at += pod_guard.OVER_SECONDS - 1
    assert not guard.is_overdue(), "time for the cluster to end it"
    clock.at += 1
    assert guard.is_overdue()


@pytest.mark.parametrize("started", [True, False])
def test_an_agent_that_was_killed_says_nothing_of_its_end(started: bool) -> None:
    clock = Clock()
    guard = guarding(clock)
    if started:
        key = guard.start()["key"]
        guard.answer({"call": "beat", "key": key, **beats(born=clock.at, since=clock.at)})
    clock.at += lifecycle.SILENCE - 1
    assert not guard.is_overdue()
    clock.at += pod_guard.UNWELL_SECONDS - 1
    assert not guard.is_overdue(), "the probes come first"
    clock.at += 1
    assert guard.is_overdue()


@pytest.mark.parametrize(("says_so", "told"), [(True, []), (False, ["crashed"])])
def test_the_end_of_an_agent_that_could_not_report_it_is_reported(
    says_so: bool, told: list[str]
) -> None:
    said = list[tuple[str, object]]()
    guard = guarding()
    guard.say = lambda stage, **facts: said.append((stage, facts.get("why")))
    guard.gone = True
    key = guard.start()["key"]
    guard.answer({"call": "beat", "key": key, **beats(phase="busy")})
    if says_so:
        guard.answer({"call": "over", "key": key})
    guard.clean_up()
    assert [stage for stage, _ in said] == told
    assert all("busy" in str(why) for _, why in said)


def test_an_agent_that_falls_silent_is_reported_once_each_time() -> None:
    said = list[str]()
    clock = Clock()
    guard = guarding(clock)
    guard.say = lambda stage, **_: said.append(stage)
    key = guard.start()["key"]
    guard.report_silence()
    assert said == [], "it has not begun"
    for times in (1, 2):
        guard.answer({"call": "beat", "key": key, **beats(phase="busy")})
        guard.report_silence()
        clock.at += pod_guard.SILENT_SECONDS
        guard.report_silence()
        guard.report_silence()
        assert said == ["silent"] * times
    guard.answer({"call": "beat", "key": key, **beats(phase="leaving")})
    guard.answer({"call": "over", "key": key})
    clock.at += pod_guard.SILENT_SECONDS
    guard.report_silence()
    assert len(said) == 2, "it has ended"


def test_it_has_itself_evicted_by_more_than_its_volume_may_hold(tmp_path: Path) -> None:
    pod_guard.evict(tmp_path)
    assert sum(file.stat().st_blocks * 512 for file in tmp_path.iterdir()) > 1 << 20


def test_the_probe_asks_the_guard_and_without_one_the_container_ends(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    link, clock = pod.Link(tmp_path), Clock()
    assert pod.watchdog(link) == 1, "nobody there"
    guard = guarding(clock)
    with pod_guard.Server(tmp_path, guard.answer) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        try:
            assert pod.watchdog(link) == 0
            link.start()
            link.ask("beat", **{name: value for name, value in beats().items() if name != "call"})
            assert pod.watchdog(link) == 0
            clock.at += lifecycle.SILENCE + 1
            assert pod.watchdog(link) == 1
            assert "the agent is silent" in capfd.readouterr().out
            with pytest.raises(OSError, match="only the agent"):
                pod.Link(tmp_path).ask("leave")
        finally:
            server.shutdown()
    assert pod.watchdog(link) == 1, "gone"


def test_a_crowd_of_questions_is_turned_away_and_then_it_answers_again(tmp_path: Path) -> None:
    guard = guarding()
    with pod_guard.Server(tmp_path, guard.answer) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        crowd = [socket.socket(socket.AF_UNIX) for _ in range(3 * pod_guard.CROWD)]
        try:
            for connection in crowd:
                connection.connect(str(tmp_path / pod_guard.SOCKET))
            assert pod.watchdog(pod.Link(tmp_path)) == 1
            assert threading.active_count() <= pod_guard.CROWD + 1
            for connection in crowd:
                connection.close()
            end = time.monotonic() + 10
            while pod.watchdog(pod.Link(tmp_path)):
                assert time.monotonic() < end
        finally:
            server.shutdown()


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\n",
        b"null\n",
        b"[]\n",
        b'{"call": 1}\n',
        b"\x80\x04N.\n",
        b'{"call": "watch", "now": 1}\n',
        b"x" * (2 << 20),
    ],
)
def test_what_is_no_question_gets_no_answer_and_harms_nobody(tmp_path: Path, line: bytes) -> None:
    with pod_guard.Server(tmp_path, guarding().answer) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        try:
            with socket.socket(socket.AF_UNIX) as asking:
                asking.connect(str(tmp_path / pod_guard.SOCKET))
                with contextlib.suppress(BrokenPipeError):
                    asking.sendall(line)
                    asking.shutdown(socket.SHUT_WR)
                with asking.makefile("rb") as reading, contextlib.suppress(ConnectionResetError):
                    assert b"canary" not in (response := reading.readline())
                    assert b'"error"' in response
            assert pod.watchdog(pod.Link(tmp_path)) == 0
        finally:
            server.shutdown()


def look_at(home: Path, code: str) -> subprocess.Popen[bytes]:
    """A process of nobody's that runs `code` with the agent in reach."""
    argv = [SYSTEM, "-c", "import sys; sys.path.insert(0, '.')\nfrom agent import pod\n" + code]
    return subprocess.Popen(
        argv,
        cwd=str(home),
        env={"CANARY": "canary-environment", "PATH": os.environ["PATH"]},
        stdout=subprocess.PIPE,
        user=65534,
    )


@pytest.mark.parametrize("closed", [True, False])
def test_another_process_of_the_same_user_cannot_look_into_the_agent(closed: bool) -> None:
    if os.geteuid() != 0 or not Path(SYSTEM).exists():
        pytest.skip(
            "SKIPPED LOUDLY: only root can be somebody else, who needs a Python of the system"
        )
    home = Path(f"/var/tmp/cml-runner-test-{os.getpid()}-{closed:d}")
    shutil.copytree(str(AGENT), str(home / "agent"), ignore=shutil.ignore_patterns("__pycache__"))
    try:
        process = look_at(
            home,
            f"{'pod.close_memory()' if closed else 'pass'}; print('ready', flush=True); import"
            " time; time.sleep(60)",
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        read = subprocess.run(
            ["cat", f"/proc/{process.pid}/environ"],
            user=65534,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            check=False,
        ).stdout
        process.kill()
        process.wait()
        process.stdout.close()
        assert (b"canary-environment" in read) is not closed
    finally:
        shutil.rmtree(str(home))


def test_process_one_passes_signals_on_takes_up_orphans_and_ends_with_the_agent(
    tmp_path: Path,
) -> None:
    """Its child is an agent whose start-up fails when it is asked to leave."""
    code = """
import os, signal, sys, time
sys.path.insert(0, "ROOT")
from runner_action.agent import pod
def alive(home, link, environ):
    signal.signal(signal.SIGTERM, lambda *_: os._exit(7))
    if os.fork() == 0:
        time.sleep(0.1); os._exit(3)   # an orphan's end is not the agent's
    print('ready', flush=True)
    while True:
        time.sleep(0.1)
pod.alive = alive
sys.exit(pod.run('.', None, {}))
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code.replace("ROOT", str(AGENT.parents[1]))], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    time.sleep(0.3)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 7
    process.stdout.close()


def test_a_signal_that_cannot_be_passed_on_ends_nothing() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    pod.pass_on(signal.SIGTERM, gone.pid)
    alive = subprocess.Popen(["sleep", "60"])
    pod.pass_on(signal.SIGTERM, alive.pid)
    assert alive.wait(10) == -signal.SIGTERM


def test_without_githubs_hooks_in_the_image_it_says_so(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code = (
        "import sys; sys.path.insert(0, 'ROOT')\nfrom pathlib import Path\nfrom runner_action.agent"
        " import pod\n"
    )
    start = {
        "spec": dataclasses.replace(SPEC, forge="github", cloud="kubernetes").to_json(),
        "scripts": {},
    }
    code += f"class Link:\n    def start(self): return {start!r}\n"
    code += "sys.exit(pod.alive(Path('.'), Link(), {pod.HOOKS: '/nowhere/index.js'}))"
    done = subprocess.run(
        [sys.executable, "-c", code.replace("ROOT", str(AGENT.parents[1]))],
        cwd=str(tmp_path),
        stdout=subprocess.PIPE,
        check=False,
    )
    assert done.returncode == Reason.START_FAILED.exit_code
    entry = json.loads(done.stdout.decode().partition("cml-runner: ")[2])
    assert entry["stage"] == "failed"
    assert "/nowhere/index.js" in entry["why"]
