# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the lab's scenarios and `make demo` share: running playbooks, reaching machines, sending mail through them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
LAB = ROOT / os.environ.get("NFSMAIL_LAB", ".lab")
BIN = Path(sys.executable).parent

sys.path.insert(0, str(Path(__file__).parent))

from lab import ssh
from mailflow import Config, Report, placement, run
from mailflow.placement import parse_hosts, parse_shards

PASSWORD = "lab-password-1"


def playbook(name: str, scenario: str, *arguments: str, show: bool = False) -> subprocess.CompletedProcess[str]:
    """Run a playbook of the collection on the lab with a scenario's inventory; its output is kept, or shown."""
    kept = None if show else subprocess.PIPE
    run = start_playbook(name, scenario, *arguments, output=kept)
    said = said_by(run)
    return subprocess.CompletedProcess(run.args, run.returncode, said)


def said_by(run: subprocess.Popen[str], seconds: float = 700) -> str:
    """What a run says until its end; of one that does not end, how far it came."""
    try:
        return run.communicate(timeout=seconds)[0]
    except subprocess.TimeoutExpired:
        run.kill()
        raise AssertionError(f"not over after {seconds:.0f} s: {run.args!r}\n{run.communicate()[0]}") from None


def start_playbook(
    name: str, scenario: str, *arguments: str, output: int | None = subprocess.DEVNULL
) -> subprocess.Popen[str]:
    """Start such a run, and do not wait for it. Without a scenario the machines' names are all that is known."""
    command = [
        str(BIN / "ansible-playbook"),
        f"--inventory={LAB / 'inventory.yml'}",
        *((f"--inventory={ROOT / 'molecule' / scenario / 'inventory'}",) if scenario else ()),
        str(ROOT / "playbooks" / f"{name}.yml"),
        *arguments,
    ]
    # One Python per machine instead of one per task: three times as fast under emulation.
    env = environment(ANSIBLE_STRATEGY="mitogen_linear", ANSIBLE_STRATEGY_PLUGINS=str(ROOT / ".ansible" / "strategy"))
    return subprocess.Popen(
        command, cwd=ROOT, env=env, text=True, stdout=output, stderr=subprocess.STDOUT if output is not None else None
    )


def environment(**more: str) -> dict[str, str]:
    """For Ansible's commands on the lab."""
    return {
        **os.environ,
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_FORCE_COLOR": "0",
        "ANSIBLE_DEPRECATION_WARNINGS": "False",
        # An emulated machine on a busy host takes its time to answer.
        "ANSIBLE_TIMEOUT": "180",
        **more,
    }


def on(machine: str, command: str, check: bool = True) -> str:
    """Run a shell command on a machine of the lab as root and return what it printed."""
    done = subprocess.run(
        ssh.command(machine, command),
        cwd=ROOT,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    if check and done.returncode:
        raise AssertionError(f"{machine}: {command}\nexit code {done.returncode}\n{done.stdout}")
    return done.stdout


def code(machine: str, command: str, check: bool = True) -> int | None:
    """The exit code of a command on a machine; without ``check``, none while the machine does not answer."""
    said = on(machine, f"({command}) >/dev/null 2>&1; echo $?", check).split()
    return int(said[-1]) if said and said[-1].isdigit() else None


def wait_until(what: str, machine: str, command: str, seconds: float = 120) -> float:
    """Wait until a command succeeds on a machine; how long that took."""
    start = time.monotonic()
    while time.monotonic() - start < seconds:
        if code(machine, command, check=False) == 0:
            return time.monotonic() - start
        time.sleep(1)
    raise AssertionError(f"{what} on {machine}: not within {seconds:.0f} s: {command}")


def hosts() -> dict[str, dict[str, Any]]:
    """The running lab's machines with their variables."""
    return dict(yaml.safe_load((LAB / "inventory.yml").read_text(encoding="utf-8"))["all"]["hosts"])


def forwarded(machine: str, port: int) -> tuple[str, int]:
    """Where a TCP port of a machine is reached from here."""
    return "127.0.0.1", int(hosts()[machine]["lab_forward"][port])


def variables(scenario: str) -> dict[str, Any]:
    """The scenario's group variables."""
    path = ROOT / "molecule" / scenario / "inventory" / "group_vars" / "all.yml"
    return dict(yaml.safe_load(path.read_text(encoding="utf-8")))


def store_files(reader: str) -> list[str]:
    """The paths of all files on the mail store; the NFS server itself has no cache to be wrong."""
    return on(reader, "find /srv/mail -name lost+found -prune -o -type f -print").splitlines()


def places(proxy: str, scenario: str) -> dict[str, str]:
    """The backend of each user, as the files of this proxy say."""
    users = [user["name"] for user in variables(scenario)["nfsmail_users"]]
    shards = parse_shards(on(proxy, "cat /etc/dovecot/nfsmail-shards").splitlines())
    overrides = parse_hosts(on(proxy, "cat /etc/dovecot/nfsmail-overrides").splitlines(), "overrides")
    names = {str(host["nfsmail_address"]): name for name, host in hosts().items()}
    return placement(users, shards, overrides, names)


def mail_through(front: str, scenario: str, reader: str, seed: int = 1) -> Report:
    """Send CPython's e-mail samples through ``front`` and read them back; ``reader`` lists the files on the store."""
    cluster = variables(scenario)
    return run(
        Config(
            lmtp=forwarded(front, 24),
            imap=forwarded(front, 143),
            users={user["name"]: PASSWORD for user in cluster["nfsmail_users"]},
            seed=seed,
            expected=places(front, scenario) if cluster["nfsmail_topology"] == "per_user" else None,
            listing=lambda: store_files(reader),
        )
    )


def verify(scenario: str, *arguments: str) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
    """Run verify.yml; what it printed, and its JSON report, empty when it came to no verdict."""
    path = LAB / "verify.json"
    path.unlink(missing_ok=True)
    done = playbook("verify", scenario, "-e", f"nfsmail_report_path={path}", *arguments)
    return done, json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def verified(scenario: str, *arguments: str, warnings: Collection[str] = ()) -> set[str]:
    """Run verify.yml, insist that nothing is wrong but the named warnings, show its table; the checks it made."""
    done, verdict = verify(scenario, *arguments)
    if done.returncode:
        raise AssertionError(done.stdout)
    print("\n".join(verdict["table"]))
    assert verdict["counts"]["error"] == 0
    # Emulated machines stand still for a while now and then, and Dovecot logs it.
    told = {row["id"] for row in verdict["checks"] if row["level"] == "warning"} - {"NFS328"}
    assert told == set(warnings), told
    return {row["id"] for row in verdict["checks"]}


def changed(done: subprocess.CompletedProcess[str]) -> dict[str, int]:
    """How many tasks changed something on each host, as a playbook that went well says at its end."""
    if done.returncode:
        raise AssertionError(done.stdout)
    return {host: int(count) for host, count in re.findall(r"(?m)^(\S+)\s+: ok=\d+\s+changed=(\d+)", done.stdout)}
