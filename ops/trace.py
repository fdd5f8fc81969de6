"""`make trace ID=...`: every line that any service has logged about one request, in order of time."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from ops import logs, stack
from ops.console import Stop, run

# What nginx accepts as an id (nginx/http/trusted-proxies.conf)
ID = re.compile(r"[A-Za-z0-9._-]{8,128}")
# A line of `docker logs --timestamps`: the time, then what the service wrote
LINE = re.compile(r"^(\S+) (.*)$", re.MULTILINE)
# uWSGI's line about a request (log-format in uwsgi/uwsgi.ini), and that of uwsgi/start/stack_application.py
OF_UWSGI, OF_OURS = " ms by worker ", "request "
TRACEBACK = ("Traceback (", "During handling of", "The above exception")


def trace(wanted: str) -> None:
    """Print the lines. Raises Stop if this is not an id, or if no log contains it."""
    if not ID.fullmatch(wanted):
        raise Stop(
            f"{wanted!r} is not a request id. It is in the header X-Request-ID of every answer, and on error pages."
        )
    logged = [(container.name, log(container.id)) for container in stack.containers()]
    logged += [(name, LINE.findall(text)) for name, text in logs.kept() if wanted in text]
    found = [(when, name, text) for name, lines in logged for when, text in about(wanted, lines)]
    if not found:
        raise Stop(
            f"No log contains {wanted}. Docker keeps the last 30 MB per container, and logs/ those of the last "
            f"{logs.KEPT} that were removed."
        )
    for when, name, text in sorted(found, key=lambda line: line[0]):
        print(f"{when[:23]}  {name:<24} {text}")


def log(container: str) -> list[tuple[str, str]]:
    """Return time and text of each line that a container has written."""
    return LINE.findall(run(["docker", "logs", "--timestamps", container], merged=True).stdout)


def about(wanted: str, lines: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Return the lines with this id, each with the traceback that follows it, or that it follows.

    What a project logs itself may not have the id; uWSGI's line about the request comes right after it.
    """
    following = inside = False
    before: list[tuple[str, str]] = []
    for when, text in lines:
        begins = text.startswith(TRACEBACK)
        # Indented lines, and the one after them that names the exception
        belongs = begins or inside or not text
        inside = begins or (belongs and (not text or text.startswith(" ")))
        if wanted in text:
            # One line alone is another request's; so is a traceback under a line of ours, which has an id.
            if OF_UWSGI in text and before[1:] and not before[0][1].startswith(OF_OURS):
                yield from before
            following, inside, before = True, False, []
            yield when, text
        elif following and belongs:
            yield when, text
        else:
            following = False
            before = [*before, (when, text)] if belongs and before else [(when, text)]
