# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a translation from 2.3 accounts for everything it was given."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ansible_collections.nfsmail.cluster.plugins.plugin_utils.dialect import from_doveconf
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.upgrade_run import shown_path

# Values of 2.3 that say what 2.4 does by itself: nothing is to be written.
NOTHING_TO_WRITE = ("", "no")


def leaves(tree: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """Every setting with its sections."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from leaves(value, (*path, str(name)))
        else:
            yield (*path, str(name)), str(value)


def unaccounted(text: str, result: Mapping[str, Any]) -> list[str]:
    """What of the input is neither in the output, nor by itself so in 2.4, nor named in an item."""
    fates = {row["setting"]: row for row in result["settings"]}
    items = [row["setting"] for row in result["items"]]
    written = {word for path, _ in leaves(from_doveconf(result["conf"])) for part in path for word in words_of(part)}
    # Sections without settings count too.
    written |= {line.strip(" {") for line in result["conf"].split("\n") if line.rstrip().endswith("{")}
    written |= {word for line in list(written) for word in words_of(line)}
    lost = []
    for path, value in leaves(from_doveconf(text)):
        where = shown_path(path)
        fate = fates.get(where)
        if fate is None:
            lost.append(f"{where}: no fate")
        elif fate["how"] == "attention":
            if not any(where == item or where.startswith(item + "/") for item in items):
                lost.append(f"{where}: no item")
        elif not fate["into"]:
            if value not in NOTHING_TO_WRITE:
                lost.append(f"{where}: nothing written for {value}")
        else:
            for name in fate["into"]:
                if not set(words_of(name.rpartition("/")[2])) & written:
                    lost.append(f"{where}: {name} is not in the output")
    return lost


def words_of(name: str) -> set[str]:
    """A section's whole name and its own: ``sieve_script personal``, ``personal``."""
    return {name, name.split(" ", 1)[-1].strip('"')}
