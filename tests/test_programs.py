"""Programs that the image of jobs brings along: found for each architecture, believed by the
committed checksum, and pinned from what their projects publish."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from image import programs

CONTENT = b"a program"
SUM, OTHER = hashlib.sha256(CONTENT).hexdigest(), hashlib.sha256(b"another").hexdigest()
GIVEN = {
    "ACTIONS_RUNNER": "2.1.0",
    "GITLAB_RUNNER": "19.4.0",
    "NODE": "24.1.0",
    "HOOKS": "0.8.1",
    "GITHUB": "https://files.test",
    "GITHUB_API": "https://api.test",
    "GITLAB_RUNNER_DOWNLOADS": "https://gitlab.test",
    "NODE_DIST": "https://node.test",
}
RUNNERS = [
    f"actions-runner-{system}-{chip}-2.1.0.tar.gz"
    for system in ("osx", "linux")
    for chip in ("arm64", "x64")
]
HOOKS = [f"actions-runner-hooks-{kind}-0.8.1.zip" for kind in ("docker", "k8s")]


def release(names: list[str], checksum: str = SUM) -> bytes:
    return json.dumps(
        {"assets": [{"name": name, "digest": f"sha256:{checksum}"} for name in names]}
    ).encode()


PUBLISHED = {
    "https://api.test/repos/actions/runner/releases/tags/v2.1.0": release(RUNNERS),
    "https://api.test/repos/actions/runner-container-hooks/releases/tags/v0.8.1": release(HOOKS),
    "https://gitlab.test/v19.4.0/release.sha256": (
        (
            f"{OTHER} *deb/gitlab-runner_amd64.deb\n{SUM}"
            f" *binaries/gitlab-runner-linux-amd64\n{SUM} *binaries/gitlab-runner-linux-arm64\n"
        ).encode()
    ),
    "https://node.test/v24.1.0/SHASUMS256.txt": (
        f"{SUM}  node-v24.1.0-linux-x64.tar.xz\n{SUM}  node-v24.1.0-linux-arm64.tar.xz\n".encode()
    ),
}


def get(url: str) -> bytes:
    return PUBLISHED.get(url, CONTENT)


def never(url: str) -> bytes:
    raise AssertionError(url)


def pinned(folder: Path, text: str = "") -> Path:
    (folder / programs.PINS).write_text(text)
    (folder / programs.DOCKERFILE).write_text(
        "".join(f"ARG {name}={value}\n" for name, value in GIVEN.items())
    )
    return folder


@pytest.mark.parametrize(("architecture", "chip"), [("amd64", "x64"), ("arm64", "arm64")])
def test_each_program_is_found_and_believed_by_the_checksum_of_ours(
    architecture: str, chip: str
) -> None:
    found = [
        programs.actions_runner(GIVEN, architecture),
        programs.gitlab_runner(GIVEN, architecture),
        programs.node(GIVEN, architecture),
        programs.container_hooks(GIVEN),
    ]
    assert [program.url for program in found] == [
        f"https://files.test/actions/runner/releases/download/v2.1.0/actions-runner-linux-{chip}-2.1.0.tar.gz",
        f"https://gitlab.test/v19.4.0/binaries/gitlab-runner-linux-{architecture}",
        f"https://node.test/v24.1.0/node-v24.1.0-linux-{chip}.tar.xz",
        "https://files.test/actions/runner-container-hooks/releases/download/v0.8.1/actions-runner-hooks-k8s-0.8.1.zip",
    ]
    assert set(found) <= set(programs.of_both(GIVEN))
    for program in found:
        assert programs.fetched(program, {program.name: SUM}, get) == CONTENT
        with pytest.raises(SystemExit, match=f"expected {OTHER}"):
            programs.fetched(program, {program.name: OTHER}, get)
        with pytest.raises(SystemExit, match=r"programs\.py pin"):
            programs.fetched(program, {}, never)


def test_what_is_pinned_is_what_the_projects_publish(tmp_path: Path) -> None:
    assert programs.main(["pin"], {}, get, pinned(tmp_path)) == 0
    assert len((tmp_path / programs.PINS).read_text().splitlines()) == 7
    assert programs.main(["check"], {}, get, tmp_path) == 0


@pytest.mark.parametrize("where", PUBLISHED)
def test_a_release_stops_where_a_project_publishes_another_checksum(
    where: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    programs.main(["pin"], {}, get, pinned(tmp_path))
    moved = {**PUBLISHED, where: PUBLISHED[where].replace(SUM.encode(), OTHER.encode())}
    assert programs.main(["check"], {}, lambda url: moved[url], tmp_path) == 1
    assert f"and {OTHER} at its project" in capsys.readouterr().out


def test_a_release_stops_where_nobody_has_pinned(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert programs.main(["check"], {}, get, pinned(tmp_path)) == 1
    assert capsys.readouterr().out.count("has no checksum in image/programs.sha256") == 7
    assert programs.main(["check"], {"NODE": "24.1.0"}, get, tmp_path) == 1


@pytest.mark.parametrize(
    "told",
    [b"", b'{"assets": []}', release(RUNNERS, ""), b'{"assets": [{"name": "x", "digest": null}]}'],
)
def test_a_project_that_publishes_none_is_told(told: bytes) -> None:
    with pytest.raises(LookupError, match="has no SHA-256"):
        programs.published(programs.actions_runner(GIVEN, "amd64"), lambda url: told)


def test_our_own_list_is_of_the_versions_in_the_image() -> None:
    """Those that are not in it yet end a build, and a release before it has begun: `check`."""
    listed = dict(programs._lines((programs.HERE / programs.PINS).read_text("utf-8")))
    given = dict(
        line[4:].split("=", 1)
        for line in (programs.HERE / programs.DOCKERFILE).read_text("utf-8").splitlines()
        if line.startswith("ARG ")
    )
    assert listed
    assert listed.keys() <= {program.name for program in programs.of_both(given)}
    assert all(len(one) == 64 and int(one, 16) for one in listed.values())
