# Copyright: (c) 2026, the nfsmail.cluster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the NFS server exports: lines for ``exports(5)`` and what ``exportfs -s`` must then show."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from .errors import NfsmailError, Problem

SOURCE = "exports(5)"
CLIENT = re.compile(r"[A-Za-z0-9@*?.:/_\[\]-]+\Z")
# "*.example.com" and "10.*" name somebody; "*", "?*", "*.*" and networks of no bits name everybody.
EVERYBODY = re.compile(r"[@*?.:]*\Z|.*/(0+|0\.0\.0\.0)\Z")
OPTION = re.compile(r"[a-z_0-9]+(=[A-Za-z0-9_.:/-]+)?\Z")
# Why each: sync, or a power cut loses accepted mail; root of a client acts as the mail user;
# no_subtree_check, or a renamed open file (Maildir, indexes) goes stale.
BASE_OPTIONS = ("rw", "sync", "root_squash", "no_subtree_check", "sec=sys")
REFUSED = {
    "async": "a power cut loses mail that was already accepted (measured: 782 of 995 files empty)",
    "no_root_squash": "root of any client could read and change every mail",
    "subtree_check": "a renamed open file goes stale, as Maildir and index updates rename files",
    "insecure_locks": "any program could hold locks on mail",
    "no_auth_nlm": "any program could hold locks on mail",
    "anonuid=0": "root of any client would be root here: it could read and change every mail",
}


def exports(shares: Sequence[Mapping[str, Any]], uid: int, gid: int) -> list[dict[str, Any]]:
    """One entry for each path and client: ``{path, client, options}``, all problems in one error.

    ``shares``: list of ``{path, clients, options}``; a client is a name, an address or a network, or
    ``{host, options}``; options are added to the safe base options.
    """
    if not isinstance(shares, (list, tuple)):
        raise NfsmailError([Problem("nfs_server_exports", shares, "a list of {path, clients}", "write a list", SOURCE)])
    problems: list[Problem] = []
    found: list[dict[str, Any]] = []
    for number, share in enumerate(shares):
        where = f"nfs_server_exports[{number}]"
        if not isinstance(share, Mapping) or not isinstance(share.get("clients"), (list, tuple)):
            problems.append(Problem(where, share, "a mapping {path, clients: [...]}", "write a mapping", SOURCE))
            continue
        path = str(share.get("path") or "")
        problems += path_problems(f"{where}.path", path)
        if not share["clients"]:
            problems.append(
                Problem(f"{where}.clients", [], "an export has clients; none would mean everybody", "list them", SOURCE)
            )
        for client in share["clients"]:
            entry, wrong = _client(f"{where}.clients", path, client, share.get("options") or (), uid, gid)
            problems += wrong
            found += entry
    seen: set[tuple[str, str]] = set()
    for entry_ in found:
        key = (entry_["path"], entry_["client"])
        if key in seen:
            problems.append(
                Problem(
                    "nfs_server_exports",
                    f"{key[0]} to {key[1]}",
                    "a path is exported to a client once; exportfs would ignore one of the two",
                    "remove the double",
                    SOURCE,
                )
            )
        seen.add(key)
    if problems:
        raise NfsmailError(problems)
    return found


def exports_text(entries: Sequence[Mapping[str, Any]]) -> str:
    """The entries as lines of an exports file, one path a line."""
    by_path: dict[str, list[str]] = {}
    for entry in entries:
        # No blank before the bracket: with one, the path is exported to the whole world.
        by_path.setdefault(str(entry["path"]), []).append(f"{entry['client']}({','.join(entry['options'])})")
    return "".join(f"{path.replace(' ', chr(92) + '040')} {' '.join(clients)}\n" for path, clients in by_path.items())


def path_problems(where: str, path: str) -> list[Problem]:
    """What is wrong with an exported path."""
    if not path.startswith("/"):
        return [Problem(where, path or None, "an absolute path", f"write /{path.lstrip('./') or 'srv/mail'}", SOURCE)]
    if path == "/":
        rule = "a directory below /: with / backends would get all files of the machine, and the mail user its root directory"
        return [Problem(where, path, rule, "name a directory for mail alone, such as /srv/mail", SOURCE)]
    if ".." in path.split("/") or path != path.rstrip("/") or re.search(r"[\n\r\t\"\\#]", path):
        return [Problem(where, path, "a plain path below /, without .., quotes or a final slash", "correct it", SOURCE)]
    return []


def _client(
    where: str, path: str, client: Any, shared: Any, uid: int, gid: int
) -> tuple[list[dict[str, Any]], list[Problem]]:
    own = client.get("options") or () if isinstance(client, Mapping) else ()
    host = str((client.get("host") if isinstance(client, Mapping) else client) or "")
    problems: list[Problem] = []
    if not CLIENT.match(host) or EVERYBODY.match(host):
        problems.append(
            Problem(
                f"{where}.host", host or None, "a host name, address or network; never everybody", "name it", SOURCE
            )
        )
    more: list[str] = []
    for given in (shared, own):
        if isinstance(given, (list, tuple)):
            more += [str(option) for option in given]
        else:
            problems.append(Problem(f"{where}[{host}].options", given, "a list of options", "write a list", SOURCE))
    for option in more:
        if option in REFUSED:
            problems.append(Problem(f"{where}[{host}]", option, REFUSED[option], "remove the option", SOURCE))
        elif not OPTION.match(option):
            problems.append(Problem(f"{where}[{host}]", option, "an option as in exports(5)", "correct it", SOURCE))
    base = [option for option in BASE_OPTIONS if not _replaced(option, more)]
    ids = [f"anonuid={uid}", f"anongid={gid}"]
    options = list(dict.fromkeys([*base, *(option for option in ids if not _replaced(option, more)), *more]))
    return ([] if problems else [{"path": path, "client": host, "options": options}]), problems


def _replaced(option: str, more: Sequence[str]) -> bool:
    if option == "rw":
        return "ro" in more
    if option == "root_squash":
        return "all_squash" in more
    name, sign, _ = option.partition("=")
    return bool(sign) and any(other.startswith(f"{name}=") for other in more)
