# Copyright (c) 2026 nfsmail.cluster contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where indexes are and should be, and the module that moves them. What Dovecot says of it: tests/dovecot."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.nfsmail.cluster.plugins.module_utils import _index_files, _indexes
from ansible_collections.nfsmail.cluster.plugins.module_utils._indexes import Refused
from ansible_collections.nfsmail.cluster.plugins.modules import index_move
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.dovecot_conf import mail_location
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.shards import shard_of
from hypothesis import given
from hypothesis import strategies as st
from plans import backend

from .conftest import RunModule

FORMATS = ("maildir", "mbox", "sdbox", "mdbox")
INDEX = "/var/lib/nfsmail/index/{domain}/{name}"
HOME = "/srv/mail/{domain}/{name}"
BASE = {"mail_driver": "mdbox", "mail_path": "~/mdbox", "mail_home": HOME, "mailbox_directory_name_legacy": "yes"}


def single(version: str, format: str, index: str, **more: Any) -> dict[str, Any]:
    profile = {"topology": "single", "mailbox_format": format, "index_location": "local" if index else "nfs"}
    return backend(version, profile, proxies=[], index_path=index or INDEX, **more)


# ---- reading a configuration ----


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("index", ["", INDEX, "/x/{shard}/{user}"])
def test_both_dialects_are_read_alike(format: str, index: str) -> None:
    old, new = (mail_location(single(version, format, index)) for version in ("2.3.19", "2.4.1"))
    assert old == new
    assert (old["mail_driver"], old.get("mail_index_path", ""), old["mail_home"]) == (format, index, HOME)


def test_extra_settings_count() -> None:
    plan = single("2.4.1", "maildir", "", extra_settings={"mail_index_path": "/fast/%{user}"})
    assert mail_location(plan)["mail_index_path"] == "/fast/{user}"


@pytest.mark.parametrize(
    ("written", "ours"),
    [
        ("/x/%Ld/%Ln", "/x/{domain}/{name}"),
        ("/x/%d/%n", "/x/{domain}/{name}"),
        ("/x/%{user | domain}/%{user|username}", "/x/{domain}/{name}"),
        ("/x/%2.256LNu/%Lu", "/x/{shard}/{user}"),
        ("/x/%{user | lower | md5 | substr(0, 8) % 256 | hex(2)}", "/x/{shard}"),
        ("/x/%1n/%n", "/x/%1n/{name}"),
    ],
)
def test_paths_in_our_words(written: str, ours: str) -> None:
    assert _indexes.in_our_words(written) == ours


def test_sections_are_not_everybodys() -> None:
    text = """
# mail_location = not this
mail_home = "/srv/mail/%d/%n"
protocol lmtp {
  mail_location = nor:this
  local 192.0.2.1 {
    mail_location = nor:this
  }
}
mail_location = mbox:~/mail:INBOX=~/inbox:INDEX=/fast/%u/:LAYOUT=fs
"""
    assert _indexes.location(text) == {
        "mail_driver": "mbox",
        "mail_path": "~/mail",
        "mail_home": HOME,
        "mail_inbox_path": "~/inbox",
        "mail_index_path": "/fast/{user}",
        "LAYOUT": "fs",
        "mailbox_directory_name_legacy": "yes",
    }
    assert _indexes.location("") == {}


# ---- what is a move ----


@pytest.mark.parametrize(
    ("old", "new", "ours", "answer"),
    [
        ({}, {}, True, False),
        ({}, {"mail_index_path": "/a/{user}"}, True, True),
        ({"mail_index_path": "/a/{user}"}, {}, False, True),
        ({"mail_index_path": "/a/{user}"}, {"mail_index_path": "/b/{user}"}, True, True),
        # Not of our making, and Dovecot makes them anew.
        (
            {"mail_driver": "maildir", "mail_home": "/old"},
            {"mail_driver": "maildir", "mail_index_path": "/a/{user}"},
            False,
            False,
        ),
        # Another mailbox format is other mail.
        ({"mail_driver": "sdbox"}, {"mail_index_path": "/a/{user}"}, True, False),
        ({"mail_driver": "mbox", "mail_index_path": "MEMORY"}, {"mail_driver": "mbox"}, True, False),
        ({"mail_driver": "maildir"}, {"mail_driver": "maildir", "mail_index_path": "MEMORY"}, True, False),
        # Moved together with its mail: refused, where something would be lost.
        ({}, {"mail_index_path": "/a/{user}", "mail_home": "/new"}, False, "changes together with mail_home"),
        (
            {"mail_driver": "mbox"},
            {"mail_driver": "mbox", "mail_index_path": "/a", "mail_path": "~/m"},
            True,
            "mail_path",
        ),
        # Locks are nothing that is left behind.
        ({}, {"mail_index_path": "/a/{user}", "mail_volatile_path": "/run/v/{user}"}, True, True),
        ({}, {"mail_volatile_path": "/run/v/{user}"}, True, False),
        ({}, {"mail_index_path": "MEMORY"}, True, "MEMORY loses them"),
        (
            {"mailbox_directory_name_legacy": "no"},
            {"mailbox_directory_name_legacy": "no", "mail_index_path": "/a/{user}"},
            True,
            "mailbox_directory_name_legacy",
        ),
        (
            {"mail_driver": "maildir", "LAYOUT": "fs"},
            {"mail_driver": "maildir", "LAYOUT": "fs", "mail_index_path": "/a"},
            True,
            "LAYOUT",
        ),
        (
            {"mail_driver": "maildir", "mail_inbox_path": "~/in"},
            {"mail_driver": "maildir", "mail_inbox_path": "~/in", "mail_index_path": "/a"},
            True,
            "mail_inbox_path",
        ),
    ],
)
def test_what_is_a_move(old: dict[str, str], new: dict[str, str], ours: bool, answer: Any) -> None:
    if isinstance(answer, str):
        with pytest.raises(Refused, match=answer):
            _indexes.is_move({**BASE, **old}, {**BASE, **new}, ours)
    else:
        assert _indexes.is_move({**BASE, **old}, {**BASE, **new}, ours) is answer


def test_nothing_in_place_is_no_move() -> None:
    assert not _indexes.is_move({}, {**BASE, "mail_index_path": "/a/{user}"}, ours=False)


def test_names_of_dbox_folders_from_2_4_2_on() -> None:
    assert mail_location(single("2.4.1", "sdbox", ""))["mailbox_directory_name_legacy"] == "yes"
    old, new = (mail_location(single("2.4.2", "sdbox", index)) for index in ("", INDEX))
    with pytest.raises(Refused, match="mailbox_directory_name_legacy"):
        _indexes.is_move(old, new, ours=True)


# ---- users ----


def found_users(template: str, home: str) -> list[dict[str, str]]:
    parts = [part for part in home.split("/") if part]
    found = []
    for number, pattern in enumerate(_indexes.home_patterns(template)):
        if len(pattern) == len(parts):
            matches = [
                re.compile(re.escape(p) + r"\Z").match(n) if isinstance(p, str) else p.match(n)
                for p, n in zip(pattern, parts)
            ]
            if all(matches):
                user = _indexes.user_of(match for match in matches if match)
                if user:
                    found.append(_indexes.without_domain(user) if number else user)
    return found


@pytest.mark.parametrize(
    "template", [HOME, "/srv/mail/{user}", "/srv/mail/{shard}/{user}", "/s/{domain}/{shard}/{user}"]
)
def test_a_home_tells_its_user(template: str) -> None:
    user = {"user": "anna@example.com", "name": "anna", "domain": "example.com", "shard": shard_of("anna@example.com")}
    home = _indexes.expand(template, user)
    assert found_users(template, home) == [user]


def test_homes_that_are_none() -> None:
    assert found_users("/s/{shard}/{user}", "/s/zz/anna") == []
    assert found_users("/s/{shard}/{user}", "/s/00/anna@example.com") == []
    assert found_users("/s/{domain}/{user}", "/s/example.org/anna@example.com") == []
    assert found_users("/s/{name}", "/s/anna") == [{"name": "anna"}]
    assert found_users(HOME, "/srv/mail/dora")[0]["user"] == "dora"


def test_what_every_file_system_has_is_nobody_s_home(tmp_path: Path) -> None:
    """lost+found is root's and closed to the mail user, who would fail on it."""
    for name in ("example.org/anna", "lost+found/x", "lost+found"):
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
    for template in ("{domain}/{name}", "{name}"):
        found = [home for home, _user in _index_files.homes(f"{tmp_path}/{template}")]
        assert found and not [home for home in found if "lost+found" in home], found


@given(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0ABCDEFGHIJKLMNOPQRSTUVWXYZ"), min_size=1)
)
def test_shards_are_those_of_the_brain(user: str) -> None:
    assert _indexes.shard_of(user) == shard_of(user)


@pytest.mark.parametrize(
    ("template", "home", "path"),
    [
        ("~/Maildir", "/s/a%b", "/s/a%b/Maildir"),
        ("%h/x", "/s/anna", "/s/anna/x"),
        ("/x/{name}/y", "", "/x/anna/y"),
        ("/x/{domain}", "", None),
        ("/x/%1n", "", None),
        ("relative", "/s/anna", None),
    ],
)
def test_paths_of_one_user(template: str, home: str, path: str | None) -> None:
    if path is None:
        with pytest.raises(Refused):
            _indexes.expand(template, {"name": "anna"}, home)
    else:
        assert _indexes.expand(template, {"name": "anna"}, home) == path


# ---- folders: as both releases have them, see tests/dovecot ----

PLACES = {
    "maildir": [
        ("", "dovecot.index.log", ".INBOX"),
        ("", "dovecot.list.index", ""),
        ("", "dovecot.mailbox.log", ""),
        (".Work.Sub", "dovecot.index", ".Work.Sub"),
    ],
    "mbox": [(".imap/INBOX", "dovecot.index", ".imap/INBOX"), ("Work/.imap/Sub", "dovecot.index", "Work/.imap/Sub")],
    "sdbox": [("mailboxes/A/B c/dbox-Mails", "dovecot.index", "mailboxes/A/B c"), ("", "dovecot.list.index.log", "")],
    "mdbox": [
        ("mailboxes/INBOX/dbox-Mails", "dovecot.index.cache", "mailboxes/INBOX"),
        ("storage", "dovecot.map.index", "storage"),
    ],
}


@pytest.mark.parametrize("format", FORMATS)
def test_folders_there_and_back(format: str) -> None:
    for with_mail, name, apart in PLACES[format]:
        assert _indexes.canonical(format, True, with_mail, name) == (apart, name)
        assert _indexes.canonical(format, False, apart, name) == (apart, name)
        assert _indexes.placed(format, True, apart) == with_mail
        assert _indexes.placed(format, False, apart) == apart


def test_names_of_index_files() -> None:
    good = [
        "dovecot.index",
        "dovecot.index.log.2",
        "dovecot.list.index.log",
        "dovecot.map.index",
        "dovecot.mailbox.log",
    ]
    other = [
        "dovecot-uidlist",
        "dovecot-keywords",
        "dovecot-uidvalidity",
        "dovecot.indexes",
        "dovecot.sieve",
        "xdovecot.index",
    ]
    assert all(map(_indexes.is_index, good)) and not any(map(_indexes.is_index, other))
    scratch = ["dovecot.index.log.lock", "dovecot.index.log.newlock", "dovecot.index.tmp"]
    assert all(map(_indexes.is_index, scratch)) and all(map(_indexes.is_scratch, scratch))
    assert not any(map(_indexes.is_scratch, good))


# ---- the module ----


class Machine:
    """A store with users, and a configuration, below a temporary directory."""

    def __init__(self, root: Path, run: RunModule) -> None:
        self.root, self.run = root, run
        self.home = f"{root}/store/{{domain}}/{{name}}"
        self.local = f"{root}/local/{{domain}}/{{name}}"
        (root / "local").mkdir()
        for path, text in {
            "cur/1:2,S": "mail",
            "dovecot-uidlist": "uids",
            "dovecot.index.log": "inbox",
            "dovecot.list.index.log": "list",
            ".Work/dovecot.index": "work",
            ".Work/dovecot.index.log.lock": "lock",
            ".INBOX/dovecot.index": "no folder of Dovecot's",
        }.items():
            self.write(f"store/example.com/anna/Maildir/{path}", text)
        self.configure("")

    def write(self, path: str, text: str) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text, encoding="utf-8")

    def location(self, index: str, **more: str) -> dict[str, str]:
        found = {"mail_driver": "maildir", "mail_path": "~/Maildir", "mail_home": self.home, **more}
        return {**found, "mailbox_directory_name_legacy": "yes", **({"mail_index_path": index} if index else {})}

    def configure(self, index: str) -> None:
        parts = f":INDEX={index}" if index else ""
        spelt = f"mail_home = {self.home}\nmail_location = maildir:~/Maildir{parts}\n"
        for word, words in _indexes.WORDS.items():
            spelt = spelt.replace(word, words[0])
        self.write("dovecot.conf", f"# {_indexes.OURS}.\n{spelt}")

    def params(self, action: str, index: str, **more: Any) -> dict[str, Any]:
        owner = {"uid": os.getuid(), "gid": os.getgid(), "timeout": 20}
        paths = {"conf": f"{self.root}/dovecot.conf", "marker": f"{self.root}/marker.json"}
        return {"action": action, "location": self.location(index), **owner, **paths, **more}

    def ok(self, action: str, index: str, check: bool = False, **more: Any) -> dict[str, Any]:
        return self.run.ok(index_move, check=check, **self.params(action, index, **more))

    def fail(self, action: str, index: str, **more: Any) -> str:
        return str(self.run.fail(index_move, **self.params(action, index, **more))["msg"])

    def files(self) -> dict[str, str]:
        found = (
            path for path in self.root.rglob("*") if path.is_file() and path.name not in ("dovecot.conf", "marker.json")
        )
        return {str(path.relative_to(self.root)): path.read_text(encoding="utf-8") for path in found}


@pytest.fixture
def machine(tmp_path: Path, run_module: RunModule, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setattr(index_move, "mail_processes", lambda _uid: [])
    return Machine(tmp_path, run_module)


MAIL = {
    "store/example.com/anna/Maildir/cur/1:2,S": "mail",
    "store/example.com/anna/Maildir/dovecot-uidlist": "uids",
    "store/example.com/anna/Maildir/.INBOX/dovecot.index": "no folder of Dovecot's",
}
MOVED = {
    "local/example.com/anna/.INBOX/dovecot.index.log": "inbox",
    "local/example.com/anna/dovecot.list.index.log": "list",
    "local/example.com/anna/.Work/dovecot.index": "work",
}


def test_a_move(machine: Machine) -> None:
    before = machine.files()
    os.utime(machine.root / "store/example.com/anna/Maildir/.Work/dovecot.index", (1e9, 1e9))
    told = machine.ok("look", machine.local, check=True)
    assert (told["next"], told["changed"], told["users"], told["files"], told["bytes"]) == ("copy", True, 1, 3, 13)
    assert told["diff"]["before"] == "indexes of 1 users (3 files, 13 bytes) in the mail store (~/Maildir)\n"
    assert told["diff"]["after"] == f"indexes of 1 users (3 files, 13 bytes) in {machine.local}\n"
    assert machine.ok("copy", machine.local, check=True) == {"changed": False, "next": "nothing"}
    assert not machine.ok("look", machine.local)["changed"] and machine.files() == before
    assert machine.ok("copy", machine.local)["next"] == "finish"
    assert machine.files() == {**before, **MOVED}
    assert (machine.root / "local/example.com/anna/.Work/dovecot.index").stat().st_mtime == 1e9
    machine.configure(machine.local)
    assert machine.ok("look", machine.local)["next"] == "finish"
    finished = machine.ok("finish", machine.local)
    assert (finished["changed"], finished["removed"], finished["left"]) == (True, 4, [])
    assert machine.files() == {**MAIL, **MOVED} and not (machine.root / "marker.json").exists()
    for action in ("look", "copy", "finish"):
        assert machine.ok(action, machine.local) == {"changed": False, "next": "nothing"}


def test_back_to_the_mail_nothing_is_left(machine: Machine) -> None:
    before = machine.files()
    lock = "store/example.com/anna/Maildir/.Work/dovecot.index.log.lock"
    for new in (machine.local, f"{machine.root}/local/by_user/{{user}}", ""):
        assert machine.ok("copy", new)["changed"]
        machine.configure(new)
        assert machine.ok("finish", new)["changed"]
    assert machine.files() == {path: text for path, text in before.items() if path != lock}
    assert os.listdir(machine.root / "local") == ["by_user"]


def test_other_files_stay_and_are_told(machine: Machine) -> None:
    machine.ok("copy", machine.local)
    machine.configure(machine.local)
    machine.ok("finish", machine.local)
    machine.write("local/example.com/anna/.Work/fts-flatcurve/index", "words")
    machine.ok("copy", "")
    machine.configure("")
    left = machine.ok("finish", "")["left"]
    assert left == [f"{machine.root}/local/example.com/anna/.Work/fts-flatcurve/index"]
    assert "fts-flatcurve" in machine.run.warnings[0]


def test_refusals(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    before = machine.files()
    assert "is not a path that can be followed" in machine.fail("look", "/x/%1n")
    assert "would share the indexes" in with_second_user(machine, f"{machine.root}/local/{{name}}")
    machine.write("local/example.com/anna/.Work/dovecot.index", "older?")
    assert "already, which are not in use" in machine.fail("look", machine.local)
    os.unlink(machine.root / "local/example.com/anna/.Work/dovecot.index")
    (machine.root / "store/example.com/anna/Maildir/.Link").symlink_to(machine.root / "local")
    assert "symbolic link" in machine.fail("copy", machine.local)
    os.unlink(machine.root / "store/example.com/anna/Maildir/.Link")
    with monkeypatch.context() as patched:
        patched.setattr(_index_files, "SPARE", 1 << 60)
        assert "MiB free" in machine.fail("look", machine.local)
    monkeypatch.setattr(index_move, "mail_processes", lambda _uid: ["dovecot (7)"])
    assert "dovecot (7)" in machine.fail("copy", machine.local, timeout=1)
    assert machine.files() == before and not (machine.root / "marker.json").exists()


def with_second_user(machine: Machine, index: str) -> str:
    other = machine.root / "store/example.org/anna/Maildir"
    other.mkdir(parents=True)
    try:
        return machine.fail("look", index)
    finally:
        other.rmdir()


def test_what_can_be_made_anew_is_forgotten(machine: Machine) -> None:
    """As with several backends: the configuration that was in use had the indexes on this machine."""
    assert machine.ok("forget", "") == {"changed": False, "next": "nothing"}
    for path, text in MOVED.items():
        machine.write(path, text)
    machine.write("local/example.org/nobody/.INBOX/dovecot.index.log", "without a home")
    before = machine.files()
    machine.configure(machine.local)
    assert machine.ok("forget", machine.local) == {"changed": False, "next": "nothing"}
    assert machine.ok("forget", "", check=True)["changed"] is False and machine.files() == before
    done = machine.ok("forget", "")
    assert (done["changed"], done["removed"], done["left"]) == (True, 3, [])
    assert machine.files() == {path: text for path, text in before.items() if path not in MOVED}
    again = machine.ok("forget", "")
    assert (again["changed"], again["removed"]) == (False, 0)


@pytest.mark.parametrize("foreign", [False, True])
def test_what_cannot_be_made_anew_is_never_forgotten(machine: Machine, foreign: bool) -> None:
    for path, text in MOVED.items():
        machine.write(path, text)
    machine.configure(machine.local)
    conf = machine.root / "dovecot.conf"
    text = conf.read_text(encoding="utf-8")
    conf.write_text(text.replace(_indexes.OURS, "somebody") if foreign else text.replace("maildir:", "sdbox:"), "utf-8")
    before = machine.files()
    assert machine.ok("forget", "") == {"changed": False, "next": "nothing"}
    assert machine.files() == before


def test_places_within_each_other(machine: Machine) -> None:
    machine.ok("copy", machine.local)
    machine.configure(machine.local)
    machine.ok("finish", machine.local)
    assert "lie within each other" in machine.fail("look", f"{machine.local}/deeper")


def test_a_copy_that_fails_is_taken_up(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    before = machine.files()

    def full(_path: str, _place: str) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(_index_files, "_copy_file", full)
        assert "No space left" in machine.fail("copy", machine.local)
    assert json.loads((machine.root / "marker.json").read_text())["state"] == "copying"
    machine.ok("copy", machine.local)
    # Dovecot ran on in the meantime.
    machine.write("store/example.com/anna/Maildir/.Work/dovecot.index", "newer")
    os.unlink(machine.root / "store/example.com/anna/Maildir/dovecot.list.index.log")
    machine.ok("copy", machine.local)
    assert {path: text for path, text in machine.files().items() if path.startswith("local")} == {
        "local/example.com/anna/.INBOX/dovecot.index.log": "inbox",
        "local/example.com/anna/.Work/dovecot.index": "newer",
    }
    # Not after all.
    assert machine.ok("look", "")["next"] == "finish"
    machine.ok("finish", "")
    del before["store/example.com/anna/Maildir/dovecot.list.index.log"]
    assert machine.files() == {**before, "store/example.com/anna/Maildir/.Work/dovecot.index": "newer"}


def test_a_half_copy_is_never_used(machine: Machine) -> None:
    machine.ok("copy", machine.local)
    marker = machine.root / "marker.json"
    marker.write_text(marker.read_text().replace('"copied"', '"copying"'))
    machine.configure(machine.local)
    for action in ("look", "copy", "finish"):
        assert "a part of the indexes only" in machine.fail(action, machine.local)
    machine.configure("/elsewhere/{user}")
    assert "names neither" in machine.fail("look", machine.local)
    marker.write_text("{")
    assert "cannot be read" in machine.fail("look", machine.local)


def test_a_newer_copy_is_not_removed(machine: Machine) -> None:
    machine.ok("copy", machine.local)
    machine.write("local/example.com/anna/.Work/dovecot.index.log", "mail that came meanwhile")
    before = machine.files()
    for new in (machine.local, ""):
        for action in ("look", "copy", "finish"):
            assert "both places have been in use" in machine.fail(action, new)
    assert machine.files() == before


def test_a_configuration_of_somebody_else(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (machine.root / "dovecot.conf").read_text().replace(_indexes.OURS, "made by hand")
    machine.write("dovecot.conf", text.replace("%Ld/%Ln", "%d/%n"))
    # No doveconf here, or one that cannot read it: the text itself.
    monkeypatch.setenv("PATH", str(machine.root))
    assert machine.ok("look", machine.local)["next"] == "copy"
    (machine.root / "doveconf").write_text("#!/bin/sh\necho mail_location = mbox:~/mail\n")
    (machine.root / "doveconf").chmod(0o755)
    assert machine.ok("look", machine.local)["next"] == "nothing"
    os.unlink(machine.root / "dovecot.conf")
    assert machine.ok("look", machine.local)["next"] == "nothing"


def test_our_own_processes_are_seen() -> None:
    assert any(f"({os.getpid()})" in text for text in index_move.mail_processes(os.getuid()))
    assert index_move.mail_processes(4_000_000_000) == []
