"""What jobs find on a machine whose image has next to nothing: real packages, of the
distribution's archive, and a real Docker."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from runner_action.sandbox.forges.jobs import Job
from tests.boot.lab import ONLINE, Lab, stages, until
from tests.boot.promises import broken, looks
from tests.boot.test_ec2 import probe
from tests.sandbox.conftest import Launcher


def outputs(job: Job) -> dict[str, str]:
    return {title: text.strip() for title, text in job.notes}


def completed(job: Job) -> bool:
    return job.status == "completed"


@pytest.mark.archive
@pytest.mark.parametrize("release", ["trixie", "bookworm", "noble", "bullseye"], indirect=True)
def test_the_machine_is_as_its_page_says(lab: Lab, tmp_path: Path) -> None:
    world = lab.world
    launcher = Launcher(world, tmp_path, "--idle-timeout=30", "--labels=cml")
    assert launcher.wait(ONLINE + 60) == 0, launcher.told + lab.console()
    seen = {}
    for later in (False, True):
        commands = {name: command for name, (command, _) in looks(later).items()}
        job = world.forge.queue_job(["cml"], 0, probe(**commands))
        until(partial(completed, job), "a job", 900, lab.console)
        seen.update(broken(outputs(job), later))
    assert seen == {}, lab.console()[-3000:]
    assert {"equip", "equipped"} <= stages(lab.console()).keys()
