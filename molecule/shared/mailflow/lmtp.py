# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A small LMTP client that sends a message's bytes as they are (RFC 2033)."""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import TracebackType

from mailflow.errors import MailflowError

# "250 2.0.0 <user@example.org> QmFzZTY0+/== Saved"; a second recipient's id ends in ":R2".
_SESSION = re.compile(r"^2\S* 2\.\S+ <[^>]*> (\S+?)(?::R\d+)? Saved")
_MAX_REPLY_LINES = 1000


@dataclass(frozen=True)
class Reply:
    """One reply of the server, its lines joined by newlines."""

    code: int
    text: str
    # Whether the whole message had been sent by then.
    after_data: bool = False

    @property
    def ok(self) -> bool:
        """Whether the command or the delivery was accepted."""
        return 200 <= self.code < 300

    def __str__(self) -> str:
        return f"{self.code} {self.text}"

    @property
    def session(self) -> str:
        """The session id that a Dovecot server names in the reply to a delivery, or ''."""
        match = _SESSION.match(str(self))
        return match.group(1) if match else ""


def dot_stuffed(data: bytes) -> bytes:
    """Return CRLF text as the DATA command wants it, the final dot included."""
    stuffed = re.sub(rb"(?m)^\.", b"..", data)
    return stuffed + (b"" if stuffed.endswith(b"\r\n") else b"\r\n") + b".\r\n"


class LmtpClient:
    """One LMTP connection."""

    def __init__(self, host: str, port: int, timeout: float = 60.0) -> None:
        self._where = f"LMTP {host}:{port}"
        try:
            self._socket = socket.create_connection((host, port), timeout)
        except OSError as exc:
            raise MailflowError(f"cannot reach {self._where}: {exc}") from exc
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = self._socket.makefile("rb")
        try:
            self._expect(self._reply(), 220, "greeting")
            lhlo = self._expect(self._command("LHLO " + socket.gethostname()), 250, "LHLO")
        except MailflowError:
            self.close()
            raise
        self.features = frozenset(line.upper() for line in lhlo.text.split("\n")[1:])

    def __enter__(self) -> LmtpClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            with contextlib.suppress(MailflowError):
                self._command("QUIT")
        self.close()

    def close(self) -> None:
        """Close the connection without a word."""
        self._reader.close()
        self._socket.close()

    def deliver(self, sender: str, recipients: Sequence[str], data: bytes) -> dict[str, Reply]:
        """Send one message to all recipients in one transaction; return the last reply for each of them."""
        body = " BODY=8BITMIME" if "8BITMIME" in self.features and not data.isascii() else ""
        self._expect(self._command(f"MAIL FROM:<{sender}>{body}"), 250, "MAIL FROM")
        replies = {recipient: self._command(f"RCPT TO:<{recipient}>") for recipient in recipients}
        accepted = [recipient for recipient in recipients if replies[recipient].ok]
        if not accepted:
            self._command("RSET")
            return replies
        answer = self._command("DATA")
        if answer.code != 354:
            self._command("RSET")
            return replies | dict.fromkeys(accepted, answer)
        self._send(dot_stuffed(data))
        for recipient in accepted:
            replies[recipient] = replace(self._reply(), after_data=True)
        return replies

    def try_recipient(self, sender: str, recipient: str) -> Reply:
        """Ask whether a recipient would be accepted; send nothing."""
        self._expect(self._command(f"MAIL FROM:<{sender}>"), 250, "MAIL FROM")
        reply = self._command(f"RCPT TO:<{recipient}>")
        self._command("RSET")
        return reply

    def _command(self, line: str) -> Reply:
        self._send(line.encode("utf-8") + b"\r\n")
        return self._reply()

    def _send(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except OSError as exc:
            raise MailflowError(f"{self._where} broke off while sending: {exc}") from exc

    def _reply(self) -> Reply:
        texts: list[str] = []
        while len(texts) < _MAX_REPLY_LINES:
            try:
                line = self._reader.readline()
            except OSError as exc:
                raise MailflowError(f"{self._where} did not answer: {exc}") from exc
            if not line.endswith(b"\n"):
                raise MailflowError(f"{self._where} closed the connection in the middle of a reply")
            text = line.decode("utf-8", "backslashreplace").rstrip("\r\n")
            if not re.match(r"\d{3}(?:[ -]|$)", text):
                raise MailflowError(f"{self._where} does not speak LMTP: {text!r}")
            texts.append(text[4:])
            if text[3:4] != "-":
                return Reply(int(text[:3]), "\n".join(texts))
        raise MailflowError(f"{self._where} sent an endless reply")

    def _expect(self, reply: Reply, code: int, what: str) -> Reply:
        if reply.code != code:
            raise MailflowError(f"{self._where} answered {what} with: {reply}")
        return reply
