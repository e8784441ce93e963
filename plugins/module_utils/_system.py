# Copyright (c) 2026 nfsmail.cluster contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Running things on a host where any path may hang: children with a deadline, private mount namespaces, files.

Anything that touches a path which could lie on a dead NFS server belongs in a child that can be left behind. A process
stuck in the kernel cannot be killed, but its parent can give up on it and say so.

This module util is PRIVATE to the collection; it can change without notice.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

CLONE_NEWNS = 0x00020000
MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_REMOUNT = 0x20
MS_NOATIME = 0x400
MS_NODIRATIME = 0x800
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x40000
MS_RELATIME = 0x200000
MS_STRICTATIME = 0x1000000
MNT_DETACH = 2
UMOUNT_NOFOLLOW = 8

_in_child = False


class Hung(Exception):
    """A child did not answer in time; it may still be stuck in the kernel."""


class ChildError(Exception):
    """A child raised an exception; C(kind) is the name of its class."""

    def __init__(self, message: str, kind: str = "", code: int | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.code = code


@dataclass
class Result:
    """What a command did. C(rc) is None when it did not finish in time or could not be started."""

    rc: int | None
    out: str
    err: str
    timed_out: bool = False

    @property
    def reason(self) -> str:
        """The last words of the command, for error messages."""
        text = self.err.strip() or self.out.strip()
        return text if text else f"exit code {self.rc}"


# ---- commands ----


def find_program(name: str) -> str | None:
    """Full path of a program, also where PATH lacks the sbin directories (as over SSH)."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:{SEARCH_PATH}")


def run(command: Sequence[str], timeout: float) -> Result:
    """Run a command without a shell, in the C locale, and give up on it after C(timeout) seconds."""
    env = dict(os.environ, LC_ALL="C", LANG="C")
    try:
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=env,
            start_new_session=not _in_child,
        )
    except OSError as exc:
        return Result(None, "", f"{command[0]}: {exc.strerror}")
    try:
        out, err = process.communicate(timeout=max(timeout, 0.1))
    except subprocess.TimeoutExpired:
        with contextlib.suppress(OSError):
            if _in_child:
                process.kill()
            else:
                os.killpg(process.pid, signal.SIGKILL)
        try:
            out, err = process.communicate(timeout=1)
        except subprocess.TimeoutExpired:
            out, err = b"", b""
        seconds = f"{timeout:.0f} s" if timeout >= 1 else f"{timeout:.1f} s"
        words = err.decode("utf-8", "replace").strip()
        return Result(
            None,
            out.decode("utf-8", "replace"),
            f"{os.path.basename(command[0])} did not finish within {seconds}"
            + (f"; it said: {words}" if words else ""),
            timed_out=True,
        )
    return Result(process.returncode, out.decode("utf-8", "replace"), err.decode("utf-8", "replace"))


# ---- children with a deadline ----


@dataclass
class Child:
    """A running child and the pipe on which its one JSON answer comes."""

    pid: int
    fd: int


def close_inherited(keep: Sequence[int] = ()) -> None:
    """Point 0, 1, 2 at /dev/null and close the rest, so that nobody waits for this process's ends of his pipes."""
    null = os.open(os.devnull, os.O_RDWR)
    for target in (0, 1, 2):
        if target not in keep:
            os.dup2(null, target)
    for name in os.listdir("/proc/self/fd"):
        number = int(name)
        if number > 2 and number not in keep:
            with contextlib.suppress(OSError):
                os.close(number)


def words(exc: BaseException) -> str:
    """An exception for people: no error number, but the file."""
    if isinstance(exc, OSError) and exc.strerror:
        return f"{exc.filename}: {exc.strerror}" if exc.filename else exc.strerror
    return str(exc) or repr(exc)


def start_child(func: Callable[[], Any]) -> Child:
    """Start C(func) in a child process; its JSON-able result is fetched by C(collect)."""
    global _in_child
    reader, writer = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writer)
        return Child(pid, reader)
    code = 1
    try:
        _in_child = True
        os.setsid()
        close_inherited(keep=(writer,))
        try:
            answer = {"value": func()}
        except BaseException as exc:  # the parent must hear of everything, SystemExit included
            answer = {
                "error": words(exc),
                "kind": type(exc).__name__,
                "code": getattr(exc, "errno", None),
            }
        data = json.dumps(answer).encode("utf-8")
        while data:
            data = data[os.write(writer, data) :]
        code = 0
    finally:
        os._exit(code)


def _end(child: Child) -> None:
    """Kill a child and its commands, reap it when it goes, leave it behind when it does not."""
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(OSError):
            kill(child.pid, signal.SIGKILL)
    limit = time.monotonic() + 0.5
    while time.monotonic() < limit:
        try:
            done, dummy = os.waitpid(child.pid, os.WNOHANG)
        except OSError:
            return
        if done:
            return
        time.sleep(0.01)


def collect_all(children: Mapping[str, Child], timeout: float) -> dict[str, Any]:
    """Answers of several children within one deadline; an answer is a value, a ChildError or a Hung."""
    answers: dict[str, Any] = {}
    parts: dict[str, list[bytes]] = {name: [] for name in children}
    deadline = time.monotonic() + timeout
    with selectors.DefaultSelector() as selector:
        for name, child in children.items():
            selector.register(child.fd, selectors.EVENT_READ, name)
        open_names = set(children)
        while open_names:
            left = deadline - time.monotonic()
            if left <= 0:
                break
            for key, dummy in selector.select(left):
                name = key.data
                data = os.read(key.fd, 65536)
                if data:
                    parts[name].append(data)
                else:
                    selector.unregister(key.fd)
                    open_names.discard(name)
    for name, child in children.items():
        os.close(child.fd)
        if name in open_names:
            _end(child)
            answers[name] = Hung(f"no answer within {timeout:.0f} s")
            continue
        with contextlib.suppress(OSError):
            os.waitpid(child.pid, 0)
        try:
            answer = json.loads(b"".join(parts[name]).decode("utf-8"))
        except ValueError:
            answers[name] = ChildError("the child ended without an answer", "Died")
            continue
        if "value" in answer:
            answers[name] = answer["value"]
        else:
            answers[name] = ChildError(answer["error"], answer["kind"], answer["code"])
    return answers


def run_isolated(func: Callable[[], Any], timeout: float) -> Any:
    """Run C(func) in a child; raise Hung or ChildError where it does not return."""
    answer = collect_all({"only": start_child(func)}, timeout)["only"]
    if isinstance(answer, Exception):
        raise answer
    return answer


# ---- mount namespaces ----


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def sys_mount(source: str, target: str, fstype: str | None, flags: int, data: str | None = None) -> None:
    """mount(2)."""
    _check(
        _libc().mount(
            os.fsencode(source),
            os.fsencode(target),
            os.fsencode(fstype) if fstype is not None else None,
            ctypes.c_ulong(flags),
            os.fsencode(data) if data is not None else None,
        ),
        f"mount {target}",
    )


def sys_umount(target: str, flags: int) -> None:
    """umount2(2)."""
    _check(_libc().umount2(os.fsencode(target), flags), f"umount {target}")


def private_mount_namespace() -> None:
    """From here on this process's mounts are its own. Only ever call this in a child."""
    if not _in_child:
        raise RuntimeError("a private mount namespace is for children only")
    _check(_libc().unshare(CLONE_NEWNS), "unshare")
    sys_mount("none", "/", None, MS_REC | MS_PRIVATE)


# ---- files ----


def read_text(path: str) -> str | None:
    """Text of a local file, None when it does not exist. Bytes that are not UTF-8 survive a write_atomically."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape", newline="") as handle:
            return handle.read()
    except FileNotFoundError:
        return None


def write_atomically(path: str, text: str, mode: int | None = None) -> None:
    """Replace a file so that a reader or a power cut sees the old or the new text, never a piece.

    An existing file keeps its owner, its SELinux label and, unless C(mode) is given, its mode. A symbolic link stays
    one: what it points to is replaced.
    """
    path = os.path.realpath(path)
    folder = os.path.dirname(path)
    handle, scratch = tempfile.mkstemp(prefix=f".{os.path.basename(path)}.", suffix=".nfsmail", dir=folder)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", errors="surrogateescape", newline="") as stream:
            stream.write(text)
            stream.flush()
            try:
                old = os.stat(path)
            except FileNotFoundError:
                os.fchmod(stream.fileno(), 0o644 if mode is None else mode)
            else:
                os.fchown(stream.fileno(), old.st_uid, old.st_gid)
                os.fchmod(stream.fileno(), (old.st_mode & 0o7777) if mode is None else mode)
                with contextlib.suppress(OSError):
                    os.setxattr(stream.fileno(), "security.selinux", os.getxattr(path, "security.selinux"))
            os.fsync(stream.fileno())
        os.rename(scratch, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(scratch)
        raise
    sync_folder(folder)


def sync_folder(folder: str) -> None:
    """Make a rename in C(folder) survive a power cut."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def drop_privileges(uid: int | None, gid: int | None) -> None:
    """Become an ordinary user for good; None leaves a number as it is."""
    if gid is not None and (gid != os.getegid() or uid is not None):
        if os.geteuid() == 0:
            os.setgroups([])
        os.setgid(gid)
    if uid is not None:
        if gid is None and os.geteuid() == 0:
            os.setgroups([])
        os.setuid(uid)


# ---- who holds a path ----


def _below(target: str, path: str) -> bool:
    return target == path or target.startswith(path + "/")


def find_holders(path: str, proc: str = "/proc", skip: Sequence[int] = ()) -> list[dict[str, Any]]:
    """Processes whose cwd, root, program, open files or maps lie at or below C(path).

    Reads link texts only and never follows one, so that a dead server cannot stop it.
    """
    holders = []
    for name in sorted((n for n in os.listdir(proc) if n.isdigit()), key=int):
        if int(name) in skip:
            continue
        base = os.path.join(proc, name)
        why = set()
        for link in ("cwd", "root", "exe"):
            with contextlib.suppress(OSError):
                if _below(os.readlink(os.path.join(base, link)), path):
                    why.add(link)
        with contextlib.suppress(OSError):
            for fd in os.listdir(os.path.join(base, "fd")):
                with contextlib.suppress(OSError):
                    if _below(os.readlink(os.path.join(base, "fd", fd)), path):
                        why.add("fd")
                        break
        with (
            contextlib.suppress(OSError),
            open(os.path.join(base, "maps"), encoding="utf-8", errors="replace") as maps,
        ):
            for line in maps:
                fields = line.rstrip("\n").split(None, 5)
                if len(fields) == 6 and _below(fields[5], path):
                    why.add("map")
                    break
        if why:
            comm = ""
            with (
                contextlib.suppress(OSError),
                open(os.path.join(base, "comm"), encoding="utf-8", errors="replace") as text,
            ):
                comm = text.read().strip()
            holders.append({"pid": int(name), "name": comm, "why": sorted(why)})
    return holders


def has_capability(number: int) -> bool:
    """Whether this process has a capability in effect."""
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as status:
            for line in status:
                if line.startswith("CapEff:"):
                    return bool(int(line.split()[1], 16) >> number & 1)
    except (OSError, ValueError):
        pass
    return False


def long_size() -> int:
    """Bytes of a C long, part of some ioctl numbers."""
    return 8 if sys.maxsize > 2**32 else 4
