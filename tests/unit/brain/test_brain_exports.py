# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Exports: safe options always, dangerous ones never, and nobody but the clients."""

from __future__ import annotations

import re
from typing import Any

import pytest
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.errors import NfsmailError
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.exports import (
    BASE_OPTIONS,
    REFUSED,
    exports,
    exports_text,
    path_problems,
)
from brain_samples import JSON, refusal
from hypothesis import given
from hypothesis import strategies as st

SAFE = ["rw", "sync", "root_squash", "no_subtree_check", "sec=sys", "anonuid=5000", "anongid=5001"]


def plan(*clients: Any, path: Any = "/srv/mail", **share: Any) -> list[dict[str, Any]]:
    return exports([{"path": path, "clients": list(clients), **share}], 5000, 5001)


def test_safe_options_are_there_unasked() -> None:
    assert plan("192.0.2.11", "192.0.2.12") == [
        {"path": "/srv/mail", "client": "192.0.2.11", "options": SAFE},
        {"path": "/srv/mail", "client": "192.0.2.12", "options": SAFE},
    ]
    assert exports([], 5000, 5001) == []


@pytest.mark.parametrize(
    ("share", "client", "options"),
    [
        ([], [], SAFE),
        (None, None, SAFE),
        (["crossmnt"], [], [*SAFE, "crossmnt"]),
        (["crossmnt"], ["fsid=0"], [*SAFE, "crossmnt", "fsid=0"]),
        (["crossmnt"], ["crossmnt"], [*SAFE, "crossmnt"]),
        (["ro"], [], [*SAFE[1:], "ro"]),
        ([], ["sec=krb5p"], [*SAFE[:4], *SAFE[5:], "sec=krb5p"]),
        ([], ["anonuid=65534"], [*SAFE[:5], SAFE[6], "anonuid=65534"]),
        ([], ["all_squash"], [*SAFE[:2], *SAFE[3:], "all_squash"]),
        (["sync"], ["rw"], SAFE),
    ],
)
def test_more_options(share: Any, client: Any, options: list[str]) -> None:
    (entry,) = plan({"host": "mail1", "options": client}, options=share)
    assert entry["options"] == options


@pytest.mark.parametrize("option", REFUSED)
@pytest.mark.parametrize("where", ["share", "client"])
def test_dangerous_options_are_refused(option: str, where: str) -> None:
    client = {"host": "mail1", "options": [option] if where == "client" else []}
    (problem,) = refusal(plan, client, options=[option] if where == "share" else [])
    assert (problem.variable, problem.value) == ("nfs_server_exports[0].clients[mail1]", option)
    assert (problem.rule, problem.fix) == (REFUSED[option], "remove the option")


def test_the_options_that_would_lose_mail_are_among_the_refused() -> None:
    assert {"async", "no_root_squash", "subtree_check", "insecure_locks", "anonuid=0"} <= set(REFUSED)
    assert not set(BASE_OPTIONS) & set(REFUSED)


@pytest.mark.parametrize("option", ["rw,async", "rw async", "x)", "*(rw", "", "Rw", "sec=", "ro\n", "a=b=c"])
def test_options_that_are_none(option: str) -> None:
    (problem,) = refusal(plan, {"host": "mail1", "options": [option]})
    assert (problem.value, problem.rule) == (option, "an option as in exports(5)")


@pytest.mark.parametrize("options", ["async", "ro,async", {"ro": True}, 5])
def test_options_are_a_list(options: Any) -> None:
    assert refusal(plan, "mail1", options=options)[0].rule == "a list of options"
    assert refusal(plan, {"host": "mail1", "options": options})[0].rule == "a list of options"


WORLD = ["*", "0.0.0.0/0", "::/0", "0/0", "10.0.0.0/0", "0.0.0.0/0.0.0.0", "0.0.0.0/00", "**", "?*", "*.*", "*.*.*.*"]
NOBODY = [
    "",
    None,
    "mail1 ",
    " mail1",
    "mail 1",
    "mail1\n",
    "mail1(rw)",
    "mail1,mail2",
    "a;b",
    "mäil",
    {},
    {"host": ""},
]


@pytest.mark.parametrize("client", WORLD)
def test_nothing_is_exported_to_the_world(client: str) -> None:
    (problem,) = refusal(plan, client)
    assert problem.rule == "a host name, address or network; never everybody"
    (problem,) = refusal(plan, {"host": client, "options": ["ro"]})
    assert problem.rule == "a host name, address or network; never everybody"


@pytest.mark.parametrize("client", NOBODY)
def test_clients_that_are_none(client: Any) -> None:
    (problem,) = refusal(plan, client)
    assert problem.variable == "nfs_server_exports[0].clients.host"


@pytest.mark.parametrize(
    "client",
    ["mail1", "mail1.example.com", "*.example.com", "mail?.example.com", "192.0.2.11", "192.0.2.0/24", "192.0.2.*"]
    + ["192.0.2.0/255.255.255.0", "2001:db8::11", "[2001:db8::11]", "2001:db8::/64", "10.0.0.0/10", "@mailhosts"],
)
def test_clients(client: str) -> None:
    (entry,) = plan(client)
    assert entry["client"] == client


@pytest.mark.parametrize(
    ("path", "good"),
    [
        ("/srv/mail", True),
        ("/srv/my mail", True),
        ("/srv/mail(1)", True),
        ("/srv/grüße", True),
        ("", False),
        ("srv/mail", False),
        ("./mail", False),
        ("~/mail", False),
        ("/", False),
        ("/srv/mail/", False),
        ("/srv/../etc", False),
        ("/..", False),
        ("/srv/a\nb", False),
        ("/srv/a\tb", False),
        ('/srv/"a"', False),
        ("/srv/a\\040", False),
        ("/srv/a#b", False),
    ],
)
def test_paths(path: str, good: bool) -> None:
    assert (path_problems("x", path) == []) is good
    if not good:
        (problem,) = refusal(plan, "mail1", path=path)
        assert problem.variable == "nfs_server_exports[0].path"


def test_a_relative_path_is_shown_as_an_absolute_one() -> None:
    assert path_problems("x", "srv/mail")[0].fix == "write /srv/mail"
    assert path_problems("x", "")[0].fix == "write /srv/mail"


def test_a_client_is_listed_once_for_a_path() -> None:
    (problem,) = refusal(plan, "mail1", {"host": "mail1", "options": ["ro"]})
    assert problem.value == "/srv/mail to mail1"
    assert problem.rule.startswith("a path is exported to a client once")
    shares = [{"path": "/srv/mail", "clients": ["mail1"]}, {"path": "/srv/other", "clients": ["mail1"]}]
    assert len(exports(shares, 1, 1)) == 2
    assert refusal(exports, [shares[0], shares[0]], 1, 1)


@pytest.mark.parametrize(
    ("shares", "rule"),
    [
        (None, "a list of {path, clients}"),
        ("/srv/mail mail1(rw)", "a list of {path, clients}"),
        ({"path": "/srv/mail", "clients": ["mail1"]}, "a list of {path, clients}"),
        (["/srv/mail"], "a mapping {path, clients: [...]}"),
        ([{"path": "/srv/mail"}], "a mapping {path, clients: [...]}"),
        ([{"path": "/srv/mail", "clients": "mail1"}], "a mapping {path, clients: [...]}"),
        ([{"path": "/srv/mail", "clients": []}], "an export has clients; none would mean everybody"),
    ],
)
def test_shapes(shares: Any, rule: str) -> None:
    (problem,) = refusal(exports, shares, 5000, 5000)
    assert problem.rule == rule


def test_everything_wrong_at_once() -> None:
    shares = [
        {
            "path": "srv",
            "clients": ["*", {"host": "mail1", "options": ["async", "a b"]}],
            "options": ["no_root_squash"],
        },
        {"path": "/srv/mail", "clients": []},
        None,
    ]
    problems = refusal(exports, shares, 5000, 5000)
    assert [problem.value for problem in problems] == [
        "srv",
        "*",
        "no_root_squash",
        "no_root_squash",
        "async",
        "a b",
        [],
        None,
    ]


def test_text() -> None:
    entries = [*plan("mail1", "mail2", path="/srv/my mail"), *plan("mail1")]
    options = ",".join(SAFE)
    assert exports_text(entries) == (
        f"/srv/my\\040mail mail1({options}) mail2({options})\n/srv/mail mail1({options})\n"
    )
    assert exports_text([]) == ""


CLIENTS = st.one_of(
    JSON,
    st.text(st.sampled_from("ab1.*?/:[]@ \n\t()"), max_size=8),
    st.fixed_dictionaries(
        {"host": st.text(st.sampled_from("ab1.*?/:@ \n("), max_size=8)},
        optional={"options": st.lists(st.text(st.sampled_from("ro_=1,( \n"), max_size=6), max_size=3) | JSON},
    ),
)


@given(
    st.lists(
        st.fixed_dictionaries(
            {"path": JSON | st.text(st.sampled_from("/ab (\n#."), max_size=8).map("/".__add__)},
            optional={"clients": st.lists(CLIENTS, max_size=3) | JSON, "options": st.lists(st.text(max_size=4)) | JSON},
        )
        | JSON,
        max_size=3,
    )
)
def test_no_blank_ever_comes_before_a_bracket(shares: list[Any]) -> None:
    try:
        text = exports_text(exports(shares, 5000, 5000))
    except NfsmailError:
        return
    # With a blank there, exports(5) means the whole world.
    assert not re.search(r"\s\(", text)
    for line in text.splitlines():
        assert re.fullmatch(r"/\S+( [^\s()]+\([^\s()]+\))+", line), line


@given(st.lists(st.sampled_from(["mail1", "mail2", "192.0.2.0/24", "@hosts"]), min_size=1, unique=True))
def test_good_plans_are_always_safe(clients: list[str]) -> None:
    for entry in plan(*clients):
        assert {"sync", "root_squash", "no_subtree_check"} <= set(entry["options"])
        assert not set(entry["options"]) & set(REFUSED)
