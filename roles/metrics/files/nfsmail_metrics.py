# Copyright: (c) 2026, the nfsmail.cluster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What Prometheus' node-exporter does not say of a mail machine, as a file for its textfile collector.

Runs once and ends; nfsmail-metrics.timer runs it again. Only children touch the mail store, and nobody waits for one that hangs.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import fcntl
import hashlib
import json
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any, Callable, Optional

# Every metric with its meaning; all are gauges.
METRICS = {
    "nfsmail_read_ok": "Whether a part of this file could be read.",
    "nfsmail_mount_mounted": "Whether something is mounted at the path of the mail store.",
    "nfsmail_mount_responding": "Whether the owner of the mail could make a file on the mounted mail store, in time.",
    "nfsmail_mount_response_seconds": "How long the mail store took to set the time of a file, at worst.",
    "nfsmail_clock_offset_seconds": "Clock that stamps files on the mail store against this machine's; positive: it is ahead.",
    "nfsmail_clock_error_seconds": "How far the true offset of that clock can be from the measured one.",
    "nfsmail_clock_correction_seconds": "What chrony has yet to correct; positive: this machine's clock is slow.",
    "nfsmail_locks": "File locks on the file system of a path, as the kernel of this machine knows them.",
    "nfsmail_rpc_registered": "Whether an RPC program is registered with this machine's rpcbind.",
    "nfsmail_sessions": "Connections of users to this machine's Dovecot.",
    "nfsmail_users": "Users who are connected to this machine's Dovecot.",
    "nfsmail_backend_out": "Whether a backend was taken out (drain), as this proxy has it.",
    "nfsmail_routing_serial": "Number of changes by drain, undrain and move_user, as this proxy has it.",
    "nfsmail_moving": "Lines of this proxy's file of users and shards on the way to another backend; 0: nobody moves.",
    "nfsmail_routing_checksum": "48 bits of a checksum of this proxy's file; the same on all proxies.",
}
STORE_TIMEOUT = 10.0
COMMAND_TIMEOUT = 10.0
# NFS servers stamp files with a clock that ticks this coarsely, in seconds.
GRANULARITY = 0.01
# By number, as machines without /etc/rpc do not know the names.
RPC_PROGRAMS = {"nfs": "100003", "mountd": "100005", "nlockmgr": "100021", "status": "100024"}
# PROTO of /proc/locks to the words of metrics; what is not here is counted as other.
LOCK_TYPES = {"POSIX": "posix", "OFDLCK": "posix", "FLOCK": "flock", "LEASE": "lease", "DELEG": "lease"}


class Page:
    """The text of the file, metric by metric."""

    def __init__(self) -> None:
        self.samples: dict[str, dict[str, float]] = {}

    def add(self, name: str, value: float, **labels: str) -> None:
        """One sample; a later one with the same labels replaces it."""
        words = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
        self.samples.setdefault(name, {})[f"{{{words}}}" if words else ""] = value

    def text(self) -> str:
        """In the text format of Prometheus."""
        lines = []
        for name, samples in self.samples.items():
            lines += [f"# HELP {name} {METRICS[name]}", f"# TYPE {name} gauge"]
            lines += [f"{name}{labels} {value!r}" for labels, value in samples.items()]
        return "".join(f"{line}\n" for line in lines)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


# ---- what files and commands say ----


def mounts(mountinfo: str) -> list[tuple[str, str, tuple[int, int]]]:
    """Mount points of C(/proc/self/mountinfo) with type and device; a later one covers an earlier one."""
    found = []
    for line in mountinfo.splitlines():
        before, separator, after = line.partition(" - ")
        fields = before.split(" ")
        if separator and len(fields) > 4:
            point = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match.group(1), 8)), fields[4])
            major, _, minor = fields[2].partition(":")
            found.append((point, after.split(" ")[0], (int(major), int(minor))))
    return found


def mounted_at(mountinfo: str, path: str) -> bool:
    """Whether something is mounted at the path itself; an automount that waits is nothing."""
    kinds = [kind for point, kind, _ in mounts(mountinfo) if point == path]
    return bool(kinds) and kinds[-1] != "autofs"


def device_of(mountinfo: str, path: str) -> Optional[tuple[int, int]]:
    """Device of the file system that a path is on, by its name only: the path itself is not touched."""
    best, found = -1, None
    for point, _, device in mounts(mountinfo):
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= best:
            best, found = len(point), device
    return found


def count_locks(locks: str, device: tuple[int, int]) -> dict[tuple[str, str], int]:
    """Locks of C(/proc/locks) on a device: (type, held or waiting) to their number."""
    found = {(kind, state): 0 for kind in ("posix", "flock", "lease") for state in ("held", "waiting")}
    for line in locks.splitlines():
        fields = line.split()[1:]
        state = "waiting" if fields[:1] == ["->"] else "held"
        if state == "waiting":
            fields = fields[1:]
        match = re.match(r"([0-9a-f]+):([0-9a-f]+):\d+$", fields[4]) if len(fields) > 4 else None
        if match and (int(match.group(1), 16), int(match.group(2), 16)) == device:
            key = (LOCK_TYPES.get(fields[0], "other"), state)
            found[key] = found.get(key, 0) + 1
    return found


def rpc_programs(rpcinfo: str) -> set[str]:
    """Numbers of the programs that C(rpcinfo -p) lists."""
    rows = [line.split() for line in rpcinfo.splitlines()]
    return {row[0] for row in rows if len(row) >= 4 and row[0].isdigit()}


def correction(tracking: str) -> float:
    """Seconds of C(chronyc -c tracking) that chrony has yet to correct."""
    return float(tracking.strip().split(",")[4])


def who(text: str) -> tuple[dict[str, int], int]:
    """Connections by protocol, and the number of users, of C(doveadm -f tab who -1); 2.3 says proto, 2.4 service."""
    rows = [line.split("\t") for line in text.splitlines() if line]
    if not rows:
        return {}, 0
    head = rows.pop(0)
    protocol, user = head.index("service" if "service" in head else "proto"), head.index("username")
    return dict(collections.Counter(row[protocol] for row in rows)), len({row[user] for row in rows})


def moving(text: str) -> int:
    """Lines of a proxy's moving file that are no comments."""
    return sum(bool(line.strip()) and not line.startswith("#") for line in text.splitlines())


def checksum(data: bytes) -> int:
    """48 bits: what a floating-point number holds exactly."""
    return int(hashlib.sha256(data).hexdigest()[:12], 16)


# ---- the mail store ----


class Hung(Exception):
    """The mail store does not answer."""


def look(path: str, name: str, tries: int = 3) -> dict[str, float]:
    """How the clock that stamps files in a folder stands against ours, as an interval, and how long a stamp took at worst.

    The server sets the time of a file between two looks at our clock. Only ever called in a child.
    """
    file = os.path.join(path, name)
    lowest, highest, slowest = float("-inf"), float("inf"), 0.0
    # One that an earlier, killed run left is as good.
    handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        for _ in range(tries):
            before = time.time()
            os.utime(file)  # the server takes its own clock
            after = time.time()
            stamp = os.stat(file).st_mtime
            lowest, highest = max(lowest, stamp - after), min(highest, stamp - before + GRANULARITY)
            slowest = max(slowest, after - before)
            time.sleep(0.02)
    finally:
        os.close(handle)
        os.unlink(file)
    return {"lowest": lowest, "highest": highest, "slowest": slowest}


def in_child(work: Callable[[], dict[str, float]], lock: str, timeout: float) -> dict[str, float]:
    """Do something in a child that may hang.

    The child keeps a lock for as long as it lives, so that a store that hangs for hours gathers no more than one of them.
    Errors: Hung where it does not return in time or an earlier one still hangs, OSError with what it ran into.
    """
    held = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Hung("the look before this one still hangs") from None
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            _child(work, writer)
        os.close(writer)
        try:
            return _answer(child, reader, timeout)
        finally:
            os.close(reader)
    finally:
        os.close(held)


def _child(work: Callable[[], dict[str, float]], writer: int) -> None:
    try:
        said: dict[str, Any] = work()
    except OSError as error:
        said = {"error": str(error)}
    with contextlib.suppress(OSError):
        os.write(writer, json.dumps(said).encode())
    os._exit(0)


def _answer(child: int, reader: int, timeout: float) -> dict[str, float]:
    if not select.select([reader], [], [], timeout)[0]:
        os.kill(child, signal.SIGKILL)
        # It may not die before the store answers; then systemd inherits it.
        for _ in range(10):
            if os.waitpid(child, os.WNOHANG)[0]:
                break
            time.sleep(0.05)
        raise Hung(f"no answer within {timeout:g} s")
    said = os.read(reader, 65536)
    os.waitpid(child, 0)
    answer: dict[str, Any] = json.loads(said or b'{"error": "the child died"}')
    if "error" in answer:
        raise OSError(str(answer["error"]))
    return answer


def look_as(uid: int, gid: int, path: str, name: str) -> dict[str, float]:
    """Look as the owner of the mail: the server gives root no rights."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    return look(path, name)


# ---- parts ----


def run(*command: str) -> str:
    """The output of a command. Errors: OSError or subprocess.SubprocessError, also where it takes too long."""
    environment = {**os.environ, "LC_ALL": "C"}
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, timeout=COMMAND_TIMEOUT, env=environment, check=True
    )
    return done.stdout.decode("utf-8", "replace")


def read(path: str) -> str:
    """A local file."""
    with open(path, encoding="utf-8", errors="replace") as stream:
        return stream.read()


def store(page: Page, options: argparse.Namespace) -> None:
    """Mount and clock of the mail store."""
    path = options.store
    mounted = mounted_at(read(f"{options.proc}/self/mountinfo"), path)
    page.add("nfsmail_mount_mounted", int(mounted), path=path)
    if not mounted:
        return
    name = f".nfsmail-metrics-{os.uname().nodename}"
    lock = os.path.join(options.run, f"nfsmail-metrics{path.replace('/', '-')}.lock")
    try:
        seen = in_child(lambda: look_as(options.uid, options.gid, path, name), lock, options.timeout)
    except (Hung, OSError) as error:
        print(f"{path}: {error}", file=sys.stderr)
        page.add("nfsmail_mount_responding", 0, path=path)
        return
    page.add("nfsmail_mount_responding", 1, path=path)
    page.add("nfsmail_mount_response_seconds", seen["slowest"], path=path)
    page.add("nfsmail_clock_offset_seconds", (seen["lowest"] + seen["highest"]) / 2, path=path)
    page.add("nfsmail_clock_error_seconds", abs(seen["highest"] - seen["lowest"]) / 2, path=path)


def clock(page: Page, options: argparse.Namespace) -> None:
    """What chrony says; ntpd tells the kernel, where node-exporter's timex collector finds it."""
    page.add("nfsmail_clock_correction_seconds", correction(run("chronyc", "-n", "-c", "tracking")))


def locks(page: Page, options: argparse.Namespace) -> None:
    """Locks on the file systems of mail."""
    text, info = read(f"{options.proc}/locks"), read(f"{options.proc}/self/mountinfo")
    for path in options.locks:
        device = device_of(info, path)
        for (kind, state), number in (count_locks(text, device) if device else {}).items():
            page.add("nfsmail_locks", number, path=path, type=kind, state=state)


def rpc(page: Page, options: argparse.Namespace) -> None:
    """Programs that are to be registered; without rpcbind nothing is."""
    try:
        found = rpc_programs(run("rpcinfo", "-p", "127.0.0.1"))
    except subprocess.CalledProcessError:
        found = set()
    for program in options.rpc:
        page.add("nfsmail_rpc_registered", int(RPC_PROGRAMS[program] in found), program=program)


def sessions(page: Page, options: argparse.Namespace) -> None:
    """Who is connected."""
    connections, users = who(run("doveadm", "-f", "tab", "who", "-1"))
    for protocol in sorted({*connections, *options.sessions}):
        page.add("nfsmail_sessions", connections.get(protocol, 0), protocol=protocol)
    page.add("nfsmail_users", users)


def routing(page: Page, options: argparse.Namespace) -> None:
    """What a proxy knows of backends and moves."""
    state = json.loads(read(options.state)) if os.path.exists(options.state) else {}
    for backend in options.backend:
        page.add("nfsmail_backend_out", int(backend in state.get("out", ())), backend=backend)
    page.add("nfsmail_routing_serial", int(state.get("serial", 0)))
    if options.moving:
        page.add("nfsmail_moving", moving(read(options.moving)))
    for path in options.same:
        with open(path, "rb") as stream:
            page.add("nfsmail_routing_checksum", checksum(stream.read()), file=os.path.basename(path))


def wanted(options: argparse.Namespace) -> dict[str, Callable[[Page, argparse.Namespace], None]]:
    """The parts that this machine has."""
    parts = {
        "store": (store, options.store),
        "clock": (clock, options.chrony),
        "locks": (locks, options.locks),
        "rpc": (rpc, options.rpc),
        "sessions": (sessions, options.sessions),
        "routing": (routing, options.state),
    }
    return {name: part for name, (part, has) in parts.items() if has}


def collect(options: argparse.Namespace) -> Page:
    """All parts; one that cannot be read says so, and leaves the others alone."""
    page = Page()
    for name, part in wanted(options).items():
        try:
            part(page, options)
        except (OSError, ValueError, LookupError, subprocess.SubprocessError) as error:
            print(f"{name}: {error}", file=sys.stderr)
            page.add("nfsmail_read_ok", 0, part=name)
        else:
            page.add("nfsmail_read_ok", 1, part=name)
    return page


def write(path: str, text: str) -> None:
    """Replace a file in one step, so that node-exporter never reads a piece."""
    handle, scratch = tempfile.mkstemp(prefix=f".{os.path.basename(path)}.", dir=os.path.dirname(path))
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
            os.fchmod(stream.fileno(), 0o644)
        os.replace(scratch, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(scratch)
        raise


def arguments(words: Optional[list[str]] = None) -> argparse.Namespace:
    """What to read and where to write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", default="-", help="the file to replace; - prints")
    parser.add_argument("--store", default="", help="where the mail store is mounted")
    parser.add_argument("--uid", type=int, default=0, help="owner of the mail")
    parser.add_argument("--gid", type=int, default=0)
    parser.add_argument("--timeout", type=float, default=STORE_TIMEOUT, help="seconds that the mail store may take")
    parser.add_argument("--chrony", action="store_true", help="ask chrony")
    parser.add_argument("--locks", action="append", default=[], help="a path whose file system's locks count")
    parser.add_argument("--rpc", action="append", default=[], choices=RPC_PROGRAMS, help="an RPC program")
    parser.add_argument("--sessions", action="append", default=[], help="a protocol of Dovecot")
    parser.add_argument("--state", default="", help="a proxy's file of what was done")
    parser.add_argument("--moving", default="", help="a proxy's file of who moves")
    parser.add_argument("--backend", action="append", default=[], help="a backend's name")
    parser.add_argument("--same", action="append", default=[], help="a file that is the same on all proxies")
    parser.add_argument("--proc", default="/proc", help=argparse.SUPPRESS)
    parser.add_argument("--run", default="/run", help=argparse.SUPPRESS)
    return parser.parse_args(words)


def main() -> None:
    """Read, and replace the file."""
    options = arguments()
    text = collect(options).text()
    if options.output == "-":
        sys.stdout.write(text)
    else:
        write(options.output, text)


if __name__ == "__main__":
    main()
