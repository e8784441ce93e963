# Copyright (c) 2026 nfsmail.cluster contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""POSIX locks (fcntl) taken, tried and kept by processes of their own.

This module util is PRIVATE to the collection; it can change without notice.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import json
import os
import re
import select
import signal
import time
from typing import Any

from ansible_collections.nfsmail.cluster.plugins.module_utils import _system

NAME = "nfsmail-lock"
PR_SET_NAME = 15


def errno_name(code: int | None) -> str:
    """C(EAGAIN) for 11 and so on."""
    return errno.errorcode.get(code, str(code)) if code is not None else ""


def start_time(pid: int, proc: str = "/proc") -> int | None:
    """When a process started, in clock ticks since boot; None when there is no such process or it is a zombie."""
    try:
        with open(os.path.join(proc, str(pid), "stat"), encoding="utf-8", errors="replace") as text:
            fields = text.read().rpartition(")")[2].split()
    except OSError:
        return None
    if not fields or fields[0] in ("Z", "X"):
        return None
    return int(fields[19])


def make_token(pid: int) -> str:
    """A name for a process that no later process with its number has."""
    return f"{pid}-{start_time(pid)}"


def read_token(token: str) -> tuple[int, int]:
    """Process number and start time of a token."""
    match = re.fullmatch(r"([1-9][0-9]*)-([0-9]+)", token)
    if not match:
        raise ValueError(f"token must be the one that action=hold returned, like 4711-123456, not {token!r}")
    return int(match.group(1)), int(match.group(2))


def is_holder(pid: int, proc: str = "/proc") -> bool:
    """Whether a process is one of our holders, by the name that it gave itself."""
    try:
        with open(os.path.join(proc, str(pid), "comm"), encoding="utf-8", errors="replace") as text:
            return text.read().strip() == NAME
    except OSError:
        return False


def try_lock(fd: int) -> str | None:
    """Ask for a write lock on the whole file without waiting; the name of the error when it is refused."""
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        return errno_name(exc.errno)
    return None


def open_as(path: str, uid: int | None, gid: int | None) -> int:
    """For a child: become the user and open the file for reading and writing; make it when it is missing."""
    _system.drop_privileges(uid, gid)
    return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)


def try_in_child(path: str, uid: int | None, gid: int | None) -> dict[str, Any]:
    """For a child: whether a lock is granted now; it is given back at once."""
    try:
        fd = open_as(path, uid, gid)
    except OSError as exc:
        return {"granted": False, "errno": errno_name(exc.errno), "stage": "open"}
    try:
        refused = try_lock(fd)
    finally:
        os.close(fd)
    return {"granted": refused is None, "errno": refused, "stage": "lock"}


def wait_in_child(path: str, uid: int | None, gid: int | None, timeout: float, unlink: bool) -> dict[str, Any]:
    """For a child: ask for the lock every 0.1 s until it is granted."""
    start = time.monotonic()
    try:
        fd = open_as(path, uid, gid)
    except OSError as exc:
        return {
            "granted": False,
            "errno": errno_name(exc.errno),
            "stage": "open",
            "waited_s": 0.0,
            "unlinked": False,
        }
    unlinked = False
    try:
        while True:
            refused = try_lock(fd)
            waited = time.monotonic() - start
            if refused not in ("EAGAIN", "EACCES") or waited >= timeout:
                break
            time.sleep(0.1)
        if unlink:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
                unlinked = True
    finally:
        os.close(fd)
    return {
        "granted": refused is None,
        "errno": refused,
        "stage": "lock",
        "waited_s": round(waited, 2),
        "unlinked": unlinked,
    }


def _stay(fd: int, ttl: float) -> None:
    """Keep the lock until SIGTERM or the end of C(ttl)."""
    reader, writer = os.pipe()
    signal.signal(signal.SIGTERM, lambda number, frame: os.write(writer, b"."))
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    select.select([reader], [], [], ttl)
    os.close(fd)


def hold(path: str, uid: int | None, gid: int | None, ttl: float, timeout: float) -> dict[str, Any]:
    """Start a process that takes the lock and keeps it; return when it has it or when it was refused.

    The process is nobody's child, has a session of its own and none of our files, so whoever called us can go.
    """
    reader, writer = os.pipe()
    first = os.fork()
    if first == 0:
        try:
            os.setsid()
            if os.fork() == 0:
                _hold_in_grandchild(path, uid, gid, ttl, writer)
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(first, 0)
    deadline = time.monotonic() + timeout
    data = b""
    pid = None
    while True:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([reader], [], [], left)[0]:
            break
        part = os.read(reader, 65536)
        if not part:
            break
        data += part
        lines = data.decode("utf-8").splitlines()
        if pid is None and lines:
            pid = int(lines[0])
        if len(lines) > 1 and data.endswith(b"\n"):
            os.close(reader)
            answer: dict[str, Any] = json.loads(lines[1])
            return answer
    os.close(reader)
    if pid is not None:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    return {"held": False, "errno": "ETIMEDOUT", "stage": "hung"}


def _hold_in_grandchild(path: str, uid: int | None, gid: int | None, ttl: float, writer: int) -> None:
    """The holder. A POSIX lock belongs to one process, so it has to be taken here, after the last fork."""
    code = 1
    try:
        _system.close_inherited(keep=(writer,))
        os.chdir("/")
        os.umask(0o077)
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(PR_SET_NAME, NAME.encode(), 0, 0, 0)
        os.write(writer, f"{os.getpid()}\n".encode())
        stage = "open"
        fd = -1
        refused: str | None
        try:
            fd = open_as(path, uid, gid)
            stage = "lock"
            refused = try_lock(fd)
        except OSError as exc:
            refused = errno_name(exc.errno)
        answer = {
            "held": refused is None,
            "errno": refused,
            "stage": stage,
            "pid": os.getpid(),
            "token": make_token(os.getpid()),
            "held_at": time.time(),
        }
        os.write(writer, json.dumps(answer).encode() + b"\n")
        os.close(writer)
        if refused is None:
            _stay(fd, ttl)
        code = 0
    finally:
        os._exit(code)


def release(pid: int, started: int | None, timeout: float) -> dict[str, Any]:
    """End a holder and wait until it is gone. Raises ValueError when the process is not a holder of ours."""
    now = start_time(pid)
    if now is None or (started is not None and now != started):
        return {"released": False, "was_running": False}
    if not is_holder(pid):
        raise ValueError(f"process {pid} does not hold a lock of nfsmail.cluster.lock_probe")
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if start_time(pid) != now:
            return {"released": True, "was_running": True}
        time.sleep(0.02)
    with contextlib.suppress(OSError):
        os.kill(pid, signal.SIGKILL)
    time.sleep(0.2)
    if start_time(pid) != now:
        return {"released": True, "was_running": True}
    raise TimeoutError(f"process {pid} did not end within {timeout:.0f} s; it may be stuck on a dead NFS server")
