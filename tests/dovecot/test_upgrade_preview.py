# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What Dovecot 2.3.19 prints, translated, is what 2.4.1 accepts, with the values that were meant; nothing gets lost."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from ansible_collections.nfsmail.cluster.plugins.plugin_utils import upgrade_tables as tables
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.dialect import from_doveconf
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.dovecot_conf import backend_conf, proxy_conf
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.shards import (
    override_lines,
    shard_lines,
    shard_map,
    shard_of,
)
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.upgrade import preview
from cluster import PASSWORD, Cluster
from conftest import Release, container
from mailflow.errors import MailflowError
from mailflow.imap import ImapSession
from mailflow.lmtp import LmtpClient
from plans import backend, proxy
from upgrade_cases import NAMES, TEXTS, printed
from upgrade_checks import leaves, unaccounted

Path = tuple[str, ...]
HEAD = "dovecot_config_version = 2.4.1\ndovecot_storage_version = 2.4.1\n"
ASK = ("doveconf", "-c", "FILE", "-nP")
# What a value stands in, where 2.3's own default would say nothing of it.
SAMPLES = {
    "auth_policy_hash_mech": "md5",
    "auth_policy_server_url": "http://x/\nauth_policy_hash_nonce = y",
    "imap_capability": "+XFOO",
    "imap_client_workarounds": "delay-newmail",
    "imap_id_send": "name *",
    "imapc_features": "search",
    "lmtp_client_workarounds": "whitespace-before-path",
    "log_core_filter": "event=x",
    "log_debug": "category=auth",
    "mail_attachment_detection_options": "add-flags",
    # There is none.
    "managesieve_client_workarounds": "",
    "pop3_client_workarounds": "outlook-no-nuls",
    "pop3c_features": "no-pipelining",
    "process_shutdown_filter": "event=x",
    "submission_client_workarounds": "whitespace-before-path",
    "login_trusted_networks": "192.0.2.0/24",
    "haproxy_trusted_networks": "192.0.2.0/24",
    "login_source_ips": "127.0.0.1",
    "dsync_features": "empty-header-workaround",
    "instance_name": "other",
    "auth_krb5_keytab": "/etc/dovecot/keytab",
    "mail_plugins": "acl",
    "mail_server_admin": "mailto:postmaster@example.com",
    "ssl_options": "no_ticket",
    "auth_proxy_self": "192.0.2.21",
    "mail_always_cache_fields": "flags",
    "recipient_delimiter": "-",
    "pop3_deleted_flag": "$Deleted",
    "doveadm_allowed_commands": "who",
    "auth_realms": "example.com",
    "imapc_sasl_mechanisms": "plain",
}


@pytest.fixture(scope="module")
def old() -> Iterator[Release]:
    with container("bookworm", "--network=none") as found:
        yield found


@pytest.fixture(scope="module")
def new() -> Iterator[Release]:
    with container("trixie", "--network=none") as found:
        yield found


# ---- whole configurations ----


def without_place(text: str) -> str:
    """And without what an installed Sieve says of itself below any configuration."""
    return re.sub(r"^(#|managesieve_(notify|sieve)_capability).*\n", "", text, flags=re.MULTILINE)


def test_the_stored_outputs_are_what_dovecot_2_3_prints(old: Release) -> None:
    assert without_place(old.run("doveconf", "-nP").stdout) == without_place(printed("debian"))
    for (name, _), answer in zip(TEXTS.items(), old.ask(list(TEXTS.values()), *ASK)):
        assert (answer.code, answer.err) == (0, ""), name
        assert without_place(answer.out) == without_place(printed(name)), name


def test_dovecot_2_4_accepts_the_translations_and_reads_what_was_meant(new: Release) -> None:
    confs = {name: preview(printed(name))["conf"] for name in NAMES}
    # doveconf -n leaves out some that are what they are anyway.
    (defaults,) = new.ask([HEAD], "doveconf", "-c", "FILE", "-d")
    by_default = set(spelt(from_doveconf(defaults.out)))
    for (name, conf), answer in zip(confs.items(), new.ask(list(confs.values()), *ASK)):
        assert (answer.code, answer.err) == (0, ""), (name, conf)
        read = by_default | set(spelt(from_doveconf(answer.out)))
        missing = [pair for pair in spelt(from_doveconf(conf)) if pair not in read]
        assert missing == [], name


def test_a_file_with_hidden_values_is_accepted_too(old: Release, new: Release) -> None:
    # As Debian's comes without -P: the key and Diffie-Hellman parameters are hidden.
    result = preview(old.run("doveconf", "-n").stdout)
    assert {row["setting"] for row in result["items"] if row["level"] == "error"} == {"ssl_key", "ssl_dh"}
    (answer,) = new.ask([result["conf"]], *ASK)
    assert (answer.code, answer.err) == (0, "")


@pytest.mark.parametrize("name", NAMES)
def test_nothing_of_a_configuration_vanishes(name: str) -> None:
    assert unaccounted(printed(name), preview(printed(name))) == []


def spelt(tree: dict[str, object]) -> Iterator[tuple[str, str]]:
    """Each setting by its whole name, however its first words are grouped: ssl_server { cert_file } is ssl_server_cert_file."""
    for path, value in leaves(tree):
        sections, name = path[:-1], path[-1]
        named = [section for section in sections if " " in section or section in ("fields", "mail_plugins")]
        group = "_".join(section for section in sections if section not in named)
        whole = f"{group}_{name}" if group else name
        text = (
            value.strip().strip('"').replace("\\\\", "\\").replace(",", "") if name != "deliver_log_format" else value
        )
        # 2.4 completes some names by the section's: warning, storage_size.
        for short in (r"^quota_(?=storage_size|message_count)", r"^passdb_|^userdb_|^imapc_|^ssl_client_|^passdb_pam_"):
            whole = re.sub(short, "", whole)
        yield "/".join([*(section.replace("quota_warning", "warning") for section in named), whole]), text


# ---- the tables ----


def test_every_setting_of_2_3_is_known_and_every_name_of_2_4_is_taken(old: Release, new: Release) -> None:
    """One configuration for each setting that 2.3.19 has; its translation is accepted."""
    (answer,) = old.ask([""], "doveconf", "-c", "FILE", "-d")
    settings = {name: value for name, value in from_doveconf(answer.out).items() if isinstance(value, str)}
    assert len(settings) > 250
    texts = {}
    for name, value in settings.items():
        value = SAMPLES[name] if name in SAMPLES else value or sample(name)
        result = preview(
            f"# 2.3.19.1\nprotocols = imap\n{name} = {value}\n" if name != "protocols" else "protocols = imap\n"
        )
        assert not any("not known here" in row["happens"] for row in result["items"]), (name, value, result["items"])
        texts[f"{name} = {value}"] = result["conf"]
    refused = {what: said.err for what, said in zip(texts, new.ask(list(texts.values()))) if said.code}
    assert refused == {}


def sample(name: str) -> str:
    """Some value for a setting that is empty by default."""
    if re.search(r"_(file|path|dir|cert|key|ca|dh|socket)\Z", name) and name.startswith("ssl"):
        return "</etc/dovecot/cert.pem"
    if re.search(r"_(path|dir|home|keytab|location|fs|chroot)\Z|dir\Z", name):
        return "/srv/x"
    return "x"


def test_the_same_names_are_names_of_2_4(new: Release) -> None:
    names = sorted(
        {
            *tables.PLUGIN_SETTINGS_SAME,
            *tables.PLUGIN_SETTINGS_RENAMED.values(),
            *tables.RENAMED.values(),
            *tables.FILES.values(),
            *(name for name, _ in tables.LOCATION_WORDS.values()),
        }
    )
    for name, answer in zip(names, new.ask([f"{HEAD}{name} = 1\n" for name in names])):
        assert "Unknown setting" not in answer.err, name


def test_the_changed_defaults_are_changed(old: Release, new: Release) -> None:
    (before,) = old.ask([""], "doveconf", "-c", "FILE", "-d")
    (after,) = new.ask([HEAD], "doveconf", "-c", "FILE", "-d")
    then, now = from_doveconf(before.out), from_doveconf(after.out)
    measured = [one for one in tables.DEFAULTS if one.source == tables.MEASURED and one.name in then]
    assert {one.name for one in measured} == {"mail_cache_fields", "mbox_write_locks", "lmtp_user_concurrency_limit"}
    for one in measured:
        assert then[one.name] == (one.write or one.old.split(",")[0]), one.name
        assert now[one.name] != then[one.name], one.name
    assert now["service lmtp"]["restart_request_count"] == "1"
    # Every default that differs, but for variables and spelling, is told of.
    known = {one.name for one in tables.DEFAULTS}
    spelling = {
        "listen",
        "imapc_max_line_length",
        "mbox_read_locks",
        "imap_id_send",
        "import_environment",
        "imapc_user",
        "managesieve_implementation_string",
        "managesieve_sieve_capability",
    }
    for name, value in then.items():
        if isinstance(value, str) and name in now and now[name] != value and "%" not in value:
            assert name in known | spelling, (name, value, now[name])


# ---- mail ----

USERS = [f"user{number:02d}@example.com" for number in range(1, 7)]
PINNED = {"user01@example.com": "mail1"}


def test_a_cluster_of_2_3_translated_carries_mail_on_2_4(old: Release) -> None:
    """The files that this collection writes for 2.3: the same users on the same backends, a wrong password is refused."""
    with Cluster({"proxy1": "2.4.1", "mail1": "2.4.1", "mail2": "2.4.1"}) as cluster:

        def start(name: str, conf: str) -> None:
            (answer,) = old.ask([conf], *ASK)
            assert answer.code == 0, answer.err
            cluster.start(name, preview(answer.out)["conf"])

        for entry in cluster.backends:
            start(entry["name"], backend_conf(backend("2.3.19", proxies=cluster.proxies)))
        cluster.write_users("proxy1", USERS)
        cluster.write_lines("proxy1", "/etc/dovecot/nfsmail-shards", shard_lines(cluster.backends))
        cluster.write_lines("proxy1", "/etc/dovecot/nfsmail-overrides", override_lines(PINNED, cluster.backends))
        start("proxy1", proxy_conf(proxy("2.3.19", protocols=["imap", "lmtp"])))
        cluster.takes_mail("proxy1", USERS[0])
        with LmtpClient(cluster.addresses["proxy1"], 24) as lmtp:
            replies = lmtp.deliver("a@lab.invalid", USERS, b"Subject: hello\r\n\r\nhello\r\n")
            assert all(reply.ok for reply in replies.values()), replies
            assert not lmtp.try_recipient("a@lab.invalid", "nobody@example.com").ok
        shards = shard_map(cluster.backends)
        assert cluster.files(len(USERS)) == {user: PINNED.get(user) or shards[shard_of(user)] for user in USERS}
        for user in USERS[:3]:
            with ImapSession(cluster.addresses["proxy1"], 143, user, PASSWORD) as session:
                assert len(session.uids()) == 1
        with pytest.raises(MailflowError, match="AUTHENTICATIONFAILED"):
            ImapSession(cluster.addresses["proxy1"], 143, USERS[0], "wrong")
