# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Step by step from one cluster to the next while mail is on it: each converges, is verified, takes mail, and loses none."""

from __future__ import annotations

import json
import poplib
import re
import ssl
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "shared"))

from faults import Cluster, where_to_look
from mailflow import Config, run
from mailflow.imap import ImapSession
from mailflow.samples import SampleSet, find_samples
from proofs import (
    PASSWORD,
    ROOT,
    changed,
    forwarded,
    on,
    places,
    playbook,
    store_files,
    variables,
    verified,
    verify,
    wait_until,
)
from traffic import Traffic, found_once

USERS = {user["name"]: PASSWORD for user in variables("per_user")["nfsmail_users"]}
FIRST = next(iter(USERS))
INVENTORY = f"--inventory={ROOT / 'molecule' / 'switch' / 'inventory'}"
# Gone at a boot, and not there before this: it is made by the unit of Dovecot.
VOLATILE = "/run/nfsmail-volatile"
NO_PROXIES = {"nfsmail_group_mail_proxies": "no_proxies", "nfsmail_overrides": {}}


@dataclass(frozen=True)
class Step:
    """Where the cluster goes next, what the kernel must show of the mount, and where mail goes in and comes out."""

    name: str
    variables: dict[str, Any]
    mount: tuple[str, ...]
    before: tuple[tuple[str, str], ...] = ()
    after: tuple[tuple[str, str], ...] = ()
    lmtp: str = "proxy1"
    imap: str = "proxy2"
    backends: tuple[str, ...] = ("mail1", "mail2")
    warnings: frozenset[str] = field(default=frozenset({"NFS320"}))  # 2.3 and 2.4 side by side

    @property
    def maildir(self) -> bool:
        """Whether mail lies in files of its own, whose names tell who wrote them."""
        return self.variables.get("nfsmail_mailbox_format", "maildir") == "maildir"

    @property
    def per_user(self) -> bool:
        """Whether each user has a backend."""
        return self.variables.get("nfsmail_topology", "per_user") == "per_user"

    @property
    def director(self) -> bool:
        """Whether a director chooses the backend."""
        return self.variables.get("dovecot_proxy_mode") == "director"

    @property
    def drains(self) -> bool:
        """Whether a backend is drained: by a director and by a balancer. Scenario per_user does it with the shard map."""
        return self.director or self.variables.get("nfsmail_topology") == "random"

    @property
    def arguments(self) -> tuple[str, ...]:
        """For ansible-playbook."""
        return INVENTORY, "-e", json.dumps(self.variables)


STEPS = (
    Step("per_user, Maildir, NFSv3 with lockd", {}, ("nfs vers=3", "local_lock=none", "acregmin=60")),
    Step(
        "per_user, NFSv4.1, indexes on local disk",
        {"nfsmail_nfs_version": "4.1", "nfsmail_index_location": "local"},
        ("nfs4 vers=4.1", "acregmin=60"),
    ),
    Step(
        "random, NFSv4.1, behind a balancer",
        {
            "nfsmail_topology": "random",
            "nfsmail_accept_unsupported_random": True,
            "nfsmail_nfs_version": "4.1",
            "nfsmail_group_mail_balancers": "balancers",
            **NO_PROXIES,
        },
        ("nfs4 vers=4.1", "acregmin=0", "acdirmax=0"),
        # For this step the first proxy is the balancer.
        before=(("proxy1", "systemctl disable --now dovecot"),),
        after=(("proxy1", "systemctl disable --now haproxy"),),
        imap="proxy1",
    ),
    Step(
        "per_user, sdbox, NFSv4.2",
        {
            "nfsmail_mailbox_format": "sdbox",
            "nfsmail_nfs_version": "4.2",
            "nfsmail_volatile_path": f"{VOLATILE}/{{domain}}/{{name}}",
        },
        ("nfs4 vers=4.2", "acregmin=60"),
    ),
    Step(
        "per_user, mdbox, NFSv4.1",
        {"nfsmail_mailbox_format": "mdbox", "nfsmail_nfs_version": "4.1"},
        ("nfs4 vers=4.1",),
    ),
    Step(
        "per_user, mbox, NFSv3 with lockd",
        {"nfsmail_mailbox_format": "mbox", "nfsmail_nfs_version": "3"},
        ("nfs vers=3", "local_lock=none"),
    ),
    Step(
        "per_user by a director, Maildir, NFSv3 without lockd",
        {
            "nfsmail_nfs_version": "3",
            "nfsmail_lockd": False,
            "dovecot_proxy_mode": "director",
            "nfsmail_group_mail_proxies": "directors",
            "nfsmail_overrides": {},
        },
        ("nfs vers=3", "nolock"),
        imap="proxy1",
    ),
    Step(
        "single, NFSv4.2, indexes on local disk",
        {
            "nfsmail_topology": "single",
            "nfsmail_nfs_version": "4.2",
            "nfsmail_index_location": "local",
            "nfsmail_group_mail_backends": "one_backend",
            **NO_PROXIES,
        },
        ("nfs4 vers=4.2", "acregmin=60"),
        lmtp="mail1",
        imap="mail1",
        backends=("mail1",),
        warnings=frozenset(),
    ),
)


@pytest.mark.parametrize("number", range(len(STEPS)), ids=[step.name for step in STEPS])
def test_step(number: int) -> None:
    step = STEPS[number]
    before = maildir_messages()
    for machine, command in step.before:
        on(machine, command)
    if number:  # the first is there: the scenario has converged to it, and scenario per_user verifies the same
        done = playbook("site", "per_user", *step.arguments)
        assert done.returncode == 0, done.stdout
        print(f"changed: {changed(done)}")
    for backend in step.backends:
        mounted = on(backend, 'awk \'$2 == "/srv/mail" && $3 != "autofs" {print $3, $4}\' /proc/mounts').splitlines()
        assert len(mounted) == 1, mounted
        kind, options = mounted[0].split()
        shown = {f"{kind} vers={re.findall(r'vers=([0-9.]+)', options)[0]}", *options.split(",")}
        assert set(step.mount) <= shown, (backend, mounted)
    if number:
        verified("per_user", *step.arguments, warnings=step.warnings)
    result = run(
        Config(
            lmtp=forwarded(step.lmtp, 24),
            imap=forwarded(step.imap, 143),
            users=USERS,
            seed=number + 1,
            per_user=1,
            samples=None if step.maildir else fit_for_mbox(),
            min_samples=40 if step.maildir else 30,
            expected=expected_places(step),
            listing=(lambda: store_files("nfs1")) if step.maildir else None,
        )
    )
    print(result.table())
    assert result.ok, result.problems
    assert messages_by_pop3(step) == messages_by_doveadm(step) > 0
    # Dovecot moves a message from new to cur and adds flags behind the comma; what is in front of it stays.
    assert before <= maildir_messages(), f"{len(before - maildir_messages())} messages are gone"
    if "nfsmail_volatile_path" in step.variables:
        # Each user's directory is made with the first lock.
        for backend in step.backends:
            assert on(backend, f"stat -c '%u %a' {VOLATILE}").split() == ["5000", "700"]
            assert on(backend, f"find {VOLATILE} -mindepth 2 -type d -user 5000"), backend
    if step.variables.get("nfsmail_index_location") == "local" and step.per_user:
        moved_with_indexes(step)
    if step.drains:
        drained_and_back(step)
    for machine, command in step.after:
        on(machine, command)


def expected_places(step: Step) -> dict[str, str] | None:
    """Which backend writes whose mail, where that can be seen from names of files."""
    if not (step.maildir and step.per_user):
        return None
    return directors_places(step, USERS) if step.director else places(step.lmtp, "per_user")


def directors_places(step: Step, users: Iterable[str]) -> dict[str, str]:
    """The backend that the director gives each user now: where the user is, or would be."""
    names = {on(backend, "hostname -I").split()[-1]: backend for backend in step.backends}
    said = on("proxy1", f"for user in {' '.join(users)}; do doveadm -f json director status $user; echo; done")
    rows = [json.loads(line)[0] for line in said.splitlines() if line.strip()]
    return {user: names.get(row["status"]) or names[row["hashed"]] for user, row in zip(users, rows, strict=True)}


def moved_with_indexes(step: Step) -> None:
    """A user is sent to the other backend: indexes of an old day must not be there when the user comes back."""
    find = f"find /var/lib/nfsmail -ipath '*{FIRST.partition('@')[0]}*' -name dovecot.index.log"
    home = places(step.lmtp, "per_user")[FIRST]
    other = next(backend for backend in step.backends if backend != home)
    assert on(home, find) and not on(other, find)
    for there, gone in ((other, home), (home, other)):
        done = playbook("move_user", "per_user", *step.arguments, "-e", f"move_user={FIRST} move_to={there}")
        assert done.returncode == 0, done.stdout
        assert not on(gone, find)
        with ImapSession(*forwarded(step.imap, 143), FIRST, PASSWORD) as session:
            assert session.uids()
        assert on(there, find)


def drained_and_back(step: Step) -> None:
    """While clients work: the backend that has most of them is emptied, and nothing of theirs is lost."""
    try:
        emptied_and_filled(step)
    except AssertionError as error:
        cluster = Cluster(step.backends, (step.imap,), "")
        raise AssertionError(f"{error}\n{where_to_look(cluster)}") from error


def emptied_and_filled(step: Step) -> None:
    # Without an attribute cache each asks the server twelve times as often.
    some = sorted(USERS)[: 6 if step.director else 3]
    with Traffic((step.imap,), some, 1) as traffic:
        traffic.wait_for("appends", 2 * len(some))
        busy = max(step.backends, key=lambda backend: len(sessions_on(backend)))
        assert sessions_on(busy)
        done = playbook("drain", "per_user", *step.arguments, "-e", f"drain={busy}")
        assert done.returncode == 0, done.stdout
        assert f"{busy}: " in done.stdout and "nobody who moves is left" in done.stdout, done.stdout
        traffic.wait_for("appends", len(some))
        assert sessions_on(busy) == []
        # site.yml leaves it so, and verify knows that it is meant.
        where = "proxy" if step.director else "balancer"
        site = playbook("site", "per_user", *step.arguments, "--tags", where)
        assert set(changed(site).values()) == {0}, site.stdout
        done = playbook("undrain", "per_user", *step.arguments, "-e", f"undrain={busy}")
        assert done.returncode == 0, done.stdout
        # With random whoever is logged in stays, and new connections come here again.
        with ImapSession(*forwarded(step.imap, 143), some[0], PASSWORD):
            wait_until("somebody is back", busy, "doveadm who -1 | grep -q imap")
        if step.director:
            home = directors_places(step, some)[some[0]]
            other = next(backend for backend in step.backends if backend != home)
            done = playbook("move_user", "per_user", *step.arguments, "-e", f"move_user={some[0]} move_to={other}")
            assert done.returncode == 0, done.stdout
            assert directors_places(step, some)[some[0]] == other
            wait_until("the user is there", other, f"doveadm who -1 | grep -qi {some[0]}")
            assert not [line for line in sessions_on(home) if some[0] in line]
        traffic.wait_for("appends", len(some))
    if step.director:
        verified("per_user", *step.arguments, warnings=step.warnings)
    else:
        _, verdict = verify("per_user", *step.arguments)
        assert [row["level"] for row in verdict["checks"] if row["id"] == "NFS322"] == ["ok"], verdict
        # With random a user is on two backends at once, here while old sessions are not where mail comes in. NFS328 tells what
        # that did to mailboxes, for a day; the next steps are not to blame.
        for backend in step.backends:
            on(backend, "journalctl --rotate --vacuum-time=1s")
        # Seen here: dovecot.index.cache with the header of one message under the number of another. The mail itself is whole.
        on("nfs1", "find /srv/mail -name 'dovecot.index*' -delete")
    seen = list(traffic.ledger.problems)
    lost = found_once(traffic.ledger, some, step.imap)
    if not step.director:
        # With random, UIDs and flags may have changed, and clients may have seen anything: what counts is the mail in the end.
        print("\n".join(lost))
        lost = [one for one in lost[len(seen) :] if "is not there" in one]
    print(f"{step.name}, drained and back: {dict(traffic.ledger.counts)}")
    assert not lost, "\n".join(lost)
    assert traffic.ledger.counts["deliveries"] and traffic.ledger.counts["appends"]


def sessions_on(backend: str) -> list[str]:
    """Who is logged in."""
    return [line for line in on(backend, "doveadm who -1").splitlines()[1:] if "imap" in line]


def test_the_last_is_the_same_when_run_again() -> None:
    done = playbook("site", "per_user", *STEPS[-1].arguments)
    assert done.returncode == 0, done.stdout
    assert set(changed(done).values()) == {0}, done.stdout


def messages_by_pop3(step: Step) -> int:
    """How many messages the first user has, as POP3 over TLS tells."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    pop = poplib.POP3(*forwarded(step.imap, 110), timeout=60)
    pop.stls(context)
    pop.user(FIRST)
    pop.pass_(PASSWORD)
    count = pop.stat()[0]
    pop.quit()
    return count


def messages_by_doveadm(step: Step) -> int:
    """The same by doveadm: on a proxy, which asks the user's backend, or on a backend itself."""
    said = on("proxy1" if step.per_user else "mail1", f"doveadm mailbox status -u {FIRST} messages INBOX")
    return int(said.rpartition("messages=")[2])


def test_an_nfs_server_that_is_not_ours_is_left_alone() -> None:
    """As an appliance would be: its clock is judged by the time stamps that it gives to files."""
    foreign = {"nfsmail_manage_nfs_server": False, "nfsmail_nfs_server": "nfs1", "timesync_sources": ["nfs1"]}
    arguments = (*STEPS[-1].arguments, "-e", json.dumps(foreign))
    done = changed(playbook("site", "per_user", *arguments))
    assert done["mail1"] == 0 and done.get("nfs1", 0) == 0, done
    checks = verified("per_user", *arguments)
    assert "NFS307" in checks and not checks & {"NFS306", "NFS314", "NFS315"}


def test_a_mount_in_use_is_left_alone_and_its_user_named() -> None:
    """Last: options that no remount can change, while a process stands on the store."""
    # All of it in the background with nothing open, or ssh waits for its end.
    on("mail1", "{ cd /srv/mail && exec setsid sleep 600; } </dev/null >/dev/null 2>&1 &")
    before = on("mail1", "grep ' /srv/mail ' /proc/mounts")
    done = playbook("site", "per_user", *STEPS[-1].arguments, "-e", "nfsmail_nfs_version=4.1")
    assert done.returncode != 0
    assert "sleep" in done.stdout and "/srv/mail" in done.stdout, done.stdout
    assert on("mail1", "grep ' /srv/mail ' /proc/mounts") == before
    on("mail1", "systemctl is-active dovecot")


def fit_for_mbox() -> SampleSet:
    """An mbox keeps some headers for itself, cannot hold a message that begins like the next one, and gives each a body."""
    own = re.compile(rb"(?im)^(From |(Status|X-Status|X-Keywords|X-UID|X-IMAP|X-IMAPbase|Content-Length):)")
    found = find_samples(40)
    fit = [one for one in found.samples if one.data.partition(b"\r\n\r\n")[2] and not own.search(one.data)]
    return replace(found, samples=type(found.samples)(fit))


def maildir_messages() -> set[str]:
    """Every message of every Maildir, whatever its flags and in whichever folder of the Maildir."""
    return {
        re.sub(r"/(new|cur)/", "/", path).partition(",")[0]
        for path in store_files("nfs1")
        if re.search(r"/(new|cur)/", path)
    }
