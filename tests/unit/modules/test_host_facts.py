# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which configuration files no service has read yet."""

from __future__ import annotations

from pathlib import Path

from ansible_collections.nfsmail.cluster.plugins.modules.host_facts import unread_files


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
