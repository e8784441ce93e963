# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The run: deliver, read back, compare, and find out who wrote."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from mailflow.compare import Expected, Matching, delivery_session, match
from mailflow.errors import MailflowError
from mailflow.imap import ImapSession, Stored, try_login
from mailflow.lmtp import LmtpClient, Reply
from mailflow.placement import UNKNOWN_HOST, MailFile, log_saves, mail_files, unique_name, writing_host
from mailflow.plan import Transaction, spread
from mailflow.report import Report
from mailflow.samples import SampleSet, find_samples

FLAGS = frozenset({"\\Seen", "\\Flagged"})
Lines = Callable[[], Iterable[str]]
# How many clients are at work at once: an emulated machine mostly waits for others.
CLIENTS = 4
Item = TypeVar("Item")
Answer = TypeVar("Answer")


def _at_once(function: Callable[[Item], Answer], items: Iterable[Item]) -> Iterator[Answer]:
    """Answers in the order of the items; the first error ends the run."""
    with ThreadPoolExecutor(CLIENTS) as pool:
        yield from pool.map(function, items)


def _print(line: str) -> None:
    print(line, flush=True)


@dataclass(frozen=True)
class Config:
    """What to run against.

    ``listing`` and ``logs`` are called after the last message was read back: the first returns the paths of
    all mail files (``find``), the second, by backend name, the lines of each backend's Dovecot log since
    before the run. ``expected`` tells where each user must live.
    """

    lmtp: tuple[str, int]
    imap: tuple[str, int]
    users: Mapping[str, str]
    seed: int = 1
    expected: Mapping[str, str] | None = None
    listing: Lines | None = None
    logs: Mapping[str, Lines] = field(default_factory=dict)
    samples: SampleSet | None = None
    sender: str = "mailflow@lab.invalid"
    min_samples: int = 40
    min_users: int = 20
    per_user: int = 2
    settle: float = 0.0
    timeout: float = 60.0
    say: Callable[[str], None] = _print


@dataclass
class _User:
    """What the run knows about one user."""

    name: str
    password: str
    before: frozenset[int] = frozenset()
    there: frozenset[int] = frozenset()
    expected: list[Expected] = field(default_factory=list)
    stored: list[Stored] = field(default_factory=list)
    matching: Matching = field(default_factory=Matching)


def run(config: Config) -> Report:
    """Do it all; raise MailflowError only where the run could not be carried out."""
    return _Run(config).run()


class _Run:
    def __init__(self, config: Config) -> None:
        if len(config.users) < config.min_users:
            raise MailflowError(f"only {len(config.users)} users, {config.min_users} are needed")
        homeless = sorted(set(config.users).difference(config.expected or config.users))
        if homeless:
            raise MailflowError(f"nobody says where {homeless[0]} must live ({len(homeless)} such users)")
        self._config = config
        self._start = time.monotonic()
        self._users = {name: _User(name, password) for name, password in sorted(config.users.items())}
        self._report = Report(seed=config.seed)

    def run(self) -> Report:
        plan = self._plan()
        self._look_before()
        self._deliver(plan)
        self._read_back()
        self._flags()
        self._refusals()
        self._who_wrote()
        self._report.users = {user.name: self._summary(user) for user in self._users.values()}
        self._report.seconds = round(time.monotonic() - self._start, 1)
        return self._report

    def _say(self, text: str) -> None:
        self._config.say(f"[{time.monotonic() - self._start:6.1f} s] {text}")

    def _problem(self, text: str) -> None:
        self._report.problems.append(text)
        self._say(f"PROBLEM {text}")

    def _plan(self) -> list[Transaction]:
        config = self._config
        found = config.samples or find_samples(config.min_samples)
        for left_out in found.excluded:
            self._say(f"sample left out: {left_out.name}: {left_out.reason}")
        if len(found.samples) < config.min_samples:
            raise MailflowError(f"only {len(found.samples)} samples, {config.min_samples} are needed")
        plan = spread(found.samples, self._users, config.seed, config.per_user, config.expected)
        mixed = sum(self._spans_backends(transaction) for transaction in plan)
        self._report.samples = {
            "folders": list(found.folders),
            "found": len(found.samples) + len(found.excluded),
            "used": [sample.name for sample in found.samples],
            "excluded": [{"name": item.name, "reason": item.reason} for item in found.excluded],
        }
        self._say(f"samples: {len(found.samples)} messages from {', '.join(found.folders)}")
        self._say(
            f"plan: {len(plan)} transactions, {sum(len(item.recipients) for item in plan)} deliveries to "
            f"{len(self._users)} users, {mixed} transactions span backends (seed {config.seed})"
        )
        self._report.add("samples sent", len(found.samples), True)
        self._report.add("users", len(self._users), True)
        if config.expected is not None:
            several = len({config.expected.get(name) for name in self._users}) > 1
            self._report.add("transactions that span backends", mixed, mixed > 0 if several else None)
        return plan

    def _spans_backends(self, transaction: Transaction) -> bool:
        places = self._config.expected or {}
        return len({places.get(name) for name in transaction.recipients}) > 1

    def _session(self, user: _User) -> ImapSession:
        return ImapSession(*self._config.imap, user.name, user.password, self._config.timeout)

    def _look_before(self) -> None:
        for user, uids in zip(self._users.values(), _at_once(self._uids, self._users.values())):
            user.before = uids
        old = sum(len(user.before) for user in self._users.values())
        self._say(f"before: all {len(self._users)} users can log in, {old} messages are there already")

    def _uids(self, user: _User) -> frozenset[int]:
        with self._session(user) as session:
            return frozenset(session.uids())

    def _deliver(self, plan: Sequence[Transaction]) -> None:
        accepted = planned = 0
        # A connection has several transactions.
        rounds = [plan[start : start + 4] for start in range(0, len(plan), 4)]
        delivered = itertools.chain.from_iterable(_at_once(self._transactions, rounds))
        for number, (transaction, replies) in enumerate(zip(plan, delivered), 1):
            sample = transaction.sample
            for name, reply in replies.items():
                planned += 1
                accepted += reply.ok
                self._note_delivery(sample.name, name, reply)
                if reply.ok:
                    self._users[name].expected.append(Expected(sample, reply.session))
            if number % 10 == 0 or number == len(plan):
                self._say(f"deliver: {number} of {len(plan)} transactions, {accepted} messages accepted")
        self._report.add("messages accepted", accepted, accepted == planned)

    def _transactions(self, some: Sequence[Transaction]) -> list[dict[str, Reply]]:
        with LmtpClient(*self._config.lmtp, self._config.timeout) as client:
            return [client.deliver(self._config.sender, one.recipients, one.sample.data) for one in some]

    def _note_delivery(self, sample: str, user: str, reply: Reply) -> None:
        self._report.deliveries.append({"sample": sample, "user": user, "reply": str(reply)})
        if not reply.ok:
            self._problem(f"{sample} to {user} was not accepted: {reply}")

    def _read_back(self) -> None:
        users = list(self._users.values())
        deadline = time.monotonic() + self._config.settle
        read = _at_once(partial(self._read_until_there, deadline), users)
        for number, (user, _) in enumerate(zip(users, read), 1):
            for problem in user.matching.problems:
                self._problem(f"{user.name}: {problem}")
            if number % 10 == 0 or number == len(users):
                found = sum(len(item.matching.found) for item in users)
                self._say(f"read back: {number} of {len(users)} users, {found} messages found byte for byte")
        found = sum(len(user.matching.found) for user in users)
        accepted = sum(len(user.expected) for user in users)
        clean = not any(user.matching.problems for user in users)
        self._report.add("found byte for byte", found, clean and found == accepted and found > 0)
        old = sum(len(user.before) for user in users)
        if old:
            kept = sum(len(user.before & user.there) for user in users)
            self._report.add("older messages still there", f"{kept} of {old}", kept == old)

    def _read_until_there(self, deadline: float, user: _User) -> None:
        self._read_user(user)
        while user.matching.missing and time.monotonic() < deadline:
            time.sleep(0.5)
            self._read_user(user)

    def _read_user(self, user: _User) -> None:
        """Read the user's new messages and compare them; a mailbox that cannot be read is a problem too."""
        user.there, user.stored, trouble = frozenset(), [], ""
        try:
            with self._session(user) as session:
                user.there = frozenset(session.uids())
                user.stored = session.fetch(sorted(user.there - user.before))
        except MailflowError as exc:
            trouble = str(exc)
        user.matching = match(user.stored, user.expected)
        if trouble:
            user.matching.problems.insert(0, trouble)
        elif user.before - user.there:
            gone = ", ".join(str(uid) for uid in sorted(user.before - user.there))
            user.matching.problems.append(f"older messages vanished: UID {gone}")

    def _flags(self) -> None:
        chance = random.Random(self._config.seed)
        kept = 0
        chosen = [
            (user, chance.choice(sorted(user.matching.found.values())))
            for user in self._users.values()
            if user.matching.found
        ]
        for (user, uid), trouble in zip(chosen, _at_once(self._flag, chosen)):
            if trouble:
                self._problem(f"{user.name}: flags of UID {uid}: {trouble}")
            else:
                kept += 1
        total = len(self._users)
        self._say(f"flags: kept for {kept} of {total} users after a new login")
        self._report.add("flags kept after a new login", f"{kept} of {total}", kept == total)

    def _flag(self, chosen: tuple[_User, int]) -> str:
        """Flag one message, log in again, and say what is wrong with the flags of all of them, or ''."""
        try:
            return self._flag_and_look(*chosen)
        except MailflowError as exc:
            return str(exc)

    def _flag_and_look(self, user: _User, uid: int) -> str:
        with self._session(user) as session:
            wanted = session.flags()
            wanted[uid] = wanted.get(uid, set()) | FLAGS
            session.add_flags(uid, " ".join(sorted(FLAGS)))
        with self._session(user) as session:
            after = session.flags()
        wrong = sorted(key for key in wanted | after if wanted.get(key) != after.get(key))
        return "; ".join(
            f"after a new login UID {key} has {sorted(after.get(key, {'(gone)'}))}, "
            f"not {sorted(wanted.get(key, set()))}"
            for key in wrong
        )

    def _refusals(self) -> None:
        config = self._config
        first = next(iter(self._users.values()))
        domain = first.name.partition("@")[2]
        stranger = f"no-such-user-{config.seed}" + (f"@{domain}" if domain else "")
        with LmtpClient(*config.lmtp, config.timeout) as client:
            reply = client.try_recipient(config.sender, stranger)
        status, text = try_login(*config.imap, first.name, f"not-{first.password}", config.timeout)
        self._report.replies = {"unknown_user": str(reply), "wrong_password": f"{status} {text}"}
        self._say(f"unknown user {stranger}: {reply}")
        self._say(f"wrong password for {first.name}: {status} {text}")
        self._report.add("unknown user refused", reply, reply.code == 550)
        self._report.add("wrong password refused", f"{status} {text}", status == "NO")

    def _who_wrote(self) -> None:
        files = None if self._config.listing is None else mail_files(self._config.listing())
        hosts = self._hosts_by_guid()
        if files is not None:
            hosts = self._hosts_by_listing(files)
        self._judge_hosts(hosts)
        self._judge_logs()

    def _found(self, user: _User) -> list[Stored]:
        uids = set(user.matching.found.values())
        return [message for message in user.stored if message.uid in uids]

    def _hosts_by_guid(self) -> dict[str, list[str]] | None:
        """Who wrote each message, as its Maildir name tells over IMAP; None if the server does not tell."""
        hosts = {
            user.name: [writing_host(message.guid) for message in self._found(user)] for user in self._users.values()
        }
        return None if any(UNKNOWN_HOST in names for names in hosts.values()) else hosts

    def _hosts_by_listing(self, files: Sequence[MailFile]) -> dict[str, list[str]]:
        """Who wrote each message, as the names of the files tell.

        Where IMAP tells the names too, only this run's files count, and each message must have its file.
        """
        by_user: dict[str, dict[str, str]] = {}
        for item in files:
            by_user.setdefault(item.user.lower(), {})[item.unique] = item.host
        if self._hosts_by_guid() is None:
            return {name: list(by_user.get(name.lower(), {}).values()) for name in self._users}
        hosts: dict[str, list[str]] = {}
        total = there = 0
        for user in self._users.values():
            theirs = by_user.get(user.name.lower(), {})
            names = [unique_name(message.guid) for message in self._found(user)]
            hosts[user.name] = [theirs[name] for name in names if name in theirs]
            total += len(names)
            there += len(hosts[user.name])
            lost = [name for name in names if name not in theirs]
            if lost:
                self._problem(f"{user.name}: read over IMAP but not in the listing: {', '.join(lost)}")
        self._report.add("files in the Maildir listing", f"{there} of {total}", there == total)
        return hosts

    def _judge_hosts(self, hosts: Mapping[str, Sequence[str]] | None) -> None:
        total = len(self._users)
        if hosts is None:
            self._report.add("users written by one backend", "no Maildir names seen", None)
            return
        one = right = 0
        counts = self._report.mails_per_backend
        for name in self._users:
            wrote = sorted(set(hosts.get(name, ())))
            for host in hosts.get(name, ()):
                counts[host] = counts.get(host, 0) + 1
            if len(wrote) == 1 and wrote != [UNKNOWN_HOST]:
                one += 1
            else:
                self._problem(f"{name}: written by {', '.join(wrote) or 'nobody'}, not by one backend")
            if self._config.expected is not None:
                right += wrote == [self._config.expected[name]]
                if len(wrote) == 1 and wrote != [self._config.expected[name]]:
                    self._problem(f"{name}: written by {wrote[0]}, belongs to {self._config.expected[name]}")
        self._say(f"who wrote: one backend for {one} of {total} users")
        self._report.add("users written by one backend", f"{one} of {total}", one == total)
        if self._config.expected is not None:
            self._report.add("users on the backend they belong to", f"{right} of {total}", right == total)
        shown = ", ".join(f"{host} {counts[host]}" for host in sorted(counts))
        places = {(self._config.expected or {}).get(name) for name in self._users} - {None}
        self._report.add("mails per backend", shown, all(counts.get(str(place)) for place in places))

    def _judge_logs(self) -> None:
        """Find each message's delivery session in the backends' logs; older lines do no harm."""
        if not self._config.logs:
            return
        saves = {host: log_saves(lines()) for host, lines in self._config.logs.items()}
        one = 0
        for user in self._users.values():
            found = self._found(user)
            sessions = {(user.name.lower(), delivery_session(message.data)) for message in found}
            shares = {host: len(sessions & logged) for host, logged in saves.items() if sessions & logged}
            if len(shares) == 1 and sum(shares.values()) == len(sessions):
                one += 1
            else:
                told = ", ".join(f"{host} {count}" for host, count in sorted(shares.items())) or "none"
                self._problem(f"{user.name}: of {len(sessions)} deliveries the logs of the backends show {told}")
        total = len(self._users)
        self._report.add("users saved by one backend in the logs", f"{one} of {total}", one == total)

    def _summary(self, user: _User) -> dict[str, object]:
        return {
            "before": len(user.before),
            "accepted": [item.sample.name for item in user.expected],
            "found": user.matching.found,
            "names": {message.uid: message.guid for message in user.stored if message.guid},
            "expected_backend": (self._config.expected or {}).get(user.name),
        }
