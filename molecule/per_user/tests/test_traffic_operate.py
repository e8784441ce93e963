# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""drain, undrain and move_user while clients work: nothing lost, and nobody on two backends at any moment."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "shared"))

from faults import boot_id, reset, wait_for_boot
from mailflow.imap import ImapSession, connect
from proofs import PASSWORD, changed, forwarded, on, places, playbook, said_by, start_playbook, verify, wait_until
from traffic import Traffic, found_once, now, overlaps

SCENARIO = "per_user"
BACKENDS = ("mail1", "mail2")
PROXIES = ("proxy1", "proxy2")
PINNED = "user05@example.com"
FILES = "cat /etc/dovecot/nfsmail-moving /etc/nfsmail-state /etc/dovecot/nfsmail-shards"


# The package that is installed with a higher version, in a repository of its own. It notes who is logged in when it comes.
NEWER_PACKAGE = r"""
set -e
cd "$(mkdir -p /var/tmp/lab/new/DEBIAN && echo /var/tmp/lab)"
for file in $(dpkg -L dovecot-pop3d); do if [ -f "$file" ]; then install -D -m 755 "$file" "new$file"; fi; done
dpkg-query -s dovecot-pop3d | grep -E '^(Package|Version|Architecture|Maintainer|Depends):' |
  sed 's/^Version: .*/&+lab1/' >new/DEBIAN/control
echo 'Description: a newer version' >>new/DEBIAN/control
printf '#!/bin/sh\ndoveadm who -1 >/var/tmp/lab/who || true\n' >new/DEBIAN/postinst
chmod 755 new/DEBIAN/postinst
dpkg-deb --build new new.deb
{ cat new/DEBIAN/control; echo Filename: ./new.deb; echo "Size: $(stat -c %s new.deb)"
  echo "SHA256: $(sha256sum new.deb | cut -d' ' -f1)"; } >Packages
echo 'deb [trusted=yes] file:/var/tmp/lab ./' >lab.list
echo 'Dir::Etc::sourcelist "/var/tmp/lab/lab.list"; Dir::Etc::sourceparts "-";' >/etc/apt/apt.conf.d/99lab
"""


# A line of Dovecot's log, as journald takes it from root.
STALE = (
    "printf 'MESSAGE=Error: stat(/srv/mail/x) failed: Stale file handle\\nPRIORITY=3\\nOBJECT_PID=%s\\n' "
    '"$(systemctl show --property=MainPID --value dovecot)" | logger --journald'
)


def clients() -> list[str]:
    """Some users of each backend, and the pinned one."""
    where = places(PROXIES[0], SCENARIO)
    chosen = {PINNED}
    for backend in BACKENDS:
        chosen |= set(sorted(user for user, place in where.items() if place == backend)[:2])
    return sorted(chosen)


@pytest.fixture(scope="module")
def clients_at_work() -> Iterator[tuple[Traffic, str]]:
    """Clients who work through all verbs, and since when; in the end the ledger is compared with the mailboxes."""
    users = clients()
    since = now("mail1")
    with Traffic(PROXIES, users, 1) as traffic:
        traffic.wait_for_everybody()
        yield traffic, since
        traffic.wait_for_everybody()
    lost = found_once(traffic.ledger, users, PROXIES[0])
    most, moments = overlaps(BACKENDS, since)
    print(
        f"{dict(traffic.ledger.counts)}; a user was open on {most} backend at most; {len(lost)} messages lost or doubled"
    )
    assert traffic.ledger.counts["deliveries"] and traffic.ledger.counts["appends"]
    assert not lost, "\n".join(lost)
    assert most == 1, "\n".join(moments)


@pytest.fixture
def traffic(clients_at_work: tuple[Traffic, str], request: pytest.FixtureRequest) -> Iterator[Traffic]:
    """The same for one verb: it has begun and ended, and mail goes on; then what clients have seen and the backends' logs."""
    running, since = clients_at_work
    ledger = running.ledger
    ledger.window = request.node.name
    yield running
    running.wait_for("appends", 10)
    most, moments = overlaps(BACKENDS, since)
    print(f"{dict(ledger.counts)}; a user was open on {most} backend at most")
    # Of this verb or of one before it.
    assert not ledger.problems, "\n".join(ledger.problems)
    assert most == 1, "\n".join(moments)


def done(verb: str, **extra: object) -> str:
    ended = playbook(verb, SCENARIO, "-e", json.dumps(extra))
    assert ended.returncode == 0, ended.stdout
    return ended.stdout


def who(backend: str) -> str:
    return on(backend, "doveadm who -1").partition("\n")[2].strip()


def all_on(backend: str) -> bool:
    return set(places(PROXIES[0], SCENARIO).values()) == {backend} == set(places(PROXIES[1], SCENARIO).values())


def users_of(backend: str) -> list[str]:
    return [user for user in clients() if places(PROXIES[0], SCENARIO)[user] == backend]


def test_a_proxy_that_does_not_answer_ends_the_run_before_anything() -> None:
    before = on("proxy1", FILES)
    # It comes back by itself.
    away = (
        "sleep 1; nft add table inet away; nft add chain inet away input '{ type filter hook input priority 0; }'; "
        "nft add rule inet away input tcp dport 22 reject with tcp reset; sleep 60; nft delete table inet away"
    )
    on("proxy2", f'setsid sh -c "{away}" </dev/null >/dev/null 2>&1 & sleep 0.1')
    time.sleep(2)
    ended = playbook("drain", SCENARIO, "-e", "drain=mail1")
    assert ended.returncode != 0 and "proxy2" in ended.stdout and "UNREACHABLE" in ended.stdout.upper(), ended.stdout
    wait_until("ssh is back", "proxy2", "true")
    assert on("proxy1", FILES) == before


def test_a_proxy_that_is_left_out_ends_the_run_before_anything() -> None:
    before = on("proxy1", FILES)
    ended = playbook("drain", SCENARIO, "-e", "drain=mail1", "--limit", "all:!proxy2")
    assert ended.returncode != 0 and "proxy2 would not take part, nothing was changed" in ended.stdout, ended.stdout
    assert on("proxy1", FILES) == before


@pytest.mark.parametrize(
    ("verb", "extra", "words"),
    [
        (
            "drain",
            {"drain": "mail1,mail2,mail7"},
            {"the backend is in the inventory", "do you mean mail", "at least one backend takes users"},
        ),
        ("undrain", {}, {"names the backend"}),
        (
            "move_user",
            {"move_user": "nobody@example.com", "move_to": "mail1"},
            {"move_user names users who do not exist"},
        ),
        ("move_user", {"move_user": PINNED, "move_to": "proxy1"}, {"one of mail1, mail2, or hash"}),
    ],
)
def test_what_would_do_harm_is_refused(verb: str, extra: dict[str, str], words: set[str]) -> None:
    before = [on(proxy, FILES) for proxy in PROXIES]
    ended = playbook(verb, SCENARIO, "-e", json.dumps(extra))
    assert ended.returncode != 0
    assert {word for word in words | {"nothing was changed"} if word not in ended.stdout} == set(), ended.stdout
    assert [on(proxy, FILES) for proxy in PROXIES] == before


def test_a_login_on_its_way_is_waited_for() -> None:
    """A proxy has sent it to the old backend just before it knew better, and that is slow."""
    user = users_of("mail1")[0]
    with ImapSession(*forwarded("proxy1", 143), user, PASSWORD):
        # All logins of the backend wait for this process.
        on("mail1", "pkill -STOP -x auth")
    run = start_playbook("move_user", SCENARIO, "-e", f"move_user={user} move_to=mail2", output=subprocess.PIPE)
    try:
        lock = "/run/nfsmail-move.lock"
        wait_until("the run has begun", "proxy1", f'grep -q ":$(stat -c %i {lock}) " /proc/locks')
        imap = connect(*forwarded("proxy1", 143), 300)
        imap.send(f"a LOGIN {user} {PASSWORD}\r\n".encode())
        wait_until("who moves is held", "proxy2", "grep -q delay_until /etc/dovecot/nfsmail-moving")
        wait_until("the login is there", "mail1", "ss -Htn state established 'sport = :143' | grep -q .")
        time.sleep(4)
    finally:
        on("mail1", "pkill -CONT -x auth")
    said = said_by(run)
    imap.shutdown()
    try:
        assert run.returncode == 0 and "mail1: 1 sessions of 1 users ended" in said, said
        assert user.lower() not in who("mail1")
    finally:
        done("move_user", move_user=user, move_to="hash")


def test_a_backend_that_cannot_be_changed_stays_empty_and_the_next_is_not_touched() -> None:
    before = on("mail2", "md5sum /etc/dovecot/dovecot.conf")
    on("mail1", "chattr +i /etc/dovecot/dovecot.conf")
    try:
        extra = {"dovecot_extra_settings": {"mail_max_userip_connections": 24}}
        ended = playbook("roll", SCENARIO, "-e", json.dumps(extra))
        assert ended.returncode != 0 and "Configure Dovecot" in ended.stdout, ended.stdout
        assert on("mail2", "md5sum /etc/dovecot/dovecot.conf") == before
        assert json.loads(on("proxy2", "cat /etc/nfsmail-state"))["out"] == ["mail1"]
    finally:
        on("mail1", "chattr -i /etc/dovecot/dovecot.conf")
        done("undrain", undrain="mail1")


def test_a_backend_is_emptied_and_comes_back(traffic: Traffic) -> None:
    before = places(PROXIES[0], SCENARIO)
    said = done("drain", drain="mail1")
    assert "mail1: " in said and "nobody who moves is left" in said, said
    assert who("mail1") == "" and all_on("mail2")
    traffic.wait_for("appends", 10)
    assert who("mail1") == ""
    # site.yml does not take it back, and a second run has nothing to do.
    assert set(changed(playbook("site", SCENARIO, "--tags", "proxy")).values()) == {0}
    again = playbook("drain", SCENARIO, "-e", "drain=mail1")
    assert set(changed(again).values()) == {0} and "Nobody moves." in again.stdout
    done("undrain", undrain="mail1")
    wait_until("somebody is back", "mail1", "doveadm who -1 | grep -q imap")
    assert places(PROXIES[0], SCENARIO) == before


def test_a_user_is_moved_and_sent_back(traffic: Traffic) -> None:
    user = next(user for user in clients() if user != PINNED)
    home = places(PROXIES[0], SCENARIO)[user]
    other = BACKENDS[home == BACKENDS[0]]
    done("move_user", move_user=user, move_to=other)
    assert {places(proxy, SCENARIO)[user] for proxy in PROXIES} == {other}
    traffic.wait_for("appends", 10)
    assert user.lower() not in who(home)
    done("move_user", move_user=user, move_to="hash")
    assert {places(proxy, SCENARIO)[user] for proxy in PROXIES} == {home}
    traffic.wait_for("appends", 10)


def test_a_run_that_is_killed_half_way_puts_nobody_on_two_backends(traffic: Traffic) -> None:
    run = start_playbook("drain", SCENARIO, "-e", "drain=mail1")
    wait_until("who moves is held", "proxy2", "grep -q delay_until /etc/dovecot/nfsmail-moving")
    run.kill()
    run.wait()
    # Sessions end by themselves, logins go on elsewhere, and mail waits.
    wait_until("nobody is left", "mail1", "! doveadm who -1 | grep -q imap")
    wait_until("somebody is back", "mail2", f"doveadm who -1 | grep -qi {users_of('mail1')[0]}")
    traffic.wait_for("deliveries put off", 1)
    finished, verdict = verify(SCENARIO)
    assert {row["id"] for row in verdict["checks"] if row["level"] != "ok"} >= {"NFS326"}, finished.stdout
    done("drain", drain="mail1")
    assert all_on("mail2")
    done("undrain", undrain="mail1")


def test_two_runs_at_once_take_turns(traffic: Traffic) -> None:
    """Both would empty a backend, and each would send its users to the other one."""
    first = start_playbook("drain", SCENARIO, "-e", "drain=mail1", output=subprocess.PIPE)
    second = playbook("drain", SCENARIO, "-e", "drain=mail2")
    said = said_by(first)
    codes = (first.returncode, second.returncode)
    assert codes.count(0) == 1, f"{codes}\n{said}\n{second.stdout}"
    out = BACKENDS[codes.index(0)]
    refused = (said, second.stdout)[codes.index(0) - 1]
    assert "at least one backend takes users" in refused and "nothing was changed" in refused, refused
    for proxy in PROXIES:
        assert json.loads(on(proxy, "cat /etc/nfsmail-state"))["out"] == [out]
    done("undrain", undrain=out)


def test_a_backend_that_dies_while_it_is_changed_ends_the_run_and_takes_nobody(traffic: Traffic) -> None:
    extra = json.dumps({"dovecot_extra_settings": {"mail_max_userip_connections": 22}})
    before, boot = on("mail2", "md5sum /etc/dovecot/dovecot.conf"), boot_id("mail1")
    run = start_playbook("roll", SCENARIO, "-e", extra, output=subprocess.PIPE)
    wait_until(
        "mail1 is empty",
        "proxy2",
        "grep -q mail1 /etc/nfsmail-state && ! grep -q delay_until /etc/dovecot/nfsmail-moving",
    )
    reset("mail1")
    said = said_by(run)
    assert run.returncode != 0 and "mail1" in said and "UNREACHABLE" in said.upper(), said
    assert json.loads(on("proxy2", "cat /etc/nfsmail-state"))["out"] == ["mail1"]
    assert on("mail2", "md5sum /etc/dovecot/dovecot.conf") == before
    wait_for_boot("mail1", boot, "dovecot")
    assert who("mail1") == "" and all_on("mail2")


def test_backends_change_one_at_a_time(traffic: Traffic) -> None:
    """From where the run before this one ended, with a package more."""
    extra = {"dovecot_extra_settings": {"mail_max_userip_connections": 23}, "roll_upgrade": True}
    for backend in BACKENDS:
        # As of a bad day. What was before roll is no reason to leave a backend empty.
        on(backend, STALE)
        on(backend, NEWER_PACKAGE)
    said = done("roll", **extra)
    assert "mail1, 1 of 2" in said and "mail2, 2 of 2" in said
    for backend in BACKENDS:
        assert "23" in on(backend, "doveconf mail_max_userip_connections")
        assert on(backend, "dpkg-query -W -f '${Version}' dovecot-pop3d").endswith("+lab1")
        # As the new package found it.
        assert on(backend, "tail -n +2 /var/tmp/lab/who") == ""
        on(backend, "rm /etc/apt/apt.conf.d/99lab")
    assert json.loads(on("proxy1", "cat /etc/nfsmail-state"))["out"] == []
    traffic.wait_for("appends", 10)
    # Back to what the inventory says.
    assert playbook("site", SCENARIO, "--tags", "backend").returncode == 0
