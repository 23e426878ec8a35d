"""GitHub's just-in-time configuration on its way through the user data: small, and the same to
the last byte."""

from __future__ import annotations

import base64
import bz2
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from runner_action.agent.jit import whole
from runner_action.agent.spec import AgentSpec
from runner_action.bootstrap import jit, with_jit
from runner_action.sandbox.forges.github import jit as github_jit
from tests.test_bootstrap import SPEC

REAL = github_jit.encoded(
    123456,
    "cml-0123456789",
    "https://pipelinesghubeus7.actions.githubusercontent.com",
    "https://github.com/octo/train",
    "_work",
)[0]


def b64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def key_file(bits: int, *, lcm: bool = True) -> dict[str, str]:
    """As .NET writes a key; older libraries take the private exponent modulo the whole totient."""
    key = rsa.generate_private_key(65537, bits).private_numbers()
    d = key.d if lcm else pow(65537, -1, (key.p - 1) * (key.q - 1))
    numbers = {"d": d, "dp": key.dmp1, "dq": key.dmq1, "exponent": 65537, "inverseQ": key.iqmp}
    numbers |= {"modulus": key.public_numbers.n, "p": key.p, "q": key.q}
    sizes = {"d": bits // 8, "modulus": bits // 8, "exponent": 3}
    return {
        name: b64(number.to_bytes(sizes.get(name, bits // 16), "big"))
        for name, number in numbers.items()
    }


def encoded(files: dict[str, str], gap: str = "") -> str:
    inside = {name: b64(text.encode()) for name, text in files.items()}
    return b64(json.dumps(inside, separators=("," + gap, ":" + gap)).encode())


def compact(content: Any) -> str:
    return json.dumps(content, separators=(",", ":"))


def test_ours_is_of_the_real_size_and_as_random() -> None:
    """terraform-aws-github-runner#4613; a fake of 250 bytes hid that nothing of it fits."""
    assert 4100 <= len(REAL) <= 4300
    assert len(bz2.compress(REAL.encode())) > 2800


def test_of_a_key_only_the_primes_travel() -> None:
    parts = jit.packed(REAL)
    assert parts is not None
    assert whole(parts) == REAL
    assert len(bz2.compress(compact(parts).encode())) < 1000
    key = json.loads(base64.b64decode(json.loads(base64.b64decode(REAL))[".credentials_rsaparams"]))
    sent = compact(parts)
    assert [name for name, text in key.items() if text in sent and len(text) > 4] == ["p", "q"]


RUNNER = {".runner": '{"AgentId":"7"}', ".credentials": '{"Scheme":"OAuth"}'}
KINDS = {
    "a key of 2048 bits": encoded({**RUNNER, ".credentials_rsaparams": compact(key_file(2048))}),
    "a key of 3072 bits": encoded({**RUNNER, ".credentials_rsaparams": compact(key_file(3072))}),
    "an exponent modulo the whole totient": encoded(
        {**RUNNER, ".credentials_rsaparams": compact(key_file(2048, lcm=False))}
    ),
    "the key first": encoded({".credentials_rsaparams": compact(key_file(2048)), **RUNNER}),
    "two keys": encoded({"a": compact(key_file(1024)), "b": compact(key_file(1024))}),
    "no key": encoded(RUNNER),
    "a byte order mark": encoded({**RUNNER, ".runner": '\ufeff{"AgentId":"7"}'}),
    "letters of other alphabets": encoded({**RUNNER, ".runner": '{"AgentName":"größe"}'}),
}
UNKNOWN = {
    "spaces": encoded(RUNNER, " "),
    "no Base64": "canary-jit",
    "Base64 of no JSON": b64(b"not json"),
    "Base64 of a list": b64(b"[1,2]"),
    "Base64 of numbers": b64(b'{"a":1}'),
    "files that are no text": b64(compact({".runner": b64(b"\xff\xfe")}).encode()),
    "nothing": "",
}
AS_THEY_ARE = {
    "a key with another order of names": compact(dict(reversed(key_file(2048).items()))),
    "a key with another name": compact({**key_file(2048), "kid": "1"}),
    "a key whose numbers do not belong together": compact(
        {**key_file(2048), "dp": key_file(2048)["dp"]}
    ),
    "a key without a prime": compact({**key_file(2048), "p": ""}),
    "a key of numbers": compact(dict.fromkeys(jit.NUMBERS, 1)),
    "a key with even primes": compact(
        {**key_file(2048), "p": b64(bytes(127) + b"\x02"), "q": b64(bytes(127) + b"\x04")}
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_recognized_comes_out_as_it_went_in(kind: str) -> None:
    parts = jit.packed(KINDS[kind])
    assert parts is not None
    assert whole(json.loads(compact(parts))) == KINDS[kind]


@pytest.mark.parametrize("kind", AS_THEY_ARE)
def test_a_key_that_is_not_recognized_travels_whole(kind: str) -> None:
    given = encoded({**RUNNER, ".credentials_rsaparams": AS_THEY_ARE[kind]})
    parts = jit.packed(given)
    assert parts is not None
    assert "key" not in parts
    assert whole(parts) == given


@pytest.mark.parametrize("kind", UNKNOWN)
def test_what_is_not_recognized_at_all_travels_as_it_is(kind: str) -> None:
    assert jit.packed(UNKNOWN[kind]) is None


def test_the_agent_reads_the_whole_configuration_from_its_spec() -> None:
    spec = AgentSpec(**{**vars(SPEC), "registration_token": None, "jit_config": REAL})
    parts = jit.packed(REAL)
    assert parts
    assert AgentSpec.from_json(with_jit(spec, parts)) == spec
    assert REAL in AgentSpec.from_json(with_jit(spec, parts)).secrets()
