# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The three ways of delivery, with Debian's Postfix: by LMTP through a proxy, by Postfix itself, by dovecot-lda."""

from __future__ import annotations

import smtplib
from collections.abc import Iterator

import pytest
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.dovecot_conf import backend_conf, proxy_conf
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.shards import (
    override_lines,
    shard_lines,
    shard_map,
    shard_of,
)
from cluster import PASSWORD, Cluster, wait_for
from mailflow.imap import ImapSession
from plans import backend, proxy

VERSIONS = {"proxy1": "2.3.19", "proxy2": "2.4.1", "mail1": "2.3.19", "mail2": "2.4.1"}
USERS = [f"user{number:02d}@example.com" for number in range(1, 13)]
# By its shard on mail2: an override that says the same would prove nothing.
PINNED = {"user01@example.com": "mail1"}
# Mail for example.com goes to a proxy by LMTP, whatever machine it came in on.
POSTFIX = """
maillog_file = /dev/stdout
inet_interfaces = all
inet_protocols = ipv4
mydestination =
mynetworks = 0.0.0.0/0
smtpd_relay_restrictions = permit_mynetworks, reject
virtual_mailbox_domains = example.com
"""
BY_LMTP = "virtual_transport = lmtp:inet:{proxy}:24\n"
BY_ITSELF = """
virtual_mailbox_base = /srv/mail
virtual_mailbox_maps = texthash:/etc/postfix/maps
virtual_uid_maps = static:5000
virtual_gid_maps = static:5001
"""
MAPS = "".join(f"{user} example.com/{user.split('@')[0]}/Maildir/\n" for user in USERS)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(VERSIONS) as found:
        for entry in found.backends:
            found.start(entry["name"], backend_conf(backend(VERSIONS[entry["name"]], proxies=found.proxies)))
        for name in ("proxy1", "proxy2"):
            found.write_users(name, USERS)
            found.write_lines(name, "/etc/dovecot/nfsmail-shards", shard_lines(found.backends))
            found.write_lines(name, "/etc/dovecot/nfsmail-overrides", override_lines(PINNED, found.backends))
            found.start(name, proxy_conf(proxy(VERSIONS[name], protocols=["imap", "lmtp"])))
        yield found


def postfix(cluster: Cluster, name: str, text: str, maps: str = "") -> None:
    """Start Postfix on a machine, or give it another configuration."""
    cluster.write(name, "/etc/postfix/main.cf", POSTFIX + f"myhostname = {name}.example.net\n" + text)
    cluster.write(name, "/etc/postfix/maps", maps)
    # Its output in a file: docker waits for the end of everything that holds its own.
    cluster.sh(name, "postfix stop >/dev/null 2>&1; postfix start-fg >/tmp/maillog 2>&1 </dev/null &")

    def answers() -> bool:
        try:
            with smtplib.SMTP(cluster.addresses[name], 25, timeout=10) as smtp:
                return smtp.noop()[0] == 250
        except OSError:
            return False

    wait_for(f"Postfix on {name}: {cluster.sh(name, 'tail -5 /tmp/maillog')}", answers)


def send(cluster: Cluster, name: str, user: str) -> None:
    with smtplib.SMTP(cluster.addresses[name], 25, timeout=30) as smtp:
        assert smtp.sendmail("a@lab.invalid", [user], f"Subject: by {name}\r\n\r\nhello\r\n") == {}


def placed(cluster: Cluster) -> dict[str, str]:
    shards = shard_map(cluster.backends)
    assert all(shards[shard_of(user)] != name for user, name in PINNED.items())
    return {user: PINNED.get(user) or shards[shard_of(user)] for user in USERS}


def test_smtp_on_any_machine_ends_on_the_users_backend(cluster: Cluster) -> None:
    """Each machine's Postfix hands over to one of the proxies; where the mail lies does not depend on which."""
    for number, name in enumerate(VERSIONS):
        postfix(cluster, name, BY_LMTP.format(proxy=cluster.proxies[number % 2]))
        for user in USERS:
            send(cluster, name, user)
    assert set(placed(cluster).values()) == {"mail1", "mail2"}
    assert cluster.files(len(VERSIONS) * len(USERS)) == placed(cluster)
    for number, user in enumerate(USERS):
        with ImapSession(cluster.addresses[f"proxy{number % 2 + 1}"], 143, user, PASSWORD) as session:
            assert len(session.uids()) == len(VERSIONS)


def test_unknown_users_are_refused_while_the_sender_waits_for_the_proxy(cluster: Cluster) -> None:
    """Postfix takes the message, and has it bounced by the proxy's 550."""
    send(cluster, "mail1", "nobody@example.com")
    log = "grep -c 'nobody@example.com.*550 5.1.1.*User doesn.t exist' /tmp/maillog"
    wait_for("Postfix was not told", lambda: cluster.sh("mail1", f"{log} || true").strip() not in ("", "0"))


@pytest.mark.parametrize("name", ["mail1", "mail2"])
def test_postfix_itself_delivers_to_a_maildir(cluster: Cluster, name: str) -> None:
    """delivery: mta. It writes no index and no dovecot-uidlist, and Dovecot finds the mail."""
    plan = backend(VERSIONS[name], {"delivery": "mta"}, proxies=cluster.proxies)
    cluster.start(name, backend_conf(plan))
    postfix(cluster, name, BY_ITSELF, MAPS)
    user = next(user for user, where in placed(cluster).items() if where == name)
    home = f"/srv/mail/example.com/{user.split('@')[0]}/Maildir"
    before = cluster.sh(name, f"cat {home}/dovecot-uidlist; ls {home}/new | wc -l").splitlines()
    send(cluster, name, user)
    try:
        wait_for("the message", lambda: int(cluster.sh(name, f"ls {home}/new | wc -l")) > int(before[-1]), 20)
    except AssertionError as error:
        raise AssertionError(cluster.sh(name, "tail -20 /tmp/maillog")) from error
    assert cluster.sh(name, f"cat {home}/dovecot-uidlist").splitlines() == before[:-1]
    assert cluster.sh(name, f"stat -c %u:%g {home}/new/*").split() == ["5000:5001"]
    with ImapSession(cluster.addresses["proxy1"], 143, user, PASSWORD) as session:
        assert len(session.uids()) == len(VERSIONS) + 1


@pytest.mark.parametrize("name", ["mail1", "mail2"])
def test_lda_beside_the_users_backend_writes_no_index(cluster: Cluster, name: str) -> None:
    """delivery: lda. The rule's indexes in memory work, and so does its warning: dovecot-uidlist is written."""
    plan = backend(VERSIONS[name], {"delivery": "lda"}, proxies=cluster.proxies)
    cluster.start(name, backend_conf(plan))
    home = "/srv/mail/example.com/lda/Maildir"
    lda = "setpriv --reuid 5000 --regid 5001 --clear-groups /usr/lib/dovecot/dovecot-lda -d lda@example.com"
    cluster.sh(
        name,
        f"chmod 666 /tmp/log; {lda} || {{ cat /tmp/log; exit 1; }}",
        "From: a@lab.invalid\nSubject: by lda\n\nhello\n",
    )
    found = cluster.sh(name, f"ls {home} {home}/new").split()
    assert len([file for file in found if file.startswith("1")]) == 1, found
    assert "dovecot-uidlist" in found and not [file for file in found if file.startswith("dovecot.index")], found
