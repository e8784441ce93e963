# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decide who gets which message, the same way for the same seed."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from mailflow.errors import MailflowError
from mailflow.samples import Sample

MAX_RECIPIENTS = 10


@dataclass(frozen=True)
class Transaction:
    """One message and those who get it in one go."""

    sample: Sample
    recipients: tuple[str, ...]


def parse_users(lines: Iterable[str]) -> dict[str, str]:
    """Read ``user:password`` or ``user password`` lines; a passwd-file with plain passwords will do."""
    users: dict[str, str] = {}
    for number, raw in enumerate(lines, 1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        if ":" in line:
            user, password = line.split(":")[:2]
        else:
            user, _, password = line.partition(" ")
        password = password.strip()
        if password.startswith("{"):
            scheme, _, password = password[1:].partition("}")
            if scheme.upper() not in {"PLAIN", "CLEAR", "CLEARTEXT"}:
                raise MailflowError(f"users, line {number}: need a plain password, not {{{scheme}}}")
        if not user or not password:
            raise MailflowError(f"users, line {number}: need 'user:password', not {line!r}")
        if user.lower() in (known.lower() for known in users):
            raise MailflowError(f"users, line {number}: {user} is there twice")
        users[user] = password
    return users


def spread(
    samples: Sequence[Sample],
    users: Iterable[str],
    seed: int,
    per_user: int = 2,
    places: Mapping[str, str] | None = None,
) -> list[Transaction]:
    """Spread every sample over the users, ``per_user`` or more for each, no sample twice for one user.

    A quarter of the samples go to two more users in the same transaction; where ``places`` tells which
    backend a user lives on, at least one of the two lives elsewhere than the first.
    """
    chance = random.Random(seed)
    everyone = sorted(users)
    if per_user > len(samples):
        raise MailflowError(f"{len(samples)} samples cannot give every user {per_user} different messages")
    chance.shuffle(everyone)
    order = list(samples)
    chance.shuffle(order)
    recipients: list[list[str]] = [[everyone[index % len(everyone)]] for index in range(len(order))]
    for chosen in chance.sample(range(len(order)), k=max(1, len(order) // 4)):
        _add_others(recipients[chosen], everyone, places or {}, chance)
    count = {user: sum(user in names for names in recipients) for user in everyone}
    for user in everyone:
        free = [names for names in recipients if user not in names]
        chance.shuffle(free)
        for names in sorted(free, key=len)[: max(0, per_user - count[user])]:
            names.append(user)
    return [
        Transaction(sample, tuple(names[start : start + MAX_RECIPIENTS]))
        for sample, names in zip(order, recipients, strict=True)
        for start in range(0, len(names), MAX_RECIPIENTS)
    ]


def _add_others(names: list[str], everyone: list[str], places: Mapping[str, str], chance: random.Random) -> None:
    others = [user for user in everyone if user not in names]
    elsewhere = [user for user in others if places.get(user) != places.get(names[0])]
    for pool in (elsewhere or others, others):
        free = [user for user in pool if user not in names]
        if free:
            names.append(chance.choice(free))
