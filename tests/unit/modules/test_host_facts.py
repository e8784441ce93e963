# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which configuration files no service has read yet."""

from __future__ import annotations

import grp
import os
import pwd
from pathlib import Path

import pytest
from ansible_collections.nfsmail.cluster.plugins.module_utils._host import parse_state_changes
from ansible_collections.nfsmail.cluster.plugins.modules.host_facts import digests, unread_files, written_since

# 15:07:14 is second 434 of that hour, which begins at 1795878000.
SHOWN = """Id=chrony.service
ActiveState=active
StateChangeTimestamp=Sat 2026-11-28 15:07:14 UTC

Id=haproxy.service
ActiveState=failed
StateChangeTimestamp=Sat 2026-11-28 15:07:14 UTC

Id=keepalived.service
ActiveState=active
StateChangeTimestamp=

Id=nowhere.service
ActiveState=inactive
StateChangeTimestamp=
"""
STARTED = 1795878434


def test_a_file_is_read_once_its_copy_is_the_same(tmp_path: Path) -> None:
    conf, copy = tmp_path / "dovecot.conf", tmp_path / "dovecot.conf.in-use"
    assert unread_files([str(conf)]) == []
    conf.write_text("one")
    assert unread_files([str(conf)]) == [str(conf)]
    copy.write_text("one")
    assert unread_files([str(conf)]) == []
    # As long as the other, and written within the same second.
    conf.write_text("two")
    assert unread_files([str(conf)]) == [str(conf)]


def test_only_active_units_with_a_time_count() -> None:
    assert parse_state_changes(SHOWN) == {"chrony.service": STARTED}


@pytest.mark.parametrize(
    ("written", "found"),
    [
        (STARTED - 1, False),
        # systemd tells whole seconds.
        (STARTED + 0.9, False),
        (STARTED + 1, True),
        # By a clock that was wrong.
        (STARTED + 1000, False),
    ],
)
def test_a_file_that_was_written_after_its_service_has_started_is_unread(
    tmp_path: Path, written: float, found: bool
) -> None:
    conf, other = tmp_path / "chrony.conf", tmp_path / "haproxy.cfg"
    for path in (conf, other):
        path.write_text("x")
        os.utime(path, (written, written))
    services = {"chrony.service": str(conf), "haproxy.service": str(other), "nowhere.service": str(tmp_path / "none")}
    assert written_since(services, SHOWN, STARTED + 500) == ([str(conf)] if found else [])


def test_a_file_is_told_by_owner_mode_and_digest(tmp_path: Path) -> None:
    conf, link = tmp_path / "nfsmail-a.conf", tmp_path / "nfsmail-b.conf"
    conf.write_text("a\n", encoding="utf-8")
    conf.chmod(0o640)
    link.symlink_to(conf)
    (tmp_path / "nfsmail-c.conf").mkdir()
    found = digests([str(tmp_path / "nfsmail-*.conf"), str(tmp_path / "away")])
    user = pwd.getpwuid(os.geteuid()).pw_name
    assert found == {
        str(conf): {
            "owner": user,
            "group": grp.getgrgid(os.getegid()).gr_name,
            "mode": "0640",
            "sha256": "87428fc522803d31065e7bce3cf03fe475096631e5e07bbd7a0fde60c4cf25c7",
        }
    }
