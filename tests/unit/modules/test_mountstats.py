# Copyright (c) 2026 nfsmail.cluster contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The kernel's counters of an NFS mount."""

from __future__ import annotations

from ansible_collections.nfsmail.cluster.plugins.module_utils import _mountstats

NUMBERS = "4 30 0 1 5 6 7 0 0 2 0 3 1 2 9 4 {lock} 5 0 0 0 0 0 0 0 0 0"
TEXT = """\
device proc mounted on /proc with fstype proc
device nfs1:/srv/mail mounted on /srv/my\\040mail with fstype nfs{four} statvers=1.1
\topts:\trw,vers={version},{options}
\tage:\t100
\tevents:\t{events}
\tbytes:\t1 2 0 0 3 4 0 1
\tRPC iostats version: 1.1  p/v: 100003/{major} (nfs)
\txprt:\ttcp 0 1 1 0 0 9 9 0 9 0 2 0 0
\tper-op statistics
\t        NULL: 1 1 0 44 24 0 0 0 0
\t     GETATTR: {getattr} 12 0 1000 2000 0 5 6 0
\t        READ: 3 3 0 300 9000 0 5 6 0
"""


def text(getattr: int = 12, lock: int = 8, version: str = "3", options: str = "local_lock=none") -> str:
    major, four = version[0], "4" if version[0] == "4" else ""
    words = {"getattr": getattr, "version": version, "options": options, "major": major, "four": four}
    return TEXT.format(events=NUMBERS.format(lock=lock), **words)


def test_calls_events_and_bytes() -> None:
    found = _mountstats.parse(text(), "/srv/my mail")
    assert found
    assert found.calls == {"NULL": 1, "GETATTR": 12, "READ": 3, "NLM_LOCK": 8}
    assert (found.events["inode_revalidate"], found.events["lock"], found.events["release"]) == (4, 8, 5)
    assert (found.sent, found.received) == (1344, 11024)
    assert _mountstats.parse(text(), "/srv/mail") is None and _mountstats.parse(text(), "/proc") is None


def test_locks_are_calls_of_their_own_with_nfsv3_only() -> None:
    for changes in ({"version": "4.2"}, {"options": "nolock"}, {"options": "local_lock=all"}):
        found = _mountstats.parse(text(**changes), "/srv/my mail")
        assert found and "NLM_LOCK" not in found.calls


def test_what_came_since() -> None:
    before, after = _mountstats.parse(text(), "/srv/my mail"), _mountstats.parse(text(20, 10), "/srv/my mail")
    assert before and after
    assert after.since(before).calls == {"GETATTR": 8, "NLM_LOCK": 2}
    assert after.since(_mountstats.Counters()).sent == 1344
