# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Metrics: what Dovecot, node-exporter, Prometheus and promtool of each Debian make of our configuration, file and rules."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.nfsmail.cluster.plugins.plugin_utils import alerts, metrics
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.dovecot_conf import backend_conf, proxy_conf
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.shards import shard_lines
from cluster import IMAGES, PASSWORD, Cluster, wait_for
from conftest import Release
from mailflow.imap import connect
from mailflow.lmtp import LmtpClient
from plans import backend, proxy

FILES = Path(__file__).resolve().parents[2] / "roles" / "metrics" / "files"
PROGRAM, RULES = FILES / "nfsmail_metrics.py", FILES / "nfsmail-alerts.yml"
USER, SENDER, MAIL = "anna@example.com", "a@lab.invalid", b"Subject: x\r\n\r\nhello\r\n"
LISTEN = {"metrics_listen": ["127.0.0.1"], "metrics_port": 9900}
GET = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1]).read().decode())"
# As kernel 6.12 writes it; the names of operations are the kernel's.
MOUNTSTATS = """device nfs1:/srv/mail mounted on /srv/mail with fstype nfs statvers=1.1
\topts:\trw,vers=3,rsize=262144,wsize=262144,namlen=255,hard,proto=tcp,timeo=600,retrans=2,sec=sys,mountaddr=192.0.2.1
\tage:\t3600
\tcaps:\tcaps=0xf,wtmult=4096,dtsize=262144,bsize=0,namlen=255
\tsec:\tflavor=1,pseudoflavor=1
\tevents:\t1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27
\tbytes:\t1 2 3 4 5 6 7 8
\tRPC iostats version: 1.1  p/v: 100003/3 (nfs)
\txprt:\ttcp 832 1 1 0 11 6428 6428 0 12154 0 24 26 5726
\tper-op statistics
\t        NULL: 1 1 0 44 24 0 0 0 0
\t     GETATTR: 100 103 2 11000 11200 5 80 90 0

"""


MOUNTINFO = (
    "36 25 0:45 / /srv/mail rw,relatime shared:1 - nfs nfs1:/srv/mail rw,vers=3,proto=tcp,timeo=600,retrans=2,"
    "sec=sys,mountaddr=192.0.2.1,addr=192.0.2.1\n"
)


def named(name: str, version: str) -> str:
    """What a release calls one of its counters."""
    new, old = next(one for one in metrics.COUNTERS if one.name == name).names
    return old if version == "2.3.13" else new


class Small(Cluster):
    """A backend and a proxy of one release, with metrics."""

    def __init__(self, version: str) -> None:
        super().__init__({"mail1": version, "proxy1": version})
        self.version = version

    def configure(self) -> None:
        """As the roles do."""
        self.start("mail1", backend_conf(backend(self.version, proxies=self.proxies, **LISTEN)))
        self.write_users("proxy1", [USER])
        self.write_lines("proxy1", "/etc/dovecot/nfsmail-shards", shard_lines(self.backends))
        for name in ("overrides", "moving"):
            self.write_lines("proxy1", f"/etc/dovecot/nfsmail-{name}", [])
        self.start("proxy1", proxy_conf(proxy(self.version, proxies=self.proxies, **LISTEN)))
        self.takes_mail("proxy1", USER)

    def get(self, name: str, url: str = "http://127.0.0.1:9900/metrics") -> str:
        """A page, as the machine itself sees it."""
        return self.sh(name, f"python3 -c '{GET}' '{url}'")

    def counted(self, name: str) -> dict[str, float]:
        """What Dovecot has counted on a machine."""
        kind = "backend" if name == "mail1" else "proxy"
        page, found = self.get(name), {}
        for one in metrics.counters(self.version, kind):
            match = re.search(rf"^{named(one.name, self.version)} (\S+)", page, re.M)
            assert match, f"{one.name} is not there:\n{page}"
            found[one.name] = float(match[1])
        return found

    def counts(self, name: str, counter: str, least: float = 1) -> None:
        """Wait until something was counted: Dovecot's processes report now and then."""
        wait_for(f"{counter} of {name}", lambda: self.counted(name)[counter] >= least, 20)

    def deliver(self) -> int:
        """Mail by the proxy; the code of its answer."""
        with LmtpClient(self.addresses["proxy1"], 24) as lmtp:
            return lmtp.deliver(SENDER, [USER], MAIL)[USER].code

    def session(self, password: str = PASSWORD, *command: str) -> None:
        """A login by the proxy, and a command."""
        imap = connect(self.addresses["proxy1"], 143, 20)
        try:
            imap.login(USER, password)
            imap.select("INBOX")
            imap.create("INBOX")  # NO
        except imap.error:
            assert password != PASSWORD
        imap.logout()


@pytest.fixture(scope="module", params=IMAGES)
def small(request: pytest.FixtureRequest) -> Iterator[Small]:
    with Small(request.param) as found:
        found.configure()
        yield found


def test_dovecot_counts(small: Small) -> None:
    quiet = small.counted("mail1")
    assert quiet["imap_command"] == quiet["auth_failed"] == quiet["delivery_failed"] == 0
    assert small.deliver() == 250
    small.session()
    small.session("wrong")
    for machine, counters in {
        "mail1": ("auth", "imap_command", "imap_command_failed", "delivery"),
        "proxy1": ("auth", "auth_failed", "lmtp_command"),
    }.items():
        for counter in counters:
            small.counts(machine, counter)
    if small.version != "2.3.13":
        small.counts("mail1", "mail_session")
        small.counts("proxy1", "proxy_session_established")
        small.counts("proxy1", "proxy_session")
    calm, proxy_ = small.counted("mail1"), small.counted("proxy1")
    assert (calm["delivery_failed"], calm["imap_command_failed"], calm["auth_failed"]) == (0, 1, 0)
    assert proxy_["auth_failed"] == 1 < proxy_["auth"]

    # A mailbox that takes nothing: the delivery fails, and the sender is told to come again.
    maildir = f"/srv/mail/{'/'.join(reversed(USER.split('@')))}/Maildir"
    small.sh("mail1", f"chown root {maildir}/tmp; chmod 755 {maildir}/tmp")
    assert 400 <= small.deliver() < 500
    small.counts("mail1", "delivery_failed")
    small.counts("mail1", "lmtp_deferred")
    small.counts("proxy1", "lmtp_deferred")
    small.sh("mail1", f"chown 5000 {maildir}/tmp")


def test_only_where_it_was_told_to(small: Small) -> None:
    elsewhere = f"http://{small.addresses['mail1']}:9900/metrics"
    said = small.sh("proxy1", f"python3 -c '{GET}' {elsewhere} 2>&1; true")
    assert "Connection refused" in said, said


def run_program(small: Small, *more: str) -> str:
    """Our program on the backend, with a store that is a mount for lack of one."""
    small.write("mail1", "/tmp/nfsmail-metrics", PROGRAM.read_text(encoding="utf-8"))
    common = "--uid 5000 --gid 5001 --sessions imap --locks /srv/mail"
    return small.sh("mail1", f"python3 /tmp/nfsmail-metrics {common} {' '.join(more)}")


def test_prometheus_reads_all_of_it(small: Small) -> None:
    """Prometheus, promtool and node-exporter of the same Debian."""
    small.sh("mail1", "install -d /tmp/textfile /tmp/proc/7 && ln -sfn 7 /tmp/proc/self")
    small.write("mail1", "/tmp/proc/7/mountstats", MOUNTSTATS)
    small.write("mail1", "/tmp/proc/7/mountinfo", MOUNTINFO)
    state = {"serial": 3, "out": ["mail2"], "users": {}, "until": 0}
    small.write("mail1", "/tmp/state", json.dumps(state))
    small.write_lines("mail1", "/tmp/moving", ["# nobody"])
    # As it answers where no rpcbind runs.
    small.sh("mail1", "printf '#!/bin/sh\\nexit 1\\n' >/usr/local/bin/rpcinfo; chmod 755 /usr/local/bin/rpcinfo")
    routing = "--state /tmp/state --moving /tmp/moving --backend mail1 --backend mail2 --same /tmp/state --rpc nlockmgr"
    # A mount that the mail user can write to: the container's shared memory.
    run_program(small, f"--store /dev/shm {routing} --output /tmp/textfile/nfsmail.prom")
    page = small.sh("mail1", "cat /tmp/textfile/nfsmail.prom; promtool check metrics </tmp/textfile/nfsmail.prom")
    for line in (
        'nfsmail_mount_responding{path="/dev/shm"} 1',
        'nfsmail_backend_out{backend="mail1"} 0',
        'nfsmail_backend_out{backend="mail2"} 1',
        'nfsmail_rpc_registered{program="nlockmgr"} 0',
        'nfsmail_sessions{protocol="imap"} 0',
        'nfsmail_read_ok{part="sessions"} 1',
        "nfsmail_moving 0",
    ):
        assert f"{line}\n" in page, page
    offset = re.search(r'^nfsmail_clock_offset_seconds{path="/dev/shm"} (\S+)', page, re.M)
    assert offset and abs(float(offset[1])) < 0.1, page

    collectors = "--collector.disable-defaults --collector.mountstats --collector.textfile --collector.timex"
    start = "setsid %s >/tmp/%s.log 2>&1 </dev/null &"
    paths = "--path.procfs=/tmp/proc --collector.textfile.directory=/tmp/textfile --web.listen-address=127.0.0.1:9100"
    small.sh("mail1", start % (f"prometheus-node-exporter {collectors} {paths}", "exporter"))
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": ["/tmp/alerts.yml"],
        "scrape_configs": [
            {"job_name": name, "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}
            for name, port in (("mail", 9100), ("dovecot", 9900))
        ],
    }
    small.write("mail1", "/tmp/alerts.yml", RULES.read_text(encoding="utf-8"))
    small.write("mail1", "/tmp/prometheus.yml", yaml.safe_dump(config))
    prometheus = "prometheus --config.file=/tmp/prometheus.yml --storage.tsdb.path=/tmp/data"
    small.sh("mail1", start % (f"{prometheus} --web.listen-address=127.0.0.1:9090", "prometheus"))

    def ask(path: str) -> Any:
        try:
            return json.loads(small.get("mail1", f"http://127.0.0.1:9090/api/v1/{path}"))["data"]
        except AssertionError:
            return None

    wait_for("Prometheus does not start", lambda: ask("status/buildinfo") is not None, 60)
    # What only systemd has is asked of it in molecule/default.
    asked = {name for name in metric_names() if not name.startswith("node_systemd")}
    other_machines = {"nfsmail_clock_correction_seconds"}
    ours = {name for one in metrics.counters(small.version, "backend") for name in (named(one.name, small.version),)}
    dovecot = {name for one in metrics.COUNTERS for name in one.names}
    wanted = (asked - dovecot - other_machines) | ours

    def missing() -> set[str]:
        return wanted - set(ask("label/__name__/values") or ())

    try:
        wait_for("not all metrics", lambda: not missing(), 60)
    except AssertionError:
        assert missing() == set(), small.sh(
            "mail1", "tail -n 20 /tmp/prometheus.log /tmp/exporter.log; ls -lR /tmp/textfile"
        )
    # A scrape that could not be parsed counts as down.
    up = {row["metric"]["job"]: row["value"][1] for row in ask("query?query=up")["result"]}
    assert up == {"mail": "1", "dovecot": "1"}
    error = ask("query?query=node_textfile_scrape_error")["result"][0]["value"][1]
    assert error == "0"
    # mail2 is out, and no lockd runs here; the clock of the machine that runs the test may follow nobody.
    must_be = {"NfsmailBackendOut", "NfsmailLockServiceGone"}
    may_be = {
        *("NfsmailClockNotInStep", "NfsmailRetransmissions"),
        *("NfsmailMailDeferred", "NfsmailCommandsFail", "NfsmailDeliveriesFail"),
    }

    def pending() -> set[str]:
        return {alert["labels"]["alertname"] for alert in ask("alerts")["alerts"]}

    # Rules are evaluated each second, on an idle machine.
    wait_for("the alerts are not pending", lambda: must_be <= pending(), 60)
    assert pending() <= must_be | may_be


def metric_names() -> set[str]:
    """Every metric that an alert or the dashboard asks for."""
    return {name for text in alerts.expressions() for name in re.findall(r"\b(?:nfsmail|node|dovecot)_\w+", text)}


# ---- rules ----


def promtool(release: Release, verb: str, *files: tuple[str, str]) -> None:
    """Have promtool judge the last of some files; each is a name and its text."""
    folder = release.run("mktemp", "--directory").stdout.strip()
    for name, text in files:
        release.run("sh", "-c", f"cat >{folder}/{name}", text=text)
    said = release.run("sh", "-c", f"cd {folder} && promtool {verb} rules {files[-1][0]}")
    assert said.returncode == 0, said.stdout + said.stderr


def test_promtool_takes_the_alerts_and_the_dashboard(release: Release) -> None:
    promtool(release, "check", ("alerts.yml", RULES.read_text(encoding="utf-8")))
    queries = sorted({text.replace("$instance", "mail1") for text in alerts.expressions()})
    rules = [{"record": f"panel:{number}", "expr": query} for number, query in enumerate(queries)]
    promtool(release, "check", ("panels.yml", yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]})))


# Series (per minute) that raise exactly one alert; the others of the same machine are well.
WELL = {
    'nfsmail_clock_offset_seconds{instance="mail1:9100",path="/srv/mail"}': "0.004x600",
    'nfsmail_clock_error_seconds{instance="mail1:9100",path="/srv/mail"}': "0.006x600",
    'nfsmail_mount_mounted{instance="mail1:9100",path="/srv/mail"}': "1x600",
    'nfsmail_mount_responding{instance="mail1:9100",path="/srv/mail"}': "1x600",
    'nfsmail_rpc_registered{instance="mail1:9100",program="nlockmgr"}': "1x600",
    'nfsmail_read_ok{instance="mail1:9100",part="store"}': "1x600",
    'nfsmail_moving{instance="proxy1:9100"}': "0x600",
    'nfsmail_backend_out{instance="proxy1:9100",backend="mail1"}': "0x600",
    'nfsmail_backend_out{instance="proxy2:9100",backend="mail1"}': "0x600",
    'nfsmail_routing_checksum{job="mail",instance="proxy1:9100",file="nfsmail-shards"}': "281474976710655x600",
    'nfsmail_routing_checksum{job="mail",instance="proxy2:9100",file="nfsmail-shards"}': "281474976710655x600",
    'up{job="mail",instance="mail1:9100"}': "1x600",
    'node_timex_sync_status{instance="mail1:9100"}': "1x600",
    # A server that follows nobody.
    'node_timex_sync_status{instance="nfs1:9100"}': "0x600",
    'node_systemd_unit_state{instance="mail1:9100",name="dovecot.service",state="active"}': "1x600",
    'node_systemd_unit_state{instance="mail1:9100",name="dovecot.service",state="failed"}': "0x600",
    'node_textfile_mtime_seconds{instance="mail1:9100",file="/var/lib/prometheus/node-exporter/nfsmail.prom"}': "0+60x600",
    'node_mountstats_nfs_operations_requests_total{instance="mail1:9100",export="nfs1:/srv/mail",operation="READ"}': "0+6000x600",
    'node_mountstats_nfs_operations_transmissions_total{instance="mail1:9100",export="nfs1:/srv/mail",operation="READ"}': "0+6001x600",
    'node_mountstats_nfs_operations_major_timeouts_total{instance="mail1:9100",export="nfs1:/srv/mail",operation="READ"}': "5x600",
    # One machine of each way to call a counter.
    'dovecot_auth_total{instance="mail1:9900"}': "0+600x600",
    'dovecot_auth_failed_total{instance="mail1:9900"}': "0+60x600",
    'dovecot_auth_count{instance="mail2:9900"}': "0+600x600",
    'dovecot_auth_failed_count{instance="mail2:9900"}': "0+60x600",
    'dovecot_imap_command_total{instance="mail1:9900"}': "0+6000x600",
    'dovecot_imap_command_failed_total{instance="mail1:9900"}': "0+60x600",
    'dovecot_delivery_total{instance="mail1:9900"}': "0+600x600",
    'dovecot_delivery_failed_total{instance="mail1:9900"}': "0+6x600",
    'dovecot_lmtp_command_total{instance="mail1:9900"}': "0+6000x600",
    'dovecot_lmtp_deferred_total{instance="mail1:9900"}': "0+60x600",
    # Nobody there: no share of nothing.
    'dovecot_delivery_total{instance="mail3:9900"}': "7x600",
    'dovecot_delivery_failed_total{instance="mail3:9900"}': "7x600",
}
ILL: list[tuple[str, dict[str, str]]] = [
    ("NfsmailClockOff", {"nfsmail_clock_offset_seconds": "-1.2x600"}),
    ("NfsmailClockNotInStep", {'node_timex_sync_status{instance="mail1': "0x600"}),
    ("NfsmailStoreNotMounted", {"nfsmail_mount_mounted": "0x600"}),
    ("NfsmailStoreHangs", {"nfsmail_mount_responding": "0x600"}),
    ("NfsmailRetransmissions", {"node_mountstats_nfs_operations_transmissions_total": "0+6100x600"}),
    ("NfsmailMajorTimeouts", {"node_mountstats_nfs_operations_major_timeouts_total": "0+1x600"}),
    ("NfsmailLockServiceGone", {"nfsmail_rpc_registered": "0x600"}),
    ("NfsmailDovecotDown", {'node_systemd_unit_state{instance="mail1:9100",name="dovecot.service",state="active"': "0x600"}),
    ("NfsmailMachineDown", {"up{": "1x5 0x600"}),
    ("NfsmailLoginsFail", {"dovecot_auth_failed_total": "0+400x600"}),
    ("NfsmailLoginsFail", {"dovecot_auth_failed_count": "0+400x600"}),
    ("NfsmailCommandsFail", {"dovecot_imap_command_failed_total": "0+900x600"}),
    ("NfsmailDeliveriesFail", {'dovecot_delivery_failed_total{instance="mail1': "0+60x600"}),
    ("NfsmailMailDeferred", {"dovecot_lmtp_deferred_total": "0+600x600"}),
    ("NfsmailMoveUnfinished", {"nfsmail_moving": "12x600"}),
    ("NfsmailBackendOut", {'nfsmail_backend_out{instance="proxy2': "1x600"}),
    ("NfsmailProxiesDisagree", {'nfsmail_routing_checksum{job="mail",instance="proxy2': "281474976710654x600"}),
    ("NfsmailMetricsOld", {"node_textfile_mtime_seconds": "60x600"}),
    ("NfsmailMetricsPartial", {"nfsmail_read_ok": "0x600"}),
]  # fmt: skip


LATE = {"NfsmailBackendOut": "9h"}


def rule_test(changes: dict[str, str], fires: str, at: str) -> dict[str, Any]:
    """One case for promtool: these series, and the alerts that are raised at a time."""
    series = dict(WELL)
    for start, values in changes.items():
        (name,) = [name for name in WELL if name.startswith(start)]
        series[name] = values
    raised = [{"labels": f'{{alertname="{fires}"}}', "value": 1}] if fires else []
    question = 'count by (alertname) (ALERTS{alertstate="firing"})'
    return {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [{"expr": question, "eval_time": at, "exp_samples": raised}],
    }


def test_alerts_are_raised_when_they_should(release: Release) -> None:
    assert {name for name, _ in ILL} == {alert.name for alert in alerts.ALERTS}
    cases = [rule_test({}, "", "9h"), *(rule_test(changes, name, LATE.get(name, "40m")) for name, changes in ILL)]
    # Not at once: a move takes seconds, a restart too.
    cases += [rule_test(changes, "", "1m") for _, changes in ILL]
    text = yaml.safe_dump({"rule_files": ["alerts.yml"], "evaluation_interval": "1m", "tests": cases}, width=1000)
    began = time.monotonic()
    promtool(release, "test", ("alerts.yml", RULES.read_text(encoding="utf-8")), ("test.yml", text))
    print(f"{len(cases)} cases in {time.monotonic() - began:.1f} s")
