# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""playbooks/audit.yml on saved files and on this machine: its verdict, its reports, its refusals."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
PLAYBOOK = shutil.which("ansible-playbook") or str(ROOT / ".venv" / "bin" / "ansible-playbook")
SAMPLES = ROOT / "tests" / "shared" / "audit"


def audit(*arguments: str, name: str = "playbooks/audit.yml", **variables: object) -> tuple[int, str]:
    """Run the playbook; exit code and output, as one line of words."""
    env = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_FORCE_COLOR": "0"}
    command = [PLAYBOOK, *arguments, "-e", json.dumps(variables), name]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    return done.returncode, re.sub(r"\s+", " ", done.stdout + done.stderr)


def test_saved_files_of_a_sound_cluster() -> None:
    """By the playbook's full name, and with a host in the inventory that does not exist: it is not touched."""
    code, out = audit("-i", "192.0.2.1,", name="nfsmail.cluster.audit", nfsmail_audit_files=str(SAMPLES / "director"))
    assert code == 0 and "UNREACHABLE" not in out and "Nothing wrong was found on 3 machines." in out, out


def test_saved_files_with_errors_and_every_report(tmp_path: Path) -> None:
    paths = {kind: tmp_path / f"report.{kind}" for kind in ("json", "sarif", "html")}
    code, out = audit(
        nfsmail_audit_files=str(SAMPLES / "random"),
        nfsmail_report_path=str(paths["json"]),
        nfsmail_sarif_path=str(paths["sarif"]),
        nfsmail_html_path=str(paths["html"]),
    )
    assert code != 0, out
    report = json.loads(paths["json"].read_text(encoding="utf-8"))
    assert report["good"] is False and f"{report['summary']} Each is in the table above with its fix." in out
    assert "topology random likely 2 backends share a mail store (mail1, mail2), behind lb1 and no proxy" in out
    assert "fix NFS001 on mail1, mail2: set mmap_disable = yes" in out
    log = json.loads(paths["sarif"].read_text(encoding="utf-8"))
    assert log["version"] == "2.1.0"
    assert len(log["runs"][0]["results"]) == len([row for row in report["checks"] if row["level"] != "ok"])
    page = paths["html"].read_text(encoding="utf-8")
    assert page.startswith("<!DOCTYPE html>") and page.endswith("</html>\n") and " UTC</p>" in page


def test_live_machines_without_any_variable(tmp_path: Path) -> None:
    """One that answers, being no mail machine, and one that cannot be reached."""
    inventory = tmp_path / "hosts"
    here = f"ansible_connection=local ansible_python_interpreter={sys.executable}"
    inventory.write_text(f"here {here}\nthere ansible_host=192.0.2.9 ansible_ssh_common_args='-o ConnectTimeout=1'\n")
    path = tmp_path / "report.json"
    code, out = audit("-i", str(inventory), nfsmail_report_path=str(path))
    report = json.loads(path.read_text(encoding="utf-8"))
    assert code != 0 and "changed=0" in out and "changed=1" not in out, out
    told = {(row["id"], row["host"]): row["level"] for row in report["checks"]}
    assert told["NFS301", "there"] == "error" and ("NFS301", "here") not in told, out
    # With --limit, only what is left is judged.
    code, out = audit("-i", str(inventory), "--limit", "here", nfsmail_report_path=str(path))
    report = json.loads(path.read_text(encoding="utf-8"))
    assert [machine["host"] for machine in report["machines"]] == ["here"], out


def test_neither_hosts_nor_files() -> None:
    code, out = audit()
    assert code != 0
    for text in ("nfsmail_audit_files: not set", "there is neither", "-i mail1,mail2,", "nothing was changed"):
        assert text in out, out


def test_all_problems_come_in_one_message_before_any_host(tmp_path: Path) -> None:
    (tmp_path / "mail1").mkdir()
    (tmp_path / "mail1" / "doveconf.txt").write_text("}\n")
    (tmp_path / "mail1" / "mounts.txt").write_text("")
    (tmp_path / "mail2").mkdir()
    code, out = audit(
        *("-i", "192.0.2.1,"),
        nfsmail_audit_files=str(tmp_path),
        nfsmail_audit_profile={"topology": "per_usr"},
        nfsmail_html_path=str(tmp_path / "none" / "a.html"),
    )
    assert code != 0 and "5 problems in the cluster's variables, nothing was changed" in out, out
    for text in (
        "1. nfsmail_audit_files: 'mail1/doveconf.txt'",
        "rule: doveconf output, line 1: a closing bracket without a section",
        "2. nfsmail_audit_files: 'mail1/mounts.txt'",
        "rule: the file is empty",
        "save the output of: doveconf -n, as mail2/doveconf.txt",
        "nfsmail_audit_profile.topology: 'per_usr'",
        "did you mean 'per_user'?",
        "nfsmail_html_path",
    ):
        assert text in out, f"{text!r} is not in: {out}"
    assert "UNREACHABLE" not in out and "Look at the machine" not in out
