"""What jobs find on a machine whose image has next to nothing: real packages, of Debian's archive,
and a real Docker."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.boot.lab import ONLINE, Lab, stages, until
from tests.boot.test_ec2 import found, probe
from tests.sandbox.conftest import Launcher

IMAGE = (
    "tar -ch /bin/sh /bin/cat /bin/sleep"
    " $(ldd /bin/sh /bin/cat /bin/sleep | grep -o '/[^ :]*[.]so[^ ]*' | sort -u)"
    " | docker import - tiny >/dev/null"
)
"""Of the machine's own files: there is no registry."""


@pytest.mark.archive
@pytest.mark.parametrize("release", ["trixie", "bullseye"], indirect=True)
def test_jobs_have_docker_and_the_usual_tools(lab: Lab, tmp_path: Path) -> None:
    world = lab.world
    launcher = Launcher(world, tmp_path, "--idle-timeout=30", "--labels=cml")
    assert launcher.wait(ONLINE + 60) == 0, launcher.told + lab.console()
    looks = {
        "server": "docker info --format '{{.ServerVersion}}'",
        "container": f"({IMAGE} && docker run --rm tiny /bin/cat /etc/hostname) 2>&1 | tail -n1",
        "service": "docker run -d tiny /bin/sleep 600 | wc -l",
        "files": "docker run --rm tiny /bin/sh -c 'ulimit -n'; ulimit -n",
        "tools": "git --version; jq --version; unzip -v | head -n1; curl --version | head -n1",
        "python": "python --version; pip --version; printenv PIP_BREAK_SYSTEM_PACKAGES LANG",
        "path": "echo $PATH",
    }
    first = world.forge.queue_job(["cml"], 0, probe(**looks))
    until(lambda: first.status == "completed", "the first job", 600, lab.console)
    second = world.forge.queue_job(["cml"], 0, probe(left="docker ps -q | wc -l"))
    until(lambda: second.status == "completed", "the second job", 300, lab.console)
    seen = found(first)
    assert seen["server"][0].isdigit(), lab.console()
    assert len(seen["container"]) == 12, seen
    assert seen["service"] == "1"
    assert int(seen["files"].split()[-1]) >= 65536
    assert len(seen["tools"].splitlines()[0].split("version")) >= 2, seen
    assert "Python 3" in seen["python"], seen
    assert "pip " in seen["python"], seen
    assert seen["path"].endswith(":/snap/bin:/home/runner/.local/bin")
    assert found(second) == {"left": "0"}, "what a job leaves running ends with it"
    assert {"equip", "equipped"} <= stages(lab.console()).keys()
