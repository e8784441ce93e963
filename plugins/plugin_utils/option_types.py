# Copyright: (c) 2026, the nfsmail.cluster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether a variable's value is of the kind that its argument spec says, told as one of our problems.

Stricter than Ansible where Ansible guesses: a mapping is no text, and ``true`` is no number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .errors import Problem, nearest
from .profile import FALSE_WORDS, TRUE_WORDS, as_list, in_words

SOURCE = "docs: variables"
# What the description of an option without a default says.
NOT_SET = "Not set "


def type_problems(name: str, value: Any, option: Mapping[str, Any]) -> list[Problem]:
    """What is wrong with the value of a variable, by its argument spec (``type``, ``elements``, ``choices``, ``default``)."""
    if value is None:
        # Nothing is a documented value where the default is empty, or there is none and the description says so; a default that
        # is computed is not in the spec.
        if option["default"] is None if "default" in option else NOT_SET in str(option.get("description")):
            return []
        return [Problem(name, None, _wanted(option), "give a value, or remove the line to have the default", SOURCE)]
    kind = str(option.get("type", "str"))
    choices = [str(choice) for choice in option.get("choices") or ()]
    if not _KINDS[kind](value, choices):
        return [Problem(name, value, _wanted(option), _FIX[kind], SOURCE)]
    if kind == "list":
        return _element_problems(name, value, option, choices)
    return _choice_problems(name, value, option, choices)


def _element_problems(name: str, value: Any, option: Mapping[str, Any], choices: Sequence[str]) -> list[Problem]:
    kind = str(option.get("elements", "raw"))
    items = as_list(value) if isinstance(value, str) else value
    problems: list[Problem] = []
    for number, item in enumerate(items):
        where = f"{name}[{number}]"
        if not _KINDS[kind](item, choices):
            problems.append(Problem(where, item, _NAMES[kind], _FIX[kind], SOURCE))
        else:
            problems += _choice_problems(where, item, option, choices)
    return problems


def _choice_problems(name: str, value: Any, option: Mapping[str, Any], choices: Sequence[str]) -> list[Problem]:
    text = in_words(value)
    if not choices or text in choices:
        return []
    return [Problem(name, value, f"one of {', '.join(choices)}", f"did you mean {nearest(text, choices)!r}?", SOURCE)]


def _wanted(option: Mapping[str, Any]) -> str:
    kind = str(option.get("type", "str"))
    if kind == "list":
        return f"a list; each entry {_NAMES[str(option.get('elements', 'raw'))]}"
    return _NAMES[kind]


def _text(value: Any, choices: Sequence[str]) -> bool:
    # An unquoted yes is true in YAML: read it as the word where the word is a choice.
    if isinstance(value, bool):
        return "yes" in choices and "no" in choices
    return isinstance(value, (str, int, float))


def _number(value: Any, read: Callable[[Any], Any]) -> bool:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return False
    try:
        return float(read(value)) == float(value)
    except (ValueError, OverflowError):
        return False


_KINDS: Mapping[str, Callable[[Any, Sequence[str]], bool]] = {
    "str": _text,
    "path": _text,
    "int": lambda value, choices: _number(value, int),
    "float": lambda value, choices: _number(value, float),
    "bool": lambda value, choices: isinstance(value, bool) or str(value).strip().lower() in TRUE_WORDS | FALSE_WORDS,
    "list": lambda value, choices: isinstance(value, (list, tuple, str)),
    "dict": lambda value, choices: isinstance(value, Mapping),
    "raw": lambda value, choices: True,
}
_NAMES = {
    "str": "text",
    "path": "a path",
    "int": "a whole number",
    "float": "a number",
    "bool": "a boolean",
    "dict": "a mapping",
    "raw": "of any kind",
}
_FIX = {
    "str": "write one text, in quotes",
    "path": "write one path, in quotes",
    "int": "write a whole number without quotes",
    "float": "write a number without quotes",
    "bool": "write true or false",
    "list": "write a list, one entry a line with - in front",
    "dict": "write a mapping, one key: value a line",
}
