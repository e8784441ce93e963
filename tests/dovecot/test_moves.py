# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a proxy of each release makes of the files during a move: who waits, who gets no mail, and who is not concerned."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest
from ansible_collections.nfsmail.cluster.plugins.plugin_utils import routing
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.dovecot_conf import passwd_lines, proxy_conf
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.shards import (
    override_lines,
    shard_lines,
    shard_map,
    shard_of,
)
from conftest import Release
from plans import proxy

BACKENDS = [{"name": f"mail{number}", "address": f"10.0.0.{number}"} for number in (1, 2, 3)]
ADDRESS = {str(one["name"]): str(one["address"]) for one in BACKENDS}
# Some are called like shards, and like the keys of the moving file.
USERS = [*(f"user{number:02}@example.com" for number in range(30)), "a7", "imap", "Quote'd@example.com"]
HOME = shard_map(BACKENDS)
# One who moves, and one who stays though the shard moves.
PINS = {
    next(user for user in USERS if HOME[shard_of(user)] == "mail3"): "mail1",
    next(user for user in USERS if HOME[shard_of(user)] == "mail1"): "mail2",
}
HELD = ("imap", "pop3")


def lookup(release: Release, path: str, service: str) -> dict[str, dict[str, str]]:
    """User to the fields of the password database's answer."""
    said = release.run("doveadm", "-c", path, "auth", "lookup", "-x", f"service={service}", "--", *USERS)
    assert said.returncode == 0, said.stderr[-2000:]
    found: dict[str, dict[str, str]] = {}
    fields: dict[str, str] = {}
    for line in said.stdout.splitlines():
        if match := re.match(r"passdb: (.*)", line):
            fields = found.setdefault(match[1].strip(), {})
        elif match := re.match(r"\s+(\S+)\s*: (.*)", line):
            fields[match[1]] = match[2]
    return {user: found[user] for user in USERS}


def write(release: Release, **files: list[str]) -> None:
    for name, lines in files.items():
        text = "".join(f"{line}\n" for line in lines)
        release.run("sh", "-c", f"umask 022; cat >/etc/dovecot/nfsmail-{name}", text=text)


def wait_for(release: Release, path: str, user: str, host: str, service: str = "imap") -> None:
    """Dovecot looks at a file no more than once a second."""
    deadline = time.monotonic() + 10
    while lookup(release, path, service)[user]["host"] != host:
        assert time.monotonic() < deadline, f"{user} is not sent to {host}"
        time.sleep(0.2)


def places(routes: dict[str, Any]) -> dict[str, str]:
    shards = shard_map(routes["backends"])
    return {user: ADDRESS[routes["overrides"].get(user) or shards[shard_of(user)]] for user in USERS}


def test_during_a_move(release: Release, capsys: pytest.CaptureFixture[str]) -> None:
    before = routing.routing(BACKENDS, PINS)
    plan = routing.move_plan(BACKENDS, PINS, [], {"verb": "drain", "drain": "mail1"})
    after = plan["routing"]
    write(
        release,
        users=passwd_lines([{"name": user, "password": "{PLAIN.b64}bm9uZQ=="} for user in USERS]),
        shards=shard_lines(before["backends"]),
        overrides=override_lines(before["overrides"], before["backends"]),
        moving=[routing.NOBODY_MOVES.strip()],
    )
    with release.running(proxy_conf(proxy(release.version, extra_settings={"auth_username_chars": ""}))) as path:
        was, will = places(before), places(after)
        for service in (*HELD, "lmtp"):
            assert {user: fields["host"] for user, fields in lookup(release, path, service).items()} == was

        write(release, moving=[routing.NOBODY_MOVES.strip(), *routing.moving_lines(plan["moving"], time.time() + 200)])
        moves = {user for user in USERS if was[user] != will[user]}
        assert 5 < len(moves) < len(USERS)
        wait_for(release, path, min(moves), will[min(moves)])
        for service in HELD:
            found = lookup(release, path, service)
            assert {user: fields["host"] for user, fields in found.items()} == will
            assert not [user for user, fields in found.items() if "port" in fields]
        mail = lookup(release, path, "lmtp")
        for user in USERS:
            if user in moves:
                assert (mail[user]["host"], mail[user]["port"]) == ("127.0.0.1", "1"), user
            else:
                assert mail[user]["host"] == will[user]
        # On 2.4 a pinned user whose shard moves waits too: what one database says stays, unless the next says otherwise.
        waits = {user for user in USERS if mail[user].get("port")} - moves
        moving_shards = {line.split(":")[0][-2:] for line in plan["moving"] if line.startswith("lmtp//")}
        pinned = {user for user in PINS if shard_of(user) in moving_shards and user not in moves}
        assert waits == (pinned if release.series == "2.4" else set())

        write(
            release,
            shards=shard_lines(after["backends"]),
            overrides=override_lines(after["overrides"], after["backends"]),
            moving=[routing.NOBODY_MOVES.strip()],
        )
        wait_for(release, path, min(moves), will[min(moves)], "lmtp")
        for service in (*HELD, "lmtp"):
            found = lookup(release, path, service)
            assert {user: fields["host"] for user, fields in found.items()} == will
            assert not [user for user, fields in found.items() if "port" in fields]
        with capsys.disabled():
            print(f"\n[{release.version}] {len(moves)} of {len(USERS)} users moved; {len(waits)} others wait meanwhile")
