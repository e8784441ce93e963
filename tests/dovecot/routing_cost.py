# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""`make routing-cost`: what a login costs by way of the shard map, of a director and directly. Not a test.

In containers, without NFS. Logins are made one after the other by one client, in turns, so that ratios compare; seconds do not
mean anything elsewhere. Round trips are counted by a relay in the place of the backend: how often the direction changes.
Written: docs/routing_cost.json, which tools/docs.py puts into docs/performance.md.
"""

from __future__ import annotations

import contextlib
import json
import random
import select
import socket
import statistics
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [
    str(ROOT / folder) for folder in (".ansible/collections", "tests/dovecot", "tests/shared", "molecule/shared")
]

from ansible_collections.nfsmail.cluster.plugins.plugin_utils.dovecot_conf import backend_conf, proxy_conf
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.shards import shard_lines, shard_map, shard_of
from brain_samples import SECRET
from cluster import NET, PASSWORD, Cluster, wait_for
from mailflow.imap import ImapSession
from plans import backend, proxy

# proxy1 goes by map; proxies 3 and 4 are a ring of directors, for which one is not enough.
VERSIONS = {"proxy1": "2.3.19", "proxy2": "2.4.1", "proxy3": "2.3.19", "proxy4": "2.3.19", "mail1": "2.3.19"}
WAYS = {
    "directly": "mail1",
    "shard map, proxy 2.3.19": "proxy1",
    "shard map, proxy 2.4.1": "proxy2",
    "director, 2.3.19": "proxy3",
}
USERS = [f"user{number:02d}@example.com" for number in range(20)]
LOGINS, RUNS = 60, 5
SIZES = (1_000, 1_000_000)
NAMES = 1_000_000
RESULTS = ROOT / "docs" / "routing_cost.json"


@contextlib.contextmanager
def relay(to: str) -> Iterator[tuple[str, list[str]]]:
    """A stand-in for a backend's IMAP port on our own side of the network; who spoke, connection by connection."""
    spoken: list[str] = []

    def serve(client: socket.socket) -> None:
        with client, socket.create_connection((to, 143)) as server:
            while True:
                ready, _, _ = select.select([client, server], [], [], 30)
                for one in ready:
                    data = one.recv(65536)
                    if not data:
                        return
                    spoken.append("proxy" if one is client else "backend")
                    (server if one is client else client).sendall(data)

    with socket.create_server((f"{NET}.1", 143)) as listener:

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    spoken.append("connect")
                    threading.Thread(target=serve, args=(client,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield f"{NET}.1", spoken
        listener.shutdown(socket.SHUT_RDWR)


def round_trips(spoken: Sequence[str]) -> int:
    """Connecting is one; then each time that the proxy speaks after the backend it waits once more."""
    turns = [one for number, one in enumerate(spoken) if number == 0 or spoken[number - 1] != one]
    return 1 + turns.count("proxy")


def logins(cluster: Cluster, name: str) -> float:
    """Seconds of one login, logout with it. A backend knows the cluster's own password only."""
    password = PASSWORD if name.startswith("proxy") else SECRET
    start = time.monotonic()
    for number in range(LOGINS):
        with ImapSession(cluster.addresses[name], 143, USERS[number % len(USERS)], password):
            pass
    return (time.monotonic() - start) / LOGINS


def by_way(cluster: Cluster) -> list[dict[str, Any]]:
    """Each way in turns, so that what else the machine does is shared."""
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    for name in WAYS.values():
        logins(cluster, name)
    for _ in range(RUNS):
        for way, name in WAYS.items():
            seconds[way].append(logins(cluster, name))
    direct = seconds["directly"]
    return [
        {
            "way": way,
            "ratio": [round(one / other, 2) for one, other in zip(found, direct)],
            "per_second": round(1 / statistics.median(found), 1),
        }
        for way, found in seconds.items()
    ]


def counted(cluster: Cluster) -> list[dict[str, Any]]:
    """Round trips between proxy and backend until the client has its answer to LOGIN."""
    rows = []
    with relay(cluster.addresses["mail1"]) as (address, spoken):
        entry = {**cluster.backends[0], "address": address}
        for way, name in WAYS.items():
            if not way.startswith("shard map"):
                continue
            cluster.write_lines(name, "/etc/dovecot/nfsmail-shards", shard_lines([entry]))

            def relayed(name: str = name) -> bool:
                spoken.clear()
                with ImapSession(cluster.addresses[name], 143, USERS[0], PASSWORD):
                    return bool(spoken)

            # Dovecot looks at the file's time once a second.
            wait_for(f"{name} does not use its new map", relayed)
            spoken.clear()
            session = ImapSession(cluster.addresses[name], 143, USERS[0], PASSWORD)
            # The session has also selected INBOX, which is one round trip.
            rows.append({"way": way, "round_trips": round_trips(spoken) - 1})
            with session:
                pass
            cluster.write_lines(name, "/etc/dovecot/nfsmail-shards", shard_lines(cluster.backends))
    return rows


def lookups(cluster: Cluster) -> list[dict[str, Any]]:
    """A thousand lookups on proxies that know few users and many."""
    rows = []
    for size in SIZES:
        listed = [f"u{number}@example.com:{{PLAIN.b64}}bm9uZQ==::::::" for number in range(size)]
        for way, name in WAYS.items():
            if not way.startswith("shard map"):
                continue
            cluster.write_lines(name, "/etc/dovecot/nfsmail-users", listed)
            asked = " ".join(f"u{number}@example.com" for number in random.Random(1).sample(range(size), 1000))

            def first(name: str = name, last: int = size - 1) -> bool:
                return "host" in cluster.sh(name, f"doveadm auth lookup u{last}@example.com || :")

            start = time.monotonic()
            wait_for(f"{name} does not know the last user", first, 300)
            read = time.monotonic() - start
            found = []
            for _ in range(RUNS):
                start = time.monotonic()
                said = cluster.sh(name, f"doveadm auth lookup -f host {asked}")
                found.append(time.monotonic() - start)
                assert len(said.split()) == 1000
            rows.append(
                {
                    "way": way,
                    "users": size,
                    "map_bytes": len("".join(f"{line}\n" for line in shard_lines(cluster.backends))),
                    "ms": round(statistics.median(found), 3),
                    "read_s": round(read, 1),
                }
            )
            print(f"[routing] {rows[-1]}", flush=True)
    return rows


def moved() -> list[dict[str, Any]]:
    """Of a million made-up names, how many have another backend after a change; an even share beside it."""
    shards = [int(shard_of(f"user{number}@example.com"), 16) for number in range(NAMES)]

    def placed(count: int, without: int | None = None) -> list[str]:
        names = [{"name": f"mail{n}", "address": f"192.0.2.{n}"} for n in range(1, count + 1) if n != without]
        table = shard_map(names)
        return [table[f"{number:02x}"] for number in range(256)]

    rows = []
    for count in (2, 3, 4, 10, 50):
        before = placed(count)
        for what, after, even in (
            ("added", placed(count + 1), 1 / (count + 1)),
            ("removed", placed(count, without=1), 1 / count),
        ):
            differ = sum(before[shard] != after[shard] for shard in shards)
            rows.append({"backends": count, "change": what, "moved": round(differ / NAMES, 3), "even": round(even, 3)})
    return rows


def main() -> None:
    """Measure and write."""
    with Cluster(VERSIONS) as cluster:
        cluster.start("mail1", backend_conf(backend(VERSIONS["mail1"], proxies=[*cluster.proxies, f"{NET}.1"])))
        for name in WAYS.values():
            if name.startswith("proxy"):
                cluster.write_users(name, USERS)
        for name in ("proxy1", "proxy2"):
            cluster.write_lines(name, "/etc/dovecot/nfsmail-shards", shard_lines(cluster.backends))
            for file in ("overrides", "moving"):
                cluster.write_lines(name, f"/etc/dovecot/nfsmail-{file}", ())
            cluster.start(name, proxy_conf(proxy(VERSIONS[name], protocols=["imap", "lmtp"])))
        ring = {
            "mode": "director",
            "backends": cluster.backends,
            "proxies": [cluster.addresses[name] for name in ("proxy3", "proxy4")],
            "director_port": 9090,
        }
        for name in ("proxy3", "proxy4"):
            cluster.write_users(name, USERS)
            cluster.start(name, proxy_conf(proxy(VERSIONS[name], protocols=["imap", "lmtp"], **ring)))
        found = {
            "logins": by_way(cluster),
            "round_trips": counted(cluster),
            "lookups": lookups(cluster),
            "moved": moved(),
        }
    RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(RESULTS.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
