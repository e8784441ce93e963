# Copyright: (c) 2026, the nfsmail.cluster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the filters that take a profile say of it, from the profile's own keys."""

from __future__ import annotations

import yaml

from ..plugin_utils.profile import KEYS, Key


def _line(key: Key) -> str:
    other = "a release of 2.3 or 2.4" if key.name == "dovecot_version" else "a boolean"
    choices = " or ".join(f"V({choice})" for choice in key.choices) or other
    default = "" if key.default is None else f" Default V({str(key.default).lower()})."
    return f"C({key.name}), {choices}. {key.meaning}{default}"


class ModuleDocFragment:
    """The profile as a filter's input."""

    # With its type: ansible-test takes a plain assignment for a literal.
    DOCUMENTATION: str = yaml.safe_dump(
        {
            "options": {
                "_input": {
                    "type": "dict",
                    "required": True,
                    "description": [
                        "The profile, a mapping with these keys; what is missing or V(null) takes its default.",
                        *map(_line, KEYS),
                        "Numbers are read as the version that they plainly mean, C(4.1) as V(4.1), C(3) as V(3).",
                        "Unknown keys and values are one error that lists them all, each with the nearest that is known.",
                    ],
                }
            }
        }
    )
