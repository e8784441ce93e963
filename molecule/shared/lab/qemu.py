# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Start a QEMU process, talk to it, end it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .config import LabError, Machine, cache_dir
from .image import BuiltImage
from .settings import LAN_NIC, WAN_NIC

QEMU = "qemu-system-x86_64"
PROBE_SECONDS = 8

KERNEL_ARGUMENTS = " ".join([
    *("console=ttyS0", "loglevel=5", "net.ifnames=0", "panic=30"),
    # A quarter less time to start a Python program under emulation, and the lab holds no secrets.
    *("norandmaps", "mitigations=off", "nokaslr"),
    # The kernel does without cmpxchg16b. QEMU 7.2 takes stale flags for its result; an interrupt before the next arithmetic
    # brings them back as EFLAGS, and the kernel dies of a double fault (seen on mail2, 6.12, in kmem_cache_alloc). HAProxy
    # needs the instruction, so the processor keeps it. 141 is X86_FEATURE_CX16, by number for Debian 11.
    "clearcpuid=141",
    *("nowatchdog", "random.trust_cpu=on", "systemd.show_status=true", "SYSTEMD_COLORS=0"),
])  # fmt: skip


class Monitor:
    """QEMU's machine protocol over its socket."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(300)
        # Relative: the path of a checkout may be longer than a socket's may be.
        self._socket.connect(os.path.relpath(path))
        self._file = self._socket.makefile("rw")
        self._read()
        self.call("qmp_capabilities")

    def call(self, command: str, **arguments: Any) -> Any:
        self._file.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self._file.flush()
        while True:
            answer = self._read()
            if "error" in answer:
                raise LabError(f"QEMU: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]

    def human(self, line: str) -> str:
        return str(self.call("human-monitor-command", **{"command-line": line}))

    def close(self) -> None:
        self._file.close()
        self._socket.close()

    def _read(self) -> dict[str, Any]:
        line = self._file.readline()
        if not line:
            raise LabError("QEMU closed its monitor")
        message: dict[str, Any] = json.loads(line)
        return message


@contextmanager
def monitor(machine: Machine) -> Iterator[Monitor]:
    connection = Monitor(machine.dir / "monitor")
    try:
        yield connection
    finally:
        connection.close()


def start(machine: Machine, image: BuiltImage, settings: bytes, lan_port: int, accelerator: list[str]) -> None:
    """Start from a fresh overlay of the image; returns when QEMU runs, long before the guest does."""
    machine.dir.mkdir(parents=True, exist_ok=True)
    initrd = machine.dir / "initrd"
    initrd.write_bytes(image.initrd.read_bytes() + settings)
    command = [
        *(QEMU, "-name", machine.name, "-nodefaults", "-no-user-config", "-display", "none", *accelerator),
        *("-machine", "q35", "-m", str(machine.memory), "-smp", str(machine.cpus), "-rtc", "base=utc"),
        *("-kernel", str(image.kernel), "-initrd", str(initrd), "-append", KERNEL_ARGUMENTS),
        *("-device", "virtio-rng-pci"),
        *("-chardev", f"file,id=console,path={machine.console.name}", "-serial", "chardev:console"),
        *("-qmp", "unix:monitor,server=on,wait=off"),
        *("-netdev", f"user,id=wan,{_forwards(machine)}"),
        *("-device", f"virtio-net-pci,netdev=wan,mac={machine.mac(WAN_NIC)},romfile="),
        *("-netdev", f"socket,id=lan,mcast=230.0.0.1:{lan_port},localaddr=127.0.0.1"),
        *("-device", f"virtio-net-pci,netdev=lan,mac={machine.mac(LAN_NIC)},romfile="),
        *("-daemonize", "-pidfile", str(_pid_file(machine))),
    ]
    for disk in overlays(machine):
        # Unsafe towards a crash of the host only: what a guest has synced survives a reset of the guest.
        command += ["-drive", f"file={disk.name},if=virtio,format=qcow2,cache=unsafe,discard=unmap"]
    result = subprocess.run(command, cwd=machine.dir, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if result.returncode:
        raise LabError(f"QEMU did not start {machine.name}: {result.stderr.strip()}")


def overlays(machine: Machine) -> list[Path]:
    return [machine.dir / "root.qcow2", *(machine.dir / f"{disk.label}.qcow2" for disk in machine.disks)]


def make_overlay(base: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    command = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", str(base), str(target)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


def _forwards(machine: Machine) -> str:
    # Port 0: QEMU takes a free one, and is asked which it was.
    return ",".join(f"hostfwd=tcp:127.0.0.1:0-:{port}" for port in machine.forwards)


def forwarded_ports(connection: Monitor) -> dict[int, int]:
    """Guest port to host port, as in: TCP[HOST_FORWARD]  12  127.0.0.1 34567  10.0.2.15 22  0 0"""
    found = re.findall(r"HOST_FORWARD\]\s+\d+\s+\S+\s+(\d+)\s+\S+\s+(\d+)", connection.human("info usernet"))
    return {int(guest): int(host) for host, guest in found}


def pid(machine: Machine) -> int | None:
    """The machine's process, if it is alive and really this one."""
    try:
        number = int(_pid_file(machine).read_text())
        command = Path(f"/proc/{number}/cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError):
        return None
    return number if os.fsencode(_pid_file(machine)) in command else None


def _pid_file(machine: Machine) -> Path:
    return machine.dir / "pid"


def stop(machine: Machine) -> None:
    number = pid(machine)
    if number is None:
        return
    os.kill(number, signal.SIGTERM)
    for _ in range(100):
        if pid(machine) is None:
            return
        time.sleep(0.1)
    os.kill(number, signal.SIGKILL)


def accelerator(kernel: Path) -> list[str]:
    """Hardware virtualisation if a kernel really boots with it; /dev/kvm alone proves nothing."""
    kvm = ["-accel", "kvm", "-cpu", "host"]
    emulation = ["-accel", "tcg,thread=multi", "-cpu", "Nehalem-v1"]
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return emulation
    # The verdict holds until the host is rebooted.
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    verdict = cache_dir() / "kvm" / boot
    if not verdict.exists():
        verdict.parent.mkdir(parents=True, exist_ok=True)
        verdict.write_text("yes" if _boots(kernel, kvm) else "no")
    return kvm if verdict.read_text() == "yes" else emulation


def _boots(kernel: Path, accelerator: list[str]) -> bool:
    """A kernel without a root disk panics within a second or two; that is proof enough."""
    command = [
        *(QEMU, "-nodefaults", "-no-user-config", "-display", "none", "-m", "256", "-no-reboot", *accelerator),
        *("-kernel", str(kernel), "-append", "console=ttyS0 panic=-1", "-serial", "stdio"),
    ]
    try:
        result = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PROBE_SECONDS
        )
    except subprocess.TimeoutExpired:
        return False
    return result.returncode == 0 and "Kernel panic" in result.stdout
