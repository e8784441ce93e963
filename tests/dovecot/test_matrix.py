# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every plan that the matrix accepts, each release accepts too, with the values that were meant; what it calls refused is."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.catalogue import SETTINGS, defaults, foreign
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.dialect import flat, from_doveconf, to_doveconf
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.dovecot_conf import backend_conf, proxy_conf
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.matrix import (
    plan_findings,
    settings,
    written_findings,
)
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.profile import Profile, as_mapping
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.written import in_effect
from brain_samples import every_profile
from conftest import Release
from plans import PROXIES, backend, proxy


def refused(profile: Profile) -> bool:
    """The matrix stops this plan."""
    return any(row["level"] == "error" for row in plan_findings(profile))


def rendered(version: str) -> dict[str, list[Profile]]:
    """Each different backend configuration of all accepted plans, with the plans that lead to it."""
    found: dict[str, list[Profile]] = {}
    for profile in every_profile(dovecot_version=version):
        if not refused(profile):
            proxies = PROXIES if profile.topology == "per_user" else []
            text = backend_conf(backend(version, dict(as_mapping(profile)), proxies=proxies))
            found.setdefault(text, []).append(profile)
    return found


def test_every_plan_that_is_accepted_is_accepted_by_dovecot(
    release: Release, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = rendered(release.version)
    plans = sum(map(len, texts.values()))
    answers = release.ask(list(texts), "doveconf", "-c", "FILE", "-n")
    wrong: list[str] = []
    for (text, profiles), answer in zip(texts.items(), answers):
        if (answer.code, answer.err) != (0, ""):
            wrong.append(f"{profiles[0]}: {answer.err}\n{text}")
            continue
        live, written = (flat(from_doveconf(said)) for said in (answer.out, text))
        # What is at its default is not printed, and passwords are hidden.
        wrong += [
            f"{profiles[0]}: {name} is {live[name]}, written {value}"
            for name, value in written.items()
            # 2.4 prints lists without their commas.
            if name in live and live[name] not in (value, value.replace(", ", " ")) and "hidden" not in live[name]
        ]
        have = in_effect(from_doveconf(answer.out), release.series)
        for name, value in settings(profiles[0]).items():
            if have[name] != value:
                wrong.append(f"{profiles[0]}: {name} is {have[name]}, meant {value}")
    assert not wrong, f"{len(wrong)} of {len(texts)}; the first:\n{wrong[0]}"
    refusals = sum(map(refused, every_profile(dovecot_version=release.version)))
    with capsys.disabled():
        print(
            f"\n[{release.version}] {plans} plans, {len(texts)} different files accepted; {refusals} plans refused by us"
        )
    assert plans > 700


QUOTA = {"nfsmail_quota": "2G"}
SIEVE = {
    "nfsmail_sieve": True,
    "nfsmail_sieve_before": [{"name": "a", "script": "keep;"}, {"name": "b", "script": "x"}],
}


def everybodys(plugins: Mapping[str, set[str]]) -> set[str]:
    return set.intersection(*plugins.values())


def test_features_together_and_apart_load_these_plugins(release: Release) -> None:
    """What Dovecot says that it loads. Debian 11 has no Sieve in these images."""
    texts: list[str] = []
    wanted: list[dict[str, set[str]]] = []
    for told in ({}, QUOTA, SIEVE, QUOTA | SIEVE)[: 2 if release.version == "2.3.13" else 4]:
        for topology, delivery in (("per_user", "lmtp"), ("random", "lda")):
            profile = {"topology": topology, "delivery": delivery}
            more = {"proxies": PROXIES if topology == "per_user" else [], "cluster": told}
            protocols = ["imap", "lmtp", *(["sieve"] if "nfsmail_sieve" in told else [])]
            # An operator's own, as each dialect has it.
            extra = {"2.3": {"mail_plugins": "zlib"}, "2.4": {"mail_plugins": {"zlib": "yes"}}}[release.series]
            texts.append(
                backend_conf(backend(release.version, profile, protocols=protocols, extra_settings=extra, **more))
            )
            everybody = {"zlib", *(["quota"] if "nfsmail_quota" in told else [])}
            sieve = {"sieve"} if "nfsmail_sieve" in told else set()
            wanted.append(
                {
                    "imap": everybody | ({"imap_quota"} if "nfsmail_quota" in told else set()),
                    "lmtp": everybody | sieve,
                    "lda": everybody | (sieve if delivery == "lda" else set()),
                }
            )
    for protocol in wanted[0]:
        said = release.ask(texts, "doveconf", "-c", "FILE", "-f", f"protocol={protocol}", "mail_plugins")
        for answer, plugins in zip(said, wanted):
            assert (answer.code, answer.err) == (0, ""), answer.err
            words = re.sub(r"mail_plugins( =)?|[{}]|= yes", " ", answer.out).split()
            if release.series == "2.4":
                # It prints what a section adds, where that adds something; test_features.py has both at work.
                plugins = {protocol: plugins[protocol] - everybodys(plugins) or everybodys(plugins)}
            assert set(words) == plugins[protocol] and len(words) == len(set(words)), (protocol, answer.out)


def test_every_proxy_is_accepted(release: Release) -> None:
    protocols = (["imap"], ["lmtp"], ["imap", "lmtp"])
    texts = [
        proxy_conf(proxy(release.version, protocols=chosen, ssl=ssl, doveadm_password=password))
        for chosen in protocols
        for ssl in ("yes", "no", "required")
        for password in ("", "another-made-up-one-42")
    ]
    for text, answer in zip(texts, release.ask(texts)):
        assert (answer.code, answer.err) == (0, ""), f"{answer.err}\n{text}"


def test_what_is_written_comes_back(release: Release) -> None:
    """Through Dovecot and through us: the second reading says what the first said."""
    texts = [backend_conf(backend(release.version)), proxy_conf(proxy(release.version))]
    for answer in release.ask(texts, "doveconf", "-c", "FILE", "-n", "-P"):
        first = from_doveconf(answer.out)
        (again,) = release.ask([to_doveconf(first, release.version)], "doveconf", "-c", "FILE", "-n", "-P")
        assert (again.code, again.err) == (0, "")
        assert from_doveconf(again.out) == first
        wanted = {name for name in first if not isinstance(first[name], Mapping)}
        assert wanted >= {"auth_mechanisms"}


# ---- what the matrix says that Dovecot refuses ----


def wrong_value(choices: tuple[str, ...]) -> str:
    return "sometimes" if "sometimes" not in choices else "never"


def refusals(series: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """The rule, a word of Dovecot's own message, and settings that must bring it up."""
    yield "NFS402", "mail_nfs_index=yes requires mmap_disable=yes", {"mail_nfs_index": "yes"}
    safe = {"mail_nfs_index": "yes", "mmap_disable": "yes"}
    yield "NFS403", "mail_nfs_index=yes requires mail_fsync=always", safe
    yield "NFS403", "mail_nfs_index=yes requires mail_fsync=always", {**safe, "mail_fsync": "optimized"}
    yield "NFS403", "mail_nfs_index=yes requires mail_fsync=always", {**safe, "mail_fsync": "never"}
    yield "NFS402", "mail_nfs_index=yes requires mmap_disable=yes", {"mail_fsync": "always", "mail_nfs_index": "1"}
    section = {"protocol imap": {"mail_nfs_index": "yes"}}
    yield "NFS402", "mail_nfs_index=yes requires", {**section, "mail_fsync": "always"}
    yield "NFS403", "mail_nfs_index=yes requires", {**section, "mmap_disable": "yes"}
    for setting in SETTINGS:
        name, other = setting.name(series), setting.name("2.3" if series == "2.4" else "2.4")
        if not name and other and not setting.section:
            yield "NFS401", "Unknown setting", {other: "1"}
        elif name and other and name != other:
            within = {"service imap-login": {other: "1"}} if "count" in other else {other: "1"}
            yield "NFS401", "nknown setting", within
        if name and setting.choices:
            yield "NFS404", "Invalid", {name: wrong_value(setting.choices)}
            if "no" in setting.choices:
                yield "NFS404", "Invalid boolean value: false", {name: "false"}
    if series == "2.3":
        for value in ("5s", "9 secs", "0"):
            yield "NFS422", "director_user_expire is too low", {"director_user_expire": value}
    else:
        yield "NFS401", "Unknown section name: plugin", {"plugin": {"quota": "count"}}
        yield "NFS401", "Unknown setting", {"director_max_parallel_moves": "10"}
        yield "NFS401", "Unknown setting", {"protocol lmtp": {"mail_location": "maildir:~/Maildir"}}


def test_what_the_matrix_calls_refused_is_refused_in_these_words(release: Release) -> None:
    cases = list(refusals(release.series))
    texts = [to_doveconf(conf, release.version) for _, _, conf in cases]
    for (id, word, conf), answer in zip(cases, release.ask(texts)):
        kind = "proxy" if id == "NFS422" else "backend"
        found = [row["id"] for row in written_findings(conf, {"dovecot_version": release.version}, kind)]
        assert id in found, (conf, found)
        assert answer.code == 89 and word in answer.err, (conf, answer)
    assert len(cases) > 30


def test_a_file_without_version_lines(release: Release) -> None:
    (answer,) = release.ask(["mail_debug = yes\n"])
    found = [row["id"] for row in written_findings({"mail_debug": "yes"}, {"dovecot_version": release.version})]
    if release.series == "2.4":
        assert (answer.code, found) == (89, ["NFS427"])
        assert "The first setting must be dovecot_config_version" in answer.err
    else:
        assert (answer.code, found) == (0, [])


def test_the_catalogue_of_settings_is_true(release: Release) -> None:
    """Names are known, defaults are as we say."""
    (answer,) = release.ask([to_doveconf({}, release.version)], "doveconf", "-c", "FILE", "-d")
    live = flat(from_doveconf(answer.out))
    names = [setting.name(release.series) for setting in SETTINGS if not setting.section]
    names = [name for name in names if name and not name.startswith("dovecot_")]
    trees = [{"service imap": {name: "1"}} if name.endswith("_count") else {name: "1"} for name in names]
    for name, said in zip(names, release.ask([to_doveconf(tree, release.version) for tree in trees])):
        assert "nknown setting" not in said.err, said
        assert foreign(name, release.series) == ""
    # doveconf 2.4 prints these empty; strace shows what is used (see the facts of the rule).
    printed_empty = ("mbox_read_locks", "mbox_write_locks") if release.series == "2.4" else ()
    found = {name: live[name] for name in defaults(release.series) if name not in printed_empty}
    assert found == {name: value for name, value in defaults(release.series).items() if name in found}


# ---- what Dovecot takes without a word, and means otherwise ----

MISREAD: dict[str, dict[str, dict[str, Any]]] = {
    "2.3": {},
    "2.4": {
        "NFS407": {"mail_plugins": "$mail_plugins quota"},
        "NFS432": {"service replicator": {"process_min_avail": 1}},
        "NFS431": {"mailbox_list_index_prefix": "/fast/index"},
    },
}


def test_what_dovecot_takes_without_a_word_is_found_by_us(release: Release) -> None:
    for id, conf in MISREAD[release.series].items():
        (answer,) = release.ask([to_doveconf(conf, release.version)])
        assert (answer.code, answer.err) == (0, ""), id
        assert id in [row["id"] for row in written_findings(conf, {"dovecot_version": release.version})]


HOMES = {
    # one-letter variables are text to 2.4
    "/srv/%d/%n": {"2.3": "/srv/b.c/a", "2.4": "/srv/%d/%n"},
    "/srv/%Ld/%Ln": {"2.3": "/srv/b.c/a", "2.4": "/srv/%Ld/%Ln"},
    # filters fail every lookup of 2.3
    "/srv/%{user | domain | lower}/%{user | username | lower}": {"2.3": None, "2.4": "/srv/b.c/a"},
}


@pytest.mark.parametrize("home", HOMES)
def test_variables_of_the_other_dialect(release: Release, home: str) -> None:
    means = HOMES[home][release.series]
    conf = {"mail_home": home}
    conf |= (
        {"mail_location": "maildir:~/m"} if release.series == "2.3" else {"mail_driver": "maildir", "mail_path": "~/m"}
    )
    args = {"args": "allow_all_users=yes uid=1000 gid=1000"}
    new = {"allow_all_users": "yes", "fields": {"uid": "1000", "gid": "1000"}}
    tree: dict[str, Any] = {**conf, "userdb static": args if release.series == "2.3" else new}
    tree["passdb static"] = {"args": "nopassword=y"} if release.series == "2.3" else {"password": "{PLAIN}none"}
    with release.running(to_doveconf(tree, release.version)) as path:
        said = release.run("doveadm", "-c", path, "user", "-f", "home", "a@b.c")
        assert said.stdout.strip() == (means or ""), said
        assert (said.returncode == 0) == (means is not None)
        rules = {row["id"] for row in written_findings(tree, {"dovecot_version": release.version})}
        misread = means != "/srv/b.c/a"
        assert bool(rules & {"NFS405", "NFS406"}) == misread, rules


def test_errors_of_a_section_are_seen_where_2_4_looks(release: Release) -> None:
    """2.4 judges each filter by itself: settings outside do not count, so an error of ours may be stricter in 2.3 only."""
    tree = {"mmap_disable": "yes", "mail_fsync": "always", "protocol imap": {"mail_nfs_index": "yes"}}
    (answer,) = release.ask([to_doveconf(tree, release.version)])
    assert answer.code == (89 if release.series == "2.4" else 0), answer
