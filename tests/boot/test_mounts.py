"""What a job mounts into its workspace and leaves there: the workspace is cleaned for the next
job, the data are not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.boot.lab import ONLINE, Lab, until
from tests.boot.test_ec2 import found, probe
from tests.sandbox.conftest import Launcher

MOUNT = """set -e
sudo mkdir -p /srv/dataset /mnt/share
sudo mount -t tmpfs share /mnt/share
sudo chown runner /srv/dataset /mnt/share
mkdir -p own dataset share memory
for folder in own /srv/dataset /mnt/share; do echo precious > $folder/model; done
sudo mount --bind /srv/dataset dataset
sudo mount --bind /mnt/share share
sudo mount -t tmpfs memory memory
test "$(cat dataset/model share/model)" = "precious
precious"
"""
"""A folder of the same file system, one of another, and a file system that is nowhere else."""


@pytest.mark.parametrize("release", ["trixie", "bullseye"], indirect=True)
def test_what_a_job_mounted_is_still_there_afterwards(lab: Lab, tmp_path: Path) -> None:
    world = lab.world
    launcher = Launcher(world, tmp_path, "--labels=cml", "--idle-timeout=10")
    assert launcher.wait(ONLINE) == 0, launcher.told + lab.console()
    first = world.forge.queue_job(["cml"], 0, MOUNT)
    until(lambda: first.status == "completed", "the job", 240, lab.console)
    looks = probe(dataset="cat /srv/dataset/model", share="cat /mnt/share/model", left="ls own")
    second = world.forge.queue_job(["cml"], 0, looks)
    until(lambda: second.status == "completed", "the second job", 240, lab.console)
    until(lambda: not world.ec2.alive(), "the end", 180, lab.console)
    assert (first.conclusion, second.conclusion) == ("success", "success"), lab.console()
    assert found(second) == {"dataset": "precious", "share": "precious", "left": ""}
    assert world.left() == []
