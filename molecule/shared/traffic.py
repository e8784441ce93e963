# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Live traffic with a ledger: what was accepted must be found once, and nobody may be open on two backends.

Every user has a session through each front (proxy): they append, copy, set and take away flags, expunge, wait in IDLE, and log
in again when the connection ends; LMTP delivers to all of them and tries again when told to. All along each session
compares what it sees with the ledger. Afterwards every mailbox is read, and the backends' logs say who was open where and when.
"""

from __future__ import annotations

import contextlib
import imaplib
import itertools
import random
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from ledger import Ledger, Message, Seen
from mailflow.errors import MailflowError
from mailflow.imap import connect, idle
from mailflow.lmtp import LmtpClient
from proofs import PASSWORD, forwarded, on

TIMEOUT = 90.0
INBOX, COPIES = "INBOX", "Copies"
FLAGS = ("\\Seen", "\\Flagged", "\\Answered", "$Work")
MESSAGE = (
    "From: a@example.com\r\nTo: {user}\r\nSubject: {token}\r\nMessage-ID: <{token}@traffic>\r\n\r\nline {token}\r\n"
)
# A proxy that lost its backend cannot know whether the message was taken.
NOT_KNOWN = re.compile(r"not answering|timed? ?out|disconnect|connection|lost", re.IGNORECASE)
LOGIN = re.compile(
    r"^(\d+\.\d+) .*?(?:imap|pop3)-login: (?:Info: )?(?:Login|Logged in): user=<([^>]*)>.*session=<([^>]*)>"
)
OUT = re.compile(
    r"^(\d+\.\d+) .*?(?:imap|pop3)\(([^)]*)\)<\d+><([^>]*)>: (?:Info: )?(?:Disconnected|Logged out|Connection closed)"
)
STAMP = re.compile(r"\d+\.\d+")
PROCESS = re.compile(r"\bmpid=(\d+)")
KILLED = re.compile(r"^(\d+\.\d+) .*service\((?:imap|pop3)\): child (\d+) killed with signal")
# Dovecot starts, or (as journalctl tells) the machine has; systemd has a word on Dovecot before that is up.
START = re.compile(r"master: .*starting up|^-- (?:Boot|Reboot)\b|systemd\[1\]: Starting dovecot")
MAIL = re.compile(r"^(\d+\.\d+) .*?lmtp\(([^)]*)\)<\d+><[^>]*>: .*saved mail to")


Work = Callable[[imaplib.IMAP4], None]
Answer = tuple[str, list[Any]]


class Refused(Exception):
    """The server answered NO."""


@dataclass
class View:
    """One mailbox as one session knows it."""

    subjects: dict[int, str] = field(default_factory=dict)
    top: int = 0
    flags: dict[int, frozenset[str]] = field(default_factory=dict)


class Traffic:
    """Clients at work from ``with`` to its end."""

    def __init__(
        self, fronts: Sequence[str], users: Sequence[str], seed: int = 1, timeout: float = TIMEOUT, pace: float = 0.5
    ) -> None:
        self.users = list(users)
        # Clients that hurry keep emulated machines from everything else.
        self.pace = pace
        # Mailboxes hold what earlier runs have left.
        self.ledger = Ledger(run=uuid.uuid4().hex[:8])
        self.fronts = list(fronts)
        self._lmtp = [forwarded(front, 24) for front in fronts]
        self._seed = seed
        self.timeout = timeout
        self.round = 0
        self._tokens = itertools.count()
        self._stop = threading.Event()
        self._quiet = threading.Event()
        self._threads: list[threading.Thread] = []
        self._clients: list[Client] = []
        self._senders: list[threading.Thread] = []

    def __enter__(self) -> Traffic:
        for user in self.users:
            for front in self.fronts:
                client = Client(self, user, front, random.Random(f"{self._seed} {user} {front}"))
                self._clients.append(client)
                self._threads.append(self._start(client))
        for number in range(len(self._lmtp)):
            self._senders.append(self._start(Sender(self, random.Random(f"{self._seed} {number}"))))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._senders:
            thread.join(TIMEOUT * 2)
        deadline = time.monotonic() + TIMEOUT
        while not all(client.idle or not client.alive for client in self._clients) and time.monotonic() < deadline:
            time.sleep(0.1)
        # From here on nothing changes: what all sessions see must be the same.
        self._quiet.set()
        for thread in self._threads:
            thread.join(TIMEOUT * 2)
        if kind is None:
            self._agree()

    def _agree(self) -> None:
        for user in self.users:
            views = {
                client.front: client.last for client in self._clients if client.user == user and client.last is not None
            }
            for client in self._clients:
                if client.user == user and client.last is None:
                    # On a busy machine logins may take too long: whoever cannot have that asks for this count.
                    self.ledger.note("sessions without a last view", user, "", f"{client.front}: {client.doing}")
            if len({tuple(sorted(view.items())) for view in views.values()}) > 1:
                first, second = [dict(view) for view in views.values()][:2]
                odd = {key: (first.get(key), second.get(key)) for key in first.keys() | second.keys()}
                told = "; ".join(f"{key}: {pair}" for key, pair in sorted(odd.items()) if pair[0] != pair[1])
                self.ledger.problem(f"{user}: two sessions disagree: {told}")

    def wait_for(self, what: str, times: int, seconds: float = 300.0) -> None:
        """Until something has happened so often from now on."""
        wanted = self.ledger.counts[what] + times
        self._wait(lambda: self.ledger.counts[what] >= wanted, f"{what} {times} times", seconds)

    def wait_for_everybody(self, seconds: float = 240.0) -> float:
        """Until every session has written something and compared all its mailboxes, and mail was taken; how long it took."""
        start = time.monotonic()
        deliveries = self.ledger.counts["deliveries"]
        self.round += 1

        def late() -> list[str]:
            return [f"{one.user} through {one.front}: {one.doing}" for one in self._clients if one.round < self.round]

        def all_well() -> bool:
            return self.ledger.counts["deliveries"] > deliveries and not late()

        self._wait(all_well, "every session reads and writes", seconds, lambda: "; ".join(late()))
        return time.monotonic() - start

    def _wait(
        self, condition: Callable[[], bool], what: str, seconds: float, more: Callable[[], str] = lambda: ""
    ) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {seconds:.0f} s: {what}; {dict(self.ledger.counts)}; {more()}")
            time.sleep(0.2)

    def longest_silence(self, since: float, what: Sequence[str], users: Iterable[str] = ()) -> float:
        """For how long at most a user got no such thing done since then."""
        end = time.monotonic() - self.ledger.start
        begin = since - self.ledger.start
        with self.ledger.lock:
            done = [row for row in self.ledger.operations if row[0] >= begin and row[2] in what]
        longest = 0.0
        for user in users or ("",):
            times = [begin, *(row[0] for row in done if user in ("", row[1])), end]
            longest = max(longest, *(later - earlier for earlier, later in itertools.pairwise(times)))
        return longest

    def _start(self, target: Client | Sender) -> threading.Thread:
        thread = threading.Thread(target=self._guarded, args=(target.run,), daemon=True)
        thread.start()
        return thread

    def _guarded(self, target: Callable[[], None]) -> None:
        try:
            target()
        except Exception as error:
            self.ledger.problem(f"a client died: {error!r}")

    def stopped(self, seconds: float = 0.0) -> bool:
        """Whether traffic is to end, after a pause."""
        return self._stop.wait(seconds) if seconds else self._stop.is_set()

    def wait_quiet(self) -> None:
        """Until nobody writes any more."""
        self._quiet.wait(TIMEOUT * 4)

    def message(self, user: str) -> tuple[str, bytes]:
        """A new message, which nobody has ever seen."""
        token = f"{self.ledger.run}-{next(self._tokens):06}"
        return token, MESSAGE.format(user=user, token=token).encode()

    def lmtp(self, dice: random.Random) -> tuple[str, int]:
        """One of the places that take mail."""
        return dice.choice(self._lmtp)


class Client:
    """One user's mail program: one session after the other."""

    def __init__(self, traffic: Traffic, user: str, front: str, dice: random.Random) -> None:
        self.traffic, self.user, self.front, self.dice = traffic, user, front, dice
        self.ledger = traffic.ledger
        self.where = forwarded(front, 143)
        self.who = f"through {front}"
        self.round = 0
        self.accepted = False
        self.doing = "nothing yet"
        self.alive, self.idle = True, False
        self.last: dict[tuple[str, int], tuple[str, ...]] | None = None

    def run(self) -> None:
        """Until the end, whatever happens; then once more, when nobody writes, for the last view."""
        try:
            while not self.traffic.stopped():
                self._once(self._work)
            self.idle = True
            self.traffic.wait_quiet()
            deadline = time.monotonic() + TIMEOUT
            while self.last is None and time.monotonic() < deadline:
                self._once(self._last_view)
        finally:
            self.alive = False

    def _once(self, work: Work) -> None:
        try:
            self._session(work)
        except (imaplib.IMAP4.error, OSError) as error:
            told = str(error)
            self.doing = f"{self.doing}: {told}"
            refused = "UNAVAILABLE" in told or "AUTHENT" in told
            self.ledger.note("logins refused" if refused else "sessions ended", self.user, "", told)
            time.sleep(self.dice.uniform(0.2, 1.0))

    def _session(self, work: Work) -> None:
        self.doing = "log in"
        imap = connect(*self.where, self.traffic.timeout)
        try:
            start = time.monotonic()
            imap.login(self.user, PASSWORD)
            self.ledger.note("logins", self.user)
            with self.ledger.lock:
                longest = max(self.ledger.counts["longest login, ms"], int(1000 * (time.monotonic() - start)))
                self.ledger.counts["longest login, ms"] = longest
            self.views = {INBOX: View(), COPIES: View()}
            self.doing = "create"
            imap.create(COPIES)  # NO where it is there already
            self._select(imap, INBOX)
            work(imap)
            imap.logout()
        finally:
            with contextlib.suppress(OSError):
                imap.shutdown()

    def _work(self, imap: imaplib.IMAP4) -> None:
        actions = (self._append, self._flag, self._copy, self._expunge, self._idle, self._other)
        self._look(imap, INBOX)
        while not self.traffic.stopped():
            wanted = self.traffic.round
            # Whatever comes goes again: a mailbox that only grows takes ever more time.
            gone = max(10, len(self.ledger.take(self.user, INBOX)) - 20)
            chosen = self.dice.choices(actions, (30, 30, 12, gone, 8, 10))
            # Somebody waits for a sign of life: write something, look everywhere.
            for action in [self._append, self._other] if wanted > self.round else chosen:
                self.doing = action.__name__.strip("_")
                with contextlib.suppress(Refused):
                    action(imap)
                self.doing = "look"
                self._look(imap, INBOX)
            if self.accepted:
                self.round = max(self.round, wanted)
            self.traffic.stopped(self.dice.uniform(0.6, 2.4) / self.traffic.pace)

    def _last_view(self, imap: imaplib.IMAP4) -> None:
        last: dict[tuple[str, int], tuple[str, ...]] = {}
        for box in (COPIES, INBOX):
            self._select(imap, box)
            self._look(imap, box)
            last |= {(box, uid): tuple(sorted(flags)) for uid, flags in self.views[box].flags.items()}
        self.last = last

    def _select(self, imap: imaplib.IMAP4, box: str) -> None:
        status, data = imap.select(box)
        if status != "OK":
            raise imaplib.IMAP4.abort(f"SELECT {box}: {data!r}")
        value = imap.response("UIDVALIDITY")[1][0]
        if isinstance(value, bytes):
            self.ledger.validity_is(self.user, box, int(value))

    def _look(self, imap: imaplib.IMAP4, box: str) -> None:
        """List the selected mailbox and compare it with the ledger."""
        asked = time.monotonic()
        view = self.views[box]
        imap.noop()
        listed = _parsed(imap.uid("FETCH", "1:*", "(FLAGS)"))
        view.flags = {uid: flags for uid, (flags, _) in listed.items()}
        fresh = sorted(uid for uid in listed if uid not in view.subjects)
        if fresh:
            if fresh[0] <= view.top:
                self.ledger.problem(f"{self.user}: new UID {fresh[0]} in {box}, and {view.top} was there ({self.who})")
            span = f"{fresh[0]}:{fresh[-1]}"
            told = _parsed(imap.uid("FETCH", span, "(FLAGS BODY.PEEK[HEADER.FIELDS (SUBJECT)])"))
            for uid in fresh:
                # Expunged between the two commands: not there.
                if uid in told:
                    view.subjects[uid] = told[uid][1]
                else:
                    del view.flags[uid]
            view.top = max(view.top, *listed)
        seen = [Seen(uid, view.subjects[uid], flags) for uid, flags in view.flags.items()]
        with self.ledger.lock:
            self.ledger.counts["looks"] += 1
        self.ledger.looked(self.user, box, seen, asked, self.who)

    def _do(self, what: str, token: str, command: Callable[[], Answer]) -> bool | None:
        """Send a command: whether it was done; what has no answer ends the session."""
        self.accepted = False
        try:
            status, data = command()
        except (imaplib.IMAP4.error, OSError) as error:
            self.ledger.note(f"{what} without answer", self.user, token, repr(error))
            raise
        self.accepted = status == "OK"
        if self.accepted:
            self.ledger.note(what, self.user, token)
            return True
        self.ledger.note(f"{what} refused", self.user, token, repr(data))
        return False

    def _append(self, imap: imaplib.IMAP4) -> None:
        token, data = self.traffic.message(self.user)
        message = self.ledger.adding(self.user, INBOX, token)
        done: bool | None = None
        try:
            done = self._do("appends", token, lambda: imap.append(INBOX, "", "", data))
        finally:
            self.ledger.added(message, done)

    @contextlib.contextmanager
    def _one(self) -> Iterator[tuple[str, Message]]:
        """A message of the INBOX to work on, for this client only."""
        with self.ledger.lock:
            # The server does nothing, and says OK, for a UID that this session has not been told of yet.
            told = self.views[INBOX].flags
            free = [one for one in self.ledger.take(self.user, INBOX) if one[1].uid in told]
            if not free:
                raise Refused
            token, message = self.dice.choice(free)
            message.busy = True
        try:
            yield token, message
        finally:
            message.busy = False

    def _flag(self, imap: imaplib.IMAP4) -> None:
        with self._one() as (token, message):
            flag = self.dice.choice(FLAGS)
            there = not message.flags.get(flag)
            before = self.ledger.flagging(message, flag)
            done: bool | None = None
            try:
                sign = "+" if there else "-"
                done = self._do(
                    "stores", token, lambda: imap.uid("STORE", str(message.uid), f"{sign}FLAGS.SILENT", f"({flag})")
                )
            finally:
                self.ledger.flagged(message, flag, there if done else before, done)

    def _copy(self, imap: imaplib.IMAP4) -> None:
        with self._one() as (token, message):
            if token in self.ledger.messages.get((self.user, COPIES), {}):
                return
            copy = self.ledger.adding(self.user, COPIES, token)
            done: bool | None = None
            try:
                done = self._do("copies", token, lambda: imap.uid("COPY", str(message.uid), COPIES))
            finally:
                self.ledger.added(copy, done)

    def _expunge(self, imap: imaplib.IMAP4) -> None:
        with self._one() as (token, message):
            self.ledger.removing(message)
            done: bool | None = None
            try:
                if self._do(
                    "marks", token, lambda: imap.uid("STORE", str(message.uid), "+FLAGS.SILENT", "(\\Deleted)")
                ):
                    done = self._do("expunges", token, lambda: imap.uid("EXPUNGE", str(message.uid)))
                else:
                    done = False
            finally:
                self.ledger.removed(message, done)

    def _idle(self, imap: imaplib.IMAP4) -> None:
        idle(imap, lambda: self.traffic.stopped(self.dice.uniform(1.0, 4.0)))
        self.ledger.note("idles", self.user)

    def _other(self, imap: imaplib.IMAP4) -> None:
        """Look into the other mailbox."""
        self._select(imap, COPIES)
        self._look(imap, COPIES)
        self._select(imap, INBOX)


class Sender:
    """A mail transfer agent: what is told to try again is tried again until it is taken."""

    def __init__(self, traffic: Traffic, dice: random.Random) -> None:
        self.traffic, self.dice = traffic, dice
        self.ledger = traffic.ledger

    def run(self) -> None:
        """Until the end, and until nothing is left to send."""
        queue: list[tuple[str, str, bytes]] = []
        while queue or not self.traffic.stopped():
            if not self.traffic.stopped() and len(queue) < 10:
                user = self.dice.choice(self.traffic.users)
                queue.append((user, *self.traffic.message(user)))
            user, token, data = queue.pop(0)
            if not self._deliver(user, token, data):
                queue.append((user, token, data))
                time.sleep(0.5)
            time.sleep(self.dice.uniform(0.2, 0.8) / self.traffic.pace)

    def _deliver(self, user: str, token: str, data: bytes) -> bool:
        """Try once; whether the message is off our hands."""
        message = self.ledger.adding(user, INBOX, token)
        try:
            with LmtpClient(*self.traffic.lmtp(self.dice), timeout=self.traffic.timeout) as lmtp:
                try:
                    reply = lmtp.deliver("a@example.com", [user], data)[user]
                except MailflowError as error:
                    self.ledger.added(message, None)
                    self.ledger.note("deliveries without answer", user, token, str(error))
                    return False
        except MailflowError as error:
            # Nobody was there to send it to.
            self.ledger.added(message, False)
            self.ledger.note("deliveries put off", user, token, str(error))
            return False
        if reply.ok:
            self.ledger.added(message, True)
            self.ledger.note("deliveries", user, token)
            return True
        # A proxy that is stopped says 421 of a message that a backend may have by then.
        doubt = reply.after_data and (reply.code == 421 or NOT_KNOWN.search(reply.text))
        self.ledger.added(message, None if doubt else False)
        self.ledger.note("deliveries without answer" if doubt else "deliveries put off", user, token, str(reply))
        if not 400 <= reply.code < 500:
            self.ledger.problem(f"{user}: refused for good: {reply}")
            return True
        return False


def found_once(ledger: Ledger, users: Iterable[str], front: str) -> list[str]:
    """Every accepted message is in its mailbox as often as it may be; what is not so."""
    asked = time.monotonic()
    for user in users:
        for box, seen in read(user, front).items():
            ledger.looked(user, box, seen, asked, f"read through {front}")
    return list(ledger.problems)


def read(user: str, front: str) -> dict[str, list[Seen]]:
    """What the user's mailboxes hold, by a new session."""
    found: dict[str, list[Seen]] = {}
    imap = connect(*forwarded(front, 143), TIMEOUT)
    try:
        imap.login(user, PASSWORD)
        for box in (INBOX, COPIES):
            imap.select(box, readonly=True)
            told = _parsed(imap.uid("FETCH", "1:*", "(FLAGS BODY.PEEK[HEADER.FIELDS (SUBJECT)])"))
            found[box] = [Seen(uid, subject, flags) for uid, (flags, subject) in told.items()]
    finally:
        imap.shutdown()
    return found


def _parsed(answer: Answer) -> dict[int, tuple[frozenset[str], str]]:
    """Flags and subject by UID."""
    status, data = answer
    if status != "OK":
        raise imaplib.IMAP4.abort(f"FETCH: {data!r}")
    found: dict[int, tuple[frozenset[str], str]] = {}
    for index, part in enumerate(data):
        text, subject = part, ""
        if isinstance(part, tuple):
            after = data[index + 1] if index + 1 < len(data) else b""
            text = part[0] + b" " + (after if isinstance(after, bytes) else b"")
            match = re.search(rb"Subject: (\S+)", part[1], re.IGNORECASE)
            subject = match[1].decode("ascii", "replace") if match else ""
        if not isinstance(text, bytes):
            continue
        uid, flags = re.search(rb"\bUID (\d+)", text), re.search(rb"\bFLAGS \(([^)]*)\)", text)
        if uid and flags:
            names = flags[1].decode("ascii", "replace").split()
            found[int(uid[1])] = (frozenset(names) - {"\\Recent"}, subject)
    return found


def now(machine: str) -> str:
    """The machine's clock, for `overlaps`."""
    return on(machine, "date +%s").strip()


def overlaps(backends: Sequence[str], since: str) -> tuple[int, list[str]]:
    """On how many backends a user was open at once at most, by their logs; and every moment when it was more than one."""
    spans: dict[str, list[tuple[float, float, str]]] = {}
    for backend in backends:
        for user, start, end in spans_of(
            on(backend, f"journalctl -u dovecot --since @{since} -o short-unix --no-pager")
        ):
            spans.setdefault(user, []).append((start, end, backend))
    most, found = 0, []
    for user, rows in spans.items():
        for start, end, backend in rows:
            there = {other for begin, close, other in rows if begin <= end and start <= close}
            most = max(most, len(there))
            if len(there) > 1:
                found.append(
                    f"{user}: open on {' and '.join(sorted(there))} at {start:.3f} ({backend} until {end:.3f})"
                )
    return most, found


def spans_of(log: str) -> list[tuple[str, float, float]]:
    """Sessions and deliveries of a log: user, begin, end. A session without an end lasts until now, or until the machine died."""
    begun: dict[tuple[str, str], float] = {}
    processes: dict[str, tuple[str, str]] = {}
    spans = []
    last = 0.0
    for line in log.splitlines():
        if match := START.search(line):
            spans += [(user, start, last) for (user, _session), start in begun.items()]
            begun.clear()
        if match := STAMP.match(line):
            last = float(match[0])
        if match := LOGIN.search(line):
            begun[match[2].lower(), match[3]] = float(match[1])
            if process := PROCESS.search(line):
                processes[process[1]] = match[2].lower(), match[3]
        elif match := OUT.search(line):
            start = begun.pop((match[2].lower(), match[3]), None)
            if start is not None:
                spans.append((match[2].lower(), start, float(match[1])))
        elif match := KILLED.search(line):
            # It says nothing any more.
            session = processes.get(match[2], ("", ""))
            if session in begun:
                spans.append((session[0], begun.pop(session), float(match[1])))
        elif match := MAIL.search(line):
            spans.append((match[2].lower(), float(match[1]), float(match[1])))
    return spans + [(user, start, float("inf")) for (user, _session), start in begun.items()]
