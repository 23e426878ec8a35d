"""Root file systems to boot: made of packages, in one go, and kept outside the tree.

Three releases of Debian, from cloud-init 20.4 with Python 3.9 and systemd 247 to cloud-init 25.1
with Python 3.13 and systemd 257, and Ubuntu 24.04. Needs root; `Missing` names what is not
available.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.engine import need, run

CACHE = Path("/var/cache/cml-runner-boot")
RELEASES = ("trixie", "bullseye")
PACKAGES = """systemd-sysv udev dbus linux-image-cloud-amd64 cloud-init isc-dhcp-client ifupdown
    iproute2 nftables sudo git python3 ca-certificates procps e2fsprogs openssl needrestart"""
FILES = {
    "etc/fstab": "/dev/vda / ext4 defaults,noatime 0 1\n",
    # As Google's own images have it: the name is asked of nobody.
    "etc/hosts": "127.0.0.1 localhost\n169.254.169.254 metadata.google.internal metadata\n",
    "etc/hostname": "debian\n",
    "etc/machine-id": "",
    # As on Ubuntu's servers since 24.04: what uses a library that was replaced is restarted without
    # a question.
    "etc/needrestart/conf.d/automatic.conf": "$nrconf{restart} = 'a';\n",
    # The lab's archive (`archive.py`); without it apt has no network.
    "etc/apt/apt.conf.d/90lab": 'Acquire::http::Proxy "http://192.0.2.1:3142";\n',
    # What runs at every first boot, and again at none: made before, as in a cloud's image.
    "etc/.updated": "",
    "var/.updated": "",
}
SIZE = "3G"
UBUNTU = {"noble"}
"""Releases of Ubuntu, from the mirror that mmdebstrap knows."""
UBUNTU_PACKAGES = """systemd-sysv udev dbus linux-image-virtual initramfs-tools cloud-init
    netplan.io isc-dhcp-client iproute2 nftables sudo python3 ca-certificates procps e2fsprogs
    openssl needrestart apparmor ubuntu-minimal"""
"""Without Git, which Ubuntu's cloud images have."""
KEYRING = "usr/share/keyrings/ubuntu-archive-keyring.gpg"
"""Ubuntu's keys, in Debian's package ubuntu-keyring."""


@dataclass(frozen=True)
class Image:
    """A disk without partitions, its kernel and its first file system."""

    release: str
    folder: Path

    @property
    def disk(self) -> Path:
        return self.folder / "disk"

    @property
    def kernel(self) -> Path:
        return self.folder / "kernel"

    @property
    def initrd(self) -> Path:
        return self.folder / "initrd"


def image(release: str) -> Image:
    """The image of a release: from the cache, or made in one to four minutes."""
    packages = _packages(release)
    recipe = hashlib.sha256(repr((release, packages, FILES, SIZE)).encode()).hexdigest()[:12]
    made = Image(release, CACHE / f"{release}-{recipe}")
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"lock-{release}").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two test processes may need it at once
        if not made.folder.exists():
            _make(made)
    return made


def _packages(release: str) -> list[str]:
    return (UBUNTU_PACKAGES if release in UBUNTU else PACKAGES).split()


def _make(image: Image) -> None:
    need("mmdebstrap", "mmdebstrap")
    need("mkfs.ext4", "e2fsprogs")
    with tempfile.TemporaryDirectory(prefix=f"{image.release}-", dir=CACHE) as place:
        root, made = Path(place) / "root", Path(place) / "made"
        made.mkdir()
        include = f"--include={','.join(_packages(image.release))}"
        source = _source(image.release, Path(place))
        _bootstrap("--variant=apt", include, *source[0], image.release, str(root), *source[1])
        for name, text in FILES.items():
            (root / name).write_text(text)
        for name, pattern in (("kernel", "vmlinuz-*"), ("initrd", "initrd.img-*")):
            shutil.copy(next((root / "boot").glob(pattern)), made / name)
        run("mkfs.ext4", "-q", "-F", "-d", str(root), str(made / "disk"), SIZE, timeout=300)
        made.rename(image.folder)


def _source(release: str, place: Path) -> tuple[list[str], list[str]]:
    """mmdebstrap's options and its sources: where the packages of a release come from."""
    if release not in UBUNTU:
        return [], _mirror(release)
    keys = place / "keys"
    debian = RELEASES[0]
    _bootstrap("--variant=extract", "--include=ubuntu-keyring", debian, str(keys), *_mirror(debian))
    return ["--components=main,universe", f"--keyring={keys / KEYRING}"], []


def _bootstrap(*words: str) -> None:
    run("mmdebstrap", "--mode=root", "--skip=check/qemu", *words, timeout=1500)


def _mirror(release: str) -> list[str]:
    """This machine's own mirror of Debian, where it has one; else mmdebstrap's."""
    addresses = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI)"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout.splitlines()
    own = next((uri for uri in addresses if uri.rstrip("/").endswith("/debian")), None)
    return [f"deb {own} {release} main"] if own else []
