# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which faults happen where, and the table."""

from __future__ import annotations

from faults import FAULTS, Cluster, Row, table

PER_USER = Cluster(("mail1", "mail2"), ("proxy1", "proxy2"), "3")
SINGLE = Cluster(("mail1",), (), "4.2")


def names(cluster: Cluster, everything: bool) -> set[str]:
    return {fault.name for fault in FAULTS if fault.fits(cluster, everything)}


def test_names_are_unique() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)


def test_a_fault_happens_only_where_there_is_what_it_breaks() -> None:
    assert names(PER_USER, True) == {fault.name for fault in FAULTS}
    assert "proxy: processes killed" not in names(SINGLE, True)
    assert "lockd does not answer" not in names(SINGLE, True)
    assert "store: disk full" in names(SINGLE, True)


def test_the_short_run_leaves_out_what_takes_long() -> None:
    assert names(PER_USER, False) < names(PER_USER, True)


def test_every_fault_says_how_it_ends() -> None:
    assert all(fault.remedy for fault in FAULTS)


def test_the_table_has_a_line_for_each_row() -> None:
    lines = table([Row("store: disk full", "single", "4.2", accepted=12, found=11, lost=1)]).splitlines()
    assert len(lines) == 2 and lines[1].split()[:6] == ["store:", "disk", "full", "single", "4.2", "12"]
