# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Text that we write is read by each release as it was meant, and what a release prints is read by us."""

from __future__ import annotations

import pytest
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.dialect import from_doveconf, to_doveconf
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.dovecot_conf import backend_conf, ssha512
from brain_samples import SECRET
from conftest import Release
from plans import backend

TRICKY = (
    "plain",
    "",
    "x#y",
    "x #y",
    "#x",
    "end\\",
    "\\",
    "\\\\",
    'end\\"',
    "a\\b",
    "\\Drafts",
    "it's",
    "it's #1",
    "'single'",
    "'",
    '"double"',
    '"',
    '"a" and "b"',
    'say "hi"',
    " both ",
    "\ttab",
    "in\tside",
    "x = y {",
    "{SSHA512}abc+/=",
    "}",
    "50% of $5",
    "a;b,c",
    "~/Maildir:INDEX=/x",
    "grüße 日本",
)


def test_dovecot_reads_what_was_meant(release: Release) -> None:
    texts = [to_doveconf({"login_greeting": value}, release.version) for value in TRICKY]
    for value, answer in zip(TRICKY, release.ask(texts, "doveconf", "-c", "FILE", "-h", "login_greeting")):
        assert (answer.code, answer.err) == (0, "")
        said = answer.out[:-1]
        # 2.4 puts quotes around some values, where a file would need them, and leaves others bare.
        bare = said if release.series == "2.3" or said == value else from_doveconf(f"x = {said}")["x"]
        assert bare == value


def test_what_dovecot_prints_is_read_back(release: Release) -> None:
    # Left out: what doveconf itself prints so that it would be read otherwise.
    values = [value for value in TRICKY if value not in ("", "\\\\") and value[:1] not in ("'", '"')]
    texts = [to_doveconf({"login_greeting": value}, release.version) for value in values]
    for value, answer in zip(values, release.ask(texts)):
        assert from_doveconf(answer.out)["login_greeting"] == value


def test_extra_settings_are_in_effect(release: Release) -> None:
    extra = {
        "mail_max_userip_connections": 20,
        "login_greeting": "hello # there",
        "protocol imap": {"mail_debug": True},
    }
    (answer,) = release.ask([backend_conf(backend(release.version, extra_settings=extra))])
    assert (answer.code, answer.err) == (0, "")
    live = from_doveconf(answer.out)
    assert (live["mail_max_userip_connections"], live["login_greeting"]) == ("20", "hello # there")
    assert live["protocol imap"]["mail_debug"] == "yes"


@pytest.mark.parametrize("password", [SECRET, "ümläut", "a b"])
def test_dovecot_verifies_the_hash(release: Release, password: str) -> None:
    command = ["doveadm", "-c", "FILE", "pw", "-t", ssha512(password, "backend"), "-p"]
    empty = [to_doveconf({}, release.version)]
    assert release.ask(empty, *command, password)[0].code == 0
    assert release.ask(empty, *command, f"{password}x")[0].code != 0
