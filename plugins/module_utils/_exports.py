# Copyright (c) 2026 nfsmail.cluster contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""exports(5) as written, C(exportfs -s) as shown, and whether the second is what the first was meant to be.

The exit code of exportfs proves nothing: a client that does not resolve is left out with exit code 0, and
C(host (rw)) with a blank exports to the whole world. So everything here judges the table in effect. Pure functions.

This module util is PRIVATE to the collection; it can change without notice.
"""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING, Any

from ansible_collections.nfsmail.cluster.plugins.module_utils._mounts import unescape

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# ---- exports(5) ----


def _logical_lines(text: str) -> list[tuple[int, str]]:
    """Lines with their numbers, continuations joined and comments removed."""
    result = []
    pending, start = "", 0
    for number, line in enumerate(text.splitlines(), 1):
        if not pending:
            start = number
        if line.endswith("\\"):
            pending += line[:-1] + " "
            continue
        whole, pending = pending + line, ""
        in_quotes = False
        for position, char in enumerate(whole):
            if char == '"':
                in_quotes = not in_quotes
            elif char == "#" and not in_quotes and (position == 0 or whole[position - 1].isspace()):
                whole = whole[:position]
                break
        if whole.strip():
            result.append((start, whole))
    if pending.strip():
        result.append((start, pending))
    return result


def _words(line: str) -> list[str]:
    """Words of a line; a part in double quotes keeps its blanks."""
    words = []
    for match in re.finditer(r'(?:"[^"]*"|[^\s"])+', line):
        words.append(match.group(0).replace('"', ""))
    return words


def _options(text: str) -> list[str]:
    return [option.strip() for option in text.split(",") if option.strip()]


def parse_exports(text: str) -> tuple[list[dict[str, Any]], list[str]]:
    """Read an exports file: its entries C({path, client, options}) and everything that must not be there.

    Options given with C(-rw,sync) before the clients count for each client after them.
    """
    entries: list[dict[str, Any]] = []
    errors: list[str] = []
    for number, line in _logical_lines(text):
        path, *clients = _words(line)
        path = unescape(path)
        if not path.startswith("/"):
            errors.append(f"line {number}: the path {path!r} does not start with a slash")
            continue
        if not clients or all(client.startswith("-") for client in clients):
            errors.append(f"line {number}: {path} names no client, which exports it to the whole world")
        common: list[str] = []
        for client in clients:
            if client.startswith("-"):
                common = _options(client[1:])
                continue
            if client.startswith("("):
                errors.append(
                    f"line {number}: a blank before {client} exports {path} to the whole world with these options; "
                    f"write CLIENT{client}"
                )
                continue
            match = re.fullmatch(r"([^()\s]+)(?:\(([^()]*)\))?", client)
            if not match:
                errors.append(f"line {number}: {client!r} is not CLIENT(OPTION,...)")
                continue
            options = common + (_options(match.group(2)) if match.group(2) is not None else [])
            entries.append({"path": path.rstrip("/") or "/", "client": match.group(1), "options": options})
    return entries, errors


# ---- exportfs -s -----------------------------------------------------------------------------------------------


def parse_exportfs(text: str) -> list[dict[str, Any]]:
    """Read the output of C(exportfs -s): a list of C({path, client, options})."""
    entries = []
    for line in text.splitlines():
        match = re.fullmatch(r"(\S.*?)\s+(\S+?)\(([^()]*)\)\s*", line)
        if match:
            entries.append(
                {
                    "path": unescape(match.group(1)),
                    "client": match.group(2),
                    "options": _options(match.group(3)),
                }
            )
    return entries


# ---- judging ----

_ALIASES = {
    "fsid=root": "fsid=0",
    "no_auth_nlm": "insecure_locks",
    "auth_nlm": "secure_locks",
    "mp": "mountpoint",
}
# Shown only when they are not the default: an option of the left column holds while none of the right is shown.
_HOLDS_UNLESS = {
    "sync": ("async",),  # not shown by exportfs 1.3
    "no_wdelay": ("wdelay",),
    "subtree_check": ("no_subtree_check",),
    "secure_locks": ("insecure_locks",),
    "acl": ("no_acl",),
    "no_pnfs": ("pnfs",),
    "nocrossmnt": ("crossmnt",),
    "rdirplus": ("nordirplus",),
    "secure": ("insecure",),
    "insecure": ("secure",),  # neither is shown while the kernel's server is not loaded
    "hide": ("nohide", "crossmnt"),
    "no_all_squash": ("all_squash",),
    "root_squash": ("no_root_squash", "all_squash"),
    "anonuid=65534": ("anonuid=",),
    "anongid=65534": ("anongid=",),
    "sec=sys": ("sec=",),
}
# An option that is in effect through a stronger one.
_COVERED_BY = {"root_squash": ("all_squash",), "nohide": ("crossmnt",)}


def _holds(option: str, shown: Sequence[str]) -> bool:
    option = _ALIASES.get(option, option)
    if option.startswith("mp="):
        option = "mountpoint=" + option[3:]
    have = [_ALIASES.get(item, item) for item in shown]
    if option in have or any(other in have for other in _COVERED_BY.get(option, ())):
        return True
    if option not in _HOLDS_UNLESS:
        return False
    return not any(
        item == other or (other.endswith("=") and item.startswith(other))
        for other in _HOLDS_UNLESS[option]
        for item in have
    )


def _found_for(option: str, shown: Sequence[str]) -> str:
    """What stands where C(option) should stand, for messages."""
    stem = option.partition("=")[0]
    if "=" in option:
        same = [item for item in shown if item.partition("=")[0] == stem]
        return ",".join(same) or f"no {stem}"
    pairs = {"rw": "ro", "ro": "rw", "sync": "async", "async": "sync"}
    opposite = pairs.get(stem, stem[3:] if stem.startswith("no_") else stem[2:] if stem.startswith("no") else "")
    for item in (opposite, f"no_{stem}", f"no{stem}", f"in{stem}", stem[2:] if stem.startswith("in") else ""):
        if item and item in shown:
            return item
    return f"no {option}"


def client_key(client: str) -> str:
    """A client in a form that can be compared: addresses and networks by value, names in lower case."""
    if client in ("*", "<world>", "0.0.0.0/0"):
        return "*"
    try:
        if "/" in client:
            return str(ipaddress.ip_network(client, strict=False))
        return str(ipaddress.ip_address(client.strip("[]")))
    except ValueError:
        return client.lower().rstrip(".")


def judge(
    expected: Sequence[dict[str, Any]],
    shown: Sequence[dict[str, Any]],
    canonical: Callable[[str], str] = client_key,
) -> list[dict[str, str]]:
    """What is exported otherwise than expected: a list of C({path, client, wanted, found}).

    More options than expected are fine, more clients of an expected path are not. C(canonical) gives one text for all
    ways to write a client; exportfs shows a host by its canonical name.
    """
    mismatches = []
    paths: dict[str, set[str]] = {}
    table: dict[tuple[str, str], list[str]] = {}
    for entry in shown:
        table[(entry["path"].rstrip("/") or "/", canonical(entry["client"]))] = list(entry["options"])
    for entry in expected:
        path, client = entry["path"].rstrip("/") or "/", canonical(entry["client"])
        paths.setdefault(path, set()).add(client)
        have = table.get((path, client))
        if have is None:
            mismatches.append({"path": path, "client": entry["client"], "wanted": "exported", "found": "not exported"})
            continue
        for option in entry.get("options") or []:
            if not _holds(option, have):
                mismatches.append(
                    {
                        "path": path,
                        "client": entry["client"],
                        "wanted": option,
                        "found": _found_for(option, have),
                    }
                )
    for entry in shown:
        path = entry["path"].rstrip("/") or "/"
        if path in paths and canonical(entry["client"]) not in paths[path]:
            everyone = "the whole world, " if client_key(entry["client"]) == "*" else ""
            mismatches.append(
                {
                    "path": path,
                    "client": entry["client"],
                    "wanted": "not exported",
                    "found": f"exported to {everyone}{entry['client']}({','.join(entry['options'])})",
                }
            )
    return mismatches


def describe(mismatch: dict[str, str]) -> str:
    """One mismatch as a sentence."""
    return f"{mismatch['path']} for {mismatch['client']}: wanted {mismatch['wanted']}, found {mismatch['found']}"


_FATAL = (
    "unknown keyword",
    "syntax error",
    "Failed to resolve",
    "Failed to stat",
    "does not support NFS export",
    "requires fsid=",
    "bad option list",
    "[IGNORED]",
    "is not a directory",
    "neither a file nor a directory",
    "No host name given",
)


def relevant_messages(stderr: str, path: str, entries: Sequence[dict[str, Any]]) -> list[str]:
    """What exportfs said about our file, our paths or our clients, errors only.

    The advice about C(subtree_check) and the complaints about other files are left out.
    """
    names = {path} | {entry["path"] for entry in entries} | {entry["client"] for entry in entries}
    messages = []
    for line in stderr.splitlines():
        text = re.sub(r"^exportfs:\s*", "", line).strip()
        if any(fatal in text for fatal in _FATAL) and any(name in text for name in names) and text not in messages:
            messages.append(text)
    return messages
