"""The room that jobs run in: what is closed to them, whether it is fit for them, and how they are told that it ends."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Dict, Optional

from .process import run_to_end, session

SERVICES = "169.254.169.254, 168.63.129.16"
"""The metadata service of AWS, Azure and Google, and Azure's wire server."""
RULES = """table inet cml_runner
flush table inet cml_runner
table inet cml_runner {
chain own { type filter hook output priority 0; ip daddr { %s } tcp dport { 80, 32526 } meta skuid != 0 reject; }
chain through { type filter hook forward priority 0; ip daddr { %s } tcp dport { 80, 32526 } reject; }
}
""" % (SERVICES, SERVICES)
"""Only web ports: on Google the same address is the name server. The forward chain is for containers."""


def close_metadata(env: Dict[str, str]) -> Optional[str]:
    """Root only from now on: the user data and the machine's role are read there. None, or why it is still open."""
    try:
        done = subprocess.run(["nft", "-f", "-"], input=RULES.encode(), env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    except OSError as error:
        return str(error)
    return done.stdout.decode("utf-8", "replace") if done.returncode else None


def gpu(sysfs: Path = Path("/sys")) -> bool:
    """An NVIDIA GPU is there."""
    for device in sysfs.glob("bus/pci/devices/*"):
        try:
            if (device / "vendor").read_text().strip() == "0x10de" and (device / "class").read_text().startswith("0x03"):
                return True
        except OSError:
            continue
    return False


def gpu_problem(env: Dict[str, str], cwd: Path, sysfs: Path = Path("/sys")) -> Optional[str]:
    """Why the NVIDIA GPU of this machine cannot be used; None if it can, or if there is none."""
    if not gpu(sysfs):
        return None
    if not shutil.which("nvidia-smi", path=env.get("PATH")):
        return "an NVIDIA GPU is there, but no driver (nvidia-smi is missing): choose a `cloud-image` with one, or install it in `cloud-startup-script`"
    failed = run_to_end(["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"], cwd, env, 60)
    return failed and "an NVIDIA GPU is there, but nvidia-smi fails: " + failed


def tell_job(leader: int, text: str) -> bool:
    """Writes a warning into the log of the job that runs: an annotation that people read, and `cml-runner restart`.

    actions/runner reads workflow commands from the output of its steps, which are the children of its worker; that output is a
    pipe, and a pipe can be opened anew from /proc. Best effort: False where that is not so.
    """
    told = False
    for pid in session(leader):
        try:
            above = Path("/proc/%d/stat" % pid).read_text().rpartition(")")[2].split()[1]
            out = "/proc/%d/fd/1" % pid
            if b"Runner.Worker" not in Path("/proc/%s/cmdline" % above).read_bytes() or not stat.S_ISFIFO(os.stat(out).st_mode):
                continue
            with open(os.open(out, os.O_WRONLY | os.O_NONBLOCK), "wb", 0) as pipe:
                pipe.write(("\n::warning title=cml-runner::%s\n" % text).encode())
            told = True
        except OSError:
            continue
    return told
