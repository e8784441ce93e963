# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shared mailboxes with Dovecot itself: who may sees and reads them, nobody else does; topology single."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.dialect import from_doveconf
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.dovecot_conf import backend_conf
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.matrix import written_findings
from single import BAD_NEWS, LOCAL, USERS, Single

ANNA, BOB, DORA = USERS
SHARED = f"shared/{ANNA}/Lists/Deep"
ASKED = {
    "nfsmail_acl": True,
    "nfsmail_store_path": "/srv/mail",
    "nfsmail_mail_home": "/srv/mail/{domain}/{name}",
    "nfsmail_index_path": LOCAL,
}
FILL = f"""
for m in Lists/Deep Other; do doveadm mailbox create -u {ANNA} -s $m; done
for m in INBOX Lists/Deep Other; do printf 'Subject: of %s\\n\\nhello\\n' $m | doveadm save -u {ANNA} -m $m; done
"""
# Each takes time; the others were seen once.
TESTED = {
    "2.3.13": [("maildir", "")],
    "2.3.19": [("maildir", LOCAL)],
    "2.4.1": [("maildir", ""), ("mbox", ""), ("mdbox", LOCAL)],
}


@pytest.fixture(autouse=True)
def asked(single: Single) -> Iterator[None]:
    single.cluster = ASKED
    yield
    single.cluster = {}


def mailboxes(single: Single, user: str) -> list[str]:
    return sorted(line.rpartition(' "/" ')[2] for line in single.imap(user, 'LIST "" *') if line.startswith("* LIST"))


@pytest.mark.parametrize(("format", "index"), [("maildir", ""), ("maildir", LOCAL), ("mbox", ""), ("mdbox", LOCAL)])
def test_a_folder_is_shared_with_whom_it_is_for(single: Single, format: str, index: str) -> None:
    if (format, index) not in TESTED[single.version]:
        pytest.skip("as another release")
    single.empty(format, index)
    single.sh(f"set -e; {FILL}")
    assert mailboxes(single, BOB) == ["INBOX"]
    assert "1 OK Setacl complete" in single.imap(ANNA, f"SETACL Lists/Deep {BOB} lrs")

    # He sees it, reads it, and has read it for himself; no more than he may.
    assert mailboxes(single, BOB) == ["INBOX", "shared", f"shared/{ANNA}", SHARED]
    said = single.imap(
        BOB,
        f"SELECT {SHARED}",
        "FETCH 1 BODY[]",
        "STORE 1 +FLAGS (\\Deleted)",
        "EXPUNGE",
        f"MYRIGHTS {SHARED}",
        f"SETACL {SHARED} {DORA} lr",
        f"SELECT shared/{ANNA}/INBOX",
        f"SELECT shared/{ANNA}/Other",
    )
    assert "Subject: of Lists/Deep" in said and f"* MYRIGHTS {SHARED} lrs" in said, said
    refused = [line.split(" ", 1)[0] for line in said if line[2:5] == "NO "]
    assert refused[-3:] == ["6", "7", "8"], said
    flags = {
        user: single.imap(user, f"SELECT {box}", "FETCH 1 FLAGS") for user, box in ((BOB, SHARED), (ANNA, "Lists/Deep"))
    }
    assert any("FETCH (FLAGS (\\Seen" in line for line in flags[BOB]), flags
    assert any("FETCH (FLAGS ()" in line or "FETCH (FLAGS (\\Recent" in line for line in flags[ANNA]), flags

    # Nobody else does; nor does he, once it is taken back.
    assert mailboxes(single, DORA) == ["INBOX"]
    assert [line[:4] for line in single.imap(DORA, f"SELECT {SHARED}", f"STATUS {SHARED} (MESSAGES)")] == [
        "1 NO",
        "2 NO",
    ]
    assert "1 OK Deleteacl complete" in single.imap(ANNA, f"DELETEACL Lists/Deep {BOB}")
    assert mailboxes(single, BOB) == ["INBOX"]
    assert single.imap(BOB, f"SELECT {SHARED}")[0].startswith("1 NO ")
    assert single.sh("ls /srv/mail/.nfsmail").split() == ["shared-mailboxes"]
    log = single.sh("cat /tmp/log")
    assert not BAD_NEWS.search(log), log


def test_folders_of_maildir_stay_when_sharing_begins(single: Single) -> None:
    if single.version == "2.3.13":
        pytest.skip("as 2.3.19")
    single.cluster = {}
    single.empty("maildir")
    single.sh(f"set -e; {FILL}".replace("Lists/Deep", "Lists.Deep"))
    before = single.imap(ANNA, 'LSUB "" *', "STATUS Lists.Deep (MESSAGES UIDVALIDITY UIDNEXT)")
    single.cluster = ASKED
    single.configure("", "doveadm reload")
    after = single.imap(ANNA, 'LSUB "" *', "STATUS Lists/Deep (MESSAGES UIDVALIDITY UIDNEXT)")
    assert sorted(line.replace("Lists.Deep", "Lists/Deep").replace('"."', '"/"') for line in before) == sorted(after)
    assert any("MESSAGES 1" in line for line in after)


def test_what_the_matrix_refuses_does_not_work(single: Single) -> None:
    """NFS466: mbox with its indexes elsewhere."""
    if single.version == "2.3.13":
        pytest.skip("as 2.3.19")
    single.empty("mbox", LOCAL)
    found = written_findings(from_doveconf(backend_conf(single.plan(LOCAL))), single.plan(LOCAL)["profile"])
    assert [row["id"] for row in found] == ["NFS466"]
    single.sh(f"set -e; {FILL}")
    assert single.imap(ANNA, f"SETACL Lists/Deep {BOB} lr")[0].startswith("1 NO ")
    assert "dovecot-acl) failed: No such file or directory" in single.sh(
        f"/usr/lib/dovecot/imap -u {ANNA} 2>&1", f"1 SETACL Lists/Deep {BOB} lr\r\n2 LOGOUT\r\n"
    )
    single.sh("doveadm stop")


def test_all_features_together_are_accepted(single: Single) -> None:
    """In every plan of topology single that none of the rules refuses."""
    every = {
        **ASKED,
        "nfsmail_protocols": ["imap", "lmtp"],
        "nfsmail_fts": True,
        "nfsmail_fts_languages": ["en", "de"],
        "nfsmail_quota": "1G",
        "nfsmail_sieve": True,
        "nfsmail_sieve_before": [{"name": "spam", "script": "keep;"}],
    }
    for format in ("maildir", "mbox", "sdbox", "mdbox"):
        single.format, single.cluster = format, every
        for index in ("", LOCAL):
            said = single.sh("cat >/tmp/all; doveconf -c /tmp/all -n 2>&1 >/dev/null", backend_conf(single.plan(index)))
            assert said == "", said
