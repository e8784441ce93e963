# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""`make demo`: configure the lab as a per_user cluster, verify it, send real mail through it, say what was proven."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable

from proofs import mail_through, playbook, verify

SCENARIO = "per_user"
PROXIES = ("proxy1", "proxy2")
Row = tuple[str, str, str]


def main() -> int:
    """Run the three steps, print one table, return the exit code."""
    start = time.monotonic()
    steps: list[tuple[str, Callable[[], list[Row]]]] = [
        ("playbooks/site.yml configures nfs1, mail1, mail2, proxy1 and proxy2", _site),
        ("playbooks/verify.yml judges the live machines", _verify),
        ("real messages go in by LMTP and come back by IMAP, through each proxy", _mail),
    ]
    rows: list[Row] = []
    for number, (what, step) in enumerate(steps, 1):
        print(f"[demo] {number} of {len(steps)}: {what} ({time.monotonic() - start:.0f} s so far)", flush=True)
        rows += step()
    _print(rows)
    count = Counter(row[1] for row in rows)
    failed = count["FAIL"]
    print(f"\n{count['ok']} passed, {count['warning']} warned, {failed} failed in {time.monotonic() - start:.0f} s")
    print(
        "The cluster is up: Debian 12 on nfs1, mail1, proxy1; Debian 13 on mail2, proxy2. Look around: make ssh HOST=mail1;"
    )
    print("on a proxy: doveadm proxy list, doveadm auth lookup -f host user01@example.com. Everybody's password is")
    print("lab-password-1. Remove it: make lab-down")
    return 1 if failed else 0


def _site() -> list[Row]:
    done = playbook("site", SCENARIO, show=True)
    return [("cluster configured", "ok" if done.returncode == 0 else "FAIL", f"site.yml, exit code {done.returncode}")]


def _verify() -> list[Row]:
    done, verdict = verify(SCENARIO)
    if not verdict:
        print(done.stdout)
        return [("live machines judged", "FAIL", "verify.yml came to no verdict; its output is above")]
    by_check: dict[str, list[dict[str, str]]] = {}
    for check in verdict["checks"]:
        by_check.setdefault(check["what"], []).append(check)
    return [_row(what, checks) for what, checks in by_check.items()]


def _row(what: str, checks: list[dict[str, str]]) -> Row:
    bad = [check for check in checks if check["level"] != "ok"]
    found = "; ".join(f"{check['host']}: {check['detail']}" for check in bad or checks)
    levels = {check["level"] for check in bad}
    return what, "FAIL" if "error" in levels else "warning" if levels else "ok", found


def _mail() -> list[Row]:
    return [row for proxy in PROXIES for row in _mail_through(proxy)]


def _mail_through(proxy: str) -> list[Row]:
    result = mail_through(proxy, SCENARIO, reader="nfs1", seed=int(time.time()))
    for problem in result.problems:
        print(f"problem: {problem}")
    return [(f"{proxy}: {row.name}", row.verdict, row.value) for row in result.rows if row.verdict != "not shown"]


def _print(rows: list[Row]) -> None:
    width = max(len(row[0]) for row in rows)
    print(f"\n{'proven'.ljust(width)}  result   found")
    for name, verdict, found in rows:
        print(f"{name.ljust(width)}  {verdict.ljust(7)}  {found if len(found) <= 150 else found[:147] + '...'}")


if __name__ == "__main__":
    sys.exit(main())
