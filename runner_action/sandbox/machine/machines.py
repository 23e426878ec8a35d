"""The instances of all embedded clouds, as local processes: each lives in a folder of its own, and
ends with its process."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from runner_action.sandbox.machine.systemd import descendants


@dataclass
class Living:
    """An instance's process."""

    process: subprocess.Popen[bytes]
    console: Path


@dataclass
class Machines:
    """`folder` holds the instances; `python` is the machines' interpreter; `timer_factor` shortens
    their timers; `boots=False`: instances never start. `machine`: returns the command for an
    instance's id and folder; that process is the instance, its output the console, SIGTERM the
    power button. `metadata`: the address of the metadata service, by instance."""

    folder: Path
    python: str = sys.executable
    timer_factor: float = 1.0
    boots: bool = True
    machine: Callable[[str, Path], Sequence[str]] | None = None
    metadata: Callable[[str], str] = lambda _: ""
    image: Path | None = None
    """The disk of an earlier machine (`imaged`) that new ones start from; None: a stock image."""
    network: float = 0.0
    """Seconds until a machine that boots has a network."""
    trusted: bytes = b""
    """Certificates that the machines' image trusts, as PEM."""
    living: dict[str, Living] = field(default_factory=dict)
    user_data: dict[str, bytes] = field(default_factory=dict)
    """By instance."""
    reclaimed: set[str] = field(default_factory=set)
    """Those that their cloud took back before they had ended by themselves."""

    def boot(self, instance_id: str, user_data: bytes) -> None:
        self.user_data[instance_id] = user_data
        if not self.boots:
            return
        place = self.folder / instance_id
        place.mkdir(parents=True)
        if self.image:
            _copy(self.image, place / "root")
        (place / "root").mkdir(exist_ok=True)
        (place / "user-data").write_bytes(user_data)
        (place / "user-data").chmod(0o600)
        if self.trusted:
            bundle = place / "root/etc/ssl/certs/ca-certificates.crt"
            bundle.parent.mkdir(parents=True, exist_ok=True)
            bundle.write_bytes(self.trusted)
        argv = (self.machine or self._local_machine)(instance_id, place)
        with (place / "console.log").open("wb") as console:
            process = subprocess.Popen(
                argv,
                stdout=console,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        self.living[instance_id] = Living(process, place / "console.log")

    def _local_machine(self, instance_id: str, place: Path) -> list[str]:
        arguments = [
            str(place / "root"),
            str(place / "user-data"),
            self.python,
            str(self.timer_factor),
            self.metadata(instance_id),
            str(self.network),
        ]
        return [sys.executable, "-m", "runner_action.sandbox.machine.machine", *arguments]

    def end(self, instance_id: str) -> None:
        """Presses the power button: the machine has a few seconds, then it is gone."""
        if instance_id in self.living:
            self.living[instance_id].process.terminate()

    def runs(self, instance_id: str) -> bool:
        return instance_id in self.living and self.living[instance_id].process.poll() is None

    def running(self) -> set[str]:
        return {instance_id for instance_id in list(self.living) if self.runs(instance_id)}

    def take(self, instance_id: str, soft: float, hard: float) -> None:
        """Its cloud takes the machine back: presses the power button in `soft` seconds, and
        switches it off in `hard` seconds, whatever it is doing."""
        if instance_id in self.living:
            for seconds, end in ((soft, self._reclaim), (hard, self._cut)):
                timer = threading.Timer(seconds, end, (instance_id,))
                timer.daemon = True
                timer.start()

    def _reclaim(self, instance_id: str) -> None:
        if self.runs(instance_id):
            self.reclaimed.add(instance_id)
            self.end(instance_id)

    def _cut(self, instance_id: str) -> None:
        """Kills everything on the machine without a signal that it could handle."""
        process = self.living[instance_id].process
        if process.poll() is None:
            process.send_signal(signal.SIGSTOP)  # so that it does not react to their end
            while left := list(descendants(process.pid)):
                for pid in left:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                time.sleep(0.02)
            process.kill()

    def console(self, instance_id: str, last: int | None = None) -> str:
        """The console so far; `last`: the bytes that the cloud keeps."""
        output = self.living[instance_id].console.read_bytes()
        return (output if last is None else output[-last:]).decode("utf-8", "replace")

    def root(self, instance_id: str) -> Path:
        return self.folder / instance_id / "root"

    def imaged(self, instance_id: str) -> Path:
        """An image of the machine's disk as it is now."""
        image = self.folder / f"image-of-{instance_id}"
        _copy(self.root(instance_id), image)
        return image

    def close(self) -> None:
        """Ends all instances."""
        for instance_id in self.living:
            self.end(instance_id)
        for living in self.living.values():
            try:
                living.process.wait(20)
            except subprocess.TimeoutExpired:
                living.process.kill()
                living.process.wait()


def _copy(disk: Path, to: Path) -> None:
    """Copies a disk, without what is in memory, and without what disappears meanwhile."""
    memory = shutil.ignore_patterns("run", "systemctl*")
    try:
        shutil.copytree(disk, to, symlinks=True, ignore=memory)
    except shutil.Error as error:
        if any("No such file" not in why for _, _, why in error.args[0]):
            raise
