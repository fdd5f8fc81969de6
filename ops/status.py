"""`make status` and `make top`: uWSGI's workers and the queues in front of them, as a table or as JSON."""

from __future__ import annotations

import itertools
import json
import re
import sys
import time
from collections import Counter
from typing import Any

from ops import backup, certificate, stack, state
from ops.console import Stop
from ops.stack import Container

# uwsgi prints the document to stderr. Memory comes from the kernel: uWSGI's own figure would cost a read
# of /proc at every request (memory-report). Pss counts what workers share once.
ASK = (
    "uwsgi --connect-and-read /run/uwsgi/stats.sock 2>&1; "
    'cd /proc && for p in [0-9]*; do echo "pss $p $(grep -s ^Pss: $p/smaps_rollup)"; done'
)
PSS = re.compile(r"^pss (\d+) Pss:\s+(\d+) kB$", re.MULTILINE)
HEAD = ("container", "health", "worker", "state", "requests", "exceptions", "memory", "since")
UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))
EVERY_SECONDS = 1.0
# For a terminal: clear it once; then to the upper left corner, clear each line's end and all below
CLEAR, HOME, END_OF_LINE, BELOW = "\x1b[2J", "\x1b[H", "\x1b[K\n", "\x1b[J"


def status(as_json: bool) -> None:
    """Print the state of the stack. Raises Stop if no uwsgi container runs."""
    document = gather()
    print(json.dumps(document, indent=2) if as_json else table(document))


def top(times: int | None = None) -> None:
    """Print the table every second until Ctrl-C, or so many times. Raises Stop if no uwsgi container runs."""
    terminal = sys.stdout.isatty()
    before, began = gather(), time.monotonic()
    if terminal:
        print(CLEAR, end="")
    for number in itertools.count(1):
        time.sleep(EVERY_SECONDS)
        now, ended = gather(), time.monotonic()
        rate = (answered(now) - answered(before)).total() / (ended - began)
        text = f"{time.strftime('%T')}   {rate:.0f} requests/s   Ctrl-C ends\n\n{table(now)}"
        print(HOME + text.replace("\n", END_OF_LINE) + BELOW if terminal else text, flush=True)
        if number == times:
            return
        before, began = now, ended


def answered(document: dict[str, Any]) -> Counter[tuple[str, int]]:
    """Return how many requests each worker process has answered."""
    return Counter(
        {
            (container["name"], worker["pid"]): worker["requests"]
            for container in document["containers"]
            for worker in container["stats"]["workers"]
        }
    )


def gather() -> dict[str, Any]:
    """Return the state of the stack. Raises Stop if no uwsgi container runs."""
    return {
        "transport": stack.transport_of(state.current_files()),
        # Connections that nginx has not accepted yet, and requests that no worker has
        "port": queue("nginx-socket"),
        "queue": queue("uwsgi-socket"),
        # With overrides/tls.yaml
        "certificate": certificate.status(),
        "backup": backup.last() or None,
        "containers": [container_state(container) for container in stack.workers()],
    }


def queue(service: str) -> dict[str, Any] | None:
    """Return where a service that holds a socket is bound and how full its queue is, None if it does not run."""
    for container in stack.containers(service):
        if container.running:
            return dict(json.loads(stack.docker("exec", container.id, "healthcheck.py")))
    return None


def container_state(container: Container) -> dict[str, Any]:
    """Return a container's stats document, with the memory of each worker in kB (PSS) added."""
    output = stack.docker("exec", container.id, "sh", "-c", ASK)
    try:
        stats, _ = json.JSONDecoder().raw_decode(output)
    except ValueError as problem:
        name = container.name
        raise Stop(f"{name}: no answer from its stats server: {output[:200]}. Its log: docker logs {name}") from problem
    memory = {int(pid): int(kilobytes) for pid, kilobytes in PSS.findall(output)}
    for worker in stats["workers"]:
        worker["pss_kB"] = memory.get(worker["pid"], 0)
    fields = ("name", "health", "started", "image")
    return {**{field: getattr(container, field) for field in fields}, "stats": stats}


def table(document: dict[str, Any]) -> str:
    """Return the document as lines a person can read."""
    containers = document["containers"]
    versions = sorted({container["stats"]["version"] for container in containers})
    rows = [HEAD, *(row(container, worker) for container in containers for worker in container["stats"]["workers"])]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, cells, widths)).rstrip() for cells in rows]
    return "\n".join(
        [
            f"transport  {document['transport']}",
            f"port       {waiting(document['port'], 'nginx-socket')}",
            f"queue      {waiting(document['queue'], 'uwsgi-socket')}",
            *([f"TLS        {certificate.line(tls, time.time())}"] if (tls := document["certificate"]) else []),
            f"uWSGI      {', '.join(versions)}",
            f"backup     {last_backup(document['backup'])}",
            "",
            *lines,
        ]
    )


def waiting(queue: dict[str, Any] | None, service: str) -> str:
    """Return in words how full the queue of a service is."""
    return (
        f"{queue['address']}, {queue['waiting']} of {queue['most']} waiting" if queue else f"{service} is not running"
    )


def last_backup(known: dict[str, Any] | None) -> str:
    """Return in words how the last backup went, and when the last good one was."""
    if not known:
        return "none (make backup)"
    good = f"good: {since(int(known['good']))}" if "good" in known else "none is good"
    return good if known["result"] == "good" else f"{known['result']}: {since(int(known['tried']))}; {good}"


def row(container: dict[str, Any], worker: dict[str, Any]) -> tuple[str, ...]:
    """Return the cells of one worker."""
    counts = (str(worker["requests"]), str(worker["exceptions"]), f"{worker['pss_kB'] / 1024:.0f} MB")
    name, health = container["name"], container["health"]
    return (name, health, str(worker["id"]), worker["status"], *counts, since(worker["last_spawn"]))


def since(moment: int) -> str:
    """Return a moment (seconds since 1970) as local time and how long ago it was."""
    seconds = max(0, int(time.time()) - moment)
    size, unit = next((size, unit) for size, unit in UNITS if seconds >= size or size == 1)
    return f"{time.strftime('%F %T', time.localtime(moment))} ({seconds // size} {unit})"
