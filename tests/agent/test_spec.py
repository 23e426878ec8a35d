"""AgentSpec: what the launcher writes is what the agent reads."""

from __future__ import annotations

import dataclasses
import json

import pytest

from runner_action.agent.spec import AgentSpec

SPEC = AgentSpec(
    name="cml-abc",
    forge="github",
    repository_url="https://github.com/octo/train",
    api_url="https://api.github.com",
    labels=("cml", "größe xl"),
    idle_timeout=None,
    first_job_timeout=300,
    max_lifetime=86400,
    start_timeout=600,
    single=True,
    runner_url="https://example.com/runner.tar.gz",
    runner_sha256="0" * 64,
    jit_config="canary-jit",
    api_token="canary-api",
)


def test_there_and_back() -> None:
    assert AgentSpec.from_json(SPEC.to_json()) == SPEC
    timed = dataclasses.replace(SPEC, idle_timeout=300, jit_config=None)
    assert AgentSpec.from_json(timed.to_json()) == timed


def test_another_version_is_refused() -> None:
    with pytest.raises(TypeError, match="surprise"):
        AgentSpec.from_json(json.dumps({**json.loads(SPEC.to_json()), "surprise": 1}))


def test_every_secret_is_known_as_one() -> None:
    assert sorted(SPEC.secrets()) == ["canary-api", "canary-jit"]
    fields = {field.name for field in dataclasses.fields(AgentSpec)}
    holders = {name for name in fields if "token" in name or "jit" in name}
    assert (
        dataclasses.replace(
            SPEC, environment={"HTTPS_PROXY": "http://me:canary-proxy@proxy:3128"}
        ).secrets()[-1]
        == "me:canary-proxy"
    )
    everything = dataclasses.replace(SPEC, **{name: f"canary-{name}" for name in holders})  # type: ignore[arg-type]
    assert len(everything.secrets()) == len(holders)
