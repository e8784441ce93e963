# Copyright: (c) 2026, the nfsmail.cluster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Machines that nobody described, judged by the same judge as those that this collection configured."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from ..module_utils._exports import client_key
from ..module_utils._mounts import differences, keys_of
from . import exports as exports_
from .audit_files import FILES
from .audit_files import SOURCE as PAGE
from .estate import (
    Cluster,
    Inference,
    Machine,
    State,
    clusters_in,
    first_line,
    format_of,
    index_of,
    listed,
    machines_in,
    mail_path_of,
    mapping_in,
    nfs_version_of,
    rows_in,
    series_of_release,
    source_of,
)
from .judge import CHECKS, Answer, Check, Live, all_answers, as_report, as_table
from .matrix import LEVELS, matching, mount_options, plan_findings
from .profile import Profile, as_mapping, in_words, parse_profile
from .rules import RULES
from .written import in_effect

# The parts of a state that an audit has judged: the rest needs a plan.
JUDGED = ("mounts", "kernel_settings", "guard", "clock", "rpc", "dovecot", "units", "nfsd")

AUDIT_CHECKS: Mapping[str, Check] = {
    check.id: check
    for check in (
        Check("NFS340", "everything was seen", "give the audit what is missing", PAGE),
        Check(
            "NFS341",
            "kind of machine is recognised",
            "leave the machine out, or save more of it: doveconf -n, /proc/mounts, exportfs -s, haproxy.cfg",
            PAGE,
        ),
        Check(
            "NFS342",
            "release of Dovecot is known",
            "upgrade to Dovecot 2.3 or 2.4, then audit again",
            "Dovecot documentation, upgrading",
        ),
        Check(
            "NFS343",
            "backends of one mail store agree",
            "set the same on all backends that share the store: each opens the same mailboxes",
            "Dovecot documentation, NFS page",
        ),
        Check(
            "NFS344",
            "what was taken for granted",
            "show the audit the machines that are missing, or say what you know: nfsmail_audit_profile",
            PAGE,
        ),
        Check(
            "NFS345",
            "HAProxy's servers are up",
            "look at the reason behind the state, and at that machine",
            "HAProxy documentation, management guide",
        ),
    )
}
# The way out where no inventory describes the machine, so that site.yml cannot put it right.
BY_HAND: Mapping[str, str] = {
    "NFS221": "run doveadm purge regularly, on each user's own backend (in topology per_user by way of a proxy)",
    "NFS301": "look at the machine itself; run the playbook again with -vvv, and with -b if it lacks rights",
    "NFS303": "mount the store before Dovecot starts; look at: findmnt -t nfs,nfs4; journalctl -b -u '*.mount'",
    "NFS304": "correct the options in /etc/fstab; stop Dovecot, unmount and mount: a remount does not change NFS options",
    "NFS305": "below the mount: chown root:root and chmod 0555 the directory, so that nothing is delivered there",
    "NFS308": "run one time daemon, such as chrony, on all machines, with the same servers; look at: chronyc -n sources",
    "NFS311": "correct the settings, then: doveadm reload; look at: doveconf -n",
    "NFS313": "systemctl edit dovecot: RequiresMountsFor= and AssertPathIsMountPoint= with the store, After=time-sync.target",
    "NFS314": "correct the line in /etc/exports, then: exportfs -ra; look at: exportfs -s",
    "NFS319": "have nfs-server keep its list of lock holders over a restart; stop Dovecot on all backends before you restart it",
    "NFS323": "give the servers the same ids, weights and states on all balancers, and one release of HAProxy",
    "NFS324": "sysctl -w the value, and an options line for the module in /etc/modprobe.d; then unmount and mount",
}
# What is asked of machines that have no plan.
ASKED: Mapping[str, str] = {"NFS311": "settings in effect", "NFS314": "options of exports"}
# How bad it is that a machine which nobody planned to be so is not so: what costs speed or a line of defence is no error.
MILDER: Mapping[str, str] = {
    **dict.fromkeys(("NFS003", "NFS005", "NFS008", "NFS012"), "warning"),
    **dict.fromkeys(("NFS108", "NFS109", "NFS110", "NFS115"), "warning"),
    **dict.fromkeys(("NFS111", "NFS112", "NFS113"), "info"),
    **dict.fromkeys(("NFS305", "NFS313", "NFS319", "NFS324"), "warning"),
    # Whether anybody's script asks for it is not known there.
    "NFS421": "warning",
}
# Options that nobody asked for, and that can only cost speed.
CAREFUL = ("lookupcache", "sync", "noac")
# What conditions of rules name, by the keys of the profile that it follows from.
FOLLOWS: Mapping[str, tuple[str, ...]] = {
    "kernel_locks": ("nfs_version", "lockd"),
    "flush": ("topology", "cache_flush"),
}
MISSING: Mapping[str, tuple[tuple[str, str, str], ...]] = {
    "backend": (
        ("dovecot", "doveconf.txt", "settings"),
        ("mounts", "mounts.txt", "mount options"),
    ),
    "proxy": (("dovecot", "doveconf.txt", "settings"),),
    "director": (("dovecot", "doveconf.txt", "settings"),),
    "nfs_server": (("exports", "exports.txt", "options of exports"),),
    "balancer": (("haproxy", "haproxy.txt", "servers"),),
}
NOT_IN_FILES = "clocks, lock services and running services are judged on live machines only"


def audit(states: Mapping[str, Any], told: Mapping[str, Any] | None = None, live: bool = True) -> dict[str, Any]:
    """The judgement of machines: ``good``, ``counts``, ``checks``, ``machines``, ``clusters``, ``notes``,
    ``summary`` and ``table``.

    Each check has a ``line`` beside what verify's have: where in ``doveconf -n`` the setting stands that it is about, or 0.

    ``states``: machine to what ``host_state`` returned, or to what saved files told; ``{"error": TEXT}`` where it did not
    answer.
    ``told``: keys of the profile that somebody knows better. ``live``: the states are of live machines, not of files.
    """
    known = parse_profile(told or {})
    given = {key: value for key, value in as_mapping(known).items() if (told or {}).get(key) is not None}
    machines = machines_in(states)
    answered = {machine.host for machine in machines}
    silent = {str(host): mapping_in(state).get("error") for host, state in states.items() if str(host) not in answered}
    clusters = clusters_in(machines, given)
    answers = [_answer("NFS301", host, "error", first_line(error) or "no answer") for host, error in silent.items()]
    for machine in machines:
        answers += _seen(machine, live)
    answers += _judged(machines, clusters, given)
    answers = sorted(dict.fromkeys(answers), key=lambda row: ((*LEVELS, "ok").index(row.level), row.id, row.host))
    report = as_report(answers)
    texts = {machine.host: str(mapping_in(machine.state.get("dovecot")).get("conf") or "") for machine in machines}
    for row in report["checks"]:
        row["line"] = _line_of(row, texts.get(row["host"], ""))
    notes = [] if live else [f"Read from saved files: {NOT_IN_FILES}."]
    report.update(machines=_shown(machines, silent), clusters=[_cluster_shown(one) for one in clusters], notes=notes)
    report["summary"] = _summary(report)
    return {**report, "table": [*_head(report), *as_table(_together(answers))]}


def _summary(report: Mapping[str, Any]) -> str:
    """The verdict as one sentence."""
    counts = report["counts"]
    machines = len(report["machines"])
    on = f"{machines} machine{'s' if machines != 1 else ''}"
    if counts["error"]:
        return f"Not in order: {_many(counts['error'], 'error')} and {_many(counts['warning'], 'warning')} on {on}."
    if counts["warning"]:
        return f"No error, but {_many(counts['warning'], 'warning')} on {on}."
    return f"Nothing wrong was found on {on}."


def _many(count: int, word: str) -> str:
    return f"{count} {word}{'s' if count != 1 else ''}"


def _together(answers: Iterable[Answer]) -> list[Answer]:
    """What several machines have in common as one answer of all of them."""
    hosts: dict[Answer, list[str]] = {}
    for row in answers:
        hosts.setdefault(replace(row, host=""), []).append(row.host)
    return [replace(row, host=listed(", ".join(on).split(", "))) for row, on in hosts.items()]


def _line_of(row: Mapping[str, Any], text: str) -> int:
    match = re.match(r"([^=,:]*?)(?: is |=)", row["detail"]) if re.match("NFS[04]", row["id"]) else None
    name = re.escape(match[1].rpartition("/")[2]) if match else ""
    # 2.3 has all parts of a location in one setting.
    for pattern in (name, "mail_location") if name else ():
        found = re.search(rf"^\s*{pattern}\s*[={{]", text, re.MULTILINE)
        if found:
            return text.count("\n", 0, found.end()) + 1
    return 0


# -- judging --------------------------------------------------------------------------------------------------


def _answer(check: str, host: str, level: str, detail: str, fix: str = "") -> Answer:
    asked = AUDIT_CHECKS.get(check) or CHECKS[check]
    way_out = "" if level == "ok" else fix or BY_HAND.get(check) or asked.fix
    return Answer(check, host, level, ASKED.get(check, asked.what), detail, way_out, asked.source)


def _told(state: State, part: str) -> bool:
    return bool(state.get(part)) and not mapping_in(state[part]).get("error")


def _seen(machine: Machine, live: bool) -> Iterator[Answer]:
    """What could not be looked at on a machine, so that nobody takes silence for praise."""
    if not machine.kinds:
        have = ", ".join(name for name in ("dovecot", "mounts", "exports", "haproxy") if _told(machine.state, name))
        yield _answer(
            "NFS341", machine.host, "warning", f"nothing of a mail cluster in it ({have or 'nothing was found'})"
        )
    if machine.release and not series_of_release(machine.release):
        yield _answer("NFS342", machine.host, "error", f"{machine.release.evidence}; only 2.3 and 2.4 are known")
    if live and machine.kinds and (why := first_line(mapping_in(machine.state.get("units")).get("error"))):
        yield _answer(
            "NFS340", machine.host, "info", f"running services were not judged: {why}", "look at them by hand"
        )
    for part, file, what in dict.fromkeys(row for kind in machine.kinds for row in MISSING[kind.key]):
        value = machine.state.get(part)
        if not live and part not in machine.state:
            shown = f"{file} is not there: {what} were not judged"
            yield _answer("NFS340", machine.host, "info", shown, f"save {FILES[file]} as {machine.host}/{file}")
        elif isinstance(value, Mapping) and value.get("error") and not value.get("conf"):
            shown = f"{what} were not judged: {first_line(value['error'])}"
            yield _answer("NFS340", machine.host, "warning", shown, "run the playbook again as root (-b)")


def _judged(machines: Sequence[Machine], clusters: Sequence[Cluster], told: Mapping[str, Any]) -> Iterator[Answer]:
    # Machines that belong to no store of their own are judged with the largest cluster.
    main = max(clusters, key=lambda one: len(one.backends)).profile if clusters else None
    front = any(machine.sure_of("proxy", "director") for machine in machines)
    default = main or parse_profile({**({"topology": "per_user"} if front else {}), **told})
    home = {machine.host: cluster for cluster in clusters for machine in cluster.backends}
    read: list[Live] = []
    by_machine: dict[tuple[str, str], tuple[Machine, Profile]] = {}
    for machine in machines:
        for kind in dict.fromkeys(_KIND[one.key] for one in machine.kinds):
            profile = home[machine.host].profile if kind == "backend" else default
            by_machine[machine.host, kind] = (machine, profile)
            read.append(Live(machine.host, kind, {"plan": _plan(machine, profile), "state": _state(machine)}))

    def wanted(kind: str, state: State, part: str) -> bool:
        # Which version a server must speak is known from its clients only.
        return _can_be_judged(state, part) and (
            kind != "nfs_server" or part not in ("nfsd", "units") or main is not None
        )

    for row in all_answers(read, wanted) if read else []:
        yield from _as_audit(row, by_machine)
    for cluster in clusters:
        yield from _of_cluster(cluster)
    for machine in machines:
        yield from _of_exports(machine, clusters)
        yield from _of_balancer(machine)


_KIND = {
    "nfs_server": "nfs_server",
    "backend": "backend",
    "proxy": "proxy",
    "director": "proxy",
    "balancer": "balancer",
}


def _state(machine: Machine) -> State:
    """The state, with the release that was inferred where Dovecot did not say its own."""
    state = dict(machine.state)
    if "error" in mapping_in(state.get("units")):
        del state["units"]  # then nothing says that a service does not run
    dovecot = mapping_in(state.get("dovecot"))
    if dovecot and machine.release:
        state["dovecot"] = {**dovecot, "version": str(machine.release.value)}
    return state


def _plan(machine: Machine, profile: Profile) -> dict[str, Any]:
    asked = mapping_in(mapping_in(machine.state.get("clock")).get("ntp"))
    return {
        "profile": as_mapping(profile),
        "store": str((machine.store or {}).get("path") or ""),
        "mount_options": mount_options(profile),
        "clock_server": str(asked.get("server") or ""),
        "exports": [],
    }


def _can_be_judged(state: State, part: str) -> bool:
    """A part that was read; what Dovecot of a release that is not known says is not judged."""
    if part not in JUDGED or state.get(part) is None:
        return False
    if part == "dovecot":
        version = str(mapping_in(state[part]).get("version") or "")
        return bool(series_of_release(Inference("", version, "", "")))
    return True


def _as_audit(row: Answer, machines: Mapping[tuple[str, str], tuple[Machine, Profile]]) -> Iterator[Answer]:
    """An answer of verify's judge as an audit gives it: rule by rule, with a way out that needs no inventory."""
    machine, profile = machines.get((row.host, "backend"), (None, None))
    dovecots = [
        mapping_in(one.state.get("dovecot")) for (host, _kind), (one, _p) in machines.items() if host == row.host
    ]
    if row.id == "NFS330" and not any("ring" in dovecot for dovecot in dovecots):
        return  # saved settings do not tell of the ring
    if row.id in ("NFS311", "NFS324") and machine and machine.off_nfs and machine.conf:
        return
    if row.id == "NFS307" or (
        row.id == "NFS302" and not all(one.state.get("hostname") for one, _p in machines.values())
    ):
        return  # an audit makes no file on the store; a folder's name is no host name
    if machine and profile and row.level != "ok" and row.id in ("NFS303", "NFS304", "NFS311"):
        found = list(_PIECES[row.id](row, machine, profile))
        if found:
            yield from found
            return
    level = row.level if row.level in ("ok", "info") else MILDER.get(row.id, row.level)
    if level == "error" and machine is None and row.host != "cluster":
        machine = next((one for (host, _kind), (one, _p) in machines.items() if host == row.host), None)
    if level == "error" and machine and _unmeasured(row.id, machine.state):
        level = "warning"
    if level != "ok" and row.id == "NFS305" and machine and _roots_alone(machine.state):
        level = "info"
    fix = "" if level == "ok" else BY_HAND.get(row.id, row.fix)
    yield replace(row, level=level, what=ASKED.get(row.id, row.what), fix=fix)


def _unmeasured(check: str, state: State) -> bool:
    clock = mapping_in(state.get("clock"))
    return (
        (check == "NFS306" and "offset" not in mapping_in(clock.get("ntp")))
        or (check == "NFS308" and not mapping_in(clock.get("daemon")).get("running"))
        or (check == "NFS309" and not isinstance(state.get("rpc"), (list, tuple)))
        or (check == "NFS310" and not isinstance(state.get("rpc_server"), (list, tuple)))
    )


def _roots_alone(state: State) -> bool:
    """Below the mount only root could write: nobody delivers there as root, and Dovecot's documentation asks for no more."""
    guard = mapping_in(state.get("guard"))
    mode = str(guard.get("mode"))
    return guard.get("uid") == 0 and bool(re.fullmatch("0?[0-7]{3}", mode)) and not int(mode, 8) & 0o022


def _settings_pieces(row: Answer, machine: Machine, profile: Profile) -> Iterator[Answer]:
    series = series_of_release(machine.release)
    if not series or not machine.conf:
        return
    own = parse_profile({**as_mapping(profile), "dovecot_version": machine.release.value if machine.release else None})
    have = in_effect(machine.conf, series)
    for rule in matching(own, "set"):
        value = have.get(rule.target, "")
        if value != rule.value:
            shown = f"{rule.target} is {value or 'not set'}, wanted {rule.value}: {rule.text}"
            fix = f"set {rule.target} = {rule.value}"
            yield Answer(
                rule.id, row.host, MILDER.get(rule.id, "error"), ASKED.get(row.id, row.what), shown, fix, rule.source
            )


def _options_pieces(row: Answer, machine: Machine, profile: Profile) -> Iterator[Answer]:
    have = list((machine.store or {}).get("options") or ())
    rules = list(matching(profile, "mount"))
    owners = {key: rule for rule in rules for key in keys_of(rule.value)}
    found: dict[str, list[str]] = {}
    for gap in differences(mount_options(profile), have):
        shown = f"{gap['option']} is {gap['found'] or 'not set'}, wanted {gap['wanted']}"
        owner = owners[gap["option"]].id if gap["option"] in owners else ""
        found.setdefault(owner or ("info" if gap["option"] in CAREFUL else "warning"), []).append(shown)
    for rule in rules:
        if rule.id in found:
            shown = f"{'; '.join(found.pop(rule.id))}: {rule.text}"
            fix = f"mount with {rule.value}: {BY_HAND['NFS304']}"
            yield Answer(
                rule.id, row.host, MILDER.get(rule.id, "error"), ASKED.get(row.id, row.what), shown, fix, rule.source
            )
    for level, shown_ in found.items():
        yield replace(row, level=level, detail="; ".join(shown_), fix=BY_HAND["NFS304"])


def _store_pieces(row: Answer, machine: Machine, profile: Profile) -> Iterator[Answer]:
    if machine.store is None:
        path = mail_path_of(machine.parts) or "the mail"
        shown = (
            f"{path} is on no NFS mount: it lies on this machine's own disk, or the store is not mounted; what NFS asks of "
            "settings was not judged"
        )
        yield replace(row, level="warning", detail=shown, fix=BY_HAND[row.id])


_PIECES: Mapping[str, Callable[[Answer, Machine, Profile], Iterator[Answer]]] = {
    "NFS303": _store_pieces,
    "NFS304": _options_pieces,
    "NFS311": _settings_pieces,
}


def _of_cluster(cluster: Cluster) -> Iterator[Answer]:
    """The plan that was inferred, judged as a plan; then what the backends do not agree on."""
    if all(machine.off_nfs for machine in cluster.backends):
        return
    guessed = {one.key: one for one in cluster.inferred if one.sure == "guess"}
    releases = [str(one.release.value) for one in cluster.backends if one.release and series_of_release(one.release)]
    host = ", ".join(machine.host for machine in cluster.backends)
    conditions = {rule.id: rule.when for rule in RULES}
    seen: set[str] = set()
    for release in dict.fromkeys(releases or [cluster.profile.dovecot_version]):
        for row in plan_findings({**as_mapping(cluster.profile), "dovecot_version": release}):
            if row["id"] not in seen:
                seen.add(row["id"])
                keys = {part for key in conditions[row["id"]] for part in FOLLOWS.get(key, (key,))}
                basis = ", ".join(f"{key}={in_words(guessed[key].value)}" for key in sorted(keys & set(guessed)))
                shown = row["message"] + (f" (rests on a guess: {basis})" if basis else "")
                fix = BY_HAND.get(row["id"], row["fix"])
                yield Answer(row["id"], host, row["level"], "the cluster as a plan", shown, fix, row["source"])
    yield from _disagreements(cluster)
    if guessed:
        shown = "; ".join(f"{one.key} {in_words(one.value)}: {one.evidence}" for one in guessed.values())
        yield _answer("NFS344", host, "info", shown)


def _disagreements(cluster: Cluster) -> Iterator[Answer]:
    if len(cluster.backends) < 2:
        return
    told: dict[str, dict[str, str]] = {
        "mailbox format": {one.host: format_of(one) for one in cluster.backends if format_of(one)},
        "place of the indexes": {one.host: index_of(one)[0] for one in cluster.backends if one.parts},
        "NFS version": {one.host: nfs_version_of(one) for one in cluster.backends if nfs_version_of(one)},
        "path of the mail": {one.host: mail_path_of(one.parts) for one in cluster.backends if mail_path_of(one.parts)},
    }
    differ = [
        f"{what}: {', '.join(f'{host} {value}' for host, value in values.items())}"
        for what, values in told.items()
        # 2.3 and 2.4 write one path in two ways.
        if len({re.split("[%{]", value)[0] for value in values.values()}) > 1
    ]
    host = ", ".join(machine.host for machine in cluster.backends)
    yield _answer("NFS343", host, "error" if differ else "ok", "; ".join(differ) or f"{len(cluster.backends)} backends")


def _of_exports(machine: Machine, clusters: Sequence[Cluster]) -> Iterator[Answer]:
    rows = rows_in(machine.state.get("exports"))
    paths = {source_of(one.store)[1].rstrip("/") for cluster in clusters for one in cluster.backends if one.store}
    # With NFSv4 a client may name the path below the server's root (fsid=0).
    wanted = [row for row in rows if any(str(row.get("path")).endswith(path) and path for path in paths)]
    judged = wanted or ([] if paths else rows)
    wrong = 0
    for row in judged:
        path, client = str(row.get("path")), str(row.get("client"))
        options = [str(option) for option in row.get("options") or ()]
        bad = [f"{option}: {exports_.REFUSED[option]}" for option in options if option in exports_.REFUSED]
        if client_key(client) == "*":
            bad.append("exported to everybody")
        for text in bad:
            wrong += 1
            yield _answer("NFS314", machine.host, "error", f"{path} to {client}: {text}")
    if judged and not wrong:
        yield _answer("NFS314", machine.host, "ok", f"{len(judged)} of {len(rows)} entries")


def _of_balancer(machine: Machine) -> Iterator[Answer]:
    rows = [row for row in rows_in(mapping_in(machine.state.get("haproxy")).get("servers")) if row.get("status")]
    down = [row for row in rows if row["status"] not in ("UP", "MAINT", "DRAIN", "no")]
    shown = "; ".join(
        f"{row.get('section')}/{row.get('server')} is {row['status']} ({row.get('check')})" for row in down
    )
    if rows:
        yield _answer("NFS345", machine.host, "warning" if down else "ok", shown or _many(len(rows), "server"))


# -- what is shown --------------------------------------------------------------------------------------------


def _shown(machines: Sequence[Machine], silent: Iterable[str]) -> list[dict[str, Any]]:
    return [
        {
            "host": one.host,
            "kinds": [{"kind": kind.key, "sure": kind.sure, "evidence": kind.evidence} for kind in one.kinds],
            "dovecot": str(one.release.value) if one.release else "",
            "store": f"{one.store['source']} at {one.store['path']}" if one.store else "",
        }
        for one in machines
    ] + [{"host": host, "kinds": [], "dovecot": "", "store": ""} for host in silent]


def _cluster_shown(cluster: Cluster) -> dict[str, Any]:
    return {
        "store": cluster.store,
        "backends": [machine.host for machine in cluster.backends],
        "profile": [asdict(one) for one in cluster.inferred],
    }


def _head(report: Mapping[str, Any]) -> Iterator[str]:
    """What the machines were taken for, as lines for people."""
    for machine in report["machines"]:
        kinds = "; ".join(f"{one['kind']} ({one['sure']}: {one['evidence']})" for one in machine["kinds"])
        yield f"{machine['host']}: {kinds or 'nothing of a mail cluster was recognised'}"
    for cluster in report["clusters"]:
        yield ""
        yield f"mail store {cluster['store']}, backends {', '.join(cluster['backends'])}"
        for one in cluster["profile"]:
            yield f"  {one['key']:15} {in_words(one['value']):9} {one['sure']:8} {one['evidence']}"
    yield from ("", *report["notes"]) if report["notes"] else ()
    yield ""
