# shellcheck shell=dash
# cloud-init runs this script at each boot, as its first step with a network.
#
# It contains all files that a launch adds, since cloud-init supports no compression better than gzip
# (bzip2 saves 2 KiB of the 16 that AWS allows); nothing of them is in an argument list. `enable`
# also makes systemd read the new units. The agent's unit waits until the network is `online`, which
# cloud-init allows once it has created the job user and trusts the user's certificates. Nothing
# here may wait for a unit, as all units wait for cloud-init. After a kernel panic the machine reboots
# in 9 s and does not hang.
#
# A disk may come from an image that was made of another of these machines. So what is on it counts
# only if the file with this instance's ID is there too; cloud-init passes the ID (cc_bootcmd). Else
# all of it is removed, without what is mounted in it. At later boots of the same instance no agent
# starts, and the check of its heartbeat ends the machine; should cloud-init not run, the enabled
# timer starts that check, late enough that cloud-init comes first on a new instance.
# https://docs.cloud-init.io/en/latest/reference/modules.html#bootcmd
#
# `units` are those that upgrade packages by themselves: they hold apt's locks in the first minutes
# of a machine, and replace libraries and drivers under a job.
# https://wiki.debian.org/UnattendedUpgrades; images of the Fedora family enable nothing of that
# kind. They are stopped first, as a unit that is masked before it starts is reported as failed. The
# mask is in /run, so an image made from this machine does not keep it. A unit file in /etc would
# override that mask, but could not be masked in /etc either. Errors about units that do not exist
# are discarded.
#
# The setting makes apt wait for dpkg's locks, which it does not by default (apt.conf(5)). It does
# not wait for the lock of its lists: two `apt-get update` at the same time still fail. The file is
# written by the shell, as apt requires that everybody can read it.
cd /
echo 9 >/proc/sys/kernel/panic
{ units='apt-daily.timer apt-daily.service apt-daily-upgrade.timer apt-daily-upgrade.service unattended-upgrades.service'
# shellcheck disable=SC2086 # several words
systemctl stop --no-block $units
# shellcheck disable=SC2086 # several words
systemctl mask --runtime $units
echo 'DPkg::Lock::Timeout 300;'>etc/apt/apt.conf.d/99cml-runner
} 2>/dev/null
mark=var/lib/cml-runner/$INSTANCE_ID
if [ ! -e "$mark" ]; then
rm -rf --one-file-system var/lib/cml-runner etc/systemd/system/cml-runner*
python3 - <<'END'
import base64,bz2,os
parts=iter(bz2.decompress(base64.b64decode('@FILES@')).decode().split('\0'))
for path,text in zip(parts,parts):
 os.makedirs(os.path.dirname(path),exist_ok=True)
 with open(os.open(path,os.O_CREAT|os.O_WRONLY,0o644 if 'systemd' in path else 0o700),'w') as file:file.write(text@NAMED@)
END
systemctl enable cml-runner-watchdog.timer
systemctl start --no-block cml-runner.service cml-runner-watchdog.timer>"$mark"
fi
systemctl start --no-block cml-runner-wipe.service cml-runner-watchdog.service
