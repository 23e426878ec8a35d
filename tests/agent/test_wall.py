"""Whether jobs can become root in spite of `job-sudo: false`: found by trying, not by what an image is called."""

from __future__ import annotations

import getpass
from pathlib import Path

import pytest

from runner_action.agent import wall

ME = getpass.getuser()


def tools(folder: Path, **commands: str) -> dict[str, str]:
    """An environment with these commands, which end as they say, and no others."""
    for name, text in commands.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    return {"PATH": str(folder)}


def test_a_machine_without_a_way_up_is_fit(tmp_path: Path) -> None:
    wall.check(None, "somebody-else", tmp_path, tools(tmp_path, sudo="exit 1", docker="exit 1"), {})
    wall.check(None, "somebody-else", tmp_path, {"PATH": "/nowhere"}, {})


@pytest.mark.parametrize(("commands", "why"), [({"sudo": "exit 0"}, "`sudo -n true` works"), ({"docker": "exit 0"}, "`docker info` works")])
def test_what_works_is_told(commands: dict[str, str], why: str, tmp_path: Path) -> None:
    with pytest.raises(wall.Open, match=why):
        wall.check(None, "somebody-else", tmp_path, tools(tmp_path, **commands), {})


def test_a_group_that_is_root_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    group = type("Group", (), {"gr_name": "docker", "gr_mem": [ME]})
    monkeypatch.setattr("grp.getgrall", lambda: [group])
    with pytest.raises(wall.Open, match=f"user {ME} is in group docker"):
        wall.check(None, ME, tmp_path, {"PATH": "/nowhere"}, {})


def test_an_open_metadata_service_is_a_failure(tmp_path: Path) -> None:
    with pytest.raises(wall.Open, match="as `job-sudo: false` needs: nft: not found"):
        wall.check("nft: not found", "somebody-else", tmp_path, {"PATH": "/nowhere"}, {})
