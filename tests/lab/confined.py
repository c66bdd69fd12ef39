#!/usr/bin/python3
"""Tries what udsd's units take away from a program, and says in one line what it was permitted, as
"inet namespaces"; nothing where it is confined. What needs privileges in any case is not tried."""

import ctypes
import mmap
import os
import socket
import tempfile

libc = ctypes.CDLL(None, use_errno=True)
CLONE_NEWUSER, ADDR_NO_RANDOMIZE, PR_GET_NO_NEW_PRIVS = 0x10000000, 0x0040000, 39


def checked(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), "refused")
    return result


def privileges():
    if libc.prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0):
        raise OSError("none to gain")


def open_files():
    if os.umask(0o077) == 0o077:
        raise OSError("closed already")


def code():
    mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)


with tempfile.NamedTemporaryFile() as file:
    attempts = {
        "privileges": privileges,
        "open-files": open_files,
        "inet": lambda: socket.socket(socket.AF_INET).close(),
        "netlink": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).close(),
        "priority": lambda: os.nice(1),
        "code": code,
        "suid": lambda: os.chmod(file.name, 0o4700),
        "chown": lambda: os.chown(file.name, os.getuid(), os.getgid()),
        "personality": lambda: checked(libc.personality(ADDR_NO_RANDOMIZE)),
        # Last: it changes who this is.
        "namespaces": lambda: checked(libc.unshare(CLONE_NEWUSER)),
    }
    permitted = []
    for name, attempt in attempts.items():
        try:
            attempt()
            permitted.append(name)
        except OSError:
            pass
    print(*permitted)
