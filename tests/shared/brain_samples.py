# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests of the brain share."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.errors import NfsmailError, Problem
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.profile import Profile, parse_profile
from hypothesis import strategies as st

VERSIONS = ("2.3.13", "2.3.19", "2.4.1")
DOMAIN: dict[str, tuple[Any, ...]] = {
    "topology": ("single", "random", "per_user"),
    "mailbox_format": ("maildir", "mbox", "sdbox", "mdbox"),
    "index_location": ("nfs", "local"),
    "nfs_version": ("2", "3", "4.0", "4.1", "4.2"),
    "lockd": (True, False),
    "delivery": ("lmtp", "lda", "mta"),
    "cache_flush": (True, False),
}
SECRET = "not-a-real-secret-0123"

#: Whatever an operator's YAML or a machine's JSON can hold.
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=8,
)
HUGE = 10**400


def every_profile(**fixed: Any) -> Iterator[Profile]:
    """The full product of the profile's domain, with some keys fixed."""
    domain = {**DOMAIN, **{key: (value,) for key, value in fixed.items()}}
    for values in itertools.product(*domain.values()):
        yield parse_profile(dict(zip(domain, values)))


def refusal(call: Callable[..., Any], *args: Any, **kwargs: Any) -> tuple[Problem, ...]:
    """The problems of a call that must be refused."""
    with pytest.raises(NfsmailError) as caught:
        call(*args, **kwargs)
    assert caught.value.problems
    for problem in caught.value.problems:
        assert problem.variable and problem.rule and problem.fix and problem.source, problem
        assert str(problem) in str(caught.value)
    return caught.value.problems
