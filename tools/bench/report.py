"""The figures as tables for the terminal, and as one self-contained page with plots."""

from __future__ import annotations

import html
from collections.abc import Sequence
from statistics import median

import plotly.graph_objects as plot

from tools.bench.measure import ROUTES, STATIC, WAITING
from tools.bench.targets import AGAIN, OURS, PROCESS, Document, measured, of, paired

Row = Sequence[str]
GREEN, BLUE, GREY = "#2a9d6f", "#3b7dd8", "#9aa0a6"
STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0; display: block; overflow-x: auto; }
th, td { padding: .25rem .75rem; border-bottom: 1px solid #8884; text-align: right;
  font-variant-numeric: tabular-nums; }
th:first-child, td:first-child { text-align: left; }
.plot { background: #fff; border-radius: .5rem; margin: 1rem 0; }
"""


def names(document: Document, route: str) -> list[str]:
    """Return what was measured on a route, fastest first."""
    found = {one["variant"] for one in document["samples"] if one["route"] == route}
    return sorted(found, key=lambda name: -median(of(document, name, route, "rate").values()))


def route_rows(document: Document, route: str) -> list[Row]:
    """Return a table of one route: rate, processor time, errors, and the rate compared with ours in the same round."""
    rows: list[Row] = [(route, "req/s", "CPU µs/req", "errors", "rate compared with ours, median (min-max)")]
    for name in names(document, route):
        rate, cpu, errors = (list(of(document, name, route, what).values()) for what in ("rate", "cpu", "errors"))
        against = str(paired(document, name, OURS, route)) if of(document, OURS, route, "rate") else ""
        rows.append((name, f"{median(rate):.0f}", f"{median(cpu):.0f}" if any(cpu) else "-", f"{sum(errors)}", against))
    return rows


def latency_rows(document: Document) -> list[Row]:
    """Return the table of latencies; nothing in a quick run."""
    found = document.get("latency", [])
    if not found:
        return []
    rows: list[Row] = [(f"empty, at {document['latency_rate']:.0f} req/s", "p50 ms", "p99 ms", "p99 / p50")]
    for name in sorted({one["variant"] for one in found}):
        mine = [one for one in found if one["variant"] == name]
        middle, late = median(one["p50"] for one in mine), median(one["p99"] for one in mine)
        rows.append((name, f"{middle:.2f}", f"{late:.2f}", f"{late / middle:.1f}"))
    return rows


def published_rows(document: Document) -> list[Row]:
    """Return the table of the cost of docker-proxy; nothing in a quick run."""
    rows: list[Row] = [("path", "empty req/s", "compared", "static 4 kB req/s", "compared")]
    for name in ("own loopback", "published port", "host network"):
        if not of(document, name, "empty", "rate"):
            return []
        cells = [name]
        for route in ("empty", "static 4 kB"):
            rate = median(of(document, name, route, "rate").values())
            cells += [f"{rate:.0f}", str(paired(document, name, "own loopback", route))]
        rows.append(cells)
    return rows


def figures(document: Document, group: str, unit: str) -> list[Row]:
    """Return a table of single figures; nothing in a quick run."""
    found = document.get(group, {})
    return [(group, unit), *((name, f"{value:.1f}") for name, value in found.items())] if found else []


def target_rows(document: Document) -> list[Row]:
    """Return the targets that this run has figures for, and whether they were reached."""
    rows: list[Row] = [("target", "goal", "bound", "median (min-max)", "goal reached", "bound held")]
    for target, found in measured(document):
        sign = ">=" if target.bound < target.goal else "<="
        limits = (f"{sign} {limit:g}" for limit in (target.goal, target.bound))
        verdicts = ("yes" if kept else "NO" for kept in (target.reached(document), target.holds(document)))
        rows.append((target.name, *limits, str(found), *verdicts))
    return rows


def tables(document: Document) -> list[list[Row]]:
    """Return every table that this run has figures for."""
    measured_routes = [route for route in (*ROUTES, WAITING) if names(document, route)]
    statics = [f"static {size}" for size in STATIC if names(document, f"static {size}")]
    found = [route_rows(without_the_ways_in(document), route) for route in (*measured_routes, *statics)]
    found += [latency_rows(document), published_rows(document)]
    if "sustained" in document:
        rates = document["sustained"]["rates"]
        found.append([("TCP for 60 s, req/s per 10 s", *(f"{rate:.0f}" for rate in rates))])
    found.append(figures(document, "in process, empty view", "CPU µs/req"))
    found += [figures(document, "memory", "MB (PSS)"), figures(document, "start", "seconds")]
    return [table for table in found if table]


def without_the_ways_in(document: Document) -> Document:
    """Return the document without the rows that have a separate table."""
    ways = ("own loopback", "published port", "host network")
    return {**document, "samples": [one for one in document["samples"] if one["variant"] not in ways]}


def text(document: Document) -> str:
    """Return all tables for a terminal."""
    return "\n\n".join(["", *(aligned(table) for table in tables(document))])


def judgement(document: Document) -> str:
    """Return the table of the project's own targets, for CHECK=1: a reader of the report does not need it."""
    return f"\n{aligned(target_rows(document))}"


def aligned(table: Sequence[Row]) -> str:
    """Return one table with its columns under each other."""
    widths = [max(len(row[column]) for row in table if column < len(row)) for column in range(len(table[0]))]
    lines = []
    for row in table:
        first, *others = (
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  ".join([first, *others]).rstrip())
    return "\n".join(lines)


def bars(document: Document, figure: str, title: str) -> plot.Figure:
    """Return a plot with a group of bars for each route, ours first and in colour."""
    routes = [route for route in ROUTES if names(document, route)]
    shown = [name for name in names(document, "empty") if name != AGAIN]
    shown.sort(key=lambda name: (not name.startswith("ours"), name))
    drawn = plot.Figure()
    for name in shown:
        found = [list(of(document, name, route, figure).values()) for route in routes]
        middles = [median(values) if values else None for values in found]
        drawn.add_bar(
            name=name,
            x=routes,
            y=middles,
            marker_color={OURS: GREEN, "ours, TCP": BLUE, PROCESS: GREY}.get(name),
            error_y={
                "type": "data",
                "symmetric": False,
                "array": [max(v) - m if v and m else 0 for v, m in zip(found, middles, strict=True)],
                "arrayminus": [m - min(v) if v and m else 0 for v, m in zip(found, middles, strict=True)],
                "thickness": 1,
            },
        )
    drawn.update_layout(title=title, barmode="group", template="plotly_white", height=480, legend={"orientation": "h"})
    return drawn


def page(document: Document) -> str:
    """Return the page. Plotly's script is embedded, so the page opens anywhere and loads nothing."""
    shown = without_the_ways_in(document)
    plots = [
        bars(shown, "rate", "Requests per second (median; whiskers: minimum and maximum)"),
        bars(shown, "cpu", "Processor time per request, µs (lower is better)"),
    ]
    drawn = "".join(
        f'<div class="plot">{one.to_html(full_html=False, include_plotlyjs=index == 0)}</div>'
        for index, one in enumerate(plots)
    )
    facts = {**document["machine"], **document["versions"]}
    about: list[Row] = [("machine and versions", ""), *((name, str(value)) for name, value in facts.items())]
    body = "".join(as_html(table) for table in [*tables(document), about])
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width"><title>Benchmark</title>'
        f"<style>{STYLE}</style></head><body><h1>Benchmark, {html.escape(document['date'])}</h1>"
        "<p>Every ratio compares two measurements of the same round. How to read the figures: "
        "docs/measured/performance.md.</p>"
        f"{drawn}{body}</body></html>\n"
    )


def as_html(table: Sequence[Row]) -> str:
    """Return one table as HTML."""

    def line(row: Row, tag: str) -> str:
        cells = (f"<{tag}>{html.escape(cell)}</{tag}>" for cell in row)
        return f"<tr>{''.join(cells)}</tr>"

    return f"<table>{line(table[0], 'th')}{''.join(line(row, 'td') for row in table[1:])}</table>"
