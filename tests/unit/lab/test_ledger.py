# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The ledger is fed with what must never be, and says so; with what may be, and is silent."""

from __future__ import annotations

import time

import pytest
from ledger import Ledger, Message, Seen, Tally

USER, BOX = "anna@example.com", "INBOX"


@pytest.fixture
def ledger() -> Ledger:
    return Ledger(run="run-")


def accepted(ledger: Ledger, token: str = "run-1", tries: tuple[bool | None, ...] = (True,)) -> Message:
    for done in tries:
        message = ledger.adding(USER, BOX, token)
        ledger.added(message, done)
    return message


def look(ledger: Ledger, *seen: Seen, asked: float | None = None) -> list[str]:
    ledger.looked(USER, BOX, seen, time.monotonic() if asked is None else asked, "a test")
    return ledger.problems


def tally(ledger: Ledger, *seen: Seen) -> Tally:
    return ledger.compare({(USER, BOX): list(seen)})["before"]


def test_a_message_that_is_there_once_is_no_problem(ledger: Ledger) -> None:
    accepted(ledger)
    assert look(ledger, Seen(1, "run-1"), Seen(2, "older message")) == []
    assert tally(ledger, Seen(1, "run-1")) == Tally(accepted=1, found=1)


def test_a_dropped_message_is_found(ledger: Ledger) -> None:
    accepted(ledger)
    assert "was accepted and is not there" in look(ledger)[0]
    assert tally(ledger) == Tally(accepted=1, lost=1)


def test_a_mailbox_that_was_asked_for_before_the_answer_says_nothing(ledger: Ledger) -> None:
    asked = time.monotonic()
    accepted(ledger)
    assert look(ledger, asked=asked - 1) == []


def test_a_doubled_message_is_found(ledger: Ledger) -> None:
    accepted(ledger)
    twice = Seen(1, "run-1"), Seen(2, "run-1")
    assert "is there 2 times" in look(ledger, *twice)[0]
    assert tally(ledger, *twice) == Tally(accepted=1, found=1, duplicated=1)


@pytest.mark.parametrize("count", [0, 1])
def test_an_append_in_doubt_is_there_once_at_most(ledger: Ledger, count: int) -> None:
    accepted(ledger, tries=(None,))
    seen = [Seen(uid, "run-1") for uid in range(1, count + 1)]
    assert look(ledger, *seen) == []
    assert tally(ledger, *seen) == Tally(in_doubt=1)


def test_an_append_in_doubt_is_not_there_twice(ledger: Ledger) -> None:
    accepted(ledger, tries=(None,))
    twice = Seen(1, "run-1"), Seen(2, "run-1")
    assert look(ledger, *twice)
    assert tally(ledger, *twice).duplicated == 1


def test_a_delivery_in_doubt_that_was_tried_again_may_be_there_twice_and_not_three_times(ledger: Ledger) -> None:
    accepted(ledger, tries=(None, True))
    seen = [Seen(uid, "run-1") for uid in (1, 2, 3)]
    assert look(ledger, *seen[:1]) == look(ledger, *seen[:2]) == []
    assert tally(ledger, *seen[:2]) == Tally(accepted=1, found=1, repeated=1)
    assert look(ledger, *seen)
    assert tally(ledger, *seen).duplicated == 1


def test_a_try_that_was_refused_leaves_nothing(ledger: Ledger) -> None:
    accepted(ledger, tries=(False,))
    assert "accepted or in doubt 0 times" in look(ledger, Seen(1, "run-1"))[0]
    assert tally(ledger, Seen(1, "run-1")).duplicated == 1


def test_a_refusal_proves_nothing_where_nothing_can_be_taken_back(ledger: Ledger) -> None:
    ledger.unsure_refusals = True
    accepted(ledger, tries=(False, True))
    assert look(ledger, Seen(1, "run-1"), Seen(2, "run-1")) == look(ledger, Seen(1, "run-1")) == []
    assert look(ledger)


def test_a_message_that_was_never_sent_is_found(ledger: Ledger) -> None:
    assert "was never sent there" in look(ledger, Seen(1, "run-7"))[0]


def test_an_expunged_message_never_returns(ledger: Ledger) -> None:
    message = accepted(ledger)
    ledger.removing(message)
    assert look(ledger, Seen(1, "run-1")) == look(ledger) == []
    ledger.removed(message, True)
    assert look(ledger) == []
    assert "was expunged and is there again" in look(ledger, Seen(1, "run-1"))[0]
    assert tally(ledger, Seen(1, "run-1")) == Tally(accepted=1, expunged=1, returned=1)


def test_an_expunge_that_was_refused_leaves_the_message(ledger: Ledger) -> None:
    message = accepted(ledger)
    ledger.removing(message)
    ledger.removed(message, False)
    assert "was accepted and is not there" in look(ledger)[0]


def test_an_expunge_in_doubt_may_have_been_done(ledger: Ledger) -> None:
    message = accepted(ledger)
    ledger.removing(message)
    ledger.removed(message, None)
    assert look(ledger) == look(ledger, Seen(1, "run-1")) == []


@pytest.mark.parametrize("there", [True, False])
def test_a_lost_flag_and_one_that_stays_are_found(ledger: Ledger, there: bool) -> None:
    message = accepted(ledger)
    before = ledger.flagging(message, "\\Seen")
    assert look(ledger, Seen(1, "run-1")) == look(ledger, Seen(1, "run-1", frozenset({"\\Seen"}))) == []
    ledger.flagged(message, "\\Seen", there, True)
    wrong = Seen(1, "run-1", frozenset() if there else frozenset({"\\Seen"}))
    assert before is False
    assert f"{'has lost' if there else 'still has'} \\Seen" in look(ledger, wrong)[0]
    assert tally(ledger, wrong) == Tally(accepted=1, found=1, flags_set=1, flags_lost=1)


def test_a_flag_in_doubt_may_be_there(ledger: Ledger) -> None:
    message = accepted(ledger)
    ledger.flagged(message, "\\Seen", ledger.flagging(message, "\\Seen"), None)
    assert look(ledger, Seen(1, "run-1")) == look(ledger, Seen(1, "run-1", frozenset({"\\Seen"}))) == []
    # Whatever hangs may still happen: nobody touches it any more.
    assert ledger.take(USER, BOX) == []


def test_a_uid_stays_with_its_message(ledger: Ledger) -> None:
    accepted(ledger, "run-1")
    accepted(ledger, "run-2")
    look(ledger, Seen(1, "run-1"), Seen(2, "run-2"))
    told = "\n".join(look(ledger, Seen(2, "run-1"), Seen(1, "run-2")))
    assert "UID 1 of INBOX was run-1 and is run-2" in told and "run-1 in INBOX had UID 1 and has 2" in told


def test_uidvalidity_stays(ledger: Ledger) -> None:
    ledger.validity_is(USER, BOX, 7)
    assert ledger.problems == []
    ledger.validity_is(USER, BOX, 8)
    assert "was 7 and is 8" in ledger.problems[0]


def test_a_message_in_work_or_not_seen_yet_is_nobody_else_s(ledger: Ledger) -> None:
    message = accepted(ledger)
    assert ledger.take(USER, BOX) == []
    look(ledger, Seen(1, "run-1"))
    assert [token for token, _ in ledger.take(USER, BOX)] == ["run-1"]
    message.busy = True
    assert ledger.take(USER, BOX) == []
