"""Where GitLab's runner program is downloaded from. Pure.

https://docs.gitlab.com/runner/install/bleeding-edge/#download-any-other-tagged-release
"""

from __future__ import annotations

DOWNLOADS = "https://gitlab-runner-downloads.s3.amazonaws.com"
ARCHITECTURES = {"x64": "amd64", "arm64": "arm64"}
SYSTEMS = {"linux": "linux", "macos": "darwin"}


def place(mirror: str, version: str) -> str:
    """The folder of a release. `version`: with or without `v`, or `latest`."""
    tag = "latest" if version == "latest" else "v" + version.removeprefix("v")
    return f"{mirror}/{tag}"


def program(system: str, architecture: str) -> str:
    """The program's path in such a folder. The arguments are those of `Forge.download`."""
    return f"binaries/gitlab-runner-{SYSTEMS[system]}-{ARCHITECTURES[architecture]}"


def checksums(text: str) -> dict[str, str]:
    """Path -> SHA-256, from the text of `release.sha256`."""
    lines = [line.split() for line in text.splitlines()]
    return {words[1].lstrip("*./"): words[0] for words in lines if len(words) == 2}
