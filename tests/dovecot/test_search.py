# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The index of words with Dovecot itself: it lies where the index files do, finds, comes back; and what rules say of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.dialect import from_doveconf
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.dovecot_conf import backend_conf
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.matrix import written_findings
from cluster import wait_for
from single import BAD_NEWS, LOCAL, START, USERS, Single

ANNA = USERS[0]
ASKED = {"nfsmail_fts": True, "nfsmail_fts_languages": ["en", "de"], "nfsmail_protocols": ["imap", "lmtp"]}
# Where the index is, by release.
PLACES = {"2.3.19": "xapian-indexes", "2.4.1": "fts-flatcurve"}
HOME, AWAY = "/srv/mail/example.com/anna", "/var/lib/nfsmail/index/example.com/anna"
DELIVER = "printf 'From: a@lab.invalid\\nSubject: s\\n\\n%s\\n' \"$TEXT\" | /usr/lib/dovecot/dovecot-lda -d " + ANNA


@pytest.fixture(autouse=True)
def asked(single: Single) -> Iterator[None]:
    if single.version not in PLACES:
        pytest.skip("Debian 11's archive is not sure to have the plugin")
    single.cluster = ASKED
    yield
    single.cluster = {}


def indexed(single: Single) -> list[str]:
    """The directories of the index that have words in them."""
    found = single.sh("find /srv/mail /var/lib/nfsmail -name postlist.glass").splitlines()
    return sorted({path.partition(f"/{PLACES[single.version]}/")[0] for path in found})


def search(single: Single, what: str) -> str:
    said = single.imap(ANNA, "SELECT INBOX", f"SEARCH {what}")
    lines = [line for line in said if line.startswith("* SEARCH")]
    assert lines, f"{said}\n{log(single)}"
    return lines[0].removeprefix("* SEARCH").strip()


def log(single: Single) -> str:
    return single.sh("cat /tmp/log")


@pytest.mark.parametrize(
    ("format", "index", "place"),
    [("maildir", "", f"{HOME}/Maildir"), ("maildir", LOCAL, AWAY), ("mdbox", "", f"{HOME}/mdbox")],
)
def test_words_are_found_in_the_index(single: Single, format: str, index: str, place: str) -> None:
    if (single.version == "2.4.1") == ((format, index) == ("maildir", "")):
        pytest.skip("as the other release")
    single.empty(format, index)
    for text in ("a zebra in the house", "nothing of that kind"):
        single.sh(DELIVER, TEXT=text)
    # As it comes in: nobody has searched yet.
    wait_for("mail is not indexed as it comes in", lambda: len(indexed(single)) == 1)
    (found,) = indexed(single)
    assert found.startswith(place), found
    assert search(single, "BODY zebra") == "1"
    assert search(single, "BODY lion") == ""
    # Not by reading the mail.
    single.sh(f"find {HOME} -path '*/cur/*' -o -path '*/new/*' -o -name 'm.*' | xargs sed -i 's/zebra/OTHER/'")
    assert search(single, "TEXT zebr") == "1"
    assert search(single, "BODY other") == ""
    # Lost, as on a backend that the user is new to: the first search has it made anew, of what the mail says now.
    single.sh(f"rm -r {found}/{PLACES[single.version]}")
    assert [search(single, f"BODY {word}") for word in ("other", "zebra")] == ["1", ""]
    assert indexed(single) == [found]
    assert not BAD_NEWS.search(log(single)), log(single)


def test_the_index_of_words_is_left_behind_when_index_files_move(single: Single) -> None:
    if single.version != "2.4.1":
        pytest.skip("the files that move are the same")
    single.empty("maildir")
    single.sh(DELIVER, TEXT="a zebra in the house")
    assert search(single, "BODY zebra") == "1"
    single.move(LOCAL)
    assert search(single, "BODY zebra") == "1"
    assert len(indexed(single)) == 2
    assert not BAD_NEWS.search(log(single)), log(single)


def findings(single: Single, **profile: Any) -> tuple[str, list[str]]:
    """A configuration of this profile, and what rules say of it."""
    plan = single.plan("")
    plan["profile"] |= profile
    text = backend_conf(plan)
    found = [row["id"] for row in written_findings(from_doveconf(text), plan["profile"], store="/srv/mail")]
    return text.replace("\nprotocols", "\nlog_path = /tmp/log\nprotocols", 1), found


def test_an_index_of_words_with_lock_files_crashes(single: Single) -> None:
    """NFS462."""
    single.empty("maildir")
    text, found = findings(single, nfs_version="3", lockd=False)
    single.sh(f"doveadm stop; cat >/etc/dovecot/dovecot.conf; {START}", text)
    single.sh(DELIVER, TEXT="a zebra")
    single.sh(f"doveadm index -u {ANNA} INBOX || :")
    crashes = "Panic: file file-lock.c" in log(single)
    assert crashes == ("NFS462" in found) == (single.version == "2.4.1"), (found, log(single))


def test_shards_are_not_merged_on_nfs(single: Single) -> None:
    """NFS463: where a shard cannot be removed, since NFS keeps a file that is open, expunges crash."""
    if single.version != "2.4.1":
        pytest.skip("flatcurve is of 2.4")
    single.empty("maildir")
    text, found = findings(single)
    assert found == []
    # A shard for each message; only one limit merges them.
    for limit, merged in (("0", False), ("3", True)):
        # Two that index one mailbox at once get into each other's way here.
        conf = text.replace("fts_autoindex = yes", "fts_autoindex = no", 1)
        conf = conf.replace("optimize_limit = 0", f"optimize_limit = {limit}\n  rotate_count = 1")
        single.sh(f"doveadm stop; rm -rf /srv/mail/*; cat >/etc/dovecot/dovecot.conf; {START}", conf)
        for number in range(4):
            single.sh(f"{DELIVER}; doveadm index -u {ANNA} INBOX", TEXT=f"zebra{number}")
        shards = int(single.sh(f"find {HOME} -name postlist.glass | wc -l"))
        assert (shards < 4) == merged, shards
        assert search(single, "BODY zebra") == "1 2 3 4"
    left = f"{HOME}/Maildir/fts-flatcurve/index.9"
    leave = f"for i in $(seq 10 40); do mkdir {left}$i; touch {left}$i/.nfs000000000008042000000185; done; chown -R 5000:5001 {HOME}"
    expunge = f"doveadm expunge -u {ANNA} mailbox INBOX 1"
    assert single.sh(f"{leave}; {expunge} >/dev/null 2>&1; echo $?").strip() == "139"
    single.sh(f"set -e; rm -r {HOME}/Maildir/fts-flatcurve; {expunge}")
    # The first was expunged before the crash.
    assert search(single, "BODY zebra") == "1 2"


MUCH = """
import os, random
random.seed(1)
os.chdir("{home}/Maildir/cur")
words = ["".join(random.choices("abcdefghijklmnop", k=7)) for _ in range(20000)]
for number in range(150):
    with open(f"{{number}}.x:2,", "w") as file:
        file.write("From: a@lab.invalid\\n\\n" + "\\n".join(random.choices(words, k=3000)) + "\\n")
"""


def test_who_sees_the_indexer(single: Single) -> None:
    """NFS461: who is moved while 2.3 indexes the mailbox stays open on the old backend, and nobody knows."""
    single.empty("maildir")
    _, found = findings(single, topology="per_user")
    single.sh(f"install -d {HOME}/Maildir/cur {HOME}/Maildir/new {HOME}/Maildir/tmp; python3 -", MUCH.format(home=HOME))
    single.sh(f"chown -R 5000:5001 /srv/mail; doveadm index -q -u {ANNA} INBOX")
    # Processor time, in hundredths of a second; all of it takes several.
    used = "cut -d' ' -f14 /proc/$(pgrep -x indexer-worker || echo none)/stat 2>/dev/null || echo 0"
    wait_for("nothing is indexed", lambda: int(single.sh(used)) > 10)
    # What a move does.
    moved = single.run("sessions", {"users": [ANNA], "grace": 30, "timeout": 60})
    seen = single.version == "2.4.1"
    assert (moved["ended"], moved["killed"]) == ({ANNA: 1} if seen else {}, [])
    before, after = single.sh(f"{used}; sleep 0.2; {used}; pkill -x indexer-worker -9 || :").splitlines()
    assert (int(after) > int(before)) == ("NFS461" in found) == (not seen), (found, before, after)
