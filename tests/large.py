"""All that users may ask for at once, at its real size and as random as it really is: keys,
certificates, a script that does not compress to nothing."""

from __future__ import annotations

import base64
import random
import string
from datetime import UTC, datetime, timedelta
from functools import cache

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

PIPELINES = "https://pipelinesghubeus7.actions.githubusercontent.com"
BITS = 4096
SETTINGS = ["vm.max_map_count", "net.core.somaxconn", "fs.inotify.max_user_watches"]


def word(length: int, seed: str) -> str:
    """Letters and digits without any order; the same for the same seed."""
    return "".join(
        random.Random(f"{seed} {length}").choices(string.ascii_letters + string.digits, k=length)
    )


TOKEN = f"github_pat_{word(22, 'public')}_{word(59, 'secret')}"
"""A fine-grained token: 93 characters.
https://github.blog/engineering/platform-security/behind-githubs-new-authentication-token-formats/"""


@cache
def key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, BITS)


@cache
def certificate(name: str) -> str:
    """As a company's authority has it: a key of 4,096 bits, extensions, addresses of lists of
    revoked ones."""
    mine = rsa.generate_private_key(65537, BITS)
    names = [
        (NameOID.COUNTRY_NAME, "DE"),
        (NameOID.ORGANIZATION_NAME, "Octo Industries AG"),
        (NameOID.COMMON_NAME, f"Octo Industries {name} CA G2"),
    ]
    subject = x509.Name([x509.NameAttribute(kind, text) for kind, text in names])
    now = datetime(2026, 1, 1, tzinfo=UTC)
    lists = x509.CRLDistributionPoints(
        [
            x509.DistributionPoint(
                [x509.UniformResourceIdentifier(f"http://pki.octo.example/{word(8, name)}.crl")],
                None,
                None,
                None,
            )
        ]
    )
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(mine.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=3650))
        .add_extension(x509.BasicConstraints(ca=True, path_length=1), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(mine.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(key().public_key()), critical=False
        )
        .add_extension(lists, critical=False)
        .sign(mine, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.PEM).decode()


def block(size: int, seed: str) -> str:
    """What has the form of a certificate, of so many bytes."""
    inside = base64.encodebytes(random.Random(seed).randbytes(size)).decode()
    return f"-----BEGIN CERTIFICATE-----\n{inside}-----END CERTIFICATE-----\n"


def private_key() -> str:
    """What people give as `cloud-ssh-private`."""
    form = serialization.PrivateFormat.OpenSSH
    return (
        key().private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()
    )


def script(size: int = 8192) -> str:
    """Ordinary shell: packages, mounts, downloads with their checksums, settings; no line twice."""
    chance = random.Random("script")
    lines = [
        "#!/bin/bash",
        "set -euo pipefail",
        "export DEBIAN_FRONTEND=noninteractive",
        "apt-get update",
    ]
    tools = [
        "cmake",
        "ninja-build",
        "libopenblas-dev",
        "ffmpeg",
        "libsndfile1",
        "graphviz",
        "nfs-common",
        "unzip",
        "jq",
        "tmux",
    ]
    tools += ["htop", "sysstat", "libgl1", "protobuf-compiler", "zstd"]
    while len("\n".join(lines)) < size:
        number, digest = len(lines), "".join(chance.choices("0123456789abcdef", k=64))
        name, tool = word(9, str(number)).lower(), chance.choice(tools)
        version = f"{chance.randint(0, 9)}.{chance.randint(0, 30)}.{chance.randint(0, 99)}"
        lines += chance.choice(
            [
                [f"apt-get install --yes --no-install-recommends {tool}"],
                [
                    (
                        "curl -fsSL"
                        f" https://artifacts.octo.example/{name}/{version}/{name}-linux.tar.gz -o"
                        f" /tmp/{name}.tar.gz"
                    ),
                    f"echo '{digest}  /tmp/{name}.tar.gz' | sha256sum --check",
                    f"tar -xzf /tmp/{name}.tar.gz -C /opt",
                ],
                [
                    (
                        f"mkdir -p /mnt/{name} && mount -t nfs4 -o nfsvers=4.1"
                        f" fs-{digest[:17]}.efs.us-west-1.amazonaws.com:/ /mnt/{name}"
                    )
                ],
                [
                    (
                        'for user in runner ubuntu; do usermod -aG video "$user" || echo "no $user'
                        f' ({number})"; done'
                    )
                ],
                [(f"sysctl -w {chance.choice(SETTINGS)}={chance.randint(1000, 999999)}")],
                [f"# {name}: see https://wiki.octo.example/display/ML/{number}-{tool}"],
            ]
        )
    return "\n".join(lines)[:size] + "\n"


SCRIPT = script()
CERTIFICATES = certificate("Root") + certificate("Issuing")
LABELS = ",".join(f"{word(12, str(number)).lower()}-{number}" for number in range(20))
EVERYTHING = {
    "repo": "https://github.com/octo-industries/train-large-models",
    "single": "true",
    "name": f"n{word(49, 'name').lower()}",
    "labels": LABELS,
    "https_proxy": "http://build:secret-of-the-proxy@proxy.octo.example:3128",
    "ca_certificates": CERTIFICATES,
    "cloud_ssh_private": private_key(),
    "cloud_startup_script": SCRIPT,
}
