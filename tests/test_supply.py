"""What the project takes from others, and what it gives: nothing moves under a name, nothing
runs that is not the content that was chosen, and nobody's name is in it but its own."""

from __future__ import annotations

import base64
import http.server
import json
import os
import re
import shlex
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, ClassVar

import pytest

from image import release
from tests import shipped
from tests.shipped import ROOT

LOCKS = sorted((ROOT / "requirements").glob("*.txt"))
IMAGES = (ROOT / "image/images.Dockerfile").read_text("utf-8")
INSTALLERS = ("Makefile", "Dockerfile", "tests/pythons.py", "benchmarks/image.py")
"""Where packages of registries are installed."""
HASH = r"--hash=sha256:[0-9a-f]{64}"


# --- locks


def unhashed(lock: str) -> list[str]:
    """The lines of a lock that would be believed by name and version alone, or from a place of
    its own."""
    entries = re.sub(r"\\\n\s*", "", lock).splitlines()
    entry = re.compile(rf"[a-z0-9-]+==[^\s;]+( ; [^#]+?)?( *{HASH})+")
    return [one for one in entries if not entry.fullmatch(one)]


@pytest.mark.parametrize("lock", LOCKS, ids=lambda file: file.stem)
def test_a_lock_names_the_content_of_each_package_and_no_address(lock: Path) -> None:
    text = lock.read_text("utf-8")
    assert unhashed(text) == []
    assert "://" not in text


@pytest.mark.parametrize(
    "line",
    ["flask==3.1.3", "flask", "--index-url https://x.test", "./here", "a @ https://x.test/a.whl"],
)
def test_what_is_no_such_line_is_found(line: str) -> None:
    assert unhashed(f"click==8.5.1 --hash=sha256:{'0' * 64}\n{line}\n") == [line]


def installs(text: str) -> list[list[str]]:
    """Each `pip install`, `uv pip install` and `sync` of a file from a list, in words."""
    found = re.findall(r"pip[\", ]+(?:install|sync)[^\n&;]*", text)
    return [
        shlex.split(re.sub(r"[\",\[\]]", " ", one))
        for one in found
        if re.search(r"\.txt|LOCK", one)
    ]


@pytest.mark.parametrize("name", INSTALLERS)
def test_what_is_not_that_content_is_not_installed(name: str) -> None:
    found = installs((ROOT / name).read_text("utf-8"))
    assert found
    assert all("--require-hashes" in words for words in found)


def test_nothing_else_installs() -> None:
    """But the project itself, which brings nothing, and what a job installs for itself."""
    tracked = [
        *ROOT.glob("image/*"),
        *ROOT.glob("*.toml"),
        *ROOT.glob(".github/**/*.yml"),
        ROOT / ".ci/run",
    ]
    for file in filter(Path.is_file, [*tracked, *map(ROOT.joinpath, INSTALLERS)]):
        for line in file.read_text("utf-8").splitlines():
            if re.search(r"pip[\", ]+(install|sync)\b", line) and not line.startswith("#"):
                assert (
                    "--require-hashes" in line or "--no-deps --no-build-isolation -e ." in line
                ), f"{file}: {line}"


def test_so_does_the_lock_of_npm() -> None:
    packages = json.loads((ROOT / "tests/package-lock.json").read_text("utf-8"))["packages"]
    found = {name: one for name, one in packages.items() if name and not one.get("link")}
    assert found
    assert all(
        one["integrity"].startswith("sha512-") and "resolved" not in one for one in found.values()
    )
    assert "npm ci " in (ROOT / "Makefile").read_text("utf-8")


# --- images of others


def pinned() -> dict[str, list[str]]:
    """Image with its digest -> the files that use it, as image/images.Dockerfile tells."""
    return {
        image: places.split()
        for places, image in re.findall(r"^# ([^\n]*)\nFROM (\S+)$", IMAGES, re.M)
    }


def mentioned(text: str) -> set[str]:
    """Images that are started or built on: `FROM`, arguments for it, `image:`, `image=`,
    `base:`, `generator=`."""
    keys = r"^FROM|^ARG (?:DEBIAN|BASE)=|\b(?:[Ii]mage|base|generator|[A-Z_]*IMAGE)\b ?[:=]"
    found = re.findall(rf"(?:{keys}) *[\"']?([\w./-]+:[\w.-]+(?:@sha256:\w+)?)", text, re.M)
    return {re.sub(r"^docker\.io/", "", one) for one in found}


FROM_OTHERS = (
    "Dockerfile",
    "image/*ockerfile",
    ".github/workflows/*.yml",
    "gitlab-component/.gitlab-ci.yml",
    "runner_action/providers/kubernetes/table.py",
)


@pytest.mark.parametrize(
    "file",
    sorted({file for pattern in FROM_OTHERS for file in ROOT.glob(pattern)}),
    ids=lambda file: str(file.relative_to(ROOT)),
)
def test_an_image_of_others_is_one_of_the_list_by_its_digest(file: Path) -> None:
    assert mentioned(file.read_text("utf-8")) - pinned().keys() == set()


def test_the_list_says_where_an_image_is() -> None:
    assert (
        len(pinned())
        == IMAGES.count("\nFROM ")
        == len(re.findall(r"@sha256:[0-9a-f]{64}\n", IMAGES))
    )
    for image, places in pinned().items():
        assert places
        for place in places:
            assert image in (ROOT / place).read_text("utf-8"), f"{place} has another {image}"


@pytest.mark.parametrize(
    "line",
    [
        "FROM x:1 AS y",
        "ARG BASE=x:1",
        "  image: x:1",
        "          driver-opts: image=x:1",
        "            base: x:1",
        'DOCKER_IMAGE = "x:1"',
        "image: docker.io/x:1",
    ],
)
def test_an_image_by_its_tag_is_found(line: str) -> None:
    assert mentioned(f"a\n{line}\n") == {"x:1"}


# --- actions of others, and what jobs may do

Step = dict[str, Any]
OURS_ALL = {
    name: one
    for name, one in shipped.workflows().items()
    if ".yml" in name and "README" not in name
}
PINNED = re.compile(r"[\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+(, .*)?")
PAGES = {
    name: one for name, one in shipped.workflows().items() if name not in OURS_ALL and "on" in one
}
"""Whole workflows in pages: what people copy first."""


def used(text: str) -> list[str]:
    """What follows each `uses:`, with its comment."""
    return re.findall(r"^[ -]*uses: *(.*)$", text, re.M)


@pytest.mark.parametrize("name", OURS_ALL)
def test_an_action_of_others_is_a_commit_with_its_version(name: str) -> None:
    others = [
        one
        for one in used(shipped.released(ROOT / name))
        if not one.startswith((shipped.USES, "./"))
    ]
    assert [one for one in others if not PINNED.fullmatch(one)] == []


@pytest.mark.parametrize(
    "word",
    [
        "actions/checkout@v5",
        f"actions/checkout@{'a' * 40}",
        f"actions/checkout@{'a' * 40} # v5",
        f"./.github@{'a' * 39}",
    ],
)
def test_what_is_none_is_found(word: str) -> None:
    assert used(f"      - uses: {word}\n        uses: {word}\n") == [word, word]
    assert not PINNED.fullmatch(word)


def test_one_version_of_an_action_everywhere() -> None:
    found: dict[str, set[str]] = {}
    for name in OURS_ALL:
        for action, rest in re.findall(
            r"uses: ([\w./-]+)@(\w{40} # \S+?),?(?:\s|$)", shipped.released(ROOT / name)
        ):
            found.setdefault(action, set()).add(rest)
    assert found
    assert {action: versions for action, versions in found.items() if len(versions) > 1} == {}


LOGS_IN = (
    "aws-actions/configure-aws-credentials@",
    "google-github-actions/auth@",
    "azure/login@",
    "actions/attest@",
    "ossf/scorecard-action@",
)
"""Actions that ask for the job's id token."""


def needed(job: dict[str, Any]) -> set[str]:
    """What the steps of a job need of its token. A called workflow says it itself."""
    steps: list[Step] = job.get("steps", [])
    uses = [step.get("uses", "") for step in steps]
    token = any(one.startswith(LOGS_IN) for one in uses) or any(
        "azure-client-id" in step.get("with", {}) for step in steps
    )
    return {"id-token"} if token else set()


@pytest.mark.parametrize("name", [*OURS_ALL, *PAGES])
def test_the_id_token_is_of_the_jobs_alone_that_log_in_somewhere(name: str) -> None:
    """A step of any other would be the cloud's role, or publish in our name."""
    workflow = {**OURS_ALL, **PAGES}[name]
    assert workflow["permissions"] == {}, "nothing is given to jobs that ask for nothing"
    for job in workflow["jobs"].values():
        if "uses" not in job:
            assert {one for one in job.get("permissions", {}) if one == "id-token"} == needed(job)


@pytest.mark.parametrize("name", [name for name in OURS_ALL if name.startswith("examples/")])
def test_an_examples_role_is_of_one_environment(name: str) -> None:
    """Which a trust policy can ask for, as the pages say: no other job, and no other branch, is
    in it."""
    for job in OURS_ALL[name]["jobs"].values():
        assert (job.get("environment") == "launch") == ("id-token" in job.get("permissions", {}))


def test_the_pages_trust_that_environment() -> None:
    for page in ("docs/aws.md", "docs/azure.md", "docs/gcp.md"):
        subjects = set(re.findall(r"repo:[\w/*-]+:[^\s\"'`]+", (ROOT / page).read_text("utf-8")))
        assert subjects == {"repo:OWNER/REPOSITORY:environment:launch"}


@pytest.mark.parametrize("name", OURS_ALL)
def test_no_checkout_leaves_its_token_behind(name: str) -> None:
    steps = [step for job in OURS_ALL[name]["jobs"].values() for step in job.get("steps", [])]
    checkouts = [step for step in steps if step.get("uses", "").startswith("actions/checkout@")]
    assert [
        step for step in checkouts if step.get("with", {}).get("persist-credentials") is not False
    ] == []


def test_all_workflows_of_the_pages_are_read() -> None:
    assert {"README.md 1", "docs/restart.md 1"} <= PAGES.keys()
    assert len(OURS_ALL) == len(
        [*ROOT.glob("examples/*.yml"), *ROOT.glob(".github/workflows/*.yml")]
    )


# --- releases

RELEASE = OURS_ALL[".github/workflows/release.yml"]
BUILD = OURS_ALL[".github/workflows/image.yml"]["jobs"]["build"]


def test_nothing_is_published_from_elsewhere_than_main_or_before_a_look() -> None:
    jobs = RELEASE["jobs"]
    assert jobs["check"]["if"] == "github.ref == 'refs/heads/main'"
    script = "".join(step.get("run", "") for step in jobs["check"]["steps"])
    assert 'release.py check "$VERSION" $found' in script
    assert "programs.py check" in script

    def begins(name: str) -> set[str]:
        needs = jobs[name].get("needs", [])
        return {
            first for one in ([needs] if isinstance(needs, str) else needs) for first in begins(one)
        } or {name}

    assert {name: begins(name) for name in jobs} == {name: {"check"} for name in jobs}


def test_whoever_publishes_waits_for_a_reviewer() -> None:
    for job in [*RELEASE["jobs"].values(), BUILD]:
        writes = {name for name, how in job["permissions"].items() if how == "write"}
        assert ("environment" in job) == bool(writes or "GITLAB_TOKEN" in str(job)) or "uses" in job


def test_an_exact_tag_is_never_moved() -> None:
    """Images have no tag until Git has taken the release's, and it takes it once."""
    runs = {
        name: [step["run"] for step in job.get("steps", []) if "run" in step]
        for name, job in RELEASE["jobs"].items()
    }
    scripts = "\n".join(run for lines in runs.values() for run in lines)
    forced = [line.strip() for line in scripts.splitlines() if "--force" in line]
    assert forced == [
        'git push --force "$GITHUB_SERVER_URL/$GITHUB_REPOSITORY" "HEAD:refs/tags/$tag"'
    ]
    assert "for tag in $(python3 image/release.py moving-tags" in "".join(runs["publish"])
    (push,) = [
        step["with"]
        for step in BUILD["steps"]
        if step.get("uses", "").startswith("docker/build-push-action@")
    ]
    assert "tags" not in push
    assert "push-by-digest=true" in push["outputs"]
    assert "tag" in RELEASE["jobs"]["publish"]["needs"]


def test_what_is_published_is_attested() -> None:
    for job in (BUILD, RELEASE["jobs"]["publish"]):
        (attested,) = [
            step["with"]
            for step in job["steps"]
            if step.get("uses", "").startswith("actions/attest@")
        ]
        assert attested.get("subject-digest") or attested["subject-path"].endswith("/agent/*")


SECRETS = re.compile(r"secrets\.|github\.token|_TOKEN\b|PASSWORD")


def test_no_token_is_in_an_argument_or_an_address() -> None:
    for name, workflow in OURS_ALL.items():
        for job in workflow["jobs"].values():
            for step in job.get("steps", []):
                assert not SECRETS.search(step.get("run", "")), name
    assert not re.search(
        r"https?://[^/\s]*@", "".join((ROOT / name).read_text("utf-8") for name in OURS_ALL)
    )


class Guarded(http.server.BaseHTTPRequestHandler):
    """A Git server that lets in who says a name and a word."""

    heard: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.heard.append(self.headers.get("Authorization", ""))
        self.send_response(401 if not self.heard[-1] else 200)
        self.send_header("WWW-Authenticate", "Basic realm=git")
        self.end_headers()

    def log_message(self, *args: object) -> None:
        """Nothing."""


def test_git_is_told_the_token_when_it_asks() -> None:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Guarded)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        environ = {
            "PATH": os.environ["PATH"],
            "GIT_ASKPASS": str(ROOT / "image/askpass.sh"),
            "GIT_USERNAME": "oauth2",
            "GIT_PASSWORD": "canary",
        }
        argv = [
            "git",
            "-c",
            "credential.helper=",
            "ls-remote",
            f"http://127.0.0.1:{server.server_port}/x.git",
        ]
        subprocess.run(argv, env=environ, capture_output=True, timeout=30, check=False)
    finally:
        server.shutdown()
        server.server_close()
    assert Guarded.heard[0] == "", "not before it is asked"
    assert set(Guarded.heard[1:]) == {"Basic " + base64.b64encode(b"oauth2:canary").decode()}


# --- names

NOT_SHIPPED = ("tests/", "benchmarks/", "requirements/")


def tracked() -> dict[str, str]:
    names = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    return {
        name: (ROOT / name).read_text("utf-8")
        for name in names
        if not name.startswith(NOT_SHIPPED) and (ROOT / name).is_file()
    }


def test_nobodys_name_is_in_it() -> None:
    """The README's `org/cml-runner` is what users know; a release fills it in like the others."""
    found = {
        (name, one)
        for name, text in tracked().items()
        for one in re.findall(r"(?<![\w.-])org/cml-runner\S*", text)
        if name != "README.md"
    }
    assert found == set()
    images = {
        (name, one)
        for name, text in tracked().items()
        for one in re.findall(r"ghcr\.io/[\w.-]+/[\w.-]+", text)
        if name != "README.md"
    }
    assert images == set()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name, text in tracked().items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


REFERENCES = [f"ghcr.io/Octo/Runner@sha256:{digit * 64}" for digit in "123"]


@pytest.mark.parametrize(
    ("project", "path"), [("gitlab.com/trains/launch.git", "trains/launch"), ("", "Octo/Runner")]
)
def test_a_release_is_of_its_owner(project: str, path: str, checkout: Path) -> None:
    assert release.main(["pin", *REFERENCES, project], checkout) == 0
    written = {name: (checkout / name).read_text("utf-8") for name in tracked()}
    assert [
        name
        for name, text in written.items()
        if "<owner>/cml-runner" in text and name != ".github/zizmor.yml"
    ] == []
    assert [
        name for name, text in written.items() if re.search(r"(?<![\w.-])org/cml-runner", text)
    ] == []
    assert "uses: Octo/Runner@v1" in written["README.md"]
    assert f"$CI_SERVER_FQDN/{path}/launch-runner@1" in written["README.md"]
    assert (
        f"$CI_SERVER_FQDN/{path}/launch-runner@1" in written["gitlab-component/examples/train.yml"]
    )
    assert "ghcr.io/octo/runner:v1-runner-gpu" in written["docs/images.md"]
    assert f"image: docker://ghcr.io/octo/runner@sha256:{'1' * 64}" in written["action.yml"]


def test_its_pods_start_its_own_images_by_their_content(checkout: Path) -> None:
    """And the launcher's image, which is built before there is a commit, has the same in it."""
    release.main(["jobs-images", *REFERENCES[1:]], checkout)
    by_image = (checkout / release.TABLE).read_text("utf-8")
    (checkout / release.TABLE).write_text((ROOT / release.TABLE).read_text("utf-8"))
    release.main(["pin", *REFERENCES], checkout)
    assert (checkout / release.TABLE).read_text("utf-8") == by_image
    code = (
        "from runner_action.providers.kubernetes import table; print(table.IMAGE, table.GPU_IMAGE)"
    )
    told = subprocess.run(
        [sys.executable, "-c", code],
        cwd=checkout,
        env={"PYTHONPATH": str(checkout)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.split() == [
        one.replace("Octo/Runner", "octo/runner") for one in REFERENCES[1:]
    ]


def test_the_licence_is_the_one_that_is_named() -> None:
    text = (ROOT / "LICENSE").read_text("utf-8")
    assert 'license = "Apache-2.0"' in (ROOT / "pyproject.toml").read_text("utf-8")
    assert "Version 2.0, January 2004" in text
    assert text.count("\n") > 190, "the whole of it"
