#!/usr/bin/env python3
# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""How much processor time judging takes, and how that grows: tools/benchmark.py [--ansible] [HOSTS...]

Prints seconds of this machine and, what compares between machines, time for each host relative to the smallest run.
With --ansible: validate.yml, all of which runs on the controller, for as many hosts, beside a playbook that groups the same
hosts and does nothing else: what Ansible itself takes. No host is reached.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / ".ansible" / "collections")]  # tools/setup makes it

from ansible_collections.nfsmail.cluster.plugins.plugin_utils.inventory import inventory_notes, inventory_problems
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.judge import findings
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.matrix import mount_options, plan_findings, settings
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.profile import KEYS

SIZES = (1_000, 10_000)
CONF = """dovecot_config_version = 2.4.1
mail_home = /srv/mail/%{user | lower}
mail_driver = maildir
mail_path = ~/Maildir
mmap_disable = yes
mail_fsync = always
protocol imap {
  mail_plugins = quota
}
service lmtp {
  inet_listener lmtp {
    port = 24
  }
}
"""


def profiles(count: int) -> list[dict[str, Any]]:
    """Different profiles in turn."""
    choices = [key.choices or ((True, False) if key.name != "dovecot_version" else ("2.3.19", "2.4.1")) for key in KEYS]
    names = [key.name for key in KEYS]
    every = [dict(zip(names, values)) for values in itertools.product(*choices)]
    return [every[number * 7 % len(every)] for number in range(count)]


def judge_plans(count: int) -> int:
    """Settings, mount options and findings of as many profiles."""
    return sum(len(settings(one)) + len(mount_options(one)) + len(plan_findings(one)) for one in profiles(count))


def judge_settings(count: int) -> int:
    """What is wrong with the live settings of as many machines."""
    state = {"dovecot": {"version": "2.4.1", "conf": CONF}}
    return sum(len(findings(one, state)) for one in profiles(count))


def judge_inventory(count: int) -> int:
    """A cluster of as many backends: problems and notes."""
    backends = [
        {"name": f"mail{number}", "address": f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"}
        for number in range(count)
    ]
    members = {"mail_backends": backends, "mail_proxies": [{"name": "proxy1"}], "nfs_servers": [{"name": "nfs1"}]}
    variables = {
        **{"nfsmail_topology": "per_user", "nfsmail_export_path": "/srv/mail", "nfsmail_store_path": "/srv/mail"},
        **{"nfsmail_mail_home": "/srv/mail/{user}", "nfsmail_users_file": "/etc/dovecot/users"},
        "nfsmail_proxy_password": "not-a-real-secret-0123",
    }
    own = {"dovecot_extra_settings": {"mail_max_userip_connections": 20, "protocol imap": {"mail_debug": True}}}
    values = {host["name"]: own for host in backends}
    names = {host["name"]: ["nfsmail_address", "dovecot_extra_settings"] for host in backends}
    known = {*variables, "nfsmail_address", "dovecot_extra_settings"}
    found = inventory_problems(variables, members, names, known, values)
    assert found == [], found[0]
    return len(inventory_notes(variables, members, values))


WORK: dict[str, Callable[[int], int]] = {
    "plans": judge_plans,
    "live settings": judge_settings,
    "one inventory": judge_inventory,
}


def cpu(work: Callable[[int], int], count: int) -> float:
    """Seconds of processor time; the best of three."""
    taken = []
    for _ in range(3):
        began = time.process_time()
        work(count)
        taken.append(time.process_time() - began)
    return min(taken)


NOTHING = """
- hosts: all
  gather_facts: false
  tasks:
    - ansible.builtin.group_by: {key: everybody}
- hosts: everybody
  gather_facts: false
  tasks:
    - ansible.builtin.assert: {that: true}
      run_once: true
"""
SITES = (4, 50, 250, 1_000)


def inventory(count: int) -> dict[str, Any]:
    """A cluster of as many hosts, a tenth of them proxies."""
    proxies = max(1, count // 10)
    hosts = {
        "nfs_servers": {"nfs1": {"ansible_host": "192.0.2.1"}},
        "mail_backends": {f"mail{n}": {"ansible_host": f"10.1.{n >> 8}.{n & 255}"} for n in range(1, count - proxies)},
        "mail_proxies": {f"proxy{n}": {"ansible_host": f"10.2.{n >> 8}.{n & 255}"} for n in range(1, proxies + 1)},
    }
    variables = {
        **{"nfsmail_topology": "per_user", "nfsmail_nfs_server": "192.0.2.1"},
        "nfsmail_proxy_password": "not-a-real-secret-0123",
    }
    return {"all": {"vars": variables, "children": {group: {"hosts": these} for group, these in hosts.items()}}}


def run(playbook: Path, hosts: Path) -> float:
    """Seconds of a playbook."""
    command = [str(ROOT / ".venv" / "bin" / "ansible-playbook"), f"--inventory={hosts}", str(playbook)]
    began = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return time.monotonic() - began


def with_ansible(sizes: list[int]) -> None:
    """Print a table."""
    print(f"{'hosts':>7} {'validate':>9} {'nothing':>9} {'ratio':>6} {'a host':>8}")
    with tempfile.TemporaryDirectory() as folder:
        nothing, hosts = Path(folder, "nothing.yml"), Path(folder, "hosts.json")
        nothing.write_text(NOTHING)
        for count in sizes:
            hosts.write_text(json.dumps(inventory(count)))
            ours, least = run(ROOT / "playbooks" / "validate.yml", hosts), run(nothing, hosts)
            print(
                f"{count:7,} {ours:7.1f} s {least:7.1f} s {ours / least:6.1f} {1000 * ours / count:5.0f} ms", flush=True
            )


def main() -> None:
    """Print a table."""
    numbers = [int(word) for word in sys.argv[1:] if word != "--ansible"]
    if "--ansible" in sys.argv[1:]:
        with_ansible(numbers or list(SITES))
        return
    sizes = numbers or list(SIZES)
    for work in WORK.values():
        work(10)  # what is made once is made
    print(f"{'judged':14} {'hosts':>7} {'CPU s':>8} {'per host':>10}  relative to the first")
    for name, work in WORK.items():
        first = 0.0
        for count in sizes:
            seconds = cpu(work, count)
            first = first or seconds / count
            print(f"{name:14} {count:7,} {seconds:8.3f} {seconds / count * 1e6:7.1f} us  {seconds / count / first:.2f}")


if __name__ == "__main__":
    main()
