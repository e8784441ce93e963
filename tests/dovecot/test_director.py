# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A director ring of two 2.3 proxies, and the way from it to the shard map: mail ends where it should, and nobody moves."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator

import pytest
from ansible_collections.nfsmail.cluster.plugins.plugin_utils import director, routing
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.dovecot_conf import backend_conf, proxy_conf
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.shards import override_lines, shard_lines
from cluster import PASSWORD, Cluster, wait_for
from mailflow.errors import MailflowError
from mailflow.imap import ImapSession
from mailflow.lmtp import LmtpClient
from plans import backend, proxy

VERSIONS = {"proxy1": "2.3.13", "proxy2": "2.3.19", "mail1": "2.3.19", "mail2": "2.4.1", "mail3": "2.3.13"}
USERS = [f"user{number:02d}@example.com" for number in range(1, 25)] + ["Anna.Schmidt@Example.org"]


@pytest.fixture(scope="module")
def ring() -> Iterator[Cluster]:
    with Cluster(VERSIONS) as found:
        for entry in found.backends:
            found.start(entry["name"], backend_conf(backend(VERSIONS[entry["name"]], proxies=found.proxies)))
        for name in ("proxy1", "proxy2"):
            found.write_users(name, USERS)
            mode = {"mode": "director", "backends": found.backends, "proxies": found.proxies, "director_port": 9090}
            found.start(name, proxy_conf(proxy(VERSIONS[name], protocols=["imap", "lmtp"], **mode)))
        yield found


def deliver(ring: Cluster, where: str, subject: str) -> None:
    """One message to each user, three in a transaction, so that a transaction is split over backends."""
    with LmtpClient(ring.addresses[where], 24) as lmtp:
        for start in range(0, len(USERS), 3):
            message = f"Subject: {subject}\r\n\r\nhello\r\n".encode()
            for user, reply in lmtp.deliver("a@lab.invalid", USERS[start : start + 3], message).items():
                assert reply.ok, f"{user}: {reply}"


def test_the_ring_is_in_sync(ring: Cluster) -> None:
    for name in ("proxy1", "proxy2"):

        def synced(name: str = name) -> bool:
            rows = json.loads(ring.sh(name, "doveadm -f json director ring status"))
            return len(rows) >= 2 and all("synced" in row["status"] for row in rows)

        wait_for(f"{name}: the ring is not in sync", synced)


def test_mail_goes_where_the_director_s_ring_says(ring: Cluster) -> None:
    """By LMTP through one director and IMAP through the other; the placement that we compute is the director's."""
    wanted = director.placement([user.lower() for user in USERS], ring.backends)
    assert set(wanted.values()) == {"mail1", "mail2", "mail3"}
    deliver(ring, "proxy1", "by director")
    for user in USERS[:6] + USERS[-1:]:
        with ImapSession(ring.addresses["proxy2"], 143, user, PASSWORD) as session:
            assert len(session.uids()) == 1
    assert ring.files() == wanted


def test_unknown_users_are_refused_by_the_directors(ring: Cluster) -> None:
    with LmtpClient(ring.addresses["proxy1"], 24) as lmtp:
        reply = lmtp.try_recipient("a@lab.invalid", "nobody@example.com")
    assert reply.code == 550 and "User doesn't exist" in reply.text, reply
    with pytest.raises(MailflowError, match="AUTHENTICATIONFAILED"):
        ImapSession(ring.addresses["proxy2"], 143, USERS[0], "wrong")


def told(ring: Cluster, request: dict[str, object], state: dict[str, object]) -> dict[str, object]:
    """What playbooks/reroute.yml does with directors; the state afterwards."""
    plan = routing.move_plan(ring.backends, {}, [state], {**request, "router": "director"})
    for words in plan["ring"]:
        ring.sh("proxy1", f"doveadm director {' '.join(words)}")
    return dict(plan["state"])


def who(ring: Cluster, backend: str) -> set[str]:
    return set(ring.sh(backend, "doveadm who -1").split()) & {user.lower() for user in USERS}


def test_a_drained_backend_is_empty_and_its_users_come_back(ring: Cluster) -> None:
    """Sessions of all users through both directors: those on the drained backend end, the others do not notice."""
    users = [user.lower() for user in USERS]
    home = director.placement(users, ring.backends)
    without = director.placement(users, [one for one in ring.backends if one["name"] != "mail1"])
    with contextlib.ExitStack() as open_sessions:
        sessions = {}
        for number, user in enumerate(users):
            proxy_ = ring.addresses[f"proxy{number % 2 + 1}"]
            sessions[user] = open_sessions.enter_context(ImapSession(proxy_, 143, user, PASSWORD))
        assert who(ring, "mail1") == {user for user in users if home[user] == "mail1"} != set()

        state = told(ring, {"verb": "drain", "drain": "mail1"}, {})
        wait_for("mail1 is not empty", lambda: who(ring, "mail1") == set())
        for user in users:
            if home[user] != "mail1":
                sessions[user].uids()
        before = sum(map(len, ring._mail()))
        for number in (1, 2):
            deliver(ring, f"proxy{number}", "while drained")
        wait_for("mail came", lambda: sum(map(len, ring._mail())) == before + 2 * len(users))
        for user in (user for user in users if home[user] == "mail1"):
            with ImapSession(ring.addresses["proxy2"], 143, user, PASSWORD):
                assert user in who(ring, without[user])

        told(ring, {"verb": "undrain", "undrain": "mail1"}, state)
        for user in users:
            with ImapSession(ring.addresses["proxy1"], 143, user, PASSWORD):
                assert user in who(ring, home[user]), user
        # A user whom no command was about.
        other = next(user for user in users if home[user] == "mail2")
        told(ring, {"verb": "move_user", "move_user": other, "move_to": "mail3"}, {})
        wait_for("the user is still there", lambda: other not in who(ring, "mail2"))
        with ImapSession(ring.addresses["proxy2"], 143, other, PASSWORD):
            assert other in who(ring, "mail3")
        told(ring, {"verb": "move_user", "move_user": other, "move_to": "hash"}, {})
        wait_for("the user is still there", lambda: other not in who(ring, "mail3"))
    # The stores as they were: mail on one backend only.
    for entry in ring.backends:
        ring.sh(entry["name"], "rm -rf /srv/mail/*")
    deliver(ring, "proxy1", "by director")


def test_from_the_director_to_the_shard_map_nobody_moves(ring: Cluster) -> None:
    """One proxy after the other; whoever is logged in, logs in meanwhile or later is where they were.

    A reload ends the sessions of that proxy, and clients log in again. (With shutdown_clients = no they live on, but so does
    the old LMTP process, which then cannot look users up any more: measured with 2.3.19.)
    """
    users = [user.lower() for user in USERS]
    placed, pinned = director.placement(users, ring.backends), director.overrides(users, ring.backends)
    assert 0 < len(pinned) < len(USERS)
    with ImapSession(ring.addresses["proxy2"], 143, USERS[0], PASSWORD) as before:
        to_shard_map(ring, "proxy1", pinned)
        deliver(ring, "proxy1", "half way, by map")
        deliver(ring, "proxy2", "half way, by director")
        # Logged in through the director, and sees what came by way of the map: it is the same backend.
        before.uids()  # Dovecot looks for new mail at the end of a command
        assert len(before.uids()) == 3
        with ImapSession(ring.addresses["proxy1"], 143, USERS[0], PASSWORD) as beside:
            assert len(beside.uids()) == 3
    to_shard_map(ring, "proxy2", pinned)
    deliver(ring, "proxy2", "by map")
    for user in USERS[:6]:
        with ImapSession(ring.addresses["proxy2"], 143, user, PASSWORD) as session:
            assert len(session.uids()) == 4
    assert ring.files() == placed
    assert all("director" not in ring.sh(name, "doveconf -n") for name in ("proxy1", "proxy2"))


def to_shard_map(ring: Cluster, name: str, pinned: dict[str, str]) -> None:
    """What site.yml does on a proxy when dovecot_proxy_mode changes."""
    ring.write_lines(name, "/etc/dovecot/nfsmail-shards", shard_lines(ring.backends))
    ring.write_lines(name, "/etc/dovecot/nfsmail-overrides", override_lines(pinned, ring.backends))
    ring.start(name, proxy_conf(proxy(VERSIONS[name], protocols=["imap", "lmtp"])))
    ring.takes_mail(name, USERS[0])


def test_dovecot_says_where_everybody_is(ring: Cluster) -> None:
    """doveadm auth lookup agrees with the map and the pins that we wrote."""
    names = {address: name for name, address in ring.addresses.items()}
    users = [user.lower() for user in USERS]
    said = ring.sh("proxy2", f"doveadm auth lookup -f host {' '.join(users)}").split()
    assert {user: names[host] for user, host in zip(users, said)} == director.placement(users, ring.backends)
