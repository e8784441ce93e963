# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole run, and what it catches, against a fake cluster."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mailflow import MailflowError, Sample, SampleSet, run, shard_of
from mailflow.cli import main
from mailflow.lmtp import LmtpClient


def test_a_healthy_cluster_passes(cluster: Any) -> None:
    logs = {host: (lambda lines=lines: lines) for host, lines in cluster.logs.items()}
    report = run(cluster.config(expected=cluster.places, listing=cluster.listing, logs=logs))
    assert report.ok, report.table()
    accepted = report.row("messages accepted").value
    assert int(accepted) == len(report.deliveries) >= 15
    assert report.row("found byte for byte").value == accepted
    assert report.row("files in the Maildir listing").value == f"{accepted} of {accepted}"
    assert report.row("users written by one backend").value == "6 of 6"
    assert report.row("users on the backend they belong to").value == "6 of 6"
    assert report.row("users saved by one backend in the logs").value == "6 of 6"
    assert int(report.row("transactions that span backends").value) >= 1
    assert sum(report.mails_per_backend.values()) == int(accepted)
    assert report.replies["unknown_user"].startswith("550 5.1.1 <no-such-user-1@example.org>")
    assert report.replies["wrong_password"] == "NO [AUTHENTICATIONFAILED] Authentication failed."
    assert {row.verdict for row in report.rows} == {"ok"}
    assert json.loads(report.to_json())["ok"] is True


def test_a_second_run_leaves_the_first_ones_mail_alone(cluster: Any) -> None:
    assert run(cluster.config()).ok
    again = run(cluster.config(seed=2, listing=cluster.listing, expected=cluster.places))
    assert again.ok, again.table()
    assert again.row("older messages still there").verdict == "ok"


def test_without_a_listing_imap_tells_the_writers(cluster: Any) -> None:
    report = run(cluster.config(expected=cluster.places))
    assert report.ok
    assert report.row("users written by one backend").value == "6 of 6"


def test_a_server_that_does_not_tell_names_needs_the_listing(cluster: Any) -> None:
    cluster.tell_guid = False
    report = run(cluster.config())
    assert report.ok
    assert report.row("users written by one backend").verdict == "not shown"
    cluster.boxes = {user: [] for user in cluster.users}
    assert run(cluster.config(listing=cluster.listing)).row("users written by one backend").value == "6 of 6"


@pytest.mark.parametrize(
    ("broken", "problem"),
    [
        (lambda _data: [], "msg_05 is missing"),
        (lambda data: [data, data], "msg_05 is there twice: UID"),
        (lambda data: [data.replace(b"last", b"lost")], "msg_05 came back changed, UID"),
        (lambda data: [b"X-Spam: no\r\n" + data], "msg_05 came back changed, UID"),
        (lambda data: [data, b"Subject: other\r\n\r\nnobody sent this\r\n"], "was never sent (2"),
        (lambda data: [data[:-2]], "msg_05 came back changed, UID"),
        (lambda data: [data + b"\r\n"], "msg_05 came back changed, UID"),
    ],
)
def test_what_is_done_to_one_message_is_caught(cluster: Any, broken: Any, problem: str) -> None:
    cluster.on_save = lambda _user, data: broken(data) if b"Subject: 5\r" in data else [data]
    report = run(cluster.config())
    assert not report.ok
    assert report.row("found byte for byte").verdict == "FAIL"
    assert any(problem in text for text in report.problems), report.problems


def test_a_changed_message_shows_its_first_different_line(cluster: Any) -> None:
    cluster.on_save = lambda _user, data: [data.replace(b"body 5", b"bodY 5")]
    changed = next(text for text in run(cluster.config()).problems if "changed" in text)
    assert "first difference at line 3" in changed
    assert "  - b'.body 5\\r\\n'" in changed
    assert "  + b'.bodY 5\\r\\n'" in changed


def test_a_user_with_two_writers_is_caught(cluster: Any) -> None:
    victim = "user03@example.org"

    def move(user: str, data: bytes) -> list[bytes]:
        if user == victim:
            cluster.places[victim] = "mail1"
        return [data]

    expected = dict(cluster.places)
    cluster.on_save = move
    report = run(cluster.config(expected=expected, listing=cluster.listing))
    assert report.row("users written by one backend").value == "5 of 6"
    assert f"{victim}: written by mail1, mail2, not by one backend" in report.problems


def test_a_user_on_the_wrong_backend_is_caught(cluster: Any) -> None:
    expected = cluster.places | {"user03@example.org": "mail1"}
    report = run(cluster.config(expected=expected))
    assert report.row("users on the backend they belong to").verdict == "FAIL"
    assert "user03@example.org: written by mail2, belongs to mail1" in report.problems


def test_a_file_that_the_listing_lacks_is_caught(cluster: Any) -> None:
    report = run(cluster.config(listing=lambda: cluster.listing()[1:]))
    assert report.row("files in the Maildir listing").verdict == "FAIL"


def test_a_delivery_that_no_log_shows_is_caught(cluster: Any) -> None:
    report = run(cluster.config(logs={"mail1": lambda: cluster.logs["mail1"]}))
    assert report.row("users saved by one backend in the logs").value == "3 of 6"


def test_a_lost_flag_is_caught(cluster: Any) -> None:
    cluster.lose_flags = True
    report = run(cluster.config())
    assert report.row("flags kept after a new login").value == "0 of 6"
    assert any("has ['\\\\Seen'], not ['\\\\Flagged', '\\\\Seen']" in text for text in report.problems)


def test_vanished_older_mail_is_caught(cluster: Any) -> None:
    run(cluster.config())

    def lose_first(user: str, data: bytes) -> list[bytes]:
        cluster.boxes[user] = [mail for mail in cluster.boxes[user] if mail.uid != 1]
        return [data]

    cluster.on_save = lose_first
    report = run(cluster.config(seed=2))
    assert report.row("older messages still there").verdict == "FAIL"
    assert "user00@example.org: older messages vanished: UID 1" in report.problems


def test_an_open_door_is_caught(cluster: Any) -> None:
    cluster.any_password = cluster.any_recipient = True
    report = run(cluster.config())
    assert report.row("unknown user refused").verdict == "FAIL"
    assert report.row("wrong password refused").verdict == "FAIL"


def test_a_refused_delivery_is_a_problem_with_its_reply(cluster: Any) -> None:
    cluster.refuse_data = "451 4.4.0 Proxy failed"
    report = run(cluster.config())
    assert report.row("messages accepted").value == "0"
    assert report.row("found byte for byte").verdict == "FAIL"
    assert any(text.endswith("was not accepted: 451 4.4.0 Proxy failed") for text in report.problems)


def test_a_user_who_cannot_log_in_ends_the_run(cluster: Any) -> None:
    del cluster.users["user02@example.org"]
    with pytest.raises(MailflowError, match=r"as user02@example.org: cannot login: \[AUTHENTICATIONFAILED\]"):
        run(cluster.config())


def test_too_few_users_or_samples_end_the_run(cluster: Any) -> None:
    with pytest.raises(MailflowError, match="only 6 users, 20 are needed"):
        run(cluster.config(min_users=20))
    with pytest.raises(MailflowError, match="only 12 samples, 40 are needed"):
        run(cluster.config(min_samples=40))
    with pytest.raises(MailflowError, match=r"nobody says where user01@example.org must live \(5 such"):
        run(cluster.config(expected={"user00@example.org": "mail1"}))


def _address(cluster: Any) -> tuple[str, int]:
    host, port = cluster.lmtp
    return host, port


def test_8bit_mail_is_announced_and_plain_mail_is_not(cluster: Any) -> None:
    user = "user00@example.org"
    with LmtpClient(*_address(cluster), timeout=5.0) as client:
        client.deliver("a@b.c", [user], "Subject: ä\r\n\r\nx\r\n".encode())
        client.deliver("a@b.c", [user], b"Subject: a\r\n\r\nx\r\n")
    senders = [line for line in cluster.commands if line.startswith("MAIL")]
    assert senders == ["MAIL FROM:<a@b.c> BODY=8BITMIME", "MAIL FROM:<a@b.c>"]


def test_each_recipient_gets_its_own_reply(cluster: Any) -> None:
    with LmtpClient(*_address(cluster), timeout=5.0) as client:
        replies = client.deliver("a@b.c", ["user00@example.org", "nobody@x.y", "user01@example.org"], b"x\r\n")
    assert [reply.code for reply in replies.values()] == [250, 550, 250]
    assert [reply.session for reply in replies.values()] == ["sess1", "", "sess2"]


def _files(cluster: Any, folder: Path) -> list[str]:
    folder.joinpath("users").write_text("".join(f"{u}:{{PLAIN}}{p}::::::\n" for u, p in cluster.users.items()))
    shards = {f"{n:02x}": "10.77.0.11" for n in range(256)}
    shards |= {shard_of(user): f"10.77.0.1{host[-1]}" for user, host in cluster.places.items()}
    line = "{}:::::::proxy=y nopassword=y host={}\n"
    folder.joinpath("shards").write_text("".join(line.format(*item) for item in shards.items()))
    for n in range(42):
        folder.joinpath(f"m{n}.eml").write_text(f"Subject: {n}\n\ntext {n}\n")
    return [
        *("--lmtp", "{}:{}".format(*cluster.lmtp), "--imap", "{}:{}".format(*cluster.imap)),
        *("--users", f"{folder}/users", "--samples", str(folder), "--json", f"{folder}/out.json"),
        *("--shards", f"{folder}/shards", "--host-names", "10.77.0.11=mail1,10.77.0.12=mail2"),
    ]


def _enough_users(cluster: Any) -> None:
    for number in range(6, 21):
        user = f"user{number:02d}@example.org"
        cluster.users[user], cluster.boxes[user] = "pw", []
        cluster.places[user] = f"mail{1 + number % 2}"


def test_the_command_line(cluster: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _enough_users(cluster)
    arguments = _files(cluster, tmp_path)
    assert main(arguments) == 0, capsys.readouterr().out
    out = capsys.readouterr().out
    assert re.search(r"^ok +found byte for byte +6\d$", out, re.MULTILINE)
    assert re.search(r"^ok +users on the backend they belong to +21 of 21$", out, re.MULTILINE)
    assert json.loads((tmp_path / "out.json").read_text())["seed"] == 1
    cluster.on_save = lambda _user, data: [data + b"!"]
    assert main(arguments) == 1
    assert re.search(r"^FAIL +found byte for byte +0$", capsys.readouterr().out, re.MULTILINE)


def test_the_listing_command_runs_after_the_delivery(
    cluster: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _enough_users(cluster)
    arguments = _files(cluster, tmp_path)
    show = f"{sys.executable} -c 'print(open(\"{tmp_path}/listing\").read())'"
    (tmp_path / "listing").write_text("")

    def record(user: str, data: bytes) -> list[bytes]:
        name = f"17000000{cluster.serial:02d}.M1P{len(cluster.boxes[user]) + 1}.{cluster.places[user]}"
        with (tmp_path / "listing").open("a") as file:
            file.write("/srv/mail/{}/{}/Maildir/new/{}\n".format(*user.split("@")[::-1], name))
        return [data]

    cluster.on_save = record
    assert main([*arguments, "--listing-command", show]) == 0, capsys.readouterr().out
    assert re.search(r"^ok +files in the Maildir listing +(6\d) of \1$", capsys.readouterr().out, re.MULTILINE)
    assert main([*arguments, "--listing-command", f"{sys.executable} -c 'raise SystemExit(3)'"]) == 1
    assert "ended with 3" in capsys.readouterr().err
    assert json.loads((tmp_path / "out.json").read_text())["ok"] is False


def test_an_unreachable_server_is_named(cluster: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _enough_users(cluster)
    arguments = _files(cluster, tmp_path)
    arguments[arguments.index("--imap") + 1] = "127.0.0.1:1"
    assert main(arguments) == 1
    assert "mailflow: IMAP 127.0.0.1:1 as user00@example.org: cannot connect" in capsys.readouterr().err


@pytest.mark.parametrize("address", ["host", "host:", ":24", "host:99999", "host:x"])
def test_a_bad_address_is_refused(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--lmtp", address, "--imap", "h:143", "--users", "x"])
    assert "need HOST:PORT" in capsys.readouterr().err


def test_a_single_long_message_is_enough(cluster: Any) -> None:
    long = SampleSet((Sample("long", b"Subject: l\r\n\r\n" + b"y" * 5000 + b"\r\n"),), (), ("x",))
    assert run(replace(cluster.config(), samples=long, per_user=1)).ok
