#!/usr/bin/python3
"""A client for the checks of tests/lab/checks.sh: does one thing, says what came of it in one line.

    echo PATH [TEXT]   sends TEXT with a line feed and waits for it to come back
    owe PATH BYTES     sends BYTES, waits until udsd has read them all, says "sent"; then, told so by
                       a line on standard input, reads until the end
    flood PATH         sends until neither udsd nor the kernel takes more, says "sent N"; then as owe
    half PATH          sends half a line, waits until udsd has read it, says "sent"; reads until the end
    send PATH          sends standard input, closes its writing side, reads until the end
    packet PATH OWN    sends a datagram from a socket file OWN, open to all, and waits for its echo
    datagrams PATH     connects a datagram socket once, says "connected"; sends each line of standard input,
                       and says that it "sent" it or what the kernel said
    relay PATH [TYPE]  two clients of a relay, stream or seqpacket, speak to each other in lines; says what
                       the first heard
    knock PATH         connects, says a word, hears it and leaves, over and over, until told to stop by a
                       line on standard input; says how often, and how often the answer never came
    keep PATH PACKETS COUNT   COUNT clients of an echo socket of lines and COUNT of one of seqpackets, each
                       with an answer it has not read and a line it has not ended, say "talking"; then,
                       told so by a line on standard input, go on, and hear each byte, and the end
    stay NAME=PATH...  a client of each echo socket, which are of lines or, where PATH ends in "packets", of
                       seqpackets; each with an answer it has not read and a line it has not ended: "here".
                       Told so by a line on standard input, they go on and begin anew; it says of each who
                       was left that it "goes on" or "got what it was owed"
    visit PATH [SPAN]  as knock, but goes on where it is refused; says also how often that was, and how long
                       the longest visit took. With a pause of up to SPAN ms between two visits

The last line tells how it ended: "end of file after N bytes", which were compared with what it sent,
or the kernel's words, as "Connection reset by peer after N bytes" or "connect: Permission denied", or
"timed out". Exit code 0 for end of file or an answer.
"""

import os
import random
import select
import signal
import socket
import struct
import sys
import termios
import time
from fcntl import ioctl

PATIENCE = 20  # seconds: above every wait of the checks, so that those report what was missing


def say(text):
    print(text, flush=True)


def pattern(size):
    """Bytes of which no part is like another, in lines of 16."""
    return b"".join(b"%015d\n" % n for n in range(size // 16 + 1))[:size]


def connect(path):
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        client.connect(path)
    except OSError as error:
        say(f"connect: {error.strerror}")
        sys.exit(1)
    return client


def wait_until_read(client):
    """What udsd has not read yet counts against this end's send buffer."""
    poll = select.poll()
    while struct.unpack("i", ioctl(client, termios.TIOCOUTQ, b"\0" * 4))[0]:
        poll.poll(10)


def read_to_end(client, sent=None):
    got = bytearray()
    try:
        while chunk := client.recv(65536):
            got += chunk
    except OSError as error:
        say(f"{error.strerror} after {len(got)} bytes")
        sys.exit(1)
    if sent is not None and not sent.startswith(got):
        say(f"garbled within {len(got)} bytes")
        sys.exit(1)
    say(f"end of file after {len(got)} bytes")


def echo(path, text="hello"):
    client = connect(path)
    line = text.encode() + b"\n"
    client.sendall(line)
    got = b""
    while len(got) < len(line):
        chunk = client.recv(65536)
        if not chunk:
            say(f"end of file after {len(got)} bytes")
            sys.exit(1)
        got += chunk
    say(got.decode().rstrip("\n"))


def owe(path, size):
    client, data = connect(path), pattern(int(size))
    client.sendall(data)
    wait_until_read(client)
    say("sent")
    sys.stdin.readline()
    read_to_end(client, data)


def flood(path):
    client, data, sent = connect(path), pattern(64 << 20), 0
    client.setblocking(False)
    poll = select.poll()
    poll.register(client, select.POLLOUT)
    while poll.poll(300):  # writable no more: udsd's queue is full and it has stopped reading
        sent += client.send(data[sent : sent + 65536])
    client.setblocking(True)
    say(f"sent {sent}")
    sys.stdin.readline()
    read_to_end(client, data)


def half(path):
    client = connect(path)
    client.sendall(b"half a li")
    wait_until_read(client)
    say("sent")
    read_to_end(client)


def send(path):
    client = connect(path)
    client.sendall(sys.stdin.buffer.read())
    client.shutdown(socket.SHUT_WR)
    read_to_end(client)


def packet(path, own):
    client = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    os.umask(0)
    client.bind(own)
    try:
        client.sendto(b"hello", path)
        say(client.recv(100).decode())
    finally:
        os.unlink(own)


def datagrams(path):
    client = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    client.connect(path)
    say("connected")
    for line in sys.stdin:
        try:
            client.send(line.rstrip("\n").encode())
            say("sent")
        except OSError as error:
            say(error.strerror)


def relay(path, kind="stream"):
    kind = {"stream": socket.SOCK_STREAM, "seqpacket": socket.SOCK_SEQPACKET}[kind]
    first, second = socket.socket(socket.AF_UNIX, kind), socket.socket(socket.AF_UNIX, kind)
    first.connect(path)
    second.connect(path)
    # Whoever was heard is a member; until then what it is told may come before it.
    while not select.select([second], [], [], 0.05)[0]:
        first.sendall(b"are you there\n")
    second.sendall(b"from the second\n")
    say(first.recv(65536).decode().rstrip("\n"))


def knock(path):
    times = cut_off = 0
    while not select.select([sys.stdin], [], [], 0)[0]:
        client = connect(path)
        word = b"%d\n" % times
        try:
            client.sendall(word)
            heard = client.recv(100)
        except OSError:
            heard = b""
        if heard not in (word, b""):
            say(f"garbled at knock {times}")
            sys.exit(1)
        cut_off += not heard
        client.close()
        times += 1
        if times == 1:
            say("knocking")
    say(f"knocked {times} times, cut off {cut_off} times")


def keep(path, packets, count):
    clients = []
    for place, kind in ((path, socket.SOCK_STREAM), (packets, socket.SOCK_SEQPACKET)):
        for n in range(int(count)):
            client = socket.socket(socket.AF_UNIX, kind)
            client.connect(place)
            words = [b"%d heard\n" % n, b"%d not read\n" % n, b"%d half a " % n, b"line\n"]
            if kind == socket.SOCK_SEQPACKET:
                words[2:] = [b"".join(words[2:])]
            for word in words[:-1]:
                client.sendall(word)
            while (heard := client.recv(len(words[0]), socket.MSG_PEEK)) != words[0]:
                if not words[0].startswith(heard) or not heard:
                    raise OSError(0, f"{n} heard {heard} at first")
            client.recv(len(words[0]))
            clients.append((client, words))
    say("talking")
    sys.stdin.readline()
    for client, words in clients:
        client.sendall(words[-1])
        client.shutdown(socket.SHUT_WR)
    for client, words in clients:
        heard = b""
        while chunk := client.recv(65536):
            heard += chunk
        if heard != b"".join(words[1:]):
            say(f"in place of {words[1:]}: {heard}")
            sys.exit(1)
    say(f"kept {len(clients)}")


class Staying:
    """A client in the middle of everything."""

    def __init__(self, place):
        self.name, path = place.split("=", 1)
        self.packets = path.endswith("packets")
        self.client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET if self.packets else socket.SOCK_STREAM)
        self.client.connect(path)
        self.begin()

    def begin(self):
        self.client.sendall(b"not read\n")
        if not self.packets:
            self.client.sendall(b"half a ")
            wait_until_read(self.client)
        select.select([self.client], [], [])

    def hear(self, wanted):
        """What comes, up to the length of what is wanted; the end may come before."""
        heard = b""
        while len(heard) < len(wanted) and (chunk := self.client.recv(len(wanted) - len(heard))):
            heard += chunk
        if heard not in (wanted, b""):
            raise OSError(0, f"{self.name} heard {heard} in place of {wanted}")
        return bool(heard)

    def go_on(self):
        """Whether it can; else it has had its answer, and the end."""
        if not self.hear(b"not read\n"):
            raise OSError(0, f"{self.name} did not get what it was owed")
        try:
            self.client.sendall(b"line\n")
        except BrokenPipeError:
            pass
        return self.hear(b"line\n" if self.packets else b"half a line\n")


def stay(*places):
    clients = [Staying(place) for place in places]
    say("here")
    while clients and sys.stdin.readline():
        going_on = [client.go_on() for client in clients]
        said = [f"{client.name} {'goes on' if on else 'got what it was owed'}" for client, on in zip(clients, going_on)]
        clients = [client for client, on in zip(clients, going_on) if on]
        for client in clients:
            client.begin()
        say(", ".join(said))


def visit(path, span=0):
    times = refused = cut_off = longest = 0
    while not select.select([sys.stdin], [], [], random.uniform(0, int(span)) / 1000)[0]:
        begun = time.monotonic()
        word = b"%d\n" % times
        times += 1
        heard = b""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            try:
                client.connect(path)
            except (ConnectionRefusedError, FileNotFoundError):
                refused += 1
                continue
            try:
                client.sendall(word)
                heard = client.recv(100)
            except (ConnectionResetError, BrokenPipeError):
                pass
        if heard not in (word, b""):
            raise OSError(0, f"garbled at visit {times}")
        cut_off += not heard
        longest = max(longest, time.monotonic() - begun)
        if times == 1:
            say("visiting")
    say(f"visited {times} times, refused {refused} times, cut off {cut_off} times, longest {longest * 1000:.0f} ms")


def out_of_patience(*_):
    say("timed out")
    sys.exit(1)


signal.signal(signal.SIGALRM, out_of_patience)
signal.alarm(PATIENCE)
try:
    {
        "echo": echo,
        "owe": owe,
        "flood": flood,
        "half": half,
        "send": send,
        "packet": packet,
        "datagrams": datagrams,
        "relay": relay,
        "knock": knock,
        "keep": keep,
        "stay": stay,
        "visit": visit,
    }[sys.argv[1]](*sys.argv[2:])
except OSError as error:
    say(error.strerror)
    sys.exit(1)
