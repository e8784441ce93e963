# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compare what came back with what was sent, byte for byte.

Delivery may put trace header fields on top of a message and nothing else. So a stored message is right when
it is some number of whole trace fields followed by exactly the bytes that were sent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from mailflow.imap import Stored
from mailflow.samples import Sample

_TRACE = re.compile(rb"(?:return-path|delivered-to|received)[ \t]*:", re.IGNORECASE)
_SHOWN = 160
_CONTEXT = 2


def trace_ends(message: bytes) -> list[int]:
    """The offsets at which the message may begin: 0, and the end of each leading trace header field."""
    ends = [0]
    while _TRACE.match(message, ends[-1]):
        position = ends[-1]
        while True:
            newline = message.find(b"\n", position)
            if newline < 0:
                return ends
            position = newline + 1
            if message[position : position + 1] not in (b" ", b"\t"):
                break
        ends.append(position)
    return ends


def delivery_session(stored: bytes) -> str:
    """The id of the session that delivered the message, as the topmost Received field tells it, or ''."""
    for start, end in pairwise(trace_ends(stored)):
        header = stored[start:end]
        if header[:9].lower() == b"received:":
            match_id = re.search(rb"\sid ([^\s;]+)", header)
            return match_id.group(1).decode("ascii", "backslashreplace") if match_id else ""
    return ""


def is_delivered(stored: bytes, sent: bytes) -> bool:
    """Whether ``stored`` is ``sent`` with nothing but whole trace header fields put on top."""
    if not stored.endswith(sent):
        return False
    top = stored[: len(stored) - len(sent)]
    return trace_ends(top)[-1] == len(top)


def _common_length(left: bytes, right: bytes) -> int:
    """How many bytes the two begin with in common."""
    low, high = 0, min(len(left), len(right))
    while low < high:
        middle = (low + high + 1) // 2
        if left[:middle] == right[:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def first_difference(stored: bytes, sent: bytes) -> str:
    """Show the first line that differs, with the lines around it; '' if none does."""
    if is_delivered(stored, sent):
        return ""
    bodies = [stored[end:] for end in trace_ends(stored)]
    body = max(bodies, key=lambda candidate: _common_length(candidate, sent))
    ours, theirs = sent.splitlines(keepends=True), body.splitlines(keepends=True)
    at = next((i for i, pair in enumerate(zip(ours, theirs, strict=False)) if pair[0] != pair[1]), None)
    if at is None:
        at = min(len(ours), len(theirs))
    lines = [f"first difference at line {at + 1} ({len(sent)} bytes sent, {len(body)} came back)"]
    lines += [f"    {line[:_SHOWN]!r}" for line in ours[max(0, at - _CONTEXT) : at]]
    lines.append(f"  - {_line(ours, at)}")
    lines.append(f"  + {_line(theirs, at)}")
    lines += [f"    {line[:_SHOWN]!r}" for line in ours[at + 1 : at + 1 + _CONTEXT]]
    return "\n".join(lines)


def _line(lines: Sequence[bytes], at: int) -> str:
    return repr(lines[at][:_SHOWN]) if at < len(lines) else "(end of message)"


@dataclass(frozen=True)
class Expected:
    """A message that a user must have; ``session`` is the id in the server's reply, or ''."""

    sample: Sample
    session: str = ""


@dataclass
class Matching:
    """What one mailbox holds, set against what was sent to it; uids by sample name."""

    found: dict[str, int] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def match(stored: Sequence[Stored], expected: Sequence[Expected]) -> Matching:
    """Pair every stored message with the one that was sent; each must be there exactly once, and no other."""
    result = Matching()
    by_name = {item.sample.name: item for item in expected}
    strangers: list[Stored] = []
    for message in stored:
        fits = [item for item in by_name.values() if is_delivered(message.data, item.sample.data)]
        if not fits:
            strangers.append(message)
            continue
        # A message that begins with trace fields of its own may end like a shorter one: the longest is meant.
        name = max(fits, key=lambda item: len(item.sample.data)).sample.name
        if name in result.found:
            result.problems.append(f"{name} is there twice: UID {result.found[name]} and UID {message.uid}")
        else:
            result.found[name] = message.uid
    lost = {name: item for name, item in by_name.items() if name not in result.found}
    for message in strangers:
        meant = _meant(message, lost)
        if meant is None:
            start = message.data[trace_ends(message.data)[-1] :][:_SHOWN]
            result.problems.append(f"UID {message.uid} was never sent ({len(message.data)} bytes): {start!r}")
        else:
            sent = lost.pop(meant).sample.data
            difference = first_difference(message.data, sent)
            result.problems.append(f"{meant} came back changed, UID {message.uid}: {difference}")
    result.problems += [f"{name} is missing" for name in lost]
    result.missing = [name for name in by_name if name not in result.found]
    return result


def _meant(message: Stored, lost: Mapping[str, Expected]) -> str | None:
    """Which of the missing messages a changed one was: by the session id in its trace, or by its lines."""
    top = message.data[: trace_ends(message.data)[-1]]
    named = [name for name, item in lost.items() if item.session and _names_session(top, item.session)]
    if len(named) == 1:
        return named[0]
    lines = set(message.data.splitlines())
    scores = {name: _share(set(item.sample.data.splitlines()), lines) for name, item in lost.items()}
    best = max(scores, key=lambda name: scores[name], default=None)
    return best if best is not None and scores[best] > 0.5 else None


def _names_session(top: bytes, session: str) -> bool:
    return re.search(rb"\bid " + re.escape(session.encode()) + rb"(?![^\s;(])", top) is not None


def _share(wanted: set[bytes], there: set[bytes]) -> float:
    return len(wanted & there) / len(wanted) if wanted else 0.0
