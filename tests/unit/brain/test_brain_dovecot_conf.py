# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whole dovecot.conf files of backends and proxies in both dialects."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.nfsmail.cluster.plugins.module_utils._indexes import WORDS
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.dialect import flat, from_doveconf
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.dovecot_conf import (
    backend_conf,
    passwd_lines,
    proxy_conf,
    ssha512,
    translate,
)
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.errors import NfsmailError
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.location import MAIL_DIR
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.matrix import settings
from brain_samples import JSON, SECRET, VERSIONS, refusal
from hypothesis import given
from hypothesis import strategies as st
from plans import OTHER_SECRET, backend, proxy


def read(text: str) -> dict[str, str]:
    return flat(from_doveconf(text))


# ---- backends ----


def test_a_backend_of_2_3() -> None:
    conf = read(backend_conf(backend()))
    secret = ssha512(SECRET, "backend")
    wanted = {
        "protocols": "imap lmtp",
        "listen": "*, ::",
        "mail_uid": "5000",
        "mail_gid": "5001",
        "first_valid_uid": "5000",
        "last_valid_uid": "5000",
        "mail_home": "/srv/mail/%Ld/%Ln",
        "mail_location": "maildir:~/Maildir",
        "ssl": "yes",
        "ssl_cert": "</etc/dovecot/cert.pem",
        "ssl_key": "</etc/dovecot/key.pem",
        "login_trusted_networks": "192.0.2.21 192.0.2.22",
        "passdb/driver": "static",
        "passdb/args": f"password={secret} allow_real_nets=192.0.2.21,192.0.2.22",
        "userdb/driver": "static",
        "userdb/args": "allow_all_users=yes uid=5000 gid=5001",
        "service lmtp/inet_listener lmtp/port": "24",
        "doveadm_password": OTHER_SECRET,
        "service doveadm/inet_listener doveadm/port": "24245",
        "namespace inbox/inbox": "yes",
        "namespace inbox/mailbox Junk/special_use": "\\Junk",
    }
    assert {name: conf.get(name) for name in wanted} == wanted
    assert not [name for name in conf if "version" in name]


def test_a_backend_of_2_4() -> None:
    text = backend_conf(backend("2.4.1"))
    conf = read(text)
    secret = ssha512(SECRET, "backend")
    wanted = {
        "dovecot_config_version": "2.4.1",
        "dovecot_storage_version": "2.4.1",
        "protocols": "imap lmtp",
        "mail_home": "/srv/mail/%{user | domain | lower}/%{user | username | lower}",
        "mail_driver": "maildir",
        "mail_path": "~/Maildir",
        "ssl_server_cert_file": "/etc/dovecot/cert.pem",
        "ssl_server_key_file": "/etc/dovecot/key.pem",
        "passdb static/password": secret,
        "passdb static/fields/allow_real_nets": "192.0.2.21,192.0.2.22,local",
        "userdb static/allow_all_users": "yes",
    }
    assert {name: conf.get(name) for name in wanted} == wanted
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert lines[0] == "dovecot_config_version = 2.4.1"
    assert not {"mail_location", "ssl_cert", "ssl_key", "mail_index_path"} & set(conf)
    # 2.4 takes one-letter variables literally: two users would share one mailbox.
    assert "%" not in text.replace("%{", "").replace("256LNu", "").replace("% 256", "")


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("topology", ["single", "random", "per_user"])
@pytest.mark.parametrize("format", MAIL_DIR)
def test_the_matrix_is_in_the_file(format: str, topology: str, version: str) -> None:
    profile = {"topology": topology, "mailbox_format": format, "nfs_version": "3"}
    plan = backend(version, profile)
    conf = read(backend_conf(plan))
    wanted = settings(plan["profile"])
    assert {name: conf[name] for name in wanted} == wanted


def test_every_setting_of_the_matrix_has_its_reason_above() -> None:
    text = backend_conf(backend())
    assert (
        "# NFS reports write errors at fsync or close: only an fsync makes an accepted message safe.\nmail_fsync"
        in text
    )


@pytest.mark.parametrize(
    ("format", "old", "new"),
    [
        ("maildir", "maildir:~/Maildir", {"mail_driver": "maildir", "mail_path": "~/Maildir"}),
        ("mbox", "mbox:~/mail:INBOX=~/inbox", {"mail_path": "~/mail", "mail_inbox_path": "~/inbox"}),
        ("sdbox", "sdbox:~/sdbox", {"mail_driver": "sdbox", "mail_path": "~/sdbox"}),
        ("mdbox", "mdbox:~/mdbox", {"mail_driver": "mdbox", "mail_path": "~/mdbox"}),
    ],
)
@pytest.mark.parametrize("local", [False, True])
def test_where_mail_and_indexes_are(format: str, old: str, new: dict[str, str], local: bool) -> None:
    profile = {"topology": "single", "mailbox_format": format, "index_location": "local" if local else "nfs"}
    index = ":INDEX=/var/lib/nfsmail/index/%Ld/%Ln" if local else ""
    assert read(backend_conf(backend("2.3.19", profile)))["mail_location"] == old + index
    conf = read(backend_conf(backend("2.4.1", profile)))
    assert {name: conf[name] for name in new} == new
    index = "/var/lib/nfsmail/index/%{user | domain | lower}/%{user | username | lower}"
    assert conf.get("mail_index_path") == (index if local else None)


def test_where_volatile_files_are() -> None:
    told = {"volatile_path": "/run/v/{domain}/{name}"}
    for profile, index in (({}, ""), ({"index_location": "local"}, ":INDEX=/var/lib/nfsmail/index/%Ld/%Ln")):
        conf = read(backend_conf(backend("2.3.19", profile, **told)))
        assert conf["mail_location"] == f"maildir:~/Maildir{index}:VOLATILEDIR=/run/v/%Ld/%Ln"
        conf = read(backend_conf(backend("2.4.1", profile, **told)))
        assert conf["mail_volatile_path"] == "/run/v/%{user | domain | lower}/%{user | username | lower}"
        assert ("mail_index_path" in conf) is bool(index)
    text = backend_conf(backend("2.4.1", **told))
    assert "# Some locks are in a directory of this machine's own.\n" in text
    assert "volatile" not in backend_conf(backend("2.4.1")) + backend_conf(backend("2.3.19")).lower()


@pytest.mark.parametrize("version", ["2.3.19", "2.4.1"])
def test_without_proxies_users_log_in_here(version: str) -> None:
    conf = read(backend_conf(backend(version, {"topology": "single"}, proxies=[], proxy_password="")))
    if version == "2.3.19":
        assert conf["passdb/args"] == "username_format=%Lu /etc/dovecot/nfsmail-users"
        assert conf["userdb/args"] == "allow_all_users=no uid=5000 gid=5001"
    else:
        assert conf["passdb passwd-file/passwd_file_path"] == "/etc/dovecot/nfsmail-users"
        assert conf["userdb static/allow_all_users"] == "no"
    assert "login_trusted_networks" not in conf


@pytest.mark.parametrize("version", ["2.3.19", "2.4.1"])
def test_what_can_be_left_out(version: str) -> None:
    conf = read(backend_conf(backend(version, ssl="no", protocols=["imap"], doveadm_password="")))
    assert conf["ssl"] == "no"
    assert not [name for name in conf if "ssl_" in name or "lmtp" in name or "doveadm" in name]


def test_one_text_stands_for_a_list() -> None:
    conf = read(backend_conf(backend(listen="192.0.2.1", protocols="imap,lmtp", proxies="192.0.2.21")))
    assert (conf["listen"], conf["protocols"]) == ("192.0.2.1", "imap lmtp")
    assert conf["login_trusted_networks"] == "192.0.2.21"


@pytest.mark.parametrize("version", ["2.3.19", "2.4.1"])
def test_the_file_is_the_same_on_every_run(version: str) -> None:
    assert backend_conf(backend(version)) == backend_conf(backend(version))
    assert proxy_conf(proxy(version)) == proxy_conf(proxy(version))


@pytest.mark.parametrize(
    ("profile", "section"),
    [
        ({"topology": "per_user", "delivery": "lda"}, "protocol lda"),
        ({"topology": "random", "delivery": "lda"}, "protocol lda"),
        ({"topology": "random", "delivery": "lmtp"}, "protocol lmtp"),
        ({"topology": "per_user", "delivery": "lmtp"}, None),
        ({"topology": "single", "delivery": "lda"}, None),
        ({"topology": "random", "delivery": "mta"}, None),
        ({"topology": "random", "delivery": "lmtp", "mailbox_format": "mbox"}, None),
    ],
)
def test_delivery_beside_the_users_machine_keeps_indexes_in_memory(
    profile: dict[str, Any], section: str | None
) -> None:
    for version, written in (
        ("2.3.19", {"mail_location": "maildir:~/Maildir:INDEX=MEMORY"}),
        ("2.4.1", {"mail_index_path": "MEMORY"}),
    ):
        conf = from_doveconf(backend_conf(backend(version, profile, proxies=[])))
        sections = {name: value for name, value in conf.items() if name.startswith("protocol ")}
        assert sections == ({section: written} if section else {})


def test_a_pinned_config_version() -> None:
    for make, plan in ((backend_conf, backend), (proxy_conf, proxy)):
        lines = [line for line in make(plan("2.4.3", config_version="2.4.1")).splitlines() if not line.startswith("#")]
        assert lines[:2] == ["dovecot_config_version = 2.4.1", "dovecot_storage_version = 2.4.1"]
        assert "dovecot_config_version" not in make(plan("2.3.19", config_version="2.4.1"))


# ---- proxies ----


def test_a_proxy_of_2_3() -> None:
    conf = from_doveconf(proxy_conf(proxy()))
    secret = ssha512(SECRET, "backend")
    assert secret not in str(conf)
    assert (conf["lmtp_proxy"], conf["doveadm_port"]) == ("yes", "24245")
    assert conf["passdb"] == {
        "driver": "passwd-file",
        "args": "username_format=%Lu /etc/dovecot/nfsmail-users",
        "result_success": "continue-ok",
    }
    # The first that knows the user decides.
    for number, args in enumerate(
        (
            "username_format=%s/%Lu /etc/dovecot/nfsmail-moving",
            "username_format=%Lu /etc/dovecot/nfsmail-overrides",
            "username_format=%s//%2.256LNu /etc/dovecot/nfsmail-moving",
            "username_format=%2.256LNu /etc/dovecot/nfsmail-shards",
        ),
        2,
    ):
        assert conf[f"passdb #{number}"] == {
            "driver": "passwd-file",
            "args": args,
            "override_fields": f"pass={SECRET}",
            "skip": "unauthenticated",
        }
    assert conf["userdb"]["args"] == "username_format=%Lu /etc/dovecot/nfsmail-users"


SHARD_24 = "%{user | lower | md5 | substr(0, 8) % 256 | hex(2)}"


def test_a_proxy_of_2_4() -> None:
    conf = from_doveconf(proxy_conf(proxy("2.4.1")))
    assert list(conf)[:2] == ["dovecot_config_version", "dovecot_storage_version"]
    assert conf["passdb passwd-file"]["result_success"] == "continue-ok"
    for name, key, path in (
        ("moving-users", "%{protocol}/%{user | lower}", "/etc/dovecot/nfsmail-moving"),
        ("overrides", "%{user | lower}", "/etc/dovecot/nfsmail-overrides"),
        ("moving-shards", f"%{{protocol}}//{SHARD_24}", "/etc/dovecot/nfsmail-moving"),
        ("shards", SHARD_24, "/etc/dovecot/nfsmail-shards"),
    ):
        assert conf[f"passdb {name}"] == {
            "driver": "passwd-file",
            "passwd_file_path": path,
            "auth_username_format": key,
            "fields": {"noauthenticate": "yes", "pass": SECRET},
            "skip": "unauthenticated",
        }
    # Measured on 2.4.1: after a passdb with noauthenticate the next is asked too, and its host replaces the one found.
    assert [name for name in conf if name.startswith("passdb")] == [
        "passdb passwd-file",
        "passdb shards",
        "passdb moving-shards",
        "passdb overrides",
        "passdb moving-users",
    ]


@pytest.mark.parametrize("version", ["2.3.19", "2.4.1"])
def test_a_proxy_has_no_mail(version: str) -> None:
    conf = read(proxy_conf(proxy(version)))
    assert not [name for name in conf if name.startswith(("mail_", "mmap", "lock_"))]


# ---- extra settings ----


@pytest.mark.parametrize("version", ["2.3.19", "2.4.1"])
@pytest.mark.parametrize(
    "extra",
    [
        {"mmap_disable": "no"},
        {"mail_fsync": "never", "mail_debug": True},
        {"listen": "*"},
        {"mail_home": "/home/%u"},
        {"doveadm_password": "x"},
        {"protocol imap": {"mmap_disable": "no"}},
        {"local 192.0.2.0/24": {"protocol imap": {"mail_nfs_index": "yes"}}},
        {"mbox_write_locks": "dotlock"},
    ],
)
def test_extra_settings_do_not_overrule_ours(extra: dict[str, Any], version: str) -> None:
    (problem,) = refusal(backend_conf, backend(version, extra_settings=extra))
    assert problem.variable.startswith("dovecot_extra_settings.")
    assert problem.rule == "the matrix and the role's own variables decide this setting"


def test_extra_settings_of_a_proxy() -> None:
    extra = {"lmtp_proxy": "no", "protocols": "imap", "login_greeting": "hello"}
    problems = refusal(proxy_conf, proxy(extra_settings=extra))
    assert [problem.variable for problem in problems] == [
        "dovecot_proxy_extra_settings.lmtp_proxy",
        "dovecot_proxy_extra_settings.protocols",
    ]


@pytest.mark.parametrize("version", ["2.3.19", "2.4.1"])
def test_extra_settings_come_last_and_extend_sections(version: str) -> None:
    extra = {
        "mail_max_userip_connections": 20,
        "service lmtp": {"process_min_avail": 2},
        "protocol imap": {"mail_plugins": ["quota", "imap_quota"]},
    }
    text = backend_conf(backend(version, extra_settings=extra))
    conf = from_doveconf(text)
    assert conf["mail_max_userip_connections"] == "20"
    assert conf["service lmtp"] == {"inet_listener lmtp": {"port": "24"}, "process_min_avail": "2"}
    assert conf["protocol imap"] == {"mail_plugins": "quota imap_quota"}
    assert text.count("service lmtp {") == 1
    assert text.index("mail_max_userip_connections") > text.index("namespace inbox")


@pytest.mark.parametrize("extra", [None, {}, ""])
def test_no_extra_settings(extra: Any) -> None:
    assert backend_conf(backend(extra_settings=extra)) == backend_conf(backend())


# ---- secrets ----

SHORT = "k3pt-S3cret"
BAD_SECRETS = [
    SHORT,
    "with blank in the middle",
    "sixteen-chars,-and-comma",
    "sixteen-chars-or-so\n",
    "grüße-grüße-grüße",
]


@pytest.mark.parametrize("secret", [*BAD_SECRETS, "", None])
@pytest.mark.parametrize("version", ["2.3.19", "2.4.1"])
@pytest.mark.parametrize("make", ["backend", "proxy"])
def test_a_weak_proxy_password_is_refused_and_never_shown(make: str, version: str, secret: Any) -> None:
    with pytest.raises(NfsmailError) as caught:
        if make == "backend":
            backend_conf(backend(version, proxy_password=secret))
        else:
            proxy_conf(proxy(version, proxy_password=secret))
    (problem,) = caught.value.problems
    assert (problem.variable, problem.value) == ("nfsmail_proxy_password", "(hidden)" if secret else None)
    assert "openssl rand" in problem.fix
    if secret:
        assert secret.strip() not in str(caught.value)


@pytest.mark.parametrize("secret", BAD_SECRETS)
def test_a_weak_doveadm_password_is_refused_and_never_shown(secret: str) -> None:
    for call, plan in ((backend_conf, backend(doveadm_password=secret)), (proxy_conf, proxy(doveadm_password=secret))):
        with pytest.raises(NfsmailError) as caught:
            call(plan)
        assert caught.value.problems[0].variable == "nfsmail_doveadm_password"
        assert secret.strip() not in str(caught.value)


def test_a_backend_has_only_the_hash_of_the_proxies_password() -> None:
    for version in ("2.3.19", "2.4.1"):
        assert SECRET not in backend_conf(backend(version))


def test_ssha512_is_salted_and_stable() -> None:
    assert ssha512("a", "x") == ssha512("a", "x")
    assert len({ssha512("a", "x"), ssha512("a", "y"), ssha512("b", "x")}) == 3
    assert ssha512("a", "x").startswith("{SSHA512}")


# ---- users ----

HASH = "{SHA512-CRYPT}$6$abc$def/ghi."


def test_lines_of_users() -> None:
    users = [
        {"name": "Zoe@Example.com", "password": HASH},
        {"name": "adam@example.com", "password": "{SSHA512}YWJj"},
        {"name": 7, "password": "{PLAIN.b64}YWJj"},
    ]
    assert passwd_lines(users) == [
        "7:{PLAIN.b64}YWJj::::::",
        "adam@example.com:{SSHA512}YWJj::::::",
        f"zoe@example.com:{HASH}::::::",
    ]
    assert passwd_lines([]) == []


@pytest.mark.parametrize(
    ("user", "variable", "rule"),
    [
        ({"name": "a", "password": "plain-text-secret"}, "password", "a hash with its scheme in front"),
        ({"name": "a", "password": HASH + "\n"}, "password", "a hash with its scheme in front"),
        ({"name": "a", "password": HASH + ":x"}, "password", "a hash with its scheme in front"),
        ({"name": "a", "password": "{SHA512}"}, "password", "a hash with its scheme in front"),
        ({"name": "a"}, "password", "a hash with its scheme in front"),
        ({"password": HASH}, "name", "a name without colons and blanks"),
        ({"name": "a:b", "password": HASH}, "name", "a name without colons and blanks"),
        ({"name": "a b", "password": HASH}, "name", "a name without colons and blanks"),
        ({"name": "a\n", "password": HASH}, "name", "a name without colons and blanks"),
        ({"name": "#a", "password": HASH}, "name", "a name without colons and blanks"),
    ],
)
def test_a_wrong_user(user: dict[str, str], variable: str, rule: str) -> None:
    (problem,) = refusal(passwd_lines, [user])
    assert problem.variable == f"nfsmail_users[0].{variable}"
    assert problem.rule.startswith(rule)
    assert user.get("password", "nothing").strip() not in str(problem)


def test_all_wrong_users_at_once() -> None:
    users = [{"name": "a", "password": HASH}, {"name": "A", "password": "x"}, None, "b"]
    variables = [problem.variable for problem in refusal(passwd_lines, users)]
    assert variables == [
        "nfsmail_users[1].name",
        "nfsmail_users[1].password",
        "nfsmail_users[2].name",
        "nfsmail_users[2].password",
        "nfsmail_users[3].name",
        "nfsmail_users[3].password",
    ]


@pytest.mark.parametrize("users", [None, "a:b", {"a": "b"}, 3])
def test_users_are_a_list(users: Any) -> None:
    assert refusal(passwd_lines, users)[0].rule == "a list of {name, password}"


@given(st.lists(st.fixed_dictionaries({"name": JSON, "password": JSON | st.just(HASH)}) | JSON, max_size=4))
def test_any_users_are_written_or_refused(users: list[Any]) -> None:
    try:
        lines = passwd_lines(users)
    except NfsmailError:
        return
    assert len(lines) == len(users)
    assert all(line.count(":") == 7 and "\n" not in line for line in lines)


# ---- paths ----


@pytest.mark.parametrize("series", ["2.3", "2.4"])
@pytest.mark.parametrize(
    "template", ["/srv/%d/%n", "/srv/%{user}", "/srv/$user", "/srv/{users}", "/srv/{}", "/srv/{user}/%u", "%"]
)
def test_paths_that_the_dialects_read_differently(template: str, series: str) -> None:
    (problem,) = refusal(translate, "nfsmail_mail_home", template, series)
    assert (problem.variable, problem.value) == ("nfsmail_mail_home", template)
    assert problem.rule.startswith("variables are written {user}, {name}, {domain}, {shard}")


@pytest.mark.parametrize(
    ("template", "old", "new"),
    [
        ("/srv/mail", "/srv/mail", "/srv/mail"),
        ("/m/{user}", "/m/%Lu", "/m/%{user | lower}"),
        ("/m/{shard}/{name}", "/m/%2.256LNu/%Ln", f"/m/{WORDS['{shard}'][1]}/%{{user | username | lower}}"),
        ("/m/{domain}/{domain}", "/m/%Ld/%Ld", "/m/%{user | domain | lower}/%{user | domain | lower}"),
    ],
)
def test_paths_in_both_dialects(template: str, old: str, new: str) -> None:
    assert translate("x", template, "2.3") == old
    assert translate("x", template, "2.4") == new


@pytest.mark.parametrize("version", ["2.3.19", "2.4.1"])
def test_a_wrong_path_stops_the_file(version: str) -> None:
    assert refusal(backend_conf, backend(version, mail_home="/srv/mail/%d/%n"))[0].variable == "nfsmail_mail_home"
    plan = backend(version, {"index_location": "local"}, index_path="/var/%u")
    assert refusal(backend_conf, plan)[0].variable == "nfsmail_index_path"
    # Not in use: not judged here, but with the inventory.
    assert backend_conf(backend(version, index_path="/var/%u"))
