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


def validate(tmp_path: Path, data: dict[str, Any], name: str = "validate", *options: str) -> tuple[int, str]:
    """Run a playbook; exit code and output, as one line of words."""
    path = tmp_path / "inventory.yml"
    path.write_text(yaml.safe_dump(data), encoding="utf-8")
    env = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_FORCE_COLOR": "0"}
    done = subprocess.run(
        [PLAYBOOK, "-i", str(path), *options, f"playbooks/{name}.yml"],
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


def test_balancers_in_front_of_proxies_pass(tmp_path: Path) -> None:
    data = inventory()
    balancer("balancer1", "192.0.2.31")(data)
    code, out = validate(tmp_path, data)
    assert code == 0 and "WARNING" not in out, out


def test_random_without_a_balancer_is_told_of(tmp_path: Path) -> None:
    data = inventory(nfsmail_topology="random", nfsmail_accept_unsupported_random=True)
    no_proxies(data)
    code, out = validate(tmp_path, data)
    assert code == 0 and "info NFS250: group mail_balancers is empty" in out, out


def no_proxies(data: dict[str, Any]) -> None:
    """Take the proxies out."""
    data["all"]["children"]["mail_proxies"]["hosts"] = {}


def one_address(data: dict[str, Any]) -> None:
    """Give both backends one address."""
    data["all"]["children"]["mail_backends"]["hosts"]["mail2"]["ansible_host"] = "192.0.2.11"


def balancer(name: str, address: str) -> Any:
    """Add a balancer."""

    def change(data: dict[str, Any]) -> None:
        data["all"]["children"]["mail_balancers"] = {"hosts": {name: {"ansible_host": address}}}

    return change


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
        "a variable that has another name now",
        {"dovecot_proxy_shards_file": "/etc/dovecot/map"},
        None,
        ("dovecot_proxy_shards_file: 'set for", "this variable has another name now", "call it nfsmail_shards_file"),
    ),
    (
        "no secret",
        {"nfsmail_proxy_password": ""},
        None,
        ("nfsmail_proxy_password: not set", "at least 16", "openssl rand -base64 33"),
    ),
    (
        "balancer that is a proxy",
        {},
        balancer("proxy1", "192.0.2.21"),
        ("host proxy1: 'in mail_proxies and mail_balancers'", "each needs the mail ports", "out of one of the groups"),
    ),
    (
        "balancer by name",
        {},
        balancer("balancer1", "balancer1.example.com"),
        ("nfsmail_address of balancer1: 'balancer1.example.com'", "an IP address", "set nfsmail_address of balancer1"),
    ),
    (
        "random without consent",
        {"nfsmail_topology": "random"},
        None,
        ("nfsmail_topology: 'random'", "not supported by Dovecot", "nfsmail_accept_unsupported_random: true"),
    ),
]


BAD += [
    (
        "submission without a relay",
        {"nfsmail_protocols": ["imap", "submission"]},
        None,
        ("nfsmail_protocols: 'submission'", "nobody could send anything", "nfsmail_submission_relay: {host: smtp"),
    ),
    (
        "a relay that is a backend's own submission server",
        {
            "nfsmail_protocols": ["imap", "lmtp", "submission"],
            "nfsmail_submission_relay": {"host": "localhost", "port": 587},
        },
        None,
        ("nfsmail_submission_relay: 'localhost port 587'", "mail would not leave the cluster", "such as 25"),
    ),
    (
        "extra settings against the matrix",
        {"dovecot_extra_settings": {"mmap_disable": "no"}},
        None,
        ("dovecot_extra_settings.mmap_disable: 'no'", "the matrix and the role's own variables decide this setting"),
    ),
    (
        "extra settings that lose mail",
        {"dovecot_extra_settings": {"service quota-status": {"executable": "quota-status -p postfix"}}},
        None,
        ("dovecot_extra_settings: 'service quota-status", "NFS419: ", "remove the service"),
    ),
    (
        "extra settings in the dialect of 2.3 for 2.4",
        {"dovecot_extra_settings": {"disable_plaintext_auth": "no"}, "dovecot_version": "2.4.1"},
        None,
        ("disable_plaintext_auth is not known to Dovecot 2.4 (write auth_allow_cleartext", "NFS401: "),
    ),
    (
        "a release that is not known",
        {"dovecot_version": "2.5.0"},
        None,
        ("dovecot_version: '2.5.0'", "only Dovecot 2.3 and 2.4 are known", "give a release such as 2.3.19 or 2.4.1"),
    ),
    (
        "a number for a name",
        {"nfsmail_mail_uid": "vmail"},
        None,
        ("nfsmail_mail_uid: 'vmail'", "a whole number", "write a whole number without quotes"),
    ),
    (
        "nothing for a list",
        {"nfsmail_protocols": None},
        None,
        ("nfsmail_protocols: not set", "a list; each entry text", "remove the line to have the default"),
    ),
    (
        "a mapping for a list",
        {"nfsmail_users": {"anna": "x"}},
        None,
        ("nfsmail_users: {'anna': 'x'}", "a list of {name, password}", "write a list"),
    ),
    (
        "a list for a truth",
        {"nfsmail_lockd": ["yes"]},
        None,
        ("nfsmail_lockd: ['yes']", "a boolean", "write true or false"),
    ),
    (
        "an NFS version as a bare number that means two",
        {"nfsmail_nfs_version": 4},
        None,
        ("nfsmail_nfs_version: 4", "one of 2, 3, 4.0, 4.1, 4.2", "did you mean"),
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


def test_variables_made_of_what_a_role_knows_are_left_to_the_role(tmp_path: Path) -> None:
    mounts = [{"path": "/srv/mail", "src": "x:/y", "options": "{{ nfsmail_profile | nfsmail.cluster.mount_options }}"}]
    code, out = validate(tmp_path, inventory(nfs_client_mounts=mounts, dovecot_listen="{{ __of_a_role }}"))
    assert code == 0, out


def test_what_is_not_refused_is_shown(tmp_path: Path) -> None:
    """Warnings and infos of the matrix, with an exit code of success."""
    extra = {"mail_temp_dir": "/srv/mail/tmp"}
    data = inventory(nfsmail_nfs_version=4.1, nfsmail_delivery="lda", dovecot_extra_settings=extra)
    code, out = validate(tmp_path, data)
    assert code == 0, out
    for text in (
        "warning NFS211: nfsmail_delivery=lda: dovecot-lda on another machine rewrites dovecot-uidlist",
        "warning NFS429: dovecot_extra_settings: mail_temp_dir=nfs",
        "info NFS225: nfsmail_delivery=lda",
        "Way out: use delivery lmtp through the proxy, or mta. Source: ",
    ):
        assert text in out, f"{text!r} is not in: {out}"
    assert "UNREACHABLE" not in out


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


def two_clusters() -> dict[str, Any]:
    """One inventory; the second cluster is one that is refused. Nothing listens where Ansible would connect to."""

    def cluster(name: str, numbers: tuple[int, ...], **variables: Any) -> dict[str, Any]:
        def hosts(kind: str, used: tuple[int, ...]) -> dict[str, Any]:
            here = {"ansible_host": "127.0.0.1", "ansible_port": 1}
            return {f"{kind}-{name}-{number}": {**here, "nfsmail_address": f"192.0.2.{number}"} for number in used}

        return {
            "vars": {
                "nfsmail_group_nfs_servers": f"{name}_nfs",
                "nfsmail_group_mail_backends": f"{name}_backends",
                **variables,
            },
            "children": {
                f"{name}_nfs": {"hosts": hosts("nfs", numbers[:1])},
                f"{name}_backends": {"hosts": hosts("mail", numbers[1:])},
            },
        }

    east = cluster("east", (1, 11), nfsmail_export_path="/srv/east")
    return {"all": {"children": {"east": east, "west": cluster("west", (2, 21, 22), nfsmail_export_path="srv/west")}}}


def test_two_clusters_in_one_inventory_are_judged_one_at_a_time(tmp_path: Path) -> None:
    code, out = validate(tmp_path, two_clusters(), "validate", "--limit", "east")
    assert code == 0 and "west" not in out, out
    code, out = validate(tmp_path, two_clusters(), "validate", "--limit", "west")
    assert code != 0 and "nfsmail_export_path: 'srv/west'" in out and "lists 2: mail-west-21, mail-west-22" in out, out
    assert "east" not in out
    code, out = validate(tmp_path, two_clusters())
    # Which of the two is first is chance.
    told = {"east": "['mail-west-21', 'mail-west-22', 'nfs-west-2']", "west": "['mail-east-11', 'nfs-east-1']"}
    found = re.search(r"hosts of another cluster: (\[[^]]*\]).*? whose backends are in (\w+)_backends", out)
    assert code != 0 and found and told[found[2]] == found[1], out
    assert "with --limit and the group" in out and "nothing was changed" in out, out


def test_site_configures_one_of_two_clusters(tmp_path: Path) -> None:
    code, out = validate(tmp_path, two_clusters(), "site", "--limit", "east")
    assert code != 0
    # It gets as far as its machines, which do not answer.
    tried = set(re.findall(r"\[([a-z]+-(?:east|west)-\d+)\]: UNREACHABLE", out))
    assert tried and tried <= {"nfs-east-1", "mail-east-11"}, out
    assert "west" not in out, out
