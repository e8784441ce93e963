# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Users in a passwd-file, SQL, LDAP or PAM: what is refused, and what is written in either dialect."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.dialect import flat, from_doveconf
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.dovecot_conf import backend_conf, proxy_conf
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.errors import NfsmailError
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.logins import FILE, notes, passdb_conf, problems
from plans import backend, proxy

HIDDEN = "k3pt-S3cret"
QUERY = "SELECT password FROM users WHERE name = '{user}' AND domain = '{domain}'"
MYSQL = {"driver": "mysql", "hosts": ["db1", "192.0.2.5"], "database": "mail", "user": "reader", "query": QUERY}
PGSQL = {**MYSQL, "driver": "pgsql", "port": 5433, "ca": "/etc/ssl/ca.pem"}
SQLITE = {"driver": "sqlite", "database": "/var/lib/users.db", "query": QUERY}
LDAP = {
    "uris": ["ldaps://ldap1.example.com", "ldaps://ldap2.example.com"],
    "base": "ou=people,dc=example,dc=com",
    "bind_dn": "cn=reader,dc=example,dc=com",
    "filter": "(mail={user})",
    "ca": "/etc/ssl/ca.pem",
}
GOOD: list[tuple[str, dict[str, Any], str]] = [
    ("file", {}, ""),
    ("sql", MYSQL, HIDDEN),
    ("sql", PGSQL, HIDDEN),
    ("sql", SQLITE, ""),
    ("ldap", LDAP, HIDDEN),
    ("pam", {"service": "mail"}, ""),
]


def without(options: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name not in names}


def of(kind: str, options: dict[str, Any], version: str, password: str = HIDDEN, **more: Any) -> dict[str, Any]:
    """A plan of a backend where users log in."""
    database = {"passdb": kind, "passdb_options": options, "passdb_password": password}
    return backend(version, {"topology": "single"}, **{"proxies": [], **database, **more})


def at_a_proxy(kind: str, options: dict[str, Any], version: str, password: str = HIDDEN) -> dict[str, Any]:
    return proxy(version, passdb=kind, passdb_options=options, passdb_password=password)


@pytest.mark.parametrize(("kind", "options", "password"), GOOD)
def test_what_is_good(kind: str, options: dict[str, Any], password: str) -> None:
    assert problems(kind, options, password, [], "single") == []
    for version in ("2.3.13", "2.3.19", "2.4.1"):
        assert backend_conf(of(kind, options, version, password))
        assert (passdb_conf(of(kind, options, version, password)) != "") == (
            kind in ("sql", "ldap") and version < "2.4"
        )


@pytest.mark.parametrize(
    ("kind", "options", "password", "told"),
    [
        ("sqll", {}, "", ["nfsmail_passdb: 'sqll'", "one of file, sql, ldap, pam", "did you mean 'sql'?"]),
        ("sql", ["x"], "", ["nfsmail_passdb_options: '(hidden)'", "a mapping", "write one key: value a line"]),
        ("file", MYSQL, "", ["nfsmail_passdb: file has no options", "set nfsmail_passdb to its kind"]),
        ("file", {}, HIDDEN, ["nfsmail_passdb_password: '(hidden)'", "nfsmail_passdb: file logs in nowhere"]),
        ("sql", {}, "", ["nfsmail_passdb_options.driver: not set", "mysql, pgsql or sqlite", "options.query: not set"]),
        ("sql", {**MYSQL, "driver": "oracle"}, HIDDEN, ["nfsmail_passdb_options.driver: 'oracle'"]),
        ("sql", {**MYSQL, "host": "db1"}, HIDDEN, ["nfsmail_passdb_options.host", "did you mean 'hosts'?"]),
        (
            "sql",
            {**MYSQL, "password": HIDDEN},
            HIDDEN,
            ["options.password: '(hidden)'", "move it to nfsmail_passdb_password"],
        ),
        ("sql", {**SQLITE, "hosts": ["db1"]}, "", ["options.hosts", "an option of nfsmail_passdb: sql, driver sqlite"]),
        ("sql", {**SQLITE, "database": "users.db"}, "", ["options.database: 'users.db'", "the absolute path"]),
        ("sql", {**MYSQL, "port": 70000}, HIDDEN, ["options.port: 70000", "1 to 65535"]),
        ("sql", {**MYSQL, "hosts": ["a b"]}, HIDDEN, ["options.hosts: ['a b']", "names, addresses or socket paths"]),
        ("sql", without(MYSQL, "user", "hosts"), HIDDEN, ["options.hosts: not set", "options.user: not set"]),
        (
            "sql",
            {**MYSQL, "query": "SELECT password FROM u WHERE n = '%u'"},
            HIDDEN,
            ["options.query", "one line that selects"],
        ),
        ("sql", {**MYSQL, "query": "SELECT password FROM u"}, HIDDEN, ["the user is written {user}, {name}, {domain}"]),
        (
            "sql",
            {**MYSQL, "query": "SELECT password FROM u WHERE n='{shard}{user}'"},
            HIDDEN,
            ["the user is written {user}"],
        ),
        (
            "sql",
            {**MYSQL, "query": "SELECT pw FROM u WHERE n = '{user}'"},
            HIDDEN,
            ["reads the field password", "AS password"],
        ),
        ("sql", MYSQL, "", ["nfsmail_passdb_password: not set", "in Ansible Vault"]),
        ("sql", MYSQL, "k3pt-S3cret # x", ["nfsmail_passdb_password: '(hidden)'", "letters, digits and . _ ~"]),
        ("sql", SQLITE, HIDDEN, ["nfsmail_passdb: sql logs in nowhere"]),
        ("ldap", {}, "", ["options.uris: not set", "options.base: not set", "options.filter: not set"]),
        ("ldap", {**LDAP, "uris": ["ldap1"]}, HIDDEN, ["options.uris: ['ldap1']", "ldap://, ldaps:// or ldapi://"]),
        ("ldap", {**LDAP, "filter": "mail={user}"}, HIDDEN, ["options.filter", "put parentheses around it"]),
        ("ldap", without(LDAP, "bind_dn"), HIDDEN, ["without bind_dn nobody has this password"]),
        ("ldap", without(LDAP, "ca"), HIDDEN, ["options.ca: not set", "whose certificate is checked"]),
        ("ldap", {**LDAP, "starttls": True}, HIDDEN, ["options.starttls: True", "ldaps:// is TLS already"]),
        ("ldap", {**LDAP, "user_attribute": "a=b"}, HIDDEN, ["options.user_attribute: 'a=b'"]),
        ("pam", {"service": "../x"}, "", ["options.service: '../x'", "the name of a file in /etc/pam.d"]),
    ],
)
def test_what_is_refused(kind: str, options: Any, password: str, told: list[str]) -> None:
    found = problems(kind, options, password)
    text = "\n".join(map(str, found))
    for words in told:
        assert words in text, text
    assert HIDDEN not in text
    assert all(problem.rule and problem.fix and problem.source == "docs: logins" for problem in found)


def test_a_list_of_users_beside_another_database() -> None:
    (problem,) = problems("sql", SQLITE, "", [{"name": "a"}])
    assert (problem.variable, problem.rule) == (
        "nfsmail_users",
        "users come from sql; this list is for nfsmail_passdb: file",
    )


def test_pam_is_not_for_proxies() -> None:
    (problem,) = problems("pam", {}, "", [], "per_user")
    assert (
        "PAM answers nobody without" in problem.rule
        and problem.fix == "use sql, ldap or file; pam is for single and random"
    )


def test_the_conf_refuses_what_the_inventory_would() -> None:
    with pytest.raises(NfsmailError, match="driver"):
        backend_conf(of("sql", {}, "2.4.1"))
    with pytest.raises(NfsmailError, match="driver"):
        passdb_conf(of("sql", {}, "2.3.19"))


# ---- 2.3 ----


def test_sql_of_23_has_a_file_of_its_own() -> None:
    assert passdb_conf(of("sql", PGSQL, "2.3.19")) == (
        "driver = pgsql\n"
        f"connect = host=db1 host=192.0.2.5 port=5433 dbname=mail user=reader password={HIDDEN} sslmode=verify-full"
        " sslrootcert=/etc/ssl/ca.pem\n"
        "default_pass_scheme = CRYPT\n"
        "password_query = SELECT password FROM users WHERE name = '%Lu' AND domain = '%Ld'\n"
    )
    assert "ssl_ca=/etc/ssl/ca.pem ssl_verify_server_cert=yes" in passdb_conf(
        of("sql", {**MYSQL, "ca": "/etc/ssl/ca.pem"}, "2.3.19")
    )
    text = backend_conf(of("sql", PGSQL, "2.3.19"))
    assert HIDDEN not in text
    conf = from_doveconf(text)
    assert conf["passdb"] == {"driver": "sql", "args": FILE}
    assert conf["userdb"] == {"driver": "static", "args": "allow_all_users=no uid=5000 gid=5001"}


def test_another_password_changes_dovecot_conf_so_that_it_is_read_again() -> None:
    assert backend_conf(of("sql", PGSQL, "2.3.19")) != backend_conf(of("sql", PGSQL, "2.3.19", "another"))


def test_ldap_of_23_never_has_its_default_attributes() -> None:
    assert passdb_conf(of("ldap", LDAP, "2.3.19")) == (
        "uris = ldaps://ldap1.example.com ldaps://ldap2.example.com\n"
        "base = ou=people,dc=example,dc=com\n"
        "dn = cn=reader,dc=example,dc=com\n"
        f"dnpass = {HIDDEN}\n"
        "tls_ca_cert_file = /etc/ssl/ca.pem\n"
        "tls_require_cert = demand\n"
        "pass_attrs = =ok=yes\n"
        "pass_filter = (mail=%Lu)\n"
        "auth_bind = yes\n"
    )
    hashes = passdb_conf(of("ldap", {**LDAP, "user_attribute": "mail", "password_attribute": "userPassword"}, "2.3.19"))
    assert "pass_attrs = mail=user,userPassword=password\n" in hashes and "auth_bind" not in hashes
    assert hashes.endswith("default_pass_scheme = CRYPT\n")


# ---- 2.4 ----


def test_sql_of_24() -> None:
    conf = from_doveconf(backend_conf(of("sql", PGSQL, "2.4.1")))
    one = {"user": "reader", "password": HIDDEN, "dbname": "mail", "port": "5433"}
    tls = {"sslmode": "verify-full", "sslrootcert": "/etc/ssl/ca.pem"}
    assert conf["passdb sql"] == {
        "sql_driver": "pgsql",
        "pgsql db1": {"parameters": {**one, **tls}},
        "pgsql 192.0.2.5": {"parameters": {**one, **tls}},
        "default_password_scheme": "CRYPT",
        "query": "SELECT password FROM users WHERE name = '%{user | lower}' AND domain = '%{user | domain | lower}'",
    }
    mysql = from_doveconf(backend_conf(of("sql", {**MYSQL, "ca": "/etc/ssl/ca.pem"}, "2.4.1")))["passdb sql"]
    assert mysql["mysql db1"] == {
        "user": "reader",
        "password": HIDDEN,
        "dbname": "mail",
        "ssl": "yes",
        "ssl_client_ca_file": "/etc/ssl/ca.pem",
    }
    assert (
        from_doveconf(backend_conf(of("sql", SQLITE, "2.4.1", "")))["passdb sql"]["sqlite_path"] == "/var/lib/users.db"
    )


def test_ldap_of_24() -> None:
    conf = from_doveconf(backend_conf(of("ldap", {**LDAP, "user_attribute": "mail"}, "2.4.1")))
    assert conf["passdb ldap"] == {
        "ldap_uris": "ldaps://ldap1.example.com ldaps://ldap2.example.com",
        "ldap_base": "ou=people,dc=example,dc=com",
        "ldap_auth_dn": "cn=reader,dc=example,dc=com",
        "ldap_auth_dn_password": HIDDEN,
        "ssl_client_ca_file": "/etc/ssl/ca.pem",
        "filter": "(mail=%{user | lower})",
        "bind": "yes",
        "fields": {"user": "%{ldap:mail}"},
    }


@pytest.mark.parametrize("version", ["2.3.19", "2.4.1"])
@pytest.mark.parametrize(("kind", "options", "password"), [("sql", SQLITE, ""), ("ldap", LDAP, HIDDEN)])
def test_a_proxy_only_changes_its_first_database(
    kind: str, options: dict[str, Any], password: str, version: str
) -> None:
    before = from_doveconf(proxy_conf(proxy(version)))
    after = from_doveconf(proxy_conf(at_a_proxy(kind, options, version, password)))
    first, last = ("passdb", "userdb") if version < "2.4" else (f"passdb {kind}", "userdb static")
    assert after.pop(first)["result_success"] == "continue-ok"
    assert flat(after.pop(last)) in ({"driver": "static", "args": "allow_all_users=no"}, {"allow_all_users": "no"})
    for name in (first, last) if version < "2.4" else ("passdb passwd-file", "userdb passwd-file"):
        before.pop(name)
    assert after == before


@pytest.mark.parametrize("version", ["2.3.19", "2.4.1"])
def test_a_backend_behind_proxies_knows_nothing_of_databases(version: str) -> None:
    plan = of("ldap", LDAP, version, proxies=["192.0.2.21"])
    assert passdb_conf(plan) == ""
    assert backend_conf(plan) == backend_conf(of("file", {}, version, "", proxies=["192.0.2.21"]))


def test_system_users_have_their_mail_where_all_have_it() -> None:
    conf = from_doveconf(backend_conf(of("pam", {}, "2.3.19", "")))
    assert conf["passdb"] == {"driver": "pam", "args": "dovecot"}
    assert conf["userdb"] == {"driver": "passwd", "override_fields": "uid=5000 gid=5001 home=/srv/mail/%Ld/%Ln"}
    conf = from_doveconf(backend_conf(of("pam", {"service": "mail"}, "2.4.1", "")))
    assert conf["passdb pam"] == {"service_name": "mail"}
    home = "/srv/mail/%{user | domain | lower}/%{user | username | lower}"
    assert conf["userdb passwd"] == {"fields": {"uid": "5000", "gid": "5001", "home": home}}


@pytest.mark.parametrize(
    ("variables", "ids"),
    [
        ({}, []),
        ({"nfsmail_passdb": "ldap", "nfsmail_passdb_options": LDAP}, []),
        ({"nfsmail_passdb": "ldap", "nfsmail_passdb_options": {**LDAP, "uris": ["ldap://a"]}}, ["NFS252"]),
        ({"nfsmail_passdb": "ldap", "nfsmail_passdb_options": {**LDAP, "uris": ["ldap://127.0.0.1"]}}, []),
        ({"nfsmail_passdb": "ldap", "nfsmail_passdb_options": {"uris": ["ldap://a"], "starttls": True}}, []),
        ({"nfsmail_passdb": "sql", "nfsmail_mailbox_format": "mdbox"}, ["NFS253"]),
        ({"nfsmail_passdb": "file", "nfsmail_mailbox_format": "mdbox"}, []),
    ],
)
def test_notes(variables: dict[str, Any], ids: list[str]) -> None:
    found = list(notes(variables))
    assert [row["id"] for row in found] == ids
    assert all(row["level"] == "warning" and row["message"] and row["fix"] and row["source"] for row in found)
