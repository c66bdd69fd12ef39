#!/usr/bin/env python3
"""Leaves a damaged state in the service manager's descriptor store, as a udsd that ended would have
left a whole one. Run as ExecStartPre= of udsd.service with NotifyAccess=all; /run/lab-damage says how
the state is damaged: "cut N", "flip N" (bit N), "version N", or "whole".
"""

import array
import fcntl
import os
import socket

MASK = (1 << 64) - 1


def checksum(body):
    total = 0xCBF29CE484222325
    # As udsd makes it: words of 8 bytes, the rest filled up, the length.
    padded = body + bytes(8 - len(body) % 8)
    words = [int.from_bytes(padded[at : at + 8], "little") for at in range(0, len(padded), 8)]
    for word in [*words, len(body)]:
        total = ((total ^ word) * 0x100000001B3) & MASK
        total ^= total >> 32
    return total


def state():
    body = (
        b'{"config":"[socket.udsd]\\npath = \\"/run/udsd.sock\\"\\n","ids":3,'
        b'"sockets":[{"name":"udsd"}],"clients":[],"starved":[]}[]'
    )
    return b"udsd-state 0001 %016x\n" % checksum(body) + body


def damaged(how, number):
    whole = state()
    if how == "cut":
        return whole[: int(number) % len(whole)]
    if how == "flip":
        bit = int(number) % (8 * len(whole))
        byte = whole[bit // 8] ^ 1 << bit % 8
        return whole[: bit // 8] + bytes([byte]) + whole[bit // 8 + 1 :]
    if how == "version":
        return whole.replace(b" 0001 ", b" %04d " % int(number), 1)
    return whole


def tell(text, descriptor):
    address = os.environ["NOTIFY_SOCKET"]
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.connect(address)
        socket.send_fds(manager, [text.encode()], [descriptor])


def main():
    with open("/run/lab-damage", encoding="ascii") as file:
        how, _, number = file.read().strip().partition(" ")
    far, near = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    memory = os.memfd_create("udsd-state", os.MFD_ALLOW_SEALING)
    os.write(memory, damaged(how, number))
    fcntl.fcntl(memory, fcntl.F_ADD_SEALS, 0xF)
    first = array.array("i", [far.fileno(), memory])
    far.sendmsg([b"udsd"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, first)])
    ours, theirs = socket.socketpair()
    more = array.array("i", [theirs.fileno()])
    far.sendmsg([b"fd"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, more)])
    tell("FDSTORE=1\nFDPOLL=0\nFDNAME=udsd.parked", near.fileno())
    reading, writing = os.pipe()
    tell("BARRIER=1", writing)
    os.close(writing)
    os.read(reading, 1)
    ours.close()


main()
