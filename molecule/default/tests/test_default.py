# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Debian 11, 12 and 13 in containers after two runs of site.yml."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import testinfra
import yaml

sys.path.insert(0, str(Path(__file__).parents[2] / "shared"))

from mailflow import Config, placement, run
from mailflow.placement import parse_hosts, parse_shards

SCENARIO = Path(__file__).parents[1]
HOSTS = yaml.safe_load((SCENARIO / "inventory" / "hosts.yml").read_text(encoding="utf-8"))["all"]["children"]
MACHINES = {name: host["nfsmail_address"] for name, host in HOSTS["containers"]["hosts"].items()}
BACKENDS, PROXIES = list(HOSTS["mail_backends"]["hosts"]), list(HOSTS["mail_proxies"]["hosts"])
USERS = yaml.safe_load((SCENARIO / "inventory" / "group_vars" / "all.yml").read_text(encoding="utf-8"))["nfsmail_users"]
VERSIONS = {"deb11": "2.3.13", "deb12": "2.3.19.1", "deb13": "2.4.1"}


def machine(name: str) -> testinfra.host.Host:
    """A container."""
    return testinfra.get_host(f"docker://nfsmail-{name}")


@pytest.mark.parametrize("name", MACHINES)
def test_dovecot_runs_the_configuration_that_was_written(name: str) -> None:
    host = machine(name)
    assert host.service("dovecot").is_running, host.run("journalctl -u dovecot -n 50 --no-pager").stdout
    assert host.service("dovecot").is_enabled
    assert host.check_output("dovecot --version").startswith(VERSIONS[name.partition("-")[0]])
    assert host.run("doveconf -n").rc == 0
    conf = host.file("/etc/dovecot/dovecot.conf")
    assert (conf.user, conf.mode) == ("root", 0o600)
    log = host.check_output("journalctl -u dovecot --no-pager -o cat")
    assert not [word for word in ("Error: ", "Fatal: ", "Panic: ", "Warning: Obsolete") if word in log], log


@pytest.mark.parametrize("name", BACKENDS)
def test_backend_files(name: str) -> None:
    host = machine(name)
    assert host.user("vmail").uid == 5000 and host.user("vmail").shell == "/usr/sbin/nologin"
    fstab = host.file("/etc/fstab").content_string
    assert "deb12-proxy:/srv/mail /srv/nfs nfs vers=3,proto=tcp,hard," in fstab
    unit = host.check_output("systemctl cat dovecot.service")
    assert "RequiresMountsFor=/srv/mail" in unit and "AssertPathIsMountPoint=/srv/mail" in unit
    settings = "mmap_disable mail_fsync dotlock_use_excl mail_nfs_storage mail_nfs_index lock_method"
    values = [line.split(" = ")[1] for line in host.check_output(f"doveconf {settings}").splitlines()]
    assert values == ["yes", "always", "yes", "no", "no", "fcntl"]


@pytest.mark.parametrize("name", PROXIES)
def test_nfs_server_and_time_files(name: str) -> None:
    host = machine(name)
    exports = host.file("/etc/exports.d/nfsmail.exports").content_string.splitlines()[-1]
    assert exports.startswith("/srv/mail 172.30.77.11(rw,sync,root_squash,") and "*" not in exports
    if name.startswith("deb11"):
        assert "--port 20048" in host.file("/etc/default/nfs-kernel-server").content_string
        assert "--port 4046 --outgoing-port 4047" in host.file("/etc/default/nfs-common").content_string
    else:
        assert host.check_output("nfsconf --get lockd port") == "4045"
        assert host.check_output("nfsconf --get mountd port") == "20048"
        assert host.check_output("nfsconf --get nfsd vers4.2") == "n"
    assert host.run("chronyd -p -f /etc/chrony/chrony.conf").rc == 0
    assert "allow 172.30.77.13" in host.file("/etc/chrony/chrony.conf").content_string
    verdict = host.run("systemd-analyze verify nfs-server.service")
    assert "nfsmail.conf" not in verdict.stderr + verdict.stdout


@pytest.mark.parametrize("proxy", PROXIES)
def test_mail_through_each_proxy_reaches_backends_of_all_releases(proxy: str) -> None:
    """2.3 and 2.4 proxies, 2.3 and 2.4 backends: the same user is on the same backend whatever proxy is asked."""
    host = machine(proxy)
    shards = parse_shards(host.check_output("cat /etc/dovecot/nfsmail-shards").splitlines())
    overrides = parse_hosts(host.check_output("cat /etc/dovecot/nfsmail-overrides").splitlines(), "overrides")
    users = {user["name"]: "lab-password-1" for user in USERS}
    names = {MACHINES[backend]: backend for backend in BACKENDS}

    def listing() -> list[str]:
        return [
            line
            for backend in BACKENDS
            for line in machine(backend).check_output("find /srv/mail -type f").splitlines()
        ]

    result = run(
        Config(
            lmtp=(MACHINES[proxy], 24),
            imap=(MACHINES[proxy], 143),
            users=users,
            expected=placement(users, shards, overrides, names),
            listing=listing,
        )
    )
    print("\n".join(result.table()))
    assert result.ok, result.problems


@pytest.mark.parametrize("name", BACKENDS)
def test_backends_want_the_proxies_password_and_address(name: str) -> None:
    host = machine(name)
    for password, source in (("lab-password-1", "172.30.77.21"), ("lab-proxy-secret-0123456789", "172.30.77.99")):
        found = host.run(
            f"doveadm auth test -x service=imap -x rip={source} -x real_rip={source} user02@example.com {password}"
        )
        assert found.rc != 0, found.stdout
