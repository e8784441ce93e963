# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""SSH into the machines: keys, client configuration, and one shared connection per machine."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from .config import STATE, LabError

HOST_ALIAS = "nfsmail-lab"  # all machines share one host key, whatever port they are forwarded to
USER_KEY = STATE / "ssh_key"
HOST_KEY = STATE / "ssh_host_key"
KNOWN_HOSTS = STATE / "known_hosts"
CONFIG = STATE / "ssh_config"


@dataclass(frozen=True)
class Keys:
    user_public: str
    host_private: str
    host_public: str


def keys() -> Keys:
    """This lab's keys, made on first use."""
    for path in (USER_KEY, HOST_KEY):
        if not path.exists():
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", HOST_ALIAS, "-f", str(path)]
            subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    host_public = HOST_KEY.with_suffix(".pub").read_text()
    KNOWN_HOSTS.write_text(f"{HOST_ALIAS} {host_public}")
    return Keys(USER_KEY.with_suffix(".pub").read_text(), HOST_KEY.read_text(), host_public)


def control_dir() -> Path:
    """Sockets of shared connections. A socket's path must be short and a checkout's may be long, hence /tmp."""
    name = hashlib.sha256(str(STATE).encode()).hexdigest()[:8]
    path = Path(f"/tmp/nfsmail-{os.geteuid()}-{name}")
    path.mkdir(mode=0o700, exist_ok=True)
    info = path.lstat()
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.geteuid():
        raise LabError(f"{path} belongs to someone else")
    path.chmod(0o700)
    return path


def options() -> dict[str, str]:
    """The same for the command line, for Ansible and for tests, so that they share connections."""
    return {
        "ControlMaster": "auto",
        "ControlPath": f"{control_dir()}/%h-%p",
        "ControlPersist": "600",
        "HostKeyAlias": HOST_ALIAS,
        "UserKnownHostsFile": str(KNOWN_HOSTS),
        "GlobalKnownHostsFile": "/dev/null",
        "StrictHostKeyChecking": "yes",
        "IdentitiesOnly": "yes",
        "PreferredAuthentications": "publickey",
        # The newer default costs a second under emulation.
        "KexAlgorithms": "curve25519-sha256",
        "GSSAPIAuthentication": "no",
        "ConnectTimeout": "60",
        # A machine that was reset says no goodbye, and whoever waits for an answer would wait for ever.
        "ServerAliveInterval": "15",
        "ServerAliveCountMax": "8",
        "LogLevel": "ERROR",
    }


def write_config(ports: dict[str, int]) -> None:
    lines = []
    for name, port in ports.items():
        lines += [
            f"Host {name}",
            "  HostName 127.0.0.1",
            f"  Port {port}",
            "  User root",
            f'  IdentityFile "{USER_KEY}"',
        ]
        lines += [f'  {key} "{value}"' for key, value in options().items()]
    CONFIG.write_text("".join(f"{line}\n" for line in lines))


def command(name: str, *remote: str) -> list[str]:
    return ["ssh", "-F", str(CONFIG), name, *remote]


def check(name: str) -> bool:
    """Whether the machine answers; leaves a connection open for what follows."""
    # Output is discarded: the shared connection that goes to the background would hold a pipe open.
    quiet = subprocess.DEVNULL
    try:
        result = subprocess.run(command(name, "true"), stdin=quiet, stdout=quiet, stderr=quiet, timeout=90)
    except subprocess.TimeoutExpired:
        return False
    return result.returncode == 0


def set_clock(name: str) -> None:
    """Give the guest the host's time: it stood still while the machine was saved, stopped or restored."""
    # The slow part, starting a shell, is over when the guest says so; only then is the time read here.
    script = "echo ready; read now; date -s @$now >/dev/null; touch /var/lib/apt/periodic/update-success-stamp 2>/dev/null; :"
    with subprocess.Popen(command(name, script), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as remote:
        assert remote.stdin and remote.stdout
        if remote.stdout.readline().strip() != "ready":
            raise LabError(f"{name} does not answer over SSH")
        remote.stdin.write(f"{time.time():.3f}\n")
        remote.stdin.close()
        if remote.wait(timeout=60):
            raise LabError(f"could not set the clock of {name}")


def disconnect() -> None:
    """End shared connections; after a reset the guests know nothing of them."""
    for socket in control_dir().iterdir():
        end = ["ssh", "-F", "/dev/null", "-o", f"ControlPath={socket}", "-O", "exit", HOST_ALIAS]
        subprocess.run(end, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        socket.unlink(missing_ok=True)
