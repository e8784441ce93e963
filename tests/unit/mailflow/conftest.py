# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A mail cluster in two threads: LMTP in, IMAP out, and knobs to break it."""

from __future__ import annotations

import re
import socketserver
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "molecule" / "shared"))

from mailflow import Config, Sample, SampleSet

USERS = {f"user{number:02d}@example.org": f"secret {number}" for number in range(6)}


@dataclass
class Mail:
    """A stored message."""

    uid: int
    data: bytes
    guid: str
    session: str
    flags: set[str] = field(default_factory=set)


@dataclass
class FakeCluster:
    """What both servers share. ``on_save`` may change, drop or double a message on its way to the mailbox."""

    users: dict[str, str] = field(default_factory=lambda: dict(USERS))
    boxes: dict[str, list[Mail]] = field(default_factory=lambda: {user: [] for user in USERS})
    places: dict[str, str] = field(
        default_factory=lambda: {user: f"mail{1 + index % 2}" for index, user in enumerate(USERS)}
    )
    on_save: Callable[[str, bytes], list[bytes]] = lambda _user, data: [data]
    lose_flags: bool = False
    tell_guid: bool = True
    any_password: bool = False
    any_recipient: bool = False
    refuse_data: str = ""
    commands: list[str] = field(default_factory=list)
    logs: dict[str, list[str]] = field(default_factory=lambda: {"mail1": [], "mail2": []})
    serial: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    lmtp: tuple[str, int] = ("", 0)
    imap: tuple[str, int] = ("", 0)

    def save(self, user: str, data: bytes) -> str:
        """Put a message into a mailbox with trace fields on top; return the session id."""
        with self.lock:
            self.serial += 1
            session, host = f"sess{self.serial}", self.places[user]
            trace = (
                f"Return-Path: <from@example.org>\r\nDelivered-To: {user}\r\n"
                f"Received: from proxy1\r\n\tby {host} with LMTP\r\n\tid backend{self.serial}\r\n\t; today\r\n"
                f"Received: from tester\r\n\tby proxy1 with LMTP\r\n\tid {session}\r\n\t; today\r\n"
            ).encode()
            for body in self.on_save(user, data):
                box = self.boxes[user]
                uid = max((mail.uid for mail in box), default=0) + 1
                box.append(Mail(uid, trace + body, f"17000000{self.serial:02d}.M1P{uid}.{host}", session))
                line = f"Jan  1 lmtp({user})<12><backend{self.serial}:R2>: Info: msgid=<a>: saved mail to INBOX"
                self.logs[host].append(line)
            return session

    def listing(self) -> list[str]:
        """The paths that ``find`` would print."""
        return [
            "./{}/{}/Maildir/cur/{},S=1,W=2:2,S".format(*user.split("@")[::-1], mail.guid)
            for user, box in self.boxes.items()
            for mail in box
        ]

    def config(self, samples: int = 12, **changes: object) -> Config:
        """A run against this cluster that prints nothing."""
        made = tuple(
            Sample(f"msg_{n:02d}", f"Subject: {n}\r\n\r\n.body {n}\r\nlast\r\n".encode()) for n in range(samples)
        )
        given: dict[str, object] = {
            "lmtp": self.lmtp,
            "imap": self.imap,
            "users": USERS,
            "samples": SampleSet(made, (), ("made up",)),
            "min_samples": 1,
            "min_users": 1,
            "timeout": 5.0,
            "say": lambda _line: None,
        }
        return Config(**(given | changes))  # type: ignore[arg-type]


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True
    cluster: FakeCluster


class _Handler(socketserver.StreamRequestHandler):
    disable_nagle_algorithm = True

    @property
    def cluster(self) -> FakeCluster:
        return cast(_Server, self.server).cluster

    def say(self, text: str | bytes) -> None:
        self.wfile.write((text.encode() if isinstance(text, str) else text) + b"\r\n")


class _Lmtp(_Handler):
    def handle(self) -> None:
        self.say("220 fake LMTP")
        recipients: list[str] = []
        while line := self.rfile.readline():
            text = line.decode().strip()
            self.cluster.commands.append(text)
            verb = text.split(" ")[0]
            if verb == "LHLO":
                self.say("250-fake\r\n250-PIPELINING\r\n250 8BITMIME")
            elif verb == "RCPT":
                self._recipient(text[9:-1], recipients)
            elif verb == "DATA" and self.cluster.refuse_data:
                self.say(self.cluster.refuse_data)
            elif verb == "DATA":
                self.say("354 go on")
                self._data(recipients)
            elif verb == "QUIT":
                self.say("221 bye")
                return
            else:
                recipients.clear()
                self.say("250 2.0.0 OK")

    def _recipient(self, name: str, recipients: list[str]) -> None:
        if name in self.cluster.users or self.cluster.any_recipient:
            recipients.append(name)
            self.say("250 2.1.5 OK")
        else:
            self.say(f"550 5.1.1 <{name}> User doesn't exist: {name}")

    def _data(self, recipients: list[str]) -> None:
        lines: list[bytes] = []
        while (line := self.rfile.readline()) not in (b".\r\n", b""):
            lines.append(line.removeprefix(b"."))
        for index, name in enumerate(recipients):
            suffix = f":R{index + 1}" if index else ""
            self.say(f"250 2.0.0 <{name}> {self.cluster.save(name, b''.join(lines))}{suffix} Saved")


class _Imap(_Handler):
    user = ""

    def handle(self) -> None:
        self.say("* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN] fake IMAP")
        while line := self.rfile.readline():
            tag, _, rest = line.decode().strip().partition(" ")
            verb = " ".join(rest.split(" ")[: 2 if rest.upper().startswith("UID") else 1]).upper()
            method = getattr(self, "do_" + verb.lower().replace(" ", "_"), None)
            self.say(f"{tag} " + (method(rest) if method else "BAD unknown command"))
            if verb == "LOGOUT":
                return

    def do_capability(self, _rest: str) -> str:
        self.say("* CAPABILITY IMAP4rev1")
        return "OK done"

    def do_logout(self, _rest: str) -> str:
        if self.cluster.lose_flags:
            for mail in self.cluster.boxes.get(self.user, []):
                mail.flags.discard("\\Flagged")
        self.say("* BYE")
        return "OK bye"

    def do_login(self, rest: str) -> str:
        words = re.findall(r'"((?:\\.|[^"\\])*)"|(\S+)', rest)[1:]
        user, password = (re.sub(r"\\(.)", r"\1", quoted) or plain for quoted, plain in words)
        known = self.cluster.users.get(user)
        if known is None or (known != password and not self.cluster.any_password):
            return "NO [AUTHENTICATIONFAILED] Authentication failed."
        self.user = user
        return "OK in"

    def do_select(self, _rest: str) -> str:
        self.say(f"* {len(self.cluster.boxes[self.user])} EXISTS")
        return "OK selected"

    def do_uid_search(self, _rest: str) -> str:
        self.say("* SEARCH" + "".join(f" {mail.uid}" for mail in self.cluster.boxes[self.user]))
        return "OK done"

    def do_uid_fetch(self, rest: str) -> str:
        wanted = rest.split(" ")[2]
        if "X-GUID" in rest and not self.cluster.tell_guid:
            return "BAD Unknown parameter X-GUID"
        for number, mail in enumerate(self.cluster.boxes[self.user], 1):
            if wanted != "1:*" and str(mail.uid) not in wanted.split(","):
                continue
            if "FLAGS" in rest:
                self.say(f"* {number} FETCH (UID {mail.uid} FLAGS ({' '.join(sorted(mail.flags))}))")
                continue
            guid = f" X-GUID {mail.guid}" if "X-GUID" in rest else ""
            head = f"* {number} FETCH (UID {mail.uid}{guid} BODY[] {{{len(mail.data)}}}\r\n"
            self.say(head.encode() + mail.data + b")")
        return "OK done"

    def do_uid_store(self, rest: str) -> str:
        _, _, uid, _, flags = rest.split(" ", 4)
        for mail in self.cluster.boxes[self.user]:
            if str(mail.uid) == uid:
                mail.flags |= set(flags.strip("()").split())
        return "OK done"


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    """A fake cluster on loopback."""
    made = FakeCluster()
    servers = [_Server(("127.0.0.1", 0), handler) for handler in (_Lmtp, _Imap)]
    for server in servers:
        server.cluster = made
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    made.lmtp, made.imap = (("127.0.0.1", server.server_address[1]) for server in servers)
    yield made
    for server in servers:
        server.shutdown()
        server.server_close()
