# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the program of role metrics reads where mounts, locks and clocks are real. That node-exporter shows it: make dovecot."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "shared"))

from faults import STORE, address, cut, lock_held, mend
from mailflow.imap import ImapSession
from proofs import PASSWORD, ROOT, forwarded, on, places, wait_until

SCENARIO = "per_user"
BACKENDS = ("mail1", "mail2")
PROGRAM = "/var/tmp/nfsmail-metrics"
# As roles/metrics/vars/main.yml has them.
BACKEND = f"--chrony --store {STORE} --uid 5000 --gid 5000 --locks {STORE} --sessions imap --rpc nlockmgr --rpc status"
SERVER = f"--chrony --locks {STORE} --rpc nlockmgr --rpc status"
PROXY = (
    "--chrony --state /etc/nfsmail-state --moving /etc/dovecot/nfsmail-moving --backend mail1 --backend mail2 "
    "--same /etc/dovecot/nfsmail-shards --same /etc/dovecot/nfsmail-overrides"
)
# Not the shell that looks for it.
CHILD = "[n]fsmail-metrics --chrony"


def metrics(machine: str, arguments: str) -> dict[str, float]:
    """Name with labels to value, as one run of the program prints them; it has to end by itself."""
    source = (ROOT / "roles" / "metrics" / "files" / "nfsmail_metrics.py").read_text(encoding="utf-8")
    on(machine, f"printf %s {shlex.quote(source)} >{PROGRAM}")
    said = on(machine, f"timeout 90 python3 {PROGRAM} {arguments} 2>/dev/null")
    return {name: float(value) for name, value in re.findall(r"(?m)^(\w+(?:\{.*\})?) (\S+)$", said)}


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_backend_tells_of_its_mount_clock_lock_and_users(backend: str) -> None:
    user = next(user for user, place in sorted(places("proxy1", SCENARIO).items()) if place == backend)
    before = metrics(backend, BACKEND)
    # A client's kernel lists flock(2) on NFS as such, although the server has it as a byte-range lock.
    held = f'nfsmail_locks{{path="{STORE}",type="flock",state="held"}}'
    other = BACKENDS[backend == BACKENDS[0]]
    with lock_held(backend, other), ImapSession(*forwarded("proxy1", 143), user, PASSWORD):
        found = metrics(backend, BACKEND)
    assert found[held] == before[held] + 1, (before, found)
    assert found['nfsmail_sessions{protocol="imap"}'] >= 1 and found["nfsmail_users"] >= 1, found
    for part in ("store", "clock", "locks", "rpc", "sessions"):
        assert found[f'nfsmail_read_ok{{part="{part}"}}'] == 1, found
    path = f'{{path="{STORE}"}}'
    assert found[f"nfsmail_mount_mounted{path}"] == found[f"nfsmail_mount_responding{path}"] == 1, found
    # NFS307 allows as much as Dovecot: a second.
    assert abs(found[f"nfsmail_clock_offset_seconds{path}"]) < 1 + found[f"nfsmail_clock_error_seconds{path}"], found
    assert {found[f'nfsmail_rpc_registered{{program="{name}"}}'] for name in ("nlockmgr", "status")} == {1}, found


def test_the_server_and_the_proxies_tell_of_theirs() -> None:
    found = metrics("nfs1", SERVER)
    assert f'nfsmail_locks{{path="{STORE}",type="posix",state="held"}}' in found, found
    assert abs(found["nfsmail_clock_correction_seconds"]) < 1, found
    one, other = (metrics(proxy, PROXY) for proxy in ("proxy1", "proxy2"))
    same = [name for name in one if name.startswith(("nfsmail_routing", "nfsmail_moving", "nfsmail_backend_out"))]
    assert len(same) == 6 and {name: one[name] for name in same} == {name: other[name] for name in same}, (one, other)


def test_a_store_that_does_not_answer_is_told_and_keeps_nobody_waiting() -> None:
    """Linux lets a process be killed that waits for NFS; should one hang all the same, the second run begins no other."""
    responding = f'nfsmail_mount_responding{{path="{STORE}"}}'
    cut("mail1", f"out ip daddr {address('nfs1')} tcp dport 2049")
    try:
        for _ in range(2):
            found = metrics("mail1", f"{BACKEND} --timeout 3")
            assert found[responding] == 0 and found['nfsmail_read_ok{part="store"}'] == 1, found
            assert "nfsmail_clock_correction_seconds" in found, found
        assert int(on("mail1", f"pgrep -fc '{CHILD}'", check=False)) <= 1
    finally:
        mend("mail1")
    wait_until("the child is gone", "mail1", f"! pgrep -f '{CHILD}'", 300)
    assert metrics("mail1", BACKEND)[responding] == 1
