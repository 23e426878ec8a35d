"""Root file systems to boot: made of Debian's packages, in one go, and kept outside the tree.

Two releases, five years apart: cloud-init 20.4 with Python 3.9 and systemd 247, cloud-init 25.1
with Python 3.13 and systemd 257. Needs root; `Missing` names what cannot be had.
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
    """The image of a release: from the cache, or made in about a minute and a half."""
    recipe = hashlib.sha256(repr((release, PACKAGES.split(), FILES, SIZE)).encode()).hexdigest()[
        :12
    ]
    found = Image(release, CACHE / f"{release}-{recipe}")
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two test processes may want it at once
        if not found.folder.exists():
            _make(found)
    return found


def _make(wanted: Image) -> None:
    need("mmdebstrap", "mmdebstrap")
    need("mkfs.ext4", "e2fsprogs")
    with tempfile.TemporaryDirectory(prefix=f"{wanted.release}-", dir=CACHE) as place:
        root, made = Path(place) / "root", Path(place) / "made"
        made.mkdir()
        packages = ",".join(PACKAGES.split())
        options = ("--mode=root", "--variant=apt", "--skip=check/qemu", f"--include={packages}")
        run(
            "mmdebstrap", *options, wanted.release, str(root), *_mirror(wanted.release), timeout=900
        )
        for name, text in FILES.items():
            (root / name).write_text(text)
        for name, pattern in (("kernel", "vmlinuz-*"), ("initrd", "initrd.img-*")):
            shutil.copy(next((root / "boot").glob(pattern)), made / name)
        run("mkfs.ext4", "-q", "-F", "-d", str(root), str(made / "disk"), SIZE, timeout=300)
        made.rename(wanted.folder)


def _mirror(release: str) -> list[str]:
    """This machine's own mirror of Debian, where it has one; else mmdebstrap's."""
    told = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI)"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout.splitlines()
    own = next((uri for uri in told if uri.rstrip("/").endswith("/debian")), None)
    return [f"deb {own} {release} main"] if own else []
