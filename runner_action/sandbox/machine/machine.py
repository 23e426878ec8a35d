"""One instance as a local process tree: a small cloud-init, a small systemd, and an end that no
process survives.

`python -m runner_action.sandbox.machine.machine ROOT USER_DATA PYTHON TIMER_FACTOR METADATA [WAIT]`
is the supervisor; WAIT: the seconds until there is a network. Its output is the machine's console,
and the machine ends with it. SIGTERM is the power button. If its parent dies, in whatever way, the
machine ends as well.
"""

from __future__ import annotations

import ctypes
import gzip
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import yaml

from runner_action.sandbox.machine import image
from runner_action.sandbox.machine.systemctl import Systemctl
from runner_action.sandbox.machine.systemd import Systemd, descendants

PR_SET_CHILD_SUBREAPER = 36
STOP_SECONDS = 30.0
"""Seconds for the shutdown when the cloud ends the machine. Google Cloud and Azure allow 30, EC2
somewhat more."""


class Machine:
    """The supervisor of a machine. `root` is the machine's file system; `network`: the seconds
    until there is one."""

    def __init__(
        self, root: Path, python: str, timer_factor: float, metadata: str, network: float
    ) -> None:
        self._root = root
        self._python = python
        self._network = network
        self._off = threading.Event()
        self._forced = threading.Event()
        self._taken = threading.Event()
        self._systemd = Systemd(root, python, timer_factor, metadata, self.power_off)

    def power_off(self, why: str, forced: bool) -> None:
        print(f"machine: power off: {why}", flush=True)
        if forced:
            self._forced.set()
        self._off.set()

    def _button(self, *_: object) -> None:
        self._taken.set()
        self._off.set()

    def live(self, user_data: bytes) -> None:
        """Runs the machine from its first boot until power-off. No process remains."""
        parent = os.getppid()
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._button)
        self._boot(user_data)
        while not self._off.wait(0.1):
            if os.getppid() != parent:
                break
        self._shut_down(parent)
        kill_descendants(os.getpid())

    def _shut_down(self, parent: int) -> None:
        """Waits until all units have stopped, or until there is no more time for that."""
        stopping = threading.Thread(target=self._systemd.stop_all, daemon=True)
        end = float("inf")
        if not self._forced.is_set():
            stopping.start()
        while stopping.is_alive() and not self._forced.is_set() and os.getppid() == parent:
            stopping.join(0.05)
            if self._taken.is_set():
                end = min(end, time.monotonic() + STOP_SECONDS)
            if time.monotonic() >= end:
                break

    # --- the part of cloud-init

    def _boot(self, user_data: bytes) -> None:
        """Boots from a disk of which this may be the first boot. As on Fedora, what is enabled does
        not wait for cloud-init, which waits for the network."""
        instance = self._root.parent.name
        self._install_python()
        self._systemd.start_enabled()
        time.sleep(self._network)
        (self._root / "run/cloud-init").mkdir(parents=True, exist_ok=True)
        text = gzip.decompress(user_data) if user_data[:2] == b"\x1f\x8b" else user_data
        cache = self._root / "var/lib/cloud/instances" / instance
        for name in ("user-data.txt", "user-data.txt.i", "cloud-config.txt"):
            self._write(cache / name, text, 0o600)
        if not text.startswith(b"#cloud-config"):
            print("machine: ignoring user data that is not a cloud-config", flush=True)
            return
        config: dict[str, Any] = yaml.safe_load(text)
        for script in config.get("bootcmd", ()):
            below = script.replace("cd /\n", f"cd {self._root}\n")
            subprocess.run(
                ["sh"],
                input=below.encode(),
                env={**self._systemd.environment(), "INSTANCE_ID": instance},
                check=False,
            )

    def _install_python(self) -> None:
        """Installs the machine's python3, systemctl, nft, and its package manager."""
        folder = self._root / "usr/bin"
        folder.mkdir(parents=True, exist_ok=True)
        (self._root / "usr/local/bin").mkdir(parents=True, exist_ok=True)
        (folder / "python3").unlink(missing_ok=True)
        (folder / "python3").symlink_to(self._python)
        for name, text in image.programs(self._root).items():
            self._write(folder / name, text.encode(), 0o755)
        Systemctl(self._systemd, self._root, folder)

    @staticmethod
    def _write(path: Path, content: bytes, mode: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=mode)
        path.write_bytes(content)
        path.chmod(mode)


def kill_descendants(pid: int) -> None:
    """Sends SIGKILL until no descendant is left: a process may fork while it is being killed."""
    while left := list(descendants(pid)):
        for descendant in left:
            try:
                os.kill(descendant, signal.SIGKILL)
            except ProcessLookupError:
                pass
        time.sleep(0.02)


if __name__ == "__main__":
    place, given, interpreter, factor, service, *wait = sys.argv[1:]
    Machine(Path(place), interpreter, float(factor), service, float("".join(wait) or 0)).live(
        Path(given).read_bytes()
    )
