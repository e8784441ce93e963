# Copyright: (c) 2026, the nfsmail.cluster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the matrix answers: settings, mount options, reasons, findings about a plan and about settings somebody wrote."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

from . import dialect
from .errors import NfsmailError, Problem
from .profile import Profile, in_words, parse_profile, version_key
from .rules import DIALECT, RULES, Rule
from .written import View, matched, shown, views

LEVELS = ("error", "warning", "info")
_COMPARE: Mapping[str, Callable[[Any, Any], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "<": operator.lt,
    ">": operator.gt,
}
Finding = dict[str, str]


def applies(rule: Rule, profile: Profile) -> bool:
    """The rule's condition holds for the profile and its Dovecot release."""
    return all(getattr(profile, key) in values for key, values in rule.when.items()) and (
        not rule.versions or in_range(profile.dovecot_version, rule.versions)
    )


@cache
def in_range(version: str, versions: str) -> bool:
    """``2.4.1`` is in ``>=2.4,<2.4.5``; an empty range holds every release."""
    have = _padded(version)
    for part in filter(None, versions.split(",")):
        sign = part[:2] if part[:2] in _COMPARE else part[:1]
        if not _COMPARE[sign](have, _padded(part[len(sign) :])):
            return False
    return True


def settings(profile: Mapping[str, Any] | Profile) -> dict[str, str]:
    """Setting name to value, only what the matrix owns."""
    return {rule.target: rule.value for rule in matching(profile, "set")}


def mount_options(profile: Mapping[str, Any] | Profile) -> list[str]:
    """Mount options in the order they stand in fstab."""
    return [rule.value for rule in matching(profile, "mount")]


def kernel_settings(profile: Mapping[str, Any] | Profile) -> dict[str, str]:
    """Parameters of kernel modules on machines that mount the store, ``MODULE.NAME`` to value.

    They are options of modprobe.d and, for a module that is loaded, sysctls of the same name.
    """
    return {rule.target: rule.value for rule in matching(profile, "kernel")}


def needs_lockd(profile: Mapping[str, Any] | Profile) -> bool:
    """Whether lockd and statd are to run: NFSv2 or v3, and not switched off."""
    parsed = parse_profile(profile)
    return parsed.needs_lockd and parsed.lockd


def explain(profile: Mapping[str, Any] | Profile) -> list[Finding]:
    """Each setting with its value, reason and source, in the order written to the file.

    ``since``: the first Dovecot release, of those that the matrix judges, for which the rule holds.
    """
    return [
        {"setting": rule.target, "value": rule.value, "why": rule.text, "source": rule.source, "since": rule.since}
        for rule in matching(profile, "set")
    ]


def plan_findings(profile: Mapping[str, Any] | Profile) -> list[Finding]:
    """What is wrong with the plan itself, errors first."""
    parsed = parse_profile(profile)
    found = [
        _finding(rule, f"{rule.target}={in_words(getattr(parsed, rule.target))}")
        for rule in _by_effect()["finding"]
        if applies(rule, parsed)
    ]
    return _errors_first(found)


def written_findings(
    conf: Mapping[str, Any],
    profile: Mapping[str, Any] | Profile,
    kind: str = "backend",
    store: str = "",
    home: str = "",
) -> list[Finding]:
    """What is wrong with settings that somebody wrote, errors first.

    ``conf``: settings as ``from_doveconf`` gives them. ``kind``: ``backend`` or ``proxy``. ``store``, ``home``: the mount
    point of the mail store and the users' home, where they are known.
    """
    parsed = parse_profile(profile)
    rules = [rule for rule in _by_effect()["written"] if kind in rule.on and applies(rule, parsed)]
    found: dict[str, Finding] = {}
    for section, view in views(conf, parsed.series, store, home):
        for rule in rules:
            names = None if rule.id in found else matched(rule.found, view)
            if names is not None:
                found[rule.id] = _finding(rule, _told(rule, names, section, view))
    return _errors_first(found.values())


def dialect_errors(conf: Mapping[str, Any], version: str) -> list[Finding]:
    """What the release would refuse or misread, whatever the cluster is like."""
    found = [
        row for kind in ("backend", "proxy") for row in written_findings(conf, Profile(dovecot_version=version), kind)
    ]
    return [row for row in {row["id"]: row for row in found}.values() if row["id"] in DIALECT]


def to_doveconf(mapping: Any, version: str) -> str:
    """Configuration text in the dialect of ``version``; what that release would refuse or misread is an error."""
    text = dialect.to_doveconf(mapping, version)
    if isinstance(mapping, Mapping):
        problems = [finding_problem("settings", row) for row in dialect_errors(mapping, version)]
        if problems:
            raise NfsmailError(problems)
    return text


def finding_problem(variable: str, row: Finding) -> Problem:
    """A finding as a problem of an operator's variable."""
    what, _, rule = row["message"].partition(": ")
    return Problem(variable, what, f"{row['id']}: {rule}", row["fix"], row["source"])


def matching(profile: Mapping[str, Any] | Profile, effect: str) -> Iterator[Rule]:
    """The rules of one effect that apply."""
    parsed = parse_profile(profile)
    return (rule for rule in _by_effect()[effect] if applies(rule, parsed))


@cache
def _by_effect() -> Mapping[str, tuple[Rule, ...]]:
    def kind(rule: Rule) -> str:
        return rule.effect if rule.effect not in LEVELS else "written" if rule.found else "finding"

    return {name: tuple(rule for rule in RULES if kind(rule) == name) for name in {kind(rule) for rule in RULES}}


def _finding(rule: Rule, about: str) -> Finding:
    return {
        "id": rule.id,
        "level": rule.effect,
        "message": f"{about}: {rule.text}",
        "fix": rule.fix,
        "source": rule.source,
    }


def _errors_first(found: Any) -> list[Finding]:
    return sorted(found, key=lambda row: LEVELS.index(row["level"]))


def _told(rule: Rule, names: list[str], section: str, view: View) -> str:
    # A pattern of names is nothing to show.
    missing = [name[1:] for name in rule.found if re.fullmatch(r"![\w /-]+", name)]
    texts = [*(shown(name, view) for name in names), *(f"no {name}" for name in missing)]
    return ", ".join(dict.fromkeys(texts)) + (f" in {section}" if section else "")


def _padded(version: str) -> tuple[int, ...]:
    # 2.4 is 2.4.0
    return (*version_key(version), 0, 0, 0)[:3]
