# Copyright: (c) 2026, the nfsmail.cluster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Variables in settings: ``%Lu`` of Dovecot 2.3 as ``%{user | lower}`` of 2.4."""

from __future__ import annotations

import re
from collections.abc import Mapping

SOURCE = "Dovecot documentation, upgrading 2.3 to 2.4: variable expansion"
_VARIABLE = re.compile(
    r"%(?:(?P<percent>%)|(?P<width>[-0-9.]*)(?P<modifiers>[A-Z]*)(?:\{(?P<long>[^{}]*)\}|(?P<letter>[a-z$])))"
)
# What the letters mean, in 2.4's words; a tuple: the variable and a filter.
_USER = {"u": ("user",), "n": ("user", "username"), "d": ("user", "domain"), "l": ("local_ip",), "r": ("remote_ip",)}
MAIL: Mapping[str, tuple[str, ...]] = {**_USER, "h": ("home",), "s": ("service",), "p": ("process:pid",)}
AUTH: Mapping[str, tuple[str, ...]] = {
    **_USER,
    "h": ("home",),
    "s": ("protocol",),
    "p": ("client_pid",),
    "m": ("mechanism",),
    "c": ("secured",),
    "a": ("local_port",),
    "b": ("remote_port",),
    "w": ("password",),
}
LOGIN: Mapping[str, tuple[str, ...]] = {**AUTH, "p": ("process:pid",), "e": ("mail_pid",), "k": ("ssl_security",)}
_TRAFFIC = {"i": ("input",), "o": ("output",)}
# Formats of log lines and texts have letters of their own.
OWN_LETTERS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "deliver_log_format": {
        "$": ("message",),
        "m": ("msgid",),
        "s": ("subject",),
        "f": ("from",),
        "e": ("from_envelope",),
        "p": ("size",),
        "w": ("vsize",),
    },
    "login_log_format": {"$": ("message",), "s": ("elements",)},
    "login_log_format_elements": LOGIN,
    "imap_logout_format": _TRAFFIC,
    "imap_urlauth_logout_format": _TRAFFIC,
    "submission_logout_format": _TRAFFIC,
    "managesieve_logout_format": _TRAFFIC,
    "pop3_logout_format": {
        **_TRAFFIC,
        "t": ("top_count",),
        "p": ("top_bytes",),
        "r": ("retr_count",),
        "b": ("retr_bytes",),
        "d": ("deleted_count",),
        "m": ("message_count",),
        "s": ("message_bytes",),
        "u": ("uidl_change",),
    },
    "pop3_uidl_format": {"u": ("uid",), "v": ("uidvalidity",), "m": ("md5",), "f": ("filename",), "g": ("guid",)},
    "rejection_reason": {"n": ("literal('\\r\\n')",), "r": ("reason",), "s": ("subject",), "t": ("to",)},
    "rejection_subject": {"r": ("reason",), "s": ("subject",), "t": ("to",)},
}
# Long names that 2.4 spells otherwise, and those that it has as they were.
_LONG: Mapping[str, tuple[str, ...]] = {
    "username": ("user", "username"),
    "domain": ("user", "domain"),
    "auth_domain": ("auth_user", "domain"),
    "auth_username": ("auth_user", "username"),
    "login_domain": ("login_user", "domain"),
    "login_username": ("login_user", "username"),
    "orig_user": ("original_user",),
    "orig_username": ("original_user", "username"),
    "orig_domain": ("original_user", "domain"),
    "lip": ("local_ip",),
    "rip": ("remote_ip",),
    "lport": ("local_port",),
    "rport": ("remote_port",),
    "mech": ("mechanism",),
    "real_lip": ("real_local_ip",),
    "real_rip": ("real_remote_ip",),
    "real_lport": ("real_local_port",),
    "real_rport": ("real_remote_port",),
    "uid": ("process:uid",),
    "gid": ("process:gid",),
}
_AS_BEFORE = frozenset(
    [
        "user",
        "auth_user",
        "login_user",
        "session",
        "home",
        "hostname",
        "local_name",
        "mail_pid",
        "ssl_security",
        "secured",
        "password",
        "deleted",
        "expunged",
        "trashed",
        "fetch_hdr_count",
        "fetch_hdr_bytes",
        "fetch_body_count",
        "fetch_body_bytes",
        "autoexpunged",
        "deleted_count",
        "deleted_bytes",
        "appended",
        "input",
        "output",
        "top_bytes",
        "top_count",
        "retr_bytes",
        "retr_count",
        "message_count",
        "message_bytes",
        "uidl_change",
        "msgid",
        "subject",
        "from",
        "from_envelope",
        "size",
        "vsize",
        "reason",
        "to",
        "uidvalidity",
        "md5",
        "filename",
        "guid",
        "requested_username",
        "hashed_password",
        "client_id",
        "cert",
        "master_user",
        "session_pid",
        "delivery_time",
        "storage_id",
        "host",
        "login",
    ]
)
# Variables of a shared namespace: the owner's.
_OWNER = {"u": ("owner_user",), "n": ("owner_user", "username"), "d": ("owner_user", "domain"), "h": ("owner_home",)}
_OWNER_IN_PREFIX = {"u": "$user", "n": "$username", "d": "$domain"}
# N, a bucket number, and M, a digest, are in _modified.
_FILTERS = {"L": "lower", "U": "upper"}


class Untranslated(ValueError):
    """A variable without an equal in 2.4; its text says which."""


def letters_for(name: str, auth: bool = False) -> Mapping[str, tuple[str, ...]]:
    """What the one-letter variables mean in a setting. ``auth``: it stands within a passdb or userdb."""
    if name in OWN_LETTERS:
        return OWN_LETTERS[name]
    if auth or name.startswith("auth_"):
        return AUTH
    return LOGIN if name.startswith("login_") else MAIL


def translate(value: str, letters: Mapping[str, tuple[str, ...]] = MAIL, shared: str = "") -> str:
    """A value of 2.3 in the words of 2.4.

    ``shared``: the value stands in a namespace of type shared, as its ``prefix`` or in another ``setting``: there ``%%u`` is
    the owner. Raises :class:`Untranslated` where a variable has no equal.
    """
    parts, done = [], 0
    for match in _VARIABLE.finditer(value):
        parts.append(_plain(value[done : match.start()]))
        done = match.end()
        if match["percent"]:
            owner = value[done : done + 1]
            if shared == "prefix" and owner in _OWNER_IN_PREFIX:
                parts.append(_OWNER_IN_PREFIX[owner])
                done += 1
            elif shared and owner in _OWNER:
                parts.append(_braced(_OWNER[owner]))
                done += 1
            else:
                # Before a bracket 2.4 reads %% as the sign itself, elsewhere as two.
                parts.append("%%" if owner == "{" else "%")
        else:
            parts.append(_one(match, letters, value))
    parts.append(_plain(value[done:]))
    return "".join(parts)


def _plain(text: str) -> str:
    if "%" in text:
        raise Untranslated(f"what stands behind the % in {text!r} is no variable of 2.3 that we know")
    return text


def _one(match: re.Match[str], letters: Mapping[str, tuple[str, ...]], value: str) -> str:
    word = match[0]
    if match.start() and value[match.start() - 1] == "%":
        # %%%u: the sign, then a variable. Rare, and 2.4 reads %%%{ otherwise.
        raise Untranslated(f"{word} behind %%")
    if match["letter"]:
        if match["letter"] not in letters:
            raise Untranslated(f"{word} has no meaning here that we know")
        chain = letters[match["letter"]]
    else:
        chain = _long(match["long"], letters)
    return _braced((*chain, *_modified(match["width"], match["modifiers"], word)))


def _long(name: str, letters: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    if name == "service":
        return letters.get("s", ("service",)) if letters.get("s") in (("protocol",), ("service",)) else ("service",)
    if name == "pid":
        return letters["p"] if letters in (AUTH, LOGIN, MAIL) else ("process:pid",)
    if name in _LONG:
        return _LONG[name]
    if name in _AS_BEFORE or re.fullmatch(r"(env|userdb|passdb):\w+", name):
        return (name,)
    raise Untranslated(f"%{{{name}}} is not known to us")


def _modified(width: str, modifiers: str, word: str) -> list[str]:
    filters: list[str] = []
    numbers = re.fullmatch(r"(?:(\d+)\.)?(\d+)?", width)
    if numbers is None:
        raise Untranslated(f"the width of {word}")
    offset, count = int(numbers[1] or 0), int(numbers[2] or 0)
    for position, letter in enumerate(modifiers):
        last = position == len(modifiers) - 1
        if letter in _FILTERS:
            filters.append(_FILTERS[letter])
        elif letter == "N" and last and count:
            padded = f"hex({offset})" if offset else "hex"
            return [*filters, f"md5 | substr(0, 8) % {count}", padded]
        elif letter == "M" and last:
            if not count:
                return [*filters, "md5"]
            return [*filters, "md5", f"hexlify | substr({offset}, {count})" if offset else f"hexlify({count})"]
        elif letter == "X" and last and not numbers[1]:
            return [*filters, f"hex({count})" if count else "hex"]
        elif letter == "D":
            filters.append("ldap_dn")
        else:
            raise Untranslated(f"the modifier {letter} of {word}")
    if count:
        filters.append(f"substr({offset}, {count})")
    return filters


def _braced(chain: tuple[str, ...]) -> str:
    return "%{" + " | ".join(chain) + "}"
