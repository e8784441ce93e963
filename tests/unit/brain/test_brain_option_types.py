# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Values of the wrong kind are told by name, before any role sees them."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.option_types import type_problems
from brain_samples import HUGE, JSON
from hypothesis import given
from hypothesis import strategies as st

TEXT = {"type": "str", "default": "x"}
YES_NO = {"type": "str", "default": "yes", "choices": ["yes", "no", "required"]}
NFS = {"type": "str", "default": "4.2", "choices": ["2", "3", "4.0", "4.1", "4.2"]}
NUMBER = {"type": "int", "default": 24}
FRACTION = {"type": "float", "description": "Not set by default."}
FLAG = {"type": "bool", "default": True}
WORDS = {"type": "list", "elements": "str", "default": [], "choices": ["imap", "pop3", "lmtp"]}
USERS = {"type": "list", "elements": "dict", "default": []}
MAPPING = {"type": "dict", "default": {}}


@pytest.mark.parametrize(
    ("value", "option"),
    [
        ("text", TEXT),
        (4.1, TEXT),
        ("", TEXT),
        (True, YES_NO),
        (False, YES_NO),
        ("required", YES_NO),
        (4.1, NFS),
        (3, NFS),
        ("4.2", NFS),
        (24, NUMBER),
        ("24", NUMBER),
        (0.5, FRACTION),
        ("2", FRACTION),
        (None, FRACTION),
        (True, FLAG),
        ("no", FLAG),
        ("On", FLAG),
        (0, FLAG),
        ([], WORDS),
        (["imap", "lmtp"], WORDS),
        ("imap,lmtp", WORDS),
        ([{"name": "a"}], USERS),
        ({}, MAPPING),
        (None, {"type": "bool", "description": "Not set by default."}),
        (None, {"type": "bool", "default": None}),
    ],
)
def test_a_value_of_its_kind(value: Any, option: dict[str, Any]) -> None:
    assert type_problems("x", value, option) == []


@pytest.mark.parametrize(
    ("value", "option", "variable", "rule", "fix"),
    [
        ({"a": 1}, TEXT, "x", "text", "write one text, in quotes"),
        (["a"], TEXT, "x", "text", "write one text, in quotes"),
        (True, TEXT, "x", "text", "write one text, in quotes"),
        (None, TEXT, "x", "text", "give a value, or remove the line to have the default"),
        ("maybe", YES_NO, "x", "one of yes, no, required", "did you mean"),
        (4, NFS, "x", "one of 2, 3, 4.0, 4.1, 4.2", "did you mean '4."),
        (3.0, NFS, "x", "one of 2, 3, 4.0, 4.1, 4.2", "did you mean"),
        ("abc", NUMBER, "x", "a whole number", "write a whole number without quotes"),
        (1.5, NUMBER, "x", "a whole number", "write a whole number without quotes"),
        (True, NUMBER, "x", "a whole number", "write a whole number without quotes"),
        (None, NUMBER, "x", "a whole number", "give a value"),
        ([], NUMBER, "x", "a whole number", "write a whole number"),
        ("heavy", FRACTION, "x", "a number", "write a number without quotes"),
        (float("nan"), NUMBER, "x", "a whole number", "write"),
        (HUGE, FRACTION, "x", "a number", "write"),
        ("perhaps", FLAG, "x", "a boolean", "write true or false"),
        (None, FLAG, "x", "a boolean", "give a value"),
        (None, {"type": "bool", "description": "Computed."}, "x", "a boolean", "give a value"),
        ([], FLAG, "x", "a boolean", "write true or false"),
        ({"imap": True}, WORDS, "x", "a list; each entry text", "write a list"),
        (None, WORDS, "x", "a list; each entry text", "give a value"),
        (["imap", "smtp"], WORDS, "x[1]", "one of imap, pop3, lmtp", "did you mean"),
        (["imap", ["lmtp"]], WORDS, "x[1]", "text", "write one text"),
        ("imap lmtp", WORDS, "x[0]", "one of imap, pop3, lmtp", "did you mean"),
        (["anna"], USERS, "x[0]", "a mapping", "write a mapping"),
        (["a"], MAPPING, "x", "a mapping", "write a mapping"),
        ("a=b", MAPPING, "x", "a mapping", "write a mapping"),
    ],
)
def test_a_value_of_another_kind(value: Any, option: dict[str, Any], variable: str, rule: str, fix: str) -> None:
    (problem,) = type_problems("x", value, option)
    assert (problem.variable, problem.rule) == (variable, rule)
    assert fix in problem.fix and problem.source == "docs: variables"


OPTIONS = st.sampled_from([TEXT, YES_NO, NFS, NUMBER, FRACTION, FLAG, WORDS, USERS, MAPPING])


@given(JSON, OPTIONS)
def test_any_value_is_told_of_or_taken(value: Any, option: dict[str, Any]) -> None:
    for problem in type_problems("x", value, option):
        assert problem.variable.startswith("x") and problem.rule and problem.fix
