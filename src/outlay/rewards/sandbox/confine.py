"""How a program is shut in: namespaces with a read-only root of their own, or Landlock; limits; no privileges.

Standard library alone: the keeper runs this outside of the package.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import struct
import sys
from dataclasses import dataclass

import filters
from filters import checked

_libc = ctypes.CDLL(None, use_errno=True)

_NEWNS, _NEWUTS, _NEWIPC, _NEWUSER, _NEWPID, _NEWNET = 0x20000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000
_BIND, _REC, _PRIVATE, _NOSUID, _NODEV, _NOEXEC = 4096, 16384, 1 << 18, 2, 4, 8
_READ_ONLY, _ATTR_NOSUID, _ATTR_NODEV, _RECURSIVE = 1, 2, 4, 0x8000
_PDEATHSIG, _NO_NEW_PRIVS = 1, 38

SCRATCH = "/scratch"
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
#: user ids from here on belong to nobody; each keeper takes its own, since the number of processes is counted by user
_FIRST_USER = 1_800_000_000


@dataclass(frozen=True)
class Limits:
    """What one program may take; sizes in bytes."""

    seconds: float
    cpu: int
    memory: int
    processes: int
    disk: int
    file: int
    files: int


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent's ends."""
    checked(_libc.prctl(_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "the parent-death signal")


def library_paths() -> list[str]:
    """Return what a program may read: the standard library and shared libraries."""
    home = os.path.dirname(os.path.realpath(os.__file__))
    wanted = ["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache", "/etc/localtime", os.path.join(sys.base_prefix, "lib"), home]
    wanted += [path for path in sys.path if path.endswith("lib-dynload")]
    return [path for path in dict.fromkeys(wanted) if os.path.exists(path)]


class Namespaces:
    """Processes, files, network and users of one's own; the strongest protection, for root and wherever user namespaces are allowed."""

    name = "namespaces"

    def __init__(self) -> None:
        self._user: int | None = None
        self._pid_namespace = -1

    def enter(self) -> None:
        """Move the keeper in; goes on as the first process of the new process namespace, with its starter waiting for it."""
        own = os.getpid()
        user, group = os.geteuid(), os.getegid()
        flags = _NEWNS | _NEWPID | _NEWNET | _NEWIPC | _NEWUTS
        if user == 0 and _libc.unshare(flags) == 0:
            self._user = _FIRST_USER + own
        else:
            checked(_libc.unshare(_NEWUSER | flags), "making namespaces")
            for name, text in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
                with open(f"/proc/self/{name}", "w") as file:
                    file.write(text)
        keeper = os.fork()
        if keeper:
            os.closerange(0, 64)
            os.waitpid(keeper, 0)
            os._exit(0)
        die_with_parent()
        self._pid_namespace = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        _build_root()

    def fork(self) -> int:
        """Fork a child that is the first process of a process namespace: when it ends the kernel ends all that it has started."""
        checked(_libc.unshare(_NEWPID), "a process namespace")
        child = -1
        try:
            child = os.fork()
        finally:
            if child:
                checked(_libc.setns(self._pid_namespace, _NEWPID), "leaving a process namespace")
        return child

    def shut(self, limits: Limits) -> None:
        """Take everything from the child that it does not need, for good."""
        checked(_libc.unshare(_NEWNS), "a mount namespace")
        owner = "" if self._user is None else f",uid={self._user},gid={self._user}"
        _mount("tmpfs", SCRATCH, "tmpfs", _NOSUID | _NODEV | _NOEXEC, f"size={limits.disk},nr_inodes=4096,mode=700{owner}")
        # in a user namespace of one's own the keeper and its starter are counted too
        _set_limits(limits, processes=limits.processes + (2 if self._user is None else 0))
        if self._user is not None:
            os.setgroups([])
            os.setresgid(self._user, self._user, self._user)
            os.setresuid(self._user, self._user, self._user)
        _drop_privileges()
        die_with_parent()  # a change of user has cleared it
        os.chdir(SCRATCH)
        filters.install(alone=False)


class Landlock:
    """A process alone: it starts no other, signals no other, writes no file and reads only libraries. Needs no privilege at all."""

    name = "landlock"

    def enter(self) -> None:
        """Check that it can be had."""
        if filters.landlock_version() < 1:
            raise OSError("this kernel has no Landlock")

    def fork(self) -> int:
        """Fork a child."""
        return os.fork()

    def shut(self, limits: Limits) -> None:
        """Take everything from the child that it does not need, for good."""
        os.chdir("/")
        _set_limits(limits, processes=None)
        _drop_privileges()
        die_with_parent()
        filters.read_only([*library_paths(), *_DEVICES])
        filters.install(alone=True)


def _set_limits(limits: Limits, processes: int | None) -> None:
    for what, most in (
        (resource.RLIMIT_CPU, limits.cpu),
        (resource.RLIMIT_AS, limits.memory),
        (resource.RLIMIT_FSIZE, limits.file),
        (resource.RLIMIT_NOFILE, limits.files),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
        (resource.RLIMIT_NPROC, processes),
    ):
        if most is not None:
            resource.setrlimit(what, (most, most))


def _drop_privileges() -> None:
    checked(_libc.capset(struct.pack("=II", 0x20080522, 0), bytes(24)), "giving up capabilities")
    checked(_libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0), "giving up new privileges")


def _build_root() -> None:
    """Make a root that holds the libraries, read-only, and a few devices, and leave the old one."""
    root = "/proc"  # a directory that is there everywhere and is not needed any more
    _mount(None, "/", None, _REC | _PRIVATE, None)
    paths, devices = library_paths(), [path for path in _DEVICES if os.path.exists(path)]
    _mount("tmpfs", root, "tmpfs", _NOSUID | _NODEV, "size=1m,mode=755")
    for path in (SCRATCH, "/dev"):
        os.makedirs(root + path, exist_ok=True)
    for path in sorted(paths) + devices:
        _show(path, root)
    for path in paths:
        for name in ("site-packages", "dist-packages"):
            for place in (f"{path}/{name}", f"{path}/python3/{name}", f"{path}/python{sys.version_info[0]}.{sys.version_info[1]}/{name}"):
                if os.path.isdir(root + os.path.realpath(place)):
                    _mount("tmpfs", root + os.path.realpath(place), "tmpfs", _NOSUID | _NODEV, "size=4k,mode=755")
    with contextlib.suppress(FileExistsError):
        os.symlink(SCRATCH, root + "/tmp")
    os.chdir(root)
    checked(_libc.syscall(_PIVOT_ROOT, b".", b"."), "changing the root")
    checked(_libc.umount2(b".", 2), "leaving the old root")
    os.chdir("/")
    _attributes("/", _READ_ONLY, recursive=False)


_PIVOT_ROOT = 155 if os.uname().machine == "x86_64" else 41


def _show(path: str, root: str) -> None:
    place = root + path
    if os.path.lexists(place):
        return  # lies below one that is shown already
    os.makedirs(os.path.dirname(place), exist_ok=True)
    if os.path.islink(path):
        os.symlink(os.readlink(path), place)
        _show(os.path.realpath(path), root)
        return
    if os.path.isdir(path):
        os.mkdir(place)
    else:
        os.close(os.open(place, os.O_CREAT | os.O_WRONLY))
    _mount(path, place, None, _BIND | _REC, None)
    _attributes(place, _ATTR_NOSUID if path in _DEVICES else _READ_ONLY | _ATTR_NOSUID | _ATTR_NODEV, recursive=True)


def _mount(source: str | None, target: str, kind: str | None, flags: int, data: str | None) -> None:
    texts = [None if text is None else text.encode() for text in (source, target, kind, data)]
    checked(_libc.mount(texts[0], texts[1], texts[2], ctypes.c_ulong(flags), texts[3]), f"mounting {target}")


def _attributes(path: str, attributes: int, recursive: bool) -> None:
    wanted = struct.pack("QQQQ", attributes, 0, 0, 0)
    flags = _RECURSIVE if recursive else 0
    checked(_libc.syscall(442, -100, path.encode(), flags, wanted, ctypes.c_size_t(len(wanted))), f"making {path} read-only")
