"""The world around a virtual machine: a network of its own, in which the embedded world and the
clouds' services have fixed addresses."""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path

from runner_action.model import ForgeName, ProviderName
from runner_action.runners import console
from runner_action.sandbox.world import World
from tests.boot import archive
from tests.boot.clouds import (
    SERVICE,
    WIRE_SERVER,
    Guest,
    MetadataService,
    azure_disc,
    azure_options,
    ec2_options,
    gce_options,
)
from tests.boot.image import CACHE, RELEASES, Image, image
from tests.boot.vm import QEMU
from tests.e2e.engine import Missing, need, run

ADDRESS = "192.0.2.1"
"""Of the embedded world, for launcher and machine alike: RFC 5737, nobody's."""
CLONE_NEWNET = 0x40000000
ONLINE = 660
"""Seconds after which a launch has ended in any case, as `start-timeout` is 600. On an idle host
it takes 60 to 90, beside other work several times that."""
OPTIONS = {
    ProviderName.AWS: ec2_options,
    ProviderName.AZURE: azure_options,
    ProviderName.GCP: gce_options,
}
"""What QEMU is told to be."""


def prepare(releases: Iterable[str]) -> None:
    """Fetches and makes all that booting needs, then leaves the network: this process and its
    children see no other than their own from here on.

    To be called before any thread is started. Raises Missing, but not for a release that only some
    tests boot.
    """
    if os.geteuid() != 0:
        raise Missing("root, to make a root file system and a network")
    for program, package in (
        (QEMU, "qemu-system-x86"),
        ("ip", "iproute2"),
        ("genisoimage", "genisoimage"),
    ):
        need(program, package)
    for release in releases:
        with suppress(Missing) if release not in RELEASES else nullcontext():
            image(release)
    archive.wheels(CACHE)
    _outside.append(archive.start())
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET):
        raise Missing(f"a network of its own: {os.strerror(ctypes.get_errno())}")
    run("ip", "link", "set", "lo", "up")
    for address in (ADDRESS, SERVICE, WIRE_SERVER):
        run("ip", "address", "add", f"{address}/32", "dev", "lo")


_outside: list[tuple[subprocess.Popen[bytes], str]] = []
"""The process that still has the network, and its socket."""


@contextmanager
def serve_archive() -> Iterator[None]:
    """The distributions' archives and a package for pip, for the lab's machines."""
    servers = (archive.Relay(ADDRESS, _outside[0][1]), archive.serve_wheels(ADDRESS, CACHE))
    yield
    for server in servers:
        server.shutdown()
        server.server_close()


@dataclass
class Lab:
    """A world whose instances are virtual machines of `image`. They install no packages, as there
    is no archive, unless a test starts one (`archive.py`)."""

    image: Image
    rewrite: Callable[[bytes], bytes] = lambda given: given
    """What becomes of the user data on its way."""
    world: World = field(init=False)
    service: MetadataService = field(init=False)

    def open(self, forge: str = ForgeName.GITHUB, cloud: str = ProviderName.AWS) -> Lab:
        self.world = World(forge, cloud, host=ADDRESS, machine=self.machine)
        self.world.forge.lost_after = 120  # an emulated processor is slow
        self.world.metadata.taken = lambda _machine, _seconds: (
            None
        )  # so nobody takes it while it leaves
        self.service = MetadataService(self.world.metadata)
        return self

    def machine(self, instance: str, place: Path) -> Sequence[str]:
        self.service.guest = Guest(instance, self.rewrite((place / "user-data").read_bytes()))
        options = OPTIONS[self.world.provider](instance)
        if self.world.provider is ProviderName.AZURE:
            files = {
                name: text.encode()
                for name, text in azure_disc(self.service.guest.user_data).items()
            }
            options = [*options, *disc(place, "rd_rdfe_stable", files)]
        return command(self.image, options)

    def console(self) -> str:
        """Of the newest machine, as a person sees it."""
        return (
            self.world.machines.console(list(self.world.machines.living)[-1]).replace("\r", "")
            if self.world.machines.living
            else ""
        )

    def close(self) -> None:
        self.world.close()
        self.service.close()


def disc(folder: Path, label: str, files: Mapping[str, bytes]) -> list[str]:
    """QEMU's options for a CD of these files."""
    inside = folder / "inside"
    inside.mkdir()
    for name, content in files.items():
        (inside / name).write_bytes(content)
    run(
        "genisoimage",
        "-quiet",
        "-output",
        str(folder / "disc"),
        "-volid",
        label,
        "-joliet",
        "-rock",
        str(inside),
    )
    return ["-cdrom", str(folder / "disc")]


def command(image: Image, options: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "tests.boot.vm", str(image.folder), "--", *options]


def stages(text: str) -> dict[str, float]:
    """When the machine said it reached each stage for the first time, by its own clock."""
    found: dict[str, float] = {}
    for line in console.entries(text):
        found.setdefault(str(line["stage"]), float(line["t"]))
    return found


MILESTONE = re.compile(
    r"\[ *([\d.]+)\] (?:.*running '(init)' at"
    r"""|.*cml-runner: {"stage": "([a-z-]+)"|reboot: (Power down))"""
)


def uptimes(text: str) -> dict[str, float]:
    """Seconds since power-on, as the kernel counts them, of cloud-init's network stage (`init`),
    the agent's stages, and `Power down`."""
    found: dict[str, float] = {}
    for seconds, *words in MILESTONE.findall(text):
        found.setdefault("".join(words), float(seconds))
    return found


def until(
    condition: Callable[[], object], what: str, seconds: float, log: Callable[[], str]
) -> None:
    """Waits, longer on a busy host, and tells what the machine said last if it was in vain."""
    began = time.monotonic()
    while not condition():
        waited = time.monotonic() - began
        assert waited < seconds * burden(), (
            f"waited {waited:.0f} s for {what}; the console ends with:\n{log()[-6000:]}"
        )
        time.sleep(0.2)


def burden() -> float:
    """How many times slower than usual an emulated processor is now; usual are two machines at a
    time, of two processors each, on a host of two."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1) / 2)
