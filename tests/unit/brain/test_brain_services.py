# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files of the time daemon and of the NFS services."""

from __future__ import annotations

import configparser
from typing import Any

import pytest
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.errors import NfsmailError
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.locks import (
    EPHEMERAL_FIRST,
    PORTS,
    check_ports,
    nfs_conf,
    nfsd_versions,
    port_sections,
)
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.timeplan import time_conf
from brain_samples import JSON, refusal
from hypothesis import given
from hypothesis import strategies as st

# ---- time ----


def test_chrony_of_a_client() -> None:
    lines = time_conf({"daemon": "chrony", "sources": ["nfs1"], "allow": [], "serve": False}).splitlines()
    assert lines[0] == "server nfs1 iburst minpoll 4 maxpoll 6"
    assert "makestep 1 3" in lines and "rtcsync" in lines
    assert not [line for line in lines if line.startswith(("local", "allow"))]


def test_chrony_of_the_server() -> None:
    plan = {"sources": ["pool 2.debian.pool.ntp.org"], "allow": ["192.0.2.11", "2001:db8::/64"], "serve": True}
    lines = time_conf(plan).splitlines()
    assert lines[0] == "pool 2.debian.pool.ntp.org iburst minpoll 4 maxpoll 6"
    assert "local stratum 10 orphan" in lines
    assert [line for line in lines if line.startswith("allow")] == ["allow 192.0.2.11", "allow 2001:db8::/64"]


def test_ntpsec() -> None:
    plan = {"daemon": "ntpsec", "sources": ["nfs1", "server nfs2 prefer"], "allow": ["192.0.2.11"]}
    client = time_conf(plan).splitlines()
    assert "server nfs1 iburst minpoll 4 maxpoll 6" in client
    assert "server nfs2 prefer" in client
    assert "tos minclock 1 minsane 1" in client
    assert "restrict 192.0.2.11 nomodify nopeer noquery" in client
    assert "tos minclock 1 minsane 1 orphan 10" in time_conf({**plan, "serve": True}).splitlines()


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("nfs1", "server nfs1 iburst minpoll 4 maxpoll 6"),
        ("server nfs1", "server nfs1 iburst minpoll 4 maxpoll 6"),
        ("pool ntp.example.org iburst", "pool ntp.example.org iburst"),
        ("peer nfs2 minpoll 3", "peer nfs2 minpoll 3"),
        ("2001:db8::1", "server 2001:db8::1 iburst minpoll 4 maxpoll 6"),
    ],
)
def test_sources(source: str, line: str) -> None:
    assert time_conf({"sources": [source]}).splitlines()[0] == line
    assert time_conf({"sources": source}).splitlines()[0] == line


@pytest.mark.parametrize("serve", [True, "yes", "true", "True", "on", "1", 1])
def test_a_server_needs_no_source(serve: Any) -> None:
    assert "local stratum 10 orphan" in time_conf({"sources": [], "serve": serve})


@pytest.mark.parametrize("serve", [False, "no", "false", "False", "off", "0", 0, None, ""])
def test_who_does_not_serve_needs_a_source(serve: Any) -> None:
    (problem,) = refusal(time_conf, {"sources": [], "serve": serve})
    assert problem.variable == "timesync_sources"
    assert "clocks more than a second apart break mail" in problem.rule
    assert "local stratum" not in time_conf({"sources": ["nfs1"], "serve": serve})


@pytest.mark.parametrize(
    "source", ["nfs1;reboot", "server", "nfs1\nallow all", "pool", "peer", "refclock SHM 0", "a/b"]
)
def test_wrong_sources(source: str) -> None:
    (problem,) = refusal(time_conf, {"sources": [source]})
    assert (problem.variable, problem.value) == ("timesync_sources", source)
    assert problem.rule == "a host, or server|pool HOST and options"


def test_everything_wrong_at_once() -> None:
    problems = refusal(time_conf, {"daemon": "ntpd", "sources": ["a b;c"], "allow": ["all hosts", "192.0.2.1"]})
    assert [(problem.variable, problem.value) for problem in problems] == [
        ("timesync_daemon", "ntpd"),
        ("timesync_sources", "a b;c"),
        ("timesync_allow", "all hosts"),
    ]
    assert problems[0].rule == "one of chrony, ntpsec"


@given(st.dictionaries(st.sampled_from(["daemon", "sources", "allow", "serve"]), JSON))
def test_any_time_plan_is_written_or_refused(plan: dict[str, Any]) -> None:
    try:
        text = time_conf(plan)
    except NfsmailError:
        return
    assert text.endswith("\n") and "\n\n" not in text


# ---- ports ----

DEFAULT_PORTS = {"lockd": 4045, "lockd_udp": 4045, "statd": 4046, "statd_outgoing": 4047}


def test_ports_as_nfs_conf() -> None:
    assert port_sections(DEFAULT_PORTS) == {
        "lockd": {"port": 4045, "udp-port": 4045},
        "statd": {"port": 4046, "outgoing-port": 4047},
    }
    assert port_sections({**DEFAULT_PORTS, "mountd": "20048"}, ("mountd",)) == {"mountd": {"port": 20048}}
    assert check_ports({}) == {}


@pytest.mark.parametrize("port", [EPHEMERAL_FIRST, 40000, 60999, 65535, 65536, 0, -1, 80, 1023])
def test_ports_out_of_range(port: int) -> None:
    (problem,) = refusal(check_ports, {"lockd": port})
    assert (problem.variable, problem.value, problem.rule) == ("lockd_ports.lockd", port, "a port from 1024 to 32767")


@pytest.mark.parametrize("port", [1024, 32767, "4045"])
def test_ports_in_range(port: Any) -> None:
    assert check_ports({"lockd": port}) == {"lockd": int(port)}


@pytest.mark.parametrize("port", ["", "http", None, True, [], {}, 4045.5, "4045 ,", float("nan"), "0x10"])
def test_ports_that_are_none(port: Any) -> None:
    assert refusal(check_ports, {"lockd": port})[0].variable == "lockd_ports.lockd"


def test_wrong_ports_all_at_once() -> None:
    ports = {"lockd": 4045, "statd": 4045, "statd_outgoing": 40000, "nlm": 4047, "mountd": "x"}
    assert [(problem.variable, problem.rule) for problem in refusal(check_ports, ports)] == [
        ("lockd_ports.statd", "lockd has this port"),
        ("lockd_ports.statd_outgoing", "a port from 1024 to 32767"),
        ("lockd_ports.nlm", f"known: {', '.join(PORTS)}"),
        ("lockd_ports.mountd", "a port from 1024 to 32767"),
    ]


@given(st.dictionaries(st.sampled_from(sorted(PORTS)) | st.text(max_size=5), JSON | st.integers(1000, 33000)))
def test_any_ports_are_read_or_refused(ports: dict[str, Any]) -> None:
    try:
        good = check_ports(ports)
    except NfsmailError:
        return
    assert all(1024 <= port < EPHEMERAL_FIRST for port in good.values())
    numbers = [port for name, port in good.items() if name != "lockd_udp"]
    assert len(numbers) == len(set(numbers))


# ---- nfs.conf ----


def test_nfs_conf() -> None:
    text = nfs_conf(
        {"nfsd": {"threads": 16, "vers3": True, "vers4": False, "host": "", "x": None}, "statd": {"y": None}}
    )
    assert text == "[nfsd]\nthreads=16\nvers3=y\nvers4=n\n"
    parsed = configparser.ConfigParser()
    parsed.read_string(nfs_conf({"nfsd": nfsd_versions(["3"]), **port_sections(DEFAULT_PORTS)}))
    assert dict(parsed["statd"]) == {"port": "4046", "outgoing-port": "4047"}
    assert nfs_conf({}) == ""


@pytest.mark.parametrize(
    ("wanted", "on"),
    [
        (["3"], {"vers3"}),
        ([3], {"vers3"}),
        (["4.2"], {"vers4", "vers4.2"}),
        ([4.1], {"vers4", "vers4.1"}),
        (["3", "4.0", "4.2"], {"vers3", "vers4", "vers4.0", "vers4.2"}),
        ("4.2", {"vers4", "vers4.2"}),
        ("3,4.2", {"vers3", "vers4", "vers4.2"}),
    ],
)
def test_versions_of_the_server(wanted: Any, on: set[str]) -> None:
    switches = nfsd_versions(wanted)
    assert list(switches) == ["vers3", "vers4", "vers4.0", "vers4.1", "vers4.2"]
    assert {name for name, value in switches.items() if value} == on


@pytest.mark.parametrize("wanted", [[], ["2"], ["3", "5"], ["4"], "", None, [True]])
def test_versions_no_server_speaks(wanted: Any) -> None:
    (problem,) = refusal(nfsd_versions, wanted)
    assert problem.variable == "nfs_server_versions"
    assert "servers no longer speak NFSv2" in problem.rule
