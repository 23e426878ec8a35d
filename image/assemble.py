"""Assembles the launcher's image in the build stage: Python, the pruned SDKs, a small shell, and
the licences and package records of all of it.

    python3 image/assemble.py SITE ROOT

SITE contains the Python packages; ROOT becomes the file system of the image. Runs in the build
stage of the Dockerfile, on Debian.
"""

from __future__ import annotations

import compileall
import os
import py_compile
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Collection, Iterator
from pathlib import Path

HOME = Path("usr/lib/cml-runner")
SERVICES = ("ec2", "sts", "sso", "sso-oidc", "ssm")
"""The services of botocore that are kept, out of 400: EC2, and those that issue credentials."""
GOOGLE_SERVICES = re.compile(r"compute_v1\.services\.(\w+)")
"""The services of google-cloud-compute that are kept, out of 100: those that
runner_action/providers/gcp/sdk.py imports, which avoids the package's list of all services."""
IMPORTED_BY_SERVICES = "global_operations", "zone_operations"
"""And those that the kept services import."""
NOT_OF_KUBERNETES = (
    "aiohttp*",
    "aiohappyeyeballs*",
    "aiosignal*",
    "frozenlist*",
    "multidict*",
    "propcache*",
    "yarl*",
)
"""Dependencies of the client's asyncio half. With its classes for 700 kinds they make 80 MB that no
launch loads (runner_action/providers/kubernetes/cluster.py)."""
NOT_OF_PYTHON = """ensurepip idlelib lib2to3 pydoc_data tkinter turtledemo turtle.py venv pdb.py
    doctest.py curses dbm sqlite3 wsgiref xmlrpc unittest test __phello__"""
"""Modules of the standard library that are left out. tests/e2e runs SDKs and launcher without
them."""
TOOLS = """ash awk basename cat chmod cp cut date dirname echo env false grep head id ls mkdir
    mktemp mv printf pwd readlink rm sed sh sleep sort tail tee test touch tr true uname xargs ["""
"""Programs of busybox that GitLab Runner's scripts use, and the `before_script` of
gitlab-component/examples."""
COMMANDS = {"cml-runner": "", "cml-runner-cleanup": 'sys.argv[1:] = ["cleanup"]\n'}
"""Command -> line of its script. A post-entrypoint gets the arguments of the action, and cannot
have its own."""
SCRIPT = """#!/usr/bin/python3 -SE
import sys
sys.path.insert(0, "/%s")
%sfrom runner_action.__main__ import run
run()
"""
"""Ignores site-packages and PYTHON* variables, so that a job cannot inject code."""


def main(site: Path, root: Path) -> None:
    """All steps, in order."""
    prune(site)
    shutil.copytree(site, root / HOME, symlinks=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    python_of(Path("/usr/lib") / version, root)
    for name in ("python3", version):
        put(Path("/usr/bin") / name, root)
    shell(root)
    put(Path("/etc/ssl/certs/ca-certificates.crt"), root)
    for library in sorted(libraries(root)):
        put(library, root)
    skeleton(root)
    for name, line in COMMANDS.items():
        script = root / "usr/local/bin" / name
        script.parent.mkdir(parents=True, exist_ok=True)
        script.write_text(SCRIPT % (HOME, line))
        script.chmod(0o755)
    package_records(root)
    # By hash, not by time: the same sources give the same layers.
    for folder in (root / HOME, root / "usr/lib" / version):
        compileall.compile_dir(
            str(folder),
            quiet=2,
            workers=0,
            stripdir=str(root),
            invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
        )


def prune(site: Path) -> None:
    """Removes files that no launch reads."""
    classes = "kubernetes/aio", "kubernetes/client/api/[!_]*", "kubernetes/client/models/[!_]*"
    useless = (
        "bin",
        "boto3/data",
        "boto3/examples",
        "azure/**/aio",
        "**/tests",
        "kubernetes/**/*_test.py",
        "**/__pycache__",
    )
    for pattern in (
        *useless,
        *classes,
        *NOT_OF_KUBERNETES,
        "*.dist-info/RECORD",
        "**/*.pyi",
        "**/*.h",
        "**/examples-1.json",
    ):
        for path in list(site.glob(pattern)):
            remove(path)
    for path in list((site / "runner_action").rglob("*")):
        belongs = path.suffix in (".py", ".service", ".timer", ".sh")
        if path.is_file() and not belongs and path.name != "inputs.schema.json":
            remove(path)  # stray files of the folder that this is built from
    imports = (site / "runner_action/providers/gcp/sdk.py").read_text("utf-8")
    google_services = {*GOOGLE_SERVICES.findall(imports), *IMPORTED_BY_SERVICES}
    prune_services(site / "google/cloud/compute_v1/services", google_services)
    prune_services(site / "botocore/data", SERVICES)
    for service in filter(Path.is_dir, (site / "botocore/data").iterdir()):
        for version in sorted(service.iterdir())[:-1]:  # only the newest is ever loaded
            remove(version)


def prune_services(folder: Path, kept: Collection[str]) -> None:
    for service in folder.iterdir():
        if service.is_dir() and service.name not in kept:
            remove(service)


def python_of(library: Path, root: Path) -> None:
    left_out = shutil.ignore_patterns(
        "__pycache__",
        "dist-packages",
        "*.a",
        "config-*",
        "_test*",
        "_tkinter*",
        "_curses*",
        "_dbm*",
        "_gdbm*",
        "_sqlite3*",
        *NOT_OF_PYTHON.split(),
    )
    shutil.copytree(library, root / library.relative_to("/"), symlinks=False, ignore=left_out)


def shell(root: Path) -> None:
    put(Path("/bin/busybox"), root, "usr/bin/busybox")
    available = subprocess.run(
        ["busybox", "--list"], capture_output=True, text=True, check=True
    ).stdout.split()
    if missing := set(TOOLS.split()) - set(available):
        raise SystemExit(f"busybox has no {', '.join(missing)}")
    for name in TOOLS.split():
        (root / "usr/bin" / name).symlink_to("busybox")


def skeleton(root: Path) -> None:
    """Folders and files that programs expect on any system."""
    for link in ("bin", "lib", "lib64"):
        place = root / link
        if not place.exists():
            (root / "usr" / link).mkdir(parents=True, exist_ok=True)
            place.symlink_to(f"usr/{link}")
    (root / "etc").mkdir(exist_ok=True)
    (root / "etc/passwd").write_text(
        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n"
    )
    (root / "etc/group").write_text("root:x:0:\nnogroup:x:65534:\n")
    (root / "etc/nsswitch.conf").write_text("passwd: files\ngroup: files\nhosts: files dns\n")
    (root / "etc/os-release").write_text(Path("/etc/os-release").read_text())
    (root / "root").mkdir(mode=0o700, exist_ok=True)
    (root / "tmp").mkdir(exist_ok=True)
    (root / "tmp").chmod(0o1777)


def libraries(root: Path) -> Iterator[Path]:
    """Shared libraries of this system that programs and modules in the image need, as the loader
    resolves them here."""
    for file in programs(root):
        ldd = subprocess.run(["ldd", str(file)], capture_output=True, text=True, check=False)
        for library in re.findall(r"(?:=> )?(/\S+) \(0x", ldd.stdout):
            if not library.startswith(str(root)):
                yield Path(library)


def programs(root: Path) -> Iterator[Path]:
    for folder, _, names in os.walk(root):
        for name in names:
            file = Path(folder) / name
            if (
                not file.is_symlink()
                and (name.endswith(".so") or ".so." in name or os.access(file, os.X_OK))
                and file.read_bytes()[:4] == b"\x7fELF"
            ):
                yield file


def put(source: Path, root: Path, place: str = "") -> None:
    """Copies a file of this system, and the target of a link. Below /usr, as on a system with
    merged folders."""
    target = root / (place or usr(source))
    if target.exists() or target.is_symlink():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_symlink() and not place:
        end = Path(os.path.realpath(source))
        target.symlink_to(os.path.relpath("/" + usr(end), "/" + str(Path(usr(source)).parent)))
        put(end, root)
        return
    shutil.copy2(os.path.realpath(source), target)
    target.chmod(target.stat().st_mode & ~(stat.S_ISUID | stat.S_ISGID))


def usr(path: Path) -> str:
    text = str(path).lstrip("/")
    return f"usr/{text}" if text.split("/")[0] in ("bin", "lib", "lib64", "sbin") else text


def package_records(root: Path) -> None:
    """Records the package and the licence of each file, for scanners and SBOMs."""
    owners = set(owned(root))
    status = root / "var/lib/dpkg/status.d"
    status.mkdir(parents=True)
    for package in sorted(owners):
        (status / package).write_text(
            subprocess.run(
                ["dpkg", "-s", package], capture_output=True, text=True, check=True
            ).stdout
        )
        licence = Path("/usr/share/doc") / package / "copyright"
        if licence.exists():
            (root / "usr/share/doc" / package).mkdir(parents=True, exist_ok=True)
            shutil.copy(licence, root / "usr/share/doc" / package / "copyright")


def owned(root: Path) -> Iterator[str]:
    files = [
        "/" + str(Path(folder, name).relative_to(root))
        for folder, _, names in os.walk(root)
        for name in names
    ]
    packaged = [file for file in files if not file.startswith(f"/{HOME}")]
    paths = [*packaged, *(file.removeprefix("/usr") for file in packaged)]
    dpkg = subprocess.run(["dpkg", "-S", *paths], capture_output=True, text=True, check=False)
    yield from re.findall(r"^([a-z0-9.+-]+)(?::\w+)?: ", dpkg.stdout, re.M)


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
