# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shards: the same number that Dovecot computes, and a map that moves no more users than it must."""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import Any

import pytest
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.errors import NfsmailError
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.shards import (
    SHARD_NAMES,
    Backend,
    lookup_key,
    override_lines,
    parse_backends,
    shard_lines,
    shard_map,
    shard_of,
)
from brain_samples import HUGE, JSON, refusal
from hypothesis import given, settings
from hypothesis import strategies as st

# What userdb static with home=/%2.256LNu of Dovecot 2.3.19.1 answered.
MEASURED = {
    "a": "a8",
    "joe@example.com": "31",
    "Joe@Example.COM": "31",
    "joe+lists@example.com": "e2",
    "É@x.org": "f6",
    "é@x.org": "15",
    "ÄÖ@Example.org": "db",
    "user01@example.com": "8b",
    "日本@例え.jp": "12",
    "İ@x": "9d",
    "x" * 200: "fb",
    "X" * 199 + "@": "71",
    "o'neil@example.com": "b4",
    "100%@x": "94",
}


def backends(*names: str, **changes: dict[str, Any]) -> list[dict[str, Any]]:
    """mail1, mail2 ... with addresses of their own; ``changes`` by name."""
    return [{"name": name, "address": f"192.0.2.{int(name[4:])}", **changes.get(name, {})} for name in names]


def moved(before: dict[str, str], after: dict[str, str]) -> set[str]:
    return {shard for shard in SHARD_NAMES if before[shard] != after[shard]}


# ---- the hash ----


@pytest.mark.parametrize(("user", "shard"), MEASURED.items(), ids=lambda text: text[:20])
def test_shard_as_measured(user: str, shard: str) -> None:
    assert shard_of(user) == shard


def algebra(user: str) -> str:
    """``int.from_bytes(md5(u)[:8], 'big') % N`` in hex; the letters A to Z in lower case."""
    small = bytes(byte + 32 if 65 <= byte <= 90 else byte for byte in user.encode("utf-8"))
    return f"{int.from_bytes(hashlib.md5(small).digest()[:8], 'big') % 256:02x}"


@given(st.text(alphabet=st.characters(exclude_categories=("Cs",)), max_size=200))
def test_shard_by_the_algebra(user: str) -> None:
    assert shard_of(user) == algebra(user)
    assert shard_of(user) in SHARD_NAMES


@given(st.from_regex(r"[a-z0-9.+_-]{1,30}@[a-z0-9.-]{1,30}", fullmatch=True))
def test_capitals_do_not_matter(user: str) -> None:
    assert shard_of(user.upper()) == shard_of(user)


def test_names_that_came_as_raw_bytes() -> None:
    assert shard_of(b"caf\xe9@x".decode("utf-8", "surrogateescape")) in SHARD_NAMES


@pytest.mark.parametrize("user", [None, 5, True, ["a"], b"a", {}])
def test_a_user_is_text(user: Any) -> None:
    (problem,) = refusal(shard_of, user)
    assert (problem.variable, problem.rule) == ("user", "a user name is text")


@pytest.mark.parametrize(
    ("user", "key"),
    [("Joe@Example.COM", "joe@example.com"), ("O'Neil@x", r"o\'neil@x"), ('a"b\\c@x', r"a\"b\\c@x")],
)
def test_quotes_are_escaped_as_dovecot_does_before_it_looks_a_name_up(user: str, key: str) -> None:
    assert lookup_key(user) == key
    (line,) = override_lines({user: "mail1"}, backends("mail1"))
    assert line.startswith(f"{key}:::")


# ---- the map ----


def test_the_map_is_whole_and_the_same_each_time() -> None:
    first = shard_map(backends("mail1", "mail2", "mail3"))
    assert tuple(first) == SHARD_NAMES
    assert first == shard_map(reversed(backends("mail1", "mail2", "mail3")))
    assert set(first.values()) == {"mail1", "mail2", "mail3"}


def test_the_map_does_not_change_between_releases() -> None:
    # A new map would send every user to another backend at the next site.yml.
    lines = "".join(shard_map(backends("mail1", "mail2", "mail3")).values())
    assert hashlib.sha256(lines.encode()).hexdigest()[:16] == "d5dbbc5e87743403"


def test_the_address_does_not_move_shards() -> None:
    renumbered = backends("mail1", "mail2", mail1={"address": "2001:db8::1"})
    assert shard_map(renumbered) == shard_map(backends("mail1", "mail2"))


@pytest.mark.parametrize("state", ["drained", "down"])
@pytest.mark.parametrize("gone", ["mail1", "mail2", "mail3", "mail4"])
def test_draining_moves_only_its_own_shards(gone: str, state: str) -> None:
    names = ["mail1", "mail2", "mail3", "mail4"]
    before, after = shard_map(backends(*names)), shard_map(backends(*names, **{gone: {"state": state}}))
    assert moved(before, after) == {shard for shard, name in before.items() if name == gone}
    assert gone not in after.values()
    assert after == shard_map(backends(*(name for name in names if name != gone)))
    assert after == shard_map(backends(*names, **{gone: {"weight": 0}}))


@settings(max_examples=30)
@given(
    st.integers(2, 8),
    st.lists(st.sampled_from([0.5, 1, 1, 1, 2, 3]), min_size=9, max_size=9),
    st.integers(0, 8),
)
def test_adding_a_backend_moves_shards_only_to_it(count: int, weights: list[float], new: int) -> None:
    names = [f"mail{number}" for number in range(1, count + 2)]
    listed = backends(*names, **{name: {"weight": weight} for name, weight in zip(names, weights)})
    added = listed[new % len(listed)]
    before, after = shard_map([entry for entry in listed if entry is not added]), shard_map(listed)
    to_new = {shard for shard, name in after.items() if name == added["name"]}
    assert moved(before, after) == to_new
    # Its share, give or take three standard deviations of 256 throws.
    share = added["weight"] / sum(entry["weight"] for entry in listed)
    assert abs(len(to_new) - 256 * share) <= 3 * (256 * share * (1 - share)) ** 0.5 + 1


@pytest.mark.parametrize("heavy", ["mail1", "mail2", "mail3"])
def test_weights_are_honoured(heavy: str) -> None:
    counts = Counter(shard_map(backends("mail1", "mail2", "mail3", **{heavy: {"weight": 2}})).values())
    for name in ("mail1", "mail2", "mail3"):
        share = (2 if name == heavy else 1) / 4
        assert abs(counts[name] - 256 * share) <= 0.2 * 256 * share


def test_more_weight_takes_shards_from_the_others_only() -> None:
    before = shard_map(backends("mail1", "mail2", "mail3"))
    after = shard_map(backends("mail1", "mail2", "mail3", mail2={"weight": 3}))
    assert {after[shard] for shard in moved(before, after)} == {"mail2"}


@pytest.mark.parametrize("weight", ["2", 2, 2.0, "2.0", " 2 "])
def test_a_weight_may_be_text(weight: Any) -> None:
    (backend,) = parse_backends(backends("mail1", mail1={"weight": weight}))
    assert backend == Backend("mail1", "192.0.2.1", 2.0, "up")


def test_what_is_left_out_has_a_default() -> None:
    assert parse_backends([{"name": "mail1"}]) == (Backend("mail1", "mail1", 1.0, "up"),)
    assert parse_backends([Backend("x", "y")]) == (Backend("x", "y"),)


@pytest.mark.parametrize(
    "weight", [-1, 1000.1, float("nan"), float("inf"), "heavy", "", None, True, False, [], {}, "nan", HUGE, -HUGE]
)
def test_a_wrong_weight(weight: Any) -> None:
    (problem,) = refusal(parse_backends, backends("mail1", "mail2", mail1={"weight": weight}))
    assert (problem.variable, problem.rule) == ("backends[mail1].weight", "a number, 0 to 1000")


def test_everything_wrong_at_once() -> None:
    listed: list[Any] = [
        {"name": "mail1", "address": "192.0.2.1", "weight": float("nan"), "state": "gone"},
        {"name": "mail2", "address": "192.0.2.2"},
        {"name": "mail2", "address": "192.0.2.3"},
        {"name": "mail4", "address": "192.0.2.2"},
        {"name": "", "address": "192.0.2.5"},
        {"name": "mail6", "address": "192.0.2.6 192.0.2.7", "wieght": 2},
        "mail7",
        None,
    ]
    problems = [(problem.variable, problem.rule) for problem in refusal(shard_map, listed)]
    assert problems == [
        ("backends[mail1].state", "one of up, drained, down"),
        ("backends[mail1].weight", "a number, 0 to 1000"),
        ("backends[?]", "a backend has a name"),
        ("backends[mail6]", "known keys: name, address, weight, state, service_address"),
        ("backends[mail6].address", "an address has no blanks"),
        ("backends", "a mapping {name, address, weight, state}"),
        ("backends", "a mapping {name, address, weight, state}"),
        ("backends[mail2].name", "one backend is listed once; 'mail2' has the same name"),
        ("backends[mail4].address", "one backend is listed once; 'mail2' has the same address"),
    ]


@pytest.mark.parametrize(
    "listed",
    [
        [],
        backends("mail1", mail1={"weight": 0}),
        backends("mail1", "mail2", mail1={"state": "down"}, mail2={"state": "drained"}),
    ],
)
def test_somebody_takes_users(listed: list[dict[str, Any]]) -> None:
    (problem,) = refusal(shard_map, listed)
    assert problem.rule == "at least one backend takes users"


@pytest.mark.parametrize("listed", [None, "mail1", b"mail1", {"name": "mail1"}, 5])
def test_backends_are_a_list(listed: Any) -> None:
    assert refusal(shard_map, listed)[0].fix == "write a list"


@given(st.lists(JSON | st.fixed_dictionaries({"name": JSON}, optional={"weight": JSON, "state": JSON}), max_size=4))
def test_any_list_is_mapped_or_refused(listed: list[Any]) -> None:
    try:
        found = shard_map(listed)
    except NfsmailError:
        return
    assert tuple(found) == SHARD_NAMES


# ---- the files ----


def test_lines_of_the_shard_map() -> None:
    listed = backends("mail1", "mail2", "mail3", mail3={"address": "2001:db8::3"})
    lines = shard_lines(listed)
    address = {entry["name"]: entry["address"] for entry in listed}
    assert lines == [
        f"{shard}:::::::proxy=y nopassword=y host={address[name]}" for shard, name in shard_map(listed).items()
    ]
    assert len(lines) == 256


def test_lines_of_overrides() -> None:
    pinned = {"VIP@Example.com": "mail2", "a@x": "mail1", 7: "mail1"}
    assert override_lines(pinned, backends("mail1", "mail2")) == [  # type: ignore[arg-type]
        "7:::::::proxy=y nopassword=y host=192.0.2.1",
        "vip@example.com:::::::proxy=y nopassword=y host=192.0.2.2",
        "a@x:::::::proxy=y nopassword=y host=192.0.2.1",
    ]
    assert override_lines({}, backends("mail1")) == []


def test_overrides_are_in_lower_case_as_dovecot_looks_them_up() -> None:
    (line,) = override_lines({"É@X": "mail1"}, backends("mail1"))
    assert line.startswith("É@x:")


@pytest.mark.parametrize(
    ("user", "name", "rule"),
    [
        ("a@x", "mail9", "the backend is in the inventory"),
        ("a@x", "mail2", "the backend takes users; it is drained"),
        ("a@x", "mail3", "the backend takes users; it is down"),
        ("", "mail1", "a user name without colons and blanks"),
        ("a b@x", "mail1", "a user name without colons and blanks"),
        ("a:b@x", "mail1", "a user name without colons and blanks"),
        ("a@x\n", "mail1", "a user name without colons and blanks"),
        ("#a@x", "mail1", "a user name without colons and blanks"),
        ("a@x", None, "the backend is in the inventory"),
    ],
)
def test_a_wrong_override(user: str, name: Any, rule: str) -> None:
    known = backends("mail1", "mail2", "mail3", mail2={"state": "drained"}, mail3={"state": "down"})
    (problem,) = refusal(override_lines, {user: name}, known)
    assert (problem.variable, problem.rule) == (f"nfsmail_overrides[{user}]", rule)


def test_a_user_is_pinned_once() -> None:
    problems = refusal(override_lines, {"A@x": "mail1", "a@X": "mail2", "b@x": "mail9"}, backends("mail1", "mail2"))
    assert {problem.variable for problem in problems} == {"nfsmail_overrides[a@X]", "nfsmail_overrides[b@x]"}
    assert "'A@x' is the same user" in str(problems)


@pytest.mark.parametrize("overrides", [["a@x"], "a@x", 3])
def test_overrides_are_a_mapping(overrides: Any) -> None:
    (problem,) = refusal(override_lines, overrides, backends("mail1"))
    assert problem.rule == "a mapping of user to backend"
