#!/usr/bin/python3 -SEs
"""Health check of nginx-socket and uwsgi-socket, and the length of their queue: gets the socket from the pool.

Prints one JSON line: where the socket is bound, how many connections wait in it and how many may. Of nginx-socket's
two, over https, both addresses, and all that wait.
uWSGI's stats do not include the queue of a Unix socket.
"""

import json
import os
import socket
import struct
import sys
from pathlib import Path

# uwsgi-socket's pool has the name of the transport (sockets/transports/).
POOL = Path("/run/pool", f"{os.environ.get('TRANSPORT', 'nginx')}.sock")
# nginx-socket's: http and https
MOST_SOCKETS = 2
SECONDS = 3
TCP_INFO_UNACKED = 24  # offset in struct tcp_info; for a listening socket: connections waiting to be accepted
TCP_INFO_SACKED = 28  # ... and the limit (linux/net/ipv4/tcp.c, tcp_get_info)
NETLINK_SOCK_DIAG = 4
SOCK_DIAG_BY_FAMILY = 20
NLM_F_REQUEST = 1
UDIAG_SHOW_RQLEN = 0x10
UNIX_DIAG_RQLEN = 4


def listening_sockets() -> list[socket.socket]:
    """Return the sockets that the pool hands out. Raises OSError if there is none, or if one does not listen."""
    with socket.socket(socket.AF_UNIX) as pool:
        pool.settimeout(SECONDS)
        pool.connect(str(POOL))
        _, descriptors, _, _ = socket.recv_fds(pool, 14, MOST_SOCKETS)
    if not descriptors:
        raise OSError("the pool handed out no socket")
    handed = [socket.socket(fileno=descriptor) for descriptor in descriptors]
    if not all(one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) for one in handed):
        raise OSError("a socket of the pool does not listen")
    return handed


def tcp_queue(listening: socket.socket) -> tuple[int, int]:
    """Return how many connections wait in a TCP socket, and the limit."""
    info = listening.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 64)
    waiting, most = struct.unpack_from("=I", info, TCP_INFO_UNACKED) + struct.unpack_from("=I", info, TCP_INFO_SACKED)
    return waiting, most


def unix_queue(listening: socket.socket) -> tuple[int, int]:
    """Return the same for a Unix socket; only the kernel's socket diagnosis interface reports it."""
    inode = os.fstat(listening.fileno()).st_ino
    any_cookie = 0xFFFFFFFF
    question = struct.pack(
        "=BBHIIIII", socket.AF_UNIX, 0, 0, 0xFFFFFFFF, inode, UDIAG_SHOW_RQLEN, any_cookie, any_cookie
    )
    head = struct.pack("=IHHII", 16 + len(question), SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST, 0, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG) as kernel:
        kernel.settimeout(SECONDS)
        kernel.send(head + question)
        answer = kernel.recv(4096)
    position = 32  # netlink header 16, struct unix_diag_msg 16
    while position + 4 <= len(answer):
        length, kind = struct.unpack_from("=HH", answer, position)
        if kind == UNIX_DIAG_RQLEN:
            waiting, most = struct.unpack_from("=II", answer, position + 4)
            return waiting, most
        position += max(4, (length + 3) & ~3)
    raise OSError("the kernel did not report the length of the queue")


def described(listening: socket.socket) -> tuple[str, int, int]:
    """Return the address of a socket, how many connections wait in it and how many may."""
    name = listening.getsockname()
    if listening.family == socket.AF_UNIX:
        return str(name), *unix_queue(listening)
    host = f"[{name[0]}]" if listening.family == socket.AF_INET6 else name[0]
    return f"{host}:{name[1]}", *tcp_queue(listening)


def report() -> dict[str, str | int]:
    """Return the addresses of the sockets and the state of their queues."""
    found = [described(listening) for listening in listening_sockets()]
    addresses, waiting, most = zip(*found, strict=True)
    return {"address": ", ".join(addresses), "waiting": sum(waiting), "most": min(most)}


if __name__ == "__main__":
    try:
        print(json.dumps(report()))
    except OSError as problem:
        sys.exit(f"the pool at {POOL} does not answer: {problem}")
