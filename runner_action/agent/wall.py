"""Checks that jobs cannot become root where they must not (`job-sudo: false`). Other machines do
not get this module."""

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
"""Groups whose members can become root."""


class Open(Exception):
    """What jobs could do but must not."""


def check(
    metadata: Optional[str], user: str, cwd: Path, env: Dict[str, str], identity: Dict[str, Any]
) -> None:
    """Raises Open. `metadata`: why the metadata service could not be closed; None if it is."""
    way = way_to_root(user, cwd, env, identity)
    if metadata:
        raise Open(
            "cannot close the metadata service to jobs, which `job-sudo: false` requires: "
            + metadata
        )
    if way:
        raise Open("jobs could become root despite `job-sudo: false`: " + way)


def way_to_root(
    user: str, cwd: Path, env: Dict[str, str], identity: Dict[str, Any]
) -> Optional[str]:
    """How a job could become root on this machine, as far as a trial shows; None if it cannot."""
    ids = os.getgrouplist(user, pwd.getpwnam(user).pw_gid)  # includes its primary group
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
