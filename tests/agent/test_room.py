"""The room of the jobs: metadata closed, GPU tested, disk watched, a warning in the job's own
log."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from runner_action.agent import github, room
from runner_action.agent.process import Child
from runner_action.agent.watchdog import disk_full
from tests.agent.test_spec import SPEC
from tests.boot import walls

PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


def pci(sysfs: Path, vendor: str, kind: str) -> None:
    device = sysfs / "bus/pci/devices/0000:00:1e.0"
    device.mkdir(parents=True)
    (device / "vendor").write_text(vendor + "\n")
    (device / "class").write_text(kind + "\n")


def tool(folder: Path, name: str, script: str) -> dict[str, str]:
    (folder / "bin").mkdir(exist_ok=True)
    (folder / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / "bin" / name).chmod(0o755)
    return {"PATH": f"{folder}/bin:{PATH}"}


@pytest.mark.parametrize(
    ("vendor", "kind"),
    [("0x1d0f", "0x030000"), ("0x10de", "0x020000")],
    ids=["another maker's", "no display"],
)
def test_no_gpu_no_test(vendor: str, kind: str, tmp_path: Path) -> None:
    assert not room.gpu(tmp_path)
    pci(tmp_path, vendor, kind)
    assert not room.gpu(tmp_path)


def test_a_gpu_must_answer(tmp_path: Path) -> None:
    pci(tmp_path, "0x10de", "0x030200")
    assert room.gpu(tmp_path)
    problem = room.gpu_problem({"PATH": str(tmp_path)}, tmp_path)
    assert problem is not None
    assert "nvidia-smi is missing" in problem
    problem = room.gpu_problem(
        tool(tmp_path, "nvidia-smi", "echo NVRM: version mismatch; exit 18"), tmp_path
    )
    assert (
        problem
        == "the NVIDIA GPU does not work, nvidia-smi fails: exit code 18: NVRM: version mismatch"
    )
    assert (
        room.gpu_problem(tool(tmp_path, "nvidia-smi", 'echo "Tesla T4, 550.54"'), tmp_path) is None
    )


def test_metadata_is_closed_with_nft_and_what_goes_wrong_is_told(tmp_path: Path) -> None:
    assert room.close_metadata(tool(tmp_path, "nft", f"cat > {tmp_path}/rules")) is None
    assert "169.254.169.254" in (tmp_path / "rules").read_text()
    assert (
        room.close_metadata(tool(tmp_path, "nft", "echo no such kernel; exit 1"))
        == "no such kernel\n"
    )
    assert "nft" in (room.close_metadata({"PATH": str(tmp_path / "nowhere")}) or "")


def test_boots_try_each_address_that_is_closed() -> None:
    named = {word for rule in room.SERVICES for word in re.findall(r"[\w.:]{6,}", rule)}
    assert named == set(walls.SERVICES)


@pytest.mark.skipif(
    not shutil.which("nft", path=PATH) or os.geteuid() != 0,
    reason="SKIPPED LOUDLY: nftables is not on this machine (Debian package nftables)",
)
def test_the_kernel_takes_the_rules_and_keeps_all_but_root_out() -> None:
    """In a network namespace of its own, where this machine is the metadata service."""
    script = f"""
ip link set lo up && ip address add 169.254.169.254/32 dev lo
cat > /tmp/rules.$$ <<'END'
{room.RULES}END
nft -f /tmp/rules.$$ && nft -f /tmp/rules.$$ || exit 9
rm /tmp/rules.$$
{sys.executable} -m http.server 80 --bind 169.254.169.254 >/dev/null 2>&1 & sleep 1
ask="import urllib.request as u; u.urlopen('http://169.254.169.254/', timeout=3)"
python3 -c "$ask" || exit 1
setpriv --reuid nobody --clear-groups python3 -c "$ask" 2>/dev/null && exit 2
exit 0
"""
    done = subprocess.run(
        ["unshare", "--net", "sh", "-c", script],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": PATH},
        cwd="/",
    )
    if "Operation not permitted" in done.stderr:
        pytest.skip("SKIPPED LOUDLY: no network namespaces here")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_full_disk_is_seen(tmp_path: Path) -> None:
    assert not disk_full(tmp_path)
    full = Path("/dev/full-of-nothing")
    assert not disk_full(full), "what cannot be asked is not full"


def test_a_job_reads_its_warning_in_its_own_log(tmp_path: Path) -> None:
    """As in actions/runner: the worker reads what its step writes."""
    worker = tmp_path / "Runner.Worker"
    worker.write_text(
        f"#!{sys.executable}\nimport subprocess, sys\n"
        "step = subprocess.Popen(['sleep', '5'], stdout=subprocess.PIPE)\n"
        "for line in step.stdout:\n    sys.stdout.write(line.decode()); sys.stdout.flush()\n"
    )
    worker.chmod(0o755)
    runner = github.Forge(SPEC, tmp_path, {}, {})
    child = Child.start(
        [str(worker)], tmp_path, dict(os.environ), tmp_path / "log", lambda code: None
    )
    end = time.monotonic() + 10
    while (
        not room.warn_job(runner.outputs(child.pid), "interrupted: spot") and time.monotonic() < end
    ):
        time.sleep(0.05)
    while "interrupted" not in (tmp_path / "log").read_text() and time.monotonic() < end:
        time.sleep(0.05)
    assert "::warning title=cml-runner::interrupted: spot\n" in (tmp_path / "log").read_text()
    assert runner.works(child.pid)
    child.stop(0.1, lambda: False)
    assert not room.warn_job(runner.outputs(child.pid), "too late")


def test_a_runner_without_a_worker_works_on_nothing(tmp_path: Path) -> None:
    runner = github.Forge(SPEC, tmp_path, {}, {})
    child = Child.start(
        ["sleep", "60"], tmp_path, dict(os.environ), tmp_path / "log", lambda code: None
    )
    assert not runner.works(child.pid)
    child.stop(0.1, lambda: False)
    assert runner.works(child.pid), "a session that is not there shows nothing"
