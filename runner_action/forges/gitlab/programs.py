"""Where GitLab's runner program is downloaded from, and in which version. Pure.

https://docs.gitlab.com/runner/install/bleeding-edge/#download-any-other-tagged-release
"""

from __future__ import annotations

LATEST = "latest"
OLDEST = (17, 1, 0)
"""The first gitlab-runner whose `run-single` reads a configuration file."""
PATCHES = 8
"""Releases of a minor version that are looked for. No list of them can be read; since 17.1 there
were at most seven."""
DOWNLOADS = "https://gitlab-runner-downloads.s3.amazonaws.com"
ARCHITECTURES = {"x64": "amd64", "arm64": "arm64"}
SYSTEMS = {"linux": "linux", "macos": "darwin"}


def candidates(instance: tuple[int, ...] | None) -> list[str]:
    """The versions to look for, best first. GitLab recommends the instance's major and minor
    version; a newer instance than any runner, or an unknown one, gets the latest.
    https://docs.gitlab.com/runner/#gitlab-runner-versions"""
    if instance is None:
        return [LATEST]
    major, minor = max(instance, OLDEST[:2])
    return [*(f"{major}.{minor}.{patch}" for patch in reversed(range(PATCHES))), LATEST]


def place(mirror: str, version: str) -> str:
    """The folder of a release. `version`: with or without `v`, or `latest`."""
    tag = LATEST if version == LATEST else "v" + version.removeprefix("v")
    return f"{mirror}/{tag}"


def program(system: str, architecture: str) -> str:
    """The program's path in such a folder. The arguments are those of `Forge.download`."""
    return f"binaries/gitlab-runner-{SYSTEMS[system]}-{ARCHITECTURES[architecture]}"


def checksums(text: str) -> dict[str, str]:
    """Path -> SHA-256, from the text of `release.sha256`."""
    lines = [line.split() for line in text.splitlines()]
    return {words[1].lstrip("*./"): words[0] for words in lines if len(words) == 2}
