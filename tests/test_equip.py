"""What a machine installs before it registers, by what its image has: the script as it is sent, in
a shell whose programs are the image's."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

import pytest

from runner_action import bootstrap
from runner_action.bootstrap.units import equip_script
from tests.test_launch import request

SHELL = ("sh", "grep", "sort", "tail", "ln", "cat", "mkdir", "sleep", "python3")
TOOLS = ("git", "git-lfs", "curl", "unzip", "jq", "pip3", "python")
RECORD = '#!/bin/sh\necho "{name} $*" >> {log}\n'
ARCHIVE = ("docker.io", "git", "git-lfs", "curl", "unzip", "jq", "python3-pip", "python3-venv")
"""Debian 12's."""


@dataclass
class Image:
    """A root folder whose programs are `has`. Package managers record what they are asked for."""

    root: Path
    has: tuple[str, ...]
    archive: tuple[str, ...] = ARCHIVE
    code: int = field(default=0, init=False)
    output: str = field(default="", init=False)

    def run(self, *, own_image: bool = False, docker: bool = True) -> list[str]:
        """What package managers, systemctl and NVIDIA's tool were asked for, in order."""
        programs, home = self.root / "bin", self.root / "var/lib/cml-runner"
        for folder in (programs, home, self.root / "usr/local/bin"):
            folder.mkdir(parents=True)
        log = self.root / "log"
        for name in SHELL:
            (programs / name).symlink_to(str(shutil.which(name)))
        for name in (*self.has, "systemctl", "ldconfig"):
            self._write(programs / name, RECORD.format(name=name, log=log))
        if "apt-get" in self.has:
            listed = "|".join(self.archive)
            cache = (
                "#!/bin/sh\ncase $1 in pkgnames) echo libicu72; echo libicu-dev;;"
                f" show) case $2 in {listed}|libicu72) ;; *) exit 100; esac; esac\n"
            )
            self._write(programs / "apt-cache", cache)
        script = home / "equip.sh"
        self._write(script, "#!/bin/sh\n" + equip_script(own_image=own_image, docker=docker))
        done = subprocess.run(
            [str(script)],
            cwd=home,
            env={"PATH": str(programs)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        self.code, self.output = done.returncode, done.stdout
        asked = log.read_text().splitlines() if log.exists() else []
        return [line for line in asked if not line.startswith(("ldconfig", "systemctl is-active"))]

    @staticmethod
    def _write(path: Path, text: str) -> None:
        path.write_text(text)
        path.chmod(0o755)


APT = "apt-get install -qqy --no-install-recommends"


def test_an_image_that_has_everything_downloads_nothing(tmp_path: Path) -> None:
    image = Image(tmp_path, (*TOOLS, "docker", "apt-get"))
    assert (image.run(), image.code, image.output) == ([], 0, "")


@pytest.mark.parametrize("missing", [*TOOLS[:-1], "docker"])
def test_what_is_missing_is_installed_and_nothing_that_is_there(
    missing: str, tmp_path: Path
) -> None:
    image = Image(tmp_path, (*(name for name in TOOLS if name != missing), "docker", "apt-get"))
    if missing == "docker":
        image.has = (*TOOLS, "apt-get")
    names = {"docker": "docker.io", "pip3": "python3-pip python3-venv"}
    package = names.get(missing, missing)
    assert image.run() == ["apt-get update -qq", f"{APT} {package} libicu72"]


def test_packages_that_the_archive_does_not_have_are_skipped(tmp_path: Path) -> None:
    """Debian 13 has Docker's client in a package of its own; Debian 12 has neither."""
    newer = Image(
        tmp_path, (*TOOLS, "apt-get"), (*ARCHIVE, "docker-cli", "docker-buildx", "apparmor")
    )
    assert newer.run()[-1] == f"{APT} docker.io docker-cli docker-buildx apparmor libicu72"


def test_python_is_python3(tmp_path: Path) -> None:
    image = Image(tmp_path, (*TOOLS[:-1], "docker", "apt-get"))
    assert image.run() == []
    assert (tmp_path / "usr/local/bin/python").readlink().name == "python3"


def test_jobs_that_must_not_be_root_get_no_docker(tmp_path: Path) -> None:
    image = Image(tmp_path, (*TOOLS, "apt-get"))
    assert image.run(docker=False) == []


def test_an_image_of_fedora_s_kin(tmp_path: Path) -> None:
    image = Image(tmp_path, ("curl", "git", "python", "dnf"))
    install, start = image.run(own_image=True)
    assert install.startswith("dnf install -qy --setopt=strict=0")
    packages = install.split("weak_deps=0 ")[1].split()
    assert {"docker", "moby-engine", "jq", "unzip", "git-lfs", "python3-pip"} <= {*packages}
    assert not {"git", "curl"} & {*packages}
    assert start == "systemctl enable -q --now docker"


def test_an_image_without_a_package_manager_is_told_by_its_exit_code(tmp_path: Path) -> None:
    image = Image(tmp_path, (*TOOLS[1:],))
    assert (image.run(own_image=True), image.code) == ([], 3)
    assert "so these stay missing: git" in image.output


def test_default_images_carry_no_lines_for_others() -> None:
    assert "dnf" not in equip_script(own_image=False, docker=True)
    assert "nvidia" not in equip_script(own_image=False, docker=True)
    for own_image in (True, False):
        assert "#" not in equip_script(own_image=own_image, docker=True).replace("$#", "")


@pytest.mark.parametrize(
    ("argv", "scripts", "promised"),
    [
        ([], {"equip.sh"}, True),
        (["--docker=none"], set(), False),
        (["--job-sudo=false"], {"equip.sh"}, False),
        (["--cloud=kubernetes", "--cloud-image=octo/pod:1"], set(), False),
    ],
)
def test_whose_jobs_are_promised_docker(argv: list[str], scripts: set[str], promised: bool) -> None:
    asked = request(*argv)
    assert bootstrap.installs_docker(asked) is promised
    assert {*bootstrap.scripts_of(asked)} == scripts


@pytest.mark.parametrize("name", ["boot.sh", "equip.sh"])
def test_our_scripts_are_sound_shell(name: str) -> None:
    script = files("runner_action.bootstrap").joinpath("machine", name)
    shellcheck = Path(sys.executable).with_name("shellcheck")
    subprocess.run([shellcheck, "-x", str(script)], check=True)
