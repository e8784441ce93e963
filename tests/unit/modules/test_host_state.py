# Copyright (c) 2026 nfsmail.cluster contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One call of host_state: all parts are there, and a part that fails or hangs spoils no other."""

from __future__ import annotations

import hashlib
import os
import time
from typing import TYPE_CHECKING, Any

import pytest
from ansible_collections.nfsmail.cluster.plugins.module_utils import _system
from ansible_collections.nfsmail.cluster.plugins.modules import host_state

from .conftest import needs_root

if TYPE_CHECKING:
    import pathlib

    from .conftest import RunModule

PARTS = {
    *(
        "hostname",
        "kernel",
        "now",
        "mounts",
        "kernel_settings",
        "packet_filter",
        "log",
        "addresses",
        "guard",
        "nfsd",
        "exports",
        "lockd",
        "rpc",
        "rpc_server",
        "statd_monitored",
    ),
    *("locks", "clock", "dovecot", "units", "haproxy", "files", "took_s"),
}


def test_a_host_without_anything(run_module: RunModule) -> None:
    result = run_module.ok(host_state)
    state = result["state"]
    assert result["changed"] is False
    assert set(state) == PARTS
    assert state["hostname"] == os.uname().nodename
    assert abs(state["now"] - time.time()) < 30
    assert (state["guard"], state["rpc_server"], state["units"], state["files"]) == (None, None, {}, {})
    assert state["clock"]["ntp"] is None
    assert state["clock"]["store"] is None
    assert set(state["clock"]["daemon"]) == {"name", "running", "synchronised", "detail"}
    assert isinstance(state["locks"], int)
    assert isinstance(state["mounts"], list)


def test_parameters_of_kernel_modules(run_module: RunModule) -> None:
    """A module that is not loaded has none; the kernel itself has this one on every machine."""
    asked = ["printk.time", "no_such_module.parameter"]
    found = run_module.ok(host_state, kernel_settings=asked)["state"]["kernel_settings"]
    assert list(found) == ["printk.time"] and found["printk.time"] in "YN"


def test_hashes(tmp_path: pathlib.Path, run_module: RunModule) -> None:
    there = tmp_path / "there"
    there.write_text("x")
    files = [str(there), str(tmp_path / "gone"), str(there / "below")]
    state = run_module.ok(host_state, files=files)["state"]
    assert state["files"] == dict(zip(files, (hashlib.sha256(b"x").hexdigest(), None, None)))


def test_parts_fail_softly(tmp_path: pathlib.Path, run_module: RunModule, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_system, "find_program", lambda _name: None)
    state = run_module.ok(
        host_state,
        store=str(tmp_path),
        export_server="no-such-host.invalid",
        units=["dovecot.service"],
        files=[str(tmp_path)],
        timeout=10,
    )["state"]
    assert set(state) == PARTS
    assert state["rpc"] == {"error": "rpcinfo is not installed"}
    assert state["rpc_server"] == {"error": "rpcinfo is not installed"}
    assert state["units"] == {"error": "systemctl is not installed"}
    assert (state["exports"], state["dovecot"]) == (None, None)
    assert state["clock"]["store"] == {"error": f"nothing is mounted at {tmp_path}"}
    assert set(state["clock"]["ntp"]) == {"error", "server"}
    assert "Is a directory" in state["files"]["error"]
    assert state["guard"]["marker"] is False


def test_parts_that_hang(tmp_path: pathlib.Path, run_module: RunModule, monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(*_args: Any) -> Any:
        time.sleep(60)

    for name in ("guard", "clock_store", "rpc"):
        monkeypatch.setattr(host_state, name, hang)
    start = time.monotonic()
    state = run_module.ok(host_state, store=str(tmp_path), timeout=4)["state"]
    assert time.monotonic() - start < 10
    for part in (state["guard"], state["clock"]["store"], state["rpc"]):
        assert part == {"error": "hung: no answer within 2 s"}
    assert isinstance(state["locks"], int)


def test_check_mode_makes_no_file(tmp_path: pathlib.Path, run_module: RunModule) -> None:
    state = run_module.ok(host_state, check=True, store=str(tmp_path))["state"]
    assert state["clock"]["store"] == {"error": "left out in check mode"}


SHOW = """\
Id=dovecot.service
LoadState=loaded
ActiveState=active
FragmentPath={fragment}
DropInPaths={dropin}
After=network.target

Id=nosuch.service
LoadState=not-found
ActiveState=inactive
FragmentPath=
DropInPaths=
"""


def test_units(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "f").write_text("[Unit]\nAssertPathExists=/a\n")
    (tmp_path / "d").write_text("[Unit]\nAssertPathIsMountPoint=/srv/mail\n")
    text = SHOW.format(fragment=tmp_path / "f", dropin=tmp_path / "d")
    monkeypatch.setattr(host_state, "need", lambda *_args: text)
    units = host_state.units(["dovecot.service", "nosuch.service"], 5)
    assert units["dovecot.service"]["Asserts"] == ["AssertPathExists=/a", "AssertPathIsMountPoint=/srv/mail"]
    assert units["nosuch.service"]["Asserts"] == []
    with pytest.raises(ValueError, match="systemctl show answered for 2 of 1 units"):
        host_state.units(["dovecot.service"], 5)


@needs_root
def test_store_clock_and_mounts_of_a_real_mount(tmp_path: pathlib.Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    for parent in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        parent.chmod(0o755)

    def work() -> Any:
        _system.private_mount_namespace()
        _system.sys_mount("made-up", str(store), "tmpfs", _system.MS_NOSUID, "mode=0755,uid=5000,gid=5000")
        refused = ""
        found = _system.run_isolated(lambda: host_state.clock_store(str(store), 5000, 5000), 10)
        try:
            _system.run_isolated(lambda: host_state.clock_store(str(store), 5001, 5001), 10)
        except _system.ChildError as exc:
            refused = exc.kind
        return found, refused, os.listdir(store), host_state.mounts(str(store))

    found, refused, left, mounts = _system.run_isolated(work, 30)
    assert found["offset_min"] <= 0.001 <= found["offset_max"] + 0.001
    assert found["tries"] == 10
    assert (refused, left) == ("PermissionError", [])
    mount = next(mount for mount in mounts if mount["path"] == str(store))
    assert (mount["source"], mount["fstype"]) == ("made-up", "tmpfs")
    assert {"rw", "nosuid", "mode=755"} <= set(mount["options"])


def test_statd_s_list_is_where_the_distribution_has_it(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    debian, redhat = tmp_path / "sm", tmp_path / "statd" / "sm"
    monkeypatch.setattr(host_state, "STATD", (str(debian), str(redhat)))
    assert host_state.statd_monitored() == []
    redhat.mkdir(parents=True)
    (redhat / "mail1").touch()
    assert host_state.statd_monitored() == ["mail1"]
    debian.mkdir()
    assert host_state.statd_monitored() == []
