"""A Docker engine and the base image, on a machine with nothing but Debian's packages:
installed, started and made by hand.

What is there already is used. Where a part cannot be had, `Missing` names it: the tests are
skipped then, loudly.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from runner_action.agent.removal import remove_tree

ROOT = Path(__file__).parents[2]
PLACE = Path("/var/lib/cml-runner-e2e")
"""What outlives a run: the engine's images, so that the second run need not make the base anew."""

# Debian has no key of Ubuntu's; what is made of it stays on this machine.
UNSIGNED = [
    '--aptopt=Acquire::AllowInsecureRepositories "true"',
    '--aptopt=APT::Get::AllowUnauthenticated "true"',
]
SUITES: dict[str, tuple[str, list[str]]] = {
    "debian:trixie-slim": ("trixie", []),
    "ubuntu:24.04": ("noble", ["--components=main,universe", *UNSIGNED]),
}
"""Base image -> suite, and mmdebstrap's options for it. The mirror is mmdebstrap's own."""


BASE = re.compile(r"^ARG (DEBIAN|BASE)=(\S+)", re.M)
"""What a Dockerfile of ours begins with: the argument, and the image by its digest."""


class Missing(Exception):
    """A part of the machine that these tests need."""


def run(
    *argv: str, timeout: float = 300, check: bool = True, **environ: str
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        argv,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    if check and done.returncode:
        raise Missing(
            f"`{' '.join(argv)}` ended with {done.returncode}:"
            f" {(done.stderr or done.stdout)[-600:]}"
        )
    return done


def need(command: str, package: str) -> None:
    """Installs the Debian package of a command that is not there. One process at a time, and
    after whoever else is installing: apt refuses two at once."""
    if shutil.which(command):
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise Missing(f"{command} (Debian package {package}), and nobody here may install it")
    with (Path(tempfile.gettempdir()) / "cml-runner-apt.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if shutil.which(command):
            return
        run("apt-get", "update", "-qq", timeout=600)
        options = ("-o", "DPkg::Lock::Timeout=300", "--no-install-recommends")
        run(
            "apt-get",
            "install",
            "-qq",
            "-y",
            *options,
            package,
            timeout=600,
            DEBIAN_FRONTEND="noninteractive",
        )


class Engine:
    """A Docker engine: the machine's own, or one that lives as long as the tests."""

    def __init__(self) -> None:
        self.daemon: subprocess.Popen[bytes] | None = None
        self.host = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
        if shutil.which("docker") and run("docker", "info", check=False).returncode == 0:
            return
        need("dockerd", "docker.io")
        need("iptables", "iptables")
        self.folder = Path(tempfile.mkdtemp(prefix="cml-runner-docker-"))
        self.host = f"unix://{self.folder}/docker.sock"
        places = [
            f"--data-root={PLACE}/docker",
            f"--exec-root={self.folder}/exec",
            f"--pidfile={self.folder}/pid",
        ]
        with (self.folder / "log").open("wb") as log:
            self.daemon = subprocess.Popen(
                ["dockerd", "--host", self.host, *places], stdout=log, stderr=log
            )
        end = time.monotonic() + 60
        while run("docker", "info", check=False, DOCKER_HOST=self.host).returncode:
            if self.daemon.poll() is not None or time.monotonic() > end:
                told = (self.folder / "log").read_text("utf-8", "replace")
                self.close()
                raise Missing(f"a Docker engine: dockerd does not start here: {told[-600:]}")
            time.sleep(0.2)

    def docker(
        self, *argv: str, timeout: float = 300, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        # The builder without BuildKit, as Debian's engine comes without the plugin that it needs.
        return run(
            "docker",
            *argv,
            timeout=timeout,
            check=check,
            DOCKER_HOST=self.host,
            DOCKER_BUILDKIT="0",
        )

    def base(self, dockerfile: str = "Dockerfile") -> str:
        """The image that a Dockerfile begins with: there, pulled, or made with mmdebstrap and
        given its name. An image that is made has no digest by which a Dockerfile could ask for
        it."""
        pinned: str = BASE.findall((ROOT / dockerfile).read_text("utf-8"))[0][1]
        name = pinned.partition("@")[0]
        for there in (pinned, name):
            if self.docker("image", "inspect", there, check=False).returncode == 0:
                return there
        if self.docker("pull", "-q", pinned, check=False, timeout=120).returncode == 0:
            return pinned
        need("mmdebstrap", "mmdebstrap")
        if os.geteuid() != 0:
            raise Missing(
                "root, to make a base image with mmdebstrap: no registry can be reached from here"
            )
        with tempfile.TemporaryDirectory(prefix="cml-runner-base-") as folder:
            suite, options = SUITES[name]
            run(
                "mmdebstrap",
                "--mode=root",
                "--variant=minbase",
                "--include=apt,ca-certificates",
                *options,
                suite,
                folder,
                timeout=600,
            )
            # A network that looks into TLS has an authority of its own, which this machine trusts.
            for certificate in Path("/usr/local/share/ca-certificates").glob("*.crt"):
                shutil.copy(certificate, Path(folder) / "usr/local/share/ca-certificates")
            run("chroot", folder, "update-ca-certificates")
            packed = f"{folder}.tar"
            run("tar", "-C", folder, "-cf", packed, ".")
            try:
                self.docker("import", packed, name)
            finally:
                Path(packed).unlink()
        return name

    def build(
        self, tag: str, *options: str, dockerfile: str = "Dockerfile", context: Path = ROOT
    ) -> str:
        argument = BASE.findall((ROOT / dockerfile).read_text("utf-8"))[0][0]
        begins = ("--build-arg", f"{argument}={self.base(dockerfile)}")
        self.docker(
            "build",
            "--network",
            "host",
            "-t",
            tag,
            "-f",
            str(ROOT / dockerfile),
            *begins,
            *options,
            str(context),
            timeout=900,
        )
        return tag

    def unpin(self, folder: Path) -> None:
        """For builds that somebody else starts there: the Dockerfile begins with the base that
        this machine has."""
        file = folder / "Dockerfile"
        file.write_text(
            BASE.sub(rf"ARG \1={self.base()}", file.read_text("utf-8"), count=1), "utf-8"
        )

    def close(self) -> None:
        if self.daemon:
            self.daemon.terminate()
            try:
                self.daemon.wait(30)
            except subprocess.TimeoutExpired:
                self.daemon.kill()
            remove_tree(
                self.folder
            )  # and takes off what is mounted there, as its network's name space


def checkout(folder: Path) -> Path:
    """What a user's `uses: ./` would see of this tree: the files that Git knows or would add."""
    names = run("git", "-C", str(ROOT), "ls-files", "-co", "--exclude-standard").stdout.splitlines()
    for name in names:
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    return folder
