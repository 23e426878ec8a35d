"""The user data: the same bytes for the same input, small enough, and what cloud-init will write
from it."""

from __future__ import annotations

import ast
import base64
import builtins
import configparser
import dataclasses
import gzip
import hashlib
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml

from runner_action import bootstrap, inputs
from runner_action.agent.spec import AgentSpec
from runner_action.bootstrap import fitting
from runner_action.bootstrap.units import boot_script, units
from runner_action.errors import InputError
from runner_action.inputs import to_request
from runner_action.model import Deletion, ProviderName, Secret
from runner_action.providers.azure import facts as azure
from runner_action.sandbox.machine.unit import Unit, command
from tests import goldens
from tests.judges import missing

SPEC = AgentSpec(
    name="cml-0123456789",
    forge="github",
    repository_url="https://github.com/octo/train",
    api_url="https://api.github.com",
    labels=("cml", "it's", "größe xl", "a: b # c"),
    idle_timeout=300,
    first_job_timeout=300,
    max_lifetime=432000,
    start_timeout=600,
    single=False,
    runner_url="https://github.com/actions/runner/releases/download/v2.336.0/actions-runner-linux-x64-2.336.0.tar.gz",
    runner_sha256=bytes(range(7, 39)).hex(),
    cloud="aws",
    restart_limit=5,
    launch_run=19376284899,
    launch_job=55448733021,
    launch_job_name="launch",
    close_metadata=True,
    registration_token="AQ7KLMNOPWXYZ2345EFGHIJ6RSTUV",
    removal_token="AQ7KLMNOPWXYZ2345EFGHIJ6RSTUX",
)
TOKEN = "ghp_" + base64.b64encode(bytes(range(60, 87))).decode()
"""For a machine that restarts what its end interrupts."""
KEY = {
    "client_email": "launcher@octo-train.iam.gserviceaccount.com",
    "private_key_id": "k1",
    "private_key": "canary-key " * 150,
}
DELETION = Deletion(
    {"api": "https://compute.googleapis.com", "rule": False}, Secret(json.dumps(KEY))
)
SCRIPT = "#!/bin/bash\necho \"it's $HOME\" 'and' `this`\nEOF\nexit 0\n"
HOME = bootstrap.HOME[1:]
PEM = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----"


UPKEEP = (
    "apt-daily.timer apt-daily.service apt-daily-upgrade.timer apt-daily-upgrade.service"
    " unattended-upgrades.service"
)


def data(
    script: str | None = None,
    spec: AgentSpec = SPEC,
    deletion: Deletion | None = None,
    limit: int = 0,
    **flags: str,
) -> bytes:
    given = {
        "cloud": [spec.cloud],
        "repo": ["https://github.com/octo/train"],
        "token": ["t"],
        **{name.replace("_", "-"): [text] for name, text in flags.items()},
    }
    request = inputs.parse(inputs.Raw(flags=given, environ={}), lambda path: None)[0]
    assert request.cloud
    limit = limit or (16384 if spec.cloud == "aws" else 65536)
    return fitting.user_data(
        spec, replace(request, cloud=replace(request.cloud, startup_script=script)), limit, deletion
    )


def config(packed: bytes) -> dict[str, Any]:
    text = gzip.decompress(packed).decode()
    assert text.startswith("#cloud-config\n")
    content: dict[str, Any] = yaml.safe_load(text)
    return content


def written(packed: bytes, root: Path, *instances: str) -> dict[str, tuple[int, str]]:
    """Path -> (permissions, text), after cloud-init has run our script at two boots of one
    instance, or at a boot of each of these; below a folder, with a systemctl that records its
    calls. Without the mark of the instance."""
    (script,) = config(packed)["bootcmd"]
    tools = root.parent / f"{root.name}-tools"
    tools.mkdir(exist_ok=True)
    (tools / "systemctl").write_text(f'#!/bin/sh\necho "$@" >> {tools}/calls\n')
    (tools / "systemctl").chmod(0o755)
    root.mkdir(exist_ok=True)
    for instance in instances or ("i-1", "i-1"):  # cloud-init runs it at every boot
        run = subprocess.run(
            ["sh"],
            input=script.replace("cd /\n", f"cd {root}\n").encode(),
            env={"PATH": f"{tools}:/usr/bin:/bin", "INSTANCE_ID": instance},
            check=True,
            capture_output=True,
        )
        assert (run.stdout, run.stderr) == (b"", b"")
    marks = {f"{HOME}/{instance}" for instance in instances or ("i-1",)}
    return {
        str(path.relative_to(root)): (path.stat().st_mode & 0o777, path.read_text())
        for path in root.rglob("*")
        if path.is_file() and str(path.relative_to(root)) not in marks
    }


STALE = ("heartbeat", "gone", "restarted", "first-look", "jobs", "runner/.runner", "agent/old.py")


def left_by_a_life(root: Path) -> set[str]:
    """Puts files of an earlier life on the disk: in our folder, and a unit of another version."""
    paths = {f"{HOME}/{name}" for name in STALE}
    paths.add("etc/systemd/system/cml-runner-older.service")
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text("old")
    return paths


def test_what_is_on_the_disk_counts_for_the_instance_that_wrote_it_only(tmp_path: Path) -> None:
    """Others begin anew: it is a disk from an image that was made of one of our machines."""
    root = tmp_path / "root"
    fresh = written(data(SCRIPT), root)
    stale = left_by_a_life(root)
    unit = root / "etc/systemd/system/cml-runner.service"
    unit.write_text(f"{unit.read_text()}[Another]\n")
    assert stale <= set(written(data(SCRIPT), root, "i-1")), "a second boot"
    again = written(data("exit 0"), root, "i-2")
    assert set(again) == set(fresh)
    assert again[f"{HOME}/startup.sh"][1].endswith("exit 0"), "this launch's files"
    assert "[Another]" not in again["etc/systemd/system/cml-runner.service"][1]
    assert not (root / HOME / "i-1").exists()
    starts = (
        (tmp_path / "root-tools" / "calls").read_text().count("start --no-block cml-runner.ser")
    )
    assert starts == 2, "of two instances, the first of which has booted three times"


def test_what_is_mounted_in_the_old_folder_stays(tmp_path: Path) -> None:
    """A disk for the workspaces, say."""
    mounted = tmp_path / "root" / HOME / "runner/_work"
    mounted.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(mounted)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("SKIPPED LOUDLY: nothing can be mounted here")
    try:
        (mounted / "dataset").write_text("mine")
        (script,) = config(data())["bootcmd"]
        (removal,) = (line for line in script.splitlines() if line.startswith("rm "))
        done = subprocess.run(["sh", "-c", removal], cwd=tmp_path / "root", check=False)
        assert (done.returncode, (mounted / "dataset").read_text()) == (1, "mine")
    finally:
        subprocess.run(["umount", str(mounted)], check=True)


def test_golden_user_data(tmp_path: Path) -> None:
    """The whole frame, word for word."""
    save = base64.b64encode(b"save").decode()
    packed = data(SCRIPT, checkpoint_script=save, ca_certificates=PEM, limit=1 << 16)
    golden = config(packed)
    golden["bootcmd"] = re.sub(
        r"b64decode\('[^']+'\)", "b64decode('…')", golden["bootcmd"][0]
    ).splitlines()
    golden["packed"] = {
        path: text
        for path, (_, text) in sorted(written(packed, tmp_path / "root").items())
        if "/agent/" not in path
    }
    goldens.check(goldens.ROOT / "user-data", {"default": golden})


def test_same_input_same_bytes() -> None:
    assert data(SCRIPT) == data(SCRIPT)


@pytest.mark.parametrize("forge", ["github", "gitlab"])
@pytest.mark.parametrize("cloud", ["aws", "azure", "gcp", "kubernetes"])
def test_agent_spec_and_frame_keep_to_their_budget(cloud: str, forge: str) -> None:
    """AWS's is the narrowest by far: 256 KiB at Google, 64 at Azure, 1 MiB at Kubernetes, whose
    pods get the agent as a program."""
    budget = {"aws": bootstrap.AGENT_BUDGET, "kubernetes": 32 * 1024}.get(cloud, 20 * 1024)
    assert (
        len(
            data(
                spec=replace(SPEC, cloud=cloud, forge=forge),
                deletion=DELETION if cloud in ("azure", "gcp") else None,
            )
        )
        <= budget
    )


def test_a_script_that_does_not_fit_is_refused_with_the_number_of_bytes() -> None:
    noise = hashlib.sha512
    script = "".join(noise(bytes([number])).hexdigest() for number in range(250))
    with pytest.raises(
        InputError,
        match=(
            r"more than allowed.*: cloud-startup-script [0-9]+; .*shorten"
            r" cloud-startup-script, or"
        ),
    ):
        data(script)
    with pytest.raises(InputError, match=r"shorten checkpoint-script, or"):
        data("short", checkpoint_script=base64.b64encode(script.encode()).decode())


def test_scripts_arrive_byte_for_byte_and_keep_their_shell(tmp_path: Path) -> None:
    files = written(
        data(SCRIPT, checkpoint_script=base64.b64encode(b"echo hello").decode()), tmp_path / "root"
    )
    assert files[f"{HOME}/startup.sh"] == (0o700, SCRIPT)
    assert files[f"{HOME}/checkpoint.sh"] == (0o700, "#!/bin/sh\necho hello")


def test_only_root_can_read_what_we_bring_and_secrets_stand_in_the_spec_alone(
    tmp_path: Path,
) -> None:
    files = written(data(SCRIPT), tmp_path / "root")
    assert {mode for path, (mode, _) in files.items() if "/systemd/" not in path} == {0o700}
    assert {mode for path, (mode, _) in files.items() if "/systemd/" in path} == {0o644}, (
        "systemd complains of others"
    )
    assert AgentSpec.from_json(files[f"{HOME}/spec.json"][1]) == SPEC
    for path, (_, text) in files.items():
        assert any(secret in text for secret in SPEC.secrets()) is path.endswith("spec.json"), path


def test_jobs_become_root_only_if_they_may() -> None:
    assert config(data())["users"][1]["sudo"] == "ALL=(ALL) NOPASSWD:ALL"
    assert "sudo" not in config(data(job_sudo="false"))["users"][1]


def test_certificates_are_trusted_by_the_system_and_named_to_programs() -> None:
    content = config(data(ca_certificates=PEM))
    assert content["ca_certs"] == content["ca-certs"] == {"trusted": [PEM]}, (
        "by the names that old and new cloud-inits have for it"
    )
    given = {
        "cloud": ["aws"],
        "repo": ["https://github.com/o/t"],
        "token": ["t"],
        "ca-certificates": [PEM],
        "https-proxy": ["http://me:pw@proxy:3128"],
    }
    request = inputs.parse(
        inputs.Raw(flags=given, environ={"NO_PROXY": "git.example"}), lambda path: None
    )[0]
    assert (
        request.environment["SSL_CERT_FILE"]
        == request.environment["NODE_EXTRA_CA_CERTS"]
        == to_request.CA_BUNDLE
    )
    assert (
        request.environment["https_proxy"]
        == request.environment["HTTP_PROXY"]
        == "http://me:pw@proxy:3128"
    )
    assert (
        request.environment["NO_PROXY"]
        == "git.example,localhost,127.0.0.1,169.254.169.254,metadata.google.internal"
    )


def test_the_units_end_the_machine_whatever_happens_to_the_agent(tmp_path: Path) -> None:
    units = {
        Path(path).name: text
        for path, (_, text) in written(data(), tmp_path / "root").items()
        if "systemd" in path
    }
    parsed = {}
    for name, text in units.items():
        parsed[name] = configparser.ConfigParser(interpolation=None)
        parsed[name].optionxform = str  # type: ignore[assignment,method-assign]
        parsed[name].read_string(text)
    service = parsed["cml-runner.service"]
    assert service["Unit"]["SuccessAction"] == "poweroff"
    assert "FailureAction" not in service["Unit"], (
        "which would also act when the agent is to be started again"
    )
    assert service["Unit"]["StartLimitAction"] == "poweroff-force"
    assert parsed[service["Unit"]["OnFailure"]]["Unit"]["SuccessAction"] == "poweroff-force"
    assert (
        service["Service"]["Restart"],
        service["Service"]["KillMode"],
        service["Unit"]["StartLimitBurst"],
    ) == ("on-abnormal", "process", "2")
    checks = parsed["cml-runner-watchdog.service"]["Unit"]
    failed = parsed[checks["OnFailure"]]["Unit"]
    assert "FailureAction" not in checks
    assert (failed["StartLimitAction"], failed["StartLimitBurst"]) == ("poweroff-force", "2")
    lines = (tmp_path / "root-tools" / "calls").read_text().splitlines()
    calls = [line for line in lines if UPKEEP not in line]
    assert {
        word for line in calls for word in line.split() if word.endswith((".service", ".timer"))
    } == set(units) - {"cml-runner-end.service", "cml-runner-failed.service"}
    # Whoever waits for a unit here waits for ever: all units wait for cloud-init.
    assert all(
        "--no-block" in line
        for line in lines
        if line.startswith(("start", "stop")) or "--now" in line
    )
    assert [line for line in calls if "cml-runner.service" in line] == [
        "start --no-block cml-runner.service cml-runner-watchdog.timer"
    ], "at first boot only"
    assert (
        calls.count("start --no-block cml-runner-wipe.service cml-runner-watchdog.service") == 2
    ), "a second boot gets the user data again, and must end"


def test_upkeep_may_stop_none_of_our_units_but_in_passing(tmp_path: Path) -> None:
    """needrestart asks for RefuseManualStop; whatever it sends to a look that lasts a moment
    must not end the machine."""
    units = {
        Path(path).name: text
        for path, (_, text) in written(data(), tmp_path / "root").items()
        if path.endswith(".service")
    }
    assert "\nRefuseManualStop=yes\n" in units["cml-runner.service"].partition("[Service]")[0]
    assert not [text for text in units.values() if re.search(r"^FailureAction=", text, re.M)]


def test_the_machines_own_upkeep_is_over_before_anything_of_ours_begins(tmp_path: Path) -> None:
    written(data(), tmp_path / "root")
    calls = (tmp_path / "root-tools" / "calls").read_text().splitlines()
    assert calls[:2] == [f"stop --no-block {UPKEEP}", f"mask --runtime {UPKEEP}"]
    assert calls.count(calls[1]) == 2, "at each boot: /run is empty then"


def test_apt_waits_where_there_is_apt_and_everybody_may_read_so(tmp_path: Path) -> None:
    (tmp_path / "debian/etc/apt/apt.conf.d").mkdir(parents=True)
    files = written(data(), tmp_path / "debian")
    assert files["etc/apt/apt.conf.d/99cml-runner"] == (0o644, "DPkg::Lock::Timeout 300;\n")
    assert not [path for path in written(data(), tmp_path / "fedora") if "apt" in path]
    if not shutil.which("apt-config"):
        pytest.skip("SKIPPED LOUDLY: apt is not on this machine")
    command = [
        "apt-config",
        "-c",
        str(tmp_path / "debian/etc/apt/apt.conf.d/99cml-runner"),
        "dump",
        "DPkg::Lock::Timeout",
    ]
    assert (
        subprocess.run(command, check=True, capture_output=True, text=True).stdout
        == 'DPkg::Lock::Timeout "300";\n'
    )


POWER = ("SuccessAction", "FailureAction", "StartLimitAction", "JobTimeoutAction")


@pytest.mark.parametrize("cloud", ["azure", "gcp"])
def test_where_a_machine_that_is_off_costs_every_power_off_waits_for_its_deletion(
    cloud: str, tmp_path: Path
) -> None:
    files = written(data(spec=replace(SPEC, cloud=cloud), deletion=DELETION), tmp_path / "root")
    units = {
        path.partition("system/")[2]: Unit(tmp_path / "root" / path)
        for path in files
        if "systemd/system/" in path
    }
    actions = {
        (name, key): action
        for name, unit in units.items()
        for key in POWER
        for action in unit.all(key)
    }
    assert set(actions.values()) == {"poweroff"}, "a forced one stops no unit before"
    assert {name for name, _ in actions} == {
        "cml-runner.service",
        "cml-runner-end.service",
        "cml-runner-failed.service",
    }
    # It is there before one of them can act, at every boot, and stops after the others have.
    deleting = units["cml-runner-delete.service"]
    for name in ("cml-runner.service", "cml-runner-watchdog.timer"):
        assert "cml-runner-delete.service" in units[name].names("Wants")
    assert deleting.names("Before") == {"cml-runner.service", "cml-runner-watchdog.service"}
    assert "network.target" in deleting.names("After"), "which it needs as long as it lasts"
    assert (deleting.get("Type"), deleting.get("RemainAfterExit")) == (
        "oneshot",
        "yes",
    ), "or it would not be there to be stopped"
    assert deleting.all("ExecStop") == [f"/usr/bin/python3 -m agent.ending {cloud}"]
    assert deleting.bound("TimeoutStopSec", 90) is None
    (again,) = deleting.all("ExecStopPost")
    assert f"SERVICE_RESULT = success ]||exec /usr/bin/python3 -m agent.ending {cloud}" in again
    others = [unit for unit in units.values() if unit is not deleting]
    lines = [line for unit in others for line in unit.all("ExecStart") + unit.all("ExecStopPost")]
    assert "agent.ending" not in " ".join(lines), "bounded"
    longer = units.get("poweroff.target.d/cml-runner.conf")
    assert longer.bound("JobTimeoutSec", 1800) is None if longer else cloud == "gcp", (
        "systemd forces it after half an hour"
    )


def test_elsewhere_a_power_off_waits_for_nothing(tmp_path: Path) -> None:
    text = " ".join(
        text for path, (_, text) in written(data(), tmp_path / "root").items() if "systemd" in path
    )
    assert "cml-runner-delete" not in text
    assert "JobTimeoutSec" not in text


def test_only_a_startup_script_waits_for_package_sources(tmp_path: Path) -> None:
    unit = "etc/systemd/system/cml-runner.service"
    assert "\nAfter=network-online.target\n" in written(data(), tmp_path / "a")[unit][1]
    assert (
        "\nAfter=network-online.target cloud-config.service\n"
        in written(data(SCRIPT), tmp_path / "b")[unit][1]
    )


@pytest.mark.parametrize(
    ("tool", "argv"),
    [
        ("cloud-init", ["cloud-init", "schema", "--config-file", "config.yaml"]),
        (
            "systemd-analyze",
            [
                "systemd-analyze",
                "verify",
                "./cml-runner.service",
                "./cml-runner-watchdog.timer",
                "./cml-runner-wipe.service",
            ],
        ),
    ],
)
def test_cloud_init_and_systemd_take_what_we_write(
    tool: str, argv: list[str], tmp_path: Path
) -> None:
    if shutil.which(tool) is None:
        missing(f"{tool} is not on this machine (Debian packages cloud-init and systemd)")
    packed = data(SCRIPT, ca_certificates=PEM)
    (tmp_path / "config.yaml").write_bytes(gzip.decompress(packed))
    for path, (_, text) in written(packed, tmp_path / "root").items():
        if "systemd" in path:
            (tmp_path / Path(path).name).write_text(text)
    environ = {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "LANG": "C.UTF-8"}
    done = subprocess.run(
        argv, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_of_the_machine_s_files_every_one_is_used_and_none_keeps_its_comments(
    tmp_path: Path,
) -> None:
    shipped = {file.name for file in files("runner_action.bootstrap").joinpath("machine").iterdir()}
    texts = units(ProviderName.AZURE, has_script=True, deletes=True)
    assert shipped == {*texts, "boot.sh", "equip.sh"} - {"poweroff.target.d/cml-runner.conf"}
    assert not [text for text in (*texts.values(), boot_script("", "")) if text.startswith("#")]
    assert "@" not in boot_script("", "")


@pytest.mark.parametrize("python", [sys.executable, "/usr/bin/python3"])
def test_the_agent_runs_as_it_arrives(python: str, tmp_path: Path) -> None:
    written(data(), tmp_path / "root")
    home = tmp_path / "root" / HOME
    subprocess.run([python, "-m", "agent", "watchdog"], cwd=home, check=True)
    assert (home / "first-look").exists()


@pytest.mark.parametrize("cloud", ["aws", "azure"])
def test_a_copy_of_the_user_data_that_cannot_be_removed_keeps_no_other(
    cloud: str, tmp_path: Path
) -> None:
    deletion = DELETION if cloud == "azure" else None
    root = tmp_path / "root"
    written(data(spec=replace(SPEC, cloud=cloud), deletion=deletion), root)
    unit = Unit(root / "etc/systemd/system/cml-runner-wipe.service")
    cache = root / "var/lib/cloud/instances/i-1"
    (cache / "user-data.txt").mkdir(parents=True)
    secrets = [cache / "user-data.txt.i", cache / "obj.pkl"]
    if cloud == "azure":
        secrets.append(root / azure.TRAITS.wiped_too[0][1:])
    for path in (*secrets, cache / "keep.me", cache / "user-data.txt/full"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("secret")
    program, *words = command(unit.get("ExecStart"))
    argv = [program, *(f"{root}{word}" if word.startswith("/") else word for word in words)]
    done = subprocess.run(argv, check=False, capture_output=True)
    assert done.returncode == 1
    assert [path for path in secrets if path.exists()] == []
    assert (cache / "keep.me").exists()


def test_a_machine_gets_the_modules_of_its_own_cloud_forge_and_token_only() -> None:
    def modules(*needed: str, **changed: Any) -> set[str]:
        needs = dict.fromkeys(needed, True)
        return set(bootstrap.agent_files(replace(SPEC, **changed), **needs))

    plain = modules()
    assert {"run.py", "lifecycle.py", "github.py", "github_removal.py", "aws.py"} <= plain
    assert {
        "gcp.py",
        "azure.py",
        "guard.py",
        "gitlab.py",
        "ending.py",
        "wall.py",
        "restart.py",
        "github_token.py",
    }.isdisjoint(plain)
    assert modules(api_token=TOKEN) - plain == {*bootstrap.WITH_TOKEN, "github_token.py"}
    assert modules(confined=True) - plain == {"wall.py"}
    assert modules("jit") - plain == {"jit.py"}
    assert modules("checkpoint") - plain == {"checkpoint.py"}
    assert {"gcp.py", "azure.py", "aws.py", "github.py", "gitlab_token.py"}.isdisjoint(
        modules(cloud="kubernetes", forge="gitlab")
    )
    assert {"gcp.py", "ending.py"} <= modules("deletes", cloud="gcp")


@pytest.mark.parametrize("confined", [False, True])
@pytest.mark.parametrize("token", [None, TOKEN])
@pytest.mark.parametrize("forge", ["github", "gitlab"])
@pytest.mark.parametrize("cloud", ["aws", "azure", "gcp", "kubernetes"])
def test_every_name_means_something_on_each_machine(
    cloud: str, forge: str, token: str | None, confined: bool
) -> None:
    """Names are shortened in all modules that travel, which differ."""
    spec = replace(SPEC, cloud=cloud, forge=forge, api_token=token, confined=confined)
    modules = bootstrap.agent_files(spec, deletes=cloud in ("azure", "gcp"), jit=True)
    attributes = set()
    for name, text in modules.items():
        unknown = unbound(ast.parse(text)) - {"__package__", "__name__"}
        assert not unknown, name
        attributes |= {
            node.attr for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Attribute)
        }
    short = {name for name in attributes if re.fullmatch(r"[A-Za-z]\d", name)}
    assert not short - set().union(*(defined(ast.parse(text)) for text in modules.values()))


def defined(tree: ast.Module) -> set[str]:
    """What a module binds, at whatever place."""
    nodes = list(ast.walk(tree))
    names = {node.id for node in nodes if isinstance(node, ast.Name) and not is_read(node)}
    names |= {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    names |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    attributes = (node for node in nodes if isinstance(node, ast.Attribute))
    names |= {node.attr for node in attributes if isinstance(node.ctx, ast.Store)}
    names |= {node.name for node in nodes if isinstance(node, ast.ExceptHandler) and node.name}
    imports = [node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)]
    aliases = [alias for node in imports for alias in node.names]
    return names | {(alias.asname or alias.name).split(".")[0] for alias in aliases}


def is_read(node: ast.Name) -> bool:
    return isinstance(node.ctx, ast.Load)


def unbound(tree: ast.Module) -> set[str]:
    read = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and is_read(node)}
    return read - defined(tree) - set(dir(builtins))


def test_spec_has_no_field_that_never_reaches_the_machine() -> None:
    fields = dataclasses.fields(SPEC)
    sent = {field.name for field in fields if getattr(SPEC, field.name) != field.default}
    assert sent <= set(json.loads(SPEC.to_json()))
    assert AgentSpec.from_json(SPEC.to_json()) == SPEC
