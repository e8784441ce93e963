# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""When somebody was open on a backend, as its log tells."""

from __future__ import annotations

from traffic import spans_of

LOGIN = (
    "imap-login: Info: Login: user=<A@example.com>, method=PLAIN, rip=10.0.0.1, lip=10.0.0.9, mpid=77, session=<abc>"
)
OUT = "imap(a@example.com)<77><abc>: Info: Disconnected: Connection closed (UID FETCH finished)"


def log(*lines: str) -> str:
    return "\n".join(f"{10 + number}.5 mail1 dovecot[1]: {line}" for number, line in enumerate(lines))


def test_a_session_lasts_from_login_to_its_end() -> None:
    assert spans_of(log(LOGIN, OUT)) == [("a@example.com", 10.5, 11.5)]


def test_a_session_without_an_end_lasts() -> None:
    assert spans_of(log(LOGIN)) == [("a@example.com", 10.5, float("inf"))]
    assert spans_of(log(LOGIN, "x", "master: Info: Dovecot v2.3.19 starting up")) == [("a@example.com", 10.5, 11.5)]


def test_a_machine_that_died_has_no_sessions_until_it_is_back() -> None:
    """It may have been down for long when systemd has the first word on Dovecot again."""
    later = "90.5 mail1 systemd[1]: Starting dovecot.service - Dovecot IMAP/POP3 email server..."
    up = "99.5 mail1 dovecot[1]: master: Dovecot v2.3.19 starting up"
    for lines in (["-- Boot 0123 --", later, up], [later, up]):
        assert spans_of("\n".join([log(LOGIN, "x"), *lines])) == [("a@example.com", 10.5, 11.5)]


def test_a_process_that_was_killed_is_an_end() -> None:
    killed = "imap: Fatal: master: service(imap): child 77 killed with signal 9"
    assert spans_of(log(LOGIN, "x", killed)) == [("a@example.com", 10.5, 12.5)]
    assert spans_of(log(LOGIN, killed.replace("77", "78"))) == [("a@example.com", 10.5, float("inf"))]


def test_a_delivery_is_a_moment() -> None:
    assert spans_of(log("lmtp(A@example.com)<5><x>: Info: msgid=<1@x>: saved mail to INBOX")) == [
        ("a@example.com", 10.5, 10.5)
    ]
