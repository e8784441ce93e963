# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Machines that nobody described: what they are taken for, how sure that is, and what the judge says of them.

The texts in tests/shared/audit are what doveconf -n of 2.3.13, 2.3.19 and 2.4.1 printed for Debian's own configuration with
a few lines in local.conf; lines about the kernel are left out.
"""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.audit import (
    AUDIT_CHECKS,
    BY_HAND,
    MILDER,
    audit,
)
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.audit_files import (
    FILES,
    LARGEST,
    input_problems,
    read_folder,
    state_of,
)
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.errors import NfsmailError
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.estate import SURENESS, places
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.judge import CHECKS
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.matrix import mount_options, settings, to_doveconf
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.rules import RULES
from brain_samples import JSON, every_profile, refusal
from hypothesis import example, given
from hypothesis import strategies as st

SAMPLES = Path(__file__).resolve().parents[2] / "shared" / "audit"
V42 = (
    "nfs1:/srv/mail /srv/mail nfs4 rw,nosuid,nodev,noexec,noatime,vers=4.2,acregmin=60,acdirmin=60,hard,proto=tcp,"
    "lookupcache=pos,local_lock=none,addr=192.0.2.1 0 0\n"
)
CONF = """# 2.3.19.1 (9b53102964): /etc/dovecot/dovecot.conf
mail_fsync = always
mail_home = /srv/mail/%d/%n
mail_location = maildir:~/Maildir
mmap_disable = yes
protocols = imap lmtp
"""


def looked_at(hosts: dict[str, dict[str, str]], **options: Any) -> dict[str, Any]:
    """The audit of saved texts."""
    return audit({host: state_of(host, texts) for host, texts in hosts.items()}, live=False, **options)


def estate(name: str, **options: Any) -> dict[str, Any]:
    """The audit of a folder of samples."""
    return audit(read_folder(str(SAMPLES / name)), live=False, **options)


def backend(conf: str = CONF, mounts: str = V42) -> dict[str, str]:
    return {"doveconf.txt": conf, "mounts.txt": mounts}


def inferred(report: dict[str, Any], key: str, cluster: int = 0) -> tuple[Any, str]:
    (one,) = [row for row in report["clusters"][cluster]["profile"] if row["key"] == key]
    assert one["evidence"] and one["sure"] in SURENESS
    return one["value"], one["sure"]


def kinds(report: dict[str, Any], host: str) -> list[tuple[str, str]]:
    (machine,) = [row for row in report["machines"] if row["host"] == host]
    assert all(kind["evidence"] for kind in machine["kinds"])
    return [(kind["kind"], kind["sure"]) for kind in machine["kinds"]]


def bad(report: dict[str, Any], *levels: str) -> list[tuple[str, str]]:
    rows = [row for row in report["checks"] if row["level"] in (levels or ("error", "warning"))]
    assert all(row["fix"] and row["source"] and row["what"] and row["detail"] for row in rows), rows
    return sorted((row["id"], row["host"]) for row in rows)


def detail(report: dict[str, Any], check: str, host: str = "") -> str:
    (row,) = [row for row in report["checks"] if row["id"] == check and host in ("", row["host"])]
    return str(row["detail"])


# ---- whole estates, from what Dovecot printed ----


def test_a_director_of_2_3_19_in_front_of_mdbox() -> None:
    report = estate("director")
    assert kinds(report, "proxy1") == [("director", "certain")]
    assert kinds(report, "mail1") == kinds(report, "mail2") == [("backend", "certain")]
    assert inferred(report, "topology") == ("per_user", "certain")
    assert inferred(report, "mailbox_format") == ("mdbox", "certain")
    assert inferred(report, "index_location") == ("nfs", "certain")
    assert inferred(report, "nfs_version") == ("4.2", "certain")
    assert inferred(report, "lockd") == (True, "certain")
    assert inferred(report, "delivery") == ("lmtp", "likely")
    assert inferred(report, "dovecot_version") == ("2.3.19.1", "certain")
    assert inferred(report, "cache_flush") == (False, "certain")
    assert report["good"] and bad(report) == []
    # Of the ring saved texts do not tell, and of host names they do.
    assert "NFS330" not in {row["id"] for row in report["checks"]}
    assert detail(report, "NFS302") == "3 machines"
    assert report["clusters"][0]["store"] == "nfs1:/srv/mail at /srv/mail"


def test_random_access_to_mbox_of_2_3_13_without_locks() -> None:
    report = estate("random")
    assert kinds(report, "lb1") == [("balancer", "certain")]
    assert kinds(report, "nfs1") == [("nfs_server", "certain")]
    assert inferred(report, "topology") == ("random", "likely")
    assert inferred(report, "mailbox_format") == ("mbox", "certain")
    assert inferred(report, "lockd") == (False, "certain")
    assert inferred(report, "nfs_version") == ("3", "certain")
    found = dict.fromkeys(check for check, _host in bad(report, "error"))
    assert list(found) == ["NFS001", "NFS002", "NFS014", "NFS017", "NFS020", "NFS107", "NFS114", "NFS204", "NFS314"]
    assert ("NFS204", "mail1, mail2") in bad(report)
    assert not report["good"]
    assert detail(report, "NFS001", "mail1").startswith("mmap_disable is no, wanted yes: Index files on NFS")
    assert detail(report, "NFS107", "mail2").startswith("hard is soft, wanted hard: ")
    assert any("async: a power cut" in row["detail"] for row in report["checks"])
    # A line each for what machines have in common.
    assert sum(line.startswith("NFS001") for line in report["table"]) == 1
    assert "fix NFS001 on mail1, mail2: set mmap_disable = yes" in report["table"]


def test_a_proxy_of_2_4_1_in_front_of_local_indexes() -> None:
    report = estate("proxy")
    assert kinds(report, "proxy1") == [("proxy", "certain")]
    assert inferred(report, "topology") == ("per_user", "likely")
    assert inferred(report, "index_location") == ("local", "certain")
    assert inferred(report, "mailbox_format") == ("maildir", "certain")
    assert inferred(report, "dovecot_version") == ("2.4.1-4", "certain")
    assert bad(report) == [("NFS426", "proxy1")] and report["good"]


@pytest.mark.parametrize("name", ["director", "random", "proxy"])
def test_a_report_is_json_and_names_every_way_out(name: str) -> None:
    report = estate(name)
    assert json.loads(json.dumps(report)) == report
    for row in report["checks"]:
        assert bool(row["fix"]) == (row["level"] != "ok")
        # Nobody has an inventory for these machines.
        assert "site.yml" not in row["fix"] and "nfsmail_purge" not in row["fix"]
    assert "Read from saved files" in report["notes"][0] and report["notes"][0] in report["table"]


@pytest.mark.parametrize(
    ("more", "check", "line"),
    [
        ("lock_method = dotlock\n", "NFS012", 7),
        ("service x {\n  y = z\n}\nservice quota-status {\n  executable = q\n}\n", "NFS419", 10),
        ("mail_location = maildir:~/M:CONTROL=/var/c\n", "NFS409", 4),
        ("mail_fsync = never\n", "NFS002", 2),
    ],
)
def test_a_finding_about_a_setting_names_its_line(more: str, check: str, line: int) -> None:
    report = looked_at({"mail1": backend(CONF + more)}, told={"topology": "per_user"})
    assert [row["line"] for row in report["checks"] if row["id"] == check] == [line]
    assert {row["line"] for row in report["checks"] if row["id"] in ("NFS303", "NFS304")} == {0}


# ---- what a machine is ----


@pytest.mark.parametrize(
    ("texts", "told"),
    [
        (backend(), [("backend", "certain")]),
        (backend(mounts="/dev/vda1 / ext4 rw 0 0\n"), [("backend", "likely")]),
        ({"doveconf.txt": CONF}, [("backend", "likely")]),
        ({"doveconf.txt": "# 2.3.19.1 (x): /etc\nssl = no\n"}, [("backend", "guess")]),
        ({"mounts.txt": V42}, [("backend", "guess")]),
        ({"mounts.txt": "proc /proc proc rw 0 0\n"}, []),
        # A home that only the user database knows.
        (backend("# 2.3.19 (x): /etc\nmail_location = maildir:~/Maildir\n"), [("backend", "likely")]),
        (
            backend("# 2.3.19 (x): /etc\nmail_location = maildir:~/Maildir\n", V42 + V42.replace("/srv/", "/b/")),
            [("backend", "guess")],
        ),
        # The home stands in the user database's own arguments.
        (
            backend(
                "# 2.3.19 (x): /etc\nmail_location = maildir:~/M\nuserdb {\n  args = uid=5 home=/srv/mail/%u\n  driver = static\n}\n"
            ),
            [("backend", "certain")],
        ),
        (
            backend("# 2.3.19 (x): /etc\nnamespace inbox {\n  location = mbox:/srv/mail/%u\n}\n"),
            [("backend", "certain")],
        ),
        (backend("# 2.3.19 (x): /etc\nmail_location = mbox:/home/%u:INBOX=/srv/mail/%u\n"), [("backend", "certain")]),
        ({"doveconf.txt": CONF + "lmtp_proxy = yes\n"}, [("proxy", "likely")]),
        (backend(CONF + "lmtp_proxy = yes\n"), [("proxy", "guess"), ("backend", "certain")]),
        (
            backend(CONF + "passdb {\n  args = proxy_maybe=yes\n  driver = static\n}\n"),
            [("proxy", "certain"), ("backend", "certain")],
        ),
        ({"doveconf.txt": CONF + "passdb {\n  args = noproxy=y\n  driver = static\n}\n"}, [("backend", "likely")]),
        ({"doveconf.txt": CONF + "passdb sql {\n  default_fields {\n    proxy = y\n  }\n}\n"}, [("proxy", "certain")]),
        ({"doveconf.txt": CONF + "passdb sql {\n  fields {\n    proxy = no\n  }\n}\n"}, [("backend", "likely")]),
        ({"exports.txt": "/srv/mail  *(rw)\n"}, [("nfs_server", "certain")]),
        ({"haproxy.txt": "listen imap\n  server a 192.0.2.1:143\n"}, [("balancer", "certain")]),
        ({"haproxy.txt": "defaults\n  mode tcp\n"}, []),
    ],
)
def test_kinds(texts: dict[str, str], told: list[tuple[str, str]]) -> None:
    report = looked_at({"a": texts})
    assert kinds(report, "a") == told
    assert ("NFS341" in {row["id"] for row in report["checks"]}) == (not told)


def test_live_machines_by_what_runs() -> None:
    report = audit(
        {
            "a": {"nfsd": {"threads": 8}, "units": {}},
            "b": {
                "units": {"haproxy.service": {"ActiveState": "active"}},
                "haproxy": {"error": "no such file\nat all"},
            },
            "c": {"units": {"haproxy.service": {"ActiveState": "inactive"}}, "nfsd": {"threads": 0}, "dovecot": None},
            "d": {"error": "connection refused\nat last"},
            "e": {},
            "f": {"mounts": [{"path": "/x", "source": "s:/x", "fstype": "nfs4", "options": []}], "dovecot": None},
        }
    )
    assert [kinds(report, host) for host in "abcdef"] == [
        [("nfs_server", "likely")],
        [("balancer", "likely")],
        *([[]] * 4),
    ]
    assert detail(report, "NFS301", "d") == "connection refused" and detail(report, "NFS301", "e") == "no answer"
    assert detail(report, "NFS340", "b") == "servers were not judged: no such file"
    assert not report["good"] and report["notes"] == []


# ---- what a cluster is ----


@pytest.mark.parametrize(
    ("conf", "mounts", "key", "told"),
    [
        (CONF, V42, "topology", ("single", "likely")),
        (CONF + "login_trusted_networks = 192.0.2.0/24\n", V42, "topology", ("per_user", "guess")),
        (CONF + "mail_nfs_storage = yes\n", V42, "topology", ("random", "guess")),
        (CONF + "mail_nfs_storage = yes\n", V42, "cache_flush", (True, "certain")),
        (CONF, V42.replace("vers=4.2", "vers=4,minorversion=1"), "nfs_version", ("4.1", "certain")),
        (CONF, V42.replace("vers=4.2", "vers=4"), "nfs_version", ("4.0", "certain")),
        (CONF, V42.replace("vers=4.2", "vers=3"), "lockd", (True, "certain")),
        (CONF, V42.replace("vers=4.2", "vers=3").replace("local_lock=none,", ""), "lockd", (True, "likely")),
        (CONF, V42.replace("vers=4.2", "vers=3").replace("local_lock=none", "nolock"), "lockd", (False, "certain")),
        (
            CONF,
            V42.replace("vers=4.2", "vers=3").replace("local_lock=none", "local_lock=posix"),
            "lockd",
            (False, "certain"),
        ),
        (CONF, V42.replace("/srv/mail nfs4", "/elsewhere nfs4"), "nfs_version", ("4.2", "guess")),
        (CONF.replace("maildir:", "dbox:"), V42, "mailbox_format", ("sdbox", "certain")),
        (CONF.replace("maildir:", "imapc:"), V42, "mailbox_format", ("maildir", "guess")),
        (CONF.replace("~/Maildir", "~/Maildir:INDEX=MEMORY"), V42, "index_location", ("local", "certain")),
        (CONF.replace("~/Maildir", "~/Maildir:INDEX=/var/i/%u"), V42, "index_location", ("local", "certain")),
        (CONF.replace("~/Maildir", "~/Maildir:INDEX=/srv/mail/i/%u"), V42, "index_location", ("nfs", "certain")),
        (CONF.replace("~/Maildir", "~/Maildir:INDEX=/var/i/%u"), "", "index_location", ("local", "guess")),
        (CONF, V42, "delivery", ("lmtp", "likely")),
        (CONF.replace(" lmtp", ""), V42, "delivery", ("mta", "guess")),
        (CONF.replace(" lmtp", "").replace("maildir:", "mdbox:"), V42, "delivery", ("lda", "guess")),
        (CONF.replace(" lmtp", "") + "protocol lda {\n  mail_plugins = sieve\n}\n", V42, "delivery", ("lda", "likely")),
        (CONF.replace("protocols = imap lmtp\n", ""), V42, "delivery", ("lmtp", "guess")),
        (CONF.replace("= imap lmtp\n", "{\n  imap = yes\n  lmtp = yes\n}\n"), V42, "delivery", ("lmtp", "likely")),
        (CONF.replace("# 2.3.19.1 (9", "# x ("), V42, "dovecot_version", ("2.3.19", "guess")),
        ("mail_driver = maildir\nmail_path = /srv/mail/x\n", V42, "dovecot_version", ("2.4.0", "guess")),
        ("dovecot_config_version = 2.4.1\nmail_path = /srv/mail/x\n", V42, "dovecot_version", ("2.4.1", "likely")),
    ],
)
def test_inferences(conf: str, mounts: str, key: str, told: tuple[Any, str]) -> None:
    texts = backend(conf, mounts) if mounts else {"doveconf.txt": conf}
    assert inferred(looked_at({"mail1": texts}), key) == told


@pytest.mark.parametrize(
    ("others", "told"),
    [
        ({}, ("random", "guess")),
        ({"lb": {"haproxy.txt": "listen imap\n  server a 192.0.2.1:143\n"}}, ("random", "likely")),
        ({"p": {"doveconf.txt": "# 2.3.19 (x): /\ndirector_servers = 192.0.2.1\n"}}, ("per_user", "certain")),
        ({"p": {"doveconf.txt": "# 2.3.19 (x): /\nlmtp_proxy = yes\n"}}, ("per_user", "likely")),
    ],
)
def test_topology_of_two_backends(others: dict[str, dict[str, str]], told: tuple[str, str]) -> None:
    report = looked_at({"mail1": backend(), "mail2": backend(), **others})
    assert inferred(report, "topology") == told
    assert [row["backends"] for row in report["clusters"]] == [["mail1", "mail2"]]
    assert ("NFS344" in {row["id"] for row in report["checks"]}) == (told[1] == "guess")


def test_two_that_flush_share_their_users() -> None:
    conf = CONF + "mail_nfs_index = yes\n"
    assert inferred(looked_at({"a": backend(conf), "b": backend(conf)}), "topology") == ("random", "likely")


def test_what_rests_on_a_guess_says_so_and_can_be_told_better() -> None:
    hosts = {host: backend(CONF.replace("maildir:", "mdbox:")) for host in ("mail1", "mail2")}
    report = looked_at(hosts)
    assert bad(report, "error")[-1] == ("NFS205", "mail1, mail2")
    assert detail(report, "NFS205").endswith("(rests on a guess: topology=random)")
    report = looked_at(hosts, told={"topology": "per_user"})
    assert inferred(report, "topology") == ("per_user", "certain")
    assert report["good"] and bad(report) == []
    assert [problem.variable for problem in refusal(audit, {}, {"topolgy": "x"})] == ["topolgy"]


def test_a_condition_that_follows_from_a_guess_is_one() -> None:
    conf = CONF.replace("maildir:", "mbox:").replace(" lmtp", "")
    report = looked_at({"mail1": {"doveconf.txt": conf}})
    assert detail(report, "NFS216").endswith("(rests on a guess: delivery=mta, lockd=yes, nfs_version=4.2)")
    # What was told counts for what follows from it.
    report = looked_at({"mail1": {"doveconf.txt": conf}}, told={"nfs_version": "3", "delivery": "mta"})
    assert inferred(report, "nfs_version") == ("3", "certain") and inferred(report, "lockd") == (True, "guess")
    assert detail(report, "NFS216").endswith("(rests on a guess: lockd=yes)")


def test_many_backends_are_counted_in_the_table_and_named_in_the_report() -> None:
    names = [f"mail{number}" for number in range(1, 9)]
    report = looked_at({name: backend() for name in names})
    (row,) = [row for row in report["checks"] if row["id"] == "NFS343"]
    assert row["host"] == ", ".join(names)
    assert any(line.startswith("NFS343  mail1, mail2, mail3, mail4, 4 others ") for line in report["table"])


def test_stores_of_their_own_are_clusters_of_their_own() -> None:
    other = V42.replace("nfs1:/srv/mail ", "nfs1:/other ")
    report = looked_at({"mail1": backend(), "mail2": backend(mounts=other)})
    assert [row["backends"] for row in report["clusters"]] == [["mail1"], ["mail2"]]
    assert inferred(report, "topology", 1) == ("single", "likely")


def test_two_names_of_one_server_are_one_store() -> None:
    report = looked_at({"mail1": backend(), "mail2": backend(mounts=V42.replace("nfs1:", "192.0.2.1:"))})
    assert [row["backends"] for row in report["clusters"]] == [["mail1", "mail2"]]


def test_backends_that_disagree() -> None:
    hosts = {"mail1": backend(), "mail2": backend(CONF.replace("maildir:", "sdbox:"), V42.replace("4.2", "4.1"))}
    report = looked_at(hosts, told={"topology": "per_user"})
    assert ("NFS343", "mail1, mail2") in bad(report, "error")
    shown = detail(report, "NFS343")
    assert "mailbox format: mail1 maildir, mail2 sdbox" in shown and "NFS version: mail1 4.2, mail2 4.1" in shown
    # The two dialects write one path in two ways; both are right.
    new = "dovecot_config_version = 2.4.1\nmail_driver = maildir\nmail_path = /srv/mail/%{user | domain}/x\n"
    assert detail(looked_at({"mail1": backend(), "mail2": backend(new)}), "NFS343") == "2 backends"


# ---- what the judge says ----


@pytest.mark.parametrize("version", ["2.3.19", "2.4.1"])
def test_a_machine_as_the_matrix_wants_it_has_no_error(version: str) -> None:
    """Whatever plan is accepted: its own settings and options, seen from outside, break no rule about what is in effect."""
    for profile in every_profile(
        dovecot_version=version, nfs_version="4.2", lockd=True, delivery="lmtp", topology="per_user"
    ):
        wanted: dict[str, Any] = {
            **settings(profile),
            "protocols": "imap lmtp",
            "login_trusted_networks": "192.0.2.0/24",
        }
        index = "/var/index" if profile.index_location == "local" else ""
        if profile.series == "2.3":
            wanted["mail_location"] = f"{profile.mailbox_format}:/srv/mail/%u" + (f":INDEX={index}/%u" if index else "")
        else:
            wanted.update({"mail_driver": profile.mailbox_format, "mail_path": "/srv/mail/%{user}"})
            wanted.update({"mail_index_path": index + "/%{user}"} if index else {})
        options = [
            o.replace("positive", "pos") for o in mount_options(profile) if not o.startswith(("x-", "_", "no" + "fail"))
        ]
        shown = ",".join("acregmin=60,acdirmin=60" if option == "actimeo=60" else option for option in options)
        text = f"# {version} (x): /etc/dovecot/dovecot.conf\n" + to_doveconf(wanted, version)
        report = looked_at({"mail1": backend(text, f"nfs1:/m /srv/mail nfs4 rw,{shown},addr=192.0.2.1 0 0\n")})
        in_effect = [row for row in bad(report) if row[0] < "NFS200" or row[0] > "NFS300"]
        dbox_local = profile.mailbox_format in ("sdbox", "mdbox") and index
        assert in_effect == ([("NFS417", "mail1")] if dbox_local else []), profile


@pytest.mark.parametrize(
    ("conf", "mounts", "check", "level"),
    [
        (CONF.replace("mmap_disable = yes\n", ""), V42, "NFS001", "error"),
        (CONF.replace("mail_fsync = always\n", ""), V42, "NFS002", "error"),
        (CONF + "dotlock_use_excl = no\n", V42, "NFS003", "warning"),
        (CONF + "mail_location = maildir:~/M:CONTROL=/var/c\n", V42, "NFS410", "warning"),
        (CONF, V42.replace("hard", "soft"), "NFS107", "error"),
        (CONF, V42.replace("nosuid,", ""), "NFS108", "warning"),
        (CONF, V42.replace("acregmin=60,", ""), "NFS113", "info"),
        (CONF, V42.replace("lookupcache=pos", "nocto"), "NFS304", "warning"),
        (CONF, V42, "NFS304", "info"),
        (CONF, "/dev/vda1 / ext4 rw 0 0\n", "NFS303", "warning"),
        (CONF.replace("2.3.19.1", "2.2.36"), V42, "NFS342", "error"),
    ],
)
def test_a_defect_is_told_by_its_rule(conf: str, mounts: str, check: str, level: str) -> None:
    (row,) = [row for row in looked_at({"mail1": backend(conf, mounts)})["checks"] if row["id"] == check]
    assert (row["level"], row["host"]) == (level, "mail1")
    assert row["fix"] and "site.yml" not in row["fix"]


def test_a_dovecot_that_is_not_on_nfs_is_not_judged_by_what_nfs_wants() -> None:
    """Debian's own configuration, on a disk of its own."""
    stock = (SAMPLES / "director" / "proxy1" / "doveconf.txt").read_text(encoding="utf-8")
    conf = "\n".join(line for line in stock.split("\n") if not line.startswith(("director_", "lmtp_proxy"))).replace(
        "proxy=y ", ""
    )
    report = looked_at({"mail1": backend(conf, "/dev/vda1 / ext4 rw 0 0\n")})
    assert kinds(report, "mail1") == [("backend", "guess")]
    assert bad(report) == [("NFS303", "mail1")] and report["good"]
    assert "was not judged" in detail(report, "NFS303")
    # What this Dovecot does not take is wrong everywhere.
    report = looked_at({"mail1": backend(conf + "mail_path = /x\n", "/dev/vda1 / ext4 rw 0 0\n")})
    assert ("NFS401", "mail1") in bad(report, "error")


def test_missing_parts_are_said() -> None:
    report = looked_at({"mail1": {"doveconf.txt": CONF}, "mail2": {"mounts.txt": V42}})
    assert detail(report, "NFS340", "mail1") == "mounts.txt is not there: mount options were not judged"
    (row,) = [row for row in report["checks"] if (row["id"], row["host"]) == ("NFS340", "mail2")]
    assert row["fix"] == "save doveconf -n as mail2/doveconf.txt"
    # Nothing is judged that was not seen.
    assert {"NFS303", "NFS312"} & {row["id"] for row in report["checks"] if row["host"] == "mail1"} == set()


@pytest.mark.parametrize(
    ("line", "level", "shown"),
    [
        ("/srv/mail  192.0.2.11(sync,no_subtree_check,rw,root_squash)", "ok", "1 of 1 entries"),
        ("/srv/mail  192.0.2.11(async,no_subtree_check,rw,root_squash)", "error", "async: a power cut"),
        ("/srv/mail  *(sync,no_subtree_check,rw,root_squash)", "error", "/srv/mail to *: exported to everybody"),
        ("/software  *(async,ro)", None, ""),
    ],
)
def test_exports(line: str, level: str | None, shown: str) -> None:
    report = looked_at({"mail1": backend(), "nfs1": {"exports.txt": line + "\n"}})
    rows = [row for row in report["checks"] if row["id"] == "NFS314"]
    assert [row["level"] for row in rows] == ([level] if level else [])
    assert all(shown in row["detail"] for row in rows)


def live(**changes: Any) -> dict[str, Any]:
    """A live backend that is well, as far as an audit looks."""
    ntp = {"server": "nfs1", "offset": 0.001, "error_bound": 0.01}
    daemon = {"name": "chronyd", "running": True, "synchronised": True}
    unit = {"ActiveState": "active", "After": "time-sync.target", "RequiresMountsFor": "/srv/mail"}
    state = {
        **state_of("mail1", backend()),
        "hostname": "mail1",
        "kernel_settings": {"sunrpc.max_resvport": "992"},
        "clock": {"ntp": ntp, "store": {"error": "left out in check mode"}, "daemon": daemon},
        "rpc": [],
        "rpc_server": [],
        "units": {"dovecot.service": {**unit, "Asserts": ["AssertPathIsMountPoint=/srv/mail"]}},
        "guard": {"mode": "0555", "uid": 0, "marker": True},
        **changes,
    }
    return copy.deepcopy(state)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, []),
        ({"units": {}}, [("NFS312", "error"), ("NFS313", "warning")]),
        ({"units": {"error": "systemctl is not installed"}}, []),
        ({"kernel_settings": {}}, [("NFS324", "warning")]),
        ({"guard": {"mode": "0777", "uid": 0}}, [("NFS305", "warning")]),
        ({"guard": {"mode": "0755", "uid": 5000}}, [("NFS305", "warning")]),
        ({"guard": {"mode": "0755", "uid": 0}}, []),
        ({"guard": {"error": "no rights"}}, [("NFS305", "warning")]),
        (
            {"clock": {"ntp": {"server": "nfs1", "error": "no answer"}, "daemon": {"running": True}}},
            [("NFS306", "warning")],
        ),
        ({"clock": {"ntp": {"server": "n", "offset": 4.0}, "daemon": {"running": True}}}, [("NFS306", "error")]),
        ({"clock": {"ntp": None, "daemon": {"running": False}}}, [("NFS308", "warning")]),
        ({"clock": {"ntp": None, "daemon": {"running": True, "synchronised": False}}}, [("NFS308", "error")]),
        (
            {"dovecot": {"version": "2.3.19", "conf": "", "error": "Permission denied"}},
            [("NFS311", "error"), ("NFS340", "warning")],
        ),
    ],
)
def test_live_backends(changes: dict[str, Any], told: list[tuple[str, str]]) -> None:
    report = audit({"mail1": live(**changes)})
    rows = [row for row in report["checks"] if row["level"] in ("error", "warning")]
    assert sorted((row["id"], row["level"]) for row in rows) == told
    assert "NFS307" not in {row["id"] for row in report["checks"]}


def test_lock_services_of_live_backends() -> None:
    v3 = state_of("mail1", backend(mounts=V42.replace("vers=4.2", "vers=3")))["mounts"]
    assert ("NFS309", "mail1") in bad(audit({"mail1": live(mounts=v3)}), "error")
    report = audit({"mail1": live(mounts=v3, rpc={"error": "rpcinfo is not installed"})})
    assert ("NFS309", "mail1") in bad(report, "warning")


def test_servers_of_a_live_balancer() -> None:
    row = {"section": "imap", "server": "mail1", "status": "UP", "weight": 1, "id": 1, "check": "L7OK"}
    down = {**row, "server": "mail2", "status": "DOWN", "check": "L4CON"}
    report = audit({"lb": {"haproxy": {"version": "2.6.1", "servers": [row, down, {**row, "status": "no"}]}}})
    assert detail(report, "NFS345") == "imap/mail2 is DOWN (L4CON)" and bad(report) == [("NFS345", "lb")]


def test_places_to_look_at_again() -> None:
    states = {**read_folder(str(SAMPLES / "director")), "x": {}, "y": {"error": "e"}}
    there = {"store": "/srv/mail", "server": "nfs1"}
    nowhere = {"store": "", "server": ""}
    told = {"mail1": there, "mail2": there, "proxy1": {"store": "", "server": "nfs1"}, "x": nowhere, "y": nowhere}
    assert places(states) == told


def test_what_an_audit_adds_is_whole() -> None:
    ids = set(CHECKS) | set(AUDIT_CHECKS) | {rule.id for rule in RULES}
    assert not set(CHECKS) & set(AUDIT_CHECKS)
    assert set(BY_HAND) <= ids and set(MILDER) <= ids and set(MILDER.values()) <= {"warning", "info"}
    for id, check in AUDIT_CHECKS.items():
        assert id == check.id and id.startswith("NFS34") and check.what and check.fix and check.source
    # No way out of verify's that needs an inventory is given to machines that have none.
    needs = {id for id, check in CHECKS.items() if "site.yml" in check.fix}
    assert needs - set(BY_HAND) == {"NFS315", "NFS318", "NFS322", "NFS325", "NFS332"} & needs
    assert not [text for text in BY_HAND.values() if "site.yml" in text]


def test_the_verdict_as_a_sentence() -> None:
    assert estate("random")["summary"] == "Not in order: 19 errors and 9 warnings on 4 machines."
    assert estate("proxy")["summary"] == "No error, but 1 warning on 3 machines."
    assert estate("director")["summary"] == "Nothing wrong was found on 3 machines."
    assert looked_at({"mail1": backend("# 2.2.36 (x): /\n")})["summary"].startswith("Not in order: 1 error and ")


# ---- saved files ----


def test_saved_files_of_other_systems(tmp_path: Path) -> None:
    """Windows' line ends and its mark at the beginning, and what mount(8) prints."""
    (tmp_path / "mail1").mkdir()
    (tmp_path / "mail1" / "doveconf.txt").write_bytes(b"\xef\xbb\xbf" + CONF.replace("\n", "\r\n").encode())
    mounted = "nfs1:/srv/mail on /srv/mail type nfs4 (rw,hard,vers=4.2,local_lock=none)\n"
    (tmp_path / "mail1" / "mounts.txt").write_text(mounted)
    (tmp_path / ".git").mkdir()
    report = audit(read_folder(str(tmp_path)), live=False)
    assert kinds(report, "mail1") == [("backend", "certain")]
    assert inferred(report, "dovecot_version") == ("2.3.19.1", "certain")


def test_every_problem_of_a_folder_is_in_one_error(tmp_path: Path) -> None:
    for host in ("empty", "other", "broken", "mounts", "folder", "huge", "fine"):
        (tmp_path / host).mkdir()
    (tmp_path / "empty" / "doveconf.txt").write_text(" \n")
    (tmp_path / "other" / "doveconf.out").write_text("x = y\n")
    (tmp_path / "broken" / "doveconf.txt").write_text("x = y\npassword my-secret-0123\n")
    (tmp_path / "mounts" / "mounts.txt").write_text("nothing of that kind\n")
    (tmp_path / "folder" / "mounts.txt").mkdir()
    (tmp_path / "huge" / "doveconf.txt").write_text("x = y\n" * (LARGEST // 5))
    (tmp_path / "fine" / "doveconf.txt").write_text(CONF)
    problems = refusal(read_folder, str(tmp_path))
    assert {problem.variable for problem in problems} == {"nfsmail_audit_files"}
    told = {problem.value: problem.rule for problem in problems}
    assert told["empty/doveconf.txt"] == "the file is empty"
    assert "doveconf.out may be meant for doveconf.txt" in next(p.fix for p in problems if p.value == "other/")
    assert told["broken/doveconf.txt"] == "doveconf output, line 2: neither a setting nor a section"
    assert told["mounts/mounts.txt"] == "nothing in it can be read"
    assert "directory" in told["folder/mounts.txt"] and "at most" in told["huge/doveconf.txt"]
    assert len(problems) == 6 and "my-secret" not in "".join(map(str, problems))


@pytest.mark.parametrize("make", [lambda path: path / "none", lambda path: path, lambda path: path / "file"])
def test_a_folder_without_machines(tmp_path: Path, make: Any) -> None:
    (tmp_path / "file").write_text("x")
    (problem,) = refusal(read_folder, str(make(tmp_path)))
    assert problem.variable == "nfsmail_audit_files" and problem.fix.startswith(("name a folder", "make "))


def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    if os.getuid() == 0:
        pytest.skip("root reads everything")
    (tmp_path / "mail1").mkdir()
    (tmp_path / "mail1" / "doveconf.txt").write_text(CONF)
    (tmp_path / "mail1" / "doveconf.txt").chmod(0)
    (problem,) = refusal(read_folder, str(tmp_path))
    assert "Permission denied" in problem.rule


def test_input(tmp_path: Path) -> None:
    assert input_problems({}, ["mail1"]) == []
    assert (
        input_problems({"nfsmail_audit_files": str(SAMPLES / "proxy"), "nfsmail_html_path": str(tmp_path / "a")}, [])
        == []
    )
    (nothing,) = input_problems({}, [])
    assert nothing.value is None and "-i mail1,mail2," in nothing.fix
    same = str(tmp_path / "report")
    problems = input_problems(
        {
            "nfsmail_audit_files": "/nowhere/at/all",
            "nfsmail_audit_profile": {"topolgy": "single", "lockd": "perhaps"},
            "nfsmail_report_path": same,
            "nfsmail_sarif_path": same,
            "nfsmail_html_path": str(tmp_path / "none" / "report.html"),
        },
        [],
    )
    assert [problem.variable for problem in problems] == [
        "nfsmail_audit_files",
        "nfsmail_audit_profile.topolgy",
        "nfsmail_audit_profile.lockd",
        "nfsmail_sarif_path",
        "nfsmail_html_path",
    ]
    (folder,) = input_problems({"nfsmail_report_path": str(tmp_path)}, ["a"])
    assert folder.fix == "name a file"


# ---- whatever a text or a machine says: an answer or our own error ----

LINES = st.lists(
    st.sampled_from(
        [
            *CONF.split("\n"),
            *V42.split("\n"),
            *(
                "passdb {",
                "namespace a {",
                "}",
                "args = proxy=y home=%%",
                "mail_location = mdbox",
                "mail_path = %{",
                "a = {",
            ),
            *(
                "director_servers = 1",
                "dovecot_config_version = 9",
                "# 2.4.1 (x): /",
                "mail_location = :::=:",
                "plugin {",
            ),
            *(
                "protocols {",
                "mail_home = ~/%h",
                "/srv/mail *(async",
                "listen a",
                "server a b",
                "mail_driver = [",
                "service x {",
            ),
        ]
    )
    | st.text(max_size=30),
    max_size=12,
).map("\n".join)


@given(st.dictionaries(st.sampled_from(sorted(FILES)), LINES | st.text(), min_size=1))
@example({"doveconf.txt": "mail_path = %\x00", "mounts.txt": "a /\\999 nfs \\0 0 0"})
def test_garbage_is_an_answer_or_our_own_error(texts: dict[str, str]) -> None:
    try:
        state = state_of("a", texts)
    except NfsmailError as error:
        assert error.problems
        return
    report = audit({"a": state, "b": state}, live=False)
    assert json.loads(json.dumps(report)) == report
    assert all(row["fix"] for row in report["checks"] if row["level"] != "ok")
    assert set(places({"a": state})) == {"a"}


PARTS = (
    "dovecot",
    "mounts",
    "exports",
    "haproxy",
    "units",
    "clock",
    "rpc",
    "nfsd",
    "guard",
    "kernel_settings",
    "hostname",
)


@given(st.dictionaries(st.sampled_from(PARTS), JSON))
def test_whatever_a_machine_says_is_an_answer(state: dict[str, Any]) -> None:
    states = {"a": state, "b": live(**state)}
    report = audit(states)
    assert isinstance(report["good"], bool) and report["table"]
    assert set(places(states)) == {"a", "b"}
