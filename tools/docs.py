#!/usr/bin/env python3
# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes the tables of the documentation from what the code says of itself: tools/docs.py [--check]

Only what stands between the marks is written; the prose around it is ours. With --check nothing is written, and files that
are out of date are listed. Run it with .venv/bin/python.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / ".ansible" / "collections"))  # tools/setup makes it

from ansible_collections.nfsmail.cluster.plugins.plugin_utils.judge import CHECKS
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.profile import KEYS
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.rules import RULES, Rule

MARKED = re.compile(r"(<!-- begin (\S+): written by tools/docs.py -->\n).*?(<!-- end -->)", re.DOTALL)
LEVELS = ("error", "warning", "info")


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table."""
    lines = [list(head), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def prose(text: str | list[str]) -> str:
    """Ansible's markup as Markdown."""
    joined = " ".join(text) if isinstance(text, list) else text
    return re.sub(r"\b[CVOMP]\(([^()]*)\)", lambda match: f"`{match[1].partition('#')[0]}`", joined)


def code(value: Any) -> str:
    """A value as it would stand in YAML, on one line; with quotes where it would be no text without them."""
    plain = isinstance(value, str) and isinstance(yaml.safe_load(f"- {value}".replace("{", " "))[0], str)
    return f"`{value if plain else json.dumps(value)}`"


def spec(role: str) -> dict[str, Any]:
    """What a role says of itself."""
    text = (ROOT / "roles" / role / "meta" / "argument_specs.yml").read_text(encoding="utf-8")
    return dict(yaml.safe_load(text)["argument_specs"]["main"])


def variables(role: str) -> str:
    """A role's variables. A default that is computed may stand in defaults/main.yml only."""
    text = (ROOT / "roles" / role / "defaults" / "main.yml").read_text(encoding="utf-8")
    defaults = {name: value for name, value in yaml.safe_load(text).items() if value is not None}
    return table(
        ("variable", "type", "default", "meaning"),
        (
            (
                f"`{name}`",
                str(option["type"]) + (f" of {option['elements']}" if "elements" in option else ""),
                code(option.get("default", defaults[name])) if name in defaults else "not set",
                prose(option["description"])
                + (
                    f" One of {', '.join(code(choice) for choice in option['choices'])}." if "choices" in option else ""
                ),
            )
            for name, option in spec(role)["options"].items()
        ),
    )


def every_role() -> str:
    """The variables of all roles, the cluster's own first."""
    roles = sorted(
        (path.parents[1].name for path in ROOT.glob("roles/*/meta/argument_specs.yml")),
        key=lambda name: (name != "nfsmail", name),
    )
    return "\n".join(f"## {role}\n\n{spec(role)['short_description']}.\n\n{variables(role)}" for role in roles)


def condition(rule: Rule) -> str:
    """When a rule holds."""
    words = [f"{key} {' or '.join(map(_word, values))}" for key, values in rule.when.items()]
    return ", ".join([*words, *([f"Dovecot {rule.versions}"] if rule.versions else [])]) or "always"


def rules(effect: str) -> str:
    """What the matrix writes: settings or mount options."""
    return table(
        ("id", "written", "when", "why", "source"),
        (
            (
                rule.id,
                f"`{rule.target} = {rule.value}`" if effect == "set" else f"`{rule.value}`",
                condition(rule),
                rule.text,
                rule.source + (" (*)" if rule.overrides_2012 else ""),
            )
            for rule in RULES
            if rule.effect == effect
        ),
    )


def findings() -> str:
    """What the matrix refuses or warns of."""
    return table(
        ("id", "level", "when", "what goes wrong", "way out", "source"),
        (
            (
                rule.id,
                rule.effect,
                condition(rule),
                rule.text,
                rule.fix,
                rule.source + (" (*)" if rule.overrides_2012 else ""),
            )
            for level in LEVELS
            for rule in RULES
            if rule.effect == level
        ),
    )


def checks() -> str:
    """The questions of verify.yml."""
    return table(
        ("id", "what is asked", "what to do when it is wrong", "source"),
        ((check.id, check.what, check.fix, check.source) for check in CHECKS.values()),
    )


def profile_keys() -> str:
    """The words that describe a cluster to the matrix."""
    return table(
        ("key", "choices", "default", "meaning"),
        ((f"`{key.name}`", ", ".join(map(code, key.choices)), code(key.default), key.meaning) for key in KEYS),
    )


def written(name: str) -> str:
    """The text between a pair of marks; ``variables:ROLE`` and the like have an argument."""
    kind, _, argument = name.partition(":")
    if kind == "role":
        about = spec(argument)
        return "".join(f"{prose(line)}\n" for line in about["description"]) + "\n## Variables\n\n" + variables(argument)
    parts = {"variables": every_role, "findings": findings, "checks": checks, "profile-keys": profile_keys}
    return rules(argument) if kind == "rules" else parts[kind]()


def renewed(text: str) -> str:
    """A page with what stands between its marks written anew."""
    return MARKED.sub(lambda match: f"{match[1]}\n{written(match[2])}\n{match[3]}", text)


def pages() -> Mapping[Path, str]:
    """Every page that has marks, with its text as it should be."""
    found = {
        path: path.read_text(encoding="utf-8") for path in [*ROOT.glob("docs/*.md"), *ROOT.glob("roles/*/README.md")]
    }
    return {path: renewed(text) for path, text in sorted(found.items()) if MARKED.search(text)}


def main() -> int:
    """Write what is out of date, or only say so."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a page is out of date")
    check = parser.parse_args().check
    stale = [path for path, text in pages().items() if path.read_text(encoding="utf-8") != text]
    for path in stale:
        print(f"{path.relative_to(ROOT)}: {'out of date, run tools/docs.py' if check else 'written'}")
        if not check:
            path.write_text(pages()[path], encoding="utf-8")
    return 1 if stale and check else 0


def _word(value: str | bool) -> str:
    return ("no", "yes")[value] if isinstance(value, bool) else value


if __name__ == "__main__":
    sys.exit(main())
