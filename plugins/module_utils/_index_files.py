# Copyright (c) 2026 nfsmail.cluster contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Index files of all users: found, copied and removed, by the mail user.

Everything here runs in a child, since the mail store may hang, and as the mail user, since NFS servers let root write
nothing.

This module util is PRIVATE to the collection; it can change without notice.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ansible_collections.nfsmail.cluster.plugins.module_utils import _indexes, _system
from ansible_collections.nfsmail.cluster.plugins.module_utils._indexes import Refused

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

WORKERS = 8  # each copy waits for its fsync
SHOWN = 3
SPARE = 64 * 1024 * 1024


@dataclass(frozen=True)
class Tree:
    """The index files of one user in one place."""

    driver: str
    root: str
    with_mail: bool

    def files(self) -> Iterator[tuple[str, str, str]]:
        """Path, canonical directory and canonical name of each index file."""
        for path, folder, name in self._walk(self.root, ""):
            found = _indexes.canonical(self.driver, self.with_mail, folder, name)
            if found:
                yield path, *found

    def path(self, folder: str, name: str) -> str:
        """Where a file is in this tree, by its canonical directory and name."""
        return os.path.join(self.root, _indexes.placed(self.driver, self.with_mail, folder), name)

    def _walk(self, path: str, folder: str) -> Iterator[tuple[str, str, str]]:
        try:
            entries = sorted(os.scandir(path), key=lambda entry: entry.name)
        except FileNotFoundError:
            return
        for entry in entries:
            below = f"{folder}/{entry.name}" if folder else entry.name
            if entry.is_dir():
                if not _indexes.descends(self.driver, self.with_mail, folder, entry.name):
                    continue
                if entry.is_symlink():
                    raise Refused(
                        f"{entry.path} is a symbolic link, and may lead to another user's indexes; move by hand"
                    )
                yield from self._walk(entry.path, below)
            elif _indexes.is_index(entry.name):
                if not entry.is_file(follow_symlinks=False):
                    raise Refused(f"{entry.path} is not a regular file; move by hand")
                yield entry.path, folder, entry.name


def homes(template: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Home and user for each directory that can be a home."""
    for number, pattern in enumerate(_indexes.home_patterns(template)):
        for path, parts in _matching("/", pattern):
            user = _indexes.user_of(parts)
            if user and number:
                user = None if user.get("domain") or "name" not in user else _indexes.without_domain(user)
            if user:
                yield path, user


def _matching(path: str, pattern: list[Any]) -> Iterator[tuple[str, list[Any]]]:
    if not pattern:
        yield path, []
        return
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        if isinstance(pattern[0], str):
            yield from _matching(os.path.join(path, pattern[0]), pattern[1:])
            return
        for name in sorted(os.listdir(path)):
            # At the root of a file system, root's own and closed to everybody else.
            match = pattern[0].match(name) if name != "lost+found" else None
            below = os.path.join(path, name)
            if match and os.path.isdir(below):
                for found, parts in _matching(below, pattern[1:]):
                    yield found, [match, *parts]


def trees(location: Mapping[str, str]) -> dict[str, Tree]:
    """Each user's index files in this location, by the user's home."""
    found: dict[str, Tree] = {}
    owner: dict[str, str] = {}
    index = location.get("mail_index_path", "")
    for home, user in homes(location["mail_home"]):
        mail = _indexes.expand(location["mail_path"], user, home)
        if not os.path.isdir(mail):
            continue
        root = os.path.normpath(_indexes.expand(index, user, home)) if index else mail
        if owner.setdefault(root, home) != home:
            raise Refused(
                f"{home} and {owner[root]} would share the indexes in {root}; put {{user}} into the index path"
            )
        found[home] = Tree(location["mail_driver"], root, not index)
    return found


def size_up(old: Mapping[str, str], new: Mapping[str, str], ours: bool) -> dict[str, Any]:
    """How much there is to copy. Raises Refused where it cannot be done.

    ``ours``: what is in the new place was put there by an earlier run.
    """
    source, target = trees(old), trees(new)
    users = files = size = 0
    for home, tree in source.items():
        there = target[home]
        if _system._below(there.root, tree.root) or _system._below(tree.root, there.root):
            if not (tree.with_mail or there.with_mail):
                raise Refused(f"{there.root} and {tree.root} lie within each other; choose another index path")
        sizes = [os.lstat(path).st_size for path, _folder, name in tree.files() if not _indexes.is_scratch(name)]
        users, files, size = users + bool(sizes), files + len(sizes), size + sum(sizes)
    if not ours:
        _refuse_others(target)
    _refuse_full(target, files, size)
    return {"users": users, "files": files, "bytes": size}


def _refuse_others(target: Mapping[str, Tree]) -> None:
    there = [path for tree in target.values() for path, _folder, name in tree.files() if not _indexes.is_scratch(name)]
    if there:
        more = f" and {len(there) - SHOWN} more" if len(there) > SHOWN else ""
        raise Refused(
            f"the new place has index files already, which are not in use: {', '.join(there[:SHOWN])}{more}. They may be "
            "older than those in use, or newer; see which, and remove them"
        )


def _refuse_full(target: Mapping[str, Tree], files: int, size: int) -> None:
    for tree in target.values():
        folder = tree.root
        while not os.path.isdir(folder):
            folder = os.path.dirname(folder)
        disk = os.statvfs(folder)
        free = disk.f_bavail * disk.f_frsize
        if free < size + SPARE:
            raise Refused(
                f"{folder} has {free >> 20} MiB free, and the indexes need {(size + SPARE) >> 20} MiB; make room"
            )
        if disk.f_files and disk.f_favail < 2 * files:
            raise Refused(f"{folder} has {disk.f_favail} inodes free, and the indexes need {2 * files}; make room")
        return  # all users are on one disk


def copy(old: Mapping[str, str], new: Mapping[str, str]) -> int:
    """Copy all index files, in place of what an earlier run left; the newest modification time among the copies."""
    source, target = trees(old), trees(new)
    with ThreadPoolExecutor(WORKERS) as pool:
        times = list(pool.map(lambda home: _copy_user(source[home], target[home]), source))
    return max(times, default=0)


def _copy_user(tree: Tree, there: Tree) -> int:
    for path, _folder, _name in there.files():
        os.unlink(path)
    folders: set[str] = set()
    newest = 0
    for path, folder, name in tree.files():
        if not _indexes.is_scratch(name):
            place = there.path(folder, name)
            folders |= _make_folder(os.path.dirname(place), stat.S_IMODE(os.stat(os.path.dirname(path)).st_mode))
            newest = max(newest, _copy_file(path, place))
    for folder in folders:
        _system.sync_folder(folder)
    return newest


def _make_folder(path: str, mode: int) -> set[str]:
    """Make a directory and those above it; all whose entries changed."""
    changed = {path}
    missing = []
    while not os.path.isdir(path):
        missing.append(path)
        path = os.path.dirname(path)
        changed.add(path)
    for folder in reversed(missing):
        os.mkdir(folder)
        os.chmod(folder, mode)
    return changed


def _copy_file(path: str, place: str) -> int:
    with open(path, "rb") as reader, open(place, "wb") as writer:
        found = os.fstat(reader.fileno())
        os.fchmod(writer.fileno(), stat.S_IMODE(found.st_mode))
        shutil.copyfileobj(reader, writer, 1024 * 1024)
        writer.flush()
        # The list of folders remembers the times of each folder's log.
        os.utime(writer.fileno(), ns=(found.st_atime_ns, found.st_mtime_ns))
        os.fsync(writer.fileno())
        copied = os.fstat(writer.fileno())
    if copied.st_size != found.st_size:
        raise Refused(f"{path} changed while it was copied; something has it open")
    return copied.st_mtime_ns


def in_use_since(location: Mapping[str, str], newest: int) -> str:
    """The first index file that was written after the copying; empty when there is none."""
    for tree in trees(location).values():
        for path, _folder, name in tree.files():
            if not _indexes.is_scratch(name) and os.lstat(path).st_mtime_ns > newest:
                return path
    return ""


def remove(location: Mapping[str, str]) -> dict[str, Any]:
    """Remove all index files of a location, and the directories of its own; how many files, and what else is left there."""
    count, left = 0, []
    # Above the first variable the directories are not only ours.
    fixed = os.path.normpath(location.get("mail_index_path", "").partition("{")[0].rpartition("/")[0] or "/")
    for tree in trees(location).values():
        for path, _folder, _name in list(tree.files()):
            os.unlink(path)
            count += 1
        if not tree.with_mail:
            left += _prune(tree.root, fixed)
    return {"removed": count, "left": left}


def _prune(root: str, fixed: str) -> list[str]:
    """Remove empty directories, those above included; the files that keep the others."""
    left: list[str] = []
    for folder, _folders, names in os.walk(root, topdown=False):
        left += [os.path.join(folder, name) for name in names]
        with contextlib.suppress(OSError):
            os.rmdir(folder)
    with contextlib.suppress(OSError):
        while os.path.dirname(root) != fixed:
            root = os.path.dirname(root)
            os.rmdir(root)
    return left
