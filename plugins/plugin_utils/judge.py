# Copyright: (c) 2026, the nfsmail.cluster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Judging live machines: what the ``host_state`` module read, against what the plan wants."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..module_utils._exports import describe
from ..module_utils._exports import judge as judge_exports
from ..module_utils._mounts import differences
from .dialect import from_doveconf
from .errors import NfsmailError, Problem
from .firewall import SHOWN
from .inventory import hostname_problems
from .log_signs import SIGNS
from .matrix import Finding, kernel_settings, mount_options, plan_findings, settings, written_findings
from .profile import KNOWN_SERIES, Profile, as_mapping, parse_profile, series_of, version_key
from .routing import NOBODY_MOVES
from .shards import Backend, parse_backends
from .written import in_effect

MAX_OFFSET = 1.0  # seconds; the seed's "more than one second apart"
NLOCKMGR, STATUS = 100021, 100024
LOCK_REFUSALS = ("EAGAIN", "EACCES")
CONFIG_VERSION = "dovecot_config_version"
State = Mapping[str, Any]


@dataclass(frozen=True)
class Check:
    """A question to a live machine: stable id, what is asked, the way out when the answer is wrong, the source."""

    id: str
    what: str
    fix: str
    source: str


@dataclass(frozen=True)
class Answer:
    """One check's answer on one machine; ``level`` is ok, error, warning or info."""

    id: str
    host: str
    level: str
    what: str
    detail: str
    fix: str
    source: str


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


class Live:
    """What one machine said in one of its roles: its plan, its live state, and what it was told about a lock."""

    def __init__(self, host: str, kind: str, fact: Mapping[str, Any]) -> None:
        self.host, self.kind = host, kind
        self.plan = _mapping(fact.get("plan"))
        self.state: State = _mapping(fact.get("state"))
        self.lock = _mapping(fact.get("lock"))


NFS_PAGE = "Dovecot documentation, NFS page"
WIKI = "Dovecot wiki, NFS, 2012"
CHECKS: Mapping[str, Check] = {
    check.id: check
    for check in (
        Check("NFS301", "host_state answered", "run the playbook again with -vvv for this host", "docs: verify"),
        Check("NFS302", "host names differ", "set different host names (hostnamectl set-hostname)", "measured"),
        Check(
            "NFS303",
            "mail store is a mount",
            "systemctl start the mount unit; look at: journalctl -b -u '*.mount'",
            NFS_PAGE,
        ),
        Check("NFS304", "mount options in effect", "run site.yml; options need an unmount and a mount", "nfs(5)"),
        Check("NFS305", "mount point guarded below the mount", "run site.yml: it guards the directory below", NFS_PAGE),
        Check("NFS306", "clock against the NFS server", "look at: chronyc -n sources; chronyc tracking", WIKI),
        Check("NFS307", "clock against the store's file times", "look at the clock of the NFS server itself", WIKI),
        Check("NFS308", "time daemon in step", "look at: systemctl status chrony; chronyc -n sources", WIKI),
        Check("NFS309", "lockd and statd registered", "look at: rpcinfo -p; systemctl status rpc-statd", "lockd(8)"),
        Check("NFS310", "lockd and statd on the NFS server", "look at: rpcinfo -p SERVER; the firewall", "lockd(8)"),
        Check("NFS311", "doveconf agrees with the matrix", "run site.yml; look at: doveconf -n", NFS_PAGE),
        Check("NFS312", "Dovecot is running", "look at: journalctl -u dovecot -n 50", "docs: verify"),
        Check("NFS313", "Dovecot waits for mount and clock", "run site.yml; look at: systemctl cat dovecot", NFS_PAGE),
        Check("NFS314", "exports as planned", "run site.yml; look at: exportfs -s", "exports(5)"),
        Check("NFS315", "server speaks the NFS version", "look at: cat /proc/fs/nfsd/versions", "nfs.conf(5)"),
        Check("NFS316", "lock of another machine is refused", "look at lockd and statd on both machines", WIKI),
        Check("NFS317", "lock is handed over", "look at lockd and statd on both machines", WIKI),
        Check("NFS318", "shard maps are identical", "run site.yml for all proxies", "docs: routing by shard"),
        Check(
            "NFS319",
            "nfs-server keeps NFSv3 locks",
            "run site.yml for the NFS server",
            "measured: locks lost on restart",
        ),
        Check(
            "NFS320",
            "backends run one Dovecot",
            "upgrade the others too; until then, keep dovecot_config_version and new formats as they are",
            "Dovecot documentation, upgrading from 2.3 to 2.4",
        ),
        Check("NFS321", "HAProxy is running", "look at: journalctl -u haproxy -n 50", "docs: verify"),
        Check(
            "NFS322",
            "HAProxy sees the servers as planned",
            "run site.yml; look at the reason behind the state, and at the machine that is not as planned",
            "HAProxy documentation, management guide",
        ),
        Check(
            "NFS323",
            "balancers send a client to the same machine",
            "run site.yml for all balancers; have them on one Debian release",
            "measured: HAProxy 2.2, 2.6 and 3.0",
        ),
        Check(
            "NFS324",
            "kernel parameters in effect",
            "run site.yml; where Dovecot finds its port taken: unmount, mount, start Dovecot",
            "docs: settings matrix, NFS120",
        ),
        Check(
            "NFS325",
            "ports are open to proxies only",
            "run site.yml; look at: systemctl status nfsmail-firewall; nft list table inet nfsmail",
            "docs: security",
        ),
        Check(
            "NFS326",
            "nobody is on the way",
            "run the playbook again that was ended: drain, undrain or move_user; until then mail for who moves waits",
            "docs: operating the cluster",
        ),
        Check(
            "NFS327",
            "no user is open on two backends",
            "run verify again; if it stays: doveadm kick USER on the backend that is not the user's, and see NFS318",
            NFS_PAGE,
        ),
        Check(
            "NFS332",
            "lease and grace period in effect",
            "run site.yml for the NFS server; look at: cat /proc/fs/nfsd/nfsv4gracetime /proc/fs/nfsd/nfsv4leasetime",
            "rpc.nfsd(8)",
        ),
        Check(
            "NFS331",
            "each service address is on one backend",
            "look at: journalctl -u keepalived on the backends; for an address that is not at home: failback",
            "docs: when a backend dies",
        ),
        Check("NFS328", "log without signs of NFS trouble", "each line names its own", "Dovecot source"),
        Check(
            "NFS329",
            "lock files are exclusive",
            "ask who runs the NFS server: O_EXCL and link() must keep a file that is there",
            "Dovecot documentation, NFS page; open(2)",
        ),
        Check(
            "NFS330",
            "directors are one ring in sync, with the backends as planned",
            "look at: doveadm director ring status and status; the port of the ring between the proxies; run drain or undrain again",
            "Dovecot 2.3 documentation, director",
        ),
    )
}


def answer(check: str, host: str, good: bool, detail: str, bad: str = "error") -> Answer:
    """The answer to a check; a good one needs no fix."""
    asked = CHECKS[check]
    level = "ok" if good else bad
    return Answer(check, host, level, asked.what, detail, "" if good else asked.fix, asked.source)


def host_answers(
    host: str, plan: Mapping[str, Any], state: State | None, wanted: Callable[[str], bool] = lambda part: True
) -> list[Answer]:
    """All checks of one machine.

    ``plan``: ``kind`` (nfs_server, backend, proxy, balancer), ``profile``, ``store``, ``mount_options``, ``exports``,
    ``files``, ``servers``, ``clock_server``. ``state``: what ``host_state`` returned, or none. ``wanted``: which parts of the state are
    to be judged.
    """
    if not state:
        return [answer("NFS301", host, False, "no answer")]
    found: list[Answer] = []
    for part, check in _BY_KIND[str(plan["kind"])]:
        if not wanted(part):
            continue
        try:
            found += check(host, plan, state)
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            found.append(answer("NFS301", host, False, f"{check.__name__.strip('_')}: unreadable answer ({error!r})"))
    return found


def all_answers(
    read: Sequence[Live], wanted: Callable[[str, State, str], bool] = lambda kind, state, part: True
) -> list[Answer]:
    """Every machine's answers, then those that compare machines with each other.

    ``wanted``: of a kind of machine and its state, which parts are to be judged.
    """
    found: list[Answer] = []
    for live in read:
        plan, asked = {**live.plan, "kind": live.kind}, functools.partial(wanted, live.kind, live.state)
        found += host_answers(live.host, plan, live.state, asked)
    found += _names(read)
    found += _shared_files(read)
    found += _releases(read)
    found += _balancers_agree(read)
    found += _two_places(read)
    found += _addresses(read)
    return found + [
        row for live in read if live.lock and _locks_reach(live.plan) for row in _lock(live.host, live.lock)
    ]


def _names(read: Sequence[Live]) -> Iterator[Answer]:
    names = {live.host: str(live.state.get("hostname") or live.host) for live in read}
    doubles = hostname_problems(names)
    shown = "; ".join(f"{problem.value}: {problem.variable}" for problem in doubles) or f"{len(names)} machines"
    yield answer("NFS302", "cluster", not doubles, shown)


def _releases(read: Sequence[Live]) -> Iterator[Answer]:
    """Backends that open the same mailboxes with different releases, or with files of different config versions."""
    told: dict[str, str] = {}
    for live in read:
        dovecot = _mapping(live.state.get("dovecot"))
        version = str(dovecot.get("version") or "")
        if live.kind == "backend" and version.startswith(KNOWN_SERIES):
            line = next((line for line in str(dovecot.get("conf") or "").split("\n") if CONFIG_VERSION in line), "")
            told[live.host] = line.rpartition(" = ")[2] or series_of(version)
    if len(told) > 1:
        same = len(set(told.values())) == 1
        differ = ", ".join(f"{host} {version}" for host, version in told.items())
        yield answer(
            "NFS320", "cluster", same, f"{next(iter(told.values()))} on {len(told)}" if same else differ, bad="warning"
        )


def _shared_files(read: Sequence[Live]) -> Iterator[Answer]:
    for path in sorted({path for live in read for path in live.plan.get("files") or ()}):
        sums = {
            live.host: str(_mapping(live.state.get("files")).get(path))
            for live in read
            if path in (live.plan.get("files") or ())
        }
        same = len(set(sums.values())) == 1 and "None" not in sums.values()
        differ = ", ".join(f"{host} {digest[:8]}" for host, digest in sums.items())
        yield answer("NFS318", "cluster", same, f"{path}: " + (f"same on {len(sums)}" if same else differ))


def _balancers_agree(read: Sequence[Live]) -> Iterator[Answer]:
    """The hash that places a client is of the servers' ids, weights and states, and of how HAProxy computes it."""
    told: dict[str, Any] = {}
    for live in read:
        haproxy = _mapping(live.state.get("haproxy"))
        servers = haproxy.get("servers")
        if live.kind == "balancer" and servers and isinstance(servers, (list, tuple)):
            rows = sorted(_placement(row) for row in map(_mapping, servers))
            # Measured: 2.2 and 2.6 place alike, 3.0 does not.
            told[live.host] = (version_key(str(haproxy.get("version"))[:20]) >= (3, 0), rows)
    if len(told) > 1:
        first = next(iter(told.values()))
        others = [host for host, what in told.items() if what != first]
        reason = "another way of hashing (3.0)" if {way for way, _rows in told.values()} == {True, False} else "servers"
        shown = f"{', '.join(others)} differ from {next(iter(told))}: {reason}" if others else f"same on {len(told)}"
        yield answer("NFS323", "cluster", not others, shown, bad="warning")


def _placement(row: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(str(row.get(name)) for name in ("section", "server", "id", "weight", "status"))


def _locks_reach(plan: Mapping[str, Any]) -> bool:
    """Whether kernel locks are meant to reach the other machines at all: without lockd they do not, and nothing relies on it."""
    return parse_profile(plan.get("profile") or {}).kernel_locks


def _lock(host: str, lock: Mapping[str, Any]) -> Iterator[Answer]:
    """What a backend was told while another held the lock (``tried``), and after it let go (``waited``)."""
    holder = lock.get("holder")
    tried, waited = _mapping(lock.get("tried")), _mapping(lock.get("waited"))
    refused = tried.get("granted") is False and tried.get("errno") in LOCK_REFUSALS
    told = "granted: two machines hold one lock" if tried.get("granted") else str(tried.get("errno") or "no answer")
    yield answer("NFS316", host, refused, f"{holder} holds it: {told}")
    seconds = waited.get("waited_s")
    granted = waited.get("granted") is True and isinstance(seconds, (int, float))
    shown = f"granted after {seconds:.1f} s" if granted else str(waited.get("errno") or "no answer")
    yield answer("NFS317", host, granted, f"{holder} let go: {shown}")


def findings(profile: Mapping[str, Any] | Profile, observed: Mapping[str, Any] | None = None) -> list[Finding]:
    """Rules that the plan breaks and, with ``observed``, that the live host breaks.

    ``observed``: what the ``host_state`` module returned as ``state``, or ``{host, plan, state}`` where more is known of the
    host; only what is in the state is judged.
    """
    found = plan_findings(profile)
    if observed is None:
        return found
    if not isinstance(observed, Mapping):
        raise NfsmailError(
            [
                Problem(
                    "observed",
                    observed,
                    "the state of a host, as host_state returns it",
                    "pass a mapping",
                    "docs: verify",
                )
            ]
        )
    known = observed if "state" in observed else {"state": observed}
    state = _mapping(known.get("state"))
    parsed = parse_profile(profile)
    stores = [mount.get("path") for mount in map(_mapping, state.get("mounts") or ()) if _is_nfs(mount)]
    plan = {
        "kind": "backend",
        "store": stores[0] if stores else "",
        "mount_options": mount_options(parsed),
        **_mapping(known.get("plan")),
        "profile": as_mapping(parsed),
    }
    host = str(known.get("host") or state.get("hostname") or "host")
    rows = host_answers(host, plan, state, lambda part: part in state)
    return found + [
        {"id": row.id, "level": row.level, "message": f"{row.what}: {row.detail}", "fix": row.fix, "source": row.source}
        for row in rows
        if row.level != "ok"
    ]


def as_report(answers: Sequence[Answer]) -> dict[str, Any]:
    """The answers as JSON: a verdict, counts by level, all rows."""
    levels = ("ok", "error", "warning", "info")
    counts = {level: sum(row.level == level for row in answers) for level in levels}
    return {"good": counts["error"] == 0, "counts": counts, "checks": [asdict(row) for row in answers]}


def as_table(answers: Sequence[Answer]) -> list[str]:
    """The answers as lines for people; what is wrong is followed by its fix."""
    rows = [("id", "machine", "check", "result", "found")]
    rows += [
        (row.id, row.host, row.what, row.level if row.level == "ok" else row.level.upper(), row.detail)
        for row in answers
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = []
    for row in rows:
        lines.append("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths)), row[4]]).rstrip())
    lines.insert(1, "  ".join("-" * width for width in [*widths, 40]))
    fixes = dict.fromkeys(f"{row.id} on {row.host}: {row.fix}" for row in answers if row.fix)
    return lines + ([""] + [f"fix {fix}" for fix in fixes] if fixes else [])


# -- one function a question ----------------------------------------------------------------------------------


def _mounted(host: str, plan: Mapping[str, Any], state: State) -> Iterator[Answer]:
    mount = _mount(plan, state)
    good = mount is not None and _is_nfs(mount)
    shown = (
        f"{mount['source']} as {mount['fstype']}" if mount else f"{plan['store'] or 'the mail store'} is not mounted"
    )
    yield answer("NFS303", host, good, shown)
    if mount:
        yield from _options(host, plan, mount)


def _options(host: str, plan: Mapping[str, Any], mount: Mapping[str, Any]) -> Iterator[Answer]:
    have = list(mount["options"])
    wrong = [
        f"{row['option']} is {row['found'] or 'not set'}, wanted {row['wanted']}"
        for row in differences(plan["mount_options"], have)
    ]
    yield answer("NFS304", host, not wrong, "; ".join(wrong) or _summary(have))


def _kernel(host: str, plan: Mapping[str, Any], state: State) -> Iterator[Answer]:
    found = _mapping(state["kernel_settings"])
    wanted = kernel_settings(plan["profile"])
    wrong = [
        f"{name} is {found.get(name) or 'unknown'}, wanted {value}"
        for name, value in wanted.items()
        if str(found.get(name)) != value
    ]
    shown = ", ".join(f"{name} {value}" for name, value in wanted.items())
    yield answer("NFS324", host, not wrong, "; ".join(wrong) or shown, bad="warning")


def _packet_filter(host: str, plan: Mapping[str, Any], state: State) -> Iterator[Answer]:
    wanted = _mapping(plan.get("firewall"))
    if not wanted:
        return
    found = _mapping(state.get("packet_filter"))
    if not found:
        yield answer("NFS325", host, False, "open to all")
        return
    wrong = [
        f"{name} {' '.join(map(str, found.get(name) or ())) or 'none'}, wanted {' '.join(map(str, wanted[name])) or 'none'}"
        for name in SHOWN
        if sorted(map(str, found.get(name) or ())) != sorted(map(str, wanted[name]))
    ]
    shown = f"{' '.join(map(str, wanted['ports']))} for {' '.join([*wanted['ipv4'], *wanted['ipv6']])}"
    yield answer("NFS325", host, not wrong, "; ".join(wrong) or shown)


def _guard(host: str, plan: Mapping[str, Any], state: State) -> Iterator[Answer]:
    guard = state.get("guard") or {}
    if "error" in guard or not guard:
        yield answer("NFS305", host, False, str(guard.get("error") or "unknown"), bad="warning")
        return
    writable = int(str(guard.get("mode") or "0777"), 8) & 0o222 or guard.get("uid") not in (0, "0")
    good = not writable and bool(guard.get("marker"))
    extra = f", other files there: {', '.join(guard['foreign_entries'])}" if guard.get("foreign_entries") else ""
    shown = f"mode {guard.get('mode')}, {'marked' if guard.get('marker') else 'not marked'}"
    immutable = ", immutable" if guard.get("immutable") else ""
    yield answer("NFS305", host, good, f"{shown}{immutable}{extra}")


def _clock(host: str, plan: Mapping[str, Any], state: State) -> Iterator[Answer]:
    clock = state["clock"]
    ntp, store, daemon = clock.get("ntp") or {}, clock.get("store") or {}, clock.get("daemon") or {}
    if plan.get("clock_server"):
        yield _offset("NFS306", host, ntp, ("offset", "offset"))
    if plan["kind"] == "backend":
        yield _offset("NFS307", host, store, ("offset_min", "offset_max"))
    running = bool(daemon.get("running"))
    # The server that all others follow has no source of its own in an isolated cluster.
    in_step = daemon.get("synchronised") is not False
    shown = f"{daemon.get('name')}, {'running' if running else 'stopped'}, {'in step' if in_step else 'not in step'}"
    yield answer("NFS308", host, running and in_step, shown)


def _offset(check: str, host: str, found: Mapping[str, Any], ends: tuple[str, str]) -> Answer:
    if "error" in found or ends[0] not in found:
        return answer(check, host, False, str(found.get("error") or "not measured"))
    low, high = sorted((float(found[ends[0]]), float(found[ends[1]])))
    margin = float(found.get("error_bound") or 0.0)
    worst = max(abs(low - margin), abs(high + margin))
    middle, spread = (low + high) / 2, (high - low) / 2 + margin
    return answer(check, host, worst < MAX_OFFSET, f"{middle:+.3f} s, known to {spread:.3f} s")


def _exclusive(host: str, plan: Mapping[str, Any], state: State) -> Iterator[Answer]:
    store = _mapping(state["clock"].get("store"))
    if "exclusive" in store:
        broken = [word for word, key in (("O_EXCL", "exclusive"), ("link()", "links")) if not store.get(key)]
        yield answer(
            "NFS329", host, not broken, f"{' and '.join(broken) or 'O_EXCL and link()'}{' fail' if broken else ''}"
        )


def _log(host: str, plan: Mapping[str, Any], state: State) -> Iterator[Answer]:
    found = state.get("log")
    if found is None:
        return
    if "error" in found:
        yield answer("NFS328", host, False, str(found["error"]), bad="warning")
        return
    rows = [(sign, _mapping(found[sign.name])) for sign in SIGNS if sign.name in found]
    if not rows:
        yield answer("NFS328", host, True, "none in 24 hours")
    for sign, seen in rows:
        text = f"{sign.what}: {seen.get('count')} lines, the last: {seen.get('last')}"
        yield Answer("NFS328", host, sign.level, CHECKS["NFS328"].what, text, sign.fix, sign.source)


def _moving(host: str, plan: Mapping[str, Any], state: State) -> Iterator[Answer]:
    moving = str(plan.get("moving") or "")
    if moving:
        digest = _mapping(state.get("files")).get(moving)
        nobody = digest == hashlib.sha256(NOBODY_MOVES.encode()).hexdigest()
        yield answer("NFS326", host, nobody, "nobody" if nobody else f"{moving} is not empty", bad="warning")


def _addresses(read: Sequence[Live]) -> Iterator[Answer]:
    """On none its users cannot log in, on two they are opened twice."""
    backends = [live for live in read if live.kind == "backend"]
    owners = {live.host: str(live.plan.get("service_address") or "") for live in backends}
    for owner, address in owners.items():
        if address:
            there = [live.host for live in backends if address in (live.state.get("addresses") or ())]
            shown = f"{owner}'s {address} on {' and '.join(there) or 'none'}"
            yield answer("NFS331", owner, there == [owner], shown, bad="warning" if len(there) == 1 else "error")


def _two_places(read: Sequence[Live]) -> Iterator[Answer]:
    """Each backend was asked at about the same time; a user who moved meanwhile is gone at the next look."""
    where: dict[str, list[str]] = {}
    backends = [live for live in read if live.kind == "backend"]
    for live in backends:
        for user in _mapping(_mapping(live.state.get("dovecot")).get("sessions")):
            where.setdefault(str(user).lower(), []).append(live.host)
    if len(backends) > 1 and all(
        parse_profile(live.plan.get("profile") or {}).topology == "per_user" for live in backends
    ):
        twice = [f"{user} on {' and '.join(hosts)}" for user, hosts in sorted(where.items()) if len(hosts) > 1]
        more = f" and {len(twice) - 5} more" if len(twice) > 5 else ""
        shown = ", ".join(twice[:5]) + more if twice else f"{len(where)} users on {len(backends)} backends"
        yield answer("NFS327", "cluster", not twice, shown)


def _lock_services(host: str, plan: Mapping[str, Any], state: State) -> Iterator[Answer]:
    profile = parse_profile(plan["profile"])
    if not profile.needs_lockd or not profile.lockd:
        return
    yield _registered("NFS309", host, state.get("rpc"))
    if plan["kind"] == "backend":
        yield _registered("NFS310", host, state.get("rpc_server"))


def _registered(check: str, host: str, rpc: Any) -> Answer:
    if not isinstance(rpc, (list, tuple)):
        return answer(check, host, False, str((rpc or {}).get("error") or "rpcbind did not answer"))
    ports = {
        name: sorted({int(row["port"]) for row in rpc if int(row["program"]) == number})
        for name, number in (("lockd", NLOCKMGR), ("statd", STATUS))
    }
    missing = [name for name, found in ports.items() if not found]
    shown = f"missing: {', '.join(missing)}" if missing else ""
    return answer(check, host, not missing, shown or ", ".join(f"{name} {_joined(p)}" for name, p in ports.items()))


def _dovecot(host: str, plan: Mapping[str, Any], state: State) -> Iterator[Answer]:
    dovecot = state.get("dovecot") or {}
    running = ((state.get("units") or {}).get("dovecot.service") or {}).get("ActiveState") == "active"
    shown = f"{dovecot.get('version')}, {'running' if running else 'not running'}"
    # Saved settings do not tell whether it runs.
    if "units" in state or not dovecot:
        yield answer("NFS312", host, running, shown if dovecot else "not installed")
    if not dovecot:
        return
    if dovecot.get("error") and not dovecot.get("conf"):
        yield answer("NFS311", host, False, str(dovecot["error"]).splitlines()[0])
        return
    try:
        conf = from_doveconf(str(dovecot.get("conf") or ""))
    except NfsmailError as error:
        yield answer("NFS311", host, False, error.problems[0].rule)
        return
    yield from _settings(host, plan, str(dovecot["version"]), conf)
    if conf.get("director_servers"):
        yield _ring(host, conf, dovecot)


def _ring(host: str, conf: Mapping[str, Any], dovecot: Mapping[str, Any]) -> Answer:
    listed, ring, used = str(conf["director_servers"]).split(), dovecot.get("ring"), dovecot.get("ring_backends")
    if not isinstance(ring, (list, tuple)):
        return answer("NFS330", host, False, str(_mapping(ring).get("error") or "doveadm did not answer"))
    # Of a ring of two the other is listed twice, as the left and the right neighbour.
    seen: dict[str, list[str]] = {}
    for row in map(_mapping, ring):
        seen.setdefault(str(row["director ip"]), []).append(str(row["status"]))
    wrong = [
        f"{address} is {', '.join(seen.get(address, ['not in the ring']))}"
        for address in listed
        if not all("synced" in status for status in seen.get(address, [""]))
    ]
    backends = str(conf.get("director_mail_servers") or "").split()
    # An address or more in one word is how others write it; we list one by one.
    if isinstance(used, (list, tuple)) and not any("-" in word or "@" in word for word in backends):
        up = {str(row.get("mail server ip")): str(row.get("state")) == "up" for row in map(_mapping, used)}
        wrong += [f"{address} is not used" for address in backends if not up.get(address)]
        wrong += [f"{address} is used" for address, is_up in up.items() if is_up and address not in backends]
    return answer("NFS330", host, not wrong, ", ".join(wrong) or f"{len(listed)} directors, {len(backends)} backends")


def _settings(host: str, plan: Mapping[str, Any], version: str, conf: Mapping[str, Any]) -> Iterator[Answer]:
    profile = parse_profile({**(plan.get("profile") or {}), "dovecot_version": version})
    kind = str(plan["kind"])
    if kind == "backend":
        have, wanted = in_effect(conf, profile.series), settings(profile)
        wrong = [f"{name} is {have[name]}, wanted {value}" for name, value in wanted.items() if have[name] != value]
        yield answer("NFS311", host, not wrong, "; ".join(wrong) or f"{len(wanted)} settings")
    for row in written_findings(conf, profile, kind, str(plan.get("store") or "")):
        yield Answer(row["id"], host, row["level"], "settings in effect", row["message"], row["fix"], row["source"])


def _ordering(host: str, plan: Mapping[str, Any], state: State) -> Iterator[Answer]:
    unit = (state.get("units") or {}).get("dovecot.service") or {}
    store = str(plan["store"])
    if not store:
        return
    missing = [
        f"{key} lacks {value}"
        for key, value in (("RequiresMountsFor", store), ("After", "time-sync.target"))
        if value not in str(unit.get(key) or "").split()
    ]
    if store not in str(unit.get("Asserts") or ""):
        missing.append(f"no AssertPathIsMountPoint={store}")
    yield answer("NFS313", host, not missing, "; ".join(missing) or f"{store} and time-sync.target")


def _exports(host: str, plan: Mapping[str, Any], state: State) -> Iterator[Answer]:
    live = state.get("exports")
    if not isinstance(live, (list, tuple)):
        yield answer("NFS314", host, False, str((live or {}).get("error") or "exportfs did not answer"))
        return
    wrong = [describe(mismatch) for mismatch in judge_exports(plan["exports"], live)]
    yield answer("NFS314", host, not wrong, "; ".join(wrong) or f"{len(plan['exports'])} clients")


def _periods(host: str, plan: Mapping[str, Any], state: State) -> Iterator[Answer]:
    nfsd, wanted = _mapping(state.get("nfsd")), _mapping(plan.get("nfsd"))
    if nfsd and wanted and "error" not in nfsd:
        names = {"grace-time": "grace", "lease-time": "lease"}
        wrong = [
            f"{short} {nfsd.get(short)} s, wanted {wanted[name]} s"
            for name, short in names.items()
            if name in wanted and str(nfsd.get(short)) != str(wanted[name])
        ]
        shown = f"grace {nfsd.get('grace')} s, lease {nfsd.get('lease')} s"
        yield answer("NFS332", host, not wrong, "; ".join(wrong) or shown, bad="warning")


def _nfsd(host: str, plan: Mapping[str, Any], state: State) -> Iterator[Answer]:
    nfsd = state.get("nfsd") or {}
    wanted = parse_profile(plan["profile"]).nfs_version
    versions = [str(version) for version in nfsd.get("versions") or ()]
    shown = f"{' '.join(versions) or 'none'}, {nfsd.get('threads', 0)} threads"
    yield answer("NFS315", host, wanted in versions and int(nfsd.get("threads") or 0) > 0, shown)


def _keeps_locks(host: str, plan: Mapping[str, Any], state: State) -> Iterator[Answer]:
    if parse_profile(plan["profile"]).nfs_version != "3":
        return
    unit = (state.get("units") or {}).get("nfs-server.service") or {}
    good = "nfsmail" in str(unit.get("DropInPaths") or "")
    shown = "the list of lock holders outlives a restart" if good else "a restart or reboot drops all locks silently"
    yield answer("NFS319", host, good, shown)


def _haproxy_runs(host: str, plan: Mapping[str, Any], state: State) -> Iterator[Answer]:
    running = ((state.get("units") or {}).get("haproxy.service") or {}).get("ActiveState") == "active"
    yield answer("NFS321", host, running, "running" if running else "not running")


def _servers(host: str, plan: Mapping[str, Any], state: State) -> Iterator[Answer]:
    haproxy = state.get("haproxy") or {}
    if not haproxy.get("servers"):
        yield answer("NFS322", host, False, str(haproxy.get("error") or "HAProxy names no server"))
        return
    wanted = {server.name: _wanted_status(server) for server in parse_backends(plan["servers"])}
    wrong = []
    for section in dict.fromkeys(row["section"] for row in haproxy["servers"]):
        rows = {row["server"]: row for row in haproxy["servers"] if row["section"] == section}
        wrong += [
            f"{section}/{name} is {rows[name]['status']} ({rows[name]['check']}), wanted {status}"
            if name in rows
            else f"{section}/{name} is missing"
            for name, status in wanted.items()
            if name not in rows or rows[name]["status"] != status
        ]
        wrong += [f"{section}/{name} is not in the inventory" for name in rows if name not in wanted]
    shown = ", ".join(f"{name} {status}" for name, status in wanted.items())
    yield answer("NFS322", host, not wrong, "; ".join(wrong) or shown)


def _wanted_status(server: Backend) -> str:
    return {"down": "MAINT", "drained": "DRAIN"}.get(server.state, "UP" if server.weight > 0 else "DRAIN")


# The part of the state that a check needs, and the check.
_BY_KIND: Mapping[str, tuple[tuple[str, Callable[[str, Mapping[str, Any], State], Iterable[Answer]]], ...]] = {
    "nfs_server": (
        ("exports", _exports),
        ("nfsd", _nfsd),
        ("nfsd", _periods),
        ("rpc", _lock_services),
        ("units", _keeps_locks),
        ("clock", _clock),
    ),
    "backend": (
        ("mounts", _mounted),
        ("kernel_settings", _kernel),
        ("packet_filter", _packet_filter),
        ("guard", _guard),
        ("clock", _clock),
        ("clock", _exclusive),
        ("rpc", _lock_services),
        ("dovecot", _dovecot),
        ("log", _log),
        ("units", _ordering),
    ),
    "proxy": (("clock", _clock), ("dovecot", _dovecot), ("files", _moving), ("log", _log)),
    "balancer": (("clock", _clock), ("units", _haproxy_runs), ("haproxy", _servers)),
}


def _is_nfs(mount: Mapping[str, Any]) -> bool:
    return str(mount.get("fstype")).startswith("nfs")


def _mount(plan: Mapping[str, Any], state: State) -> Mapping[str, Any] | None:
    at_store = [mount for mount in state.get("mounts") or () if mount["path"] == plan["store"]]
    return at_store[-1] if at_store else None


def _summary(have: Sequence[str]) -> str:
    wanted = ("vers=", "acregmax=", "acdirmin=", "lookupcache=", "local_lock=")
    return " ".join(option for option in have if option.startswith(wanted) or option in ("hard", "soft", "nordirplus"))


def _joined(ports: Iterable[int]) -> str:
    return "/".join(str(port) for port in ports)
