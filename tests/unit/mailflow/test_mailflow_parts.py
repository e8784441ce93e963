# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The parts that need no server."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mailflow import MailflowError, Sample, find_samples, placement, shard_of, writers
from mailflow.compare import (
    Expected,
    delivery_session,
    first_difference,
    is_delivered,
    match,
    trace_ends,
)
from mailflow.imap import Stored, parse_fetch
from mailflow.lmtp import Reply, dot_stuffed
from mailflow.placement import log_saves, parse_hosts, parse_shards
from mailflow.plan import MAX_RECIPIENTS, parse_users, spread
from mailflow.samples import SAMPLE_FOLDER, looks_like_mail, reason_to_exclude, suite_folders, with_crlf

TRACE = b"Return-Path: <a@b.c>\r\nReceived: from p\r\n\tby m with LMTP\r\n\tid Ab/c+1\r\n\t; now\r\n"
OWN_TRACE = b"Received: by mail.dom.ain\r\n\tid B9D0\r\n"
MAIL = b"Subject: x\r\n\r\nbody\r\n"


class TestSamples:
    def _fill(self, folder: Path, count: int) -> None:
        for number in range(count):
            (folder / f"msg_{number:02d}.txt").write_text(f"Subject: {number}\n\nx\n")

    def test_the_interpreters_own_test_suite_or_a_clear_error(self) -> None:
        if any((suite / SAMPLE_FOLDER).is_dir() for suite in suite_folders()):
            found = find_samples()
            assert len({sample.data for sample in found.samples}) == len(found.samples) >= 40
        else:
            with pytest.raises(MailflowError, match="-testsuite, or name a folder"):
                find_samples()

    def test_left_out_with_a_reason(self, tmp_path: Path) -> None:
        self._fill(tmp_path, 3)
        (tmp_path / "same.eml").write_bytes(b"Subject: 1\r\n\r\nx\r\n")
        (tmp_path / "nul.txt").write_bytes(b"Subject: 1\n\n\0\n")
        (tmp_path / "picture.png").write_bytes(b"\x89PNG")
        found = find_samples(3, [tmp_path])
        assert [sample.name for sample in found.samples] == ["msg_00.txt", "msg_01.txt", "msg_02.txt"]
        reasons = {Path(item.name).name: item.reason for item in found.excluded}
        assert reasons.keys() == {"same.eml", "nul.txt"}
        assert reasons["same.eml"].startswith("same content as ")
        assert reasons["nul.txt"].startswith("contains NUL")

    def test_too_few(self, tmp_path: Path) -> None:
        self._fill(tmp_path, 39)
        with pytest.raises(MailflowError, match=r"only 39 e-mail samples, 40 are needed .*-testsuite, or name"):
            find_samples(40, [tmp_path])
        with pytest.raises(MailflowError, match="no such folder"):
            find_samples(40, [tmp_path / "nowhere"])

    def test_the_rest_of_the_suite_helps_out(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        data = tmp_path / "test_email" / "data"
        data.mkdir(parents=True)
        self._fill(data, 2)
        other = tmp_path / "other"
        other.mkdir()
        (other / "real.txt").write_text("From: a@b.c\nTo: d@e.f\n\nhello\n")
        (other / "words.txt").write_text("Dear: reader\n")
        monkeypatch.setattr("mailflow.samples.suite_folders", lambda: iter([tmp_path]))
        assert [s.name for s in find_samples(3).samples] == ["msg_00.txt", "msg_01.txt", "real.txt"]
        assert len(find_samples(2).samples) == 2

    @pytest.mark.parametrize(
        ("data", "reason"),
        [(b"a\0b", "contains NUL"), (b"a\rb\n", "contains a bare CR"), (b" \n", "empty"), (b"a\r\n", None)],
    )
    def test_reasons(self, data: bytes, reason: str | None) -> None:
        found = reason_to_exclude(data)
        assert found is None if reason is None else (found or "").startswith(reason)

    @pytest.mark.parametrize("data", [b"From x Mon\nSubject: a\n\n", b"." * 5000, "ä".encode(), b"no header\n"])
    def test_what_dovecot_keeps_is_no_reason(self, data: bytes) -> None:
        assert reason_to_exclude(data) is None

    @given(st.binary())
    def test_crlf_is_stable(self, data: bytes) -> None:
        once = with_crlf(data)
        assert with_crlf(once) == once
        assert once.endswith(b"\r\n")
        assert once.count(b"\n") == once.count(b"\r\n")

    def test_looks_like_mail(self) -> None:
        assert looks_like_mail(b"From x\nFrom: a\n\tb\nTo: c\n\n")
        assert not looks_like_mail(b"From: a\n\nTo: c\n")


class TestPlan:
    samples = tuple(Sample(f"s{n}", b"%d\r\n" % n) for n in range(48))

    @given(st.integers(), st.integers(20, 120), st.integers(1, 4))
    def test_promises(self, seed: int, count: int, per_user: int) -> None:
        users = [f"u{n}" for n in range(count)]
        places = {user: f"mail{1 + n % 2}" for n, user in enumerate(users)}
        plan = spread(self.samples, users, seed, per_user, places)
        pairs = [(item.sample.name, user) for item in plan for user in item.recipients]
        assert len(set(pairs)) == len(pairs)
        assert {name for name, _ in pairs} == {sample.name for sample in self.samples}
        assert all(sum(user == other for _, other in pairs) >= per_user for user in users)
        assert all(1 <= len(item.recipients) <= MAX_RECIPIENTS for item in plan)
        assert sum(len({places[user] for user in item.recipients}) > 1 for item in plan) >= 12
        assert plan == spread(self.samples, reversed(users), seed, per_user, places)

    def test_another_seed_is_another_plan(self) -> None:
        users = [f"u{n}" for n in range(20)]
        assert spread(self.samples, users, 1) != spread(self.samples, users, 2)

    def test_more_per_user_than_samples(self) -> None:
        with pytest.raises(MailflowError, match="cannot give every user 3"):
            spread(self.samples[:2], ["a", "b"], 1, 3)

    def test_users(self) -> None:
        lines = ["# note", "", "a@b.c:{PLAIN}pw:1:2::/h::x=y", "d@e.f:plain", "g@h.i two words"]
        assert parse_users(lines) == {"a@b.c": "pw", "d@e.f": "plain", "g@h.i": "two words"}

    @pytest.mark.parametrize("line", ["a", "a:", ":b", "a:{SHA512-CRYPT}$6$", "x@y.z:p\nX@y.z:q"])
    def test_bad_users(self, line: str) -> None:
        with pytest.raises(MailflowError, match=r"users, line \d"):
            parse_users(line.split("\n"))


class TestCompare:
    def test_trace(self) -> None:
        assert is_delivered(MAIL, MAIL)
        assert is_delivered(TRACE + MAIL, MAIL)
        assert is_delivered(TRACE + OWN_TRACE + MAIL, OWN_TRACE + MAIL)
        assert not is_delivered(TRACE + b"X-Spam: no\r\n" + MAIL, MAIL)
        assert not is_delivered(b"x" + MAIL, MAIL)
        assert not is_delivered(TRACE[:-2] + MAIL, MAIL)
        assert trace_ends(TRACE) == [0, TRACE.index(b"Received"), len(TRACE)]
        assert trace_ends(b"Received: unfinished") == [0]

    def test_mail_that_begins_with_a_folded_line_or_a_from_line(self) -> None:
        for odd in (b" folded\r\n" + MAIL, b"From x Mon\r\n" + MAIL, b"\r\nno header\r\n"):
            assert is_delivered(TRACE + odd, odd)

    @given(st.binary(max_size=200), st.integers(0), st.integers(1, 255))
    def test_any_changed_byte_shows(self, body: bytes, place: int, flip: int) -> None:
        sent = MAIL + body + b"\r\n"
        at = place % len(sent)
        changed = sent[:at] + bytes([sent[at] ^ flip]) + sent[at + 1 :]
        assert is_delivered(TRACE + sent, sent)
        assert not is_delivered(TRACE + changed, sent)
        assert first_difference(TRACE + sent, sent) == ""
        assert "first difference at line" in first_difference(TRACE + changed, sent)

    def test_difference_of_length(self) -> None:
        assert "+ (end of message)" in first_difference(TRACE + MAIL[:-6], MAIL)
        assert "- (end of message)" in first_difference(TRACE + MAIL + b"more\r\n", MAIL)

    def test_the_longer_of_two_that_fit_is_meant(self) -> None:
        short, long = Sample("short", MAIL), Sample("long", OWN_TRACE + MAIL)
        stored = [Stored(1, "", TRACE + OWN_TRACE + MAIL), Stored(2, "", TRACE + MAIL)]
        result = match(stored, [Expected(short), Expected(long)])
        assert result.found == {"long": 1, "short": 2}
        assert result.problems == []

    def test_the_session_tells_which_one_was_changed(self) -> None:
        samples = [Expected(Sample(f"s{n}", MAIL + b"%d\r\n" % n), f"Ab/c+{n}") for n in range(3)]
        result = match([Stored(9, "", TRACE + b"all\r\n\r\ndifferent\r\n")], samples)
        assert result.problems[0].startswith("s1 came back changed, UID 9")
        assert result.problems[1:] == ["s0 is missing", "s2 is missing"]
        assert result.missing == ["s0", "s1", "s2"]

    def test_delivery_session(self) -> None:
        assert delivery_session(TRACE + OWN_TRACE + MAIL) == "Ab/c+1"
        assert delivery_session(MAIL) == ""

    def test_parse_fetch(self) -> None:
        data: list[object] = [(b"1 (UID 7 X-GUID 17.M1P2.mail1 BODY[] {3}", b"abc"), b")"]
        data += [(b"2 (BODY[] {1}", b"d"), b" UID 8)", b"3 (FLAGS ())"]
        assert parse_fetch(data) == [Stored(7, "17.M1P2.mail1", b"abc"), Stored(8, "", b"d")]


class TestLmtp:
    def test_dots(self) -> None:
        assert dot_stuffed(b".\r\n..a\r\nb.\r\n") == b"..\r\n...a\r\nb.\r\n.\r\n"

    @given(st.lists(st.sampled_from([b".", b"a", b"\r\n", b"\r\n."])).map(b"".join))
    def test_dots_round_trip(self, text: bytes) -> None:
        data = text + b"\r\n"
        lines = dot_stuffed(data).split(b"\r\n")
        assert lines[-2:] == [b".", b""]
        assert b".\r\n" not in [line + b"\r\n" for line in lines[:-2]]
        assert b"".join(line.removeprefix(b".") + b"\r\n" for line in lines[:-2]) == data

    @pytest.mark.parametrize(
        ("text", "session"),
        [
            ("2.0.0 <a@b.c> X7rd/v3+BG Saved", "X7rd/v3+BG"),
            ("2.0.0 <a@b.c> X7rd:T29:R2 Saved", "X7rd:T29"),
            ("2.0.0 OK", ""),
        ],
    )
    def test_session(self, text: str, session: str) -> None:
        assert Reply(250, text).session == session


class TestPlacement:
    def test_writers(self) -> None:
        listing = [
            "./b.example/u00/Maildir/cur/1795478269.M489014P21970.mail1,S=9343,W=9357:2,S\n",
            "b.example/u00/Maildir/new/1795478270.M1P2.mail1",
            "/srv/mail/a.example/u01/Maildir/.Sent/cur/1.M1P2.mail2:2,",
            "a.example/u01/Maildir/cur/1.M1P2.mail1.example.org,S=1:2,FS",
            "a.example/u02/Maildir/cur/1.M1P2.od\\072d,S=1:2,",
            "a.example/u03/Maildir/cur/strange",
            "a.example/u04/Maildir/cur/.nfs000000000000a1b2",
            "a.example/u05/Maildir/tmp/1.M1P2.mail1",
            "a.example/u05/Maildir/dovecot-uidlist",
            "a.example/u05/Maildir/cur/",
            "",
        ]
        assert writers(listing) == {
            "u00@b.example": {"mail1"},
            "u01@a.example": {"mail2", "mail1.example.org"},
            "u02@a.example": {"od:d"},
            "u03@a.example": {"?"},
        }

    def test_shard_as_dovecot_2_3_computes_it(self) -> None:
        # "doveadm auth lookup" with username_format=%2.256LNu, Dovecot 2.3.19.1
        assert {user: shard_of(user) for user in ("alice", "bob", "carol", "dave", "DAVE", "u05@a.example")} == {
            "alice": "f5",
            "bob": "ca",
            "carol": "3d",
            "dave": "e3",
            "DAVE": "e3",
            "u05@a.example": "4a",
        }

    def test_placement(self) -> None:
        lines = [f"{n:02x}:::::::proxy=y nopassword=y host=10.77.0.1{1 + n % 2}" for n in range(256)]
        shards = parse_shards(lines)
        overrides = parse_hosts(["# pinned", "VIP@example.org:::::::proxy=y host=fd00::7"], "overrides")
        names = {"10.77.0.11": "mail1", "10.77.0.12": "mail2"}
        assert placement(["alice", "bob", "Vip@example.org"], shards, overrides, names) == {
            "alice": "mail2",
            "bob": "mail1",
            "Vip@example.org": "fd00::7",
        }

    def test_bad_maps(self) -> None:
        lines = [f"{n:02x}:::::::proxy=y host=h" for n in range(256)]
        with pytest.raises(MailflowError, match="1 of 256 are missing, first a7"):
            parse_shards(line for line in lines if not line.startswith("a7"))
        with pytest.raises(MailflowError, match="shards, line 257: 00 is there twice"):
            parse_shards([*lines, lines[0]])
        with pytest.raises(MailflowError, match="not a shard: 100"):
            parse_shards([*lines, "100:::::::host=h"])
        with pytest.raises(MailflowError, match="overrides, line 1: no host="):
            parse_hosts(["a@b.c:::::::proxy=y"], "overrides")
        with pytest.raises(MailflowError, match="overrides, line 1: no host="):
            parse_hosts(["a@b.c"], "overrides")

    def test_log(self) -> None:
        lines = [
            "Nov 23 lmtp(U1@a.b)<21970><mfnK/Gf3+S:T2:R2>: Info: msgid=<x>: saved mail to INBOX",
            "Nov 23 lmtp(u2@a.b)<21970><abc>: Info: sieve: msgid=unspecified: saved mail to 'INBOX'",
            "Nov 23 lmtp(u3@a.b)<21970><abc>: Error: msgid=<x>: save failed to INBOX: no space",
        ]
        assert log_saves(lines) == {("u1@a.b", "mfnK/Gf3+S:T2"), ("u2@a.b", "abc")}
