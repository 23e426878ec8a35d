"""Releases of actions/runner as GitHub's API returns them. Pure."""

from __future__ import annotations

from typing import Any

from runner_action.sandbox.forges.github.archive import VERSION


def downloads(url: str, sha256: str) -> list[dict[str, str]]:
    """The newest version for each platform: always the same program, with this checksum."""
    folder = f"{url}/actions/runner/releases/download/v{VERSION}"
    platforms = (("linux", "x64"), ("linux", "arm64"), ("osx", "arm64"))
    return [download(folder, system, architecture, sha256) for system, architecture in platforms]


def download(folder: str, system: str, architecture: str, sha256: str) -> dict[str, str]:
    name = f"actions-runner-{system}-{architecture}-{VERSION}.tar.gz"
    return {
        "os": system,
        "architecture": architecture,
        "filename": name,
        "download_url": f"{folder}/{name}",
        "sha256_checksum": sha256,
    }


def release(url: str, version: str, published: str, sha256: str) -> dict[str, Any]:
    """A release of the project, with the fields that a launch reads."""
    name = f"actions-runner-linux-x64-{version}.tar.gz"
    asset = {
        "name": name,
        "digest": f"sha256:{sha256}",
        "browser_download_url": f"{url}/actions/runner/releases/download/v{version}/{name}",
    }
    return {"tag_name": f"v{version}", "published_at": published, "assets": [asset]}
