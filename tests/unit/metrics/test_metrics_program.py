# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The program behind nfsmail-metrics.timer: what it reads, and that nothing keeps it waiting."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

PATH = Path(__file__).resolve().parents[3] / "roles" / "metrics" / "files" / "nfsmail_metrics.py"
_FOUND = importlib.util.spec_from_file_location("nfsmail_metrics", PATH)
assert _FOUND and _FOUND.loader
program: Any = importlib.util.module_from_spec(_FOUND)
_FOUND.loader.exec_module(program)

MOUNTINFO = """22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
30 22 0:28 / /srv rw shared:5 - tmpfs tmpfs rw
36 30 0:45 / /srv/mail rw,relatime shared:9 - nfs nfs1:/srv/mail rw,vers=3
37 22 0:46 / /srv/with\\040blank rw shared:10 master:2 - nfs4 nfs1:/x rw
38 22 0:47 / /auto rw - autofs systemd-1 rw
39 22 0:48 / /was rw - nfs nfs1:/y rw
40 39 0:49 / /was rw - autofs systemd-1 rw
"""
LOCKS = """1: POSIX  ADVISORY  WRITE 812 00:2d:1234 0 EOF
1: -> POSIX  ADVISORY  WRITE 813 00:2d:1234 0 EOF
2: FLOCK  ADVISORY  WRITE 814 00:2d:99 0 EOF
3: POSIX  ADVISORY  READ 815 fe:01:1234 128 128
4: OFDLCK ADVISORY  READ -1 00:2d:77 0 0
5: DELEG  ACTIVE    READ 700 00:2d:78 0 EOF
6: LEASE  BREAKING  READ 700 <none>:0 0 EOF
"""
RPCINFO = """   program vers proto   port  service
    100000    4   tcp    111  portmapper
    100021    4   tcp   4045  nlockmgr
    100021    4   udp   4045
"""


def read(name: str, text: str) -> dict[str, float]:
    """The samples of one metric in a page."""
    return {
        line.rpartition(" ")[0]: float(line.rpartition(" ")[2])
        for line in text.splitlines()
        if re.match(rf"{name}[ {{]", line)
    }


# ---- files and commands ----


@pytest.mark.parametrize(
    ("path", "mounted"),
    [("/srv/mail", True), ("/srv/with blank", True), ("/srv/other", False), ("/auto", False), ("/was", False)],
)
def test_what_is_mounted(path: str, mounted: bool) -> None:
    assert program.mounted_at(MOUNTINFO, path) is mounted


@pytest.mark.parametrize(
    ("path", "device"),
    [
        ("/srv/mail/example.com", (0, 45)),
        ("/srv/mail", (0, 45)),
        ("/srv/mailboxes", (0, 28)),
        ("/etc", (254, 1)),
        ("relative", None),
    ],
)
def test_the_device_below_a_path(path: str, device: tuple[int, int] | None) -> None:
    assert program.device_of(MOUNTINFO, path) == device


def test_locks() -> None:
    found = program.count_locks(LOCKS, (0, 45))
    assert {key: number for key, number in found.items() if number} == {
        ("posix", "held"): 2,
        ("posix", "waiting"): 1,
        ("flock", "held"): 1,
        ("lease", "held"): 1,
    }
    assert program.count_locks(LOCKS, (254, 1))["posix", "held"] == 1


@given(st.text())
def test_any_table_of_locks_and_mounts_is_read(text: str) -> None:
    program.count_locks(text, (0, 45))
    program.moving(text)
    program.rpc_programs(text)
    assert set(program.count_locks(LOCKS + text.replace("\r", " "), (0, 45))) >= {("posix", "held")}


def test_rpc_programs() -> None:
    assert program.rpc_programs(RPCINFO) == {"100000", "100021"}
    assert set(program.RPC_PROGRAMS) == {"nfs", "mountd", "nlockmgr", "status"}


@pytest.mark.parametrize("word", ["proto", "service"])
def test_who(word: str) -> None:
    text = f"username\t{word}\tpid\tip\na@x\timap\t1\t::1\na@x\timap\t2\t::1\nb@x\tpop3\t3\t::1\n"
    assert program.who(text) == ({"imap": 2, "pop3": 1}, 2)
    assert program.who("") == ({}, 0)
    with pytest.raises(ValueError):
        program.who("something else\n")


def test_chrony() -> None:
    said = "C0000201,192.0.2.1,3,1795580446.1,0.000012345,-0.1,0.1,1.0,0.0,0.1,0.001,0.002,64.0,Normal\n"
    assert program.correction(said) == 0.000012345


# ---- the page ----


@given(st.dictionaries(st.from_regex(r"[a-z]{1,8}", fullmatch=True), st.text(), max_size=3), st.floats(allow_nan=False))
def test_whatever_a_label_holds_is_one_line(labels: dict[str, str], value: float) -> None:
    page = program.Page()
    page.add("nfsmail_users", value, **labels)
    lines = page.text().split("\n")
    assert len(lines) == 4 and lines[2].startswith("nfsmail_users") and float(lines[2].rpartition(" ")[2]) == value
    told = dict(re.findall(r'([a-z]+)="((?:[^"\\]|\\.)*)"', lines[2]))
    unescaped = {
        key: re.sub(r"\\(.)", lambda match: "\n" if match[1] == "n" else match[1], text) for key, text in told.items()
    }
    assert unescaped == labels


def test_the_samples_of_a_metric_stand_together() -> None:
    page = program.Page()
    for part in ("store", "clock"):
        page.add("nfsmail_users", 1)
        page.add("nfsmail_read_ok", 1, part=part)
    names = [line.split("{")[0].split(" ")[0] for line in page.text().splitlines() if not line.startswith("#")]
    assert names == ["nfsmail_users", "nfsmail_read_ok", "nfsmail_read_ok"]


def test_the_file_is_replaced_in_one_step(tmp_path: Path) -> None:
    target = tmp_path / "nfsmail.prom"
    program.write(str(target), "old\n")
    before = target.stat().st_ino
    program.write(str(target), "new\n")
    assert target.read_text() == "new\n" and target.stat().st_ino != before
    assert target.stat().st_mode & 0o777 == 0o644
    with pytest.raises(UnicodeEncodeError):
        program.write(str(target), "\udc80")
    assert [path.name for path in tmp_path.iterdir()] == ["nfsmail.prom"]
    assert target.read_text() == "new\n"


# ---- the mail store ----


def test_a_look_at_the_clock(tmp_path: Path) -> None:
    seen = program.look(str(tmp_path), ".clock")
    assert seen["lowest"] <= 0.02 and seen["highest"] >= -0.02 and seen["highest"] - seen["lowest"] < 1
    assert list(tmp_path.iterdir()) == []


def test_the_file_of_a_killed_look_is_taken_but_no_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / ".clock").write_text("")
    program.look(str(tmp_path), ".clock")
    (tmp_path / ".clock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError):
        program.look(str(tmp_path), ".clock")
    assert not (tmp_path / "elsewhere").exists()


def test_a_clock_that_is_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server's clock is two seconds ahead of ours."""
    now = time.time
    monkeypatch.setattr(program.time, "time", lambda: now() - 2)
    seen = program.look(str(tmp_path), ".clock")
    assert seen["lowest"] - 0.02 <= 2 <= seen["highest"] + 0.02


def test_a_store_that_hangs_keeps_nobody_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = str(tmp_path / "lock")

    def hang() -> dict[str, float]:
        time.sleep(3)
        return {}

    # As a process in the kernel's hands does not die.
    monkeypatch.setattr(program.os, "kill", lambda *_: None)
    began = time.monotonic()
    with pytest.raises(program.Hung, match="no answer within"):
        program.in_child(hang, lock, 0.2)
    assert time.monotonic() - began < 2
    # No second one beside it.
    with pytest.raises(program.Hung, match="still hangs"):
        program.in_child(lambda: {"never": 1.0}, lock, 0.2)
    deadline = time.monotonic() + 20
    while True:
        try:
            assert program.in_child(lambda: {"again": 1.0}, lock, 5) == {"again": 1.0}
            break
        except program.Hung:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    # Nobody waited for it; other tests look for children that are left.
    os.waitpid(-1, 0)
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, 0)


def test_a_child_that_dies_or_fails(tmp_path: Path) -> None:
    lock = str(tmp_path / "lock")

    def refused() -> dict[str, float]:
        raise PermissionError(13, "Permission denied")

    with pytest.raises(OSError, match="Permission denied"):
        program.in_child(refused, lock, 5)
    with pytest.raises(OSError, match="the child died"):
        program.in_child(lambda: os._exit(1), lock, 5)  # type: ignore[arg-type,return-value]


# ---- all of it ----


def page(tmp_path: Path, *words: str, path: str = "") -> tuple[str, str]:
    """What a run writes, and says."""
    target = tmp_path / "out.prom"
    command = [sys.executable, str(PATH), "--output", str(target), "--run", str(tmp_path), *words]
    env = {**os.environ, "PATH": path or os.environ["PATH"]}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stderr
    return target.read_text(encoding="utf-8"), done.stderr


def proc(tmp_path: Path, store: Path) -> str:
    """A /proc in which a folder is a mount."""
    folder = tmp_path / "proc"
    (folder / "self").mkdir(parents=True)
    (folder / "self" / "mountinfo").write_text(f"36 30 0:45 / {store} rw - nfs nfs1:/srv/mail rw\n")
    (folder / "locks").write_text(LOCKS)
    return str(folder)


def test_a_backend(tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    ids = ["--uid", str(os.getuid()), "--gid", str(os.getgid())]
    words = ["--proc", proc(tmp_path, store), "--store", str(store), *ids, "--locks", str(store)]
    text, _ = page(tmp_path, *words)
    place = f'{{path="{store}"}}'
    assert read("nfsmail_mount_mounted", text) == {f"nfsmail_mount_mounted{place}": 1}
    assert read("nfsmail_mount_responding", text) == {f"nfsmail_mount_responding{place}": 1}
    assert abs(read("nfsmail_clock_offset_seconds", text)[f"nfsmail_clock_offset_seconds{place}"]) < 0.1
    assert read("nfsmail_locks", text)[f'nfsmail_locks{{path="{store}",type="posix",state="waiting"}}'] == 1
    assert set(read("nfsmail_read_ok", text).values()) == {1}


def test_a_store_that_is_not_mounted_or_refuses(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    words = ["--proc", proc(tmp_path, gone), "--uid", str(os.getuid()), "--gid", str(os.getgid())]
    text, said = page(tmp_path, *words, "--store", str(gone))
    assert list(read("nfsmail_mount_responding", text).values()) == [0] and "No such file" in said
    assert "nfsmail_clock_offset_seconds" not in text
    text, _ = page(tmp_path, *words, "--store", str(tmp_path))
    assert list(read("nfsmail_mount_mounted", text).values()) == [0]
    assert "nfsmail_mount_responding" not in text and list(read("nfsmail_read_ok", text).values()) == [1]


def test_a_proxy(tmp_path: Path) -> None:
    state, moving, shards = (tmp_path / name for name in ("state", "moving", "nfsmail-shards"))
    moving.write_text("# nobody\n\nimap/a7:::host=1\nimap/a8:::host=1\n")
    shards.write_text("00:::\n")
    words = ["--state", str(state), "--moving", str(moving), "--same", str(shards), "--backend", "mail1"]
    text, _ = page(tmp_path, *words)
    assert read("nfsmail_backend_out", text) == {'nfsmail_backend_out{backend="mail1"}': 0}
    assert list(read("nfsmail_moving", text).values()) == [2]
    before = read("nfsmail_routing_checksum", text)
    state.write_text(json.dumps({"serial": 7, "out": ["mail1"], "users": {}, "until": 0}))
    shards.write_text("01:::\n")
    text, _ = page(tmp_path, *words)
    assert list(read("nfsmail_backend_out", text).values()) == [1]
    assert list(read("nfsmail_routing_serial", text).values()) == [7]
    assert read("nfsmail_routing_checksum", text) != before
    # A file that is no state leaves the other parts alone.
    state.write_text("{")
    text, said = page(tmp_path, *words, "--proc", proc(tmp_path, tmp_path), "--locks", str(tmp_path))
    assert read("nfsmail_read_ok", text) == {
        'nfsmail_read_ok{part="locks"}': 1,
        'nfsmail_read_ok{part="routing"}': 0,
    } and said.startswith("routing: ")


@given(st.binary(max_size=300))
def test_a_checksum_survives_prometheus(data: bytes) -> None:
    """Numbers there are floating-point."""
    assert int(float(program.checksum(data))) == program.checksum(data)


def test_commands(tmp_path: Path) -> None:
    """What a machine's commands say; one that fails, and one that is missing."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, script in {
        "rpcinfo": f"cat <<'E'\n{RPCINFO}E",
        "doveadm": "printf 'username\\tproto\\tpid\\na@x\\timap\\t1\\n'",
    }.items():
        (tools / name).write_text(f"#!/bin/sh\n{script}\n")
        (tools / name).chmod(0o755)
    words = ["--rpc", "nlockmgr", "--rpc", "status", "--sessions", "imap", "--sessions", "pop3", "--chrony"]
    text, said = page(tmp_path, *words, path=f"{tools}:/bin")
    assert list(read("nfsmail_rpc_registered", text).values()) == [1, 0]
    assert list(read("nfsmail_sessions", text).values()) == [1, 0] and list(read("nfsmail_users", text).values()) == [1]
    assert read("nfsmail_read_ok", text)['nfsmail_read_ok{part="clock"}'] == 0 and "clock: " in said
    (tools / "rpcinfo").write_text('#!/bin/sh\necho "can\'t contact rpcbind" >&2\nexit 1\n')
    text, _ = page(tmp_path, *words, path=f"{tools}:/bin")
    assert list(read("nfsmail_rpc_registered", text).values()) == [0, 0]


def test_a_balancer_has_a_state_and_nobody_on_the_way(tmp_path: Path) -> None:
    (tmp_path / "state").write_text('{"serial": 2, "out": ["mail1"]}')
    options = program.arguments(["--state", str(tmp_path / "state"), "--backend", "mail1"])
    text = program.collect(options).text()
    assert 'nfsmail_read_ok{part="routing"} 1' in text and 'nfsmail_backend_out{backend="mail1"} 1' in text
    assert "nfsmail_moving" not in text
