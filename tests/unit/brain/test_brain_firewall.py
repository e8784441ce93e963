# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who reaches Dovecot on a backend."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.errors import NfsmailError
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.firewall import firewall_plan
from hypothesis import given
from hypothesis import strategies as st

PORTS = {"lmtp_port": 24, "doveadm_port": 24245}


def test_ports_and_sources() -> None:
    plan = {**PORTS, "proxies": ["192.0.2.22", "2001:db8::22"], "balancers": [], "firewall_allow": ["198.51.100.0/24"]}
    assert firewall_plan(plan) == {
        "ports": [24, 110, 143, 993, 995, 4190, 24245],
        "logins": [110, 143, 4190],
        "ipv4": ["192.0.2.22", "198.51.100.0/24"],
        "ipv6": ["2001:db8::22"],
    }
    # A mail transfer agent may be at the ports of submission: closed only where Dovecot is.
    served = firewall_plan({**plan, "protocols": ["imap", "submission"]})
    assert served["ports"] == [24, 110, 143, 465, 587, 993, 995, 4190, 24245]
    assert served["logins"] == [110, 143, 587, 4190]


def test_what_overlaps_is_told_once() -> None:
    """nft refuses intervals that overlap, and merges neighbours when asked to: verify compares with what it shows."""
    allow = ["192.0.2.0/24", "192.0.2.7", "192.0.3.0/24", "192.0.2.7"]
    assert firewall_plan({**PORTS, "firewall_allow": allow})["ipv4"] == ["192.0.2.0/23"]


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        ("proxy1", "does not appear to be an IPv4 or IPv6 network"),
        ("192.0.2.1/24", "has host bits set"),
        ("*", "does not"),
    ],
)
def test_an_entry_that_is_no_address_is_named(entry: str, why: str) -> None:
    with pytest.raises(NfsmailError) as raised:
        firewall_plan({**PORTS, "firewall_allow": ["192.0.2.1", entry]})
    (problem,) = raised.value.problems
    assert (problem.variable, problem.value) == ("dovecot_firewall_allow", entry)
    assert problem.rule.startswith("an IP address, or a network without host bits (") and why in problem.rule


@given(
    st.lists(st.one_of(st.ip_addresses(), st.ip_addresses(v=4).map(lambda ip: ipaddress.ip_network((ip, 20), False))))
)
def test_who_is_named_gets_in_and_nobody_else(entries: list[Any]) -> None:
    plan = firewall_plan({**PORTS, "firewall_allow": list(map(str, entries))})
    written = [ipaddress.ip_network(word) for word in (*plan["ipv4"], *plan["ipv6"])]
    given_ = [ipaddress.ip_network(str(entry)) for entry in entries]
    assert sum(one.num_addresses for one in written) == sum(one.num_addresses for one in _apart(given_))
    for entry in given_:
        assert any(one.version == entry.version and entry.subnet_of(one) for one in written)  # type: ignore[arg-type]


def _apart(networks: list[Any]) -> list[Any]:
    return [
        one
        for one in set(networks)
        if not any(one != other and one.version == other.version and one.subnet_of(other) for other in networks)
    ]
