# shellcheck shell=dash
# What cloud-init runs as its first step with a network, at every boot.
#
# All that we bring is in it, since no better compression than gzip is known to cloud-init (bzip2
# saves 2 KiB of the 16 that AWS takes), and nothing of it is in an argument list; `enable` also
# makes systemd read the units. The agent's unit waits until cloud-init has made the job's user and
# trusts our certificates, which is when it lets the network be `online`; nothing here may wait for
# a unit, as they all wait for cloud-init. At later boots there is no agent any more: the timer,
# which is enabled, ends the machine. A kernel that panics starts again after 9 s, and does not hang.
#
# `units` are what upgrades packages on its own: it holds apt's locks in a machine's first minutes,
# and replaces libraries and drivers under a job. https://wiki.debian.org/UnattendedUpgrades; images
# of Fedora's kin have nothing of that kind switched on. They are stopped first, as what is masked
# before it starts is told as failed. Masked in /run: an image made from this machine has it again.
# A unit file in /etc would be before that mask, but none can be made over it in /etc either. Where
# there is no such unit, systemctl complains to nobody.
#
# apt waits for dpkg's locks; by itself it does not (apt.conf(5)). Not for the lock of its lists: two
# `apt-get update` at once fail as before. The shell writes that setting, since apt wants everybody
# to be able to read it.
cd /
echo 9 >/proc/sys/kernel/panic
{ units='apt-daily.timer apt-daily.service apt-daily-upgrade.timer apt-daily-upgrade.service unattended-upgrades.service'
# shellcheck disable=SC2086 # several words
systemctl stop --no-block $units
# shellcheck disable=SC2086 # several words
systemctl mask --runtime $units
echo 'DPkg::Lock::Timeout 300;'>etc/apt/apt.conf.d/99cml-runner
} 2>/dev/null
if [ ! -e var/lib/cml-runner/spec.json ]; then
python3 - <<'END'
import base64,bz2,os
parts=iter(bz2.decompress(base64.b64decode('@FILES@')).decode().split('\0'))
for path,text in zip(parts,parts):
 os.makedirs(os.path.dirname(path),exist_ok=True)
 with open(os.open(path,os.O_CREAT|os.O_WRONLY,0o644 if 'systemd' in path else 0o700),'w') as file:file.write(text@NAMED@)
END
systemctl enable cml-runner-watchdog.timer
systemctl start --no-block cml-runner.service cml-runner-watchdog.timer
fi
systemctl start --no-block cml-runner-wipe.service
