# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The state file of a router: a run that has read the machines before another one moved users does not undo that."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PLAYBOOK = shutil.which("ansible-playbook") or str(ROOT / ".venv" / "bin" / "ansible-playbook")


@pytest.mark.skipif(os.geteuid() != 0, reason="files of root")
def test_a_state_that_is_older_than_the_file_is_not_written(tmp_path: Path) -> None:
    path, play = tmp_path / "state", tmp_path / "play.yml"
    role = {"name": "nfsmail.cluster.nfsmail", "tasks_from": "state.yml"}
    task = {
        "ansible.builtin.include_role": role,
        "vars": {"__nfsmail_state": "{{ {'serial': serial | int, 'out': []} }}", "nfsmail_state_file": str(path)},
    }
    play.write_text(json.dumps([{"hosts": "localhost", "gather_facts": False, "tasks": [task]}]), encoding="utf-8")
    env = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_FORCE_COLOR": "0"}

    def run(serial: int) -> str:
        here = ("-i", "localhost,", "-c", "local", "-e", f"ansible_python_interpreter={sys.executable}")
        command = [PLAYBOOK, *here, "-e", f"serial={serial}", str(play)]
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
        return re.sub(r"\s+", " ", f"rc={done.returncode} {done.stdout}{done.stderr}")

    for serial in (9, 9, 11):
        said = run(serial)
        assert said.startswith("rc=0 ") and json.loads(path.read_text(encoding="utf-8"))["serial"] == serial, said
    said = run(10)
    assert said.startswith("rc=2 ") and "another run has moved users meanwhile, run this again" in said, said
    assert json.loads(path.read_text(encoding="utf-8"))["serial"] == 11
