"""What we ship to be copied: pipelines for GitLab, workflows for GitHub, and text about them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from image import release

ROOT = Path(__file__).parents[1]
REPOSITORY = "octo/cml-runner"
"""Who publishes it in the tests, on GitHub and on GitLab."""
USES = f"{REPOSITORY}@"
INCLUDED = f"$CI_SERVER_FQDN/{REPOSITORY}/launch-runner"
IMAGE = f"ghcr.io/{REPOSITORY}@sha256:{'0123456789abcdef' * 4}"
PAGES = ("README.md", "CHANGELOG.md", "gitlab-component/README.md", "docs/*.md")
YAML = ("action.yml", "examples/*.yml", "gitlab-component/**/*.yml")
BLOCK = re.compile(r"^```ya?ml\n(.*?)^```", re.M | re.S)
Definition = dict[str, Any]


def released(file: Path) -> str:
    """Its text as a release publishes it, which is what users read and start."""
    text = release.named(file.read_text("utf-8"), REPOSITORY, REPOSITORY)
    return release.pinned_component(text, IMAGE) if file == ROOT / release.COMPONENT else text


def _files(*patterns: str) -> dict[str, str]:
    found = {file for pattern in patterns for file in ROOT.glob(pattern)}
    return {str(file.relative_to(ROOT)): released(file) for file in sorted(found)}


def texts() -> dict[str, str]:
    """All that users read or copy, by path."""
    return _files(*PAGES, *YAML, "schema/*.json")


def _read(*patterns: str) -> dict[str, Any]:
    """YAML of these files and of all pages' code blocks, unless it is several documents."""
    written = _files(*patterns)
    for page, text in _files(*PAGES).items():
        written |= {f"{page} {number}": one for number, one in enumerate(BLOCK.findall(text), 1)}
    return {name: yaml.safe_load(text) for name, text in written.items() if "\n---\n" not in text}


def pipelines() -> dict[str, Definition]:
    """GitLab's: they have no `jobs`, and a job of theirs has a script."""
    read = _read("gitlab-component/examples/*.yml", "gitlab-component/.gitlab-ci.yml")
    return {name: one for name, one in read.items() if isinstance(one, dict) and _has_script(one)}


def including() -> dict[str, Definition]:
    """GitLab's that include something, though they may have no job."""
    read = _read("gitlab-component/examples/*.yml", "gitlab-component/.gitlab-ci.yml")
    return {name: one for name, one in read.items() if isinstance(one, dict) and "include" in one}


def _has_script(definition: Definition) -> bool:
    return any(isinstance(job, dict) and "script" in job for job in definition.values())


def workflows() -> dict[str, Definition]:
    """GitHub's; a list of steps becomes a job."""
    found = {}
    for name, one in _read("examples/*.yml", ".github/workflows/*.yml").items():
        steps = {"jobs": {"steps": {"runs-on": "ubuntu-latest", "steps": one}}}
        whole = steps if isinstance(one, list) else one
        if "jobs" in whole:
            # YAML 1.1 reads `on` as true.
            found[name] = {"on" if key is True else key: part for key, part in whole.items()}
    return found
