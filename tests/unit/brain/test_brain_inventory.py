# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Inventories: a sound one has no problem; each bad one has the problem that an operator needs to read."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import pytest
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.errors import Problem, report
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.inventory import (
    PUBLIC_SECRETS,
    hostname_problems,
    inside,
    inventory_notes,
    inventory_problems,
    machine_problems,
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
    "nfsmail_volatile_path": "",
    "nfsmail_users": [],
    "nfsmail_users_file": "/etc/dovecot/nfsmail-users",
    "nfsmail_overrides": {},
    "nfsmail_proxy_password": SECRET,
    "nfsmail_doveadm_password": "",
    "nfsmail_protocols": ["imap", "lmtp"],
    "nfsmail_quota": "",
    "nfsmail_sieve": False,
    "nfsmail_sieve_before": [],
    "nfsmail_submission_relay": {},
    "nfsmail_health_user": "",
    "nfsmail_health_password": "",
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
    specs: dict[str, dict[str, Any]] | None = None,
) -> list[Problem]:
    """The problems of the sound cluster with these changes."""
    everything = {**copy.deepcopy(MEMBERS), **(members or {})}
    found = inventory_problems({**VARIABLES, **(variables or {})}, everything, names, KNOWN, values, specs)
    for problem in found:
        assert problem.variable and problem.rule and problem.fix and problem.source, problem
    assert len({str(problem) for problem in found}) == len(found)
    return found


def test_a_sound_cluster() -> None:
    assert problems() == []
    one = {"mail_backends": MEMBERS["mail_backends"][:1], "mail_proxies": []}
    assert problems({"nfsmail_topology": "single"}, one) == []
    assert problems({"nfsmail_nfs_server": "filer.example.com"}, {"nfs_servers": []}) == []
    for no in (False, "no", "off"):
        theirs = {"nfsmail_nfs_server": "efs.example.com", "nfsmail_manage_nfs_server": no}
        assert problems({**theirs, "nfsmail_export_path": "/"}, {"nfs_servers": []}) == []
    accepted = {"nfsmail_topology": "random", "nfsmail_accept_unsupported_random": True}
    assert problems(accepted, {"mail_proxies": []}) == []
    assert problems(accepted, {"mail_proxies": [], "mail_balancers": BALANCERS}) == []
    assert problems(members={"mail_balancers": BALANCERS}) == []


ONE_BACKEND = {"mail_backends": [host("mail1", "192.0.2.11")], "mail_proxies": []}
NO_PROXIES: dict[str, list[dict[str, Any]]] = {"mail_proxies": []}
DOUBLE = {"mail_backends": [host("mail1", "192.0.2.11"), host("mail2", "192.0.2.11")]}
BALANCERS = [host("balancer1", "192.0.2.31"), host("balancer2", "2001:db8::31")]
HEALTH = {"nfsmail_health_user": "health@x", "nfsmail_health_password": SECRET}
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
    "local indexes in memory": (
        {"nfsmail_index_location": "local", "nfsmail_index_path": "MEMORY", "nfsmail_mailbox_format": "maildir"},
        {},
        ("nfsmail_index_path", "MEMORY", "in MEMORY, what only they hold is lost", "write /var/lib/nfsmail/index"),
    ),
    "local indexes right in a common directory": (
        {"nfsmail_index_location": "local", "nfsmail_index_path": "/var/lib/index-{user}"},
        {},
        ("nfsmail_index_path", "/var/lib/index-{user}", "/var/lib is not ours alone", "write /var/lib/nfsmail/index"),
    ),
    "relative export": (
        {"nfsmail_export_path": "srv/mail"},
        {},
        ("nfsmail_export_path", "srv/mail", "an absolute path", "write /srv/mail"),
    ),
    "export of everything": (
        {"nfsmail_export_path": "/"},
        {},
        ("nfsmail_export_path", "/", "with / backends would get all files of the machine", "such as /srv/mail"),
    ),
    "mail store on everything": (
        {"nfsmail_store_path": "/", "nfsmail_manage_nfs_server": False, "nfsmail_nfs_server": "efs.example.com"},
        {},
        ("nfsmail_store_path", "/", "a directory below /", "such as /srv/mail"),
    ),
    "export with a final slash, not ours": (
        {"nfsmail_export_path": "/mail/", "nfsmail_manage_nfs_server": False, "nfsmail_nfs_server": "efs.example.com"},
        {},
        ("nfsmail_export_path", "/mail/", "without .., quotes or a final slash", "correct it"),
    ),
    "random without opt-in": (
        {"nfsmail_topology": "random"},
        NO_PROXIES,
        ("nfsmail_topology", "random", "NFS208: ", "nfsmail_accept_unsupported_random: true"),
    ),
    "random with an opt-in that is text": (
        {"nfsmail_topology": "random", "nfsmail_accept_unsupported_random": "yes"},
        NO_PROXIES,
        ("nfsmail_topology", "random", "not supported by Dovecot", "use per_user"),
    ),
    "single with proxies": (
        {"nfsmail_topology": "single"},
        {"mail_backends": [host("mail1", "192.0.2.11")]},
        (
            "nfsmail_topology",
            "single",
            "only per_user has proxies; the inventory lists proxy1",
            "take the hosts out of",
        ),
    ),
    "an appliance without a name": (
        {"nfsmail_manage_nfs_server": False},
        {"nfs_servers": []},
        ("nfsmail_nfs_server", None, "which is not ours to configure", "name the server in nfsmail_nfs_server"),
    ),
    "single with two backends": (
        {"nfsmail_topology": "single"},
        NO_PROXIES,
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
        (
            "host mail1",
            "in mail_backends and mail_proxies",
            "are three machines: each needs the mail ports",
            "take it out",
        ),
    ),
    "host in backends and balancers": (
        {},
        {"mail_balancers": [host("mail1", "192.0.2.11")]},
        ("host mail1", "in mail_backends and mail_balancers", "three machines", "take it out"),
    ),
    "host in proxies and balancers": (
        {},
        {"mail_balancers": [host("proxy1", "192.0.2.21")]},
        ("host proxy1", "in mail_proxies and mail_balancers", "three machines", "take it out"),
    ),
    "balancers in single": (
        {"nfsmail_topology": "single"},
        {**ONE_BACKEND, "mail_balancers": BALANCERS},
        ("group mail_balancers", ["balancer1", "balancer2"], "nothing to balance", "empty the group"),
    ),
    "balancer by name": (
        {},
        {"mail_balancers": [host("balancer1", "balancer1.example.com")]},
        ("nfsmail_address of balancer1", "balancer1.example.com", "an IP address", "set nfsmail_address of balancer1"),
    ),
    "a name that HAProxy does not take": (
        {},
        {"mail_proxies": [host("proxy one", "192.0.2.21")], "mail_balancers": BALANCERS},
        ("host proxy one", "proxy one", "HAProxy takes letters", "rename the host"),
    ),
    "all proxies drained": (
        {},
        {"mail_proxies": [host("proxy1", "192.0.2.21", state="drained")], "mail_balancers": BALANCERS},
        ("backends", ["proxy1"], "at least one backend takes users", "state to up"),
    ),
    "health-check user without a password": (
        {"nfsmail_health_user": "health@x"},
        {},
        ("nfsmail_health_password", None, "the password of nfsmail_health_user", "openssl rand"),
    ),
    "short password of the health-check user": (
        {"nfsmail_health_user": "health@x", "nfsmail_health_password": "k3pt-S3cret"},
        {},
        ("nfsmail_health_password", "(hidden)", "at least 16 of", "Ansible Vault"),
    ),
    "password without a health-check user": (
        {"nfsmail_health_password": SECRET},
        {},
        ("nfsmail_health_user", None, "the user of nfsmail_health_password", "name a user"),
    ),
    "health-check user with quotes": (
        HEALTH | {"nfsmail_health_user": 'he"alth'},
        {},
        ("nfsmail_health_user", 'he"alth', "letters, digits", "name a user"),
    ),
    "health-check user who is no user": (
        HEALTH | {"nfsmail_users": [{"name": "a@x", "password": "{X}y"}]},
        {},
        ("nfsmail_health_user", "health@x", "one of nfsmail_users", "add it to nfsmail_users"),
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


@pytest.mark.parametrize(
    ("topology", "members", "variable"),
    [
        ("per_user", {"mail_balancers": BALANCERS}, "dovecot_proxy_ssl"),
        ("random", {"mail_balancers": BALANCERS, "mail_proxies": []}, "dovecot_ssl"),
    ],
)
def test_no_tls_behind_balancers(topology: str, members: dict[str, Any], variable: str) -> None:
    values = {name: {"dovecot_ssl": "no", "dovecot_proxy_ssl": "no"} for name in ("mail1", "mail2", "proxy1")}
    random = {"nfsmail_topology": topology, "nfsmail_accept_unsupported_random": True}
    (problem,) = problems(random, members, values=values)
    assert (problem.variable, problem.value) == (variable, "no")
    assert "takes passwords without TLS" in problem.rule and problem.fix == "use yes or required"
    assert problems(random, members | {"mail_balancers": []}, values=values) == []


@pytest.mark.parametrize(
    ("topology", "members", "variables", "ids"),
    [
        ("random", {}, {}, ["NFS250"]),
        ("random", ONE_BACKEND, {}, []),
        ("random", {"mail_balancers": BALANCERS}, {}, ["NFS251"]),
        ("random", {"mail_balancers": BALANCERS}, HEALTH, []),
        ("per_user", {"mail_balancers": BALANCERS}, {}, []),
    ],
)
def test_notes_about_balancers(
    topology: str, members: dict[str, Any], variables: dict[str, Any], ids: list[str]
) -> None:
    everything = {**VARIABLES, "nfsmail_topology": topology, **variables}
    rows = [row for row in inventory_notes(everything, {**MEMBERS, **members}) if row["id"] in ("NFS250", "NFS251")]
    assert [row["id"] for row in rows] == ids
    assert all(row["level"] == "info" and row["message"] and row["fix"] and row["source"] for row in rows)


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


@pytest.mark.parametrize("name", ["nfsmail_proxy_password", "nfsmail_health_password", "nfsmail_users"])
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


# ---- the escape hatches ----

EXTRA: list[tuple[str, dict[str, Any], str, str, str]] = [
    (
        "mail1",
        {"dovecot_extra_settings": {"mmap_disable": "no"}},
        "dovecot_extra_settings.mmap_disable",
        "no",
        "decide",
    ),
    (
        "mail1",
        {"dovecot_extra_settings": {"protocol imap": {"mail_nfs_index": "yes"}}},
        "dovecot_extra_settings.protocol imap/mail_nfs_index",
        "yes",
        "the matrix and the role's own variables decide this setting",
    ),
    (
        "mail1",
        {"dovecot_extra_settings": {"service quota-status": {"executable": "quota-status -p postfix"}}},
        "dovecot_extra_settings",
        "service quota-status",
        "NFS419: ",
    ),
    (
        "mail2",
        {"dovecot_extra_settings": {"mail_control_path": "/var/control/%{user}"}, "dovecot_version": "2.4.1"},
        "dovecot_extra_settings",
        "mail_control_path=local",
        "NFS409: ",
    ),
    (
        "mail1",
        {"dovecot_extra_settings": {"mail_control_path": "/var/control"}, "dovecot_version": "2.3.19"},
        "dovecot_extra_settings",
        "mail_control_path is not known to Dovecot 2.3",
        "NFS401: ",
    ),
    (
        "mail1",
        {"dovecot_extra_settings": {"mail_attachment_dir": "/var/attachments"}, "dovecot_version": "2.3.19"},
        "dovecot_extra_settings",
        "attachments=local",
        "NFS430: ",
    ),
    (
        "mail1",
        {"dovecot_extra_settings": {"namespace x": {"mailbox Y": {"auto": {1, 2}}}}},
        "dovecot_extra_settings.namespace x/mailbox Y/auto",
        {1, 2},
        "text, a number, a boolean or a list",
    ),
    ("mail1", {"dovecot_extra_settings": ["a"]}, "dovecot_extra_settings", ["a"], "a mapping of settings"),
    ("mail1", {"dovecot_version": "2.5.0"}, "dovecot_version", "2.5.0", "only Dovecot 2.3 and 2.4 are known"),
    ("proxy1", {"dovecot_proxy_version": "3.0"}, "dovecot_proxy_version", "3.0", "only Dovecot 2.3 and 2.4 are known"),
    (
        "proxy1",
        {"dovecot_proxy_extra_settings": {"lmtp_proxy": False}},
        "dovecot_proxy_extra_settings.lmtp_proxy",
        False,
        "decide this setting",
    ),
    (
        "proxy1",
        {"dovecot_proxy_extra_settings": {"service director": {"x": "y"}}, "dovecot_proxy_version": "2.4.1"},
        "dovecot_proxy_extra_settings",
        "service director",
        "NFS432: ",
    ),
]


@pytest.mark.parametrize(("where", "own", "variable", "value", "rule"), EXTRA)
def test_extra_settings_are_judged_before_any_host(
    where: str, own: dict[str, Any], variable: str, value: Any, rule: str
) -> None:
    (problem,) = problems(values={where: own})
    assert problem.variable == variable
    assert problem.value == value or str(value) in str(problem.value)
    assert rule in problem.rule


def test_without_a_release_only_what_no_release_takes_is_refused() -> None:
    either = (
        {"dovecot_extra_settings": {"mail_location": "maildir:~/M"}},
        {"dovecot_extra_settings": {"mail_path": "x"}},
    )
    for own in either:
        assert problems(values={"mail1": own}) == []
    for version in ("2.3.19", "2.4.1"):
        found = [
            problem for own in either for problem in problems(values={"mail1": {**own, "dovecot_version": version}})
        ]
        # One of the two is the role's own, the other is not known.
        assert len(found) == 2, found


def test_the_same_mistake_of_many_hosts_is_told_once() -> None:
    own = {"dovecot_extra_settings": {"mmap_disable": "no"}}
    assert len(problems(values={"mail1": own, "mail2": own})) == 1


def test_sound_extra_settings() -> None:
    extra = {"mail_max_userip_connections": 20, "protocol imap": {"mail_plugins": ["quota", "imap_quota"]}}
    assert problems(values={"mail1": {"dovecot_extra_settings": extra}, "mail2": {"dovecot_extra_settings": {}}}) == []


# ---- the packet filter ----


def test_a_packet_filter_that_lets_nobody_in() -> None:
    own = {"mail1": {"dovecot_firewall": True}}
    single = {"nfsmail_topology": "single"}
    alone = {**MEMBERS, "mail_backends": MEMBERS["mail_backends"][:1], "mail_proxies": []}
    (problem,) = problems(single, alone, values=own)
    assert str(problem).startswith("dovecot_firewall") and "nobody would reach Dovecot" in str(problem)
    for word, refused in (("on", 1), ("y", 1), ("off", 0), (None, 0)):
        assert len(problems(single, alone, values={"mail1": {"dovecot_firewall": word}})) == refused
    own["mail1"]["dovecot_firewall_allow"] = ["192.0.2.0/24"]
    assert problems(single, alone, values=own) == []
    assert problems(values={"mail1": {"dovecot_firewall": True}}) == []


def test_an_address_to_let_in_is_one() -> None:
    (problem,) = problems(values={"mail1": {"dovecot_firewall_allow": ["monitor.example.com"]}})
    assert problem.variable == "dovecot_firewall_allow" and problem.value == "monitor.example.com"


# ---- metrics ----


def test_metrics_are_read_by_addresses() -> None:
    (problem,) = problems({"nfsmail_metrics_scrapers": ["192.0.2.7", "192.0.2.7/24"]})
    assert (problem.variable, problem.value) == ("nfsmail_metrics_scrapers", "192.0.2.7/24")


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("metrics_interval", 5, "a number from 15 to 300"),
        ("metrics_interval", 301, "a number from 15 to 300"),
        ("metrics_port", 0, "a number from 1 to 65535"),
        ("metrics_port", 9900, "node-exporter and Dovecot listen at ports of their own"),
    ],
)
def test_numbers_of_metrics(name: str, value: int, rule: str) -> None:
    (problem,) = problems({"nfsmail_metrics_port": 9900}, values={"mail1": {name: value}})
    assert (problem.variable, problem.value, problem.rule) == (name, value, rule)
    assert (
        problems({"nfsmail_metrics_port": 9900}, values={"mail1": {"metrics_interval": 300, "metrics_port": 9100}})
        == []
    )


# ---- modes of routing ----

DIRECTOR = {"dovecot_proxy_mode": "director"}


def test_a_director_of_2_3() -> None:
    assert problems(values={"proxy1": DIRECTOR}) == []
    assert problems(values={"proxy1": {**DIRECTOR, "dovecot_proxy_version": "2.3.19"}}) == []


@pytest.mark.parametrize(
    ("own", "variables", "variable", "rule"),
    [
        ({**DIRECTOR, "dovecot_proxy_version": "2.4.1"}, {}, "dovecot_proxy_mode", "Dovecot 2.4.1 has no director"),
        ({"dovecot_proxy_mode": "ring"}, {}, "dovecot_proxy_mode", "one of shards, director"),
        (DIRECTOR, {"nfsmail_overrides": {"a@x": "mail1"}}, "nfsmail_overrides", "takes no backend"),
    ],
)
def test_a_director_that_cannot_be(own: dict[str, Any], variables: dict[str, Any], variable: str, rule: str) -> None:
    (problem,) = problems(variables, values={"proxy1": own})
    assert problem.variable == variable and rule in problem.rule


def test_proxies_route_alike() -> None:
    two = {"mail_proxies": [host("proxy1", "192.0.2.21"), host("proxy2", "192.0.2.22")]}
    (problem,) = problems(members=two, values={"proxy1": DIRECTOR})
    assert problem.value == {"proxy1": "director", "proxy2": "shards"}
    assert problem.rule == "all proxies route alike, or a user is opened on two backends"


def test_backends_of_the_map_are_in_the_inventory() -> None:
    own = {"dovecot_proxy_backends": [{"name": "mail1"}, {"name": "mail9"}, "x"]}
    (problem,) = problems(values={"proxy1": own})
    assert (problem.variable, problem.value) == ("dovecot_proxy_backends of proxy1", ["mail9"])
    assert problem.rule.startswith("the backends of the map are in the inventory")


# ---- what the machines say ----


def machines(
    facts: dict[str, dict[str, Any]], values: dict[str, dict[str, Any]] | None = None, **variables: Any
) -> list[tuple[str, str]]:
    found = machine_problems({**VARIABLES, **variables}, MEMBERS, values or {}, facts)
    assert all(problem.fix and problem.source for problem in found)
    return [(problem.variable, problem.rule) for problem in found]


def release(version: str, where: str = "packages", package: str = "dovecot-core") -> dict[str, Any]:
    return {where: {package: version}}


def test_sound_machines() -> None:
    assert machines({}) == []
    assert machines({"mail1": release("2.3.19.1"), "mail2": release("2.4.1", "candidates"), "nfs1": {}}) == []
    assert machines({"mail1": release("2.4.1"), "mail2": release("2.4.1", package="dovecot")}) == []


def test_releases_decide_what_extra_settings_may_say() -> None:
    values = {"mail1": {"dovecot_extra_settings": {"disable_plaintext_auth": "no"}}}
    assert machines({"mail1": release("2.3.19")}, values) == []
    ((variable, rule),) = machines({"mail1": release("2.4.1")}, values)
    assert variable == "dovecot_extra_settings" and rule.startswith("NFS401: ")


def test_a_director_wants_2_3() -> None:
    values = {"proxy1": {"dovecot_proxy_mode": "director"}}
    assert machines({"proxy1": release("2.3.19.1")}, values) == []
    ((variable, rule),) = machines({"proxy1": release("2.4.1")}, values)
    assert variable == "dovecot_proxy_mode" and rule.startswith("Dovecot 2.4.1 has no director")


def test_backends_with_different_config_versions() -> None:
    facts = {"mail1": release("2.4.1"), "mail2": release("2.4.3"), "proxy1": release("2.4.4")}
    ((variable, rule),) = machines(facts)
    assert variable == "nfsmail_dovecot_config_version"
    assert rule.startswith("backends that share mailboxes read them by one dovecot_config_version")
    assert machines(facts, nfsmail_dovecot_config_version="2.4.1") == []
    ((variable, rule),) = machines(facts, nfsmail_dovecot_config_version="2.4.2")
    assert "no host with 2.4 is older than; {'mail1': '2.4.1'}" in rule
    ((_, rule),) = machines({"mail1": release("2.4.1")}, nfsmail_dovecot_config_version="2.3.19")
    assert rule.startswith("a release of 2.4")
    # One of 2.3 and one of 2.4 is an upgrade under way: a warning of verify, no error.
    assert machines({"mail1": release("2.3.19"), "mail2": release("2.4.3")}) == []


@given(
    st.dictionaries(
        st.sampled_from(["mail1", "proxy1"]), st.dictionaries(st.sampled_from(["hostname"]), JSON), max_size=2
    )
)
def test_any_facts_are_judged(facts: dict[str, Any]) -> None:
    machines(facts)


# ---- kinds of values ----

SPECS: dict[str, dict[str, Any]] = {
    "nfsmail_topology": {"type": "str", "default": "single", "choices": ["single", "random", "per_user"]},
    "nfsmail_mail_uid": {"type": "int", "default": 5000},
    "nfsmail_protocols": {"type": "list", "elements": "str", "default": ["imap"], "choices": ["imap", "pop3", "lmtp"]},
    "nfsmail_proxy_password": {"type": "str", "default": ""},
    "timesync_sources": {"type": "list", "elements": "str", "default": []},
}


def test_values_of_the_wrong_kind() -> None:
    values = {
        "mail1": {"timesync_sources": {"a": 1}, "nfsmail_mail_uid": "vmail"},
        "mail2": {"nfsmail_protocols": None, "nfsmail_proxy_password": ["k3pt-S3cret"], "nfsmail_mail_uid": "vmail"},
    }
    found = problems(values=values, specs=SPECS)
    assert {(problem.variable, str(problem.value), problem.rule) for problem in found} == {
        ("timesync_sources", "{'a': 1}", "a list; each entry text"),
        ("nfsmail_mail_uid", "vmail", "a whole number"),
        ("nfsmail_protocols", "None", "a list; each entry text"),
        ("nfsmail_proxy_password", "(hidden)", "text"),
    }
    assert "k3pt" not in report(found)


def test_a_value_is_told_of_once() -> None:
    """The matrix knows more of a topology than that it is text."""
    (problem,) = problems({"nfsmail_topology": "ring"}, values={"mail1": {"nfsmail_topology": "ring"}}, specs=SPECS)
    assert problem.source == "design: profile keys"


# ---- notes: what is not refused ----


def notes(values: dict[str, dict[str, Any]] | None = None, **variables: Any) -> list[tuple[str, str]]:
    found = inventory_notes({**VARIABLES, **variables}, MEMBERS, values)
    assert all(row["message"] and row["fix"] and row["source"] for row in found)
    return [(row["level"], row["id"]) for row in found]


def test_nothing_to_say_of_a_plain_cluster() -> None:
    assert notes() == []


def test_warnings_come_before_infos() -> None:
    assert notes(nfsmail_delivery="lda", nfsmail_index_location="local") == [
        ("warning", "NFS211"),
        ("info", "NFS212"),
        ("info", "NFS225"),
    ]


def test_what_everybody_can_read_is_told() -> None:
    password, user_hash = sorted(PUBLIC_SECRETS, key=len)
    users = [{"name": f"u{number}@x", "password": user_hash} for number in range(4)]
    (row,) = inventory_notes({**VARIABLES, "nfsmail_doveadm_password": password, "nfsmail_users": users}, MEMBERS)
    assert (row["id"], row["level"]) == ("NFS254", "warning")
    told = (
        "nfsmail_doveadm_password, nfsmail_users[0].password, nfsmail_users[1].password and 2 more: as in the examples"
    )
    assert row["message"].startswith(told) and password not in str(row) and user_hash not in str(row)
    other = [{"name": "a@x", "password": "{SHA512-CRYPT}$6$other"}, "no mapping"]
    assert inventory_notes({**VARIABLES, "nfsmail_users": other}, MEMBERS) == []


def test_notes_follow_the_releases_of_the_machines() -> None:
    assert notes(nfsmail_mailbox_format="mbox") == []
    values = {"mail2": {"dovecot_version": "2.4.5"}}
    assert notes(values, nfsmail_mailbox_format="mbox") == [("warning", "NFS214"), ("info", "NFS226")]
    (row,) = inventory_notes(VARIABLES, MEMBERS, {"proxy1": {"dovecot_proxy_version": "2.4.5"}})
    assert row["message"].startswith("nfsmail_dovecot_version=2.4.5: ")


def test_notes_of_extra_settings() -> None:
    values = {
        "mail1": {"dovecot_extra_settings": {"mail_temp_dir": "/srv/mail/tmp"}},
        "proxy1": {"dovecot_proxy_extra_settings": {"auth_username_chars": ""}},
    }
    assert notes(values) == [("warning", "NFS429"), ("warning", "NFS435")]
    first, _ = inventory_notes(VARIABLES, MEMBERS, values)
    assert first["message"].startswith("dovecot_extra_settings: mail_temp_dir=nfs: ")


def test_errors_are_left_to_the_problems() -> None:
    assert notes(nfsmail_topology="ring") == []
    assert notes({"mail1": {"dovecot_version": "2.5"}}) == []
    assert notes({"mail1": {"dovecot_extra_settings": {"a": {1}}}}) == []
    assert notes({"mail1": {"dovecot_extra_settings": {"service quota-status": {}}}}) == []


@given(st.dictionaries(st.sampled_from(sorted(KNOWN)), JSON, max_size=4))
def test_any_value_of_any_host_is_judged(own: dict[str, Any]) -> None:
    for problem in problems(values={"mail1": own, "proxy1": own}, specs=SPECS):
        assert str(problem)
    inventory_notes({**VARIABLES, **own}, MEMBERS, {"mail1": own})


# ---- features ----

VOLATILE_FIX = "write /run/nfsmail-volatile/{domain}/{name}"


@pytest.mark.parametrize(
    ("path", "rule", "fix"),
    [
        ("locks/{user}", "an absolute path", VOLATILE_FIX),
        ("/run/v v/{user}", "without blanks", VOLATILE_FIX),
        ("/run/v:v/{user}", "without blanks, colons", VOLATILE_FIX),
        ("/run/v/../{user}", "without blanks, colons and ..", VOLATILE_FIX),
        ("/run/v/%u", "variables are written {user}", "use these words"),
        ("/run/v/{domain}", "each user has a directory of their own", VOLATILE_FIX),
        ("/srv/mail/v/{user}", "below /srv/mail the locks are on the mail store", VOLATILE_FIX),
        ("/tmp/v/{user}", "doveadm has another", VOLATILE_FIX),
        ("/{user}", "/ is not ours alone", VOLATILE_FIX),
        ("/run/{user}", "/run is not ours alone", VOLATILE_FIX),
        ("/dev/shm/v-{user}", "/dev/shm is not ours alone", VOLATILE_FIX),
    ],
)
def test_where_volatile_files_cannot_lie(path: str, rule: str, fix: str) -> None:
    found = problems({"nfsmail_volatile_path": path})
    assert [(one.variable, one.value) for one in found if rule in one.rule and fix in one.fix] == [
        ("nfsmail_volatile_path", path)
    ], found


def test_volatile_files_by_topology_and_locks() -> None:
    single, path = {"nfsmail_topology": "single"}, {"nfsmail_volatile_path": "/run/nfsmail-volatile/{domain}/{name}"}
    random = {"nfsmail_topology": "random", "nfsmail_accept_unsupported_random": True}
    assert problems(path) == problems(path | single, ONE_BACKEND) == []
    assert problems({"nfsmail_volatile_path": "/dev/shm/nfsmail/{user}"}) == []
    # A disk of its own.
    assert problems({"nfsmail_volatile_path": "/locks/{user}"}) == []
    for more, members, id, fix in (
        (random, NO_PROXIES, "NFS412", "leave it out"),
        (single | {"nfsmail_nfs_version": "3", "nfsmail_lockd": False}, ONE_BACKEND, "NFS441", "run lockd"),
        ({"nfsmail_delivery": "lda", "nfsmail_protocols": ["imap"]}, {}, "NFS443", "use delivery lmtp"),
    ):
        assert not [one for one in problems(more, members) if one.variable == "nfsmail_volatile_path"]
        found = [one for one in problems(path | more, members) if one.variable == "nfsmail_volatile_path"]
        assert [(one.rule[:6], fix in one.fix) for one in found] == [(id, True)], found
    assert problems(single | {"nfsmail_acl": True}, ONE_BACKEND) == []
    (told,) = problems(path | single | {"nfsmail_acl": True}, ONE_BACKEND)
    assert (told.variable, told.rule[:6]) == ("nfsmail_acl", "NFS442") and "take different locks" in told.rule
    # No finding is told as of two variables.
    (told,) = problems(path | random | {"nfsmail_quota": "1G"}, NO_PROXIES)
    assert (told.variable, told.rule[:6]) == ("nfsmail_volatile_path", "NFS412")


NO_LOCKS = {"nfsmail_nfs_version": "3", "nfsmail_lockd": False}
SIEVE = {"nfsmail_sieve": True, "nfsmail_protocols": ["imap", "lmtp"]}
RELAY = "nfsmail_submission_relay"


def sending(protocols: Sequence[str] = ("imap", "lmtp", "submission"), **relay: Any) -> dict[str, Any]:
    return {"nfsmail_protocols": list(protocols), RELAY: {"host": "192.0.2.25", **relay}}


BAD_FEATURES: list[tuple[dict[str, Any], str, str]] = [
    ({"nfsmail_quota": "2 GB"}, "nfsmail_quota", "a whole number with K, M, G or T behind it"),
    ({"nfsmail_quota": "0G"}, "nfsmail_quota", "a whole number with K, M, G or T behind it"),
    ({"nfsmail_quota": 0}, "nfsmail_quota", "a whole number with K, M, G or T behind it"),
    ({"nfsmail_quota": 100}, "nfsmail_quota", "a whole number with K, M, G or T behind it"),
    (SIEVE | NO_LOCKS, "nfsmail_sieve", "NFS421: Sieve's duplicate tracking"),
    (SIEVE | {"nfsmail_delivery": "mta"}, "nfsmail_sieve", "NFS439: What writes mail past Dovecot"),
    (SIEVE | {"nfsmail_protocols": ["imap"]}, "nfsmail_sieve", "Sieve runs where Dovecot delivers"),
    ({"nfsmail_protocols": ["imap", "sieve"]}, "nfsmail_protocols", "without nfsmail_sieve no script is ever run"),
    (
        {"nfsmail_sieve_before": [{"name": "a", "script": "keep;"}]},
        "nfsmail_sieve_before",
        "without nfsmail_sieve no script is ever run",
    ),
    ({"nfsmail_protocols": ["imap", "submission"]}, "nfsmail_protocols", "without nfsmail_submission_relay nobody"),
    (sending(protocols=["imap", "lmtp"]), RELAY, "backends hand mail over that users send by submission"),
    (sending(host=""), f"{RELAY}.host", "the name or the address of the mail transfer agent"),
    (sending(host="smtp example"), f"{RELAY}.host", "the name or the address of the mail transfer agent"),
    (sending(hostname="x"), f"{RELAY}.hostname", "one of host, port, tls, ca, xclient"),
    (sending(port=0), f"{RELAY}.port", "a port, 1 to 65535"),
    (sending(port=70000), f"{RELAY}.port", "a port, 1 to 65535"),
    (sending(port=True), f"{RELAY}.port", "a port, 1 to 65535"),
    (sending(tls="yes"), f"{RELAY}.tls", "one of none, starttls, smtps"),
    (sending(tls="starttls"), f"{RELAY}.ca", "with TLS the certificate of the mail transfer agent is checked"),
    (
        sending(tls="smtps", ca="ca.pem"),
        f"{RELAY}.ca",
        "with TLS the certificate of the mail transfer agent is checked",
    ),
    (sending(ca="/etc/ca.pem"), f"{RELAY}.ca", "without TLS there is no certificate to check"),
    (sending(xclient="perhaps"), f"{RELAY}.xclient", "a boolean"),
    (sending(host="PROXY1", port=587), RELAY, "submission of proxy1 is this cluster's own Dovecot"),
    (
        sending(host="192.0.2.11", port=465, tls="smtps", ca="/ca"),
        RELAY,
        "submission of mail1 is this cluster's own Dovecot",
    ),
    (sending(host="192.0.2.12", port=24), RELAY, "lmtp of mail2 is this cluster's own Dovecot"),
    (sending(host="localhost", port=587), RELAY, "submission of mail1 is this cluster's own Dovecot"),
    (
        SIEVE | {"nfsmail_sieve_before": [{"name": "../a", "script": "keep;"}]},
        "nfsmail_sieve_before[0].name",
        "small letters, digits and dashes",
    ),
    (
        SIEVE | {"nfsmail_sieve_before": [{"name": "a", "script": "keep;"}, {"name": "a", "script": "keep;"}]},
        "nfsmail_sieve_before[1].name",
        "another name for each script",
    ),
    (
        SIEVE | {"nfsmail_sieve_before": [{"name": "a", "script": " "}]},
        "nfsmail_sieve_before[0].script",
        "the text of a Sieve script",
    ),
]


@pytest.mark.parametrize(("told", "variable", "rule"), BAD_FEATURES)
def test_features_that_are_refused(told: dict[str, Any], variable: str, rule: str) -> None:
    (problem,) = problems(told)
    assert problem.variable == variable and problem.rule.startswith(rule) or rule in problem.rule


def test_features_that_are_not() -> None:
    assert problems({"nfsmail_quota": ""}) == problems({"nfsmail_quota": "100M"}) == []
    assert problems(SIEVE | {"nfsmail_protocols": ["imap", "lmtp", "sieve"], "nfsmail_nfs_version": "3"}) == []
    assert problems({"nfsmail_sieve": False, **NO_LOCKS}) == []
    assert problems(SIEVE | {"nfsmail_delivery": "lda", "nfsmail_protocols": ["imap"]}) == []
    assert problems(sending()) == problems(sending(port="465", tls="smtps", ca="/etc/ca.pem", xclient="no")) == []
    # Postfix may be on the backends.
    assert problems(sending(host="localhost")) == problems(sending(host="mail1", port=25)) == []


def test_a_relay_at_a_port_of_lmtp_that_somebody_chose() -> None:
    values = {"mail1": {"dovecot_lmtp_port": 2424}, "mail2": {"dovecot_lmtp_port": 2424}}
    (problem,) = problems(sending(host="mail1", port=2424), values=values)
    assert problem.rule.startswith("lmtp of mail1 is this cluster's own Dovecot")
    assert problems(sending(host="mail1", port=24), values=values) == []


def test_a_feature_is_judged_by_the_release_of_each_machine() -> None:
    """Rules about settings see the dialect that the machine has."""
    for version in ("2.3.19", "2.4.1"):
        values = {"mail1": {"dovecot_version": version}, "mail2": {"dovecot_version": version}}
        (problem,) = problems(SIEVE | NO_LOCKS, values=values)
        assert problem.rule.startswith("NFS421")


NOTED: list[tuple[dict[str, Any], str]] = [
    ({"nfsmail_quota": "1G", "nfsmail_index_location": "local"}, "NFS437"),
    ({"nfsmail_quota": "1G", "nfsmail_delivery": "mta"}, "NFS438"),
    ({"nfsmail_quota": "1G", "nfsmail_topology": "random", "nfsmail_protocols": ["imap", "lmtp"]}, "NFS436"),
]


@pytest.mark.parametrize(("told", "id"), NOTED)
def test_what_is_said_of_a_feature(told: dict[str, Any], id: str) -> None:
    for version in ("2.3.19", "2.4.1"):
        rows = inventory_notes(VARIABLES | told, MEMBERS, {"mail1": {"dovecot_version": version}})
        assert [row["message"] for row in rows if row["id"] == id][0].startswith("nfsmail_quota: mail_plugins")
    without = {name: value for name, value in told.items() if name != "nfsmail_quota"}
    assert id not in [row["id"] for row in inventory_notes(VARIABLES | without, MEMBERS)]


def test_extra_settings_beside_features() -> None:
    extra = {"dovecot_extra_settings": {"protocol lmtp": {"mail_plugins": "notify"}}}
    (problem,) = problems({"nfsmail_quota": "1G"}, values={"mail1": extra | {"dovecot_version": "2.3.19"}})
    assert problem.variable == "dovecot_extra_settings.protocol lmtp.mail_plugins"
    assert problems(values={"mail1": extra | {"dovecot_version": "2.3.19"}}) == []
    # 2.4 adds to what is above, by itself; and the release is not known yet.
    assert problems({"nfsmail_quota": "1G"}, values={"mail1": extra | {"dovecot_version": "2.4.1"}}) == []
    assert problems({"nfsmail_quota": "1G"}, values={"mail1": extra}) == []
    extra = {"dovecot_extra_settings": {"plugin": {"quota_rule": "*:storage=1T"}}, "dovecot_version": "2.3.19"}
    (problem,) = problems({"nfsmail_quota": "1G", "nfsmail_protocols": ["imap"]}, values={"mail1": extra})
    assert problem.rule == "the matrix and the role's own variables decide this setting"
