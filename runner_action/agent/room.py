"""The surroundings of jobs on this machine: what they cannot reach, whether the GPU works, and how
a job's log gets a warning that the machine ends."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Dict, Iterable, Optional

from .process import run_to_end

SERVICES = (
    "ip daddr { 169.254.169.254, 168.63.129.16 }",
    "ip6 daddr { fd00:ec2::254, fd20:ce::254 }",
)
"""The metadata services of AWS, Azure and Google Cloud, and Azure's wire server; over IPv6 those of
AWS and Google Cloud.
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html
https://docs.cloud.google.com/compute/docs/metadata/querying-metadata
https://learn.microsoft.com/azure/virtual-network/what-is-ip-address-168-63-129-16"""
CLOSED = "meta l4proto { tcp, udp } th dport != { 53, 67, 123 } reject;"
"""Everything but DNS, DHCP and NTP, which are at the same addresses. Google's metadata service is
on port 443 as well."""
OWN, THROUGH = (
    "\n".join("%s %s%s" % (to, user, CLOSED) for to in SERVICES)
    for user in ("meta skuid != 0 ", "")
)
RULES = """table inet cml_runner
flush table inet cml_runner
table inet cml_runner {
chain own { type filter hook output priority 0;
%s
}
chain through { type filter hook forward priority 0;
%s
}
}
""" % (OWN, THROUGH)
"""The chain `through` is for containers."""


def close_metadata(env: Dict[str, str]) -> Optional[str]:
    """Closes the metadata services, which give out the user data and the machine's credentials, to
    everybody but root. Returns None, or why they are still open."""
    try:
        nft = subprocess.run(
            ["nft", "-f", "-"],
            input=RULES.encode(),
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
    except OSError as error:
        return str(error)
    return nft.stdout.decode("utf-8", "replace") if nft.returncode else None


def gpu(sysfs: Path = Path("/sys")) -> bool:
    """Whether there is an NVIDIA GPU."""
    for device in sysfs.glob("bus/pci/devices/*"):
        try:
            if (device / "vendor").read_text().strip() == "0x10de" and (
                device / "class"
            ).read_text().startswith("0x03"):
                return True
        except OSError:
            continue
    return False


def gpu_problem(env: Dict[str, str], cwd: Path) -> Optional[str]:
    """Why the NVIDIA GPU of this machine does not work; None if it does."""
    if not shutil.which("nvidia-smi", path=env.get("PATH")):
        return "nvidia-smi is missing: use a `cloud-image` with NVIDIA's driver, or install it"
    failed = run_to_end(["nvidia-smi", "-L"], cwd, env, 60)
    return failed and "the NVIDIA GPU does not work, nvidia-smi fails: " + failed


def warn_job(pids: Iterable[int], text: str) -> bool:
    """Writes a warning into the log of the current job: an annotation for people and for
    `cml-runner restart`. Returns whether that worked; it is best effort. `pids`: of the processes
    whose output is the log. That is a pipe, which can be opened through /proc."""
    warned = False
    for pid in pids:
        try:
            # Checked after opening it: a job can put another file there at any moment.
            with open(os.open("/proc/%d/fd/1" % pid, os.O_WRONLY | os.O_NONBLOCK), "wb", 0) as pipe:
                if stat.S_ISFIFO(os.fstat(pipe.fileno()).st_mode):
                    pipe.write(("\n::warning title=cml-runner::%s\n" % text).encode())
                    warned = True
        except OSError:
            continue
    return warned
