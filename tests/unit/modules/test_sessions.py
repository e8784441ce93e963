# Copyright (c) 2026 nfsmail.cluster contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Ending sessions: whom, how, and what is said when somebody stays."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from ansible_collections.nfsmail.cluster.plugins.module_utils import _sessions, _system
from ansible_collections.nfsmail.cluster.plugins.modules import sessions

if TYPE_CHECKING:
    from .conftest import RunModule

WHO_23 = "username\tproto\tpid\tip\nuser01@example.com\timap\t101\t10.0.0.1\nuser02@example.com\tpop3\t102\t10.0.0.2\n"
WHO_24 = "username\tservice\tpid\tip\tdest_ip\nuser01@example.com\timap\t101\t10.0.0.1\t10.0.0.9\n"
TCP = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:0018 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12038 1 0
   1: 0B004D0A:0018 15004D0A:A1B2 01 00000000:00000000 00:00000000 00000000     0        0 12040 1 0
   2: 0B004D0A:008F 15004D0A:A1B3 01 00000000:00000000 00:00000000 00000000     0        0 12041 1 0
   3: 0B004D0A:0018 15004D0A:A1B4 06 00000000:00000000 00:00000000 00000000     0        0 0 3 0
"""


def test_who_is_there() -> None:
    assert _sessions.parse_who(WHO_23) == [
        _sessions.Session("user01@example.com", "imap", 101),
        _sessions.Session("user02@example.com", "pop3", 102),
    ]
    assert [one.user for one in _sessions.parse_who(WHO_24)] == ["user01@example.com"]
    assert _sessions.parse_who("") == []
    with pytest.raises(ValueError, match="other columns: user what"):
        _sessions.parse_who("user\twhat\n")


def test_who_is_chosen() -> None:
    there = _sessions.parse_who(WHO_23)
    shard = _sessions.shard_of("user02@example.com")
    assert [one.pid for one in _sessions.chosen(there, users=["USER01@example.com"])] == [101]
    assert [one.pid for one in _sessions.chosen(there, shards=[shard])] == [102]
    assert _sessions.chosen(there, shards=[shard], pinned=["User02@example.com"]) == []
    assert len(_sessions.chosen(there, everybody=True)) == 2


def test_connections() -> None:
    assert _sessions.parse_connections(TCP, [24]) == {("10.77.0.21", 0xA1B2): "12040"}
    six = TCP.replace("15004D0A:A1B2", "000080FE00000000FF0050AB01000000:0001")
    assert _sessions.parse_connections(six, [24]) == {("fe80::ab50:ff:0:1", 1): "12040"}


class Machine:
    """doveadm, the table of connections and the clock of a machine whose sessions end when told to, or do not."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, stubborn: tuple[int, ...] = (), immortal: bool = False) -> None:
        self.there = {101: "user01@example.com", 102: "user02@example.com"}
        self.connections = TCP
        self.kicked: list[str] = []
        self.now = 0.0
        self.stubborn, self.immortal = stubborn, immortal
        self.sockets: dict[int, set[str]] = {}
        monkeypatch.setattr(sessions, "_sockets", lambda pid: self.sockets.get(pid, set()))
        monkeypatch.setattr(_system, "run", self.run)
        monkeypatch.setattr(_system, "read_text", lambda path: self.connections if path.endswith("/tcp") else "")
        monkeypatch.setattr(sessions.os, "kill", self.kill)
        monkeypatch.setattr(sessions.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(sessions.time, "sleep", self.sleep)

    def run(self, command: list[str], timeout: float) -> _system.Result:
        if command[1] == "kick":
            self.kicked.append(command[2])
            self.there = {pid: user for pid, user in self.there.items() if user != command[2] or pid in self.stubborn}
            return _system.Result(0, "", "")
        rows = "".join(f"{user}\timap\t{pid}\t10.0.0.1\n" for pid, user in self.there.items())
        return _system.Result(0, f"username\tproto\tpid\tip\n{rows}", "")

    def kill(self, pid: int, signal: int) -> None:
        if not self.immortal:
            self.there.pop(pid)

    def sleep(self, seconds: float) -> None:
        self.now += max(seconds, 0.01)
        if self.now > 2:
            self.connections = ""


def test_sessions_end_when_they_are_kicked(monkeypatch: pytest.MonkeyPatch, run_module: RunModule) -> None:
    machine = Machine(monkeypatch)
    result = run_module.ok(sessions, users=["user01@example.com"])
    assert machine.kicked == ["user01@example.com"] and list(machine.there) == [102]
    assert (result["changed"], result["ended"], result["left"]) == (True, {"user01@example.com": 1}, {})


def test_an_empty_machine_gets_no_more_mail_either(monkeypatch: pytest.MonkeyPatch, run_module: RunModule) -> None:
    machine = Machine(monkeypatch)
    result = run_module.ok(sessions, everybody=True, lmtp_ports=[24])
    assert machine.there == {} and result["took_s"] >= 2 and result["deliveries"] == 0


def test_a_process_that_stays_is_killed(monkeypatch: pytest.MonkeyPatch, run_module: RunModule) -> None:
    machine = Machine(monkeypatch, stubborn=(101,))
    result = run_module.ok(sessions, everybody=True, grace=3)
    assert machine.there == {} and result["killed"] == ["user01@example.com"]
    assert machine.kicked.count("user01@example.com") == 1


def test_a_process_that_hangs_is_an_error(monkeypatch: pytest.MonkeyPatch, run_module: RunModule) -> None:
    Machine(monkeypatch, stubborn=(101,), immortal=True)
    result = run_module.fail(sessions, everybody=True, grace=3, timeout=6)
    assert "user01@example.com (process 101)" in result["msg"] and "nfsmail_fenced" in result["msg"]


def test_mail_that_does_not_end_is_an_error(monkeypatch: pytest.MonkeyPatch, run_module: RunModule) -> None:
    machine = Machine(monkeypatch)
    monkeypatch.setattr(machine, "sleep", lambda seconds: setattr(machine, "now", machine.now + 1))
    monkeypatch.setattr(sessions.time, "sleep", machine.sleep)
    assert "1 LMTP connections" in run_module.fail(sessions, users=["user01@example.com"], lmtp_ports=[24])["msg"]


def test_a_login_on_its_way_is_waited_for(monkeypatch: pytest.MonkeyPatch, run_module: RunModule) -> None:
    machine = Machine(monkeypatch)
    result = run_module.ok(sessions, users=["user01@example.com"], login_ports=[143])
    assert 2 <= result["took_s"] < 3
    # That of a session that stays is known.
    machine = Machine(monkeypatch)
    machine.sockets = {102: {"12041"}}
    assert run_module.ok(sessions, users=["user01@example.com"], login_ports=[143])["took_s"] < 1


def test_a_login_that_does_not_come_to_an_end_is_an_error(
    monkeypatch: pytest.MonkeyPatch, run_module: RunModule
) -> None:
    machine = Machine(monkeypatch)
    monkeypatch.setattr(sessions.time, "sleep", lambda seconds: setattr(machine, "now", machine.now + 0.5))
    result = run_module.fail(sessions, users=["user01@example.com"], login_ports=[143])
    assert "still there after 20.5 s: logins from 10.77.0.21 port 41395. " in result["msg"]


def test_whoever_comes_late_is_sent_away(monkeypatch: pytest.MonkeyPatch, run_module: RunModule) -> None:
    machine = Machine(monkeypatch)

    def late(seconds: float) -> None:
        Machine.sleep(machine, seconds)
        if 5 < machine.now < 5.2:
            machine.there[103] = "user01@example.com"

    monkeypatch.setattr(sessions.time, "sleep", late)
    result = run_module.ok(sessions, users=["user01@example.com"], linger=10)
    assert list(machine.there) == [102] and 10 <= result["took_s"] < 11 and result["ended"]["user01@example.com"] >= 2


def test_check_mode_tells_and_ends_nothing(monkeypatch: pytest.MonkeyPatch, run_module: RunModule) -> None:
    machine = Machine(monkeypatch)
    result: dict[str, Any] = run_module.ok(sessions, check=True, everybody=True)
    assert result["ended"] == {"user01@example.com": 1, "user02@example.com": 1}
    assert (result["changed"], machine.kicked) == (True, [])


def test_without_a_running_dovecot_nobody_is_there(monkeypatch: pytest.MonkeyPatch, run_module: RunModule) -> None:
    monkeypatch.setattr(_system, "run", lambda command, timeout: _system.Result(75, "", "connect: No such file"))
    assert run_module.ok(sessions, everybody=True)["changed"] is False
    monkeypatch.setattr(_system, "run", lambda command, timeout: _system.Result(None, "", "did not finish within 10 s"))
    assert "did not finish" in run_module.fail(sessions, everybody=True)["msg"]


def test_there_is_a_real_doveadm_or_none(run_module: RunModule) -> None:
    """On a machine without Dovecot the command is missing; that is an error, not an empty machine."""
    if subprocess.run(["sh", "-c", "command -v doveadm"], check=False, capture_output=True).returncode:
        assert "doveadm" in run_module.fail(sessions, everybody=True)["msg"]
