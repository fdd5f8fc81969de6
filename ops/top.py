"""`make top`: what `make status` says, again and again, with requests per second."""

from __future__ import annotations

import itertools
import sys
import time
from typing import Any

from ops.status import gather, table

EVERY_SECONDS = 1.0
# For a terminal: everything away once; then to the upper left corner, each line to its end, nothing below
CLEAR, HOME, END_OF_LINE, BELOW = "\x1b[2J", "\x1b[H", "\x1b[K\n", "\x1b[J"


def top(times: int | None = None) -> None:
    """Print the table every second until Ctrl-C, or so many times. Raises Stop if no uwsgi container runs."""
    before, began = gather(), time.monotonic()
    terminal = sys.stdout.isatty()
    print(CLEAR * terminal, end="")
    for _ in range(times) if times else itertools.count():
        time.sleep(EVERY_SECONDS)
        now, ended = gather(), time.monotonic()
        head = f"{time.strftime('%T')}   {rate(before, now, ended - began):.0f} requests/s   Ctrl-C ends"
        told = f"{head}\n\n{table(now)}"
        print(HOME + told.replace("\n", END_OF_LINE) + BELOW if terminal else told, flush=True)
        before, began = now, ended


def answered(document: dict[str, Any]) -> dict[tuple[str, int], int]:
    """Return how many requests each worker process has answered."""
    return {
        (one["name"], worker["pid"]): worker["requests"]
        for one in document["containers"]
        for worker in one["stats"]["workers"]
    }


def rate(before: dict[str, Any], now: dict[str, Any], seconds: float) -> float:
    """Return the requests per second between two documents; a process that is new began at none."""
    then = answered(before)
    return sum(count - then.get(process, 0) for process, count in answered(now).items()) / seconds
