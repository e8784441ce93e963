# Copyright: (c) 2026, the nfsmail.cluster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Judging live machines: what the ``host_state`` module read, against what the plan wants."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..module_utils._exports import describe
from ..module_utils._exports import judge as judge_exports
from ..module_utils._mounts import differences
from .dialect import flat, from_doveconf
from .errors import NfsmailError
from .inventory import hostname_problems
from .matrix import plan_findings, settings
from .profile import Profile, as_mapping, parse_profile
from .rules import DEFAULTS

MAX_OFFSET = 1.0  # seconds; the seed's "more than one second apart"
NLOCKMGR, STATUS = 100021, 100024
LOCK_REFUSALS = ("EAGAIN", "EACCES")
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
    )
}


def answer(check: str, host: str, good: bool, detail: str, bad: str = "error") -> Answer:
    """The answer to a check; a good one needs no fix."""
    asked = CHECKS[check]
    level = "ok" if good else bad
    return Answer(check, host, level, asked.what, detail, "" if good else asked.fix, asked.source)


def host_answers(host: str, plan: Mapping[str, Any], state: State | None) -> list[Answer]:
    """All checks of one machine.

    ``plan``: ``kind`` (nfs_server, backend, proxy), ``profile``, ``store``, ``mount_options``, ``exports``,
    ``files``, ``clock_server``. ``state``: what ``host_state`` returned, or none.
    """
    if not state:
        return [answer("NFS301", host, False, "no answer")]
    found: list[Answer] = []
    for check in _BY_KIND[str(plan["kind"])]:
        try:
            found += check(host, plan, state)
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            found.append(answer("NFS301", host, False, f"{check.__name__.strip('_')}: unreadable answer ({error!r})"))
    return found


def all_answers(read: Sequence[Live]) -> list[Answer]:
    """Every machine's answers, then those that compare machines with each other."""
    found = [row for live in read for row in host_answers(live.host, {**live.plan, "kind": live.kind}, live.state)]
    found += _names(read)
    found += _shared_files(read)
    return found + [row for live in read if live.lock for row in _lock(live.host, live.lock)]


def _names(read: Sequence[Live]) -> Iterator[Answer]:
    names = {live.host: str(live.state.get("hostname") or live.host) for live in read}
    doubles = hostname_problems(names)
    shown = "; ".join(f"{problem.value}: {problem.variable}" for problem in doubles) or f"{len(names)} machines"
    yield answer("NFS302", "cluster", not doubles, shown)


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


def findings(profile: Mapping[str, Any] | Profile, observed: Mapping[str, Any] | None = None) -> list[dict[str, str]]:
    """Rules that the plan breaks and, with ``observed`` (``{host, plan, state}``), that the live host breaks."""
    found = plan_findings(profile)
    if observed:
        host = str(observed.get("host") or "host")
        plan = {"kind": "backend", **(observed.get("plan") or {}), "profile": as_mapping(parse_profile(profile))}
        found += [
            {
                "id": row.id,
                "level": row.level,
                "message": f"{row.what}: {row.detail}",
                "fix": row.fix,
                "source": row.source,
            }
            for row in host_answers(host, plan, observed.get("state"))
            if row.level != "ok"
        ]
    return found


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
    good = bool(mount) and str(mount["fstype"]).startswith("nfs") if mount else False
    shown = f"{mount['source']} as {mount['fstype']}" if mount else f"{plan['store']} is not mounted"
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
    yield answer("NFS312", host, running, shown if dovecot else "not installed")
    if plan["kind"] != "backend" or not dovecot:
        return
    if dovecot.get("error") and not dovecot.get("conf"):
        yield answer("NFS311", host, False, str(dovecot["error"]).splitlines()[0])
        return
    try:
        live = flat(from_doveconf(str(dovecot.get("conf") or "")))
    except NfsmailError as error:
        yield answer("NFS311", host, False, error.problems[0].rule)
        return
    wanted = settings({**plan["profile"], "dovecot_version": str(dovecot["version"])})
    wrong = [
        f"{name} is {live.get(name, DEFAULTS.get(name))}, wanted {value}"
        for name, value in wanted.items()
        if live.get(name, DEFAULTS.get(name)) != value
    ]
    yield answer("NFS311", host, not wrong, "; ".join(wrong) or f"{len(wanted)} settings")


def _ordering(host: str, plan: Mapping[str, Any], state: State) -> Iterator[Answer]:
    unit = (state.get("units") or {}).get("dovecot.service") or {}
    store = str(plan["store"])
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


_BY_KIND: Mapping[str, tuple[Callable[[str, Mapping[str, Any], State], Iterable[Answer]], ...]] = {
    "nfs_server": (_exports, _nfsd, _lock_services, _keeps_locks, _clock),
    "backend": (_mounted, _guard, _clock, _lock_services, _dovecot, _ordering),
    "proxy": (_clock, _dovecot),
}


def _mount(plan: Mapping[str, Any], state: State) -> Mapping[str, Any] | None:
    at_store = [mount for mount in state.get("mounts") or () if mount["path"] == plan["store"]]
    return at_store[-1] if at_store else None


def _summary(have: Sequence[str]) -> str:
    wanted = ("vers=", "acregmax=", "acdirmin=", "lookupcache=", "local_lock=")
    return " ".join(option for option in have if option.startswith(wanted) or option in ("hard", "soft", "nordirplus"))


def _joined(ports: Iterable[int]) -> str:
    return "/".join(str(port) for port in ports)
