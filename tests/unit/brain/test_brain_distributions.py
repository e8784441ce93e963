# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Distributions: found by what machines say, refused where nobody has data, before anything is changed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.nfsmail.cluster.plugins.module_utils._host import parse_os_release
from ansible_collections.nfsmail.cluster.plugins.modules.host_facts import _installed
from ansible_collections.nfsmail.cluster.plugins.plugin_utils import distributions, inventory
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.errors import NfsmailError
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.profile import KNOWN_SERIES

ROLES = Path(__file__).resolve().parents[3] / "roles"
VARIABLES = {"nfsmail_topology": "single", "nfsmail_metrics": False}
MEMBERS = {"mail_backends": [{"name": "mail1", "address": "192.0.2.11"}]}


def read(name: str, version: str, like: str = "") -> dict[str, Any]:
    """What host_facts says of a machine."""
    return {"hostname": "mail1", **parse_os_release(f'ID={name}\nID_LIKE="{like}"\nVERSION_ID="{version}"\n')}


@pytest.mark.parametrize(
    ("name", "version", "title"),
    [
        ("debian", "11", "Debian 11"),
        ("debian", "12", "Debian 12"),
        ("debian", "13", "Debian 13"),
        ("ubuntu", "22.04", "Ubuntu 22.04"),
        ("ubuntu", "24.04", "Ubuntu 24.04"),
        ("ubuntu", "26.04", "Ubuntu 26.04"),
        ("rhel", "9.6", "RHEL, AlmaLinux, Rocky Linux and CentOS Stream 9"),
        ("almalinux", "9.6", "RHEL, AlmaLinux, Rocky Linux and CentOS Stream 9"),
        ("rocky", "10.0", "RHEL, AlmaLinux, Rocky Linux and CentOS Stream 10"),
        ("centos", "10", "RHEL, AlmaLinux, Rocky Linux and CentOS Stream 10"),
    ],
)
def test_a_release_is_found(name: str, version: str, title: str) -> None:
    found = distributions.distribution(read(name, version))
    assert found["title"] == title
    assert found["proven"] == (name == "debian")
    assert found["dovecot"].startswith(KNOWN_SERIES)


@pytest.mark.parametrize(
    ("name", "version"),
    [
        *(("debian", "10"), ("debian", ""), ("ubuntu", "22.10"), ("ubuntu", "20.04"), ("rocky", "8.10")),
        *(("fedora", "43"), ("arch", ""), ("raspbian", "12"), ("", "")),
    ],
)
def test_what_nobody_has_data_for_is_refused(name: str, version: str) -> None:
    facts = {"mail1": read(name, version, "debian")}
    problems = inventory.machine_problems(VARIABLES, MEMBERS, {}, facts)
    said = f"{name or 'unknown'} {version}".strip()
    assert [(problem.variable, problem.value) for problem in problems] == [("distribution of mail1", said)]
    assert problems[0].rule.startswith("packages and paths are known of Debian 11, Debian 12, ")
    assert "; or say in nfsmail_distribution which one it is like: debian 11, debian 12, " in problems[0].fix
    with pytest.raises(NfsmailError, match="nothing was changed"):
        distributions.distribution(facts["mail1"])


def test_a_machine_may_be_said_to_be_like_another() -> None:
    facts = {"mail1": read("raspbian", "12", "debian")}

    def told(name: str) -> list[str]:
        values = {"mail1": {"nfsmail_distribution": name}}
        return [str(one) for one in inventory.machine_problems(VARIABLES, MEMBERS, values, facts)]

    assert told("debian 12") == []
    assert distributions.distribution(facts["mail1"], "debian 12")["title"] == "Debian 12"
    (wrong,) = told("debian12")
    assert "nfsmail_distribution: 'debian12'" in wrong and "did you mean 'debian 12'?" in wrong


def test_what_a_distribution_lacks_is_refused() -> None:
    def told(facts: dict[str, Any], **own: Any) -> list[str]:
        variables = {**VARIABLES, "nfsmail_metrics": True}
        return [str(one) for one in inventory.machine_problems(variables, MEMBERS, {"mail1": own}, {"mail1": facts})]

    assert told(read("debian", "12"), timesync_daemon="ntpsec") == []
    metrics, daemon = told(read("almalinux", "9.6"), timesync_daemon="ntpsec")
    assert metrics.startswith("nfsmail_metrics on mail1: 'prometheus-node-exporter'")
    assert "Rocky Linux and CentOS Stream 9 has none" in metrics and "or metrics_enabled: false for mail1" in metrics
    assert daemon.startswith("timesync_daemon of mail1: 'ntpsec'") and "fix: use chrony" in daemon
    for yes in ("on", "y", "True", 1):
        assert len(told(read("almalinux", "9.6"), metrics_enabled=yes)) == 1
    for no in (False, "no", "off", 0):
        assert told(read("almalinux", "9.6"), metrics_enabled=no) == []


def test_a_release_that_was_not_read_is_the_distribution_s() -> None:
    """Two backends that share mail, one of them not yet installed: the same warning as with both."""
    members = {"mail_backends": [{"name": "a", "address": "192.0.2.1"}, {"name": "b", "address": "192.0.2.2"}]}
    facts = {
        "a": {**read("debian", "13"), "hostname": "a", "packages": {"dovecot-core": "2.4.1"}},
        "b": {**read("ubuntu", "26.04"), "hostname": "b", "packages": {}, "candidates": {}},
    }
    (problem,) = inventory.machine_problems(VARIABLES, members, {}, facts)
    assert problem.value == {"a": "2.4.1", "b": "2.4.2"}


def test_packages() -> None:
    redhat = distributions.distribution({}, "rhel 9")
    names = ["dovecot-core", "dovecot-imapd", "nfs-common", "netbase"]
    assert distributions.package_names(names, redhat) == ["dovecot", "nfs-utils"]
    assert distributions.package_names(names, distributions.distribution({})) == names
    assert distributions.package_names(names) == [
        *("dovecot-core", "dovecot", "dovecot-imapd", "nfs-common", "nfs-utils", "netbase")
    ]
    with pytest.raises(NfsmailError, match="did you mean 'dovecot-imapd'?"):
        distributions.package_names(["dovecot-imap"], redhat)
    with pytest.raises(NfsmailError, match="Stream 9 has none"):
        distributions.package_names(["ntpsec"], redhat)


def test_notes_name_the_machines_that_were_never_run() -> None:
    facts = {"a": read("debian", "12"), "b": read("ubuntu", "24.04"), "c": read("ubuntu", "24.04"), "d": read("x", "1")}
    (note,) = distributions.notes(facts, {})
    assert note.startswith("WARNING: b, c: on Ubuntu 24.04 these roles were never run, only their files were rendered.")
    (note,) = distributions.notes({"d": facts["d"]}, {"d": {"nfsmail_distribution": "rhel 10"}})
    assert note.startswith("WARNING: d: on RHEL, ")


def test_the_data_is_whole() -> None:
    for package in distributions.PACKAGES:
        assert package.source
    differences = {one.name for one in distributions.DIFFERENCES}
    assert all(one.source and one.what for one in distributions.DIFFERENCES)
    for release in distributions.RELEASES:
        assert release.source and set(release.unlike) <= differences
        assert release.proven == (release.key in ("debian 11", "debian 12", "debian 13"))
    keys = [release.key for release in distributions.RELEASES]
    assert len(set(keys)) == len(keys)
    spec = yaml.safe_load((ROLES / "nfsmail" / "meta" / "argument_specs.yml").read_text(encoding="utf-8"))
    assert spec["argument_specs"]["main"]["options"]["nfsmail_distribution"]["choices"] == keys
    known = yaml.safe_load((ROLES / "nfsmail" / "vars" / "main.yml").read_text(encoding="utf-8"))
    assert set(known["__nfsmail_known_packages"]) == {package.name for package in distributions.PACKAGES}


def test_files_of_services_are_where_any_machine_has_them() -> None:
    debian = {"chrony.service": "/etc/chrony/chrony.conf", "haproxy.service": "/etc/haproxy/haproxy.cfg"}
    assert distributions.service_files(debian) == {**debian, "chronyd.service": "/etc/chrony.conf"}
    assert distributions.service_files({"haproxy.service": "x"}) == {"haproxy.service": "x"}


def test_no_role_knows_a_family() -> None:
    """Data of distributions in YAML would be a second place."""
    for path in (
        *ROLES.glob("*/tasks/*.yml"),
        *ROLES.glob("*/vars/*.yml"),
        *ROLES.glob("*/templates/*"),
        *ROLES.glob("*/handlers/*"),
    ):
        text = path.read_text(encoding="utf-8")
        for word in (
            "os_family",
            "RedHat",
            "major_version",
            "chronyd.service",
            "nfs-utils",
            "statd/sm",
            "['distribution']",
        ):
            assert word not in text.replace("__nfsmail_distribution", ""), f"{path}: {word}"


def test_roll_brings_dovecot_s_packages_up_to_date_by_any_name() -> None:
    text = (ROLES / "nfsmail" / "tasks" / "roll_one.yml").read_text(encoding="utf-8")
    pattern = re.search(r"\['packages'\] \| select\('match', '(.+?)'\)", text)
    names = distributions.package_names([package.name for package in distributions.PACKAGES])
    assert pattern and {name for name in names if re.match(pattern[1], name)} == {
        *("dovecot", "dovecot-core", "dovecot-imapd", "dovecot-pop3d", "dovecot-lmtpd"),
        *("dovecot-submissiond", "dovecot-managesieved", "dovecot-sieve", "dovecot-pigeonhole"),
        *("dovecot-flatcurve", "dovecot-fts-xapian"),
        *("dovecot-mysql", "dovecot-pgsql", "dovecot-sqlite", "dovecot-ldap"),
    }


def test_packages_are_not_asked_without_a_program_for_it() -> None:
    """What a machine is told to be must not hide what is wrong behind a missing program."""

    class Machine:
        def get_bin_path(self, name: str) -> str | None:
            return None

    for family in ("arch", "RedHat", "Debian"):
        assert _installed(Machine(), family, ["dovecot-core"]) == {}  # type: ignore[arg-type]
