# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lines of logs, as Dovecot's source has them, and what they are taken for."""

from __future__ import annotations

import pytest
from ansible_collections.nfsmail.cluster.plugins.module_utils._probes import matching_lines
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.errors import NfsmailError
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.log_signs import SIGNS, log_patterns

PATH = "/srv/mail/example.com/anna/Maildir/dovecot.index.log"
LINES = {
    f"fcntl({PATH}, write-lock, F_SETLKW) locking failed: No locks available": "no locks",
    f"fcntl({PATH}, write-lock, F_SETLKW) locking failed: Interrupted system call": "locks interrupted",
    f"fcntl({PATH}, write-lock, F_SETLKW) locking failed: Timed out after 180 seconds": "lock timed out",
    f"Timeout (180s) while waiting for lock for transaction log file {PATH} (WRITE lock held by pid 4)": "lock timed out",
    f"Timeout (180s) while waiting for dotlock for transaction log file {PATH}": "lock timed out",
    f"Dotlock was lost for transaction log file {PATH}": "lock lost",
    f"Our dotlock file {PATH}.lock was deleted (locked 3 secs ago)": "lock lost",
    f"dotlock {PATH}.lock was immediately recreated under us": "lock lost",
    f"Maildir uidlist dotlock overridden: {PATH}": "lock lost",
    f"Transaction log {PATH} was recreated while we had it locked - locking is broken (lock_method=fcntl)": "lock lost",
    "Time moved backwards by 4.000000 seconds.": "clock stepped",
    "Time just moved backwards by 9 seconds. This might cause a lot of problems, so I'll just kill myself now.": "clock stepped",
    f"Created dotlock file's timestamp is different than current time (1 vs 99): {PATH}": "clock differs",
    f"read({PATH}) failed: Stale file handle": "stale handles",
    f"Corrupted transaction log file {PATH} seq 3: indexid changed: 1 -> 2": "index damaged",
    f"Error: Transaction log {PATH}: Transaction log lost while it was open": "index damaged",
    f"Maildir {PATH}: Expunged message reappeared, giving a new UID (old uid=5)": "mail came back",
    f"dbox {PATH}: already exists, rebuilding index": "dbox damaged",
    f"Mailbox {PATH}: not mounted, aborting": "not mounted",
    f"mbox file {PATH}: Unexpectedly lost From-line at offset 5": "mbox damaged",
    "Time moved forward by 31.100000 seconds - adjusting timeouts.": "clock jumped ahead",
    "Time moved forward by 3.100000 seconds - adjusting timeouts.": "",
    "Time jumped forwards 12 seconds": "clock jumped ahead",
    f"Locking transaction log file {PATH} took 31 seconds": "slow locks",
    "child 156 returned error 83 (Out of memory (service auth { vsz_limit=256 MB }, you may need to increase it)": "too many users",
    "imap(anna@example.com)<7><x>: Disconnected: Logged out": "",
    "auth: Error: passwd-file(x): unknown user": "",
}


@pytest.mark.parametrize("line", LINES)
def test_a_line_is_taken_for_what_it_is(line: str) -> None:
    found = matching_lines(f"Error: {line}\n", log_patterns("backend"))
    assert list(found) == [LINES[line]] * bool(LINES[line])


def test_a_line_counts_once_and_the_last_is_kept() -> None:
    text = "a failed: Stale file handle\nx\nb failed: Stale NFS file handle\n"
    assert matching_lines(text, log_patterns("backend")) == {
        "stale handles": {"count": 2, "last": "b failed: Stale NFS file handle"}
    }


def test_a_proxy_has_its_own() -> None:
    assert set(matching_lines("Proxying loops to itself\nStale file handle\n", log_patterns("proxy"))) == {"proxy loop"}


def test_every_sign_is_whole_and_tried() -> None:
    assert len({sign.name for sign in SIGNS}) == len(SIGNS)
    assert {sign.name for sign in SIGNS} - {"proxy loop"} == set(LINES.values()) - {""}
    assert all(sign.what and sign.fix and sign.source and sign.level in ("error", "warning") for sign in SIGNS)
    with pytest.raises(NfsmailError, match="one of backend, proxy"):
        log_patterns("mail1")
