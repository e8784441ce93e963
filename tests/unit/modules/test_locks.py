# Copyright (c) 2026 nfsmail.cluster contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Locks between real processes, through the module."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from ansible_collections.nfsmail.cluster.plugins.module_utils import _locks, _system
from ansible_collections.nfsmail.cluster.plugins.modules import lock_probe

from .conftest import needs_root

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .conftest import RunModule


@pytest.fixture
def holder(tmp_path: pathlib.Path, run_module: RunModule) -> Iterator[dict[str, Any]]:
    """A held lock on tmp_path/lock."""
    held = run_module.ok(lock_probe, action="hold", path=str(tmp_path / "lock"), ttl=60)
    yield held
    _locks.release(held["pid"], None, 5) if _locks.is_holder(held["pid"]) else None


def test_a_held_lock_is_refused_to_others(
    tmp_path: pathlib.Path, run_module: RunModule, holder: dict[str, Any]
) -> None:
    assert holder["changed"] is True
    assert abs(holder["held_at"] - time.time()) < 10
    path = str(tmp_path / "lock")
    tried = run_module.ok(lock_probe, action="try", path=path)
    assert (tried["granted"], tried["errno"], tried["changed"]) == (False, "EAGAIN", False)
    failed = run_module.fail(lock_probe, action="hold", path=path)
    assert failed["msg"] == f"the lock on {path} was refused: EAGAIN"
    assert failed["errno"] == "EAGAIN"
    waited = run_module.ok(lock_probe, action="wait", path=path, timeout=1)
    assert (waited["granted"], waited["errno"]) == (False, "EAGAIN")
    assert waited["waited_s"] >= 1
    released = run_module.ok(lock_probe, action="release", token=holder["token"])
    assert (released["released"], released["changed"]) == (True, True)
    assert run_module.ok(lock_probe, action="try", path=path)["granted"] is True
    again = run_module.ok(lock_probe, action="release", token=holder["token"])
    assert (again["released"], again["changed"]) == (False, False)


def test_wait_gets_a_lock_that_is_given_up(tmp_path: pathlib.Path, run_module: RunModule) -> None:
    path = tmp_path / "lock"
    run_module.ok(lock_probe, action="hold", path=str(path), ttl=1)
    waited = run_module.ok(lock_probe, action="wait", path=str(path), timeout=20, unlink=True)
    assert (waited["granted"], waited["errno"], waited["unlinked"], waited["changed"]) == (
        True,
        None,
        True,
        True,
    )
    assert 0.3 < waited["waited_s"] < 10
    assert not path.exists()


def test_release_by_number(run_module: RunModule, holder: dict[str, Any]) -> None:
    assert run_module.ok(lock_probe, action="release", pid=holder["pid"])["released"] is True


def test_release_ends_only_our_processes(run_module: RunModule) -> None:
    with subprocess.Popen(["sleep", "60"]) as other:
        error = f"process {other.pid} does not hold a lock of nfsmail.cluster.lock_probe"
        time.sleep(0.1)
        assert run_module.fail(lock_probe, action="release", pid=other.pid)["msg"] == error
        token = _locks.make_token(other.pid)
        assert run_module.fail(lock_probe, action="release", token=token)["msg"] == error
        assert other.poll() is None
        other.kill()


def test_token_of_an_earlier_process_with_the_number(run_module: RunModule, holder: dict[str, Any]) -> None:
    pid, started = _locks.read_token(holder["token"])
    assert run_module.ok(lock_probe, action="release", token=f"{pid}-{started - 1}")["released"] is False
    assert _locks.is_holder(pid)


def test_bad_token(run_module: RunModule) -> None:
    msg = run_module.fail(lock_probe, action="release", token="x")["msg"]
    assert msg == "token must be the one that action=hold returned, like 4711-123456, not 'x'"


def test_what_is_needed(run_module: RunModule) -> None:
    msg = run_module.fail(lock_probe, action="release")["msg"]
    assert msg == "action is release but any of the following are missing: token, pid"
    assert (
        run_module.fail(lock_probe, action="try")["msg"] == "action is try but all of the following are missing: path"
    )


def test_open_fails(tmp_path: pathlib.Path, run_module: RunModule) -> None:
    path = str(tmp_path / "no" / "lock")
    assert (
        run_module.fail(lock_probe, action="hold", path=path)["msg"] == f"{path} cannot be opened for writing: ENOENT"
    )
    tried = run_module.ok(lock_probe, action="try", path=path)
    assert (tried["granted"], tried["errno"], tried["stage"]) == (False, "ENOENT", "open")
    waited = run_module.ok(lock_probe, action="wait", path=path)
    assert (waited["granted"], waited["errno"], waited["stage"]) == (False, "ENOENT", "open")


@needs_root
def test_the_lock_is_taken_as_the_user(tmp_path: pathlib.Path, run_module: RunModule) -> None:
    folder = tmp_path / "store"
    folder.mkdir(mode=0o700)
    os.chown(folder, 12345, 12346)
    for parent in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        parent.chmod(0o755)
    path = folder / "lock"
    held = run_module.ok(lock_probe, action="hold", path=str(path), uid=12345, gid=12346, ttl=30)
    info = path.stat()
    assert (info.st_uid, info.st_gid, info.st_mode & 0o777) == (12345, 12346, 0o600)
    status = pathlib.Path(f"/proc/{held['pid']}/status").read_text()
    assert "Uid:\t12345\t12345\t12345\t12345" in status
    assert "Groups:\t \n" in status or "Groups:\t\n" in status
    run_module.ok(lock_probe, action="release", token=held["token"])
    refused = run_module.ok(lock_probe, action="try", path=str(path), uid=12399, gid=12399)
    assert (refused["granted"], refused["errno"]) == (False, "EACCES")


def test_holder_keeps_no_pipe(tmp_path: pathlib.Path) -> None:
    """The connection of Ansible must end while the holder lives on."""
    script = tmp_path / "script.py"
    script.write_text(
        "from ansible_collections.nfsmail.cluster.plugins.module_utils import _locks\n"
        f"print(_locks.hold({str(tmp_path / 'lock')!r}, None, None, 30, 10)['token'], flush=True)\n"
    )
    env = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
    out = subprocess.run([sys.executable, str(script)], capture_output=True, timeout=20, check=True, env=env).stdout
    pid, started = _locks.read_token(out.decode().strip())
    assert _locks.is_holder(pid)
    assert {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in ("0", "1", "2")} == {"/dev/null"}
    assert os.getsid(pid) != os.getsid(0)
    assert _locks.release(pid, started, 5) == {"released": True, "was_running": True}


def test_hung_server(tmp_path: pathlib.Path, run_module: RunModule, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_locks, "open_as", lambda *_args: time.sleep(60))
    path = str(tmp_path / "lock")
    tried = run_module.ok(lock_probe, action="try", path=path, timeout=1)
    assert (tried["granted"], tried["errno"], tried["stage"]) == (False, "ETIMEDOUT", "hung")
    failed = run_module.fail(lock_probe, action="hold", path=path, timeout=1)
    assert failed["msg"] == f"no answer about a lock on {path} within 1 s; is the server gone or in grace?"


def test_skipped_in_check_mode(run_module: RunModule) -> None:
    assert run_module.ok(lock_probe, check=True, action="try", path="/x")["skipped"] is True


def test_collected_children_leave_no_zombie() -> None:
    _system.run_isolated(lambda: 1, 5)
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
