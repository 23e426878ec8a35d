"""The agent's tests on other Pythons: the oldest it is written for and the newest there is, each
in an environment of its own.

python -m tests.pythons        (part of `make test`)
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

OLDEST, NEWEST = 9, 16
LOCK = "requirements/agent.txt"


def interpreter(version: str) -> str | None:
    """A Python of that version that starts, from the path or from where pyenv keeps them."""
    places = [
        shutil.which(f"python{version}") or "",
        *map(str, Path.home().glob(f".pyenv/versions/{version}.*/bin/python")),
    ]
    return next(
        (
            place
            for place in places
            if place
            and subprocess.run([place, "-c", ""], capture_output=True, check=False).returncode == 0
        ),
        None,
    )


def chosen() -> dict[str, str]:
    """Version -> interpreter: the oldest and the newest that are installed."""
    found = {
        version: place
        for minor in range(OLDEST, NEWEST)
        if (place := interpreter(version := f"3.{minor}"))
    }
    return {version: found[version] for version in (*list(found)[:1], *list(found)[-1:])}


def run(version: str, place: str) -> subprocess.CompletedProcess[str]:
    """Makes the environment from its lock if it is not there, and runs the agent's tests in it."""
    folder = Path(f".venv-agent-{version}")
    python = str(folder / "bin" / "python")
    uv = [sys.executable, "-m", "uv"]
    if not Path(python).exists():
        subprocess.run(
            [*uv, "venv", "-q", "--no-python-downloads", "--python", place, str(folder)], check=True
        )
    subprocess.run(
        [*uv, "pip", "sync", "-q", "--require-hashes", "--python", python, LOCK], check=True
    )
    argv = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/agent"]
    # The project is on the path but not installed: its launcher would not even load on 3.9.
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(Path.cwd())}
    return subprocess.run(
        argv,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=300,
    )


def main() -> int:
    versions = chosen()
    if f"3.{OLDEST}" not in versions:
        print(
            f"SKIPPED LOUDLY: there is no Python 3.{OLDEST} here, the oldest that the agent is"
            " written for; its grammar is checked by vermin"
        )
    with ThreadPoolExecutor() as side_by_side:
        done = dict(zip(versions, side_by_side.map(run, versions, versions.values()), strict=True))
    for version, ended in done.items():
        told = ended.stdout if ended.returncode else ended.stdout.strip().splitlines()[-1]
        print(f"The agent's tests on Python {version}: {told}")
    return max((ended.returncode for ended in done.values()), default=0)


if __name__ == "__main__":
    sys.exit(main())
