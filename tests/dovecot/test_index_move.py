# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Indexes that move to another place: everything that Dovecot knew of the mail it still knows, whatever interrupts the move."""

from __future__ import annotations

import pytest
from single import LOCAL, OTHER, START, USERS, Single

FORMATS = ("maildir", "mbox", "sdbox", "mdbox")


@pytest.mark.parametrize("format", FORMATS)
def test_there_and_back(single: Single, format: str) -> None:
    if single.version == "2.3.13" and format != "mdbox":
        pytest.skip("as 2.3.19")
    single.fresh(format)
    before = single.state()
    assert all(f"keyword{number}" in before for number in range(30))
    # The others say the same; each move costs seconds.
    longer = {"2.3.13": (), "2.3.19": ("",), "2.4.1": (OTHER, "") if format == "mdbox" else ("",)}
    places = ("", LOCAL, *longer[single.version])
    for old, new in zip(places, places[1:]):
        mail, indexes = single.files(old)
        copied = single.move(new)
        assert copied["users"] == len(USERS) and copied["files"] == len(indexes) > 10
        assert single.files(old) == (mail, [])
        assert len(single.files(new)[1]) == len(indexes)
        assert single.state() == before
        seen = single.module("look", new)
        assert (seen["changed"], seen["next"]) == (False, "nothing")
    # It is alive: a change is kept.
    single.sh(f"doveadm flags add -u dora again mailbox INBOX 1; doveadm stop; {START}")
    assert "again" in single.state()


DEATHS = {
    "before it is remembered": ("module_utils._system.write_atomically", 1),
    "at the first file": ("module_utils._index_files._copy_file", 1),
    "at the ninth file": ("module_utils._index_files._copy_file", 9),
    "before it is remembered as complete": ("module_utils._system.write_atomically", 2),
}


def test_interrupted_anywhere(single: Single) -> None:
    """The machine goes down at each step; Dovecot comes back, users go on, the role is run again."""
    if single.version != "2.4.1":
        pytest.skip("the same steps for all")
    single.fresh("mdbox")
    for number, die in enumerate(DEATHS.values()):
        killed = single.module("copy", LOCAL, die=die, first="doveadm stop || true")
        assert not killed or killed["failed"] and "ended without an answer" in killed["msg"], killed
        live_on(single, f"death{number}")
        seen = single.module("look", LOCAL)
        assert (seen["next"], seen["changed"]) == ("copy", False)
    # All is copied, and the configuration still names the old place.
    assert single.module("copy", LOCAL, first="doveadm stop")["changed"]
    before = live_on(single, "copied")
    mail, indexes = single.files("")
    # Another place after all: what was copied to the first one goes.
    assert single.module("copy", OTHER, first="doveadm stop")["changed"]
    assert single.files(LOCAL)[1] == []
    # No move after all.
    assert single.module("look", "")["next"] == "finish"
    assert single.module("finish", "")["removed"] == len(indexes)
    assert (single.files(""), single.files(OTHER)[1]) == ((mail, indexes), [])
    # The configuration is written, and Dovecot not started.
    assert single.module("copy", LOCAL)["changed"]
    single.configure(LOCAL)
    assert single.module("look", LOCAL)["next"] == "finish"
    single.sh(START)
    assert single.module("finish", LOCAL, die=("os.unlink", 5))["failed"]
    assert 0 < len(single.files("")[1]) < len(indexes)
    assert single.state() == before
    assert single.module("finish", LOCAL)["changed"]
    assert (single.files("")[1], len(single.files(LOCAL)[1])) == ([], len(indexes))
    assert single.state() == before
    for action in ("look", "copy", "finish"):
        assert {"changed": False, "next": "nothing"}.items() <= single.module(action, LOCAL).items()


def live_on(single: Single, keyword: str) -> str:
    """Dovecot starts with the configuration that there is, and a user changes something; what it knows then."""
    single.sh(f"{START}; doveadm flags add -u dora {keyword} mailbox INBOX 1")
    state = single.state()
    assert keyword in state
    return state


def test_what_cannot_be_done_is_refused(single: Single) -> None:
    if single.version != "2.4.1":
        pytest.skip("the same steps for all")
    single.fresh("mdbox")
    told = single.module("look", LOCAL, check=True)
    assert told["changed"] and told["diff"]["after"].startswith("indexes of 3 users (")
    assert (
        "in /var/lib/nfsmail/index/{domain}/{name}\n" in told["diff"]["after"] and "(~/mdbox)" in told["diff"]["before"]
    )
    running = single.module("copy", LOCAL, timeout=1)
    assert running["failed"] and "dovecot (" in running["msg"], running
    stranger = "/var/lib/nfsmail/index/dora/mailboxes/INBOX/dovecot.index.log"
    single.sh(f"install -D -o 5000 /dev/null {stranger}; chown -R 5000 /var/lib/nfsmail/index")
    refused = single.module("look", LOCAL)
    assert refused["failed"] and f"already, which are not in use: {stranger}." in refused["msg"], refused
    single.sh(f"rm {stranger}; doveadm stop")
    # Somebody has gone there by hand, and back again: there is mail that only the copies know of.
    assert single.module("copy", LOCAL)["changed"]
    single.configure(LOCAL, START)
    single.sh("doveadm flags add -u dora there mailbox INBOX 1; doveadm stop")
    single.configure("")
    both = single.module("look", LOCAL)
    assert both["failed"] and "both places have been in use" in both["msg"], both
