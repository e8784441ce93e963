# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Features: one right mail_plugins for each protocol, sections joined, packages, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.nfsmail.cluster.plugins.plugin_utils import features
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.balancer_conf import balancer_conf
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.dialect import Entry, flat, from_doveconf
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.distributions import distribution, package_names
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.dovecot_conf import (
    PLACES,
    backend_conf,
    dovecot_place,
    proxy_conf,
)
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.errors import NfsmailError
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.features import Feature, Plugin
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.profile import parse_profile
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.protocols import PROTOCOLS
from brain_samples import VERSIONS, refusal
from plans import backend, balancer, proxy

QUOTA = {"nfsmail_quota": "2G"}
# Two features that meet in every place: plugins of everybody, of a protocol, a section, 2.3's plugin section.
FIRST = Feature("first", "nfsmail_first", "The first.", lambda told: True, (Plugin("a"), Plugin("b", ("imap", "lda"))))
SECOND = Feature(
    "second",
    "nfsmail_second",
    "The second.",
    lambda told: True,
    (Plugin("c"), Plugin("a"), Plugin("d", ("imap", "pop3")), Plugin("old", series=("2.3",))),
    lambda told, profile: (Entry("protocol imap", (Entry("x", "1"),)), Entry("protocol pop3", (Entry("x", "2"),))),
)


def conf(version: str, told: dict[str, Any], **changes: Any) -> dict[str, str]:
    return flat(from_doveconf(backend_conf(backend(version, cluster=told, **changes))))


def both(version: str, delivery: str = "lmtp", **more: Any) -> dict[str, str]:
    profile = parse_profile({"dovecot_version": version, "delivery": delivery})
    tree = features.entries({}, profile, ["imap", "lmtp"], features=[FIRST, SECOND], **more)
    assert len({entry.name for entry in tree}) == len(tree)

    def flatten(entries: Any, path: str = "") -> dict[str, str]:
        found: dict[str, str] = {}
        for entry in entries:
            assert path + entry.name not in found
            if isinstance(entry.value, tuple):
                found.update(flatten(entry.value, f"{path}{entry.name}/"))
            else:
                found[path + entry.name] = entry.value
        return found

    return flatten(tree)


def test_plugins_of_several_features_are_one_setting() -> None:
    assert both("2.3.19") == {
        "mail_plugins": "a c old",
        "protocol imap/mail_plugins": "$mail_plugins b d",
        "protocol imap/x": "1",
    }
    assert both("2.4.1") == {
        "mail_plugins/a": "yes",
        "mail_plugins/c": "yes",
        "protocol imap/mail_plugins/b": "yes",
        "protocol imap/mail_plugins/d": "yes",
        "protocol imap/x": "1",
    }
    # dovecot-lda serves nothing: it is there where it delivers.
    assert both("2.3.19", "lda")["protocol lda/mail_plugins"] == "$mail_plugins b"
    assert both("2.3.19", more={"": ["e"], "protocol lmtp": ["f"]}) == {
        **both("2.3.19"),
        "mail_plugins": "a c old e",
        "protocol lmtp/mail_plugins": "$mail_plugins f",
    }


@pytest.mark.parametrize("version", VERSIONS)
def test_without_features_the_file_is_as_it_was(version: str) -> None:
    assert backend_conf(backend(version, cluster={"nfsmail_quota": ""})) == backend_conf(backend(version))
    assert "mail_plugins" not in backend_conf(backend(version))


def test_packages_follow_from_what_is_served() -> None:
    assert features.packages(["imap", "lmtp"], {}) == ["dovecot-core", "dovecot-imapd", "dovecot-lmtpd"]
    served = features.packages("imap,pop3,sieve", QUOTA)
    assert served == ["dovecot-core", "dovecot-imapd", "dovecot-pop3d", "dovecot-managesieved", "dovecot-sieve"]
    assert features.packages(["imap", "lmtp"], {"nfsmail_sieve": True})[-1] == "dovecot-sieve"
    assert features.packages(["imap", "submission"], {})[-1] == "dovecot-submissiond"
    # Each has a name on every system that we know.
    redhat = distribution({}, "rhel 10")
    assert package_names(features.packages(list(PROTOCOLS), QUOTA), redhat) == ["dovecot", "dovecot-pigeonhole"]


# ---- extra settings beside features ----


def test_an_operators_plugins_join_ours() -> None:
    old = {"mail_plugins": "zlib", "protocol imap": {"mail_plugins": "$mail_plugins notify", "imap_id_log": "*"}}
    found = conf("2.3.19", QUOTA, extra_settings=old)
    assert found["mail_plugins"] == "quota zlib"
    assert found["protocol imap/mail_plugins"] == "$mail_plugins imap_quota notify"
    assert found["protocol imap/imap_id_log"] == "*"
    # Also where nothing of ours is.
    elsewhere = conf("2.3.19", QUOTA, extra_settings={"protocol lda": {"mail_plugins": "$mail_plugins notify"}})
    assert elsewhere["protocol lda/mail_plugins"] == "$mail_plugins notify"
    text = backend_conf(backend("2.3.19", cluster=QUOTA, extra_settings=old))
    # 2.3 looks at what stands above.
    assert text.index("\nmail_plugins = quota zlib") < text.index("protocol imap {")
    for new in ({"mail_plugins": {"zlib": True}}, {"mail_plugins": "zlib"}):
        found = conf("2.4.1", QUOTA, extra_settings=new)
        assert {name for name in found if name.startswith("mail_plugins/")} == {
            "mail_plugins/quota",
            "mail_plugins/zlib",
        }


def test_a_section_that_would_lose_our_plugins_is_refused() -> None:
    extra = {"protocol lmtp": {"mail_plugins": "notify"}}
    (problem,) = refusal(backend_conf, backend("2.3.19", cluster=QUOTA, extra_settings=extra))
    assert problem.variable == "dovecot_extra_settings.protocol lmtp.mail_plugins"
    assert problem.fix == "write $mail_plugins notify"
    # Without features of ours it is the operator's business.
    assert conf("2.3.19", {}, extra_settings=extra)["protocol lmtp/mail_plugins"] == "notify"


@pytest.mark.parametrize(
    ("version", "extra"),
    [
        ("2.3.19", {"plugin": {"quota_rule": "*:storage=1T"}}),
        ("2.4.1", {'quota "User quota"': {"storage_size": "1T"}}),
        ("2.4.1", {"protocol lmtp": {"lmtp_rcpt_check_quota": "no"}}),
    ],
)
def test_what_a_feature_writes_nobody_else_does(version: str, extra: dict[str, Any]) -> None:
    (problem,) = refusal(backend_conf, backend(version, cluster=QUOTA, extra_settings=extra))
    assert problem.rule == "the matrix and the role's own variables decide this setting"
    conf(version, {}, extra_settings=extra)


def test_what_rules_say_of_an_operators_plugin_is_said_beside_features() -> None:
    extra = {"service quota-status": {"executable": "quota-status -p postfix"}}
    with pytest.raises(NfsmailError, match="NFS419"):
        backend_conf(backend("2.3.19", cluster=QUOTA, extra_settings=extra))


# ---- quota ----


def test_a_quota_of_2_3() -> None:
    found = conf("2.3.19", QUOTA)
    assert {name: text for name, text in found.items() if "quota" in name + text} == {
        "mail_plugins": "quota",
        "protocol imap/mail_plugins": "$mail_plugins imap_quota",
        "plugin/quota": "count:User quota",
        "plugin/quota_vsizes": "yes",
        "plugin/quota_rule": "*:storage=2G",
        "plugin/quota_grace": "10M",
        "protocol lmtp/lmtp_rcpt_check_quota": "yes",
    }


def test_a_quota_of_2_4() -> None:
    found = conf("2.4.1", QUOTA)
    assert {name: text for name, text in found.items() if "quota" in name + text} == {
        "mail_plugins/quota": "yes",
        "protocol imap/mail_plugins/imap_quota": "yes",
        'quota "User quota"/driver': "count",
        'quota "User quota"/storage_size': "2G",
        'quota "User quota"/storage_grace': "10M",
        "protocol lmtp/lmtp_rcpt_check_quota": "yes",
    }
    assert "protocol lmtp/lmtp_rcpt_check_quota" not in conf("2.4.1", QUOTA, protocols=["imap"])


# ---- Sieve ----


def test_the_roles_write_where_the_configuration_looks() -> None:
    """They ask the brain for the path, and have none of their own."""
    files = [path for path in (Path(__file__).parents[3] / "roles").glob("*/*/*") if path.suffix in (".yml", ".j2")]
    texts = [path.read_text(encoding="utf-8") for path in files]
    assert len(texts) > 50 and features.SIEVE_DIRECTORY == PLACES["sieve"] == dovecot_place("sieve")
    for name, path in PLACES.items():
        asked = [text for text in texts if f"'{name}' | nfsmail.cluster.dovecot_place" in text]
        assert len(asked) == 1 and not [text for text in texts if path in text]


SIEVE = {
    "nfsmail_sieve": True,
    "nfsmail_sieve_before": [{"name": "spam", "script": "keep;"}, {"name": "personal", "script": "keep;"}],
}


def test_sieve_of_2_3() -> None:
    found = conf("2.3.19", SIEVE | QUOTA)
    assert {name: text for name, text in found.items() if "sieve" in name + text} == {
        "protocol lmtp/mail_plugins": "$mail_plugins sieve",
        "plugin/sieve": "file:~/sieve;active=~/.dovecot.sieve",
        "plugin/sieve_before": "/etc/dovecot/nfsmail-sieve/spam.sieve",
        "plugin/sieve_before2": "/etc/dovecot/nfsmail-sieve/personal.sieve",
    }
    lda = conf("2.3.19", SIEVE, profile={"delivery": "lda"}, protocols=["imap"])
    assert lda["protocol lda/mail_plugins"] == "$mail_plugins sieve"
    assert "protocol lmtp/mail_plugins" not in lda


def test_sieve_of_2_4() -> None:
    found = conf("2.4.1", SIEVE)
    assert {name: text for name, text in found.items() if "sieve" in name + text} == {
        "protocol lmtp/mail_plugins/sieve": "yes",
        "sieve_script personal/driver": "file",
        "sieve_script personal/path": "~/sieve",
        "sieve_script personal/active_path": "~/.dovecot.sieve",
        "sieve_script before-spam/type": "before",
        "sieve_script before-spam/driver": "file",
        "sieve_script before-spam/path": "/etc/dovecot/nfsmail-sieve/spam.sieve",
        "sieve_script before-personal/type": "before",
        "sieve_script before-personal/driver": "file",
        "sieve_script before-personal/path": "/etc/dovecot/nfsmail-sieve/personal.sieve",
    }


def test_delivery_in_a_cluster_has_features_and_indexes_in_memory_in_one_section() -> None:
    found = conf("2.4.1", SIEVE | QUOTA, profile={"topology": "random"}, proxies=[], balancers=["192.0.2.31"])
    assert {name for name in found if name.startswith("protocol lmtp/")} == {
        "protocol lmtp/mail_index_path",
        "protocol lmtp/lmtp_rcpt_check_quota",
        "protocol lmtp/mail_plugins/sieve",
    }


@pytest.mark.parametrize("version", VERSIONS)
def test_managesieve_on_proxies_and_behind_balancers(version: str) -> None:
    text = proxy_conf(proxy(version, protocols=["imap", "sieve"], balancers=["192.0.2.31"]))
    found = flat(from_doveconf(text))
    assert found["protocols"] == "imap sieve"
    assert found["service managesieve-login/inet_listener sieve/haproxy"] == "yes"
    assert "service managesieve-login/inet_listener sieves/haproxy" not in found
    # doveadm kick of 2.4.1 needs it.
    kick = found.get("service managesieve-login/restart_request_count")
    assert kick == ("unlimited" if version.startswith("2.4") else None)
    assert "managesieve" not in proxy_conf(proxy(version, protocols=["imap"]))


def test_a_balancer_of_managesieve() -> None:
    text = balancer_conf(balancer(protocols=["imap", "sieve"]))
    assert "bind *:4190\n" in text and "bind *:0" not in text
    text = balancer_conf(balancer(protocols=["sieve"]))
    assert "default-server port 4190\n" in text and "tcp-check expect string '\"IMPLEMENTATION\"'" in text


# ---- submission ----


def submission(version: str, relay: dict[str, Any], **changes: Any) -> dict[str, str]:
    """What is written of submission; of the section, names without it."""
    changes = {"protocols": ["imap", "submission"], **changes}
    found = conf(version, {"nfsmail_submission_relay": relay}, **changes)
    return {name.removeprefix("protocol submission/"): text for name, text in found.items() if "submission" in name}


@pytest.mark.parametrize("version", VERSIONS)
def test_the_relay_in_dovecots_words(version: str) -> None:
    listener = "service submission-login/inet_listener submissions"
    opened = {f"{listener}/port": "465", f"{listener}/ssl": "yes"} if version.startswith("2.3") else {}
    smallest = {
        "submission_relay_host": "smtp.example.com",
        "submission_relay_port": "25",
        "submission_relay_ssl": "no",
        "submission_relay_trusted": "no",
    }
    assert submission(version, {"host": "smtp.example.com"}) == smallest | opened
    whole = {"host": "2001:db8::25", "port": 587, "tls": "starttls", "ca": "/etc/ca.pem", "xclient": "yes"}
    assert submission(version, whole) == {
        "submission_relay_host": "2001:db8::25",
        "submission_relay_port": "587",
        "submission_relay_ssl": "starttls",
        "submission_relay_trusted": "yes",
        "ssl_client_ca_file": "/etc/ca.pem",
        **opened,
    }
    # Where it is not served, its package may be missing, and with it the settings.
    assert submission(version, whole, protocols=["imap"]) == {}
    assert "submission" not in proxy_conf(proxy(version, protocols=["imap"]))


@pytest.mark.parametrize("version", VERSIONS)
def test_submission_on_proxies_and_behind_balancers(version: str) -> None:
    found = flat(from_doveconf(proxy_conf(proxy(version, protocols=["submission"], balancers=["192.0.2.31"]))))
    here = {name.rpartition("submission-login/")[2]: text for name, text in found.items() if "submission-login" in name}
    balanced = {"inet_listener submission/haproxy": "yes", "inet_listener submissions/haproxy": "yes"}
    # doveadm kick of 2.4.1 needs it.
    kicked = {"restart_request_count": "unlimited", "client_limit": "1000"}
    # By itself 2.3 does not listen there, and with haproxy alone not either.
    opened = {"inet_listener submissions/port": "465", "inet_listener submissions/ssl": "yes"}
    assert here == {**balanced, **(kicked if version.startswith("2.4") else opened)}


def test_an_operators_own_settings_of_submission_join_ours() -> None:
    extra = {"protocol submission": {"submission_max_mail_size": "50M"}}
    told, changes = {"nfsmail_submission_relay": {"host": "smtp"}}, {"protocols": ["submission"]}
    found = conf("2.3.19", told, extra_settings=extra, **changes)
    assert found["protocol submission/submission_max_mail_size"] == "50M"
    assert found["protocol submission/submission_relay_host"] == "smtp"
    # Submission has no plugins that an operator's could do without.
    plugins = {"mail_plugins": "zlib", "protocol imap": {"mail_plugins": "notify"}}
    found = conf("2.3.19", told, extra_settings=plugins, protocols=["imap", "submission"])
    assert (found["mail_plugins"], found["protocol imap/mail_plugins"]) == ("zlib", "notify")
    with pytest.raises(NfsmailError, match="the matrix and the role's own variables decide this setting"):
        conf("2.3.19", told, extra_settings={"protocol submission": {"submission_relay_host": "other"}}, **changes)


def test_a_balancer_of_submission() -> None:
    text = balancer_conf(balancer(protocols=["submission"]))
    assert "bind *:587\n" in text and "bind *:465\n" in text
    assert "default-server port 587\n" in text and "tcp-check expect string '220 '" in text
