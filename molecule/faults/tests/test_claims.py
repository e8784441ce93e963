# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the page of 2012 says of random redirects, counted: errors that clients see, and that Dovecot logs, per 10,000 commands.

Measured, not judged, but for per_user, where nothing may go wrong. With `make faults` only. Each user is at work through
both machines at once, which is the worst that random can do. Written: .work/claims.json and .work/claims.txt.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "shared"))

from faults import SERVER, STORE, cursors, errors_since, everywhere
from proofs import ROOT, hosts, on, places, playbook
from traffic import Traffic, found_once

SCENARIO = "per_user"
BACKENDS = ("mail1", "mail2")
WORK = ROOT / ".work"
COMMANDS = int(os.environ.get("NFSMAIL_CLAIMS_COMMANDS", "2000"))
SECONDS = float(os.environ.get("NFSMAIL_CLAIMS_SECONDS", "900"))
COUNTED = ("appends", "stores", "copies", "marks", "expunges", "idles", "looks", "deliveries")
RANDOM = {
    "nfsmail_topology": "random",
    "nfsmail_accept_unsupported_random": True,
    "nfsmail_group_mail_proxies": "no_proxies",
    "nfsmail_overrides": {},
    "nfsmail_nfs_version": "3",
}
CONF = "/etc/dovecot/dovecot.conf"
MOUNT = "vers=3,proto=tcp,hard,nosuid,nodev,noexec,noatime,nordirplus"
LOCAL = {
    "mail1": "mail_location = maildir:~/Maildir:INDEX=/var/lib/nfsmail/index/%Ld/%Ln",
    "mail2": "mail_index_path = /var/lib/nfsmail/index/%{user | lower | domain}/%{user | lower | username}",
}
FLUSH = "mail_nfs_storage = yes\nmail_nfs_index = yes\n"
NO_FLUSH = "mail_nfs_storage = no\nmail_nfs_index = no\n"
# What a problem of the ledger is about.
KINDS = {
    "gone": r"was accepted and is not there",
    "back": r"was expunged and is there again",
    "doubled": r"is there \d+ times",
    "UID": r"UID",
    "flags": r"has lost|still has",
    "disagree": r"two sessions disagree",
}


@dataclass(frozen=True)
class Claim:
    """How mailboxes are opened on both machines."""

    name: str
    settings: str
    mount: str
    local: bool = False


CLAIMS = (
    Claim("random, no flushing, attributes cached", NO_FLUSH, MOUNT),
    Claim("random, flushing, attributes cached", FLUSH, MOUNT),
    Claim("random, no flushing, actimeo=0", NO_FLUSH, f"{MOUNT},actimeo=0"),
    Claim("random, flushing, actimeo=0", FLUSH, f"{MOUNT},actimeo=0"),
    Claim(
        "random, local indexes, actimeo=0",
        "mail_nfs_storage = yes\nmail_nfs_index = no\n",
        f"{MOUNT},actimeo=0",
        local=True,
    ),
    Claim(
        "random, flushing, actimeo=0, dotlock without lockd",
        f"{FLUSH}lock_method = dotlock\n",
        f"{MOUNT},actimeo=0,nolock",
    ),
)


@dataclass
class Count:
    """What one of them came to."""

    name: str
    commands: int = 0
    seconds: float = 0.0
    seen: dict[str, int] = field(default_factory=dict)
    logged: int = 0
    accepted: int = 0
    lost: int = 0
    examples: list[str] = field(default_factory=list)

    def of_10000(self, number: int) -> str:
        """As a rate."""
        return f"{10000 * number / max(self.commands, 1):.0f}"


COUNTS: list[Count] = []

pytestmark = pytest.mark.skipif(os.environ.get("NFSMAIL_FAULTS") != "all", reason="make faults does this")


def say(text: str) -> None:
    print(f"[claims] {text}", flush=True)


def empty() -> None:
    """No mail and no indexes of an earlier count; Dovecot is stopped."""
    on(SERVER, f"find {STORE} -mindepth 1 -maxdepth 1 -type d ! -name lost+found -exec rm -rf {{}} +")
    everywhere(BACKENDS, lambda machine: on(machine, "rm -rf /var/lib/nfsmail/index/*"))


def mount(machine: str, options: str) -> None:
    address = hosts()[SERVER]["nfsmail_address"]
    on(machine, f"umount {STORE} && mount -t nfs -o {options} {address}:{STORE} {STORE}")


def count(name: str, fronts: tuple[str, ...], users: list[str]) -> Count:
    """Have clients work, and see what they and Dovecot say."""
    since = cursors(BACKENDS)
    start = time.monotonic()
    with Traffic(fronts, users, 1, timeout=45.0, pace=2.5) as traffic:
        # Some are so slow that they do not come so far.
        while sum(traffic.ledger.counts[what] for what in COUNTED) < COMMANDS and time.monotonic() - start < SECONDS:
            time.sleep(1)
    ledger = traffic.ledger
    result = Count(name, sum(ledger.counts[what] for what in COUNTED), time.monotonic() - start)
    result.seen = dict(kinds(ledger.problems))
    result.examples = ledger.problems[:20]
    result.logged = sum(len(lines) for lines in errors_since(since).values())
    # What is left of it when nobody is in the way: every mailbox with its indexes made anew.
    for machine in BACKENDS:
        on(machine, "systemctl stop dovecot; rm -rf /var/lib/nfsmail/index/*")
    on(SERVER, f"find {STORE} -name 'dovecot*' -not -name dovecot-keywords -delete")
    for machine in BACKENDS:
        on(machine, "systemctl start dovecot")
    known = len(ledger.problems)
    found_once(ledger, users, fronts[0])
    # UIDs are new now.
    result.lost = len({one.split()[1] for one in ledger.problems[known:] if re.search(KINDS["gone"], one)})
    result.accepted = ledger.counts["appends"] + ledger.counts["copies"] + ledger.counts["deliveries"]
    COUNTS.append(result)
    write()
    return result


def kinds(problems: list[str]) -> Counter[str]:
    """Each message counts once for each kind, however often and by whomever it was seen."""
    found = set()
    for problem in problems:
        kind = next((kind for kind, pattern in KINDS.items() if re.search(pattern, problem)), "other")
        words = problem.split()
        found.add((kind, *words[:2]))
    return Counter(kind for kind, *_ in found)


def write() -> None:
    WORK.mkdir(exist_ok=True)
    (WORK / "claims.json").write_text(json.dumps([asdict(one) for one in COUNTS], indent=1) + "\n", encoding="utf-8")
    head = ["", "commands", *(f"{kind}/10,000" for kind in KINDS), "other", "log errors/10,000", "accepted", "lost"]
    rows = [
        [
            one.name,
            str(one.commands),
            *(one.of_10000(one.seen.get(kind, 0)) for kind in (*KINDS, "other")),
            one.of_10000(one.logged),
            str(one.accepted),
            str(one.lost),
        ]
        for one in COUNTS
    ]
    text = "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows])
    (WORK / "claims.txt").write_text(text + "\n", encoding="utf-8")
    say(f"{COUNTS[-1].name}: {rows[-1][1:]}, {COUNTS[-1].seconds:.0f} s")


def test_per_user() -> None:
    """The same work by way of the proxies."""
    done = playbook("site", SCENARIO)
    assert done.returncode == 0, done.stdout
    everywhere(BACKENDS, lambda machine: on(machine, "systemctl stop dovecot"))
    empty()
    everywhere(BACKENDS, lambda machine: on(machine, "systemctl start dovecot"))
    found = count("per_user", ("proxy1", "proxy2"), users())
    assert not found.seen and not found.lost, found


def users() -> list[str]:
    """Two of each backend, as long as there are shards; the same four throughout."""
    where = places("proxy1", SCENARIO)
    return [
        user for backend in BACKENDS for user in sorted(user for user, place in where.items() if place == backend)[:2]
    ]


@pytest.fixture(scope="module")
def at_random() -> Iterator[list[str]]:
    chosen = users()
    done = playbook("site", SCENARIO, "-e", json.dumps(RANDOM))
    assert done.returncode == 0, done.stdout
    everywhere(
        BACKENDS,
        lambda machine: on(machine, f"cp {CONF} /root/dovecot.conf; install -d -o vmail /var/lib/nfsmail/index"),
    )
    yield chosen
    everywhere(
        BACKENDS, lambda machine: on(machine, f"systemctl stop dovecot; cp /root/dovecot.conf {CONF}; umount {STORE}")
    )
    empty()
    everywhere(BACKENDS, lambda machine: on(machine, "systemctl daemon-reload; systemctl start dovecot"))
    done = playbook("site", SCENARIO)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.name)
def test_random(at_random: list[str], claim: Claim) -> None:
    for machine in BACKENDS:
        on(machine, "systemctl stop dovecot")
    empty()
    for machine in BACKENDS:
        more = claim.settings + (f"{LOCAL[machine]}\n" if claim.local else "")
        on(machine, f"cat /root/dovecot.conf - <<'EOF' >{CONF}\n{more}EOF")
        mount(machine, claim.mount)
        on(machine, "systemctl start dovecot")
    assert count(claim.name, BACKENDS, at_random).commands > COMMANDS / 10
