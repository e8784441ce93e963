# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Draws docs/performance.json: NFS calls by operation for each cell, and how a session's time follows from calls and delay.

Run by `make bench`; needs matplotlib, which is installed for that only.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / ".ansible" / "collections"))

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
from ansible_collections.nfsmail.cluster.plugins.plugin_utils import bench

FOLDER = ROOT / "docs" / "pictures"
# The same file for the same figures.
plt.rcParams.update({"svg.hashsalt": "nfsmail", "font.size": 9, "svg.fonttype": "none"})
# Operations that are drawn on their own; the rest are one.
DRAWN = (
    "GETATTR",
    "LOOKUP",
    "ACCESS",
    "READ",
    "WRITE",
    "COMMIT",
    "CREATE",
    "OPEN",
    "CLOSE",
    "RENAME",
    "REMOVE",
    "LINK",
    "NLM_LOCK",
    "LOCK",
    "LOCKU",
)
COLORS = plt.get_cmap("tab20").colors
TITLES = {
    "cold": "One IMAP session, cold caches",
    "warm": "One IMAP session, warm caches",
    "delivery": "One delivery by LMTP",
}


def bars(cells: list[dict[str, Any]], kind: str, path: Path) -> None:
    """One bar for each cell, its operations one after the other."""
    known = [(str(cell["name"]), bench.bills(cell)[kind]) for cell in cells if kind in bench.bills(cell)]
    figure, axes = plt.subplots(figsize=(10, 1.2 + 0.26 * len(known)))
    left = [0.0] * len(known)
    names = [name for name, _ in known]
    for number, operation in enumerate((*DRAWN, "other")):
        widths = [
            one.by_operation.get(operation, 0)
            if operation != "other"
            else sum(count for name, count in one.by_operation.items() if name not in DRAWN)
            for _, one in known
        ]
        if any(widths):
            axes.barh(names, widths, left=left, label=operation, color=COLORS[number % len(COLORS)], height=0.75)
            left = [a + b for a, b in zip(left, widths, strict=True)]
    for row, (_, one) in enumerate(known):
        axes.text(left[row], row, f" {one.calls:g}", va="center")
    axes.invert_yaxis()
    axes.set_xlabel("NFS calls, median")
    axes.set_title(TITLES[kind])
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(ncols=5, loc="upper center", bbox_to_anchor=(0.4, -0.06 - 0.6 / len(known)), frameon=False)
    save(figure, path)


def delays(cells: list[dict[str, Any]], path: Path) -> None:
    """Measured seconds of a warm session over the delay, and what calls times delay says."""
    figure, axes = plt.subplots(figsize=(8, 4.5))
    lines: dict[str, list[tuple[float, float]]] = {}
    for cell in cells:
        match = re.match(r"delay ([\d.]+) ms: (.*)", cell["name"])
        if match:
            lines.setdefault(match[2], []).append((float(match[1]), bench.bills(cell)["warm"].seconds))
    for number, (name, points) in enumerate(sorted(lines.items())):
        points.sort()
        calls = next(bench.bills(cell)["warm"].calls for cell in cells if cell["name"].endswith(name))
        base = points[0][1] - calls * points[0][0] / 1000
        axes.plot(*zip(*points, strict=True), "o", color=COLORS[2 * number], label=f"{name}: measured, {calls:g} calls")
        ends = (0.0, points[-1][0])
        axes.plot(
            ends, [base + calls * end / 1000 for end in ends], "-", color=COLORS[2 * number], label="calls × delay"
        )
    axes.set_xlabel("added delay of a round trip, ms")
    axes.set_ylabel("seconds of a warm session")
    axes.set_ylim(bottom=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    save(figure, path)


def save(figure: Any, path: Path) -> None:
    figure.savefig(path, bbox_inches="tight", metadata={"Date": None})
    plt.close(figure)
    # Blanks at the ends of lines mean nothing in SVG.
    path.write_text(
        "".join(f"{line.rstrip()}\n" for line in path.read_text(encoding="utf-8").splitlines()), encoding="utf-8"
    )


def main() -> None:
    cells = json.loads((ROOT / "docs" / "performance.json").read_text(encoding="utf-8"))
    FOLDER.mkdir(exist_ok=True)
    still = [cell for cell in cells if not cell["name"].startswith("delay")]
    for kind in TITLES:
        bars([cell for cell in still if cell["nfs"]], kind, FOLDER / f"calls-{kind}.svg")
    if len(still) < len(cells):
        delays(cells, FOLDER / "delay.svg")


if __name__ == "__main__":
    main()
