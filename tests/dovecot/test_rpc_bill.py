# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The work that the measurement of NFS calls does, on each release; without NFS its counts are empty."""

from __future__ import annotations

import pytest
from ansible_collections.nfsmail.cluster.plugins.modules.rpc_bill import NEW, STEPS
from single import START, USERS, Single


@pytest.mark.parametrize("format", ["maildir", "mdbox"])
def test_the_same_work_each_time(single: Single, format: str) -> None:
    single.fresh(format)
    args = {"user": USERS[0], "store": "/srv/mail", "runs": 2, "messages": 12, "caches": ["warm"]}
    result = single.run("rpc_bill", args, first=f"doveadm stop; {START}")
    assert result.get("changed"), result
    assert (result["nfs"], result["noise"], len(result["sessions"]), len(result["deliveries"])) == (False, 0, 2, 2)
    for session in result["sessions"]:
        assert tuple(session["steps"]) == STEPS and session["seconds"] > 0
        assert not any(step["calls"] for step in session["steps"].values())
    # 12 old ones less those that were made room for, the new ones, one while in IDLE, one appended, one expunged; two deliveries.
    left = single.sh(f"doveadm -f flow mailbox status -u {USERS[0]} messages INBOX")
    assert f"messages={12 - NEW + NEW + 1 + 1 - 1 + 2}" in left, left
    assert "messages=1" in single.sh(f"doveadm -f flow mailbox status -u {USERS[0]} messages nfsmail-bench")


def test_a_user_who_does_not_exist(single: Single) -> None:
    single.fresh("maildir")
    result = single.run("rpc_bill", {"user": "nobody@example.com", "store": "/srv/mail", "caches": ["warm"]})
    assert result["failed"] and "the work did not come to its end" in result["msg"], result
