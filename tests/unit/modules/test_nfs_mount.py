# Copyright (c) 2026 nfsmail.cluster contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What nfs_mount does, on a host that is made up: its mounts, its server, its guard and its processes."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import pytest
from ansible_collections.nfsmail.cluster.plugins.module_utils import _guard, _mounts, _system
from ansible_collections.nfsmail.cluster.plugins.modules import nfs_mount

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Callable, Sequence

    from .conftest import RunModule

SRC, PATH = "nfs1:/srv/mail", "/srv/mail"
OPTIONS = ["vers=4.2", "proto=tcp", "hard", "lookupcache=positive", "nosuid", "nodev", "_netdev", "nofail"]
LINE = f"{SRC} {PATH} nfs {','.join(OPTIONS)} 0 0"
OTHER = "# mine\nUUID=1 / ext4 defaults 0 1\n"
SHOWN = ["rw", "nosuid", "nodev", "relatime", "vers=4.2", "hard", "proto=tcp", "sec=sys", "lookupcache=pos"]
FLAGS = {"rw", "ro", "nosuid", "nodev", "noexec", "relatime", "noatime"}


class Host:
    """A made-up host."""

    def __init__(self, fstab: pathlib.Path) -> None:
        self.fstab = fstab
        self.fstab.write_text(OTHER)
        self.mounts: list[tuple[str, str, list[str]]] = []  # source, type, options in effect
        self.guard: dict[str, Any] = {
            **{"path": PATH, "exists": False, "mode": None, "uid": None, "gid": None, "immutable": False},
            **{
                "immutable_possible": None,
                "marker": False,
                "marker_text": None,
                "foreign_entries": [],
                "foreign_count": 0,
            },
        }
        self.unreachable: str | None = None
        self.mount_errors: dict[str, str] = {}  # a part of the options: what mount says to them
        self.umount_error = ""
        self.users: list[dict[str, Any]] = []
        self.commands: list[str] = []
        self.next_id = 40
        self.takes: Callable[[list[str]], list[str]] = lambda options: options

    def good_guard(self) -> None:
        """As the module makes it."""
        self.guard.update(
            exists=True, mode="0555", uid=0, gid=0, immutable=True, immutable_possible=True, marker=True,
            marker_text=_guard.marker_text(SRC),
        )  # fmt: skip

    def mounted(self, *options: str, source: str = SRC, fstype: str = "nfs4") -> None:
        """As after a mount in the past."""
        self.mounts.append((source, fstype, list(options) or SHOWN))
        self.next_id += 1

    def settled(self) -> None:
        """As after a good run."""
        self.mounted()
        self.good_guard()
        self.fstab.write_text(f"{OTHER}{LINE}\n")

    # -- what the module uses --

    def read_text(self, path: str) -> str | None:
        """Files of /proc, and fstab for real."""
        if path == "/proc/self/mountinfo":
            return "22 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n" + "".join(
                f"{self.next_id + turn} {self.next_id + turn - 1 if turn else 22} 0:35 / {PATH} "
                f"{','.join(option for option in options if option in FLAGS)} - {fstype} {source} "
                f"{','.join(option for option in options if option not in FLAGS)}\n"
                for turn, (source, fstype, options) in enumerate(self.mounts)
            )
        if path == "/proc/self/mountstats":
            return ""
        assert path == str(self.fstab)
        return self.fstab.read_bytes().decode()

    def run(self, command: Sequence[str], timeout: float) -> _system.Result:
        """mount, umount, systemctl."""
        assert timeout > 0
        self.commands.append(" ".join(command))
        if command[0] == "umount":
            if self.umount_error:
                return _system.Result(32, "", self.umount_error)
            self.mounts.pop()
            return _system.Result(0, "", "")
        assert command[0] == "mount"
        options = _mounts.split_options(command[4])
        assert options.pop() == "retry=0"
        for part, error in self.mount_errors.items():
            if part in command[4] or part in command[5]:
                return _system.Result(32, "", error)
        shown = [option for option in options if option in FLAGS] + ["relatime"] * ("noatime" not in options)
        shown += [option for option in self.takes(options) if option not in FLAGS]
        self.next_id += 1
        self.mounts.append((command[5], "nfs4", shown))
        return _system.Result(0, "", "")

    def isolated(self, func: Callable[[], Any], timeout: float) -> Any:
        """Children are not needed here."""
        assert timeout > 0
        try:
            return func()
        except OSError as exc:
            raise _system.ChildError(str(exc), type(exc).__name__, exc.errno) from exc

    def sys_mount(self, _source: str, target: str, fstype: str | None, flags: int, data: str | None = None) -> None:
        """The remount."""
        assert (target, fstype, data) == (PATH, None, None)
        assert flags & _system.MS_REMOUNT
        assert flags & _system.MS_BIND
        self.commands.append("remount")
        names = {
            _system.MS_RDONLY: "ro",
            _system.MS_NOSUID: "nosuid",
            _system.MS_NODEV: "nodev",
            _system.MS_NOEXEC: "noexec",
            _system.MS_NOATIME: "noatime",
            _system.MS_RELATIME: "relatime",
        }
        source, kind, options = self.mounts.pop()
        shown = [name for flag, name in names.items() if flags & flag]
        self.mounts.append((source, kind, shown + [option for option in options if option not in FLAGS]))

    def ensure(self, path: str, text: str, _timeout: float) -> dict[str, Any]:
        """The guard is made."""
        self.commands.append("guard")
        self.good_guard()
        self.guard.update(path=path, marker_text=text)
        return self.guard

    def remove(self, path: str, _timeout: float) -> dict[str, Any]:
        """The guard is removed."""
        assert not self.mounts
        self.commands.append(f"remove {path}")
        self.guard.update(exists=bool(self.guard["foreign_count"]), marker=False, immutable=False)
        return self.guard


@pytest.fixture
def host(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """A host in the place of the real one."""
    made = Host(tmp_path / "fstab")
    for name in ("read_text", "run", "sys_mount"):
        monkeypatch.setattr(_system, name, getattr(made, name))
    monkeypatch.setattr(_system, "run_isolated", made.isolated)
    monkeypatch.setattr(_system, "find_program", lambda name: f"/sbin/{name}")
    monkeypatch.setattr(_system, "find_holders", lambda *_args, **_more: made.users)
    monkeypatch.setattr(_guard, "inspect", lambda *_args: made.guard)
    monkeypatch.setattr(_guard, "ensure", made.ensure)
    monkeypatch.setattr(_guard, "remove", made.remove)
    monkeypatch.setattr(nfs_mount, "why_unreachable", lambda *_args: made.unreachable)
    return made


def params(host: Host, options: list[str] | None = None, **more: Any) -> dict[str, Any]:
    """Parameters of a usual call."""
    return {
        "path": PATH,
        "src": SRC,
        "options": OPTIONS if options is None else options,
        "fstab": str(host.fstab),
        **more,
    }


# ---- mounting ----


def test_first_run(host: Host, run_module: RunModule) -> None:
    result = run_module.ok(nfs_mount, **params(host))
    assert (result["changed"], result["action"], result["changes"]) == (
        True,
        "mounted",
        ["mount", "fstab", "guard"],
    )
    assert host.commands == [
        "guard",
        f"mount -t nfs -o vers=4.2,proto=tcp,hard,lookupcache=positive,nosuid,nodev,retry=0 {SRC} {PATH}",
    ]
    assert host.fstab.read_text() == f"{OTHER}{LINE}\n"
    assert result["fstab_line"] == LINE
    assert "lookupcache=positive" in result["in_effect"]
    assert result["guard"]["mode"] == "0555"
    assert "marker_text" not in result["guard"]
    assert result["diff"]["before"] == "mounted: nothing\nfstab: no line\nguard: no directory\n"
    assert f"fstab: {LINE}\n" in result["diff"]["after"]


def test_second_run(host: Host, run_module: RunModule) -> None:
    host.settled()
    result = run_module.ok(nfs_mount, **params(host))
    assert (result["changed"], result["action"], result["changes"], result["differences"]) == (
        False,
        "none",
        [],
        [],
    )
    assert host.commands == []
    assert result["in_effect"] == ["rw", "nosuid", "nodev", "relatime", *SHOWN[4:]]
    assert result["diff"]["before"] == result["diff"]["after"] == ""


def test_check_mode_on_a_virgin_host(host: Host, run_module: RunModule, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_system, "find_program", lambda _name: None)
    host.unreachable = "not asked"
    result = run_module.ok(nfs_mount, check=True, **params(host))
    assert (result["changed"], result["action"], result["changes"]) == (
        True,
        "would_mount",
        ["mount", "fstab", "guard"],
    )
    assert (host.commands, host.fstab.read_text(), host.mounts) == ([], OTHER, [])
    assert result["in_effect"] == []


def test_dead_server_changes_nothing(host: Host, run_module: RunModule) -> None:
    host.unreachable = "10.77.0.1 port 2049: connection refused"
    result = run_module.fail(nfs_mount, **params(host))
    assert result["msg"] == (
        "the NFS server nfs1 cannot be reached, nothing was changed: 10.77.0.1 port 2049: connection refused"
    )
    assert (result["changed"], host.commands, host.fstab.read_text()) == (False, [], OTHER)


def test_no_helper(host: Host, run_module: RunModule, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_system, "find_program", lambda _name: None)
    msg = run_module.fail(nfs_mount, **params(host))["msg"]
    assert msg == "mount.nfs was not found; install nfs-common (Debian) or nfs-utils (Red Hat)"


def test_mount_fails(host: Host, run_module: RunModule) -> None:
    host.mount_errors["vers=4.2"] = "mount.nfs: access denied by server while mounting nfs1:/srv/mail\n"
    result = run_module.fail(nfs_mount, **params(host))
    assert result["msg"] == (
        "nfs1:/srv/mail cannot be mounted at /srv/mail: mount -t nfs -o vers=4.2,proto=tcp,hard,lookupcache=positive,nosuid,"
        "nodev,retry=0 nfs1:/srv/mail /srv/mail: mount.nfs: access denied by server while mounting nfs1:/srv/mail"
    )
    assert host.fstab.read_text() == OTHER
    assert (result["changed"], result["changes"], result["action"]) == (True, ["guard"], "none")


def test_no_etc_protocols(host: Host, run_module: RunModule) -> None:
    host.mount_errors["vers"] = "mount.nfs: Failed to find 'tcp' protocol"
    assert run_module.fail(nfs_mount, **params(host))["msg"].endswith("; /etc/protocols is missing, install netbase")


def test_option_that_the_kernel_does_not_take(host: Host, run_module: RunModule) -> None:
    host.takes = lambda options: [option for option in options if option != "lookupcache=positive"]
    msg = run_module.fail(nfs_mount, **params(host))["msg"]
    assert msg == (
        "nfs1:/srv/mail cannot be mounted at /srv/mail: the kernel did not take every option: "
        "lookupcache (wanted positive, found all)"
    )
    assert (host.mounts, host.fstab.read_text()) == ([], OTHER)


def test_something_else_is_mounted(host: Host, run_module: RunModule) -> None:
    host.mounted("rw", source="/dev/vdb", fstype="ext4")
    msg = run_module.fail(nfs_mount, **params(host))["msg"]
    assert msg == "at /srv/mail something else is mounted: /dev/vdb of type ext4; this module unmounts NFS only"


# ---- changing ----


def test_changed_options(host: Host, run_module: RunModule) -> None:
    host.settled()
    new = ["lookupcache=none" if option.startswith("lookup") else option for option in OPTIONS]
    result = run_module.ok(nfs_mount, **params(host, new))
    assert (result["action"], result["changes"]) == ("unmounted_and_mounted", ["mount", "fstab"])
    assert result["differences"] == [{"option": "lookupcache", "wanted": "none", "found": "positive"}]
    assert host.commands[0] == f"umount {PATH}"
    assert "lookupcache: positive\n" in result["diff"]["before"]
    assert "lookupcache: none\n" in result["diff"]["after"]
    assert len(host.mounts) == 1
    host.commands.clear()
    assert run_module.ok(nfs_mount, **params(host, new))["changed"] is False


def test_fstab_right_but_not_in_effect(host: Host, run_module: RunModule) -> None:
    host.settled()
    host.mounts[0] = (SRC, "nfs4", [*SHOWN[:-1], "soft"])
    result = run_module.ok(nfs_mount, **params(host))
    assert (result["action"], result["changes"]) == ("unmounted_and_mounted", ["mount"])


def test_busy(host: Host, run_module: RunModule) -> None:
    host.settled()
    host.users = [{"pid": 4711, "name": "imap", "why": ["fd"]}, {"pid": 4712, "name": "lmtp", "why": ["cwd"]}]
    new = params(host, [*OPTIONS, "actimeo=0"])
    result = run_module.fail(nfs_mount, **new)
    assert result["msg"] == (
        "/srv/mail cannot be mounted anew while it is in use by 4711 (imap), 4712 (lmtp); NFS options cannot be changed by "
        "a remount, and these differ: acregmin (wanted 0, found 3), acregmax (wanted 0, found 60), "
        "acdirmin (wanted 0, found 30), acdirmax (wanted 0, found 60)"
    )
    assert (result["holders"], result["changed"], host.commands) == (host.users, False, [])
    assert host.fstab.read_text() == f"{OTHER}{LINE}\n"
    checked = run_module.ok(nfs_mount, check=True, **new)
    assert checked["action"] == "would_unmount_and_mount"
    assert run_module.warnings[0].startswith(
        "a real run would fail now: /srv/mail cannot be mounted anew while it is in use"
    )
    forced = run_module.ok(nfs_mount, **new, force_busy=True)
    assert forced["action"] == "unmounted_and_mounted"
    assert host.commands[0] == f"umount -l {PATH}"


def test_umount_says_no(host: Host, run_module: RunModule) -> None:
    host.settled()
    host.umount_error = "umount: /srv/mail: target is busy."
    result = run_module.fail(nfs_mount, **params(host, [*OPTIONS, "noac"]))
    assert result["msg"] == "/srv/mail cannot be unmounted: umount: /srv/mail: target is busy."
    assert (result["changed"], len(host.mounts)) == (False, 1)


def test_new_mount_fails_and_the_old_one_comes_back(host: Host, run_module: RunModule) -> None:
    host.settled()
    host.mount_errors["nfs2"] = "mount.nfs: mounting nfs2:/x failed"
    result = run_module.fail(nfs_mount, **params(host, src="nfs2:/x"))
    assert result["msg"].endswith(
        "retry=0 nfs2:/x /srv/mail: mount.nfs: mounting nfs2:/x failed; the old mount of nfs1:/srv/mail was put back"
    )
    assert [mount[0] for mount in host.mounts] == [SRC]
    assert host.commands[-1].endswith(
        f"-o vers=4.2,proto=tcp,hard,lookupcache=positive,nosuid,nodev,retry=0 {SRC} {PATH}"
    )
    assert host.fstab.read_text() == f"{OTHER}{LINE}\n"
    assert result["differences"] == [{"option": "src", "wanted": "nfs2:/x", "found": SRC}]
    assert (result["changes"], host.guard["marker_text"]) == ([], _guard.marker_text(SRC))
    host.mount_errors.clear()
    result = run_module.ok(nfs_mount, **params(host, src="nfs2:/x"))
    assert (result["changes"], host.guard["marker_text"]) == (
        ["mount", "fstab", "guard"],
        _guard.marker_text("nfs2:/x"),
    )


def test_options_in_effect_come_back_when_fstab_says_other_ones(host: Host, run_module: RunModule) -> None:
    host.settled()
    host.mounts[0] = (SRC, "nfs4", [*SHOWN, "actimeo=7", "addr=10.77.0.1", "clientaddr=10.77.0.11"])
    host.mount_errors["noac"] = "no"
    run_module.fail(nfs_mount, **params(host, [*OPTIONS, "noac"]))
    assert "actimeo=7" in host.commands[-1]
    assert "addr=" not in host.commands[-1]


def test_nothing_comes_back(host: Host, run_module: RunModule) -> None:
    host.settled()
    host.mount_errors["nfs"] = "mount.nfs: no"
    msg = run_module.fail(nfs_mount, **params(host, [*OPTIONS, "noac"]))["msg"]
    assert "NOTHING IS MOUNTED NOW, the old mount could not be put back either: mount -t nfs4 -o" in msg


def test_flags_are_remounted(host: Host, run_module: RunModule) -> None:
    host.settled()
    host.users = [{"pid": 1, "name": "imap", "why": ["fd"]}]  # does not matter here
    new = [option for option in OPTIONS if option != "nodev"] + ["noexec", "noatime", "ro"]
    result = run_module.ok(nfs_mount, **params(host, new))
    assert (result["action"], host.commands) == ("remounted", ["remount"])
    assert set(host.mounts[0][2]) & FLAGS == {"nosuid", "noexec", "noatime", "ro"}
    assert run_module.ok(nfs_mount, **params(host, new))["changed"] is False
    assert run_module.ok(nfs_mount, **params(host))["action"] == "remounted"
    assert set(host.mounts[0][2]) & FLAGS == {"nosuid", "nodev", "relatime"}


def test_nconnect_is_only_warned_about(host: Host, run_module: RunModule) -> None:
    host.settled()
    result = run_module.ok(nfs_mount, **params(host, [*OPTIONS, "nconnect=4"]))
    assert (result["action"], result["changes"]) == ("none", ["fstab"])
    assert run_module.warnings == [
        "nconnect=4 is not in effect at /srv/mail (found 1): the first mount of a server decides about it for all"
    ]


# ---- the other states ----


def test_present(host: Host, run_module: RunModule) -> None:
    host.unreachable = "gone"
    result = run_module.ok(nfs_mount, **params(host, state="present"))
    assert (result["action"], result["changes"], host.commands) == ("none", ["fstab", "guard"], ["guard"])
    assert host.fstab.read_text() == f"{OTHER}{LINE}\n"
    assert run_module.ok(nfs_mount, **params(host, state="present"))["changed"] is False


def test_unmounted(host: Host, run_module: RunModule) -> None:
    host.settled()
    host.mounted()
    result = run_module.ok(nfs_mount, path=PATH, fstab=str(host.fstab), state="unmounted")
    assert (result["action"], result["changes"]) == ("unmounted", ["mount"])
    assert (host.mounts, host.commands) == ([], [f"umount {PATH}"] * 2)
    assert host.fstab.read_text() == f"{OTHER}{LINE}\n"
    assert run_module.ok(nfs_mount, path=PATH, fstab=str(host.fstab), state="unmounted")["changed"] is False


def test_absent(host: Host, run_module: RunModule) -> None:
    host.settled()
    checked = run_module.ok(nfs_mount, check=True, path=PATH, fstab=str(host.fstab), state="absent")
    assert (checked["action"], checked["changes"]) == ("would_unmount", ["mount", "fstab", "guard"])
    result = run_module.ok(nfs_mount, path=PATH, fstab=str(host.fstab), state="absent")
    assert (result["action"], result["changes"], result["fstab_line"]) == (
        "unmounted",
        ["mount", "fstab", "guard"],
        None,
    )
    assert (host.fstab.read_text(), host.commands) == (OTHER, [f"umount {PATH}", f"remove {PATH}"])
    assert run_module.ok(nfs_mount, path=PATH, fstab=str(host.fstab), state="absent")["changed"] is False


def test_old_mail_below_the_mount(host: Host, run_module: RunModule) -> None:
    host.settled()
    host.guard.update(foreign_entries=["a", "b", "c", "d", "e"], foreign_count=9)
    assert run_module.ok(nfs_mount, **params(host))["changed"] is False
    assert run_module.warnings == [
        "the directory below the mount /srv/mail has 9 other entries that the mount hides "
        "(mail written while it was missing?): a, b, c, d, e, ..."
    ]


def test_another_source_in_the_marker(host: Host, run_module: RunModule) -> None:
    host.settled()
    host.guard["marker_text"] = _guard.marker_text("nfs0:/srv/mail")
    result = run_module.ok(nfs_mount, **params(host))
    assert (result["changes"], result["diff"]["before"]) == (["guard"], "guard: lacks marker\n")


def test_hung_path(host: Host, run_module: RunModule, monkeypatch: pytest.MonkeyPatch) -> None:
    def hung(*_args: Any) -> Any:
        raise _system.Hung("no answer within 15 s")

    monkeypatch.setattr(_guard, "inspect", hung)
    result = run_module.fail(nfs_mount, **params(host))
    assert result["msg"] == "looking at the directory below the mount /srv/mail hangs: no answer within 15 s"
    assert result["guard"] == {"path": PATH, "error": "no answer within 15 s"}


# ---- parameters ----


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"src": "nfs1"}, "src must be SERVER:/EXPORT, for example nfs1:/srv/mail, not 'nfs1'"),
        ({"src": None}, "state is mounted but all of the following are missing: src"),
        ({"path": "srv/mail"}, "path must be an absolute path below /, not 'srv/mail'"),
        ({"path": "/"}, "path must be an absolute path below /, not '/'"),
        ({"options": ["remount"]}, "remount is a task for mount(8), not an option of an NFS mount"),
        (
            {"options": ["vers=3 hard"]},
            "the mount option 'vers=3 hard' has a character that fstab does not take",
        ),
    ],
)
def test_bad_parameters(host: Host, run_module: RunModule, change: dict[str, Any], error: str) -> None:
    given = {key: value for key, value in {**params(host), **change}.items() if value is not None}
    assert run_module.fail(nfs_mount, **given)["msg"] == error


def test_path_through_a_link(host: Host, run_module: RunModule, tmp_path: pathlib.Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    msg = run_module.fail(nfs_mount, **params(host, path=str(tmp_path / "link" / "mail")))["msg"]
    assert msg == f"path {tmp_path}/link/mail goes through a symbolic link; write {tmp_path}/mail"


# ---- reaching the server ----


def test_why_unreachable() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
        assert nfs_mount.why_unreachable("127.0.0.1", port, "", 5) == f"127.0.0.1 port {port}: connection refused"
        server.listen()
        assert nfs_mount.why_unreachable("127.0.0.1", port, "tcp", 5) is None
    reason = nfs_mount.why_unreachable("no-such-host.invalid", 2049, "tcp", 5)
    assert reason is not None
    assert reason.startswith("the name no-such-host.invalid does not resolve (")


def test_port_of_the_options_is_asked(host: Host, run_module: RunModule, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []
    monkeypatch.setattr(nfs_mount, "why_unreachable", lambda *args: asked.append(args))
    run_module.ok(nfs_mount, **params(host, ["port=20049", "proto=tcp", "vers=4.2"]))
    assert asked == [("nfs1", 20049, "tcp", 5.0)]
