# Copyright (c) 2026 nfsmail.cluster contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Exports as written and as shown by a real exportfs (nfs-utils 2.6.2)."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest
from ansible_collections.nfsmail.cluster.plugins.module_utils import _exports

DATA = pathlib.Path(__file__).parent / "data"
SHOWN = _exports.parse_exportfs((DATA / "exportfs-2.6.2.txt").read_text())
STDERR = (DATA / "exportfs-2.6.2.stderr.txt").read_text()


def entry(path: str, client: str, *options: str) -> dict[str, Any]:
    return {"path": path, "client": client, "options": list(options)}


# ---- reading ----


def test_parse_exports() -> None:
    text = (
        "# comment\n"
        "/srv/mail 10.0.0.2(rw,sync) \\\n"
        "    mail2(rw)   # the second\n"
        '"/srv/a b" @ng(ro)\n'
        "/srv/c\\040d *.lan\n"
        "/opt/ -rw,sync 10.0.0.7 10.0.0.8(ro)\n"
    )
    assert _exports.parse_exports(text) == (
        [
            entry("/srv/mail", "10.0.0.2", "rw", "sync"),
            entry("/srv/mail", "mail2", "rw"),
            entry("/srv/a b", "@ng", "ro"),
            entry("/srv/c d", "*.lan"),
            entry("/opt", "10.0.0.7", "rw", "sync"),
            entry("/opt", "10.0.0.8", "rw", "sync", "ro"),
        ],
        [],
    )


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (
            "\n/srv 10.0.0.2(ro) 10.0.0.3 (rw)",
            "line 2: a blank before (rw) exports /srv to the whole world with these options; write CLIENT(rw)",
        ),
        ("/srv", "line 1: /srv names no client, which exports it to the whole world"),
        ("/srv -rw", "line 1: /srv names no client, which exports it to the whole world"),
        ("srv 10.0.0.2(rw)", "line 1: the path 'srv' does not start with a slash"),
        ("/srv 10.0.0.2(rw", "line 1: '10.0.0.2(rw' is not CLIENT(OPTION,...)"),
        ("/srv 10.0.0.2(rw)10.0.0.3(rw)", "line 1: '10.0.0.2(rw)10.0.0.3(rw)' is not CLIENT(OPTION,...)"),
    ],
)
def test_parse_exports_errors(text: str, error: str) -> None:
    assert _exports.parse_exports(text)[1] == [error]


def test_parse_exports_reports_all_errors() -> None:
    assert len(_exports.parse_exports("x\n/a\n/b c (d)\n")[1]) == 3


def test_parse_exportfs() -> None:
    assert len(SHOWN) == 12
    assert SHOWN[3]["path"] == "/tmp/a b"
    assert SHOWN[5]["client"] == "::1"
    assert SHOWN[7]["client"] == "10.1.0.0/255.255.0.0"
    assert SHOWN[1] == entry(
        *("/var", "10.0.0.2"),
        *(
            "sync",
            "wdelay",
            "hide",
            "no_subtree_check",
            "sec=sys",
            "rw",
            "secure",
            "root_squash",
            "no_all_squash",
        ),
    )


# ---- judging ----


@pytest.mark.parametrize(
    ("path", "client", "options"),
    [
        ("/tmp", "localhost", ["rw", "sync", "all_squash", "anonuid=5000", "root_squash", "anongid=65534"]),
        (
            "/tmp",
            "10.1.0.0/16",
            ["ro", "hide", "nocrossmnt", "acl", "secure_locks", "no_pnfs", "rdirplus", "sec=sys"],
        ),
        ("/nope", "10.0.0.9", ["crossmnt", "nohide", "insecure", "secure"]),
        ("/tmp/a b", "10.0.0.9", ["fsid=root"]),
        ("/usr", "*.lan", ["mp", "nordirplus"]),
        ("/home", "*", ["async", "no_auth_nlm", "no_acl", "pnfs", "nohide"]),
        ("/opt", "10.0.0.8", ["sec=krb5:sys"]),
    ],
)
def test_options_hold(path: str, client: str, options: list[str]) -> None:
    shown = [
        row
        for row in SHOWN
        if row["path"] == path and _exports.client_key(row["client"]) == _exports.client_key(client)
    ]
    assert _exports.judge([entry(path, client, *options)], shown) == []


def test_options_that_exportfs_1_3_does_not_show() -> None:
    shown = _exports.parse_exportfs((DATA / "exportfs-1.3.4.txt").read_text())
    assert len(shown) == 4
    wanted = [
        entry("/srv/mail", "10.77.0.0/24", "rw", "sync", "root_squash", "no_subtree_check", "fsid=1", "hide", "secure"),
        entry("/srv/mail", "*.lan", "nohide", "mp=/srv", "sec=krb5:sys"),
        entry("/srv/mail", "@ng", "ro", "sync", "subtree_check", "no_wdelay", "no_root_squash"),
        entry("/srv", "localhost", "ro", "async", "insecure", "anonuid=5000", "crossmnt"),
    ]
    assert _exports.judge(wanted, shown) == []
    wrong = _exports.judge([entry("/srv", "localhost", "sync", "secure", "rw")], shown)
    assert [item["found"] for item in wrong] == ["async", "insecure", "ro"]


@pytest.mark.parametrize(
    ("path", "client", "option", "found"),
    [
        ("/var", "10.0.0.3", "rw", "ro"),
        ("/home", "*", "sync", "async"),
        ("/tmp", "localhost", "no_all_squash", "all_squash"),
        ("/tmp", "localhost", "no_root_squash", "root_squash"),
        ("/tmp", "localhost", "anonuid=6000", "anonuid=5000"),
        ("/tmp", "localhost", "anonuid=65534", "anonuid=5000"),
        ("/tmp", "localhost", "anongid=5000", "no anongid"),
        ("/home", "*", "secure_locks", "insecure_locks"),
        ("/var", "10.0.0.2", "insecure", "secure"),
        ("/usr", "*.lan", "rdirplus", "nordirplus"),
        ("/usr", "*.lan", "fsid=0", "no fsid"),
        ("/tmp", "localhost", "crossmnt", "no crossmnt"),
        ("/home", "*", "subtree_check", "no_subtree_check"),
    ],
)
def test_options_that_do_not_hold(path: str, client: str, option: str, found: str) -> None:
    shown = [row for row in SHOWN if (row["path"], row["client"]) == (path, client)]
    wrong = _exports.judge([entry(path, client, option)], shown)
    assert wrong == [{"path": path, "client": client, "wanted": option, "found": found}]
    assert _exports.describe(wrong[0]) == f"{path} for {client}: wanted {option}, found {found}"


def test_missing_and_surplus_clients() -> None:
    wrong = _exports.judge(
        [entry("/var", "10.0.0.2", "rw"), entry("/var", "nohost"), entry("/gone", "10.0.0.2")], SHOWN
    )
    assert [_exports.describe(item) for item in wrong] == [
        "/var for nohost: wanted exported, found not exported",
        "/gone for 10.0.0.2: wanted exported, found not exported",
        "/var for 10.0.0.3: wanted not exported, found exported to 10.0.0.3(sync,wdelay,hide,no_subtree_check,sec=sys,ro,"
        "root_squash,no_all_squash)",
        "/var for *: wanted not exported, found exported to the whole world, *(sync,wdelay,hide,no_subtree_check,sec=sys,rw,"
        "root_squash,no_all_squash)",
    ]


def test_hosts_are_compared_by_what_canonical_says() -> None:
    shown = [entry("/srv", "mail1.example.com", "rw")]
    assert _exports.judge([entry("/srv", "mail1", "rw")], shown) != []
    assert _exports.judge([entry("/srv", "mail1", "rw")], shown, lambda client: client.partition(".")[0]) == []


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("10.1.0.0/16", "10.1.0.0/255.255.0.0"),
        ("Mail1.Example.com.", "mail1.example.com"),
        ("2001:DB8::1", "2001:db8:0::1"),
        ("*", "<world>"),
    ],
)
def test_client_key(one: str, other: str) -> None:
    assert _exports.client_key(one) == _exports.client_key(other)


def test_relevant_messages() -> None:
    ours = [
        entry("/var", "10.0.0.3"),
        entry("/opt", "10.0.0.7"),
        entry("/usr", "nohost"),
        entry("/nope", "10.0.0.9"),
    ]
    assert _exports.relevant_messages(STDERR, "/etc/exports.d/nfsmail.exports", ours) == [
        "No host name given with /var (rw), suggest *(rw) to avoid warning",
        '/etc/exports.d/nfsmail.exports:6: unknown keyword "bogus"',
        "Failed to resolve nohost",
        "10.0.0.7:/opt (0x425) [IGNORED]",
        "Failed to stat /nope: No such file or directory",
    ]
