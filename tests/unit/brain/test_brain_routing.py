# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Draining, bringing back and moving users, as the proxies' files say it."""

from __future__ import annotations

import os
from typing import Any

import pytest
from ansible_collections.nfsmail.cluster.plugins.module_utils._host import parse_moving
from ansible_collections.nfsmail.cluster.plugins.plugin_utils import director, routing
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.errors import NfsmailError
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.shards import (
    lookup_key,
    override_lines,
    shard_lines,
    shard_map,
    shard_of,
)
from hypothesis import given
from hypothesis import strategies as st

BACKENDS: list[dict[str, Any]] = [
    {"name": f"mail{number}", "address": f"192.0.2.1{number}", "weight": 1.0, "state": "up", "service_address": ""}
    for number in (1, 2, 3)
]
USERS = [f"user{number:02}@example.com" for number in range(40)]


def plan(
    overrides: dict[str, str] | None = None,
    state: dict[str, Any] | None = None,
    backends: list[dict[str, Any]] = BACKENDS,
    **request: Any,
) -> dict[str, Any]:
    verb = next(name for name in ("drain", "undrain", "move_user") if name in request or name == "move_user")
    return routing.move_plan(backends, overrides or {}, [state or {}], {"verb": verb, **request})


def problems(**arguments: Any) -> list[str]:
    with pytest.raises(NfsmailError) as raised:
        plan(**arguments)
    return [f"{one.variable}: {one.rule}" for one in raised.value.problems]


def files(routes: dict[str, Any]) -> tuple[list[str], list[str]]:
    """What the proxies get: both must be accepted."""
    return shard_lines(routes["backends"]), override_lines(routes["overrides"], routes["backends"])


def place(user: str, routes: dict[str, Any]) -> str:
    pinned = {name.lower(): backend for name, backend in routes["overrides"].items()}
    return str(pinned.get(user.lower()) or shard_map(routes["backends"])[shard_of(user)])


def test_nothing_done_yet_leaves_the_inventory_as_it_is() -> None:
    found = routing.routing(BACKENDS, {"A@x": "mail1"}, [{}, None, "x"])
    assert found["backends"] == BACKENDS and found["overrides"] == {"A@x": "mail1"}
    assert found["state"] == {"serial": 0, "out": [], "users": {}, "until": 0}


def test_a_drain_moves_the_backend_s_users_and_nobody_else() -> None:
    found = plan(drain="mail1", overrides={"user01@example.com": "mail1", "user02@example.com": "mail2"})
    assert found["state"] == {"serial": 1, "out": ["mail1"], "users": {}, "until": 0}
    before = routing.routing(BACKENDS, {"user01@example.com": "mail1", "user02@example.com": "mail2"})
    assert set(found["sources"]) == {"mail1"} and "mail1" not in found["targets"]
    leaving = found["sources"]["mail1"]
    for user in USERS:
        was, will = place(user, before), place(user, found["routing"])
        assert will != "mail1"
        assert (was != will) == (was == "mail1")
        gone = user in leaving["users"] or (shard_of(user) in leaving["shards"] and user not in leaving["pinned"])
        if was == "mail1":
            assert gone, user
    assert leaving["users"] == ["user01@example.com"]
    files(found["routing"])


def test_a_pinned_user_of_a_drained_backend_comes_back_with_it() -> None:
    pins = {"user01@example.com": "mail1"}
    out = plan(drain="mail1", overrides=pins)["state"]
    assert routing.routing(BACKENDS, pins, [out])["overrides"] == {}
    back = plan(undrain="mail1", overrides=pins, state=out)
    assert back["routing"]["overrides"] == pins and back["state"]["out"] == []
    assert back["targets"] == ["mail1"] and set(back["sources"]) == {"mail2", "mail3"}


def test_a_user_is_moved_and_goes_back_to_the_shard() -> None:
    user = "Anna@Example.com"
    home = shard_map(BACKENDS)[shard_of(user)]
    other = next(one["name"] for one in BACKENDS if one["name"] != home)
    moved = plan(move_user=user, move_to=other)
    assert moved["state"]["users"] == {"anna@example.com": other}
    assert moved["sources"] == {home: {"users": ["anna@example.com"], "shards": [], "pinned": []}}
    assert moved["said"] == [f"{home} to {other}: 1 user"]
    back = plan(move_user=user, move_to="hash", state=moved["state"])
    assert place(user, back["routing"]) == home and back["state"]["serial"] == 2


def test_hash_takes_back_a_pin_of_the_inventory() -> None:
    home = shard_map(BACKENDS)[shard_of("anna@example.com")]
    other = next(one["name"] for one in BACKENDS if one["name"] != home)
    found = plan(move_user="anna@example.com", move_to="hash", overrides={"Anna@example.com": other})
    assert found["routing"]["overrides"] == {} and set(found["sources"]) == {other}


def test_a_file_of_users() -> None:
    lines = "# who where\nuser01@example.com mail2\n\nuser02@example.com  mail3 # note\n"
    assert routing.requested_users({"move_lines": lines}) == {
        "user01@example.com": "mail2",
        "user02@example.com": "mail3",
    }
    assert problems(move_lines="user01@example.com\nuser02@example.com mail2 mail3") == [
        "move_user user01@example.com: the backend is in the inventory",
        "move_user user02@example.com: the backend is in the inventory",
    ]


def test_run_again_nobody_moves() -> None:
    first = plan(drain="mail1")
    again = plan(drain="mail1", state=first["state"])
    assert again["state"] == first["state"]
    assert (again["sources"], again["targets"], again["moving"], again["said"]) == ({}, [], [], [])


def test_the_newest_state_counts() -> None:
    new = {"serial": 4, "out": ["mail2"], "users": {}, "until": 0}
    states = [{"serial": 3, "out": ["mail1"], "users": {}, "until": 0}, new, {}]
    assert routing.routing(BACKENDS, {}, states)["state"] == new


def test_what_is_not_in_the_inventory_any_more_is_passed_over() -> None:
    state = {"serial": 1, "out": ["mail9"], "users": {"a@x": "mail9", "b@x": "mail1"}}
    found = routing.routing(BACKENDS, {}, [state])
    assert found["overrides"] == {"b@x": "mail1"}
    files(found)


def test_who_moves_waits_and_gets_no_mail() -> None:
    user = "o'hara@example.com"
    home = shard_map(BACKENDS)[shard_of(user)]
    other = next(one for one in BACKENDS if one["name"] != home)
    lines = routing.moving_lines(plan(move_user=user, move_to=other["name"])["moving"], 1800000000.9)
    assert lines == [
        f"imap/o\\'hara@example.com:::::::proxy=y nopassword=y host={other['address']} delay_until=1800000000",
        f"pop3/o\\'hara@example.com:::::::proxy=y nopassword=y host={other['address']} delay_until=1800000000",
        f"sieve/o\\'hara@example.com:::::::proxy=y nopassword=y host={other['address']} delay_until=1800000000",
        f"submission/o\\'hara@example.com:::::::proxy=y nopassword=y host={other['address']} delay_until=1800000000",
        "lmtp/o\\'hara@example.com:::::::proxy=y nopassword=y host=127.0.0.1 port=1",
        "doveadm/o\\'hara@example.com:::::::proxy=y nopassword=y host=127.0.0.1 port=1",
    ]


def test_shards_are_told_from_users() -> None:
    """A user may be called a7, like a shard."""
    keys = {line.split(":")[0] for line in plan(drain="mail1")["moving"]}
    assert all(
        key.split("//")[0] in ("imap", "pop3", "sieve", "submission", "lmtp", "doveadm")
        and len(key.split("//")[1]) == 2
        for key in keys
    )


REFUSED: dict[str, tuple[dict[str, Any], list[str]]] = {
    "nobody named": ({"drain": ""}, ["drain: names the backend"]),
    "no user named": ({"move_user": ""}, ["move_user: names the user, and move_to, the backend"]),
    "a stranger": ({"drain": "mail9"}, ["drain: the backend is in the inventory"]),
    "a stranger back": ({"undrain": "mail9"}, ["undrain: the backend is in the inventory"]),
    "the last": (
        {"drain": "mail1", "backends": BACKENDS[:1]},
        ["drain: at least one backend takes users: nobody could log in, and mail would wait"],
    ),
    "all": (
        {"drain": "mail1,mail2,mail3", "max_out": 5},
        ["drain: at least one backend takes users: nobody could log in, and mail would wait"],
    ),
    "a second": (
        {"drain": "mail2", "state": {"serial": 1, "out": ["mail1"], "users": {}}},
        ["drain: no more than 1 backends are out at once (nfsmail_max_out); out would be mail1, mail2"],
    ),
    "a second beside one that the inventory takes out": (
        {"drain": "mail2", "backends": [{**BACKENDS[0], "state": "down"}, *BACKENDS[1:]]},
        ["drain: no more than 1 backends are out at once (nfsmail_max_out); out would be mail1, mail2"],
    ),
    "to nowhere": (
        {"move_user": "a@x", "move_to": "mail9"},
        ["move_user a@x: the backend is in the inventory"],
    ),
    "to a drained backend": (
        {"move_user": "a@x", "move_to": "mail1", "state": {"serial": 1, "out": ["mail1"], "users": {}}},
        ["move_user a@x: the backend takes users; it is out"],
    ),
    "no user name": (
        {"move_user": "a:b", "move_to": "mail1"},
        ["move_user a:b: a user name without colons and blanks"],
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_request_that_would_do_harm_is_refused(name: str) -> None:
    arguments, told = REFUSED[name]
    assert problems(**arguments) == told


def test_a_drain_that_is_already_done_is_not_too_many() -> None:
    state = {"serial": 2, "out": ["mail1", "mail2"], "users": {}, "until": 0}
    assert plan(drain="mail1", state=state)["moving"] == []


@given(
    st.lists(
        st.one_of(
            st.tuples(st.sampled_from(["drain", "undrain"]), st.sampled_from(["mail1", "mail2", "mail3"])),
            st.tuples(st.sampled_from(USERS), st.sampled_from(["mail1", "mail2", "mail3", "hash"])),
        ),
        max_size=12,
    ),
    st.dictionaries(st.sampled_from(USERS), st.sampled_from(["mail1", "mail2", "mail3"]), max_size=6),
)
def test_whatever_was_done_files_are_sound_and_sources_are_exact(
    steps: list[tuple[str, str]], pins: dict[str, str]
) -> None:
    state: dict[str, Any] = {}
    for what, name in steps:
        request = {what: name} if what in ("drain", "undrain") else {"move_user": what, "move_to": name}
        verb = what if what in ("drain", "undrain") else "move_user"
        before = routing.routing(BACKENDS, pins, [state])
        try:
            found = routing.move_plan(BACKENDS, pins, [state], {"verb": verb, "max_out": 2, **request})
        except NfsmailError:
            continue
        files(found["routing"])
        for user in USERS:
            was, will = place(user, before), place(user, found["routing"])
            leaving = found["sources"].get(was, {"users": [], "shards": [], "pinned": []})
            gone = user in leaving["users"] or (shard_of(user) in leaving["shards"] and user not in leaving["pinned"])
            assert gone == (was != will), (user, was, will)
            assert was == will or will in found["targets"]
        state = found["state"]


# ---- what a user leaves behind ----

INDEX = "/var/lib/nfsmail/index/{shard}/{domain}/{name}"


def test_paths_of_users() -> None:
    shard = shard_of("anna@example.com")
    assert routing.user_paths(["Anna@Example.com"], INDEX) == [f"/var/lib/nfsmail/index/{shard}/example.com/anna"]
    assert routing.user_paths(["bob"], "/index/{user}") == ["/index/bob"]


@pytest.mark.parametrize("user", ["example.com", "../../etc@example.com", "a/b@x", "..@x", "a@..", "@x", "", "."])
def test_a_name_that_leads_elsewhere_is_refused(user: str) -> None:
    with pytest.raises(NfsmailError, match="a name that stands for one folder"):
        routing.user_paths([user], INDEX)


@pytest.mark.parametrize(
    "template", ["/var/lib/index", "/var/lib/index/{domain}", "/var/lib/index/{name}", "/x/{shard}"]
)
def test_a_template_that_two_users_share_is_refused(template: str) -> None:
    with pytest.raises(NfsmailError, match="a path of one user"):
        routing.user_paths(["a@x"], template)


@given(st.text(min_size=1, max_size=20))
def test_no_name_leads_out_of_the_folder(user: str) -> None:
    try:
        (path,) = routing.user_paths([user], "/index/{domain}/{name}")
    except NfsmailError:
        return
    assert os.path.normpath(path).startswith("/index/") and ".." not in path.split("/")


ADDRESS = {one["name"]: one["address"] for one in BACKENDS}


def test_a_balancer_is_told_of_backends_only() -> None:
    found = plan(drain="mail1", router="balancer")
    assert found["state"] == {"serial": 1, "out": ["mail1"], "users": {}, "until": 0}
    assert [one["state"] for one in found["routing"]["backends"]] == ["drained", "up", "up"]
    assert found["sources"] == {"mail1": {"users": [], "shards": [], "pinned": []}}
    assert (found["moving"], found["ring"], found["targets"]) == ([], [], [])
    assert found["said"] == ["mail1: new connections go to others"]
    back = plan(undrain="mail1", router="balancer", state=found["state"])
    assert back["sources"] == {} and back["said"] == ["mail1: new connections come here again"]
    assert [one["state"] for one in back["routing"]["backends"]] == ["up", "up", "up"]


def test_a_drained_backend_is_waited_for_again() -> None:
    """A run that ended before everybody had left is run again."""
    for router in ("balancer", "director"):
        state = plan(drain="mail1", router=router)["state"]
        again = plan(drain="mail1", router=router, state=state)
        assert again["state"] == state and list(again["sources"]) == ["mail1"]


def test_directors_are_told_to_send_users_elsewhere_and_back() -> None:
    found = plan(drain="mail1", router="director")
    assert found["ring"] == [["down", ADDRESS["mail1"]], ["flush", ADDRESS["mail1"]]]
    assert found["targets"] == ["mail2", "mail3"] and list(found["sources"]) == ["mail1"]
    back = plan(undrain="mail1", router="director", state=found["state"])
    assert back["ring"] == [
        ["add", ADDRESS["mail1"]],
        ["up", ADDRESS["mail1"]],
        ["flush", ADDRESS["mail2"]],
        ["flush", ADDRESS["mail3"]],
    ]
    assert back["targets"] == ["mail1"] and back["sources"] == {} and back["state"]["out"] == []


def test_a_director_moves_a_user_for_a_while() -> None:
    found = plan(move_user="Anna@Example.com", move_to="mail2", router="director")
    assert found["ring"] == [["move", "anna@example.com", ADDRESS["mail2"]]]
    assert found["state"]["users"] == {} and found["state"]["serial"] == 0
    assert {name: one["users"] for name, one in found["sources"].items()} == {
        "mail1": ["Anna@Example.com"],
        "mail3": ["Anna@Example.com"],
    }
    assert found["said"] == ["Anna@Example.com to mail2, until nobody has used it for 15 minutes"]
    home = director.placement(["anna@example.com"], BACKENDS)["anna@example.com"]
    back = plan(move_user="anna@example.com", move_to="hash", router="director")
    assert back["ring"] == [["move", "anna@example.com", ADDRESS[home]]]


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (
            {"move_user": "a@x", "move_to": "mail1", "router": "balancer"},
            "move_user: with topology random a user has no",
        ),
        ({"drain": "mail1", "router": "none"}, "drain: proxies, or with topology random balancers, choose the backend"),
        ({"drain": "mail1,mail2,mail3", "router": "director", "max_out": 3}, "drain: at least one backend takes users"),
        ({"drain": "mail1,mail2", "router": "balancer"}, "drain: no more than 1 backends are out at once"),
    ],
)
def test_what_other_routers_refuse(request_: dict[str, Any], said: str) -> None:
    assert any(one.startswith(said) for one in problems(**request_)), problems(**request_)


def test_failback_is_for_the_shard_map() -> None:
    with pytest.raises(NfsmailError, match="where proxies have the shard map"):
        routing.move_plan(BACKENDS, {}, [], {"verb": "failback", "failback": "mail1", "router": "director"})


def on_the_way(found: dict[str, Any]) -> dict[str, str]:
    """What proxies tell of the moving file when a move has been ended half-way."""
    return parse_moving(routing.NOBODY_MOVES + "\n".join(routing.moving_lines(found["moving"], 1700000000)))


def test_the_same_move_after_it_was_ended_half_way() -> None:
    pins = {"user01@example.com": "mail1", "o'neil@example.com": "mail1"}
    for request_ in ({"drain": "mail1"}, {"move_user": "o'neil@example.com", "move_to": "mail2"}):
        found = plan(overrides=pins, **request_)
        assert plan(overrides=pins, unfinished=on_the_way(found), **request_) == found


def test_another_move_after_one_that_was_ended_half_way() -> None:
    """Whoever was on the way may be at either end: both backends end their sessions, unless the user stays there."""
    pins = {"user01@example.com": "mail1", "o'neil@example.com": "mail1"}
    first = plan(drain="mail1", overrides=pins)
    second = plan(drain="mail2", overrides=pins, unfinished=on_the_way(first))
    before, half, after = (
        routing.routing(BACKENDS, pins),
        first["routing"],
        second["routing"],
    )
    held = on_the_way(second)
    for user in [*USERS, *pins]:
        will = place(user, after)
        for here in {place(user, before), place(user, half)} - {will}:
            leaving = second["sources"][here]
            pinned = user.lower() in leaving["pinned"]
            assert user in leaving["users"] or (shard_of(user) in leaving["shards"] and not pinned), (user, here)
            assert f"/{lookup_key(user)}" in held or f"//{shard_of(user)}" in held, user
    assert second["state"]["out"] == ["mail2"]


def test_a_user_on_the_way_who_is_to_stay_is_called_back() -> None:
    user = "o'neil@example.com"
    home = shard_map(BACKENDS)[shard_of(user)]
    other = next(one["name"] for one in BACKENDS if one["name"] != home)
    half = on_the_way(plan(move_user=user, move_to=other))
    assert half == {"/o\\'neil@example.com": ADDRESS[other]}
    found = plan(move_user=user, move_to="hash", unfinished=half)
    assert found["sources"] == {other: {"users": [user], "shards": [], "pinned": []}}
    assert on_the_way(found) == {"/o\\'neil@example.com": ADDRESS[home]}


def test_what_is_on_the_way_to_an_unknown_address_says_nothing() -> None:
    assert plan(drain="mail1", unfinished={"//00": "192.0.2.99"}) == plan(drain="mail1")
    assert plan(drain="mail1", unfinished="x") == plan(drain="mail1")
