"""Lives on EC2: from the user data that the launcher gave to RunInstances to the power-off that
QEMU sees."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

import pytest

from runner_action.providers.aws.plan import USER_DATA_LIMIT
from runner_action.sandbox.forges.jobs import Job
from tests import large
from tests.boot import walls
from tests.boot.lab import ADDRESS, ONLINE, Lab, stages, until
from tests.fakes import brought
from tests.sandbox.conftest import Launcher

CLOUD_INIT_IS_DONE = (
    "until [ -e /var/lib/cloud/instance/boot-finished ] && ! systemctl list-jobs | grep -q"
    " cml-runner-wipe; do sleep 1; done; sleep 5"
)
OTHER_COPIES = (
    "user-data.txt*",
    "cloud-config.txt",
    "combined-cloud-config.json",
    "instance-data-sensitive.json",
    "obj.pkl",
)
ASK_METADATA = """python3 -c 'import urllib.request as u
try: print(u.urlopen(u.Request("http://{address}/latest/api/token", method="PUT"), timeout=5).status)
except OSError as error: print(error)'"""  # noqa: E501


WALLS = f"--cloud-startup-script={base64.b64encode(walls.STARTUP.encode()).decode()}"


def probe(**commands: str) -> str:
    """A job whose annotations are what the commands print."""
    return "\n".join(
        f'echo "::notice title={name}::$( ({command}) 2>/dev/null | tr "\\n" " ")"'
        for name, command in commands.items()
    )


NOTICE = re.compile(r"^::notice title=([^:]*)::(.*)$", re.M)
"""What `probe` prints, in a log of GitLab's, which has no annotations."""


def found(job: Job) -> dict[str, str]:
    return {title: text.strip() for title, text in job.notes}


@pytest.mark.parametrize(
    "release", [pytest.param("trixie", marks=pytest.mark.e2e), "bullseye"], indirect=True
)
def test_a_whole_life(lab: Lab, tmp_path: Path) -> None:
    """Launch, online, a job that looks around and tries the walls, idle, off the list, powered
    off."""
    world = lab.world
    launcher = Launcher(world, tmp_path, "--idle-timeout=10", "--labels=cml", WALLS)
    assert launcher.wait(ONLINE) == 0, launcher.told + lab.console()
    (instance,) = world.machines.living
    packed = brought(lab.service.guest.user_data)
    spec = "/var/lib/cml-runner/spec.json"
    names = " -o ".join(f"-name '{name}'" for name in OTHER_COPIES)
    # What is looked for comes by standard input: sudo writes command lines into the journal.
    places = f"/var /run /tmp /etc /root /home --exclude-dir=_work --exclude={Path(spec).name}"
    looks = {
        "who": "id -un",
        "spec": f"cat {spec} 2>&1",
        "metadata": ASK_METADATA.format(address="169.254.169.254"),
        "wire": ASK_METADATA.format(address="168.63.129.16"),
        "copies": f"sudo find /var/lib/cloud /run/cloud-init -type f \\( {names} \\)",
        # Not by what it means, for it is packed: by a piece of the very text that cloud-init was
        # given.
        "packed": f"echo {packed[1000:1040]} | sudo grep -rlFf - {places}",
        "plain": (
            f"printf 'canary-%s\\\\n' admin register secret runner | sudo grep -rlFf - {places}"
        ),
        **walls.LOOKS_BY_SUDO,
        "argv": "sudo cat /proc/[0-9]*/cmdline | tr '\\0' '\\n' | grep -E '^canary-'",
    }
    job = world.forge.queue_job(["cml"], 0, f"{CLOUD_INIT_IS_DONE}\n{probe(**looks)}")
    until(lambda: job.status == "completed", "the job", 420, lab.console)
    until(lambda: not world.ec2.alive(), "the end", 180, lab.console)

    told = found(job)
    assert job.conclusion == "success", lab.console()
    assert told.pop("who") == "runner"
    assert "Permission denied" in told.pop("spec")
    assert "refused" in told.pop("metadata")
    assert "refused" in told.pop("wire")
    tried = {name: told.pop(name) for name in walls.LOOKS_BY_SUDO}
    gained = walls.wrong(tried, walls.LOOKS_BY_SUDO)
    assert not gained, gained
    assert set(told.values()) == {""}, told
    assert world.left() == []
    assert world.machines.living[instance].process.returncode == 0, (
        "QEMU saw the machine power itself off"
    )
    console = lab.console()
    said = list(stages(console))
    assert (
        said.index("agent")
        < said.index("downloaded")
        < said.index("configured")
        < said.index("online")
        < said.index("job-started")
    )
    assert said[-2:] == ["deregistered", "end"] or said[-1] == "end", said
    assert all(
        re.search(r'"t": \d{10}\.', line)
        for line in console.splitlines()
        if "cml-runner: {" in line
    ), "every line carries its time"
    assert "canary-" not in console
    assert "canary-admin" not in launcher.told.replace("::add-mask::canary-admin-token", "")


SCRIPT = large.SCRIPT.replace("\n", "\necho started; exit 0\n", 1)
"""What it would install is not to be had in the lab; that each byte of it arrives is what is
asked."""


@pytest.mark.parametrize("release", ["trixie", "bullseye"], indirect=True)
def test_all_that_users_may_ask_for_in_one_launch(lab: Lab, tmp_path: Path) -> None:
    """Single, real-sized configuration and token, proxy, two certificates of RSA-4096, an SSH
    key, 20 labels, the longest name and 8 KiB of shell: a user data whose agent the machine
    fetches."""
    world = lab.world
    world.github.tokens = {**world.github.tokens, large.TOKEN: "admin"}
    asked = {**large.EVERYTHING, "cloud_startup_script": SCRIPT, "no_proxy": ADDRESS}
    words = [f"--{name.replace('_', '-')}={text}" for name, text in asked.items() if name != "repo"]
    launcher = Launcher(
        world, tmp_path, *words, f"--restart-token={large.TOKEN}", "--first-job-timeout=300"
    )
    assert launcher.wait(ONLINE) == 0, launcher.told + lab.console()
    assert len(lab.service.guest.user_data) <= USER_DATA_LIMIT
    of_each = [
        certificate.splitlines()[-3] for certificate in large.CERTIFICATES.split("-----BEGIN")[1:]
    ]
    looks = {
        "script": "sudo sha256sum /var/lib/cml-runner/startup.sh | cut -d' ' -f1",
        "trusted": "; ".join(
            f"grep -cF {line} /etc/ssl/certs/ca-certificates.crt" for line in of_each
        ),
        "key": "sudo cat /home/debian/.ssh/authorized_keys",
        "proxy": "echo $https_proxy",
        "agent": "sudo stat -c '%U %a' /var/lib/cml-runner/agent",
        "hidden": "cat /var/lib/cml-runner/spec.json 2>&1",
        "copies": "sudo find /var/lib/cloud /run/cloud-init -type f -name 'user-data.txt*'",
    }
    job = world.forge.queue_job(
        large.LABELS.split(","), 0, f"{CLOUD_INIT_IS_DONE}\n{probe(**looks)}"
    )
    until(lambda: job.status == "completed", "the job", 240, lab.console)
    until(lambda: not world.ec2.alive(), "the end", 180, lab.console)
    told = found(job)
    assert job.conclusion == "success", lab.console()
    assert told.pop("script") == hashlib.sha256(SCRIPT.encode()).hexdigest()
    assert told.pop("trusted") == "1 1", "the root and the issuing one"
    assert told.pop("key").startswith("ssh-rsa AAAA")
    assert told.pop("proxy") == large.EVERYTHING["https_proxy"]
    assert told.pop("agent") == "root 700"
    assert "Permission denied" in told.pop("hidden")
    assert told == {"copies": ""}
    said = list(stages(lab.console()))
    assert (
        said.index("agent-fetch")
        < said.index("agent")
        < said.index("startup-script")
        < said.index("online")
    )
    assert world.left() == []


@pytest.mark.parametrize(("release", "forge"), [("bullseye", "gitlab")], indirect=True)
def test_a_life_at_gitlab_without_sudo(lab: Lab, tmp_path: Path) -> None:
    """A job that cannot become root tries that, and the walls."""
    world = lab.world
    launcher = Launcher(
        world, tmp_path, "--idle-timeout=5", "--labels=cml", "--job-sudo=false", WALLS
    )
    assert launcher.wait(ONLINE) == 0, launcher.told + lab.console()
    looks = {
        "who": "id -un",
        "groups": "id -Gn",
        "root": "sudo -n id -un; su -c id </dev/null; ip netns exec box id -un; nft flush ruleset",
        "spec": "cat /var/lib/cml-runner/spec.json",
        "copies": "cat /var/lib/cloud/instance/user-data.txt* /run/cloud-init/instance-data-s*",
        **walls.LOOKS,
    }
    job = world.forge.queue_job(["cml"], 0, probe(**looks))
    until(lambda: job.status == "completed", "the job", 420, lab.console)
    until(lambda: not world.ec2.alive(), "the end", 180, lab.console)
    assert job.conclusion == "success", lab.console()
    log = world.gitlab.jobs.traces[job.id]
    told = {name: text.strip() for name, text in NOTICE.findall(log)}
    tried = {name: told.pop(name, "") for name in walls.LOOKS}
    assert told == {"who": "runner", "groups": "runner", "root": "", "spec": "", "copies": ""}
    gained = walls.wrong(tried, walls.LOOKS)
    assert not gained, gained
    assert world.left() == []


def test_a_startup_script_is_heard_and_its_failure_ends_the_launch(
    lab: Lab, tmp_path: Path
) -> None:
    script = "#!/bin/bash\necho hello from the script of $(id -un)\nsleep 3\nls /nowhere\nexit 3\n"
    launcher = Launcher(
        lab.world,
        tmp_path,
        "--labels=cml",
        f"--cloud-startup-script={base64.b64encode(script.encode()).decode()}",
    )
    code = launcher.wait(ONLINE)
    assert code == 6, launcher.told
    assert "startup script: exit code 3: hello from the script of root" in launcher.told
    assert "No such file or directory" in launcher.told
    assert '"stage": "startup-script"' in lab.console()
    assert '"line": "hello from the script of root"' in lab.console()
    until(lambda: not lab.world.ec2.alive(), "the end", 60, lab.console)
    assert lab.world.left() == []


def test_a_spot_notice_restarts_the_job_and_ends_the_machine(lab: Lab, tmp_path: Path) -> None:
    world = lab.world
    run = world.forge.queue_run()

    def launching(job: Job) -> str:
        if job.attempt > 1:  # that it is asked again is what matters here
            return "failure"
        environ = world.job_environ(run.id, job.id, job.name, job.attempt, job.runner_name)
        launcher = Launcher(
            world, tmp_path, "--labels=cml", "--cloud-spot", "--idle-timeout=300", **environ
        )
        return "failure" if launcher.wait(ONLINE) else "success"

    world.forge.add_job(run, "launch", ["ubuntu-latest"], hosted=launching)
    train = world.forge.add_job(run, "train", ["cml"], 0, "sleep 100", needs=["launch"])
    world.forge.begin(run)
    until(lambda: "job-started" in lab.console(), "the job", 300, lab.console)
    world.metadata.notice(next(iter(world.machines.living)), 120)
    until(lambda: run.attempt == 2, "the restart", 60, lab.console)
    until(lambda: not world.ec2.alive(), "the end", 120, lab.console)
    assert train.conclusion == "failure"
    assert any("being taken away" in text for _, text in train.notes), train.notes
    assert world.left() == []


SABOTAGE = """#!/bin/sh
setsid sh -c 'until [ -e /var/tmp/now ]; do sleep 1; done
systemctl kill --signal={signal} --kill-who=main cml-runner.service' >/dev/null 2>&1 &
"""


def saboteur(signal: str) -> str:
    """A startup script that leaves somebody behind who sends the agent a signal once a job has
    made a file."""
    script = SABOTAGE.format(signal=signal).encode()
    return f"--cloud-startup-script={base64.b64encode(script).decode()}"


def test_an_agent_that_is_silent_is_ended_by_the_watchdog(lab: Lab, tmp_path: Path) -> None:
    world = lab.world
    launcher = Launcher(world, tmp_path, "--labels=cml", "--idle-timeout=3000", saboteur("STOP"))
    assert launcher.wait(ONLINE) == 0, launcher.told + lab.console()
    job = world.forge.queue_job(["cml"], 0, "touch /var/tmp/now")
    until(lambda: job.status == "completed", "the job", 60, lab.console)
    until(lambda: not world.ec2.alive(), "the end", 480, lab.console)
    assert "the agent is silent" in lab.console()
    assert world.left() == []


def test_an_agent_that_is_killed_is_started_again_for_a_job_and_ends_the_machine_without_one(
    lab: Lab, tmp_path: Path
) -> None:
    world = lab.world
    launcher = Launcher(world, tmp_path, "--labels=cml", "--idle-timeout=3000", saboteur("KILL"))
    assert launcher.wait(ONLINE) == 0, launcher.told + lab.console()
    # An agent that dies before it has heard of the job is taken for an idle one: the job runs to
    # its end, and then the machine goes.
    busy = world.forge.queue_job(
        ["cml"],
        0,
        "sleep 10; sudo systemctl kill --signal=KILL --kill-who=main cml-runner.service; sleep 15",
    )
    until(lambda: busy.status == "completed", "the job", 90, lab.console)
    assert busy.conclusion == "success", lab.console()
    until(lambda: lab.console().count('"stage": "agent"') == 2, "the second agent", 30, lab.console)
    idle = world.forge.queue_job(["cml"], 0, "(sleep 4; touch /var/tmp/now) >/dev/null 2>&1 &")
    until(lambda: idle.status == "completed", "the job", 60, lab.console)
    until(lambda: not world.ec2.alive(), "the end", 60, lab.console)
    assert lab.console().count('"stage": "agent"') == 2
    assert world.left() == []


@pytest.mark.parametrize(
    "how",
    ["reboot --force --force", "sh -c 'echo c >/proc/sysrq-trigger'"],
    ids=["restarted", "kernel panic"],
)
def test_a_machine_that_starts_again_does_not_register_again_and_ends(
    how: str, lab: Lab, tmp_path: Path
) -> None:
    world = lab.world
    launcher = Launcher(world, tmp_path, "--labels=cml", "--idle-timeout=3000", "--no-retry")
    assert launcher.wait(ONLINE) == 0, launcher.told + lab.console()
    world.forge.lost_after = (
        20  # a runner whose job the forge has not given up cannot be taken off the list
    )
    job = world.forge.queue_job(["cml"], 60, f"sudo sync; sudo {how}")
    until(lambda: lab.console().count("Linux version") == 2, "the second start", 60, lab.console)
    until(
        lambda: world.forge.run(job.run_id) and not world.ec2.alive(), "the end", 420, lab.console
    )
    assert "the machine was restarted" in lab.console()
    assert lab.console().count('"stage": "agent"') == 1
    assert len(world.forge.ever) == 1
    assert world.left() == []
