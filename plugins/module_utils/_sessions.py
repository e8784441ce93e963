# Copyright (c) 2026 nfsmail.cluster contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whose mailboxes are open on a backend, from what C(doveadm who) and the kernel's table of connections say.

This module util is PRIVATE to the collection; it can change without notice.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ansible_collections.nfsmail.cluster.plugins.module_utils._indexes import shard_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

ESTABLISHED = "01"


@dataclass(frozen=True)
class Session:
    """One connection of a user: protocol and process."""

    user: str
    protocol: str
    pid: int


def parse_who(text: str) -> list[Session]:
    """C(doveadm -f tab who -1): one line a connection; Dovecot 2.3 calls the protocol proto, 2.4 service."""
    lines = [line.split("\t") for line in text.splitlines() if line]
    if not lines:
        return []
    names = {name: place for place, name in enumerate(lines[0])}
    protocol = names.get("service", names.get("proto"))
    if "username" not in names or "pid" not in names or protocol is None:
        raise ValueError(f"doveadm who has other columns: {' '.join(lines[0])}")
    found = []
    for fields in lines[1:]:
        pid = fields[names["pid"]]
        found.append(Session(fields[names["username"]], fields[protocol], int(pid) if pid.isdigit() else 0))
    return found


def chosen(
    sessions: Iterable[Session],
    users: Collection[str] = (),
    shards: Collection[str] = (),
    pinned: Collection[str] = (),
    everybody: bool = False,
) -> list[Session]:
    """The sessions of these users, and of whoever is in these shards but not pinned. Capitals do not count."""
    wanted = {lower(user) for user in users}
    stay = {lower(user) for user in pinned}
    return [
        one
        for one in sessions
        if everybody
        or lower(one.user) in wanted
        or (shard_of(lower(one.user)) in shards and lower(one.user) not in stay)
    ]


def lower(user: str) -> str:
    """As Dovecot does it: ASCII letters only."""
    return "".join(char.lower() if "A" <= char <= "Z" else char for char in user)


def parse_connections(text: str, ports: Sequence[int]) -> dict[tuple[str, int], str]:
    """Connections to these local ports, as C(/proc/net/tcp) and C(tcp6) write them: the far end, and the socket's inode."""
    wanted = {f"{port:04X}" for port in ports}
    found = {}
    for line in text.splitlines()[1:]:
        fields = line.split()
        if len(fields) > 9 and fields[3] == ESTABLISHED and fields[1].rpartition(":")[2] in wanted:
            address, _, port = fields[2].rpartition(":")
            found[_address(address), int(port, 16)] = fields[9]
    return found


def _address(text: str) -> str:
    """The kernel writes each four bytes as one number of its own byte order."""
    words = [struct.pack("=I", int(text[start : start + 8], 16)) for start in range(0, len(text), 8)]
    return socket.inet_ntop(socket.AF_INET if len(words) == 1 else socket.AF_INET6, b"".join(words))
