# Copyright: (c) 2026, the nfsmail.cluster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What measurements of NFS calls come to: medians and spreads, how time follows from calls and delay, a table and a page.

A cell is one configuration: ``{name, sessions, deliveries, noise, nfs}``, the last four as module ``rpc_bill`` answers them.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from .errors import NfsmailError, Problem
from .routing import routing
from .shards import lowered, shard_map, shard_of

SOURCE = "docs: performance"
# Round trips to a server, milliseconds: the same rack, another room, another town.
DELAYS_MS = (0.2, 1.0, 2.0)
# What the kernel asks its cache about, and the calls that it makes when that does not know.
ASKED = ("inode_revalidate", "dentry_revalidate")
NOT_KNOWN = ("GETATTR", "LOOKUP", "ACCESS")


def place(
    backends: Sequence[Mapping[str, Any]],
    overrides: Mapping[str, str],
    states: Iterable[Any],
    request: Mapping[str, Any],
) -> str:
    """The backend on which a user may be measured.

    ``request``: ``user``; ``backend``, one that was asked for, or empty; ``router``, who chooses the user's backend: shards,
    director, balancer or none. Errors: no user; a backend that is not the user's, or that nobody can tell.
    """
    user, asked, router = (str(request.get(key) or "") for key in ("user", "backend", "router"))
    names = [str(one["name"]) for one in backends]
    if not user:
        rule = "names a user whose mail may be deleted"
        raise NfsmailError([Problem("bench_user", None, rule, "-e bench_user=bench@example.com", SOURCE)])
    if asked and asked not in names:
        raise NfsmailError(
            [Problem("bench_backend", asked, "one of the backends", f"one of {', '.join(names)}", SOURCE)]
        )
    if router == "director" and not asked:
        rule, fix = "a director chooses the user's backend", "on a proxy: doveadm director status USER"
        raise NfsmailError([Problem("bench_backend", None, rule, fix, SOURCE)])
    if router != "shards":
        return asked or names[0]
    routes = routing(backends, overrides, states)
    pinned = {lowered(one): str(name) for one, name in routes["overrides"].items()}
    home = pinned.get(lowered(user)) or shard_map(routes["backends"])[shard_of(lowered(user))]
    if asked not in ("", home):
        rule = f"the user's own backend is {home}; on another one the mailbox would be open on two"
        raise NfsmailError([Problem("bench_backend", asked, rule, f"leave it out, or use {home}", SOURCE)])
    return home


@dataclass(frozen=True)
class Bill:
    """What one kind of work costs, over several runs."""

    runs: int
    calls: float
    least: int
    most: int
    by_operation: Mapping[str, float]
    bytes: float
    seconds: float
    # Of the questions to the cache, how many it answered; None where none was asked.
    hits: float | None

    def predicted(self, delay_ms: float) -> float:
        """Seconds when each call takes so much longer; calls of one session follow one another."""
        return self.seconds + self.calls * delay_ms / 1000


def bill(costs: Sequence[Mapping[str, Any]]) -> Bill | None:
    """The bill of one or more runs. ``costs``: each ``{calls, events, sent, received, seconds}``."""
    if not costs:
        return None
    totals = [sum(map(int, cost["calls"].values())) for cost in costs]
    operations = sorted({name for cost in costs for name in cost["calls"]})
    asked = sum(int(cost["events"].get(name, 0)) for cost in costs for name in ASKED)
    went = sum(int(cost["calls"].get(name, 0)) for cost in costs for name in NOT_KNOWN)
    return Bill(
        runs=len(costs),
        calls=median(totals),
        least=min(totals),
        most=max(totals),
        by_operation={name: median(int(cost["calls"].get(name, 0)) for cost in costs) for name in operations},
        bytes=median(int(cost["sent"]) + int(cost["received"]) for cost in costs),
        seconds=median(float(cost["seconds"]) for cost in costs),
        hits=max(0.0, 1 - went / asked) if asked else None,
    )


def session_cost(session: Mapping[str, Any]) -> dict[str, Any]:
    """All steps of a session in one."""
    total: dict[str, Any] = {"calls": {}, "events": {}, "sent": 0, "received": 0, "seconds": session["seconds"]}
    for step in session["steps"].values():
        for what in ("calls", "events"):
            for name, number in step[what].items():
                total[what][name] = total[what].get(name, 0) + number
        for what in ("sent", "received"):
            total[what] += step[what]
    return total


def bills(cell: Mapping[str, Any]) -> dict[str, Bill]:
    """The bills of a cell: ``cold`` and ``warm`` sessions, ``delivery``; what was not measured is left out."""
    if "bills" in cell:
        return {kind: Bill(**one) for kind, one in cell["bills"].items()}
    sessions = list(cell["sessions"])
    found = {
        "cold": bill([session_cost(one) for one in sessions if one["cold"]]),
        "warm": bill([session_cost(one) for one in sessions if not one["cold"]]),
        "delivery": bill(list(cell["deliveries"])),
    }
    return {kind: one for kind, one in found.items() if one}


def step_calls(cell: Mapping[str, Any], cold: bool) -> dict[str, float]:
    """Calls of each step of a session, the median."""
    sessions = [one for one in cell["sessions"] if one["cold"] is cold]
    return {
        step: median(sum(one["steps"][step]["calls"].values()) for one in sessions)
        for step in (sessions[0]["steps"] if sessions else ())
    }


def summary(cell: Mapping[str, Any]) -> dict[str, Any]:
    """A cell with its bills in place of every single count; fit for a file that is kept."""
    steps = {kind: step_calls(cell, kind == "cold") for kind in ("cold", "warm")}
    found = {kind: asdict(one) for kind, one in bills(cell).items()}
    return {"name": cell["name"], "noise": cell["noise"], "nfs": cell["nfs"], "bills": found, "steps": steps}


def merged(cells: Iterable[Mapping[str, Any]], parts: Iterable[Mapping[str, Any]], name: str) -> list[dict[str, Any]]:
    """Cells with another one, made of several answers of the module; a cell of that name is replaced.

    Errors: no answer at all.
    """
    rows = list(parts)
    if not rows:
        raise NfsmailError([Problem("bench", name, "something was measured", "run it on a backend", SOURCE)])
    new = {
        "name": name,
        "sessions": [one for row in rows for one in row["sessions"]],
        "deliveries": [one for row in rows for one in row["deliveries"]],
        "noise": max(int(row["noise"]) for row in rows),
        "nfs": any(row["nfs"] for row in rows),
    }
    return [*(dict(one) for one in cells if one["name"] != name), new]


HEAD = ("", "calls, cold", "calls, warm", "calls, delivery", "KiB, cold", "KiB, warm", "cache answers, warm")


def rows(cells: Iterable[Mapping[str, Any]]) -> list[list[str]]:
    """A line for each cell: medians, with the least and most where runs differed."""
    found = []
    for cell in cells:
        known = bills(cell)
        found.append(
            [
                str(cell["name"]),
                *(_counted(known.get(kind)) for kind in ("cold", "warm", "delivery")),
                *(f"{known[kind].bytes / 1024:.0f}" if kind in known else "-" for kind in ("cold", "warm")),
                _share(known.get("warm")),
            ]
        )
    return found


def table(cells: Iterable[Mapping[str, Any]]) -> list[str]:
    """Lines of a Markdown table."""
    lines = [list(HEAD), ["---"] + ["---:"] * (len(HEAD) - 1), *rows(cells)]
    return ["| " + " | ".join(line) + " |" for line in lines]


def predictions(cells: Iterable[Mapping[str, Any]], kind: str = "warm") -> list[list[str]]:
    """A line for each cell: what each round trip delay adds to a session, in seconds."""
    found = []
    for cell in cells:
        one = bills(cell).get(kind)
        if one:
            added = [f"+{one.predicted(delay) - one.seconds:.2f}" for delay in DELAYS_MS]
            found.append([str(cell["name"]), f"{one.calls:.0f}", *added])
    return found


def page(cells: Sequence[Mapping[str, Any]], title: str = "NFS calls") -> str:
    """A page of HTML that loads nothing from elsewhere."""
    most = max([one.most for cell in cells for one in bills(cell).values()] + [1])
    blocks = [_block(cell, most) for cell in cells]
    head = "".join(f"<th>{html.escape(word)}</th>" for word in HEAD)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(word)}</td>" for word in row) + "</tr>" for row in rows(cells))
    delays = "".join(f"<th>{delay:g} ms</th>" for delay in DELAYS_MS)
    added = "".join(
        "<tr>" + "".join(f"<td>{html.escape(word)}</td>" for word in row) + "</tr>" for row in predictions(cells)
    )
    return (
        "<!DOCTYPE html>\n"
        f'<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title><style>{STYLE}</style></head><body>'
        f"<h1>{html.escape(title)}</h1>"
        "<p>NFS calls of one IMAP session (log in, select, fetch 5 new messages, flag them, be told of another in IDLE, append, "
        "copy, expunge, log out) and of one delivery by LMTP. Counts do not depend on how fast machines are.</p>"
        f"<table><tr>{head}</tr>{body}</table>"
        "<h2>What the network adds to a warm session, seconds</h2>"
        "<p>Calls follow one another: each waits for the round trip.</p>"
        f"<table><tr><th></th><th>calls</th>{delays}</tr>{added}</table>"
        f"{''.join(blocks)}</body></html>\n"
    )


STYLE = (
    "body{font:15px/1.5 sans-serif;max-width:70em;margin:2em auto;padding:0 1em;color:#222}"
    "table{border-collapse:collapse;margin:1em 0}td,th{padding:.2em .8em;text-align:right;border-bottom:1px solid #ddd}"
    "td:first-child,th:first-child{text-align:left}"
    ".bar{display:inline-block;height:.8em;background:#3b6ea5;vertical-align:middle}.n{padding-left:.5em}"
)


def _block(cell: Mapping[str, Any], most: int) -> str:
    lines = []
    for kind, one in bills(cell).items():
        lines.append(f"<tr><th colspan=2>{kind}</th></tr>")
        for name, number in sorted(one.by_operation.items(), key=lambda pair: -pair[1]):
            if number:
                bar = f'<span class="bar" style="width:{30 * number / most:.2f}em"></span>'
                lines.append(
                    f'<tr><td>{html.escape(name)}</td><td style="text-align:left">{bar}<span class="n">{number:g}</span></td></tr>'
                )
    noise = f"<p>Others made {cell['noise']} calls in two seconds before.</p>" if cell["noise"] else ""
    return f"<h2>{html.escape(str(cell['name']))}</h2>{noise}<table>{''.join(lines)}</table>"


def _counted(one: Bill | None) -> str:
    if not one:
        return "-"
    spread = "" if one.least == one.most else f" ({one.least}–{one.most})"
    return f"{one.calls:g}{spread}"


def _share(one: Bill | None) -> str:
    return "-" if not one or one.hits is None else f"{100 * one.hits:.0f} %"
