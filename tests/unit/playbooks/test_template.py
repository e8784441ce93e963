# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""nfsmail.cluster.template: a file that host_facts has found as it should be is not asked for again, any other is."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[3]
PLAYBOOK = shutil.which("ansible-playbook") or str(ROOT / ".venv" / "bin" / "ansible-playbook")
USER = pwd.getpwuid(os.geteuid()).pw_name
# What the machine would be asked about, if it were: after host_facts has read the file, it gets another content.
BEHIND = "nobody has seen this\n"


def step(place: Path, word: str, *, behind: bool = True, mode: str = "0640", **more: Any) -> list[dict[str, Any]]:
    """Read the file, change it behind Ansible's back if told, write it from the template, and show it."""
    file = place / "etc.conf"
    arguments = {"src": "a.j2", "dest": str(file), "owner": USER, "group": USER, "mode": mode, **more.pop("args", {})}
    change = {"ansible.builtin.shell": f"printf '{BEHIND}' >{file}", "check_mode": False, "changed_when": False}
    return [
        {"nfsmail.cluster.host_facts": {"files": [str(place / "etc.*")]}},
        *([change] if behind else []),
        {"name": "Write it", "nfsmail.cluster.template": arguments, "vars": {"word": word}, "diff": False, **more},
        {"name": "Show it", "ansible.builtin.command": f"cat {file}", "check_mode": False, "changed_when": False},
    ]


def test_only_what_is_known_to_be_there_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "a.j2").write_text("# {{ word }}\n{% if word %}\nset\n{% endif %}\n", encoding="utf-8")
    tasks = [
        *step(tmp_path, "one", behind=False),
        # It is known to be there: nobody looks again.
        *step(tmp_path, "one"),
        # What was read is not what it should be.
        *step(tmp_path, "one"),
        *step(tmp_path, "two"),
        # Another mode, and secrets: the machine is asked.
        *step(tmp_path, "two", mode="0600"),
        *step(tmp_path, "two", mode="0600", no_log=True),
        # An option that is not among those of the module.
        *step(tmp_path, "two", mode="0600", args={"force": True}),
        # In check mode nothing is written, and the change is told.
        *step(tmp_path, "three", mode="0600", behind=False, check_mode=True),
        *step(tmp_path, "two", mode="0600", check_mode=True),
    ]
    play = tmp_path / "play.yml"
    play.write_text(json.dumps([{"hosts": "localhost", "gather_facts": False, "tasks": tasks}]), encoding="utf-8")
    env = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json"}
    command = [
        PLAYBOOK,
        "-i",
        "localhost,",
        "-c",
        "local",
        "-e",
        f"ansible_python_interpreter={sys.executable}",
        str(play),
    ]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads(done.stdout[done.stdout.index("{") :])["plays"][0]["tasks"]
    results = [(task["task"]["name"], task["hosts"]["localhost"]) for task in said]
    changed = [result["changed"] for name, result in results if name == "Write it"]
    files = [result["stdout"] + "\n" for name, result in results if name == "Show it"]
    one, two = "# one\nset\n", "# two\nset\n"
    assert list(zip(changed, files, strict=True)) == [
        (True, one),
        (False, BEHIND),
        (True, one),
        (True, two),
        (True, two),
        (True, two),
        (True, two),
        (True, two),
        (False, BEHIND),
    ]
    assert (tmp_path / "etc.conf").stat().st_mode & 0o7777 == 0o600


def test_each_file_that_is_written_so_is_read_and_none_that_has_secrets() -> None:
    """Otherwise the machine is asked as before, and nobody notices."""
    known = yaml.safe_load((ROOT / "roles/nfsmail/vars/main.yml").read_text(encoding="utf-8"))["__nfsmail_known_files"]
    written, secret = set(), set()
    for path in ROOT.glob("roles/*/tasks/*.yml"):
        for task in yaml.safe_load(path.read_text(encoding="utf-8")):
            if "nfsmail.cluster.template" in task:
                written.add(task["nfsmail.cluster.template"]["dest"])
                assert "no_log" not in task and "loop" not in task, task["name"]
            elif "no_log" in task:
                secret.add(str((task.get("ansible.builtin.template") or {}).get("dest")))
    plain = {path for path in written if path.startswith("/")}
    assert len(plain) >= 9 and secret & {"/etc/dovecot/dovecot.conf", "/etc/haproxy/haproxy.cfg"}
    assert {path for path in plain if not any(fnmatch(path, pattern) for pattern in known)} == set()
    assert {path for path in secret if any(fnmatch(path, pattern) for pattern in known)} == set()
