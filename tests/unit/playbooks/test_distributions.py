# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the roles would install, write and start on distributions that no machine here runs: rendered, not run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.nfsmail.cluster.plugins.module_utils._host import parse_os_release

ROOT = Path(__file__).resolve().parents[3]
# As the machines have it, shortened.
SYSTEMS = {
    "debian11": 'ID=debian\nVERSION_ID="11"',
    "debian12": 'ID=debian\nVERSION_ID="12"',
    "ubuntu2204": 'ID=ubuntu\nID_LIKE=debian\nVERSION_ID="22.04"',
    "ubuntu2404": 'ID=ubuntu\nID_LIKE=debian\nVERSION_ID="24.04"',
    "ubuntu2604": 'ID=ubuntu\nID_LIKE=debian\nVERSION_ID="26.04"',
    "almalinux9": 'ID="almalinux"\nID_LIKE="rhel centos fedora"\nVERSION_ID="9.6"',
    "stream10": 'ID="centos"\nID_LIKE="rhel fedora"\nVERSION_ID="10"',
    # Told by nfsmail_distribution.
    "oracle9": 'ID="ol"\nID_LIKE="fedora"\nVERSION_ID="9.5"',
}
TOLD = {"oracle9": "rhel 9"}
REDHAT = ("almalinux9", "stream10", "oracle9")
DOVECOT = {
    "debian11": "2.3.13",
    "debian12": "2.3.19",
    "ubuntu2204": "2.3.16",
    "ubuntu2404": "2.3.21",
    "ubuntu2604": "2.4.2",
    "almalinux9": "2.3.16",
    "stream10": "2.3.21",
    "oracle9": "2.3.16",
}
ROLES = ("timesync", "lockd", "nfs_server", "nfs_client", "dovecot", "dovecot_proxy", "failover", "balancer")
MODULES = {
    "ansible.builtin.template": "dest",
    "nfsmail.cluster.template": "dest",
    "ansible.builtin.systemd_service": "name",
}
TEMPLATES = {
    "drop-in": "nfs_server/templates/nfs-server.service.j2",
    "nfs.conf": "nfs_server/templates/nfs.conf.j2",
    "lockd": "lockd/templates/nfs.conf.j2",
    "clock": "timesync/templates/nfsmail-clock.service.j2",
    "time": "timesync/templates/time.conf.j2",
    "dovecot": "dovecot/templates/dovecot.conf.j2",
    "proxy": "dovecot_proxy/templates/dovecot.conf.j2",
    "keepalived": "failover/templates/keepalived.conf.j2",
    "haproxy": "balancer/templates/haproxy.cfg.j2",
}


def tasks_of(role: str) -> Iterator[dict[str, Any]]:
    """All tasks and handlers of a role."""
    for path in (*(ROOT / "roles" / role).glob("tasks/*.yml"), *(ROOT / "roles" / role).glob("handlers/*.yml")):
        waiting = list(yaml.safe_load(path.read_text(encoding="utf-8")))
        while waiting:
            task = waiting.pop(0)
            waiting += [inner for block in ("block", "rescue", "always") for inner in task.get(block) or []]
            yield task


def asked() -> dict[str, Any]:
    """What to render: names that the tasks have for files and units, the packages, the text of templates."""
    found: dict[str, Any] = {"packages": {}, "names": {}}
    for role in ROLES:
        names = set()
        for task in tasks_of(role):
            for module, key in MODULES.items():
                name = str((task.get(module) or {}).get(key) or "")
                if name and "item" not in name:
                    names.add(name)
            if "__nfsmail_install" in (task.get("vars") or {}):
                found["packages"][role] = task["vars"]["__nfsmail_install"]
        found["names"][role] = sorted(names)
    found["texts"] = {
        name: f"{{{{ lookup('ansible.builtin.template', '{ROOT}/roles/{path}') }}}}" for name, path in TEMPLATES.items()
    }
    found["restart"] = next(task for task in tasks_of("nfs_server") if "ansible.builtin.find" in task)[
        "ansible.builtin.find"
    ]["paths"]
    found["makes_place"] = {
        role: "{{ " + next(t for t in tasks_of(role) if t["name"] == "Make the place for nfs.conf")["when"] + " }}"
        for role in ("nfs_server", "lockd")
    }
    return found


def facts(name: str) -> dict[str, Any]:
    """What host_facts would read of a machine on which nothing is installed yet."""
    return {
        **parse_os_release(SYSTEMS[name]),
        **{"hostname": name, "packages": {}, "candidates": {}, "users": {}, "unread": [], "units": [], "state": {}},
        **{"addresses": {f"192.0.2.{11 + list(SYSTEMS).index(name)}": "eth0"}, "held_until": 0, "moving": {}},
    }


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """System to what `asked` says there. One run: starting Ansible is what takes time."""
    place = tmp_path_factory.mktemp("distributions")
    hosts = {
        name: {
            "ansible_host": f"192.0.2.{11 + number}",
            "nfsmail_service_address": f"192.0.2.{111 + number}",
            **({"nfsmail_distribution": TOLD[name]} if name in TOLD else {}),
            "read": facts(name),
        }
        for number, name in enumerate(SYSTEMS)
    }
    inventory = {
        "all": {
            "vars": {
                "nfsmail_topology": "per_user",
                "nfsmail_nfs_version": "3",
                "nfsmail_proxy_password": "not-a-real-secret-0123",
                "nfsmail_dovecot_config_version": "2.4.1",
                "ansible_connection": "local",
            },
            "children": {
                "nfs_servers": {"hosts": {"nfs1": {"ansible_host": "192.0.2.1"}}},
                "mail_backends": {"hosts": hosts},
                "mail_proxies": {"hosts": {"proxy1": {"ansible_host": "192.0.2.2"}}},
            },
        }
    }
    (place / "inventory.yml").write_text(yaml.safe_dump(inventory), encoding="utf-8")
    # For their variables; "never" keeps their tasks from being looked at, host by host.
    imported = [
        {"ansible.builtin.import_role": {"name": f"nfsmail.cluster.{role}"}, "tags": ["never"]} for role in ROLES
    ]
    play = {
        "hosts": "nfsmail_backends",
        "gather_facts": False,
        "tasks": [
            # Cacheable: among ansible_facts, as if a module had said so.
            {"ansible.builtin.set_fact": {"nfsmail": "{{ read }}", "cacheable": True}},
            *imported,
            {
                "ansible.builtin.copy": {
                    "content": "{{ asked | to_json }}",
                    "dest": f"{place}/{{{{ inventory_hostname }}}}.json",
                    "mode": "0600",
                },
                "vars": {"asked": asked()},
            },
        ],
    }
    playbook = [{"ansible.builtin.import_playbook": f"{ROOT}/playbooks/validate.yml"}, play]
    (place / "play.yml").write_text(json.dumps(playbook), encoding="utf-8")
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("ansible-playbook")),
            *("-i", str(place / "inventory.yml"), "-e", f"ansible_python_interpreter={sys.executable}"),
            str(place / "play.yml"),
        ],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_FORCE_COLOR": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return {name: json.loads((place / f"{name}.json").read_text(encoding="utf-8")) for name in SYSTEMS}


@pytest.mark.parametrize("name", SYSTEMS)
def test_packages(rendered: dict[str, dict[str, Any]], name: str) -> None:
    found = rendered[name]["packages"]
    same = {"failover": ["keepalived"], "balancer": ["haproxy"], "timesync": ["chrony"]}
    if name in REDHAT:
        nfs = ["nfs-utils"]
        assert found == {
            **{"nfs_server": nfs, "nfs_client": nfs, "lockd": ["nfs-utils", "kmod"]},
            **{"dovecot": ["dovecot"], "dovecot_proxy": ["dovecot"]},
            **same,
        }
    else:
        dovecot = ["dovecot-core", "dovecot-imapd", "dovecot-lmtpd"]
        assert found == {
            **{"nfs_server": ["nfs-kernel-server"], "nfs_client": ["nfs-common", "netbase"]},
            **{"lockd": ["nfs-common", "netbase", "kmod"], "dovecot": dovecot, "dovecot_proxy": dovecot},
            **same,
        }


@pytest.mark.parametrize("name", SYSTEMS)
def test_files_and_units(rendered: dict[str, dict[str, Any]], name: str) -> None:
    names = {role: set(found) for role, found in rendered[name]["names"].items()}
    redhat = name in REDHAT
    time = {"chronyd.service", "/etc/chrony.conf"} if redhat else {"chrony.service", "/etc/chrony/chrony.conf"}
    assert names["timesync"] == {*time, "nfsmail-clock.service", "/etc/systemd/system/nfsmail-clock.service"}
    old = name == "debian11"
    conf = "/etc/default/nfs-kernel-server" if old else "/etc/nfs.conf.d/nfsmail-server.conf"
    lockd = "/etc/default/nfs-common" if old else "/etc/nfs.conf.d/nfsmail-lockd.conf"
    drop_in = "/etc/systemd/system/nfs-server.service.d/nfsmail.conf"
    assert names["nfs_server"] == {conf, drop_in, "nfs-server.service"}
    assert names["lockd"] == {lockd, "/etc/modprobe.d/nfsmail-lockd.conf", "rpc-statd.service"}
    # The package of Red Hat's family has no such directory.
    assert rendered[name]["makes_place"] == {"nfs_server": redhat, "lockd": redhat}
    assert names["failover"] == {"/etc/keepalived/keepalived.conf", "keepalived.service"}
    assert names["balancer"] == {"/etc/haproxy/haproxy.cfg", "haproxy.service"}
    dovecot = {"/etc/dovecot/dovecot.conf", "/etc/dovecot/nfsmail-users", "dovecot.service"}
    assert dovecot <= names["dovecot"] and dovecot <= names["dovecot_proxy"]


@pytest.mark.parametrize("name", SYSTEMS)
def test_texts(rendered: dict[str, dict[str, Any]], name: str) -> None:
    texts = rendered[name]["texts"]
    redhat = name in REDHAT
    statd = "/var/lib/nfs/statd/sm" if redhat else "/var/lib/nfs/sm"
    assert f'cp -a {statd} {statd}.nfsmail"\n' in texts["drop-in"]
    assert f"rm -rf {statd}.nfsmail && sm-notify -f" in texts["drop-in"]
    assert rendered[name]["restart"] == [statd, "/proc/fs/nfsd/clients"]
    unit = "chronyd.service" if redhat else "chrony.service"
    assert f"\nWants={unit} time-sync.target\nAfter={unit}\n" in texts["clock"]
    assert "\n[mountd]\nport=20048\n" in texts["nfs.conf"] and "[lockd]\nport=4045\n" in texts["lockd"]
    socket = "/var/lib/haproxy/stats" if redhat else "/run/haproxy/admin.sock"
    assert f"  stats socket {socket} mode 600 level admin " in texts["haproxy"]
    assert f'notify_stop "{"/usr/sbin/ss" if redhat else "/usr/bin/ss"} --kill ' in texts["keepalived"]
    cert = "/etc/pki/dovecot/certs/dovecot.pem" if redhat else "/etc/dovecot/private/dovecot.pem"
    key = "/etc/pki/dovecot/private/dovecot.pem" if redhat else "/etc/dovecot/private/dovecot.key"
    version = DOVECOT[name]
    for text in (texts["dovecot"], texts["proxy"]):
        assert f" Dovecot {version}" in text
        if version.startswith("2.4"):
            assert f"\nssl_server_cert_file = {cert}\n" in text and f"\nssl_server_key_file = {key}\n" in text
            assert "\ndovecot_config_version = 2.4.1\n" in text
        else:
            assert f"\nssl_cert = <{cert}\n" in text and f"\nssl_key = <{key}\n" in text
            assert "dovecot_config_version" not in text
