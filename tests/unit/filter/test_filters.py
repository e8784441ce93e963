# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filters: documented as they are, and each error told in the brain's own words."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml
from ansible.errors import AnsibleFilterError
from ansible_collections.nfsmail.cluster.plugins.doc_fragments.profile import ModuleDocFragment
from ansible_collections.nfsmail.cluster.plugins.filter import brain
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.errors import NfsmailError

FOLDER = Path(__file__).resolve().parents[3] / "plugins" / "filter"
FILTERS = brain.FilterModule().filters()
NAMES = sorted(brain.FILTERS)
SECRET = "not-a-real-secret-0123"

BACKENDS = [{"name": "mail1", "address": "192.0.2.11"}, {"name": "mail2", "address": "192.0.2.12"}]
PLAN = {
    "profile": {"topology": "per_user"},
    "version": "2.3.19",
    "protocols": ["imap"],
    "listen": ["*"],
    "mail_home": "/srv/mail/{user}",
    "index_path": "/var/index/{user}",
    "mail_uid": 5000,
    "mail_gid": 5000,
    "ssl": "no",
    "ssl_cert": "",
    "ssl_key": "",
    "topology": "random",
    "servers": BACKENDS,
    "health_user": "",
    "health_password": "",
    "check_interval": 5,
    "maxconn": 8000,
    "proxies": ["192.0.2.21"],
    "balancers": [],
    "proxy_password": SECRET,
    "doveadm_password": "",
    "doveadm_port": 24245,
    "lmtp_port": 24,
    "users_file": "/etc/dovecot/users",
    "shards_file": "/etc/dovecot/shards",
    "moving_file": "/etc/dovecot/moving",
    "overrides_file": "/etc/dovecot/overrides",
    "extra_settings": {},
}
GROUPS = {"nfs_servers": ["nfs1"], "mail_backends": ["mail1", "mail2"], "mail_proxies": ["proxy1"]}
HOSTVARS: dict[str, dict[str, Any]] = {
    "nfs1": {"ansible_host": "192.0.2.1"},
    "mail1": {"ansible_host": "192.0.2.11"},
    "mail2": {"ansible_host": "192.0.2.12", "nfsmail_backend_weight": 2, "nfsmail_backend_state": "drained"},
    "proxy1": {"ansible_host": "10.0.0.21", "nfsmail_address": "192.0.2.21"},
}
VARIABLES = {
    "nfsmail_topology": "per_user",
    "nfsmail_export_path": "/srv/mail",
    "nfsmail_store_path": "/srv/mail",
    "nfsmail_mail_home": "/srv/mail/{user}",
    "nfsmail_index_path": "/var/index/{user}",
    "nfsmail_users_file": "/etc/dovecot/users",
    "nfsmail_proxy_password": SECRET,
}


def documentation(name: str) -> dict[str, Any]:
    """The filter's page."""
    page: dict[str, Any] = yaml.safe_load((FOLDER / f"{name}.yml").read_text(encoding="utf-8"))
    doc = page["DOCUMENTATION"]
    if doc.get("extends_documentation_fragment"):
        assert doc["extends_documentation_fragment"] == ["nfsmail.cluster.profile"]
        shared = yaml.safe_load(ModuleDocFragment.DOCUMENTATION)
        doc["options"] = {**shared["options"], **doc.get("options", {})}
    return page


# ---- the pages ----


def test_each_filter_has_a_page_and_each_page_a_filter() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.yml")) == NAMES
    assert sorted(FILTERS) == NAMES
    assert list(brain.FILTERS) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_page_is_whole(name: str) -> None:
    page = documentation(name)
    assert set(page) == {"DOCUMENTATION", "EXAMPLES", "RETURN"}
    doc = page["DOCUMENTATION"]
    assert doc["name"] == name
    assert doc["version_added"] and doc["author"]
    assert not doc["short_description"].endswith(".")
    assert all(line.endswith(".") for line in doc["description"])
    assert set(page["RETURN"]) == {"_value"}
    assert page["RETURN"]["_value"]["type"] and page["RETURN"]["_value"]["description"]


@pytest.mark.parametrize("name", NAMES)
def test_the_documented_options_are_the_parameters(name: str) -> None:
    doc = documentation(name)["DOCUMENTATION"]
    first, *others = inspect.signature(brain.FILTERS[name]).parameters.values()
    options = dict(doc["options"])
    assert options.pop("_input")["required"] is True
    assert first.default is inspect.Parameter.empty
    assert list(options) == [parameter.name for parameter in others]
    for parameter in others:
        required = parameter.default is inspect.Parameter.empty
        assert options[parameter.name]["required"] is required, parameter.name
        assert options[parameter.name]["type"] and options[parameter.name]["description"]
    positional = [word.strip() for word in doc.get("positional", "").split(",") if word.strip()]
    assert positional == [parameter.name for parameter in others][: len(positional)]


CONTEXT: dict[str, Any] = {
    "backends": BACKENDS,
    "plan": PLAN,
    "groups": GROUPS,
    "hostvars": HOSTVARS,
    "nfsmail_members": brain.cluster_members(GROUPS, HOSTVARS),
    "__nfsmail_variables": VARIABLES,
    "nfsmail_users": [{"name": "a@x", "password": "{SSHA512}YWJj"}],
    "shares": [{"path": "/srv/mail", "clients": ["192.0.2.11"]}],
    "upgrade_preview_file": str(FOLDER.parents[1] / "tests" / "shared" / "doveconf23" / "debian.txt"),
    "result": {"stdout": "mail_fsync = always\n"},
}


@pytest.mark.parametrize("name", NAMES)
def test_the_examples_work(name: str) -> None:
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined)
    environment.filters.update({f"nfsmail.cluster.{other}": function for other, function in FILTERS.items()})
    examples = yaml.safe_load(documentation(name)["EXAMPLES"])
    assert isinstance(examples, dict)
    for template in examples.values():
        assert f"nfsmail.cluster.{name}" in template
        assert environment.from_string(template).render(**CONTEXT) is not None


# ---- errors ----

REFUSED: dict[str, tuple[Any, ...]] = {
    "audit_verdict": ([], {}, "/nowhere"),
    "backend_conf": ({**PLAN, "mail_home": "/srv/%d"},),
    "balancer_conf": ({**PLAN, "health_user": "health", "health_password": "k3pt-S3cret"},),
    "bench_cells": ([], [], "k3pt"),
    "bench_place": ([{"name": "mail1", "address": "192.0.2.1"}], {}, [], {"user": ""}),
    "director_overrides": (["a@x"], [{"name": "mail1", "weight": "heavy"}]),
    "distribution": ({"distribution": "slackware", "version": "15.0"},),
    "dovecot_place": ("sive",),
    "dovecot_settings": ({"topolgy": "single"},),
    "explain": ({"nfs_version": "9"},),
    "mail_location": ({**PLAN, "mail_home": "/srv/%d"},),
    "exports_plan": ([{"path": "srv", "clients": ["*"]}], 5000, 5000),
    "findings": ({"lockd": "perhaps"},),
    "firewall_plan": ({**PLAN, "firewall_allow": ["proxy9"]},),
    "from_doveconf": ("}",),
    "metrics_firewall": (["prometheus.example.com"],),
    "keepalived_conf": ({"name": "mail1", "backends": BACKENDS, "interface": ""},),
    "lock_conf": ({"lockd": 40000},),
    "log_patterns": ("mail1",),
    "kernel_settings": ({"topology": 3},),
    "mount_options": ({"topology": 3},),
    "move_plan": (BACKENDS, {}, [], {"verb": "drain", "drain": "mail9"}),
    "needs_lockd": ({"lockd": "maybe"},),
    "override_file": ({"a@x": "mail9"}, BACKENDS),
    "package_names": (["dovecot-imap"],),
    "passdb_conf": ({**PLAN, "proxies": [], "passdb": "ldap", "passdb_options": {"dnpass": "k3pt-S3cret"}},),
    "passwd_file": ([{"name": "a@x", "password": "k3pt-S3cret"}],),
    "proxy_conf": ({**PLAN, "proxy_password": "k3pt-S3cret"},),
    "routing": ([{"name": "mail1", "state": "sideways"}], {}),
    "server_conf": ({}, ["2"], 20048),
    "shard_file": ([],),
    "shard_map": ([{"name": "mail1", "weight": float("nan")}],),
    "shard_of": (None,),
    "time_conf": ({"daemon": "ntpd"},),
    "user_paths": (["a@x"], "/var/lib/index"),
    "to_doveconf": ({"a": "b\nc"}, "2.3.19"),
    "upgrade_preview": ("/nonexistent",),
}
# These collect or report; what is wrong is their answer.
NEVER_FAIL = {
    "audit_html",
    "audit_places",
    "audit_problems",
    "audit_sarif",
    "bench_page",
    "bench_table",
    "cluster_groups",
    "cluster_members",
    "cluster_profile",
    "dovecot_packages",
    "exports_file",
    "service_files",
    "host_errors",
    "holders",
    "inventory_notes",
    "inventory_report",
    "machine_notes",
    "machine_report",
    "moving_file",
    "preload",
    "requested_users",
    "verify_answers",
}


def test_an_audit_takes_the_last_look_that_was_answered() -> None:
    first, second = {"state": {"hostname": "first"}}, {"state": {"hostname": "second"}}
    looks = {"__nfsmail_audit_first": first, "__nfsmail_audit_second": second}
    silent = {"__nfsmail_audit_first": {"msg": "no route to host"}}
    hostvars = {
        "a": looks,
        "b": {"__nfsmail_audit_first": first, "__nfsmail_audit_second": {"skipped": True}},
        "c": silent,
    }
    found = brain._looked_at(["a", "b", "c"], hostvars, brain.AUDITED)
    assert found == {"a": second["state"], "b": first["state"], "c": {"error": "no route to host"}}
    report = brain.audit_verdict(["c"], hostvars)
    assert [(row["id"], row["detail"]) for row in report["checks"]] == [("NFS301", "no route to host")]
    assert brain.audit_problems({}, []).startswith("1 problem in the cluster's variables, nothing was changed:")


def test_an_audit_registers_what_the_filter_reads() -> None:
    text = (FOLDER.parents[1] / "roles" / "nfsmail" / "tasks" / "audit.yml").read_text(encoding="utf-8")
    tasks = [task for task in yaml.safe_load(text) if "nfsmail.cluster.host_state" in task]
    assert tuple(task["register"] for task in tasks) == brain.AUDITED
    # The module makes a file on the store in a run that is no check.
    assert all(task["check_mode"] is True and "become" not in task for task in tasks)


def test_every_filter_is_accounted_for() -> None:
    assert set(REFUSED) | NEVER_FAIL == set(NAMES)
    assert not set(REFUSED) & NEVER_FAIL


@pytest.mark.parametrize("name", REFUSED)
def test_an_error_is_ansible_s_with_the_text_of_the_brain(name: str) -> None:
    with pytest.raises(NfsmailError) as told:
        brain.FILTERS[name](*REFUSED[name])
    with pytest.raises(AnsibleFilterError) as caught:
        FILTERS[name](*REFUSED[name])
    # Not str(): newer releases of Ansible add the cause of an error by themselves.
    assert caught.value.args[0] == str(told.value)
    assert "in the cluster's variables, nothing was changed:\n1. " in str(caught.value)
    assert "k3pt-S3cret" not in str(caught.value)


# ---- the few that are more than a name ----


def test_cluster_groups() -> None:
    groups = FILTERS["cluster_groups"]
    assert groups(GROUPS, "mail1", ["proxy1"], ["mail2"]) == [
        "nfsmail_cluster",
        "nfsmail_backends",
        "nfsmail_live_backends",
    ]
    assert groups(GROUPS, "mail2", ["proxy1"], ["mail2"]) == ["nfsmail_cluster", "nfsmail_backends"]
    assert groups(GROUPS, "proxy1", ["proxy1"]) == ["nfsmail_cluster", "nfsmail_proxies", "nfsmail_routers"]
    assert groups(GROUPS, "nfs1", []) == ["nfsmail_cluster", "nfsmail_nfs_servers"]
    assert groups(GROUPS, "web1", ["proxy1"]) == []
    assert FILTERS["preload"]("all") == "all"


def test_cluster_members() -> None:
    assert FILTERS["cluster_members"](GROUPS, HOSTVARS) == {
        "nfs_servers": [{"name": "nfs1", "address": "192.0.2.1", "weight": 1, "state": "up", "service_address": ""}],
        "mail_backends": [
            {"name": "mail1", "address": "192.0.2.11", "weight": 1, "state": "up", "service_address": ""},
            {"name": "mail2", "address": "192.0.2.12", "weight": 2, "state": "drained", "service_address": ""},
        ],
        "mail_proxies": [
            {"name": "proxy1", "address": "192.0.2.21", "weight": 1, "state": "up", "service_address": ""}
        ],
    }
    assert FILTERS["cluster_members"]({"x": ["host"]}, {"host": {}})["x"][0]["address"] == "host"


def report(hostvars: Mapping[str, Any] = HOSTVARS, **variables: Any) -> str:
    members = FILTERS["cluster_members"](GROUPS, hostvars)
    text: str = FILTERS["inventory_report"]({**VARIABLES, **variables}, members, hostvars)
    return text


def test_inventory_report() -> None:
    assert report() == ""
    text = report({**HOSTVARS, "mail1": {"nfsmail_topolgy": "x"}}, nfsmail_export_path="mail")
    assert text.startswith("2 problems")
    assert "did you mean 'nfsmail_topology'?" in text


def test_inventory_report_compares_what_hosts_say_of_the_cluster() -> None:
    differ = {
        "mail1": {**HOSTVARS["mail1"], "nfsmail_store_path": "/a", "nfsmail_backend_weight": 3},
        "mail2": {**HOSTVARS["mail2"], "nfsmail_store_path": "/b"},
    }
    text = report({**HOSTVARS, **differ})
    assert text.startswith("1 problem")
    assert "nfsmail_store_path: {'mail1'" in text


def test_every_variable_of_the_roles_is_known() -> None:
    all_of_them = dict.fromkeys(
        brain._documented()
        - {"nfsmail_backend_weight", "nfsmail_backend_state", "nfsmail_service_address", "nfsmail_distribution"}
    )
    assert {"nfsmail_topology", "dovecot_proxy_listen", "timesync_sources", "nfsmail_members"} <= set(all_of_them)
    assert "no role of this collection knows" not in report({**HOSTVARS, "mail1": all_of_them})


def test_machine_report() -> None:
    def told(first: dict[str, Any], second: dict[str, Any]) -> str:
        members = FILTERS["cluster_members"](GROUPS, HOSTVARS)
        facts = {"mail1": {"nfsmail": first}, "mail2": {"nfsmail": second}, "nfs1": {}}
        text: str = FILTERS["machine_report"](VARIABLES, members, HOSTVARS, facts)
        return text

    assert told({"hostname": "x"}, {"hostname": "y"}) == ""
    assert "host name of mail1, mail2" in told({"hostname": "x"}, {"hostname": "x"})
    releases = ({"packages": {"dovecot-core": version}} for version in ("2.4.1", "2.4.3"))
    assert "nfsmail_dovecot_config_version: 2.4.1" in told(*releases)


def test_files() -> None:
    assert FILTERS["shard_file"](BACKENDS).count("\n") == 256
    assert FILTERS["override_file"]({"a@x": "mail1"}, BACKENDS) == "a@x:::::::proxy=y nopassword=y host=192.0.2.11\n"
    assert FILTERS["override_file"]({}, BACKENDS) == ""
    assert FILTERS["passwd_file"]([{"name": "a", "password": "{X}y"}]) == "a:{X}y::::::\n"
    plan = FILTERS["exports_plan"]([{"path": "/srv/mail", "clients": ["mail1"]}], 1, 2)
    assert FILTERS["exports_file"](plan).startswith("/srv/mail mail1(rw,sync,")
    assert FILTERS["lock_conf"]({"lockd": 4045, "statd": 4046}) == "[lockd]\nport=4045\n\n[statd]\nport=4046\n"
    conf = FILTERS["server_conf"]({"threads": 16}, ["3"], 20048)
    assert conf.startswith("[nfsd]\nthreads=16\nvers3=y\nvers4=n\n")
    assert conf.endswith("[mountd]\nport=20048\n")


def test_verify_answers() -> None:
    members = FILTERS["cluster_members"](GROUPS, HOSTVARS)
    answers = FILTERS["verify_answers"](members, HOSTVARS)
    assert set(answers) == {"good", "counts", "checks", "table"}
    assert answers["good"] is False
    assert {(row["id"], row["host"]) for row in answers["checks"] if row["level"] == "error"} == {
        ("NFS301", host) for host in HOSTVARS
    }
    assert any(line.startswith("NFS301  proxy1") for line in answers["table"])
