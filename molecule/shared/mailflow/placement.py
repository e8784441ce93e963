# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Show which backend wrote a user's mail, and which one should have.

Nothing here uses the product's own code: this is the second opinion.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mailflow.errors import MailflowError

UNKNOWN_HOST = "?"

# time.MusecPpid.HOST, then sizes after a comma and flags after a colon; '/' and ':' of a host are octal.
_NAME = re.compile(r"\d+\.[^.,:/]+\.([^,:/]+)")
_SAVED = re.compile(r"\blmtp\(([^)]+)\)<[^>]*><([^>]+?)(?::R\d+)?>: .*: saved mail to ")
_SHARD = re.compile(r"[0-9a-f]{2}")


@dataclass(frozen=True)
class MailFile:
    """A file of a Maildir: whose it is, its name without sizes and flags, and the host that wrote it."""

    user: str
    unique: str
    host: str


def writing_host(name: str) -> str:
    """The host in a Maildir file name, or '?' if the name is none that Dovecot makes."""
    match = _NAME.match(name)
    if not match:
        return UNKNOWN_HOST
    return re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal.group(1), 8)), match.group(1))


def unique_name(name: str) -> str:
    """A Maildir file name without the sizes and flags behind it."""
    return re.split("[,:]", name, maxsplit=1)[0]


def mail_files(listing: Iterable[str]) -> list[MailFile]:
    """Read ``find``-style paths ``.../domain/user/Maildir/[.folder/]{cur,new}/NAME``; skip all others."""
    files: list[MailFile] = []
    for raw in listing:
        parts = raw.rstrip("\r\n").split("/")
        if len(parts) < 5 or parts[-2] not in ("cur", "new") or not parts[-1] or parts[-1].startswith("."):
            continue  # a leading dot: no mail, for example the .nfsXXXX of a file that was removed while open
        above = parts[:-2]
        root = len(above) - 1 - above[::-1].index("Maildir") if "Maildir" in above else -1
        if root < 2:
            continue
        user = f"{above[root - 1]}@{above[root - 2]}"
        files.append(MailFile(user, unique_name(parts[-1]), writing_host(parts[-1])))
    return files


def writers(listing: Iterable[str]) -> dict[str, set[str]]:
    """The hosts that wrote each user's mail."""
    found: dict[str, set[str]] = {}
    for item in mail_files(listing):
        found.setdefault(item.user, set()).add(item.host)
    return found


def log_saves(lines: Iterable[str]) -> set[tuple[str, str]]:
    """The (user, session id) of each message that a backend's Dovecot log says it saved."""
    matches = (_SAVED.search(line) for line in lines)
    return {(match.group(1).lower(), match.group(2)) for match in matches if match}


def shard_of(user: str) -> str:
    """The shard of a user: Dovecot's ``%2.256LNu``, the first eight bytes of the MD5 modulo 256."""
    digest = hashlib.md5(user.lower().encode(), usedforsecurity=False).digest()
    return f"{int.from_bytes(digest[:8], 'big') % 256:02x}"


def parse_hosts(lines: Iterable[str], what: str = "map") -> dict[str, str]:
    """Read ``key:::::::proxy=y ... host=ADDRESS ...`` lines of a passwd-file."""
    hosts: dict[str, str] = {}
    for number, raw in enumerate(lines, 1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        # user:password:uid:gid:gecos:home:shell:extra - the extra fields may hold colons (an IPv6 host).
        fields = line.split(":", 7)
        extra = dict(item.partition("=")[::2] for item in fields[-1].split()) if len(fields) == 8 else {}
        if not fields[0] or not extra.get("host"):
            raise MailflowError(f"{what}, line {number}: no host= in {line!r}")
        key = fields[0].lower()
        if key in hosts:
            raise MailflowError(f"{what}, line {number}: {key} is there twice")
        hosts[key] = extra["host"]
    return hosts


def parse_shards(lines: Iterable[str]) -> dict[str, str]:
    """Read the shard map and insist on all of its 256 lines."""
    shards = parse_hosts(lines, "shards")
    wrong = sorted(key for key in shards if not _SHARD.fullmatch(key))
    if wrong:
        raise MailflowError(f"shards: not a shard: {', '.join(wrong[:5])}")
    missing = sorted({f"{number:02x}" for number in range(256)} - set(shards))
    if missing:
        raise MailflowError(f"shards: {len(missing)} of 256 are missing, first {missing[0]}")
    return shards


def placement(
    users: Iterable[str],
    shards: Mapping[str, str],
    overrides: Mapping[str, str] | None = None,
    names: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Where each user must live: the override's host, else the shard's, by name where ``names`` has one."""
    places: dict[str, str] = {}
    for user in users:
        host = (overrides or {}).get(user.lower()) or shards[shard_of(user)]
        places[user] = (names or {}).get(host, host)
    return places
