# Copyright (c) 2026 nfsmail.cluster contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Children with a deadline, commands, files."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import time

import pytest
from ansible_collections.nfsmail.cluster.plugins.module_utils import _system


def test_child_answers() -> None:
    assert _system.run_isolated(lambda: {"a": [1, None, "ü"]}, 5) == {"a": [1, None, "ü"]}


def test_child_with_a_long_answer() -> None:
    assert _system.run_isolated(lambda: "x" * 1_000_000, 20) == "x" * 1_000_000


def test_child_error_comes_back() -> None:
    with pytest.raises(_system.ChildError, match="No such file") as caught:
        _system.run_isolated(lambda: os.stat("/no/such"), 5)
    assert caught.value.kind == "FileNotFoundError"
    assert caught.value.code == 2


def test_child_that_hangs_is_left_behind() -> None:
    start = time.monotonic()
    with pytest.raises(_system.Hung, match="no answer within 0 s"):
        _system.run_isolated(lambda: time.sleep(60), 0.3)
    assert time.monotonic() - start < 5


def test_child_that_dies_is_reported() -> None:
    with pytest.raises(_system.ChildError, match="the child ended without an answer"):
        _system.run_isolated(lambda: os._exit(3), 5)


def test_children_share_one_deadline() -> None:
    start = time.monotonic()
    children = {
        "quick": _system.start_child(lambda: 1),
        "slow": _system.start_child(lambda: time.sleep(60)),
        "bad": _system.start_child(lambda: 1 // 0),
    }
    answers = _system.collect_all(children, 1)
    assert time.monotonic() - start < 5
    assert answers["quick"] == 1
    assert isinstance(answers["slow"], _system.Hung)
    assert isinstance(answers["bad"], _system.ChildError)
    assert answers["bad"].kind == "ZeroDivisionError"


def test_child_keeps_no_pipe_of_its_parent(tmp_path: pathlib.Path) -> None:
    """Whoever reads our output sees its end although a child is still stuck."""
    script = tmp_path / "script.py"
    script.write_text(
        "import time\n"
        "from ansible_collections.nfsmail.cluster.plugins.module_utils import _system\n"
        "_system.start_child(lambda: time.sleep(20))\n"
        "print('done', flush=True)\n"
    )
    start = time.monotonic()
    env = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
    out = subprocess.run([sys.executable, str(script)], capture_output=True, timeout=15, check=True, env=env).stdout
    assert out == b"done\n"
    assert time.monotonic() - start < 15


def test_namespace_only_in_a_child() -> None:
    with pytest.raises(RuntimeError, match="a private mount namespace is for children only"):
        _system.private_mount_namespace()


def test_run() -> None:
    result = _system.run(["sh", "-c", "echo out; echo bad >&2; exit 3"], 5)
    assert (result.rc, result.out, result.reason) == (3, "out\n", "bad")


def test_run_gives_up() -> None:
    start = time.monotonic()
    result = _system.run(["sh", "-c", "echo before >&2; sleep 60"], 0.5)
    assert result.rc is None
    assert result.timed_out
    assert result.err.startswith("sh did not finish within 0.5 s")
    assert time.monotonic() - start < 5


def test_run_without_the_program() -> None:
    result = _system.run(["/no/such/program"], 5)
    assert (result.rc, result.reason) == (None, "/no/such/program: No such file or directory")


def test_write_atomically_keeps_mode_and_links(tmp_path: pathlib.Path) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    real.write_text("old")
    real.chmod(0o640)
    link.symlink_to(real)
    _system.write_atomically(str(link), "new\udcff")
    assert link.is_symlink()
    assert real.read_bytes() == b"new\xff"
    assert real.stat().st_mode & 0o777 == 0o640
    assert _system.read_text(str(link)) == "new\udcff"
    _system.write_atomically(str(tmp_path / "fresh"), "x", 0o600)
    assert (tmp_path / "fresh").stat().st_mode & 0o777 == 0o600
    assert len(list(tmp_path.iterdir())) == 3
    assert _system.read_text(str(tmp_path / "none")) is None


def test_holders(tmp_path: pathlib.Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    (tmp_path / "store2").mkdir()
    with (
        subprocess.Popen(["sleep", "60"], cwd=store) as inside,
        subprocess.Popen(["sleep", "60"], cwd=tmp_path / "store2") as near,
    ):
        with (store / "open").open("w") as handle, subprocess.Popen(["sleep", "60"], stdout=handle) as opener:
            try:
                time.sleep(0.1)
                found = {item["pid"]: item for item in _system.find_holders(str(store), skip=(os.getpid(),))}
            finally:
                for process in (inside, near, opener):
                    process.kill()
    assert found[inside.pid] == {"pid": inside.pid, "name": "sleep", "why": ["cwd"]}
    assert found[opener.pid]["why"] == ["fd"]
    assert near.pid not in found
    assert os.getpid() not in found


def test_holders_in_a_made_up_proc(tmp_path: pathlib.Path) -> None:
    for number, link in (("7", "/srv/mail/gone (deleted)"), ("8", "/srv/mailbox"), ("9", "/srv/mail")):
        process = tmp_path / number
        process.mkdir()
        (process / "exe").symlink_to(link)
        (process / "comm").write_text("imap\n")
        (process / "maps").write_text("7f0-7f1 rw-s 00000000 00:23 12 /srv/mail/a b\n" if number == "8" else "")
    (tmp_path / "self").mkdir()
    found = _system.find_holders("/srv/mail", proc=str(tmp_path))
    assert [(item["pid"], item["why"]) for item in found] == [(7, ["exe"]), (8, ["map"]), (9, ["exe"])]
