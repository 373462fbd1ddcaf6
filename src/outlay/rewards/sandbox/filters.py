"""What a confined process may still ask of the kernel: a system-call filter (seccomp) and, where there are no namespaces, Landlock.

Standard library alone: the keeper runs this outside of the package.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Iterable, Sequence

_libc = ctypes.CDLL(None, use_errno=True)

#: number of a system call on (x86_64, aarch64); -1 where the machine lacks it
_NUMBERS: dict[str, tuple[int, int]] = {
    # other programs, other users' and other processes' affairs
    "execve": (59, 221), "execveat": (322, 281), "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "kcmp": (312, 272), "pidfd_open": (434, 434), "pidfd_getfd": (438, 438), "process_madvise": (440, 440), "process_mrelease": (448, 448),
    "setpriority": (141, 140), "ioprio_set": (251, 30), "sched_setaffinity": (203, 122), "sched_setscheduler": (144, 119),
    "sched_setparam": (142, 118), "sched_setattr": (314, 274), "migrate_pages": (256, 238), "move_pages": (279, 239), "syslog": (103, 116),
    # memory and objects that no limit of a process counts
    "memfd_create": (319, 279), "memfd_secret": (447, 447), "shmget": (29, 194), "shmat": (30, 196), "shmctl": (31, 195), "semget": (64, 190),
    "semctl": (66, 191), "semop": (65, 193), "msgget": (68, 186), "msgctl": (71, 187), "msgsnd": (69, 189), "msgrcv": (70, 188),
    "mq_open": (240, 180), "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219),
    # the network, and large interfaces that only widen the kernel's surface
    "socket": (41, 198), "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282), "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426), "io_uring_register": (427, 427), "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265),
    # namespaces and mounts
    "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51),
    "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430), "fsconfig": (431, 431), "fsmount": (432, 432),
    "fspick": (433, 433), "mount_setattr": (442, 442),
}  # fmt: skip

#: further ones for a process that shares the machine's processes and files with everybody: Landlock does not cover these
_ALONE: dict[str, tuple[int, int]] = {
    "fork": (57, -1), "vfork": (58, -1), "tkill": (200, 130), "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240),
    "pidfd_send_signal": (424, 424), "chmod": (90, -1), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452),
    "chown": (92, -1), "fchown": (93, 55), "lchown": (94, -1), "fchownat": (260, 54), "utime": (132, -1), "utimes": (235, -1),
    "futimesat": (261, -1), "utimensat": (280, 88), "truncate": (76, 45), "setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7),
    "removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16), "setxattrat": (463, 463), "removexattrat": (466, 466),
}  # fmt: skip

_CLONE, _CLONE3, _KILL, _TGKILL = (56, 220), (435, 435), (62, 129), (234, 131)
_PRCTL, _FCNTL, _IOCTL, _PRLIMIT = (157, 167), (72, 25), (16, 29), (302, 261)
_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}

_NEW_NAMESPACES, _CLONE_THREAD = 0x7E020000, 0x00010000
_PDEATHSIG = 1
_SETTING_OWNERS = (8, 10, 15)  # F_SETOWN, F_SETSIG, F_SETOWN_EX: signals sent by way of a pipe
_IOCTL_OWNERS = (0x8901, 0x8902, 0x5412)  # FIOSETOWN, SIOCSPGRP, TIOCSTI

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL_PROCESS, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000

Step = tuple[int, int, int, int]


def supported() -> str:
    """Return why no filter can be made on this machine; empty where it can."""
    machine = platform.machine()
    return "" if machine in _MACHINES else f"system-call numbers are known for {' and '.join(_MACHINES)}, and this machine is {machine}"


def filter_program(machine: str, alone: int | None) -> list[Step]:
    """Return the filter's instructions: everything is allowed but what is listed here.

    Args:
        machine: ``x86_64`` or ``aarch64``.
        alone: None in a namespace of its own; else the process's id: it starts no process, and signals no other.
    """
    column, architecture = _MACHINES[machine]
    refuse = (_RETURN, 0, 0, _ERRNO | errno.EPERM)
    steps: list[Step] = [(_LOAD, 0, 0, 4), (_EQUAL, 1, 0, architecture), (_RETURN, 0, 0, _KILL_PROCESS), (_LOAD, 0, 0, 0)]
    if machine == "x86_64":
        steps += [(_AT_LEAST, 0, 1, 0x40000000), refuse]  # the x32 calls are the same ones by other numbers

    def when(number: int, argument: int, tests: Iterable[Step]) -> None:
        block = [(_LOAD, 0, 0, 16 + 8 * argument), *tests, (_LOAD, 0, 0, 0)]
        steps.extend([(_EQUAL, 0, len(block), number), *block])

    for numbers in [*_NUMBERS.values(), *(_ALONE.values() if alone is not None else ())]:
        if numbers[column] >= 0:
            steps += [(_EQUAL, 0, 1, numbers[column]), refuse]
    # its flags lie in memory, where a filter cannot read; the C library then falls back on clone
    steps += [(_EQUAL, 0, 1, _CLONE3[column]), (_RETURN, 0, 0, _ERRNO | errno.ENOSYS)]
    when(_CLONE[column], 0, [(_ANY_BIT, 0, 1, _NEW_NAMESPACES), refuse])
    when(_PRCTL[column], 0, [(_EQUAL, 0, 1, _PDEATHSIG), refuse])
    when(_PRLIMIT[column], 0, [(_EQUAL, 1, 0, 0), refuse])
    for value in _SETTING_OWNERS:
        when(_FCNTL[column], 1, [(_EQUAL, 0, 1, value), refuse])
    for value in _IOCTL_OWNERS:
        when(_IOCTL[column], 1, [(_EQUAL, 0, 1, value), refuse])
    if alone is not None:
        when(_CLONE[column], 0, [(_ANY_BIT, 1, 0, _CLONE_THREAD), refuse])
        when(_KILL[column], 0, [(_EQUAL, 1, 0, alone), refuse])
        when(_TGKILL[column], 0, [(_EQUAL, 1, 0, alone), refuse])
    return [*steps, (_RETURN, 0, 0, _ALLOW)]


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("steps", ctypes.c_char_p))


def install(alone: bool) -> None:
    """Put this process and all that it starts under the filter, for good. It must have given up new privileges before."""
    steps = filter_program(platform.machine(), os.getpid() if alone else None)
    packed = b"".join(struct.pack("HBBI", *step) for step in steps)
    checked(_libc.prctl(22, 2, ctypes.byref(_Program(len(steps), packed)), 0, 0), "the system-call filter")


def landlock_version() -> int:
    """Return the kernel's Landlock version, 0 where there is none."""
    return max(0, int(_libc.syscall(444, None, ctypes.c_size_t(0), 1)))


def read_only(paths: Sequence[str]) -> None:
    """Leave this process and all that it starts nothing of the file system but reading below ``paths`` (Landlock), for good."""
    version = landlock_version()
    handled = (1 << (13 if version == 1 else 14 if version == 2 else 15 if version < 5 else 16)) - 1
    size = 8 if version < 4 else 16 if version < 6 else 24
    rules = struct.pack("QQQ", handled, 3, 3)[:size]  # files; binding and connecting; abstract sockets and signals
    ruleset = checked(_libc.syscall(444, rules, ctypes.c_size_t(size), 0), "Landlock")
    for path in paths:
        if os.path.exists(path):
            place = os.open(path, os.O_PATH)
            reading = 0b1100 if os.path.isdir(path) else 0b0100
            writing = 0b0010 if path == os.devnull else 0
            checked(_libc.syscall(445, ruleset, 1, struct.pack("=Qi", reading | writing, place), 0), f"Landlock's rule of {path}")
            os.close(place)
    checked(_libc.syscall(446, ruleset, 0), "Landlock's restriction")
    os.close(ruleset)


def checked(result: int, what: str) -> int:
    """Return a system call's result, or raise ``OSError`` naming what failed."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result
