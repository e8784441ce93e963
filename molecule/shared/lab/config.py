# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read lab.yml into typed records and know where everything is kept."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

CHECKOUT = Path(__file__).resolve().parents[3]
DEFINITION = CHECKOUT / "molecule" / "shared" / "lab.yml"
# Another one beside it has another folder.
STATE = CHECKOUT / os.environ.get("NFSMAIL_LAB", ".lab")
SSH_PORT = 22


class LabError(Exception):
    """Something the user can act on; shown without a traceback."""


def cache_dir() -> Path:
    """Images are shared by all checkouts of this user."""
    if chosen := os.environ.get("NFSMAIL_CACHE"):
        return Path(chosen).expanduser().resolve()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "nfsmail"


@dataclass(frozen=True)
class Image:
    name: str
    suite: str
    size: str
    packages: list[str]


@dataclass(frozen=True)
class Disk:
    label: str
    size: str
    mount: str


@dataclass(frozen=True)
class Machine:
    name: str
    image: Image
    address: str
    memory: int = 512
    cpus: int = 1
    disks: list[Disk] = field(default_factory=list)
    forward: list[int] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)

    @property
    def dir(self) -> Path:
        return STATE / "machines" / self.name

    @property
    def console(self) -> Path:
        return self.dir / "console.log"

    @property
    def forwards(self) -> list[int]:
        """Guest ports reachable on loopback; SSH always is."""
        return [SSH_PORT, *(port for port in self.forward if port != SSH_PORT)]

    def mac(self, nic: int) -> str:
        """A fixed address for each card, so that the guest can tell them apart."""
        last = ipaddress.IPv4Address(self.address).packed
        return f"52:54:00:{nic:02x}:{last[2]:02x}:{last[3]:02x}"


@dataclass(frozen=True)
class Lab:
    network: ipaddress.IPv4Network
    machines: dict[str, Machine]

    def pick(self, names: list[str]) -> list[Machine]:
        unknown = [name for name in names if name not in self.machines]
        if unknown:
            raise LabError(f"no such machine: {', '.join(unknown)} (there are: {', '.join(self.machines)})")
        return [self.machines[name] for name in names or self.machines]


def load(path: Path = DEFINITION) -> Lab:
    data: dict[str, Any] = yaml.safe_load(path.read_text())
    images = {name: Image(name=name, **spec) for name, spec in data["images"].items()}
    machines: dict[str, Machine] = {}
    # For one run: NFSMAIL_LAB_IMAGES="nfs1=trixie-nfs" is a Debian 13 server.
    others = dict(pair.split("=") for pair in os.environ.get("NFSMAIL_LAB_IMAGES", "").split())
    for name, spec in data["machines"].items():
        spec = dict(spec)
        spec["image"] = others.get(name, spec["image"])
        disks = [Disk(**disk) for disk in spec.pop("disks", [])]
        if spec["image"] not in images:
            raise LabError(f"{path.name}: machine {name} uses an image that is not defined: {spec['image']}")
        spec["image"] = images[spec["image"]]
        machines[name] = Machine(name=name, disks=disks, **spec)
    return Lab(network=ipaddress.IPv4Network(data["network"]), machines=machines)
