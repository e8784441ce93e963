# Copyright: (c) 2026, the nfsmail.cluster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An audit's report for other readers: SARIF 2.1.0 for programs, one HTML page for people who decide."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from typing import Any
from urllib.parse import quote

from .profile import in_words

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
HOME = "https://github.com/nfsmail/cluster"
LEVELS = ("error", "warning", "info")
SARIF_LEVELS = {"error": "error", "warning": "warning", "info": "note"}
# What each level means to somebody who does not run mail servers.
MEANING = {
    "error": "mail can be lost or mixed up, or Dovecot does not work",
    "warning": "a risk, or a guard that is missing",
    "info": "worth knowing",
}
WORDS = {"error": "Error", "warning": "Warning", "info": "Note"}
KINDS = {
    "nfs_server": "NFS server",
    "backend": "backend",
    "proxy": "proxy",
    "director": "director",
    "balancer": "balancer",
}
# Which saved text an answer is about, by what its id starts with; others are about the machine as a whole.
_FILES = (
    (re.compile(r"NFS(0|4)\d\d|NFS3(11|20|42)"), "doveconf.txt"),
    (re.compile(r"NFS1[01]\d|NFS30[34]"), "mounts.txt"),
    (re.compile(r"NFS314"), "exports.txt"),
    (re.compile(r"NFS345"), "haproxy.txt"),
)


def sarif(report: Mapping[str, Any]) -> dict[str, Any]:
    """The findings of an audit as SARIF 2.1.0; answers that are good are left out.

    ``report``: what ``audit`` returned. A location is the saved text of a machine, ``HOST/doveconf.txt``, also where the
    machine was read live.
    """
    rows = _wrong(report)
    rules: dict[str, Mapping[str, Any]] = {}
    for row in rows:
        rules.setdefault(str(row["id"]), row)
    names = list(rules)
    driver = {
        "name": "nfsmail.cluster.audit",
        "informationUri": HOME,
        "rules": [_descriptor(name, row) for name, row in rules.items()],
    }
    run = {
        "tool": {"driver": driver},
        "results": [_result(row, names) for row in rows],
        "columnKind": "unicodeCodePoints",
    }
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def _wrong(report: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [row for row in report["checks"] if row["level"] in LEVELS]


def _descriptor(name: str, row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": name,
        "shortDescription": {"text": str(row["what"])},
        "help": {"text": f"{row['fix']}\nSource: {row['source']}"},
        "defaultConfiguration": {"level": SARIF_LEVELS[row["level"]]},
    }


def _result(row: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    host, check = str(row["host"]), str(row["id"])
    mark = hashlib.sha256(f"{check}|{host}|{row['detail']}".encode("utf-8", "replace")).hexdigest()
    return {
        "ruleId": check,
        "ruleIndex": names.index(check),
        "level": SARIF_LEVELS[row["level"]],
        "message": {"text": f"{host}: {str(row['detail']).rstrip('.')}. Fix: {row['fix']}. Source: {row['source']}."},
        "locations": [_location(one, check, int(row.get("line") or 0)) for one in host.split(", ")],
        "partialFingerprints": {"nfsmail/v1": mark[:32]},
    }


def _location(host: str, check: str, line: int) -> dict[str, Any]:
    file = next((name for pattern, name in _FILES if pattern.match(check)), "")
    uri = quote(f"{host}/{file}" if file else host, safe="/:@")
    return {
        "physicalLocation": {"artifactLocation": {"uri": uri}, "region": {"startLine": max(line, 1)}},
        "logicalLocations": [{"name": host, "kind": "resource"}],
    }


# -- HTML -----------------------------------------------------------------------------------------------------

STYLE = """
:root { color-scheme: light dark; --ink: #1a1a1a; --paper: #fff; --soft: #f1f3f5; --line: #adb5bd; --error: #b00020;
  --warning: #8a4b00; --info: #0b4f8a; --ok: #1b5e20 }
@media (prefers-color-scheme: dark) { :root { --ink: #ececec; --paper: #16181a; --soft: #24282b; --line: #5c6670;
  --error: #ff8a94; --warning: #ffc069; --info: #8ec5ff; --ok: #8fd694 } }
body { margin: 0 auto; padding: 1.5rem; max-width: 62rem; font: 1rem/1.5 system-ui, sans-serif; color: var(--ink);
  background: var(--paper) }
h1 { font-size: 1.7rem; margin: 0 } h2 { margin: 2rem 0 .5rem; font-size: 1.3rem } h3 { margin: 0; font-size: 1.05rem }
.verdict { border-left: .5rem solid; padding: .75rem 1rem; background: var(--soft); font-size: 1.15rem }
.error { border-color: var(--error) } .warning { border-color: var(--warning) } .info { border-color: var(--info) }
.ok { border-color: var(--ok) } b.error { color: var(--error) } b.warning { color: var(--warning) }
b.info { color: var(--info) } b.ok { color: var(--ok) }
.scroll { overflow-x: auto } table { border-collapse: collapse; width: 100% } caption { text-align: left; padding: .3rem 0 }
th, td { border: 1px solid var(--line); padding: .3rem .6rem; text-align: left; vertical-align: top;
  overflow-wrap: anywhere } thead th { background: var(--soft) }
article { border: 1px solid var(--line); border-left: .5rem solid; padding: .6rem 1rem; margin: .8rem 0 }
article.error { border-left-color: var(--error) } article.warning { border-left-color: var(--warning) }
article.info { border-left-color: var(--info) } article p { margin: .3rem 0; overflow-wrap: anywhere }
footer { margin-top: 2rem; border-top: 1px solid var(--line); padding-top: .5rem }
@media print { :root { --ink: #000; --paper: #fff; --soft: #eee; --line: #666; --error: #900; --warning: #630; --info: #036;
  --ok: #050 } body { max-width: none; padding: 0; font-size: 10pt } article, tr { break-inside: avoid }
  h2, h3 { break-after: avoid } }
"""


def html(report: Mapping[str, Any], made: str = "") -> str:
    """An audit as one HTML page that loads nothing from elsewhere.

    ``report``: what ``audit`` returned. ``made``: when it was made, as text; empty leaves that out.
    """
    rows = _wrong(report)
    body = [
        *_verdict(report, made),
        *_machines(report["machines"]),
        *(line for cluster in report["clusters"] for line in _cluster(cluster)),
        *_findings(rows),
        *_passed([row for row in report["checks"] if row["level"] == "ok"]),
        "<footer><p>Made by the playbook nfsmail.cluster.audit, which changes nothing on the machines. What it did not look at "
        "may still be wrong.</p></footer>",
    ]
    head = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f"<title>Audit of mail on NFS</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
    )
    return head + "".join(f"{line}\n" for line in body) + "</main>\n</body>\n</html>\n"


def _verdict(report: Mapping[str, Any], made: str) -> Iterator[str]:
    worst = next((level for level in ("error", "warning") if report["counts"][level]), "ok")
    yield f"<header><h1>Audit of mail on NFS</h1>{f'<p>{escape(made)}</p>' if made else ''}</header>"
    yield f'<p class="verdict {worst}"><strong>{escape(report["summary"])}</strong></p>'
    yield "<ul>"
    for level in LEVELS:
        count = report["counts"][level]
        yield f'<li><b class="{level}">{count} {WORDS[level].lower()}{"s" if count != 1 else ""}</b>: {MEANING[level]}</li>'
    yield f'<li><b class="ok">{report["counts"]["ok"]} passed</b></li>'
    yield "</ul>"
    yield from (f"<p>{escape(str(note))}</p>" for note in report["notes"])


def _table(caption: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f'<div class="scroll"><table><caption>{escape(caption)}</caption><thead><tr>'
    yield "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    yield "</tr></thead><tbody>"
    for first, *rest in rows:
        yield (
            f'<tr><th scope="row">{escape(first)}</th>' + "".join(f"<td>{escape(cell)}</td>" for cell in rest) + "</tr>"
        )
    yield "</tbody></table></div>"


def _machines(machines: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    yield "<h2>What was found</h2>"
    rows = [
        (
            str(one["host"]),
            ", ".join(f"{KINDS.get(kind['kind'], kind['kind'])} ({kind['sure']})" for kind in one["kinds"])
            or "not recognised",
            "; ".join(str(kind["evidence"]) for kind in one["kinds"]),
            str(one["dovecot"]) or "-",
        )
        for one in machines
    ]
    yield from _table("Machines, and what they were taken for", ("machine", "kind", "because", "Dovecot"), rows)


def _cluster(cluster: Mapping[str, Any]) -> Iterator[str]:
    caption = f"Mail store {cluster['store']}, backends {', '.join(map(str, cluster['backends']))}"
    rows = [
        (_key(one["key"]), in_words(one["value"]), str(one["sure"]), str(one["evidence"])) for one in cluster["profile"]
    ]
    yield from _table(caption, ("what", "value", "how sure", "because"), rows)


def _key(key: str) -> str:
    return key.replace("_", " ")


def _findings(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield "<h2>Findings</h2>"
    if not rows:
        yield "<p>None.</p>"
    # What several machines have in common is told once.
    grouped: dict[tuple[str, ...], list[str]] = {}
    for row in rows:
        key = tuple(str(row[name]) for name in ("level", "id", "what", "detail", "fix", "source"))
        grouped.setdefault(key, []).append(str(row["host"]))
    for (level, check, what, detail, fix, source), hosts in grouped.items():
        yield f'<article class="{level}"><h3><b class="{level}">{WORDS[level]}</b> {escape(check)}: {escape(what)}</h3>'
        yield f"<p><strong>Where:</strong> {escape(', '.join(hosts))}</p>"
        yield f"<p><strong>Found:</strong> {escape(detail)}</p>"
        yield f"<p><strong>Fix:</strong> {escape(fix)}</p>"
        yield f"<p><strong>Source:</strong> {escape(source)}</p></article>"


def _passed(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if rows:
        yield "<h2>Passed</h2>"
        shown = [tuple(str(row[name]) for name in ("id", "host", "what", "detail")) for row in rows]
        yield from _table("Checks without a finding", ("check", "machine", "what was asked", "found"), shown)
