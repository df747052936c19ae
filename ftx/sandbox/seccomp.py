"""System calls that no data analysis needs and that escapes are made of, refused by a seccomp filter.

Refused are: memory that no limit counts (System V shared memory, memfd), looking into other processes, kernel keys,
mounting and namespaces, kernel modules, io_uring, bpf and other large pieces of the kernel. So are sockets of all
families but UNIX, IP and netlink's routes: a network namespace does not hold every other one (VSOCK reaches the host of
a virtual machine).
"""

import errno
import platform
import socket
import struct
from dataclasses import dataclass

# linux/bpf_common.h, linux/seccomp.h, linux/audit.h and linux/prctl.h.
_LOAD_WORD, _IF_EQUAL, _IF_AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_ALLOW, _ERRNO, _KILL_PROCESS = 0x7FFF0000, 0x00050000, 0x80000000
_AT_NUMBER, _AT_ARCHITECTURE, _AT_FIRST_ARGUMENT, _AT_THIRD_ARGUMENT = 0, 4, 16, 32
_PR_SET_DUMPABLE = 4
_NETLINK_ROUTE = 0
_X32_NUMBERS = 0x40000000

_ALLOWED_FAMILIES = (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6)
_INSTRUCTION = struct.Struct("=HBBI")


@dataclass(frozen=True)
class _Machine:
    """A machine's audit number, and its numbers of system calls (asm/unistd.h)."""

    audit: int
    refused: dict[str, int]
    clone3: int
    socket: int
    prctl: int
    has_x32: bool


# Newer than the machines' own tables: one number everywhere.
_REFUSED_EVERYWHERE = {
    "io_uring_setup": 425,
    "io_uring_enter": 426,
    "io_uring_register": 427,
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsmount": 432,
    "fspick": 433,
    "pidfd_getfd": 438,
    "mount_setattr": 442,
    "memfd_secret": 447,
}
_REFUSED = (
    "shmget", "shmat", "shmctl", "semget", "msgget", "mq_open", "memfd_create", "ptrace", "process_vm_readv",
    "process_vm_writev", "kcmp", "add_key", "request_key", "keyctl", "bpf", "perf_event_open", "userfaultfd", "mount",
    "umount2", "pivot_root", "chroot", "unshare", "setns", "name_to_handle_at", "open_by_handle_at", "kexec_load",
    "kexec_file_load", "init_module", "finit_module", "delete_module", "acct", "quotactl", "swapon", "swapoff",
    "reboot", "syslog", "fanotify_init", "personality",
)  # fmt: skip
_X86_64 = (
    29, 30, 31, 64, 68, 240, 319, 101, 310, 311, 312, 248, 249, 250, 321, 298, 323, 165, 166, 155, 161, 272, 308,
    303, 304, 246, 320, 175, 313, 176, 163, 179, 167, 168, 169, 103, 300, 135,
)  # fmt: skip
_AARCH64 = (
    194, 196, 195, 190, 186, 180, 279, 117, 270, 271, 272, 217, 218, 219, 280, 241, 282, 40, 39, 41, 51, 97, 268,
    264, 265, 104, 294, 105, 273, 106, 89, 60, 224, 225, 142, 116, 262, 92,
)  # fmt: skip
_MACHINES = {
    "x86_64": _Machine(0xC000003E, dict(zip(_REFUSED, _X86_64, strict=True)), 435, 41, 157, has_x32=True),
    "aarch64": _Machine(0xC00000B7, dict(zip(_REFUSED, _AARCH64, strict=True)), 435, 198, 167, has_x32=False),
}


def seccomp_program(machine: str = platform.machine()) -> bytes:
    """The filter as bubblewrap's ``--seccomp`` reads it; raises ``KeyError`` for a machine that is not known."""
    known = _MACHINES[machine]
    program = [
        _load(_AT_ARCHITECTURE),
        _if(_IF_EQUAL, known.audit, skip=1),
        _return(_KILL_PROCESS),
        _load(_AT_NUMBER),
    ]
    if known.has_x32:
        program += [_unless(_IF_AT_LEAST, _X32_NUMBERS, skip=1), _error(errno.ENOSYS)]
    for number in (*known.refused.values(), *_REFUSED_EVERYWHERE.values()):
        program += [_unless(_IF_EQUAL, number, skip=1), _error(errno.EPERM)]
    # clone3's flags lie in memory, where no filter can look; without it, libraries fall back to clone.
    program += [_unless(_IF_EQUAL, known.clone3, skip=1), _error(errno.ENOSYS)]
    # The supervisor has to be able to see into what it watches.
    undumpable = [
        _load(_AT_FIRST_ARGUMENT),
        _unless(_IF_EQUAL, _PR_SET_DUMPABLE, skip=1),
        _error(errno.EPERM),
        _return(_ALLOW),
    ]
    program += [_unless(_IF_EQUAL, known.prctl, skip=len(undumpable)), *undumpable]
    # Which addresses there are is asked for through netlink's routes, before a socket is bound to the loopback.
    routes_only = [
        _unless(_IF_EQUAL, socket.AF_NETLINK, skip=2),
        _load(_AT_THIRD_ARGUMENT),
        _if(_IF_EQUAL, _NETLINK_ROUTE, skip=1),
        _error(errno.EAFNOSUPPORT),
        _return(_ALLOW),
    ]
    families = [
        _if(_IF_EQUAL, family, skip=len(_ALLOWED_FAMILIES) - at + len(routes_only) - 2)
        for at, family in enumerate(_ALLOWED_FAMILIES)
    ]
    sockets = [_load(_AT_FIRST_ARGUMENT), *families, *routes_only]
    program += [_unless(_IF_EQUAL, known.socket, skip=len(sockets)), *sockets, _return(_ALLOW)]
    return b"".join(program)


def _load(at: int) -> bytes:
    return _INSTRUCTION.pack(_LOAD_WORD, 0, 0, at)


def _if(compare: int, value: int, *, skip: int) -> bytes:
    """Where the loaded word compares so, leave out the next ``skip`` instructions."""
    return _INSTRUCTION.pack(compare, skip, 0, value)


def _unless(compare: int, value: int, *, skip: int) -> bytes:
    return _INSTRUCTION.pack(compare, 0, skip, value)


def _return(what: int) -> bytes:
    return _INSTRUCTION.pack(_RETURN, 0, 0, what)


def _error(number: int) -> bytes:
    return _return(_ERRNO | number)
