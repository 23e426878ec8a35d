"""What a job tries against the closed addresses from inside a machine: by several users, and as
containers do, whose packets pass the machine by.

The startup script sets a network up behind which every such address answers on every port, so that
what is refused is refused by the machine, and root sees that it is there."""

from __future__ import annotations

SERVICES = ("168.63.129.16", "fd00:ec2::254", "fd20:ce::254")
"""Azure's wire server, and the metadata services of AWS and Google by IPv6
(`agent/room.SERVICES`). That of IPv4 is the lab's own: port 80 alone."""
METADATA = "tcp 169.254.169.254 80"
OTHERS = ("198.51.100.2", "fd00:77::1")
"""RFC 5737 and RFC 4193: whoever may ask anybody may ask these."""
CLOSED = (80, 443, 8080, 32526)
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
import socket, threading
found, lock = [], threading.Lock()
def ask(kind, address, port):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
    made.settimeout(20)
    try:
        made.connect((address, port))
        if kind == "udp":
            made.send(b"there?")
        if port != 80 or address != "169.254.169.254":
            made.recv(9)
    except OSError:
        return
    with lock:
        found.append("%s %s %d" % (kind, address, port))
asked = [(kind, address, port) for kind in ("tcp", "udp")
         for address in {SERVICES + OTHERS} for port in {(*CLOSED, *OPEN)}]
asked.append(("tcp", "169.254.169.254", 80))
threads = [threading.Thread(target=ask, args=one) for one in asked]
[one.start() for one in threads]
[one.join() for one in threads]
print(", ".join(sorted(found)))
"""

SCRIPT = f"""#!/bin/sh
set -e
sysctl -q net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
join() {{ # namespace, its addresses, those of the machine
  ip netns add $1
  ip link add $1-out type veth peer name $1-in netns $1
  ip addr add $3 dev $1-out
  ip addr add $5 dev $1-out nodad
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
for address in {" ".join(SERVICES)}; do
  case $address in
  *:*) ip -n cloud addr add $address/128 dev lo nodad
       ip -6 route add $address/128 via fd00:77::1;;
  *)   ip -n cloud addr add $address/32 dev lo
       ip route add $address/32 via 198.51.100.2;;
  esac
done
cat > /usr/local/bin/cloud-server <<'END'
{SERVER}END
cat > /usr/local/bin/probe <<'END'
{PROBE}END
chmod 755 /usr/local/bin/probe
useradd --create-home mallory
systemd-run --no-block ip netns exec cloud python3 /usr/local/bin/cloud-server
"""

LOOKS = {
    "of-root": "sudo probe",
    "of-the-job": "probe",
    "of-another": "sudo -u mallory probe",
    "of-a-container": "sudo ip netns exec box /usr/local/bin/probe",
}
"""Root sees all there is: by that it is known that the others were refused."""


def _reached(addresses: tuple[str, ...], ports: tuple[int, ...]) -> set[str]:
    return {
        f"{kind} {address} {port}"
        for kind in ("tcp", "udp")
        for address in addresses
        for port in ports
    }


EVERYTHING = _reached(SERVICES + OTHERS, CLOSED + OPEN) | {METADATA}
WALLED = _reached(OTHERS, CLOSED + OPEN) | _reached(SERVICES, OPEN)


def reached(told: str) -> set[str]:
    return set(filter(None, told.split(", ")))
