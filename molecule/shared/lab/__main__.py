# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Command line: tools/lab COMMAND."""

from __future__ import annotations

import argparse
import os

from . import cluster, ssh
from .config import LabError, load
from .image import image_folder
from .progress import run_command


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tools/lab", description="Virtual machines for the NFS scenarios.")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("up", help="build, boot and snapshot what is not up yet")
    command.add_argument("machine", nargs="*")
    command = commands.add_parser("build", help="only build the images")
    command.add_argument("machine", nargs="*")
    commands.add_parser("down", help="stop all machines and forget their disks")
    command = commands.add_parser("reset", help="put all machines back to a snapshot, in seconds")
    command.add_argument("snapshot", nargs="*", default=[cluster.CLEAN], help="the first of these that there is")
    command = commands.add_parser("snapshot", help="save the state of all machines")
    command.add_argument("name")
    commands.add_parser("status", help="list the machines")
    command = commands.add_parser("ssh", help="log in, or run a command")
    command.add_argument("machine")
    command.add_argument("remote", nargs=argparse.REMAINDER)
    command = commands.add_parser("console", help="follow a machine's serial console")
    command.add_argument("machine")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    lab = load()
    if args.command == "ssh":
        [machine] = lab.pick([args.machine])
        if not cluster.ready(machine):
            raise LabError(f"{machine.name} is not up: run tools/lab up")
        os.execvp("ssh", ssh.command(machine.name, *args.remote))
    if args.command == "console":
        [machine] = lab.pick([args.machine])
        os.execvp("tail", ["tail", "-n", "40", "-F", str(cluster.console(machine))])
    if args.command == "status":
        for row in cluster.status(lab):
            print("{name:8} {state:9} {address:12} pid {pid:<8} {forward}".format(**row))
        return
    with cluster.locked():
        if args.command == "up":
            cluster.up(lab, args.machine)
        elif args.command == "build":
            machines = lab.pick(args.machine)
            cluster.build_images(machines)
            for machine in machines:
                print(f"[lab] {machine.name}: {image_folder(machine.image)}")
        elif args.command == "down":
            cluster.down(lab)
        elif args.command == "reset":
            cluster.reset(lab, args.snapshot)
        elif args.command == "snapshot":
            cluster.snapshot(cluster.running(lab), args.name)


if __name__ == "__main__":
    run_command(main)
