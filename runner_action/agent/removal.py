"""The only code that removes a folder in which jobs have worked: it never follows a link, and never
enters a mount.

Each step starts from an open folder, never from a path, which somebody could redirect meanwhile.
Mounts are detached, not entered; if that is not permitted, they stay. Nested folders are moved to
the top first, so that a few open files are enough for any depth.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
from pathlib import Path
from typing import Any, Callable, List

HANDLE = getattr(os, "O_PATH", os.O_RDONLY | os.O_NONBLOCK) | os.O_NOFOLLOW
"""Flags that open a file without access to its file system, which may be on a network that does
not respond. Not on macOS."""
ROUNDS = 9999
"""How often to empty a folder that others keep filling."""


def remove_tree(path: Path) -> List[str]:
    """Removes a file, a link or a folder with everything in it. A missing one is not an error.

    Returns what could not be removed, as `PATH: why`, a folder after its entries. Never raises
    OSError.
    """
    try:
        # A job may have replaced it with a link.
        parent = os.open(str(path.parent), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as error:
        return [str(error)] if os.path.lexists(path) else []
    removal = _Removal(_mount(parent))
    removal.take(removal.all, parent, path.name)
    os.close(parent)
    return removal.left


def _mount(handle: int) -> Any:
    """Identifies the mount of an open file: by Linux' mount id, which also distinguishes bind
    mounts of the same file system; elsewhere by the device.
    https://man7.org/linux/man-pages/man5/proc_pid_fdinfo.5.html
    """
    try:
        return re.findall("mnt_id.*", Path("/proc/self/fdinfo/%d" % handle).read_text())[0]
    except Exception:
        return os.fstat(handle).st_dev


class _Removal:
    """`mount`: the only one that is touched; `left`: what could not be removed; `more`: this
    round has removed something."""

    def __init__(self, mount: Any) -> None:
        self.mount = mount
        self.left: List[str] = []

    def take(self, act: Callable[..., Any], above: int, name: str) -> None:
        """Applies `act` to an entry of the open folder `above`, again after a mount has been
        detached from it."""
        while True:
            try:
                act(name, dir_fd=above)
                self.more = True
                return
            except FileNotFoundError:
                return
            except OSError as error:
                if act != os.unlink and error.errno in (errno.ENOTDIR, errno.ELOOP):
                    act = os.unlink
                elif error.errno != errno.EBUSY or not self.detach(above, name):
                    place = os.path.realpath("/proc/self/fd/%d" % above)
                    self.left.append("%s/%s: %s" % (place, name, error.strerror))
                    return

    def all(self, name: str, dir_fd: int) -> None:
        self.top = self.enter(name, dir_fd)
        try:
            for _ in range(ROUNDS):
                self.left = []
                self.more = False
                self.empty(self.top, self.folder)
                if not self.more:
                    break
        finally:
            os.close(self.top)
        os.rmdir(name, dir_fd=dir_fd)

    def empty(self, inside: int, folder: Callable[..., Any]) -> None:
        """Removes the entries of an open folder; `folder` removes those that are folders."""
        for entry in os.scandir(inside):
            act = folder if entry.is_dir(follow_symlinks=False) else os.unlink
            self.take(act, inside, entry.name)

    def folder(self, name: str, dir_fd: int) -> None:
        inside = self.enter(name, dir_fd)
        try:
            self.empty(inside, self.up)
        finally:
            os.close(inside)
        os.rmdir(name, dir_fd=dir_fd)

    def up(self, name: str, dir_fd: int) -> None:
        """Removes a nested folder if it is empty, else moves it to the top, for the next round."""
        with contextlib.suppress(OSError):  # works even if it belongs to somebody else
            os.rmdir(name, dir_fd=dir_fd)
            return
        os.close(self.enter(name, dir_fd))  # makes it writable, so that it can be moved
        os.rename(name, os.urandom(8).hex(), src_dir_fd=dir_fd, dst_dir_fd=self.top)

    def enter(self, name: str, dir_fd: int) -> int:
        handle = os.open(name, HANDLE | os.O_DIRECTORY, dir_fd=dir_fd)
        try:
            if _mount(handle) != self.mount:
                raise OSError(errno.EBUSY, "is mounted")
            with contextlib.suppress(OSError):
                os.chmod("/proc/self/fd/%d" % handle if hasattr(os, "O_PATH") else handle, 0o700)
            return os.open(".", os.O_RDONLY, dir_fd=handle)
        finally:
            os.close(handle)

    def detach(self, above: int, name: str) -> bool:
        """Unmounts what is mounted there, by an open handle, so that it is the same mount. Returns
        False if there is none, or if that needs root. 2 is MNT_DETACH, which works even while the
        mount is busy: https://man7.org/linux/man-pages/man2/umount.2.html
        """
        try:
            handle = os.open(name, HANDLE, dir_fd=above)
            try:
                place = b"/proc/self/fd/%d" % handle
                return _mount(handle) != self.mount and not ctypes.CDLL(None).umount2(place, 2)
            finally:
                os.close(handle)
        except Exception:
            return False
