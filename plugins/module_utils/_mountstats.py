# Copyright (c) 2026 nfsmail.cluster contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What an NFS client has asked of its server, as C(/proc/self/mountstats) counts it.

This module util is PRIVATE to the collection; it can change without notice.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ansible_collections.nfsmail.cluster.plugins.module_utils._mounts import NFS_TYPES, unescape

if TYPE_CHECKING:
    from collections.abc import Mapping

# The numbers of the events line, in the kernel's order (include/linux/nfs_iostat.h).
EVENTS = (
    "inode_revalidate",
    "dentry_revalidate",
    "data_invalidate",
    "attr_invalidate",
    "open",
    "lookup",
    "access",
    "update_page",
    "read_page",
    "read_pages",
    "write_page",
    "write_pages",
    "readdir",
    "setattr",
    "flush",
    "fsync",
    "lock",
    "release",
)
# NFSv3 locks go to another service, lockd, whose calls no file counts: one for each lock that a process takes or gives back.
LOCK_CALLS = "NLM_LOCK"


@dataclass(frozen=True)
class Counters:
    """Calls by operation, events by name, and bytes on the wire, since the mount was made."""

    calls: Mapping[str, int] = field(default_factory=dict)
    events: Mapping[str, int] = field(default_factory=dict)
    sent: int = 0
    received: int = 0

    def since(self, before: Counters) -> Counters:
        """What came to these after C(before); nothing that is zero."""
        return Counters(
            _difference(self.calls, before.calls),
            _difference(self.events, before.events),
            self.sent - before.sent,
            self.received - before.received,
        )


def parse(text: str, path: str) -> Counters | None:
    """The counters of the mount at a path; of stacked mounts the last one's. None where no NFS is mounted."""
    found: Counters | None = None
    for section in re.split(r"(?m)^device ", text):
        head = re.match(r"\S+ mounted on (\S+) with fstype (\S+)", section)
        if head and head[2] in NFS_TYPES and unescape(head[1]) == path:
            found = _counters(section)
    return found


def _counters(section: str) -> Counters:
    calls: dict[str, int] = {}
    sent = received = 0
    numbers = re.search(r"(?m)^\s*events:\s*(.*)$", section)
    events = dict(zip(EVENTS, map(int, numbers[1].split()), strict=False)) if numbers else {}
    for name, rest in re.findall(r"(?m)^\s*([A-Z_0-9]+): ([\d ]+)$", section.partition("per-op statistics")[2]):
        fields = [int(word) for word in rest.split()]
        if len(fields) >= 5:
            calls[name] = fields[0]
            sent, received = sent + fields[3], received + fields[4]
    if re.search(r"\bp/v: 100003/3\b", section) and not re.search(r"\b(nolock|local_lock=(?!none))", section):
        calls[LOCK_CALLS] = events.get("lock", 0)
    return Counters(calls, events, sent, received)


def _difference(after: Mapping[str, int], before: Mapping[str, int]) -> dict[str, int]:
    return {name: number - before.get(name, 0) for name, number in after.items() if number != before.get(name, 0)}
