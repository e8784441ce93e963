# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Problems as an operator reads them."""

from __future__ import annotations

from ansible_collections.nfsmail.cluster.plugins.plugin_utils.errors import NfsmailError, Problem, nearest, report
from hypothesis import given
from hypothesis import strategies as st

ONE = Problem("nfsmail_topology", "ring", "one of single, random", "did you mean 'single'?", "design")


def test_a_problem_says_variable_value_rule_fix_and_source() -> None:
    assert str(ONE) == (
        "nfsmail_topology: 'ring'\n    rule: one of single, random\n    fix: did you mean 'single'?\n    source: design"
    )


def test_a_report_counts_and_numbers() -> None:
    other = Problem("x", None, "set", "set it", "design")
    assert report([]) == ""
    assert report([ONE]).startswith("1 problem in the cluster's variables, nothing was changed:\n1. nfsmail_topology:")
    text = str(NfsmailError([ONE, other]))
    assert text.startswith("2 problems in the cluster's variables, nothing was changed:\n1. nfsmail_topology:")
    assert "\n2. x: not set\n" in text


def test_long_values_are_cut() -> None:
    shown = str(Problem("x", "v" * 1000, "r", "f", "s")).splitlines()[0]
    assert len(shown) == len("x: ") + 200
    assert shown.endswith("...")


def test_an_error_takes_any_iterable() -> None:
    assert NfsmailError(problem for problem in [ONE]).problems == (ONE,)


def test_nearest_name() -> None:
    assert nearest("topologie", ["topology", "lockd"]) == "topology"
    assert nearest("TOPOLOGY", ["topology", "lockd"]) == "topology"
    assert nearest("", ["b", "a"]) in ("a", "b")
    assert nearest("x", []) == ""


@given(st.text(), st.lists(st.text(), min_size=1))
def test_nearest_is_always_one_of_the_known(name: str, known: list[str]) -> None:
    assert nearest(name, known) in known
