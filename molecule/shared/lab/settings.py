# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What makes one machine different from another of the same image: a few files, laid over the disk before systemd starts."""

from __future__ import annotations

import uuid
from pathlib import Path

from .config import Lab, Machine
from .cpio import Archive
from .ssh import Keys

WAN_NIC, LAN_NIC = 0, 1  # eth0: user-mode network with SSH from the host, eth1: the private LAN

KEEP_COMPILED = Path(__file__).with_name("keep_compiled.py")
# Where every Python of Debian looks.
PACKAGES = "usr/lib/python3/dist-packages"

WAN_NETWORK = """\
[Match]
MACAddress={mac}

[Network]
Address=10.0.2.15/24
Gateway=10.0.2.2
LinkLocalAddressing=no
IPv6AcceptRA=no
"""

# A multicast LAN hands each machine its own packets back, which IPv6 takes for a duplicate address.
LAN_NETWORK = """\
[Match]
MACAddress={mac}

[Network]
Address={address}/{prefix}
LinkLocalAddressing=no
IPv6AcceptRA=no
"""


def settings(lab: Lab, machine: Machine, keys: Keys) -> Archive:
    archive = Archive()
    archive.folder("/settings/root", mode=0o700)
    archive.folder("/settings/root/.ssh", mode=0o700)
    files = {
        "hostname": f"{machine.name}\n",
        "hosts": _hosts(lab),
        # Before the first boot, so that systemd does not enable every unit there is.
        "machine-id": f"{uuid.uuid5(uuid.NAMESPACE_DNS, f'{machine.name}.nfsmail.lab').hex}\n",
        "resolv.conf": "nameserver 10.0.2.3\n",
        "fstab": "".join(f"LABEL={disk.label} {disk.mount} ext4 defaults 0 0\n" for disk in machine.disks),
        "systemd/network/10-wan.network": WAN_NETWORK.format(mac=machine.mac(WAN_NIC)),
        "systemd/network/10-lan.network": LAN_NETWORK.format(
            mac=machine.mac(LAN_NIC), address=machine.address, prefix=lab.network.prefixlen
        ),
        "ssh/ssh_host_ed25519_key.pub": keys.host_public,
    }
    for path, content in files.items():
        archive.file(f"/settings/etc/{path}", content)
    archive.file(f"/settings/{PACKAGES}/nfsmail_lab.py", KEEP_COMPILED.read_bytes())
    archive.file(f"/settings/{PACKAGES}/nfsmail_lab.pth", "import nfsmail_lab\n")
    archive.file("/settings/etc/ssh/ssh_host_ed25519_key", keys.host_private, mode=0o600)
    archive.file("/settings/root/.ssh/authorized_keys", keys.user_public, mode=0o600)
    return archive


def _hosts(lab: Lab) -> str:
    """A machine's own name stands for its LAN address too, never for 127.0.1.1."""
    lines = ["127.0.0.1 localhost", "::1 localhost ip6-localhost ip6-loopback"]
    lines += [f"{machine.address} {machine.name}" for machine in lab.machines.values()]
    return "".join(f"{line}\n" for line in lines)
