"""What a job tries against the closed addresses from inside a machine: by several users, and as
containers do, whose packets pass the machine by.

The startup script sets up a network in which every such address answers on every port. It runs
before the wall is closed, so that users and containers show that they reach all of it until then:
what is refused afterwards is refused by the wall."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping

SERVICES = ("169.254.169.254", "168.63.129.16", "fd00:ec2::254", "fd20:ce::254")
"""The metadata services, and Azure's wire server: those of `agent/room.SERVICES`, which
`tests/agent/test_room.py` holds this list to. TCP port 80 of the first is the lab's own, which the
agent asks; all else answers inside the machine."""
MAPPED = tuple(f"::ffff:{address}" for address in SERVICES if ":" not in address)
"""The same through sockets of IPv6: RFC 4291, section 2.5.5.2."""
OTHERS = ("198.51.100.2", "fd00:77::1")
"""RFC 5737 and RFC 4193: whoever may ask anybody may ask these."""
CLOSED = (80, 443, 8080, 32526, 65535)
OPEN = (53, 67, 123)
"""Name service, DHCP and time."""

SERVER = f"""import selectors, socket
chosen = selectors.DefaultSelector()
for port in {(*CLOSED, *OPEN)}:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        for address in {SERVICES + OTHERS}:
            # Each by itself: who asks one address by UDP takes no answer from another.
            made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind((address, port))
            if kind == socket.SOCK_STREAM:
                made.listen(64)
            chosen.register(made, selectors.EVENT_READ)
open("/run/cloud-answers", "w").close()
while True:
    for key, _ in chosen.select():
        if key.fileobj.type == socket.SOCK_STREAM:
            caller, _ = key.fileobj.accept()
            caller.sendall(b"here")
            caller.close()
        else:
            _, whose = key.fileobj.recvfrom(99)
            key.fileobj.sendto(b"here", whose)
"""

PROBE = f"""#!/usr/bin/python3
import itertools, socket, threading
found, lock = [], threading.Lock()
def ask(kind, address, port):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
    made.settimeout(20)
    try:
        made.connect((address, port))
        if kind == "udp":
            made.send(b"there?")
        if kind == "udp" or port != 80 or not address.endswith("169.254.169.254"):
            made.recv(9)  # the lab's service waits for a question
    except OSError:
        return
    with lock:
        found.append("%s %s %d" % (kind, address, port))
asked = itertools.product(("tcp", "udp"), {SERVICES + MAPPED + OTHERS}, {CLOSED + OPEN})
threads = [threading.Thread(target=ask, args=one) for one in asked]
[one.start() for one in threads]
[one.join() for one in threads]
print(", ".join(sorted(found)))
"""

LOOK = """#!/bin/sh
cd /var/tmp
/usr/local/bin/probe > $1-root &
runuser -u mallory -- /usr/local/bin/probe > $1-another &
ip netns exec box /usr/local/bin/probe > $1-container &
wait
touch $1-done
"""
"""What it takes root to try, into a file each. The container is root there."""

SCRIPT = f"""#!/bin/sh
set -e
sysctl -q net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
join() {{ # namespace, its addresses, those of the machine, which has a bridge there as Docker has
  ip netns add $1
  ip link add $1-bridge type bridge
  ip link add $1-out master $1-bridge type veth peer name $1-in netns $1
  ip addr add $3 dev $1-bridge
  ip addr add $5 dev $1-bridge nodad
  ip link set $1-bridge up
  ip link set $1-out up
  ip -n $1 addr add $2 dev $1-in
  ip -n $1 addr add $4 dev $1-in nodad
  ip -n $1 link set $1-in up
  ip -n $1 link set lo up
  ip -n $1 route add default via ${{3%/*}}
  ip -n $1 -6 route add default via ${{5%/*}}
}}
join cloud 198.51.100.2/24 198.51.100.1/24 fd00:77::1/64 fd00:77::2/64
join box 203.0.113.2/24 203.0.113.1/24 fd00:88::1/64 fd00:88::2/64
nft -f - <<'END'
table inet docker {{ chain nat {{ type nat hook postrouting priority 100;
ip saddr 203.0.113.0/24 oifname != "box-bridge" masquerade
ip6 saddr fd00:88::/64 oifname != "box-bridge" masquerade
}}
}}
END
ip rule add pref 100 to {SERVICES[0]} ipproto 6 dport 80 lookup main  # TCP; no /etc/protocols
for address in {" ".join(SERVICES)}; do
  case $address in
  *:*) ip -n cloud addr add $address/128 dev lo nodad
       ip -6 route add $address/128 via fd00:77::1;;
  *)   ip -n cloud addr add $address/32 dev lo
       ip rule add pref 101 to $address lookup 77
       ip route add $address/32 via 198.51.100.2 table 77;;
  esac
done
cat > /usr/local/bin/cloud-server <<'END'
{SERVER}END
cat > /usr/local/bin/probe <<'END'
{PROBE}END
cat > /usr/local/bin/look <<'END'
{LOOK}END
chmod 755 /usr/local/bin/probe /usr/local/bin/look
useradd --create-home mallory
systemd-run --no-block ip netns exec cloud python3 /usr/local/bin/cloud-server
until [ -e /run/cloud-answers ]; do sleep 1; done
/usr/local/bin/look before
systemd-run --no-block sh -c \\
  'until [ -e /var/tmp/now ]; do sleep 1; done; /usr/local/bin/look after'
"""

PATH = "/walls"
STARTUP = f"""#!/bin/sh
set -e
python3 -c 'import urllib.request as u
print(u.urlopen("http://{SERVICES[0]}{PATH}").read().decode())' > /run/walls
sh /run/walls
"""
"""Fetches `SCRIPT` from the lab's metadata service, so that the user data keeps the size it has for
users, and with it the agent."""

LOOKS = {
    "before-root": "cat /var/tmp/before-root",
    "before-another": "cat /var/tmp/before-another",
    "before-container": "cat /var/tmp/before-container",
    "after-root": (
        "touch /var/tmp/now; until [ -e /var/tmp/after-done ]; do sleep 1; done;"
        " cat /var/tmp/after-root"
    ),
    "after-another": "cat /var/tmp/after-another",
    "after-container": "cat /var/tmp/after-container",
    "after-job": "probe",
    # Root only in a user namespace of its own, which any user may make.
    "after-root-of-its-own": "unshare --user --map-root-user probe",
}
"""Of any job: some of it a service of root's does when the job asks."""
LOOKS_BY_SUDO = {
    **LOOKS,
    "after-root-by-sudo": "sudo probe",
    "after-user-of-the-job": "sudo useradd eve; sudo -u eve probe",
}
MAY = ("before-root", "before-another", "before-container", "after-root", "after-root-by-sudo")
"""Before, everybody; afterwards root alone, who is thereby known to find it all still there."""


def _reached(addresses: tuple[str, ...], ports: tuple[int, ...]) -> set[str]:
    asked = itertools.product(("tcp", "udp"), addresses, ports)
    return {f"{kind} {address} {port}" for kind, address, port in asked}


EVERYTHING = _reached(SERVICES + MAPPED + OTHERS, CLOSED + OPEN)
WALLED = _reached(OTHERS, CLOSED + OPEN) | _reached(SERVICES + MAPPED, OPEN)


def wrong(told: Mapping[str, str], looks: Iterable[str]) -> str:
    """By look, a line each: what was reached and must not be, and what was not reached and may
    be. Empty if the wall is as it should be."""
    found = []
    for name in looks:
        seen = set(filter(None, told.get(name, "").split(", ")))
        may = EVERYTHING if name in MAY else WALLED
        if seen != may:
            found.append(f"{name}: open {sorted(seen - may)}, shut {sorted(may - seen)}")
    return "\n".join(found)
