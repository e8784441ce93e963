# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab as a whole: bring up, reset to a snapshot, take down."""

from __future__ import annotations

import fcntl
import hashlib
import random
import shutil
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from . import image, qemu, ssh
from .config import STATE, Lab, LabError, Machine
from .image import BuiltImage
from .inventory import remove_inventory, write_inventory
from .progress import Progress, in_parallel, say
from .settings import settings

BOOT_SECONDS = 420  # five machines under emulation on two cores take about 60
CLEAN = "clean"
LAN_PORT = STATE / "lan_port"


@contextmanager
def locked() -> Iterator[None]:
    """One command at a time changes the lab."""
    STATE.mkdir(parents=True, exist_ok=True)
    with (STATE / "lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def up(lab: Lab, names: list[str]) -> None:
    """Start what is missing; a machine that runs is left as it is."""
    wanted = lab.pick(names)
    keys = ssh.keys()
    missing = [machine for machine in wanted if not _current(lab, machine, keys)]
    if not missing:
        say(f"already up: {', '.join(machine.name for machine in wanted)}")
        _publish(lab)
        return
    images = build_images(missing)
    lan_port = _lan_port(lab)
    accelerator = qemu.accelerator(images[missing[0].name].kernel)
    for machine in missing:
        qemu.stop(machine)
        shutil.rmtree(machine.dir, ignore_errors=True)
        machine.dir.mkdir(parents=True)
        bases = [images[machine.name].disk, *(image.data_disk(disk) for disk in machine.disks)]
        for base, overlay in zip(bases, qemu.overlays(machine), strict=True):
            qemu.make_overlay(base, overlay)
        qemu.start(machine, images[machine.name], settings(lab, machine, keys).pack(), lan_port, accelerator)
    _publish(lab)
    kind = "KVM" if "kvm" in accelerator else "software emulation"
    _wait(missing, Progress(f"booting ({kind})"))
    snapshot(missing, CLEAN)
    for machine in missing:
        _ready_file(machine).write_text(_key(lab, machine, keys))


def build_images(machines: list[Machine]) -> dict[str, BuiltImage]:
    """Images by machine, built in parallel where the cache has none."""
    needed = {machine.image.name: machine.image for machine in machines}
    found = {name: image.find(needed[name]) for name in needed}
    stages = {name: "waiting" for name, ready in found.items() if ready is None}
    if stages:
        progress = Progress("building images")
        built = in_parallel(
            stages,
            lambda name: image.build(needed[name], lambda text: stages.update({name: text})),
            lambda: progress.show(", ".join(f"{name} {text}" for name, text in stages.items())),
        )
        found.update(built)
        progress.done(", ".join(stages))
    return {machine.name: ready for machine in machines if (ready := found[machine.image.name])}


def snapshot(machines: list[Machine], name: str) -> None:
    progress = Progress(f"snapshot {name}")
    _all_paused(machines, f"savevm {name}")
    in_parallel([machine.name for machine in machines], ssh.set_clock)
    progress.done(f"saved {len(machines)} machines")


def reset(lab: Lab, names: Sequence[str] = (CLEAN,)) -> None:
    """Put every running machine back to a snapshot, the first of the names that all have: disks, memory and processes."""
    machines = running(lab)
    if not machines:
        raise LabError("the lab is not up: run tools/lab up")
    taken = set.intersection(*(_snapshots(machine) for machine in machines))
    name = next((name for name in names if name in taken), "")
    if not name:
        raise LabError(f"no snapshot {', '.join(names)}; there are: {', '.join(sorted(taken))}")
    progress = Progress(f"reset to {name}")
    ssh.disconnect()
    _all_paused(machines, f"loadvm {name}")
    in_parallel([machine.name for machine in machines], ssh.set_clock)
    progress.done(", ".join(machine.name for machine in machines))


def _snapshots(machine: Machine) -> set[str]:
    with qemu.monitor(machine) as connection:
        rows = [line.split() for line in connection.human("info snapshots").splitlines()]
    # ID TAG SIZE ... below a head line.
    return {row[1] for row in rows if len(row) > 2 and row[1] != "TAG"}


def down(lab: Lab) -> None:
    """End this lab's processes and forget its disks; images stay in the cache."""
    ssh.disconnect()
    stopped = [machine.name for machine in running(lab)]
    in_parallel(stopped, lambda name: qemu.stop(lab.machines[name]))
    shutil.rmtree(STATE / "machines", ignore_errors=True)
    remove_inventory()
    for path in (LAN_PORT, ssh.CONFIG):
        path.unlink(missing_ok=True)
    say(f"down: {', '.join(stopped)}" if stopped else "down: nothing was running")


def running(lab: Lab) -> list[Machine]:
    return [machine for machine in lab.machines.values() if qemu.pid(machine)]


def ready(machine: Machine) -> bool:
    """Booted completely and still alive; a start that was interrupted does not count."""
    return qemu.pid(machine) is not None and _ready_file(machine).exists()


def _ready_file(machine: Machine) -> Path:
    return machine.dir / "ready"


def _current(lab: Lab, machine: Machine, keys: ssh.Keys) -> bool:
    """Up, and still what the definition says."""
    if not ready(machine):
        return False
    if _ready_file(machine).read_text() == _key(lab, machine, keys):
        return True
    say(f"{machine.name} is defined differently now: starting it anew")
    return False


def _key(lab: Lab, machine: Machine, keys: ssh.Keys) -> str:
    """Everything that a running machine would have to be started anew for."""
    definition = f"{image.image_folder(machine.image).name} {machine} {qemu.KERNEL_ARGUMENTS}"
    return hashlib.sha256(definition.encode() + settings(lab, machine, keys).pack()).hexdigest()


def forwards(machine: Machine) -> dict[int, int]:
    with qemu.monitor(machine) as connection:
        return qemu.forwarded_ports(connection)


def _publish(lab: Lab) -> None:
    """Tell the world (SSH and Ansible) which ports the machines got."""
    ports = {machine.name: forwards(machine) for machine in running(lab)}
    ssh.write_config({name: forward[22] for name, forward in ports.items()})
    write_inventory(lab, ports)


def _all_paused(machines: list[Machine], line: str) -> None:
    """Run a monitor command on all machines while all stand still, so that they agree on what has happened."""
    by_name = {machine.name: machine for machine in machines}

    def on_all(command: str) -> None:
        def work(name: str) -> str:
            with qemu.monitor(by_name[name]) as connection:
                return connection.human(command)

        for name, answer in in_parallel(by_name, work, poll=5).items():
            if answer.strip():
                raise LabError(f"{name}: {command}: {answer.strip()}")

    on_all("stop")
    try:
        on_all(line)
    finally:
        on_all("cont")


def _wait(machines: list[Machine], progress: Progress) -> None:
    """Until every machine has told so over its serial line and answers SSH."""
    status = {machine.name: "..." for machine in machines}

    def boot(name: str) -> None:
        machine = next(machine for machine in machines if machine.name == name)
        state, failed = _booted(machine)
        if not ssh.check(name):
            raise LabError(_console_tail(machine, "booted but does not answer SSH"))
        status[name] = f"up {progress.seconds:.0f} s" + (f" ({state}: {failed})" if state != "running" else "")

    try:
        in_parallel(status, boot, lambda: progress.show(", ".join(f"{name} {text}" for name, text in status.items())))
    except LabError:
        progress.fail()
        raise
    progress.done(", ".join(f"{name} {text}" for name, text in status.items()))


def _booted(machine: Machine) -> tuple[str, str]:
    """Wait for the line that the image's nfsmail-lab-ready.service writes; costs the guest nothing."""
    deadline = time.monotonic() + BOOT_SECONDS
    while time.monotonic() < deadline:
        for line in machine.console.read_text(errors="replace").splitlines():
            if "NFSMAIL-LAB state=" in line:
                state, _, failed = line.partition("state=")[2].partition(" failed=")
                return state, failed.strip()
        if qemu.pid(machine) is None:
            raise LabError(_console_tail(machine, "stopped while booting"))
        time.sleep(0.5)
    raise LabError(_console_tail(machine, f"has not booted within {BOOT_SECONDS} s"))


def _console_tail(machine: Machine, what: str) -> str:
    lines = machine.console.read_text(errors="replace").splitlines()[-40:]
    return "\n".join([f"{machine.name} {what}; the end of its console ({machine.console}):", *lines])


def _lan_port(lab: Lab) -> int:
    """A multicast port that no other lab on this machine uses; all machines of one lab share it."""
    if running(lab) and LAN_PORT.exists():
        return int(LAN_PORT.read_text())
    while True:
        port = random.randrange(20000, 30000)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind(("", port))
            except OSError:
                continue
        LAN_PORT.write_text(str(port))
        return port


def status(lab: Lab) -> list[dict[str, Any]]:
    rows = []
    for machine in lab.machines.values():
        number = qemu.pid(machine)
        rows.append({
            "name": machine.name,
            "address": machine.address,
            "state": "down" if number is None else "up" if ready(machine) else "starting",
            "pid": number or "-",
            "forward": " ".join(f"{guest}:{host}" for guest, host in forwards(machine).items()) if number else "-",
        })  # fmt: skip
    return rows


def console(machine: Machine) -> Path:
    if not machine.console.exists():
        raise LabError(f"{machine.name} has no console yet: run tools/lab up")
    return machine.console
