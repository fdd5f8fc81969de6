"""`make status`: what uWSGI's stats server and the queue of uwsgi-socket say, as a table or as JSON."""

from __future__ import annotations

import json
import re
import time
from typing import Any

from ops import stack
from ops.console import Stop
from ops.stack import Container

# uwsgi prints the document to stderr. Memory comes from the kernel: uWSGI's own figure would cost a read
# of /proc at every request (memory-report). Pss counts what workers share once.
ASK = (
    "uwsgi --connect-and-read /run/uwsgi/stats.sock 2>&1; "
    'cd /proc && for p in [0-9]*; do echo "pss $p $(grep -s ^Pss: $p/smaps_rollup)"; done'
)
PSS = re.compile(r"^pss (\d+) Pss:\s+(\d+) kB$", re.MULTILINE)


def status(as_json: bool) -> None:
    """Print the state of the stack. Raises Stop if no uwsgi container runs."""
    document = gather()
    print(json.dumps(document, indent=2) if as_json else table(document))


def gather() -> dict[str, Any]:
    """Return the state of the stack. Raises Stop if no uwsgi container runs."""
    return {
        "transport": stack.transport_of(stack.running_files() or []),
        "queue": queue(),
        "containers": [container(one) for one in stack.workers()],
    }


def queue() -> dict[str, Any] | None:
    """Return where uwsgi-socket is bound and how full its queue is, None if it does not run."""
    found = [one for one in stack.containers("uwsgi-socket") if one.running]
    return dict(json.loads(stack.docker("exec", found[0].id, "healthcheck.py"))) if found else None


def container(one: Container) -> dict[str, Any]:
    """Return a container's stats document, with the memory of each worker in kB (PSS) added."""
    told = stack.docker("exec", one.id, "sh", "-c", ASK)
    try:
        stats, _ = json.JSONDecoder().raw_decode(told)
    except ValueError as problem:
        raise Stop(
            f"{one.name}: the stats server does not answer: {told[:200]}. Its log: docker logs {one.name}"
        ) from problem
    memory = {int(pid): int(kilobytes) for pid, kilobytes in PSS.findall(told)}
    for worker in stats["workers"]:
        worker["pss_kB"] = memory.get(worker["pid"], 0)
    return {"name": one.name, "health": one.health, "started": one.started, "image": one.image, "stats": stats}


def table(document: dict[str, Any]) -> str:
    """Return the document as lines a person can read."""
    queue = document["queue"]
    said = (
        f"{queue['address']}, {queue['waiting']} of {queue['most']} waiting" if queue else "uwsgi-socket is not running"
    )
    versions = sorted({one["stats"]["version"] for one in document["containers"]})
    rows: list[tuple[str, ...]] = [
        ("container", "health", "worker", "state", "requests", "exceptions", "memory", "since")
    ]
    rows += [row for one in document["containers"] for row in container_rows(one)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    head = [f"transport  {document['transport']}", f"queue      {said}", f"uWSGI      {', '.join(versions)}", ""]
    return "\n".join(head + lines)


def container_rows(one: dict[str, Any]) -> list[tuple[str, ...]]:
    """Return one row for each worker of a container."""
    return [
        (
            one["name"],
            one["health"],
            str(worker["id"]),
            worker["status"],
            str(worker["requests"]),
            str(worker["exceptions"]),
            f"{worker['pss_kB'] / 1024:.0f} MB",
            since(worker["last_spawn"]),
        )
        for worker in one["stats"]["workers"]
    ]


def since(moment: int) -> str:
    """Return a moment (seconds since 1970) as local time and how long ago it was."""
    seconds = max(0, int(time.time()) - moment)
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{time.strftime('%F %T', time.localtime(moment))} ({seconds // size} {unit})"
    return f"{time.strftime('%F %T', time.localtime(moment))} ({seconds} s)"
