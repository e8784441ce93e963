# Copyright (c) 2026 nfsmail.cluster contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What programs and files say, in texts taken from real machines; and the clocks."""

from __future__ import annotations

import pathlib
import socket
import struct
import threading
import time

import pytest
from ansible_collections.nfsmail.cluster.plugins.module_utils import _probes
from hypothesis import given
from hypothesis import strategies as st

RPCINFO = """\
   program vers proto   port  service
    100000    4   tcp    111  portmapper
    100003    3   tcp   2049  nfs
    100227    3   tcp   2049  nfs_acl
    100021    4   udp  42551  nlockmgr
    100024    1   tcp  32765  status
    100099    1   tcp  32000
"""


# HAProxy 2.6, columns left out.
STAT = """\
# pxname,svname,qcur,status,weight,act,bck,chkfail,sid,check_status,check_desc,last_chk,agent_check,
clients,FRONTEND,,OPEN,,,,,0,,,,,
clients,mail1,0,UP,256,1,0,0,663380,L7OK,Layer7 check passed,(tcp-check),,
clients,mail2,0,UP,0,1,0,0,720136,L7OK,Layer7 check passed,(tcp-check),,
clients,mail3,0,UP 1/3,256,1,0,2,5,L4CON,Layer4 connection problem,"Connection refused, at step 1",,
clients,mail4,0,MAINT,0,1,0,0,9,,,,,
clients,BACKEND,0,UP,512,2,0,,0,,,,,
"""


def test_servers_of_haproxy() -> None:
    shown = [(row["server"], row["status"], row["weight"], row["id"]) for row in _probes.parse_haproxy_stat(STAT)]
    assert shown == [
        ("mail1", "UP", 256, 663380),
        ("mail2", "DRAIN", 0, 720136),
        ("mail3", "UP", 256, 5),
        ("mail4", "MAINT", 0, 9),
    ]
    checks = [row["check"] for row in _probes.parse_haproxy_stat(STAT)]
    assert checks == ["L7OK (tcp-check)", "L7OK (tcp-check)", "L4CON Connection refused, at step 1", ""]
    assert _probes.parse_haproxy_stat("") == []
    assert _probes.parse_haproxy_info("Name: HAProxy\nVersion: 2.6.12-1+deb12u4\n") == "2.6.12-1+deb12u4"
    assert _probes.parse_haproxy_info("") == ""


def test_the_socket_of_haproxy(tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()

        def answer() -> None:
            with listener.accept()[0] as client:
                client.sendall(b"asked: " + client.recv(100))

        thread = threading.Thread(target=answer)
        thread.start()
        assert _probes.ask_haproxy(path, "show stat", 5) == "asked: show stat\n"
        thread.join()


@pytest.mark.parametrize(
    ("text", "versions"),
    [
        ("-2 +3 +4 +4.1 +4.2\n", ["3", "4.0", "4.1", "4.2"]),
        ("+3 +4 -4.0 +4.1 +4.2", ["3", "4.1", "4.2"]),
        ("-3 +4 +4.0 -4.1 +4.2", ["4.0", "4.2"]),
        ("+2 +3 -4 -4.1 -4.2", ["2", "3"]),
        ("", []),
    ],
)
def test_nfsd_versions(text: str, versions: list[str]) -> None:
    assert _probes.parse_nfsd_versions(text) == versions


def test_portlist() -> None:
    text = "tcp 2049\nudp 2049\ntcp 2049\nudp 2049\nrubbish\n"
    assert _probes.parse_portlist(text) == [{"proto": "tcp", "port": 2049}, {"proto": "udp", "port": 2049}]


def test_rpcinfo() -> None:
    programs = _probes.parse_rpcinfo(RPCINFO)
    assert len(programs) == 6
    assert programs[3] == {"program": 100021, "version": 4, "proto": "udp", "port": 42551, "name": "nlockmgr"}
    assert programs[5]["name"] == ""


TRACKING = (
    "0A4D0001,10.77.0.1,11,1795470584.646166654,-0.000718828,0.000741793,0.000741793,0.000,52.051,1000000.000,"
    "0.003465995,0.171025574,2.1,Normal\n"
)
LOCAL = "7F7F0101,,10,1795470584.6,0.0,0.0,0.0,1.5,0.0,0.1,0.0,0.0,64.0,Normal\n"
UNSYNCHRONISED = "00000000,,0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,1.0,1.0,0.0,Not synchronised\n"
SOURCES = "^,*,10.77.0.1,10,4,377,12,-0.000718828,-0.000741793,0.171\n^,?,10.77.0.9,0,6,0,4294967295,0.0,0.0,0.0\n"


def test_chronyc() -> None:
    tracking = _probes.parse_tracking(TRACKING)
    assert tracking["refid"] == "0A4D0001"
    assert tracking["stratum"] == 11
    assert tracking["system_time"] == -0.000718828
    assert tracking["leap"] == "Normal"
    sources = _probes.parse_sources(SOURCES)
    assert [source["reach"] for source in sources] == [255, 0]
    assert sources[0]["measured_offset"] == -0.000741793
    assert _probes.chrony_synchronised(tracking, sources) is True


def test_chrony_is_not_in_step_when_its_source_is_gone() -> None:
    gone = _probes.parse_sources(SOURCES.replace(",377,", ",0,"))
    assert _probes.chrony_synchronised(_probes.parse_tracking(TRACKING), gone) is False
    assert _probes.chrony_synchronised(_probes.parse_tracking(UNSYNCHRONISED), []) is False
    assert _probes.chrony_synchronised(_probes.parse_tracking(LOCAL), []) is True


def test_chronyc_of_another_time() -> None:
    with pytest.raises(ValueError, match="chronyc -c tracking gave 2 columns, not 14"):
        _probes.parse_tracking("506 Cannot talk to daemon,x")


def test_ntpq() -> None:
    text = (
        'associd=0 status=0615 leap_none, sync_ntp, 1 event, clock_sync,\nversion="ntpd 1.2.2",\n'
        "leap=00, stratum=3, precision=-24, rootdelay=0.5, offset=-0.012\n"
    )
    variables = _probes.parse_ntpq(text)
    assert variables["version"] == "ntpd 1.2.2"
    assert variables["stratum"] == "3"
    assert _probes.ntp_synchronised(variables) is True
    assert _probes.ntp_synchronised({**variables, "leap": "11"}) is False
    assert _probes.ntp_synchronised({**variables, "stratum": "16"}) is False
    assert _probes.ntp_synchronised({}) is None


SHOW = """\
Id=ssh.service
After=-.mount network.target
RequiresMountsFor=/run/sshd
LoadState=loaded
ActiveState=active

Id=nosuch.service
After=
LoadState=not-found
ExecStart={ path=/a }
ExecStart={ path=/b }
"""


def test_systemctl_show() -> None:
    units = _probes.parse_show(SHOW)
    assert [unit["Id"] for unit in units] == ["ssh.service", "nosuch.service"]
    assert units[0]["RequiresMountsFor"] == "/run/sshd"
    assert units[1]["ExecStart"] == ["{ path=/a }", "{ path=/b }"]
    assert _probes.parse_show("") == []


def test_assertions() -> None:
    text = "[Unit]\n#AssertPathExists=/x\nAssertPathIsMountPoint = /old\nAssertPathIsMountPoint=\nAssertPathIsMountPoint=/srv/mail\n"
    assert _probes.parse_assertions(text) == ["AssertPathIsMountPoint=/srv/mail"]


# ---- clocks ----


def server_packet(request: bytes, received: float, sent: float, stratum: int = 3, leap: int = 0) -> bytes:
    def stamp(seconds: float) -> bytes:
        return _probes.sntp_request(seconds)[40:48]

    head = struct.pack("!BBbb", leap << 6 | 0x24, stratum, 6, -20) + struct.pack("!II", 655, 1310) + b"RATE"
    return head + stamp(sent) + request[40:48] + stamp(received) + stamp(sent)


@given(st.floats(-3600, 3600), st.floats(0.0, 5.0), st.floats(0.0, 5.0), st.floats(1.6e9, 2.6e9))
def test_sntp_offset_lies_within_its_bound(offset: float, there: float, back: float, now: float) -> None:
    request = _probes.sntp_request(now)
    reply = server_packet(request, now + there + offset, now + there + offset)
    answer = _probes.parse_sntp(request, reply, now, now + there + back)
    assert abs(answer["offset"] - offset) <= answer["error_bound"] + 1e-5
    assert answer["error_bound"] == pytest.approx((there + back) / 2, abs=1e-5)
    assert answer["stratum"] == 3
    assert answer["leap"] == 0


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda reply: reply[:47], "the answer is not an NTP server packet"),
        (lambda reply: bytes([0x23]) + reply[1:], "the answer is not an NTP server packet"),
        (lambda reply: reply[:24] + b"\0" * 8 + reply[32:], "the answer is for another question"),
        (lambda reply: reply[:1] + b"\0" + reply[2:], r"the time server refuses to answer \(RATE\)"),
    ],
)
def test_sntp_refuses_other_packets(change: object, error: str) -> None:
    request = _probes.sntp_request(1e9)
    assert callable(change)
    with pytest.raises(ValueError, match=error):
        _probes.parse_sntp(request, change(server_packet(request, 1e9, 1e9)), 1e9, 1e9)


def test_sntp_query() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))

        def serve() -> None:
            for _turn in range(4):
                request, address = server.recvfrom(512)
                now = time.time() + 7
                server.sendto(server_packet(request, now, now), address)

        threading.Thread(target=serve, daemon=True).start()
        answer = _probes.query_sntp("127.0.0.1", port=server.getsockname()[1])
    assert abs(answer["offset"] - 7) < 0.5
    assert answer["error_bound"] < 0.5


def test_sntp_query_of_a_silent_server() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
        with pytest.raises(TimeoutError, match=f"127.0.0.1 did not answer at UDP port {port}"):
            _probes.query_sntp("127.0.0.1", wait=0.05, port=port)


def test_store_clock(tmp_path: pathlib.Path) -> None:
    found = _probes.store_clock(str(tmp_path), ".clock")
    assert found["offset_min"] <= 0.001
    assert found["offset_max"] >= 0.0
    assert found["offset_max"] - found["offset_min"] < 0.2
    assert list(tmp_path.iterdir()) == []


# nft 1.0.6, from a backend of the lab.
NFT = """{"nftables": [{"metainfo": {"version": "1.0.6", "json_schema_version": 1}},
 {"table": {"family": "inet", "name": "nfsmail", "handle": 2}},
 {"set": {"family": "inet", "name": "ports", "table": "nfsmail", "type": "inet_service", "handle": 2, "elem": [24, 143]}},
 {"set": {"family": "inet", "name": "ipv4", "table": "nfsmail", "type": "ipv4_addr", "handle": 3, "flags": ["interval"],
  "elem": ["10.77.0.21", {"prefix": {"addr": "10.78.0.0", "len": 16}}]}},
 {"set": {"family": "inet", "name": "ipv6", "table": "nfsmail", "type": "ipv6_addr", "handle": 4, "flags": ["interval"]}},
 {"chain": {"family": "inet", "table": "nfsmail", "name": "input", "handle": 1, "type": "filter", "hook": "input"}}%s]}"""
RULE = ', {"rule": {"family": "inet", "table": "nfsmail", "chain": "input", "handle": 5, "expr": []}}'


def test_sets_of_the_packet_filter() -> None:
    assert _probes.parse_nft_sets(NFT % RULE) == {
        "ports": [24, 143],
        "ipv4": ["10.77.0.21", "10.78.0.0/16"],
        "ipv6": [],
    }


def test_sets_without_a_rule_filter_nothing() -> None:
    assert _probes.parse_nft_sets(NFT % "") == {}
