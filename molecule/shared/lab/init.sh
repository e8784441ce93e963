#!/bin/busybox sh
# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
# First program of a lab machine: mount the disk, lay the machine's own settings over it, start systemd.
# Much quicker under emulation than a general initramfs, and settings are in place before systemd reads any.
b=/bin/busybox
$b mkdir -p /dev /disk
$b mount -t devtmpfs dev /dev
while read -r module; do
    $b insmod "/modules/$module" || echo "NFSMAIL-LAB cannot load $module"
done </modules/order
for _ in 1 2 3 4 5 6 7 8 9 10; do
    [ -b /dev/vda ] && break
    $b sleep 0.5
done
$b mount -t ext4 /dev/vda /disk || { echo "NFSMAIL-LAB no root disk"; $b poweroff -f; }
# Once: a machine that boots again has what was made of it meanwhile, its fstab above all.
[ -e /disk/.nfsmail-lab ] || { $b cp -a /settings/. /disk/ && $b touch /disk/.nfsmail-lab; }
exec $b switch_root /disk /sbin/init
