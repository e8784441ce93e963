# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bad inventories are refused by the playbooks before any host is touched, all problems in one message."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
PLAYBOOK = shutil.which("ansible-playbook") or str(ROOT / ".venv" / "bin" / "ansible-playbook")
SECRET = "not-a-real-secret-0123"


def inventory(**variables: Any) -> dict[str, Any]:
    """A sound cluster whose hosts do not exist: touching one would fail the test."""
    return {
        "all": {
            "vars": {"nfsmail_topology": "per_user", "nfsmail_proxy_password": SECRET, **variables},
            "children": {
                "nfs_servers": {"hosts": {"nfs1": {"ansible_host": "192.0.2.1"}}},
                "mail_backends": {
                    "hosts": {"mail1": {"ansible_host": "192.0.2.11"}, "mail2": {"ansible_host": "192.0.2.12"}}
                },
                "mail_proxies": {"hosts": {"proxy1": {"ansible_host": "192.0.2.21"}}},
            },
        }
    }


def validate(tmp_path: Path, data: dict[str, Any], name: str = "validate") -> tuple[int, str]:
    """Run a playbook; exit code and output, as one line of words."""
    path = tmp_path / "inventory.yml"
    path.write_text(yaml.safe_dump(data), encoding="utf-8")
    env = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_FORCE_COLOR": "0"}
    done = subprocess.run(
        [PLAYBOOK, "-i", str(path), f"playbooks/{name}.yml"],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, re.sub(r"\s+", " ", done.stdout + done.stderr)


def test_a_sound_inventory_passes(tmp_path: Path) -> None:
    code, out = validate(tmp_path, inventory())
    assert code == 0, out
    assert "WARNING" not in out, out


def no_proxies(data: dict[str, Any]) -> None:
    """Take the proxies out."""
    data["all"]["children"]["mail_proxies"]["hosts"] = {}


def one_address(data: dict[str, Any]) -> None:
    """Give both backends one address."""
    data["all"]["children"]["mail_backends"]["hosts"]["mail2"]["ansible_host"] = "192.0.2.11"


BAD: list[tuple[str, dict[str, Any], Any, tuple[str, ...]]] = [
    (
        "unknown topology",
        {"nfsmail_topology": "per_usr"},
        None,
        ("nfsmail_topology: 'per_usr'", "one of single, random, per_user", "did you mean 'per_user'?"),
    ),
    (
        "per_user without proxies",
        {},
        no_proxies,
        ("nfsmail_topology: 'per_user'", "needs a proxy", "add a host to mail_proxies, or use single"),
    ),
    (
        "one backend twice",
        {},
        one_address,
        ("backends[mail2].address: '192.0.2.11'", "'mail1' has the same address", "remove one of the two"),
    ),
    (
        "mail outside the mount",
        {"nfsmail_mail_home": "/home/{user}"},
        None,
        ("nfsmail_mail_home: '/home/{user}'", "below the mount point /srv/mail", "write /srv/mail/{domain}/{name}"),
    ),
    (
        "relative export",
        {"nfsmail_export_path": "srv/mail"},
        None,
        ("nfsmail_export_path: 'srv/mail'", "an absolute path", "write /srv/mail"),
    ),
    (
        "misspelt variable",
        {"nfsmail_toplogy": "single"},
        None,
        ("nfsmail_toplogy", "no role of this collection knows this variable", "did you mean 'nfsmail_topology'?"),
    ),
    (
        "no secret",
        {"nfsmail_proxy_password": ""},
        None,
        ("nfsmail_proxy_password: not set", "at least 16", "openssl rand -base64 33"),
    ),
    (
        "random without consent",
        {"nfsmail_topology": "random"},
        None,
        ("nfsmail_topology: 'random'", "not supported by Dovecot", "nfsmail_accept_unsupported_random: true"),
    ),
]


@pytest.mark.parametrize(("variables", "change", "texts"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_bad_input_is_refused_with_variable_value_rule_and_fix(
    tmp_path: Path, variables: dict[str, Any], change: Any, texts: tuple[str, ...]
) -> None:
    data = inventory(**variables)
    if change:
        change(data)
    code, out = validate(tmp_path, data)
    assert code != 0
    for text in (*texts, "nothing was changed", "rule: ", "fix: ", "source: "):
        assert text in out, f"{text!r} is not in: {out}"
    assert SECRET not in out


def test_all_problems_come_in_one_message_and_site_stops_before_any_host(tmp_path: Path) -> None:
    data = inventory(nfsmail_topology="per_usr", nfsmail_export_path="srv", nfsmail_nfs_versoin="3", nfsmail_users=[{}])
    one_address(data)
    code, out = validate(tmp_path, data, "site")
    assert code != 0
    count = re.search(r"(\d+) problems in the cluster's variables", out)
    assert count and int(count.group(1)) >= 5, out
    for text in ("per_usr", "nfsmail_export_path", "nfsmail_nfs_versoin", "nfsmail_users[0].password", "mail2"):
        assert text in out
    # The hosts do not exist: an attempt to reach one would say so.
    assert "UNREACHABLE" not in out and json.dumps(SECRET) not in out


def test_an_inventory_without_backends_is_an_error_and_not_an_empty_run(tmp_path: Path) -> None:
    data = inventory()
    data["all"]["children"]["backends"] = data["all"]["children"].pop("mail_backends")
    code, out = validate(tmp_path, data)
    assert code != 0
    assert "No host is in the group of backends" in out
