# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever is typed, read from a machine or left in a file: an answer, or one of our own errors.

`make fuzz` runs this for NFSMAIL_FUZZ_SECONDS seconds for each target; what it finds is shrunk, shown, and tried first next time.
"""

from __future__ import annotations

import contextlib
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.nfsmail.cluster.plugins.plugin_utils import dialect, matrix, profile, routing, shards, upgrade
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.errors import NfsmailError
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

SECONDS = float(os.environ.get("NFSMAIL_FUZZ_SECONDS", "60"))
ROUND = 200  # examples between two looks at the clock
SHARED = Path(__file__).parents[1] / "shared"
# Real outputs of doveconf, to be taken apart and put together wrongly.
REAL = sorted(path.read_text(encoding="utf-8") for path in SHARED.rglob("doveconf*/*") if path.is_file())
REAL += sorted(path.read_text(encoding="utf-8") for path in SHARED.rglob("doveconf.txt"))
LINES = sorted({line for text in REAL for line in text.splitlines()})
WORDS = sorted({word for line in LINES for word in line.split()})
NAMES = ("mail1", "mail2", "mail3")

line = st.one_of(
    st.sampled_from(LINES),
    st.lists(st.sampled_from([*WORDS, "{", "}", "=", "#", '"', "'", "\\", "<", "%{"]), max_size=6).map(" ".join),
    st.text(max_size=40),
)
conf = st.one_of(st.lists(line, max_size=30).map("\n".join), st.text())
scalar = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=12), st.binary(max_size=4))
anything = st.recursive(
    scalar,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(scalar, inner, max_size=4)),
    max_leaves=12,
)
KEYS = {key.name: key for key in profile.KEYS}
plan = st.dictionaries(
    st.sampled_from([*KEYS, "nonsense"]),
    st.one_of(
        anything,
        st.sampled_from(sorted({str(one) for key in KEYS.values() for one in key.choices or ()} | {"2.3.19", "2.4.1"})),
    ),
    max_size=10,
)
backend = st.one_of(
    st.fixed_dictionaries(
        {"name": st.one_of(st.sampled_from(NAMES), anything)},
        optional={
            "address": st.one_of(st.sampled_from(("192.0.2.11", "2001:db8::1", "mail1.example.com")), anything),
            "weight": st.one_of(st.sampled_from((0, 1, 2.5)), anything),
            "state": st.one_of(st.sampled_from(shards.STATES), anything),
            "service_address": st.one_of(st.just("192.0.2.111"), anything),
        },
    ),
    anything,
)
users = st.one_of(st.text(max_size=20), st.sampled_from(("anna@example.com", "o'neil@example.com", "/", "..", "a b")))
pins = st.dictionaries(users, st.one_of(st.sampled_from(NAMES), anything), max_size=4)
state = st.one_of(
    st.fixed_dictionaries(
        {
            "serial": anything,
            "out": st.one_of(st.lists(st.sampled_from(NAMES)), anything),
            "users": st.one_of(pins, anything),
            "until": anything,
        }
    ),
    anything,
)
request_ = st.fixed_dictionaries(
    {"verb": st.sampled_from(("drain", "undrain", "move_user", "failback", "nonsense"))},
    optional={
        "drain": st.one_of(st.sampled_from((*NAMES, "mail1,mail2")), anything),
        "undrain": st.one_of(st.sampled_from(NAMES), anything),
        "failback": st.one_of(st.sampled_from(NAMES), anything),
        "move_user": st.one_of(users, anything),
        "move_to": st.one_of(st.sampled_from((*NAMES, "hash")), anything),
        "move_lines": st.one_of(st.lists(st.text(max_size=20)).map("\n".join), anything),
        "max_out": anything,
        "router": st.one_of(st.sampled_from(routing.ROUTERS), anything),
        "unfinished": anything,
        "holders": st.dictionaries(st.sampled_from(NAMES), st.lists(st.sampled_from(NAMES))),
    },
)


sound_requests = st.one_of(
    st.fixed_dictionaries(
        {"verb": st.just(verb), verb: st.sampled_from(NAMES)}, optional={"router": st.sampled_from(routing.ROUTERS)}
    )
    for verb in ("drain", "undrain")
)


def read(text: str) -> None:
    """A configuration, its findings, and the way back."""
    tree = dialect.from_doveconf(text)
    for version in ("2.3.19", "2.4.1"):
        with contextlib.suppress(NfsmailError):
            matrix.written_findings(tree, {"dovecot_version": version})
        with contextlib.suppress(NfsmailError):
            written = dialect.to_doveconf(tree, version)
            again = dialect.from_doveconf(written)
            assert {name: again[name] for name in tree if name in again} == {
                name: tree[name] for name in tree if name in again
            }, written


def previewed(text: str) -> None:
    upgrade.preview(text)


def judged(given_: dict[str, Any]) -> None:
    for ask in (matrix.settings, matrix.mount_options, matrix.kernel_settings, matrix.explain, matrix.plan_findings):
        with contextlib.suppress(NfsmailError):
            ask(given_)


def mapped(given_: tuple[list[Any], dict[str, Any], str]) -> None:
    backends, overrides, user = given_
    assert shards.shard_of(user) in shards.SHARD_NAMES
    known = shards.shard_map(backends)
    assert set(known) == set(shards.SHARD_NAMES)
    shards.shard_lines(backends)
    shards.override_lines(overrides, backends)


def moved(given_: tuple[list[Any], dict[str, Any], Any, dict[str, Any]]) -> None:
    backends, overrides, found, asked = given_
    answer = routing.move_plan(backends, overrides, [found], asked)
    routing.routing(backends, overrides, [answer["state"]])
    routing.moving_lines(answer["moving"], 1)


sound = [{"name": name, "address": f"192.0.2.1{number}"} for number, name in enumerate(NAMES, 1)]
# Most often something sound, or nothing would get past the first look.
some_backends = st.one_of(st.just(sound), st.just(sound), st.lists(backend, max_size=4))
some_pins = st.one_of(st.just({}), st.dictionaries(st.sampled_from(("a@x", "B@x")), st.sampled_from(NAMES)), pins)
TARGETS: dict[str, tuple[Callable[[Any], None], st.SearchStrategy[Any]]] = {
    "from_doveconf": (read, conf),
    "upgrade preview": (previewed, conf),
    "profile": (judged, plan),
    "shards": (mapped, st.tuples(some_backends, some_pins, users)),
    "moves": (moved, st.tuples(some_backends, some_pins, state, st.one_of(sound_requests, request_))),
}


@pytest.mark.parametrize("name", TARGETS)
def test_nothing_but_our_own_errors(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    target, inputs = TARGETS[name]
    counts = {"answers": 0, "refused": 0}

    def one(given_: Any) -> None:
        try:
            target(given_)
            counts["answers"] += 1
        except NfsmailError as error:
            assert error.problems and all(problem.rule for problem in error.problems)
            counts["refused"] += 1

    end = time.monotonic() + SECONDS
    first = number = random.SystemRandom().randrange(2**32)
    while time.monotonic() < end:
        limits = settings(
            max_examples=ROUND,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=(Phase.generate, Phase.shrink),
        )
        seed(number)(limits(given(inputs)(one)))()
        number += 1
    assert counts["answers"]
    with capsys.disabled():
        print(f"\n{name}: {SECONDS:.0f} s from seed {first}: {counts['answers']} answered, {counts['refused']} refused")
