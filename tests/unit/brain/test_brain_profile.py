# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The profile: what is read, what is refused and how that is told."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.errors import NfsmailError
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.profile import (
    KEY_BY_NAME,
    KEYS,
    Profile,
    as_list,
    as_mapping,
    parse_profile,
    series_of,
    version_key,
)
from brain_samples import JSON, refusal
from hypothesis import given
from hypothesis import strategies as st

NAMES = (
    "topology, mailbox_format, index_location, nfs_version, lockd, delivery, dovecot_version, cache_flush"  # in order
)


def test_an_empty_profile_is_the_documented_defaults() -> None:
    profile = parse_profile({})
    for key in KEYS:
        if key.name != "cache_flush":
            assert getattr(profile, key.name) == key.default
    assert profile.cache_flush is False


def test_keys_and_fields_are_the_same_names_in_the_same_order() -> None:
    assert ", ".join(key.name for key in KEYS) == NAMES
    assert list(as_mapping(Profile())) == [key.name for key in KEYS]
    assert parse_profile(as_mapping(Profile())) == Profile()


def test_none_means_not_given() -> None:
    assert parse_profile(dict.fromkeys(KEY_BY_NAME)) == Profile()


def test_a_read_profile_is_taken_as_it_is() -> None:
    profile = Profile(topology="random")
    assert parse_profile(profile) is profile


@pytest.mark.parametrize(
    ("topology", "given_flush", "flush"),
    [
        ("single", None, False),
        ("per_user", None, False),
        ("random", None, True),
        ("random", False, False),
        ("single", True, True),
    ],
)
def test_cache_flush_follows_the_topology(topology: str, given_flush: bool | None, flush: bool) -> None:
    assert parse_profile({"topology": topology, "cache_flush": given_flush}).cache_flush is flush


@pytest.mark.parametrize(
    ("key", "given_value", "value"),
    [
        ("nfs_version", 4, "4.2"),
        ("nfs_version", "4", "4.2"),
        ("nfs_version", 4.0, "4.0"),
        ("nfs_version", 4.1, "4.1"),
        ("nfs_version", "4.1", "4.1"),
        ("nfs_version", 3, "3"),
        ("nfs_version", 3.0, "3"),
        ("nfs_version", " 3 ", "3"),
        ("nfs_version", 2, "2"),
        ("topology", "PER_USER", "per_user"),
        ("mailbox_format", "Maildir", "maildir"),
        ("lockd", True, True),
        ("lockd", "yes", True),
        ("lockd", "On", True),
        ("lockd", "TRUE", True),
        ("lockd", 1, True),
        ("lockd", "no", False),
        ("lockd", "off", False),
        ("lockd", "False", False),
        ("lockd", 0, False),
        ("cache_flush", "y", True),
        ("dovecot_version", 2.4, "2.4"),
        ("dovecot_version", " 2.3.19 ", "2.3.19"),
        ("dovecot_version", "2.4.1-4", "2.4.1-4"),
        ("dovecot_version", "2.3.19.1 (9b53102964)", "2.3.19.1 (9b53102964)"),
    ],
)
def test_what_a_value_plainly_means(key: str, given_value: Any, value: Any) -> None:
    read = getattr(parse_profile({key: given_value}), key)
    assert read == value
    assert type(read) is type(value)


CHOICES = [
    ("topology", "ring", "did you mean"),
    ("topology", "per-user", "did you mean 'per_user'?"),
    ("topology", "", "choose one of single, random, per_user"),
    ("topology", True, "choose one of"),
    ("topology", [], "choose one of"),
    ("topology", ["single"], "choose one of"),
    ("topology", {"single": {"of": ["one"]}}, "choose one of"),
    ("mailbox_format", "maildirs", "did you mean 'maildir'?"),
    ("mailbox_format", "mbx", "did you mean 'mbox'?"),
    ("index_location", "disk", "did you mean"),
    ("index_location", 1, "did you mean"),
    ("nfs_version", "4.3", "did you mean"),
    ("nfs_version", 4.15, "did you mean"),
    ("nfs_version", 5, "did you mean"),
    ("nfs_version", True, "choose one of 2, 3, 4.0, 4.1, 4.2"),
    ("nfs_version", "vers=3", "did you mean '3'?"),
    ("delivery", "ltmp", "did you mean 'lmtp'?"),
]


@pytest.mark.parametrize(("key", "value", "fix"), CHOICES)
def test_a_wrong_choice(key: str, value: Any, fix: str) -> None:
    (problem,) = refusal(parse_profile, {key: value})
    assert (problem.variable, problem.value) == (key, value)
    assert problem.rule == f"one of {', '.join(KEY_BY_NAME[key].choices)}"
    assert fix in problem.fix


@pytest.mark.parametrize("key", ["lockd", "cache_flush"])
@pytest.mark.parametrize("value", ["", "maybe", "2", 2, -1, 1.0, 0.0, [], [True], {}, {"yes": 1}, "nope", "truee"])
def test_a_wrong_boolean(key: str, value: Any) -> None:
    (problem,) = refusal(parse_profile, {key: value})
    assert (problem.variable, problem.rule, problem.fix) == (key, "a boolean", "write true or false")


@pytest.mark.parametrize(
    "version",
    ["2.5.0", "3.0", "2.2.36", "2", 2, 3, "", "latest", "v2.3.19", "2.30.1", "2.3x", True, [], ["2.3.19"], {}],
)
def test_an_unknown_dovecot(version: Any) -> None:
    (problem,) = refusal(parse_profile, {"dovecot_version": version})
    assert problem.variable == "dovecot_version"
    assert problem.rule == "only Dovecot 2.3 and 2.4 are known"
    assert problem.fix == "give a release such as 2.3.19 or 2.4.1"


@pytest.mark.parametrize(
    ("name", "guess"),
    [
        ("topologie", "topology"),
        ("Topology", "topology"),
        ("mailbox", "mailbox_format"),
        ("nfs_vers", "nfs_version"),
        ("lock", "lockd"),
        ("flush_cache", "cache_flush"),
        ("dovecot", "dovecot_version"),
    ],
)
def test_an_unknown_key_suggests_the_nearest(name: str, guess: str) -> None:
    (problem,) = refusal(parse_profile, {name: None})
    assert problem.variable == name
    assert problem.rule == f"unknown profile key; known: {NAMES}"
    assert problem.fix == f"did you mean {guess!r}?"


def test_keys_that_are_no_text() -> None:
    assert [problem.variable for problem in refusal(parse_profile, {1: "x", None: "y", ("a",): "z"})] == [
        "1",
        "None",
        "('a',)",
    ]


def test_all_problems_are_in_one_error() -> None:
    wrong = {
        "topolgy": "single",
        "topology": "ring",
        "mailbox_format": ["maildir"],
        "index_location": {},
        "nfs_version": "9",
        "lockd": "perhaps",
        "delivery": 0,
        "dovecot_version": "2.2.36",
        "cache_flush": 7,
    }
    problems = refusal(parse_profile, wrong)
    assert sorted(problem.variable for problem in problems) == sorted(wrong)


@pytest.mark.parametrize("data", [None, "single", [], [("topology", "single")], 3, True])
def test_a_profile_is_a_mapping(data: Any) -> None:
    (problem,) = refusal(parse_profile, data)
    assert (problem.variable, problem.rule) == ("profile", "a profile is a mapping of keys to values")
    assert problem.fix == f"keys: {NAMES}"


@given(st.dictionaries(st.sampled_from(sorted(KEY_BY_NAME)) | st.text(max_size=8), JSON, max_size=6) | JSON)
def test_any_mapping_is_read_or_refused(data: Any) -> None:
    try:
        profile = parse_profile(data)
    except NfsmailError as error:
        assert str(error).startswith((f"{len(error.problems)} problem", "1 problem"))
        return
    for key in KEYS:
        value = getattr(profile, key.name)
        if key.choices:
            assert value in key.choices
        elif key.name == "dovecot_version":
            assert profile.series in ("2.3", "2.4")
        else:
            assert value is True or value is False
    assert parse_profile(as_mapping(profile)) == profile


@pytest.mark.parametrize(
    ("version", "series"),
    [("2.3.0", "2.3"), ("2.3", "2.3"), ("2.4.1", "2.4"), ("2.4.1+dfsg1-6", "2.4"), ("2.3.21.1", "2.3")],
)
def test_series(version: str, series: str) -> None:
    assert series_of(version) == series


@pytest.mark.parametrize(
    ("version", "key"),
    [("2.3.19", (2, 3, 19)), ("2.4.1-4", (2, 4, 1)), ("2.4", (2, 4)), ("2.3.19.1 (9b53)", (2, 3, 19)), ("", ())],
)
def test_version_numbers(version: str, key: tuple[int, ...]) -> None:
    assert version_key(version) == key


@pytest.mark.parametrize(
    ("version", "lockd", "needs", "locks"),
    [
        ("2", True, True, True),
        ("3", True, True, True),
        ("3", False, True, False),
        ("4.0", False, False, True),
        ("4.2", True, False, True),
    ],
)
def test_locks_over_nfs(version: str, lockd: bool, needs: bool, locks: bool) -> None:
    profile = parse_profile({"nfs_version": version, "lockd": lockd})
    assert (profile.needs_lockd, profile.kernel_locks) == (needs, locks)


@pytest.mark.parametrize(
    ("topology", "given_flush", "flush"),
    [("single", True, False), ("per_user", True, False), ("random", True, True), ("random", False, False)],
)
def test_caches_are_flushed_in_random_only(topology: str, given_flush: bool, flush: bool) -> None:
    assert parse_profile({"topology": topology, "cache_flush": given_flush}).flush is flush


@pytest.mark.parametrize(
    ("value", "items"),
    [
        (None, []),
        ("", []),
        ([], []),
        ("a", ["a"]),
        ("a, b,,c ", ["a", "b", "c"]),
        (["a", 4.2, ""], ["a", "4.2"]),
        (("x",), ["x"]),
        (5, ["5"]),
    ],
)
def test_one_text_stands_for_a_list(value: Any, items: list[str]) -> None:
    assert as_list(value) == items
