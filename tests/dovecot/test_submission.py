# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Mail that users send, through a proxy and the user's own backend to a mail transfer agent, with Dovecot 2.3.19 and 2.4.1.

Debian 11 has no submission server in the images of these tests.
"""

from __future__ import annotations

import base64
import contextlib
import re
import smtplib
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from ansible_collections.nfsmail.cluster.plugins.module_utils._sessions import parse_who
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.dovecot_conf import backend_conf, proxy_conf
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.features import RELAY_TLS
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.routing import _held, moving_lines
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.shards import override_lines, shard_lines
from cluster import NET, PASSWORD, Cluster, wait_for
from plans import backend, proxy

VERSIONS = {"proxy1": "2.4.1", "proxy2": "2.3.19", "mail1": "2.3.19", "mail2": "2.4.1"}
PINNED = {"old@example.com": "mail1", "new@example.com": "mail2"}
PROXIES = [name for name in VERSIONS if name.startswith("proxy")]
# It speaks TLS with the backends.
TLS_PROXY = "proxy2"
PROTOCOLS = ["imap", "lmtp", "submission"]
# Lines that a relay could spoil: dots in front, a long one, bytes that are no ASCII, blanks at the end.
BODY = b"..\r\n.hidden\r\n" + b"x" * 900 + b"\r\nna\xc3\xafve \xff  \r\n\r\nend\r\n"
MESSAGE = b"From: old@example.com\r\nTo: bob@example.net\r\nSubject: sent\r\n\r\n" + BODY


# Containers make their own certificates.
UNCHECKED = ssl.create_default_context()
UNCHECKED.check_hostname, UNCHECKED.verify_mode = False, ssl.CERT_NONE
# One key for all; the relay's certificate names its address, and each backend's its own.
CERTIFICATES = """
cd /tmp
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=authority -days 2 -keyout ca.key -out ca.pem 2>/dev/null
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=relay -keyout key.pem -out request.pem 2>/dev/null
for address in {addresses}; do
  printf 'subjectAltName = IP:%s\\n' $address >names
  openssl x509 -req -in request.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names -out $address.pem 2>/dev/null
done
"""
CA, OTHER_CA = "/etc/dovecot/relay-ca.pem", "/etc/dovecot/cert.pem"


@dataclass
class Sent:
    """One message as the mail transfer agent got it."""

    peer: str
    tls: bool
    clients: list[str]
    sender: str = ""
    recipients: list[str] = field(default_factory=list)
    text: bytes = b""


class Balanced(smtplib.SMTP):
    """A connection as a balancer begins it, of a client elsewhere."""

    def __init__(self, address: str, port: int) -> None:
        super().__init__(address, port, "client.example.com", timeout=30)
        if port == 587:
            self.starttls(context=UNCHECKED)

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        found = socket.create_connection((host, port), timeout)
        found.sendall(f"PROXY TCP4 192.0.2.99 {host} 40000 {port}\r\n".encode())
        return UNCHECKED.wrap_socket(found) if port == 465 else found


class Sink:
    """A mail transfer agent that keeps what it gets, with STARTTLS, with TLS at once and without TLS, a port each.

    The containers reach it on their network's first address.
    """

    def __init__(self, certificate: tuple[str, str]) -> None:
        self.got: list[Sent] = []
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(*certificate)
        self.sockets = {tls: socket.create_server((f"{NET}.1", 0)) for tls in RELAY_TLS}
        self.ports = {tls: one.getsockname()[1] for tls, one in self.sockets.items()}
        for tls, one in self.sockets.items():
            threading.Thread(target=self._serve, args=(one, tls), daemon=True).start()

    def close(self) -> None:
        for one in self.sockets.values():
            one.close()

    def _serve(self, listening: socket.socket, tls: str) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, (peer, _) = listening.accept()
                threading.Thread(target=self._answer, args=(connection, peer, tls), daemon=True).start()

    def _answer(self, connection: socket.socket, peer: str, tls: str) -> None:
        # Whoever does not trust us hangs up.
        with contextlib.suppress(OSError), connection:
            if tls == "smtps":
                connection = self.context.wrap_socket(connection, server_side=True)
            self._talk(connection, Sent(peer, tls == "smtps", []), tls)

    def _talk(self, connection: socket.socket, sent: Sent, tls: str, greet: bool = True) -> None:
        with connection, connection.makefile("rwb", buffering=0) as file:
            file.write(b"220 sink ESMTP\r\n" if greet else b"")
            while line := file.readline():
                word, _, rest = line.decode().rstrip("\r\n").partition(" ")
                answer, word = "250 fine", word.upper()
                if word == "EHLO":
                    offered = "250-STARTTLS\r\n" if tls == "starttls" and not sent.tls else ""
                    answer = f"250-sink\r\n250-8BITMIME\r\n{offered}250 XCLIENT ADDR PORT PROTO HELO LOGIN"
                elif word == "STARTTLS":
                    file.write(b"220 begin\r\n")
                    inner = self.context.wrap_socket(connection, server_side=True)
                    return self._talk(inner, replace(sent, tls=True), tls, greet=False)
                elif word == "XCLIENT":
                    sent.clients.append(rest)
                    answer = "220 sink ESMTP"
                elif word == "MAIL":
                    sent = replace(sent, sender=rest, recipients=[])
                elif word == "RCPT" and "nobody" in rest:
                    answer = "550 5.1.1 unknown here"
                elif word == "RCPT":
                    sent.recipients.append(rest)
                elif word == "DATA":
                    file.write(b"354 go on\r\n")
                    lines = iter(file.readline, b".\r\n")
                    sent.text = b"".join(one[1:] if one.startswith(b".") else one for one in lines)
                    self.got.append(sent)
                elif word == "QUIT":
                    answer = "221 bye"
                file.write(f"{answer}\r\n".encode())


@dataclass
class Place:
    """The cluster and what is behind it."""

    cluster: Cluster
    sink: Sink

    def start(self, name: str, **relay: Any) -> None:
        """Start a backend with a relay, or have it read that it is another."""
        told = {"host": f"{NET}.1", "port": self.sink.ports[relay.get("tls", "none")], **relay}
        cluster = {"nfsmail_protocols": PROTOCOLS, "nfsmail_quota": "2G", "nfsmail_submission_relay": told}
        plan = backend(VERSIONS[name], proxies=self.cluster.proxies, cluster=cluster, protocols=PROTOCOLS)
        self.cluster.start(name, backend_conf(plan))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with Cluster(VERSIONS) as cluster:
        addresses = [f"{NET}.1", *(entry["address"] for entry in cluster.backends)]
        cluster.sh("mail1", CERTIFICATES.format(addresses=" ".join(addresses)))
        files = {name: cluster.sh("mail1", f"cat /tmp/{name}.pem") for name in ("key", "ca", *addresses)}
        paths = {name: tmp_path_factory.getbasetemp() / f"{name}.pem" for name in files}
        for name, text in files.items():
            paths[name].write_text(text)
        found = Place(cluster, Sink((str(paths[addresses[0]]), str(paths["key"]))))
        for entry in cluster.backends:
            for path, name in (
                (CA, "ca"),
                ("/etc/dovecot/cert.pem", entry["address"]),
                ("/etc/dovecot/key.pem", "key"),
            ):
                cluster.write(entry["name"], path, files[name])
            found.start(entry["name"], xclient=entry["name"] == "mail2")
        for name in PROXIES:
            cluster.write_users(name, PINNED)
            cluster.write_lines(name, "/etc/dovecot/nfsmail-shards", shard_lines(cluster.backends))
            cluster.write_lines(name, "/etc/dovecot/nfsmail-overrides", override_lines(PINNED, cluster.backends))
            cluster.write(name, "/etc/dovecot/nfsmail-moving", "")
            cluster.write(name, CA, files["ca"])
            tls = {"backend_ca": CA} if name == TLS_PROXY else {}
            cluster.start(name, proxy_conf(proxy(VERSIONS[name], protocols=PROTOCOLS, **tls)))
        for user in PINNED:
            cluster.takes_mail("proxy1", user)
        yield found
        found.sink.close()


def connect(address: str, port: int = 587) -> smtplib.SMTP:
    """As a client does, with TLS before anything else is said."""
    if port == 465:
        return smtplib.SMTP_SSL(address, port, "client.example.com", timeout=30, context=UNCHECKED)
    smtp = smtplib.SMTP(address, port, "client.example.com", timeout=30)
    smtp.starttls(context=UNCHECKED)
    return smtp


def send(place: Place, user: str, name: str, port: int = 587) -> dict[str, tuple[int, bytes]]:
    """Send the message to two recipients; those that were refused."""
    with connect(place.cluster.addresses[name], port) as smtp:
        smtp.login(user, PASSWORD)
        return smtp.sendmail(user, ["bob@example.net", "nobody@example.net"], MESSAGE, ["BODY=8BITMIME"])


@pytest.mark.parametrize("port", [587, 465])
@pytest.mark.parametrize("name", PROXIES)
@pytest.mark.parametrize("user", PINNED)
def test_what_a_user_sends_arrives_as_it_was(place: Place, user: str, name: str, port: int) -> None:
    place.sink.got.clear()
    place.cluster.sh(PINNED[user], "rm -rf /srv/mail/*")
    # What the mail transfer agent refuses is refused at once.
    assert send(place, user, name, port) == {
        "nobody@example.net": (550, b"5.0.0 <nobody@example.net> 5.1.1 unknown here")
    }
    (got,) = place.sink.got
    assert got.peer == place.cluster.addresses[PINNED[user]] and not got.tls
    assert (got.sender, got.recipients) == (f"FROM:<{user}> BODY=8BITMIME", ["TO:<bob@example.net>"])
    added, message = got.text[: -len(MESSAGE)], got.text[-len(MESSAGE) :]
    assert message == MESSAGE
    # One header, with the client's address.
    assert re.fullmatch(rb"Received: from (.*\r\n\t)+.*\r\n", added), added
    assert f"([{NET}.1])".encode() in added
    logins = place.cluster.sh(PINNED[user], "grep 'submission-login: .*: user=' /tmp/log").splitlines()
    assert (", TLS" in logins[-1]) == (name == TLS_PROXY), logins[-1]
    # No mailbox is opened for it.
    assert place.cluster.sh(PINNED[user], "find /srv/mail -mindepth 1") == ""
    # To one who is not to trust us nothing is said of the client.
    clients = [dict(word.split("=") for word in one.split()) for one in got.clients]
    known = [{"ADDR": f"{NET}.1", "LOGIN": user}] if PINNED[user] == "mail2" else []
    assert [{key: one[key] for key in ("ADDR", "LOGIN")} for one in clients] == known


@pytest.mark.parametrize("user", PINNED)
def test_who_moves_is_seen_and_ended_while_sending(place: Place, user: str) -> None:
    """As the module sessions does on a backend. The client is told to come again, and keeps the message."""
    place.sink.got.clear()

    def seen() -> bool:
        return user in [one.user for one in parse_who(place.cluster.sh(PINNED[user], "doveadm -f tab who -1"))]

    with connect(place.cluster.addresses["proxy1"]) as smtp:
        smtp.login(user, PASSWORD)
        assert smtp.docmd("MAIL", f"FROM:<{user}>")[0] == 250
        wait_for(f"{user} is in no list of sessions", seen, 10)
        place.cluster.sh(PINNED[user], f"doveadm kick {user}")
        wait_for(f"{user} is still in the list of sessions", lambda: not seen(), 10)
        code, said = smtp.docmd("RCPT", "TO:<bob@example.net>")
        assert code == 421 and said.startswith(b"4.3.2 "), (code, said)
        smtp.close()
    assert place.sink.got == []


@pytest.mark.parametrize("name", PROXIES)
def test_who_moves_sends_from_where_the_move_goes(place: Place, name: str) -> None:
    """The moving file has a line for submission that both dialects find."""
    user, there = "new@example.com", place.cluster.addresses["mail1"]
    lines = [line for line in moving_lines(_held(f"/{user}", there), 1) if line.startswith("submission/")]

    def sent_from() -> str:
        send(place, user, name)
        return place.sink.got[-1].peer

    assert sent_from() == place.cluster.addresses["mail2"]
    # Dovecot looks at its files once a second.
    place.cluster.write_lines(name, "/etc/dovecot/nfsmail-moving", lines)
    wait_for(f"{name} does not ask for submission", lambda: sent_from() == there, 10)
    place.cluster.write(name, "/etc/dovecot/nfsmail-moving", "")
    wait_for(f"{name} does not forget", lambda: sent_from() != there, 10)


@pytest.mark.parametrize("tls", ["starttls", "smtps"])
@pytest.mark.parametrize("user", PINNED)
def test_tls_to_the_mail_transfer_agent(place: Place, user: str, tls: str) -> None:
    place.start(PINNED[user], tls=tls, ca=CA)

    def encrypted() -> bool:
        place.sink.got.clear()
        # While it reads its configuration again, it may not answer.
        with contextlib.suppress(smtplib.SMTPException):
            send(place, user, "proxy1")
        return bool(place.sink.got) and place.sink.got[-1].tls

    wait_for("nothing comes by TLS", encrypted, 15)


@pytest.mark.parametrize("tls", ["starttls", "none"])
@pytest.mark.parametrize("user", PINNED)
def test_nothing_goes_to_whom_the_ca_does_not_know(place: Place, user: str, tls: str) -> None:
    """Nor without TLS to one that has none (the port of none), where TLS is told."""
    where = (
        {"tls": "starttls", "ca": CA, "port": place.sink.ports["none"]}
        if tls == "none"
        else {"tls": tls, "ca": OTHER_CA}
    )
    place.cluster.sh(PINNED[user], ": >/tmp/log")
    place.start(PINNED[user], **where)

    def complaint() -> str:
        place.sink.got.clear()
        with pytest.raises(smtplib.SMTPException):
            send(place, user, "proxy1")
        return place.cluster.sh(PINNED[user], f"grep 'Error: .*smtp-client: .*{why}' /tmp/log || true")

    why = "but server doesn.t support it" if tls == "none" else "Received invalid SSL certificate"
    wait_for("it does not say why", lambda: bool(complaint()), 15)
    assert place.sink.got == []


@pytest.mark.parametrize("port", [587, 465])
@pytest.mark.parametrize("user", PINNED)
def test_behind_a_balancer(place: Place, user: str, port: int) -> None:
    """Topology random: users log in on the backend, behind the header that HAProxy writes. The last that this backend does."""
    name = PINNED[user]
    relay = {"host": f"{NET}.1", "port": place.sink.ports["none"]}
    told = {"nfsmail_protocols": PROTOCOLS, "nfsmail_submission_relay": relay}
    place.cluster.write_users(name, PINNED)
    here = {"cluster": told, "protocols": PROTOCOLS, "proxies": [], "balancers": [f"{NET}.1"]}
    place.cluster.start(name, backend_conf(backend(VERSIONS[name], {"topology": "random"}, **here)))
    place.sink.got.clear()

    def sent() -> bool:
        # Until it has read its configuration again.
        with contextlib.suppress(smtplib.SMTPException, OSError), Balanced(place.cluster.addresses[name], port) as smtp:
            smtp.login(user, PASSWORD)
            smtp.sendmail(user, ["bob@example.net"], MESSAGE, ["BODY=8BITMIME"])
        return bool(place.sink.got)

    wait_for("nothing is sent", sent, 15)
    assert place.sink.got[0].text.endswith(MESSAGE) and b"([192.0.2.99])" in place.sink.got[0].text
    with socket.create_connection((place.cluster.addresses[name], port), timeout=30) as past:
        past.sendall(b"EHLO client.example.com\r\n")
        with contextlib.suppress(ConnectionError):
            assert past.recv(100) == b""


def plain(user: str, password: str) -> str:
    return base64.b64encode(f"\0{user}\0{password}".encode()).decode()


@pytest.mark.parametrize("name", PROXIES)
def test_who_may_not_send(place: Place, name: str) -> None:
    """Nobody without a password, with another one, or without TLS in front of it. Last: Dovecot lets such a client wait."""
    place.sink.got.clear()
    user, address = next(iter(PINNED)), place.cluster.addresses[name]
    with smtplib.SMTP(address, 587, "client.example.com", timeout=30) as smtp:
        assert smtp.ehlo()[0] == 250
        assert "PLAIN" not in smtp.esmtp_features["auth"]
        code, said = smtp.docmd("AUTH", f"PLAIN {plain(user, PASSWORD)}")
        assert code == 523 and re.match(rb"5\.7\.10 (Clear|Plain)text authentication dis", said), (code, said)
    with connect(address) as smtp:
        smtp.ehlo()
        assert smtp.docmd("MAIL", f"FROM:<{user}>") == (530, b"5.7.0 Authentication required.")
        assert smtp.docmd("AUTH", f"PLAIN {plain(user, 'another')}") == (535, b"5.7.8 Authentication failed.")
        assert smtp.docmd("MAIL", f"FROM:<{user}>") == (530, b"5.7.0 Authentication required.")
    assert place.sink.got == []
