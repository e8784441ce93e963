# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line."""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from mailflow.errors import MailflowError
from mailflow.flow import Config, Lines, run
from mailflow.placement import parse_hosts, parse_shards, placement
from mailflow.plan import parse_users
from mailflow.samples import find_samples

EPILOG = """\
The Maildir listing is what 'find' prints on a backend in the folder that holds DOMAIN/USER/Maildir. It must
be taken after the delivery: name a command to run then, or a file (- for standard input) that is read then.
Exit code: 0 if every row is ok, 1 if one failed or the run could not be carried out.
"""


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise argparse.ArgumentTypeError(f"need HOST:PORT, not {text!r}")
    return host.strip("[]"), int(port)


def _pairs(text: str) -> dict[str, str]:
    pairs = dict(item.strip().partition("=")[::2] for item in text.split(",") if item.strip())
    if not pairs or not all(key and value for key, value in pairs.items()):
        raise argparse.ArgumentTypeError(f"need ADDRESS=NAME,..., not {text!r}")
    return pairs


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key or not value:
        raise argparse.ArgumentTypeError(f"need NAME=FILE, not {text!r}")
    return key, value


def parser() -> argparse.ArgumentParser:
    """The options."""
    result = argparse.ArgumentParser(
        prog="mailflow",
        description="Deliver CPython's e-mail samples over LMTP, read them over IMAP, compare byte for byte.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = result.add_argument
    add("--lmtp", type=_address, required=True, metavar="HOST:PORT", help="where to deliver: the proxy")
    add("--imap", type=_address, required=True, metavar="HOST:PORT", help="where to read back: the proxy")
    add("--users", type=Path, required=True, metavar="FILE", help="'user:password' lines, or a passwd-file")
    add("--seed", type=int, default=1, metavar="N", help="same seed, same plan (default: %(default)s)")
    add("--json", type=Path, metavar="OUT", help="write the report here too")
    add("--samples", type=Path, action="append", default=[], metavar="DIR", help="only samples from here")
    add("--settle", type=float, default=0.0, metavar="SECONDS", help="wait so long for late messages")
    add("--timeout", type=float, default=60.0, metavar="SECONDS", help="for each answer of a server")
    who = result.add_argument_group("who wrote")
    listing = who.add_mutually_exclusive_group()
    listing.add_argument("--maildir-listing", metavar="FILE", help="paths of the mail files, - for stdin")
    listing.add_argument("--listing-command", metavar="COMMAND", help="prints those paths; run without a shell")
    who.add_argument(
        "--backends-log",
        type=_pair,
        action="append",
        default=[],
        metavar="NAME=FILE",
        help="a backend's Dovecot log; its 'saved mail' lines must agree (once for each backend)",
    )
    where = result.add_argument_group("where each user must live")
    where.add_argument("--shards", type=Path, metavar="FILE", help="the proxy's 256 shard lines")
    where.add_argument("--overrides", type=Path, metavar="FILE", help="the proxy's override lines")
    where.add_argument(
        "--host-names", type=_pairs, default={}, metavar="ADDRESS=NAME,...", help="host names of the backends"
    )
    return result


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError as exc:
        raise MailflowError(f"cannot read {path}: {exc.strerror}") from exc


def _from_command(command: str) -> list[str]:
    try:
        done = subprocess.run(shlex.split(command), capture_output=True, text=True, check=False)
    except (OSError, ValueError) as exc:
        raise MailflowError(f"listing command {command!r}: {exc}") from exc
    if done.returncode != 0:
        raise MailflowError(f"listing command {command!r} ended with {done.returncode}: {done.stderr.strip()}")
    return done.stdout.splitlines()


def _listing(options: argparse.Namespace) -> Lines | None:
    if options.listing_command:
        return lambda: _from_command(options.listing_command)
    if options.maildir_listing == "-":
        return lambda: sys.stdin.read().splitlines()
    if options.maildir_listing:
        return lambda: _lines(Path(options.maildir_listing))
    return None


def _reader(path: Path) -> Callable[[], Iterable[str]]:
    return lambda: _lines(path)


def config_from(options: argparse.Namespace) -> Config:
    """Read the files that the options name."""
    users = parse_users(_lines(options.users))
    expected = None
    if options.shards:
        shards = parse_shards(_lines(options.shards))
        overrides = parse_hosts(_lines(options.overrides), "overrides") if options.overrides else {}
        expected = placement(users, shards, overrides, options.host_names)
    elif options.overrides or options.host_names:
        raise MailflowError("--overrides and --host-names say nothing without --shards")
    return Config(
        lmtp=options.lmtp,
        imap=options.imap,
        users=users,
        seed=options.seed,
        expected=expected,
        listing=_listing(options),
        logs={name: _reader(Path(path)) for name, path in options.backends_log},
        samples=find_samples(folders=options.samples) if options.samples else None,
        settle=options.settle,
        timeout=options.timeout,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print, write; return the exit code."""
    options = parser().parse_args(arguments)
    try:
        report = run(config_from(options))
    except MailflowError as exc:
        print(f"mailflow: {exc}", file=sys.stderr)
        if options.json:
            failure = json.dumps({"ok": False, "error": str(exc)}, indent=2)
            options.json.write_text(failure + "\n", encoding="utf-8")
        return 1
    if options.json:
        options.json.write_text(report.to_json(), encoding="utf-8")
    print(f"\n{report.table()}\n\nmailflow: {'ok' if report.ok else 'FAIL'} in {report.seconds} s")
    return 0 if report.ok else 1
