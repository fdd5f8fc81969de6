"""The state of one uwsgi container: its workers, and how long requests wait for them."""

import os
import re
import socket
import struct
import time
from pathlib import Path
from typing import TypedDict

from django.http import HttpRequest

try:
    import uwsgi
except ImportError:  # it exists only inside a uWSGI worker, not under manage.py
    uwsgi = None

STARTED = re.compile(r"t=(\d+\.\d+)")
# Offset in struct tcp_info; for a listening socket: connections waiting (linux/net/ipv4/tcp.c, tcp_get_info)
TCP_INFO_UNACKED = 24
PSS = re.compile(r"^Pss:\s+(\d+) kB", re.MULTILINE)


class Worker(TypedDict):
    """One worker. `memory_mb` counts shared pages once (PSS); `average_ms` gives recent requests more weight."""

    id: int
    status: str
    requests: int
    exceptions: int
    memory_mb: float
    average_ms: float
    since_s: int


class State(TypedDict):
    """The container that answered. `waited_ms`: from nginx to Django; `waiting`: connections in the queue, if known."""

    container: str
    workers: list[Worker]
    waited_ms: float | None
    waiting: int | None


def state(request: HttpRequest) -> State:
    """Return the state of the container that handles this request."""
    return {
        "container": socket.gethostname(),
        "workers": [worker(told) for told in uwsgi.workers()] if uwsgi else [],
        "waited_ms": waited_ms(request.META.get("HTTP_X_REQUEST_START", "")),
        "waiting": waiting(uwsgi.sockets) if uwsgi else None,
    }


def waiting(sockets: list[int]) -> int | None:
    """Return how many connections wait to be accepted on a worker's TCP socket.

    None for a Unix socket: only its owner can read that, and `make status` does. uwsgi.listen_queue() reads a
    number that only uWSGI's master keeps; it is 0 in every worker.
    """
    for descriptor in sockets:
        with socket.socket(fileno=os.dup(descriptor)) as one:
            if one.family in (socket.AF_INET, socket.AF_INET6):
                told = one.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 64)
                return int(struct.unpack_from("=I", told, TCP_INFO_UNACKED)[0])
    return None


def waited_ms(started: str) -> float | None:
    """Return the milliseconds since nginx had received the whole request; None without nginx."""
    found = STARTED.fullmatch(started)
    return round(max(0.0, time.time() - float(found[1])) * 1000, 1) if found else None


def worker(told: dict[str, int | bytes]) -> Worker:
    """Return what uWSGI reports about a worker, in the units of the page."""
    return {
        "id": int(told["id"]),
        "status": bytes(told["status"]).decode(),
        "requests": int(told["requests"]),
        "exceptions": int(told["exceptions"]),
        "memory_mb": memory_mb(int(told["pid"])),
        "average_ms": round(int(told["avg_rt"]) / 1000, 1),
        "since_s": max(0, int(time.time()) - int(told["last_spawn"])),
    }


def memory_mb(pid: int) -> float:
    """Return a process's share of memory (PSS); 0 if it has exited or cannot be read."""
    try:
        found = PSS.search(Path(f"/proc/{pid}/smaps_rollup").read_text())
    except OSError:
        return 0.0
    return round(int(found[1]) / 1024, 1) if found else 0.0
