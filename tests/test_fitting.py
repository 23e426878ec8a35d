"""Which way the agent goes to a machine, how large all that users may ask for is, and what is
said when it does not fit."""

from __future__ import annotations

import base64
import gzip
import hashlib
import itertools
import json
import random
import re
from dataclasses import replace
from pathlib import Path

import pytest

from runner_action import bootstrap, inputs
from runner_action.agent.spec import AgentSpec
from runner_action.bootstrap import fitting
from runner_action.bundle import bundle
from runner_action.errors import InputError
from runner_action.model import Download, LaunchJob, Registration, Secret
from runner_action.providers.aws.plan import USER_DATA_LIMIT
from runner_action.request import LaunchRequest
from runner_action.sandbox.forges.github import jit as github_jit
from tests import large
from tests.test_bootstrap import config, written

RELEASE = "https://github.com/org/cml-runner/releases/download/v1.2.3"


def request(*words: str, release: str | None = RELEASE, **values: str) -> LaunchRequest:
    flags = {"cloud": ["aws"], "repo": ["https://github.com/octo/train"], "token": [large.TOKEN]}
    flags |= {word: ["true"] for word in words} | {
        name.replace("_", "-"): [text] for name, text in values.items()
    }
    environ = {"CML_RUNNER_RELEASE": release} if release else {}
    return inputs.parse(inputs.Raw(flags=flags, environ=environ), lambda path: None)[0]


def spec(launch: LaunchRequest) -> AgentSpec:
    """As a launch makes it, with registrations of real size."""
    name = launch.name or "cml-0123456789"
    jit = github_jit.encoded(12345678, name, large.PIPELINES, launch.repository.url, "_work")[0]
    single = launch.single and launch.count == 1
    joining = (
        Registration(jit_config=Secret(jit), runner_id=12345678)
        if single
        else Registration(token=Secret(large.word(29, "token")))
    )
    if launch.forge == "gitlab":
        joining = Registration(
            runner_token=Secret(f"glrt-{large.word(40, 'runner')}"), runner_id=12345678
        )
    url = "https://github.com/actions/runner/releases/download/v2.336.0/actions-runner-linux-x64-2.336.0.tar.gz"
    download = Download(url=url, sha256=hashlib.sha256(b"runner").hexdigest(), version="2.336.0")
    job = LaunchJob(run_id=19376284899, id=55448733021, name="launch")
    return bootstrap.spec_of(launch, name, joining, download, "https://api.github.com", job)


def data(launch: LaunchRequest, limit: int = USER_DATA_LIMIT) -> bytes:
    return fitting.user_data(spec(launch), launch, limit)


def has_agent(packed: bytes, tmp_path: Path) -> bool:
    return f"{bootstrap.HOME[1:]}/agent/run.py" in written(packed, tmp_path)


# --- the ways


@pytest.mark.parametrize("repo", ["https://github.com/octo/train", "https://gitlab.com/octo/train"])
def test_a_plain_launch_needs_nothing_but_its_user_data(repo: str, tmp_path: Path) -> None:
    assert has_agent(data(request(repo=repo, release=None)), tmp_path / "plain")
    assert has_agent(data(request(repo=repo)), tmp_path / "release")


def test_all_that_users_may_ask_for_fits_in_one_launch(tmp_path: Path) -> None:
    launch = request(**large.EVERYTHING)
    registered = spec(launch)
    packed = fitting.user_data(registered, launch, USER_DATA_LIMIT)
    assert len(packed) <= USER_DATA_LIMIT
    files = written(packed, tmp_path / "root")
    home = bootstrap.HOME[1:]
    assert json.loads(files[f"{home}/stage.json"][1]) == {
        "url": f"{RELEASE}/{bundle().name}",
        "sha256": bundle().sha256,
    }
    assert AgentSpec.from_json(files[f"{home}/spec.json"][1]) == registered
    assert files[f"{home}/startup.sh"][1] == large.SCRIPT
    content = config(packed)
    assert content["ca_certs"]["trusted"] == [large.CERTIFICATES.strip()]
    assert content["ssh_authorized_keys"] == [launch.cloud.ssh_public_key if launch.cloud else ""]


PARTS = {name: text for name, text in large.EVERYTHING.items() if name not in ("repo", "single")}


@pytest.mark.parametrize("left_out", [(), *itertools.combinations(PARTS, 1)], ids="-".join)
@pytest.mark.parametrize("single", [True, False])
def test_whatever_is_left_out_of_it_fits_too(left_out: tuple[str, ...], single: bool) -> None:
    given = {name: text for name, text in large.EVERYTHING.items() if name not in left_out}
    assert len(data(request(**{**given, "single": str(single).lower()}))) <= USER_DATA_LIMIT


def test_machines_that_delete_themselves_always_have_their_agent() -> None:
    from tests.test_bootstrap import DELETION

    launch = request(cloud="gcp", cloud_startup_script="#!/bin/sh\n# " + large.word(30000, "long"))
    with pytest.raises(
        InputError, match=r"shorten cloud-startup-script, or let a script download what it needs$"
    ):
        fitting.user_data(spec(launch), launch, USER_DATA_LIMIT, DELETION)


# --- what does not fit


GIVEN = {
    "cloud-startup-script": {
        "cloud_startup_script": "#!/bin/sh\n# " + large.word(24000, "startup")
    },
    "checkpoint-script": {
        "checkpoint_script": (
            base64.b64encode(("# " + large.word(24000, "checkpoint")).encode()).decode()
        )
    },
    "ca-certificates": {
        "ca_certificates": "".join(large.block(1500, str(number)) for number in range(16))
    },
    "docker-volumes": {
        "docker_volumes": ",".join(
            f"/{large.word(200, str(number))}:/data{number}" for number in range(120)
        ),
        "repo": "https://gitlab.com/o/t",
    },
}


@pytest.mark.parametrize("release", [RELEASE, None])
@pytest.mark.parametrize(
    "names", [*itertools.combinations(GIVEN, 1), *itertools.combinations(GIVEN, 2)], ids="-".join
)
def test_what_is_too_large_is_named_with_its_bytes_and_nothing_else_is(
    names: tuple[str, ...], release: str | None
) -> None:
    flags = {key: text for name in names for key, text in GIVEN[name].items()}
    with pytest.raises(InputError) as caught:
        data(request(release=release, **flags))
    (text,) = caught.value.problems
    assert {name for name in [*GIVEN, "cloud-ssh-private", "single"] if name in text} == set(names)
    sizes = {name: int(size) for name, size in re.findall(r"([a-z-]+) (\d+)(?:;|\.)", text)}
    assert all(sizes[name] > 1000 for name in names)
    whole, over = map(int, re.findall(r"would have (\d+) bytes, (\d+) more than allowed", text)[0])
    assert whole - over == USER_DATA_LIMIT
    assert ("agent-downloads" in text) == (release is None)
    assert sum(sizes.values()) == pytest.approx(whole, abs=200 * len(names))


def test_nobody_is_told_to_shorten_what_was_not_given() -> None:
    launch = request("single", release=None)
    with pytest.raises(InputError) as caught:
        fitting.user_data(spec(launch), launch, 14000)
    (text,) = caught.value.problems
    assert not [
        name
        for name in inputs.schema()["properties"]
        if f"{name} " in text.replace("`agent-downloads`", "") and name not in ("single", "labels")
    ]
    assert "the just-in-time configuration of `single`" in text
    assert "use a release of cml-runner, or `agent-downloads`" in text


# --- foreseen


def foreseen(launch: LaunchRequest, limit: int = USER_DATA_LIMIT) -> fitting.Foreseen:
    return fitting.foreseen(launch, limit, "x64", None)


def test_what_is_foreseen_comes_true() -> None:
    """For launches of all sizes: with what is foreseen, the real user data fits."""
    for length in range(0, 12000, 1000):
        noise = random.Random(length).randbytes(length).hex()
        for single, release in itertools.product(("true", "false"), (RELEASE, None)):
            launch = request(
                single=single, release=release, cloud_startup_script=f"#!/bin/sh\n# {noise}"
            )
            try:
                forecast = foreseen(launch)
            except InputError:
                continue
            registered = spec(launch)
            if not forecast.jit:
                registered = replace(
                    registered, jit_config=None, registration_token=large.word(29, "token")
                )
            assert len(fitting.user_data(registered, launch, USER_DATA_LIMIT)) <= USER_DATA_LIMIT


def test_without_a_release_and_room_for_the_configuration_a_single_one_has_a_token() -> None:
    size = len(
        bootstrap.cloud_config(
            fitting.usual_spec(request("single", release=None), "x64"),
            request("single", release=None),
        )
    )
    roomy, tight = size + fitting.JIT + fitting.SPARE, size + fitting.SPARE
    assert foreseen(request("single", release=None), roomy) == fitting.Foreseen(
        jit=True, stage=None
    )
    assert foreseen(request("single", release=None), tight) == fitting.Foreseen(
        jit=False, stage=None
    )
    assert foreseen(request("single"), tight) == fitting.Foreseen(
        jit=True, stage=f"{RELEASE}/{bundle().name}"
    )
    with pytest.raises(InputError):
        foreseen(request("single", release=None), tight - 1)


def test_the_room_for_a_configuration_is_enough_and_not_much_more() -> None:
    launch = request("single")
    registered = spec(launch)
    token = replace(registered, jit_config=None, registration_token=large.word(29, "token"))
    takes = len(bootstrap.cloud_config(registered, launch)) - len(
        bootstrap.cloud_config(token, launch)
    )
    assert fitting.JIT - 300 < takes <= fitting.JIT


def test_the_file_of_a_release_is_the_same_whatever_made_it() -> None:
    files = json.loads(bundle().content)
    assert {"run.py", "github.py", "gitlab.py", "aws.py", "jit.py"} <= set(files)
    assert bundle().content == json.dumps(dict(sorted(files.items()))).encode()
    assert re.fullmatch(r"cml-runner-agent-[0-9a-f]{16}\.json", bundle().name)
    assert (
        bundle().url("https://mirror.example/agent/")
        == f"https://mirror.example/agent/{bundle().name}"
    )


def test_cloud_init_gets_the_same_frame_in_both_ways(tmp_path: Path) -> None:
    launch = request()
    whole, staged = (
        bootstrap.cloud_config(spec(launch), launch, None, stage) for stage in (None, RELEASE)
    )
    units = [
        {path: text for path, text in written(way, tmp_path / str(n)).items() if "systemd" in path}
        for n, way in enumerate((whole, staged))
    ]
    assert units[0] == units[1]
    assert gzip.decompress(staged).startswith(b"#cloud-config\n")
    assert len(staged) < 4096
