# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Dovecot's configuration, written and read; where doveconf is installed, Dovecot itself is asked."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.dialect import (
    Entry,
    flat,
    from_doveconf,
    to_doveconf,
)
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.errors import NfsmailError
from brain_samples import refusal
from hypothesis import given
from hypothesis import strategies as st

# Copied from Debian 12 (2.3.19.1) as installed, shortened.
REAL_23 = r"""
# 2.3.19.1 (9b53102964): /etc/dovecot/dovecot.conf
# OS: Linux 6.1.0 x86_64 Debian 12.11
# Hostname: mail1
mail_fsync = always
mail_location = maildir:~/Maildir
mmap_disable = yes
namespace inbox {
  inbox = yes
  location = 
  mailbox Drafts {
    special_use = \Drafts
  }
  mailbox "Sent Messages" {
    special_use = \Sent
  }
  prefix = 
}
passdb {
  args = username_format=%Lu /etc/dovecot/nfsmail-users
  driver = passwd-file
  result_success = continue-ok
}
passdb {
  args = username_format=%2.256LNu /etc/dovecot/nfsmail-shards
  driver = passwd-file
  skip = unauthenticated
}
plugin {
  sieve = file:~/sieve;active=~/.dovecot.sieve
}
protocols = " imap lmtp"
service lmtp {
  inet_listener lmtp {
    port = 24
  }
}
ssl_key = # hidden, use -P to show it
protocol imap {
  mail_plugins = " quota imap_quota"
}
"""
# The form of Dovecot 2.4.1.
REAL_24 = """
# 2.4.1-4 (7d8c0e5759): /etc/dovecot/dovecot.conf
# OS: Linux 6.12 x86_64 Debian 13
# Hostname: mail1
dovecot_config_version = 2.4.1
dovecot_storage_version = 2.4.1
mail_driver = maildir
mail_home = /srv/mail/%{user | domain | lower}/%{user | username | lower}
mail_path = ~/Maildir
mbox_write_locks = fcntl dotlock
protocols {
  imap = yes
  lmtp = yes
}
passdb static {
  fields {
    allow_real_nets = 192.0.2.21,local
  }
  password = # hidden, use -P to show it
}
namespace inbox {
  mailbox Junk {
    special_use = "\\\\Junk"
  }
}
"""


# ---- reading ----


def test_reading_2_3() -> None:
    conf = from_doveconf(REAL_23)
    assert conf["mmap_disable"] == "yes"
    assert conf["protocols"] == " imap lmtp"
    assert conf["namespace inbox"]["prefix"] == ""
    assert conf["namespace inbox"]["mailbox Drafts"] == {"special_use": "\\Drafts"}
    assert conf["namespace inbox"]['mailbox "Sent Messages"'] == {"special_use": "\\Sent"}
    assert conf["passdb"]["result_success"] == "continue-ok"
    assert conf["passdb #2"]["args"] == "username_format=%2.256LNu /etc/dovecot/nfsmail-shards"
    assert conf["plugin"]["sieve"] == "file:~/sieve;active=~/.dovecot.sieve"
    assert conf["protocol imap"] == {"mail_plugins": " quota imap_quota"}
    assert flat(conf)["service lmtp/inet_listener lmtp/port"] == "24"


def test_reading_2_4() -> None:
    conf = from_doveconf(REAL_24)
    assert conf["dovecot_config_version"] == "2.4.1"
    assert conf["mail_home"] == "/srv/mail/%{user | domain | lower}/%{user | username | lower}"
    assert conf["protocols"] == {"imap": "yes", "lmtp": "yes"}
    assert flat(conf)["passdb static/fields/allow_real_nets"] == "192.0.2.21,local"


@pytest.mark.parametrize(
    ("text", "conf"),
    [
        ("", {}),
        ("\n\n# only a comment\n", {}),
        ("a = b\r\nc=d\r\n", {"a": "b", "c": "d"}),
        ("a =", {"a": ""}),
        ("a = b = c", {"a": "b = c"}),
        ("a = x {", {"a": "x {"}),
        ("a = }", {"a": "}"}),
        ('a = "x # y"', {"a": "x # y"}),
        (r'a = "say \"hi\" \\ there"', {"a": 'say "hi" \\ there'}),
        ('a = say "hi"', {"a": 'say "hi"'}),
        ("a = 1\na = 2", {"a": "2"}),
        ("s {\n}\ns {\n}\ns {\n}", {"s": {}, "s #2": {}, "s #3": {}}),
        ("a = next\x85line\u2028and\x0bmore", {"a": "next\x85line\u2028and\x0bmore"}),
    ],
)
def test_reading_by_example(text: str, conf: dict[str, Any]) -> None:
    assert from_doveconf(text) == conf


@pytest.mark.parametrize(
    ("text", "line", "rule"),
    [
        ("s {\n  a = b\n", "3", "a section is not closed"),
        ("s {\n  t {\n  }\n", "4", "a section is not closed"),
        ("a = b\n}\n", "2", "a closing bracket without a section"),
        ("a = b\nnonsense\n", "2", "neither a setting nor a section"),
        ("doveconf: Fatal: Error in configuration file", "1", "neither a setting nor a section"),
    ],
)
def test_what_cannot_be_read(text: str, line: str, rule: str) -> None:
    (problem,) = refusal(from_doveconf, text)
    assert (problem.variable, problem.rule) == (f"doveconf output, line {line}", rule)
    assert problem.fix == "pass the whole, unchanged output"


@pytest.mark.parametrize("text", [None, b"a = b", ["a = b"], 3])
def test_only_text_is_read(text: Any) -> None:
    assert refusal(from_doveconf, text)[0].variable == "doveconf output"


@given(st.text(alphabet=st.sampled_from('ab ={}#"\\\n\r\t\x0b\u2028'), max_size=60) | st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        conf = from_doveconf(text)
    except NfsmailError:
        return
    assert all(isinstance(value, str) for value in flat(conf).values())


# ---- writing ----

NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True)
PRINTABLE = st.characters(exclude_categories=("Cs", "Cc"), include_characters="\t")
VALUES = st.text(PRINTABLE, max_size=20) | st.text(st.sampled_from("ab \t\\\"'#{}=$%<;"), max_size=12)
SECTIONS = st.builds(lambda kind, name: f"{kind} {name}" if name else kind, NAMES, NAMES | st.just(""))
TREES = st.recursive(
    st.dictionaries(NAMES, VALUES, max_size=4),
    lambda inner: st.builds(
        lambda plain, sections: {**plain, **sections},
        st.dictionaries(NAMES, VALUES, max_size=3),
        st.dictionaries(SECTIONS.filter(lambda name: not name.startswith(("passdb", "userdb"))), inner, max_size=2),
    ),
    max_leaves=6,
)


@given(TREES, st.sampled_from(["2.3.19", "2.4.1"]))
def test_what_is_written_is_read_back(tree: dict[str, Any], version: str) -> None:
    text = to_doveconf(tree, version)
    read = from_doveconf(text)
    if version == "2.4.1":
        assert list(read)[:2] == ["dovecot_config_version", "dovecot_storage_version"]
        for name in ("dovecot_config_version", "dovecot_storage_version"):
            assert read.pop(name) == "2.4.1"
    assert read == tree
    assert list(flat(read)) == list(flat(tree))


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("x#y", '"x#y"'),
        ("x # y", '"x # y"'),
        ("end\\", '"end\\\\"'),
        ('"double"', r'"\"double\""'),
        ("'single'", "\"'single'\""),
        (" blank", '" blank"'),
        ("50% of $5", '"50% of $5"'),
        ("blank ", '"blank "'),
        # As they are: Dovecot gives these a meaning that extra settings may want, or none.
        ("</etc/x.pem", "</etc/x.pem"),
        ("$mail_plugins quota", "$mail_plugins quota"),
        ("it's", "it's"),
        ("\\Drafts", "\\Drafts"),
    ],
)
@pytest.mark.parametrize("version", ["2.3.19", "2.4.1"])
def test_quotes(value: str, written: str, version: str) -> None:
    assert to_doveconf({"x": value}, version).splitlines()[-1] == f"x = {written}"


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (True, "yes"),
        (False, "no"),
        (24, "24"),
        (1.5, "1.5"),
        (["imap", "lmtp"], "imap lmtp"),
        (("a", True, 3), "a yes 3"),
        (None, ""),
        ("", ""),
    ],
)
def test_simple_values(value: Any, written: str) -> None:
    assert to_doveconf({"x": value}, "2.3.19") == f"x = {written}".rstrip() + "\n"


@pytest.mark.parametrize("value", [b"bytes", {1, 2}, object(), [object()], [{"a": 1}]])
def test_values_that_are_not_simple(value: Any) -> None:
    (problem,) = refusal(to_doveconf, {"outer": {"x": value}}, "2.3.19")
    assert (problem.variable, problem.rule) == ("outer/x", "text, a number, a boolean or a list")


@pytest.mark.parametrize("value", ["a\nb", "a\n", "\ra", "a\0b"])
@pytest.mark.parametrize("version", ["2.3.19", "2.4.1"])
def test_line_breaks_are_refused(value: str, version: str) -> None:
    (problem,) = refusal(to_doveconf, {"x": value}, version)
    assert (problem.variable, problem.rule) == ("x", "one line")


@pytest.mark.parametrize("name", ["", "a=b", "a\n", "a\nb", "#a", "a {", "é", "-a", " a", "a  b", "$x"])
def test_wrong_names(name: str) -> None:
    (problem,) = refusal(to_doveconf, {name: "x"}, "2.3.19")
    assert problem.variable == "setting name"
    (problem,) = refusal(to_doveconf, {name: {}}, "2.4.1")
    assert problem.variable == "setting name"


@pytest.mark.parametrize("mapping", [None, "a = b", b"a", 3])
def test_only_settings_are_written(mapping: Any) -> None:
    assert refusal(to_doveconf, mapping, "2.3.19")[0].rule == "a mapping of settings"


@pytest.mark.parametrize("version", ["2.2.36", "3.0", "", "2.5"])
def test_only_known_dialects(version: str) -> None:
    assert refusal(to_doveconf, {"a": "b"}, version)[0].rule == "only Dovecot 2.3 and 2.4 are known"


@pytest.mark.parametrize(
    ("version", "written"), [("2.4.1", "2.4.1"), ("2.4.1-4", "2.4.1"), ("2.4", "2.4.0"), ("2.4.10", "2.4.10")]
)
def test_version_lines_come_first_on_2_4(version: str, written: str) -> None:
    lines = to_doveconf({"mail_driver": "maildir", "dovecot_storage_version": "2.4.0"}, version).splitlines()
    settings = [line for line in lines if not line.startswith("#")]
    assert settings == [
        f"dovecot_config_version = {written}",
        "dovecot_storage_version = 2.4.0",
        "mail_driver = maildir",
    ]
    assert "dovecot_config_version" not in to_doveconf({"a": "b"}, "2.3.19")


def test_names_of_passdbs() -> None:
    tree = {
        "passdb static": {"args": "x"},
        "passdb shards": {"driver": "passwd-file"},
        "userdb static": {"args": "y"},
        "passdb": {"driver": "pam"},
        "service auth": {"x": "y"},
    }
    old, new = from_doveconf(to_doveconf(tree, "2.3.19")), from_doveconf(to_doveconf(tree, "2.4.1"))
    assert old == {
        "passdb": {"driver": "static", "args": "x"},
        "passdb #2": {"driver": "passwd-file"},
        "userdb": {"driver": "static", "args": "y"},
        "passdb #3": {"driver": "pam"},
        "service auth": {"x": "y"},
    }
    assert {name: value for name, value in new.items() if isinstance(value, dict)} == tree


@pytest.mark.parametrize("version", ["2.3.19", "2.4.1"])
def test_second_sections_are_written_without_their_number(version: str) -> None:
    text = "namespace a {\n  x = 1\n}\npassdb pam {\n  driver = pam\n}\nnamespace a {\n  x = 2\n}\n"
    tree = from_doveconf(text)
    assert "namespace a #2" in tree
    written = to_doveconf(tree, version)
    assert "#2" not in written
    assert written.count("namespace a {\n") == 2


def test_a_reason_is_a_comment_above() -> None:
    tree = [Entry("a", "b", "Because."), Entry("s", (Entry("c", "d", "Inside."),), "A section.")]
    assert to_doveconf(tree, "2.3.19") == ("# Because.\na = b\n# A section.\ns {\n  # Inside.\n  c = d\n}\n")
