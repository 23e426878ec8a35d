"""Size of a launch's user data on AWS, which accepts 16,384 bytes, and how the agent gets to the
machine.

    make benchmark        or: python -m benchmarks.sizes

Tokens, keys, certificates and GitHub's just-in-time configuration are as long and as random as real
ones (`tests/large.py`).
"""

from __future__ import annotations

import base64
import bz2
import lzma

from runner_action import bootstrap, inputs
from runner_action.agent.spec import AgentSpec
from runner_action.bootstrap import fitting, jit
from runner_action.errors import InputError
from runner_action.model import Download, LaunchJob, Registration, Secret
from runner_action.providers.aws.plan import USER_DATA_LIMIT
from runner_action.request import LaunchRequest
from runner_action.sandbox.forges.github import jit as github_jit
from tests import large

NAME = "cml-0123456789"
RELEASE = "https://github.com/org/cml-runner/releases/download/v1.2.3"
PLACES = {
    "GitHub": "https://github.com/octo-industries/train-large-models",
    "GitLab": "https://gitlab.com/octo-industries/train-large-models",
}
INPUTS = {
    "plain": {},
    "`--single`": {"single": "true"},
    "`--restart-token`": {"restart_token": large.TOKEN},
    "a root certificate (RSA-4096)": {"ca_certificates": large.certificate("Root")},
    "a root and an issuing certificate": {"ca_certificates": large.CERTIFICATES},
    "a startup script of 2 KiB": {"cloud_startup_script": large.script(2048)},
    "a startup script of 8 KiB": {"cloud_startup_script": large.SCRIPT},
    "`--single` and both certificates": {"single": "true", "ca_certificates": large.CERTIFICATES},
    "all of these": {name: text for name, text in large.EVERYTHING.items() if name != "repo"},
}
"""Inputs besides cloud, repository and token."""


def request(release: str, **values: str) -> LaunchRequest:
    flags = {"cloud": ["aws"], "token": [large.TOKEN]} | {
        name.replace("_", "-"): [text] for name, text in values.items()
    }
    raw = inputs.Raw(flags=flags, environ={"CML_RUNNER_RELEASE": release})
    return inputs.parse(raw, lambda _: None)[0]


def registration_of(launch: LaunchRequest, name: str, with_jit: bool) -> Registration:
    if launch.forge == "gitlab":
        token = Secret(f"glrt-{large.word(40, 'runner')}")
        return Registration(runner_token=token, runner_id=12345678)
    if not with_jit:
        return Registration(token=Secret(large.word(29, "token")))
    config = jit_config(name, launch.repository.url)
    return Registration(jit_config=Secret(config), runner_id=12345678)


def jit_config(name: str, repository_url: str) -> str:
    return github_jit.encoded(12345678, name, large.PIPELINES, repository_url, "_work")[0]


def spec_of(launch: LaunchRequest, with_jit: bool) -> AgentSpec:
    name = launch.name or NAME
    releases = "https://github.com/actions/runner/releases/download/v2.336.0"
    download = Download(
        url=f"{releases}/actions-runner-linux-x64-2.336.0.tar.gz",
        sha256="07" * 32,
        version="2.336.0",
    )
    job = LaunchJob(run_id=19376284899, id=55448733021, name="launch")
    registration = registration_of(launch, name, with_jit)
    return bootstrap.spec_of(launch, name, registration, download, "https://api.github.com", job)


def size_of(release: str, repo: str, values: dict[str, str]) -> str:
    """Bytes, and how this launch differs."""
    launch = request(release, repo=repo, **values)
    try:
        way = fitting.foreseen(launch, USER_DATA_LIMIT, "x64", None)
    except InputError:
        return "refused"
    spec = spec_of(launch, way.jit)
    packed = fitting.user_data(spec, launch, USER_DATA_LIMIT)
    notes = []
    if len(bootstrap.cloud_config(spec, launch)) > USER_DATA_LIMIT:
        notes.append("fetched")
    if launch.single and launch.forge == "github" and not way.jit:
        notes.append("by token")
    return f"{len(packed):6d} {', '.join(notes)}"


def main() -> None:
    print(
        f"bytes of user data on AWS, which accepts {USER_DATA_LIMIT}; fetched: the machine"
        " downloads its agent;"
    )
    print(
        "by token: a runner for a single job registers with a token, because its just-in-time"
        " configuration does not fit"
    )
    columns = [(place, release) for release in (RELEASE, "") for place in PLACES]
    titles = (place + (", release" if release else ", @main") for place, release in columns)
    print(f"{'':36}" + "".join(f"{title:24}" for title in titles))
    for name, values in INPUTS.items():
        sizes = (size_of(release, PLACES[place], values) for place, release in columns)
        print(f"{name:36}" + "".join(f"{text:24}" for text in sizes))
    print("\nits largest parts, before and after compression (bytes after bzip2):")
    largest_parts()


def largest_parts() -> None:
    config = jit_config(NAME, PLACES["GitHub"])
    spec = spec_of(request("", repo=PLACES["GitHub"]), with_jit=False)
    plain = spec.to_json()
    with_config = bootstrap.with_jit(AgentSpec.from_json(plain), jit.packed(config) or {})
    print(
        f"  just-in-time configuration  {size(config):6d} → {size(with_config) - size(plain):5d}"
        " (and the module that puts it together)"
    )
    pem = large.certificate("Root")
    der = base64.b64decode("".join(pem.splitlines()[1:-1]))
    print(f"  a certificate, PEM or DER   {size(pem):6d}   {len(bz2.compress(der)):5d}")
    agent = "\0".join(bootstrap.agent_files(spec).values())
    print(
        f"  the agent for GitHub        {size(agent):6d}  "
        f" {len(lzma.compress(agent.encode(), preset=9)):5d} by LZMA"
    )


def size(text: str) -> int:
    return len(bz2.compress(text.encode(), 9))


if __name__ == "__main__":
    main()
