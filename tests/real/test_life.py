"""A whole life with the real gitlab-runner and its shell executor against the embedded GitLab: a
job that succeeds, one that fails, idleness, the end."""

from __future__ import annotations

import hashlib
from pathlib import Path

from runner_action.sandbox.world import World
from tests.sandbox.conftest import Launcher, all_gone, until


def test_a_life_with_the_real_program(gitlab_runner: Path, tmp_path: Path) -> None:
    with World("gitlab", timer_factor=0.02) as world:
        world.gitlab.program = gitlab_runner.read_bytes()
        world.gitlab.sha256 = hashlib.sha256(world.gitlab.program).hexdigest()
        launcher = Launcher(
            world, tmp_path, "--labels=cml", "--idle-timeout=5", "--gitlab-executor=shell"
        )
        assert launcher.wait(120) == 0, launcher.told
        (instance,) = world.machines.living

        def console() -> str:
            return world.machines.console(instance)

        good = world.forge.queue_job(["cml"], 0, "echo hello; pwd; umask")
        until(lambda: good.status == "completed", "the first job", 60)
        bad = world.forge.queue_job(["cml"], 0, "exit 3")
        until(lambda: bad.status == "completed", "the second job", 60)
        log = world.gitlab.jobs.traces[good.id]
        assert (good.conclusion, bad.conclusion) == ("success", "failure"), log + console()
        assert "\nhello\n" in log.replace("\r", ""), log
        assert bad.reason == "script_failure"
        until(lambda: '"deregistered"' in console(), "the end", 60)
        assert console().count('"job-started"') == console().count('"job-finished"') == 2
        all_gone(world, 60)
