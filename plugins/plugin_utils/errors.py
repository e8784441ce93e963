# Copyright: (c) 2026, the nfsmail.cluster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What can be wrong with an operator's input, told in one message.

Pure Python, private to the collection: nothing here knows Ansible.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One broken rule: which variable, what it holds, the rule, the way out, where the rule comes from."""

    variable: str
    value: object
    rule: str
    fix: str
    source: str

    def __str__(self) -> str:
        return f"{self.variable}: {_shown(self.value)}\n    rule: {self.rule}\n    fix: {self.fix}\n    source: {self.source}"


class NfsmailError(ValueError):
    """The only error the brain raises; holds every problem found, not just the first."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__(report(self.problems))


def report(problems: Iterable[Problem]) -> str:
    """All problems as one numbered text; empty when there is none."""
    found = list(problems)
    if not found:
        return ""
    head = "1 problem" if len(found) == 1 else f"{len(found)} problems"
    body = "\n".join(f"{number}. {problem}" for number, problem in enumerate(found, 1))
    return f"{head} in the cluster's variables, nothing was changed:\n{body}"


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name most like ``name``; every non-empty ``known`` has one."""
    choices = sorted(known)
    close = difflib.get_close_matches(name.lower(), choices, n=1, cutoff=0.0)
    return close[0] if close else choices[0] if choices else ""


def _shown(value: object) -> str:
    text = "not set" if value is None else repr(value)
    return text if len(text) <= 200 else text[:197] + "..."
