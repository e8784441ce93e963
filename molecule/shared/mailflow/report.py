# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run found: rows for people, JSON for machines."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Verdict = Literal["ok", "FAIL", "not shown"]


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    value: str
    verdict: Verdict


@dataclass
class Report:
    """The outcome of a run."""

    seed: int = 0
    seconds: float = 0.0
    rows: list[Row] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    samples: dict[str, Any] = field(default_factory=dict)
    deliveries: list[dict[str, Any]] = field(default_factory=list)
    users: dict[str, dict[str, Any]] = field(default_factory=dict)
    mails_per_backend: dict[str, int] = field(default_factory=dict)
    replies: dict[str, str] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether there is something to show and nothing failed."""
        return bool(self.rows) and not self.problems and all(row.verdict != "FAIL" for row in self.rows)

    def add(self, name: str, value: object, ok: bool | None) -> None:
        """Add a row; ``None`` where the run was given nothing to judge by."""
        verdict: Verdict = "not shown" if ok is None else "ok" if ok else "FAIL"
        self.rows.append(Row(name, str(value), verdict))

    def row(self, name: str) -> Row:
        """The row of that name."""
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(f"no row {name!r}; there are: {', '.join(row.name for row in self.rows)}")

    def table(self) -> str:
        """The rows for the eye, then the problems."""
        wide = max((len(row.name) for row in self.rows), default=0)
        lines = [f"{row.verdict:<9}  {row.name:<{wide}}  {row.value}" for row in self.rows]
        lines += [f"problem: {problem}" for problem in self.problems]
        return "\n".join(lines)

    def to_json(self) -> str:
        """The whole report as JSON."""
        return json.dumps({"ok": self.ok, **asdict(self)}, indent=2, ensure_ascii=False) + "\n"
