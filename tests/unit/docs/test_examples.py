# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The inventories to copy are sound, and become files for either Dovecot."""

from __future__ import annotations

import ipaddress
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.dialect import from_doveconf
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.inventory import PUBLIC_SECRETS

ROOT = Path(__file__).resolve().parents[3]
FOLDERS = sorted(path for path in (ROOT / "docs" / "examples").iterdir() if path.is_dir())
# What is to be changed on the way, for examples of a way.
STEPS = {"director_migration": (1, 2, 3)}
CASES = [(folder.name, step) for folder in FOLDERS for step in STEPS.get(folder.name, (0,))]
VERSIONS = ("2.3.19", "2.4.1")
DOCUMENTATION = [ipaddress.ip_network(net) for net in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24")]

# The roles' own variables make the plans; nothing runs on a host.
RENDER = """
- ansible.builtin.import_playbook: {root}/playbooks/validate.yml

- hosts: {hosts}
  gather_facts: false
  tasks:
    # For their variables.
    - ansible.builtin.import_role: {{name: nfsmail.cluster.dovecot, tasks_from: user.yml}}
      when: false
    - ansible.builtin.import_role: {{name: nfsmail.cluster.dovecot_proxy, tasks_from: release.yml}}
      when: false
{files}
    - ansible.builtin.copy:
        content: "{{{{ {{'members': nfsmail_members, 'map': dovecot_proxy_backends | nfsmail.cluster.shard_map}} | to_json }}}}"
        dest: "{place}/map.json"
      when: "'nfsmail_proxies' in group_names"
      delegate_to: localhost
"""
# A dovecot.conf for each release: the file's name, the group of its machines, the role.
KINDS = (("backend", "nfsmail_backends", "dovecot"), ("proxy", "nfsmail_proxies", "dovecot_proxy"))
FILE = """
    - ansible.builtin.copy:
        content: "{{{{ __{role}_plan | nfsmail.cluster.{kind}_conf }}}}"
        dest: "{place}/{kind}-{{{{ item }}}}"
      vars: {{{role}_version: "{{{{ item }}}}"}}
      loop: {versions}
      when: "'{group}' in group_names"
      delegate_to: localhost
"""


def has_proxies(folder: str) -> bool:
    """Whether an example has proxies."""
    return "mail_proxies:" in (ROOT / "docs" / "examples" / folder / "inventory.yml").read_text(encoding="utf-8")


def render(
    place: Path, folder: str, versions: Sequence[str] = VERSIONS, **variables: Any
) -> subprocess.CompletedProcess[str]:
    """Judge an example by playbooks/validate.yml, and leave the files of its first backend and its first proxy in a folder."""
    hosts = ":".join(["nfsmail_backends[0]", *(["nfsmail_proxies[0]"] if has_proxies(folder) else [])])
    playbook = place / "render.yml"
    files = "".join(
        FILE.format(kind=kind, group=group, role=role, place=place, versions=json.dumps(list(versions)))
        for kind, group, role in KINDS
    )
    playbook.write_text(RENDER.format(root=ROOT, hosts=hosts, place=place, files=files), encoding="utf-8")
    # Becoming root is for the example's machines.
    given = json.dumps({**variables, "ansible_become": False})
    return subprocess.run(
        [
            *(str(Path(sys.executable).with_name("ansible-playbook")), str(playbook)),
            *("-i", str(ROOT / "docs" / "examples" / folder), "-e", given),
        ],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_FORCE_COLOR": "0"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(("folder", "step"), CASES)
def test_an_example(tmp_path: Path, folder: str, step: int) -> None:
    director = (folder, step) == ("director_migration", 1)
    # There is no director in 2.4.
    versions = VERSIONS[:1] if director else VERSIONS
    done = render(tmp_path, folder, versions, **({"migration_step": step} if step else {}))
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    # But for what everybody can read.
    assert re.findall(r"(?:error|warning) NFS\d+", said) == ["warning NFS254"] and "WARNING" not in said, said
    assert "nfsmail_users[0].password" in said and ("nfsmail_proxy_password" in said) == has_proxies(folder)
    for version in versions:
        backend = from_doveconf((tmp_path / f"backend-{version}").read_text(encoding="utf-8"))
        features = folder == "fifty_backends"
        assert backend["protocols"] == ("imap lmtp sieve" if features else "imap lmtp")
        assert ("sieve" in str(backend.get("protocol lmtp"))) == features == ("5G" in str(backend))
        assert backend["mail_home"].startswith("/srv/mail/%")
        assert ("dovecot_config_version" in backend) == (version == "2.4.1")
        assert ("login_trusted_networks" in backend) == has_proxies(folder)
        if has_proxies(folder):
            text = (tmp_path / f"proxy-{version}").read_text(encoding="utf-8")
            proxy = from_doveconf(text)
            assert proxy["lmtp_proxy"] == "yes" and ("dovecot_config_version" in proxy) == (version == "2.4.1")
            assert ("director_servers" in proxy) == director != ("/etc/dovecot/nfsmail-shards" in text)
    if has_proxies(folder):
        # No backend is without users.
        found = json.loads((tmp_path / "map.json").read_text(encoding="utf-8"))
        assert set(found["map"].values()) == {one["name"] for one in found["members"]["mail_backends"]}


def secrets(value: Any, name: str = "") -> Iterator[str]:
    """All values of keys with password in their names."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from secrets(inner, str(key))
    elif isinstance(value, list):
        for inner in value:
            yield from secrets(inner, name)
    elif "password" in name:
        yield str(value)


def test_what_everybody_can_read_is_known() -> None:
    """The brain's list is what the examples have, no more and no less: a new example cannot bring a secret that is not told of."""
    files = [path for folder in FOLDERS for path in folder.rglob("*.yml")]
    found = {text for path in files for text in secrets(yaml.safe_load(path.read_text(encoding="utf-8")))}
    assert len(files) > 8 and found == PUBLIC_SECRETS


def test_an_example_that_is_broken_is_refused(tmp_path: Path) -> None:
    """A check that cannot fail proves nothing."""
    done = render(tmp_path, "two_machines", nfsmail_mail_home="/home/{user}")
    assert done.returncode != 0 and "mail lies below the mount point" in done.stdout, done.stdout
    assert not list(tmp_path.glob("backend*"))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_an_example_is_listed_and_for_everybody(folder: Path) -> None:
    for index in (ROOT / "README.md", ROOT / "docs" / "README.md"):
        link = os.path.relpath(folder / "inventory.yml", index.parent)
        assert f"]({link})" in index.read_text(encoding="utf-8")
    for path in folder.rglob("*.yml"):
        text = path.read_text(encoding="utf-8")
        for address in re.findall(r"\b\d+\.\d+\.\d+\.\d+\b", text):
            assert any(ipaddress.ip_address(address) in net for net in DOCUMENTATION), f"{path}: {address}"
        for name, value in re.findall(r"^(\w*password): *(\S+)$", text, re.M):
            assert value == "replace-me-and-encrypt-this-file", f"{path}: {name}"
