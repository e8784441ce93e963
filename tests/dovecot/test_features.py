# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Quota and Sieve of a small cluster, with Dovecot 2.3.19 and 2.4.1; scripts come in by ManageSieve through the proxy.

Debian 11 has no Sieve in the images of these tests: quota of 2.3.13 alone.
"""

from __future__ import annotations

import base64
import re
import socket
import ssl
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from ansible_collections.nfsmail.cluster.plugins.module_utils._sessions import parse_who
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.dovecot_conf import backend_conf, proxy_conf
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.features import SIEVE_DIRECTORY
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.routing import _held, moving_lines
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.shards import override_lines, shard_lines
from cluster import PASSWORD, Cluster, wait_for
from conftest import HERE
from mailflow.imap import connect
from mailflow.lmtp import LmtpClient, Reply
from plans import backend, proxy

VERSIONS = {"proxy1": "2.4.1", "proxy2": "2.3.19", "mail1": "2.3.19", "mail2": "2.4.1", "mail3": "2.3.13"}
# Who is on which backend.
PINNED = {"old@example.com": "mail1", "new@example.com": "mail2", "oldest@example.com": "mail3"}
SIEVE = ["old@example.com", "new@example.com"]
SPAM = 'require ["fileinto", "mailbox"];\nif header :is "X-Spam" "yes" { fileinto :create "Junk"; stop; }\n'
MARK = 'require ["imap4flags"];\nif header :is "Subject" "mark" { addflag "\\\\Flagged"; }\n'
LISTS = 'require ["fileinto", "mailbox"];\nif header :contains "List-Id" "nfs" { fileinto :create "Lists"; }\n'
TOLD = {
    "nfsmail_quota": "400K",
    "nfsmail_protocols": ["imap", "lmtp", "sieve"],
    "nfsmail_sieve": True,
    "nfsmail_sieve_before": [{"name": "spam", "script": SPAM}, {"name": "mark", "script": MARK}],
}
QUOTA_ALONE = {"nfsmail_quota": "400K", "nfsmail_protocols": ["imap", "lmtp"]}
PROFILE = {"index_location": "local"}
# The role's own tasks.
TASKS = yaml.safe_load((HERE.parents[1] / "roles/dovecot/tasks/sieve.yml").read_text(encoding="utf-8"))
COMPILE = next(task["ansible.builtin.shell"] for task in TASKS if "ansible.builtin.shell" in task).replace(
    "{{ __dovecot_sieve_directory }}", SIEVE_DIRECTORY
)
CHECK = next(task["ansible.builtin.copy"]["validate"] for task in TASKS if "ansible.builtin.copy" in task)


def told(version: str) -> dict[str, Any]:
    return QUOTA_ALONE if version == "2.3.13" else TOLD


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(VERSIONS) as found:
        for entry in found.backends:
            name, version = entry["name"], VERSIONS[entry["name"]]
            plan = backend(version, PROFILE, proxies=found.proxies, cluster=told(version))
            found.sh(name, "install -d -o 5000 -g 5001 /var/lib/nfsmail/index")
            found.start(name, backend_conf({**plan, "protocols": told(version)["nfsmail_protocols"]}))
            if told(version) is TOLD:
                found.sh(name, f"install -d {SIEVE_DIRECTORY}")
                for one in TOLD["nfsmail_sieve_before"]:
                    found.write(name, f"{SIEVE_DIRECTORY}/{one['name']}.sieve", one["script"])
                assert found.sh(name, COMPILE).split() == [f"{SIEVE_DIRECTORY}/{one}.sieve" for one in ("mark", "spam")]
        for name in ("proxy1", "proxy2"):
            found.write_users(name, PINNED)
            found.write_lines(name, "/etc/dovecot/nfsmail-shards", shard_lines(found.backends))
            found.write_lines(name, "/etc/dovecot/nfsmail-overrides", override_lines(PINNED, found.backends))
            found.write(name, "/etc/dovecot/nfsmail-moving", "")
            found.start(name, proxy_conf(proxy(VERSIONS[name], protocols=["imap", "lmtp", "sieve"])))
        for user in PINNED:
            found.takes_mail("proxy1", user)
        yield found


class ManageSieve:
    """Just enough of RFC 5804, with TLS, as a client of a user would speak it."""

    def __init__(self, address: str, user: str) -> None:
        self.socket: socket.socket = socket.create_connection((address, 4190), timeout=30)
        self.file = self.socket.makefile("rb")
        assert "STARTTLS" in self.answer("")
        assert self.answer("STARTTLS\r\n").startswith("OK")
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        self.socket = context.wrap_socket(self.socket)
        self.file = self.socket.makefile("rb")
        self.answer("")
        self.said = self.answer(
            f'AUTHENTICATE "PLAIN" "{base64.b64encode(f"{chr(0)}{user}{chr(0)}{PASSWORD}".encode()).decode()}"\r\n'
        )

    def __enter__(self) -> ManageSieve:
        assert self.said.splitlines()[-1].startswith("OK"), self.said
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def answer(self, command: str) -> str:
        """Send a command, if any; the lines up to and with OK, NO or BYE."""
        self.socket.sendall(command.encode())
        lines = []
        while True:
            line = self.file.readline().decode()
            assert line, f"{command}: {lines}"
            lines.append(line)
            if literal := re.search(r"\{(\d+)\}\s*\Z", line):
                lines += [self.file.read(int(literal[1])).decode(), self.file.readline().decode()]
            if re.match(r"OK|NO|BYE", line):
                return "".join(lines)

    def put(self, name: str, script: str) -> str:
        return self.answer(f'PUTSCRIPT "{name}" {{{len(script)}+}}\r\n{script}\r\n')


def message(subject: str, *headers: str, size: int = 0) -> bytes:
    lines = ["From: a@lab.invalid", f"Subject: {subject}", *headers, "", "hello", *["x" * 70] * (size // 72)]
    return "".join(f"{line}\r\n" for line in lines).encode()


def deliver(cluster: Cluster, user: str, text: bytes, proxy: str = "proxy1") -> Reply:
    with LmtpClient(cluster.addresses[proxy], 24) as lmtp:
        return lmtp.deliver("a@lab.invalid", [user], text)[user]


def count(cluster: Cluster, user: str, mailbox: str) -> int:
    """Messages in a mailbox, as the user's backend knows; -1 where there is no such mailbox."""
    said = cluster.sh(PINNED[user], f"doveadm mailbox status -u {user} messages '{mailbox}' 2>&1 || true")
    match = re.search(r"messages=(\d+)", said)
    return int(match[1]) if match else -1


def usage(cluster: Cluster, user: str, proxy: str = "proxy1") -> tuple[int, int]:
    """What IMAP says of the quota: used and allowed, in KiB."""
    imap = connect(cluster.addresses[proxy], 143, 30)
    imap.login(user, PASSWORD)
    (roots, quotas) = imap.getquotaroot("INBOX")[1]
    imap.logout()
    assert roots == [b'INBOX "User quota"'], roots
    match = re.search(rb"STORAGE (\d+) (\d+)", quotas[0])
    assert match, quotas
    return int(match[1]), int(match[2])


# ---- Sieve ----


@pytest.mark.parametrize(("user", "proxy"), [(SIEVE[0], "proxy1"), (SIEVE[1], "proxy2")])
def test_a_script_that_a_user_stores_through_a_proxy_filters_the_users_mail(
    cluster: Cluster, user: str, proxy: str
) -> None:
    with ManageSieve(cluster.addresses[proxy], user) as client:
        assert client.put("bad", "no sieve at all").startswith("NO")
        assert client.put("lists", LISTS).startswith("OK")
        assert client.answer('SETACTIVE "lists"\r\n').startswith("OK")
    assert deliver(cluster, user, message("one", "List-Id: <nfs.lab.invalid>"), proxy).ok
    assert deliver(cluster, user, message("two"), proxy).ok
    assert (count(cluster, user, "Lists"), count(cluster, user, "INBOX")) == (1, 1)
    home = f"/srv/mail/example.com/{user.partition('@')[0]}"
    found = cluster.sh(PINNED[user], f"cd {home}; ls sieve; readlink .dovecot.sieve; find / -xdev -name '*.svbin'")
    everybodys = [f"{SIEVE_DIRECTORY}/{one}.svbin" for one in ("mark", "spam")]
    assert found.split()[:3] == ["lists.sieve", "tmp", "sieve/lists.sieve"]
    assert sorted(found.split()[3:]) == [*everybodys, f"{home}/.dovecot.svbin"]


@pytest.mark.parametrize("user", SIEVE)
def test_scripts_of_everybody_run_first(cluster: Cluster, user: str) -> None:
    lists, inbox = count(cluster, user, "Lists"), count(cluster, user, "INBOX")
    assert deliver(cluster, user, message("three", "X-Spam: yes", "List-Id: <nfs.lab.invalid>")).ok
    assert deliver(cluster, user, message("mark")).ok
    assert (count(cluster, user, "Junk"), count(cluster, user, "Lists")) == (1, lists)
    assert count(cluster, user, "INBOX") == inbox + 1
    flagged = cluster.sh(PINNED[user], f"doveadm search -u {user} mailbox INBOX FLAGGED").split()
    assert len(flagged) == 2, flagged  # the mailbox and the UID
    complaints = r"sieve.*([Ee]rror|[Ff]ailed|[Pp]ermission|not up-to-date)"
    assert cluster.sh(PINNED[user], f"grep -E '{complaints}' /tmp/log || true") == ""


def test_a_backend_of_another_release_compiles_a_user_s_script_anew(cluster: Cluster) -> None:
    """What it finds on the store is 2.3's, and newer than the script."""
    user, home = SIEVE[0], "/srv/mail/example.com/old"
    stored = cluster.sh("mail1", f"cd {home} && tar --format=posix -c sieve .dovecot.sieve .dovecot.svbin | base64")
    binary = f"cksum <{home}/.dovecot.svbin"
    cluster.sh("mail2", f"install -d -o 5000 -g 5001 {home} && base64 -d | tar -xC {home}", stored)
    before = cluster.sh("mail2", binary)
    assert before == cluster.sh("mail1", binary)
    for subject in ("one", "two"):
        with LmtpClient(cluster.addresses["mail2"], 24) as lmtp:
            text = message(subject, "List-Id: <nfs.lab.invalid>")
            assert lmtp.deliver("a@lab.invalid", [user], text)[user].ok
    said = cluster.sh(
        "mail2", f"doveadm mailbox status -u {user} messages Lists; {binary}; grep sieve.*Error /tmp/log || true"
    )
    assert said.splitlines()[0] == "Lists messages=2"
    assert said.splitlines()[1:] != [before.strip()] and len(said.splitlines()) == 2


@pytest.mark.parametrize("name", ["mail1", "mail2"])
def test_the_role_s_check_and_compiler(cluster: Cluster, name: str) -> None:
    """A script that does not compile is refused, and the check leaves nothing behind; the same scripts change nothing."""
    assert cluster.sh(name, COMPILE) == ""
    bad = 'fileinto "without require";'
    said = cluster.sh(
        name,
        f"cat >/tmp/script; ({CHECK.replace('%s', '/tmp/script')}) 2>&1 && echo taken; ls /tmp/*.svbin 2>&1; true",
        bad,
    )
    assert "unknown command 'fileinto'" in said and "taken" not in said and "No such file" in said, said
    cluster.write(name, f"{SIEVE_DIRECTORY}/spam.sieve", SPAM.replace("yes", "YES"))
    assert cluster.sh(name, COMPILE) == f"{SIEVE_DIRECTORY}/spam.sieve\n"


@pytest.mark.parametrize("user", SIEVE)
def test_who_moves_is_seen_and_ended_in_managesieve_too(cluster: Cluster, user: str) -> None:
    """As the module sessions does on a backend, whatever the protocol."""
    with ManageSieve(cluster.addresses["proxy1"], user) as client:

        def seen() -> bool:
            return user in [one.user for one in parse_who(cluster.sh(PINNED[user], "doveadm -f tab who -1"))]

        wait_for(f"{user} is in no list of sessions", seen, 10)
        cluster.sh(PINNED[user], f"doveadm kick {user}")
        # A farewell or nothing.
        assert not re.match(rb"OK", client.file.read())
        wait_for(f"{user} is still in the list of sessions", lambda: not seen(), 10)


def test_who_moves_finds_the_scripts_where_the_move_goes(cluster: Cluster) -> None:
    """A login of ManageSieve is held like one of IMAP: the moving file has a line for it that both dialects find."""
    user = SIEVE[1]

    def has_script(name: str) -> bool:
        with ManageSieve(cluster.addresses[name], user) as client:
            return '"lists" ACTIVE' in client.answer("LISTSCRIPTS\r\n")

    for name in ("proxy1", "proxy2"):
        lines = moving_lines(_held(f"/{user}", cluster.addresses["mail1"]), 1)
        assert has_script(name)
        # Dovecot looks at its files once a second. Each backend has a store of its own here.
        cluster.write_lines(name, "/etc/dovecot/nfsmail-moving", [line for line in lines if line.startswith("sieve/")])
        wait_for(f"{name} does not ask for sieve", lambda name=name: not has_script(name), 10)


# ---- quota ----


@pytest.mark.parametrize(("user", "proxy"), [(user, f"proxy{number % 2 + 1}") for number, user in enumerate(PINNED)])
def test_who_is_over_quota_is_refused_before_the_message_comes(cluster: Cluster, user: str, proxy: str) -> None:
    before, allowed = usage(cluster, user, proxy)
    assert before < 10 and allowed == 400
    assert deliver(cluster, user, message("large", size=300_000), proxy).ok
    # The one that goes over is taken whole.
    assert deliver(cluster, user, message("over", size=200_000), proxy).ok
    refused = deliver(cluster, user, message("no more"), proxy)
    assert (refused.code, refused.after_data) == (552, False), refused
    assert refused.text.startswith("5.2.2 ") and "Quota exceeded (mailbox for user is full)" in refused.text
    over = usage(cluster, user, proxy)
    assert over[0] > 480 and over[1] == 400
    # Node-local indexes, as after a move to a backend that does not know the user: the same is counted.
    cluster.sh(PINNED[user], f"doveadm kick {user} >/dev/null 2>&1; rm -rf /var/lib/nfsmail/index/*")
    assert usage(cluster, user, proxy) == over
    assert deliver(cluster, user, message("no more"), proxy).code == 552
