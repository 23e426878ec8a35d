"""One virtual machine as the embedded world's instance: its output is the console, SIGTERM the
power button, its end the machine's.

`python -m tests.boot.vm IMAGE_FOLDER -- QEMU_OPTIONS…`. No KVM is needed: the processor is
emulated.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

from runner_action.sandbox.machine.systemd import die_with_parent

GRACE = 60.0
"""Seconds that the machine has from the power button to its end; EC2 gives some more."""
QEMU = "qemu-system-x86_64"


def qemu(folder: Path, monitor: Path, more: Sequence[str]) -> list[str]:
    """The command: the image as a disk whose changes are forgotten, the serial console on
    standard output."""
    return [
        *(
            QEMU,
            "-accel",
            "tcg,thread=multi,tb-size=512",
            "-smp",
            "2",
            "-m",
            "768",
            "-display",
            "none",
            "-serial",
            "stdio",
            "-monitor",
            "none",
        ),
        *(
            "-qmp",
            f"unix:{monitor},server=on,wait=off",
            "-snapshot",
            "-drive",
            f"file={folder}/disk,format=raw,if=virtio",
        ),
        *(
            "-kernel",
            f"{folder}/kernel",
            "-initrd",
            f"{folder}/initrd",
            "-append",
            "root=/dev/vda rw console=ttyS0 net.ifnames=0",
        ),
        *("-nic", "user,model=virtio-net-pci,ipv6=off"),
        *more,
    ]


def press(monitor: Path) -> None:
    """The power button, which the machine's systemd hears."""
    with socket.socket(socket.AF_UNIX) as wire:
        wire.connect(str(monitor))
        told = wire.makefile("rw")
        for command in ("qmp_capabilities", "system_powerdown"):
            told.readline()
            told.write(json.dumps({"execute": command}) + "\n")
            told.flush()
        told.readline()


def main(argv: Sequence[str]) -> int:
    split = argv.index("--")
    with tempfile.TemporaryDirectory(prefix="cml-runner-vm-") as place:
        monitor = Path(place) / "monitor"
        machine = subprocess.Popen(
            qemu(Path(argv[0]), monitor, argv[split + 1 :]),
            stdin=subprocess.DEVNULL,
            preexec_fn=die_with_parent,
        )
        pressed = threading.Event()

        def power_button(*_: object) -> None:
            if pressed.is_set():
                machine.kill()
            pressed.set()

        signal.signal(signal.SIGTERM, power_button)
        parent = os.getppid()
        while machine.poll() is None:
            if os.getppid() != parent:  # nobody is left to end it
                machine.kill()
            if pressed.wait(0.2):
                press(monitor)
                try:
                    machine.wait(GRACE)
                except subprocess.TimeoutExpired:
                    machine.kill()
        return machine.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
