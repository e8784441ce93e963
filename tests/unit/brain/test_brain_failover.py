# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Service addresses: who takes them, and what cannot work."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.errors import NfsmailError
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.failover import SETTLED, heirs, holders, keepalived_conf
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.routing import move_plan
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.shards import shard_lines, shard_map
from hypothesis import given
from hypothesis import strategies as st

BACKENDS: list[dict[str, Any]] = [
    {"name": f"mail{number}", "address": f"192.0.2.1{number}", "service_address": f"192.0.2.10{number}"}
    for number in (1, 2, 3)
]


def conf(name: str = "mail1", backends: list[dict[str, Any]] = BACKENDS, interface: str = "eth0") -> str:
    return keepalived_conf({"name": name, "backends": backends, "interface": interface})


def instance(text: str, owner: str) -> str:
    return text[text.index(f"vrrp_instance {owner} {{") :].split("\n}\n", maxsplit=1)[0]


def test_a_backend_wants_its_own_address_most() -> None:
    for owner in ("mail1", "mail2", "mail3"):
        priorities = {
            name: int(re.findall(r"priority (\d+)", instance(conf(name), owner))[0])
            for name in ("mail1", "mail2", "mail3")
        }
        order = sorted(priorities, key=priorities.__getitem__, reverse=True)
        assert order == [owner, *heirs(owner, list(priorities))]
        assert len(set(priorities.values())) == 3 and priorities[owner] == 254


def test_an_instance_has_what_keeps_users_on_one_backend() -> None:
    text = instance(conf("mail2"), "mail1")
    for line in (
        "state BACKUP",
        "nopreempt",
        "interface eth0",
        "virtual_router_id 101",
        "unicast_src_ip 192.0.2.12",
        "192.0.2.101 dev eth0",
        'notify_backup "/usr/bin/ss --kill --no-header src 192.0.2.101"',
        'notify_fault "/usr/bin/ss --kill --no-header src 192.0.2.101"',
    ):
        assert f"    {line}\n" in text.replace("        192", "    192"), line
    assert "192.0.2.11\n" in text and "192.0.2.13\n" in text and "        192.0.2.12\n" not in text


def test_an_heir_waits_after_its_start() -> None:
    assert "settled" in instance(conf("mail2"), "mail1") and "settled" not in instance(conf("mail2"), "mail2")


def test_proxies_send_users_to_the_address_that_moves() -> None:
    hosts = {line.rpartition("host=")[2] for line in shard_lines(BACKENDS)}
    assert hosts == {"192.0.2.101", "192.0.2.102", "192.0.2.103"}


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "one without": ({"service_address": ""}, "all backends have a service address, or none"),
    "no address": ({"service_address": "mail3.example.com"}, "an IP address"),
    "a machine's": ({"service_address": "192.0.2.11"}, "an address of its own; mail1 has this one"),
    "its own": ({"service_address": "192.0.2.13"}, "an address of its own; mail3 has this one"),
    "another's": ({"service_address": "192.0.2.101"}, "an address of its own; mail1 has this one"),
    "the same last byte": ({"service_address": "198.51.100.101"}, "no other service address ends in it"),
    "no last byte": ({"service_address": "198.51.100.0"}, "the last byte is 1 to 255"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_addresses_that_cannot_work(name: str) -> None:
    change, rule = REFUSED[name]
    with pytest.raises(NfsmailError) as raised:
        conf(backends=[*BACKENDS[:2], {**BACKENDS[2], **change}])
    told = {one.variable: one.rule for one in raised.value.problems}
    assert rule in told["nfsmail_service_address of mail3"]


def test_an_interface_that_nobody_knows() -> None:
    with pytest.raises(NfsmailError, match="set failover_interface"):
        conf(interface="")


@given(st.sets(st.text("abcdefg", min_size=1), min_size=2, max_size=8), st.data())
def test_when_a_backend_goes_nobody_else_s_heirs_change(names: set[str], data: st.DataObject) -> None:
    owner = data.draw(st.sampled_from(sorted(names)))
    gone = data.draw(st.sampled_from(sorted(names - {owner})))
    assert [name for name in heirs(owner, list(names)) if name != gone] == heirs(owner, list(names - {gone}))


# ---- with moves ----

HELD = {"mail1": ["mail2"], "mail2": ["mail2"], "mail3": ["mail3"]}


def plan(**request: Any) -> dict[str, Any]:
    return move_plan(BACKENDS, {"a@x": "mail1", "b@x": "mail2"}, [], {"holders": HELD, **request})


def test_who_holds_an_address() -> None:
    assert holders(BACKENDS, {"mail2": ["192.0.2.12", "192.0.2.102", "192.0.2.101"], "mail3": ["192.0.2.103"]}) == HELD
    assert holders([{"name": "mail1", "address": "192.0.2.11"}], {"mail1": ["192.0.2.11"]}) == {}


def test_an_address_comes_back() -> None:
    found = plan(verb="failback", failback="mail1")
    own = [shard for shard, name in shard_map(BACKENDS).items() if name == "mail1"]
    assert found["sources"] == {"mail2": {"users": ["a@x"], "shards": own, "pinned": ["b@x"]}}
    assert (found["release"], found["targets"]) == (["mail1"], ["mail1"])
    assert found["said"] == ["mail1: its address comes back from mail2"]
    assert any(line.startswith("imap/a@x:") and "host=192.0.2.101 delay_until=" in line for line in found["moving"])
    assert found["state"]["serial"] == 0


def test_an_address_that_is_at_home_stays() -> None:
    found = plan(verb="failback", failback="mail3")
    assert (found["sources"], found["moving"], found["release"], found["said"]) == ({}, [], [], [])


def test_a_drain_ends_sessions_where_the_address_is() -> None:
    found = plan(verb="drain", drain="mail1")
    assert set(found["sources"]) == {"mail2"} and found["sources"]["mail2"]["users"] == ["a@x"]


def test_what_is_refused_with_addresses() -> None:
    with pytest.raises(NfsmailError, match="it has the address of mail1"):
        plan(verb="drain", drain="mail2")
    with pytest.raises(NfsmailError, match="the backend has an nfsmail_service_address"):
        move_plan([{"name": "mail1", "address": "192.0.2.11"}], {}, [], {"verb": "failback", "failback": "mail1"})


def test_the_script_is_where_keepalived_looks_for_it() -> None:
    task = Path(__file__).parents[3] / "roles" / "failover" / "tasks" / "keepalived.yml"
    assert f"dest: {SETTLED}\n" in task.read_text(encoding="utf-8")
