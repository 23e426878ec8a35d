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

SHELL = ("sh", "tar", "timeout", "grep", "sort", "tail", "ln", "cat", "mkdir", "sleep", "python3")
TOOLS = ("git", "git-lfs", "curl", "unzip", "jq", "pip3", "python")
RECORD = '#!/bin/sh\necho "{name} $*" >> {log}\n'
ARCHIVE = ("docker.io", "git", "git-lfs", "curl", "unzip", "jq", "python3-pip", "python3-venv")
"""Debian 12's."""


EMPTY = (
    "docker: Error response from daemon: failed to create shim task: OCI runtime create failed: "
    'runc create failed: unable to start container process: exec: "/nothing": stat /nothing: no'
    " such file or directory: unknown"
)
"""What Docker 20.10 was seen to say about an empty image, where containers can be started."""
PROFILE = (
    "docker: Error response from daemon: AppArmor enabled on system but the docker-default profile"
    " could not be loaded: running apparmor_parser failed with output: error: exec:"
    ' "apparmor_parser": executable file not found in $PATH.'
)
"""https://github.com/moby/moby/issues/25488; the exit code is 127, as for the other."""
STOPPED = "Cannot connect to the Docker daemon at unix:///var/run/docker.sock."
DOCKER = """#!/bin/sh
echo "docker $*" >> {log}
case $1 in
import) cat >/dev/null; {imported};;
run) echo '{run}' >&2; exit 127;;
esac
"""


@dataclass
class Image:
    """A root folder whose programs are `has`. Package managers record what they are asked for."""

    root: Path
    has: tuple[str, ...]
    archive: tuple[str, ...] = ARCHIVE
    apt: str = ""
    """What apt-get does, besides, to install."""
    docker: str = EMPTY
    """What Docker says when it is to run something."""
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
        if "docker" in self.has:
            imported = (
                f"echo '{STOPPED}' >&2; exit 1" if self.docker == STOPPED else "echo sha256:1"
            )
            program = DOCKER.format(log=log, imported=imported, run=self.docker)
            self._write(programs / "docker", program)
        if "apt-get" in self.has:
            record = RECORD.format(name="apt-get", log=log)
            self._write(programs / "apt-get", f"{record}[ $1 = update ] || {{\n{self.apt}:\n}}\n")
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
        quiet = ("ldconfig", "systemctl start cloud-config.service", "docker")
        return [line for line in asked if not line.startswith(quiet)]

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


@pytest.mark.parametrize(
    ("docker", "code", "output"),
    [(EMPTY, 0, ""), (PROFILE, 1, PROFILE), (STOPPED, 1, STOPPED), ("", 1, "")],
)
def test_docker_works_if_it_starts_a_container(
    docker: str, code: int, output: str, tmp_path: Path
) -> None:
    image = Image(tmp_path, (*TOOLS, "docker", "apt-get"), docker=docker)
    image.run()
    assert (image.code, image.output.strip()) == (code, output)


@pytest.mark.parametrize(
    ("has_docker", "docker", "code"), [(True, True, 3), (False, True, 1), (False, False, 3)]
)
def test_packages_that_cannot_be_installed_matter_less_than_docker(
    has_docker: bool, docker: bool, code: int, tmp_path: Path
) -> None:
    has = (*TOOLS[1:], "apt-get", *(["docker"] if has_docker else []))
    image = Image(tmp_path, has, apt="echo E: Unable to fetch; exit 100\n")
    image.run(docker=docker)
    assert image.code == code
    assert "E: Unable to fetch" in image.output


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
