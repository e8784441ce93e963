# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the stages of the tests in two lanes, one with the lab and one without, and says where the time went."""

from __future__ import annotations

import math
import os
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BIN = ROOT / ".venv" / "bin"
LOGS = ROOT / ".work" / "logs"
COLLECTIONS = ROOT / ".ansible" / "collections"
COLLECTION = Path("ansible_collections", "nfsmail", "cluster")
HEARTBEAT = 60.0  # seconds between two signs of life
# Of all stages together, in seconds: CI ends a run after 5400, set-up and all, and then nobody learns what was slow.
LIMIT = 5280.0
TEST_LIMIT = 900  # seconds for one test
LAST_LINES = 80
# Of each failed test: this many lines of the first and the last of what it says, which may be a playbook's whole output.
FIRST_SAID, LAST_SAID, WIDTH = 4, 12, 400
# And at the very end, where whoever sees only that looks.
LINE = 260
# Scenarios in containers.
CONTAINERS = {"default"}
# A few machines, in a lab of their own, once the containers are done; to the place where that lab is.
SECOND_LAB = {"single": ".lab/single"}
START = time.monotonic()
SAY = threading.Lock()
INTERRUPTED = threading.Event()

Command = tuple[str, ...]
MYPY = ("mypy", "--config-file", str(ROOT / "pyproject.toml"))
# The oldest ansible-core that the collection promises to work with; its newest Python is 3.12.
OLDEST_CORE = "ansible-core==2.17.14"


@dataclass
class Stage:
    """Commands that run one after the other; the first that fails ends the stage."""

    name: str
    commands: list[Command]
    folder: Path = ROOT
    env: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    passed: bool | None = None
    crashes: list[str] = field(default_factory=list)
    late: str = ""
    process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        """Where its output goes."""
        return LOGS / f"{self.name}.log"


def lanes() -> list[list[Stage]]:
    """What can run at the same time: the lab's machines are often waiting for one another. Two whole labs would be too much."""
    scenarios = {path.parent.name for path in ROOT.glob("molecule/*/molecule.yml")}
    return [
        [
            Stage("lab", [("tools/lab", "up")]),
            # The one whose clients work hardest late, when the other lane is done.
            *(
                scenario(name, NFSMAIL_LAB_KEEP="1")
                for name in sorted(scenarios - CONTAINERS - {*SECOND_LAB}, reverse=True)
            ),
        ],
        [
            unit(),
            lint(),
            package(),
            oldest_core(),
            dovecot(),
            *(scenario(name) for name in sorted(scenarios & CONTAINERS)),
            *(scenario(name, NFSMAIL_LAB=place) for name, place in SECOND_LAB.items()),
        ],
    ]


def unit() -> Stage:
    """Seconds, no machine."""
    return Stage(
        "unit",
        [("pytest", "-q", "--durations=5", "tests/unit"), ("pytest", "-q", "tests/fuzz")],
        # A look only; make fuzz takes its time.
        env={"PYTHONPATH": str(COLLECTIONS), "NFSMAIL_FUZZ_SECONDS": os.environ.get("NFSMAIL_FUZZ_SECONDS", "4")},
    )


def lint() -> Stage:
    """Linters, formatter, types, documentation."""
    inside = "ansible_collections.nfsmail.cluster.plugins"
    return Stage(
        "lint",
        [
            ("ruff", "check", "."),
            ("ruff", "format", "--check", "."),
            ("yamllint", "--strict", "."),
            (
                *MYPY,
                "tools/run_stages.py",
                *(f"molecule/shared/{name}.py" for name in ("proofs", "demo", "traffic", "ledger")),
            ),
            (*MYPY, "roles/metrics/files/nfsmail_metrics.py"),
            (
                *MYPY,
                "molecule/shared/faults.py",
                *(f"molecule/faults/tests/test_{name}.py" for name in ("faults", "claims", "audit")),
            ),
            (
                "env",
                f"MYPYPATH={ROOT / 'molecule' / 'shared'}:{COLLECTIONS}",
                str(BIN / "mypy"),
                *MYPY[1:],
                "--explicit-package-bases",
                "molecule/shared/bench.py",
                "molecule/shared/site_cost.py",
                "tools/pictures.py",
            ),
            (*MYPY, "-p", "lab", "-p", "mailflow"),
            (
                "env",
                "-C",
                str(COLLECTIONS),
                str(BIN / "mypy"),
                *MYPY[1:],
                "-p",
                f"{inside}.plugin_utils",
                "-p",
                f"{inside}.module_utils",
            ),
            ("ansible-lint", "--offline", "--profile", "production"),
            ("antsibull-changelog", "lint"),
        ],
        env={"MYPYPATH": str(ROOT / "molecule" / "shared")},
    )


def package() -> Stage:
    """The built collection, installed where no checkout is in sight; its documentation, and what ansible-test thinks of it."""
    place = ROOT / ".work" / "package"
    playbook = ("ansible-playbook", "-i", str(ROOT / "docs" / "examples" / "per_user"), "nfsmail.cluster.validate")
    return Stage(
        "package",
        [
            ("rm", "-rf", str(place)),
            ("mkdir", "-p", str(place)),
            ("env", "-C", str(place), "ansible-galaxy", "collection", "build", str(ROOT)),
            ("sh", "-c", f"cd {place} && ansible-galaxy collection install --no-deps -p {place} ./*.tar.gz"),
            ("env", "-C", str(place), *playbook),
            ("antsibull-docs", "lint-collection-docs", "--plugin-docs", "--skip-rstcheck", str(place / COLLECTION)),
            ("tools/site", str(place)),
            ("tools/sanity", str(place)),
        ],
        env={"ANSIBLE_COLLECTIONS_PATH": str(place)},
    )


def oldest_core() -> Stage:
    """The filters and playbooks under the oldest ansible-core, on a Python that it runs on."""
    place = ROOT / ".work" / "core"
    # A full path: another environment's playbooks must not find this one's ansible first.
    tests = (
        str(place / "bin" / "python"),
        "-m",
        "pytest",
        "-q",
        "--confcutdir",
        "tests/unit/playbooks",
        "tests/unit/playbooks",
    )
    return Stage(
        "oldest-core",
        [
            ("uv", "venv", "--quiet", "--allow-existing", "--python", str(BIN / "python"), str(place)),
            ("uv", "pip", "install", "--quiet", "--python", str(place / "bin" / "python"), OLDEST_CORE, "pytest"),
            ("env", f"PATH={place / 'bin'}:{os.environ['PATH']}", *tests),
        ],
        env={"PYTHONPATH": str(COLLECTIONS)},
    )


def dovecot() -> Stage:
    """Dovecot 2.3.13, 2.3.19 and 2.4.1 in containers, asked about every plan that the matrix accepts or refuses."""
    return Stage(
        "dovecot",
        [
            ("tools/dockerd", "start"),
            ("tools/docker-image", "--dovecot", "bullseye", "bookworm", "trixie"),
            ("pytest", "-q", "--durations=5", "tests/dovecot"),
        ],
        env={"PYTHONPATH": str(COLLECTIONS)},
    )


def scenario(name: str, **env: str) -> Stage:
    """One Molecule scenario, from create to destroy."""
    return Stage(
        f"molecule-{name}",
        [("molecule", "test", "-s", name)],
        env={"MOLECULE_GLOB": "molecule/*/molecule.yml", "ANSIBLE_TIMEOUT": "180", **env},
    )


def run_lane(lane: list[Stage], limit: float) -> None:
    """Run the stages of a lane one after the other."""
    for stage in lane:
        if INTERRUPTED.is_set():
            return
        if passed() < limit:
            run(stage, limit)
        else:
            stage.late = f"not started, as the time of all stages, {limit:.0f} s, was over"


def run(stage: Stage, limit: float) -> None:
    """Run a stage with its output in a file, and a sign of life each minute; show the end of it when it fails."""
    log = stage.log
    env = {
        **os.environ,
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "NO_COLOR": "1",
        "ANSIBLE_FORCE_COLOR": "0",
        "PYTEST_TIMEOUT": str(TEST_LIMIT),
        **stage.env,
    }
    start = time.monotonic()
    say(f"{stage.name}: started, output in {log.relative_to(ROOT)}")
    with log.open("w", encoding="utf-8") as out:
        for command in stage.commands:
            out.write(f"$ {' '.join(command)}\n")
            out.flush()
            # In a session of its own: whatever it has started can be ended with it.
            process = stage.process = subprocess.Popen(
                command,
                cwd=stage.folder,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            while not ended(process, min(HEARTBEAT, limit - passed())):
                say(f"{stage.name}: {time.monotonic() - start:.0f} s, {last_line(log)}")
                if passed() > limit:
                    stage.late = f"ended, as the time of all stages, {limit:.0f} s, was over; last: {last_line(log)}"
                    end(stage)
            stage.passed = process.returncode == 0
            if not stage.passed:
                break
    stage.seconds = time.monotonic() - start
    say(f"{stage.name}: {'passed' if stage.passed else 'FAILED'} after {stage.seconds:.0f} s")
    if not stage.passed:
        stage.crashes = crashes()
        tail = text_of(log).splitlines()[-LAST_LINES:]
        say("\n".join([f"---- the end of {log.relative_to(ROOT)}", *tail, "----"]))


def failures(text: str) -> list[tuple[str, list[str]]]:
    """The failed tests of a log, and what each said."""
    found = []
    for section in re.split(r"(?m)^_{4,} (?=\S.* _{4,}$)", text)[1:]:
        title, _, body = section.partition(" __")
        found.append((title, [line[1:].strip() for line in body.splitlines() if re.match(r"E\s+\S", line)]))
    return found


def in_brief(said: list[str]) -> list[str]:
    """The first and the last of it: it may be a playbook's whole output."""
    if len(said) > FIRST_SAID + LAST_SAID:
        said = [*said[:FIRST_SAID], "...", *said[-LAST_SAID:]]
    return [f"    {line[:WIDTH]}" for line in said]


def in_a_line(said: list[str]) -> str:
    """What a playbook's task or an assertion said, the one line of it."""
    telling = [line for line in said if re.match(r"(fatal|failed): |\[ERROR\]|\w*Error\b", line)] or said
    return telling[0][:LINE] if telling else "no test of it failed"


def crashes() -> list[str]:
    """Machines of the lab whose kernel died, with its word for it: they boot again by themselves, and tests only see mail late."""
    found = []
    for console in sorted(ROOT.glob(".lab/**/machines/*/console.log")):
        said = re.findall(r"(?m)^.*(?:Kernel panic|PANIC:|BUG:|Oops:|soft lockup).*$", text_of(console))
        found += [f"{console.parent.name}'s kernel: {said[0][:LINE]}, see {console.relative_to(ROOT)}"] if said else []
    return found


def end(stage: Stage) -> None:
    """End whatever a stage has started."""
    if stage.process and stage.process.poll() is None:
        os.killpg(stage.process.pid, signal.SIGKILL)


def passed() -> float:
    """Seconds since the start of all."""
    return time.monotonic() - START


def ended(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Whether the process ended within so many seconds."""
    try:
        process.wait(max(seconds, 0.1))
    except subprocess.TimeoutExpired:
        return False
    return True


def text_of(log: Path) -> str:
    """What stands in a log so far, whatever a machine has sent."""
    return log.read_text(encoding="utf-8", errors="replace")


def last_line(log: Path) -> str:
    """The last line with anything in it."""
    lines = [line.strip() for line in text_of(log).splitlines() if line.strip()]
    return lines[-1][:110] if lines else ""


def say(text: str) -> None:
    """One line, whoever speaks."""
    with SAY:
        print(f"[test {passed():5.0f} s] {text}", flush=True)


def main(names: list[str]) -> int:
    """Run all stages, or the named ones; print the table; return the exit code."""
    LOGS.mkdir(parents=True, exist_ok=True)
    known = {stage.name: stage for lane in lanes() for stage in lane}
    unknown = [name for name in names if name not in known]
    if unknown:
        print(f"unknown stage {', '.join(unknown)}; known: {', '.join(known)}", file=sys.stderr)
        return 2
    chosen = [[stage for stage in lane if not names or stage.name in names] for lane in lanes()]
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    threads = [threading.Thread(target=run_lane, args=(lane, math.inf if names else LIMIT)) for lane in chosen]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    except KeyboardInterrupt:
        INTERRUPTED.set()
        for stage in (stage for lane in chosen for stage in lane):
            end(stage)
        raise
    finally:
        if not names:
            clean_up()
    return summary([stage for lane in chosen for stage in lane])


def clean_up() -> None:
    """Leave nothing running: what a whole run started, it stops."""
    for place in (".lab", *SECOND_LAB.values()):
        env = {**os.environ, "NFSMAIL_LAB": place}
        subprocess.run(["tools/lab", "down"], cwd=ROOT, env=env, stdin=subprocess.DEVNULL, check=False)
    subprocess.run(["tools/dockerd", "stop"], cwd=ROOT, stdin=subprocess.DEVNULL, check=False)


def summary(stages: list[Stage]) -> int:
    """Where the time went, and the verdict; last what failed, a line each, for whoever sees only the end."""
    lines = []
    for stage in stages:
        if stage.late:
            lines.append(f"FAILED {stage.name}: {stage.late}")
        elif stage.passed is False:
            print(f"\n{stage.name}")
            for title, said in failures(text_of(stage.log)) or [("", [])]:
                print("\n".join([title, *in_brief(said)]))
                lines.append(f"FAILED {stage.name} {title}: {in_a_line(said)}")
            lines += stage.crashes
    print(f"\n{'stage'.ljust(20)}  result  seconds")
    for stage in stages:
        print(f"{stage.name.ljust(20)}  {'ok' if stage.passed else 'FAILED':6}  {stage.seconds:7.0f}")
    failed = sum(not stage.passed for stage in stages)
    print(f"{'all'.ljust(20)}  {'ok' if not failed else 'FAILED':6}  {passed():7.0f}\n")
    print("\n".join([*lines, f"{len(stages) - failed} passed, {failed} failed"]))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
