"""The one way in which a folder where jobs worked is removed: through no mount and no link.

Each step is taken from an open folder, never by a path that somebody could lead elsewhere
meanwhile. What is mounted in there is detached, not entered; where that is not allowed, it is
left. Folders within folders are moved up first, so that however deep they are, a few open files
are enough.
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
"""Opens without a question to the file system, which may be of a network that does not answer.
Not on macOS."""
ROUNDS = 9999
"""How often a folder is gone through that others go on filling."""


def remove_tree(path: Path) -> List[str]:
    """Removes a file, a link or a folder with all that is in it. What is not there is no trouble.

    Returns what is left, `PATH: why` each, a folder after what is in it. Never raises OSError.
    """
    try:
        # Which a job may have made a link.
        parent = os.open(str(path.parent), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as error:
        return [str(error)] if os.path.lexists(path) else []
    removal = _Removal(_mount(parent))
    removal.take(removal.all, parent, path.name)
    os.close(parent)
    return removal.left


def _mount(handle: int) -> Any:
    """What differs from mount to mount: Linux' own number, by which also a bind mount of the
    same file system is known; where there is none, the device.
    https://man7.org/linux/man-pages/man5/proc_pid_fdinfo.5.html
    """
    try:
        return re.findall("mnt_id.*", Path("/proc/self/fdinfo/%d" % handle).read_text())[0]
    except Exception:
        return os.fstat(handle).st_dev


class _Removal:
    """`mount`: the only one that is touched; `left`: what could not be removed; `more`:
    something has changed."""

    def __init__(self, mount: Any) -> None:
        self.mount = mount
        self.left: List[str] = []

    def take(self, act: Callable[..., Any], above: int, name: str) -> None:
        """Does it with an entry of the open folder `above`; once more when a mount was taken off
        it."""
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
        """Removes what is in an open folder; `folder` is for those in it."""
        for one in os.scandir(inside):
            self.take(folder if one.is_dir(follow_symlinks=False) else os.unlink, inside, one.name)

    def folder(self, name: str, dir_fd: int) -> None:
        inside = self.enter(name, dir_fd)
        try:
            self.empty(inside, self.up)
        finally:
            os.close(inside)
        os.rmdir(name, dir_fd=dir_fd)

    def up(self, name: str, dir_fd: int) -> None:
        with contextlib.suppress(OSError):  # an empty one, be it another's
            os.rmdir(name, dir_fd=dir_fd)
            return
        os.close(self.enter(name, dir_fd))  # what is read-only cannot be moved
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
        """Takes off what is mounted there, by the handle, which is that very mount. False:
        nothing is, or only root may. 2 is MNT_DETACH: however busy it is;
        https://man7.org/linux/man-pages/man2/umount.2.html
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
