# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Virtual machines for the scenarios that need a real kernel: NFS client, NFS server, lock manager.

Runs without root and without hardware virtualisation: Debian images from mmdebstrap, QEMU (KVM where it works, software
emulation elsewhere), one user-mode NIC for SSH and one private multicast LAN per lab.
"""
