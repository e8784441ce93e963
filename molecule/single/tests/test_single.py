# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One backend (Debian 12) after two runs of site.yml: NFSv4.2, indexes on the local disk; an NFS server that does not
answer; and a new backend (Debian 13) in its place."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "shared"))

from mailflow.imap import connect
from mailflow.lmtp import LmtpClient
from proofs import PASSWORD, changed, code, forwarded, mail_through, on, playbook, verified

SCENARIO = "single"
NEW_BACKEND = ("-e", "nfsmail_group_mail_backends=spare_backend")


def test_verify_passes_on_the_live_machines() -> None:
    assert {"NFS303", "NFS304", "NFS307", "NFS311", "NFS314", "NFS315"} <= verified(SCENARIO)


def test_mail_goes_in_and_comes_back_byte_for_byte() -> None:
    result = mail_through("mail1", SCENARIO, reader="nfs1")
    print(result.table())
    assert result.ok, result.problems


def test_indexes_are_local_and_mail_is_not() -> None:
    _indexes_are_local("mail1")


def _indexes_are_local(backend: str) -> None:
    assert on(backend, "find /var/lib/nfsmail/index -name dovecot.index.log").strip()
    # But for what users have read of each other's folders, which nothing could make anew.
    assert not on("nfs1", "find /srv/mail -name 'dovecot.index*' -not -name '*.pvt.*'").strip()


def test_the_mount_is_what_was_asked_for() -> None:
    _mount_is_as_asked("mail1")


def _mount_is_as_asked(backend: str) -> None:
    line = on(backend, "grep ' /srv/mail ' /proc/mounts")
    for option in ("nfs4", "vers=4.2", "hard", "nosuid", "nodev", "noexec", "acregmin=60"):
        assert option in line, line


def test_the_nfs_calls_of_a_session_are_counted(tmp_path: Path) -> None:
    """By bench.yml; what a session with warm caches asks of the server is less than with cold ones."""
    path = tmp_path / "bench.json"
    extra = {"bench_user": "user10@example.com", "bench_runs": 1, "bench_file": str(path), "bench_name": "now"}
    done = playbook("bench", SCENARIO, "-e", json.dumps(extra))
    assert done.returncode == 0, done.stdout
    assert "1 of 2 sessions" in done.stdout and "| now | " in done.stdout, done.stdout
    cells = json.loads(path.read_text(encoding="utf-8"))
    cold, warm = (sum(sum(step["calls"].values()) for step in one["steps"].values()) for one in cells[0]["sessions"])
    print(f"{cold} calls cold, {warm} warm")
    assert cells[0]["nfs"] and cold > warm > 50 and len(cells[0]["deliveries"]) == 2
    assert "<h2>now</h2>" in path.with_suffix(".html").read_text(encoding="utf-8")
    refused = playbook("bench", SCENARIO)
    assert refused.returncode != 0 and "names a user whose mail may be deleted" in refused.stdout, refused.stdout


def test_spam_is_sorted_mail_is_counted_and_a_folder_is_shared() -> None:
    _features("mail1")


def _features(backend: str) -> None:
    """Each run adds one message and finds those before it."""
    user, other, folder = "user11@example.com", "user12@example.com", "Plans"
    with LmtpClient(*forwarded(backend, 24)) as lmtp:
        message = b"From: a@lab.invalid\r\nSubject: offer\r\nX-Spam: yes\r\n\r\nhello\r\n"
        assert lmtp.deliver("a@lab.invalid", [user], message)[user].ok
    imap = connect(*forwarded(backend, 143), 60)
    imap.login(user, PASSWORD)
    sorted_out = int(imap.select("Junk")[1][0])
    assert sorted_out == len(
        on(
            "nfs1",
            "ls /srv/mail/example.com/user11/Maildir/.Junk/new /srv/mail/example.com/user11/Maildir/.Junk/cur | grep -E '^[0-9]'",
        ).split()
    )
    (roots, quotas) = imap.getquotaroot("INBOX")[1]
    counted = re.search(rb"STORAGE (\d+) (\d+)", quotas[0])
    assert counted and int(counted[1]) > 0 and int(counted[2]) == 1024 * 1024, (roots, quotas)
    imap.create(folder)
    imap.append(folder, "", None, b"Subject: plan\r\n\r\nhello\r\n")
    assert imap.setacl(folder, other, "lr")[0] == "OK"
    imap.logout()
    imap = connect(*forwarded(backend, 143), 60)
    imap.login(other, PASSWORD)
    assert int(imap.select(f"shared/{user}/{folder}", readonly=True)[1][0]) >= 1
    imap.logout()


def test_nfsv4_needs_no_lockd() -> None:
    assert code("mail1", "test -e /etc/nfs.conf.d/nfsmail-lockd.conf") == 1
    assert on("nfs1", "cat /proc/fs/nfsd/versions").split()[0] == "-3"


def test_an_operator_s_mount_with_other_options_is_found_by_verify() -> None:
    """A check that cannot fail proves nothing: change what is in effect behind Ansible's back."""
    on("mail1", "systemctl stop dovecot && umount /srv/mail && mount -t nfs -o vers=4.2,soft nfs1:/srv/mail /srv/mail")
    try:
        done = playbook("verify", SCENARIO)
        assert done.returncode != 0
        for words in ("NFS304", "hard is soft, wanted hard", "NFS312", "not running", "NFS304 on mail1: run site.yml"):
            assert words in done.stdout, done.stdout
        # And as a run leaves it that was killed before it could tell the time daemon.
        on("mail1", "touch /etc/chrony/chrony.conf")
    finally:
        # site.yml alone puts it right: it compares with what is in effect, not with fstab.
        done = playbook("site", SCENARIO, "--tags", "backend")
    assert done.returncode == 0, done.stdout
    read = 'date -d "$(systemctl show --value --property=StateChangeTimestamp chrony)" +%s'
    assert int(on("mail1", read)) >= int(on("mail1", "stat -c %Y /etc/chrony/chrony.conf"))
    assert ",hard," in on("mail1", "grep ' /srv/mail ' /proc/mounts")


def test_a_dead_nfs_server_changes_nothing() -> None:
    """mail2 is a virgin machine here; its store is said to be on an address where nobody answers."""
    before = on("mail2", "cat /etc/fstab; md5sum /etc/dovecot/dovecot.conf")
    done = playbook(
        "site",
        SCENARIO,
        "--tags",
        "backend",
        "-e",
        json.dumps(
            {
                "nfsmail_group_mail_backends": "spare_backend",
                "nfsmail_nfs_server": "10.77.0.99",
                "timesync_sources": ["nfs1"],
                "timesync_wait": 0,
            }
        ),
    )
    assert done.returncode != 0
    assert "10.77.0.99" in done.stdout and "cannot be reached, nothing was changed" in done.stdout, done.stdout
    assert on("mail2", "cat /etc/fstab; md5sum /etc/dovecot/dovecot.conf") == before


def test_a_new_backend_with_a_newer_dovecot_takes_over() -> None:
    """Last: Debian 13 in the place of Debian 12, on the same store; nothing that was there is lost."""
    assert on("mail1", "dovecot --version").startswith("2.3.19")
    on("mail1", "systemctl disable --now dovecot && umount /srv/mail")
    planned = changed(playbook("site", SCENARIO, *NEW_BACKEND, "--check"))
    done = changed(playbook("site", SCENARIO, *NEW_BACKEND))
    for run in (planned, done):
        assert run["nfs1"] > 0 and run["mail2"] > 0 and run["mail1"] == 0, (planned, done)
    again = changed(playbook("site", SCENARIO, *NEW_BACKEND))
    assert set(again.values()) == {0}, again

    assert on("mail2", "dovecot --version").startswith("2.4.1")
    assert {"NFS303", "NFS304", "NFS307", "NFS311", "NFS314", "NFS315"} <= verified(SCENARIO, *NEW_BACKEND)
    result = mail_through("mail2", SCENARIO, reader="nfs1", seed=2)
    print(result.table())
    assert result.ok, result.problems
    assert result.row("older messages still there").verdict == "ok"
    assert "mail2" in result.mails_per_backend and "mail1" not in result.mails_per_backend
    _features("mail2")
    _indexes_are_local("mail2")
    _mount_is_as_asked("mail2")
    assert "10.77.0.11" not in on("nfs1", "exportfs -s")
