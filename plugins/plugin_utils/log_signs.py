# Copyright: (c) 2026, the nfsmail.cluster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Lines of Dovecot's log that betray trouble with NFS, clocks or locks: what each means, and the way out.

Patterns are regular expressions that Python and PCRE read alike. The texts are those of Dovecot 2.3.19 to 2.4.4.
"""

from __future__ import annotations

from dataclasses import dataclass

from .errors import NfsmailError, Problem

SOURCE = "Dovecot source, 2.3.19.1 to 2.4.4"


@dataclass(frozen=True)
class Sign:
    """``name``: stable; ``pattern``: finds the line; ``what``: what it means; ``fix``: the way out; ``on``: whose log."""

    name: str
    pattern: str
    what: str
    fix: str
    level: str = "error"
    source: str = SOURCE
    on: tuple[str, ...] = ("backend",)


# A line counts for the first that matches.
SIGNS: tuple[Sign, ...] = (
    Sign(
        "no locks",
        r"locking failed: No locks available",
        "the NFS server grants no locks",
        "see NFS309 and NFS310; look at lockd and statd on both machines",
    ),
    Sign(
        "locks interrupted",
        r"locking failed: Interrupted system call",
        "waiting for a lock was interrupted; seen with Dovecot 2.4.5 only",
        "use 2.4.4 until it is known why",
        source="dovecot/docker issue 51",
    ),
    Sign(
        "lock timed out",
        r"Timeout \(\d+s\) while waiting for (lock|dotlock) for transaction log|locking failed: Timed out after"
        r"|Timeout waiting for subscription file lock",
        "a mailbox stayed locked for minutes",
        "find the holder: lsof on each backend; a machine that hangs on the NFS server keeps its locks",
    ),
    Sign(
        "lock lost",
        r"Dotlock was lost for|dotlock file .* was (deleted|overridden|modified)|dotlock .* was immediately (deleted|recreated)"
        r"|uidlist dotlock overridden|locking is broken",
        "two machines held one lock, or a clock was wrong",
        "see NFS302 (host names), NFS306 and NFS307 (clocks), and NFS327 (a user on two backends)",
    ),
    Sign(
        "clock stepped",
        r"Time (just )?moved backwards",
        "the clock went back; Dovecot stops mail processes for it",
        "let the time daemon slew, not step, once the machine is up: see NFS308",
        on=("backend", "proxy"),
    ),
    Sign(
        "clock differs",
        r"Created dotlock file's timestamp is different than current time",
        "the clocks of this machine and of the NFS server differ by more than 30 s",
        "see NFS306 and NFS307",
    ),
    Sign(
        "stale handles",
        r"Stale (NFS )?file handle",
        "a file went away under Dovecot, by another machine or with the export",
        "see NFS327 (a user on two backends); an export that was made anew wants its clients to mount again",
    ),
    Sign(
        "index damaged",
        r"Corrupted (index file|transaction log file|mailbox list index)|Failed to rebuild mailbox list index|fscking index file"
        r"|Lost log for seq=|Missing middle file seq=|Unexpected transaction log desync|log file shrank"
        r"|file unexpectedly (replaced|deleted)|indexid changed|duplicate transaction log sequence"
        r"|Transaction log .*(lost while it was open|was recreated while)",
        "two machines wrote one index, or a write was lost",
        "see NFS327 and NFS311; Dovecot makes the index anew by itself",
    ),
    Sign(
        "mail came back",
        r"Expunged message reappeared|Duplicate file entry at line|next_uid was lowered|UIDVALIDITY changed"
        r"|Expunged GUID mismatch|Broken or unexpectedly changed file",
        "a machine worked with an old view of the mailbox",
        "see NFS327 and NFS304 (attribute cache)",
    ),
    Sign(
        "dbox damaged",
        r"Corrupted dbox file|map .* corrupted|Inconsistency in map index|refcount too low|already exists, rebuilding index",
        "two machines wrote one dbox mailbox, or its indexes are not shared",
        "see NFS327; dbox and local indexes on several backends do not go together",
    ),
    Sign("not mounted", r"not mounted, aborting", "the store was away", "see NFS303"),
    Sign(
        "mbox damaged",
        r"Unexpectedly lost From-line|file size unexpectedly shrank",
        "an mbox file was changed without the lock",
        "see NFS316, and what else writes mbox files",
    ),
    Sign(
        "clock jumped ahead",
        # Smaller ones come with every correction of the clock.
        r"Time (moved|jumped) forwards? (by )?\d{2,}",
        "the clock jumped ahead, or the machine stood still, for ten seconds or more",
        "harmless if it is rare and short; else look at the time daemon and the hypervisor",
        "warning",
    ),
    Sign(
        "slow locks",
        r"Locking transaction log file .* took \d+ seconds|Lock .* kept for|Scanning .* took \d+ seconds",
        "the NFS server is slow",
        "look at nfsiostat on this machine and at the server's disks",
        "warning",
    ),
    Sign(
        "too many users",
        r"Out of memory \(service auth ",
        "the file of users does not fit into the memory that Dovecot gives to logins: nobody can log in",
        "keep users in SQL or LDAP; for a while, more for `service auth`: `vsz_limit`",
        source="measured: 10 million users in a file, 2.3.19 and 2.4.1; a million fit into the default of 256 MB",
        on=("backend", "proxy"),
    ),
    Sign(
        "proxy loop",
        r"Proxying loops to itself",
        "a proxy is in its own map of backends",
        "take it out of the group of backends",
        on=("proxy",),
    ),
)


def log_patterns(kind: str) -> dict[str, str]:
    """Name to pattern, as ``host_state`` takes them; ``kind``: backend or proxy. Error: another kind."""
    kinds = sorted({name for sign in SIGNS for name in sign.on})
    if kind not in kinds:
        raise NfsmailError([Problem("kind", kind, f"one of {', '.join(kinds)}", "choose one", SOURCE)])
    return {sign.name: sign.pattern for sign in SIGNS if kind in sign.on}
