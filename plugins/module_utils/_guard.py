# Copyright (c) 2026 nfsmail.cluster contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The directory below a mount point: made so that nothing can write mail into it while the mount is missing.

It is looked at in a private mount namespace where the mount is taken away, so also while the mount is in use. What is
on the NFS server is never touched.

This module util is PRIVATE to the collection; it can change without notice.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import struct
from typing import Any

from ansible_collections.nfsmail.cluster.plugins.module_utils import _mounts, _system

MARKER = "NOT-MOUNTED"
MODE = 0o555
FOREIGN_SHOWN = 5

CAP_LINUX_IMMUTABLE = 9
FS_IMMUTABLE_FL = 0x10
FS_IOC_GETFLAGS = 0x80006601 | _system.long_size() << 16
FS_IOC_SETFLAGS = 0x40006602 | _system.long_size() << 16


def marker_text(source: str) -> str:
    """What the marker file says."""
    return (
        f"This directory is the mount point of {source}.\n"
        "You can read this, so nothing is mounted here now. Mail must not be written here:\n"
        "it would be hidden as soon as the mount is back.\n"
        "The directory is read-only and immutable (lsattr -d) to prevent that.\n"
        "Managed by Ansible, nfsmail.cluster.nfs_mount.\n"
    )


def _flags(fd: int) -> int | None:
    """Inode flags as chattr(1) shows them, None where the file system has none."""
    try:
        answer = fcntl.ioctl(fd, FS_IOC_GETFLAGS, b"\0" * 8)
    except OSError:
        return None
    return int(struct.unpack("=i", answer[:4])[0])


def _set_immutable(fd: int, on: bool) -> bool:
    """Switch the immutable flag; False where that cannot be done."""
    flags = _flags(fd)
    if flags is None:
        return False
    new = flags | FS_IMMUTABLE_FL if on else flags & ~FS_IMMUTABLE_FL
    if new == flags:
        return True
    try:
        fcntl.ioctl(fd, FS_IOC_SETFLAGS, struct.pack("=iI", new, 0))
    except OSError:
        return False
    return True


def _uncover(path: str) -> None:
    """Take every mount at C(path) away, for this child only."""

    def covered() -> bool:
        text = _system.read_text("/proc/self/mountinfo") or ""
        return _mounts.top_mount(_mounts.parse_mountinfo(text), path) is not None

    if not covered():
        return
    _system.private_mount_namespace()
    for dummy in range(64):
        if not covered():
            return
        _system.sys_umount(path, _system.MNT_DETACH | _system.UMOUNT_NOFOLLOW)
    raise OSError(errno.EBUSY, f"{path} is still a mount point after 64 detached mounts")


def _look(path: str) -> dict[str, Any]:
    """State of the uncovered directory; C(immutable) is None where the file system or the kernel does not allow it."""
    state: dict[str, Any] = {
        "path": path,
        "exists": False,
        "mode": None,
        "uid": None,
        "gid": None,
        "immutable": False,
        "immutable_possible": None,
        "marker": False,
        "marker_text": None,
        "foreign_entries": [],
        "foreign_count": 0,
    }
    try:
        info = os.lstat(path)
    except FileNotFoundError:
        return state
    if not stat.S_ISDIR(info.st_mode):
        kind = "a symbolic link; name the real directory" if stat.S_ISLNK(info.st_mode) else "not a directory"
        raise NotADirectoryError(errno.ENOTDIR, f"{path} cannot be a mount point: it is {kind}")
    state.update(exists=True, mode=f"{stat.S_IMODE(info.st_mode):04o}", uid=info.st_uid, gid=info.st_gid)
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        flags = _flags(fd)
        state["immutable"] = bool(flags is not None and flags & FS_IMMUTABLE_FL)
        state["immutable_possible"] = flags is not None and _system.has_capability(CAP_LINUX_IMMUTABLE)
        names = sorted(os.listdir(fd))
    finally:
        os.close(fd)
    if MARKER in names:
        names.remove(MARKER)
        marker = os.path.join(path, MARKER)
        with contextlib.suppress(OSError):
            if stat.S_ISREG(os.lstat(marker).st_mode):
                with open(marker, encoding="utf-8", errors="replace") as text:
                    state["marker_text"] = text.read(4096)
                state["marker"] = True
    state["foreign_entries"] = names[:FOREIGN_SHOWN]
    state["foreign_count"] = len(names)
    return state


def shortcomings(state: dict[str, Any], text: str | None) -> list[str]:
    """What keeps a state from being a guard; C(text) is what the marker must say, None for any text."""
    if not state["exists"]:
        return ["missing"]
    wrong = []
    if (state["uid"], state["gid"]) != (0, 0):
        wrong.append("owner")
    if state["mode"] != f"{MODE:04o}":
        wrong.append("mode")
    if not state["marker"] or (text is not None and state["marker_text"] != text):
        wrong.append("marker")
    if state["immutable_possible"] and not state["immutable"]:
        wrong.append("immutable")
    return wrong


def inspect_in_child(path: str) -> dict[str, Any]:
    """For a child: look at the directory below the mount point."""
    _uncover(path)
    return _look(path)


def ensure_in_child(path: str, text: str) -> dict[str, Any]:
    """For a child: make the directory below the mount point a guard; nothing that others left there is touched."""
    _uncover(path)
    os.umask(0o022)
    state = _look(path)
    wrong = shortcomings(state, text)
    if not wrong:
        return state
    if "missing" in wrong:
        os.makedirs(path, mode=0o755)
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        if wrong != ["immutable"]:
            _set_immutable(fd, False)
            os.fchown(fd, 0, 0)
            os.fchmod(fd, MODE)
            if "marker" in wrong or "missing" in wrong:
                _write_marker(fd, text)
            os.fsync(fd)
        _set_immutable(fd, True)
    finally:
        os.close(fd)
    return _look(path)


def _write_marker(folder: int, text: str) -> None:
    scratch = f".{MARKER}.new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(scratch, dir_fd=folder)
    fd = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o444, dir_fd=folder)
    with os.fdopen(fd, "w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    os.rename(scratch, MARKER, src_dir_fd=folder, dst_dir_fd=folder)


def remove_in_child(path: str) -> dict[str, Any]:
    """For a child: take the guard away; the directory goes too unless others left something in it."""
    _uncover(path)
    state = _look(path)
    if not state["exists"]:
        return state
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        if state["immutable"] and not _set_immutable(fd, False):
            raise PermissionError(errno.EPERM, f"{path} is immutable and that cannot be switched off here")
        if state["marker"]:
            os.unlink(MARKER, dir_fd=fd)
    finally:
        os.close(fd)
    if not state["foreign_count"]:
        os.rmdir(path)
    return _look(path)


def public(state: dict[str, Any]) -> dict[str, Any]:
    """The part of a state that modules return."""
    hidden = ("marker_text", "immutable_possible")
    return {key: value for key, value in state.items() if key not in hidden}


def inspect(path: str, timeout: float) -> dict[str, Any]:
    """Look below the mount in a child; raises Hung or ChildError."""
    found: dict[str, Any] = _system.run_isolated(lambda: inspect_in_child(path), timeout)
    return found


def ensure(path: str, text: str, timeout: float) -> dict[str, Any]:
    """Make the guard in a child; raises Hung or ChildError."""
    made: dict[str, Any] = _system.run_isolated(lambda: ensure_in_child(path, text), timeout)
    return made


def remove(path: str, timeout: float) -> dict[str, Any]:
    """Remove the guard in a child; raises Hung or ChildError."""
    left: dict[str, Any] = _system.run_isolated(lambda: remove_in_child(path), timeout)
    return left
