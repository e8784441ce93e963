# Copyright: (c) 2026, the nfsmail.cluster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where users are while the cluster runs, and how they move without being on two backends.

The inventory says what the cluster is meant to be. What was done to it since, backends taken out and users moved, stands
in a small file on every router (the state), so that the next run of ``site.yml`` does not undo it. Routers are the machines
that choose a backend: proxies with the shard map, proxies with a director, and for ``random`` the balancers.

A director moves users by itself, and a balancer knows no users; what follows is of the shard map. A move has three steps,
in files that proxies read at each login. First the *moving* file: who moves logs in to the new backend, but not before a
time (``delay_until``), and gets no mail meanwhile (LMTP answers 451). Then sessions on the old backend end. Then the shard
map and the overrides change, and the moving file is emptied.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..module_utils._indexes import expand
from . import director
from .errors import NfsmailError, Problem, nearest
from .protocols import LOGINS
from .shards import KNOWN_KEYS, SHARD_NAMES, Backend, lookup_key, lowered, parse_backends, shard_map, shard_of

SOURCE = "docs: operating the cluster"
# A port where nobody listens: the proxy answers LMTP 451 for this recipient, and the sender tries again.
NOWHERE = "host=127.0.0.1 port=1"


ROUTERS = ("shards", "director", "balancer")

# What the moving file is when nobody is on the way.
NOBODY_MOVES = "# nfsmail.cluster: who is on the way to another backend.\n"


@dataclass(frozen=True)
class State:
    """What was done since.

    ``serial`` grows with every change; ``out``: backends taken out; ``users``: user to backend; ``until``: when the last login
    that a move held has gone on, to where the move sent it (seconds since 1970).
    """

    serial: int = 0
    out: tuple[str, ...] = ()
    users: Mapping[str, str] = field(default_factory=dict)
    until: int = 0

    def as_mapping(self) -> dict[str, Any]:
        """As the file has it."""
        return {"serial": self.serial, "out": list(self.out), "users": dict(self.users), "until": self.until}


@dataclass(frozen=True)
class Routes:
    """Where everybody is: backends with their states in effect, and pinned users."""

    backends: tuple[Backend, ...]
    overrides: Mapping[str, str]

    def shards(self) -> dict[str, str]:
        """The shard map."""
        return shard_map(self.backends)


def newest(states: Iterable[Any]) -> State:
    """The state of the cluster among those that its proxies have; a proxy that was down has an older one."""
    return max((_state(state) for state in states), key=lambda state: state.serial, default=State())


def routing(
    backends: Iterable[Mapping[str, Any]], overrides: Mapping[str, str], states: Iterable[Any] = ()
) -> dict[str, Any]:
    """What the proxies' files are to say: ``backends`` and ``overrides`` in effect, and ``state``.

    ``backends`` and ``overrides``: as the inventory has them; ``states``: what the proxies have (empty where nothing was
    done yet). Errors: whatever is wrong with backends or overrides.
    """
    state = newest(states)
    routes = _routes(parse_backends(backends), overrides, state)
    return {
        "backends": [{key: getattr(one, key) for key in KNOWN_KEYS} for one in routes.backends],
        "overrides": dict(routes.overrides),
        "state": state.as_mapping(),
    }


def move_plan(
    backends: Sequence[Mapping[str, Any]],
    overrides: Mapping[str, str],
    states: Iterable[Any],
    request: Mapping[str, Any],
) -> dict[str, Any]:
    """Who moves from where to where, and the state after it.

    ``request``: ``verb``, one of drain, undrain, move_user; ``drain`` or ``undrain``, names of backends; ``move_user`` and
    ``move_to``, a user and a backend, or ``hash`` for the shard's; ``move_lines``, more of them as text, ``USER BACKEND`` a
    line; ``max_out``, how many backends may be out at once (1). With service addresses also ``failback``, a backend whose
    address comes back to it, and ``holders``, a backend to the machines that have its address. ``router``: who chooses the
    backend, one of `ROUTERS` (shards); ``unfinished``, what the moving files of the proxies have, key to address: whoever
    was on the way may be at either end.

    Answers ``state``, ``routing`` (as `routing` does, afterwards), ``release`` (backends whose address comes back), ``sources``
    (machine to ``{users, shards, pinned}``: whose sessions end there; ``pinned`` are in a moving shard and
    stay), ``targets`` (names), ``moving`` (lines of the moving file, with ``{until}`` for the time), ``ring`` (commands for
    one director), ``said`` (lines for people). Errors: every problem of the request in one.
    """
    known = parse_backends(backends)
    state = newest(states)
    problems = list(_request_problems(known, state, request))
    if problems:
        raise NfsmailError(problems)
    router = str(request.get("router") or ROUTERS[0])
    # A director keeps a user where it was sent until nobody has used it for a while; that is no state of ours.
    after = _changed(state, request if router == ROUTERS[0] else {**request, "move_user": "", "move_lines": ""})
    before_routes, after_routes = _routes(known, overrides, state), _routes(known, overrides, after)
    result = {
        "state": after.as_mapping(),
        "routing": routing(backends, overrides, [after.as_mapping()]),
        "release": [],
        "targets": [],
        "moving": [],
        "ring": [],
    }
    if router == "balancer":
        return {**result, **_by_balancer(request)}
    if router == "director":
        return {**result, **_by_director(after_routes, request)}
    held = _holders(request)
    back = [name for name in _names(request.get("failback")) if held.get(name) != [name]]
    found = _moves(
        *(
            _homecoming(before_routes, back)
            if request.get("failback")
            else _placements(before_routes, after_routes, _on_the_way(known, request))
        ),
        after_routes,
    )
    return {
        **result,
        **found,
        "sources": _on_machines(found["sources"], held, back),
        "release": back,
        "said": [f"{name}: its address comes back from {', '.join(held.get(name) or ['nobody'])}" for name in back]
        or found["said"],
    }


def moving_lines(lines: Iterable[str], until: int | float) -> list[str]:
    """Lines of the moving file with the time filled in (seconds since 1970, by the proxies' clock)."""
    return [line.replace("{until}", str(int(until))) for line in lines]


def user_paths(users: Iterable[str], template: str) -> list[str]:
    """Each user's own path of a template such as ``nfsmail_index_path``, for removal.

    Errors: a template that gives two users one path, and a name that would lead elsewhere.
    """
    if "{user}" not in template and not ("{name}" in template and "{domain}" in template):
        rule = "a path of one user has {user} in it, or {name} and {domain}"
        raise NfsmailError([Problem("nfsmail_index_path", template, rule, "add them", SOURCE)])
    found = []
    for user in map(lowered, users):
        name, _, domain = user.partition("@")
        # Without a domain the path may be the folder of a whole domain.
        parts = [user, name, *([domain] if "{domain}" in template else [])]
        if "/" in user or any(part in ("", ".", "..") for part in parts):
            rule = "a name that stands for one folder"
            raise NfsmailError([Problem("user", user, rule, "remove this user's indexes by hand", SOURCE)])
        words = {"user": user, "name": name, "domain": domain, "shard": shard_of(user)}
        found.append(expand(template, words))
    return found


# -- the state ------------------------------------------------------------------------------------------------


def _state(found: Any) -> State:
    if not isinstance(found, Mapping):
        return State()
    serial, out, users, until = (found.get(key) for key in ("serial", "out", "users", "until"))
    return State(
        serial if isinstance(serial, int) and not isinstance(serial, bool) else 0,
        tuple(str(name) for name in out) if isinstance(out, (list, tuple)) else (),
        {str(user): str(name) for user, name in users.items()} if isinstance(users, Mapping) else {},
        until if isinstance(until, int) and not isinstance(until, bool) else 0,
    )


def _changed(state: State, request: Mapping[str, Any]) -> State:
    out = [name for name in state.out if name not in _names(request.get("undrain"))]
    out += [name for name in _names(request.get("drain")) if name not in out]
    users = {lowered(user): name for user, name in state.users.items()}
    for user, name in requested_users(request).items():
        users[lowered(user)] = name
    changed = replace(state, out=tuple(out), users=users)
    return state if changed == state else replace(changed, serial=state.serial + 1)


def _routes(known: Sequence[Backend], overrides: Mapping[str, str], state: State) -> Routes:
    """The inventory with the state laid over it. What the inventory takes out stays out; pins to what is out rest."""
    backends = tuple(
        replace(one, state="drained") if one.name in state.out and one.state == "up" else one for one in known
    )
    names = {one.name for one in known}
    resting = {one.name for one in known if one.name in state.out}
    pinned: dict[str, str] = {}
    for user, name in overrides.items():
        if lowered(str(user)) not in state.users and str(name) not in resting:
            pinned[str(user)] = str(name)
    for user, name in state.users.items():
        if name in names and name not in resting:
            pinned[user] = name
    return Routes(backends, pinned)


# -- the request ----------------------------------------------------------------------------------------------


def _names(given: Any) -> list[str]:
    if isinstance(given, str):
        return [word.strip() for word in given.split(",") if word.strip()]
    return [str(name) for name in given] if isinstance(given, (list, tuple)) else []


def requested_users(request: Mapping[str, Any]) -> dict[str, str]:
    """User to backend, as ``move_user``, ``move_to`` and ``move_lines`` say; what is not a pair has an empty backend."""
    found = {str(request["move_user"]): str(request.get("move_to") or "")} if request.get("move_user") else {}
    for line in str(request.get("move_lines") or "").splitlines():
        words = line.split("#", 1)[0].split()
        if words:
            found[words[0]] = words[1] if len(words) == 2 else ""
    return found


def _request_problems(known: Sequence[Backend], state: State, request: Mapping[str, Any]) -> Iterable[Problem]:
    names = [one.name for one in known]
    verb = str(request.get("verb"))
    router = str(request.get("router") or ROUTERS[0])
    if router not in ROUTERS:
        rule = "proxies, or with topology random balancers, choose the backend: nobody here could be told"
        fix = "what sends clients to backends is not ours: tell it, or name its machines in the inventory"
        yield Problem(verb, request.get(verb), rule, fix, SOURCE)
        return
    if router == "balancer" and verb == "move_user":
        rule = "with topology random a user has no backend: each connection goes to any"
        yield Problem("move_user", sorted(requested_users(request)), rule, "use topology per_user", SOURCE)
        return
    if router != ROUTERS[0] and verb == "failback":
        rule = "addresses come back by this playbook where proxies have the shard map (dovecot_proxy_mode: shards)"
        yield Problem("failback", request.get(verb), rule, "see docs: when a backend dies", SOURCE)
        return
    if not (requested_users(request) if verb == "move_user" else _names(request.get(verb))):
        what = "the user, and move_to, the backend" if verb == "move_user" else "the backend"
        example = "-e move_user=anna@example.com -e move_to=mail2" if verb == "move_user" else f"-e {verb}=mail1"
        yield Problem(verb, None, f"names {what}", example, SOURCE)
    for verb in ("drain", "undrain", "failback"):
        for name in _names(request.get(verb)):
            if name not in names:
                yield Problem(
                    verb, name, "the backend is in the inventory", f"do you mean {nearest(name, names)}?", SOURCE
                )
    for user, name in requested_users(request).items():
        yield from _user_problems(user, name, known, state)
    yield from _address_problems(known, request)
    wanted = [name for name in _names(request.get("drain")) if name in names]
    after = _changed(state, request)
    left = [one for one in known if one.state == "up" and one.weight > 0 and one.name not in after.out]
    if wanted and not left:
        yield Problem(
            "drain",
            ", ".join(wanted),
            "at least one backend takes users: nobody could log in, and mail would wait",
            "bring another backend back first (undrain)",
            SOURCE,
        )
    out = [one.name for one in known if one.state != "up" or one.name in after.out]
    limit = request.get("max_out", 1)
    new = [name for name in wanted if name not in state.out]
    if new and left and isinstance(limit, int) and len(out) > limit:
        yield Problem(
            "drain",
            ", ".join(new),
            f"no more than {limit} backends are out at once (nfsmail_max_out); out would be {', '.join(out)}",
            "bring one back first (undrain), or allow more",
            SOURCE,
        )


def _address_problems(known: Sequence[Backend], request: Mapping[str, Any]) -> Iterable[Problem]:
    holders = _holders(request)
    for name in _names(request.get("drain")):
        others = [owner for owner, machines in holders.items() if name in machines and owner != name]
        if others:
            rule = f"a backend that is emptied serves its own users only; it has the address of {', '.join(others)}"
            fix = f"bring that back first (failback={','.join(others)}), or drain {', '.join(others)}"
            yield Problem("drain", name, rule, fix, SOURCE)
    for name in _names(request.get("failback")):
        if not any(one.service_address for one in known if one.name == name):
            fix = "see docs: when a backend dies"
            yield Problem("failback", name, "the backend has an nfsmail_service_address", fix, SOURCE)


def _user_problems(user: str, name: str, known: Sequence[Backend], state: State) -> Iterable[Problem]:
    where = f"move_user {user}"
    if not user or any(char.isspace() or char == ":" for char in user) or user.startswith("#"):
        yield Problem(where, name, "a user name without colons and blanks", "correct the user name", SOURCE)
        return
    if name == "hash":
        return
    found = {one.name: one for one in known}
    if name not in found:
        fix = f"one of {', '.join(sorted(found))}, or hash for the backend of the user's shard"
        yield Problem(where, name, "the backend is in the inventory", fix, SOURCE)
    elif found[name].state != "up" or name in state.out:
        yield Problem(
            where, name, "the backend takes users; it is out", "choose another, or bring it back (undrain)", SOURCE
        )


# -- other routers --------------------------------------------------------------------------------------------


def _by_balancer(request: Mapping[str, Any]) -> dict[str, Any]:
    """New connections go elsewhere, and those that are there end."""
    out, back = _names(request.get("drain")), _names(request.get("undrain"))
    said = [f"{name}: new connections go to others" for name in out]
    said += [f"{name}: new connections come here again" for name in back]
    return {"sources": {name: _leaving() for name in out}, "said": said}


def _by_director(after: Routes, request: Mapping[str, Any]) -> dict[str, Any]:
    """What one director is told; it tells the others, ends the sessions of who moves, and holds their logins meanwhile."""
    out, back = _names(request.get("drain")), _names(request.get("undrain"))
    address = {one.name: one.address for one in after.backends}
    up = [one.name for one in after.backends if one.state == "up"]
    asked = requested_users(request)
    placed = director.placement(asked, after.backends)
    users = {user: placed[user] if name == "hash" else name for user, name in asked.items()}
    ring = [["down", address[name]] for name in out]
    ring += [["flush", address[name]] for name in out]
    # It may have been left out of director_mail_servers when the last director was started.
    ring += [[verb, address[name]] for name in back for verb in ("add", "up")]
    # Whoever is not on the backend that the ring gives goes there.
    ring += [["flush", address[name]] for name in up if back and name not in back]
    ring += [["move", lowered(user), address[name]] for user, name in users.items()]
    said = [f"{name}: the directors send its users to others" for name in out]
    said += [f"{name}: the directors send its users back" for name in back]
    said += [f"{user} to {name}, until nobody has used it for 15 minutes" for user, name in users.items()]
    sources = {name: _leaving() for name in out}
    for user, name in users.items():
        for other in up:
            if other != name:
                sources.setdefault(other, _leaving())["users"].append(user)
    targets = sorted({name for name in up if out or name in back} | set(users.values()))
    return {"sources": sources, "targets": targets, "ring": ring, "said": said}


# -- the moves ------------------------------------------------------------------------------------------------


def _leaving() -> dict[str, list[str]]:
    """Whose sessions end on a machine: nobody in particular yet."""
    return {"users": [], "shards": [], "pinned": []}


# From where (from one of which), to where.
Moved = dict[str, tuple[tuple[str, ...], str]]


def _on_the_way(known: Sequence[Backend], request: Mapping[str, Any]) -> dict[str, str]:
    """Keys of a move that was ended half-way (``/user`` and ``//shard``) to the backend that they were sent to."""
    given = request.get("unfinished")
    names = {one.reached_at: one.name for one in known}
    return (
        {str(key): names[str(host)] for key, host in given.items() if str(host) in names}
        if isinstance(given, Mapping)
        else {}
    )


def _placements(before: Routes, after: Routes, on_the_way: Mapping[str, str]) -> tuple[Moved, Moved]:
    """Shards and users whose backend changes."""
    old, new = before.shards(), after.shards()
    pins_before = {lowered(user): name for user, name in before.overrides.items()}
    pins_after = {lowered(user): name for user, name in after.overrides.items()}
    keys = {f"/{lookup_key(user)}": user for user in map(lowered, {*pins_before, *pins_after})}
    keys |= {key: re.sub(r"\\(.)", r"\1", key[1:]) for key in on_the_way if not key.startswith("//")}
    users = {}
    for key, user in sorted(keys.items(), key=lambda pair: pair[1]):
        shard = shard_of(user)
        here = {pins_before[user]} if user in pins_before else {old[shard], on_the_way.get(f"//{shard}", old[shard])}
        here |= {on_the_way[key]} if key in on_the_way else set()
        there = pins_after.get(user, new[shard])
        if here != {there}:
            users[user] = (tuple(sorted(here - {there})), there)
    shards = {}
    for shard in SHARD_NAMES:
        here = {old[shard], on_the_way.get(f"//{shard}", old[shard])}
        if here != {new[shard]}:
            shards[shard] = (tuple(sorted(here - {new[shard]})), new[shard])
    return shards, users


def _homecoming(routes: Routes, back: Sequence[str]) -> tuple[Moved, Moved]:
    """Shards and users whose backend stays, but whose address comes back to it."""
    shards: Moved = {shard: ((name,), name) for shard, name in routes.shards().items() if name in back}
    users: Moved = {lowered(user): ((name,), name) for user, name in routes.overrides.items() if name in back}
    return shards, users


def _on_machines(
    sources: Mapping[str, Mapping[str, Sequence[str]]], holders: Mapping[str, Sequence[str]], back: Sequence[str]
) -> dict[str, dict[str, list[str]]]:
    """Sources by the machines that serve their users now; whoever gets its address back is none."""
    found: dict[str, dict[str, list[str]]] = {}
    for name, source in sources.items():
        for machine in holders.get(name, (name,)):
            if machine in back:
                continue
            there = found.setdefault(machine, _leaving())
            for what, more in source.items():
                there[what] = sorted({*there[what], *more})
    return found


def _holders(request: Mapping[str, Any]) -> dict[str, list[str]]:
    given = request.get("holders")
    return (
        {str(name): list(map(str, machines)) for name, machines in given.items()} if isinstance(given, Mapping) else {}
    )


def _moves(shards: Moved, users: Moved, after: Routes) -> dict[str, Any]:
    address = {one.name: one.reached_at for one in after.backends}
    pins_after = {lowered(user): name for user, name in after.overrides.items()}
    sources: dict[str, dict[str, list[str]]] = {}
    for what, moves in (("shards", shards), ("users", users)):
        for one, (heres, _there) in moves.items():
            for here in heres:
                sources.setdefault(here, _leaving())[what].append(one)
    for source in sources.values():
        source["pinned"] = sorted(set(pins_after) - set(users))
    lines = [
        line
        for key, there in [
            *((f"/{lookup_key(user)}", there) for user, (_here, there) in users.items()),
            *((f"//{shard}", there) for shard, (_here, there) in shards.items()),
        ]
        for line in _held(key, address[there])
    ]
    counts: dict[tuple[str, str], list[int]] = {}
    for number, moved in enumerate((shards, users)):
        for heres, there in moved.values():
            for here in heres:
                counts.setdefault((here, there), [0, 0])[number] += 1
    said = [
        f"{here} to {there}: "
        + " and ".join(_counted(count, what) for count, what in zip(both, ("shard", "user")) if count)
        for (here, there), both in sorted(counts.items())
    ]
    targets = sorted({there for _here, there in [*shards.values(), *users.values()]})
    return {"sources": sources, "targets": targets, "moving": lines, "said": said}


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" + ("s" if number != 1 else "")


def _held(key: str, address: str) -> list[str]:
    """Logins wait and go to the new backend; mail and doveadm are told to try again."""
    return [
        *(f"{name}{key}:::::::proxy=y nopassword=y host={address} delay_until={{until}}" for name in LOGINS),
        *(f"{name}{key}:::::::proxy=y nopassword=y {NOWHERE}" for name in ("lmtp", "doveadm")),
    ]
