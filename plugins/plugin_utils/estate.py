# Copyright: (c) 2026, the nfsmail.cluster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What machines are that nobody described: their kind, their mail store, and the profile of the clusters they make up.

Every inference says how sure it is: ``certain`` (it is written there), ``likely`` (that is what it usually means), or
``guess`` (nothing speaks for it but the lack of anything else).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..module_utils._mounts import split_source
from .dialect import flat, from_doveconf
from .errors import NfsmailError
from .location import HOME, place, read
from .profile import KEY_BY_NAME, KEYS, Profile, parse_profile, series_of
from .written import in_effect

SURENESS = ("certain", "likely", "guess")
State = Mapping[str, Any]
DRIVERS = {"maildir": "maildir", "mbox": "mbox", "sdbox": "sdbox", "dbox": "sdbox", "mdbox": "mdbox"}
YES = ("yes", "y", "1", "true")
PROXY_FIELD = re.compile(r"passdb[^/]*/((default_|override_)?fields/)?(proxy|proxy_maybe)\Z")
PROXY_ARGS = re.compile(r"passdb[^/]*/(args|default_fields|override_fields)\Z")
PROXY_WORD = re.compile(r"(?:^|\s)(proxy|proxy_maybe)(?:=(?:y|yes))?(?=\s|\Z)")
HOME_WORD = re.compile(r"(?:^|\s)home=(\S+)")


@dataclass(frozen=True)
class Inference:
    """One thing that was inferred: its name, the value, how sure that is, and what speaks for it, in words."""

    key: str
    value: str | bool
    sure: str
    evidence: str


@dataclass(frozen=True)
class Machine:
    """One machine as it was seen. ``kinds``: what it is, ``key`` being nfs_server, backend, proxy, director or balancer.

    ``release``: of its Dovecot, empty where there is none. ``store``: the NFS mount that holds the mail, if it is known.
    """

    host: str
    state: State
    conf: Mapping[str, Any]
    release: Inference | None
    parts: Mapping[str, str]
    store: Mapping[str, Any] | None
    store_sure: str
    kinds: tuple[Inference, ...]

    @property
    def off_nfs(self) -> bool:
        """Its mounts were seen, and none of NFS holds its mail: what the matrix wants of NFS is not wanted here."""
        return self.store is None and isinstance(self.state.get("mounts"), (list, tuple))

    def sure_of(self, *kinds: str) -> str:
        """How sure it is that the machine is one of these; empty where it is not."""
        found = [kind.sure for kind in self.kinds if kind.key in kinds]
        return min(found, key=SURENESS.index) if found else ""


@dataclass(frozen=True)
class Cluster:
    """Backends that share a mail store, and what was inferred of them."""

    store: str
    backends: tuple[Machine, ...]
    inferred: tuple[Inference, ...]

    @property
    def profile(self) -> Profile:
        """The inferences as a profile."""
        return parse_profile({one.key: one.value for one in self.inferred})


def machines_in(states: Mapping[str, Any]) -> list[Machine]:
    """The machines that answered."""
    known = {str(host): mapping_in(state) for host, state in sorted(states.items(), key=lambda item: str(item[0]))}
    return [_machine(host, state) for host, state in known.items() if state and set(state) != {"error"}]


def places(states: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Machine to ``{store, server}``: where its mail store is mounted and which NFS server to ask; empty where unknown.

    Machines without a store of their own get the server of the first that has one, to compare clocks with.
    """
    machines = machines_in(states)
    found: dict[str, dict[str, str]] = {str(host): {"store": "", "server": ""} for host in states}
    for machine in machines:
        if machine.store and machine.sure_of("backend"):
            server, _path = source_of(machine.store)
            found[machine.host] = {"store": str(machine.store["path"]), "server": server}
    servers = [place["server"] for place in found.values() if place["server"]]
    for machine in machines:
        if servers and not found[machine.host]["server"] and machine.sure_of("proxy", "director", "balancer"):
            found[machine.host]["server"] = servers[0]
    return found


# -- one machine ----------------------------------------------------------------------------------------------


def mapping_in(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def first_line(error: Any) -> str:
    """The first line of what a machine said."""
    return next((line for line in str(error or "").splitlines() if line.strip()), "").strip()


def rows_in(value: Any) -> list[Mapping[str, Any]]:
    return [row for row in value if isinstance(row, Mapping)] if isinstance(value, (list, tuple)) else []


def _machine(host: str, state: State) -> Machine:
    dovecot = mapping_in(state.get("dovecot"))
    try:
        conf: Mapping[str, Any] = from_doveconf(str(dovecot.get("conf") or ""))
    except NfsmailError:
        conf = {}  # told by NFS311
    release = _release(dovecot, conf)
    parts = _parts(conf, release)
    store, sure = _store(parts, state)
    bare = Machine(host, state, conf, release, parts, store, sure, ())
    return replace(bare, kinds=tuple(_kinds(bare)))


def _release(dovecot: Mapping[str, Any], conf: Mapping[str, Any]) -> Inference | None:
    version = str(dovecot.get("version") or "")
    if version and version != str(conf.get("dovecot_config_version")):
        return Inference("dovecot_version", version, "certain", f"Dovecot says {version}")
    if conf.get("dovecot_config_version"):
        version = str(conf["dovecot_config_version"])
        return Inference("dovecot_version", version, "likely", f"dovecot_config_version is {version}")
    if conf:
        new = [name for name in ("mail_driver", "mail_path", "auth_allow_cleartext") if name in conf]
        version = "2.4.0" if new else str(KEY_BY_NAME["dovecot_version"].default)
        shown = f"it has {new[0]}, a name of 2.4" if new else "no name of 2.4 is in its settings"
        return Inference("dovecot_version", version, "guess", shown)
    return None


def series_of_release(release: Inference | None) -> str:
    try:
        return series_of(str(release.value)) if release else ""
    except NfsmailError:
        return ""


def _parts(conf: Mapping[str, Any], release: Inference | None) -> dict[str, str]:
    """The parts of the mailbox location, ``mail_driver`` and so on, and ``home``; only what is written."""
    series = series_of_release(release)
    if not series:
        return {}
    view = in_effect(conf, series)
    parts = read(view, series)
    if not parts:
        # A location in a namespace only.
        inside = [value for name, value in conf.items() if str(name).startswith("namespace") and mapping_in(value)]
        found = (read({"mail_location": str(space.get("location") or "")}, "2.3") for space in inside)
        parts = next((one for one in found if one), {})
    homes = [view.get("mail_home", "")]
    for name, value in flat(conf).items():
        if name.startswith("userdb") and name.rpartition("/")[2] == "home":
            homes.append(value)
        match = HOME_WORD.search(value) if name.startswith("userdb") else None
        homes += [match[1]] if match else []
    home = next((one for one in homes if one), "")
    return {**parts, "home": home} if home else parts


def _nfs_mounts(state: State) -> list[Mapping[str, Any]]:
    return [row for row in rows_in(state.get("mounts")) if str(row.get("fstype")).startswith("nfs") and row.get("path")]


def mail_path_of(parts: Mapping[str, str]) -> str:
    """The path of mail as it is written, with the home in its place."""
    path, home = parts.get("mail_path", ""), parts.get("home", "")
    match = HOME.match(path)
    if match:
        path = f"{home}/{path[match.end() :]}" if home else ""
    return path or home


def _store(parts: Mapping[str, str], state: State) -> tuple[Mapping[str, Any] | None, str]:
    """The NFS mount that holds the mail, of several the innermost, and how sure that is."""
    mounts = _nfs_mounts(state)
    path = mail_path_of(parts)
    written = (path, parts.get("mail_inbox_path", ""))
    holding = [row for row in mounts if any(place(one, "", str(row["path"])) == "nfs" for one in written)]
    if holding:
        return max(holding, key=lambda row: len(str(row["path"]))), "certain"
    # Below a variable, or in a home that only the user database knows.
    if mounts and not place(path, "", "/"):
        named = [row for row in mounts if re.search("mail|vmail|home|dovecot", str(row["path"]))]
        return (mounts[0], "likely") if len(mounts) == 1 else ((named or mounts)[0], "guess")
    return None, ""


def _kinds(machine: Machine) -> Iterator[Inference]:
    yield from _as_server(machine.state)
    front = list(_as_proxy(machine))
    yield from front
    yield from _as_backend(machine, bool(front) and "proxy_maybe" not in front[0].evidence)
    yield from _as_balancer(machine.state)


def _as_server(state: State) -> Iterator[Inference]:
    rows = rows_in(state.get("exports"))
    threads = str(mapping_in(state.get("nfsd")).get("threads") or "0")
    if rows:
        paths = ", ".join(dict.fromkeys(str(row.get("path")) for row in rows))
        yield Inference("nfs_server", True, "certain", f"it exports {paths}")
    elif threads not in ("0", "None"):
        yield Inference("nfs_server", True, "likely", f"its NFS server runs with {threads} threads")


def _as_proxy(machine: Machine) -> Iterator[Inference]:
    conf = machine.conf
    if conf.get("director_servers") or conf.get("director_mail_servers"):
        name = "director_servers" if conf.get("director_servers") else "director_mail_servers"
        yield Inference("director", True, "certain", f"it has {name}")
        return
    for name, value in flat(conf).items():
        field = PROXY_FIELD.match(name) if value.lower() in YES else None
        word = PROXY_WORD.search(value) if PROXY_ARGS.match(name) else None
        told = field[3] if field else word[1] if word else ""
        if told:
            yield Inference("proxy", True, "certain", f"its password database sets {told}")
            return
    if str(conf.get("lmtp_proxy")).lower() in YES:
        sure = "guess" if machine.store else "likely"
        yield Inference("proxy", True, sure, "it has lmtp_proxy" + (", and a mail store, too" if machine.store else ""))


def _as_backend(machine: Machine, proxy: bool) -> Iterator[Inference]:
    path = mail_path_of(machine.parts)
    if not machine.conf and not mapping_in(machine.state.get("dovecot")):
        # Without its settings, a mount of NFS says little.
        if _nfs_mounts(machine.state) and "dovecot" not in machine.state:
            yield Inference("backend", True, "guess", "it mounts NFS; its settings were not seen")
    elif machine.store:
        where = f"{path} is below" if machine.store_sure == "certain" else "it has Dovecot, and"
        what = machine.store["path"]
        shown = f"{where} {what}" + (", an NFS mount" if machine.store_sure == "certain" else " is an NFS mount")
        # A proxy's settings may still name the default location; that alone is no mailbox.
        if not proxy or machine.store_sure == "certain":
            yield Inference("backend", True, machine.store_sure, shown)
    elif not proxy:
        seen = "no NFS mount holds it" if machine.off_nfs else "its mounts were not seen"
        yield Inference(
            "backend", True, "likely" if path else "guess", f"it has Dovecot with mail at {path or '?'}; {seen}"
        )


def _as_balancer(state: State) -> Iterator[Inference]:
    servers = rows_in(mapping_in(state.get("haproxy")).get("servers"))
    active = mapping_in(mapping_in(state.get("units")).get("haproxy.service")).get("ActiveState") == "active"
    if servers:
        names = ", ".join(list(dict.fromkeys(str(row.get("server")) for row in servers))[:6])
        yield Inference("balancer", True, "certain", f"its HAProxy names the servers {names}")
    elif active:
        yield Inference("balancer", True, "likely", "HAProxy runs; its servers were not seen")


# -- clusters -------------------------------------------------------------------------------------------------


def source_of(mount: Mapping[str, Any]) -> tuple[str, str]:
    """Server and export of a mount; names of one server are told apart by nothing but their spelling."""
    try:
        return split_source(str(mount.get("source")))
    except ValueError:
        return "", str(mount.get("source"))


def _store_key(machine: Machine) -> str:
    """What two backends have in common that share a mail store."""
    if machine.store:
        server, path = source_of(machine.store)
        # Two names of one server have one address.
        address = next((str(text)[5:] for text in machine.store.get("options") or () if str(text)[:5] == "addr="), "")
        return f"{address or server.lower()}:{path.rstrip('/') or '/'}"
    if machine.off_nfs:
        return f"local disk of {machine.host}"
    # Nothing known of the mounts: the same path is taken for the same store.
    return f"not seen, {re.split('[%{]', mail_path_of(machine.parts))[0].rstrip('/') or 'path unknown'}"


def clusters_in(machines: Sequence[Machine], told: Mapping[str, Any]) -> list[Cluster]:
    groups: dict[str, list[Machine]] = {}
    for machine in machines:
        if machine.sure_of("backend"):
            groups.setdefault(_store_key(machine), []).append(machine)
    found = []
    for key, backends in groups.items():
        first = next((one.store for one in backends if one.store), None)
        store = f"{first['source']} at {first['path']}" if first else key
        inferred: dict[str, Inference] = {}
        for name in (key_.name for key_ in KEYS):
            if name in told:
                inferred[name] = Inference(name, told[name], "certain", "you said so (nfsmail_audit_profile)")
            elif name == "lockd":
                inferred[name] = _lockd(backends, inferred["nfs_version"])
            else:
                inferred[name] = _INFERRED[name](backends, machines)
        found.append(Cluster(store, tuple(backends), tuple(inferred.values())))
    return found


def _common(key: str, values: Mapping[str, str | bool], sure: str, words: str) -> Inference:
    """What most backends have; that others differ is told by NFS343."""
    value = Counter(values.values()).most_common(1)[0][0]
    hosts = [host for host, own in values.items() if own == value]
    return Inference(key, value, sure, f"{words} on {listed(hosts)}")


def listed(hosts: Sequence[str]) -> str:
    shown = list(hosts) if len(hosts) < 6 else [*hosts[:4], f"{len(hosts) - 4} others"]
    return ", ".join(shown)


def _topology(backends: Sequence[Machine], machines: Sequence[Machine]) -> Inference:
    hosts = listed([one.host for one in backends])
    front = [one for one in machines if one.sure_of("proxy", "director")]
    mesh = [one for one in backends if one.sure_of("proxy", "director")]
    if front:
        sure = min((one.sure_of("proxy", "director") for one in front), key=SURENESS.index)
        names = listed([one.host for one in front])
        outside = "" if mesh else " in front of the backends"
        ring = any(one.sure_of("director") for one in front)
        shown = f"{'directors' if ring else 'proxies'}{outside}: {names}; one mail store: {hosts}"
        # That a proxy sends each user to one backend is what it is for, but its user database was not seen.
        return Inference("topology", "per_user", "likely" if sure == "certain" and not ring else sure, shown)
    flushing = [one.host for one in backends if _flushes(one)]
    if len(backends) == 1:
        if flushing:
            shown = f"{hosts} flushes NFS caches, as only backends do that share users; the others were not seen"
            return Inference("topology", "random", "guess", shown)
        trusted = backends[0].conf.get("login_trusted_networks")
        if trusted:
            shown = f"{hosts} trusts other machines (login_trusted_networks), as a backend behind proxies does"
            return Inference("topology", "per_user", "guess", shown)
        return Inference(
            "topology", "single", "likely", f"{hosts} is the only backend of this mail store that was seen"
        )
    balancers = [one.host for one in machines if one.sure_of("balancer")]
    if balancers:
        shown = f"{len(backends)} backends share a mail store ({hosts}), behind {listed(balancers)} and no proxy"
        return Inference("topology", "random", "likely", shown)
    if flushing:
        shown = f"{len(backends)} backends share a mail store; {listed(flushing)} flush NFS caches; no proxy was seen"
        return Inference("topology", "random", "likely", shown)
    shown = (
        f"{len(backends)} backends share a mail store ({hosts}), and no proxy was seen that gives each user one of them"
    )
    return Inference("topology", "random", "guess", shown)


def _flushes(machine: Machine) -> bool:
    return any(str(machine.conf.get(name)).lower() in YES for name in ("mail_nfs_storage", "mail_nfs_index"))


def format_of(machine: Machine) -> str:
    return DRIVERS.get(machine.parts.get("mail_driver", "").lower(), "")


def _mailbox_format(backends: Sequence[Machine], machines: Sequence[Machine]) -> Inference:
    found = {one.host: format_of(one) for one in backends if format_of(one)}
    if found:
        return _common("mailbox_format", dict(found), "certain", "the mailbox location says so")
    drivers = sorted({one.parts["mail_driver"] for one in backends if one.parts.get("mail_driver")})
    shown = f"no known driver ({', '.join(drivers)})" if drivers else "no mailbox location was seen"
    return Inference("mailbox_format", str(KEY_BY_NAME["mailbox_format"].default), "guess", shown)


def index_of(machine: Machine) -> tuple[str, str]:
    """Where the indexes lie, and how sure that is."""
    written = machine.parts.get("mail_index_path", "")
    if not written:
        return "nfs", "certain" if machine.store else "likely"
    home, store = machine.parts.get("home", ""), str((machine.store or {}).get("path") or "")
    found = place(written, home, store)
    if found in ("local", "memory"):
        return "local", "certain"
    if found == "nfs":
        return "nfs", "certain"
    # Without its mounts: a place that differs from the mail's is another disk more often than not.
    return ("nfs", "guess") if HOME.match(written) else ("local", "guess")


def _index_location(backends: Sequence[Machine], machines: Sequence[Machine]) -> Inference:
    found = {one.host: index_of(one) for one in backends}
    written = sorted({one.parts["mail_index_path"] for one in backends if one.parts.get("mail_index_path")})
    sure = max((sure for _value, sure in found.values()), key=SURENESS.index)
    if not any(one.parts for one in backends):
        sure = "guess"
    words = f"indexes at {', '.join(written[:2])}" if written else "indexes lie with the mail"
    return _common("index_location", {host: value for host, (value, _sure) in found.items()}, sure, words)


def nfs_version_of(machine: Machine) -> str:
    text = ",".join(str(option) for option in (machine.store or {}).get("options") or ())
    match = re.search(r"(?:^|,)(?:nfs)?vers=(\d(?:\.\d)?)", text)
    minor = re.search(r"(?:^|,)minorversion=(\d)", text)
    version = match[1] if match else ""
    if version == "4":
        version = f"4.{minor[1] if minor else 0}"
    return version if version in KEY_BY_NAME["nfs_version"].choices else ""


def _nfs_version(backends: Sequence[Machine], machines: Sequence[Machine]) -> Inference:
    found = {one.host: nfs_version_of(one) for one in backends if nfs_version_of(one)}
    if found:
        sure = max((one.store_sure for one in backends if one.host in found), key=SURENESS.index)
        return _common("nfs_version", dict(found), sure, "the mount is of this version")
    shown = "no NFS mount of the mail store was seen"
    return Inference("nfs_version", str(KEY_BY_NAME["nfs_version"].default), "guess", shown)


def _lockd(backends: Sequence[Machine], version: Inference) -> Inference:
    if version.value not in ("2", "3"):
        return Inference("lockd", True, version.sure, "NFSv4 has locks of its own")
    options = {one.host: list((one.store or {}).get("options") or ()) for one in backends if one.store}
    without = [host for host, have in options.items() if {"nolock", "local_lock=all", "local_lock=posix"} & set(have)]
    if without:
        return Inference(
            "lockd", False, "certain", f"locks stay on the machine (nolock, local_lock) on {listed(without)}"
        )
    if options and all("local_lock=none" in have for have in options.values()):
        return Inference("lockd", True, "certain", "the mounts have local_lock=none")
    if options:
        return Inference("lockd", True, "likely", "the mounts are without nolock")
    return Inference("lockd", True, "guess", "no mount of the mail store was seen")


def _delivery(backends: Sequence[Machine], machines: Sequence[Machine]) -> Inference:
    dovecots = [one for one in machines if one.conf and one.sure_of("backend", "proxy", "director")]
    serving = [one.host for one in dovecots if _serves(one, "lmtp")]
    if serving:
        return Inference("delivery", "lmtp", "likely", f"LMTP is among the protocols on {listed(serving)}")
    lda = [one.host for one in backends if any(str(name).split(" ")[0:2] == ["protocol", "lda"] for name in one.conf)]
    if lda:
        return Inference("delivery", "lda", "likely", f"no LMTP, but a section protocol lda on {listed(lda)}")
    said = [one for one in dovecots if one.conf.get("protocols")]
    if said and _mailbox_format(backends, machines).value in ("maildir", "mbox"):
        return Inference("delivery", "mta", "guess", "no LMTP among the protocols; another program may write the mail")
    if said:
        return Inference(
            "delivery", "lda", "guess", "no LMTP among the protocols, and only Dovecot can write this format"
        )
    return Inference("delivery", "lmtp", "guess", "nothing was seen of how mail is delivered")


def _serves(machine: Machine, protocol: str) -> bool:
    protocols = machine.conf.get("protocols")
    if isinstance(protocols, Mapping):
        return str(protocols.get(protocol)).lower() in YES
    return protocol in str(protocols or "").split()


def _dovecot_version(backends: Sequence[Machine], machines: Sequence[Machine]) -> Inference:
    found = {one.host: one.release for one in backends if one.release and series_of_release(one.release)}
    if found:
        sure = max((one.sure for one in found.values()), key=SURENESS.index)
        return _common("dovecot_version", {host: one.value for host, one in found.items()}, sure, "read")
    default = str(KEY_BY_NAME["dovecot_version"].default)
    return Inference("dovecot_version", default, "guess", "no release that is known was seen")


def _cache_flush(backends: Sequence[Machine], machines: Sequence[Machine]) -> Inference:
    found: dict[str, str | bool] = {one.host: _flushes(one) for one in backends if one.conf}
    if found:
        return _common("cache_flush", found, "certain", "mail_nfs_storage and mail_nfs_index")
    return Inference("cache_flush", False, "guess", "no settings were seen")


_INFERRED: Mapping[str, Callable[[Sequence[Machine], Sequence[Machine]], Inference]] = {
    "topology": _topology,
    "mailbox_format": _mailbox_format,
    "index_location": _index_location,
    "nfs_version": _nfs_version,
    "delivery": _delivery,
    "dovecot_version": _dovecot_version,
    "cache_flush": _cache_flush,
}
