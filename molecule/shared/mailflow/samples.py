# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Find real e-mail messages: the samples of CPython's test suite."""

from __future__ import annotations

import hashlib
import importlib.util
import re
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mailflow.errors import MailflowError

MAIL_SUFFIXES = frozenset({".txt", ".eml", ".msg", ".mbox"})
SAMPLE_FOLDER = Path("test_email", "data")
PACKAGE = f"libpython{sys.version_info.major}.{sys.version_info.minor}-testsuite"
INSTALL_HINT = f"install {PACKAGE}, or name a folder with --samples"

_BARE_CR = re.compile(rb"\r(?!\n)")
_LINE_END = re.compile(rb"\r\n|\n")
_FIELD = re.compile(rb"([!-9;-~]+)[ \t]*:")
_KNOWN_FIELDS = frozenset({b"from", b"to", b"subject", b"date", b"received", b"message-id", b"return-path"})


@dataclass(frozen=True)
class Sample:
    """One message: where it comes from, and its bytes with every line ended by CRLF."""

    name: str
    data: bytes

    @property
    def is_8bit(self) -> bool:
        """Whether the message needs BODY=8BITMIME."""
        return not self.data.isascii()


@dataclass(frozen=True)
class Excluded:
    """A file that is not sent, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class SampleSet:
    """What was found."""

    samples: tuple[Sample, ...]
    excluded: tuple[Excluded, ...]
    folders: tuple[str, ...]


def with_crlf(data: bytes) -> bytes:
    """Return the message as it travels: every line, the last one too, ended by CRLF."""
    text = _LINE_END.sub(b"\r\n", data)
    return text if text.endswith(b"\r\n") else text + b"\r\n"


def reason_to_exclude(data: bytes) -> str | None:
    """Say why a message cannot make the round trip unchanged, or None if it can.

    Proved against Dovecot 2.3.19 (LMTP proxy and backend): a leading mbox ``From `` line, lines far over
    998 octets, lines of a single dot, 8-bit text and text without any header field all come back unchanged,
    so none of these is a reason. NUL is: IMAP cannot carry it and Dovecot shows 0x80 in its place.
    A bare CR survives Dovecot 2.3, but RFC 5321 (2.3.8) forbids sending one.
    """
    if not data.strip():
        return "empty"
    if b"\0" in data:
        return "contains NUL, which IMAP cannot carry (RFC 3501)"
    if _BARE_CR.search(data):
        return "contains a bare CR, which SMTP forbids (RFC 5321, 2.3.8)"
    return None


def looks_like_mail(data: bytes) -> bool:
    """Whether a file from anywhere in the test suite starts like a message: two known header fields."""
    fields: set[bytes] = set()
    for line in data[:8192].splitlines():
        field = _FIELD.match(line)
        if field:
            fields.add(field.group(1).lower())
        elif not line.startswith((b" ", b"\t", b"From ")):
            break
    return len(fields & _KNOWN_FIELDS) >= 2


def suite_folders() -> Iterator[Path]:
    """Yield the folders that may hold CPython's test suite, the running interpreter's first."""
    seen: set[Path] = set()
    candidates = [Path(sysconfig.get_path("stdlib"), "test")]
    spec = importlib.util.find_spec("test")
    if spec is not None and spec.submodule_search_locations:
        candidates += [Path(place) for place in spec.submodule_search_locations]
    candidates += sorted(Path("/usr/lib").glob("python3.*/test"), key=_minor_version, reverse=True)
    for folder in candidates:
        resolved = folder.resolve()
        if resolved not in seen and resolved.is_dir():
            seen.add(resolved)
            yield resolved


def _minor_version(suite: Path) -> int:
    digits = suite.parent.name.removeprefix("python3.")
    return int(digits) if digits.isdigit() else -1


def _is_mail_file(path: Path) -> bool:
    return path.suffix.lower() in MAIL_SUFFIXES and path.is_file()


def _mail_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if _is_mail_file(path))


def _other_mail_files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if _is_mail_file(path) and looks_like_mail(path.read_bytes()):
            yield path


class _Collector:
    """Keeps the distinct samples and the reasons why others were left out."""

    def __init__(self) -> None:
        self.samples: list[Sample] = []
        self.excluded: list[Excluded] = []
        self.folders: list[str] = []
        self._by_digest: dict[bytes, str] = {}
        self._paths: set[Path] = set()

    def add(self, paths: Iterable[Path], folder: Path) -> None:
        self.folders.append(str(folder))
        for path in paths:
            if path in self._paths:
                continue
            self._paths.add(path)
            raw = path.read_bytes()
            reason = reason_to_exclude(raw)
            data = with_crlf(raw)
            digest = hashlib.sha256(data).digest()
            if reason is None and digest in self._by_digest:
                reason = f"same content as {self._by_digest[digest]}"
            if reason is not None:
                self.excluded.append(Excluded(str(path), reason))
                continue
            self._by_digest[digest] = str(path)
            self.samples.append(Sample(self._name(path), data))

    def _name(self, path: Path) -> str:
        taken = {sample.name for sample in self.samples}
        return path.name if path.name not in taken else str(path)


def find_samples(minimum: int = 40, folders: Sequence[Path] = ()) -> SampleSet:
    """Collect at least ``minimum`` different messages; with ``folders``, from those only.

    Looks first where the e-mail package's own tests keep their messages, then in the rest of the test suite.
    """
    found = _Collector()
    if folders:
        for folder in folders:
            if not folder.is_dir():
                raise MailflowError(f"no such folder of samples: {folder}")
            found.add(_mail_files(folder), folder)
    else:
        suites = list(suite_folders())
        for suite in suites:
            data = suite / SAMPLE_FOLDER
            if len(found.samples) < minimum and data.is_dir():
                found.add(_mail_files(data), data)
        for suite in suites:
            if len(found.samples) < minimum:
                found.add(_other_mail_files(suite), suite)
    if len(found.samples) < minimum:
        looked = ", ".join(found.folders) or "no test suite of CPython found"
        raise MailflowError(
            f"only {len(found.samples)} e-mail samples, {minimum} are needed (looked in: {looked}); {INSTALL_HINT}"
        )
    return SampleSet(tuple(found.samples), tuple(found.excluded), tuple(found.folders))
