# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings that somebody wrote: where paths lead, what each rule finds, and what it lets pass."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.nfsmail.cluster.plugins.plugin_utils import location
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.catalogue import SETTINGS, defaults, foreign, known
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.dialect import from_doveconf
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.dovecot_conf import backend_conf, proxy_conf
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.errors import NfsmailError
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.matrix import (
    dialect_errors,
    plan_findings,
    to_doveconf,
    written_findings,
)
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.profile import as_mapping
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.rules import RULES
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.written import in_effect
from brain_samples import JSON, every_profile, refusal
from hypothesis import given
from hypothesis import strategies as st
from plans import PROXIES, backend, proxy

STORE, HOME = "/srv/mail", "/srv/mail/{domain}/{name}"
VERSION_LINES = {"dovecot_config_version": "2.4.1", "dovecot_storage_version": "2.4.1"}


def ids(conf: dict[str, Any], profile: dict[str, Any], kind: str = "backend") -> list[str]:
    lines = VERSION_LINES if profile.get("dovecot_version", "2.3").startswith("2.4") else {}
    return [row["id"] for row in written_findings({**lines, **conf}, profile, kind, STORE, HOME)]


# ---- locations ----

PARTS = {"mail_inbox_path": "~/inbox", "mail_index_path": "/var/index/%u", "mail_control_path": "~/control"}


@pytest.mark.parametrize("series", ["2.3", "2.4"])
@pytest.mark.parametrize("parts", [{}, PARTS, {"mail_volatile_path": "/run/v/%u", "mailbox_list_index_prefix": "list"}])
def test_a_location_is_read_as_it_was_written(series: str, parts: dict[str, str]) -> None:
    written = location.write("mbox", "~/mail", parts, series)
    assert location.read(written, series) == {"mail_driver": "mbox", "mail_path": "~/mail", **parts}


def test_a_location_in_both_dialects() -> None:
    parts = {"mail_index_path": "/i/%u", "mail_control_path": ""}
    assert location.write("maildir", "~/Maildir", parts, "2.3") == {"mail_location": "maildir:~/Maildir:INDEX=/i/%u"}
    assert location.write("maildir", "~/Maildir", parts, "2.4") == {
        "mail_driver": "maildir",
        "mail_path": "~/Maildir",
        "mail_index_path": "/i/%u",
    }


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", {}),
        ("maildir", {"mail_driver": "maildir"}),
        ("maildir:~/Maildir", {"mail_driver": "maildir", "mail_path": "~/Maildir"}),
        ("mdbox:~/m:NOALTCHECK:ALT=/a/%u", {"mail_driver": "mdbox", "mail_path": "~/m", "mail_alt_path": "/a/%u"}),
        ("maildir:~/m:INDEX=MEMORY", {"mail_driver": "maildir", "mail_path": "~/m", "mail_index_path": "MEMORY"}),
    ],
)
def test_reading_mail_location(text: str, parts: dict[str, str]) -> None:
    assert location.read({"mail_location": text}, "2.3") == parts


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("", ""),
        ("MEMORY", "memory"),
        ("~/Maildir", "nfs"),
        ("~", "nfs"),
        ("%h/Maildir", "nfs"),
        ("%{home}/Maildir", "nfs"),
        ("/srv/mail/%d/%n", "nfs"),
        ("/srv/mail", "nfs"),
        ("/srv/mail2/%u", "local"),
        ("/srv/mail/../local/%u", "local"),
        ("/var/lib/index/%u", "local"),
        ("/dev/shm/%u", "local"),
        ("dovecot.list.index", ""),
        ("%{user}/x", ""),
    ],
)
def test_where_a_path_leads(path: str, place: str) -> None:
    assert location.place(path, HOME, STORE) == place


def test_where_a_path_leads_when_little_is_known() -> None:
    assert location.place("/var/lib/x", "", "") == ""
    assert location.place("~/x", "", STORE) == ""
    assert location.place("~/x", "%{user}", STORE) == ""
    # Gone at the next boot wherever the store is.
    assert location.place("/run/x", "", "") == "local"
    assert location.place("/dev/shm/x", "", "/dev") == "local"


# ---- each rule: what it finds ----

CLUSTER = {"topology": "per_user"}
RANDOM = {"topology": "random"}
NEW = {"dovecot_version": "2.4.1"}
OLD = {"dovecot_version": "2.3.19"}
NO_LOCKS = {"nfs_version": "3", "lockd": False}
Case = tuple[str, dict[str, Any], dict[str, Any], str]
WORDS = {"fts": "yes", "fts_flatcurve": "yes"}
BY_LDA = {"delivery": "lda"}
MBOX_AWAY = {"mailbox_format": "mbox", "index_location": "local"}
HAPROXY = {"service imap-login": {"inet_listener imap": {"haproxy": "yes"}}}
MEMORY = {"mail_location": "maildir:~/Maildir:INDEX=MEMORY"}
FOUND: list[Case] = [
    ("NFS401", {"mail_driver": "maildir"}, OLD, "2.3 has the driver in mail_location"),
    ("NFS401", {"mail_location": "maildir:~/M"}, NEW, "write mail_driver and mail_path"),
    ("NFS401", {"ssl_cert": "</x"}, NEW, "write ssl_server_cert_file; without the <"),
    ("NFS401", {"protocol imap": {"ssl_key": "</x"}}, NEW, "protocol imap/ssl_key is not known to Dovecot 2.4"),
    ("NFS401", {"plugin": {"quota": "x"}}, NEW, "plugin is not known to Dovecot 2.4"),
    ("NFS401", {"director_ping_idle_timeout": "5s"}, NEW, "routes users by its shard map"),
    ("NFS401", {"replication_dsync_parameters": "-d"}, NEW, "2.4 has no replicator"),
    ("NFS402", {"mail_nfs_index": "yes", "mail_fsync": "always"}, OLD, "mail_nfs_index=yes, mmap_disable=no: "),
    ("NFS402", {"mail_nfs_index": True, "mail_fsync": "always"}, NEW, "mmap_disable=no: "),
    ("NFS403", {"mail_nfs_index": "y", "mmap_disable": "1"}, OLD, "mail_nfs_index=yes, mail_fsync=optimized: "),
    (
        "NFS403",
        {
            "mmap_disable": "yes",
            "mail_fsync": "always",
            "protocol imap": {"mail_nfs_index": "yes", "mail_fsync": "never"},
        },
        OLD,
        "mail_nfs_index=yes, mail_fsync=never in protocol imap: ",
    ),
    (
        "NFS403",
        {"mmap_disable": "yes", "local 192.0.2.0/24": {"protocol imap": {"mail_nfs_index": "yes"}}},
        OLD,
        "in local 192.0.2.0/24/protocol imap: ",
    ),
    ("NFS404", {"mail_fsync": "sometimes"}, OLD, "mail_fsync=sometimes, one of optimized, never, always: "),
    ("NFS404", {"mmap_disable": "true"}, NEW, "mmap_disable=true, one of yes, no: "),
    ("NFS405", {"mail_path": "/srv/mail/%d/%n"}, NEW, "mail_path=/srv/mail/%d/%n: "),
    ("NFS405", {"mail_home": "/srv/mail/%Lu"}, NEW, "share one directory named %d/%n"),
    ("NFS405", {"mail_index_path": "/i/%2.256Nu"}, NEW, "mail_index_path="),
    ("NFS405", {"auth_username_format": "%Lu"}, NEW, "auth_username_format=%Lu: "),
    ("NFS405", {"userdb static": {"fields": {"home": "/srv/mail/%u"}}}, NEW, "userdb static/fields/home: "),
    ("NFS406", {"mail_home": "/srv/mail/%{user | lower}"}, OLD, "mail_home=/srv/mail/%{user | lower}: "),
    ("NFS406", {"userdb": {"args": "home=/srv/mail/%{user|lower} secret=k3pt"}}, OLD, "userdb/args: "),
    ("NFS407", {"mail_plugins": "$mail_plugins quota"}, NEW, "mail_plugins=$mail_plugins quota: "),
    ("NFS407", {"protocol imap": {"mail_plugins": "$mail_plugins quota"}}, NEW, "protocol imap/mail_plugins="),
    ("NFS408", {"mail_location": "maildir:/var/mail/%u"}, OLD, "mail_path=local: "),
    ("NFS408", {"mail_path": "/var/mail/%{user}"}, NEW, "mail_path=local: "),
    ("NFS408", {"mail_home": "/home/%u", "mail_location": "maildir:~/M"}, OLD, "mail_path=local: "),
    ("NFS409", {"mail_control_path": "/var/c/%{user}"}, NEW | CLUSTER, "mail_control_path=local: "),
    ("NFS409", {"mail_location": "maildir:~/M:CONTROL=/var/c/%u"}, OLD | RANDOM, "mail_control_path=local: "),
    ("NFS410", {"mail_location": "maildir:~/M:CONTROL=/var/c/%u"}, OLD, "mail_control_path=local: "),
    ("NFS411", {"mail_alt_path": "/alt/%{user}"}, NEW | CLUSTER, "mail_alt_path=local: "),
    ("NFS412", {"mail_volatile_path": "/dev/shm/%{user}"}, NEW | RANDOM, "mail_volatile_path=local: "),
    (
        "NFS413",
        {"mail_volatile_path": "/dev/shm/%{user}", "namespace a": {}, "namespace b": {}},
        NEW,
        "mail_volatile_path=local, namespaces=many: ",
    ),
    (
        "NFS441",
        {"mail_location": "maildir:~/M:VOLATILEDIR=/run/v/%u", "lock_method": "dotlock"},
        OLD,
        "mail_volatile_path=local, lock_method=dotlock: ",
    ),
    (
        "NFS442",
        {"mail_volatile_path": "/run/v/%{user}", "namespace shared": {"type": "shared"}},
        NEW,
        "mail_volatile_path=local, namespace shared/type=shared: ",
    ),
    (
        "NFS443",
        {"mail_volatile_path": "/run/v/%{user}"},
        NEW | CLUSTER | {"delivery": "lda"},
        "mail_volatile_path=local: ",
    ),
    ("NFS414", {"mailbox_list_index_prefix": "/dev/shm/%{user}"}, NEW | RANDOM, "mailbox_list_index_prefix=local: "),
    ("NFS415", {"mail_location": "maildir:~/M:LISTINDEX=/run/%u"}, OLD | CLUSTER, "mailbox_list_index_prefix=local: "),
    ("NFS416", {"mail_index_path": "MEMORY"}, NEW | {"mailbox_format": "sdbox"}, "mail_index_path=memory: "),
    (
        "NFS417",
        {"mail_index_path": "/i/%{user}"},
        NEW | CLUSTER | {"mailbox_format": "mdbox"},
        "mail_index_path=local: ",
    ),
    ("NFS418", {"mail_index_path": "/i/%{user}"}, NEW | CLUSTER, "mail_index_path=local: "),
    ("NFS467", {"protocols": "imap submission"}, OLD, "protocols=imap submission: "),
    ("NFS467", {"protocols": {"submission": "yes"}, "submission_relay_host": ""}, NEW, "protocols/submission=yes: "),
    ("NFS419", {"service quota-status": {"executable": "quota-status -p postfix"}}, OLD | CLUSTER, "quota-status"),
    ("NFS420", {"maildir_very_dirty_syncs": "yes"}, OLD | {"delivery": "mta"}, "maildir_very_dirty_syncs=yes: "),
    ("NFS420", {"maildir": {"very_dirty_syncs": "yes"}}, NEW | {"delivery": "mta"}, "maildir_very_dirty_syncs=yes: "),
    ("NFS421", {"protocol lmtp": {"mail_plugins": "quota sieve"}}, OLD | NO_LOCKS, "mail_plugins=quota sieve"),
    ("NFS421", {"protocol lmtp": {"mail_plugins": {"sieve": "yes"}}}, NEW | NO_LOCKS, "mail_plugins/sieve=yes"),
    ("NFS423", {"namespace shared": {"type": "shared"}}, NEW | CLUSTER, "namespace shared/type=shared: "),
    (
        "NFS423",
        {"namespace": {"type": "shared", "location": "maildir:%%h/M"}},
        OLD | CLUSTER,
        "namespace/type=shared: ",
    ),
    ("NFS427", {"dovecot_config_version": ""}, NEW, "no dovecot_config_version: "),
    ("NFS428", {"ssl": "required", "login_trusted_networks": "192.0.2.21"}, NEW, "ssl=required, login_trusted"),
    ("NFS429", {"mail_temp_dir": "/srv/mail/tmp"}, OLD, "mail_temp_dir=nfs: "),
    ("NFS430", {"mail_attachment_dir": "/var/attachments"}, OLD | CLUSTER, "attachments=local: "),
    ("NFS430", {"mail_ext_attachment_path": "/var/attachments"}, NEW | CLUSTER, "attachments=local: "),
    ("NFS431", {"mailbox_list_index_prefix": "/fast/%{user}"}, NEW, "mailbox_list_index_prefix=/fast/%{user}: "),
    ("NFS432", {"service replicator": {"process_min_avail": "1"}}, NEW, "service replicator"),
    ("NFS433", {"mail_alt_path": "~/%{user | sha1 % 256 | hex(2)}"}, NEW, "not the hash of 2.3"),
    ("NFS434", {"dotlock_use_excl": "no"}, OLD, "dotlock_use_excl=no: "),
    (
        "NFS436",
        {"mail_plugins": "quota", "protocol lmtp": MEMORY},
        OLD | RANDOM,
        "mail_index_path=memory in protocol lmtp",
    ),
    ("NFS436", {"mail_plugins": {"quota": "yes"}, "mail_index_path": "MEMORY"}, NEW, "mail_plugins/quota=yes, mail"),
    (
        "NFS437",
        {"mail_plugins": "acl quota", "mail_location": "maildir:~/M:INDEX=/i/%u"},
        OLD | CLUSTER,
        "path=local: ",
    ),
    ("NFS438", {"mail_plugins": "quota"}, OLD | {"delivery": "mta"}, "mail_plugins=quota: "),
    (
        "NFS439",
        {"protocol lda": {"mail_plugins": {"sieve": "yes"}}},
        NEW | {"delivery": "mta"},
        "mail_plugins/sieve=yes",
    ),
    ("NFS440", HAPROXY, NEW, "no ssl: "),
    ("NFS440", HAPROXY | {"ssl": "yes"}, NEW | RANDOM, "inet_listener imap/haproxy=yes"),
    ("NFS460", {"mail_plugins": "acl fts fts_xapian"}, OLD | RANDOM, "mail_plugins=acl fts fts_xapian: "),
    ("NFS460", {"protocol imap": {"mail_plugins": WORDS}}, NEW | RANDOM, "mail_plugins/fts_flatcurve=yes"),
    ("NFS461", {"mail_plugins": "fts fts_solr"}, OLD | CLUSTER, "mail_plugins=fts fts_solr: "),
    ("NFS461", {"protocol imap": {"mail_plugins": "fts fts_solr"}}, OLD | CLUSTER, "mail_plugins=fts fts_solr"),
    ("NFS462", {"mail_plugins": WORDS, "lock_method": "dotlock"}, NEW, "fts_flatcurve=yes, lock_method=dotlock: "),
    ("NFS463", {"mail_plugins": WORDS}, NEW, "fts_flatcurve=yes, no fts flatcurve/optimize_limit, "),
    ("NFS463", {"mail_plugins": WORDS, "fts flatcurve": {"optimize_limit": "10"}}, NEW, "fts_flatcurve=yes"),
    ("NFS464", {"mail_plugins": WORDS, "fts_autoindex": "yes"}, NEW | CLUSTER | BY_LDA, "fts_autoindex=yes: "),
    (
        "NFS464",
        {"mail_plugins": "fts", "plugin": {"fts_autoindex": "yes"}},
        OLD | RANDOM | BY_LDA,
        "plugin/fts_autoindex",
    ),
    (
        "NFS465",
        {"mail_plugins": WORDS},
        NEW | CLUSTER | {"index_location": "local"},
        "mail_plugins/fts_flatcurve=yes: ",
    ),
    ("NFS466", {"mail_plugins": "acl"}, OLD | MBOX_AWAY, "mail_plugins=acl: "),
    ("NFS466", {"mail_plugins": {"acl": "yes"}}, NEW | MBOX_AWAY, "mail_plugins/acl=yes: "),
]
FOUND_ON_PROXIES: list[Case] = [
    ("NFS422", {"director_user_expire": "5 secs"}, OLD, "director_user_expire=5 secs: "),
    ("NFS424", {"passdb": {"driver": "lua"}, "auth_cache_size": "1M"}, OLD, "passdb/driver=lua, auth_cache_size=1M: "),
    (
        "NFS425",
        {"passdb": {"driver": "lua", "args": "file=/x.lua cache_key="}},
        OLD,
        "passdb/args, passdb/driver=lua: ",
    ),
    ("NFS426", {"protocols": "imap lmtp"}, NEW | CLUSTER, "no service imap-login/restart_request_count: "),
    ("NFS426", {"protocols": {"imap": "yes"}}, NEW | CLUSTER, "no service imap-login/restart_request_count: "),
    ("NFS432", {"service director": {"x": "y"}}, NEW, "service director"),
    ("NFS435", {"auth_username_chars": ""}, OLD | CLUSTER, "auth_username_chars=: "),
    ("NFS435", {"auth_username_chars": "abc'"}, NEW | CLUSTER, "auth_username_chars=abc': "),
]


@pytest.mark.parametrize(("id", "conf", "profile", "message"), FOUND)
def test_a_rule_finds(id: str, conf: dict[str, Any], profile: dict[str, Any], message: str) -> None:
    lines = VERSION_LINES if profile["dovecot_version"] == "2.4.1" else {}
    found = {row["id"]: row for row in written_findings({**lines, **conf}, profile, "backend", STORE, HOME)}
    assert id in found, found
    row = found[id]
    assert message in row["message"]
    assert list(row) == ["id", "level", "message", "fix", "source"] and all(row.values())
    assert "k3pt" not in str(row)


@pytest.mark.parametrize(("id", "conf", "profile", "message"), FOUND_ON_PROXIES)
def test_a_rule_about_proxies_finds(id: str, conf: dict[str, Any], profile: dict[str, Any], message: str) -> None:
    found = {row["id"]: row["message"] for row in written_findings(conf, profile, "proxy")}
    assert message in found.get(id, ""), found
    if not any(case[0] == id for case in FOUND):
        assert id not in [row["id"] for row in written_findings(conf, profile, "backend")]


def test_every_rule_about_settings_has_a_case() -> None:
    assert {rule.id for rule in RULES if rule.found} == {case[0] for case in (*FOUND, *FOUND_ON_PROXIES)}


# ---- and what it lets pass ----


@pytest.mark.parametrize(
    ("conf", "profile"),
    [
        ({}, OLD),
        ({}, NEW),
        ({"mail_home": "/srv/mail/%Ld/%Ln", "mail_location": "maildir:~/Maildir"}, OLD | RANDOM),
        ({"mail_home": "/srv/mail/%{user | lower}", "mail_driver": "maildir", "mail_path": "~/Maildir"}, NEW | CLUSTER),
        ({"mail_nfs_index": "yes", "mmap_disable": "yes", "mail_fsync": "always"}, OLD),
        ({"mail_nfs_storage": "yes"}, NEW),
        ({"mail_location": "maildir:~/M:INDEX=/var/i/%u"}, OLD | CLUSTER | {"index_location": "local"}),
        ({"mail_location": "maildir:~/M:VOLATILEDIR=/dev/shm/%u"}, OLD | CLUSTER),
        ({"maildir_very_dirty_syncs": "yes"}, OLD | CLUSTER),
        ({"protocol lmtp": {"mail_plugins": "sieve"}}, OLD | CLUSTER | {"nfs_version": "3"}),
        ({"mail_plugins": "$SET:mail_plugins"}, NEW),
        ({"log_timestamp": "%Y-%m-%d", "login_log_format": "%$: %s"}, NEW),
        ({"director_user_expire": "15 mins"}, OLD),
        ({"service quota-status": {"x": "y"}}, OLD),
        ({"dotlock_use_excl": "no"}, OLD | {"nfs_version": "2"}),
        ({"plugin": {"ssl_key": "x", "quota": "count"}}, OLD),
        ({"namespace inbox": {"type": "private"}}, OLD | CLUSTER),
        ({"namespace shared": {"type": "shared", "location": "maildir:%%h/M"}}, OLD),
        ({"namespace shared": {"type": "shared", "location": "imapc:~/shared/%%u"}}, OLD | CLUSTER),
        ({"namespace shared": {"type": "shared", "mail_driver": "imapc"}}, NEW | CLUSTER),
        ({"mail_plugins": "fts fts_xapian", "plugin": {"fts_autoindex": "yes"}}, OLD | BY_LDA),
        ({"mail_plugins": WORDS, "fts flatcurve": {"optimize_limit": "0"}, "fts_autoindex": "yes"}, NEW | CLUSTER),
        ({"mail_plugins": WORDS, "fts_autoindex": "no", "fts_flatcurve_optimize_limit": "0"}, NEW | CLUSTER | BY_LDA),
        ({"mail_plugins": WORDS, "mail_index_path": "/i/%{user}"}, NEW | {"index_location": "local"}),
        ({"mail_plugins": "acl"}, OLD | MBOX_AWAY | {"mailbox_format": "maildir"}),
        ({"mail_plugins": "fts fts_xapian", "lock_method": "dotlock"}, OLD | {"nfs_version": "3"}),
        # It has its index elsewhere.
        ({"mail_plugins": "fts fts_solr"}, NEW | RANDOM),
        ({"mail_attachment_dir": "/srv/mail/attachments"}, OLD | CLUSTER),
        ({"mail_volatile_path": "/run/v/%{user}"}, NEW | CLUSTER),
        (HAPROXY | {"ssl": "yes"}, OLD),
        (HAPROXY | {"ssl": "required"}, NEW),
        ({"service lmtp": {"inet_listener lmtp": {"haproxy": "yes"}}}, NEW),
        ({"protocols": "submission", "submission_relay_host": "smtp"}, OLD),
        ({"protocols": {"submission": "yes"}, "protocol submission": {"submission_relay_host": "smtp"}}, NEW),
    ],
)
def test_a_rule_lets_pass(conf: dict[str, Any], profile: dict[str, Any]) -> None:
    assert ids(conf, profile) == []


def test_what_we_write_ourselves_is_found_sound() -> None:
    """No plan without an error leads to a file with one, nor to a setting that its release does not know."""
    seen = set()
    for version in ("2.3.13", "2.3.19", "2.4.0", "2.4.1", "2.4.5"):
        for profile in every_profile(dovecot_version=version):
            if any(row["level"] == "error" for row in plan_findings(profile)):
                continue
            proxies = PROXIES if profile.topology == "per_user" else []
            text = backend_conf(backend(version, dict(as_mapping(profile)), proxies=proxies))
            if (text, profile.topology) not in seen:
                seen.add((text, profile.topology))
                found = written_findings(from_doveconf(text), profile, "backend", STORE)
                assert found == [], (profile, found)
        conf = from_doveconf(proxy_conf(proxy(version, protocols=["imap", "pop3", "lmtp"])))
        assert written_findings(conf, {"topology": "per_user", "dovecot_version": version}, "proxy") == []
    assert len(seen) > 200


def test_errors_come_first() -> None:
    rows = written_findings(
        {"dotlock_use_excl": "no", "mail_fsync": "x", "mail_temp_dir": "/srv/mail/x"}, OLD, store=STORE
    )
    assert [row["level"] for row in rows] == ["error", "warning", "warning"]


def test_settings_in_effect() -> None:
    assert in_effect({}, "2.3")["mbox_write_locks"] == "fcntl dotlock"
    assert in_effect({}, "2.4")["mbox_write_locks"] == "dotlock fcntl"
    # How doveconf 2.4.1 prints it.
    assert in_effect({"mbox": {"write_locks": "fcntl dotlock"}}, "2.4")["mbox_write_locks"] == "fcntl dotlock"
    assert in_effect({"mmap_disable": "YES", "passdb #2": {"driver": "pam"}}, "2.3")["passdb/driver"] == "pam"
    assert in_effect({"mmap_disable": "YES"}, "2.3")["mmap_disable"] == "yes"


# ---- to_doveconf refuses what the release does ----


@pytest.mark.parametrize(
    ("conf", "version", "rule", "fix"),
    [
        ({"mail_location": "maildir:~/M"}, "2.4.1", "NFS401: ", "write it in the dialect of the release"),
        ({"mail_driver": "maildir"}, "2.3.19", "NFS401: ", "write it in the dialect of the release"),
        ({"mail_path": "/x/%d/%n"}, "2.4.1", "NFS405: ", "write %{user}"),
        ({"mail_home": "/x/%{user | lower}"}, "2.3.13", "NFS406: ", "write %Lu, %Ln and %Ld"),
        ({"mail_fsync": "perhaps"}, "2.4.1", "NFS404: ", "write one of the values that it has"),
    ],
)
def test_text_that_the_release_would_refuse_is_not_written(
    conf: dict[str, Any], version: str, rule: str, fix: str
) -> None:
    (problem,) = refusal(to_doveconf, conf, version)
    assert problem.rule.startswith(rule) and fix in problem.fix
    assert next(iter(conf)) in str(problem.value)


def test_all_that_is_wrong_with_a_text_is_told_at_once() -> None:
    wrong = {"mail_location": "x", "mail_home": "/x/%u", "mail_fsync": "perhaps"}
    assert len(refusal(to_doveconf, wrong, "2.4.1")) == 3


def test_fragments_may_be_written() -> None:
    # Whether these are wise depends on the rest of the file.
    assert to_doveconf({"mail_nfs_index": True}, "2.3.19") == "mail_nfs_index = yes\n"
    assert dialect_errors({"mail_control_path": "/tmp/x"}, "2.4.1") == []


# ---- whatever comes in ----

NAMES = st.sampled_from([setting.old or setting.new for setting in SETTINGS]) | st.text(max_size=8)


@given(
    st.dictionaries(NAMES, JSON, max_size=5),
    st.sampled_from(["2.3.19", "2.4.1"]),
    st.sampled_from(["backend", "proxy"]),
)
def test_any_settings_are_judged_or_refused(conf: dict[str, Any], version: str, kind: str) -> None:
    try:
        rows = written_findings(conf, {"dovecot_version": version}, kind, STORE, HOME)
    except NfsmailError:
        return
    assert all(row["level"] in ("error", "warning", "info") for row in rows)


def test_the_catalogue() -> None:
    assert defaults("2.4")["mmap_disable"] == "no" and defaults("2.3").get("mail_location") is None
    assert defaults("2.3").get("no_such_setting") is None
    assert known("mail_path", "2.4") and known("mail_path", "2.3") is None
    assert foreign("mail_debug", "2.4") == ""
    names = [(setting.old, setting.new) for setting in SETTINGS]
    assert len(names) == len(set(names)) and all(old or new for old, new in names)
