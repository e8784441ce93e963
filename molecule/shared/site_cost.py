# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run of site.yml costs beside the least that it could: a play of as many tasks that do nothing.

On the lab, without mitogen, as users run it. A run that finds nothing to do is timed, then a playbook with the same plays, on
the same hosts, where every task that looked at a file, a mount, a package or a service is a ping. Ratios are what counts: the
machines are emulated. Tasks that run on the controller alone (assert, include, set_fact) are in ours and not in the floor.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

from proofs import BIN, LAB, ROOT, environment

# Nothing of these reaches a machine.
CONTROLLER = {
    "assert",
    "include_tasks",
    "include_role",
    "import_tasks",
    "import_role",
    "set_fact",
    "debug",
    "meta",
    "group_by",
    "add_host",
    "fail",
    "validate_argument_spec",
    "pause",
}
SCENARIO = "per_user"


def run(playbook: Path) -> tuple[float, dict[str, Any]]:
    """Run a playbook; seconds, and what Ansible says of each task."""
    env = environment(ANSIBLE_STDOUT_CALLBACK="ansible.posix.json")
    inventories = (LAB / "inventory.yml", ROOT / "molecule" / SCENARIO / "inventory")
    command = [str(BIN / "ansible-playbook"), *(f"--inventory={path}" for path in inventories), str(playbook)]
    start = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, env=env, text=True, capture_output=True, check=False)
    seconds = time.monotonic() - start
    said = json.loads(done.stdout[done.stdout.index("{") :])
    assert done.returncode == 0, json.dumps(said["stats"]) + done.stderr
    return seconds, said


def reached(said: dict[str, Any]) -> list[tuple[str, Counter[str]]]:
    """Each play with how many tasks, loops' turns counted one by one, ran on each machine."""
    plays = []
    for play in said["plays"]:
        counts: Counter[str] = Counter()
        for task in play["tasks"]:
            for host, result in task["hosts"].items():
                action = str(result.get("action", "")).rpartition(".")[2]
                if action in CONTROLLER or result.get("skipped"):
                    continue
                counts[host] += sum(not one.get("skipped") for one in result.get("results", [result]))
        plays.append((play["play"]["name"], counts))
    return plays


def slowest(said: dict[str, Any], count: int = 12) -> list[str]:
    """The tasks that took longest, for whoever wants to cut."""
    rows = []
    for task in (task for play in said["plays"] for task in play["tasks"]):
        spent = task["task"]["duration"]
        if spent.get("end"):
            start, end = (datetime.fromisoformat(spent[key]) for key in ("start", "end"))
            rows.append(((end - start).total_seconds(), len(task["hosts"]), task["task"]["name"]))
    return [f"{seconds:6.1f} s on {hosts} hosts: {name}" for seconds, hosts, name in sorted(rows, reverse=True)[:count]]


def floor(plays: list[tuple[str, Counter[str]]]) -> str:
    """A playbook of pings: hosts that do the same number of tasks share a play's steps, as they do in ours."""
    found = []
    for name, counts in plays:
        most = max(counts.values(), default=0)
        if most:
            tasks = [
                {"name": str(number), "ansible.builtin.ping": None, "when": f"wanted[inventory_hostname] > {number}"}
                for number in range(most)
            ]
            found.append(
                {
                    "name": name,
                    "hosts": ",".join(counts),
                    "gather_facts": False,
                    "vars": {"wanted": dict(counts)},
                    "tasks": tasks,
                }
            )
    return json.dumps(found)


def main() -> None:
    """Measure both and print the ratio."""
    site = ROOT / "playbooks" / "site.yml"
    rows = []
    for name in ("the run before", "a run with nothing to do"):
        seconds, said = run(site)
        stats = said["stats"]
        changed = sum(one["changed"] for one in stats.values())
        tasks = {host: one["ok"] + one["skipped"] for host, one in stats.items()}
        rows.append({"what": name, "seconds": round(seconds, 1), "changed": changed, "tasks": tasks})
        print(f"{name}: {seconds:.0f} s, {changed} changed, tasks {tasks}", flush=True)
    assert rows[-1]["changed"] == 0
    print("\n".join(slowest(said)), flush=True)
    plays = reached(said)
    with tempfile.NamedTemporaryFile("w", suffix=".yml", dir=ROOT, delete=False) as file:
        file.write(floor(plays))
    try:
        seconds, _ = run(Path(file.name))
    finally:
        Path(file.name).unlink()
    counts = sum((counts for _, counts in plays), Counter())
    rows.append({"what": "the floor", "seconds": round(seconds, 1), "tasks": dict(counts)})
    ratio = rows[1]["seconds"] / seconds
    print(f"the floor: {seconds:.0f} s, tasks {dict(counts)}; ours is {ratio:.2f} times that")
    (ROOT / ".work").mkdir(exist_ok=True)
    (ROOT / ".work" / "site_cost.json").write_text(
        json.dumps({"rows": rows, "ratio": round(ratio, 2)}, indent=1) + "\n"
    )


if __name__ == "__main__":
    main()
