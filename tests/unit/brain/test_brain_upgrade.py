# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""From Dovecot 2.3 to 2.4: each word translated as meant, nothing lost, nothing but our own errors on any text."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.nfsmail.cluster.plugins.plugin_utils import upgrade, variables
from ansible_collections.nfsmail.cluster.plugins.plugin_utils import upgrade_tables as tables
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.catalogue import SETTINGS
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.dialect import from_doveconf
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.dovecot_conf import backend_conf, proxy_conf
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.errors import NfsmailError
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.upgrade import preview
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.variables import Untranslated, letters_for, translate
from brain_samples import SECRET
from hypothesis import given
from hypothesis import strategies as st
from plans import OTHER_SECRET, backend, proxy
from upgrade_cases import NAMES, printed
from upgrade_checks import leaves, unaccounted

HEAD = "# 2.3.19.1 (9b53102964): /etc/dovecot/dovecot.conf\nprotocols = imap\nmail_location = maildir:~/Maildir\n"


def conf(text: str, head: str = HEAD, **more: Any) -> dict[str, Any]:
    """The output of a translation, read."""
    return from_doveconf(preview(head + text, **more)["conf"])


def items(text: str, head: str = HEAD) -> dict[str, dict[str, str]]:
    """The items by setting; of two for one setting, the last."""
    return {row["setting"]: row for row in preview(head + text)["items"]}


# ---- variables ----


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("/srv/%d/%n", "/srv/%{user | domain}/%{user | username}"),
        ("%Lu", "%{user | lower}"),
        ("%LUn", "%{user | username | lower | upper}"),
        ("%2.256LNu", "%{user | lower | md5 | substr(0, 8) % 256 | hex(2)}"),
        ("%256Nu", "%{user | md5 | substr(0, 8) % 256 | hex}"),
        ("%1Mu/%2.1Mu", "%{user | md5 | hexlify(1)}/%{user | md5 | hexlify | substr(2, 1)}"),
        ("%Mu", "%{user | md5}"),
        ("%1n/%1.1n", "%{user | username | substr(0, 1)}/%{user | username | substr(1, 1)}"),
        ("%h/x", "%{home}/x"),
        ("%s %l %r %p", "%{service} %{local_ip} %{remote_ip} %{process:pid}"),
        ("%{rip} %L{login_username}", "%{remote_ip} %{login_user | username | lower}"),
        ("%{env:HOME} %{userdb:quota}", "%{env:HOME} %{userdb:quota}"),
        ("100%%", "100%"),
        ("%%{x}", "%%{x}"),
        ("", ""),
    ],
)
def test_variables(old: str, new: str) -> None:
    assert translate(old) == new


@pytest.mark.parametrize("name", ["auth_username_format", "login_log_format_elements", "pop3_uidl_format", "x"])
def test_letters_mean_what_the_setting_says(name: str) -> None:
    wanted = {"auth_username_format": "%{user}", "login_log_format_elements": "%{user}", "pop3_uidl_format": "%{uid}"}
    assert translate("%u", letters_for(name)) == wanted.get(name, "%{user}")
    assert translate("%s", letters_for("passwd_file_path", auth=True)) == "%{protocol}"
    assert translate("%08Xu%08Xv", letters_for("pop3_uidl_format")) == "%{uid | hex(8)}%{uidvalidity | hex(8)}"
    assert translate("%$: %s", letters_for("login_log_format")) == "%{message}: %{elements}"


def test_variables_of_a_shared_namespace() -> None:
    assert translate("shared/%%u/", shared="prefix") == "shared/$user/"
    assert translate("%%h/Maildir:%%Lu %%d", shared="mail_path") == ("%{owner_home}/Maildir:%Lu %{owner_user | domain}")


@pytest.mark.parametrize(
    "old", ["%Hu", "%Nu", "%x", "%", "100% sure", "%{if;%d;ne;;a;b}", "%Xn2%", "%-3u", "%2.3Xu", "%{odd}"]
)
def test_variables_without_an_equal(old: str) -> None:
    with pytest.raises(Untranslated):
        translate(old)


@given(st.text("%{}uLNM2.d|h:$ \n", max_size=30))
def test_no_variable_of_2_3_is_left(text: str) -> None:
    try:
        told = translate(text)
    except Untranslated:
        return
    # What looks like a variable of 2.3 in the result was a plain sign before.
    assert len(re.findall(r"%[LMN]*[udh$]", told)) <= text.count("%%")


# ---- settings ----


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("disable_plaintext_auth = no", {"auth_allow_cleartext": "yes"}),
        ("ssl_cert = </c.pem", {"ssl_server_cert_file": "/c.pem"}),
        ("ssl_client_key = < /c.pem", {"ssl_client_key_file": "/c.pem"}),
        ("ssl_prefer_server_ciphers = no", {"ssl_server_prefer_ciphers": "client"}),
        ("ssl_verify_client_cert = yes", {"ssl_server_request_client_cert": "yes"}),
        ("mail_home = /srv/%Ld/%Ln", {"mail_home": "/srv/%{user | domain | lower}/%{user | username | lower}"}),
        ("lmtp_user_concurrency_limit = 0", {"lmtp_user_concurrency_limit": "unlimited"}),
        ("log_timestamp = %F %T", {"log_timestamp": "%F %T"}),
        ("doveadm_password = 100%u", {"doveadm_password": "100%u"}),
        ("auth_worker_max_count = 9", {"service auth-worker": {"process_limit": "9"}}),
        ("imap_id_send = name x", {"imap_id_send": {"name": "x"}}),
        ("imapc_features = search send-id", {"imapc_features": "send-id no-fetch-size no-fetch-headers"
                                            " no-fetch-bodystructure no-modseq no-delay-login no-acl"}),
        ("service imap {\nservice_count = 0\nidle_kill = 5 mins\n}",
         {"service imap": {"restart_request_count": "unlimited", "idle_kill_interval": "5 mins"}}),
        ("service lmtp {\ninet_listener {\naddress = ::1\nport = 24\n}\n}",
         {"service lmtp": {"inet_listener lmtp": {"listen": "::1", "port": "24"}}}),
        ("service auth {\nunix_listener /a/b {\nuser = $default_internal_user\n}\n}",
         {"service auth": {"unix_listener /a/b": {"user": "$SET:default_internal_user"}}}),
        ("local_name a.example {\nssl_cert = </x\n}", {"local_name a.example": {"ssl_server_cert_file": "/x"}}),
        ("mail_plugins = acl zlib", {"mail_plugins": {"acl": "yes", "mail_compress": "yes"}}),
        ("mail_plugins = acl quota\nprotocol imap {\nmail_plugins = quota imap_acl\n}",
         {"protocol imap": {"mail_plugins": {"imap_acl": "yes", "acl": "no"}}}),
    ],
)  # fmt: skip
def test_settings(old: str, new: dict[str, Any]) -> None:
    told = conf(f"{old}\n")
    assert {name: told.get(name) for name in new} == new


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("maildir:~/M", {"mail_driver": "maildir", "mail_path": "~/M"}),
        ("mbox:~/m:INBOX=/var/mail/%u", {"mail_driver": "mbox", "mail_path": "~/m", "mail_inbox_path": "/var/mail/%{user}"}),
        ("mdbox:~/m:ALT=/a:ALTNOCHECK", {"mail_alt_path": "/a", "mail_alt_check": "no"}),
        ("maildir:~/M:LAYOUT=fs:CONTROL=~/c:INDEX=MEMORY:VOLATILEDIR=/v:INDEXCACHE=/k:UTF-8:SUBSCRIPTIONS=s",
         {"mailbox_list_layout": "fs", "mail_control_path": "~/c", "mail_index_path": "MEMORY", "mail_cache_path": "/k",
          "mail_volatile_path": "/v", "mailbox_list_utf8": "yes", "mailbox_subscriptions_filename": "s"}),
        ("dbox:~/d:NO-NOSELECT", {"mail_driver": "sdbox", "mailbox_list_drop_noselect": "yes"}),
        ("imapc:", {"mail_driver": "imapc"}),
    ],
)  # fmt: skip
def test_mail_location(old: str, new: dict[str, str]) -> None:
    told = conf(f"mail_location = {old}\n", head="# 2.3.19.1\nprotocols = imap\n")
    assert {name: told.get(name) for name in new} == new


@pytest.mark.parametrize("old", ["/var/mail/%u", "maildir:~/M:ODD=x", "maildir:a::b", "maildir:~/%Hu"])
def test_a_location_that_is_not_understood_is_told(old: str) -> None:
    told = items(f"mail_location = {old}\n", head="# 2.3.19.1\nprotocols = imap\n")
    assert told["mail_location"]["level"] == "error"


def test_what_is_set_outside_does_not_hold_within() -> None:
    """2.3 begins a location afresh in each section; settings of 2.4 would be inherited."""
    head = "protocols = imap\nmail_location = mdbox:~/m:INDEX=/i:ALT=/a:ALTNOCHECK\n"
    told = conf("namespace x {\nlocation = maildir:/p\n}\nprotocol lda {\nmail_location = mdbox:~/m\n}\n", head)
    wanted = {"mail_index_path": "", "mail_alt_path": "", "mail_alt_check": "yes"}
    assert told["namespace x"] == {"mail_driver": "maildir", "mail_path": "/p", **wanted}
    assert told["protocol lda"] == {"mail_driver": "mdbox", "mail_path": "~/m", **wanted}


def test_only_dbox_keeps_its_old_folder_names_and_only_where_they_change() -> None:
    for driver, version, written in (("mdbox", "2.4.2", "yes"), ("mdbox", "2.4.1", None), ("maildir", "2.4.3", None)):
        told = conf(f"mail_location = {driver}:~/m\n", "protocols = imap\n", version=version)
        assert told.get("mailbox_directory_name_legacy") == written
        assert told["dovecot_config_version"] == version


def test_the_lock_order_of_debian_is_kept_for_mbox_there() -> None:
    debian = "# 2.3.19.1\n# OS: Linux 6 Debian 12\nprotocols = imap\nmail_location = mbox:~/m\n"
    assert conf("", debian)["mbox_write_locks"] == "fcntl dotlock"
    assert "mbox_write_locks" not in conf("", debian.replace("Debian", "Red Hat"))
    assert "mbox_write_locks" not in conf("", debian.replace("mbox:", "maildir:"))


# ---- databases ----


@pytest.mark.parametrize(
    ("old", "name", "new"),
    [
        ("passdb {\ndriver = pam\nargs = session=yes *\n}", "passdb pam", {"session": "yes", "service_name": "%{protocol}"}),
        ("passdb {\ndriver = passwd-file\nargs = scheme=CRYPT username_format=%n /e/%d\n}", "passdb passwd-file",
         {"passwd_file_path": "/e/%{user | domain}", "default_password_scheme": "CRYPT",
          "auth_username_format": "%{user | username}"}),
        ("passdb {\ndriver = static\nargs = password=x proxy=y host=h\nmaster = yes\npass = yes\n}", "passdb static",
         {"password": "x", "master": "yes", "result_success": "continue", "fields": {"proxy": "y", "host": "h"}}),
        ("userdb {\ndriver = static\nargs = uid=1 allow_all_users=yes mail=mdbox:~/m:INDEX=/i quota_rule=*:storage=1G\n}",
         "userdb static", {"allow_all_users": "yes", "fields": {
             "uid": "1", "mail_driver": "mdbox", "mail_path": "~/m", "mail_index_path": "/i", "quota_storage_size": "1G"}}),
        ("userdb {\ndriver = passwd\nargs = blocking=no\noverride_fields = home=/h/%u\n}", "userdb passwd",
         {"use_worker": "no", "fields": {"home": "/h/%{user}"}}),
        ("passdb {\ndriver = lua\nargs = file=/l.lua blocking=no a=b\n}", "passdb lua",
         {"lua_file": "/l.lua", "use_worker": "no", "lua_settings": {"a": "b"}}),
        ("passdb {\ndriver = sql\nargs = /x\n}\npassdb {\ndriver = sql\nargs = /y\ndeny = yes\n}", "passdb sql2",
         {"driver": "sql", "deny": "yes"}),
    ],
)  # fmt: skip
def test_databases(old: str, name: str, new: dict[str, Any]) -> None:
    assert conf(f"{old}\n")[name] == new


@pytest.mark.parametrize(
    "lines",
    [
        "driver = static\nargs = nopassword=y allow_nets=%Hu",
        "driver = static\nargs = nopassword=y\nonly_from = 192.0.2.1",
        "driver = passwd-file\nargs = /etc/%Hu",
        "driver = odd\nargs = x",
    ],
)
def test_half_a_password_database_is_none(lines: str) -> None:
    text = f"passdb {{\n{lines}\n}}\n"
    assert not any(name.startswith("passdb") for name in conf(text))
    told = items(text)["passdb"]
    assert told["level"] == "error" and "left out" in told["happens"]
    assert unaccounted(HEAD + text, preview(HEAD + text)) == []


def test_a_database_of_a_file_is_left_out_too_where_a_part_has_no_equal() -> None:
    text = "passdb {\ndriver = sql\nargs = /x\ndeny = yes\noverride_fields = allow_nets=%Hu\n}\n"
    assert not any(name.startswith("passdb") for name in conf(text))
    told = [row["happens"] for row in preview(HEAD + text)["items"] if row["setting"] == "passdb"]
    assert any("left out" in row for row in told) and any("let in without it" in row for row in told)


def test_a_proxy_has_no_mailboxes_and_is_told_of_none() -> None:
    head, users = "protocols = imap sieve\n", "passdb {{\ndriver = passwd-file\nargs = {}\n}}\n"
    told = items(users.format("/etc/dovecot/proxy-users"), head)
    assert {"mail_location", "mail_cache_fields"} <= set(told) and "managesieved" in told["protocols"]["fix"]
    told = items("passdb {\ndriver = static\nargs = proxy=y host=h nopassword=y\n}\n", head)
    assert not {"mail_location", "mail_cache_fields"} & set(told)


def test_what_becomes_of_a_proxy_is_told() -> None:
    proxy_to = "passdb {{\ndriver = static\nargs = proxy=y nopassword=y{}\n}}\n"
    assert "nobody can log in" in items(proxy_to.format(""))["passdb/args"]["happens"] or any(
        "nobody can log in" in row["happens"] for row in preview(HEAD + proxy_to.format(""))["items"]
    )
    assert "without TLS" in items(proxy_to.format(" host=h"))["passdb/args"]["happens"]
    assert "certificate" in items(proxy_to.format(" host=h ssl=yes"))["passdb/args"]["happens"]
    trusted = items("ssl = required\nlogin_trusted_networks = 192.0.2.0/24\n")["login_trusted_networks"]
    assert trusted["level"] == "error"


# ---- plugins ----


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("sieve = file:~/s;active=~/.a", {"sieve_script personal": {"type": "personal", "path": "~/s", "active_path": "~/.a"}}),
        ("sieve = ~/.a\nsieve_dir = ~/d", {"sieve_script personal": {"type": "personal", "path": "~/d", "active_path": "~/.a"}}),
        ("sieve_before2 = /b", {"sieve_script before2": {"type": "before", "path": "/b", "precedence": "2"}}),
        ("sieve_extensions = +a -b", {"sieve_extensions": {"a": "yes", "b": "no"}}),
        ("sieve_extensions = a b", {"sieve_extensions": "a b"}),
        ("quota = maildir:U:\nquota_rule = *:storage=5:messages=0\nquota_grace = 5M",
         {"quota U": {"driver": "maildir", "quota_storage_size": "5K", "quota_message_count": "unlimited",
                      "quota_storage_grace": "5M"}}),
        ("quota = count\nquota2 = count:B\nquota2_rule = *:storage=1G",
         {"quota quota": {"driver": "count"}, "quota B": {"driver": "count", "quota_storage_size": "1G"}}),
        ("acl = vfile:/g:cache_secs=9", {"acl_driver": "vfile", "acl_global_path": "/g", "acl_cache_ttl": "9 secs"}),
        ("zlib_save = zstd\nzlib_save_level = 3", {"mail_compress_write_method": "zstd", "compress_zstd_level": "3"}),
        ("fts = solr\nfts_solr = url=http://s/", {"fts solr": {"url": "http://s/"}}),
        ("fts_autoindex_exclude = Junk", {"mailbox Junk": {"fts_autoindex": "no"}}),
        ("lazy_expunge = E", {"lazy_expunge_mailbox": "E"}),
        ("imapsieve_mailbox1_name = *\nimapsieve_mailbox1_from = Spam\nimapsieve_mailbox1_causes = COPY\n"
         "imapsieve_mailbox1_after = /x",
         {"imapsieve_from Spam": {"sieve_script imapsieve1-after": {"type": "after", "cause": "copy", "path": "/x"}}}),
    ],
)  # fmt: skip
def test_plugin_settings(old: str, new: dict[str, Any]) -> None:
    text = f"plugin {{\n{old}\n}}\n"
    told = conf(text)
    assert {name: told.get(name) for name in new} == new
    assert unaccounted(HEAD + text, preview(HEAD + text)) == []


@pytest.mark.parametrize(
    "old",
    ["quota = dict:U::file:/x", "quota_rule = *:storage=10%%", "quota = count\nquota_warning = storage=1G /bin/x", "fts = squat",
     "sieve = ldap:/x", "zlib_save = xz", "acl_shared_dict = file:/x", "mail_replica = tcp:x", "trash = /x", "odd = 1",
     "lazy_expunge = E/"],
)  # fmt: skip
def test_plugin_settings_without_an_equal_are_told(old: str) -> None:
    name = old.rsplit("\n", maxsplit=1)[-1].split(" ", maxsplit=1)[0]
    assert items(f"plugin {{\n{old}\n}}\n")[f"plugin/{name}"]["level"] in ("error", "warning")


# ---- whole configurations ----


@pytest.mark.parametrize("name", NAMES)
def test_nothing_vanishes(name: str) -> None:
    result = preview(printed(name))
    assert unaccounted(printed(name), result) == []
    assert result["conf"].split("\n")[3] == "dovecot_config_version = 2.4.1"
    assert {row["level"] for row in result["items"]} <= {"error", "warning", "info"}
    assert all(all(row[key] for key in ("setting", "happens", "fix", "source")) for row in result["items"])
    assert sum(result["counts"].values()) == len(result["items"])


def test_a_director_and_a_replicator_are_told_of() -> None:
    told = {row["setting"] for row in preview(printed("director"))["items"] if row["level"] == "error"}
    assert {"director_servers", "director_mail_servers", "service director", "protocol lmtp/auth_socket_path"} <= told
    told = {row["setting"] for row in preview(printed("replicator"))["items"] if row["level"] == "error"}
    assert {"plugin/mail_replica", "service replicator", "mail_plugins", "login_access_sockets", "passdb"} <= told
    assert "director" not in "".join(
        line for line in preview(printed("director"))["conf"].split("\n") if not line.lstrip().startswith("#")
    )


@pytest.mark.parametrize("kind", ["backend", "proxy"])
def test_what_the_collection_writes_for_2_3_becomes_what_it_writes_for_2_4(kind: str) -> None:
    """But for the names of passdbs, the order of the two routes and their noauthenticate, and old defaults kept."""
    write: Any = backend_conf if kind == "backend" else proxy_conf
    plan: Any = backend if kind == "backend" else proxy
    told = from_doveconf(preview(write(plan("2.3.19")))["conf"])
    wanted = from_doveconf(write(plan("2.4.1")))
    for name in ("mail_cache_fields", "mailbox_list_drop_noselect"):
        told.pop(name, None)
    # The role's own for 2.4: doveadm kick works with it.
    wanted.pop("service imap-login", None)
    # What 2.4 does by itself.
    told.get("userdb passwd-file", {}).pop("auth_username_format", None)
    same = [name for name in wanted if not name.startswith("passdb")]
    assert {name: told.get(name) for name in same} == {name: wanted[name] for name in same}
    assert set(told) - set(wanted) <= {name for name in told if name.startswith("passdb")}


def test_secrets_are_not_in_the_items() -> None:
    text = (
        printed("director")
        + "\nimapc_password = k3pt-S3cret\nssl_key_password = k3pt-S3cret\nbogus_password = k3pt-S3cret\n"
    )
    result = preview(text)
    told = str(result["items"]) + str(result["settings"]) + str(result["table"])
    assert not any(secret in told for secret in (SECRET, OTHER_SECRET, "k3pt-S3cret"))
    assert SECRET in result["conf"]


def test_what_doveconf_hides_is_told() -> None:
    text = "ssl_cert = </c.pem\nssl_key = # hidden, use -P to show it\n"
    assert "ssl_server_key_file" not in conf(text) and conf(text)["ssl_server_cert_file"] == "/c.pem"
    told = items(text)["ssl_key"]
    assert told["level"] == "error" and "doveconf -nP" in told["fix"] and "ssl_server_key_file" in told["happens"]


# ---- the tables ----


def test_a_name_is_in_one_table_only() -> None:
    of_catalogue = {one.old for one in SETTINGS if one.old and one.new and one.old != one.new and not one.section}
    ours = [tables.SAME, tables.MANAGESIEVE, tables.RENAMED, tables.GONE, of_catalogue - set(tables.FILES)]
    for number, one in enumerate(ours):
        for other in ours[number + 1 :]:
            assert not set(one) & set(other)
    assert not tables.PLUGIN_SETTINGS_SAME & set(tables.PLUGIN_SETTINGS_RENAMED)
    assert not tables.PLUGIN_SAME & set(tables.PLUGINS_GONE)
    assert tables.EXPANDED <= tables.SAME | {"auth_policy_request_attributes"}


def test_the_catalogue_says_the_same() -> None:
    for one in SETTINGS:
        if one.old in tables.FILES:
            assert tables.FILES[one.old] == one.new
        if one.old and one.old == one.new:
            assert one.old in tables.SAME, one.old
    assert set(variables.OWN_LETTERS) <= tables.SAME | tables.MANAGESIEVE


# ---- bad input ----


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("", "the output of doveconf -n of Dovecot 2.3"),
        (" \n", "the output of doveconf -n of Dovecot 2.3"),
        (None, "the output of doveconf -n of Dovecot 2.3"),
        ("From: anna\n\nhello\n", "neither a setting nor a section"),
        ("a = b\n", "the output of doveconf -n of Dovecot 2.3"),
        ("protocols = imap\n!include conf.d/*.conf\n", "neither a setting nor a section"),
        ("doveconf: Fatal: no\nprotocols = imap\n", "neither a setting nor a section"),
        ("protocols = imap\nprotocols = pop3\n", "each setting once, as doveconf -n prints them"),
        ("protocols = imap\nplugin {\n", "a section is not closed"),
        ("# 2.4.1-4 (7d8c0e5759): /x\nprotocols = imap\n", "a configuration of Dovecot 2.3"),
        ("dovecot_config_version = 2.4.1\nprotocols = imap\n", "a configuration of Dovecot 2.3"),
        ("# 2.2.36 (x): /x\nprotocols = imap\n", "a configuration of Dovecot 2.3"),
    ],
)
def test_bad_input(text: Any, rule: str) -> None:
    with pytest.raises(NfsmailError) as caught:
        preview(text)
    assert len(caught.value.problems) == 1 and caught.value.problems[0].rule == rule


@pytest.mark.parametrize("version", ["2.3.19", "2.5.0", "2.4", "", None, "2.4.1\n", 2.4])
def test_a_release_that_is_no_2_4(version: Any) -> None:
    with pytest.raises(NfsmailError, match="upgrade_preview_version"):
        preview(HEAD, version)


def test_files(tmp_path: Path) -> None:
    for path, word in (
        (tmp_path / "none", "No such file"),
        (tmp_path, "directory"),
        ("", "not set"),
        (None, "not set"),
    ):
        with pytest.raises(NfsmailError, match=word):
            upgrade.read(str(path) if path else path)
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(NfsmailError, match="UTF-8"):
        upgrade.read(str(tmp_path / "binary"))
    (tmp_path / "dos").write_bytes(b"protocols = imap\r\n")
    assert conf(upgrade.read(str(tmp_path / "dos")), "")["protocols"] == "imap"


# ---- any text ----

LINES = st.sampled_from(
    [line for name in NAMES for line in printed(name).split("\n")]
    + [
        "}",
        "x {",
        "plugin {",
        "passdb {",
        "namespace {",
        "a/b = c",
        "x",
        "service {",
        'mailbox "a',
        "protocol {",
        "= x",
        "a = \\",
    ]
)
WORD = st.text(st.characters(exclude_characters="\n", exclude_categories=("Cs",)), max_size=12)
NAMED = st.sampled_from(
    sorted(
        {path[-1] for name in NAMES for path, _ in leaves(from_doveconf(printed(name)))}
        | set(tables.GONE)
        | set(tables.FILES)
        | {
            "quota2",
            "quota_rule7",
            "sieve_after3",
            "fts",
            "mail",
            "imapsieve_mailbox1_name",
            "imapsieve_mailbox1_before",
        }
    )
)
KINDS = st.sampled_from(
    ["plugin", "passdb", "userdb", "namespace x", "namespace", "protocol imap", "service auth", "service director", "mailbox a",
     "inet_listener", "unix_listener x", "local 192.0.2.1", 'local_name "a b"', "dict", "metric m", "odd"]
)  # fmt: skip
VALUES = st.one_of(
    WORD,
    st.sampled_from(["%u", "%Hu", "yes", "no", "0", "maildir:~/m", "*:storage=1G", "a=b c=%d", "sql", "pam", "static", "director",
                     "# hidden, use -P to show it", "<x", "+a -b", "count:x", "file:/x;a", "storage=9%% x y", "x\\"]),
)  # fmt: skip


def check(text: str) -> None:
    """Either our own error, or a whole translation."""
    try:
        result = preview(text)
    except NfsmailError as error:
        assert error.problems
        return
    from_doveconf(result["conf"])
    assert unaccounted(text, result) == []


@given(st.text(max_size=200))
def test_any_text(text: str) -> None:
    check(text)
    check(HEAD + text)


@given(st.lists(LINES, max_size=25))
def test_lines_of_configurations_in_any_order(lines: list[str]) -> None:
    check(HEAD + "\n".join(lines))


@st.composite
def section(draw: st.DrawFn, depth: int = 0) -> str:
    lines = [f"{name} = {draw(VALUES)}" for name in draw(st.lists(NAMED, max_size=4, unique=True))]
    if depth < 3:
        for kind in draw(st.lists(KINDS, max_size=2)):
            lines += [f"{kind} {{", draw(section(depth + 1)), "}"]
    return "\n".join(lines)


@given(section())
def test_any_values_in_any_sections(text: str) -> None:
    check("# 2.3.19.1\nlisten = *\n" + text)
