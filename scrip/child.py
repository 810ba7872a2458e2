"""Become a server program: drop root, ask to die with the parent, then exec.

A script, not a module: `python -I -S child.py PARENT DEATH_SIGNAL UID GID KEEP program…`, with the
standard library alone, so that it starts in a few milliseconds. It is a program of its own because
nothing may safely run between fork and exec in a process that has threads.
"""

import ctypes
import os
import sys

# <linux/prctl.h>, <linux/securebits.h>, <linux/capability.h>
PR_SET_PDEATHSIG = 1
PR_SET_SECUREBITS = 28
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
SECBIT_NO_SETUID_FIXUP = 1 << 2
CAP_DAC_OVERRIDE = 1
CAP_DAC_READ_SEARCH = 2
CAPABILITY_VERSION_3 = 0x20080522


class CapabilityHeader(ctypes.Structure):
    """`struct __user_cap_header_struct`."""

    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class CapabilityHalf(ctypes.Structure):
    """`struct __user_cap_data_struct`: 32 of the 64 capabilities."""

    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


def checked(answer: int) -> None:
    """Raise the OSError that a C call left in errno, if it failed."""
    if answer != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def drop_root(libc: ctypes.CDLL, uid: int, gid: int, *, keep_path_access: bool) -> None:
    """Become `uid`, keeping at most the right to pass folders that only root may enter.

    A checkout in /root is the usual case: PostgreSQL refuses to run as root, and nobody else gets
    through /root. Opening /root to all would change a folder that is not ours, so the child keeps
    CAP_DAC_READ_SEARCH and CAP_DAC_OVERRIDE (as far as this root has them) instead.
    """
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    if not keep_path_access:
        os.setresuid(uid, uid, uid)
        return
    checked(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    # Without this bit, access(2) ignores the capabilities of whoever is not root, and PostgreSQL
    # checks its own program file with access(2).
    checked(libc.prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP, 0, 0, 0))
    os.setresuid(uid, uid, uid)
    header = CapabilityHeader(version=CAPABILITY_VERSION_3, pid=0)
    halves = (CapabilityHalf * 2)()
    checked(libc.capget(ctypes.byref(header), halves))
    keep = halves[0].permitted & (1 << CAP_DAC_OVERRIDE | 1 << CAP_DAC_READ_SEARCH)
    halves[0] = CapabilityHalf(effective=keep, permitted=keep, inheritable=keep)
    halves[1] = CapabilityHalf()
    checked(libc.capset(ctypes.byref(header), halves))
    for capability in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH):
        if keep & (1 << capability):
            checked(libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0))


def main() -> None:
    """Do what the arguments say, and become the program."""
    parent, death_signal, uid, gid, keep = (int(word) for word in sys.argv[1:6])
    program = sys.argv[6:]
    libc = ctypes.CDLL(None, use_errno=True)
    if os.geteuid() == 0 and uid != 0:
        drop_root(libc, uid, gid, keep_path_access=bool(keep))
    if sys.platform == "linux":
        # Last, since a change of user clears it.
        checked(libc.prctl(PR_SET_PDEATHSIG, death_signal, 0, 0, 0))
        if os.getppid() != parent:
            sys.exit("the parent died first")
    os.execv(program[0], program)  # noqa: S606 - that is what this program is for


if __name__ == "__main__":
    main()
