# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults under live traffic: what was accepted is there afterwards, once, with its flags, through every backend.

`make test` has each fault once on NFSv3 with lockd; NFSMAIL_FAULTS=all (`make faults`) has every cell. NFSMAIL_FAULTS_SEED
repeats a run. Written: .work/faults.json, .work/faults.txt, and .work/faults-NUMBER.log, every operation of a cell.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "shared"))

from faults import (
    ANSIBLE,
    FAULTS,
    SERVER,
    STORE,
    Cluster,
    Fault,
    Row,
    cursors,
    errors_since,
    lock_kept,
    table,
    where_to_look,
)
from ledger import Box, Seen, Tally
from proofs import ROOT, on, places, playbook
from traffic import COPIES, INBOX, Traffic, found_once, now, overlaps

SCENARIO = "per_user"
INVENTORY = f"--inventory={ROOT / 'molecule' / 'faults' / 'inventory'}"
ALL = os.environ.get("NFSMAIL_FAULTS", "") == "all"
SEED = int(os.environ.get("NFSMAIL_FAULTS_SEED", "1"))
WORK = ROOT / ".work"
# Emulated machines have to serve them all.
USERS_PER_BACKEND = 3 if ALL else 2
START = time.monotonic()
ACTIONS = ("appends", "stores", "copies", "expunges")
TROUBLE = ("sessions ended", "logins refused", "deliveries put off", "deliveries without answer", "appends refused")


@dataclass(frozen=True)
class Cell:
    """A topology and an NFS version."""

    topology: str
    cluster: Cluster

    @property
    def fronts(self) -> tuple[str, ...]:
        """Where clients connect."""
        return self.cluster.proxies or self.cluster.backends

    def __str__(self) -> str:
        return f"{self.topology}, NFSv{self.cluster.nfs_version}"


def cell(topology: str, nfs_version: str, backends: tuple[str, ...], proxies: tuple[str, ...], **more: Any) -> Cell:
    """With what Ansible is told of it."""
    variables = {"nfsmail_topology": topology, "nfsmail_nfs_version": nfs_version, **more}
    return Cell(topology, Cluster(backends, proxies, nfs_version, SCENARIO, (INVENTORY, "-e", json.dumps(variables))))


CELLS = [
    cell("per_user", "3", ("mail1", "mail2"), ("proxy1", "proxy2")),
    cell("per_user", "4.1", ("mail1", "mail2"), ("proxy1", "proxy2")),
    cell(
        "single",
        "4.2",
        ("mail1",),
        (),
        nfsmail_index_location="local",
        nfsmail_group_mail_backends="one_backend",
        nfsmail_group_mail_proxies="no_proxies",
        nfsmail_overrides={},
    ),
]
ROWS: list[Row] = []


def say(text: str) -> None:
    print(f"[faults {time.monotonic() - START:5.0f} s] {text}", flush=True)


@dataclass
class World:
    """A cell with its traffic."""

    cell: Cell
    users: list[str]
    traffic: Traffic
    faults: list[Fault]
    rows: list[Row] = field(default_factory=list)


def users_of(cell: Cell) -> list[str]:
    if not cell.cluster.proxies:
        return sorted(places("proxy1", SCENARIO))[: 2 * USERS_PER_BACKEND]
    where = places(cell.cluster.proxies[0], SCENARIO)
    return [
        user
        for backend in cell.cluster.backends
        for user in sorted(user for user, place in where.items() if place == backend)[:USERS_PER_BACKEND]
    ]


@pytest.fixture(scope="module", params=CELLS if ALL else CELLS[:1], ids=str)
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    cell: Cell = request.param
    if cell is not CELLS[0]:
        say(f"{cell}: site.yml")
        done = playbook("site", SCENARIO, *cell.cluster.arguments)
        assert done.returncode == 0, done.stdout
    users = users_of(cell)
    say(f"{cell}: traffic of {len(users)} users through {', '.join(cell.fronts)}, seed {SEED}")
    traffic = Traffic(cell.fronts, users, SEED, timeout=45.0)
    with traffic:
        traffic.wait_for_everybody()
        made = World(cell, users, traffic, [fault for fault in FAULTS if fault.fits(cell.cluster, ALL)])
        yield made
    traffic.ledger.write(WORK / f"faults-{CELLS.index(cell)}.log")
    reckon(made)


def reckon(world: World) -> None:
    """The last word: what every backend shows of every mailbox, the indexes made anew."""
    say(f"{world.cell}: comparing")
    ledger = world.traffic.ledger
    found_once(ledger, world.users, world.cell.fronts[0])
    tallies: dict[str, Tally] = {}
    for backend in world.cell.cluster.backends:
        holds = rebuilt(backend, world.users)
        asked = time.monotonic()
        for (user, box), seen in holds.items():
            ledger.looked(user, box, seen, asked, f"read on {backend}, indexes made anew")
        for window, tally in ledger.compare(holds).items():
            known = tallies.setdefault(window, tally)
            for name, value in asdict(tally).items():
                # The worst that any backend shows.
                worse = min if name == "found" else max
                setattr(known, name, worse(getattr(known, name), value))
    for row in world.rows:
        for name, value in asdict(tallies.get(row.fault, Tally())).items():
            setattr(row, name, value)
    ROWS.extend(world.rows)
    write()
    problems = [one for one in ledger.problems if not any(fault.expects(one) for fault in world.faults)]
    assert not problems, "\n".join(problems)
    assert not ledger.counts["sessions without a last view"]
    assert not any(row.lost or row.duplicated or row.returned or row.flags_lost for row in world.rows)


def rebuilt(backend: str, users: list[str]) -> dict[Box, list[Seen]]:
    """What a backend reads with nothing in its caches and no index that was there before."""
    homes = " ".join(f"{STORE}/{domain}/{name}" for name, _, domain in (user.lower().partition("@") for user in users))
    names = "-name dovecot.index -o -name 'dovecot.index.*' -o -name 'dovecot.list.index*'"
    on(backend, f"find {homes} /var/lib/nfsmail/index -type f \\( {names} \\) -delete 2>/dev/null; :")
    on(backend, "sync; echo 3 > /proc/sys/vm/drop_caches")
    holds: dict[Box, list[Seen]] = {}
    wanted = f"mailbox {INBOX} OR mailbox {COPIES}"
    script = "; ".join(
        f"doveadm force-resync -u {user} '*'; echo '= {user}'; "
        f"doveadm -f tab fetch -u {user} 'mailbox uid flags hdr.subject' {wanted} | tail -n +2"
        for user in users
    )
    user = ""
    for line in on(backend, script).splitlines():
        if line.startswith("= "):
            user = line[2:]
            holds |= {(user, box): [] for box in (INBOX, COPIES)}
        elif line.count("\t") == 3:
            box, uid, flags, subject = line.split("\t")
            names_of = frozenset(flags.split()) - {"\\Recent"}
            holds[user, box].append(Seen(int(uid), subject.strip(), names_of))
    return holds


def write() -> None:
    WORK.mkdir(exist_ok=True)
    text = table(ROWS)
    (WORK / "faults.json").write_text(json.dumps([asdict(row) for row in ROWS], indent=1) + "\n", encoding="utf-8")
    (WORK / "faults.txt").write_text(text + "\n", encoding="utf-8")
    print(f"\n{text}\n", flush=True)


def felt(traffic: Traffic, since: float, before: dict[str, int]) -> None:
    """Until clients have noticed: answers that were not as they should be, or nothing for a while."""
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        troubles = sum(traffic.ledger.counts[what] - before[what] for what in TROUBLE)
        if troubles >= 6 or traffic.longest_silence(since, ACTIONS, traffic.users) > 8:
            return
        time.sleep(0.2)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_fault(world: World, fault: Fault) -> None:
    if fault not in world.faults:
        pytest.skip("not there, or only when there is time")
    cluster, traffic = world.cell.cluster, world.traffic
    row = Row(fault.name, world.cell.topology, cluster.nfs_version, remedy=fault.remedy)
    world.rows.append(row)
    since = cursors(cluster.machines)
    before = {what: traffic.ledger.counts[what] for what in (*TROUBLE, "sessions ended")}
    known = len(traffic.ledger.problems)
    traffic.ledger.window, traffic.ledger.unsure_refusals = fault.name, fault.unsure_refusals
    moment = now(SERVER)
    start = time.monotonic()
    try:
        with (
            lock_kept(cluster, partial(setattr, row, "lock"))
            if fault.lock and len(cluster.backends) > 1
            else nullcontext()
        ):
            with fault.happens(cluster):
                if not fault.at_once:
                    felt(traffic, start, before)
            traffic.wait_for_everybody()
    except AssertionError as error:
        raise AssertionError(f"{error}\n{where_to_look(cluster)}") from error
    finally:
        row.took = time.monotonic() - start
        row.without_imap = traffic.longest_silence(start, ACTIONS, traffic.users)
        row.without_lmtp = traffic.longest_silence(start, ("deliveries",))
        row.sessions_ended = traffic.ledger.counts["sessions ended"] - before["sessions ended"]
        row.problems = [one for one in traffic.ledger.problems[known:] if not fault.expects(one)]
    logged = errors_since(since)
    row.logged = {machine: lines[:20] for machine, lines in logged.items() if lines}
    row.errors = sum(len(lines) for lines in logged.values())
    say(
        f"{world.cell}: {len(world.rows)} of {len(world.faults)}, {fault.name}: {row.took:.0f} s, IMAP silent for "
        f"{row.without_imap:.0f} s, {row.sessions_ended} sessions ended, {row.errors} errors logged, lock {row.lock}"
    )
    if fault in ANSIBLE and cluster.proxies:
        most, moments = overlaps(cluster.backends, moment)
        assert most == 1, "\n".join(moments)
    assert not row.problems, "\n".join(row.problems) + f"\n{where_to_look(cluster)}"
    assert row.lock in ("-", "kept") or fault.lock_lost, f"lock: {row.lock}\n{where_to_look(cluster)}"
