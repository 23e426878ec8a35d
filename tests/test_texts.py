"""Texts from Windows, from web pages and from people, generated for every input of their type."""

from __future__ import annotations

import base64
import importlib
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from runner_action import files, inputs
from runner_action.errors import InputError
from runner_action.files import ReadFile
from runner_action.inputs.addresses import origin_of
from runner_action.inputs.conversion import convert

PROPERTIES = inputs.schema()["properties"]
BASE = {"repo": ["octo/train"], "token": ["canary"]}
ON = {"cloud-startup-script": "cloud.startup_script", "checkpoint-script": "checkpoint_script"}
SCRIPTS = [name for name, prop in PROPERTIES.items() if prop.get("format") == "script"]
DURATIONS = [name for name, prop in PROPERTIES.items() if prop.get("format") == "duration"]
LISTS = [name for name, prop in PROPERTIES.items() if prop["type"] == "array"]
TYPED = [
    name
    for name, prop in PROPERTIES.items()
    if not {"x-free", "x-lines", "writeOnly"} & prop.keys() and prop["type"] != "array"
]
Way = Callable[[bytes, Path], str]


def no_file(_: str) -> None:
    return None


def parsed(
    flags: dict[str, str], environ: dict[str, str] | None = None, read: ReadFile = no_file
) -> tuple[object, list[str]]:
    given = {**BASE, **{name: [text] for name, text in flags.items()}}
    return inputs.parse(inputs.Raw(flags=given, environ=environ or {}), read)


def read(name: str) -> str | None:
    return files.text_of(name, [])


# --- one value


@pytest.mark.parametrize(
    "dressed",
    [
        *("\u201c{}\u201d", "\u2018{}\u2019", "\u201e{}\u201c", '"{}"', "'{}'", "`{}`"),
        *("\u00a0{}", "{}\u00a0", "\u200b{}\ufeff", " {} ", "{}\r"),
    ],
)
def test_a_value_in_quotes_and_spaces_of_a_web_page(dressed: str) -> None:
    for prop in map(PROPERTIES.__getitem__, TYPED):
        for text in ("true", "5", "some-word"):
            assert convert([dressed.format(text)], prop, no_file) == convert([text], prop, no_file)


@pytest.mark.parametrize("dash", "\u2010\u2011\u2012\u2013\u2014\u2212")
def test_a_dash_for_a_hyphen(dash: str) -> None:
    for prop in map(PROPERTIES.__getitem__, TYPED):
        for text in ("us-west", "-1"):
            plain = convert([text], prop, no_file)
            assert convert([text.replace("-", dash)], prop, no_file) == plain


@pytest.mark.parametrize("letter", ["\x7f", "\x85", "\x9b", "\x07"])
@pytest.mark.parametrize(
    "name",
    [name for name in PROPERTIES if not {"x-lines", "writeOnly"} & PROPERTIES[name].keys()],
)
def test_no_control_character_reaches_a_machine(name: str, letter: str) -> None:
    """DEL is one, too: no TOML may have it, and so no configuration of gitlab-runner.
    https://toml.io/en/v1.0.0#string"""
    with pytest.raises(InputError) as refused:
        parsed({name: f"a{letter}b"})
    assert name in str(refused.value)
    assert letter not in str(refused.value)


@pytest.mark.parametrize("name", [name for name in TYPED if "enum" in PROPERTIES[name]])
def test_a_word_to_choose_in_capitals(name: str) -> None:
    for word in PROPERTIES[name]["enum"]:
        text = str(word).lower()
        for written in (text.upper(), text.title()):
            assert convert([written], PROPERTIES[name], no_file) == word


@pytest.mark.parametrize("name", DURATIONS)
@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        *(("30 min", 1800), ("30\u00a0min", 1800), ("30 minutes", 1800), ("1 h 30 min", 5400)),
        *(("1d, 3h", 97200), ("300 s", 300), ("\u22121", -1), ("Never", -1), ("'5m'", 300)),
    ],
)
def test_a_duration_as_people_write_it(name: str, text: str, seconds: int) -> None:
    assert convert([text], PROPERTIES[name], no_file) == seconds


@pytest.mark.parametrize("text", ["40", "40GB", "40 GB", "40 GiB", "40 g", "\u201c40\u201d"])
def test_a_disk_with_its_unit(text: str) -> None:
    assert convert([text], PROPERTIES["cloud-hdd-size"], no_file) == 40


@pytest.mark.parametrize("text", ["0.05", "$0.05", "0,05", "0.05 USD", "0.05$", ".05"])
def test_a_price_with_its_currency(text: str) -> None:
    assert convert([text], PROPERTIES["cloud-spot-price"], no_file) == 0.05


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "1,000,5", "0.05 EUR"])
def test_what_is_no_price(text: str) -> None:
    with pytest.raises(InputError, match="must be a price in USD"):
        parsed({"cloud": "aws", "cloud-spot": "true", "cloud-spot-price": text})


# --- lists


@pytest.mark.parametrize(
    "text",
    [
        *("a=1,b=2", "a=1, b=2", "a=1\nb=2", "a=1\r\nb=2", "a=1,b=2,a=1"),
        *("[a=1, b=2]", "['a=1', 'b=2']", '["a=1", "b=2"]', '["a=1",\n "b=2"]', "[a=1,\nb=2\n]"),
        *("- a=1\n- b=2", "  - 'a=1'\n  - \"b=2\"\n", '"a=1","b=2"', '"a=1,b=2"'),
        *("\u201ca=1\u201d, \u201cb=2\u201d", "\u201ca=1, b=2\u201d", "\u00a0a=1,\u00a0b=2"),
    ],
)
def test_a_list_as_people_write_it(text: str) -> None:
    for name in LISTS:
        assert convert([text], PROPERTIES[name], no_file) == ["a=1", "b=2"], name


@pytest.mark.parametrize("name", LISTS)
def test_a_list_of_one_or_none(name: str) -> None:
    prop = PROPERTIES[name]
    assert convert(["[a=1]"], prop, no_file) == convert(["- a=1"], prop, no_file) == ["a=1"]
    assert convert(["[]"], prop, no_file) == convert(["[ ]"], prop, no_file) == []


def test_a_list_of_numbers_in_json() -> None:
    assert convert(["[1, 2.5]"], PROPERTIES["labels"], no_file) == ["1", "2.5"]


@pytest.mark.parametrize(
    "text", ["[gpu", "gpu]", "[[gpu]", '[{"gpu": 1}]', "\u201cgpu", "gpu\u201d,a"]
)
def test_a_label_with_half_a_bracket_or_quote_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="must be 1 to 95 labels"):
        parsed({"labels": text})


def test_labels_keep_their_own_dashes() -> None:
    assert convert(["gr\u00f6\u00dfe\u2013xl"], PROPERTIES["labels"], no_file) == [
        "gr\u00f6\u00dfe\u2013xl"
    ]


# --- scripts


def as_text(data: bytes, _: Path) -> str:
    return data.decode()


def as_base64(data: bytes, _: Path) -> str:
    return base64.b64encode(data).decode()


def as_wrapped_base64(data: bytes, _: Path) -> str:
    return base64.encodebytes(data).decode().replace("\n", "\r\n")


def as_path(data: bytes, folder: Path) -> str:
    (folder / "setup.sh").write_bytes(data)
    return str(folder / "setup.sh")


WAYS = (as_text, as_base64, as_wrapped_base64, as_path)
ENCODED = (as_base64, as_wrapped_base64, as_path)
UNIX = "#!/bin/bash\necho 'größe'\n\techo b\n"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r\r\n"])
def test_a_script_gets_unixs_line_ends(name: str, way: Way, end: str, tmp_path: Path) -> None:
    if way is as_path and end == "\r\r\n":
        return  # reading a file makes these two line ends
    text = way(UNIX.replace("\n", end).encode(), tmp_path)
    request, _ = parsed({"cloud": "aws", name: text}, read=read)
    value: object = request
    for part in ON[name].split("."):
        value = getattr(value, part)
    assert str(value).strip() == UNIX.strip()


@pytest.mark.parametrize("way", ENCODED)
def test_a_scripts_byte_order_mark(way: Way, tmp_path: Path) -> None:
    text = way(UNIX.encode("utf-8-sig"), tmp_path)
    request, _ = parsed({"cloud": "aws", "cloud-startup-script": text}, read=read)
    assert request.cloud.startup_script == UNIX  # type: ignore[attr-defined]


BAD = {
    "utf-16-le": UNIX.encode("utf-16-le"),
    "utf-16-be": UNIX.encode("utf-16-be"),
    "utf-16 with a mark": UNIX.encode("utf-16"),
    "utf-16-be with a mark": b"\xfe\xff" + UNIX.encode("utf-16-be"),
    "NUL": UNIX.encode() + b"\0",
    "escape": UNIX.encode() + b"\x1b[2J",
    "a lone carriage return": b"#!/bin/sh\rexit\n",
    "C1": UNIX.encode() + "\x9b".encode(),
}
REASONS = {
    "NUL": "has a NUL byte (line 4); is it a program?",
    "escape": "has the control character U+001B (line 4); remove it",
    "a lone carriage return": "has the control character U+000D (line 1)",
    "C1": "has the control character U+009B (line 4)",
}
UTF16 = "is encoded as UTF-16, as PowerShell and editors on Windows write it"


@pytest.mark.parametrize("way", ENCODED)
@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_that_no_shell_can_run_is_refused(
    name: str, kind: str, way: Way, tmp_path: Path
) -> None:
    if kind == "a lone carriage return" and way is as_path:
        return  # reading a file makes it a line end
    problem = _problem(name, way(BAD[kind], tmp_path))
    assert problem.startswith(f"--{name} {REASONS.get(kind, UTF16)}")


def _problem(name: str, text: str) -> str:
    with pytest.raises(InputError) as caught:
        parsed({"cloud": "aws", name: text}, read=read)
    (problem,) = caught.value.problems
    return problem


OF_LINES = [name for name, prop in PROPERTIES.items() if prop.get("x-lines")]
TEXTS = {"ca-certificates": "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"}


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("name", OF_LINES)
def test_every_file_in_utf_16_is_told_from_one_that_is_missing(
    name: str, encoding: str, tmp_path: Path
) -> None:
    path = as_path(TEXTS.get(name, "spec: {}\n").encode(encoding), tmp_path)
    cloud = "kubernetes" if "kubernetes" in name else "aws"
    with pytest.raises(InputError) as caught:
        parsed({"cloud": cloud, name: path}, read=read)
    assert caught.value.problems[0].startswith(f"--{name}")
    assert UTF16 in caught.value.problems[0]


@pytest.mark.parametrize("name", [name for name in OF_LINES if name not in SCRIPTS])
def test_every_text_gets_unixs_line_ends(name: str, tmp_path: Path) -> None:
    text = TEXTS.get(name, "spec: {}\n")
    for written in (text.replace("\n", "\r\n"), as_path(text.encode("utf-8-sig"), tmp_path)):
        assert convert([written], PROPERTIES[name], read).strip() == text.strip()


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_in_another_encoding(name: str, tmp_path: Path) -> None:
    text = as_path("echo 'größe'\n".encode("latin-1"), tmp_path)
    assert _problem(name, text).startswith(f"--{name} is not text in UTF-8 (line 1)")


@pytest.mark.parametrize("text", ["$(base64 -w 0 setup.sh)", "$SCRIPT", "${SCRIPT}", "`cat x`"])
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_that_no_shell_has_expanded(name: str, text: str) -> None:
    assert f"--{name} is a command or a variable that no shell has expanded" in _problem(name, text)


@pytest.mark.parametrize("name", SCRIPTS)
def test_an_empty_script_of_a_flag_warns(name: str) -> None:
    _, warnings = parsed({"cloud": "aws", name: ""})
    assert warnings == [f"--{name} is empty, so there is no script: did `$(base64 …)` fail?"]
    assert parsed({"cloud": "aws"}, {f"INPUT_{name.upper()}": ""})[1] == []


# --- addresses, regions


@pytest.mark.parametrize(
    "text",
    [
        *("octo/train", "octo/train/", "octo/train.git", "github.com/octo/train"),
        *("www.github.com/octo/train", "https://www.github.com/octo/train", "github:octo/train"),
        *("https://api.github.com/repos/octo/train", "api.github.com/repos/octo/train"),
        *(
            "git@github.com:octo/train.git",
            "git@github.com:/octo/train",
            "git://github.com/octo/train",
        ),
        *("ssh://git@github.com/octo/train.git", "git+ssh://git@github.com/octo/train.git"),
        *("ssh://git@ssh.github.com:443/octo/train.git", "org-7@github.com:octo/train.git"),
        *(
            "https://github.com/octo/train/tree/main",
            "https://github.com/octo/train/actions/runs/1",
        ),
        *("<https://github.com/octo/train>", "\u201chttps://github.com/octo/train\u201d"),
        *(
            "https://x-access-token:canary@github.com/octo/train",
            "https://github.com/octo/train#readme",
        ),
        *(
            "https://github.com/octo/train/settings/actions/runners",
            "HTTPS://GitHub.com/octo/train",
        ),
    ],
)
def test_a_repository_as_people_write_it(text: str) -> None:
    request, _ = parsed({"repo": text})
    assert request.repository.url == "https://github.com/octo/train"  # type: ignore[attr-defined]
    assert request.forge == "github"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "text",
    [
        *("https://gitlab.com/a/b/c/-/pipelines/7", "git@gitlab.com:a/b/c.git", "gitlab:a/b/c"),
        *("https://www.gitlab.com/a/b/c", "ssh://git@altssh.gitlab.com:443/a/b/c.git"),
        *("gitlab.com/a/b/c", "https://gitlab.com/a/b/c/-/"),
    ],
)
def test_a_project_of_gitlab_as_people_write_it(text: str) -> None:
    request, _ = parsed({"repo": text})
    assert request.repository.url == "https://gitlab.com/a/b/c"  # type: ignore[attr-defined]


@pytest.mark.parametrize("path", ["projects/5", "groups/7", "projects/a%2Fb", "projects/5/runners"])
def test_an_address_of_gitlabs_api_is_refused(path: str) -> None:
    """It names a project by a number, which jobs and machines do not know."""
    for server, driver in (("https://gitlab.com", ""), ("https://git.example", "gitlab")):
        with pytest.raises(InputError) as refusal:
            parsed({"repo": f"{server}/api/v4/{path}", **({"driver": driver} if driver else {})})
        assert str(refusal.value).count("\n") == 1
        assert (
            " is an address of GitLab's API: write that of the project's or group's page, such as"
            f" {server}/group/project"
        ) in str(refusal.value)


@pytest.mark.parametrize("path", ["a/repos/b", "repos/a/b", "a/b/wiki", "a/b/tree"])
def test_a_path_of_gitlab_that_looks_like_a_page(path: str) -> None:
    request, _ = parsed({"repo": f"https://gitlab.com/{path}"})
    assert request.repository.url == f"https://gitlab.com/{path}"  # type: ignore[attr-defined]


CONFIG = """[core]
\tbare = false
[remote "upstream"]
\turl = https://github.com/other/train
[remote "origin"]
\turl = {}
\tfetch = +refs/heads/*:refs/remotes/origin/*
[branch "main"]
\tremote = origin
"""


@pytest.mark.parametrize(
    "address",
    [
        "https://github.com/octo/train.git",
        "git@github.com:octo/train.git",
        "https://user:canary@github.com/octo/train",
    ],
)
def test_a_checkout_outside_of_ci_says_the_repository(address: str) -> None:
    config = {".git/config": CONFIG.format(address)}.get
    raw = inputs.Raw(flags={"token": ["canary"]}, environ={})
    request, _ = inputs.parse(raw, config)
    assert request.repository.url == "https://github.com/octo/train"
    in_ci = {"GITHUB_ACTIONS": "true"}
    with pytest.raises(InputError, match="repo is missing"):
        inputs.parse(inputs.Raw(flags=raw.flags, environ=in_ci), config)


@pytest.mark.parametrize("config", ["", "[core]\n", '[remote "other"]\n\turl = x\n', "[remote"])
def test_a_checkout_without_an_origin(config: str) -> None:
    assert origin_of(config) == ""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *(("West Europe", ["westeurope"]), ("EastUS", ["eastus"]), ("East US 2", ["eastus2"])),
        *(
            ("West Europe, East US 2", ["westeurope", "eastus2"]),
            ("westeurope-2", ["westeurope-2"]),
        ),
        *(("us-west eu-west", ["us-west", "eu-west"]), ("[West Europe]", ["westeurope"])),
        *(
            ("South Africa North", ["southafricanorth"]),
            ("westeurope eastus", ["westeurope", "eastus"]),
        ),
    ],
)
def test_a_region_of_azure_as_people_write_it(text: str, expected: list[str]) -> None:
    request, _ = parsed({"cloud": "azure", "cloud-region": text})
    assert list(request.cloud.regions) == expected  # type: ignore[attr-defined]


def test_a_region_elsewhere_has_no_spaces() -> None:
    request, _ = parsed({"cloud": "aws", "cloud-region": "us-west eu-west,US-East-1"})
    assert list(request.cloud.regions) == ["us-west", "eu-west", "us-east-1"]  # type: ignore[attr-defined]
    with pytest.raises(InputError, match="--cloud-region=West Europe must be"):
        parsed({"cloud": "aws", "cloud-region": "West Europe"})


def test_two_security_groups_are_answered() -> None:
    with pytest.raises(InputError, match="must be one security group: its ID"):
        parsed({"cloud": "aws", "cloud-aws-security-group": "sg-01234567,sg-76543210"})


# --- advice


OF_A_CLOUD = {
    "aws": r"ami-|arn:aws|ssm:|\bt3\.|\bp2\.|\bg4dn|\beu-central-1|us-east-1b|AWS|instance.profile",
    "gcp": r"ubuntu-os-cloud|gserviceaccount|\bn\d-standard|us-central1|Google",
    "azure": r"Standard_|Canonical:|swedencentral|user-assigned|Azure",
    "kubernetes": r"4-16384|registry\.example",
}
"""What only this cloud's users should read in advice."""
SHARED = {("kubernetes", "gcp"): "us-central1"}
"""Zones are the cloud's own in a cluster."""
TO_REFUSE = ("`", "/", "a b", "iterative-cml")
CLOUD_INPUTS = [
    name
    for name in PROPERTIES
    if name.startswith("cloud-") and not name.startswith(tuple(f"cloud-{c}-" for c in OF_A_CLOUD))
]


@pytest.mark.parametrize("cloud", OF_A_CLOUD)
@pytest.mark.parametrize("name", CLOUD_INPUTS)
def test_advice_is_about_the_cloud_at_hand(name: str, cloud: str) -> None:
    for text in TO_REFUSE:
        try:
            request, _ = parsed({"cloud": cloud, name: f"x{text}x"})
            plan = importlib.import_module(f"runner_action.providers.{cloud}.plan")
            plan.plan(request.cloud)  # type: ignore[attr-defined]
        except InputError as error:
            advice = " ".join(error.problems)
            for other, words in OF_A_CLOUD.items():
                foreign = set(re.findall(words, advice)) - {SHARED.get((cloud, other))}
                assert other == cloud or not foreign, advice


def test_without_a_cloud_advice_names_each() -> None:
    with pytest.raises(InputError) as caught:
        parsed({"cloud-type": "`"})
    assert (
        "such as `t3.medium` (aws), `Standard_D2s_v5` (azure), `n2-standard-4` (gcp), `4-16384`"
        " (kubernetes)" in caught.value.problems[0]
    )


@pytest.mark.parametrize(
    "name",
    ["nvidia-tesla-t4", "NVIDIA-TESLA-T4", "t4", "T4", "nvidia-tesla-t4:1", "nvidia-tesla-t4*1"],
)
@pytest.mark.parametrize("cloud", OF_A_CLOUD)
def test_the_longer_name_of_a_gpu_means_the_same_on_every_cloud(cloud: str, name: str) -> None:
    plan = importlib.import_module(f"runner_action.providers.{cloud}.plan").plan
    kinds = []
    for gpu in ("t4:1", name):
        flags = {"cloud": cloud, "cloud-gpu": gpu, "cloud-image": IMAGES[cloud]}
        request, _ = parsed(flags)
        kinds.append(plan(request.cloud).instance_types[0].removesuffix(":1"))  # type: ignore[attr-defined]
    assert kinds[0] == kinds[1]


IMAGES = {
    "aws": "ami-0123456789abcdef0",
    "gcp": "ubuntu-os-cloud/ubuntu-2404-lts-amd64",
    "azure": "Canonical:ubuntu-24_04-lts:server:latest",
    "kubernetes": "registry.example/runner:1",
}
