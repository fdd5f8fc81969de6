"""`make trace ID=...`: every line that any service has logged about one request, in order of time."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Iterator

from ops import stack
from ops.console import Stop

# What nginx lets through as an id (nginx/http/trusted-proxies.conf)
ID = re.compile(r"[A-Za-z0-9._-]{8,128}")
# Of a line with `docker logs --timestamps`: the time, then what the service wrote
LINE = re.compile(r"(\S+) (.*)")
TRACEBACK = ("Traceback (", "During handling of", "The above exception")


def trace(wanted: str) -> None:
    """Print the lines. Raises Stop if this is no id, or if no log has it."""
    if not ID.fullmatch(wanted):
        raise Stop(
            f"{wanted!r} is no request id. It stands in the header X-Request-ID of every answer and on error pages."
        )
    running = stack.containers()
    if not running:
        raise Stop("No container is there. Start the stack: make up")
    found = [(when, one.name, text) for one in running for when, text in about(wanted, log(one.id))]
    if not found:
        raise Stop(f"No log has {wanted}. Of each container Docker keeps the last 30 MB, and none of one that is gone.")
    for when, name, text in sorted(found, key=lambda line: line[0]):
        print(f"{when[:23]}  {name:<24} {text}")


def log(container: str) -> Iterator[tuple[str, str]]:
    """Return time and text of each line that a container has written."""
    command = ["docker", "logs", "--timestamps", container]
    told = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", check=False
    )
    return (found.groups() for line in told.stdout.splitlines() if (found := LINE.match(line)))  # type: ignore[misc]


def about(wanted: str, lines: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Return the lines with this id, each with the traceback that follows it."""
    following = inside = False
    for when, text in lines:
        if wanted in text:
            following, inside = True, False
            yield when, text
        elif following:
            begins = text.startswith(TRACEBACK)
            # Indented lines, and the one after them that names the exception
            if begins or inside or not text:
                yield when, text
                inside = begins or not text or text.startswith(" ")
            else:
                following = False
