"""What a release writes: the tags of its images, and files that name the image by its digest.

python3 image/release.py tags VERSION IMAGE [SUFFIX [BASE]]     lines for GITHUB_OUTPUT: `tags=` with commas between them
python3 image/release.py git-tags VERSION                       v1.2.3 v1.2 v1
python3 image/release.py pin IMAGE@DIGEST                       action.yml and the component start that image
python3 image/release.py agent FOLDER                           puts the agent there, for machines that have to fetch it
python3 image/release.py component FOLDER PROJECT VERSION       the component's project: the agent, and where it will be
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from urllib.parse import quote

ROOT = Path(__file__).parents[1]
VERSION = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)")
REFERENCE = re.compile(r"[a-z0-9.-]+(/[A-Za-z0-9._-]+)+@sha256:[0-9a-f]{64}")


def versions(version: str) -> list[str]:
    """The version and what moves with it: `1.2.3`, `1.2`, `1`. Raises ValueError."""
    parts = VERSION.fullmatch(version)
    if not parts:
        raise ValueError(f"{version!r} is no version such as 1.2.3")
    major, minor, _ = parts.groups()
    return [version, f"{major}.{minor}", major]


def git_tags(version: str) -> list[str]:
    return [f"v{one}" for one in versions(version)]


def image_tags(version: str, image: str, suffix: str = "", base: str = "") -> list[str]:
    """`ghcr.io/org/cml-runner:v1.2.3-runner` and the like, and the same with the base in it: `:v1.2.3-runner-ubuntu24.04`. Names are lower case there."""
    ends = [suffix, *([f"{suffix}-{base_name(base)}"] if base else [])]
    return [f"{image.lower()}:{tag}{end}" for end in ends for tag in git_tags(version)]


def base_name(base: str) -> str:
    """What an image stands on, for its tag: `ubuntu:24.04` is `ubuntu24.04`, `nvidia/cuda:12.8.1-cudnn-runtime-ubuntu24.04` is `cuda12.8.1-ubuntu24.04`."""
    name, _, tag = base.rpartition("/")[2].partition(":")
    version, *words = tag.split("-")
    return "-".join([name + version, *(word for word in words if re.search(r"\d", word))])


def pinned_action(text: str, reference: str) -> str:
    """action.yml with the pushed image in place of the Dockerfile. Raises ValueError if it has none, or for a reference without digest."""
    return _once(r"^  image: Dockerfile$", f"  image: docker://{_checked(reference)}", text)


def pinned_component(text: str, reference: str) -> str:
    return _once(r"^      default: ghcr\.io/\S+$", f"      default: {_checked(reference)}", text)


def package_registry(project: str, version: str) -> str:
    """Where the component's own pipeline puts the agent: `gitlab.com/org/cml-runner.git` has a registry of generic packages.
    https://docs.gitlab.com/user/packages/generic_packages/#download-a-single-file"""
    host, _, path = project.removesuffix(".git").partition("/")
    where = f"https://{host}/api/v4/projects/{quote(path, '')}/packages/generic"
    return f"{where}/cml-runner-agent/{versions(version)[0]}"


def component_of_release(text: str, downloads: str) -> str:
    """The template whose launches have the agent fetched from there, unless they say otherwise."""
    lines = r"^(    agent-downloads:\n      description: .*\n)      default: \"\"$"
    return _once(lines, rf'\g<1>      default: "{downloads}"', text)


def put_agent(folder: Path) -> str:
    """Its file, as machines ask for it. Returns the name."""
    sys.path.insert(0, str(ROOT))
    from runner_action.bundle import bundle

    folder.mkdir(parents=True, exist_ok=True)
    (folder / bundle().name).write_bytes(bundle().content)
    return bundle().name


def _checked(reference: str) -> str:
    image, _, digest = reference.partition("@")
    lower = f"{image.lower()}@{digest}"
    if not REFERENCE.fullmatch(lower):
        raise ValueError(f"{reference!r} is no image with a digest")
    return lower


def _once(pattern: str, new: str, text: str) -> str:
    made, number = re.subn(pattern, new, text, flags=re.M)
    if number != 1:
        raise ValueError(f"{pattern} stands {number} times, not once")
    return made


def main(words: list[str]) -> int:
    if words[:1] == ["tags"]:
        print("tags=" + ",".join(image_tags(*words[1:])))
    elif words[:1] == ["git-tags"]:
        print(" ".join(git_tags(words[1])))
    elif words[:1] == ["pin"]:
        for name, change in (("action.yml", pinned_action), ("gitlab-component/templates/launch-runner.yml", pinned_component)):
            file = ROOT / name
            file.write_text(change(file.read_text("utf-8"), words[1]), "utf-8")
    elif words[:1] == ["agent"]:
        print(put_agent(Path(words[1])))
    elif words[:1] == ["component"]:
        file = Path(words[1], "templates/launch-runner.yml")
        downloads = package_registry(words[2], words[3])
        file.write_text(component_of_release(file.read_text("utf-8"), downloads), "utf-8")
        print(put_agent(Path(words[1], "agent")))
    else:
        print(__doc__, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
