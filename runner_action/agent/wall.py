"""For jobs that must not become root (`job-sudo: false`): whether they can in spite of that. Not
part of what other machines get."""

from __future__ import annotations

import grp
import os
import pwd
from pathlib import Path
from typing import Any, Dict, Optional

from .process import run_to_end

ROOTS = {
    "root",
    "sudo",
    "wheel",
    "admin",
    "docker",
    "podman",
    "lxd",
    "incus-admin",
    "libvirt",
    "disk",
    "shadow",
}
"""Groups whose members can make themselves root."""


class Open(Exception):
    """What is open to jobs, and must not be."""


def check(
    metadata: Optional[str], user: str, cwd: Path, env: Dict[str, str], identity: Dict[str, Any]
) -> None:
    """`metadata`: why that service is not closed. Raises Open."""
    way = way_to_root(user, cwd, env, identity)
    if metadata:
        raise Open(
            "the metadata service cannot be closed to jobs, as `job-sudo: false` needs: " + metadata
        )
    if way:
        raise Open("jobs could become root in spite of `job-sudo: false`: " + way)


def way_to_root(
    user: str, cwd: Path, env: Dict[str, str], identity: Dict[str, Any]
) -> Optional[str]:
    """How a job could become root on this machine, as far as can be seen by trying; None if it
    cannot."""
    ids = os.getgrouplist(user, pwd.getpwnam(user).pw_gid)  # its own group too
    groups = ROOTS.intersection(group.gr_name for group in grp.getgrall() if group.gr_gid in ids)
    if groups:
        return "user %s is in group %s" % (user, ", ".join(sorted(groups)))
    for command in (["sudo", "-n", "true"], ["docker", "info"]):
        try:
            if run_to_end(command, cwd, env, 20, **identity) is None:
                return "`%s` works for user %s" % (" ".join(command), user)
        except OSError:
            continue
    return None
