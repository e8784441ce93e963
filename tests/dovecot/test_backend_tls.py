# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""TLS from proxies to backends: with the right certificate everything goes through it, with another one nothing goes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.dovecot_conf import backend_conf, proxy_conf
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.shards import shard_lines
from cluster import PASSWORD, Cluster, wait_for
from mailflow.errors import MailflowError
from mailflow.imap import ImapSession
from mailflow.lmtp import LmtpClient
from plans import backend, proxy

VERSIONS = {"proxy1": "2.3.13", "proxy2": "2.3.19", "proxy3": "2.4.1", "mail1": "2.3.19", "mail2": "2.4.1"}
PROXIES = [name for name in VERSIONS if name.startswith("proxy")]
BACKENDS = [name for name in VERSIONS if name.startswith("mail")]
USERS = [f"user{number:02d}@example.com" for number in range(1, 9)]
CA = "/etc/dovecot/backends-ca.pem"
AUTHORITY = (
    "openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=authority -days 2 -keyout ca.key -out ca.pem 2>/dev/null"
)
SIGNED = """
cd /etc/dovecot
openssl req -newkey rsa:2048 -nodes -subj /CN=backend -keyout key.pem -out request.pem 2>/dev/null
printf 'subjectAltName = IP:%s\\n' {address} >names
openssl x509 -req -in request.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names -out cert.pem 2>/dev/null
if [ -e /run/dovecot/master.pid ]; then doveadm reload; fi
"""


@pytest.fixture(scope="module")
def tls() -> Iterator[Cluster]:
    with Cluster(VERSIONS) as found:
        found.sh("proxy1", f"cd /etc/dovecot && {AUTHORITY}")
        files = {name: found.sh("proxy1", f"cat /etc/dovecot/{name}") for name in ("ca.pem", "ca.key")}
        for name in BACKENDS:
            for file, text in files.items():
                found.write(name, f"/etc/dovecot/{file}", text)
            found.sh(name, SIGNED.format(address=found.addresses[name]))
            found.start(name, backend_conf(backend(VERSIONS[name], proxies=found.proxies)))
        for name in PROXIES:
            found.write(name, CA, files["ca.pem"])
            found.write_users(name, USERS)
            found.write_lines(name, "/etc/dovecot/nfsmail-shards", shard_lines(found.backends))
            for empty in ("overrides", "moving"):
                found.write_lines(name, f"/etc/dovecot/nfsmail-{empty}", [])
            found.start(name, proxy_conf(proxy(VERSIONS[name], protocols=["imap", "lmtp"], backend_ca=CA)))
        yield found


def deliver(tls: Cluster, front: str) -> list[int]:
    with LmtpClient(tls.addresses[front], 24) as lmtp:
        replies = [lmtp.deliver("a@lab.invalid", [user], b"Subject: x\r\n\r\nhello\r\n")[user] for user in USERS]
    return [reply.code for reply in replies]


@pytest.mark.parametrize("front", PROXIES)
def test_everything_goes_through_tls(tls: Cluster, front: str) -> None:
    for name in BACKENDS:
        tls.sh(name, ": >/tmp/log; find /srv/mail -type f -name '[0-9]*' -delete")
    assert deliver(tls, front) == [250] * len(USERS)
    for user in USERS:
        with ImapSession(tls.addresses[front], 143, user, PASSWORD) as session:
            assert session.uids()
        said = tls.sh(front, f"doveadm mailbox status -u {user} messages INBOX")
        assert "messages=1" in said, said
    for name in BACKENDS:
        logins = [
            line for line in tls.sh(name, "cat /tmp/log").splitlines() if "imap-login: " in line and "user=" in line
        ]
        assert logins and all(", TLS" in line for line in logins), logins
        mail = tls.sh(name, "cat $(find /srv/mail -type f -name '[0-9]*')")
        assert mail.count("with LMTPS") >= mail.count("hello") > 0, mail


@pytest.mark.parametrize("front", PROXIES)
def test_whoever_has_another_certificate_gets_nothing(tls: Cluster, front: str) -> None:
    """Signed by the right authority, for another address."""
    try:
        for name in BACKENDS:
            tls.sh(name, SIGNED.format(address="192.0.2.1"))
            tls.sh(name, ": >/tmp/log")
        for name in BACKENDS:
            tls.takes_mail(name, USERS[0])
        assert set(deliver(tls, front)) == {451}
        for user in USERS[:3]:
            with pytest.raises(MailflowError, match="UNAVAILABLE"):
                ImapSession(tls.addresses[front], 143, user, PASSWORD)
        said = tls.sh(front, f"doveadm mailbox status -u {USERS[0]} messages INBOX 2>&1 || :")
        assert "messages=" not in said, said
        for name in BACKENDS:
            assert "Login: user" not in tls.sh(name, "cat /tmp/log") and "Logged in" not in tls.sh(name, "cat /tmp/log")
    finally:
        for name in BACKENDS:
            tls.sh(name, SIGNED.format(address=tls.addresses[name]))
            wait_for(f"{name} is back", lambda name=name: not tls.takes_mail(name, USERS[0]))
