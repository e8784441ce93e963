#!/usr/bin/env python3
# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes the tables of the documentation from what the code says of itself: tools/docs.py [--check]

Only what stands between the marks is written; the prose around it is ours. With --check nothing is written, and files that
are out of date are listed. Run it with .venv/bin/python.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
import statistics
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / ".ansible" / "collections"))  # tools/setup makes it

from ansible_collections.nfsmail.cluster.plugins.plugin_utils import alerts, bench, distributions, wiki2012
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.audit import AUDIT_CHECKS, MILDER
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.catalogue import SETTINGS
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.judge import CHECKS
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.log_signs import SIGNS
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.matrix import matching
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.metrics import COUNTERS
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.profile import DERIVED, KEYS, Profile
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.rules import PATHS, RULES, Rule

MARKED = re.compile(r"(<!-- begin (\S+): written by tools/docs.py -->\n).*?(<!-- end -->)", re.DOTALL)
LEVELS = ("error", "warning", "info")


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table."""
    lines = [list(head), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def prose(text: str | list[str]) -> str:
    """Ansible's markup as Markdown."""
    joined = " ".join(text) if isinstance(text, list) else text
    return re.sub(r"\b[CVOMP]\(([^()]*)\)", lambda match: f"`{match[1].partition('#')[0]}`", joined)


def code(value: Any) -> str:
    """A value as it would stand in YAML, on one line; with quotes where it would be no text without them."""
    plain = isinstance(value, str) and isinstance(yaml.safe_load(f"- {value}".replace("{", " "))[0], str)
    return f"`{value if plain else json.dumps(value)}`"


def spec(role: str) -> dict[str, Any]:
    """What a role says of itself."""
    text = (ROOT / "roles" / role / "meta" / "argument_specs.yml").read_text(encoding="utf-8")
    return dict(yaml.safe_load(text)["argument_specs"]["main"])


def variables(role: str) -> str:
    """A role's variables. A default that is computed may stand in defaults/main.yml only."""
    text = (ROOT / "roles" / role / "defaults" / "main.yml").read_text(encoding="utf-8")
    defaults = {name: value for name, value in yaml.safe_load(text).items() if value is not None}
    return table(
        ("variable", "type", "default", "meaning"),
        (
            (
                f"`{name}`",
                str(option["type"]) + (f" of {option['elements']}" if "elements" in option else ""),
                code(option.get("default", defaults[name])) if name in defaults else "not set",
                prose(option["description"])
                + (
                    f" One of {', '.join(code(choice) for choice in option['choices'])}." if "choices" in option else ""
                ),
            )
            for name, option in spec(role)["options"].items()
        ),
    )


def every_role() -> str:
    """The variables of all roles, the cluster's own first."""
    roles = sorted(
        (path.parents[1].name for path in ROOT.glob("roles/*/meta/argument_specs.yml")),
        key=lambda name: (name != "nfsmail", name),
    )
    return "\n".join(f"## {role}\n\n{spec(role)['short_description']}.\n\n{variables(role)}" for role in roles)


TOPOLOGIES = ("single", "random", "per_user")


def condition(rule: Rule) -> str:
    """When a rule holds."""
    words = [_condition(key, values) for key, values in rule.when.items()]
    return ", ".join([*words, *([f"Dovecot {rule.versions}"] if rule.versions else [])]) or "always"


def _condition(key: str, values: Iterable[str | bool]) -> str:
    if key in DERIVED:
        return DERIVED[key] if True in values else f"no {DERIVED[key]}"
    return f"{key} {' or '.join(map(_word, values))}"


# What stands in one table by topology, and what its names are called there.
WRITTEN = {"set": "", "mount": "mount option ", "kernel": "kernel parameter "}


def by_topology() -> str:
    """What a cluster gets: settings and mount options by topology, else as by default."""
    rows: dict[tuple[str, str], dict[str, Rule]] = {}
    for topology in TOPOLOGIES:
        profile = Profile(topology=topology, nfs_version="3", cache_flush=topology == "random")
        for effect in WRITTEN:
            for rule in matching(profile, effect):
                rows.setdefault((effect, rule.target), {})[topology] = rule
    return table(
        ("", *TOPOLOGIES, "rules"),
        (
            (
                f"{WRITTEN[effect]}`{target}`",
                *(f"`{found[topology].value}`" if topology in found else "-" for topology in TOPOLOGIES),
                ", ".join(dict.fromkeys(rule.id for rule in found.values())),
            )
            for (effect, target), found in rows.items()
        ),
    )


def _source(rule: Rule) -> str:
    return rule.source + (" (*)" if rule.overrides_2012 else "")


def rules(effect: str) -> str:
    """What the matrix writes: settings, settings while mail is delivered, settings of proxies, or mount options."""
    return table(
        ("id", "written", "when", "why", "source"),
        (
            (
                rule.id,
                f"`{rule.value}`" if effect == "mount" else f"`{rule.target} = {rule.value}`",
                condition(rule),
                rule.text,
                _source(rule),
            )
            for rule in RULES
            if rule.effect == effect
        ),
    )


def _findings(written: bool) -> list[Rule]:
    return [rule for level in LEVELS for rule in RULES if rule.effect == level and bool(rule.found) == written]


def findings() -> str:
    """What the matrix refuses or warns of in a plan."""
    return table(
        ("id", "level", "when", "what goes wrong", "way out", "source"),
        (
            (rule.id, rule.effect, condition(rule), rule.text, rule.fix, _source(rule))
            for rule in _findings(written=False)
        ),
    )


def settings_found() -> str:
    """What the matrix refuses or warns of in settings that somebody wrote."""
    return table(
        ("id", "level", "found", "when", "what goes wrong", "way out", "source"),
        (
            (rule.id, rule.effect, _found(rule), condition(rule), rule.text, rule.fix, _source(rule))
            for rule in _findings(written=True)
        ),
    )


MEANINGS = {
    "@foreign": "a name of the other dialect",
    "@foreign_value": "a value that it does not have",
    "@namespaces": "two namespaces or more",
    "@attachments": "attachments",
    PATHS: "a path or user format",
}


def _found(rule: Rule) -> str:
    words = []
    for name, value in rule.found.items():
        if name in MEANINGS:
            words.append(MEANINGS[name] + (" on local disk" if value == "local" else ""))
        elif name.startswith("@"):
            places = {"local": "on local disk", "nfs": "on the store", "memory": "in memory"}
            words.append(f"`{name[1:]}` {' or '.join(places[place] for place in value.split('|'))}")
        else:
            plain = re.sub(r"\(\.\*/\)\?|\(/[^()]*\)\?|\[\^/\]\*", "", name.removeprefix("!"))
            words.append(("no " if name.startswith("!") else "") + f"`{plain}`" + _values(value))
    return ", ".join(words)


def _values(pattern: str) -> str:
    """A pattern of values in words, where it has some."""
    return f" {pattern.replace('|', ' or ')}" if re.fullmatch(r"\w+(\|\w+)*", pattern) else ""


def dialects() -> str:
    """Names that differ between 2.3 and 2.4, and defaults that do."""
    return table(
        ("Dovecot 2.3", "Dovecot 2.4", "note"),
        (
            (
                code(setting.old) if setting.old else "-",
                code(setting.new) if setting.new else "-",
                setting.hint
                + (
                    f"default {setting.default[0]} in 2.3, {setting.default[1]} in 2.4"
                    if _defaults_differ(setting)
                    else ""
                ),
            )
            for setting in SETTINGS
            if setting.old != setting.new or _defaults_differ(setting)
        ),
    )


def _defaults_differ(setting: Any) -> bool:
    return setting.default is not None and setting.default[0] != setting.default[1]


def since_2012() -> str:
    """Every statement of the page of 2012, and what became of it."""
    return table(
        ("", "the page of 2012", "today", "", "served by"),
        ((one.id, one.says, one.verdict, one.today, ", ".join(one.served)) for one in wiki2012.STATEMENTS),
    )


def left_out() -> str:
    """What is documented and has no rule."""
    return table(("what", "why not"), ((one.what, one.why) for one in wiki2012.LEFT_OUT))


def checks() -> str:
    """The questions of verify.yml."""
    return table(
        ("id", "what is asked", "what to do when it is wrong", "source"),
        ((check.id, check.what, check.fix, check.source) for check in CHECKS.values()),
    )


def audit_checks() -> str:
    """The questions that audit.yml asks beside those of verify.yml."""
    return table(
        ("id", "what is asked", "what to do when it is wrong", "source"),
        ((check.id, check.what, check.fix, check.source) for check in AUDIT_CHECKS.values()),
    )


def audit_levels() -> str:
    """Where an audit is milder than verify.yml."""
    targets = {rule.id: f"`{rule.target}`" for rule in RULES}
    words = {id: f"{targets.get(id) or CHECKS[id].what} ({id})" for id in MILDER}
    return table(
        ("level", "for"),
        ((level, ", ".join(words[id] for id in MILDER if MILDER[id] == level)) for level in LEVELS[1:]),
    )


def profile_keys() -> str:
    """The words that describe a cluster to the matrix."""
    return table(
        ("key", "choices", "default", "meaning"),
        ((f"`{key.name}`", ", ".join(map(code, key.choices)), code(key.default), key.meaning) for key in KEYS),
    )


def counters() -> str:
    """What Dovecot counts."""
    return table(
        ("metric", "on", "events", "meaning"),
        (
            (
                f"`{one.names[0]}`",
                " and ".join(one.on) + (f", Dovecot {one.versions}" if one.versions else ""),
                f"`{one.filter}`",
                one.text,
            )
            for one in COUNTERS
        ),
    )


def log_signs() -> str:
    """Lines of Dovecot's log, with what they mean."""
    return table(
        ("line", "means", "what to do"),
        (
            (
                f"`{sign.pattern}`" + ("" if sign.on == ("backend",) else f" ({', '.join(sign.on)})"),
                sign.what,
                sign.fix,
            )
            for sign in SIGNS
        ),
    )


def gauges() -> str:
    """What our own program writes."""
    place = METRICS_FILES / "nfsmail_metrics.py"
    found = importlib.util.spec_from_file_location("nfsmail_metrics", place)
    assert found and found.loader
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return table(("metric", "meaning"), ((f"`{name}`", text) for name, text in module.METRICS.items()))


def alert_table() -> str:
    """What Prometheus raises an alert for."""
    return table(
        ("alert", "severity", "when", "for", "what to do"),
        ((one.name, one.severity, f"`{one.expr}`", one.lasting, one.todo) for one in alerts.ALERTS),
    )


def topology_pictures() -> Mapping[str, str]:
    """One drawing for each topology: who opens Anna's mail, and who opens Bert's."""
    users = {"Anna": (75, 26, "anna"), "Bert": (205, 26, "bert")}
    two = {"mail1": (75, 156, "host"), "mail2": (205, 156, "host")}
    return {
        "single": drawing(
            "Topology single: one backend",
            "Clients of Anna and of Bert reach the one backend, mail1. The mail of both is on the NFS server.",
            {**users, "mail1": (140, 156, "host"), "NFS": (140, 222, "store")},
            [(start, end, who) for who in users for start, end in ((who, "mail1"), ("mail1", "NFS"))],
        ),
        "per_user": drawing(
            "Topology per_user: one backend for each user",
            "Clients reach a proxy, which sends Anna to backend mail1 and Bert to backend mail2. The mail of both is on one NFS"
            " server, and no mailbox is open on two backends.",
            {**users, "proxy1": (140, 92, "host"), **two, "NFS": (140, 222, "store")},
            [
                (start, end, who)
                for who, backend in (("Anna", "mail1"), ("Bert", "mail2"))
                for start, end in ((who, "proxy1"), ("proxy1", backend), (backend, "NFS"))
            ],
        ),
        "random": drawing(
            "Topology random: any backend",
            "Clients reach a balancer, which sends each to any backend. Anna and Bert are open on mail1 and on mail2 at once:"
            " two backends write the same files on the NFS server, and mail gets lost.",
            {**users, "balancer1": (140, 92, "host"), **two, "NFS": (140, 222, "risk")},
            [
                (start, end, who)
                for who in users
                for start, end in (
                    (who, "balancer1"),
                    *(step for backend in two for step in (("balancer1", backend), (backend, "NFS"))),
                )
            ],
        ),
    }


# Fill and border of a box. Text stands in boxes only, so that neither a light nor a dark page makes it hard to read.
BOXES = {
    **{"anna": ("#f6f8fa", "#218bff"), "bert": ("#f6f8fa", "#bf8700")},
    **{"host": ("#f6f8fa", "#8c959f"), "store": ("#dafbe1", "#2da44e"), "risk": ("#ffebe9", "#fa4549")},
}
# Colour, dashes, and the place beside the other user's line.
LINES = {"Anna": ("#218bff", "", -5), "Bert": ("#bf8700", ' stroke-dasharray="6 3"', 5)}


def drawing(
    title: str, text: str, boxes: Mapping[str, tuple[int, int, str]], lines: Iterable[tuple[str, str, str]]
) -> str:
    """Boxes (middle, kind) and the lines of users between them, as SVG."""
    drawn = []
    for start, end, who in lines:
        color, dashes, aside = LINES[who]
        (left, top, _), (right, bottom, _) = boxes[start], boxes[end]
        drawn.append(
            f'<line x1="{left + aside}" y1="{top + 16}" x2="{right + aside}" y2="{bottom - 16}" stroke="{color}"'
            f' stroke-width="2"{dashes}/>'
        )
    for label, (left, top, kind) in boxes.items():
        fill, border = BOXES[kind]
        drawn.append(
            f'<rect x="{left - 50}" y="{top - 16}" width="100" height="32" rx="6" fill="{fill}" stroke="{border}"/>'
        )
        drawn.append(f'<text x="{left}" y="{top + 5}">{label}</text>')
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" width="280" height="248" viewBox="0 0 280 248" role="img"'
        ' aria-labelledby="title desc" font-family="sans-serif" font-size="14" fill="#1f2328" text-anchor="middle">\n'
        f'<title id="title">{title}</title>\n<desc id="desc">{text}</desc>\n'
        + "".join(f"{line}\n" for line in drawn)
        + "</svg>\n"
    )


class _Indented(yaml.SafeDumper):
    """Lists within mappings are indented, as in all our files."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


METRICS_FILES = ROOT / "roles" / "metrics" / "files"
PICTURES = ROOT / "docs" / "pictures"


def files() -> Mapping[Path, str]:
    """Files that are written as a whole."""
    rules_ = yaml.dump(alerts.alert_rules(), Dumper=_Indented, sort_keys=False, width=100)
    return {
        METRICS_FILES
        / "nfsmail-alerts.yml": "---\n# For Prometheus (rule_files). Written by tools/docs.py from plugins/plugin_utils/alerts.py.\n"
        + rules_,
        METRICS_FILES / "nfsmail-dashboard.json": json.dumps(alerts.dashboard(), indent=2) + "\n",
        **{PICTURES / f"topology-{name}.svg": text for name, text in topology_pictures().items()},
    }


def measured() -> list[dict[str, Any]]:
    """What `make bench` has left."""
    path = ROOT / "docs" / "performance.json"
    return list(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else []


def bench_ours() -> str:
    """Every cell of the matrix."""
    cells = [cell for cell in measured() if not cell["name"].startswith(("delay", "others"))]
    return "".join(f"{line}\n" for line in bench.table(cells))


def bench_others() -> str:
    """Other people's settings beside ours."""
    ours = ("per_user, maildir, indexes nfs, NFSv3, ours", "random, maildir, indexes nfs, NFSv3, ours")
    cells = [cell for cell in measured() if cell["name"].startswith("others") or cell["name"] in ours]
    return "".join(f"{line}\n" for line in bench.table(cells))


def bench_delays() -> str:
    """What a delay adds to a session, by its calls."""
    head = ("", "calls of a warm session", *(f"{delay:g} ms" for delay in bench.DELAYS_MS))
    cells = [cell for cell in measured() if cell["nfs"] and cell["name"].endswith("NFSv3, ours")]
    return table(head, bench.predictions(cells))


def routing() -> dict[str, list[dict[str, Any]]]:
    """What `make routing-cost` has left."""
    return dict(json.loads((ROOT / "docs" / "routing_cost.json").read_text(encoding="utf-8")))


def routing_logins() -> str:
    """A login by each way, beside a direct one."""
    trips = {row["way"]: row["round_trips"] for row in routing()["round_trips"]}
    rows = []
    for row in routing()["logins"]:
        ratio = sorted(row["ratio"])
        spread = f"{statistics.median(ratio):.2f} ({ratio[0]:.2f}–{ratio[-1]:.2f})"
        rows.append((row["way"], f"{row['per_second']:g}", spread, str(trips.get(row["way"], "-"))))
    return table(("", "logins per second", "time, direct = 1", "round trips to the backend"), rows)


def routing_lookups() -> str:
    """A lookup among few users and many."""
    rows = [
        (row["way"], f"{row['users']:,}", f"{row['map_bytes'] / 1024:.0f} KiB", f"{row['ms']:.2f} ms")
        for row in routing()["lookups"]
    ]
    return table(("", "users", "shard map", "a lookup"), rows)


def routing_moved() -> str:
    """Who moves when a backend comes or goes."""
    rows = [
        (f"{row['backends']}, one {row['change']}", f"{row['moved']:.1%}", f"{row['even']:.1%}")
        for row in routing()["moved"]
    ]
    return table(("backends", "users who move", "an even share"), rows)


def releases() -> str:
    """The distributions that the roles know."""
    return table(
        ("distribution", "Dovecot", "", "known from"),
        (
            (one.title, one.dovecot, "proven" if one.proven else "rendered, not run", one.source)
            for one in distributions.RELEASES
        ),
    )


def distribution_paths() -> str:
    """Units and paths by family."""
    return table(
        ("", "Debian, Ubuntu", "Red Hat's family", "the latter known from"),
        (
            (
                one.what,
                *(_word(value) if isinstance(value, bool) else f"`{value}`" for value in (one.debian, one.redhat)),
                one.source,
            )
            for one in distributions.DIFFERENCES
        ),
    )


def distribution_packages() -> str:
    """Packages by family."""
    return table(
        ("package in Debian", "in Red Hat's family", "known from"),
        (
            (
                f"`{one.name}`",
                "none" if one.redhat is None else f"`{one.redhat}`" if one.redhat else "in another",
                one.source,
            )
            for one in distributions.PACKAGES
        ),
    )


def distribution_by_hand() -> str:
    """What operators do themselves."""
    return table(
        ("machines", "for", "command"), ((who, what, f"`{command}`") for who, what, command in distributions.BY_HAND)
    )


def written(name: str) -> str:
    """The text between a pair of marks; ``variables:ROLE`` and the like have an argument."""
    kind, _, argument = name.partition(":")
    if kind == "role":
        about = spec(argument)
        return "".join(f"{prose(line)}\n" for line in about["description"]) + "\n## Variables\n\n" + variables(argument)
    parts = {
        **{"variables": every_role, "findings": findings, "checks": checks, "profile-keys": profile_keys},
        **{"by-topology": by_topology, "settings-found": settings_found, "dialects": dialects},
        **{"since-2012": since_2012, "left-out": left_out},
        **{"metrics-dovecot": counters, "metrics-own": gauges, "metrics-alerts": alert_table},
        **{"bench-ours": bench_ours, "bench-others": bench_others, "bench-delays": bench_delays},
        **{"routing-logins": routing_logins, "routing-lookups": routing_lookups, "routing-moved": routing_moved},
        **{"releases": releases, "distribution-paths": distribution_paths},
        **{"distribution-packages": distribution_packages, "distribution-by-hand": distribution_by_hand},
        **{"log-signs": log_signs, "audit-checks": audit_checks, "audit-levels": audit_levels},
    }
    return rules(argument) if kind == "rules" else parts[kind]()


def renewed(text: str) -> str:
    """A page with what stands between its marks written anew."""
    return MARKED.sub(lambda match: f"{match[1]}\n{written(match[2])}\n{match[3]}", text)


def pages() -> Mapping[Path, str]:
    """Every page that has marks and every file that we write, with its text as it should be."""
    found = {
        path: path.read_text(encoding="utf-8") for path in [*ROOT.glob("docs/*.md"), *ROOT.glob("roles/*/README.md")]
    }
    marked = {path: renewed(text) for path, text in sorted(found.items()) if MARKED.search(text)}
    return {**marked, **files()}


def main() -> int:
    """Write what is out of date, or only say so."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a page is out of date")
    check = parser.parse_args().check
    stale = [path for path, text in pages().items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    for path in stale:
        print(f"{path.relative_to(ROOT)}: {'out of date, run tools/docs.py' if check else 'written'}")
        if not check:
            path.write_text(pages()[path], encoding="utf-8")
    return 1 if stale and check else 0


def _word(value: str | bool) -> str:
    return ("no", "yes")[value] if isinstance(value, bool) else value


if __name__ == "__main__":
    sys.exit(main())
