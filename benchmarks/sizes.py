"""How large the user data of a launch on AWS is, which takes 16,384 bytes, and which way its
agent goes.

    make benchmark        or: python -m benchmarks.sizes

Tokens, keys, certificates and GitHub's just-in-time configuration are of real size and as random
(`tests/large.py`).
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

RELEASE = "https://github.com/org/cml-runner/releases/download/v1.2.3"
PLACES = {
    "GitHub": "https://github.com/octo-industries/train-large-models",
    "GitLab": "https://gitlab.com/octo-industries/train-large-models",
}
GIVEN = {
    "plain": {},
    "`--single`": {"single": "true"},
    "`--restart-token`": {"restart_token": large.TOKEN},
    "a root certificate (RSA-4096)": {"ca_certificates": large.certificate("Root")},
    "a root and an issuing certificate": {"ca_certificates": large.CERTIFICATES},
    "a startup script of 2 KiB": {"cloud_startup_script": large.script(2048)},
    "a startup script of 8 KiB": {"cloud_startup_script": large.SCRIPT},
    "`--single` and both certificates": {"single": "true", "ca_certificates": large.CERTIFICATES},
    "all of it": {name: text for name, text in large.EVERYTHING.items() if name != "repo"},
}
"""What is asked for besides cloud, repository and token."""


def request(release: str, **values: str) -> LaunchRequest:
    flags = {"cloud": ["aws"], "token": [large.TOKEN]} | {
        name.replace("_", "-"): [text] for name, text in values.items()
    }
    return inputs.parse(
        inputs.Raw(flags=flags, environ={"CML_RUNNER_RELEASE": release}), lambda _: None
    )[0]


def spec_of(asked: LaunchRequest, with_jit: bool) -> AgentSpec:
    name = asked.name or "cml-0123456789"
    if asked.forge == "gitlab":
        joining = Registration(
            runner_token=Secret(f"glrt-{large.word(40, 'runner')}"), runner_id=12345678
        )
    elif with_jit:
        whole = github_jit.encoded(12345678, name, large.PIPELINES, asked.repository.url, "_work")[
            0
        ]
        joining = Registration(jit_config=Secret(whole), runner_id=12345678)
    else:
        joining = Registration(token=Secret(large.word(29, "token")))
    releases = "https://github.com/actions/runner/releases/download/v2.336.0"
    download = Download(
        url=f"{releases}/actions-runner-linux-x64-2.336.0.tar.gz",
        sha256="07" * 32,
        version="2.336.0",
    )
    job = LaunchJob(run_id=19376284899, id=55448733021, name="launch")
    return bootstrap.spec_of(asked, name, joining, download, "https://api.github.com", job)


def told(release: str, repo: str, values: dict[str, str]) -> str:
    """Bytes, and what is peculiar about that launch."""
    asked = request(release, repo=repo, **values)
    try:
        way = fitting.foreseen(asked, USER_DATA_LIMIT, "x64", None)
    except InputError:
        return "refused"
    spec = spec_of(asked, way.jit)
    packed = fitting.user_data(spec, asked, USER_DATA_LIMIT)
    fetched = len(bootstrap.cloud_config(spec, asked)) > USER_DATA_LIMIT
    notes = [
        *(["fetched"] if fetched else []),
        *(["by token"] if asked.single and asked.forge == "github" and not way.jit else []),
    ]
    return f"{len(packed):6d} {', '.join(notes)}"


def main() -> None:
    print(
        f"bytes of user data on AWS, which takes {USER_DATA_LIMIT}; fetched: the machine fetches"
        " its agent;"
    )
    print(
        "by token: a single runner registers by token, as its just-in-time configuration has no"
        " room"
    )
    columns = [(place, release) for release in (RELEASE, "") for place in PLACES]
    print(
        f"{'':36}"
        + "".join(
            f"{place + (', release' if release else ', @main'):24}" for place, release in columns
        )
    )
    for name, values in GIVEN.items():
        print(
            f"{name:36}"
            + "".join(f"{told(release, PLACES[place], values):24}" for place, release in columns)
        )
    print("\nits largest parts, as they come and as they are sent (bytes after bzip2):")
    whole = github_jit.encoded(
        12345678, "cml-0123456789", large.PIPELINES, PLACES["GitHub"], "_work"
    )[0]
    parts = bootstrap.with_jit(
        AgentSpec.from_json(spec_of(request("", repo=PLACES["GitHub"]), False).to_json()),
        jit.packed(whole) or {},
    )
    plain = spec_of(request("", repo=PLACES["GitHub"]), False).to_json()
    print(
        f"  just-in-time configuration  {size(whole):6d} → {size(parts) - size(plain):5d} (and the"
        " module that puts it together)"
    )
    pem = large.certificate("Root")
    der = base64.b64decode("".join(pem.splitlines()[1:-1]))
    print(f"  a certificate, PEM or DER   {size(pem):6d}   {len(bz2.compress(der)):5d}")
    agent = "\0".join(
        bootstrap.agent_files(
            spec_of(request("", repo=PLACES["GitHub"]), False), deletes=False
        ).values()
    )
    print(
        f"  the agent for GitHub        {size(agent):6d}  "
        f" {len(lzma.compress(agent.encode(), preset=9)):5d} by LZMA"
    )


def size(text: str) -> int:
    return len(bz2.compress(text.encode(), 9))


if __name__ == "__main__":
    main()
