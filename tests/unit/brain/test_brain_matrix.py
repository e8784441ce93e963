# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The settings matrix over the whole domain of profiles, against statements made here a second time."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.catalogue import defaults
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.matrix import (
    LEVELS,
    applies,
    explain,
    in_range,
    mount_options,
    needs_lockd,
    plan_findings,
    settings,
)
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.profile import (
    DERIVED,
    KEY_BY_NAME,
    Profile,
    parse_profile,
)
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.rules import RULES, Rule
from brain_samples import DOMAIN, VERSIONS, every_profile

FINDINGS = {
    "NFS201": ("warning", "nfs_version"),
    "NFS202": ("error", "lockd"),
    "NFS203": ("warning", "lockd"),
    "NFS204": ("error", "lockd"),
    "NFS205": ("error", "mailbox_format"),
    "NFS206": ("error", "index_location"),
    "NFS207": ("warning", "index_location"),
    "NFS208": ("warning", "topology"),
    "NFS209": ("error", "delivery"),
    "NFS210": ("error", "delivery"),
    "NFS211": ("warning", "delivery"),
    "NFS212": ("info", "index_location"),
    "NFS213": ("warning", "dovecot_version"),
    "NFS214": ("warning", "dovecot_version"),
    "NFS215": ("warning", "cache_flush"),
    "NFS216": ("warning", "delivery"),
    "NFS217": ("warning", "delivery"),
    "NFS218": ("info", "delivery"),
    "NFS219": ("warning", "mailbox_format"),
    "NFS220": ("info", "topology"),
    "NFS221": ("info", "mailbox_format"),
    "NFS222": ("warning", "dovecot_version"),
    "NFS223": ("warning", "delivery"),
    "NFS224": ("warning", "delivery"),
    "NFS225": ("info", "delivery"),
    "NFS226": ("info", "mailbox_format"),
}
ALL = [(version, profile) for version in VERSIONS for profile in every_profile(dovecot_version=version)]
EFFECT_RANGES = {"set": "NFS0", "delivery": "NFS0", "proxy": "NFS0", "mount": "NFS1", "kernel": "NFS1"}


def shown(profile: Profile) -> str:
    return ", ".join(f"{name}={getattr(profile, name)}" for name in (*DOMAIN, "dovecot_version"))


# ---- the rules as data ----


def test_ids_are_unique_and_well_formed() -> None:
    assert [id for id, count in Counter(rule.id for rule in RULES).items() if count > 1] == []
    assert [rule.id for rule in RULES if not re.fullmatch(r"NFS\d{3}", rule.id)] == []
    for rule in RULES:
        assert rule.id.startswith(EFFECT_RANGES.get(rule.effect, "NFS4" if rule.found else "NFS2")), rule.id


def test_the_ids_of_findings_are_stable() -> None:
    assert {
        rule.id: (rule.effect, rule.target) for rule in RULES if rule.effect in LEVELS and not rule.found
    } == FINDINGS


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_a_rule_is_whole(rule: Rule) -> None:
    assert rule.text.endswith(".") and rule.source
    for key, values in rule.when.items():
        legal = (True, False) if key in DERIVED else KEY_BY_NAME[key].choices or (True, False)
        assert values and set(values) <= set(legal), key
        assert len(set(values)) == len(values)
    if rule.effect in LEVELS:
        assert rule.fix and not rule.value
        assert bool(rule.found) == bool(rule.on) and (rule.target in KEY_BY_NAME) != bool(rule.found)
    else:
        assert rule.value and not rule.fix and not rule.found
    if rule.effect == "set":
        for series in ("2.3", "2.4"):
            assert rule.target in defaults(series)
    if rule.effect == "mount":
        assert rule.target == rule.value.partition("=")[0]
    for part in filter(None, rule.versions.split(",")):
        assert re.fullmatch(r"(>=|<=|<|>)2\.\d+\.\d+", part), part


def test_every_rule_can_apply() -> None:
    left = {rule.id: rule for rule in RULES}
    for version in (*VERSIONS, "2.3.0", "2.4.0", "2.4.5"):
        for profile in every_profile(dovecot_version=version):
            for rule in list(left.values()):
                if applies(rule, profile):
                    del left[rule.id]
    assert sorted(left) == []


# ---- every profile ----


def test_no_target_gets_two_values() -> None:
    pairs = [(rule.effect, rule.target, rule) for rule in RULES if rule.effect in ("set", "mount", "kernel")]
    for _version, profile in ALL:
        seen: dict[tuple[str, str], Rule] = {}
        for effect, target, rule in pairs:
            if applies(rule, profile):
                other = seen.setdefault((effect, target), rule)
                assert other is rule, f"{other.id} and {rule.id} both set {target} for {shown(profile)}"


def expected_settings(profile: Profile) -> dict[str, str]:
    """The matrix once more, as plain statements."""
    flush = profile.topology == "random" and profile.cache_flush
    by_lock_file = profile.nfs_version in ("2", "3") and not profile.lockd
    wanted = {
        "mmap_disable": "yes",
        "mail_fsync": "always",
        "dotlock_use_excl": "no" if profile.nfs_version == "2" else "yes",
        "mail_nfs_storage": "yes" if flush else "no",
        "mail_nfs_index": "yes" if flush and profile.index_location == "nfs" else "no",
        "lock_method": "dotlock" if by_lock_file else "fcntl",
    }
    if profile.mailbox_format == "mbox":
        wanted["mbox_read_locks"] = "dotlock" if by_lock_file else "fcntl"
        wanted["mbox_write_locks"] = "dotlock" if by_lock_file else "fcntl dotlock"
    return wanted


def test_settings_of_every_profile() -> None:
    for _version, profile in ALL:
        assert settings(profile) == expected_settings(profile), shown(profile)


def test_dovecot_would_accept_the_cache_flush() -> None:
    # Hard checks of 2.3 and 2.4: mail_nfs_index=yes requires both.
    for _version, profile in ALL:
        chosen = settings(profile)
        if chosen["mail_nfs_index"] == "yes":
            assert profile.topology == "random"
            assert (chosen["mmap_disable"], chosen["mail_fsync"]) == ("yes", "always")


def expected_options(profile: Profile) -> list[str]:
    old = profile.nfs_version in ("2", "3")
    options = [f"vers={profile.nfs_version}", "proto=tcp", "hard", "nosuid", "nodev", "noexec", "noatime"]
    options += ["nordirplus"] if old else []
    options += ["actimeo=0" if profile.topology == "random" else "actimeo=60"]
    options += ["lookupcache=positive"] if profile.topology == "per_user" else []
    options += ["nolock"] if old and not profile.lockd else []
    return [*options, "_netdev", "nofail", "bg"]


def test_mount_options_of_every_profile() -> None:
    for _version, profile in ALL:
        assert mount_options(profile) == expected_options(profile), shown(profile)


def expected_errors(profile: Profile) -> set[str]:
    dbox = profile.mailbox_format in ("sdbox", "mdbox")
    no_locks = profile.nfs_version in ("2", "3") and not profile.lockd
    statements = {
        "NFS202": profile.mailbox_format == "mdbox" and no_locks,
        "NFS204": profile.topology == "random" and no_locks,
        "NFS205": profile.topology == "random" and dbox,
        "NFS206": profile.topology in ("random", "per_user") and dbox and profile.index_location == "local",
        "NFS209": dbox and profile.delivery == "mta",
        "NFS210": profile.topology == "per_user" and dbox and profile.delivery == "lda",
    }
    return {id for id, holds in statements.items() if holds}


def test_findings_of_every_profile() -> None:
    order = {level: position for position, level in enumerate(LEVELS)}
    for _version, profile in ALL:
        found = plan_findings(profile)
        assert {row["id"] for row in found if row["level"] == "error"} == expected_errors(profile), shown(profile)
        levels = [order[row["level"]] for row in found]
        assert levels == sorted(levels)
        for row in found:
            assert list(row) == ["id", "level", "message", "fix", "source"]
            assert all(row.values())
            assert (row["level"], row["message"].split("=")[0]) == FINDINGS[row["id"]]


def test_explain_is_in_the_order_of_the_settings() -> None:
    for _version, profile in ALL[::7]:
        rows = explain(profile)
        assert [(row["setting"], row["value"]) for row in rows] == list(settings(profile).items())
        assert all(row["why"] and row["source"] for row in rows)
        assert all(list(row) == ["setting", "value", "why", "source", "since"] for row in rows)
        assert all(row["since"] == "2.3.0" for row in rows)


# ---- the advice of 2012, setting by setting ----

SINGLE_OR_DIRECTOR = {
    "mmap_disable": "yes",
    "mail_fsync": "always",
    "mail_nfs_storage": "no",
    "mail_nfs_index": "no",
}
MULTI_SERVER = {**SINGLE_OR_DIRECTOR, "mail_nfs_storage": "yes", "mail_nfs_index": "yes"}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("nfs", "excl"), [("2", "no"), ("3", "yes"), ("4.0", "yes"), ("4.2", "yes")])
@pytest.mark.parametrize(
    ("topology", "block"),
    [("single", SINGLE_OR_DIRECTOR), ("per_user", SINGLE_OR_DIRECTOR), ("random", MULTI_SERVER)],
)
def test_the_two_blocks_of_the_wiki(topology: str, block: Mapping[str, str], nfs: str, excl: str, version: str) -> None:
    chosen = settings({"topology": topology, "nfs_version": nfs, "dovecot_version": version})
    for name, value in block.items():
        assert chosen[name] == value, name
    # "only needed with NFSv2, NFSv3+ supports O_EXCL and it's faster"
    assert chosen["dotlock_use_excl"] == excl
    assert chosen["lock_method"] == "fcntl"


def test_without_lockd_the_wiki_wants_lock_files() -> None:
    assert settings({"nfs_version": "3", "lockd": False})["lock_method"] == "dotlock"
    assert "nolock" in mount_options({"nfs_version": "3", "lockd": False})


def test_cache_flush_outside_random_is_left_off_and_told() -> None:
    profile = {"topology": "per_user", "cache_flush": True}
    assert settings(profile)["mail_nfs_storage"] == "no"
    (row,) = [row for row in plan_findings(profile) if row["id"] == "NFS215"]
    assert row["message"].startswith("cache_flush=yes: ")


@pytest.mark.parametrize(
    ("profile", "found"),
    [
        ({}, []),
        ({"topology": "per_user", "nfs_version": "3"}, []),
        ({"topology": "random"}, ["NFS208", "NFS223", "NFS220"]),
        ({"topology": "random", "delivery": "mta"}, ["NFS208", "NFS220"]),
        ({"topology": "random", "mailbox_format": "mbox"}, ["NFS208", "NFS219", "NFS220"]),
        ({"topology": "random", "mailbox_format": "mdbox"}, ["NFS205", "NFS208", "NFS220", "NFS221"]),
        (
            {"topology": "random", "nfs_version": "3", "lockd": False, "delivery": "mta"},
            ["NFS204", "NFS203", "NFS208", "NFS220"],
        ),
        ({"mailbox_format": "mdbox", "nfs_version": "3", "lockd": False}, ["NFS202", "NFS221"]),
        ({"mailbox_format": "mdbox", "nfs_version": "4.0", "lockd": False}, ["NFS221"]),
        ({"mailbox_format": "sdbox", "index_location": "local"}, ["NFS207"]),
        ({"topology": "per_user", "mailbox_format": "sdbox", "index_location": "local"}, ["NFS206"]),
        ({"topology": "per_user", "mailbox_format": "maildir", "index_location": "local"}, ["NFS212"]),
        ({"topology": "per_user", "delivery": "lda"}, ["NFS211", "NFS225"]),
        ({"topology": "per_user", "delivery": "mta"}, ["NFS218"]),
        ({"topology": "per_user", "mailbox_format": "mbox", "delivery": "lda"}, ["NFS225"]),
        (
            {"topology": "per_user", "mailbox_format": "mbox", "delivery": "lda", "nfs_version": "3", "lockd": False},
            ["NFS203", "NFS224", "NFS225"],
        ),
        ({"mailbox_format": "mbox", "delivery": "mta"}, ["NFS216"]),
        ({"mailbox_format": "mbox", "delivery": "mta", "nfs_version": "3", "lockd": False}, ["NFS203", "NFS217"]),
        ({"mailbox_format": "mbox", "dovecot_version": "2.4.1"}, ["NFS226"]),
        ({"topology": "single", "delivery": "lda", "dovecot_version": "2.4.2"}, ["NFS222", "NFS225"]),
        ({"topology": "single", "delivery": "lda", "dovecot_version": "2.4.3"}, ["NFS225"]),
        ({"topology": "per_user", "mailbox_format": "mdbox", "delivery": "lda"}, ["NFS210", "NFS221", "NFS225"]),
        ({"mailbox_format": "sdbox", "delivery": "mta"}, ["NFS209"]),
        ({"nfs_version": "2"}, ["NFS201"]),
        ({"nfs_version": "3", "lockd": False, "dovecot_version": "2.3.0"}, ["NFS203", "NFS213"]),
        ({"nfs_version": "3", "lockd": False, "dovecot_version": "2.3.1"}, ["NFS203"]),
        ({"dovecot_version": "2.4.5"}, ["NFS214"]),
        ({"dovecot_version": "2.4.6"}, []),
    ],
)
def test_findings_by_example(profile: dict[str, Any], found: list[str]) -> None:
    assert [row["id"] for row in plan_findings(profile)] == found


@pytest.mark.parametrize(
    ("version", "versions", "inside"),
    [
        ("2.3.19", "", True),
        ("2.4.1", ">=2.4,<2.4.5", True),
        ("2.4.5", ">=2.4,<2.4.5", False),
        ("2.3.21", ">=2.4,<2.4.5", False),
        ("2.4", ">=2.4.0", True),
        ("2.4.0", ">=2.4", True),
        ("2.4", ">2.4.0", False),
        ("2.4.10", ">2.4.9", True),
        ("2.4.9", "<2.4.10", True),
        ("2.4.1-4", "<=2.4.1", True),
        ("2.4.1", "<=2.4.1", True),
        ("2.4.2", "<=2.4.1", False),
        ("2.3.19.1 (9b53102964)", ">=2.3.19,<2.3.20", True),
        ("2.3.0", ">=2.3.0,<2.3.1", True),
        ("2.3", ">=2.3.0,<2.3.1", True),
    ],
)
def test_in_range(version: str, versions: str, inside: bool) -> None:
    assert in_range(version, versions) is inside


def test_a_wrong_profile_is_refused_everywhere() -> None:
    for function in (settings, mount_options, explain, plan_findings):
        with pytest.raises(ValueError, match="did you mean"):
            function({"topolgy": "single"})


def test_the_answers_are_the_same_for_a_mapping_and_a_read_profile() -> None:
    data = {"topology": "random", "nfs_version": 3, "mailbox_format": "mbox"}
    for function in (settings, mount_options, explain, plan_findings):
        assert function(data) == function(parse_profile(data))


@pytest.mark.parametrize(
    ("profile", "needed"),
    [
        ({"nfs_version": 3}, True),
        ({"nfs_version": "2"}, True),
        ({"nfs_version": "3", "lockd": "no"}, False),
        ({"nfs_version": "4.2"}, False),
        ({"nfs_version": 4.1, "lockd": True}, False),
    ],
)
def test_lockd_is_needed_for_nfsv3_however_it_is_written(profile: dict[str, Any], needed: bool) -> None:
    assert needs_lockd(profile) is needed
