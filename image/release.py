"""Steps of a release: the tags of its images, and files that name the images by digest and the
project by its name.

python3 image/release.py check VERSION [TAG…]
    fails if VERSION is not a version, or if its tag exists already
python3 image/release.py build SUFFIX VERSION REPOSITORY IMAGE
    prints lines for GITHUB_OUTPUT: how to build that image; REPOSITORY is a URL
python3 image/release.py jobs-images JOBS JOBS_GPU
    makes the launcher start pods from these images, each with its digest
python3 image/release.py pin LAUNCHER JOBS JOBS_GPU [GITLAB]
    does the same, makes action.yml and the component start LAUNCHER, and fills in names
python3 image/release.py image-tags VERSION IMAGE SUFFIX
    prints options for `docker buildx imagetools create`
python3 image/release.py moving-tags VERSION
    prints `v1.2 v1`; v1.2.3 is never moved
python3 image/release.py agent FOLDER
    writes the agent there, for machines that have to download it
python3 image/release.py component FOLDER PROJECT VERSION
    writes the agent and the licence to the component's project, and its address to the template
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from urllib.parse import quote

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "image/images.Dockerfile"
TABLE = "runner_action/providers/kubernetes/table.py"
COMPONENT = "gitlab-component/templates/launch-runner.yml"
SUFFIXES = {
    "": ("Dockerfile", ""),
    "-runner": ("image/runner.Dockerfile", "ubuntu"),
    "-runner-gpu": ("image/runner.Dockerfile", "nvidia/cuda"),
}
"""Suffix of an image -> its file, and the name of its base image."""
PLACEHOLDER = re.compile(
    r"(?P<registry>ghcr\.io/)?(?<![\w.-])(?:org|<owner>)/cml-runner\b"
    r"(?P<component>(?=/launch-runner|/-/|\.git\b))?"
)
"""Stands for the publisher, who is not known before a release. README.md has `org`, as users know
it; all other files have what cannot be anyone's name."""
NAMED = (
    ".github/ISSUE_TEMPLATE/config.yml",
    "*.md",
    "docs/**/*.md",
    "examples/*.yml",
    "gitlab-component/**/*",
    "Dockerfile",
    "image/*.Dockerfile",
)
VERSION = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)")
REFERENCE = re.compile(r"[a-z0-9.-]+(/[A-Za-z0-9._-]+)+@sha256:[0-9a-f]{64}")


def versions(version: str) -> list[str]:
    """The version and its shorter forms: `1.2.3`, `1.2`, `1`. Raises ValueError."""
    parts = VERSION.fullmatch(version)
    if not parts:
        raise ValueError(f"{version!r} is not a version such as 1.2.3")
    major, minor, _ = parts.groups()
    return [version, f"{major}.{minor}", major]


def git_tags(version: str) -> list[str]:
    return [f"v{form}" for form in versions(version)]


def check(version: str, tags: Sequence[str]) -> None:
    """Raises ValueError if the version is released already. `tags`: refs that begin like the
    version's own."""
    exact = git_tags(version)[0]
    if f"refs/tags/{exact}" in tags:
        raise ValueError(
            f"{exact} is released already, and a release is never replaced: use the next number"
        )


def base_of(suffix: str) -> str:
    """The base of that image with its digest, from the list of all base images; empty for the
    launcher's image, whose file names it."""
    _, name = SUFFIXES[suffix]
    if not name:
        return ""
    lines = re.findall(rf"^FROM ({re.escape(name)}:\S+)$", IMAGES.read_text("utf-8"), re.M)
    return str(lines[0])


def building(suffix: str, version: str, repository: str, image: str) -> dict[str, str]:
    """File, build argument, and the image's name, which registries require in lower case."""
    release = f"{repository}/releases/download/v{versions(version)[0]}"
    argument = f"BASE={base_of(suffix)}" if suffix else f"RELEASE={release}"
    return {"file": SUFFIXES[suffix][0], "build-args": argument, "image": image.lower()}


def image_tags(version: str, image: str, suffix: str = "") -> list[str]:
    """Tags such as `IMAGE:v1.2.3-runner`, and the same with the base:
    `IMAGE:v1.2.3-runner-ubuntu24.04`."""
    base = base_of(suffix)
    ends = [suffix, *([f"{suffix}-{base_name(base)}"] if base else [])]
    return [f"{image.lower()}:{tag}{end}" for end in ends for tag in git_tags(version)]


def base_name(base: str) -> str:
    """The base image as part of a tag: `ubuntu24.04` for `ubuntu:24.04`, `cuda12.8.1-ubuntu24.04`
    for `nvidia/cuda:12.8.1-cudnn-runtime-ubuntu24.04`."""
    name, _, tag = base.partition("@")[0].rpartition("/")[2].partition(":")
    version, *words = tag.split("-")
    return "-".join([name + version, *(word for word in words if re.search(r"\d", word))])


def pinned_action(text: str, reference: str) -> str:
    """action.yml with the pushed image in place of the Dockerfile. Raises ValueError if there is no
    Dockerfile, or for a reference without a digest."""
    return _once(r"^  image: Dockerfile$", f"  image: docker://{_checked(reference)}", text)


def pinned_component(text: str, reference: str) -> str:
    """The template with a default for its image."""
    return _once(
        r"^(    image:\n      description: .*)$",
        rf"\g<1>\n      default: {_checked(reference)}",
        text,
    )


def pinned_jobs_images(text: str, image: str, gpu_image: str) -> str:
    """The launcher's table with both images; it has none in a checkout."""
    for name, reference in (("IMAGE", image), ("GPU_IMAGE", gpu_image)):
        text = _once(rf'^{name} = ""$', f'{name} = "{_checked(reference)}"', text)
    return text


def named(text: str, repository: str, project: str) -> str:
    """Replaces every placeholder with the repository on GitHub, after which its images are named,
    or the component's project on GitLab."""

    def name(match: re.Match[str]) -> str:
        if match["registry"]:
            return match["registry"] + repository.lower()
        return project if match["component"] is not None else repository

    return PLACEHOLDER.sub(name, text)


def pin(root: Path, launcher: str, image: str, gpu_image: str, project: str = "") -> None:
    """Changes all files of a checkout. `project`: as `gitlab.com/GROUP/NAME.git`; empty: the same
    path as the repository's."""
    changes = {
        "action.yml": partial(pinned_action, reference=launcher),
        COMPONENT: partial(pinned_component, reference=launcher),
        TABLE: partial(pinned_jobs_images, image=image, gpu_image=gpu_image),
    }
    for name, change in changes.items():
        _change(root / name, change)
    repository = launcher.partition("@")[0].partition("/")[2]
    path = project.removesuffix(".git").partition("/")[2] or repository
    files = {file for pattern in NAMED for file in root.glob(pattern)}
    for file in sorted(filter(Path.is_file, files)):
        _change(file, partial(named, repository=repository, project=path))


def package_registry(project: str, version: str) -> str:
    """Where the component's own pipeline uploads the agent: the registry of generic packages of
    `gitlab.com/GROUP/cml-runner.git`.
    https://docs.gitlab.com/user/packages/generic_packages/#download-a-single-file"""
    host, _, path = project.removesuffix(".git").partition("/")
    where = f"https://{host}/api/v4/projects/{quote(path, '')}/packages/generic"
    return f"{where}/cml-runner-agent/{versions(version)[0]}"


def component_of_release(text: str, downloads: str) -> str:
    """The template with a default for the address of the agent."""
    lines = r"^(    agent-downloads:\n      description: .*\n)      default: \"\"$"
    return _once(lines, rf'\g<1>      default: "{downloads}"', text)


def put_agent(folder: Path) -> str:
    """Writes the agent's file under the name that machines request. Returns the name."""
    sys.path.insert(0, str(ROOT))
    from runner_action.bundle import bundle

    folder.mkdir(parents=True, exist_ok=True)
    (folder / bundle().name).write_bytes(bundle().content)
    return bundle().name


def _checked(reference: str) -> str:
    image, _, digest = reference.partition("@")
    lower = f"{image.lower()}@{digest}"
    if not REFERENCE.fullmatch(lower):
        raise ValueError(f"{reference!r} is not an image with a digest")
    return lower


def _once(pattern: str, new: str, text: str) -> str:
    changed, number = re.subn(pattern, new, text, flags=re.M)
    if number != 1:
        raise ValueError(f"{pattern} occurs {number} times, not once")
    return changed


def _change(file: Path, change: Callable[[str], str]) -> None:
    file.write_text(change(file.read_text("utf-8")), "utf-8")


def main(words: list[str], root: Path = ROOT) -> int:
    command, *rest = words or [""]
    if command == "check":
        check(rest[0], rest[1:])
    elif command == "build":
        print("\n".join(f"{name}={value}" for name, value in building(*rest).items()))
    elif command == "jobs-images":
        _change(root / TABLE, partial(pinned_jobs_images, image=rest[0], gpu_image=rest[1]))
    elif command == "pin":
        pin(root, *rest)
    elif command == "image-tags":
        print(
            " ".join(
                f"--tag {tag}" for tag in image_tags(rest[0], rest[1].partition("@")[0], rest[2])
            )
        )
    elif command == "moving-tags":
        print(" ".join(git_tags(rest[0])[1:]))
    elif command == "agent":
        print(put_agent(Path(rest[0])))
    elif command == "component":
        _change(
            Path(rest[0], "templates/launch-runner.yml"),
            partial(component_of_release, downloads=package_registry(rest[1], rest[2])),
        )
        shutil.copy(ROOT / "LICENSE", rest[0])
        print(put_agent(Path(rest[0], "agent")))
    else:
        print(__doc__, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
