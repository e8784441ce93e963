# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Inventories: a sound one has no problem; each bad one has the problem that an operator needs to read."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.errors import Problem, report
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.inventory import (
    hostname_problems,
    inside,
    inventory_problems,
    misspelt,
    profile_of,
)
from brain_samples import JSON, SECRET
from hypothesis import given
from hypothesis import strategies as st

VARIABLES: dict[str, Any] = {
    "nfsmail_topology": "per_user",
    "nfsmail_mailbox_format": "maildir",
    "nfsmail_index_location": "nfs",
    "nfsmail_nfs_version": "4.2",
    "nfsmail_lockd": True,
    "nfsmail_delivery": "lmtp",
    "nfsmail_cache_flush": None,
    "nfsmail_accept_unsupported_random": False,
    "nfsmail_nfs_server": "",
    "nfsmail_export_path": "/srv/mail",
    "nfsmail_store_path": "/srv/mail",
    "nfsmail_mail_home": "/srv/mail/{domain}/{name}",
    "nfsmail_index_path": "/var/lib/nfsmail/index/{domain}/{name}",
    "nfsmail_users": [],
    "nfsmail_users_file": "/etc/dovecot/nfsmail-users",
    "nfsmail_overrides": {},
    "nfsmail_proxy_password": SECRET,
    "nfsmail_doveadm_password": "",
    "nfsmail_group_mail_backends": "mail_backends",
    "nfsmail_group_mail_proxies": "mail_proxies",
}
KNOWN = frozenset(
    {*VARIABLES, "nfsmail_address", "nfsmail_backend_weight", "nfsmail_backend_state", "dovecot_extra_settings"}
    | {"timesync_sources", "nfs_server_exports", "lockd_ports"}
)


def host(name: str, address: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "address": address, "weight": 1, "state": "up", **more}


MEMBERS: dict[str, list[dict[str, Any]]] = {
    "nfs_servers": [host("nfs1", "192.0.2.1")],
    "mail_backends": [host("mail1", "192.0.2.11"), host("mail2", "192.0.2.12")],
    "mail_proxies": [host("proxy1", "192.0.2.21")],
}


def problems(
    variables: dict[str, Any] | None = None,
    members: dict[str, list[dict[str, Any]]] | None = None,
    names: dict[str, list[str]] | None = None,
    values: dict[str, dict[str, Any]] | None = None,
) -> list[Problem]:
    """The problems of the sound cluster with these changes."""
    everything = {**copy.deepcopy(MEMBERS), **(members or {})}
    found = inventory_problems({**VARIABLES, **(variables or {})}, everything, names, KNOWN, values)
    for problem in found:
        assert problem.variable and problem.rule and problem.fix and problem.source, problem
    assert len({str(problem) for problem in found}) == len(found)
    return found


def test_a_sound_cluster() -> None:
    assert problems() == []
    assert problems({"nfsmail_topology": "single"}, {"mail_backends": MEMBERS["mail_backends"][:1]}) == []
    assert problems({"nfsmail_nfs_server": "filer.example.com"}, {"nfs_servers": []}) == []
    accepted = {"nfsmail_topology": "random", "nfsmail_accept_unsupported_random": True}
    assert problems(accepted, {"mail_proxies": []}) == []


ONE_BACKEND = {"mail_backends": [host("mail1", "192.0.2.11")]}
DOUBLE = {"mail_backends": [host("mail1", "192.0.2.11"), host("mail2", "192.0.2.11")]}
CASES: dict[str, tuple[dict[str, Any], dict[str, Any], tuple[str, object, str, str]]] = {
    "unknown topology": (
        {"nfsmail_topology": "ring"},
        {},
        ("nfsmail_topology", "ring", "one of single, random, per_user", "did you mean"),
    ),
    "per_user without proxies": (
        {},
        {"mail_proxies": []},
        ("nfsmail_topology", "per_user", "per_user needs a proxy", "add a host to mail_proxies, or use single"),
    ),
    "per_user without proxies, group renamed": (
        {"nfsmail_group_mail_proxies": "front"},
        {"mail_proxies": []},
        ("nfsmail_topology", "per_user", "the group of proxies is empty", "add a host to front"),
    ),
    "one backend listed twice": (
        {},
        DOUBLE,
        ("backends[mail2].address", "192.0.2.11", "'mail1' has the same address", "remove one of the two"),
    ),
    "home outside the mount": (
        {"nfsmail_mail_home": "/home/{user}"},
        {},
        ("nfsmail_mail_home", "/home/{user}", "mail lies below the mount point /srv/mail", "write /srv/mail/{domain}"),
    ),
    "home beside the mount": (
        {"nfsmail_mail_home": "/srv/mailboxes/{user}"},
        {},
        ("nfsmail_mail_home", "/srv/mailboxes/{user}", "mail lies below the mount point", "write /srv/mail/"),
    ),
    "home that climbs out of the mount": (
        {"nfsmail_mail_home": "/srv/mail/../{user}"},
        {},
        ("nfsmail_mail_home", "/srv/mail/../{user}", "mail lies below the mount point", "write /srv/mail/"),
    ),
    "one home for all": (
        {"nfsmail_mail_home": "/srv/mail/{domain}"},
        {},
        ("nfsmail_mail_home", "/srv/mail/{domain}", "each user has a home of their own", "put {user}"),
    ),
    "home in the words of 2.3": (
        {"nfsmail_mail_home": "/srv/mail/%d/{user}"},
        {},
        ("nfsmail_mail_home", "/srv/mail/%d/{user}", "variables are written {user}", "2.4 takes %d and %n literally"),
    ),
    "local indexes on the mount": (
        {"nfsmail_index_location": "local", "nfsmail_index_path": "/srv/mail/index/{user}"},
        {},
        ("nfsmail_index_path", "/srv/mail/index/{user}", "outside the mount point", "use a path on a local disk"),
    ),
    "relative export": (
        {"nfsmail_export_path": "srv/mail"},
        {},
        ("nfsmail_export_path", "srv/mail", "an absolute path", "write /srv/mail"),
    ),
    "export of everything": (
        {"nfsmail_export_path": "/"},
        {},
        ("nfsmail_export_path", "/", "a plain path below /", "correct it"),
    ),
    "random without opt-in": (
        {"nfsmail_topology": "random"},
        {},
        ("nfsmail_topology", "random", "NFS208: ", "nfsmail_accept_unsupported_random: true"),
    ),
    "random with an opt-in that is text": (
        {"nfsmail_topology": "random", "nfsmail_accept_unsupported_random": "yes"},
        {},
        ("nfsmail_topology", "random", "not supported by Dovecot", "use per_user"),
    ),
    "single with two backends": (
        {"nfsmail_topology": "single"},
        {},
        ("nfsmail_topology", "single", "the inventory lists 2: mail1, mail2", "use per_user with a proxy"),
    ),
    "no proxy password": (
        {"nfsmail_proxy_password": ""},
        {},
        ("nfsmail_proxy_password", None, "the password that proxies log in with", "openssl rand"),
    ),
    "short proxy password": (
        {"nfsmail_proxy_password": "k3pt-S3cret"},
        {},
        ("nfsmail_proxy_password", "(hidden)", "at least 16 of", "Ansible Vault"),
    ),
    "short doveadm password": (
        {"nfsmail_doveadm_password": "k3pt-S3cret"},
        {},
        ("nfsmail_doveadm_password", "(hidden)", "the password of doveadm", "openssl rand"),
    ),
    "short doveadm password in single": (
        {"nfsmail_topology": "single", "nfsmail_doveadm_password": "k3pt-S3cret"},
        ONE_BACKEND,
        ("nfsmail_doveadm_password", "(hidden)", "the password of doveadm", "openssl rand"),
    ),
    "host in backends and proxies": (
        {},
        {"mail_proxies": [host("mail1", "192.0.2.11")]},
        ("host mail1", "in mail_backends and mail_proxies", "a proxy is not a backend", "take it out"),
    ),
    "no backend": (
        {},
        {"mail_backends": []},
        ("group mail_backends", [], "at least one backend", "add hosts to the group"),
    ),
    "no NFS server": (
        {},
        {"nfs_servers": []},
        ("nfsmail_nfs_server", None, "mount from an NFS server", "add a host to nfs_servers"),
    ),
    "all backends drained": (
        {},
        {"mail_backends": [host("mail1", "192.0.2.11", state="drained")]},
        ("backends", ["mail1"], "at least one backend takes users", "state to up"),
    ),
    "wrong weight": (
        {},
        {"mail_backends": [host("mail1", "192.0.2.11", weight="heavy")]},
        ("backends[mail1].weight", "heavy", "a number, 0 to 1000", "1 is the usual weight"),
    ),
    "override to nowhere": (
        {"nfsmail_overrides": {"vip@x": "mail9"}},
        {},
        ("nfsmail_overrides[vip@x]", "mail9", "the backend is in the inventory", "one of mail1, mail2"),
    ),
    "user without a hash": (
        {"nfsmail_users": [{"name": "a@x", "password": "k3pt-S3cret"}]},
        {},
        ("nfsmail_users[0].password", "(hidden)", "a hash with its scheme in front", "doveadm pw"),
    ),
    "relative file of users": (
        {"nfsmail_users_file": "users"},
        {},
        ("nfsmail_users_file", "users", "an absolute path without blanks", "correct it"),
    ),
    "an error of the matrix": (
        {"nfsmail_mailbox_format": "mdbox", "nfsmail_index_location": "local"},
        {},
        ("nfsmail_index_location", "local", "NFS206: ", "use index_location nfs, or maildir"),
    ),
    "unknown NFS version": (
        {"nfsmail_nfs_version": 5},
        {},
        ("nfsmail_nfs_version", 5, "one of 2, 3, 4.0, 4.1, 4.2", "did you mean"),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_bad_inventory(case: str) -> None:
    variables, members, (variable, value, rule, fix) = CASES[case]
    (problem,) = problems(variables, members)
    assert (problem.variable, problem.value) == (variable, value)
    assert rule in problem.rule
    assert fix in problem.fix
    text = report([problem])
    assert "k3pt-S3cret" not in text
    for part in (variable, problem.rule, problem.fix, problem.source):
        assert part in text


def test_everything_at_once_in_one_report() -> None:
    found = problems(
        {
            "nfsmail_topology": "single",
            "nfsmail_mailbox_format": "mdbox",
            "nfsmail_nfs_version": "3",
            "nfsmail_lockd": False,
            "nfsmail_export_path": "mail",
            "nfsmail_mail_home": "/home/%u",
            "nfsmail_users_file": "",
            "nfsmail_users": [{"name": "", "password": "k3pt-S3cret"}],
            "nfsmail_overrides": {"a b": "mail1"},
            "nfsmail_doveadm_password": "k3pt-S3cret",
        },
        {"mail_proxies": [host("mail2", "192.0.2.12")], "nfs_servers": []},
        {"mail1": ["nfsmail_topolgy"]},
        {"mail1": {"nfsmail_proxy_password": "a"}, "mail2": {"nfsmail_proxy_password": "b"}},
    )
    text = report(found)
    assert text.startswith(f"{len(found)} problems in the cluster's variables, nothing was changed:\n1. ")
    for needle in (
        "nfsmail_lockd: 'no'",
        "NFS202",
        "nfsmail_topology: 'single'",
        "nfsmail_nfs_server: not set",
        "host mail2",
        "nfsmail_export_path: 'mail'",
        "nfsmail_mail_home: '/home/%u'",
        "nfsmail_users_file: not set",
        "nfsmail_users[0].name",
        "nfsmail_users[0].password",
        "nfsmail_overrides[a b]",
        "nfsmail_doveadm_password: '(hidden)'",
        "did you mean 'nfsmail_topology'?",
        "nfsmail_proxy_password: 'different values (hidden)'",
    ):
        assert needle in text, needle
    assert "k3pt-S3cret" not in text


def test_a_wrong_profile_hides_no_other_problem() -> None:
    found = problems({"nfsmail_topology": "ring", "nfsmail_export_path": "mail", "nfsmail_lockd": "perhaps"})
    assert [problem.variable for problem in found] == ["nfsmail_topology", "nfsmail_lockd", "nfsmail_export_path"]


def test_misspelt_variables() -> None:
    names = {
        "mail1": ["nfsmail_topolgy", "nfsmail_topology", "ansible_host", "dovecot_exra_settings", "timesync_source"],
        "mail2": ["nfsmail_topolgy", "lockd_portz", "dovecot_of_another_collection", "nfs_server_firewall_zone"],
    }
    found = {problem.variable: problem for problem in problems(names=names)}
    assert {name: problem.fix for name, problem in found.items()} == {
        "nfsmail_topolgy": "did you mean 'nfsmail_topology'?",
        "dovecot_exra_settings": "did you mean 'dovecot_extra_settings'?",
        "timesync_source": "did you mean 'timesync_sources'?",
        "lockd_portz": "did you mean 'lockd_ports'?",
    }
    assert found["nfsmail_topolgy"].value == "set for mail1, mail2"
    assert found["nfsmail_topolgy"].rule == "no role of this collection knows this variable"


def test_many_hosts_with_a_misspelt_variable_are_not_all_listed() -> None:
    names = {f"mail{number}": ["nfsmail_topolgy"] for number in range(1, 6)}
    (problem,) = problems(names=names)
    assert problem.value == "set for mail1, mail2, mail3 and others"


def test_without_documentation_nothing_counts_as_misspelt() -> None:
    assert misspelt({"mail1": ["nfsmail_anything"]}, []) == []


def test_hosts_that_disagree() -> None:
    values = {
        "mail1": {"nfsmail_nfs_version": "3", "nfsmail_backend_weight": 1, "nfsmail_store_path": "/srv/mail"},
        "mail2": {"nfsmail_nfs_version": "4.2", "nfsmail_backend_weight": 2, "nfsmail_store_path": "/srv/mail"},
        "mail3": {"nfsmail_nfs_version": "3", "nfsmail_address": "192.0.2.9", "nfsmail_backend_state": "down"},
    }
    (problem,) = problems(values=values)
    assert problem.variable == "nfsmail_nfs_version"
    assert problem.value == {"mail1": "'3'", "mail2": "'4.2'"}
    assert problem.rule.startswith("the whole cluster shares one value")
    assert problem.fix == "set it once, for the group that holds the whole cluster"


@pytest.mark.parametrize("name", ["nfsmail_proxy_password", "nfsmail_doveadm_password", "nfsmail_users"])
def test_secrets_that_disagree_are_hidden(name: str) -> None:
    (problem,) = problems(values={"mail1": {name: "k3pt-S3cret"}, "mail2": {name: "other"}})
    assert problem.value == "different values (hidden)"
    assert "k3pt-S3cret" not in str(problem)


@pytest.mark.parametrize(
    ("nodenames", "doubles"),
    [
        ({}, {}),
        ({"a": "mail1", "b": "mail2"}, {}),
        ({"a": "mail", "b": "mail"}, {"mail": "a, b"}),
        ({"a": "Mail.example.com", "b": "mail.example.org"}, {"mail": "a, b"}),
        ({"a": "x", "b": "x", "c": "y", "d": "y", "e": "z"}, {"x": "a, b", "y": "c, d"}),
    ],
)
def test_two_hosts_with_one_name(nodenames: dict[str, str], doubles: dict[str, str]) -> None:
    found = hostname_problems(nodenames)
    assert {problem.value: problem.variable.removeprefix("host name of ") for problem in found} == doubles
    assert all("hostnamectl set-hostname" in problem.fix for problem in found)


@pytest.mark.parametrize(
    ("path", "root", "is_inside"),
    [
        ("/srv/mail", "/srv/mail", True),
        ("/srv/mail/x", "/srv/mail", True),
        ("/srv/mail/x", "/srv/mail/", True),
        ("/srv/mailbox", "/srv/mail", False),
        ("/srv/mail/../x", "/srv/mail", False),
        ("/srv", "/srv/mail", False),
        ("/anything", "/", True),
    ],
)
def test_inside(path: str, root: str, is_inside: bool) -> None:
    assert inside(path, root) is is_inside


def test_profile_of_the_variables() -> None:
    assert profile_of(VARIABLES) == {
        "topology": "per_user",
        "mailbox_format": "maildir",
        "index_location": "nfs",
        "nfs_version": "4.2",
        "lockd": True,
        "delivery": "lmtp",
    }
    assert profile_of({}, "2.4.1") == {"dovecot_version": "2.4.1"}
    assert profile_of({"nfsmail_lockd": False, "nfsmail_cache_flush": ""}) == {"lockd": False}


@given(st.dictionaries(st.sampled_from(sorted(VARIABLES)), JSON, max_size=5))
def test_any_variables_are_judged(variables: dict[str, Any]) -> None:
    for problem in problems(variables):
        assert str(problem)
