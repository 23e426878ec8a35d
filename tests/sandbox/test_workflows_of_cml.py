"""Public workflow files that use CML's runner: their flags and variables, as they are written, with
a dry run in the embedded world."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from runner_action import cli, commandline, inputs
from runner_action.sandbox.world import World

SHELL = 'cml() { printf "cml\\0"; printf "%s\\0" "$@"; }; '


@dataclass(frozen=True)
class File:
    """`place`: repository and path at GitHub; `command`: what its shell runs; `environ`: what its
    step sets besides secrets; `labels`: those that its jobs ask for; `plan`: what the dry run must
    say."""

    place: str
    forge: str
    cloud: str
    command: str
    labels: tuple[str, ...]
    plan: tuple[str, ...]
    environ: dict[str, str] = field(default_factory=dict)


HEX = "0123456789abcdef0123456789abcdef"
FILES = (
    File(
        "CouncilDataProject/cookiecutter-cdp-deployment:"
        "{{ cookiecutter.hosting_github_repo_name }}/.github/workflows/event-gather-pipeline.yml",
        "github",
        "gcp",
        "cml runner \\\n  --single \\\n  --labels=gcp-cdp-runner \\\n  --cloud=gcp \\\n"
        "  --cloud-region=us-central1-f \\\n  --cloud-type=n1-standard-4 \\\n"
        "  --cloud-gpu=nvidia-tesla-t4 \\\n  --cloud-hdd-size=30 \\\n  --idle-timeout=600",
        ("gcp-cdp-runner",),
        ("n1-standard-4+nvidia-tesla-t4*1", "us-central1-f", "nvidia-580"),
    ),
    File(
        "iterative/example-repos-dev:"
        "example-get-started-experiments/code/.github/workflows/dvc-studio.yml",
        "github",
        "aws",
        "cml runner launch --single \\\n  --labels=cml \\\n  --cloud=aws \\\n"
        "  --cloud-region=us-east \\\n  --cloud-hdd-size=40 \\\n  --cloud-type=g5.2xlarge \\\n"
        "  --idle-timeout=3600 \\\n   \n",
        ("cml",),
        ("g5.2xlarge", "us-east-1", "Deep Learning Base"),
        {"AWS_REGION": "us-east-2", "AWS_DEFAULT_REGION": "us-east-2", "AWS_SESSION_TOKEN": "s"},
    ),
    File(
        "0x2b3bfa0/cml-use-case-matrix-cloud:.github/workflows/cml.yml",
        "github",
        "aws",
        "cml runner --single --cloud=aws",
        (HEX,),
        ("m6i.2xlarge", "us-west-1"),
        {"CML_RUNNER_LABELS": HEX, "AWS_SESSION_TOKEN": ""},
    ),
    File(
        "swiss-ai-center/a-guide-to-mlops:docs/advanced-concepts/"
        "train-the-model-on-a-kubernetes-cluster-with-cml/.gitlab-ci.yml",
        "gitlab",
        "kubernetes",
        'cml runner --labels="cml-runner" --cloud="kubernetes"'
        ' --cloud-type="64-256000+nvidia-tesla-k80*1"',
        ("cml-runner",),
        ("64 CPU, 250 GiB, 1 × k80",),
    ),
    File(
        "heigvd-software-engineering/swissimage-vision:.github/workflows/train-and-report.yaml",
        "github",
        "kubernetes",
        'cml runner \\\n  --labels="cml-runner" \\\n  --cloud="kubernetes" \\\n'
        '  --cloud-kubernetes-node-selector="nvidia.com/gpu.present=true" \\\n  --single\n',
        ("cml-runner",),
        ("8 CPU, 32 GiB",),
    ),
)


def words(command: str) -> list[str]:
    """What a shell passes to CML."""
    done = subprocess.run(
        ["bash", "-ec", SHELL + command], capture_output=True, text=True, check=True
    )
    return done.stdout.removesuffix("\0").split("\0")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.place)
def test_a_workflow_of_cml_runs_as_it_is_written(
    file: File,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with World(file.forge, file.cloud, boots=False) as world:
        files = {
            name: str(tmp_path / name)
            for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY", "GITHUB_STATE")
        }
        environ = {**world.job_environ(), **files, **file.environ}
        for name, value in environ.items():
            if name.startswith("AWS_"):
                monkeypatch.setenv(name, value)  # which the SDK reads by itself
        argv = words(file.command)
        flags, unknown = commandline.flags_of(argv)
        raw = inputs.Raw(flags=flags, environ=environ, unknown=unknown)
        assert inputs.parse(raw, lambda _: None)[0].labels == file.labels
        code = cli.main([*argv, "--dry-run"], environ)
        summary = tmp_path / "GITHUB_STEP_SUMMARY"
        written = capsys.readouterr()
        text = written.out + written.err + (summary.read_text("utf-8") if summary.exists() else "")
        assert code == 0, text
        assert "nothing was created" in text
        assert world.left() == []
        assert [word for word in file.plan if word not in text] == []
        assert "was ignored" not in text
