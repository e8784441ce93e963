# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Live machines: a sound one is all ok; each defect is found, by its id and level."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from ansible_collections.nfsmail.cluster.plugins.plugin_utils import routing
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.errors import NfsmailError
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.judge import (
    CHECKS,
    Answer,
    Live,
    all_answers,
    as_report,
    as_table,
    findings,
    host_answers,
)
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.log_signs import SIGNS
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.matrix import mount_options, plan_findings
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.profile import parse_profile
from brain_samples import HUGE, JSON
from hypothesis import given
from hypothesis import strategies as st

PROFILE = {"topology": "per_user", "nfs_version": "3"}
EXPORT_OPTIONS = ["rw", "sync", "root_squash", "no_subtree_check", "sec=sys", "anonuid=5000", "anongid=5000"]
SHARED = ["/etc/dovecot/nfsmail-shards", "/etc/dovecot/nfsmail-overrides"]
PLANS: dict[str, dict[str, Any]] = {
    "nfs_server": {
        "kind": "nfs_server",
        "profile": PROFILE,
        "exports": [
            {"path": "/srv/mail", "client": client, "options": EXPORT_OPTIONS}
            for client in ("192.0.2.11", "192.0.2.12")
        ],
        "nfsd": {"threads": 16, "grace-time": 90, "lease-time": 90},
    },
    "backend": {
        "kind": "backend",
        "profile": PROFILE,
        "store": "/srv/mail",
        "mount_options": mount_options(PROFILE),
        "firewall": {
            "ports": [24, 110, 143],
            "logins": [110, 143],
            "ipv4": ["192.0.2.21", "198.51.100.0/24"],
            "ipv6": [],
        },
        "clock_server": "nfs1",
    },
    "proxy": {"kind": "proxy", "profile": PROFILE, "files": SHARED, "clock_server": "nfs1"},
    "balancer": {
        "kind": "balancer",
        "servers": [
            {"name": "mail1", "address": "192.0.2.11"},
            {"name": "mail2", "address": "192.0.2.12", "state": "drained"},
            {"name": "mail3", "address": "192.0.2.13", "state": "down"},
            {"name": "mail4", "address": "192.0.2.14", "weight": 0},
        ],
        "clock_server": "nfs1",
    },
}

NTP = {"server": "nfs1", "offset": 0.002, "error_bound": 0.01, "stratum": 10, "leap": 0}
DAEMON = {"name": "chronyd", "running": True, "synchronised": True, "detail": {}}
RPC = [
    {"program": 100021, "version": 4, "proto": "tcp", "port": 4045, "name": "nlockmgr"},
    {"program": 100024, "version": 1, "proto": "udp", "port": 4046, "name": "status"},
]
CONF = """# 2.3.19.1 (9b53102964): /etc/dovecot/dovecot.conf
mail_fsync = always
mmap_disable = yes
protocols = imap lmtp
"""
# As a Linux 6.1 client shows them (mountinfo and mountstats).
IN_EFFECT = (
    "rw,nosuid,nodev,noexec,noatime,vers=3,rsize=1048576,wsize=1048576,namlen=255,acregmin=60,acregmax=60,acdirmin=60,"
    "acdirmax=60,hard,nordirplus,proto=tcp,timeo=600,retrans=2,sec=sys,mountaddr=192.0.2.1,mountvers=3,mountport=20048,"
    "mountproto=tcp,lookupcache=pos,local_lock=none"
).split(",")
SHOWN_EXPORT = (
    "sync,wdelay,hide,no_subtree_check,anonuid=5000,anongid=5000,sec=sys,rw,secure,root_squash,no_all_squash".split(",")
)
STATES: dict[str, dict[str, Any]] = {
    "nfs_server": {
        "hostname": "nfs1",
        "mounts": [],
        "guard": None,
        "nfsd": {"versions": ["3"], "threads": 16, "lease": 90, "grace": 90, "listeners": []},
        "exports": [
            {"path": "/srv/mail", "client": client, "options": SHOWN_EXPORT} for client in ("192.0.2.11", "192.0.2.12")
        ],
        "rpc": RPC,
        "rpc_server": None,
        # In an isolated cluster the server that all follow has no source of its own.
        "clock": {"ntp": None, "store": None, "daemon": {**DAEMON, "synchronised": None}},
        "dovecot": None,
        "units": {"nfs-server.service": {"DropInPaths": "/etc/systemd/system/nfs-server.service.d/nfsmail.conf"}},
    },
    "backend": {
        "hostname": "mail1",
        "mounts": [
            {"path": "/srv/mail", "source": "systemd-1", "fstype": "autofs", "options": ["rw"]},
            {"path": "/srv/mail", "source": "nfs1:/srv/mail", "fstype": "nfs", "options": IN_EFFECT},
        ],
        "kernel_settings": {"sunrpc.max_resvport": "992"},
        "packet_filter": {"ports": [24, 110, 143], "ipv4": ["192.0.2.21", "198.51.100.0/24"], "ipv6": []},
        "guard": {
            "path": "/srv/mail",
            "exists": True,
            "mode": "0555",
            "uid": 0,
            "gid": 0,
            "immutable": True,
            "marker": True,
            "foreign_entries": [],
            "foreign_count": 0,
        },
        "rpc": RPC,
        "rpc_server": RPC,
        "clock": {
            "ntp": NTP,
            "store": {"offset_min": -0.01, "offset_max": 0.02, "tries": 5, "exclusive": True, "links": True},
            "daemon": DAEMON,
        },
        "dovecot": {"version": "2.3.19.1", "conf": CONF, "error": None},
        "log": {},
        "addresses": ["127.0.0.1", "192.0.2.111"],
        "units": {
            "dovecot.service": {
                "ActiveState": "active",
                "RequiresMountsFor": "/srv/mail /var/run",
                "After": "time-sync.target network.target",
                "Asserts": ["AssertPathIsMountPoint=/srv/mail"],
            }
        },
        "files": {},
    },
    "proxy": {
        "hostname": "proxy1",
        "clock": {"ntp": NTP, "store": None, "daemon": DAEMON},
        "dovecot": {"version": "2.3.19.1", "conf": "", "error": None},
        "units": {"dovecot.service": {"ActiveState": "active"}},
        "files": dict.fromkeys(SHARED, "0" * 64),
    },
    "balancer": {
        "hostname": "balancer1",
        "clock": {"ntp": NTP, "store": None, "daemon": DAEMON},
        "units": {"haproxy.service": {"ActiveState": "active"}},
        "haproxy": {
            "version": "2.6.12-1+deb12u4",
            "servers": [
                {"section": section, "server": name, "status": status, "weight": 256, "id": 7, "check": "L7OK"}
                for section in ("clients", "lmtp")
                for name, status in zip(("mail1", "mail2", "mail3", "mail4"), ("UP", "DRAIN", "MAINT", "DRAIN"))
            ],
        },
    },
}
ASKED = {
    "nfs_server": ["NFS314", "NFS315", "NFS332", "NFS309", "NFS319", "NFS308"],
    "backend": [
        *("NFS303", "NFS304", "NFS324", "NFS325", "NFS305", "NFS306", "NFS307", "NFS308"),
        *("NFS329", "NFS309", "NFS310", "NFS312", "NFS311", "NFS328", "NFS313"),
    ],
    "proxy": ["NFS306", "NFS308", "NFS312"],
    "balancer": ["NFS306", "NFS308", "NFS321", "NFS322"],
}

State = dict[str, Any]


def judged(kind: str, state: Any, **plan: Any) -> list[Answer]:
    return host_answers("host1", {**PLANS[kind], **plan}, state)


def bad(answers: list[Answer]) -> list[tuple[str, str]]:
    return [(row.id, row.level) for row in answers if row.level != "ok"]


def detail(answers: list[Answer], id: str) -> str:
    (row,) = [row for row in answers if row.id == id]
    return row.detail


@pytest.mark.parametrize("kind", PLANS)
def test_a_sound_machine(kind: str) -> None:
    answers = judged(kind, STATES[kind])
    assert bad(answers) == []
    assert [row.id for row in answers] == ASKED[kind]
    assert all(row.host == "host1" and row.detail and not row.fix and row.source for row in answers)


@pytest.mark.parametrize("version", ["4.0", "4.2"])
def test_nfs_4_needs_no_lock_services(version: str) -> None:
    profile = {**PROFILE, "nfs_version": version}
    server = copy.deepcopy(STATES["nfs_server"]) | {"rpc": None, "units": {}}
    server["nfsd"]["versions"] = [version]
    assert bad(judged("nfs_server", server, profile=profile)) == []
    backend = copy.deepcopy(STATES["backend"]) | {"rpc": None, "rpc_server": None}
    backend["mounts"][1]["options"] = [
        option for option in IN_EFFECT if not option.startswith(("vers", "mount", "local", "nordir"))
    ] + [f"vers={version}"]
    options = mount_options(profile)
    assert bad(judged("backend", backend, profile=profile, mount_options=options)) == []


def test_without_lockd_nobody_asks_for_it() -> None:
    profile = {**PROFILE, "lockd": False}
    state = copy.deepcopy(STATES["backend"]) | {"rpc": None, "rpc_server": None}
    state["dovecot"]["conf"] += "lock_method = dotlock\n"
    state["mounts"][1]["options"] = [*IN_EFFECT[:-1], "nolock", "local_lock=all"]
    assert bad(judged("backend", state, profile=profile, mount_options=mount_options(profile))) == []


def put(*path: Any, value: Any) -> Callable[[State], None]:
    """A change of one value deep in a state."""

    def change(state: State) -> None:
        inner: Any = state
        for step in path[:-1]:
            inner = inner[step]
        inner[path[-1]] = value

    return change


def options(**changes: str) -> Callable[[State], None]:
    """Mount options in effect with some replaced; an empty text takes one away."""

    def change(state: State) -> None:
        kept = [option for option in IN_EFFECT if option.partition("=")[0] not in changes]
        state["mounts"][1]["options"] = kept + [option for option in changes.values() if option]

    return change


def conf(line: str) -> Callable[[State], None]:
    return put("dovecot", "conf", value=CONF + line)


UNIT = ("units", "dovecot.service")
NTP_PATH, STORE_CLOCK, TIME_DAEMON = ("clock", "ntp"), ("clock", "store"), ("clock", "daemon")
BACKEND_DEFECTS: dict[str, tuple[Callable[[State], None], str, str, str]] = {
    "not mounted": (put("mounts", value=[]), "NFS303", "error", "/srv/mail is not mounted"),
    "mounted elsewhere": (put("mounts", 1, "path", value="/mnt"), "NFS303", "error", "systemd-1 as autofs"),
    "a local disk": (put("mounts", 1, "fstype", value="ext4"), "NFS303", "error", "as ext4"),
    "soft": (options(hard="soft"), "NFS304", "error", "hard is soft, wanted hard"),
    "attribute cache off": (options(acregmax="acregmax=0"), "NFS304", "error", "acregmax is 0, wanted 60"),
    "another version": (options(vers="vers=4.2"), "NFS304", "error", "vers is 4.2, wanted 3"),
    "local locks": (options(local_lock="local_lock=all"), "NFS304", "error", "local_lock is all, wanted none"),
    "lookup cache": (options(lookupcache=""), "NFS304", "error", "lookupcache is all, wanted positive"),
    "set-user-id": (options(nosuid=""), "NFS304", "error", "nosuid is suid"),
    "ports of mail services": (
        put("kernel_settings", "sunrpc.max_resvport", value="1023"),
        "NFS324",
        "warning",
        "sunrpc.max_resvport is 1023, wanted 992",
    ),
    "module not loaded": (put("kernel_settings", value={}), "NFS324", "warning", "sunrpc.max_resvport is unknown"),
    "ports open": (put("packet_filter", value=None), "NFS325", "error", "open to all"),
    "no rule": (put("packet_filter", value={}), "NFS325", "error", "open to all"),
    "open to one more": (
        put("packet_filter", "ipv4", value=["192.0.2.21", "198.51.100.0/24", "192.0.2.99"]),
        "NFS325",
        "error",
        "ipv4 192.0.2.21 198.51.100.0/24 192.0.2.99, wanted 192.0.2.21 198.51.100.0/24",
    ),
    "a port open": (
        put("packet_filter", "ports", value=[110, 143]),
        "NFS325",
        "error",
        "ports 110 143, wanted 24 110 143",
    ),
    "files made twice": (put("clock", "store", "exclusive", value=False), "NFS329", "error", "O_EXCL fail"),
    "links over files": (put("clock", "store", "links", value=False), "NFS329", "error", "link() fail"),
    "a sign in the log": (
        put("log", value={"no locks": {"count": 3, "last": "fcntl(x) locking failed: No locks available"}}),
        "NFS328",
        "error",
        "the NFS server grants no locks: 3 lines, the last: fcntl(x)",
    ),
    "a small sign in the log": (
        put("log", value={"slow locks": {"count": 1, "last": "Locking transaction log file x took 31 seconds"}}),
        "NFS328",
        "warning",
        "the NFS server is slow: 1 lines",
    ),
    "no journal": (put("log", value={"error": "journalctl is not installed"}), "NFS328", "warning", "not installed"),
    "guard writable": (put("guard", "mode", value="0755"), "NFS305", "error", "mode 0755"),
    "guard not root's": (put("guard", "uid", value=5000), "NFS305", "error", "mode 0555, marked"),
    "guard not marked": (put("guard", "marker", value=False), "NFS305", "error", "not marked"),
    "guard unreadable": (put("guard", value={"error": "timed out"}), "NFS305", "warning", "timed out"),
    "guard unknown": (put("guard", value=None), "NFS305", "warning", "unknown"),
    "clock ahead": (put(*NTP_PATH, "offset", value=-1.2), "NFS306", "error", "-1.200 s"),
    "clock behind": (put(*NTP_PATH, "offset", value=1.0), "NFS306", "error", "+1.000 s"),
    "clock badly known": (put(*NTP_PATH, "error_bound", value=2), "NFS306", "error", "known to 2.000 s"),
    "clock not a number": (put(*NTP_PATH, "offset", value=float("nan")), "NFS306", "error", "nan"),
    "no time server": (put(*NTP_PATH, value={"error": "no answer"}), "NFS306", "error", "no answer"),
    "time server not asked": (put(*NTP_PATH, value=None), "NFS306", "error", "not measured"),
    "file times behind": (put(*STORE_CLOCK, "offset_max", value=1.5), "NFS307", "error", "+0.745 s"),
    "file times unknown": (put(*STORE_CLOCK, value={"error": "EACCES"}), "NFS307", "error", "EACCES"),
    "time daemon stopped": (put(*TIME_DAEMON, "running", value=False), "NFS308", "error", "chronyd, stopped"),
    "time daemon not in step": (put(*TIME_DAEMON, "synchronised", value=False), "NFS308", "error", "not in step"),
    "no lockd": (put("rpc", value=RPC[1:]), "NFS309", "error", "missing: lockd"),
    "no statd": (put("rpc", value=RPC[:1]), "NFS309", "error", "missing: statd"),
    "no rpcbind": (put("rpc", value={"error": "refused"}), "NFS309", "error", "refused"),
    "rpc unknown": (put("rpc", value=None), "NFS309", "error", "rpcbind did not answer"),
    "no lockd on the server": (put("rpc_server", value=[]), "NFS310", "error", "missing: lockd, statd"),
    "mmap": (conf("mmap_disable = no\n"), "NFS311", "error", "mmap_disable is no, wanted yes"),
    "cache flush": (conf("mail_nfs_index = yes\n"), "NFS311", "error", "mail_nfs_index is yes, wanted no"),
    "lock files": (conf("lock_method = dotlock\n"), "NFS311", "error", "lock_method is dotlock, wanted fcntl"),
    "defaults of Dovecot": (put("dovecot", "conf", value="a = b"), "NFS311", "error", "mmap_disable is no, wanted yes"),
    "conf unreadable": (put("dovecot", "conf", value="}"), "NFS311", "error", "a closing bracket without a section"),
    "doveconf fails": (
        put("dovecot", value={"version": "2.3.19.1", "conf": "", "error": "Fatal: x\ny"}),
        "NFS311",
        "error",
        "Fatal: x",
    ),
    "Dovecot stopped": (put(*UNIT, "ActiveState", value="failed"), "NFS312", "error", "2.3.19.1, not running"),
    "mount not required": (
        put(*UNIT, "RequiresMountsFor", value=""),
        "NFS313",
        "error",
        "RequiresMountsFor lacks /srv/mail",
    ),
    "another mount required": (
        put(*UNIT, "RequiresMountsFor", value="/srv/mail2"),
        "NFS313",
        "error",
        "RequiresMountsFor lacks /srv/mail",
    ),
    "clock not waited for": (
        put(*UNIT, "After", value="network.target"),
        "NFS313",
        "error",
        "After lacks time-sync.target",
    ),
    "no assertion": (put(*UNIT, "Asserts", value=[]), "NFS313", "error", "no AssertPathIsMountPoint=/srv/mail"),
}


@pytest.mark.parametrize("defect", BACKEND_DEFECTS)
def test_a_defect_of_a_backend(defect: str) -> None:
    change, id, level, shown = BACKEND_DEFECTS[defect]
    state = copy.deepcopy(STATES["backend"])
    change(state)
    answers = judged("backend", state)
    assert (id, level) in bad(answers)
    assert {row for row, _ in bad(answers)} <= {id, "NFS304"}, "one defect, one finding"
    assert shown in detail(answers, id)
    (row,) = [row for row in answers if row.id == id]
    assert row.what == CHECKS[id].what
    # A line of a log has a way out of its own.
    assert (row.fix == CHECKS[id].fix) == (not row.detail.startswith(tuple(sign.what for sign in SIGNS)))


def test_dovecot_not_installed() -> None:
    state = copy.deepcopy(STATES["backend"]) | {"dovecot": None, "units": {}}
    assert bad(judged("backend", state)) == [("NFS312", "error"), ("NFS313", "error")]


def test_a_guard_with_mail_below_the_mount_tells_of_it() -> None:
    state = copy.deepcopy(STATES["backend"])
    state["guard"] |= {"mode": "0755", "foreign_entries": ["example.com"], "foreign_count": 1}
    assert "other files there: example.com" in detail(judged("backend", state), "NFS305")


SERVER_DEFECTS: dict[str, tuple[Callable[[State], None], str, str]] = {
    "not exported": (put("exports", value=STATES["nfs_server"]["exports"][:1]), "NFS314", "192.0.2.12"),
    "nothing exported": (put("exports", value=[]), "NFS314", "/srv/mail for 192.0.2.11: wanted exported"),
    "async": (
        put("exports", 0, "options", value=["rw", "async", *SHOWN_EXPORT[2:]]),
        "NFS314",
        "wanted sync, found async",
    ),
    "read-only": (
        put("exports", 1, "options", value=[option if option != "rw" else "ro" for option in SHOWN_EXPORT]),
        "NFS314",
        "for 192.0.2.12: wanted rw, found ro",
    ),
    "root": (
        put("exports", 0, "options", value=[*SHOWN_EXPORT[:-2], "no_root_squash"]),
        "NFS314",
        "wanted root_squash, found no_root_squash",
    ),
    "another mail user": (
        put("exports", 0, "options", value=["anonuid=65534", *(o for o in SHOWN_EXPORT if "anonuid" not in o)]),
        "NFS314",
        "wanted anonuid=5000, found anonuid=65534",
    ),
    "exported to the world": (
        put(
            "exports", value=[*STATES["nfs_server"]["exports"], {"path": "/srv/mail", "client": "*", "options": ["rw"]}]
        ),
        "NFS314",
        "exported to the whole world",
    ),
    "exportfs failed": (put("exports", value={"error": "timed out"}), "NFS314", "timed out"),
    "no exportfs": (put("exports", value=None), "NFS314", "exportfs did not answer"),
    "another version": (put("nfsd", "versions", value=["4.2"]), "NFS315", "4.2, 16 threads"),
    "no threads": (put("nfsd", "threads", value=0), "NFS315", "3, 0 threads"),
    "threads unknown": (put("nfsd", "threads", value=None), "NFS315", "3, None threads"),
    "no nfsd": (put("nfsd", value=None), "NFS315", "none, 0 threads"),
    "nfsd unreadable": (put("nfsd", value={"error": "x"}), "NFS315", "none, 0 threads"),
    "no lockd": (put("rpc", value=RPC[1:]), "NFS309", "missing: lockd"),
    "locks not kept": (put("units", "nfs-server.service", "DropInPaths", value=""), "NFS319", "drops all locks"),
    "unit unknown": (put("units", value={}), "NFS319", "drops all locks"),
    "time daemon stopped": (put(*TIME_DAEMON, "running", value=False), "NFS308", "stopped"),
}


@pytest.mark.parametrize("defect", SERVER_DEFECTS)
def test_a_defect_of_a_server(defect: str) -> None:
    change, id, shown = SERVER_DEFECTS[defect]
    state = copy.deepcopy(STATES["nfs_server"])
    change(state)
    answers = judged("nfs_server", state)
    assert bad(answers) == [(id, "error")]
    assert shown in detail(answers, id)


def test_a_lease_that_is_not_the_planned_one() -> None:
    state = copy.deepcopy(STATES["nfs_server"])
    put("nfsd", "lease", value=45)(state)
    answers = judged("nfs_server", state)
    assert bad(answers) == [("NFS332", "warning")] and detail(answers, "NFS332") == "lease 45 s, wanted 90 s"


def test_options_that_exportfs_does_not_show_are_no_defect() -> None:
    plan = copy.deepcopy(PLANS["nfs_server"]["exports"])
    plan[0]["options"] = [*EXPORT_OPTIONS, "secure_locks", "acl", "no_pnfs"]
    assert bad(judged("nfs_server", STATES["nfs_server"], exports=plan)) == []


def test_a_host_is_the_same_client_in_capitals() -> None:
    plan = [{"path": "/srv/mail", "client": "Mail1.Example.com", "options": ["rw"]}]
    live = [{"path": "/srv/mail", "client": "mail1.example.com", "options": SHOWN_EXPORT}]
    assert bad(judged("nfs_server", STATES["nfs_server"] | {"exports": live}, exports=plan)) == []


@pytest.mark.parametrize(
    ("change", "id"),
    [
        (put("units", "dovecot.service", "ActiveState", value="inactive"), "NFS312"),
        (put(*NTP_PATH, "offset", value=3), "NFS306"),
        (put(*TIME_DAEMON, value={}), "NFS308"),
        (put("clock", value={"error": "x"}), "NFS308"),
    ],
)
def test_a_defect_of_a_proxy(change: Callable[[State], None], id: str) -> None:
    state = copy.deepcopy(STATES["proxy"])
    change(state)
    assert (id, "error") in bad(judged("proxy", state))


HAPROXY = ("haproxy", "servers")


@pytest.mark.parametrize(
    ("change", "id", "shown"),
    [
        (put("units", "haproxy.service", "ActiveState", value="failed"), "NFS321", "not running"),
        (put(*TIME_DAEMON, value={}), "NFS308", "stopped"),
        (put(*HAPROXY, 0, "status", value="DOWN"), "NFS322", "clients/mail1 is DOWN (L7OK), wanted UP"),
        (put(*HAPROXY, 5, "status", value="UP"), "NFS322", "lmtp/mail2 is UP (L7OK), wanted DRAIN"),
        (put(*HAPROXY, 6, "status", value="UP"), "NFS322", "lmtp/mail3 is UP (L7OK), wanted MAINT"),
        (put(*HAPROXY, 3, "server", value="mail9"), "NFS322", "clients/mail4 is missing; clients/mail9 is not in the"),
        (put(*HAPROXY, value=[]), "NFS322", "HAProxy names no server"),
        (put("haproxy", value={"error": "admin.sock: No such file"}), "NFS322", "admin.sock: No such file"),
    ],
)
def test_a_defect_of_a_balancer(change: Callable[[State], None], id: str, shown: str) -> None:
    state = copy.deepcopy(STATES["balancer"])
    change(state)
    answers = judged("balancer", state)
    assert bad(answers) == [(id, "error")]
    assert shown in detail(answers, id)


# ---- states that are no states ----


@pytest.mark.parametrize("kind", PLANS)
@pytest.mark.parametrize("state", [None, {}, [], ""])
def test_no_answer(kind: str, state: Any) -> None:
    (row,) = judged(kind, state)
    assert (row.id, row.level, row.detail) == ("NFS301", "error", "no answer")


@pytest.mark.parametrize("kind", PLANS)
def test_every_part_that_failed_is_an_error(kind: str) -> None:
    needed = {
        "nfs_server": ("nfsd", "exports", "rpc", "clock", "units"),
        "backend": ("mounts", "rpc", "rpc_server", "clock", "dovecot", "units"),
        "proxy": ("clock", "dovecot", "units"),
        "balancer": ("clock", "haproxy", "units"),
    }
    for part in needed[kind]:
        for value in ({"error": "timed out"}, None):
            if (kind, part, value) == ("proxy", "dovecot", {"error": "timed out"}):
                continue  # it runs, and of its settings the matrix owns none
            state = {**STATES[kind], part: value}
            levels = {level for _, level in bad(judged(kind, state))}
            if not (part == "dovecot" and value is None):
                assert "error" in levels, (part, value)
    state = dict.fromkeys(STATES[kind], {"error": "timed out"})
    assert "error" in {row.level for row in judged(kind, state)}


@pytest.mark.parametrize("kind", PLANS)
@given(state=JSON)
def test_any_answer_is_judged(kind: str, state: Any) -> None:
    answers = judged(kind, state)
    assert answers
    if not isinstance(state, dict) or not set(state) & set(STATES[kind]):
        assert not as_report(answers)["good"]
    assert as_table(answers)


NUMBERS = st.sampled_from([HUGE, float("inf"), float("nan"), -1, True, "7", ""])


@given(data=st.data(), kind=st.sampled_from(sorted(PLANS)))
def test_a_state_with_any_part_replaced_is_judged(data: st.DataObject, kind: str) -> None:
    state = copy.deepcopy(STATES[kind])
    inner: Any = state
    # Walk to any place in the state, and put anything there.
    for _ in range(data.draw(st.integers(0, 3))):
        keys = list(inner) if isinstance(inner, dict) else list(range(len(inner))) if isinstance(inner, list) else []
        key = data.draw(st.sampled_from(keys)) if keys else None
        if key is None or not isinstance(inner[key], (dict, list)):
            break
        inner = inner[key]
    keys = list(inner) if isinstance(inner, dict) else list(range(len(inner)))
    if keys:
        inner[data.draw(st.sampled_from(keys))] = data.draw(JSON | NUMBERS)
    answers = judged(kind, state)
    assert {row.level for row in answers} <= {"ok", "error", "warning", "info"}
    assert all(isinstance(row.detail, str) for row in answers)
    read = [Live("a", kind, {"plan": PLANS[kind], "state": state, "lock": data.draw(JSON)})]
    assert as_table(all_answers(read))


# ---- machines together ----

LOCKED = {
    "holder": "mail1",
    "tried": {"granted": False, "errno": "EAGAIN"},
    "waited": {"granted": True, "errno": None, "waited_s": 0.25},
}


def cluster(**changes: dict[str, Any]) -> list[Live]:
    """nfs1, mail1, mail2, proxy1, proxy2, balancer1 and balancer2, all sound; ``changes`` to a host's fact."""
    facts: dict[str, tuple[str, dict[str, Any]]] = {
        "nfs1": ("nfs_server", {}),
        "mail1": ("backend", {}),
        "mail2": ("backend", {"lock": LOCKED}),
        "proxy1": ("proxy", {}),
        "proxy2": ("proxy", {}),
        "balancer1": ("balancer", {}),
        "balancer2": ("balancer", {}),
    }
    return [
        Live(
            host,
            kind,
            {"plan": PLANS[kind], "state": {**STATES[kind], "hostname": host}, **more, **changes.get(host, {})},
        )
        for host, (kind, more) in facts.items()
    ]


def test_a_sound_cluster() -> None:
    answers = all_answers(cluster())
    assert bad(answers) == []
    assert {row.id for row in answers} == set(CHECKS) - {"NFS301", "NFS326", "NFS330", "NFS331"}
    assert detail(answers, "NFS302") == "7 machines"
    assert detail(answers, "NFS316") == "mail1 holds it: EAGAIN"
    assert detail(answers, "NFS317") == "mail1 let go: granted after 0.2 s"
    assert [row.detail for row in answers if row.id == "NFS318"] == [f"{path}: same on 2" for path in sorted(SHARED)]


@pytest.mark.parametrize(
    ("change", "shown"),
    [
        (put("haproxy", "version", value="2.2.9-2+deb11u7"), None),
        (
            put("haproxy", "version", value="3.0.11-1+deb13u5"),
            "balancer2 differ from balancer1: another way of hashing",
        ),
        (put(*HAPROXY, 0, "id", value=8), "balancer2 differ from balancer1: servers"),
        (put(*HAPROXY, 0, "weight", value=8), "balancer2 differ from balancer1: servers"),
    ],
)
def test_balancers_that_place_clients_differently(change: Callable[[State], None], shown: str | None) -> None:
    state = copy.deepcopy(STATES["balancer"]) | {"hostname": "balancer2"}
    change(state)
    answers = all_answers(cluster(balancer2={"state": state}))
    assert bad(answers) == ([("NFS323", "warning")] if shown else [])
    assert (shown or "same on 2") in detail(answers, "NFS323")


def with_sessions(users: dict[str, int]) -> State:
    return {**STATES["backend"], "dovecot": {**STATES["backend"]["dovecot"], "sessions": users}}


def test_a_user_on_two_backends() -> None:
    def told(second: dict[str, int]) -> list[Answer]:
        return all_answers(
            cluster(
                mail1={"state": with_sessions({"anna@x": 2, "bob@x": 1})},
                mail2={"state": {**with_sessions(second), "hostname": "mail2"}},
            )
        )

    apart = told({"carl@x": 1})
    assert bad(apart) == [] and detail(apart, "NFS327") == "3 users on 2 backends"
    twice = told({"Anna@x": 1})
    assert bad(twice) == [("NFS327", "error")] and detail(twice, "NFS327") == "anna@x on mail1 and mail2"


@pytest.mark.parametrize(
    ("first", "second", "told"),
    [
        (["192.0.2.111"], ["192.0.2.112"], []),
        ([], ["192.0.2.111", "192.0.2.112"], [("NFS331", "warning")]),
        (["192.0.2.111"], ["192.0.2.111", "192.0.2.112"], [("NFS331", "error")]),
        (["192.0.2.111"], [], [("NFS331", "error")]),
    ],
)
def test_where_service_addresses_are(first: list[str], second: list[str], told: list[tuple[str, str]]) -> None:
    answers = all_answers(
        cluster(
            **{
                host: {
                    "state": {**STATES["backend"], "hostname": host, "addresses": addresses},
                    "plan": {**PLANS["backend"], "service_address": f"192.0.2.11{number}"},
                }
                for number, (host, addresses) in enumerate((("mail1", first), ("mail2", second)), 1)
            }
        )
    )
    assert bad(answers) == told


def test_a_move_that_was_not_finished() -> None:
    def told(text: str) -> list[tuple[str, str]]:
        files = {**STATES["proxy"]["files"], "/m": hashlib.sha256(text.encode()).hexdigest()}
        state = {**STATES["proxy"], "files": files}
        return bad(judged("proxy", state, moving="/m"))

    assert told(routing.NOBODY_MOVES) == []
    assert told(routing.NOBODY_MOVES + "imap/a@x:::::::proxy=y\n") == [("NFS326", "warning")]


def test_two_machines_with_one_name() -> None:
    answers = all_answers(cluster(mail2={"state": {**STATES["backend"], "hostname": "MAIL1.example.com"}}))
    assert bad(answers) == [("NFS302", "error")]
    assert detail(answers, "NFS302") == "mail1: host name of mail1, mail2"


@pytest.mark.parametrize(
    "files", [{SHARED[0]: "1" * 64, SHARED[1]: "0" * 64}, {SHARED[0]: None, SHARED[1]: "0" * 64}, {SHARED[1]: "0" * 64}]
)
def test_shard_maps_that_differ(files: dict[str, Any]) -> None:
    answers = all_answers(cluster(proxy2={"state": {**STATES["proxy"], "hostname": "proxy2", "files": files}}))
    assert bad(answers) == [("NFS318", "error")]


@pytest.mark.parametrize("files", [{"error": "timed out"}, None, [], "x"])
def test_shard_maps_that_could_not_be_read(files: Any) -> None:
    answers = all_answers(cluster(proxy2={"state": {**STATES["proxy"], "hostname": "proxy2", "files": files}}))
    assert bad(answers) == [("NFS318", "error")] * 2


def test_a_file_that_no_proxy_has() -> None:
    state = {**STATES["proxy"], "files": dict.fromkeys(SHARED)}
    answers = all_answers(
        cluster(proxy1={"state": {**state, "hostname": "a"}}, proxy2={"state": {**state, "hostname": "b"}})
    )
    assert bad(answers) == [("NFS318", "error")] * 2


@pytest.mark.parametrize(
    ("lock", "ids", "shown"),
    [
        (
            {"tried": {"granted": True}},
            ["NFS316"],
            "mail1 holds it: granted: two machines hold one lock",
        ),
        ({"tried": {"granted": False, "errno": "ENOLCK"}}, ["NFS316"], "mail1 holds it: ENOLCK"),
        ({"tried": {"granted": False, "errno": "EACCES"}}, [], "mail1 holds it: EACCES"),
        ({"tried": {}}, ["NFS316"], "mail1 holds it: no answer"),
        ({"tried": None}, ["NFS316"], "mail1 holds it: no answer"),
        ({"tried": "unreachable"}, ["NFS316"], "mail1 holds it: no answer"),
        ({"waited": {"granted": False, "errno": "ETIMEDOUT"}}, ["NFS317"], "mail1 let go: ETIMEDOUT"),
        ({"waited": {"granted": True}}, ["NFS317"], "mail1 let go: no answer"),
        ({"waited": None}, ["NFS317"], "mail1 let go: no answer"),
        ({"waited": [1]}, ["NFS317"], "mail1 let go: no answer"),
    ],
)
def test_locks_between_machines(lock: dict[str, Any], ids: list[str], shown: str) -> None:
    answers = all_answers(cluster(mail2={"lock": {**LOCKED, **lock}}))
    assert bad(answers) == [(id, "error") for id in ids]
    assert shown in [row.detail for row in answers if row.host == "mail2"]


def test_without_lockd_no_lock_is_expected_to_reach_the_other_machines() -> None:
    granted = {**LOCKED, "tried": {"granted": True}}
    plan = {**PLANS["backend"], "profile": {**PROFILE, "lockd": False}}
    answers = all_answers(cluster(mail2={"lock": granted, "plan": plan}))
    assert not [row for row in answers if row.id in ("NFS316", "NFS317")]


@pytest.mark.parametrize("fact", [{}, {"plan": {}, "state": {}}, {"plan": PLANS["backend"], "state": None}])
def test_a_machine_that_did_not_answer(fact: dict[str, Any]) -> None:
    (row,) = [row for row in all_answers([Live("mail9", "backend", fact)]) if row.id == "NFS301"]
    assert (row.host, row.level, row.detail) == ("mail9", "error", "no answer")


# ---- findings, report and table ----


def test_findings_of_a_plan_and_a_live_machine() -> None:
    plan = {key: value for key, value in PLANS["backend"].items() if key not in ("kind", "profile")}
    state = {**STATES["backend"], "mounts": []}
    profile = {**PROFILE, "delivery": "lda"}
    found = findings(profile, {"host": "mail1", "plan": plan, "state": state})
    assert [row["id"] for row in found] == ["NFS211", "NFS225", "NFS303"]
    assert found[2]["message"] == "mail store is a mount: /srv/mail is not mounted"
    assert all(list(row) == ["id", "level", "message", "fix", "source"] and all(row.values()) for row in found)
    assert findings(parse_profile(profile), {"plan": plan, "state": state}) == found
    assert findings(profile) == plan_findings(profile)


def test_findings_of_the_bare_state_of_a_host() -> None:
    """What host_state returned is enough: the store is the NFS mount, the options are those of the profile."""
    assert findings(PROFILE, STATES["backend"]) == []
    soft = copy.deepcopy(STATES["backend"])
    soft["mounts"][1]["options"] = ["soft" if option == "hard" else option for option in IN_EFFECT]
    assert [(row["id"], row["level"]) for row in findings(PROFILE, soft)] == [("NFS304", "error")]
    # Only what is there is judged.
    dovecot = {"version": "2.4.1", "conf": "dovecot_config_version = 2.4.1\nmail_home = /srv/%d/%n\n"}
    found = findings(PROFILE, {"dovecot": dovecot, "units": STATES["backend"]["units"]})
    assert [row["id"] for row in found] == ["NFS311", "NFS405"]
    assert findings(PROFILE, {}) != [] and findings(PROFILE, None) == []


@pytest.mark.parametrize("observed", ["state", [], 3, True])
def test_a_state_is_a_mapping(observed: Any) -> None:
    with pytest.raises(NfsmailError, match="the state of a host"):
        findings(PROFILE, observed)


def test_settings_in_effect_are_judged_by_the_matrix() -> None:
    state = copy.deepcopy(STATES["backend"])
    state["dovecot"]["conf"] += "mail_location = maildir:~/M:CONTROL=/var/c/%u\nservice quota-status {\n  x = y\n}\n"
    answers = judged("backend", state)
    assert bad(answers) == [("NFS409", "error"), ("NFS419", "error")]
    assert detail(answers, "NFS409").startswith("mail_control_path=local: ")
    proxy_state = copy.deepcopy(STATES["proxy"])
    proxy_state["dovecot"] = {"version": "2.4.1", "conf": "dovecot_config_version = 2.4.1\nprotocols = imap\n"}
    assert bad(judged("proxy", proxy_state)) == [("NFS426", "warning")]


def test_2_4_prints_mbox_locks_in_a_section_of_their_own() -> None:
    state = copy.deepcopy(STATES["backend"])
    lines = ("dovecot_config_version = 2.4.1", "mail_fsync = always", "mmap_disable = yes")
    locks = "mbox {\n  read_locks = fcntl\n  write_locks = fcntl dotlock\n}\n"
    state["dovecot"] = {"version": "2.4.1", "conf": "\n".join(lines) + "\n" + locks}
    profile = {**PROFILE, "mailbox_format": "mbox"}
    assert bad(judged("backend", state, profile=profile)) == []
    state["dovecot"]["conf"] = "\n".join(lines)
    assert detail(judged("backend", state, profile=profile), "NFS311") == (
        "mbox_write_locks is dotlock fcntl, wanted fcntl dotlock"
    )


def ring(*rows: tuple[str, str]) -> list[dict[str, str]]:
    return [{"director ip": address, "status": status} for address, status in rows]


SELF = ("192.0.2.21", "ring synced")


@pytest.mark.parametrize(
    ("shown", "told"),
    [
        (ring(SELF, ("192.0.2.22", "synced"), ("192.0.2.22", "synced")), None),
        (ring(SELF), "192.0.2.22 is not in the ring"),
        (ring(SELF, ("192.0.2.22", "handshaking - 0 USERs sent")), "192.0.2.22 is handshaking - 0 USERs sent"),
        (ring(("192.0.2.21", "ring handshaking"), ("192.0.2.22", "synced")), "192.0.2.21 is ring handshaking"),
        ({"error": "doveadm: no socket"}, "doveadm: no socket"),
        (None, "doveadm did not answer"),
    ],
)
def test_a_ring_of_directors(shown: Any, told: str | None) -> None:
    state = copy.deepcopy(STATES["proxy"])
    conf = "director_servers = 192.0.2.21 192.0.2.22\nprotocols = imap\n"
    state["dovecot"] = {"version": "2.3.19.1", "conf": conf, "ring": shown}
    answers = judged("proxy", state)
    assert bad(answers) == ([("NFS330", "error")] if told else [])
    assert detail(answers, "NFS330") == (told or "2 directors, 0 backends")


@pytest.mark.parametrize(
    ("listed", "told"),
    [
        ("192.0.2.11 192.0.2.12", None),
        ("192.0.2.11 192.0.2.12 192.0.2.13", "192.0.2.13 is not used"),
        ("192.0.2.11", "192.0.2.12 is used"),
        ("192.0.2.11 192.0.2.14", "192.0.2.14 is not used, 192.0.2.12 is used"),
        ("192.0.2.1-192.0.2.9", None),
    ],
)
def test_directors_use_the_backends_that_the_file_lists(listed: str, told: str | None) -> None:
    """A drain by hand, or a run that was ended between the file and the ring."""
    state = copy.deepcopy(STATES["proxy"])
    conf = f"director_servers = 192.0.2.21\ndirector_mail_servers = {listed}\nprotocols = imap\n"
    used = [{"mail server ip": f"192.0.2.1{number}", "state": up} for number, up in ((1, "up"), (2, "up"), (3, "down"))]
    state["dovecot"] = {"version": "2.3.19.1", "conf": conf, "ring": ring(SELF), "ring_backends": used}
    answers = judged("proxy", state)
    assert bad(answers) == ([("NFS330", "error")] if told else [])
    assert detail(answers, "NFS330") == (told or f"1 directors, {len(listed.split())} backends")


@pytest.mark.parametrize(
    ("first", "second", "told"),
    [
        (("2.3.19.1", "a = b"), ("2.3.13", "a = b"), None),
        (("2.3.19.1", "a = b"), ("2.4.1", "dovecot_config_version = 2.4.1"), "mail1 2.3, mail2 2.4.1"),
        (
            ("2.4.1", "x = y\ndovecot_config_version = 2.4.1"),
            ("2.4.2", "dovecot_config_version = 2.4.2"),
            "mail1 2.4.1, mail2 2.4.2",
        ),
        (("2.4.1", "dovecot_config_version = 2.4.1"), ("2.4.2", "dovecot_config_version = 2.4.1"), None),
        (("2.3.19.1", "a = b"), ("", ""), None),
    ],
)
def test_backends_of_different_releases(first: Any, second: Any, told: str | None) -> None:
    read = [
        Live(host, "backend", {"plan": PLANS["backend"], "state": {"dovecot": {"version": version, "conf": conf}}})
        for host, (version, conf) in (("mail1", first), ("mail2", second))
    ]
    rows = [row for row in all_answers(read) if row.id == "NFS320"]
    assert [(row.level, row.detail) for row in rows if row.level != "ok"] == ([("warning", told)] if told else [])


def test_report() -> None:
    rows = [
        Answer("NFS301", "a", "ok", "what", "detail", "", "source"),
        Answer("NFS305", "a", "warning", "what", "detail", "fix it", "source"),
    ]
    report = as_report(rows)
    assert report["good"] is True
    assert report["counts"] == {"ok": 1, "error": 0, "warning": 1, "info": 0}
    assert list(report["checks"][0]) == ["id", "host", "level", "what", "detail", "fix", "source"]
    assert json.loads(json.dumps(report)) == report
    rows.append(Answer("NFS303", "b", "error", "what", "detail", "fix it", "source"))
    assert as_report(rows)["good"] is False


def test_table() -> None:
    rows = [
        Answer("NFS303", "mail1", "ok", "mail store is a mount", "nfs1:/srv/mail as nfs", "", "s"),
        Answer("NFS312", "proxy1", "error", "Dovecot is running", "not installed", "look", "s"),
        Answer("NFS312", "proxy1", "error", "Dovecot is running", "again", "look", "s"),
    ]
    assert as_table(rows) == [
        "id      machine  check                  result  found",
        "------  -------  ---------------------  ------  ----------------------------------------",
        "NFS303  mail1    mail store is a mount  ok      nfs1:/srv/mail as nfs",
        "NFS312  proxy1   Dovecot is running     ERROR   not installed",
        "NFS312  proxy1   Dovecot is running     ERROR   again",
        "",
        "fix NFS312 on proxy1: look",
    ]
    assert len(as_table([])) == 2


def test_checks_are_whole() -> None:
    for id, check in CHECKS.items():
        assert id == check.id and id.startswith("NFS3") and len(id) == 6
        assert check.what and check.fix and check.source
