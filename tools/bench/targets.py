"""What the figures are held to: paired ratios of one run, so that the machine cancels out.

The goal is what we want. The bound is what was reached, less the
noise of a shared machine: `make bench CHECK=1` fails beyond it, so that a change cannot lose it unseen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

Document = dict[str, Any]
OURS, TCP, PROCESS = "ours, Unix socket", "ours, TCP", "Django in process"
# Ours a second time: the noise
AGAIN = f"{OURS}, again"
SYNC, EMPTY = "gunicorn sync, Unix socket", "empty WSGI app, Unix socket"
THREADED, GTHREAD = "ours, 2 threads, Unix socket", "gunicorn gthread, Unix socket"
GRANIAN, BOUND = "granian, Unix socket", "uWSGI's own socket"


@dataclass
class Ratios:
    """The ratio of one figure to another, once for each round in which both were measured."""

    values: list[float]

    def __str__(self) -> str:
        """Return the median, then the smallest and the largest."""
        return f"{median(self.values):.2f} ({min(self.values):.2f}-{max(self.values):.2f})"


@dataclass
class Target:
    """What the median of some ratios, or one figure, should be. The larger the better, if `bound` is below `goal`."""

    name: str
    goal: float
    bound: float
    find: Callable[[Document], Ratios]

    def reached(self, document: Document) -> bool:
        """Return whether the figure is what we want."""
        return self.keeps(self.goal, document)

    def holds(self, document: Document) -> bool:
        """Return whether the figure keeps the bound."""
        return self.keeps(self.bound, document)

    def keeps(self, limit: float, document: Document) -> bool:
        """Return whether the median is on the right side of a limit."""
        middle = median(self.find(document).values)
        return middle >= limit if self.bound < self.goal else middle <= limit


def of(document: Document, variant: str, route: str, figure: str) -> dict[int, float]:
    """Return a figure of each round."""
    return {
        one["round"]: one[figure] for one in document["samples"] if (one["variant"], one["route"]) == (variant, route)
    }


def paired(document: Document, one: str, other: str, route: str, figure: str = "rate") -> Ratios:
    """Return the ratio of two variants in each round. Raises KeyError if they never met in one."""
    first, second = of(document, one, route, figure), of(document, other, route, figure)
    both = [first[number] / second[number] for number in first if number in second]
    if not both:
        raise KeyError(f"{one} / {other}: {route}")
    return Ratios(both)


def rate(one: str, other: str, route: str) -> Callable[[Document], Ratios]:
    """Return what finds the ratio of two rates."""
    return lambda document: paired(document, one, other, route)


def cpu(one: str, other: str, route: str) -> Callable[[Document], Ratios]:
    """Return what finds the ratio of two processor times."""
    return lambda document: paired(document, one, other, route, "cpu")


def against_the_floor(document: Document) -> Ratios:
    """Return our processor time for an empty view, against Django in process and the way there and back alone."""
    ours = of(document, OURS, "empty", "cpu")
    process, way = of(document, PROCESS, "empty", "cpu"), of(document, EMPTY, "empty", "cpu")
    return Ratios([ours[number] / (process[number] + way[number]) for number in ours if number in way])


def against_the_woken(document: Document) -> Ratios:
    """Return the same against a Django that was waiting before each request. Raises KeyError in a quick run."""
    woken = document["in process, empty view"]["woken for each request"]
    ours, way = of(document, OURS, "empty", "cpu"), of(document, EMPTY, "empty", "cpu")
    return Ratios([ours[number] / (woken + way[number]) for number in ours if number in way])


def sustained(document: Document) -> Ratios:
    """Return the last sixth of a minute of TCP against the first. Raises KeyError in a quick run."""
    return Ratios([document["sustained"]["rates"][-1] / document["sustained"]["rates"][0]])


def spread(document: Document) -> Ratios:
    """Return the 99th percentile of ours against its median. Raises KeyError in a quick run."""
    return Ratios([one["p99"] / one["p50"] for one in document.get("latency", []) if one["variant"] == OURS])


def tail(document: Document) -> Ratios:
    """Return our 99th percentile against the best peer's, in each round. Raises KeyError in a quick run."""
    peers = ("gunicorn", "granian")
    best: dict[int, float] = {}
    for one in document["latency"]:
        if str(one["variant"]).startswith(peers):
            best[one["round"]] = min(one["p99"], best.get(one["round"], one["p99"]))
    return Ratios([one["p99"] / best[one["round"]] for one in document["latency"] if one["variant"] == OURS])


def static(size: str) -> Callable[[Document], Ratios]:
    """Return what finds the ratio of our static files to a bare nginx."""
    return lambda document: paired(document, OURS, "bare nginx", f"static {size}")


def figure(group: str, name: str) -> Callable[[Document], Ratios]:
    """Return what finds a figure that is none of two."""
    return lambda document: Ratios([document[group][name]])


TARGETS = [
    Target("rate against gunicorn sync, Unix, empty view", 2.2, 1.5, rate(OURS, SYNC, "empty")),
    Target("rate against gunicorn sync, Unix, template view", 1.05, 0.95, rate(OURS, SYNC, "template")),
    Target("rate against gunicorn sync, Unix, ORM view", 1.05, 1.04, rate(OURS, SYNC, "orm")),
    Target("rate against granian, Unix, empty view", 1.5, 0.75, rate(OURS, GRANIAN, "empty")),
    Target("rate against granian, Unix, template view", 1.05, 0.9, rate(OURS, GRANIAN, "template")),
    Target("rate against granian, Unix, ORM view", 1.05, 0.9, rate(OURS, GRANIAN, "orm")),
    Target("rate against Django in process, empty view", 0.58, 0.2, rate(OURS, PROCESS, "empty")),
    Target("rate against Django in process, template view", 0.85, 0.5, rate(OURS, PROCESS, "template")),
    Target("rate against Django in process, ORM view", 0.78, 0.35, rate(OURS, PROCESS, "orm")),
    Target("CPU, empty view, against Django in a loop + empty app", 1.25, 1.9, against_the_floor),
    Target("CPU, empty view, against Django woken + empty app", 1.25, 1.4, against_the_woken),
    Target("rate against gunicorn gthread, 2 threads, view of 20 ms", 1.0, 0.95, rate(THREADED, GTHREAD, "wait")),
    Target("TCP against Unix, rate, empty view", 0.75, 0.55, rate(TCP, OURS, "empty")),
    Target("TCP, last 10 s of 60 against the first", 0.9, 0.7, sustained),
    Target("CPU, pool against uWSGI's own socket", 1.03, 1.15, cpu(OURS, BOUND, "empty")),
    Target("static 4 kB against a bare nginx", 1.0, 0.65, static("4 kB")),
    Target("static 100 kB against a bare nginx", 1.0, 0.5, static("100 kB")),
    Target("static 1 MB against a bare nginx", 1.0, 0.65, static("1 MB")),
    Target("p99 / p50 at half load, empty view", 2.0, 6.0, spread),
    Target("p99 at half load against the best peer's", 1.0, 1.8, tail),
    Target("memory after load, 2 workers, MB", 55, 80, figure("memory", OURS)),
    Target("each further worker, MB", 11, 20, figure("memory", "each further worker")),
    Target("up --wait from built images, second start, s", 1.5, 5, figure("start", "second start")),
    Target("rebuild and recreate after a one-line change, s", 5, 15, figure("start", "one-line change")),
]


def measured(document: Document) -> list[tuple[Target, Ratios]]:
    """Return the targets that this run has figures for."""
    found = []
    for target in TARGETS:
        try:
            ratios = target.find(document)
        except (KeyError, IndexError):
            continue
        if ratios.values:
            found.append((target, ratios))
    return found
