# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What measurements of NFS calls come to."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.nfsmail.cluster.plugins.plugin_utils import bench
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.errors import NfsmailError
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.shards import shard_map, shard_of

BACKENDS = [{"name": "mail1", "address": "192.0.2.11"}, {"name": "mail2", "address": "192.0.2.12"}]


def step(**calls: int) -> dict[str, Any]:
    return {"calls": calls, "events": {"inode_revalidate": 10}, "sent": 1024, "received": 1024, "seconds": 0.25}


def session(cold: bool, getattrs: int) -> dict[str, Any]:
    return {"cold": cold, "seconds": 0.5, "steps": {"select": step(GETATTR=getattrs, READ=2), "append": step(WRITE=1)}}


CELL = {
    "name": "ours",
    "sessions": [session(True, 20), session(True, 22), session(True, 30), session(False, 4), session(False, 4)],
    "deliveries": [step(WRITE=3), step(WRITE=5)],
    "noise": 0,
    "nfs": True,
}


def test_medians_and_spreads() -> None:
    found = bench.bills(CELL)
    assert (found["cold"].runs, found["cold"].calls, found["cold"].least, found["cold"].most) == (3, 25, 23, 33)
    assert found["cold"].by_operation == {"GETATTR": 22, "READ": 2, "WRITE": 1}
    assert (found["warm"].calls, found["warm"].bytes, found["warm"].hits) == (7, 4096, 0.8)
    assert found["delivery"].calls == 4
    # More calls than questions: no share below zero.
    assert found["cold"].hits == 0.0
    assert bench.step_calls(CELL, False) == {"select": 6, "append": 1}


def test_a_summary_tells_the_same() -> None:
    short = bench.summary(CELL)
    assert bench.bills(short) == bench.bills(CELL) and short["steps"]["warm"] == {"select": 6, "append": 1}
    assert bench.table([short]) == bench.table([CELL]) and bench.page([short]) == bench.page([CELL])


def test_a_session_takes_longer_by_each_call() -> None:
    assert bench.bills(CELL)["warm"].predicted(1.0) == pytest.approx(0.507)
    assert bench.predictions([CELL]) == [["ours", "7", "+0.00", "+0.01", "+0.01"]]


def test_the_table_and_the_page() -> None:
    lines = bench.table([CELL, {**CELL, "name": "<local>", "sessions": [], "deliveries": []}])
    assert lines[2] == "| ours | 25 (23–33) | 7 | 4 (3–5) | 4 | 4 | 80 % |"
    assert lines[3] == "| <local> | - | - | - | - | - | - |"
    page = bench.page([CELL, {**CELL, "name": "<local>", "noise": 7}], "A & B")
    assert page.startswith("<!DOCTYPE html>") and page.endswith("</html>\n")
    assert "&lt;local&gt;" in page and "<local>" not in page and "A &amp; B" in page
    assert "Others made 7 calls" in page and "http" not in page


def test_answers_become_one_cell() -> None:
    parts = [
        {"sessions": [1], "deliveries": [2], "noise": 3, "nfs": True},
        {"sessions": [4], "deliveries": [], "noise": 1, "nfs": True},
    ]
    cells = bench.merged([{"name": "old"}, {"name": "new"}], parts, "new")
    assert cells == [{"name": "old"}, {"name": "new", "sessions": [1, 4], "deliveries": [2], "noise": 3, "nfs": True}]
    with pytest.raises(NfsmailError, match="something was measured"):
        bench.merged([], [], "new")


USER = "bench@example.com"
HOME = shard_map(BACKENDS)[shard_of(USER)]
AWAY = next(name for name in ("mail1", "mail2") if name != HOME)


@pytest.mark.parametrize(
    ("overrides", "states", "request_", "wanted"),
    [
        ({}, [], {"router": "shards"}, HOME),
        ({"Bench@example.com": AWAY}, [], {"router": "shards"}, AWAY),
        ({}, [{"serial": 1, "out": [HOME]}], {"router": "shards"}, AWAY),
        ({}, [], {"router": "none"}, "mail1"),
        ({}, [], {"router": "balancer", "backend": "mail2"}, "mail2"),
        ({}, [], {"router": "director", "backend": "mail2"}, "mail2"),
    ],
)
def test_a_user_is_measured_at_home(
    overrides: dict[str, str], states: list[Any], request_: dict[str, str], wanted: str
) -> None:
    assert bench.place(BACKENDS, overrides, states, {"user": USER, **request_}) == wanted


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({"user": ""}, "names a user whose mail may be deleted"),
        ({"backend": "mail7"}, "one of mail1, mail2"),
        ({"router": "director"}, "a director chooses the user's backend"),
        ({"router": "shards", "backend": AWAY}, f"the user's own backend is {HOME}"),
    ],
)
def test_a_user_is_measured_nowhere_else(request_: dict[str, str], words: str) -> None:
    with pytest.raises(NfsmailError, match=words):
        bench.place(BACKENDS, {}, [], {"user": USER, "router": "none", **request_})
