# Copyright: (c) 2026, the nfsmail.cluster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The director of Dovecot 2.3: its settings on a proxy, where it places users, and the way from it to the shard map."""

from __future__ import annotations

import bisect
import hashlib
import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .dialect import Entry
from .errors import NfsmailError, Problem
from .profile import series_of
from .protocols import served
from .shards import Backend, lowered, parse_backends, shard_map, shard_of

SOURCE = "Dovecot 2.3 documentation, director"
MODES = ("shards", "director")
VHOSTS = 100  # points of a backend on the ring; the director's own default


def problems(
    mode: Any,
    version: str,
    proxies: Sequence[str],
    backends: Sequence[Mapping[str, Any] | Backend],
    overrides: Mapping[str, str] | None = None,
) -> list[Problem]:
    """What is wrong with a mode of routing. ``version`` may be empty where it is not known yet."""
    variable = "dovecot_proxy_mode"
    if mode not in MODES:
        return [Problem(variable, mode, f"one of {', '.join(MODES)}", "choose one", "docs: routing by shard")]
    if mode == "shards":
        return []
    found = []
    if version and series_of(version) == "2.4":
        found.append(
            Problem(
                variable,
                mode,
                f"Dovecot {version} has no director: it ended with 2.3",
                "use shards; the way there moves nobody, see docs: from the director to the shard map",
                "Dovecot NEWS, 2.4.0",
            )
        )
    known = parse_backends(backends)
    addresses = {f"proxy {address}": str(address) for address in proxies}
    addresses |= {f"backend {backend.name}": backend.address for backend in known}
    families = {where: _family(address) for where, address in addresses.items()}
    for where, family in families.items():
        if not family:
            found.append(
                Problem(
                    f"nfsmail_address of {where}",
                    addresses[where],
                    "directors and their backends are listed by IP address",
                    "set nfsmail_address to the address",
                    SOURCE,
                )
            )
    if len({family for family in families.values() if family}) > 1:
        found.append(
            Problem(
                variable, addresses, "a ring has addresses of one family", "use IPv4 or IPv6 for all of them", SOURCE
            )
        )
    found += [
        Problem(
            f"nfsmail_backend_weight of {backend.name}",
            backend.weight,
            "the director has no weights in its configuration",
            f"leave it out, and on a proxy: doveadm director update {backend.address} {int(VHOSTS * backend.weight)}",
            SOURCE,
        )
        for backend in known
        if backend.state == "up" and backend.weight != 1
    ]
    if overrides:
        found.append(
            Problem(
                "nfsmail_overrides",
                sorted(map(str, overrides))[:3],
                "the director takes no backend from a password database",
                "leave it empty, and on a proxy: doveadm director move USER BACKEND",
                SOURCE,
            )
        )
    return found


def entries(plan: Mapping[str, Any], told: Mapping[str, str]) -> list[Entry]:
    """What stands in the file of a proxy in place of the shard map. ``told``: fields that say how backends are spoken to."""
    backends = parse_backends(plan["backends"])
    wrong = problems("director", str(plan["version"]), plan["proxies"], backends, plan.get("overrides"))
    if wrong:
        raise NfsmailError(wrong)
    up = [backend.address for backend in backends if backend.state == "up"]
    lookups = ["lmtp", "doveadm"] if "lmtp" in plan["protocols"] else ["doveadm"]
    route = (
        Entry("args", "proxy=y nopassword=y"),
        Entry("override_fields", " ".join(f"{field}={value}" for field, value in told.items())),
        Entry("skip", "unauthenticated"),
    )
    return [
        Entry("director_servers", " ".join(map(str, plan["proxies"])), "The ring: every proxy, this one too."),
        Entry("director_mail_servers", " ".join(up), "The backends that take users."),
        Entry("director_username_hash", "%Lu", "A user is one user however the name is typed."),
        Entry("passdb static", route, "The director chooses the backend."),
        Entry(
            "service director",
            (
                Entry("unix_listener login/director", (Entry("mode", "0666"),)),
                Entry(
                    "fifo_listener login/proxy-notify", (Entry("mode", "0600"), Entry("user", "$default_login_user"))
                ),
                Entry("unix_listener director-userdb", (Entry("mode", "0600"),)),
                Entry("unix_listener director-admin", (Entry("mode", "0600"),)),
                Entry("inet_listener", (Entry("port", str(int(plan["director_port"]))),)),
            ),
            "Directors tell each other who is where.",
        ),
        Entry(
            "service ipc",
            (Entry("unix_listener ipc", (Entry("user", "$default_internal_user"),)),),
            "Lets a director end sessions.",
        ),
        *(
            Entry(one.service, (Entry("executable", f"{one.login}-login director"),))
            for one in served(plan["protocols"])
        ),
        *(Entry(f"protocol {name}", (Entry("auth_socket_path", "director-userdb"),)) for name in lookups),
    ]


def placement(users: Iterable[str], backends: Sequence[Mapping[str, Any] | Backend]) -> dict[str, str]:
    """User to the name of the backend that a director's ring gives, unless it was told otherwise while it ran.

    A backend has 100 points on a ring of MD5 digests; the user's own digest goes to the next point.
    """
    usable = [backend for backend in parse_backends(backends) if backend.state == "up"]
    points = sorted(
        (_point(f"{backend.address}-{number}"), backend.address, backend.name)
        for backend in usable
        for number in range(VHOSTS)
    )
    digests = [point for point, _, _ in points]
    return {user: points[bisect.bisect_left(digests, _point(lowered(user))) % len(points)][2] for user in users}


def overrides(users: Iterable[str], backends: Sequence[Mapping[str, Any] | Backend]) -> dict[str, str]:
    """Who must be pinned so that nobody moves when the shard map takes over from a director."""
    shards = shard_map(backends)
    placed = placement(users, backends)
    return {user: name for user, name in placed.items() if shards[shard_of(user)] != name}


def _point(text: str) -> int:
    return int.from_bytes(hashlib.md5(text.encode(), usedforsecurity=False).digest()[:4], "big")


def _family(address: str) -> int:
    try:
        return ipaddress.ip_address(address).version
    except ValueError:
        return 0
