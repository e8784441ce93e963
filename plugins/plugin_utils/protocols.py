# Copyright: (c) 2026, the nfsmail.cluster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What Dovecot serves: each protocol once, with its ports, its login service and its packages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Protocol:
    """One protocol, by its name in Dovecot's setting ``protocols``, which is also the name of its listener.

    ``login``: the service that users log in to, without ``-login``; empty where nobody logs in. ``port``, ``tls_port``: the
    usual ports, without TLS at the start and with it; 0: none. ``greeting``: how a connection begins. ``packages``: beside
    Dovecot's core, by Debian's names. ``closed_tls``: the dialects in which Dovecot opens ``tls_port`` only where it is told to.
    ``shared``: on a machine that does not serve it, something else may have these ports.
    """

    name: str
    login: str
    port: int
    tls_port: int
    greeting: str
    packages: tuple[str, ...]
    closed_tls: tuple[str, ...] = ()
    shared: bool = False

    @property
    def service(self) -> str:
        """The login service as a section."""
        return f"service {self.login}-login"

    @property
    def listeners(self) -> tuple[str, ...]:
        """The login service's listeners."""
        return (self.name, f"{self.name}s") if self.tls_port else (self.name,)

    @property
    def ports(self) -> tuple[int, ...]:
        """Where clients come."""
        return tuple(filter(None, (self.port, self.tls_port)))


PROTOCOLS: Mapping[str, Protocol] = {
    one.name: one
    for one in (
        Protocol("imap", "imap", 143, 993, "* OK", ("dovecot-imapd",)),
        Protocol("pop3", "pop3", 110, 995, "+OK", ("dovecot-pop3d",)),
        Protocol("lmtp", "", 0, 0, "220 ", ("dovecot-lmtpd",)),
        # It begins without TLS, always.
        Protocol(
            "sieve",
            "managesieve",
            4190,
            0,
            '"IMPLEMENTATION"',
            ("dovecot-managesieved", "dovecot-sieve"),
        ),
        # The ports are a mail transfer agent's as well.
        Protocol("submission", "submission", 587, 465, "220 ", ("dovecot-submissiond",), ("2.3",), shared=True),
    )
}
# Those that users log in to.
LOGINS: Mapping[str, Protocol] = {name: one for name, one in PROTOCOLS.items() if one.login}


def served(names: Iterable[str]) -> list[Protocol]:
    """The protocols with logins among those that a machine serves, in the order of the table."""
    wanted = set(names)
    return [one for name, one in LOGINS.items() if name in wanted]
