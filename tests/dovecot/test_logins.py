# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Users in SQLite and LDAP (a real slapd): through proxies to their backends; these and PAM: on the one backend."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.dovecot_conf import backend_conf, proxy_conf, ssha512
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.logins import FILE, passdb_conf
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.shards import shard_lines, shard_map, shard_of
from cluster import PASSWORD, Cluster
from mailflow.errors import MailflowError
from mailflow.imap import ImapSession
from mailflow.lmtp import LmtpClient
from plans import backend, proxy

VERSIONS = {
    "proxy1": "2.3.13",
    "proxy2": "2.3.19",
    "proxy3": "2.4.1",
    "mail1": "2.3.19",
    "mail2": "2.4.1",
}
FRONTS = {"sql": ("proxy2", "proxy3"), "ldap": ("proxy1", "proxy2", "proxy3")}
BEHIND = {"sql": ("mail1",), "ldap": ("mail2",), "pam": ("mail1", "mail2")}
BACKENDS = [name for name in VERSIONS if name.startswith("mail")]
CASES = [(kind, front) for kind, fronts in FRONTS.items() for front in fronts]
SINGLES = [(kind, name) for kind, names in BEHIND.items() for name in names]
USERS = [f"user{number}@example.com" for number in range(1, 5)]
SYSTEM = ["anna", "berta", "carl", "dora"]
# Every character that a password of a database may have.
SECRET = "aZ09._~+/=@:,!?*&^()|-"
SQLITE = "/etc/dovecot/users.sqlite"
OPTIONS: dict[str, dict[str, Any]] = {
    "sql": {
        "driver": "sqlite",
        "database": SQLITE,
        "query": "SELECT name AS user, hash AS password FROM people WHERE lower(name) = '{user}'",
    },
    "ldap": {
        "base": "ou=people,dc=example,dc=com",
        "bind_dn": "cn=admin,dc=example,dc=com",
        "filter": "(&(objectClass=inetOrgPerson)(|(mail={user})(mail=alias-{name}@{domain})))",
    },
    "pam": {},
}
# By default the name comes from LDAP, and the password is tried there.
MORE = {
    "proxy1": {},
    "proxy3": {},
    "mail1": {"password_attribute": "userPassword"},
    "mail2": {"password_attribute": "userPassword", "user_attribute": "mail"},
}
SLAPD = """
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
pidfile /tmp/slapd.pid
database mdb
directory /tmp/slapd
suffix dc=example,dc=com
rootdn cn=admin,dc=example,dc=com
rootpw {secret}
access to attrs=userPassword by anonymous auth by * none
access to * by dn.base="cn=admin,dc=example,dc=com" read by * none
"""
START_SLAPD = "slapd -h ldap://0.0.0.0 -f /tmp/slapd.conf >/tmp/slapd.log 2>&1 </dev/null"
STOP_SLAPD = "pid=$(cat /tmp/slapd.pid); kill $pid; timeout 20 tail --pid=$pid -f /dev/null"
# But that nobody counts failures here.
BAD_NEWS = re.compile(r"^(?!.*anvil-auth-penalty).*(Error|Panic|Fatal|Warning(?!: Killed))")
# Whoever fails waits longer and longer, and there is but one client here.
QUICK = {
    "auth_failure_delay": "0",
    "service anvil": {"unix_listener anvil-auth-penalty": {"mode": "0"}},
}


def users_of(kind: str) -> list[str]:
    return SYSTEM if kind == "pam" else USERS


def typed(user: str) -> str:
    """As somebody types it, and the databases have it."""
    return user.capitalize()


def nobody_of(kind: str) -> str:
    return users_of(kind)[0].replace("user1", "nobody").replace("anna", "nobody1")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(VERSIONS) as found:
        for name, version in VERSIONS.items():
            hashes = dict.fromkeys(USERS[:1], found.sh(name, f"openssl passwd -6 {PASSWORD}").strip())
            people = "".join(
                f"INSERT INTO people VALUES ('{typed(user)}', '{hashes.get(user) or ssha512(PASSWORD, user)}');"
                for user in USERS
            )
            if version != "2.3.13":
                found.sh(name, f"sqlite3 {SQLITE}", f"CREATE TABLE people (name, hash);{people}")
            lines = "".join(f"useradd {user}; echo {user}:{PASSWORD} | chpasswd -c SHA512 -s 1000; " for user in SYSTEM)
            found.sh(name, lines)
        start_slapd(found)
        for name in BACKENDS:
            found.start(name, backend_conf(backend(VERSIONS[name], proxies=found.proxies)))
        for name in VERSIONS:
            found.write_lines(name, "/etc/dovecot/nfsmail-shards", shard_lines(found.backends))
            for empty in ("overrides", "moving"):
                found.write_lines(name, f"/etc/dovecot/nfsmail-{empty}", [])
        yield found


def ssha() -> str:
    """A hash that slapd knows, and Dovecot."""
    return "{SSHA}" + base64.b64encode(hashlib.sha1(PASSWORD.encode() + b"salt").digest() + b"salt").decode()


def start_slapd(cluster: Cluster) -> None:
    entries = ["dn: dc=example,dc=com\nobjectClass: dcObject\nobjectClass: organization\no: x\ndc: example\n"]
    entries += ["dn: ou=people,dc=example,dc=com\nobjectClass: organizationalUnit\nou: people\n"]
    for user in USERS:
        name = user.split("@")[0]
        entries.append(
            f"dn: uid={name},ou=people,dc=example,dc=com\nobjectClass: inetOrgPerson\nuid: {name}\ncn: {name}\nsn: {name}\n"
            f"mail: {typed(user)}\nuserPassword: {ssha()}\n"
        )
    # Debian 11 has it too, and its own password hash would be the slow part.
    cluster.write("mail1", "/tmp/slapd.conf", SLAPD.replace("{secret}", SECRET))
    cluster.sh("mail1", "mkdir /tmp/slapd && slapadd -q -f /tmp/slapd.conf", "\n".join(entries))
    cluster.sh("mail1", START_SLAPD)


def plan_of(cluster: Cluster, kind: str, name: str) -> dict[str, Any]:
    options = dict(OPTIONS[kind])
    if kind == "ldap":
        options["uris"] = [f"ldap://{cluster.addresses['mail1']}"]
        options |= MORE.get(name, {"user_attribute": "mail"})
    more = {"passdb": kind, "passdb_options": options, "extra_settings": QUICK}
    if kind == "ldap":
        more["passdb_password"] = SECRET
    if name.startswith("proxy"):
        return proxy(VERSIONS[name], protocols=["imap", "lmtp"], **more)
    return backend(VERSIONS[name], {"topology": "single"}, proxies=[], doveadm_password="", **more)


def configure(cluster: Cluster, kind: str, name: str) -> None:
    plan = plan_of(cluster, kind, name)
    if text := passdb_conf(plan):
        # As the roles do.
        cluster.write(name, FILE, text)
        cluster.sh(name, f"chmod 600 {FILE}")
    stop = "pid=$(cat /run/dovecot/master.pid); kill $pid; timeout 30 tail --pid=$pid -f /dev/null"
    cluster.sh(name, f"if [ -e /run/dovecot/master.pid ]; then {stop}; fi; : >/tmp/log")
    cluster.start(name, proxy_conf(plan) if name.startswith("proxy") else backend_conf(plan))
    cluster.takes_mail(name, users_of(kind)[0])


@pytest.mark.parametrize(("kind", "front"), CASES)
def test_through_a_proxy(cluster: Cluster, kind: str, front: str) -> None:
    for name in BACKENDS:
        cluster.sh(name, "rm -rf /srv/mail/*")
    configure(cluster, kind, front)
    everything_works(cluster, kind, front)
    shards = shard_map(cluster.backends)
    look = "find /srv/mail -path '*/Maildir/*' -type f -name '[0-9]*'"
    where = {line: name for name in BACKENDS for line in cluster.sh(name, look).splitlines()}
    assert len(where) == len(users_of(kind))
    for path, name in where.items():
        domain, local = path.split("/")[3:5]
        assert shards[shard_of(f"{local}@{domain}")] == name, path


@pytest.mark.parametrize(("kind", "name"), SINGLES)
def test_on_the_one_backend(cluster: Cluster, kind: str, name: str) -> None:
    cluster.sh(name, "rm -rf /srv/mail/*")
    configure(cluster, kind, name)
    everything_works(cluster, kind, name)
    owners = set(cluster.sh(name, "stat -c %u:%g $(find /srv/mail -mindepth 1)").split())
    assert owners == {"5000:5001"}
    homes = cluster.sh(name, "cd /srv/mail; ls -d */Maildir */*/Maildir 2>/dev/null || :").split()
    expected = SYSTEM if kind == "pam" else [f"example.com/{user.split('@')[0]}" for user in USERS]
    assert sorted(homes) == sorted(f"{home}/Maildir" for home in expected)


def everything_works(cluster: Cluster, kind: str, name: str) -> None:
    address = cluster.addresses[name]
    nobody = nobody_of(kind)
    with LmtpClient(address, 24) as lmtp:
        for user in users_of(kind):
            told = typed(user)
            assert lmtp.deliver("a@lab.invalid", [told], b"Subject: x\r\n\r\nhello\r\n")[told].code == 250
        refused = lmtp.try_recipient("a@lab.invalid", nobody)
        assert refused.code == 550 and "User doesn't exist" in str(refused), refused
    for user in users_of(kind):
        with ImapSession(address, 143, typed(user), PASSWORD) as session:
            assert len(session.uids()) == 1
    for user, password in [(users_of(kind)[0], "wrong"), (nobody, PASSWORD), ("x'or'x'='x", PASSWORD)]:
        with pytest.raises(MailflowError, match="AUTHENTICATIONFAILED"):
            ImapSession(address, 143, user, password)
    # What move_user asks.
    assert "uid" in cluster.sh(name, f"doveadm user {users_of(kind)[0]}")
    said = cluster.sh(name, f"doveadm user {nobody} 2>&1 || :")
    assert "exist" in said, said
    log = cluster.sh(name, "cat /tmp/log")
    bad = [line for line in log.splitlines() if BAD_NEWS.search(line)]
    assert not bad, bad
    if kind == "ldap" and name in ("proxy2", "proxy3"):
        nobody_is_turned_away_for_good(cluster, name)


def nobody_is_turned_away_for_good(cluster: Cluster, name: str) -> None:
    """The LDAP server is away: mail comes again, and clients do not think that the password is wrong."""
    cluster.sh("mail1", STOP_SLAPD)
    try:
        with LmtpClient(cluster.addresses[name], 24) as lmtp:
            for user in (USERS[1], nobody_of("ldap")):
                assert lmtp.try_recipient("a@lab.invalid", user).code == 451
        with pytest.raises(MailflowError, match="UNAVAILABLE"):
            ImapSession(cluster.addresses[name], 143, USERS[0], PASSWORD)
    finally:
        cluster.sh("mail1", START_SLAPD)
