# Copyright (c) 2026 nfsmail.cluster contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What nfs_exports does with an exportfs that is made up, and once with mounts that are real."""

from __future__ import annotations

import os
import re
import stat
from typing import TYPE_CHECKING, Any

import pytest
from ansible_collections.nfsmail.cluster.plugins.module_utils import _exports, _system
from ansible_collections.nfsmail.cluster.plugins.modules import nfs_exports

from .conftest import needs_root

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Sequence

    from .conftest import RunModule

ONE = "/srv/mail 10.0.0.2(rw,sync,no_subtree_check)\n"
TWO = ONE + "/srv/mail 10.0.0.3(rw,sync,no_subtree_check)\n"


class Host:
    """A made-up exportfs: what is read is what is shown, unless it is told otherwise."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.file = folder / "nfsmail.exports"
        self.table = ""
        self.commands: list[str] = []
        self.lost: str | None = None  # a client that exportfs leaves out
        self.says = ""
        self.tried: dict[str, Any] | Exception | None = None
        self.more = ""  # what other files export

    def show(self, text: str) -> str:
        """exportfs -s after exportfs -ra."""
        entries = _exports.parse_exports(text)[0]
        return self.more + "".join(
            f"{entry['path']}  {entry['client']}(wdelay,hide,{','.join(entry['options'])},root_squash)\n"
            for entry in entries
            if entry["client"] != self.lost
        )

    def run(self, command: Sequence[str], timeout: float) -> _system.Result:
        """exportfs."""
        assert timeout > 0
        self.commands.append(command[1])
        if command[1] == "-ra":
            self.table = self.show(self.file.read_text() if self.file.exists() else "")
            return _system.Result(1, "", self.says)  # its exit code proves nothing
        return _system.Result(0, self.table, "")

    def isolated(self, func: Any, timeout: float) -> Any:
        """The try in a namespace."""
        assert timeout > 0
        if isinstance(self.tried, Exception):
            raise self.tried
        return self.tried or func()


@pytest.fixture
def host(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """A host in the place of the real one."""
    made = Host(tmp_path)
    monkeypatch.setattr(_system, "run", made.run)
    monkeypatch.setattr(_system, "run_isolated", made.isolated)
    monkeypatch.setattr(_system, "find_program", lambda name: "/usr/sbin/exportfs" if name == "exportfs" else None)
    monkeypatch.setattr(nfs_exports, "EXPORTS_D", str(tmp_path))
    monkeypatch.setattr(nfs_exports, "STATE", str(tmp_path))

    def try_in_child(_path: str, content: str, *_more: Any) -> dict[str, Any]:
        return {"rc": 0, "err": made.says, "table": made.show(content), "reason": ""}

    monkeypatch.setattr(nfs_exports, "try_in_child", try_in_child)
    return made


def test_first_and_second_run(host: Host, run_module: RunModule) -> None:
    result = run_module.ok(nfs_exports, path=str(host.file), content=TWO)
    assert (result["changed"], result["action"], host.commands) == (
        True,
        "written_and_applied",
        ["-ra", "-s"],
    )
    assert host.file.read_text() == TWO
    assert stat.S_IMODE(host.file.stat().st_mode) == 0o644
    assert (result["diff"]["before"], result["diff"]["after"]) == ("", TWO)
    assert [entry["client"] for entry in result["exports"]] == ["10.0.0.2", "10.0.0.3"]
    host.commands.clear()
    result = run_module.ok(nfs_exports, path=str(host.file), content=TWO)
    assert (result["changed"], result["action"], host.commands) == (False, "none", ["-s"])


def test_file_right_but_not_in_effect(host: Host, run_module: RunModule) -> None:
    host.file.write_text(ONE)
    host.file.chmod(0o644)
    checked = run_module.ok(nfs_exports, check=True, path=str(host.file), content=ONE)
    assert (checked["changed"], checked["action"], host.commands) == (True, "applied", ["-s"])
    result = run_module.ok(nfs_exports, path=str(host.file), content=ONE)
    assert (result["action"], host.commands) == ("applied", ["-s", "-s", "-ra", "-s"])
    host.lost = "10.0.0.2"
    host.table = ""
    failed = run_module.fail(nfs_exports, path=str(host.file), content=ONE)
    assert failed["msg"] == (
        f"{host.file} is as it should be, but not in effect even after exportfs -ra: "
        "/srv/mail for 10.0.0.2: wanted exported, found not exported"
    )


def test_check_mode_writes_nothing(host: Host, run_module: RunModule) -> None:
    result = run_module.ok(nfs_exports, check=True, path=str(host.file), content=ONE)
    assert (result["changed"], result["action"]) == (True, "written_and_applied")
    assert (host.file.exists(), host.commands) == (False, [])


def test_check_mode_without_nfs_utils(host: Host, run_module: RunModule, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_system, "find_program", lambda _name: None)
    assert run_module.ok(nfs_exports, check=True, path=str(host.file), content=ONE)["changed"] is True
    failed = run_module.fail(nfs_exports, path=str(host.file), content=ONE)
    assert failed["msg"] == "exportfs was not found; install nfs-kernel-server (Debian) or nfs-utils (Red Hat)"
    result = run_module.ok(nfs_exports, path=str(host.file), content=ONE, apply=False)
    assert (result["action"], result["exports"], host.file.read_text()) == ("written", None, ONE)


def test_bad_file_is_never_written(host: Host, run_module: RunModule) -> None:
    host.file.write_text(ONE)
    host.file.chmod(0o644)
    host.lost, host.says = "nohost", "exportfs: Failed to resolve nohost\n"
    content = ONE + "/srv/mail nohost(rw)\n"
    failed = run_module.fail(nfs_exports, path=str(host.file), content=content)
    assert failed["msg"] == (
        f"{host.file} was not written, for it would not be in effect as it should be: /srv/mail for nohost: wanted exported, "
        "found not exported; exportfs said: Failed to resolve nohost"
    )
    assert failed["mismatches"] == [
        {"path": "/srv/mail", "client": "nohost", "wanted": "exported", "found": "not exported"}
    ]
    assert (host.file.read_text(), host.commands, failed["changed"]) == (ONE, [], False)
    checked = run_module.ok(nfs_exports, check=True, path=str(host.file), content=content)
    assert checked["changed"] is True
    assert run_module.warnings[0].startswith(
        f"{host.file} would not be in effect as it should be on this host: /srv/mail for"
    )


@pytest.mark.parametrize("old", [ONE, None])
def test_old_file_comes_back(host: Host, run_module: RunModule, old: str | None) -> None:
    if old is not None:
        host.file.write_text(old)
        host.file.chmod(0o640)
    host.tried = _system.ChildError("unshare: Operation not permitted", "PermissionError")
    host.lost, host.says = "10.0.0.3", "exportfs: 10.0.0.3:/srv/mail (0x425) [IGNORED]\n"
    failed = run_module.fail(nfs_exports, path=str(host.file), content=TWO)
    back = "the old file was put back" if old else "the file was removed again"
    assert failed["msg"] == (
        f"{host.file} was not in effect as it should be, {back}: /srv/mail for 10.0.0.3: wanted exported, found not exported; "
        "exportfs said: 10.0.0.3:/srv/mail (0x425) [IGNORED]"
    )
    assert host.commands == ["-ra", "-s", "-ra"]
    assert (host.file.read_text() if host.file.exists() else None) == old
    if old is not None:
        assert stat.S_IMODE(host.file.stat().st_mode) == 0o640
    assert run_module.warnings == [
        f"{host.file} could not be tried in a private mount namespace before it was written: unshare: Operation not permitted"
    ]


def test_the_world_in_another_file(host: Host, run_module: RunModule) -> None:
    host.more = "/srv/mail  *(ro,sync)\n"
    failed = run_module.fail(nfs_exports, path=str(host.file), content=ONE)
    assert "/srv/mail for *: wanted not exported, found exported to the whole world, *(ro,sync)" in failed["msg"]


def test_expected_counts_more_than_content(host: Host, run_module: RunModule) -> None:
    expected = [{"path": "/srv/mail", "client": "10.0.0.2", "options": ["rw", "all_squash", "anonuid=5000"]}]
    failed = run_module.fail(nfs_exports, path=str(host.file), content=ONE, expected=expected)
    assert [(item["wanted"], item["found"]) for item in failed["mismatches"]] == [
        ("all_squash", "no all_squash"),
        ("anonuid=5000", "no anonuid"),
    ]
    expected = [{"path": "/srv/mail", "client": "10.0.0.2/32"}]
    failed = run_module.fail(nfs_exports, path=str(host.file), content=ONE, expected=expected)
    assert [item["client"] for item in failed["mismatches"]] == ["10.0.0.2/32", "10.0.0.2"]


@pytest.mark.parametrize(
    ("params", "error"),
    [
        (
            {"content": "/srv 10.0.0.2 (rw)"},
            "content of FILE must not be written as it is: line 1: a blank before (rw) exports /srv to the whole world with "
            "these options; write CLIENT(rw)",
        ),
        (
            {"content": "# nothing\n"},
            "content of FILE exports nothing, which takes the mail store from every client; set allow_empty if that is meant",
        ),
        (
            {"content": ONE, "path": "/etc/nfs.exports"},
            "exportfs reads /etc/exports and DIR/*.exports, so path cannot be /etc/nfs.exports",
        ),
        (
            {"content": ONE, "path": "FILE.conf"},
            "exportfs reads /etc/exports and DIR/*.exports, so path cannot be FILE.conf",
        ),
    ],
)
def test_bad_parameters(host: Host, run_module: RunModule, params: dict[str, str], error: str) -> None:
    def real(text: str) -> str:
        return re.sub(r"\bFILE\b", str(host.file), re.sub(r"\bDIR\b", str(host.file.parent), text))

    given = {"path": str(host.file), **{key: real(value) for key, value in params.items()}}
    assert run_module.fail(nfs_exports, **given)["msg"] == real(error)
    assert not host.file.exists()


def test_empty_on_purpose(host: Host, run_module: RunModule) -> None:
    result = run_module.ok(nfs_exports, path=str(host.file), content="# nothing", allow_empty=True)
    assert (result["changed"], host.file.read_text()) == (True, "# nothing\n")


def test_canonical() -> None:
    same = nfs_exports.Canonical(["localhost", "127.0.0.1", "*.lan", "@ng", "10.0.0.0/8", "fe80::1"], 10)
    assert same("*.lan") == "*.lan"
    assert same("@ng") == "@ng"
    assert "127.0.0.1" in same("LOCALHOST")
    assert same("10.0.0.0/255.0.0.0") == "10.0.0.0/8"
    names = [
        "mail1",
        "mail-1.example.com",
        "1and1.com",
        "10.0.0.2",
        "*.lan",
        "m?.lan",
        "@ng",
        "10.0.0.0/8",
        "::1",
        "[::1]",
    ]
    assert [name for name in names if nfs_exports.Canonical.is_name(name)] == [
        "mail1",
        "mail-1.example.com",
        "1and1.com",
    ]


EXPORTFS = """\
#!/bin/sh
case $1 in
-ra) cat {exports}/*.exports > {state}/etab; echo "exportfs: said" >&2; exit 1 ;;
-s) cat {state}/etab ;;
esac
"""


@needs_root
def test_try_in_a_real_namespace(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exports, state, nfsd = tmp_path / "exports.d", tmp_path / "state", tmp_path / "nfsd"
    for folder in (exports, state, nfsd):
        folder.mkdir()
    (exports / "a.exports").write_text("other\n")
    (exports / "nfsmail.exports").write_text("old\n")
    (state / "etab").write_text("live\n")
    (nfsd / "threads").write_text("8\n")
    (nfsd / "export_features").write_text("0x3ffff 0x3e003\n")
    program = tmp_path / "exportfs"
    program.write_text(EXPORTFS.format(exports=exports, state=state))
    program.chmod(0o755)
    monkeypatch.setattr(nfs_exports, "EXPORTS_D", str(exports))
    monkeypatch.setattr(nfs_exports, "NFSD", str(nfsd))

    def work() -> Any:
        tried = nfs_exports.try_in_child(str(exports / "nfsmail.exports"), "new\n", str(program), str(state), 10)
        return tried, {name: (nfsd / name).read_text() for name in sorted(os.listdir(nfsd))}

    tried, control = _system.run_isolated(work, 20)
    assert tried == {"rc": 1, "err": "exportfs: said\n", "table": "other\nnew\n", "reason": "other\nnew"}
    assert control == {"export_features": "0x3ffff 0x3e003\n", "threads": ""}
    assert (state / "etab").read_text() == "live\n"
    assert (exports / "nfsmail.exports").read_text() == "old\n"

    other = tmp_path / "exports"
    other.write_text("old\n")
    program.write_text(EXPORTFS.format(exports=exports, state=state).replace(f"{exports}/*.exports", str(other)))
    tried = _system.run_isolated(
        lambda: nfs_exports.try_in_child(str(other), "new\n", str(program), str(state), 10), 20
    )
    assert tried["table"] == "new\n"
    assert other.read_text() == "old\n"
