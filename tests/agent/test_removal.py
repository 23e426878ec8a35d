"""Removal: all that is there goes, and nothing behind a mount or a link, whoever races with it."""

from __future__ import annotations

import os
import re
import resource
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from runner_action.agent.removal import remove_tree

NOBODY = 65534
KEPT = {"model.bin": "weights", "deep/log": "loss 0.1"}


def filled(folder: Path) -> Path:
    (folder / "deep").mkdir(parents=True)
    for name, text in KEPT.items():
        (folder / name).write_text(text)
    return folder


def content(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in folder.rglob("*")
        if path.is_file()
    }


def mount(*argv: str) -> int:
    return subprocess.run(["mount", *argv], check=True).returncode


def tmpfs(place: str) -> int:
    return mount("-t", "tmpfs", "tmpfs", place)


DEAD = """
import ctypes, os, sys
fuse = os.open('/dev/fuse', os.O_RDWR)
options = b'fd=%d,rootmode=40000,user_id=0,group_id=0' % fuse
sys.exit(ctypes.CDLL(None).mount(b'x', b'.', b'fuse', 0, options))
"""
"""A file system in user space whose program has ended."""


def mounts_below(folder: Path) -> list[str]:
    """The last one first."""
    lines = Path("/proc/self/mountinfo").read_text("utf-8").strip().split("\n")
    fields = [line.split(" ")[4] for line in reversed(lines)]
    places = [re.sub(r"\\(\d{3})", lambda octal: chr(int(octal[1], 8)), field) for field in fields]
    return [place for place in places if place.startswith(str(folder) + "/")]


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    return filled(tmp_path / "outside")


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Path]:
    """Where something may be mounted: nothing of it stays, so that not even a failing test
    empties anything."""
    folder = tmp_path / "room"
    folder.mkdir()
    yield folder
    for place in mounts_below(folder):
        subprocess.run(["umount", "-l", place], check=True)


@pytest.fixture
def may_mount(tmp_path: Path) -> Iterator[None]:
    place = tmp_path / "may-mount"
    place.mkdir()
    try:
        tmpfs(str(place))
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"SKIPPED LOUDLY: nothing can be mounted here: {error}")
    yield
    subprocess.run(["umount", "-l", str(place)], check=True)


def as_nobody(do: Callable[[], list[str]]) -> list[str]:
    """What it returns in a process that is not root."""
    if os.geteuid():
        return do()
    here, there = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            os.write(there, "\n".join(do()).encode())
        finally:
            os._exit(0)
    os.close(there)
    with open(here) as file:
        lines = file.read().splitlines()
    os.waitpid(child, 0)
    return lines


def given(folder: Path) -> None:
    """To nobody, all of it, with the way to it."""
    for place, _, names in os.walk(str(folder)):
        for name in [".", *names]:
            if not os.geteuid():
                os.lchown(os.path.join(place, name), NOBODY, NOBODY)
    for above in folder.parents:
        if os.stat(str(above)).st_uid == os.geteuid() and len(above.parts) > 2:
            above.chmod(0o755)


# --- what there may be in a folder


def test_all_kinds_of_entries_go_and_what_links_point_to_stays(room: Path, outside: Path) -> None:
    tree = filled(room / "tree")
    (tree / "link to a file").symlink_to(outside / "model.bin")
    (tree / "link to a folder").symlink_to(outside)
    (tree / "link to nothing").symlink_to("nowhere")
    (tree / "a\nb\\040").mkdir()
    os.link(str(outside / "model.bin"), str(tree / "second name"))
    os.mkfifo(str(tree / "pipe"))
    with socket.socket(socket.AF_UNIX) as bound:
        os.chdir(str(tree))
        bound.bind("socket")
        os.chdir("/")
    Path(os.fsdecode(os.fsencode(str(tree)) + b"/\xff\xfe")).write_text("not UTF-8")
    assert remove_tree(tree) == []
    assert not tree.exists()
    assert content(outside) == KEPT


@pytest.mark.parametrize("what", ["file", "link", "nothing", "below nothing", "below a file"])
def test_what_is_no_folder(what: str, room: Path, outside: Path) -> None:
    (room / "file").write_text("x")
    (room / "link").symlink_to(outside)
    place = {"below nothing": "nothing/x", "below a file": str(outside / "model.bin/x")}.get(
        what, what
    )
    assert remove_tree(room / place) == []
    assert not os.path.lexists(str(room / place))
    assert content(outside) == KEPT


@pytest.mark.parametrize("mode", [0o555, 0o444, 0o000])
def test_folders_of_ones_own_that_are_closed(mode: int, room: Path) -> None:
    """As Go leaves its cache: https://go.dev/ref/mod#module-cache"""
    tree = filled(room / "tree")
    (tree / "deep").chmod(mode)
    given(tree)
    room.chmod(0o777)
    assert as_nobody(lambda: remove_tree(tree)) == []
    assert not tree.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes files of others")
def test_what_a_container_left_as_root(room: Path) -> None:
    tree = filled(room / "tree")
    given(tree)
    os.chown(str(tree / "deep"), 0, 0)
    for empty in ("empty", "below/empty"):  # as for `docker run -v`
        (tree / empty).mkdir(parents=True)
        os.chown(str(tree / empty), 0, 0)
    given(tree / "below")
    os.chown(str(tree / "below/empty"), 0, 0)
    room.chmod(0o777)
    left = as_nobody(lambda: remove_tree(tree))
    assert left[0] == f"{tree}/deep/log: Permission denied"
    assert left[1:] == [f"{tree}/deep: Directory not empty", f"{tree}: Directory not empty"]
    assert content(tree) == {"deep/log": KEPT["deep/log"]}, "the rest is gone"
    assert remove_tree(tree) == []
    assert not tree.exists()


def test_depth_costs_neither_files_nor_the_stack(room: Path) -> None:
    tree, old = room / "tree", resource.getrlimit(resource.RLIMIT_NOFILE)
    tree.mkdir()
    here = os.open(str(tree), os.O_RDONLY)
    for _ in range(1000):
        os.mkdir("d", dir_fd=here)
        os.close(os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=here))
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    # Earlier tests may have left some open.
    most = len(os.listdir("/proc/self/fd")) + 100
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, old[1]))
    try:
        assert remove_tree(tree) == []
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, old)
    assert not tree.exists()


# --- mounts

MOUNTS = {
    "of the same file system": lambda place, share: mount("--bind", share, place),
    "to be read only": lambda place, share: (
        mount("--bind", share, place),
        mount("-o", "remount,bind,ro", place),
    ),
    "of another": lambda place, share: (tmpfs(place), Path(place, "x").write_text("x")),
    "one on the other": lambda place, share: (tmpfs(place), mount("--bind", share, place)),
    "one in the other": lambda place, share: (
        mount("--bind", share, place),
        tmpfs(place + "/deep"),
    ),
    "of itself": lambda place, share: (mount("--bind", place, place), filled(Path(place, "own"))),
}  # type: dict[str, Callable[[str, str], Any]]
PLACES = ["", "data", "a b\\c/d\te\nf", "é/ü", "/".join("d" * 120)]


@pytest.mark.usefixtures("may_mount")
@pytest.mark.parametrize("below", PLACES, ids=["at its top", "in it", "blanks", "letters", "deep"])
@pytest.mark.parametrize("what", MOUNTS)
def test_what_is_mounted_is_taken_off_and_not_entered(
    what: str, below: str, room: Path, outside: Path
) -> None:
    tree = filled(room / "tree")
    place = tree / below
    place.mkdir(parents=True, exist_ok=True)
    MOUNTS[what](str(place), str(outside))
    assert remove_tree(tree) == []
    assert content(outside) == KEPT
    assert not tree.exists()
    assert mounts_below(room) == []


@pytest.mark.usefixtures("may_mount")
@pytest.mark.parametrize("what", [*MOUNTS, "a file"])
def test_who_may_not_unmount_leaves_it_and_says_so(what: str, room: Path, outside: Path) -> None:
    tree = filled(room / "tree")
    place = tree / "some/data"
    (place.parent if what == "a file" else place).mkdir(parents=True)
    if what == "a file":
        place.touch()
    given(tree)
    given(outside)  # it could well empty it
    room.chmod(0o777)
    if what == "a file":
        mount("--bind", str(outside / "model.bin"), str(place))
    else:
        MOUNTS[what](str(place), str(outside))
    before = content(place.parent)
    left = as_nobody(lambda: remove_tree(tree))
    assert left[0].startswith(f"{place}: ")
    assert [line for line in left if "Directory not empty" not in line] == left[:1]
    assert content(place.parent) == before
    assert content(outside) == KEPT
    assert [path.name for path in tree.iterdir()] == ["some"], "the rest is gone"


@pytest.mark.usefixtures("may_mount")
def test_a_file_that_is_mounted(room: Path, outside: Path) -> None:
    tree = filled(room / "tree")
    mount("--bind", str(outside / "model.bin"), str(tree / "model.bin"))
    assert remove_tree(tree) == []
    assert not tree.exists()
    assert content(outside) == KEPT


@pytest.mark.usefixtures("may_mount")
def test_a_share_whose_program_has_ended(room: Path) -> None:
    """Any question to it is answered by `Transport endpoint is not connected`."""
    tree = filled(room / "tree")
    (tree / "data").mkdir()
    argv = [sys.executable, "-c", DEAD]
    if subprocess.run(argv, cwd=str(tree / "data"), capture_output=True, check=False).returncode:
        pytest.skip("SKIPPED LOUDLY: there is no FUSE here")
    with pytest.raises(OSError, match="not connected"):
        os.listdir(str(tree / "data"))
    assert remove_tree(tree) == []
    assert not tree.exists()


# --- races

STEPS = ("open", "os.scandir", "os.listdir", "os.remove", "os.rmdir", "os.rename", "os.chmod")
"""What Python tells before it does it; https://docs.python.org/3/library/audit_events.html"""


class Ear:
    """Calls `then` before the step of that number. An audit hook cannot be taken away, so there
    is one."""

    def __init__(self) -> None:
        self.left, self.then = 0, None  # type: int, Any
        sys.addaudithook(self.hear)

    def hear(self, event: str, args: Any) -> None:
        if self.then and event in STEPS and not (event == "open" and "/proc/" in str(args[0])):
            self.left -= 1
            if self.left < 0:
                then, self.then = self.then, None
                then()


@pytest.fixture(scope="session")
def ear() -> Ear:
    return Ear()


def swap(place: Path, outside: Path, how: str) -> None:
    """Somebody puts something else there."""
    if not place.exists() or place.is_symlink():
        return
    place.rename(place.with_name("moved"))
    if how == "a link":
        place.symlink_to(outside)
    elif how == "a file":
        place.write_text("x")
    elif how == "a mount":
        place.mkdir()
        mount("--bind", str(outside), str(place))


@pytest.mark.usefixtures("may_mount")
@pytest.mark.parametrize("how", ["a link", "a file", "a mount", "nothing"])
@pytest.mark.parametrize("which", ["tree", "tree/deep", "tree/deep/log"])
def test_whoever_swaps_at_whatever_step_leads_nowhere(
    how: str,
    which: str,
    room: Path,
    outside: Path,
    ear: Ear,
) -> None:
    if which == "tree/deep/log" and how == "a mount":
        pytest.skip("it is a file")
    for number in range(100):
        tree = filled(room / "tree")
        ear.left, ear.then = number, lambda: swap(room / which, outside, how)
        remove_tree(tree)
        swapped, ear.then = ear.then is None, None
        assert content(outside) == KEPT, f"swapped at step {number}"
        for place in mounts_below(room):
            subprocess.run(["umount", "-l", place], check=True)
        for entry in room.iterdir():
            if entry.is_symlink() or entry.is_file():
                entry.unlink()
            else:
                shutil.rmtree(str(entry))
        if not swapped:
            assert number > 5
            return
    raise AssertionError("it has no end")


def test_a_folder_that_became_a_link_leads_nowhere(tmp_path: Path) -> None:
    """As a job can do with the folder of its workspaces, between two looks."""
    (tmp_path / "theirs/done").mkdir(parents=True)
    (tmp_path / "work").symlink_to(tmp_path / "theirs")
    assert remove_tree(tmp_path / "work/done") != []
    assert (tmp_path / "theirs/done").is_dir()
