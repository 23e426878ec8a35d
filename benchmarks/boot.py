"""How long a machine takes from its network to an online runner: by the input `docker`, and by the
way in which cloud-init starts the agent.

    python -m benchmarks.boot [docker|ways] [RELEASE…]

A virtual machine with an emulated processor (tests/boot), about ten times slower than a cloud's:
only the differences matter, not the seconds.
"""

from __future__ import annotations

import gzip
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tests.boot.image import RELEASES, image
from tests.boot.lab import ONLINE, Lab, prepare, serve_archive, uptimes
from tests.e2e.engine import Missing
from tests.sandbox.conftest import Launcher

Config = dict[str, Any]
STAGES = ("agent", "downloaded", "equipped", "configured", "online")
DOCKER = ("none", "auto")


def in_runcmd(config: Config, script: str) -> str:
    return cloud_config({**config, "runcmd": [script]})


def in_bootcmd(config: Config, script: str) -> str:
    return cloud_config({**config, "bootcmd": [script]})


def in_boothook(config: Config, script: str) -> str:
    """Two parts: one runs before all modules, the other configures them."""
    parts = {
        "cloud-boothook": f"#cloud-boothook\n#!/bin/sh\n{script}",
        "cloud-config": cloud_config(config),
    }
    body = "".join(
        f'--here\nContent-Type: text/{kind}; charset="utf-8"\nMIME-Version: 1.0\n\n{text}\n'
        for kind, text in parts.items()
    )
    return f'Content-Type: multipart/mixed; boundary="here"\nMIME-Version: 1.0\n\n{body}--here--\n'


def cloud_config(config: Config) -> str:
    return f"#cloud-config\n{json.dumps(config)}\n"


WAYS: dict[str, Callable[[Config, str], str]] = {
    "runcmd (cloud-init's last stage)": in_runcmd,
    "bootcmd (its first with a network)": in_bootcmd,
    "boothook (before that)": in_boothook,
}


def rewritten(user_data: bytes, way: Callable[[Config, str], str]) -> bytes:
    config = json.loads(gzip.decompress(user_data).partition(b"\n")[2])
    (script,) = config.pop("bootcmd")
    return gzip.compress(way(config, script).encode())


def measure(release: str, way: Callable[[Config, str], str], docker: str) -> dict[str, float]:
    lab = Lab(image(release), partial(rewritten, way=way)).open()
    try:
        with tempfile.TemporaryDirectory() as folder, serve_archive():
            words = ("--labels=cml", "--idle-timeout=300", f"--docker={docker}")
            launcher = Launcher(lab.world, Path(folder), *words)
            if launcher.wait(ONLINE):
                raise RuntimeError(launcher.told + lab.console())
        return uptimes(lab.console())
    finally:
        for living in lab.world.machines.living.values():
            living.process.kill()
        lab.close()


def report(release: str, name: str, seconds: dict[str, float]) -> None:
    cells = (
        f"{seconds[stage] - seconds['init']:+11.1f}" if stage in seconds else f"{'':11}"
        for stage in STAGES
    )
    print(f"{release:9} {name:36} {seconds['init']:8.1f} {' '.join(cells)}", flush=True)


def main(words: Sequence[str]) -> int:
    tables = [word for word in words if word in ("docker", "ways")] or ["docker", "ways"]
    releases = [word for word in words if word not in tables] or list(RELEASES)
    try:
        prepare(releases)
    except Missing as missing:
        print(f"cannot boot a machine here; missing: {missing}")
        return 1
    print(
        f"{'release':9} {'machine':36} {'network':>8} "
        + " ".join(f"{stage:>11}" for stage in STAGES)
        + "   seconds after the network stage began"
    )
    for release in releases:
        for docker in DOCKER if "docker" in tables else ():
            report(release, f"docker: {docker}", measure(release, in_bootcmd, docker))
        for way, change in WAYS.items() if "ways" in tables else ():
            report(release, way, measure(release, change, "none"))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
