# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The cluster after two runs of site.yml: two backends and a proxy, NFSv3 with lockd."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "shared"))

from proofs import mail_through, on, playbook, variables, verified, wait_until

SCENARIO = "per_user"
BACKENDS = ("mail1", "mail2")
LOCK = "/srv/mail/.nfsmail-test-lock"
# A lock in the words of the shell: flock(1) on NFS is a byte-range lock that the server knows.
HOLD = f"runuser -u vmail -- sh -c 'exec flock --nonblock {LOCK} sleep 600' </dev/null >/dev/null 2>&1 &"
TRY = f"runuser -u vmail -- flock --nonblock {LOCK} true"


def test_verify_passes_on_the_live_machines() -> None:
    assert {f"NFS{number}" for number in range(302, 320)} <= verified(SCENARIO)


def test_mail_goes_in_and_comes_back_byte_for_byte() -> None:
    result = mail_through("proxy1", SCENARIO, reader="mail1")
    print("\n".join(result.table()))
    assert result.ok, result.problems
    for row in ("users written by one backend", "users on the backend they belong to"):
        assert result.row(row).verdict == "ok", result.row(row)


def test_an_override_takes_a_user_from_the_shard() -> None:
    user, backend = next(iter(variables(SCENARIO)["nfsmail_overrides"].items()))
    found = on("proxy1", f"doveadm auth lookup {user}")
    assert "10.77.0.12" in found and backend == "mail2", found


def test_doveadm_on_the_proxy_reaches_the_backend() -> None:
    found = on("proxy1", "doveadm mailbox status -u user02@example.com messages INBOX")
    assert "messages=" in found, found


@pytest.mark.parametrize("backend", BACKENDS)
def test_backends_refuse_users_who_do_not_come_through_the_proxy(backend: str) -> None:
    other = BACKENDS[backend == "mail1"]
    script = (
        "import imaplib,ssl; c=imaplib.IMAP4('10.77.0.%d',143); c.starttls(ssl._create_unverified_context()); "
        "c.login('user02@example.com','%s')"
    )
    address = 11 if backend == "mail1" else 12
    for password in ("lab-password-1", "lab-proxy-secret-0123456789"):
        found = on(other, f'python3 -c "{script % (address, password)}"', check=False)
        assert "AUTHENTICATIONFAILED" in found, found


def test_exports_and_ports_are_as_planned() -> None:
    table = on("nfs1", "exportfs -s")
    assert table.count("/srv/mail") == 2 and "*" not in table
    for address in ("10.77.0.11", "10.77.0.12"):
        assert f"{address}(sync," in table
    assert "anonuid=5000,anongid=5000" in table and "root_squash" in table
    for machine, services in (("nfs1", ("nlockmgr", "status", "mountd")), ("mail1", ("nlockmgr", "status"))):
        registered = on(machine, "rpcinfo -p")
        ports = {"nlockmgr": "4045", "status": "4046", "mountd": "20048"}
        for service in services:
            lines = [line.split() for line in registered.splitlines() if line.split()[:1] == [_program(service)]]
            assert lines and {line[3] for line in lines} == {ports[service]}, registered


def test_root_of_a_backend_is_the_mail_user_on_the_store() -> None:
    on("mail1", "touch /srv/mail/.by-root")
    assert on("nfs1", "stat -c %u:%g /srv/mail/.by-root").strip() == "5000:5000"
    on("mail1", "rm /srv/mail/.by-root")


def test_secrets_are_for_their_readers_only() -> None:
    assert on("mail1", "stat -c %a:%U /etc/dovecot/dovecot.conf").strip() == "600:root"
    assert on("proxy1", "stat -c %a:%U:%G /etc/dovecot/nfsmail-users").strip() == "640:root:dovecot"
    assert "lab-proxy-secret" not in on("mail1", "cat /etc/dovecot/dovecot.conf")
    for machine in (*BACKENDS, "proxy1"):
        assert "lab-proxy-secret" not in on(machine, "journalctl -b --no-pager; ps axww")


def test_two_machines_with_one_host_name_are_refused() -> None:
    on("mail2", "hostname mail1")
    try:
        done = playbook("site", SCENARIO, "--tags", "none")
    finally:
        on("mail2", "hostname mail2")
    assert done.returncode != 0
    for words in ("host name of mail1, mail2: 'mail1'", "every machine has a host name of its own", "hostnamectl"):
        assert words in done.stdout, done.stdout


@pytest.mark.parametrize("how", ["restart", "reboot"])
def test_locks_outlive_the_nfs_server(how: str) -> None:
    """NFSv3 locks are lost silently when nfsd stops, unless the list of their holders is kept."""
    on("mail1", HOLD)
    wait_until("the lock is held", "mail2", f"! {TRY}", 60)
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
        answer = on("mail2", f"timeout 60 {TRY}; echo code $?", check=False)
        assert "code 1" in answer, f"granted or hung: {answer}\n{on('nfs1', 'cat /proc/locks; ls /var/lib/nfs/sm')}"
    finally:
        on("mail1", "pkill -f 'sleep 600'", check=False)
    wait_until("the lock is handed over", "mail2", TRY, 60)


def test_dovecot_never_starts_on_an_empty_directory() -> None:
    """Last: it takes mail2's store away and puts it back."""
    on("mail2", "systemctl stop dovecot && umount /srv/mail")
    try:
        on("mail2", "systemctl mask --runtime srv-mail.mount")
        refused = on("mail2", "systemctl start dovecot 2>&1; systemctl is-active dovecot", check=False)
        assert refused.strip().endswith(("inactive", "failed")), refused
        for who in ("runuser -u vmail --", ""):
            assert "not permitted" in on("mail2", f"{who} touch /srv/mail/x 2>&1", check=False).lower()
        assert "nfs1:/srv/mail" in on("mail2", "cat /srv/mail/NOT-MOUNTED")
    finally:
        on("mail2", "systemctl unmask --runtime srv-mail.mount; systemctl daemon-reload")
    # Starting Dovecot brings the mount with it.
    on("mail2", "systemctl start dovecot && systemctl is-active dovecot && grep ' /srv/mail nfs ' /proc/mounts")


def _program(service: str) -> str:
    return {"nlockmgr": "100021", "status": "100024", "mountd": "100005"}[service]


def _started() -> str:
    since = on("nfs1", 'date +%s -d "$(systemctl show -p ActiveEnterTimestamp --value nfs-server)"').strip()
    assert since.isdigit(), since
    return since
