"""One measurement of one stack: rate and processor time, latency, memory."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import dataclass
from statistics import median, quantiles

from ops.console import Stop
from tools.bench.variants import WORKERS, Variant

CONNECTIONS = 16
BODY_BYTES = 102_400
ROUTES = ("empty", "json", "template", "orm", "upload")
# Measured with threads alone
WAITING = "wait"
STATIC = {"4 kB": 4, "100 kB": 100, "1 MB": 1024}
# A client of h2load sends in step with the others; few of them, so that they do not queue up behind each other.
PACED_CONNECTIONS = 2
LOG = "/var/log/h2load"


@dataclass
class Sample:
    """One run: answers in a second, microseconds of server processor time for each, and how many went wrong."""

    variant: str
    route: str
    round: int
    rate: float
    cpu: float
    errors: int


def inside(variant: Variant, service: str, *command: str, seconds: float = 60) -> str:
    """Return what a command prints in a container of a stack. Raises Stop with its last words if it fails."""
    full = ["docker", "exec", variant.containers[service], *command]
    done = subprocess.run(full, capture_output=True, text=True, timeout=seconds, check=False)
    if done.returncode != 0:
        raise Stop(f"{variant.name}, {service}: {' '.join(command[:3])}: {done.stdout[-800:]}{done.stderr[-800:]}")
    return done.stdout


def h2load(variant: Variant, url: str, *options: str, seconds: float, connections: int = 0) -> tuple[int, int]:
    """Send load from nginx's own network namespace and return how many requests were answered and how many failed.

    Raises Stop if not one was answered.
    """
    # h2load appends to its log.
    inside(variant, "load", "rm", "-f", LOG)
    command = [
        "h2load",
        "--h1",
        f"--clients={connections or CONNECTIONS}",
        f"--duration={round(seconds * 1000)}ms",
        *options,
        url,
    ]
    message = inside(variant, "load", *command, seconds=seconds + 60)
    counts = re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", message)
    if not counts or not int(counts[1]):
        raise Stop(f"{variant.name}: {url}: no answer\n{message[-800:]}")
    good, *bad = (int(number) for number in counts.groups())
    return good, sum(bad)


def full_speed(variant: Variant, route: str, number: int, seconds: float, port: int = 8080) -> Sample:
    """Send as much as the stack takes."""
    assert variant.cpu
    body = ("--data=/tmp/body", "--header=Content-Type: application/octet-stream") if route == "upload" else ()
    before = variant.cpu.seconds()
    good, bad = h2load(variant, f"http://localhost:{port}/{route}", *body, seconds=seconds)
    used = variant.cpu.seconds() - before
    return Sample(variant.name, route, number, good / seconds, used / (good + bad) * 1e6, bad)


def in_process(variant: Variant, route: str, number: int, seconds: float, pause: float = 0) -> Sample:
    """Have Django answer in a loop, in the container of `variant`, without a server; `pause` seconds before each."""
    size = BODY_BYTES if route == "upload" else 0
    command = ["python", "in_process.py", f"/{route}", str(seconds), str(WORKERS), str(size), str(pause)]
    result = inside(variant, "uwsgi", *command, seconds=seconds + 60)
    runs = [json.loads(line) for line in result.splitlines()]
    requests = sum(one["requests"] for one in runs)
    rate = sum(one["requests"] / one["seconds"] for one in runs)
    return Sample("Django in process", route, number, rate, sum(one["cpu"] for one in runs) / requests * 1e6, 0)


def latency(variant: Variant, rate: float, number: int, seconds: float) -> dict[str, float | str]:
    """Send at a rate that the stack keeps up with and return the median and the 99th percentile in ms."""
    paced = (f"--rps={max(1, round(rate / PACED_CONNECTIONS))}", f"--log-file={LOG}")
    h2load(variant, "http://localhost:8080/empty", *paced, seconds=seconds, connections=PACED_CONNECTIONS)
    result = inside(variant, "load", "cat", LOG).splitlines()
    took = [int(line.split()[2]) / 1000 for line in result]
    return {"variant": variant.name, "round": number, "p50": median(took), "p99": quantiles(took, n=100)[98]}


def windows(variant: Variant, seconds: float, parts: int) -> list[float]:
    """Send at full speed without a pause and return the rate within each part of the time."""
    h2load(variant, "http://localhost:8080/empty", f"--log-file={LOG}", seconds=seconds)
    script = (
        f"{{ if (!first) first = $1; part[int(($1 - first) / {seconds / parts * 1e6:.0f})]++ }} "
        f"END {{ for (i = 0; i < {parts}; i++) print part[i] + 0 }}"
    )
    result = inside(variant, "load", "awk", script, LOG)
    return [int(line) / (seconds / parts) for line in result.split()]


def memory(variant: Variant) -> float:
    """Return the memory of the server's processes in MB, shared pages counted once (PSS)."""
    command = 'cat /proc/[0-9]*/smaps_rollup 2>/dev/null | awk "/^Pss:/ {sum += \\$2} END {print sum}"'
    return int(inside(variant, "uwsgi", "sh", "-c", command)) / 1024
