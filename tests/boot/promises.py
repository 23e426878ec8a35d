"""What docs/machine.md says is on the machine, row by row, and how a job sees it.

A row is the first cell of the page's table. `tests/test_machine_page.py` compares the rows with the
page; `test_docker.py` boots machines and looks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs/machine.md"
ADDRESS = "192.0.2.1"
WHEELS = 8099
"""Port of the lab's package index."""


@dataclass(frozen=True)
class Row:
    """`first`: what a job runs, and a pattern that its output matches as a whole, lines joined by
    spaces. `later`: the same for the next job. `unseen`: why no boot shows the row."""

    first: Mapping[str, str] = field(default_factory=dict)
    later: Mapping[str, str] = field(default_factory=dict)
    unseen: str = ""


TINY = """(cd / && p=$(which perl) l=$(ls -d /usr/lib/*/perl-base)
tar -ch /bin/sh /bin/cat /bin/sleep /bin/tail /bin/ls $p $l \
$(ls -d /lib/*/libnss_dns.so.2 /lib/*/libresolv.so.2 || true) \
$(ldd /bin/sh /bin/ls $p | grep -o '/[^ :]*[.]so[^ ]*' | sort -u) | docker import - tiny >/dev/null)
docker image inspect -f ok tiny"""
"""An image of the machine's own files: the lab has no registry. perl-base is on every Debian."""

CONTAINER = """docker network create github_net >/dev/null
docker run -d --name svc --network github_net --network-alias redis tiny \
perl -MIO::Socket::INET -e \
'$s = IO::Socket::INET->new(LocalPort => 6379, Listen => 5, ReuseAddr => 1) or die;
while ($c = $s->accept) { print $c "pong"; close $c }' >/dev/null
w=$(dirname $(dirname $PWD)); mkdir -p $w/_temp/_github_home $w/_temp/_github_workflow $w/_tool
echo from-the-host > seen
c=$(docker create --workdir /__w/${PWD#$w/} --network github_net -e HOME=/github/home -e CI=true \
-v /var/run/docker.sock:/var/run/docker.sock \
-v $w:/__w -v $w/_temp:/__w/_temp -v $w/_tool:/__w/_tool \
-v $w/_temp/_github_home:/github/home -v $w/_temp/_github_workflow:/github/workflow \
--entrypoint tail tiny -f /dev/null)
docker start $c >/dev/null
docker exec $c sh -c 'cat seen; echo from-the-container > written'
docker exec $c perl -MIO::Socket::INET -e \
'for (1..30) { $s = IO::Socket::INET->new("redis:6379") and last; sleep 1 } print <$s>, "\\n"'
cat written"""
"""As actions/runner starts a job's `container:` with a service:
https://github.com/actions/runner/blob/main/src/Runner.Worker/Container/DockerCommandManager.cs"""

PIP = f"""pip install --no-index --find-links http://{ADDRESS}:{WHEELS}/ --trusted-host {ADDRESS} \
tabulate >/tmp/pip 2>&1 || tail -n3 /tmp/pip
python -c 'import tabulate; print(tabulate.__name__)'; command -v tabulate"""
OPEN = "python -c 'f = [open(\"/dev/null\") for _ in range(10000)]; print(len(f))'"
METADATA = """python3 -c 'import urllib.request as u
try: print(u.urlopen("http://169.254.169.254/", timeout=5).status)
except OSError as error: print(error)'"""
UNITS = "apt-daily.timer apt-daily-upgrade.timer"

PROMISES: dict[str, Row] = {
    "user": Row(
        {
            "id -un; sudo -n id -un; sudo -n passwd -S runner | cut -d' ' -f2": "runner root L.*",
        }
    ),
    "home": Row(
        {"echo $HOME; touch $HOME/kept": "/home/runner"},
        {"ls $HOME/kept": "/home/runner/kept"},
    ),
    "folder of a job": Row(
        {"pwd; touch left": r"/var/lib/cml-runner/runner/_work/([^/]+)/\1"},
        {"ls": ""},
    ),
    "disk": Row(
        {"sudo stat -c %d / . $HOME /var/lib/docker | sort -u | wc -l": "1"},
    ),
    "Docker": Row(
        {
            "docker info --format '{{.ServerVersion}}'": r"\d+\..*",
            TINY: r"ok",
            CONTAINER: ".*from-the-host .*pong from-the-container",
            "docker volume create kept; docker run -d tiny sleep 600 | wc -l": "kept 1",
            # Docker decides the soft limit: 1,024 on Ubuntu 24.04.
            "docker run --rm tiny sh -c 'ulimit -Hn'": r"\d{5,}|unlimited",
        },
        {
            "docker ps -q | wc -l": "0",
            "docker image inspect -f ok tiny; docker volume ls -q": "ok kept",
        },
    ),
    "GPU": Row(unseen="QEMU has no GPU"),
    "Python": Row(
        {
            "python --version; python3 --version": r"(Python 3\.\d+\.\d+) \1",
            "python -m venv /tmp/venv && /tmp/venv/bin/pip --version | cut -c1-4": "pip ?",
            "printenv PIP_BREAK_SYSTEM_PACKAGES": "1",
            PIP: "tabulate /home/runner/.local/bin/tabulate",
        },
        {"python -c 'import tabulate; print(1)'": "1"},
    ),
    "tools": Row(
        {
            "git --version": "git version .*",
            "git lfs version": "git-lfs/.*",
            "git init -q lfs && cd lfs && git lfs install --local >&2 && git lfs track '*.bin'": (
                'Tracking "?.\\.bin"?'
            ),
            "curl --version | head -n1": r"curl \d.*",
            "echo zipped > z && python3 -m zipfile -c z.zip z && unzip -p z.zip": "zipped",
            "echo '{\"a\": [1, 2]}' | jq -c .a": r"\[1,2\]",
            "ldconfig -p | grep -o 'libicuuc[.]so[.][0-9]*' | head -n1": r"libicuuc\.so\.\d+",
        }
    ),
    "tool cache": Row(
        {"mkdir -p ../../_tool/Python && ls ../../_tool": "Python"},
        {"ls ../../_tool": "Python"},
    ),
    "locale, limits": Row(
        {
            "printenv LANG; python -c 'print(chr(252))'": r"C\.UTF-8 ü",
            "ulimit -n": "65536",
            OPEN: "10000",
        }
    ),
    "`PATH`": Row({"echo $PATH": r"/.*:/snap/bin:/home/runner/\.local/bin"}),
    "network": Row(
        {
            f"curl -so /dev/null -w '%{{http_code}}' http://{ADDRESS}:{WHEELS}/": "200",
            METADATA: ".*refused.*",
        }
    ),
    "package manager": Row(
        {
            "apt-config dump DPkg::Lock::Timeout": 'DPkg::Lock::Timeout "300";',
            f"systemctl is-active {UNITS}": "(inactive|unknown)( (inactive|unknown))*",
        }
    ),
}


def looks(later: bool) -> dict[str, tuple[str, str]]:
    """By name (row and number): a command and the pattern of its output."""
    return {
        f"{row.strip('`').replace(',', '')} {number}": look
        for row, promise in PROMISES.items()
        for number, look in enumerate((promise.later if later else promise.first).items())
    }


def broken(outputs: Mapping[str, str], later: bool) -> dict[str, tuple[str, str]]:
    """By name: the pattern and the output that it does not match."""
    return {
        name: (pattern, outputs.get(name, "nothing"))
        for name, (_, pattern) in looks(later).items()
        if not re.fullmatch(pattern, outputs.get(name, "nothing").strip())
    }


def rows(page: str) -> list[str]:
    """The first cells of the page's first table, below its heading."""
    table = page[page.index("\n| --- |") :].split("\n\n")[0].strip().splitlines()
    return [line.split("|")[1].strip() for line in table[1:]]
