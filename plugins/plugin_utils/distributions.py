# Copyright: (c) 2026, the nfsmail.cluster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What differs between distributions: packages, units, paths. The only place that knows.

Packages are named as Debian does; the rest of the collection knows no other names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Union

from .errors import NfsmailError, Problem, nearest
from .profile import is_yes

DOCS = "docs: distributions"
VARIABLE = "nfsmail_distribution"
# What nobody here has seen on a machine, nor in the packages themselves.
UNVERIFIED = "not verified"
_RUN = "scenario default: run on Debian 11, 12 and 13"
_RPM_NFS = "nfs-utils.spec of Fedora, from which Red Hat's is made"
_RPM_DOVECOT = "dovecot-2.3.21-16.el10 of AlmaLinux, whose subpackages are mysql, pgsql, pigeonhole and devel"
_CHRONY = "Red Hat documentation, RHEL 9 and 10, using chrony"

Value = Union[str, bool]


@dataclass(frozen=True)
class Package:
    """A package by its name in Debian. ``redhat``: its name there; empty: a part of another package; None: not there."""

    name: str
    redhat: str | None
    source: str


@dataclass(frozen=True)
class Difference:
    """One thing that the families have in different places. ``source``: of the value for Red Hat's family."""

    name: str
    what: str
    debian: Value
    redhat: Value
    source: str


@dataclass(frozen=True)
class Release:
    """One release: by what os-release calls it, with the Dovecot that it has and what is unlike its family."""

    ids: tuple[str, ...]
    number: str
    title: str
    family: str
    dovecot: str
    proven: bool
    source: str
    unlike: Mapping[str, Value] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """The name to say it by."""
        return f"{self.ids[0]} {self.number}"


_IN_DOVECOT = "", _RPM_DOVECOT
PACKAGES = (
    Package("nfs-kernel-server", "nfs-utils", _RPM_NFS),
    Package("nfs-common", "nfs-utils", _RPM_NFS),
    # mount.nfs looks protocols up in its /etc/protocols; minimal images of Debian lack it.
    Package("netbase", "", f"package setup has /etc/protocols; {UNVERIFIED}"),
    Package("kmod", "kmod", _RPM_NFS),
    Package("chrony", "chrony", _CHRONY),
    Package("ntpsec", None, "in EPEL only"),
    Package("dovecot-core", "dovecot", _RPM_DOVECOT),
    Package("dovecot-imapd", *_IN_DOVECOT),
    Package("dovecot-pop3d", *_IN_DOVECOT),
    Package("dovecot-lmtpd", *_IN_DOVECOT),
    Package("dovecot-managesieved", "dovecot-pigeonhole", _RPM_DOVECOT),
    Package("dovecot-sieve", "dovecot-pigeonhole", _RPM_DOVECOT),
    Package("dovecot-submissiond", *_IN_DOVECOT),
    Package("dovecot-flatcurve", None, _RPM_DOVECOT),
    Package("dovecot-fts-xapian", None, _RPM_DOVECOT),
    Package("dovecot-mysql", "dovecot-mysql", _RPM_DOVECOT),
    Package("dovecot-pgsql", "dovecot-pgsql", _RPM_DOVECOT),
    Package("dovecot-sqlite", *_IN_DOVECOT),
    Package("dovecot-ldap", *_IN_DOVECOT),
    Package("haproxy", "haproxy", f"Red Hat documentation; {UNVERIFIED}"),
    Package("keepalived", "keepalived", f"Red Hat documentation; {UNVERIFIED}"),
    Package("nftables", "nftables", f"Red Hat documentation; {UNVERIFIED}"),
    Package("prometheus-node-exporter", None, "in other repositories only, with another name of the unit in each"),
)
DIFFERENCES = (
    Difference(
        "has_nfs_conf_d",
        "nfs-utils reads `/etc/nfs.conf.d`",
        True,
        True,
        f"README.Ubuntu of nfs-common; of nfs-utils 2.5.4 (el9) {UNVERIFIED}",
    ),
    Difference("makes_nfs_conf_d", "its package has the directory", True, False, f"{_RPM_NFS}: not among its files"),
    Difference("statd_path", "where statd keeps its list", "/var/lib/nfs", "/var/lib/nfs/statd", _RPM_NFS),
    Difference(
        "chrony_unit",
        "chrony's unit",
        "chrony.service",
        "chronyd.service",
        _CHRONY,
    ),
    Difference(
        "chrony_conf",
        "chrony's file",
        "/etc/chrony/chrony.conf",
        "/etc/chrony.conf",
        _CHRONY,
    ),
    Difference(
        "ssl_cert",
        "the certificate that Dovecot's package makes",
        "/etc/dovecot/private/dovecot.pem",
        "/etc/pki/dovecot/certs/dovecot.pem",
        "dovecot-init.service of Fedora's packages of 2.3.15 and 2.4: made at Dovecot's first start",
    ),
    Difference(
        "ssl_key",
        "and its key",
        "/etc/dovecot/private/dovecot.key",
        "/etc/pki/dovecot/private/dovecot.pem",
        "dovecot-init.service of Fedora's packages of 2.3.15 and 2.4",
    ),
    Difference(
        "haproxy_socket",
        "HAProxy's socket for commands",
        "/run/haproxy/admin.sock",
        "/var/lib/haproxy/stats",
        f"haproxy.cfg of Red Hat's package; nothing makes /run/haproxy there; {UNVERIFIED}",
    ),
    Difference("ss", "iproute's `ss`", "/usr/bin/ss", "/usr/sbin/ss", f"iproute.spec of CentOS Stream; {UNVERIFIED}"),
)
_REDHAT = ("rhel", "almalinux", "rocky", "centos")
RELEASES = (
    Release(("debian",), "11", "Debian 11", "debian", "2.3.13", True, _RUN, {"has_nfs_conf_d": False}),
    Release(("debian",), "12", "Debian 12", "debian", "2.3.19", True, _RUN),
    Release(("debian",), "13", "Debian 13", "debian", "2.4.1", True, _RUN),
    Release(("ubuntu",), "22.04", "Ubuntu 22.04", "debian", "2.3.16", False, "dovecot-core 1:2.3.16+dfsg1-3ubuntu2"),
    Release(("ubuntu",), "24.04", "Ubuntu 24.04", "debian", "2.3.21", False, "dovecot-core 1:2.3.21+dfsg1-2ubuntu6"),
    Release(
        ("ubuntu",), "26.04", "Ubuntu 26.04", "debian", "2.4.2", False, f"packages.ubuntu.com/resolute; {UNVERIFIED}"
    ),
    Release(
        _REDHAT,
        "9",
        "RHEL, AlmaLinux, Rocky Linux and CentOS Stream 9",
        "redhat",
        "2.3.16",
        False,
        "dovecot-2.3.16-11.el9_4, nfs-utils-2.5.4-42.el9_8",
    ),
    Release(
        _REDHAT,
        "10",
        "RHEL, AlmaLinux, Rocky Linux and CentOS Stream 10",
        "redhat",
        "2.3.21",
        False,
        "dovecot-2.3.21-16.el10, nfs-utils-2.8.2-3.el10",
    ),
)
# What the roles leave to the operator where a distribution closes more than Debian does, by kind of machine. None of it was tried.
BY_HAND = (
    ("nfs_servers", "firewalld", "firewall-cmd --permanent --add-service={nfs,ntp}"),
    (
        "nfs_servers, NFSv3",
        "firewalld",
        "firewall-cmd --permanent --add-service={rpc-bind,mountd} --add-port={4045-4046/tcp,4045-4046/udp}",
    ),
    (
        "mail_backends, NFSv3",
        "firewalld",
        "firewall-cmd --permanent --add-service=rpc-bind --add-port={4045-4046/tcp,4045-4046/udp}",
    ),
    ("mail_backends", "firewalld", "firewall-cmd --permanent --add-port={143,993,24,24245}/tcp"),
    ("mail_proxies", "firewalld", "firewall-cmd --permanent --add-port={143,993,24}/tcp"),
    ("mail_balancers", "firewalld", "firewall-cmd --permanent --add-port={143,993,24}/tcp"),
    ("mail_backends", "SELinux: mail on NFS", "setsebool -P use_nfs_home_dirs on"),
    ("mail_backends", "SELinux: local indexes", "semanage fcontext -a -t mail_spool_t '/var/lib/nfsmail(/.*)?'"),
    ("mail_backends", "SELinux: doveadm's port", "semanage port -a -t pop_port_t -p tcp 24245"),
    ("mail_balancers", "SELinux: ports", "setsebool -P haproxy_connect_any on"),
)
# Of a machine that was not read: what is the same for all but one of those that were run.
UNREAD = RELEASES[1]
_PACKAGES = {package.name: package for package in PACKAGES}


def find(facts: Mapping[str, Any], told: str = "") -> Release | None:
    """The release of a machine, by what ``host_facts`` read, or by what the inventory says that it is like; None: no data."""
    if told:
        return next((release for release in RELEASES if release.key == told), None)
    own = str(facts.get("distribution") or "")
    numbers = {str(facts.get(name) or "") for name in ("version", "major_version")}
    return next((release for release in RELEASES if own in release.ids and release.number in numbers), None)


def called(facts: Mapping[str, Any]) -> str:
    """What a machine says that it is."""
    return (
        f"{facts.get('distribution') or 'unknown'} {facts.get('version') or facts.get('major_version') or ''}".strip()
    )


def distribution(facts: Mapping[str, Any], told: str = "") -> dict[str, Any]:
    """What the roles need to know of a machine's system: each of `DIFFERENCES`, ``dovecot``, ``title``, ``proven``, ``packages``.

    ``facts``: what ``host_facts`` read; of a machine that was not read, as on Debian. An error where there is no data.
    """
    release = find(facts, told) if facts or told else UNREAD
    if release is None:
        raise NfsmailError([_no_data("distribution", facts, told)])
    redhat = release.family == "redhat"
    values = {one.name: one.redhat if redhat else one.debian for one in DIFFERENCES}
    return {
        **values,
        **release.unlike,
        "title": release.title,
        "dovecot": release.dovecot,
        "proven": release.proven,
        "packages": {package.name: package.redhat if redhat else package.name for package in PACKAGES},
    }


def service_files(files: Mapping[str, str]) -> dict[str, str]:
    """Units, as Debian calls them, to a file that each reads; and with them what any other machine may have in their place."""
    known = {one.name: one for one in DIFFERENCES}
    unit, conf = known["chrony_unit"], known["chrony_conf"]
    more = {str(unit.redhat): str(conf.redhat)} if unit.debian in files else {}
    return {**files, **more}


def package_names(names: Sequence[str], system: Mapping[str, Any] | None = None) -> list[str]:
    """Packages that Debian calls so, as a machine calls them; without ``system``, as any machine may.

    ``system``: what `distribution` says. An error for a name without data, and where the system has no such package.
    """
    found: list[str] = []
    for name in names:
        if name not in _PACKAGES:
            raise NfsmailError(
                [Problem("package", name, "known here", f"did you mean {nearest(name, _PACKAGES)!r}?", DOCS)]
            )
        if system is None:
            found += [name, _PACKAGES[name].redhat or ""]
        elif system["packages"][name] is None:
            raise NfsmailError([_no_package("package", name, str(system["title"]), "install it yourself")])
        else:
            found.append(system["packages"][name])
    return [name for name in dict.fromkeys(found) if name]


def problems(
    facts: Mapping[str, Mapping[str, Any]], values: Mapping[str, Mapping[str, Any]], variables: Mapping[str, Any]
) -> Iterable[Problem]:
    """Machines that nobody has data for, and what their distributions do not have. ``values``: host to its own variables."""
    for host, found in sorted(facts.items()):
        own = values.get(host, {})
        if "distribution" not in found and not own.get(VARIABLE):
            continue
        release = find(found, str(own.get(VARIABLE) or ""))
        if release is None:
            yield _no_data(f"distribution of {host}", found, str(own.get(VARIABLE) or ""))
        elif release.family == "redhat":
            if is_yes(own.get("metrics_enabled", variables.get("nfsmail_metrics"))):
                fix = f"set nfsmail_metrics: false, or metrics_enabled: false for {host}"
                yield _no_package(f"nfsmail_metrics on {host}", "prometheus-node-exporter", release.title, fix)
            if own.get("timesync_daemon") == "ntpsec":
                yield _no_package(f"timesync_daemon of {host}", "ntpsec", release.title, "use chrony")


def notes(facts: Mapping[str, Mapping[str, Any]], values: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What to know of machines whose release was never run, a line for each release."""
    where: dict[str, list[str]] = {}
    for host, found in sorted(facts.items()):
        release = find(found, str(values.get(host, {}).get(VARIABLE) or ""))
        if release and not release.proven:
            where.setdefault(release.title, []).append(host)
    return [
        f"WARNING: {', '.join(hosts)}: on {title} these roles were never run, only their files were rendered. Look at what verify "
        f"says, and at {DOCS}."
        for title, hosts in where.items()
    ]


def _no_data(variable: str, facts: Mapping[str, Any], told: str) -> Problem:
    keys = [release.key for release in RELEASES]
    return Problem(
        VARIABLE if told else variable,
        told or called(facts),
        f"packages and paths are known of {', '.join(release.title for release in RELEASES)}",
        f"did you mean {nearest(told, keys)!r}?"
        if told
        else f"use one of these; or say in {VARIABLE} which one it is like: {', '.join(keys)}",
        DOCS,
    )


def _no_package(variable: str, name: str, title: str, fix: str) -> Problem:
    return Problem(variable, name, f"a package of the distribution; {title} has none", fix, DOCS)
