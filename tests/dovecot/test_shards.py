# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A proxy of each release finds for every name the shard that we compute."""

from __future__ import annotations

import random

import pytest
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.dovecot_conf import passwd_lines, proxy_conf
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.shards import (
    SHARD_NAMES,
    lookup_key,
    lowered,
    shard_of,
)
from conftest import Release
from plans import proxy

BATCH = 250
ALPHABETS = (
    "abcdefghijklmnopqrstuvwxyz0123456789.-_+",
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz.+",
    "äöüßÄÖÜéÉçÇñÑåÅøØ",
    "абвгдеёжзАБВГДЕЁЖЗ",
    "日本語中文字한국어",
    "αβγΑΒΓİıſK😀",
    "!$&'\"*/=?^`{|}~%\\",
)


def names() -> list[str]:
    """Names of mailboxes, the same on every run: plain, odd, and 200 characters long."""
    throw = random.Random("nfsmail shards")
    found = [
        *("a", "A", "joe@example.com", "Joe@Example.COM", "joe+lists@example.com", "first.last@example.org"),
        *("o'neil@example.com", "x" * 200, "X" * 188 + "@example.com", "ä" * 100, "日" * 60 + "@例え.jp"),
    ]
    while len(found) < 1200:
        alphabet = ALPHABETS[len(found) % len(ALPHABETS)]
        local = "".join(throw.choice(alphabet) for _ in range(throw.randint(1, 24)))
        domain = throw.choice(("example.com", "Example.ORG", "例え.jp", "müller.example", "a-b.c.example.net"))
        found.append(f"{local}@{domain}")
    return list({lowered(name): name for name in found}.values())


def expected(name: str, release: Release) -> str:
    """Our shard. Only for names with quotes the releases differ (rule NFS435): 2.3 hashes the name as it is looked up."""
    return shard_of(lookup_key(name) if release.series == "2.3" else name)


def test_dovecot_computes_our_shard(release: Release, capsys: pytest.CaptureFixture[str]) -> None:
    asked = names()
    assert len(asked) >= 1000
    users = passwd_lines([{"name": name, "password": "{PLAIN.b64}bm9uZQ=="} for name in asked])
    shards = [f"{shard}:::::::proxy=y nopassword=y host=10.0.0.{int(shard, 16)}" for shard in SHARD_NAMES]
    for path, lines in (("nfsmail-users", users), ("nfsmail-shards", shards), ("nfsmail-overrides", [])):
        text = "".join(f"{line}\n" for line in lines)
        release.run("sh", "-c", f"umask 022; cat >/etc/dovecot/{path}", text=text)
    # By default Dovecot lets in letters, digits and .-_@ only.
    with release.running(proxy_conf(proxy(release.version, extra_settings={"auth_username_chars": ""}))) as path:
        hosts: list[str] = []
        for start in range(0, len(asked), BATCH):
            batch = asked[start : start + BATCH]
            said = release.run("doveadm", "-c", path, "auth", "lookup", "-f", "host", "--", *batch)
            assert said.returncode == 0, said.stderr[-2000:]
            hosts += said.stdout.split()
        found = {name: f"{int(host.rpartition('.')[2]):02x}" for name, host in zip(asked, hosts)}
        assert len(hosts) == len(asked)
        wrong = {
            name: (shard, expected(name, release)) for name, shard in found.items() if shard != expected(name, release)
        }
        assert not wrong, f"{len(wrong)} of {len(found)}: {list(wrong.items())[:5]}"
        assert len(set(found.values())) > 240
        with capsys.disabled():
            print(f"\n[{release.version}] {len(found)} names on the shard that we compute")
