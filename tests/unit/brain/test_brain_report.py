# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""An audit's report as SARIF and as HTML: whole, valid, and safe whatever a machine says."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.audit import audit
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.audit_files import read_folder
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.report import SARIF_LEVELS, html, sarif
from hypothesis import given
from hypothesis import strategies as st

SAMPLES = Path(__file__).resolve().parents[2] / "shared" / "audit"
ESTATES = {name: audit(read_folder(str(SAMPLES / name)), live=False) for name in ("director", "random", "proxy")}
EVIL = "<script>alert('x')</script>\"&\x00"
VOID = {"meta", "br", "hr", "img", "link", "input"}


def check(**changes: Any) -> dict[str, Any]:
    row = {
        "id": "NFS001",
        "host": "mail1",
        "level": "error",
        "what": "what",
        "detail": "detail.",
        "fix": "fix",
        "source": "s",
    }
    return {**row, **changes}


def report(*checks: dict[str, Any], host: str = "mail1", notes: list[str] | None = None) -> dict[str, Any]:
    counts = {level: sum(row["level"] == level for row in checks) for level in ("ok", "error", "warning", "info")}
    kind = {"kind": "backend", "sure": "certain", "evidence": host}
    profile = [{"key": "lockd", "value": True, "sure": "guess", "evidence": host}]
    return {
        "good": not counts["error"],
        "counts": counts,
        "checks": list(checks),
        "machines": [{"host": host, "kinds": [kind], "dovecot": host, "store": host}],
        "clusters": [{"store": host, "backends": [host], "profile": profile}],
        "notes": notes or [],
        "summary": f"{counts}",
        "table": [],
    }


# ---- SARIF ----


def assert_is_sarif(log: dict[str, Any]) -> None:
    """What SARIF 2.1.0 requires of the parts that we write (sections 3.13, 3.14, 3.19, 3.27, 3.29 and 3.49)."""
    assert set(log) == {"$schema", "version", "runs"} and log["version"] == "2.1.0"
    assert log["$schema"].endswith("sarif-2.1.0.json")
    for run in log["runs"]:
        driver = run["tool"]["driver"]
        assert driver["name"] and re.match("https://", driver["informationUri"])
        ids = [rule["id"] for rule in driver["rules"]]
        assert len(ids) == len(set(ids))
        for rule in driver["rules"]:
            assert rule["shortDescription"]["text"] and rule["help"]["text"]
            assert rule["defaultConfiguration"]["level"] in ("none", "note", "warning", "error")
        for result in run["results"]:
            assert ids[result["ruleIndex"]] == result["ruleId"]
            assert result["level"] in ("none", "note", "warning", "error")
            assert result["message"]["text"]
            assert result["locations"]
            for location in result["locations"]:
                place = location["physicalLocation"]
                assert re.fullmatch(r"[!-~]+", place["artifactLocation"]["uri"])
                assert place["region"]["startLine"] >= 1
                assert location["logicalLocations"][0]["name"]
            assert all(isinstance(mark, str) for mark in result["partialFingerprints"].values())
        assert {result["ruleId"] for result in run["results"]} == set(ids)
    assert json.loads(json.dumps(log)) == log


@pytest.mark.parametrize("name", ESTATES)
def test_estates_as_sarif(name: str) -> None:
    log = sarif(ESTATES[name])
    assert_is_sarif(log)
    wrong = [row for row in ESTATES[name]["checks"] if row["level"] != "ok"]
    (run,) = log["runs"]
    assert [(one["ruleId"], one["level"]) for one in run["results"]] == [
        (row["id"], SARIF_LEVELS[row["level"]]) for row in wrong
    ]


def test_a_result_names_machine_file_fix_and_source() -> None:
    log = sarif(
        report(
            check(line=7), check(id="NFS107", host="mail1, mail2"), check(id="NFS312", level="info"), check(level="ok")
        )
    )
    assert_is_sarif(log)
    one, two, three = log["runs"][0]["results"]
    assert one["message"]["text"] == "mail1: detail. Fix: fix. Source: s."
    assert [
        where["physicalLocation"]["artifactLocation"]["uri"]
        for where in (*one["locations"], *two["locations"], *three["locations"])
    ] == [
        "mail1/doveconf.txt",
        "mail1/mounts.txt",
        "mail2/mounts.txt",
        "mail1",
    ]
    assert three["level"] == "note"
    starts = [one["locations"][0]["physicalLocation"]["region"]["startLine"] for one in (one, two)]
    assert starts == [7, 1]


def test_a_finding_keeps_its_mark_and_others_have_their_own() -> None:
    first = sarif(report(check(), check(host="mail2")))["runs"][0]["results"]
    again = sarif(report(check(fix="another")))["runs"][0]["results"]
    assert first[0]["partialFingerprints"] == again[0]["partialFingerprints"] != first[1]["partialFingerprints"]


def test_no_finding_is_a_valid_log() -> None:
    assert_is_sarif(sarif(report(check(level="ok"))))
    assert_is_sarif(sarif(audit({})))


# ---- HTML ----


class Page(HTMLParser):
    """A page as its reader has it: every element closed, and all text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(f"{word} " for word in self.words).split())


def assert_is_a_sound_page(text: str) -> Page:
    page = Page(text)
    tags = [tag for tag, _attributes in page.seen]
    assert text.startswith("<!DOCTYPE html>\n") and page.seen[0] == ("html", {"lang": "en"})
    assert tags.count("h1") == 1 and tags.count("main") == 1 and tags.count("title") == 1
    # Nothing is loaded, nothing is run.
    assert not {"script", "img", "link", "iframe", "object", "a", "form"} & set(tags)
    names = {name for _tag, attributes in page.seen for name in attributes}
    assert names <= {"lang", "charset", "name", "content", "http-equiv", "class", "scope"}
    assert "url(" not in text and "@import" not in text and "http:" not in text
    assert tags.count("table") == tags.count("caption") and "@media print" in text
    assert all(attributes.get("scope") in ("col", "row") for tag, attributes in page.seen if tag == "th")
    return page


@pytest.mark.parametrize("name", ESTATES)
def test_estates_as_a_page(name: str) -> None:
    report_ = ESTATES[name]
    page = assert_is_a_sound_page(html(report_, "2026-01-31"))
    assert report_["summary"] in page.text and "2026-01-31" in page.text
    for row in report_["checks"]:
        for word in (row["id"], row["host"], row["detail"], *((row["fix"], row["source"]) if row["fix"] else ())):
            assert " ".join(word.split()) in page.text, word
    for machine in report_["machines"]:
        assert machine["host"] in page.text and machine["kinds"][0]["evidence"] in page.text
    for cluster in report_["clusters"]:
        assert all(one["evidence"] in page.text and one["sure"] in page.text for one in cluster["profile"])


def test_what_machines_have_in_common_is_told_once() -> None:
    page = Page(html(report(check(), check(host="mail2"))))
    assert [tag for tag, _ in page.seen].count("article") == 1 and "Where: mail1, mail2" in page.text


@pytest.mark.parametrize(
    ("levels", "mark"),
    [(("error", "warning"), "error"), (("warning", "ok"), "warning"), (("info", "ok"), "ok"), ((), "ok")],
)
def test_the_verdict(levels: tuple[str, ...], mark: str) -> None:
    text = html(report(*(check(level=level) for level in levels)))
    assert f'<p class="verdict {mark}"><strong>{{' in text
    assert_is_a_sound_page(text)


@given(st.text(max_size=40))
def test_whatever_a_machine_says_is_text(said: str) -> None:
    """Nothing that a machine says becomes markup."""
    for word in (said, f"{EVIL}{said}"):
        rows = [
            check(**dict.fromkeys(("id", "host", "what", "detail", "fix", "source"), word), level=level)
            for level in ("error", "ok")
        ]
        page = assert_is_a_sound_page(html(report(*rows, host=word, notes=[word]), word))
        assert [tag for tag, _ in page.seen].count("article") == 1
        assert_is_sarif(sarif(report(check(detail=word, fix=word, source=word, what=word or "what"))))
