# Copyright: (c) 2026, the nfsmail.cluster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is worth an alert, and what stands on the dashboard: for Prometheus and Grafana.

``tools/docs.py`` writes both as files of the role ``metrics``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .judge import MAX_OFFSET
from .metrics import COUNTERS

# What node-exporter says on all of Debian 11 to 13 once the role has switched its collectors on.
EXPORTER = (
    "node_mountstats_nfs_operations_requests_total",
    "node_mountstats_nfs_operations_transmissions_total",
    "node_mountstats_nfs_operations_major_timeouts_total",
    "node_mountstats_nfs_operations_response_time_seconds_total",
    "node_mountstats_nfs_operations_request_time_seconds_total",
    "node_systemd_unit_state",
    "node_textfile_mtime_seconds",
    "node_timex_sync_status",
)
WINDOW = "5m"


def rate(name: str, window: str = WINDOW) -> str:
    """Events a second of one of Dovecot's counters, whatever the release calls it."""
    new, old = next(one for one in COUNTERS if one.name == name).names
    return f"(rate({new}[{window}]) or rate({old}[{window}]))"


def share(part: str, whole: str, window: str = WINDOW) -> str:
    """Part of a whole, machine by machine; nothing where the whole is 0."""
    return f"{rate(part, window)} / ({rate(whole, window)} > 0)"


def calls(word: str) -> str:
    """RPC calls a second of each mount."""
    return f"sum by (instance, export) (rate(node_mountstats_nfs_operations_{word}_total[{WINDOW}]))"


@dataclass(frozen=True)
class Alert:
    """One alert: when (``expr`` for ``lasting``), how bad (``critical``: mail is lost or nobody reads mail), and what to do."""

    name: str
    expr: str
    lasting: str
    severity: str
    summary: str
    todo: str


ALERTS: tuple[Alert, ...] = (
    Alert(
        "NfsmailClockOff",
        # As far off at least.
        f"abs(nfsmail_clock_offset_seconds) - nfsmail_clock_error_seconds > {MAX_OFFSET:g}",
        "5m",
        "critical",
        "The clocks of {{ $labels.instance }} and of the NFS server are {{ $value | humanizeDuration }} apart or more.",
        "Look at chronyc -n tracking on both. Dovecot takes locks for stale and kills mail processes.",
    ),
    Alert(
        "NfsmailClockNotInStep",
        # A server that follows nobody is never in step: only machines that mount the store count.
        "node_timex_sync_status == 0 and on (instance) nfsmail_mount_mounted",
        "15m",
        "warning",
        "The clock of {{ $labels.instance }} follows no source.",
        "Look at chronyc -n sources.",
    ),
    Alert(
        "NfsmailStoreNotMounted",
        "nfsmail_mount_mounted == 0",
        "2m",
        "critical",
        "Nothing is mounted at {{ $labels.path }} on {{ $labels.instance }}.",
        "Look at systemctl status of the mount unit. Dovecot does not run without it.",
    ),
    Alert(
        "NfsmailStoreHangs",
        "nfsmail_mount_responding == 0",
        "3m",
        "critical",
        "The mail store at {{ $labels.path }} does not answer {{ $labels.instance }}, or refuses a file.",
        "Look at journalctl -u nfsmail-metrics, the kernel's log, and the NFS server.",
    ),
    Alert(
        "NfsmailRetransmissions",
        f"{calls('transmissions')} / ({calls('requests')} > 0) - 1 > 0.01",
        "10m",
        "warning",
        "{{ $labels.instance }} sends {{ $value | humanizePercentage }} of its RPC calls for {{ $labels.export }} again.",
        "Look at the network, and at the load of the NFS server.",
    ),
    Alert(
        "NfsmailMajorTimeouts",
        f"{calls('major_timeouts')} > 0",
        "5m",
        "critical",
        "RPC calls of {{ $labels.instance }} for {{ $labels.export }} time out.",
        "Look at the NFS server and the network.",
    ),
    Alert(
        "NfsmailLockServiceGone",
        "nfsmail_rpc_registered == 0",
        "2m",
        "critical",
        "{{ $labels.program }} is not registered on {{ $labels.instance }}: locks fail or get lost.",
        "Look at rpcinfo -p, systemctl status rpc-statd; site.yml repairs it.",
    ),
    Alert(
        "NfsmailDovecotDown",
        'node_systemd_unit_state{name="dovecot.service",state="active"} == 0',
        "2m",
        "critical",
        "Dovecot does not run on {{ $labels.instance }}.",
        "Look at journalctl -u dovecot -n 50.",
    ),
    Alert(
        "NfsmailMachineDown",
        # Of the machines that had our file.
        "up == 0 and on (instance) max by (instance) (max_over_time(nfsmail_read_ok[1d]))",
        "3m",
        "critical",
        "Prometheus cannot read {{ $labels.instance }}.",
        "Look at the machine; with it down, no other alert of it comes.",
    ),
    Alert(
        "NfsmailLoginsFail",
        f"{share('auth_failed', 'auth')} > 0.5",
        "15m",
        "warning",
        "{{ $value | humanizePercentage }} of the logins at {{ $labels.instance }} fail.",
        "Somebody guesses passwords, or users cannot get in: look at Dovecot's log.",
    ),
    Alert(
        "NfsmailCommandsFail",
        f"{share('imap_command_failed', 'imap_command')} > 0.1",
        "15m",
        "warning",
        "{{ $value | humanizePercentage }} of the IMAP commands at {{ $labels.instance }} are answered NO or BAD.",
        "Look at Dovecot's log: users see errors.",
    ),
    Alert(
        "NfsmailDeliveriesFail",
        f"{share('delivery_failed', 'delivery')} > 0.05",
        "10m",
        "critical",
        "{{ $value | humanizePercentage }} of the deliveries at {{ $labels.instance }} fail.",
        "Look at Dovecot's log; senders try again for days, then mail bounces.",
    ),
    Alert(
        "NfsmailMailDeferred",
        # A move defers for seconds.
        f"{share('lmtp_deferred', 'lmtp_command')} > 0.05",
        "15m",
        "warning",
        "{{ $value | humanizePercentage }} of the LMTP commands at {{ $labels.instance }} are answered: later.",
        "Look at Dovecot's log on the proxies and the backends.",
    ),
    Alert(
        "NfsmailMoveUnfinished",
        "nfsmail_moving > 0",
        "10m",
        "critical",
        "A move of users was not finished on {{ $labels.instance }}; their mail waits at the sender.",
        "Run the same playbook again: drain, undrain, move_user or roll.",
    ),
    Alert(
        "NfsmailBackendOut",
        "max by (backend) (nfsmail_backend_out) == 1",
        "8h",
        "warning",
        "Backend {{ $labels.backend }} has been out for a working day.",
        "undrain brings it back; to take it out for good, say so in the inventory.",
    ),
    Alert(
        "NfsmailProxiesDisagree",
        "max by (job, file) (nfsmail_routing_checksum) != min by (job, file) (nfsmail_routing_checksum)",
        "5m",
        "critical",
        "Proxies have different {{ $labels.file }}: a user can be opened on two backends.",
        "Run site.yml for all proxies.",
    ),
    Alert(
        "NfsmailMetricsOld",
        'time() - node_textfile_mtime_seconds{file=~"(.*/)?nfsmail[.]prom"} > 600',
        "5m",
        "warning",
        "{{ $labels.instance }} has not written its metrics for ten minutes.",
        "Look at systemctl status nfsmail-metrics.timer nfsmail-metrics.service.",
    ),
    Alert(
        "NfsmailMetricsPartial",
        "nfsmail_read_ok == 0",
        "15m",
        "warning",
        "{{ $labels.instance }} cannot read its {{ $labels.part }}.",
        "Look at journalctl -u nfsmail-metrics.",
    ),
)


def alert_rules() -> dict[str, Any]:
    """The alerts as a rule file of Prometheus."""
    return {
        "groups": [
            {
                "name": "nfsmail",
                "rules": [
                    {
                        "alert": one.name,
                        "expr": one.expr,
                        "for": one.lasting,
                        "labels": {"severity": one.severity},
                        "annotations": {"summary": one.summary, "description": one.todo},
                    }
                    for one in ALERTS
                ],
            }
        ]
    }


@dataclass(frozen=True)
class Panel:
    """One graph: queries with their legends, and the unit of Grafana."""

    title: str
    unit: str
    queries: tuple[tuple[str, str], ...]


PANELS: tuple[tuple[str, tuple[Panel, ...]], ...] = (
    (
        "Users",
        (
            Panel("Users connected", "short", (("nfsmail_users{@}", "{{instance}}"),)),
            Panel("Sessions", "short", (("nfsmail_sessions{@}", "{{instance}} {{protocol}}"),)),
            Panel(
                "Logins",
                "ops",
                ((rate("auth"), "{{instance}}"), (rate("auth_failed"), "{{instance}} failed")),
            ),
            Panel(
                "IMAP commands",
                "ops",
                ((rate("imap_command"), "{{instance}}"), (rate("imap_command_failed"), "{{instance}} NO or BAD")),
            ),
            Panel(
                "Deliveries",
                "ops",
                (
                    (rate("delivery"), "{{instance}}"),
                    (rate("delivery_failed"), "{{instance}} failed"),
                    (rate("lmtp_deferred"), "{{instance}} deferred"),
                ),
            ),
            Panel(
                "Sessions begun by proxies, and ended",
                "ops",
                (
                    (rate("proxy_session_established"), "{{instance}} begun"),
                    (rate("proxy_session"), "{{instance}} ended"),
                    (rate("mail_session"), "{{instance}} mailbox closed"),
                ),
            ),
        ),
    ),
    (
        "Mail store",
        (
            Panel("RPC calls", "ops", ((calls("requests"), "{{instance}} {{export}}"),)),
            Panel(
                "RPC calls sent again",
                "percentunit",
                ((f"{calls('transmissions')} / ({calls('requests')} > 0) - 1", "{{instance}} {{export}}"),),
            ),
            Panel(
                "Time of an RPC call",
                "s",
                (
                    (f"{calls('request_time_seconds')} / ({calls('requests')} > 0)", "{{instance}} {{export}}"),
                    (f"{calls('response_time_seconds')} / ({calls('requests')} > 0)", "{{instance}} {{export}} server"),
                ),
            ),
            Panel("Store answers", "short", (("nfsmail_mount_responding{@}", "{{instance}} {{path}}"),)),
            Panel("Time to set a file's time", "s", (("nfsmail_mount_response_seconds{@}", "{{instance}} {{path}}"),)),
            Panel("Locks", "short", (('nfsmail_locks{type="posix",@}', "{{instance}} {{path}} {{state}}"),)),
        ),
    ),
    (
        "Clocks and routing",
        (
            Panel("Clock against the NFS server", "s", (("nfsmail_clock_offset_seconds{@}", "{{instance}}"),)),
            Panel("Yet to be corrected by chrony", "s", (("nfsmail_clock_correction_seconds{@}", "{{instance}}"),)),
            Panel("Backends that are out", "short", (("nfsmail_backend_out{@}", "{{backend}} by {{instance}}"),)),
            Panel(
                "Moves",
                "short",
                (
                    ("nfsmail_moving{@}", "{{instance}} on the way"),
                    ("changes(nfsmail_routing_serial{@}[1h])", "{{instance}} steps in an hour"),
                ),
            ),
            Panel("Lock services", "short", (("nfsmail_rpc_registered{@}", "{{instance}} {{program}}"),)),
            Panel(
                "Dovecot runs",
                "short",
                (('node_systemd_unit_state{name="dovecot.service",state="active",@}', "{{instance}}"),),
            ),
        ),
    ),
)
SELECTED = 'instance=~"$instance(:[0-9]+)?"'


def _selected(query: str) -> str:
    """Only the machines that are chosen on the dashboard."""
    if "@" in query:
        return query.replace("@", SELECTED)
    return query.replace(f"[{WINDOW}]", f"{{{SELECTED}}}[{WINDOW}]")


def dashboard() -> dict[str, Any]:
    """The dashboard for Grafana to import; it asks for the data source and for the machines."""
    source = {"type": "prometheus", "uid": "${datasource}"}
    panels: list[dict[str, Any]] = []
    line = 0
    for row, graphs in PANELS:
        panels.append(
            {"id": len(panels) + 1, "type": "row", "title": row, "collapsed": False, "panels": []}
            | {"gridPos": {"h": 1, "w": 24, "x": 0, "y": line}}
        )
        line += 1
        for number, graph in enumerate(graphs):
            place = {"h": 8, "w": 8, "x": number % 3 * 8, "y": line + number // 3 * 8}
            panels.append(_graph(len(panels) + 1, graph, source, place))
        line += -(-len(graphs) // 3) * 8
    machines = {
        "name": "instance",
        "label": "Machine",
        "type": "query",
        "datasource": source,
        "query": {"query": "label_values(nfsmail_read_ok, instance)", "refId": "instance"},
        "includeAll": True,
        "multi": True,
        # Dovecot's port is another instance of the same machine.
        "regex": "/([^:]+).*/",
        "allValue": ".*",
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        "refresh": 2,
        "sort": 1,
    }
    return {
        "uid": "nfsmail",
        "title": "Mail on NFS",
        "tags": ["nfsmail"],
        "schemaVersion": 36,
        "editable": True,
        "refresh": "1m",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {
            "list": [
                {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"},
                machines,
            ]
        },
        "panels": panels,
    }


def _graph(number: int, graph: Panel, source: Mapping[str, str], place: Mapping[str, int]) -> dict[str, Any]:
    return {
        "id": number,
        "type": "timeseries",
        "title": graph.title,
        "datasource": source,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": graph.unit}, "overrides": []},
        "targets": [
            {"refId": chr(65 + place_), "datasource": source, "expr": _selected(query), "legendFormat": legend}
            for place_, (query, legend) in enumerate(graph.queries)
        ],
    }


def expressions() -> Iterator[str]:
    """Everything that Prometheus is asked, by an alert or by the dashboard."""
    yield from (one.expr for one in ALERTS)
    for panel in dashboard()["panels"]:
        yield from (target["expr"] for target in panel.get("targets", ()))
