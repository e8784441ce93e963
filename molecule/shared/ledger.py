# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What servers have said about each message, and what may therefore be in the mailboxes. No network in here.

A command is entered before it is sent (`adding`, `removing`, `flagging`), because from then on its effect may be seen, and
settled when the answer is known:

- done: the effect must be there;
- refused: it must not be;
- no answer, the command is in doubt: the effect may be there or not, now or later, since a process that hangs on a dead
  server goes on when that is back. It stays in doubt, and the message is not touched any more.

Where a fault keeps the server from taking back what it has written, a refusal proves nothing either (`unsure_refusals`).

An APPEND or COPY in doubt may thus be found once or not at all. A delivery in doubt is tried again, as any mail transfer
agent does: the message must be there once the last try was accepted, and at most once for every try that was sent whole.
An EXPUNGE in doubt may be found or not; one that was accepted must never be found again.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

Box = tuple[str, str]  # user, mailbox


@dataclass(frozen=True)
class Seen:
    """A message as a mailbox shows it; without a token it is none of ours."""

    uid: int
    token: str
    flags: frozenset[str] = frozenset()


@dataclass
class Message:
    """What is known of one message in one mailbox."""

    window: str
    least: int = 0
    most: int = 0
    # When that became true: a mailbox that was read earlier says nothing.
    sure_since: float = 0.0
    gone_since: float | None = None
    # Whether a flag is there; None: in doubt, for now or for ever.
    flags: dict[str, bool | None] = field(default_factory=dict)
    flags_since: dict[str, float] = field(default_factory=dict)
    doubted: bool = False
    busy: bool = False
    uid: int | None = None


@dataclass
class Tally:
    """The messages that were accepted in one window of time, compared with what mailboxes hold."""

    accepted: int = 0
    in_doubt: int = 0
    expunged: int = 0
    found: int = 0
    lost: int = 0
    returned: int = 0
    duplicated: int = 0
    # Twice or more, as they may be: a delivery without an answer was tried again.
    repeated: int = 0
    flags_set: int = 0
    flags_lost: int = 0


@dataclass
class Ledger:
    """What servers have accepted, by user, mailbox and message, and what clients saw."""

    # Tokens begin with this; other messages are from earlier runs.
    run: str = ""
    # By user and mailbox, then by token.
    messages: dict[Box, dict[str, Message]] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    # Every operation: seconds since the start, user, what, token, how it ended.
    operations: list[tuple[float, str, str, str, str]] = field(default_factory=list)
    window: str = "before"
    unsure_refusals: bool = False
    start: float = field(default_factory=time.monotonic)
    validity: dict[Box, int] = field(default_factory=dict)
    tokens: dict[tuple[str, str, int], str] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def note(self, what: str, user: str = "", token: str = "", ended: str = "ok") -> None:
        """Count something, and write it down."""
        with self.lock:
            self.counts[what] += 1
            self.operations.append((time.monotonic() - self.start, user, what, token, ended))

    def problem(self, text: str) -> None:
        """Something that must never be; once for each text."""
        with self.lock:
            if text not in self.problems:
                self.problems.append(text)
                self.operations.append((time.monotonic() - self.start, "", "problem", "", text))

    def write(self, path: Path) -> None:
        """The operation log, a line of JSON for each."""
        with self.lock:
            rows = [json.dumps([round(row[0], 3), *row[1:]]) for row in self.operations]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(rows) + "\n", encoding="utf-8")

    # What is sent, and how it ended.

    def adding(self, user: str, box: str, token: str) -> Message:
        """A message is about to be sent, or sent again, into a mailbox."""
        with self.lock:
            message = self.messages.setdefault((user, box), {}).setdefault(token, Message(self.window))
            message.most += 1
            return message

    def added(self, message: Message, done: bool | None) -> None:
        """It was accepted, refused (nothing may be there of this try), or nobody knows."""
        with self.lock:
            if done is None or (self.unsure_refusals and not done):
                message.doubted = True
            elif done:
                message.least, message.sure_since, message.window = 1, time.monotonic(), self.window
            else:
                message.most -= 1

    def removing(self, message: Message) -> None:
        """An EXPUNGE is about to be sent."""
        with self.lock:
            message.least = 0

    def removed(self, message: Message, done: bool | None) -> None:
        """It was accepted, refused, or nobody knows."""
        with self.lock:
            if done is None:
                message.doubted = True
            elif done:
                message.most, message.gone_since = 0, time.monotonic()
            else:
                message.least, message.sure_since = 1, time.monotonic()

    def flagging(self, message: Message, flag: str) -> bool | None:
        """A STORE is about to be sent; what held before."""
        with self.lock:
            before = message.flags.get(flag, False)
            message.flags[flag] = None
            return before

    def flagged(self, message: Message, flag: str, there: bool | None, done: bool | None) -> None:
        """It was accepted (``there``: set or taken away), refused (it is as before), or nobody knows."""
        with self.lock:
            if done is None:
                message.doubted = True
            else:
                message.flags[flag] = there
                message.flags_since[flag] = time.monotonic()

    def take(self, user: str, box: str) -> list[tuple[str, Message]]:
        """The messages that a client may work on: there for sure, and nobody else works on them."""
        with self.lock:
            return [
                (token, message)
                for token, message in self.messages.get((user, box), {}).items()
                if message.least == message.most == 1
                and message.uid is not None
                and not (message.busy or message.doubted)
            ]

    # What mailboxes show.

    def looked(self, user: str, box: str, seen: Iterable[Seen], asked: float, who: str) -> None:
        """A client has listed a mailbox that it asked for at ``asked``; whatever must not be is a problem."""
        there: dict[str, list[Seen]] = {}
        with self.lock:
            for one in seen:
                token = one.token if one.token.startswith(self.run) else "a stranger"
                known = self.tokens.setdefault((user, box, one.uid), token)
                if known != token:
                    self.problem(f"{user}: UID {one.uid} of {box} was {known} and is {token} ({who})")
                if token == one.token:
                    there.setdefault(token, []).append(one)
            for token, message in self.messages.get((user, box), {}).items():
                found = there.pop(token, [])
                for trouble in self._troubles(message, found, asked):
                    self.problem(f"{user}: {token} in {box} {trouble} ({who}, during: {self.window})")
                if len(found) == 1:
                    message.uid = found[0].uid
            for token in there:
                self.problem(f"{user}: {token} is in {box} and was never sent there ({who})")

    def validity_is(self, user: str, box: str, value: int) -> None:
        """UIDVALIDITY never changes."""
        with self.lock:
            known = self.validity.setdefault((user, box), value)
        if known != value:
            self.problem(f"{user}: UIDVALIDITY of {box} was {known} and is {value} (during: {self.window})")

    @staticmethod
    def _troubles(message: Message, found: list[Seen], asked: float) -> Iterable[str]:
        count = len(found)
        if message.gone_since is not None:
            if count and message.gone_since < asked:
                yield "was expunged and is there again"
            return
        if count < message.least and message.sure_since < asked:
            yield "was accepted and is not there"
        if count > message.most:
            yield f"is there {count} times, accepted or in doubt {message.most} times"
        if message.uid is not None and count == 1 and message.most == 1 and found[0].uid != message.uid:
            yield f"had UID {message.uid} and has {found[0].uid}"
        if count == 1:
            for flag in _wrong_flags(message, found[0], asked):
                yield f"{'has lost' if message.flags[flag] else 'still has'} {flag}"

    # The reckoning.

    def compare(self, holds: Mapping[Box, list[Seen]]) -> dict[str, Tally]:
        """Everything against what mailboxes hold once all is quiet; by the window in which it was accepted."""
        tallies: dict[str, Tally] = {}
        now = time.monotonic()
        with self.lock:
            everything = ((box, *entry) for box, entries in self.messages.items() for entry in entries.items())
            for box, token, message in everything:
                tally = tallies.setdefault(message.window, Tally())
                found = [one for one in holds.get(box, []) if one.token == token]
                count = len(found)
                if message.gone_since is not None:
                    tally.accepted += 1
                    tally.expunged += 1
                    tally.returned += count > 0
                    continue
                if not message.least:
                    # Refused for good, or in doubt.
                    tally.in_doubt += message.most > 0
                    tally.duplicated += count > message.most
                    continue
                tally.accepted += 1
                tally.found += count > 0
                tally.lost += count == 0
                tally.duplicated += count > message.most
                tally.repeated += 1 < count <= message.most
                sure = [flag for flag, there in message.flags.items() if there is not None]
                tally.flags_set += len(sure)
                if count == 1:
                    tally.flags_lost += len(list(_wrong_flags(message, found[0], now)))
        return tallies


def _wrong_flags(message: Message, seen: Seen, asked: float) -> Iterable[str]:
    for flag, there in message.flags.items():
        if there is not None and message.flags_since[flag] < asked and (flag in seen.flags) != there:
            yield flag
