"""Lives on EC2: from the launcher's user data to the power-off that QEMU sees."""

from __future__ import annotations

from pathlib import Path

from tests.boot.conftest import Lab, stages, until
from tests.sandbox.conftest import Launcher


def test_a_whole_life(lab: Lab, tmp_path: Path) -> None:
    world = lab.world
    job = world.forge.queue_job(["cml"], 0, "echo ::notice title=who::$(id -un)")
    launcher = Launcher(world, tmp_path, "--idle-timeout=5", "--labels=cml")
    assert launcher.wait(300) == 0, launcher.told + "".join(world.ec2.console(one) for one in world.ec2.living)
    (instance,) = world.ec2.living
    until(lambda: not world.ec2.alive(), "the end", 240, lambda: world.ec2.console(instance))
    print(world.ec2.console(instance))
    print(stages(world.ec2.console(instance)), launcher.told)
    assert job.conclusion == "success"
