# Copyright (c) 2026 nfsmail.cluster contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Mount options wanted and in effect, and fstab, on what real kernels show."""

from __future__ import annotations

import pathlib

import pytest
from ansible_collections.nfsmail.cluster.plugins.module_utils import _mounts
from hypothesis import given
from hypothesis import strategies as st

DATA = pathlib.Path(__file__).parent / "data"

MOUNTINFO = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,errors=remount-ro
40 22 0:35 / /srv/my\\040mail rw,nosuid,nodev,relatime shared:96 - nfs4 nfs1:/srv/my\\040mail rw,vers=4.2,hard
41 22 0:40 / /auto rw,relatime shared:97 - autofs systemd-1 rw,fd=50,pgrp=1,timeout=0,direct
42 41 0:41 / /auto rw,relatime shared:98 - nfs nfs1:/srv/mail rw,vers=3,hard
nonsense
50 22 0:9 / /x rw
"""
MOUNTSTATS = """\
device /dev/vda mounted on / with fstype ext4
device nfs1:/srv/mail mounted on /mnt/v3 with fstype nfs statvers=1.1
\topts:\trw,vers=3,rsize=131072,acregmin=3,acregmax=60,acdirmin=30,acdirmax=60,hard,local_lock=none
\tage:\t13
\tcaps:\tcaps=0x3fc7,wtmult=512,dtsize=131072,bsize=0,namlen=255
\tper-op statistics
\t        GETATTR: 1 1 0 124 112 0 4 4 0
device sunrpc mounted on /run/rpc_pipefs with fstype rpc_pipefs
device nfs1:/srv/mail mounted on /srv/my\\040mail with fstype nfs4 statvers=1.1
\topts:\trw,vers=4.2,acregmin=3,hard
"""


def samples() -> list[tuple[str, list[str]]]:
    """Options given to mount(8) and the options in effect then."""
    lines = [line for line in (DATA / "mounts-6.1.txt").read_text().splitlines() if not line.startswith("#")]
    found = []
    for asked, info, stats in zip(lines[::3], lines[1::3], lines[2::3]):
        mount = _mounts.parse_mountinfo(info)[0]
        shown = _mounts.parse_mountstats(f"device x mounted on {mount.path} with fstype {mount.fstype}\n{stats}")
        found.append((asked, _mounts.options_in_effect(mount, shown[mount.path])))
    return found


SAMPLES = samples()


# ---- reading ----


def test_mountinfo() -> None:
    mounts = _mounts.parse_mountinfo(MOUNTINFO)
    assert [mount.path for mount in mounts] == ["/", "/srv/my mail", "/auto", "/auto"]
    assert mounts[1].source == "nfs1:/srv/my mail"
    assert mounts[1].is_nfs
    assert mounts[1].options == ["rw", "nosuid", "nodev", "relatime"]
    assert mounts[1].super_options == ["rw", "vers=4.2", "hard"]


def test_top_mount_is_the_one_that_is_seen() -> None:
    mounts = _mounts.parse_mountinfo(MOUNTINFO)
    top = _mounts.top_mount(mounts, "/auto")
    assert top is not None
    assert top.fstype == "nfs"
    assert _mounts.top_mount(list(reversed(mounts)), "/auto") is top
    assert _mounts.top_mount(mounts, "/srv") is None


def test_mountstats() -> None:
    stats = _mounts.parse_mountstats(MOUNTSTATS)
    assert sorted(stats) == ["/mnt/v3", "/srv/my mail"]
    assert stats["/mnt/v3"][:3] == ["rw", "vers=3", "rsize=131072"]
    assert stats["/srv/my mail"] == ["rw", "vers=4.2", "acregmin=3", "hard"]


def test_options_in_effect_are_merged_without_doubles() -> None:
    mount = _mounts.parse_mountinfo(MOUNTINFO)[1]
    stats = _mounts.parse_mountstats(MOUNTSTATS)
    assert _mounts.options_in_effect(mount, stats[mount.path]) == [
        *("rw", "nosuid", "nodev", "relatime", "vers=4.2", "acregmin=3", "hard"),
    ]
    assert _mounts.options_in_effect(mount) == ["rw", "nosuid", "nodev", "relatime", "vers=4.2", "hard"]


def test_read_only_wins_over_a_writable_file_system() -> None:
    mount = _mounts.parse_mountinfo("1 2 0:1 / /m ro,noatime - nfs s:/e rw,vers=3")[0]
    assert _mounts.options_in_effect(mount) == ["ro", "noatime", "vers=3"]


# ---- comparing ----


@pytest.mark.parametrize(("asked", "in_effect"), SAMPLES, ids=[asked for asked, dummy in SAMPLES])
def test_what_a_real_mount_was_asked_for_is_in_effect(asked: str, in_effect: list[str]) -> None:
    assert _mounts.differences(asked.split(","), in_effect) == []


def test_real_mounts_with_other_options_are_told_apart() -> None:
    same = {  # nothing that a kernel shows: the default said aloud, or without a meaning
        *(
            "proto=tcp",
            "rsize=32768",
            "rsize=5000",
            "nconnect=2",
            "timeo=100",
            "timeo=1200",
            "retrans=5",
            "port=2049",
        ),
        *("softreval", "intr", "lock", "write=eager", "mountproto=tcp,proto=tcp"),
    }
    ignored_by_v4 = {"nolock", "local_lock=flock", "noacl"}
    for asked, in_effect in SAMPLES:
        version, dummy, option = asked.partition(",")
        wrong = _mounts.differences([version], in_effect)
        if option in same or (version == "vers=4.2" and option in ignored_by_v4):
            assert wrong == [], asked
        else:
            assert wrong, asked


@pytest.mark.parametrize(
    ("wanted", "in_effect", "expected"),
    [
        ("vers=3", "vers=4.2", [("vers", "3", "4.2")]),
        ("nfsvers=3", "vers=3", []),
        ("v4.2", "vers=4.2", []),
        ("vers=4", "vers=4.1", []),
        ("vers=4.0", "vers=4.1", [("vers", "4.0", "4.1")]),
        ("vers=4,minorversion=1", "vers=4.1", []),
        ("vers=4.1", "vers=4,minorversion=1", []),
        ("tcp", "proto=tcp6", [("proto", "tcp", "tcp6")]),
        ("hard", "soft", [("hard", "hard", "soft")]),
        ("", "soft", [("hard", "hard", "soft")]),
        ("softerr", "softerr,softreval", []),
        ("actimeo=0", "acregmin=0,acregmax=0,acdirmin=0,acdirmax=0", []),
        ("actimeo=0", "acregmin=0,acregmax=0", [("acdirmin", "0", "30"), ("acdirmax", "0", "60")]),
        ("noac", "noac,sync,acregmin=0,acregmax=0,acdirmin=0,acdirmax=0", []),
        ("", "noac,sync,acregmin=0,acregmax=0,acdirmin=0,acdirmax=0", [("noac", "ac", "noac")]),
        ("lookupcache=positive", "lookupcache=pos", []),
        ("lookupcache=positive", "", [("lookupcache", "positive", "all")]),
        ("lookupcache=all", "", []),
        ("nordirplus", "", [("rdirplus", "nordirplus", "rdirplus")]),
        ("nolock", "vers=3,nolock,local_lock=all", []),
        ("vers=3", "vers=3,nolock,local_lock=all", [("local_lock", "none", "all")]),
        ("rsize=1048576,wsize=1048576", "rsize=131072,wsize=262144", []),
        ("rsize=65536", "rsize=131072", [("rsize", "65536", "131072")]),
        ("noatime", "", [("atime", "noatime", "strictatime")]),
        ("defaults", "rw,relatime", []),
        ("ro,rw", "rw,relatime", []),
        ("user", "rw,nosuid,nodev,noexec,relatime", []),
        ("user,exec", "rw,nosuid,nodev,relatime", []),
        ("_netdev,nofail,x-systemd.mount-timeout=30,bg,retry=5,noauto,comment=x", "rw,relatime", []),
        ("sec=krb5:krb5i", "sec=krb5i", []),
        ("nconnect=4", "", [("nconnect", "4", "1")]),
        ("port=2049", "vers=3", []),
        ("some_new_option,other=1", "rw,relatime", []),
    ],
)
def test_differences(wanted: str, in_effect: str, expected: list[tuple[str, str, str]]) -> None:
    have = _mounts.split_options(in_effect)
    if not {"noatime", "strictatime"} & set(have) and "noatime" not in wanted:
        have.append("relatime")
    found = _mounts.differences(_mounts.split_options(wanted), have)
    assert [(item["option"], item["wanted"], item["found"]) for item in found] == expected


def test_options_for_mount_leave_out_what_is_for_fstab() -> None:
    options = ["vers=3", "bg", "_netdev", "nofail", "x-systemd.mount-timeout=30", "retry=2", "hard", "user"]
    assert _mounts.options_to_mount(options) == ["vers=3", "hard"]


@pytest.mark.parametrize(("asked", "in_effect"), SAMPLES, ids=[asked for asked, dummy in SAMPLES])
def test_options_to_restore_mean_the_same(asked: str, in_effect: list[str]) -> None:
    options = _mounts.options_to_restore(in_effect)
    assert [item for item in _mounts.differences(options, in_effect) if item["option"] != "atime"] == [], asked
    assert not any(option.startswith(("addr=", "clientaddr=", "mountaddr=", "namlen=")) for option in options)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("nfs1:/srv/mail", "NFS1:/srv/mail/", True),
        ("nfs1:/", "nfs1:/", True),
        ("nfs1://srv/mail", "nfs1:/srv/mail", True),
        ("nfs1:/srv/mail", "nfs1:/srv/Mail", False),
        ("nfs1:/srv/mail", "10.77.0.1:/srv/mail", False),
        ("[2001:db8::1]:/srv", "[2001:DB8::1]:/srv", True),
    ],
)
def test_same_source(one: str, other: str, same: bool) -> None:
    assert _mounts.same_source(one, other) is same


def test_split_source() -> None:
    assert _mounts.split_source("nfs1:/srv/mail") == ("nfs1", "/srv/mail")
    assert _mounts.split_source("efs.example.com:/") == ("efs.example.com", "/")
    assert _mounts.same_source("efs.example.com:/", "EFS.example.com:/")
    assert _mounts.split_source("[2001:db8::1]:/srv") == ("2001:db8::1", "/srv")
    for bad in ("nfs1", "nfs1:srv", ":/srv", "nfs 1:/srv", "/srv/mail"):
        with pytest.raises(ValueError, match=r"src must be SERVER:/EXPORT, for example nfs1:/srv/mail, not '.*'"):
            _mounts.split_source(bad)


# ---- fstab ----

FSTAB = """\
# /etc/fstab: static file system information.
UUID=1 / ext4 errors=remount-ro 0 1

#nfs1:/srv/mail /srv/mail nfs hard 0 0
nfs0:/srv/mail\t/srv/mail/\tnfs\tsoft  0 0
LABEL=swap none swap sw 0 0"""
LINE = "nfs1:/srv/mail /srv/mail nfs hard 0 0"


def test_fstab_line_is_replaced_and_the_rest_stays() -> None:
    new = _mounts.fstab_with(FSTAB, "/srv/mail", LINE)
    assert new == FSTAB.replace("nfs0:/srv/mail\t/srv/mail/\tnfs\tsoft  0 0", LINE)
    assert _mounts.fstab_with(new, "/srv/mail", LINE) == new


def test_fstab_line_is_added_after_a_last_line_without_an_end() -> None:
    assert _mounts.fstab_with(FSTAB, "/srv/new", LINE) == FSTAB + "\n" + LINE + "\n"
    assert _mounts.fstab_with("", "/srv/new", LINE) == LINE + "\n"


def test_fstab_line_is_removed() -> None:
    assert _mounts.fstab_with(FSTAB, "/srv/mail", None) == FSTAB.replace(
        "nfs0:/srv/mail\t/srv/mail/\tnfs\tsoft  0 0\n", ""
    )
    assert _mounts.fstab_with(FSTAB, "/nowhere", None) == FSTAB


def test_fstab_keeps_one_of_two_lines() -> None:
    twice = "a:/ /srv/mail nfs x 0 0\n# between\nb:/ /srv/mail nfs y 0 0\n"
    assert _mounts.fstab_with(twice, "/srv/mail", LINE) == f"{LINE}\n# between\n"
    assert _mounts.fstab_entry(twice, "/srv/mail") == "b:/ /srv/mail nfs y 0 0"


@pytest.mark.parametrize("old", ["nfs1:/srv/mail   /srv/mail\tnfs  hard", "nfs1:/srv/mail /srv/mail nfs hard 0 0 \r\n"])
def test_fstab_line_that_says_the_same_stays(old: str) -> None:
    assert _mounts.fstab_with(old, "/srv/mail", LINE) == old


def test_fstab_with_blanks_in_names() -> None:
    line = _mounts.fstab_line("nfs1:/my mail", "/srv/my mail", "nfs", [])
    assert line == "nfs1:/my\\040mail /srv/my\\040mail nfs defaults 0 0"
    assert _mounts.fstab_options(line, "/srv/my mail") == ["defaults"]
    assert _mounts.fstab_options(line, "/srv/mail") is None


@given(st.lists(st.sampled_from(["# a comment", "", "x:/ /other nfs hard 0 0", "bad", LINE, "y:/ /srv/mail nfs soft"])))
def test_fstab_has_one_line_for_the_mount_and_all_others(lines: list[str]) -> None:
    new = _mounts.fstab_with("".join(line + "\n" for line in lines), "/srv/mail", LINE)
    ours = [LINE, "y:/ /srv/mail nfs soft"]
    assert [line for line in new.splitlines() if line not in ours] == [line for line in lines if line not in ours]
    assert new.splitlines().count(LINE) == 1
    assert _mounts.fstab_with(new, "/srv/mail", LINE) == new


@given(
    st.text(
        alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029\0")
    )
)
def test_escape_can_be_undone(name: str) -> None:
    assert _mounts.unescape(_mounts.escape(name)) == name
