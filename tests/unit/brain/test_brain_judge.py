# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Live machines: a sound one is all ok; each defect is found, by its id and level."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
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
    },
    "backend": {
        "kind": "backend",
        "profile": PROFILE,
        "store": "/srv/mail",
        "mount_options": mount_options(PROFILE),
        "clock_server": "nfs1",
    },
    "proxy": {"kind": "proxy", "profile": PROFILE, "files": SHARED, "clock_server": "nfs1"},
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
        "clock": {"ntp": NTP, "store": {"offset_min": -0.01, "offset_max": 0.02, "tries": 5}, "daemon": DAEMON},
        "dovecot": {"version": "2.3.19.1", "conf": CONF, "error": None},
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
}
ASKED = {
    "nfs_server": ["NFS314", "NFS315", "NFS309", "NFS319", "NFS308"],
    "backend": ["NFS303", "NFS304", "NFS305", "NFS306", "NFS307", "NFS308", "NFS309", "NFS310", "NFS312", "NFS311"]
    + ["NFS313"],
    "proxy": ["NFS306", "NFS308", "NFS312"],
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
    assert (row.fix, row.what) == (CHECKS[id].fix, CHECKS[id].what)


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
    """nfs1, mail1, mail2, proxy1 and proxy2, all sound; ``changes`` to a host's fact."""
    facts: dict[str, tuple[str, dict[str, Any]]] = {
        "nfs1": ("nfs_server", {}),
        "mail1": ("backend", {}),
        "mail2": ("backend", {"lock": LOCKED}),
        "proxy1": ("proxy", {}),
        "proxy2": ("proxy", {}),
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
    assert {row.id for row in answers} == set(CHECKS) - {"NFS301"}
    assert detail(answers, "NFS302") == "5 machines"
    assert detail(answers, "NFS316") == "mail1 holds it: EAGAIN"
    assert detail(answers, "NFS317") == "mail1 let go: granted after 0.2 s"
    assert [row.detail for row in answers if row.id == "NFS318"] == [f"{path}: same on 2" for path in sorted(SHARED)]


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
    assert [row["id"] for row in found] == ["NFS211", "NFS303"]
    assert found[1]["message"] == "mail store is a mount: /srv/mail is not mounted"
    assert all(list(row) == ["id", "level", "message", "fix", "source"] and all(row.values()) for row in found)
    assert findings(parse_profile(profile), {"plan": plan, "state": state}) == found
    assert findings(profile) == plan_findings(profile)


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
