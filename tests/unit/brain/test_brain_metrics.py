# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What Dovecot counts, who may read it, and what Prometheus is asked."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from ansible_collections.nfsmail.cluster.plugins.plugin_utils import alerts, metrics
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.dialect import from_doveconf
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.dovecot_conf import backend_conf, proxy_conf
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.judge import MAX_OFFSET
from brain_samples import VERSIONS, refusal
from plans import backend, proxy

FILES = Path(__file__).resolve().parents[3] / "roles" / "metrics" / "files"
LISTEN = {"metrics_listen": ["127.0.0.1", "::1"], "metrics_port": 9900}
# Written by every scrape and every rule of Prometheus itself.
PROMETHEUS = {"up"}
# What else may stand in a query: functions, words, labels.
WORDS = {
    *("abs", "rate", "sum", "max", "min", "by", "on", "and", "or", "time", "max_over_time", "changes"),
    *("instance", "export", "job", "file", "backend"),
}


@pytest.fixture(scope="module")
def program() -> ModuleType:
    found = importlib.util.spec_from_file_location("nfsmail_metrics", FILES / "nfsmail_metrics.py")
    assert found and found.loader
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


# ---- Dovecot ----


@pytest.mark.parametrize("version", VERSIONS)
def test_without_metrics_nothing_is_written(version: str) -> None:
    for text in (backend_conf(backend(version)), proxy_conf(proxy(version))):
        assert "metric" not in text and "service stats" not in text


@pytest.mark.parametrize("version", VERSIONS)
def test_the_listener_and_the_counters(version: str) -> None:
    word = "listen" if version.startswith("2.4") else "address"
    for kind, text in (
        ("backend", backend_conf(backend(version, **LISTEN))),
        ("proxy", proxy_conf(proxy(version, **LISTEN))),
    ):
        conf = from_doveconf(text)
        assert conf["service stats"] == {"inet_listener http": {word: "127.0.0.1 ::1", "port": "9900"}}
        written = {name.split()[1]: section["filter"] for name, section in conf.items() if name.startswith("metric ")}
        assert written == {one.name: one.filter for one in metrics.counters(version, kind)}


def test_older_releases_lack_events() -> None:
    assert "mail_session" not in {one.name for one in metrics.counters("2.3.13", "backend")}
    assert "mail_session" in {one.name for one in metrics.counters("2.3.19", "backend")}
    assert "proxy_session" not in {one.name for one in metrics.counters("2.4.1", "backend")}


def test_a_release_without_the_listener_is_refused() -> None:
    (problem,) = refusal(backend_conf, backend("2.3.10", **LISTEN))
    assert problem.variable == "nfsmail_metrics" and "2.3.10" in problem.rule
    assert backend_conf(backend("2.3.11", **LISTEN))
    assert backend_conf(backend("2.3.10"))


# ---- who may read ----


def test_scrapers() -> None:
    found = metrics.firewall_plan(["192.0.2.7", "2001:db8::/64", "192.0.2.0/24"])
    assert found == {"ipv4": ["192.0.2.0/24"], "ipv6": ["2001:db8::/64"]}
    (problem,) = refusal(metrics.firewall_plan, ["192.0.2.7", "prometheus"])
    assert (problem.variable, problem.value) == ("nfsmail_metrics_scrapers", "prometheus")


# ---- Prometheus ----


def test_every_metric_that_is_asked_for_exists(program: ModuleType) -> None:
    known = {*program.METRICS, *metrics_of_dovecot(), *alerts.EXPORTER, *PROMETHEUS}
    asked: set[str] = set()
    for text in alerts.expressions():
        bare = re.sub(r"\{[^}]*\}|\[[^]]*\]", "", text)
        asked |= set(re.findall(r"[a-zA-Z_:]\w*", bare)) - WORDS
    assert asked - known == set()
    assert set(alerts.EXPORTER) - asked == set(), "not asked for"


def metrics_of_dovecot() -> set[str]:
    return {name for one in metrics.COUNTERS for name in one.names}


def test_every_metric_of_ours_is_on_the_dashboard_or_in_an_alert(program: ModuleType) -> None:
    text = " ".join(alerts.expressions())
    assert [name for name in (*program.METRICS, *metrics_of_dovecot()) if not re.search(rf"\b{name}\b", text)] == []


def test_the_limit_of_clocks_is_the_one_of_verify() -> None:
    (alert,) = [one for one in alerts.ALERTS if one.name == "NfsmailClockOff"]
    assert alert.expr.rpartition("> ")[2] == f"{MAX_OFFSET:g}"


def test_alerts() -> None:
    names = [one.name for one in alerts.ALERTS]
    assert len(names) == len(set(names))
    for one in alerts.ALERTS:
        assert one.severity in ("critical", "warning")
        assert re.fullmatch(r"\d+[mh]", one.lasting)
        assert one.summary.endswith((".", "later.")) and one.todo.endswith(".")
    written = yaml.safe_load((FILES / "nfsmail-alerts.yml").read_text(encoding="utf-8"))
    assert written == alerts.alert_rules()


def test_the_dashboard() -> None:
    found: dict[str, Any] = json.loads((FILES / "nfsmail-dashboard.json").read_text(encoding="utf-8"))
    assert found == alerts.dashboard()
    panels = found["panels"]
    assert [panel["id"] for panel in panels] == list(range(1, len(panels) + 1))
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken and place["x"] + place["w"] <= 24, panel["title"]
        taken |= cells
        queries = panel.get("targets", [])
        assert len({query["refId"] for query in queries}) == len(queries)
        for query in queries:
            # Each metric of it only of the chosen machines.
            names = re.findall(r"\b(?:nfsmail|node|dovecot)_\w+(\{[^}]*\})?", query["expr"])
            assert names and all(alerts.SELECTED in selector for selector in names), query["expr"]
