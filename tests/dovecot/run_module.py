# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs within a container: a module with parameters from standard input, killed where the test says so."""

import importlib
import json
import os
import signal
import sys

from ansible.module_utils.testing import patch_module_args

HOME = "ansible_collections.nfsmail.cluster.plugins"


def die_at(place, count):
    """Have the module, or its child (of another user, so by itself), killed at the call number ``count`` of a function."""
    owner, name = place.rsplit(".", 1)
    module = importlib.import_module(owner if owner == "os" else f"{HOME}.{owner}")
    function = getattr(module, name)
    calls = []

    def dying(*args, **kwargs):
        calls.append(1)
        if len(calls) >= count:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)

    setattr(module, name, dying)


def main():
    """Read {name, args, check, die}; the module prints its result."""
    job = json.load(sys.stdin)
    module = importlib.import_module(f"{HOME}.modules.{job['name']}")
    if job["die"]:
        die_at(*job["die"])
    with patch_module_args({**job["args"], "_ansible_check_mode": job["check"]}):
        module.main()


main()
