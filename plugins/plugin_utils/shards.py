# Copyright: (c) 2026, the nfsmail.cluster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which backend a user belongs to: 256 shards, rendezvous-hashed over weighted backends."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..module_utils._indexes import shard_of as _shard_of
from .errors import NfsmailError, Problem

SHARDS = 256
KNOWN_KEYS = ("name", "address", "weight", "state", "service_address")
STATES = ("up", "drained", "down")
SOURCE = "docs: routing by shard"
SHARD_NAMES: tuple[str, ...] = tuple(f"{number:02x}" for number in range(SHARDS))


@dataclass(frozen=True)
class Backend:
    """One backend of the map. ``weight``: its share relative to the others (0 takes nobody)."""

    name: str
    address: str
    weight: float = 1.0
    state: str = "up"
    service_address: str = ""

    @property
    def reached_at(self) -> str:
        """Where proxies send its users: the address that moves with them, or the machine's own."""
        return self.service_address or self.address


def shard_of(user: str) -> str:
    """Two hex digits, as ``%2.256LNu`` (2.3) and ``md5 | substr(0, 8) % 256 | hex(2)`` (2.4) give.

    Both take the first eight bytes of the MD5 digest, big-endian, modulo 256: its eighth byte.
    Dovecot lower-cases ASCII letters only; other scripts keep their case.
    """
    if not isinstance(user, str):
        raise NfsmailError([Problem("user", user, "a user name is text", "quote it", SOURCE)])
    return _shard_of(lowered(user))


def lowered(user: str) -> str:
    """The user name as Dovecot's ``%Lu`` and ``lower`` give it: ASCII letters only."""
    return "".join(char.lower() if "A" <= char <= "Z" else char for char in user)


def lookup_key(user: str) -> str:
    """The user name as a passwd-file must have it: Dovecot escapes quotes and backslashes before it looks a name up."""
    return re.sub(r"(['\"\\])", r"\\\1", lowered(user))


def parse_backends(backends: Iterable[Mapping[str, Any] | Backend]) -> tuple[Backend, ...]:
    """Backends as an inventory lists them; every problem in one error."""
    if isinstance(backends, (str, bytes, Mapping)) or not isinstance(backends, Iterable):
        raise NfsmailError(
            [Problem("backends", backends, "a list of {name, address, weight, state}", "write a list", SOURCE)]
        )
    found: list[Backend] = []
    problems: list[Problem] = []
    for entry in backends:
        if isinstance(entry, Backend):
            found.append(entry)
            continue
        backend, wrong = _backend(entry)
        problems += wrong
        if backend:
            found.append(backend)
    problems += _doubles(found)
    if not problems and not any(_takes_users(backend) for backend in found):
        problems.append(
            Problem(
                "backends",
                [backend.name for backend in found],
                "at least one backend takes users",
                "set one backend's state to up and its weight above 0",
                SOURCE,
            )
        )
    if problems:
        raise NfsmailError(problems)
    return tuple(found)


def shard_map(backends: Iterable[Mapping[str, Any] | Backend]) -> dict[str, str]:
    """Every shard's backend name.

    Highest weighted score wins (rendezvous hashing): taking a backend out moves only its own shards,
    and adding one moves no more than its share.
    """
    wanted = {backend.name: _scores(backend) for backend in parse_backends(backends) if _takes_users(backend)}
    return {shard: max(wanted, key=lambda name: wanted[name][shard]) for shard in SHARD_NAMES}


def shard_lines(backends: Iterable[Mapping[str, Any] | Backend]) -> list[str]:
    """The shard map as lines of Dovecot's passwd-file, the shard in place of the user."""
    known = parse_backends(backends)
    address = {backend.name: backend.reached_at for backend in known}
    return [f"{shard}:::::::proxy=y nopassword=y host={address[name]}" for shard, name in shard_map(known).items()]


def override_lines(overrides: Mapping[str, str], backends: Iterable[Mapping[str, Any] | Backend]) -> list[str]:
    """Users pinned to a backend, as passwd-file lines; an unknown or idle backend is an error."""
    known = {backend.name: backend for backend in parse_backends(backends)}
    if not isinstance(overrides, Mapping):
        raise NfsmailError(
            [Problem("nfsmail_overrides", overrides, "a mapping of user to backend", "write user: backend", SOURCE)]
        )
    pinned = sorted((str(user), str(name)) for user, name in overrides.items())
    problems = [problem for user, name in pinned for problem in _override_problems(user, name, known)]
    seen: dict[str, str] = {}
    for user, name in pinned:
        if lowered(user) in seen:
            other = seen[lowered(user)]
            problems.append(
                Problem(
                    f"nfsmail_overrides[{user}]",
                    name,
                    f"a user is pinned once, capitals do not count; {other!r} is the same user",
                    "remove one of the two",
                    SOURCE,
                )
            )
        seen.setdefault(lowered(user), user)
    if problems:
        raise NfsmailError(problems)
    return [f"{lookup_key(user)}:::::::proxy=y nopassword=y host={known[name].reached_at}" for user, name in pinned]


def _override_problems(user: str, name: str, known: Mapping[str, Backend]) -> list[Problem]:
    variable = f"nfsmail_overrides[{user}]"
    if not user or re.search(r"^#|[:\s]", user):
        return [Problem(variable, name, "a user name without colons and blanks", "correct the user name", SOURCE)]
    if name not in known:
        return [
            Problem(variable, name, "the backend is in the inventory", f"one of {', '.join(sorted(known))}", SOURCE)
        ]
    if known[name].state != "up":
        return [
            Problem(
                variable,
                name,
                f"the backend takes users; it is {known[name].state}",
                "pin the user to a backend that is up, or drop the override",
                SOURCE,
            )
        ]
    return []


def _backend(entry: Any) -> tuple[Backend | None, list[Problem]]:
    if not isinstance(entry, Mapping):
        return None, [Problem("backends", entry, "a mapping {name, address, weight, state}", "write a mapping", SOURCE)]
    name = str(entry.get("name") or "")
    where = f"backends[{name or '?'}]"
    problems: list[Problem] = []
    unknown = sorted(set(map(str, entry)) - {*KNOWN_KEYS})
    if unknown:
        problems.append(Problem(where, unknown, "known keys: " + ", ".join(KNOWN_KEYS), "drop the others", SOURCE))
    if not name:
        problems.append(Problem(where, entry, "a backend has a name", "add name", SOURCE))
    address = str(entry.get("address") or name)
    if any(char.isspace() for char in address):
        problems.append(Problem(f"{where}.address", address, "an address has no blanks", "correct it", SOURCE))
    state = str(entry.get("state", "up"))
    if state not in STATES:
        problems.append(Problem(f"{where}.state", state, f"one of {', '.join(STATES)}", "choose one", SOURCE))
    service = str(entry.get("service_address") or "")
    weight = _weight(entry.get("weight", 1))
    if weight is None:
        problems.append(
            Problem(f"{where}.weight", entry.get("weight"), "a number, 0 to 1000", "1 is the usual weight", SOURCE)
        )
    return (None, problems) if problems else (Backend(name, address, weight or 0.0, state, service), [])


def _weight(given: Any) -> float | None:
    try:
        weight = float(given)
    except (TypeError, ValueError, OverflowError):
        return None
    return weight if math.isfinite(weight) and 0 <= weight <= 1000 and not isinstance(given, bool) else None


def _doubles(backends: list[Backend]) -> list[Problem]:
    problems = []
    for what in ("name", "address"):
        seen: dict[str, str] = {}
        for backend in backends:
            value = getattr(backend, what)
            if value in seen:
                problems.append(
                    Problem(
                        f"backends[{backend.name}].{what}",
                        value,
                        f"one backend is listed once; {seen[value]!r} has the same {what}",
                        "remove one of the two",
                        SOURCE,
                    )
                )
            seen.setdefault(value, backend.name)
    return problems


def _takes_users(backend: Backend) -> bool:
    return backend.state == "up" and backend.weight > 0


def _scores(backend: Backend) -> dict[str, tuple[float, bytes]]:
    """How much the backend wants each shard; it depends on nothing but its own name and weight.

    The shards, in an order that follows from the name, are spread evenly over 0 to 1. Even steps instead of random ones
    halve the deviation from the backends' shares.
    """
    drawn = {shard: hashlib.sha256(f"{shard} {backend.name}".encode()).digest() for shard in SHARD_NAMES}
    order = sorted(SHARD_NAMES, key=lambda shard: drawn[shard])
    return {
        shard: (-backend.weight / math.log((place + 0.5) / SHARDS), drawn[shard]) for place, shard in enumerate(order)
    }
