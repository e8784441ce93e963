# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where Ansible keeps facts from one run to the next, each run reads the machines all the same."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
PLAYBOOK = shutil.which("ansible-playbook") or str(ROOT / ".venv" / "bin" / "ansible-playbook")


def test_facts_of_an_earlier_run_count_for_nothing(tmp_path: Path) -> None:
    env = {
        **os.environ,
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_CACHE_PLUGIN": "ansible.builtin.jsonfile",
        "ANSIBLE_CACHE_PLUGIN_CONNECTION": str(tmp_path),
    }
    inventory = ROOT / "docs" / "examples" / "per_user"
    here = ("-c", "local", "-e", f"ansible_python_interpreter={sys.executable}", "-e", "ansible_become=false")
    command = [PLAYBOOK, "--check", "-i", str(inventory), *here, str(ROOT / "playbooks" / "site.yml")]
    for _ in range(2):
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
        # All are this machine, which only whoever reads them can know; so nothing is changed either.
        assert done.returncode and "every machine has a host name of its own" in done.stdout + done.stderr, done.stdout
        assert list(tmp_path.iterdir())
