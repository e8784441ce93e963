# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Debian 11, 12 and 13 in containers after two runs of site.yml."""

from __future__ import annotations

import os
import subprocess
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
# How clients get to a proxy: to this one through the balancer only.
BALANCER = "deb13-balancer"
ENTRIES = {**{proxy: MACHINES[proxy] for proxy in PROXIES}, "deb11-proxy": MACHINES[BALANCER]}
MEASURED = [name for name in MACHINES if name != "deb11-proxy"]
# What a machine sees of a page; what it says when it cannot.
GET = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=10).read().decode())"
VERSIONS = {"deb11": "2.3.13", "deb12": "2.3.19.1", "deb13": "2.4.1"}


def machine(name: str) -> testinfra.host.Host:
    """A container."""
    return testinfra.get_host(f"docker://nfsmail-{name}")


@pytest.mark.parametrize("name", [*BACKENDS, *PROXIES])
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
            lmtp=(ENTRIES[proxy], 24),
            imap=(ENTRIES[proxy], 143),
            users=users,
            expected=placement(users, shards, overrides, names),
            listing=listing,
        )
    )
    print(result.table())
    assert result.ok, result.problems


@pytest.mark.parametrize("name", BACKENDS)
def test_backends_want_the_proxies_password_and_address(name: str) -> None:
    host = machine(name)
    for password, source in (("lab-password-1", "172.30.77.21"), ("lab-proxy-secret-0123456789", "172.30.77.99")):
        found = host.run(
            f"doveadm auth test -x service=imap -x rip={source} -x real_rip={source} user02@example.com {password}"
        )
        assert found.rc != 0, found.stdout


def test_balancer() -> None:
    host = machine(BALANCER)
    assert host.service("haproxy").is_running and host.service("haproxy").is_enabled
    conf = host.file("/etc/haproxy/haproxy.cfg")
    assert (conf.user, conf.mode) == ("root", 0o600)
    assert host.run("haproxy -c -f /etc/haproxy/haproxy.cfg").rc == 0
    # Clients that came through it are known by their own address.
    log = machine("deb11-proxy").check_output("journalctl -u dovecot --no-pager -o cat")
    logins = [line for line in log.splitlines() if "user=<>" not in line and " rip=" in line]
    assert logins and not [line for line in logins if f"rip={MACHINES[BALANCER]}," in line], logins


def page(reader: str, name: str, port: int) -> str:
    """A machine's metrics, as another machine reads them."""
    return machine(reader).run(f"python3 -c '{GET}' http://{MACHINES[name]}:{port}/metrics 2>&1").stdout


@pytest.mark.parametrize("name", MEASURED)
def test_metrics(name: str) -> None:
    host = machine(name)
    for unit in ("prometheus-node-exporter.service", "nfsmail-metrics.timer"):
        assert host.service(unit).is_enabled and host.service(unit).is_running, unit
    host.check_output("systemctl start nfsmail-metrics.service")
    written = host.file("/var/lib/prometheus/node-exporter/nfsmail.prom")
    assert (written.user, written.mode) == ("root", 0o644)
    shown = page(BALANCER, name, 9100)
    wanted = [
        "node_textfile_scrape_error 0",
        'node_scrape_collector_success{collector="mountstats"} 1',
        'node_scrape_collector_success{collector="systemd"} 1',
        *(line for line in written.content_string.splitlines() if line.startswith("nfsmail_read_ok")),
    ]
    if name in BACKENDS:
        path = 'path="/srv/mail"'
        wanted += [f"nfsmail_mount_mounted{{{path}}} 1", f"nfsmail_mount_responding{{{path}}} 1"]
        wanted += ['nfsmail_read_ok{part="sessions"} 1', 'nfsmail_sessions{protocol="imap"} 0']
    if name in PROXIES:
        wanted += ['nfsmail_backend_out{backend="deb12-backend"} 0', "nfsmail_moving 0"]
    assert not [line for line in wanted if f"{line}\n" not in shown], shown
    if name != BALANCER:
        states = [line for line in shown.splitlines() if line.startswith("node_systemd_unit_state{")]
        active = [line for line in states if 'name="dovecot.service"' in line and 'state="active"' in line]
        assert [line.split()[-1] for line in active] == ["1"], states


@pytest.mark.parametrize("name", [*BACKENDS, *PROXIES])
def test_dovecot_shows_metrics(name: str) -> None:
    suffix = "count" if name.startswith("deb11") else "total"
    host = machine(name)
    local = host.check_output(f"python3 -c '{GET}' http://127.0.0.1:9900/metrics")
    logins = [line for line in local.splitlines() if line.startswith(f"dovecot_auth_{suffix}")]
    assert len(logins) == 1 and float(logins[0].split()[1]) > 0, local
    # No packet filter where the role metrics is switched off.
    for reader, allowed in ((BALANCER, True), ("deb12-proxy", name in ("deb11-proxy", "deb12-proxy"))):
        assert (f"dovecot_auth_{suffix}" in page(reader, name, 9900)) is allowed, reader
    if name in MEASURED and name != "deb12-proxy":
        assert "Connection refused" in page("deb12-proxy", name, 9100)


def test_metrics_of_all_proxies_agree() -> None:
    sums = [
        line
        for name in PROXIES
        for line in machine(name).run("cat /var/lib/prometheus/node-exporter/nfsmail.prom").stdout.splitlines()
        if line.startswith("nfsmail_routing_checksum{")
    ]
    assert len(sums) == 4 and len(set(sums)) == 2, sums


def test_metrics_are_switched_off() -> None:
    """Last, as it takes something away."""
    name = "deb13-backend"
    root = SCENARIO.parents[1]
    play = [f"{Path(sys.executable).parent}/ansible-playbook", "-i", str(SCENARIO / "inventory"), "playbooks/site.yml"]
    off = [*play, "--tags", "metrics", "--limit", name, "-e", "metrics_enabled=false"]
    recaps = []
    for more in (["--check"], [], []):
        done = subprocess.run([*off, *more], cwd=root, env={**os.environ}, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        recaps.append(done.stdout.splitlines())
    changed = ["changed=0" not in next(line for line in recap if line.startswith(f"{name} ")) for recap in recaps]
    assert changed == [True, True, False], recaps
    host = machine(name)
    left = host.run(
        "ls /etc/systemd/system /etc /usr/local/sbin /var/lib/prometheus/node-exporter | grep -E 'nfsmail-metrics|nfsmail[.]prom'"
    )
    assert left.stdout == "", left.stdout
    assert not host.service("prometheus-node-exporter").is_running
    assert "nfsmail_metrics" not in host.check_output("nft list ruleset")
