# Copyright (c) 2026 nfsmail.cluster contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The directory below the mount, with real mounts (as root, in namespaces of their own)."""

from __future__ import annotations

import os
import pathlib
from typing import TYPE_CHECKING, Any

import pytest
from ansible_collections.nfsmail.cluster.plugins.module_utils import _guard, _system

from .conftest import needs_root

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TEXT = _guard.marker_text("nfs1:/srv/mail")
GOOD: dict[str, Any] = {
    **{"exists": True, "uid": 0, "gid": 0, "mode": "0555", "marker": True, "marker_text": TEXT},
    **{
        "immutable": True,
        "immutable_possible": True,
        "foreign_entries": [],
        "foreign_count": 0,
        "path": "/srv/mail",
    },
}


@pytest.fixture
def path(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A mount point that can be removed afterwards."""
    point = tmp_path / "deep" / "mail"
    yield point
    if point.exists():
        _system.run(["chattr", "-i", str(point)], 5)


def below_a_mount(path: pathlib.Path, task: Callable[[], Any]) -> Any:
    """Run a task in a child that sees a tmpfs with a file at the path."""

    def work() -> Any:
        _system.private_mount_namespace()
        _system.sys_mount("first", str(path), "tmpfs", 0)
        _system.sys_mount("second", str(path), "tmpfs", 0)
        (path / "mail-on-the-server").write_text("x")
        return task()

    return _system.run_isolated(work, 20)


@pytest.mark.parametrize(
    ("change", "lacks"),
    [
        ({}, []),
        ({"exists": False}, ["missing"]),
        ({"uid": 5000}, ["owner"]),
        ({"gid": 8}, ["owner"]),
        ({"mode": "0755"}, ["mode"]),
        ({"marker": False}, ["marker"]),
        ({"marker_text": "old"}, ["marker"]),
        ({"immutable": False}, ["immutable"]),
        ({"immutable": False, "immutable_possible": False}, []),
        (
            {"uid": 1, "mode": "0700", "marker": False, "immutable": False},
            ["owner", "mode", "marker", "immutable"],
        ),
    ],
)
def test_shortcomings(change: dict[str, Any], lacks: list[str]) -> None:
    assert _guard.shortcomings({**GOOD, **change}, TEXT) == lacks


def test_marker_text_names_the_source() -> None:
    assert "mount point of nfs1:/srv/mail." in TEXT
    assert "Mail must not be written here" in TEXT
    assert _guard.shortcomings({**GOOD, "marker_text": "whatever"}, None) == []


def test_public_part() -> None:
    assert set(_guard.public(GOOD)) == {
        *("path", "exists", "mode", "uid", "gid", "immutable", "marker", "foreign_entries", "foreign_count"),
    }


@needs_root
def test_guard_is_made_and_found_again(path: pathlib.Path) -> None:
    assert _guard.shortcomings(_guard.inspect(str(path), 20), TEXT) == ["missing"]
    made = _guard.ensure(str(path), TEXT, 20)
    assert _guard.shortcomings(made, TEXT) == []
    assert (made["mode"], made["uid"], made["marker"]) == ("0555", 0, True)
    assert (path / "NOT-MOUNTED").read_text() == TEXT
    assert path.parent.stat().st_mode & 0o777 == 0o755
    if made["immutable"]:
        with pytest.raises(PermissionError):
            (path / "new").write_text("even root cannot")
    inode = (path / "NOT-MOUNTED").stat().st_ino
    assert _guard.ensure(str(path), TEXT, 20) == made
    assert (path / "NOT-MOUNTED").stat().st_ino == inode


@needs_root
def test_guard_is_repaired(path: pathlib.Path) -> None:
    path.mkdir(parents=True, mode=0o770)
    os.chown(path, 5000, 5000)
    (path / "NOT-MOUNTED").write_text("old")
    state = _guard.ensure(str(path), TEXT, 20)
    assert _guard.shortcomings(state, TEXT) == []
    other = _guard.marker_text("nfs2:/srv/mail")
    assert _guard.shortcomings(state, other) == ["marker"]
    assert _guard.shortcomings(_guard.ensure(str(path), other, 20), other) == []


@needs_root
def test_guard_is_seen_and_made_below_a_mount(path: pathlib.Path) -> None:
    path.mkdir(parents=True, mode=0o700)
    (path / "old-mail").write_text("lost?")

    def task() -> Any:
        before = _guard.inspect(str(path), 20)
        after = _guard.ensure(str(path), TEXT, 20)
        return before, after, os.listdir(path)

    before, after, on_server = below_a_mount(path, task)
    assert before["foreign_entries"] == ["old-mail"]
    assert before["mode"] == "0700"
    assert _guard.shortcomings(after, TEXT) == []
    assert on_server == ["mail-on-the-server"]  # the mount stayed and nothing was written to it
    assert (path / "old-mail").read_text() == "lost?"
    assert (path / "NOT-MOUNTED").exists()


@needs_root
def test_only_five_of_many_foreign_entries_are_named(path: pathlib.Path) -> None:
    path.mkdir(parents=True)
    for number in range(7):
        (path / f"user{number}").mkdir()
    state = _guard.ensure(str(path), TEXT, 20)
    assert state["foreign_entries"] == ["user0", "user1", "user2", "user3", "user4"]
    assert state["foreign_count"] == 7


@needs_root
def test_guard_is_removed(path: pathlib.Path) -> None:
    _guard.ensure(str(path), TEXT, 20)
    assert _guard.remove(str(path), 20)["exists"] is False
    assert not path.exists()
    assert _guard.remove(str(path), 20)["exists"] is False


@needs_root
def test_removal_keeps_what_others_left(path: pathlib.Path) -> None:
    path.mkdir(parents=True)
    (path / "old-mail").write_text("x")
    _guard.ensure(str(path), TEXT, 20)
    left = _guard.remove(str(path), 20)
    assert (left["exists"], left["marker"], left["immutable"]) == (True, False, False)
    assert os.listdir(path) == ["old-mail"]


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("link", "cannot be a mount point: it is a symbolic link; name the real directory"),
        ("file", "cannot be a mount point: it is not a directory"),
    ],
)
def test_not_a_directory(tmp_path: pathlib.Path, kind: str, error: str) -> None:
    place = tmp_path / "mail"
    if kind == "link":
        place.symlink_to(tmp_path)
    else:
        place.write_text("")
    with pytest.raises(_system.ChildError, match=error):
        _guard.inspect(str(place), 20)


@needs_root
def test_a_marker_that_is_a_link_is_not_followed(path: pathlib.Path, tmp_path: pathlib.Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("keep")
    path.mkdir(parents=True)
    (path / "NOT-MOUNTED").symlink_to(victim)
    (path / ".NOT-MOUNTED.new").symlink_to(victim)
    state = _guard.ensure(str(path), TEXT, 20)
    assert state["marker_text"] == TEXT
    assert victim.read_text() == "keep"
