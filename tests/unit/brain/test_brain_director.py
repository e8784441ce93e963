# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The director: refused where it cannot be; where it places users. tests/dovecot runs a real ring."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.dialect import from_doveconf
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.director import overrides, placement, problems
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.dovecot_conf import proxy_conf
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.shards import shard_map, shard_of
from brain_samples import SECRET, refusal
from hypothesis import given
from hypothesis import strategies as st
from plans import PROXIES, proxy

BACKENDS = [{"name": f"mail{number}", "address": f"192.0.2.1{number}"} for number in (1, 2, 3)]
USERS = [f"user{number}@example.com" for number in range(300)]


def plan(**changes: Any) -> dict[str, Any]:
    return proxy(**{"mode": "director", "backends": BACKENDS, "director_port": 9090, **changes})


def test_the_file_of_a_director() -> None:
    conf = from_doveconf(proxy_conf(plan(protocols=["imap", "pop3", "lmtp", "sieve"])))
    assert conf["director_servers"] == " ".join(PROXIES)
    assert conf["director_mail_servers"] == "192.0.2.11 192.0.2.12 192.0.2.13"
    assert conf["passdb #2"] == {
        "driver": "static",
        "args": "proxy=y nopassword=y",
        "override_fields": f"pass={SECRET}",
        "skip": "unauthenticated",
    }
    assert conf["service director"]["inet_listener"] == {"port": "9090"}
    assert conf["service pop3-login"] == {"executable": "pop3-login director"}
    assert conf["service managesieve-login"] == {"executable": "managesieve-login director"}
    assert conf["protocol lmtp"] == {"auth_socket_path": "director-userdb"}
    assert not [name for name in conf if "shards" in str(conf[name])]


def test_backends_that_take_nobody_are_not_listed() -> None:
    drained = [{**BACKENDS[0], "state": "drained"}, *BACKENDS[1:]]
    conf = from_doveconf(proxy_conf(plan(backends=drained)))
    assert conf["director_mail_servers"] == "192.0.2.12 192.0.2.13"


def test_without_lmtp_nothing_is_written_for_it() -> None:
    conf = from_doveconf(proxy_conf(plan(protocols=["imap"])))
    assert "protocol lmtp" not in conf and "service pop3-login" not in conf


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"version": "2.4.1"}, "dovecot_proxy_mode", "Dovecot 2.4.1 has no director"),
    ({"proxies": ["proxy1.example.com"]}, "nfsmail_address of proxy proxy1.example.com", "listed by IP address"),
    ({"proxies": ["2001:db8::1"]}, "dovecot_proxy_mode", "addresses of one family"),
    (
        {"backends": [{**BACKENDS[0], "weight": 2}]},
        "nfsmail_backend_weight of mail1",
        "no weights in its configuration",
    ),
    ({"overrides": {"a@x": "mail1"}}, "nfsmail_overrides", "takes no backend from a password database"),
]


@pytest.mark.parametrize(("changes", "variable", "rule"), REFUSED)
def test_where_it_cannot_be(changes: dict[str, Any], variable: str, rule: str) -> None:
    (problem,) = refusal(proxy_conf, plan(**changes))
    assert problem.variable == variable and rule in problem.rule


def test_all_that_is_wrong_is_told_at_once() -> None:
    everything = {key: value for changes, _, _ in REFUSED for key, value in changes.items()}
    assert len(refusal(proxy_conf, plan(**everything))) >= 4


def test_modes() -> None:
    (problem,) = problems("ring", "2.3.19", PROXIES, BACKENDS)
    assert (problem.variable, problem.rule) == ("dovecot_proxy_mode", "one of shards, director")
    assert problems("shards", "2.4.1", ["any name"], BACKENDS, {"a@x": "mail1"}) == []
    assert problems("director", "", PROXIES, BACKENDS) == []


# ---- placement ----


def test_where_users_are() -> None:
    """Spread over all, whatever the spelling; tests/dovecot compares with a real ring."""
    found = placement(USERS, BACKENDS)
    assert min(Counter(found.values()).values()) > 60
    assert placement([user.upper() for user in USERS], BACKENDS) == {user.upper(): name for user, name in found.items()}
    # The name of a backend does not matter, its address does.
    renamed = [{**entry, "name": f"other{number}"} for number, entry in enumerate(BACKENDS)]
    assert [renamed[int(name[4:]) - 1]["name"] for name in found.values()] == list(placement(USERS, renamed).values())


def test_removing_a_backend_moves_only_its_users() -> None:
    before = placement(USERS, BACKENDS)
    after = placement(USERS, [{**BACKENDS[0], "state": "down"}, *BACKENDS[1:]])
    assert {user for user in USERS if before[user] != after[user]} == {
        user for user in USERS if before[user] == "mail1"
    }


@given(st.lists(st.text(min_size=1, max_size=20), max_size=20))
def test_with_the_overrides_the_map_moves_nobody(users: list[str]) -> None:
    placed, pinned, shards = placement(users, BACKENDS), overrides(users, BACKENDS), shard_map(BACKENDS)
    assert {user: pinned.get(user) or shards[shard_of(user)] for user in users} == placed
    assert all(shards[shard_of(user)] != name for user, name in pinned.items())
