"""What `make bench CHECK=1` holds the figures to: paired ratios of one run, so that the machine cancels out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

Document = dict[str, Any]
OURS, TCP, PROCESS = "ours, Unix socket", "ours, TCP", "Django in process"
SYNC, EMPTY = "gunicorn sync, Unix socket", "empty WSGI app, Unix socket"
GRANIAN = "granian, Unix socket"


@dataclass
class Ratios:
    """The ratio of one figure to another, once for each round in which both were measured."""

    values: list[float]

    def __str__(self) -> str:
        """Return the median, then the smallest and the largest."""
        return f"{median(self.values):.2f} ({min(self.values):.2f}-{max(self.values):.2f})"


@dataclass
class Target:
    """A bound for the median of some ratios, or for one figure. `least`: it may not be smaller; else not larger."""

    name: str
    bound: float
    least: bool
    find: Callable[[Document], Ratios]

    def holds(self, document: Document) -> bool:
        """Return whether the figure keeps the bound."""
        middle = median(self.find(document).values)
        return middle >= self.bound if self.least else middle <= self.bound


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
    Target("rate against gunicorn sync, Unix, empty view", 2.2, True, rate(OURS, SYNC, "empty")),
    Target("rate against gunicorn sync, Unix, template view", 1.05, True, rate(OURS, SYNC, "template")),
    Target("rate against gunicorn sync, Unix, ORM view", 1.05, True, rate(OURS, SYNC, "orm")),
    Target("rate against granian, Unix, empty view", 1.5, True, rate(OURS, GRANIAN, "empty")),
    Target("rate against granian, Unix, template view", 1.05, True, rate(OURS, GRANIAN, "template")),
    Target("rate against granian, Unix, ORM view", 1.05, True, rate(OURS, GRANIAN, "orm")),
    Target("rate against Django in process, empty view", 0.58, True, rate(OURS, PROCESS, "empty")),
    Target("rate against Django in process, template view", 0.85, True, rate(OURS, PROCESS, "template")),
    Target("rate against Django in process, ORM view", 0.78, True, rate(OURS, PROCESS, "orm")),
    Target("processor time, empty view, against in process + empty app", 1.25, False, against_the_floor),
    Target("TCP against Unix, rate, empty view", 0.75, True, rate(TCP, OURS, "empty")),
    Target("TCP, last 10 s of 60 against the first", 0.9, True, sustained),
    Target("pool against uWSGI's own socket, processor time", 1.03, False, cpu(OURS, "uWSGI's own socket", "empty")),
    *(Target(f"static {size} against a bare nginx", 1.0, True, static(size)) for size in ("4 kB", "100 kB", "1 MB")),
    Target("p99 / p50 at half load, empty view", 2.0, False, spread),
    Target("p99 at half load against the best peer's", 1.0, False, tail),
    Target("memory after load, 2 workers, MB", 55, False, figure("memory", OURS)),
    Target("each further worker, MB", 11, False, figure("memory", "each further worker")),
    Target("up --wait from built images, second start, s", 1.5, False, figure("start", "second start")),
    Target("rebuild and recreate after a one-line change, s", 5, False, figure("start", "one-line change")),
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
