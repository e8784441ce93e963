# Copyright: (c) 2026, the nfsmail.cluster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The profile: what a cluster is, in the words of the settings matrix."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from .errors import NfsmailError, Problem, nearest

SOURCE = "design: profile keys"
TRUE_WORDS = frozenset({"yes", "true", "on", "1", "y"})
FALSE_WORDS = frozenset({"no", "false", "off", "0", "n"})
KNOWN_SERIES = ("2.3", "2.4")


@dataclass(frozen=True)
class Key:
    """One key of the profile: its choices (empty: a boolean or a version), default and meaning."""

    name: str
    choices: tuple[str, ...]
    default: str | bool | None
    meaning: str


KEYS: tuple[Key, ...] = (
    Key("topology", ("single", "random", "per_user"), "single", "How users reach the backends."),
    Key("mailbox_format", ("maildir", "mbox", "sdbox", "mdbox"), "maildir", "How mail is stored."),
    Key("index_location", ("nfs", "local"), "nfs", "Where Dovecot's index files live."),
    Key("nfs_version", ("2", "3", "4.0", "4.1", "4.2"), "4.2", "The NFS version that clients mount with."),
    Key("lockd", (), True, "NFSv2 and v3: whether lockd and statd run (NFSv4 locks need neither)."),
    Key("delivery", ("lmtp", "lda", "mta"), "lmtp", "What writes new mail into the mailboxes."),
    Key("dovecot_version", (), "2.3.19", "The Dovecot release that reads the settings."),
    Key("cache_flush", (), None, "random only: let Dovecot flush NFS caches. Default: yes in random, else no."),
)
KEY_BY_NAME: Mapping[str, Key] = {key.name: key for key in KEYS}
# What follows from the keys; conditions of rules may name these too.
DERIVED: Mapping[str, str] = {
    "kernel_locks": "kernel locks between machines (NFSv4, or lockd)",
    "flush": "cache_flush in topology random",
}


@dataclass(frozen=True)
class Profile:
    """A judged-for-type profile. Whether it is wise is the matrix's business."""

    topology: str = "single"
    mailbox_format: str = "maildir"
    index_location: str = "nfs"
    nfs_version: str = "4.2"
    lockd: bool = True
    delivery: str = "lmtp"
    dovecot_version: str = "2.3.19"
    cache_flush: bool = False

    @property
    def series(self) -> str:
        """``2.3`` or ``2.4``: the configuration dialect."""
        return series_of(self.dovecot_version)

    @property
    def needs_lockd(self) -> bool:
        """NFSv2 and v3 lock through lockd, NFSv4 has locks of its own."""
        return self.nfs_version in ("2", "3")

    @property
    def kernel_locks(self) -> bool:
        """Kernel locks reach the other machines."""
        return not self.needs_lockd or self.lockd

    @property
    def flush(self) -> bool:
        """Dovecot is to flush NFS caches: only where any machine may have changed a file."""
        return self.cache_flush and self.topology == "random"


def version_key(version: str) -> tuple[int, ...]:
    """``2.4.1-4`` as numbers that compare."""
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


def series_of(version: str) -> str:
    """The dialect of a release, ``2.3`` or ``2.4``; any other is an error."""
    match = re.match(r"(\d+\.\d+)(?:\.\d+)*(?:[-+~. (].*)?\Z", version.strip())
    if not match or match.group(1) not in KNOWN_SERIES:
        raise NfsmailError(
            [
                Problem(
                    "dovecot_version",
                    version,
                    "only Dovecot 2.3 and 2.4 are known",
                    "give a release such as 2.3.19 or 2.4.1",
                    SOURCE,
                )
            ]
        )
    return match.group(1)


def parse_profile(data: Mapping[str, Any] | Profile) -> Profile:
    """Read an operator's mapping; every wrong key and value is in the one error."""
    if isinstance(data, Profile):
        return data
    if not isinstance(data, Mapping):
        raise NfsmailError(
            [Problem("profile", data, "a profile is a mapping of keys to values", f"keys: {_names()}", SOURCE)]
        )
    problems: list[Problem] = []
    values: dict[str, Any] = {}
    for raw in data:
        name = str(raw)
        if name not in KEY_BY_NAME:
            guess = nearest(name, KEY_BY_NAME)
            problems.append(
                Problem(name, data[raw], f"unknown profile key; known: {_names()}", f"did you mean {guess!r}?", SOURCE)
            )
    for key in KEYS:
        given = data.get(key.name)
        if given is None:
            continue
        try:
            values[key.name] = _read(key, given)
        except NfsmailError as error:
            problems.extend(error.problems)
    if problems:
        raise NfsmailError(problems)
    values.setdefault("cache_flush", values.get("topology", "single") == "random")
    return Profile(**values)


def is_yes(value: Any) -> bool:
    """A boolean, or a word for one as Ansible takes it."""
    return str(value).strip().lower() in TRUE_WORDS


def in_words(value: object) -> str:
    """A boolean as yes or no, anything else as its text."""
    return ("no", "yes")[value] if isinstance(value, bool) else str(value)


def as_list(value: Any) -> list[str]:
    """A list of texts; one text stands for a list, as Ansible's role specs let it (``a,b`` for two)."""
    if value is None:
        return []
    items = value if isinstance(value, Iterable) and not isinstance(value, str) else str(value).split(",")
    return [text for text in (str(item).strip() for item in items) if text]


def as_mapping(profile: Profile) -> dict[str, str | bool]:
    """The profile with every key spelled out."""
    return {field.name: getattr(profile, field.name) for field in fields(profile)}


def _names() -> str:
    return ", ".join(key.name for key in KEYS)


def _read(key: Key, given: Any) -> str | bool:
    if key.choices:
        return _choice(key, given)
    if key.name == "dovecot_version":
        version = str(given).strip()
        series_of(version)
        return version
    return _boolean(key, given)


def _choice(key: Key, given: Any) -> str:
    text = "" if isinstance(given, (bool, list, tuple, Mapping)) else str(given).strip().lower()
    # An unquoted 4 or 3.0 in YAML is a number: read it as the version it plainly means.
    text = {"4": "4.2", "3.0": "3", "2.0": "2"}.get(text, text) if key.name == "nfs_version" else text
    if text in key.choices:
        return text
    raise NfsmailError(
        [
            Problem(
                key.name,
                given,
                f"one of {', '.join(key.choices)}",
                f"did you mean {nearest(text, key.choices)!r}?" if text else f"choose one of {', '.join(key.choices)}",
                SOURCE,
            )
        ]
    )


def _boolean(key: Key, given: Any) -> bool:
    if isinstance(given, bool):
        return bool(given)
    word = str(given).strip().lower() if isinstance(given, (str, int)) else ""
    if word in TRUE_WORDS:
        return True
    if word in FALSE_WORDS:
        return False
    raise NfsmailError([Problem(key.name, given, "a boolean", "write true or false", SOURCE)])
