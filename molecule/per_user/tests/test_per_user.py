# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The cluster after two runs of site.yml: Debian 12 and 13 side by side, two backends, two proxies, NFSv3 with lockd."""

from __future__ import annotations

import contextlib
import imaplib
import json
import poplib
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "shared"))

from mailflow import shard_of, writers
from mailflow.compare import is_delivered
from mailflow.imap import ImapSession
from mailflow.lmtp import LmtpClient
from proofs import (
    BIN,
    PASSWORD,
    changed,
    forwarded,
    mail_through,
    on,
    places,
    playbook,
    store_files,
    variables,
    verified,
    wait_until,
)

SCENARIO = "per_user"
# The first of each pair is Debian 12 with Dovecot 2.3, the second Debian 13 with 2.4.
BACKENDS = ("mail1", "mail2")
PROXIES = ("proxy1", "proxy2")
LOCKS = {backend: f"/srv/mail/.nfsmail-test-lock-{backend}" for backend in BACKENDS}
ADDRESSES = {"mail1": "10.77.0.11", "mail2": "10.77.0.12"}
# LMTP, POP3, IMAP, with TLS, doveadm.
PORTS = [24, 110, 143, 993, 995, 24245]
PINNED = "user05@example.com"
POP3_MAIL = (
    b"From: a@example.com\r\nSubject: POP3 through %s to %s\r\n\r\nA line.\r\n..two dots, no end\r\n.\r\nlast\r\n"
)


def hold(backend: str, seconds: int = 600) -> str:
    """A lock in the words of the shell: flock(1) on NFS is a byte-range lock that the server knows."""
    return f"runuser -u vmail -- sh -c 'exec flock --nonblock {LOCKS[backend]} sleep {seconds}' </dev/null >/dev/null 2>&1 &"


def take(backend: str) -> str:
    """Try for the lock that this backend holds."""
    return f"runuser -u vmail -- flock --nonblock {LOCKS[backend]} true"


def other(backend: str) -> str:
    return BACKENDS[backend == BACKENDS[0]]


def users_of(backend: str) -> list[str]:
    """Users whom the proxies' files send to this backend, in order."""
    return sorted(user for user, place in places(PROXIES[0], SCENARIO).items() if place == backend)


def test_the_machines_run_two_releases() -> None:
    for first, second in (BACKENDS, PROXIES):
        assert on(first, "dovecot --version").startswith("2.3.19")
        assert on(second, "dovecot --version").startswith("2.4.1")


def test_verify_passes_on_the_live_machines() -> None:
    """The one warning is what this scenario is about: NFS320, backends of two releases."""
    assert {f"NFS{number}" for number in (*range(302, 321), 324, 325)} <= verified(SCENARIO, warnings=["NFS320"])


@pytest.mark.parametrize("proxy", PROXIES)
def test_mail_goes_in_and_comes_back_byte_for_byte(proxy: str) -> None:
    result = mail_through(proxy, SCENARIO, reader="nfs1", seed=1 + PROXIES.index(proxy))
    print(result.table())
    assert result.ok, result.problems
    for row in ("users written by one backend", "users on the backend they belong to", "mails per backend"):
        assert result.row(row).verdict == "ok", result.row(row)


def test_both_proxies_deliver_a_user_s_mail_to_the_same_backend() -> None:
    """What both runs above have left behind: each user's files have one writer, whichever proxy took the message."""
    wrote = writers(store_files("nfs1"))
    assert {user.lower() for user in wrote} == {user["name"].lower() for user in variables(SCENARIO)["nfsmail_users"]}
    assert {user: hosts for user, hosts in wrote.items() if len(hosts) != 1} == {}
    assert set.union(*wrote.values()) == set(BACKENDS)


def test_both_proxies_log_a_user_in_on_the_same_backend() -> None:
    users = [*users_of("mail1")[:3], *users_of("mail2")[:3]]
    with contextlib.ExitStack() as sessions:
        for proxy in PROXIES:
            for user in users:
                sessions.enter_context(ImapSession(*forwarded(proxy, 143), user, PASSWORD))
        seen = {backend: on(backend, "doveadm -f tab who -1").splitlines()[1:] for backend in BACKENDS}
    for user in users:
        found = {backend: sum(line.split("\t")[0] == user.lower() for line in lines) for backend, lines in seen.items()}
        home = "mail1" if user in users[:3] else "mail2"
        assert found == {home: len(PROXIES), other(home): 0}, (user, seen)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("proxy", PROXIES)
def test_a_message_is_read_by_pop3(proxy: str, backend: str) -> None:
    user = users_of(backend)[-1]
    sent = POP3_MAIL % (proxy.encode(), backend.encode())
    with LmtpClient(*forwarded(proxy, 24)) as lmtp:
        assert lmtp.deliver("mailflow@lab.invalid", [user], sent)[user].ok
    client = poplib.POP3(*forwarded(proxy, 110), timeout=60)
    try:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        client.stls(context)
        client.user(user)
        client.pass_(PASSWORD)
        count, size = client.stat()
        lines = client.retr(count)[1]
        got = b"".join(line + b"\r\n" for line in lines)
        assert is_delivered(got, sent), got
        assert len(client.list()[1]) == count and size >= len(got)
    finally:
        client.quit()


@pytest.mark.parametrize("proxy", PROXIES)
def test_an_override_takes_a_user_from_the_shard(proxy: str) -> None:
    """The pinned user's shard is on the other backend, or this would prove nothing."""
    assert variables(SCENARIO)["nfsmail_overrides"] == {PINNED: "mail2"}
    assert "host=10.77.0.11" in on(proxy, f"grep ^{shard_of(PINNED)}: /etc/dovecot/nfsmail-shards")
    assert on(proxy, f"doveadm auth lookup -f host {PINNED}").strip() == "10.77.0.12"
    with ImapSession(*forwarded(proxy, 143), PINNED, PASSWORD):
        assert PINNED in on("mail2", "doveadm who -1") and PINNED not in on("mail1", "doveadm who -1")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("proxy", PROXIES)
def test_doveadm_on_a_proxy_reaches_the_backend(proxy: str, backend: str) -> None:
    user = users_of(backend)[0]
    with ImapSession(*forwarded(proxy, 143), user, PASSWORD) as session:
        there = len(session.uids())
    found = on(proxy, f"doveadm mailbox status -u {user} messages INBOX")
    assert there > 0 and found.split() == ["INBOX", f"messages={there}"], (there, found)


# 2.3 keeps sessions that it only hands on apart from its own: there, "doveadm kick" on a proxy finds nobody.
KICKS = [("proxy1", "doveadm proxy kick"), ("proxy2", "doveadm proxy kick"), ("proxy2", "doveadm kick")]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("proxy", "kick"), KICKS)
def test_doveadm_on_a_proxy_ends_a_session(proxy: str, kick: str, backend: str) -> None:
    """Dovecot 2.4.0 to 2.4.4 say "kicked" and kick nobody unless the login services are set for it."""
    user, witness = users_of(backend)[:2]
    with ImapSession(*forwarded(proxy, 143), witness, PASSWORD) as stays:
        kicked = imaplib.IMAP4(*forwarded(proxy, 143), timeout=60)
        try:
            kicked.starttls()
            kicked.login(user, PASSWORD)
            kicked.select("INBOX")
            said = on(proxy, f"{kick} {user.lower()}")
            assert _ends(kicked), f"the session lives on after: {said}"
        finally:
            kicked.shutdown()
        assert stays.uids()
    assert user.lower() not in on(backend, "doveadm who -1")


def _ends(session: imaplib.IMAP4) -> bool:
    """Whether the server ends a session within ten seconds."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            session.noop()
        except (imaplib.IMAP4.abort, OSError):
            return True
        time.sleep(0.5)
    return False


def open_ports(machine: str, address: str) -> list[int]:
    """Which of Dovecot's ports let this machine in."""
    script = (
        "import socket\n"
        f"for port in {PORTS}:\n"
        "    with socket.socket() as s:\n"
        "        s.settimeout(20)\n"
        f"        if s.connect_ex(('{address}', port)) == 0: print(port)"
    )
    return [int(word) for word in on(machine, f'python3 -c "{script}"').split()]


@pytest.mark.parametrize("backend", BACKENDS)
def test_backends_are_reached_from_proxies_only(backend: str) -> None:
    for stranger in (other(backend), "nfs1"):
        assert open_ports(stranger, ADDRESSES[backend]) == []
    for proxy in PROXIES:
        assert open_ports(proxy, ADDRESSES[backend]) == PORTS
    # Doveadm and tests on the backend itself.
    assert open_ports(backend, "127.0.0.1") == PORTS


@pytest.mark.parametrize("how", ["restart", "reload"])
def test_the_distribution_s_packet_filter_takes_nothing_away(how: str) -> None:
    """Its unit flushes every table, and ours has to come back; Dovecot goes on."""
    dovecot = on("mail1", "systemctl show -p MainPID dovecot")
    on("mail1", f"systemctl start nftables && systemctl {how} nftables")
    try:
        assert open_ports(other("mail1"), ADDRESSES["mail1"]) == []
    finally:
        on("mail1", "systemctl stop nftables && systemctl start nfsmail-firewall")
    assert open_ports(other("mail1"), ADDRESSES["mail1"]) == []
    assert on("mail1", "systemctl show -p MainPID dovecot") == dovecot


@contextlib.contextmanager
def opened(backend: str) -> Iterator[None]:
    """Without the packet filter."""
    on(backend, "nft delete table inet nfsmail")
    try:
        yield
    finally:
        on(backend, "systemctl restart nfsmail-firewall")


def test_open_ports_are_found_by_verify() -> None:
    with opened("mail2"):
        done = playbook("verify", SCENARIO)
    assert done.returncode != 0
    for words in ("NFS325", "open to all", "NFS325 on mail2: run site.yml"):
        assert words in done.stdout, done.stdout


@pytest.mark.parametrize("backend", BACKENDS)
def test_backends_refuse_users_who_do_not_come_through_the_proxy(backend: str) -> None:
    """Also where the packet filter lets them in."""
    script = (
        "import imaplib,ssl; c=imaplib.IMAP4('%s',143); c.starttls(ssl._create_unverified_context()); "
        "c.login('user02@example.com','%s')"
    )
    with opened(backend):
        for password in (PASSWORD, "lab-proxy-secret-0123456789"):
            found = on(other(backend), f'python3 -c "{script % (ADDRESSES[backend], password)}"', check=False)
            assert "AUTHENTICATIONFAILED" in found, found


def test_exports_and_ports_are_as_planned() -> None:
    table = on("nfs1", "exportfs -s")
    assert table.count("/srv/mail") == 2 and "*" not in table
    for address in ADDRESSES.values():
        assert f"{address}(sync," in table
    assert "anonuid=5000,anongid=5000" in table and "root_squash" in table
    ports = {"nlockmgr": "4045", "status": "4046", "mountd": "20048"}
    for machine, services in (("nfs1", tuple(ports)), *((backend, ("nlockmgr", "status")) for backend in BACKENDS)):
        registered = on(machine, "rpcinfo -p")
        for service in services:
            lines = [line.split() for line in registered.splitlines() if line.split()[:1] == [_program(service)]]
            assert lines and {line[3] for line in lines} == {ports[service]}, registered


@pytest.mark.parametrize("backend", BACKENDS)
def test_root_of_a_backend_is_the_mail_user_on_the_store(backend: str) -> None:
    on(backend, "touch /srv/mail/.by-root")
    assert on("nfs1", "stat -c %u:%g /srv/mail/.by-root").strip() == "5000:5000"
    on(backend, "rm /srv/mail/.by-root")


def test_secrets_are_for_their_readers_only() -> None:
    for backend in BACKENDS:
        assert on(backend, "stat -c %a:%U /etc/dovecot/dovecot.conf").strip() == "600:root"
        assert "lab-proxy-secret" not in on(backend, "cat /etc/dovecot/dovecot.conf")
    for proxy in PROXIES:
        assert on(proxy, "stat -c %a:%U:%G /etc/dovecot/nfsmail-users").strip() == "640:root:dovecot"
    for machine in (*BACKENDS, *PROXIES):
        assert "lab-proxy-secret" not in on(machine, "journalctl -b --no-pager; ps axww")


# Looks for words in every process's arguments and environment until it is told to end; it has them from a file itself.
WATCH = """
cat >/root/words <<'EOF'
{words}
EOF
rm -f /root/seen /root/enough
setsid sh -c 'until [ -e /root/enough ]; do
  grep -laFf /root/words /proc/[0-9]*/cmdline /proc/[0-9]*/environ >>/root/seen 2>/dev/null; sleep 0.1; done' </dev/null >/dev/null 2>&1 &
"""


def test_secrets_from_a_vault_are_told_to_nobody(tmp_path: Path) -> None:
    """The most that Ansible says of a run that would change the cluster's passwords, and what the machines' ps would show."""
    secrets = {
        "nfsmail_proxy_password": "vault-proxy-secret-0123456789",
        "nfsmail_doveadm_password": "vault-doveadm-secret-0123456789",
    }
    (tmp_path / "word").write_text("open sesame\n", encoding="utf-8")
    (tmp_path / "vault.yml").write_text(json.dumps(secrets), encoding="utf-8")
    word = f"--vault-password-file={tmp_path / 'word'}"
    subprocess.run([BIN / "ansible-vault", "encrypt", word, tmp_path / "vault.yml"], check=True, capture_output=True)
    assert "vault-proxy-secret" not in (tmp_path / "vault.yml").read_text(encoding="utf-8")
    words = [*secrets.values(), *(str(variables(SCENARIO)[name]) for name in secrets)]
    machines = (BACKENDS[0], PROXIES[0])
    for machine in machines:
        on(machine, WATCH.format(words="\n".join(words)))
    try:
        extra = ("--check", "--diff", "-vvv", "--tags", "backend,proxy", "-e", f"@{tmp_path / 'vault.yml'}", word)
        done = playbook("site", SCENARIO, *extra)
    finally:
        for machine in machines:
            on(machine, "touch /root/enough; rm -f /root/words")
    would = changed(done)
    assert would["mail1"] and would["mail2"] and would["proxy1"] and would["proxy2"], would
    assert not [word for word in words if word in done.stdout]
    for machine in machines:
        assert on(machine, "cat /root/seen") == "", machine


@pytest.mark.parametrize("proxy", PROXIES)
def test_nobody_else_mounts_the_store(proxy: str) -> None:
    for source in ("/srv/mail", "/srv", "/"):
        said = on(
            proxy,
            f"timeout 90 mount -t nfs -o vers=3,proto=tcp,retry=0,nolock 10.77.0.1:{source} /mnt 2>&1",
            check=False,
        )
        assert "access denied" in said, said
    assert "nfs" not in on(proxy, "grep ' /mnt ' /proc/mounts", check=False)


def test_two_machines_with_one_host_name_are_refused() -> None:
    on("mail2", "hostname mail1")
    try:
        done = playbook("site", SCENARIO, "--tags", "none")
    finally:
        on("mail2", "hostname mail2")
    assert done.returncode != 0
    for words in ("host name of mail1, mail2: 'mail1'", "every machine has a host name of its own", "hostnamectl"):
        assert words in done.stdout, done.stdout


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_lock_that_is_waited_for_is_handed_over_at_once(backend: str) -> None:
    """NFS317 asks for a free lock; this waits for a held one. A Debian 13 server lets it wait for 30 s."""
    free_after, waited = 12, "s=$(date +%s%N); {}; echo waited $(( ($(date +%s%N) - s) / 1000000 ))"
    on(backend, hold(backend, free_after))
    wait_until("the lock is held", other(backend), f"! {take(backend)}", 60)
    found = on(other(backend), waited.format(take(backend).replace("--nonblock", "--timeout 60")))
    seconds = int(found.split()[-1]) / 1000
    print(f"{other(backend)} got the lock of {backend} after {seconds} s")
    assert 1 < seconds < free_after + 12, found


@pytest.mark.parametrize("how", ["restart", "reboot"])
def test_locks_outlive_the_nfs_server(how: str) -> None:
    """NFSv3 locks are lost silently when nfsd stops, unless the list of their holders is kept."""
    for backend in BACKENDS:
        on(backend, hold(backend))
    for backend in BACKENDS:
        wait_until("the lock is held", other(backend), f"! {take(backend)}", 60)
    if how == "restart":
        on("nfs1", "systemctl restart nfs-server")
    else:
        boot = on("nfs1", "cat /proc/sys/kernel/random/boot_id").strip()
        on("nfs1", "systemctl reboot", check=False)
        wait_until("a new boot", "nfs1", f"! grep -q {boot} /proc/sys/kernel/random/boot_id", 300)
        wait_until("the NFS server", "nfs1", "systemctl is-active nfs-server", 120)
    # Long enough for the grace period to end: from then on a lost lock would be granted.
    end = "awk '{exit !($1 > 60)}' /proc/uptime" if how == "reboot" else "true"
    wait_until("some time", "nfs1", end, 120)
    wait_until("the end of grace", "nfs1", f"test $(( $(date +%s) - {_started()} )) -gt 30", 120)
    try:
        for backend in BACKENDS:
            answer = on(other(backend), f"timeout 60 {take(backend)}; echo code $?", check=False)
            server = on("nfs1", "cat /proc/locks; ls /var/lib/nfs/sm")
            assert "code 1" in answer, f"lock of {backend}: granted or hung: {answer}\n{server}"
    finally:
        for backend in BACKENDS:
            on(backend, "pkill -f 'sleep 600'", check=False)
    for backend in BACKENDS:
        wait_until("the lock is handed over", other(backend), take(backend), 60)


@pytest.mark.parametrize("backend", BACKENDS)
def test_dovecot_never_starts_on_an_empty_directory(backend: str) -> None:
    """Last: it takes a backend's store away and puts it back."""
    on(backend, "systemctl stop dovecot && umount /srv/mail")
    try:
        on(backend, "systemctl mask --runtime srv-mail.mount")
        refused = on(backend, "systemctl start dovecot 2>&1; systemctl is-active dovecot", check=False)
        assert refused.strip().endswith(("inactive", "failed")), refused
        for who in ("runuser -u vmail --", ""):
            assert "not permitted" in on(backend, f"{who} touch /srv/mail/x 2>&1", check=False).lower()
        assert "nfs1:/srv/mail" in on(backend, "cat /srv/mail/NOT-MOUNTED")
    finally:
        on(backend, "systemctl unmask --runtime srv-mail.mount; systemctl daemon-reload")
    # Starting Dovecot brings the mount with it.
    on(backend, "systemctl start dovecot && systemctl is-active dovecot && grep ' /srv/mail nfs ' /proc/mounts")


def _program(service: str) -> str:
    return {"nlockmgr": "100021", "status": "100024", "mountd": "100005"}[service]


def _started() -> str:
    since = on("nfs1", 'date +%s -d "$(systemctl show -p ActiveEnterTimestamp --value nfs-server)"').strip()
    assert since.isdigit(), since
    return since
