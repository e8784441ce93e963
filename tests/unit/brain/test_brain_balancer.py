# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whole haproxy.cfg files, and Dovecot's side of them. tests/dovecot asks HAProxy and Dovecot themselves."""

from __future__ import annotations

import re
from typing import Any

import pytest
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.balancer_conf import (
    IDS,
    balancer_conf,
    server_ids,
    weights,
)
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.dialect import flat, from_doveconf
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.dovecot_conf import backend_conf, proxy_conf
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.matrix import written_findings
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.shards import Backend
from brain_samples import SECRET, VERSIONS, refusal
from hypothesis import given
from hypothesis import strategies as st
from plans import backend, balancer, proxy

HEALTH = {"health_user": "health@example.com", "health_password": SECRET}


def sections(**changes: Any) -> dict[str, list[str]]:
    """Each section's lines without comments."""
    found: dict[str, list[str]] = {}
    for line in balancer_conf(balancer(**changes)).splitlines():
        if line and not line.startswith(" "):
            found[line] = []
        elif line and not line.startswith("  #"):
            found[list(found)[-1]].append(line.strip())
    return found


def test_what_is_balanced() -> None:
    conf = sections()
    assert list(conf) == ["global", "defaults", "listen clients", "listen lmtp"]
    assert [line for line in conf["listen clients"] if line.startswith("bind")] == [
        *("bind *:143", "bind [::]:143 v6only", "bind *:993", "bind [::]:993 v6only")
    ]
    assert [line for line in conf["listen lmtp"] if line.startswith("bind")] == ["bind *:24", "bind [::]:24 v6only"]
    assert "mode tcp" in conf["defaults"]
    assert any("send-proxy-v2" in line.split() for line in conf["defaults"])
    assert "listen lmtp" not in sections(protocols=["imap", "pop3"])
    assert list(sections(protocols=["lmtp"])) == ["global", "defaults", "listen lmtp"]
    pop3 = sections(protocols=["pop3"], listen=["192.0.2.31", "2001:db8::31"], lmtp_port=2424)
    assert [line for line in pop3["listen clients"] if line.startswith("bind")] == [
        f"bind {address}:{port}" for port in (110, 995) for address in ("192.0.2.31", "[2001:db8::31]")
    ]


def test_every_group_of_lines_has_a_reason_and_lines_are_short() -> None:
    text = balancer_conf(balancer(**HEALTH, servers=[{"name": "mail1", "address": "192.0.2.11"}]))
    for line in ("balance source", "option tcp-check", "maxconn 8000", "server mail1"):
        assert re.search(rf"^  # [^\n]+\n(  [a-z][^\n]*\n)*  {line}", text, re.M), line
    assert max(map(len, text.splitlines())) <= 120


@pytest.mark.parametrize("section", ["listen clients", "listen lmtp"])
def test_affinity_is_a_consistent_hash_and_no_table(section: str) -> None:
    conf = sections()[section]
    assert {"balance source", "hash-type consistent sdbm avalanche"} <= set(conf)
    assert not [line for line in conf if "stick" in line or "cookie" in line]
    assert "no option redispatch" in sections()["defaults"]


def checks(section: str = "listen clients", **changes: Any) -> list[str]:
    return [line for line in sections(**changes)[section] if "check" in line or line.startswith("default-server")]


def test_checks_that_log_in() -> None:
    assert checks(**HEALTH) == [
        "default-server port 993 verify none",
        "option tcp-check",
        "tcp-check connect ssl send-proxy",
        "tcp-check expect string '* OK'",
        f'tcp-check send "a1 LOGIN health@example.com {SECRET}\\r\\n"',
        "tcp-check expect min-recv 5 ! string 'a1 NO'",
        "tcp-check expect string 'a1 OK'",
        'tcp-check send "a2 LOGOUT\\r\\n"',
        "tcp-check expect min-recv 5 ! string 'a2 NO'",
        "tcp-check expect string 'a2 OK'",
    ]


@pytest.mark.parametrize(
    ("changes", "port", "greeting"),
    [
        ({}, 143, "* OK"),
        # A login through a proxy ends on one backend: its fault would take all proxies away.
        ({"topology": "per_user", **HEALTH}, 143, "* OK"),
        # A login by POP3 opens the mailbox, on all backends at once.
        ({"protocols": ["pop3"], **HEALTH}, 110, "+OK"),
    ],
)
def test_checks_of_the_greeting(changes: dict[str, Any], port: int, greeting: str) -> None:
    assert checks(**changes) == [
        *(f"default-server port {port}", "option tcp-check", "tcp-check connect send-proxy"),
        f"tcp-check expect string '{greeting}'",
    ]
    assert SECRET not in balancer_conf(balancer(**changes))


def test_checks_of_lmtp() -> None:
    assert checks("listen lmtp", lmtp_port=2424) == [
        *("default-server port 2424", "option tcp-check", "tcp-check connect send-proxy"),
        *("tcp-check expect string '220 '", 'tcp-check send "LHLO balancer\\r\\n"', "tcp-check expect string '250 '"),
        *('tcp-check send "QUIT\\r\\n"', "tcp-check expect string '221 '"),
    ]


# ---- servers ----


def servers(*rows: dict[str, Any]) -> list[str]:
    lines = sections(servers=list(rows))["listen clients"]
    return [re.sub(r" id \d+", "", line) for line in lines if line.startswith("server")]


def test_states_and_weights() -> None:
    assert servers(
        {"name": "mail1", "address": "192.0.2.11"},
        {"name": "mail2", "address": "2001:db8::12", "weight": 2},
        {"name": "mail3", "address": "mail3.example.com", "state": "drained"},
        {"name": "mail4", "address": "192.0.2.14", "state": "down"},
    ) == [
        "server mail1 192.0.2.11 weight 128",
        "server mail2 ipv6@[2001:db8::12] weight 256",
        "server mail3 mail3.example.com weight 0",
        "server mail4 192.0.2.14 weight 0 disabled",
    ]


@given(st.lists(st.sampled_from([0, 0.001, 0.5, 1, 3, 1000]), min_size=1, max_size=5))
def test_weights_are_what_haproxy_takes(given_weights: list[float]) -> None:
    found = weights([Backend(f"mail{number}", "x", weight) for number, weight in enumerate([1.0, *given_weights])])
    assert max(found.values()) == 256
    for name, weight in zip(found, [1.0, *given_weights]):
        assert (0 < found[name] <= 256) if weight else found[name] == 0


def ids(*names: str) -> dict[str, int]:
    return server_ids([Backend(name, name) for name in names])


def test_a_server_keeps_its_place_on_the_hash_whatever_stands_beside_it() -> None:
    first = ids("mail1", "mail2")
    assert ids("mail2", "mail0", "mail1", "another") | first == ids("mail2", "mail0", "mail1", "another")
    # Known for good: another number would move every client at the next run.
    assert first == {"mail1": 663380, "mail2": 720136}
    many = ids(*(f"mail{number}" for number in range(3000)))
    assert len(set(many.values())) == 3000 and 0 < min(many.values()) and max(many.values()) < IDS


def test_the_order_of_the_inventory_does_not_matter() -> None:
    rows = balancer()["servers"]
    assert balancer_conf(balancer(servers=rows)) == balancer_conf(balancer(servers=rows[::-1]))


@pytest.mark.parametrize(
    ("changes", "variable", "value", "rule"),
    [
        ({"servers": []}, "backends", [], "at least one backend takes users"),
        ({"servers": [{"name": "mail 1", "address": "x"}]}, "host mail 1", "mail 1", "HAProxy takes letters"),
        ({"check_interval": 0}, "balancer_check_interval", 0, "a whole number, 1 to 600"),
        ({"check_interval": True}, "balancer_check_interval", True, "a whole number"),
        ({"maxconn": "many"}, "balancer_maxconn", "many", "a whole number"),
        ({"lmtp_port": 65536}, "balancer_lmtp_port", 65536, "1 to 65535"),
        ({**HEALTH, "health_user": 'a"b'}, "nfsmail_health_user", 'a"b', "letters, digits"),
        ({**HEALTH, "health_password": "k3pt-S3cret"}, "nfsmail_health_password", "(hidden)", "at least 16"),
        ({**HEALTH, "health_password": f"{SECRET}\nglobal"}, "nfsmail_health_password", "(hidden)", "at least 16"),
    ],
)
def test_a_bad_plan(changes: dict[str, Any], variable: str, value: object, rule: str) -> None:
    (problem,) = refusal(balancer_conf, balancer(**changes))
    assert (problem.variable, problem.value) == (variable, value)
    assert rule in problem.rule
    assert "k3pt" not in str(problem) and SECRET not in str(problem)


# ---- Dovecot behind it ----

BALANCERS = ["192.0.2.31", "2001:db8::/64"]


def behind(kind: str, version: str, **changes: Any) -> dict[str, str]:
    if kind == "proxy":
        return flat(from_doveconf(proxy_conf(proxy(version, balancers=BALANCERS, **changes))))
    plan = backend(version, {"topology": "random"}, proxies=[], balancers=BALANCERS, **changes)
    return flat(from_doveconf(backend_conf(plan)))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", ["backend", "proxy"])
def test_dovecot_takes_balancers_and_nobody_else(kind: str, version: str) -> None:
    conf = behind(kind, version, protocols=["imap", "pop3", "lmtp"])
    assert conf["haproxy_trusted_networks"] == "192.0.2.31 2001:db8::/64"
    listeners = [name for name in conf if name.endswith("/haproxy")]
    assert sorted(name.split()[-1] for name in listeners) == [
        *("imap/haproxy", "imaps/haproxy", "lmtp/haproxy", "pop3/haproxy", "pop3s/haproxy")
    ]
    # Trust in the header is no trust in the client.
    assert not [value for name, value in conf.items() if "login_trusted_networks" in name]
    assert conf["service doveadm/inet_listener doveadm/port"] == "24245"
    assert "service pop3-login/inet_listener pop3/haproxy" not in behind(kind, version, protocols=["imap"])


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", ["backend", "proxy"])
def test_passwords_stay_inside_tls(kind: str, version: str) -> None:
    for ssl in ("yes", "required"):
        conf = behind(kind, version, ssl=ssl)
        assert conf["ssl"] == ("required" if version == "2.4.1" else ssl)
        tree = from_doveconf(backend_conf(backend(version, {"topology": "random"}, proxies=[], balancers=BALANCERS)))
        assert not [row for row in written_findings(tree, {"dovecot_version": version}) if row["id"] == "NFS440"]
    (problem,) = refusal(behind, kind, version, ssl="no")
    assert problem.variable == {"backend": "dovecot_ssl", "proxy": "dovecot_proxy_ssl"}[kind]


def test_without_balancers_nothing_of_this_is_written() -> None:
    for version in VERSIONS:
        text = backend_conf(backend(version)) + proxy_conf(proxy(version))
        assert "haproxy" not in text and "ssl = required" not in text
