#!/usr/bin/python
# Copyright (c) 2026 nfsmail.cluster contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Read the live state of a mail or NFS host in one go."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_state
short_description: Read the live state of a mail or NFS host in one go
version_added: 1.0.0
author:
  - nfsmail.cluster contributors (@nfsmail)
description:
  - Gathers everything that is needed to judge a host of a mail cluster, from mount options in effect to clocks, in one call.
  - All parts are read at the same time, each in a process of its own. A part that fails or hangs has an C(error) in its
    place, and the whole ends within O(timeout) seconds also when the NFS server is dead.
  - Changes nothing. For the clock of the store one file C(.nfsmail-clock-HOST-PID) is made in O(store) and removed.
options:
  store:
    description: Mount point of the mail store; empty on a host without one.
    type: str
    default: ''
  export_server:
    description: Name or address of the NFS server to ask for its RPC services; empty to ask none.
    type: str
    default: ''
  time_server:
    description: Name or address of a time server to compare the clock with. Defaults to O(export_server).
    type: str
  mail_uid:
    description: User number that makes the file for the clock of the store.
    type: int
    default: 0
  mail_gid:
    description: Group number that makes the file for the clock of the store.
    type: int
    default: 0
  haproxy_socket:
    description: HAProxy's socket for commands; empty on a host without one.
    type: str
    default: ''
  packet_filter:
    description: Whether to read the table C(inet nfsmail) of nftables.
    type: bool
    default: false
  log_unit:
    description: The unit in whose journal to look for O(log_patterns); empty to look in none.
    type: str
    default: ''
  log_patterns:
    description: Name to regular expression (of Python), for lines of the journal that are warnings or worse.
    type: dict
    default: {}
  log_seconds:
    description: How far back to look, in seconds.
    type: int
    default: 86400
  kernel_settings:
    description: Parameters of kernel modules to read, C(MODULE.NAME).
    type: list
    elements: str
    default: []
  units:
    description: Names of systemd units to look at.
    type: list
    elements: str
    default: []
  files:
    description: Paths of files to hash.
    type: list
    elements: str
    default: []
  timeout:
    description: Seconds that the whole may take.
    type: int
    default: 30
attributes:
  check_mode:
    support: full
    description: Reads in check mode too, but leaves the clock of the store out.
  diff_mode:
    support: none
    description: Nothing is changed.
seealso:
  - module: nfsmail.cluster.nfs_mount
  - module: nfsmail.cluster.lock_probe
"""

EXAMPLES = r"""
- name: Read the state of a backend
  nfsmail.cluster.host_state:
    store: /srv/mail
    export_server: nfs1
    mail_uid: 5000
    mail_gid: 5000
    units: [dovecot.service, srv-mail.mount]
    files: [/etc/dovecot/dovecot.conf]
  register: live
"""

RETURN = r"""
state:
  description: What was found. In the place of a part that failed stands a mapping with C(error).
  type: dict
  returned: success
  contains:
    hostname:
      description: The node name, by which NFSv3 lock recovery knows the host.
      type: str
    kernel:
      description: The kernel release.
      type: str
    now:
      description: The clock of the host in seconds since 1970.
      type: float
    mounts:
      description: NFS and automount mounts, and whatever is mounted at the store.
      type: list
      elements: dict
      sample: [{path: /srv/mail, source: "nfs1:/srv/mail", fstype: nfs4, options: [rw, nosuid, vers=4.2, hard]}]
    packet_filter:
      description: The sets of the table C(inet nfsmail); V(none) where there is no such table, or O(packet_filter) is V(false).
      type: dict
      sample: {ports: [24, 143], ipv4: [192.0.2.21, 192.0.2.32/28], ipv6: []}
    log:
      description: Name of a pattern to C({count, last}), the lines that match; V(none) without O(log_unit).
      type: dict
      sample: {locks: {count: 3, last: "Error: fcntl(/srv/mail/x/dovecot.index.log, write-lock, F_SETLKW) locking failed"}}
    kernel_settings:
      description: Parameters of O(kernel_settings) to their values in effect, of modules that are loaded.
      type: dict
      sample: {sunrpc.max_resvport: "992"}
    addresses:
      description: All IP addresses of the host.
      type: list
      elements: str
    guard:
      description: The directory below the mount as in nfsmail.cluster.nfs_mount; V(none) without a store.
      type: dict
    nfsd:
      description: The kernel NFS server; V(none) where it is not loaded.
      type: dict
      sample: {versions: ["3", "4.1", "4.2"], threads: 8, lease: 90, grace: 90, listeners: [{proto: tcp, port: 2049}]}
    exports:
      description: The table of C(exportfs -s); V(none) without exportfs.
      type: list
      elements: dict
    lockd:
      description: Grace period and wished ports of lockd; V(none) where it is not loaded.
      type: dict
      sample: {grace: 0, tcp_port_wanted: 4045, udp_port_wanted: 4045}
    rpc:
      description: RPC services of this host.
      type: list
      elements: dict
      sample: [{program: 100021, version: 4, proto: tcp, port: 4045, name: nlockmgr}]
    rpc_server:
      description: RPC services of O(export_server); V(none) without one.
      type: list
      elements: dict
    statd_monitored:
      description: Hosts that statd watches for lock recovery.
      type: list
      elements: str
    locks:
      description: Number of lines in /proc/locks.
      type: int
    clock:
      description: How the clock compares.
      type: dict
      contains:
        ntp:
          description: >-
            C({server, offset, error_bound, stratum, leap, root_delay, root_dispersion}); the offset is positive when the server
            is ahead.
          type: dict
        store:
          description: >-
            C({offset_min, offset_max, tries}), the bounds of the offset of the clock that stamps files, positive when ahead; and
            C({exclusive, links}), whether O_EXCL and link() keep what is there.
          type: dict
        daemon:
          description: C({name, running, synchronised, detail}).
          type: dict
    dovecot:
      description: >-
        C({version, conf, error}); C(sessions), user to number of open sessions; and C(ring) and C(ring_backends), what a director says of
        its ring and of the backends, where there is one. V(none) where Dovecot is not installed.
      type: dict
    haproxy:
      description: What HAProxy thinks of its servers; V(none) without O(haproxy_socket).
      type: dict
      sample:
        version: 2.6.12-1+deb12u4
        servers: [{section: clients, server: mail1, status: UP, weight: 256, id: 663380, check: L7OK (tcp-check)}]
    units:
      description: Properties of each unit of O(units) as C(systemctl show) names them, and C(Asserts) read from its files.
      type: dict
    files:
      description: SHA-256 of each file of O(files), V(none) for one that does not exist.
      type: dict
    took_s:
      description: Seconds that the reading took.
      type: float
"""

import contextlib
import hashlib
import json
import os
import re
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.nfsmail.cluster.plugins.module_utils import (
    _exports,
    _guard,
    _host,
    _mounts,
    _probes,
    _sessions,
    _system,
)

NFSD = "/proc/fs/nfsd"
LOCKD = "/proc/sys/fs/nfs"
# On Debian, and on the family of Red Hat.
STATD = ("/var/lib/nfs/sm", "/var/lib/nfs/statd/sm")
UNIT_PROPERTIES = (
    "Id",
    "LoadState",
    "ActiveState",
    "SubState",
    "UnitFileState",
    "FragmentPath",
    "DropInPaths",
    "RequiresMountsFor",
    "Requires",
    "BindsTo",
    "After",
    "AssertResult",
    "ConditionResult",
    "Options",
    "What",
)


# ---- parts, each run in a child ----


def need(command: list[str], timeout: float) -> str:
    """Output of a command that must work."""
    program = _system.find_program(command[0])
    if program is None:
        raise OSError(f"{command[0]} is not installed")
    result = _system.run([program, *command[1:]], timeout)
    if result.rc != 0:
        raise OSError(f"{' '.join(command)}: {result.reason}")
    return result.out


def number(path: str) -> int | None:
    """The number in a file of /proc; None without it."""
    with contextlib.suppress(OSError, ValueError):
        return int((_system.read_text(path) or "").split()[0])
    return None


def mounts(store: str) -> list[dict[str, Any]]:
    """Mounts that matter here."""
    stats = _mounts.parse_mountstats(_system.read_text("/proc/self/mountstats") or "")
    found = []
    everything = _mounts.parse_mountinfo(_system.read_text("/proc/self/mountinfo") or "")
    for mount in everything:
        if mount.is_nfs or mount.fstype == "autofs" or (store and mount.path == store):
            shown = stats.get(mount.path) if mount is _mounts.top_mount(everything, mount.path) else None
            found.append(
                {
                    "path": mount.path,
                    "source": mount.source,
                    "fstype": mount.fstype,
                    "options": _mounts.options_in_effect(mount, shown if mount.is_nfs else None),
                }
            )
    return found


def kernel_settings(names: list[str]) -> dict[str, str]:
    """Parameters of kernel modules, of those that are loaded."""
    read = {name: _system.read_text(f"/sys/module/{name.replace('.', '/parameters/')}") for name in names}
    return {name: text.strip() for name, text in read.items() if text is not None}


def packet_filter(timeout: float) -> dict[str, list[Any]] | None:
    """The sets of our table."""
    result = _system.run([_system.find_program("nft") or "nft", "--json", "list", "table", "inet", "nfsmail"], timeout)
    return _probes.parse_nft_sets(result.out) if result.rc == 0 else None


def log(unit: str, patterns: dict[str, str], seconds: int, timeout: float) -> dict[str, Any] | None:
    """Lines of a unit's journal that match."""
    if not unit:
        return None
    since = f"--since=-{seconds}s"
    text = need(["journalctl", f"--unit={unit}", "--priority=warning", since, "--output=cat", "--no-pager"], timeout)
    return _probes.matching_lines(text, patterns)


def guard(store: str) -> dict[str, Any] | None:
    """The directory below the store's mount."""
    return _guard.public(_guard.inspect_in_child(store)) if store else None


def nfsd() -> dict[str, Any] | None:
    """The kernel NFS server."""
    versions = _system.read_text(f"{NFSD}/versions") if os.path.isdir(NFSD) else None
    if versions is None:
        return None
    return {
        "versions": _probes.parse_nfsd_versions(versions),
        "threads": number(f"{NFSD}/threads"),
        "lease": number(f"{NFSD}/nfsv4leasetime"),
        "grace": number(f"{NFSD}/nfsv4gracetime"),
        "listeners": _probes.parse_portlist(_system.read_text(f"{NFSD}/portlist") or ""),
    }


def exports(timeout: float) -> list[dict[str, Any]] | None:
    """The table of exports in effect."""
    if _system.find_program("exportfs") is None:
        return None
    return _exports.parse_exportfs(need(["exportfs", "-s"], timeout))


def lockd() -> dict[str, Any] | None:
    """Settings of the kernel lock manager."""
    if not os.path.exists(f"{LOCKD}/nlm_tcpport"):
        return None
    return {
        "grace": number(f"{LOCKD}/nlm_grace_period"),
        "tcp_port_wanted": number(f"{LOCKD}/nlm_tcpport"),
        "udp_port_wanted": number(f"{LOCKD}/nlm_udpport"),
    }


def statd_monitored() -> list[str]:
    """Hosts that statd watches."""
    for path in STATD:
        try:
            return sorted(os.listdir(path))
        except FileNotFoundError:
            continue
    return []


def locks() -> int:
    """How many locks the kernel knows."""
    return len((_system.read_text("/proc/locks") or "").splitlines())


def rpc(server: str, timeout: float) -> list[dict[str, Any]]:
    """RPC services of a host."""
    return _probes.parse_rpcinfo(need(["rpcinfo", "-p", *([server] if server else [])], timeout))


def clock_ntp(server: str, timeout: float) -> dict[str, Any]:
    """Our clock against the time server's."""
    return {"server": server, **_probes.query_sntp(server, wait=min(2.0, timeout / 3))}


def clock_store(store: str, uid: int, gid: int) -> dict[str, Any]:
    """Our clock against that of the store."""
    top = _mounts.top_mount(_mounts.parse_mountinfo(_system.read_text("/proc/self/mountinfo") or ""), store)
    if top is None:
        raise OSError(f"nothing is mounted at {store}")
    name = f".nfsmail-clock-{os.uname().nodename}-{os.getpid()}"
    _system.drop_privileges(uid, gid)
    return _probes.store_clock(store, name)


def running_daemons() -> set[str]:
    """Names of time daemons that run."""
    names = {"chronyd": "chronyd", "ntpd": "ntpd", "systemd-timesyn": "systemd-timesyncd"}
    found = set()
    for name in os.listdir("/proc"):
        if name.isdigit():
            with (
                contextlib.suppress(OSError),
                open(f"/proc/{name}/comm", encoding="utf-8", errors="replace") as text,
            ):
                comm = text.read().strip()
                if comm in names:
                    found.add(names[comm])
    return found


def clock_daemon(timeout: float) -> dict[str, Any]:
    """What the time daemon says of itself."""
    running = running_daemons()
    programs = (
        ("chronyd", "chronyd"),
        ("ntpd", "ntpd"),
        ("systemd-timesyncd", "/lib/systemd/systemd-timesyncd"),
    )
    for name, dummy in programs:
        if name in running:
            break
    else:
        for name, program in programs:
            if _system.find_program(program):
                return {"name": name, "running": False, "synchronised": None, "detail": {}}
        return {"name": "none", "running": False, "synchronised": None, "detail": {}}
    answer: dict[str, Any] = {"name": name, "running": True, "synchronised": None, "detail": {}}
    try:
        if name == "chronyd":
            answer["detail"] = _probes.parse_tracking(need(["chronyc", "-n", "-c", "tracking"], timeout))
            answer["detail"]["sources"] = _probes.parse_sources(need(["chronyc", "-n", "-c", "sources"], timeout))
            answer["synchronised"] = _probes.chrony_synchronised(answer["detail"], answer["detail"]["sources"])
        elif name == "ntpd":
            answer["detail"] = _probes.parse_ntpq(need(["ntpq", "-n", "-c", "rv"], timeout))
            answer["synchronised"] = _probes.ntp_synchronised(answer["detail"])
        else:
            shown = _probes.parse_show(need(["timedatectl", "show"], timeout))
            answer["detail"] = shown[0] if shown else {}
            answer["synchronised"] = {"yes": True, "no": False}.get(str(answer["detail"].get("NTPSynchronized")))
    except (OSError, ValueError) as exc:
        answer["detail"]["error"] = str(exc)
    return answer


# doveconf hides what is a password by its setting, not one among the parameters of PostgreSQL.
SHOWN = re.compile(r"(?m)^(\s*password = )(?!# hidden).+")


def dovecot(timeout: float) -> dict[str, Any] | None:
    """Version and settings of Dovecot."""
    if _system.find_program("dovecot") is None:
        return None
    answer: dict[str, Any] = {"version": None, "conf": "", "error": None}
    try:
        words = need(["dovecot", "--version"], timeout).split()
        answer["version"] = words[0] if words else None
    except OSError as exc:
        answer["error"] = str(exc)
    doveconf = _system.find_program("doveconf")
    if doveconf is None:
        answer["error"] = "doveconf is not installed"
        return answer
    result = _system.run([doveconf, "-n"], timeout)
    answer["conf"] = SHOWN.sub(r"\1(hidden)", result.out)
    if result.rc != 0 or result.err.strip():
        answer["error"] = result.reason if result.rc != 0 else result.err.strip()
    who = _system.run([_system.find_program("doveadm") or "doveadm", "-f", "tab", "who", "-1"], timeout)
    # Without a running Dovecot there is nobody to ask.
    answer["sessions"] = dict(Counter(one.user for one in _sessions.parse_who(who.out))) if who.rc == 0 else {}
    if "\ndirector_servers" in result.out:
        try:
            answer["ring"] = json.loads(need(["doveadm", "-f", "json", "director", "ring", "status"], timeout))
            answer["ring_backends"] = json.loads(need(["doveadm", "-f", "json", "director", "status"], timeout))
        except (OSError, ValueError) as exc:
            answer["ring"] = {"error": str(exc)}
    return answer


def haproxy(path: str, timeout: float) -> dict[str, Any] | None:
    """HAProxy's servers."""
    if not path:
        return None
    version = _probes.parse_haproxy_info(_probes.ask_haproxy(path, "show info", timeout))
    return {"version": version, "servers": _probes.parse_haproxy_stat(_probes.ask_haproxy(path, "show stat", timeout))}


def units(names: list[str], timeout: float) -> dict[str, Any]:
    """Properties of systemd units."""
    if not names:
        return {}
    text = need(["systemctl", "show", "--no-pager", "-p", ",".join(UNIT_PROPERTIES), *names], timeout)
    shown = _probes.parse_show(text)
    if len(shown) != len(names):
        raise ValueError(f"systemctl show answered for {len(shown)} of {len(names)} units")
    for unit in shown:
        files = [unit.get("FragmentPath", ""), *unit.get("DropInPaths", "").split()]
        unit["Asserts"] = _probes.parse_assertions("\n".join(_system.read_text(path) or "" for path in files if path))
    return dict(zip(names, shown))


def hashes(paths: list[str]) -> dict[str, str | None]:
    """SHA-256 of files."""
    result: dict[str, str | None] = {}
    for path in paths:
        try:
            digest = hashlib.sha256()
            with open(path, "rb") as stream:
                for block in iter(lambda: stream.read(1 << 20), b""):
                    digest.update(block)
            result[path] = digest.hexdigest()
        except (FileNotFoundError, NotADirectoryError):
            result[path] = None
    return result


# ---- the module ----


def gather(params: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    """All parts at the same time, within the time there is."""
    start = time.monotonic()
    store = os.path.normpath(params["store"]) if params["store"] else ""
    server = params["export_server"]
    time_server = server if params["time_server"] is None else params["time_server"]
    whole = max(params["timeout"] - 1.5, 1.0)
    each = max(whole - 1.0, 0.5)
    parts: dict[str, Callable[[], Any]] = {
        "mounts": lambda: mounts(store),
        "kernel_settings": lambda: kernel_settings(params["kernel_settings"]),
        "packet_filter": lambda: packet_filter(each) if params["packet_filter"] else None,
        "log": lambda: log(params["log_unit"], params["log_patterns"], params["log_seconds"], each),
        "addresses": lambda: sorted(_host.parse_ip_addresses(need(["ip", "-oneline", "address", "show"], each))),
        "guard": lambda: guard(store),
        "nfsd": nfsd,
        "exports": lambda: exports(each),
        "lockd": lockd,
        "rpc": lambda: rpc("", each),
        "statd_monitored": statd_monitored,
        "locks": locks,
        "daemon": lambda: clock_daemon(each / 2),
        "dovecot": lambda: dovecot(each / 2),
        "haproxy": lambda: haproxy(params["haproxy_socket"], each / 2),
        "units": lambda: units(params["units"], each),
        "files": lambda: hashes(params["files"]),
    }
    if server:
        parts["rpc_server"] = lambda: rpc(server, each)
    if time_server:
        parts["ntp"] = lambda: clock_ntp(time_server, each)
    if store and not check_mode:
        parts["store"] = lambda: clock_store(store, params["mail_uid"], params["mail_gid"])
    answers = _system.collect_all({name: _system.start_child(part) for name, part in parts.items()}, whole)
    state: dict[str, Any] = {
        "hostname": os.uname().nodename,
        "kernel": os.uname().release,
        "now": time.time(),
        "rpc_server": None,
        "clock": {"ntp": None, "store": None, "daemon": None},
    }
    if store and check_mode:
        state["clock"]["store"] = {"error": "left out in check mode"}
    for name, answer in answers.items():
        value = answer
        if isinstance(answer, _system.Hung):
            value = {"error": f"hung: {answer}"}
        elif isinstance(answer, Exception):
            value = {"error": str(answer)}
        if isinstance(answer, Exception) and name == "ntp":
            value["server"] = time_server
        if name in state["clock"]:
            state["clock"][name] = value
        else:
            state[name] = value
    state["took_s"] = round(time.monotonic() - start, 2)
    return state


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "store": {"type": "str", "default": ""},
            "export_server": {"type": "str", "default": ""},
            "time_server": {"type": "str"},
            "mail_uid": {"type": "int", "default": 0},
            "mail_gid": {"type": "int", "default": 0},
            "haproxy_socket": {"type": "str", "default": ""},
            "log_unit": {"type": "str", "default": ""},
            "log_patterns": {"type": "dict", "default": {}},
            "log_seconds": {"type": "int", "default": 86400},
            "packet_filter": {"type": "bool", "default": False},
            "kernel_settings": {"type": "list", "elements": "str", "default": []},
            "units": {"type": "list", "elements": "str", "default": []},
            "files": {"type": "list", "elements": "str", "default": []},
            "timeout": {"type": "int", "default": 30},
        },
        supports_check_mode=True,
    )
    module.exit_json(changed=False, state=gather(module.params, module.check_mode))


if __name__ == "__main__":
    main()
