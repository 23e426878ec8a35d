# shellcheck shell=dash
# Installs what jobs expect of a machine and its image lacks: Docker, Git, pip and a few small tools.
# The agent runs it as root, beside the download of the runner program and before it registers:
# GitHub starts a job's containers before any hook of the job. Nothing is downloaded if nothing is
# missing. What is judged in the end is whether Docker works, not what the package manager returned:
# an image that it has made of nothing must come as far as the start of a program, which the image
# does not have. `docker info` would not do: on Debian 11 without apparmor, which docker.io only
# recommends there, it is content, and no container starts where the kernel has AppArmor. Nor would
# the exit code of `docker run`, which is 127 in both cases.
#
# cloud-init configures apt's sources in cloud-config.service; `systemctl start` of a unit that is
# about to start waits for it. The agent's unit runs /usr/bin/python3, so there is one. Packages that
# an archive does not have are skipped: Debian 13 has Docker's client in a package of its own, Debian
# 12 has no buildx. ICU, which .NET and so actions/runner needs
# (https://github.com/actions/runner/blob/main/docs/start/envlinux.md), has its version in the name
# of its package.
#
# Lines between `#{` and `#}` are for images that the user chose: the default ones have apt, and on
# GPU machines Docker with NVIDIA's container toolkit. Amazon Linux calls Docker `docker`, Fedora
# `moby-engine`. The toolkit comes from NVIDIA's own archive:
# https://docs.nvidia.com/datacenter/cloud-native/container-toolkit/latest/install-guide.html
# Exit codes: 1 Docker does not work; 3 something is missing, but Docker, if it is wanted, works, or
# the image has no known package manager.
docker="@DOCKER@"
export DEBIAN_FRONTEND=noninteractive
has(){ command -v "$1" >/dev/null;}
code=0
for tool in git git-lfs curl unzip jq
do has $tool||need="$need $tool"
done
has pip3||need="$need python3-pip python3-venv"
[ ! "$docker" ]||has docker||need="$need $docker"
has python||ln -s /usr/bin/python3 ../../../usr/local/bin/python
#{
fetch(){ python3 -c 'import sys,urllib.request as u;u.urlretrieve(*sys.argv[1:])' https://nvidia.github.io/libnvidia-container/"$1" "$2";}
gpu=
if [ "$docker" ]&&grep -qs 0x10de /sys/bus/pci/devices/*/vendor&&! has nvidia-ctk
then gpu=1
need="$need nvidia-container-toolkit"
fi
list=/etc/apt/sources.list.d/nvidia-container-toolkit
ldconfig -p|grep -q libicuuc||need="$need libicu"
if [ "$need" ]&&! has apt-get
then if ! has dnf
then echo "neither apt-get nor dnf, so these stay missing:$need"
exit 3
fi
[ ! $gpu ]||fetch stable/rpm/nvidia-container-toolkit.repo /etc/yum.repos.d/nvidia-container-toolkit.repo
# shellcheck disable=SC2086 # several words
dnf install -qy --setopt=strict=0 --setopt=install_weak_deps=0 $need docker moby-engine||code=3
systemctl enable -q --now docker
need=
fi
#}
if [ "$need" ]
then timeout 60 systemctl start cloud-config.service 2>/dev/null
#{
if [ $gpu ]
then fetch gpgkey $list.asc
echo "deb [signed-by=$list.asc] https://nvidia.github.io/libnvidia-container/stable/deb/\$(ARCH) /">$list.list
fi
#}
apt-get update -qq
for name in $need $(apt-cache pkgnames libicu|grep -x 'libicu[0-9]*')
do apt-cache show "$name" >/dev/null 2>&1&&have="$have $name"
done
# shellcheck disable=SC2086 # several words
apt-get install -qqy --no-install-recommends $have||code=3
fi
#{
[ ! $gpu ]||{ nvidia-ctk runtime configure --runtime=docker&&systemctl restart docker;}
#}
if [ "$docker" ]
then empty=$(tar cT /dev/null|docker import -)||exit 1
docker run --rm "$empty" /nothing>out 2>&1
docker rmi -f "$empty">/dev/null
grep -q /nothing out||{ cat out
exit 1
}
fi
exit $code
