# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which locks go to the volatile directory, and what Dovecot does where it cannot be made."""

from __future__ import annotations

import re

import pytest
from single import Single

ANNA, HOME, PLACE = "anna@example.com", "/srv/mail/example.com/anna", "/run/nfsmail-volatile"
AT_START = f"install -d -o 5000 -g 5001 -m 0700 {PLACE}"
DELIVER = "import smtplib; smtplib.LMTP('127.0.0.1', 24).sendmail('a@lab.invalid', '%s', 'Message-ID: <1@x>\\r\\n\\r\\nhi\\r\\n')"
# Folders, sizes (the quota counts them), the end of a session, a delivery with a script that asks for duplicates.
WORK = f"""
doveadm mailbox create -u {ANNA} One && doveadm mailbox rename -u {ANNA} One Two && doveadm mailbox delete -u {ANNA} Two
printf '1 LOGOUT\\r\\n' | /usr/lib/dovecot/imap -u {ANNA}
python3 -c "{DELIVER % ANNA}"
"""
SCRIPT = 'require "duplicate";\nif duplicate { discard; }\n'


def locks(single: Single) -> tuple[set[str], set[str]]:
    """Which of these locks a user's everyday makes on the store, and in the volatile directory."""
    # The user's own directory first, to be watched.
    single.sh(f"doveadm mailbox create -u {ANNA} First; mkdir -p {PLACE}")
    made = single.sh(f'exec python3 /tests/made.py "$WORK" {HOME} {PLACE}', WORK=WORK)
    pattern = re.compile(
        r"(.*)/(mailboxes\.lock|dovecot-vsize\.lock|dovecot\.autoexpunge\.lock|\.dovecot\.lda-dupes\.locks)"
    )
    found = [match for match in map(pattern.match, made.splitlines()) if match]
    assert found, made
    store = {one[2] for one in found if one[1].startswith(HOME)}
    return store, {one[2] for one in found if one[1] == f"{PLACE}/example.com/anna"}


def begin(single: Single, **more: object) -> None:
    """Anna has mail; her Trash is emptied by age."""
    sieve = single.version != "2.3.13"
    single.cluster = {"nfsmail_quota": "1G", "nfsmail_sieve": sieve}
    single.more = {"extra_settings": {"namespace inbox": {"mailbox Trash": {"autoexpunge": "1d"}}}, **more}
    single.empty("maildir")
    single.sh(f"rm -rf {PLACE}; {AT_START}; : >/tmp/log; printf 'Subject: x\n\nhi\n' | doveadm save -u {ANNA}")
    single.sh(f"install -o 5000 -g 5001 /dev/stdin {HOME}/.dovecot.sieve", SCRIPT)


def test_which_locks_go_there(single: Single) -> None:
    all_of_them = {"mailboxes.lock", "dovecot-vsize.lock", "dovecot.autoexpunge.lock"}
    if single.version != "2.3.13":  # Debian 11's archive has no Sieve; the directory has these since 2.3.17
        all_of_them |= {".dovecot.lda-dupes.locks"}
    begin(single)
    assert locks(single) == (all_of_them, set())
    begin(single, volatile_path=f"{PLACE}/{{domain}}/{{name}}")
    assert single.sh(f"stat -c '%a %u %g' {PLACE}/example.com {PLACE}/example.com/anna") == "700 5000 5001\n" * 2
    assert locks(single) == (set(), all_of_them)
    # Nothing but an empty directory is left behind.
    assert single.sh(f"find {PLACE} -type f") == ""
    assert "Error" not in single.sh("cat /tmp/log")


def test_where_it_cannot_be_made(single: Single) -> None:
    """As after a boot without the directory of all users: why Dovecot's unit makes it at each start."""
    begin(single, volatile_path=f"{PLACE}/{{domain}}/{{name}}")
    made = f"doveadm mailbox create -u {ANNA} New"
    single.sh(f"rm -rf {PLACE}")
    with pytest.raises(
        AssertionError, match=r"mkdir_parents\(/run/nfsmail-volatile/example.com/anna\) failed: Permission denied"
    ):
        single.sh(made)
    single.sh(f"{AT_START}; {made}")
    # NFS441: a lock that is a lock file does not make its directory.
    single.profile = {"nfs_version": "3", "lockd": False}
    single.configure("", f"rm -rf {PLACE}/example.com; doveadm reload")
    with pytest.raises(
        AssertionError, match=r"file_dotlock_create\(\S+/mailboxes.lock\S+ failed: No such file or directory"
    ):
        single.sh(f"doveadm mailbox create -u {ANNA} Newer")
