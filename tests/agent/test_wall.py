"""Whether jobs can become root despite `job-sudo: false`: found by trying, not by what an
image is called."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from runner_action.agent import wall

SOMEBODY = pwd.getpwuid(65534)
"""In no group but its own."""


def tools(folder: Path, **commands: str) -> dict[str, str]:
    """An environment with these commands, which end as they say, and no others."""
    for name, text in commands.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    return {"PATH": str(folder)}


def test_a_machine_without_a_way_up_is_fit(tmp_path: Path) -> None:
    wall.check(
        None, SOMEBODY.pw_name, tmp_path, tools(tmp_path, sudo="exit 1", docker="exit 1"), {}
    )
    wall.check(None, SOMEBODY.pw_name, tmp_path, {"PATH": "/nowhere"}, {})


@pytest.mark.parametrize(
    ("commands", "why"),
    [({"sudo": "exit 0"}, "`sudo -n true` works"), ({"docker": "exit 0"}, "`docker info` works")],
)
def test_what_works_is_told(commands: dict[str, str], why: str, tmp_path: Path) -> None:
    with pytest.raises(wall.Open, match=why):
        wall.check(None, SOMEBODY.pw_name, tmp_path, tools(tmp_path, **commands), {})


@pytest.mark.parametrize("how", ["as a member", "as its own group"])
def test_a_group_that_is_root_is_told(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = 4711 if how == "as a member" else SOMEBODY.pw_gid
    group = type(
        "Group",
        (),
        {
            "gr_name": "docker",
            "gr_gid": number,
            "gr_mem": [SOMEBODY.pw_name] if number == 4711 else [],
        },
    )
    listed = [SOMEBODY.pw_gid, 4711] if number == 4711 else [SOMEBODY.pw_gid]
    monkeypatch.setattr("grp.getgrall", lambda: [group])
    monkeypatch.setattr(os, "getgrouplist", lambda *_: listed)
    with pytest.raises(wall.Open, match=f"user {SOMEBODY.pw_name} is in group docker"):
        wall.check(None, SOMEBODY.pw_name, tmp_path, {"PATH": "/nowhere"}, {})


def test_an_open_metadata_service_is_a_failure(tmp_path: Path) -> None:
    with pytest.raises(wall.Open, match="which `job-sudo: false` requires: nft: not found"):
        wall.check("nft: not found", SOMEBODY.pw_name, tmp_path, {"PATH": "/nowhere"}, {})
