# Copyright: (c) 2026, the nfsmail.cluster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the matrix answers for one profile: settings, mount options, reasons, findings."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from .profile import Profile, parse_profile, version_key
from .rules import RULES, Rule

LEVELS = ("error", "warning", "info")
_COMPARE: Mapping[str, Callable[[Any, Any], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "<": operator.lt,
    ">": operator.gt,
}


def applies(rule: Rule, profile: Profile) -> bool:
    """The rule's condition holds for the profile and its Dovecot release."""
    return all(getattr(profile, key) in values for key, values in rule.when.items()) and in_range(
        profile.dovecot_version, rule.versions
    )


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
    return {rule.target: rule.value for rule in _matching(profile, "set")}


def mount_options(profile: Mapping[str, Any] | Profile) -> list[str]:
    """Mount options in the order they stand in fstab."""
    return [rule.value for rule in _matching(profile, "mount")]


def needs_lockd(profile: Mapping[str, Any] | Profile) -> bool:
    """Whether lockd and statd are to run: NFSv2 or v3, and not switched off."""
    parsed = parse_profile(profile)
    return parsed.needs_lockd and parsed.lockd


def explain(profile: Mapping[str, Any] | Profile) -> list[dict[str, str]]:
    """Each setting with its value, reason and source, in the order written to the file."""
    return [
        {"setting": rule.target, "value": rule.value, "why": rule.text, "source": rule.source, "since": rule.since}
        for rule in _matching(profile, "set")
    ]


def plan_findings(profile: Mapping[str, Any] | Profile) -> list[dict[str, str]]:
    """What is wrong with the plan itself, errors first."""
    found = [
        {
            "id": rule.id,
            "level": rule.effect,
            "message": f"{rule.target}={_shown(getattr(parse_profile(profile), rule.target))}: {rule.text}",
            "fix": rule.fix,
            "source": rule.source,
        }
        for level in LEVELS
        for rule in _matching(profile, level)
    ]
    return found


def _matching(profile: Mapping[str, Any] | Profile, effect: str) -> Iterator[Rule]:
    parsed = parse_profile(profile)
    return (rule for rule in RULES if rule.effect == effect and applies(rule, parsed))


def _padded(version: str) -> tuple[int, ...]:
    # 2.4 is 2.4.0
    return (*version_key(version), 0, 0, 0)[:3]


def _shown(value: object) -> str:
    return ("no", "yes")[value] if isinstance(value, bool) else str(value)
