"""The image that a machine of the sandbox is started from: this computer's programs without Docker,
as on the stock images of the clouds, and a package archive that has it."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path

FOLDERS = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
MISSING = ("docker", "dockerd", "podman", "apt-get", "apt-cache", "dnf", "git-lfs", "systemctl")
"""Programs of this computer that the image has not, or has of its own."""
ERROR = "apt-error"
"""A file in the folder of all machines: what `apt-get` fails with, if it is there."""
APT_GET = """#!/bin/sh
echo "$*" >> {root}/apt-get
case " $* " in
*' install '*)
if [ -e {error} ]; then cat {error}; exit 100; fi
case " $* " in *' docker.io '*) ln -sf docker-installed {programs}/docker;; esac
esac
"""
APT_CACHE = """#!/bin/sh
case $1 in
pkgnames) echo libicu72; echo libicu-dev;;
show) case $2 in docker-cli|docker-buildx) echo 'E: No packages found' >&2; exit 100;; esac;;
esac
"""
"""Debian 12's, where Docker's client is in the package of its daemon."""
DOCKER = """#!/bin/sh
case "$*" in
info|ps*|rmi*) exit 0;;
import*) cat > /dev/null; echo sha256:1; exit 0;;
*/nothing) echo 'exec: "/nothing": no such file or directory' >&2; exit 127;;
esac
echo 'the sandbox runs no containers' >&2
exit 125
"""


def tools(machines: Path) -> Path:
    """The folder of the programs that all machines share, created by the first of them.
    `machines`: the folder of all machines."""
    shared = machines / "tools"
    if shared.is_dir():
        return shared
    fresh = Path(tempfile.mkdtemp(prefix="tools-", dir=machines))
    for folder in FOLDERS:
        for program in os.scandir(folder) if os.path.isdir(folder) else ():
            if program.name not in MISSING:
                with suppress(FileExistsError):
                    os.symlink(program.path, fresh / program.name)
    with suppress(OSError):  # another machine was faster
        fresh.rename(shared)
    return shared


def programs(root: Path) -> dict[str, str]:
    """The machine's own programs besides, by name. `root`: its file system."""
    folder = root / "usr/bin"
    error = root.parents[1] / ERROR
    return {
        "apt-get": APT_GET.format(root=root, error=error, programs=folder),
        "apt-cache": APT_CACHE,
        "docker-installed": DOCKER,
        "nft": f"#!/bin/sh\ncat > {root}/nftables\n",
    }
