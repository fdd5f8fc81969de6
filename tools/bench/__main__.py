"""`make bench`: our stack and what you would pick instead, side by side on this machine.

Writes tools/bench/results/report.html and results.json. QUICK=1: under a minute, few rows. CHECK=1: exit 1 if a
ratio crosses its bound (tools/bench/targets.py).
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import requests

from ops.console import ROOT, Stop
from tools.bench import measure, report, variants
from tools.bench.measure import Sample
from tools.bench.targets import AGAIN, measured, of
from tools.bench.variants import (
    BOUND,
    EMPTY,
    GTHREAD_UNIX,
    HOST,
    HOST_PORT,
    PEERS,
    SYNC_UNIX,
    TCP,
    THREADED,
    UNIX,
    WORKERS,
    Variant,
)

RESULTS = ROOT / "tools/bench/results"
# The whole must end by itself, whatever a server does.
DEADLINE_SECONDS = 20 * 60
# Of one measurement: many short ones in turn tell more than a few long ones on a noisy machine.
SECONDS = 0.7


class Run:
    """One run: its stacks, its figures."""

    def __init__(self, quick: bool) -> None:
        self.quick = quick
        self.began = time.monotonic()
        self.stacks = [UNIX, TCP, SYNC_UNIX] if quick else [UNIX, TCP, *PEERS, BOUND, EMPTY]
        self.samples: list[Sample] = []
        self.document: dict[str, Any] = {"date": time.strftime("%F %T %z"), "quick": quick}

    def say(self, what: str) -> None:
        """Print a line with the time that has passed. Raises Stop once it is too much."""
        passed = time.monotonic() - self.began
        print(f"{passed:5.0f} s  {what}", flush=True)
        if passed > DEADLINE_SECONDS:
            raise Stop(f"Gave up after {passed:.0f} s; something here is far slower than it should be")

    def measure(self) -> dict[str, Any]:
        """Build, start, measure and return the figures; nothing stays but the images.

        Raises Stop if that cannot be done, or if another run has the machine.
        """
        with tempfile.TemporaryDirectory() as folder, (Path(tempfile.gettempdir()) / "bench.lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as held:
                raise Stop(
                    "Another make bench runs on this machine, and each would spoil the other's figures"
                ) from held
            variants.copy_of_the_project(Path(folder) / "app")
            variants.remove_left_over()
            try:
                variants.make_networks()
                self.say("building the images")
                self.build()
                if not self.quick:
                    self.starts()
                self.say(f"starting {len(self.stacks)} stacks")
                with ThreadPoolExecutor(2) as pool:
                    list(pool.map(Variant.up, self.stacks))
                self.steps()
            except Stop:
                for stack in self.stacks:
                    print(f"--- {stack.name}\n{stack.last_words()}", file=sys.stderr)
                raise
            finally:
                print("removing the stacks", flush=True)
                variants.remove_left_over()
        self.document["samples"] = [asdict(one) for one in self.samples]
        self.document["machine"] = machine()
        self.document["versions"] = versions()
        return self.document

    def build(self) -> None:
        """Build ours, then the peers, which stand on it."""
        UNIX.compose("build", seconds=900)
        if SYNC_UNIX in self.stacks:
            SYNC_UNIX.compose("build", "nginx", "uwsgi", seconds=900)

    def steps(self) -> None:
        """Take every measurement, in an order that wakes everything up first."""
        self.say("warming up")
        for stack in self.stacks:
            for route in ("empty",) if stack is EMPTY else measure.ROUTES:
                measure.full_speed(stack, route, -1, 0.3)
        if self.quick:
            self.rounds(("empty", "template"), 3)
            return
        self.rounds(("empty",), 8)
        self.rounds(measure.ROUTES[1:], 3)
        self.own_socket()
        self.threads()
        self.wakings()
        self.statics()
        self.latencies()
        self.say("TCP for a minute without a pause")
        self.document["sustained"] = {"rates": measure.windows(TCP, 60, 6)}
        self.memories()
        self.published()

    def rounds(self, routes: Sequence[str], count: int) -> None:
        """Measure everything once in each round, in another order each time."""
        for number in range(count):
            self.say(f"{', '.join(routes)}: round {number + 1} of {count}")
            for route in routes:
                stacks = [stack for stack in self.stacks if stack is not EMPTY or route == "empty"]
                work = [self.sample(stack, route, number) for stack in stacks]
                work.append(partial(measure.in_process, UNIX, route, number, SECONDS))
                work.append(self.sample(UNIX, route, number, AGAIN))
                random.shuffle(work)
                self.samples += [one() for one in work]

    def sample(self, stack: Variant, route: str, number: int, name: str = "") -> Callable[[], Sample]:
        """Return what measures a stack, under its own name or another."""

        def take() -> Sample:
            taken = measure.full_speed(stack, route, number, SECONDS)
            taken.variant = name or taken.variant
            return taken

        return take

    def own_socket(self) -> None:
        """Measure what the pool costs in twelve more rounds: the two are close."""
        for number in range(100, 112):
            for stack in random.sample([UNIX, BOUND], 2):
                self.samples.append(measure.full_speed(stack, "empty", number, SECONDS))
        self.say("the pool against uWSGI's own socket, twelve more rounds")

    def threads(self) -> None:
        """Measure a view that waits, and ours with threads against gunicorn's with the same numbers."""
        self.say("a view that waits 20 ms, with two threads in each worker")
        THREADED.up()
        for number in range(5):
            for stack in random.sample([THREADED, GTHREAD_UNIX], 2):
                self.samples.append(measure.full_speed(stack, measure.WAITING, number, SECONDS))
        THREADED.down()

    def wakings(self) -> None:
        """Measure what Django itself costs when it was waiting before each request, as every server is."""
        self.say("Django in process, at once and after a pause")
        pairs = [
            [measure.in_process(UNIX, "empty", number, 1.0, pause).cpu for pause in (0, 0.0002)] for number in range(5)
        ]
        self.document["in process, empty view"] = {
            "in a loop": median(hot for hot, _ in pairs),
            "woken for each request": median(woken for _, woken in pairs),
            "woken / in a loop": median(woken / hot for hot, woken in pairs),
        }

    def statics(self) -> None:
        """Measure static files against a bare nginx in the same network namespace."""
        self.say("static files")
        for number in range(5):
            for size, kilobytes in measure.STATIC.items():
                for name, port in random.sample([(UNIX.name, 8080), ("bare nginx", 8090)], 2):
                    taken = measure.full_speed(UNIX, f"static/bench/{kilobytes}.bin", number, SECONDS, port)
                    taken.variant, taken.route = name, f"static {size}"
                    # The bare one is a container of its own.
                    taken.cpu = 0.0
                    self.samples.append(taken)

    def latencies(self) -> None:
        """Measure latency at half of what the slowest keeps up with: the same rate for all."""
        figures = {"samples": [asdict(one) for one in self.samples]}
        stacks = [stack for stack in self.stacks if stack is not EMPTY]
        rate = min(median(of(figures, stack.name, "empty", "rate").values()) for stack in stacks) / 2
        self.say(f"latency at {rate:.0f} requests a second")
        self.document["latency_rate"] = rate
        self.document["latency"] = [
            measure.latency(stack, rate, number, 2.0)
            for number in range(3)
            for stack in random.sample(stacks, len(stacks))
        ]

    def memories(self) -> None:
        """Read memory after all that load, then with twice the workers."""
        self.say("memory")
        figures = {stack.name: measure.memory(stack) for stack in self.stacks if stack is not EMPTY}
        UNIX.up(workers=2 * WORKERS)
        for route in measure.ROUTES:
            measure.full_speed(UNIX, route, -1, 2.0)
        more = measure.memory(UNIX)
        self.document["memory"] = figures | {"each further worker": (more - figures[UNIX.name]) / WORKERS}
        UNIX.up()
        self.document["memory"]["ours, idle"] = measure.memory(UNIX)

    def published(self) -> None:
        """Measure the way through the published port, and the host's network in its place."""
        self.say("through the published port, and on the host's network")
        HOST.up()
        address = UNIX.compose("port", "nginx-socket", "8080").strip()
        outside = Variant("", "", [], containers={"load": HOST.containers["load"]}, cpu=HOST.cpu)
        for number in range(5):
            for name, stack, url in (
                ("own loopback", UNIX, "http://localhost:8080"),
                ("published port", outside, f"http://{address}"),
                ("host network", HOST, f"http://localhost:{HOST_PORT}"),
            ):
                for route, path in (("empty", "empty"), ("static 4 kB", "static/bench/4.bin")):
                    good, bad = measure.h2load(stack, f"{url}/{path}", seconds=SECONDS)
                    self.samples.append(Sample(name, route, number, good / SECONDS, 0.0, bad))
        HOST.down()

    def starts(self) -> None:
        """Measure from built images to the first answer, and from a changed line to the new one."""
        self.say("start, second start, a changed line")
        UNIX.up()
        UNIX.compose("down")
        seconds: dict[str, float] = {}
        began = time.monotonic()
        UNIX.up("--scale", "load=0", "--scale", "bare=0")
        seconds["second start"] = time.monotonic() - began
        assert answered(UNIX) == "1"
        began = time.monotonic()
        number = Path(os.environ["BENCH_APP"]) / "bench/number.py"
        number.write_text('"""Changed."""\n\nVERSION = "2"\n')
        UNIX.compose("build", "uwsgi")
        UNIX.up("--scale", "load=0", "--scale", "bare=0")
        assert answered(UNIX) == "2"
        seconds["one-line change"] = time.monotonic() - began
        self.document["start"] = seconds


def answered(stack: Variant) -> str:
    """Return the version that a stack serves through its published port."""
    address = stack.compose("port", "nginx-socket", "8080").strip()
    return requests.get(f"http://{address}/version", timeout=10).text


def machine() -> dict[str, Any]:
    """Return what this machine is."""
    cpu = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if "model name" in line
    ]
    total = int(Path("/proc/meminfo").read_text().split()[1]) // 1024
    return {
        "processor": cpu[0] if cpu else platform.machine(),
        "cores": os.cpu_count(),
        "memory": f"{total} MB",
        "kernel": platform.release(),
    }


def versions() -> dict[str, str]:
    """Return the version of everything that is measured."""

    def version_of(image: str, *command: str) -> str:
        run = ["docker", "run", "--rm", "--network", "none", "--entrypoint", command[0], f"bench-{image}", *command[1:]]
        done = subprocess.run(run, capture_output=True, text=True, check=False)
        return (done.stdout + done.stderr).strip()

    versions = {
        "uwsgi": version_of("uwsgi", "uwsgi", "--version"),
        "django": version_of("uwsgi", "python", "-m", "django", "--version"),
        "python": version_of("uwsgi", "python", "--version"),
        "nginx": version_of("nginx", "nginx", "-v"),
        "docker": subprocess.run(
            ["docker", "version", "--format", "{{.Server.Version}}"], capture_output=True, text=True, check=True
        ).stdout.strip(),
    }
    for name in ("gunicorn", "granian"):
        versions[name] = version_of(
            "peers", "python", "-c", f"import importlib.metadata as m; print(m.version('{name}'))"
        )
    sizes = ["docker", "image", "ls", "--format", "{{.Repository}} {{.Size}}", "--filter", "reference=bench-*:latest"]
    images = subprocess.run(sizes, capture_output=True, text=True, check=True).stdout.split()
    return versions | {f"image {name}": size for name, size in zip(images[::2], images[1::2], strict=True)}


def run(arguments: Sequence[str]) -> int:
    """Measure, print, write the report, and judge if asked to."""
    asked = argparse.ArgumentParser(prog="bench", description=__doc__)
    asked.add_argument("--quick", action="store_true")
    asked.add_argument("--check", action="store_true")
    options = asked.parse_args(arguments)
    try:
        document = Run(options.quick).measure()
    except Stop as stop:
        print(f"\n{stop}", file=sys.stderr)
        return 1
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "results.json").write_text(json.dumps(document, indent=1) + "\n")
    (RESULTS / "report.html").write_text(report.page(document))
    print(report.text(document))
    print("\nWritten: tools/bench/results/report.html (the same with plots) and results.json (every figure)")
    if not options.check:
        return 0
    found = [target for target, _ in measured(document)]
    lost = [target.name for target in found if not target.holds(document)]
    reached = sum(target.reached(document) for target in found)
    print(report.judgement(document))
    print(f"\n{reached} of {len(found)} goals reached, {len(lost)} bounds crossed{': ' * bool(lost)}{'; '.join(lost)}")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
