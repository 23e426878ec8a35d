#!/bin/sh
# Installs the tools of the jobs' image, on Ubuntu. The Dockerfile runs it for `runner` and `runner-gpu`.
set -eu
export DEBIAN_FRONTEND=noninteractive
apt-get update
apt-get install --yes --no-install-recommends \
  build-essential ca-certificates curl docker-buildx docker.io git git-lfs gnupg jq less libicu74 locales openssh-client pkg-config \
  python-is-python3 python3 python3-dev python3-pip python3-venv rsync sudo tini unzip wget xz-utils zip
python3 /tmp/image/programs.py install "$(dpkg --print-architecture)"
# A job's `pip install` only changes this container, which is discarded. Ubuntu would refuse it (PEP 668).
printf '[global]\nbreak-system-packages = true\n' > /etc/pip.conf
# Jobs are not root. The group gives the same power if Docker's socket is mounted into the container, and only then.
useradd --create-home --shell /bin/bash --groups docker runner
echo 'runner ALL=(ALL) NOPASSWD:ALL' > /etc/sudoers.d/runner
chmod 0440 /etc/sudoers.d/runner
rm -rf /var/lib/apt/lists/* /tmp/image /usr/bin/dockerd /usr/bin/containerd* /usr/sbin/runc /usr/bin/runc
