# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A backend dies under its users: another takes its address, nobody else moves, and the way back is asked for."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "shared"))

from faults import reset
from proofs import ROOT, changed, on, places, playbook, verify, wait_until
from traffic import Traffic, found_once, now, overlaps

SCENARIO = "per_user"
BACKENDS = ("mail1", "mail2")
PROXIES = ("proxy1", "proxy2")
ADDRESSES = {"mail1": "10.77.0.111", "mail2": "10.77.0.112"}
WITH_ADDRESSES = (f"--inventory={ROOT / 'molecule' / SCENARIO / 'service_addresses.ini'}",)


def holder(owner: str) -> list[str]:
    """The backends that have an address now."""
    return [one for one in BACKENDS if on(one, f"ip -oneline address show to {ADDRESSES[owner]}")]


def users_of(owner: str, count: int = 3) -> list[str]:
    where = places(PROXIES[0], SCENARIO)
    return sorted(user for user, place in where.items() if place == owner)[:count]


def sessions_of(users: list[str]) -> list[str]:
    """User and process of these users' sessions on mail2."""
    lines = [line.split("\t") for line in on("mail2", "doveadm -f tab who -1").splitlines()]
    wanted = [user.lower() for user in users]
    return sorted(f"{fields[0]} {fields[2]}" for fields in lines if fields[0].lower() in wanted)


@pytest.fixture(scope="module", autouse=True)
def service_addresses() -> Iterator[dict[str, list[str]]]:
    """The cluster with service addresses; afterwards without."""
    users = {owner: users_of(owner) for owner in BACKENDS}
    done = playbook("site", SCENARIO, *WITH_ADDRESSES)
    assert done.returncode == 0, done.stdout
    for owner in BACKENDS:
        wait_until("the address is there", owner, f"ip -oneline address show to {ADDRESSES[owner]} | grep -q inet", 60)
    yield users
    for backend in BACKENDS:
        on(backend, "systemctl disable --now keepalived")
    done = playbook("site", SCENARIO, "--tags", "proxy")
    assert done.returncode == 0, done.stdout


def test_each_backend_has_its_address_and_nothing_is_left_to_do() -> None:
    assert {owner: holder(owner) for owner in BACKENDS} == {owner: [owner] for owner in BACKENDS}
    assert set(changed(playbook("site", SCENARIO, *WITH_ADDRESSES)).values()) == {0}
    ended, verdict = verify(SCENARIO, *WITH_ADDRESSES)
    # NFS328 is about a day of logs, of tests that break things on purpose too.
    assert {row["id"] for row in verdict["checks"] if row["level"] == "error"} <= {"NFS328"}, ended.stdout
    assert "NFS331" in {row["id"] for row in verdict["checks"] if row["level"] == "ok"}
    assert "host=10.77.0.111" in on("proxy1", "cat /etc/dovecot/nfsmail-shards")


def test_a_dead_backend_is_replaced_and_takes_nothing_back_by_surprise(
    service_addresses: dict[str, list[str]],
) -> None:
    users = sorted(user for own in service_addresses.values() for user in own)
    stays = service_addresses["mail2"]
    since = now("mail1")
    with Traffic(PROXIES, users, seed=5) as traffic:
        traffic.wait_for("appends", 2 * len(users))
        before = sessions_of(stays)
        start = time.monotonic()
        reset("mail1")
        wait_until("the address has moved", "mail2", "ip -oneline address show to 10.77.0.111 | grep -q inet", 120)
        took = time.monotonic() - start
        who = "|".join(user.lower() for user in service_addresses["mail1"])
        wait_until("its users are on the other", "mail2", f"doveadm who -1 | grep -qiE '{who}'", 180)
        print(f"mail1's address was on mail2 after {took:.0f} s, its users after {time.monotonic() - start:.0f} s")
        assert sessions_of(stays) == before
        # It is back, with Dovecot, and its users stay where they are.
        wait_until("mail1 is back", "mail1", "systemctl is-active dovecot keepalived", 300)
        traffic.wait_for("appends", 10)
        assert holder("mail1") == ["mail2"]
        ended, verdict = verify(SCENARIO, *WITH_ADDRESSES)
        told = [(row["id"], row["level"]) for row in verdict["checks"] if row["id"] == "NFS331"]
        assert ("NFS331", "warning") in told and ("NFS331", "error") not in told, ended.stdout
        back = playbook("failback", SCENARIO, "-e", "failback=mail1", *WITH_ADDRESSES)
        assert back.returncode == 0 and "its address comes back from mail2" in back.stdout, back.stdout
        assert holder("mail1") == ["mail1"]
        wait_until("its users are back", "mail1", f"doveadm who -1 | grep -qiE '{who}'", 120)
    most, moments = overlaps(BACKENDS, since)
    lost = found_once(traffic.ledger, users, PROXIES[0])
    print(f"{dict(traffic.ledger.counts)}; open on {most} backend at most; {len(lost)} messages lost or doubled")
    assert not lost, "\n".join(lost)
    assert most == 1, "\n".join(moments)
