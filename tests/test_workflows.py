"""Our workflows and the examples to copy: read by GitHub's own parser, judged by its schema, and
every input of ours understood. And what a release writes."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from image import release
from runner_action import inputs
from runner_action.bundle import bundle
from tests.judges import missing
from tests.shipped import ROOT, USES, released
from tests.test_generated import judge

MODULES = ROOT / "tests" / "node_modules"
EXAMPLES = sorted((ROOT / "examples").glob("*.yml"))
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
AN_ID = "00000000-0000-0000-0000-000000000000"
AN_IDENTITY = (
    f"/subscriptions/{AN_ID}/resourceGroups/ours/providers"
    "/Microsoft.ManagedIdentity/userAssignedIdentities/machine"
)


def stand_in(name: str) -> str:
    """For an expression in an example."""
    if name == "app-private-key":
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        return key.private_bytes(
            Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()
        ).decode()
    if name.startswith("azure-"):
        return AN_ID
    return AN_IDENTITY if name == "cloud-permission-set" else "1"


DIGEST = "ghcr.io/Org/cml-runner@sha256:" + "0123456789abcdef" * 4


def load(file: Path) -> dict[str, Any]:
    return {
        str(key).replace("True", "on"): value
        for key, value in yaml.safe_load(released(file)).items()
    }  # YAML 1.1 reads `on` as true


@pytest.mark.parametrize(
    "file", [*WORKFLOWS, *EXAMPLES], ids=lambda file: f"{file.parent.name}/{file.stem}"
)
def test_a_workflow_fits_the_schema(file: Path) -> None:
    judge("github-workflows").validate(load(file))


@pytest.fixture(scope="module")
def parser(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not (MODULES / "@actions/workflow-parser").exists():
        missing("GitHub's workflow parser is missing; `npm ci --prefix tests` installs it")
    bundle = tmp_path_factory.mktemp("parser") / "parser.cjs"
    bundled = [
        str(MODULES / ".bin/esbuild"),
        "tests/workflow-parser.mjs",
        "--bundle",
        "--platform=node",
        "--format=cjs",
        f"--outfile={bundle}",
    ]
    subprocess.run(bundled, cwd=ROOT, check=True, capture_output=True)
    return bundle


def errors(parser: Path, *files: Path) -> dict[str, list[str]]:
    done = subprocess.run(
        ["node", str(parser), *map(str, files)], capture_output=True, text=True, check=True
    )
    found: dict[str, list[str]] = json.loads(done.stdout)
    return found


def test_githubs_own_parser_has_nothing_against_them(parser: Path) -> None:
    files = [ROOT / "action.yml", *WORKFLOWS, *EXAMPLES]
    assert errors(parser, *files) == {str(file): [] for file in files}


def test_the_parser_would_say_so(parser: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yml"
    wrong.write_text(
        "on: push\njobs:\n  a:\n    runs-on: x\n    steps:\n      - run: echo ${{ stepz.a }}\n"
    )
    assert "stepz" in errors(parser, wrong)[str(wrong)][0]


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_an_example_gives_inputs_that_we_take(file: Path) -> None:
    steps = [
        step
        for job in load(file)["jobs"].values()
        for step in job["steps"]
        if step.get("uses", "").startswith(USES)
    ]
    assert steps or "cml-runner launch" in file.read_text("utf-8")
    for step in steps:
        given = {
            name: re.sub(r"\$\{\{.*?\}\}", stand_in(name), str(value))
            for name, value in step["with"].items()
        }
        words = {
            f"INPUT_{name.upper()}": value.lower() if value in ("True", "False") else value
            for name, value in given.items()
        }
        environ = {
            **words,
            "GITHUB_ACTIONS": "true",
            "GITHUB_SERVER_URL": "https://github.com",
            "GITHUB_REPOSITORY": "octo/train",
            "CML_RUNNER_RUN_ID": "7",
        }
        raw = inputs.Raw(flags={}, environ=environ)
        warnings = (inputs.parse_restart if given.get("command") == "restart" else inputs.parse)(
            raw, lambda _: "#!/bin/sh\n"
        )[1]
        assert warnings == []


def test_the_scheduled_example_looks_and_sweeps_in_all_regions() -> None:
    workflow = load(ROOT / "examples/reap.yml")
    assert workflow["on"]["schedule"]
    told = [
        step["with"] for step in workflow["jobs"]["reap"]["steps"] if step["uses"].startswith(USES)
    ]
    assert [one["command"] for one in told] == ["status", "reap"]
    assert not any("cloud-region" in one for one in told)


MATRICES = [
    (file.stem, name, job["strategy"])
    for file in EXAMPLES
    for name, job in load(file)["jobs"].items()
    if "strategy" in job
]


@pytest.mark.parametrize(("example", "name", "strategy"), MATRICES)
def test_a_matrix_to_copy_survives_one_lost_machine(
    example: str, name: str, strategy: dict[str, Any]
) -> None:
    """By default GitHub cancels the rest."""
    assert strategy["fail-fast"] is False, f"{example}: {name}"


# --- releases


def test_a_version_moves_its_shorter_tags_along(capsys: pytest.CaptureFixture[str]) -> None:
    assert release.git_tags("1.2.3") == ["v1.2.3", "v1.2", "v1"]
    assert release.image_tags("1.2.3", "ghcr.io/Octo/cml-runner") == [
        f"ghcr.io/octo/cml-runner:v{one}" for one in ("1.2.3", "1.2", "1")
    ]
    assert release.main(["moving-tags", "1.2.3"]) == 0
    assert capsys.readouterr().out == "v1.2 v1\n"


@pytest.mark.parametrize(
    ("base", "name"),
    [
        ("ubuntu:24.04", "ubuntu24.04"),
        (
            f"nvidia/cuda:12.8.1-cudnn-runtime-ubuntu24.04@sha256:{'0' * 64}",
            "cuda12.8.1-ubuntu24.04",
        ),
    ],
)
def test_a_tag_names_what_its_image_stands_on(base: str, name: str) -> None:
    assert release.base_name(base) == name


@pytest.mark.parametrize("word", ["v1.2.3", "1.2", "1.2.3-rc1", "01.2.3", "", "1.2.3\nx=y"])
def test_what_is_no_version_is_refused(word: str) -> None:
    with pytest.raises(ValueError, match="is not a version"):
        release.check(word, [])


def test_a_version_is_released_once() -> None:
    """GitHub's answer has all tags that begin so."""
    release.check("1.2.3", ["refs/tags/v1.2.30", "refs/tags/v1.2.3-rc1"])
    with pytest.raises(ValueError, match=r"v1\.2\.3 is released already"):
        release.check("1.2.3", ["refs/tags/v1.2.30", "refs/tags/v1.2.3"])


def test_each_image_is_built_from_what_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    page = (ROOT / "docs/images.md").read_text("utf-8")
    for suffix, (file, base) in release.SUFFIXES.items():
        text = (ROOT / file).read_text("utf-8")
        assert (
            release.main(
                [
                    "build",
                    suffix,
                    "1.2.3",
                    "https://github.com/Octo/cml-runner",
                    "ghcr.io/Octo/cml-runner",
                ]
            )
            == 0
        )
        told = dict(line.split("=", 1) for line in capsys.readouterr().out.splitlines())
        assert (told["file"], told["image"]) == (file, "ghcr.io/octo/cml-runner")
        argument, _, value = told["build-args"].partition("=")
        assert f"\nARG {argument}=" in text
        if base:
            assert value in text, "the build argument's value is said there, too"
            assert f"`{release.image_tags('1.2.3', 'x', suffix)[3].removeprefix('x:')}`" in page
        else:
            assert value == "https://github.com/Octo/cml-runner/releases/download/v1.2.3"
            assert "CML_RUNNER_RELEASE=${RELEASE}" in text
        for version in re.findall(
            r"^ARG (?:ACTIONS_RUNNER|GITLAB_RUNNER|NODE|HOOKS)=(\S+)", text, re.M
        ):
            assert version in page, "the page for users names what is in the image"


def test_a_released_action_starts_the_pushed_image_by_its_digest() -> None:
    text = (ROOT / "action.yml").read_text("utf-8")
    pinned = yaml.safe_load(release.pinned_action(text, DIGEST))
    assert pinned["runs"]["image"] == f"docker://{DIGEST.lower()}"
    judge("github-actions").validate(pinned)
    assert {**yaml.safe_load(text)["runs"], "image": ""} == {**pinned["runs"], "image": ""}
    with pytest.raises(ValueError, match="occurs 0 times"):
        release.pinned_action(release.pinned_action(text, DIGEST), DIGEST)


def test_a_released_component_starts_it_too() -> None:
    text = (ROOT / release.COMPONENT).read_text("utf-8")
    assert "default" not in next(yaml.safe_load_all(text))["spec"]["inputs"]["image"], (
        "GitLab asks for it until then"
    )
    pinned = next(yaml.safe_load_all(release.pinned_component(text, DIGEST)))
    assert pinned["spec"]["inputs"]["image"]["default"] == DIGEST.lower()


@pytest.mark.parametrize(
    "word", ["ghcr.io/octo/cml-runner:v1", "ghcr.io/octo/cml-runner@sha256:12", "cml-runner", ""]
)
def test_an_image_without_a_digest_is_refused(word: str) -> None:
    for change in (release.pinned_action, release.pinned_component):
        with pytest.raises(ValueError, match="not an image with a digest"):
            change("", word)
    with pytest.raises(ValueError, match="not an image with a digest"):
        release.pinned_jobs_images('IMAGE = ""\n', word, DIGEST)


def test_a_release_publishes_the_agent_by_its_digest(tmp_path: Path) -> None:
    """As the workflow calls it: without anything installed."""
    argv = [sys.executable, "-I", "-S", str(ROOT / "image/release.py"), "agent", str(tmp_path)]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    (file,) = tmp_path.iterdir()
    assert done.stdout.strip() == file.name == bundle().name
    assert file.read_bytes() == bundle().content
    text = (ROOT / ".github/workflows/release.yml").read_text("utf-8")
    assert 'image/release.py agent "$RUNNER_TEMP/agent"' in text
    assert '--generate-notes "$RUNNER_TEMP"/agent/*' in text


def test_a_released_component_has_the_agent_in_its_own_registry(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "gitlab-component", tmp_path / "component")
    assert (
        release.main(
            ["component", str(tmp_path / "component"), "gitlab.com/octo/cml-runner.git", "1.2.3"]
        )
        == 0
    )
    assert (tmp_path / "component/agent" / bundle().name).read_bytes() == bundle().content
    assert (tmp_path / "component/LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    spec = next(
        yaml.safe_load_all((tmp_path / "component/templates/launch-runner.yml").read_text("utf-8"))
    )
    where = "https://gitlab.com/api/v4/projects/octo%2Fcml-runner/packages/generic/cml-runner-agent/1.2.3"
    assert spec["spec"]["inputs"]["agent-downloads"]["default"] == where
    (upload,) = [
        line
        for line in load(ROOT / "gitlab-component/.gitlab-ci.yml")["publish-agent"]["script"]
        if "upload-file" in line
    ]
    assert "/packages/generic/cml-runner-agent/$CI_COMMIT_TAG" in (
        ROOT / "gitlab-component/.gitlab-ci.yml"
    ).read_text("utf-8")
    assert "CI_JOB_TOKEN" not in upload, "not in an argument list"


def test_the_components_own_pipeline_fits_gitlabs_schema() -> None:
    judge("gitlab-ci").validate(
        yaml.safe_load((ROOT / "gitlab-component/.gitlab-ci.yml").read_text("utf-8"))
    )
