# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""playbooks/upgrade_preview.yml: without an inventory, from any folder; what it writes, and bad input in one message."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PLAYBOOK = shutil.which("ansible-playbook") or str(ROOT / ".venv" / "bin" / "ansible-playbook")
PRINTED = ROOT / "tests" / "shared" / "doveconf23"


def run(folder: Path, *options: str, **variables: str) -> tuple[int, str]:
    """Run the playbook in a folder; exit code and output, as one line of words."""
    env = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_FORCE_COLOR": "0", "PWD": str(folder)}
    done = subprocess.run(
        [PLAYBOOK, str(ROOT / "playbooks" / "upgrade_preview.yml"), "-e", json.dumps(variables), *options],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, re.sub(r"\s+", " ", done.stdout + done.stderr)


def test_the_configuration_and_the_report_are_written(tmp_path: Path) -> None:
    shutil.copy(PRINTED / "director.txt", tmp_path / "old.txt")
    code, out = run(tmp_path, upgrade_preview_file="old.txt", nfsmail_report_path="report.json")
    assert code == 0, out
    written = tmp_path / "old-2.4.conf"
    assert written.stat().st_mode & 0o777 == 0o600
    assert "\ndovecot_config_version = 2.4.1\n" in written.read_text()
    assert "ERROR director_servers = 192.0.2.21 192.0.2.22" in out
    report = json.loads((tmp_path / "report.json").read_text())
    assert set(report) == {"counts", "items", "settings"}
    assert {"setting", "value", "happens", "fix", "source", "level"} == set(report["items"][0])
    # The configuration holds passwords, the report and the screen do not.
    assert "not-a-real-secret-0123" in written.read_text()
    assert "not-a-real-secret-0123" not in out + (tmp_path / "report.json").read_text()
    code, out = run(tmp_path, upgrade_preview_file="old.txt")
    assert code == 0 and "changed=0" in out, out


def test_another_place_another_release_and_check_mode(tmp_path: Path) -> None:
    place = tmp_path / "new.conf"
    variables = {
        "upgrade_preview_file": str(PRINTED / "wiki.txt"),
        "upgrade_preview_output": str(place),
        "upgrade_preview_version": "2.4.3",
    }
    code, out = run(tmp_path, "--check", "--diff", **variables)
    assert code == 0 and not place.exists(), out
    code, out = run(tmp_path, **variables)
    assert code == 0 and "dovecot_config_version = 2.4.3" in place.read_text(), out


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (None, "No such file"),
        ("", "the output of doveconf -n of Dovecot 2.3"),
        ("hello\n", "neither a setting nor a section"),
        ("dovecot_config_version = 2.4.1\n", "a configuration of Dovecot 2.3"),
    ],
)
def test_bad_input_is_one_clear_error(tmp_path: Path, text: str | None, word: str) -> None:
    if text is not None:
        (tmp_path / "old.txt").write_text(text)
    code, out = run(tmp_path, upgrade_preview_file="old.txt")
    assert code != 0 and word in out and "1 problem" in out and "Traceback" not in out, out
    assert [path.name for path in tmp_path.iterdir()] == (["old.txt"] if text is not None else [])


def test_a_file_must_be_named(tmp_path: Path) -> None:
    code, out = run(tmp_path)
    assert code != 0 and "upgrade_preview_file: not set" in out, out
