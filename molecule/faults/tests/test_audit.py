# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The audit of live machines with real NFS mounts: it knows their names and nothing else, and finds out what they are."""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "shared"))

from proofs import changed, on, playbook

MACHINES = {"nfs1", "mail1", "mail2", "proxy1", "proxy2"}


def test_a_cluster_that_it_was_told_nothing_of(tmp_path: Path) -> None:
    before = {machine: on(machine, "ls -lR --time-style=full-iso /etc | md5sum") for machine in MACHINES}
    path = tmp_path / "report.json"
    done = playbook("audit", "", "-e", f"nfsmail_report_path={path}")
    assert set(changed(done).values()) == {0}, done.stdout
    report = json.loads(path.read_text(encoding="utf-8"))
    print("\n".join(report["table"]))
    assert report["good"], done.stdout
    found = {row["key"]: (row["value"], row["sure"]) for row in report["clusters"][0]["profile"]}
    assert found["topology"] == ("per_user", "likely") and found["nfs_version"] == ("3", "certain"), found
    assert found["lockd"] == (True, "certain") and found["mailbox_format"] == ("maildir", "certain"), found
    kinds = {row["host"]: row["kinds"][0]["kind"] for row in report["machines"]}
    wanted = {"nfs": "nfs_server", "mail": "backend", "proxy": "proxy"}
    assert kinds == {machine: wanted[machine[:-1]] for machine in MACHINES}, kinds
    assert {machine: on(machine, "ls -lR --time-style=full-iso /etc | md5sum") for machine in MACHINES} == before


def test_a_setting_that_loses_mail_is_found(tmp_path: Path) -> None:
    """As somebody who knows nothing of this collection would have it."""
    on(
        "mail1",
        "cp -p /etc/dovecot/dovecot.conf /root/kept && sed -i 's/^mmap_disable = yes/mmap_disable = no/' /etc/dovecot/dovecot.conf",
    )
    try:
        path = tmp_path / "report.json"
        done = playbook("audit", "", "-e", f"nfsmail_report_path={path}")
        assert done.returncode != 0
        rows = json.loads(path.read_text(encoding="utf-8"))["checks"]
        assert [row["id"] for row in rows if row["level"] == "error"] == ["NFS001"], rows
    finally:
        on("mail1", "mv /root/kept /etc/dovecot/dovecot.conf")
