# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Search with an index of words, and shared mailboxes: what is written, and what is refused in which cluster."""

from __future__ import annotations

import re
from typing import Any

import pytest
from ansible_collections.nfsmail.cluster.plugins.plugin_utils import features
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.dialect import flat, from_doveconf
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.dovecot_conf import backend_conf
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.inventory import inventory_notes, inventory_problems
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.matrix import plan_findings, written_findings
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.profile import as_mapping
from brain_samples import SECRET, VERSIONS, every_profile
from plans import backend


def conf(version: str, told: dict[str, Any], **changes: Any) -> dict[str, str]:
    return flat(from_doveconf(backend_conf(backend(version, cluster=told, **changes))))


# ---- searching ----

PLACES = {
    "nfsmail_store_path": "/srv/mail",
    "nfsmail_mail_home": "/srv/mail/{domain}/{name}",
    "nfsmail_index_path": "/var/lib/nfsmail/index/{user}",
    "nfsmail_protocols": ["imap", "lmtp"],
}
SEARCH = {**PLACES, "nfsmail_fts": True, "nfsmail_fts_languages": ["de", "en"]}
SHARING = {**PLACES, "nfsmail_acl": "yes"}


def of_search(version: str, **profile: Any) -> dict[str, str]:
    found = conf(version, SEARCH, profile=profile)
    return {name: text for name, text in found.items() if re.search(r"\bfts|xapian|language|indexer", name + text)}


def test_search_of_2_3() -> None:
    assert of_search("2.3.19", topology="single") == {
        "mail_plugins": "fts fts_xapian",
        "plugin/fts": "xapian",
        "plugin/fts_xapian": "partial=3 full=20",
        "plugin/fts_autoindex": "yes",
        "plugin/fts_autoindex_exclude": "\\Junk",
        "plugin/fts_autoindex_exclude2": "\\Trash",
        "service indexer-worker/vsz_limit": "2G",
    }


def test_search_of_2_4() -> None:
    assert of_search("2.4.1", topology="per_user") == {
        "mail_plugins/fts": "yes",
        "mail_plugins/fts_flatcurve": "yes",
        # On NFS alone.
        "fts flatcurve/optimize_limit": "0",
        "fts_autoindex": "yes",
        "language_filters": "normalizer-icu snowball",
        "language_tokenizers": "generic email-address",
        "language de/default": "yes",
        "namespace inbox/mailbox Junk/fts_autoindex": "no",
        "namespace inbox/mailbox Trash/fts_autoindex": "no",
    }
    text = backend_conf(backend("2.4.1", {"index_location": "local"}, cluster=SEARCH))
    assert "\nfts flatcurve {\n}\n" in text and "\nlanguage en {\n}\n" in text
    # One section for all that is said of the inbox.
    assert text.count("namespace inbox {") == text.count("mailbox Junk {") == 1


@pytest.mark.parametrize(("version", "setting"), [("2.3.19", "plugin/fts_autoindex"), ("2.4.1", "fts_autoindex")])
def test_mail_is_indexed_where_it_belongs(version: str, setting: str) -> None:
    """What delivers on another machine would open the mailbox there to index it."""
    for topology, delivery, word in (
        ("per_user", "lda", "no"),
        ("per_user", "mta", "no"),
        ("per_user", "lmtp", "yes"),
        ("single", "lda", "yes"),
    ):
        found = of_search(version, topology=topology, delivery=delivery)
        assert found[setting] == word
        assert ("namespace inbox/mailbox Junk/fts_autoindex" in found) == (version == "2.4.1" and word == "yes")


def test_packages_follow_from_the_release_where_they_differ() -> None:
    for version, package in (("2.3.13", "dovecot-fts-xapian"), ("2.4.1", "dovecot-flatcurve")):
        found = features.packages(["imap"], SEARCH, version)
        assert found == ["dovecot-core", "dovecot-imapd", package]
    assert features.packages(["imap"], SEARCH) == ["dovecot-core", "dovecot-imapd"]
    assert features.packages(["imap"], {"nfsmail_fts": "no"}, "2.4.1") == ["dovecot-core", "dovecot-imapd"]


# ---- sharing ----


def shared(version: str, **profile: Any) -> dict[str, str]:
    found = conf(version, SHARING, profile={"topology": "single", **profile})
    return {name: text for name, text in found.items() if re.search(r"acl|namespace shared|separator", name + text)}


def test_sharing_of_2_3() -> None:
    assert shared("2.3.19") == {
        "mail_plugins": "acl",
        "protocol imap/mail_plugins": "$mail_plugins imap_acl",
        "plugin/acl": "vfile",
        "plugin/acl_shared_dict": "file:/srv/mail/.nfsmail/shared-mailboxes",
        "namespace inbox/separator": "/",
        "namespace shared/type": "shared",
        "namespace shared/prefix": "shared/%%u/",
        "namespace shared/separator": "/",
        "namespace shared/list": "children",
        "namespace shared/subscriptions": "no",
        "namespace shared/location": "maildir:/srv/mail/%%Ld/%%Ln/Maildir:INDEXPVT=~/shared-seen/%%u",
    }
    location = shared("2.3.19", mailbox_format="mbox", index_location="local")["namespace shared/location"]
    assert location == (
        "mbox:/srv/mail/%%Ld/%%Ln/mail:INBOX=/srv/mail/%%Ld/%%Ln/inbox"
        ":INDEX=/var/lib/nfsmail/index/%%Lu:INDEXPVT=~/shared-seen/%%u"
    )


def test_sharing_of_2_4() -> None:
    home = "/srv/mail/%{owner_user | domain | lower}/%{owner_user | username | lower}"
    assert shared("2.4.1", index_location="local") == {
        "mail_plugins/acl": "yes",
        "protocol imap/mail_plugins/imap_acl": "yes",
        "acl_driver": "vfile",
        "acl_sharing_map/dict file/path": "/srv/mail/.nfsmail/shared-mailboxes",
        "namespace inbox/separator": "/",
        "namespace shared/type": "shared",
        "namespace shared/prefix": "shared/$user/",
        "namespace shared/separator": "/",
        "namespace shared/list": "children",
        "namespace shared/subscriptions": "no",
        "namespace shared/mail_driver": "maildir",
        "namespace shared/mail_path": f"{home}/Maildir",
        "namespace shared/mail_index_private_path": "~/shared-seen/%{owner_user}",
        "namespace shared/mail_index_path": "/var/lib/nfsmail/index/%{owner_user | lower}",
    }


# ---- what is refused in a cluster ----

VARIABLES: dict[str, Any] = {
    **PLACES,
    "nfsmail_topology": "per_user",
    "nfsmail_users_file": "/etc/dovecot/nfsmail-users",
    "nfsmail_nfs_server": "192.0.2.1",
    "nfsmail_export_path": "/srv/mail",
    "nfsmail_proxy_password": SECRET,
    "nfsmail_fts_languages": ["en"],
}
MEMBERS = {
    group: [{"name": f"{name}{number}", "address": f"192.0.2.{tens}{number}", "state": "up"} for number in (1, 2)]
    for group, name, tens in (("mail_backends", "mail", 1), ("mail_proxies", "proxy", 2))
}


def problems(releases: dict[str, str] | None = None, **told: Any) -> list[str]:
    """What is said of features in a cluster of two backends; ``releases``: theirs, as far as they are known."""
    variables = {**VARIABLES, **told}
    values = {host: {"dovecot_version": version} for host, version in (releases or {}).items()}
    return [
        f"{one.variable}: {one.value}: {one.rule}. {one.fix}. {one.source}"
        for one in inventory_problems(variables, MEMBERS, values=values)
    ]


def test_sharing_is_refused_where_two_backends_would_open_one_mailbox() -> None:
    for releases in ({}, {"mail1": "2.3.19"}, {"mail1": "2.4.1", "mail2": "2.4.1"}):
        (problem,) = problems(releases, nfsmail_acl=True)
        assert problem == (
            "nfsmail_acl: namespace shared/type=shared: NFS423: A shared mailbox is opened on the backend of the user who looks, "
            "while its owner's backend has it open too.. share mailboxes with topology single only; Dovecot 2.3 can share through "
            "imapc by way of the proxy, in extra settings. Dovecot documentation, shared mailboxes, and NFS page"
        )


def test_search_is_refused_where_the_indexer_is_not_seen() -> None:
    # Of machines that nobody has asked yet there is nothing to say.
    assert problems(nfsmail_fts=True) == []
    assert problems({"mail1": "2.4.1", "mail2": "2.4.1"}, nfsmail_fts=True) == []
    (problem,) = problems({"mail1": "2.3.19", "mail2": "2.3.19"}, nfsmail_fts=True)
    assert problem.startswith("nfsmail_fts: mail_plugins=fts fts_xapian: NFS461: The indexer of 2.3 has mailboxes open")
    (problem,) = problems({"mail1": "2.4.1", "mail2": "2.3.19"}, nfsmail_fts=True)
    assert problem.startswith("nfsmail_fts: mail_plugins=fts fts_xapian on mail2, with Dovecot 2.3.19: NFS461: ")
    assert "search without an index until all backends have Dovecot 2.4" in problem


def test_search_is_refused_where_it_crashes() -> None:
    (problem,) = problems({"mail1": "2.4.1"}, nfsmail_fts=True, nfsmail_nfs_version="3", nfsmail_lockd=False)
    assert problem.startswith(
        "nfsmail_fts: mail_plugins/fts_flatcurve=yes, lock_method=dotlock on mail1, with Dovecot 2.4"
    )
    assert "NFS462: Whatever writes or removes mail crashes" in problem and "run lockd, or use NFSv4" in problem


def test_search_is_refused_on_any_machine() -> None:
    random = {"nfsmail_topology": "random", "nfsmail_accept_unsupported_random": True}
    found = [problem for problem in problems(nfsmail_fts=True, **random) if problem.startswith("nfsmail_fts: ")]
    assert len(found) == 1 and "NFS460: Several machines write one user's index of words at once" in found[0]


@pytest.mark.parametrize("languages", [[], ["xx"], ["en", "EN"]])
def test_languages_that_nobody_knows(languages: list[str]) -> None:
    (problem,) = problems(nfsmail_fts=True, nfsmail_fts_languages=languages)
    assert problem.startswith(f"nfsmail_fts_languages: {languages}: one or more of da, de, en, ")
    assert problems(nfsmail_fts_languages=languages) == []


def test_what_to_know_of_a_search_index_on_local_disk() -> None:
    (row,) = [
        row
        for row in inventory_notes({**VARIABLES, "nfsmail_fts": True, "nfsmail_index_location": "local"}, MEMBERS)
        if row["message"].startswith("nfsmail_fts: ")
    ]
    assert (row["id"], row["level"]) == ("NFS465", "info")
    assert "when a user changes backend, the first search there reads all mail" in row["message"]


@pytest.mark.parametrize("version", VERSIONS)
def test_what_features_write_in_a_plan_without_a_problem_is_found_sound(version: str) -> None:
    told = {**SEARCH, **SHARING}
    seen = 0
    for profile in every_profile(dovecot_version=version, nfs_version="4.2", lockd=True):
        if profile.topology != "single" or any(row["level"] == "error" for row in plan_findings(profile)):
            continue
        text = backend_conf(backend(version, dict(as_mapping(profile)), proxies=[], cluster=told))
        found = [row["id"] for row in written_findings(from_doveconf(text), profile, "backend", "/srv/mail")]
        assert found == (["NFS466"] if (profile.mailbox_format, profile.index_location) == ("mbox", "local") else [])
        seen += 1
    assert seen > 20
