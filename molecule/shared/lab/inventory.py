# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The running lab as an Ansible inventory: inventory.yml, and hosts.yml for scenarios that group the hosts otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from . import ssh
from .config import SSH_PORT, STATE, Lab

INVENTORY = STATE / "inventory.yml"
HOSTS = STATE / "hosts.yml"


def write_inventory(lab: Lab, ports: dict[str, dict[int, int]]) -> None:
    hosts: dict[str, Any] = {}
    groups: dict[str, Any] = {}
    for name, forward in ports.items():
        machine = lab.machines[name]
        hosts[name] = {
            "ansible_port": forward[SSH_PORT],
            "nfsmail_address": machine.address,
            "lab_forward": {guest: host for guest, host in forward.items() if guest != SSH_PORT},
        }
        for group in machine.groups:
            groups.setdefault(group, {"hosts": {}})["hosts"][name] = {}
    common = {
        "ansible_connection": "ssh",
        "ansible_host": "127.0.0.1",
        "ansible_user": "root",
        "ansible_ssh_private_key_file": str(ssh.USER_KEY),
        "ansible_ssh_args": " ".join(f'-o {key}="{value}"' for key, value in ssh.options().items()),
        "ansible_python_interpreter": "/usr/bin/python3",
    }
    _write(HOSTS, {"vars": common, "hosts": hosts})
    _write(INVENTORY, {"vars": common, "hosts": hosts, "children": groups})


def remove_inventory() -> None:
    for path in (HOSTS, INVENTORY):
        path.unlink(missing_ok=True)


def _write(path: Path, everything: dict[str, Any]) -> None:
    path.write_text(f"---\n# Written by tools/lab\n{yaml.safe_dump({'all': everything}, sort_keys=False)}")
