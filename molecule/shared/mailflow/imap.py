# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read mailboxes back over IMAP."""

from __future__ import annotations

import contextlib
import imaplib
import re
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

from mailflow.errors import MailflowError

_UID = re.compile(rb"\bUID (\d+)")
_GUID = re.compile(rb"\bX-GUID \"?([^\s\")]+)")
_FLAGS = re.compile(rb"\bFLAGS \(([^)]*)\)")
_BATCH = 50


@dataclass(frozen=True)
class Stored:
    """A message as the server shows it; ``guid`` is '' where the server does not tell."""

    uid: int
    guid: str
    data: bytes


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _unverified() -> ssl.SSLContext:
    """The lab's certificates are self-signed; its wires are our own."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _text(data: object) -> str:
    last = data[-1] if isinstance(data, list) and data else data
    return last.decode("utf-8", "backslashreplace") if isinstance(last, bytes) else str(last)


class ImapSession:
    """One logged-in session with INBOX selected."""

    def __init__(self, host: str, port: int, user: str, password: str, timeout: float = 60.0) -> None:
        self._who = f"IMAP {host}:{port} as {user}"
        try:
            self._imap = connect(host, port, timeout)
        except (imaplib.IMAP4.error, OSError) as exc:
            raise self._error("connect", exc) from exc
        try:
            self._call("login", user, password)
            self._ok("SELECT", *self._call("select", "INBOX"))
        except MailflowError:
            self._imap.shutdown()
            raise

    def __enter__(self) -> ImapSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(imaplib.IMAP4.error, OSError):
            if kind is None:
                self._imap.logout()
            else:
                self._imap.shutdown()

    def uids(self) -> list[int]:
        """All messages of INBOX."""
        data = self._ok("UID SEARCH", *self._call("uid", "SEARCH", "ALL"))
        return [int(number) for part in data if isinstance(part, bytes) for number in part.split()]

    def fetch(self, uids: list[int]) -> list[Stored]:
        """Read whole messages without setting \\Seen."""
        stored: list[Stored] = []
        for start in range(0, len(uids), _BATCH):
            span = ",".join(str(uid) for uid in uids[start : start + _BATCH])
            try:
                answer = self._imap.uid("FETCH", span, "(UID X-GUID BODY.PEEK[])")
            except imaplib.IMAP4.error:
                answer = self._call("uid", "FETCH", span, "(UID BODY.PEEK[])")
            except OSError as exc:
                raise self._error("fetch", exc) from exc
            stored.extend(parse_fetch(self._ok("UID FETCH", *answer)))
        return stored

    def add_flags(self, uid: int, flags: str) -> None:
        """Set flags, for example ``\\Seen \\Flagged``."""
        self._ok("UID STORE", *self._call("uid", "STORE", str(uid), "+FLAGS.SILENT", f"({flags})"))

    def flags(self) -> dict[int, set[str]]:
        """The flags of every message, without \\Recent."""
        found: dict[int, set[str]] = {}
        for part in self._ok("UID FETCH", *self._call("uid", "FETCH", "1:*", "(UID FLAGS)")):
            if not isinstance(part, bytes):
                continue
            uid, flags = _UID.search(part), _FLAGS.search(part)
            if uid and flags:
                names = flags.group(1).decode("ascii", "replace").split()
                found[int(uid.group(1))] = set(names) - {"\\Recent"}
        return found

    def _call(self, method: str, *arguments: str) -> tuple[str, list[object]]:
        try:
            status, data = getattr(self._imap, method)(*arguments)
        except (imaplib.IMAP4.error, OSError) as exc:
            raise self._error(method if method != "uid" else f"UID {arguments[0]}", exc) from exc
        return str(status), list(data)

    def _ok(self, what: str, status: str, data: list[object]) -> list[object]:
        if status != "OK":
            raise MailflowError(f"{self._who}: {what} answered {status} {_text(data)}")
        return data

    def _error(self, what: str, exc: Exception) -> MailflowError:
        first = exc.args[0] if exc.args else ""
        text = first.decode("utf-8", "replace") if isinstance(first, bytes) else str(exc)
        return MailflowError(f"{self._who}: cannot {what}: {text}")


def connect(host: str, port: int, timeout: float) -> imaplib.IMAP4:
    """A connection with TLS, nobody logged in yet."""
    imap = imaplib.IMAP4(host, port, timeout)
    if "STARTTLS" in imap.capabilities:
        imap.starttls(_unverified())
    return imap


def idle(imap: imaplib.IMAP4, pause: Callable[[], object]) -> None:
    """Wait in IDLE for as long as ``pause`` takes; what the server tells meanwhile is read afterwards."""
    imaplib.Commands.setdefault("IDLE", ("SELECTED",))
    tag = imap._command("IDLE")
    while imap._get_response() is not None:
        pass  # what comes before the server's "+"
    pause()
    imap.send(b"DONE\r\n")
    status, data = imap._command_complete("IDLE", tag)
    if status != "OK":
        raise imaplib.IMAP4.abort(f"IDLE: {data!r}")


def parse_fetch(data: list[object]) -> list[Stored]:
    """Read imaplib's answer to FETCH: pairs of (text before the literal, literal), and loose text between."""
    stored: list[Stored] = []
    for index, part in enumerate(data):
        if not isinstance(part, tuple):
            continue
        after = data[index + 1] if index + 1 < len(data) else b""
        items = part[0] + b" " + (after if isinstance(after, bytes) else b"")
        uid, guid = _UID.search(items), _GUID.search(items)
        if uid:
            name = guid.group(1).decode("utf-8", "backslashreplace") if guid else ""
            stored.append(Stored(int(uid.group(1)), name, part[1]))
    return stored


def try_login(host: str, port: int, user: str, password: str, timeout: float = 60.0) -> tuple[str, str]:
    """Try to log in; return the server's status (OK, NO, BAD) and its text, word for word."""
    try:
        imap = connect(host, port, timeout)
        try:
            status, data = imap.xatom("LOGIN", _quoted(user), _quoted(password))
        except imaplib.IMAP4.error as exc:
            return "BAD", str(exc)
        finally:
            imap.shutdown()
    except (imaplib.IMAP4.error, OSError) as exc:
        raise MailflowError(f"IMAP {host}:{port}: cannot ask for a login: {exc}") from exc
    return str(status), _text(data)
