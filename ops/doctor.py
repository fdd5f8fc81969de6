"""`make doctor`: reads what runs, says what is wrong with it and how to mend it."""

from __future__ import annotations

import configparser
import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

from ops import engine, preflight, stack, status
from ops.console import Stop
from ops.stack import Container

# Beyond this an access log, a cookie's age and a certificate's dates are wrong.
CLOCK_SECONDS = 5.0
MEMORY_SHARE = 0.8
DISK_SHARE = 0.9
# A container that started again this often and not longer ago is in a loop; a reload counts as one start.
LOOP_RESTARTS = 3
LOOP_SECONDS = 60.0
SOCKET_MODE = "770"
SOCKET_GROUP = "10000"


@dataclass(frozen=True)
class Facts:
    """What was read of the running stack; clocks in seconds, sizes in bytes."""

    nginx: dict[str, str]
    uwsgi: dict[str, str]
    grace: dict[str, float]
    listen: int
    somaxconn: int
    descriptors: int
    memory: dict[str, tuple[int, int]]
    sockets: dict[str, str]
    data_used: float
    clock_offset: float
    page: str
    loops: list[str]
    unhealthy: list[str]
    versions: list[str]
    disk: list[str]


def doctor() -> None:
    """Print what is wrong, each with its fix. Raises Stop if anything is."""
    # Under `make dev` nothing is cut off: somebody may be in the debugger.
    development = stack.is_development(stack.running_files() or [])
    checks = [check for check in CHECKS if not (development and check is clocks)]
    problems = examine(gather(), checks)
    if problems:
        raise Stop("\n".join(f"  - {text}" for text in problems))
    print(f"{len(checks)} checks, nothing wrong.")


def examine(facts: Facts, checks: Sequence[Callable[[Facts], list[str]]] | None = None) -> list[str]:
    """Return what these checks find; all of them, if none are named."""
    return [problem for check in checks or CHECKS for problem in check(facts)]


def clocks(facts: Facts) -> list[str]:
    """Find the clocks that contain each other in the wrong order."""
    order = [
        ("harakiri (uwsgi/uwsgi.ini)", seconds(facts.uwsgi["harakiri"])),
        ("worker-reload-mercy (uwsgi/uwsgi.ini)", seconds(facts.uwsgi["worker-reload-mercy"])),
        ("uwsgi_read_timeout (nginx/location/timeouts.conf)", seconds(facts.nginx["uwsgi_read_timeout"])),
        ("worker_shutdown_timeout (nginx/nginx.conf)", seconds(facts.nginx["worker_shutdown_timeout"])),
        ("stop_grace_period of nginx (compose.yaml)", facts.grace["nginx"]),
    ]
    order_of_uwsgi = [order[1], ("stop_grace_period of uwsgi (compose.yaml)", facts.grace["uwsgi"])]
    return [
        f"{longer} is {after:g} s, not above {shorter}, {before:g} s: a request that should end is cut off. Raise it."
        for row in (order, order_of_uwsgi)
        for (shorter, before), (longer, after) in pairwise(row)
        if after <= before
    ]


def buffers(facts: Facts) -> list[str]:
    """Find sizes that nginx lets through and uWSGI would refuse with a 502."""
    number, size = facts.nginx["large_client_header_buffers"].split()
    let_through = (int(number) + 2) * int(size.removesuffix("k")) * 1024
    found = []
    if let_through > int(facts.uwsgi["buffer-size"]):
        found.append(
            f"buffer-size (uwsgi/uwsgi.ini) is {facts.uwsgi['buffer-size']}, below the {let_through} bytes "
            "that nginx lets through: a large request is a 502. "
            "Lower large_client_header_buffers (nginx/http/client-limits.conf)."
        )
    if int(facts.nginx["max_headers"]) >= int(facts.uwsgi["max-vars"]):
        found.append(
            f"max-vars (uwsgi/uwsgi.ini) is {facts.uwsgi['max-vars']}, not above max_headers "
            f"{facts.nginx['max_headers']} (nginx/http/client-limits.conf): many headers are a 502. Raise it."
        )
    return found


def queue(facts: Facts) -> list[str]:
    """Find a queue that the kernel cuts short."""
    if facts.listen <= facts.somaxconn:
        return []
    return [
        f"listen (sockets/uwsgi-socket.ini) is {facts.listen}, above net.core.somaxconn {facts.somaxconn}: "
        "uwsgi-socket will not start again. Raise the sysctl of `uwsgi-socket` in compose.yaml."
    ]


def descriptors(facts: Facts) -> list[str]:
    """Find more connections than file descriptors."""
    connections = int(facts.nginx["worker_connections"])
    if facts.descriptors > connections:
        return []
    return [
        f"nginx may open {facts.descriptors} files (ulimits.nofile in compose.yaml), not above worker_connections "
        f"{connections} (nginx/nginx.conf): connections fail under load. Raise the one or lower the other."
    ]


def memory(facts: Facts) -> list[str]:
    """Find containers whose processes are about to meet their memory limit."""
    return [
        f"{name} uses {used >> 20} MB of {limit >> 20} MB: a worker will be killed. "
        "Lower UWSGI_PROCESSES (.env) or raise mem_limit of `uwsgi` (compose.yaml)."
        for name, (used, limit) in facts.memory.items()
        if used > limit * MEMORY_SHARE
    ]


def sockets(facts: Facts) -> list[str]:
    """Find sockets that those who should may not open, or others may."""
    return [
        f"{path} has group and mode {has}, not {SOCKET_GROUP} {SOCKET_MODE}: nginx or uwsgi is refused, "
        "or others are not. Is `umask = 007` in sockets/uwsgi-socket.ini, and the volume as compose.yaml has it? "
        "Then: make restart S=uwsgi-socket"
        for path, has in facts.sockets.items()
        if has != f"{SOCKET_GROUP} {SOCKET_MODE}"
    ]


def disk(facts: Facts) -> list[str]:
    """Find disks that are about to be full."""
    data = f"The volume data is {facts.data_used:.0%} full: writes will fail. Make room on this machine's disk: df -h"
    return facts.disk + [data] * (facts.data_used > DISK_SHARE)


def clock(facts: Facts) -> list[str]:
    """Find a clock of the Docker engine that is not this machine's (a virtual machine that slept)."""
    if abs(facts.clock_offset) <= CLOCK_SECONDS:
        return []
    return [
        f"The Docker engine's clock is {facts.clock_offset:+.0f} s off this machine's. Restart the engine, and run NTP."
    ]


def port(facts: Facts) -> list[str]:
    """Find a published port behind which nothing answers."""
    return [f"{facts.page}. Look at: make ps, make logs S=nginx"] if facts.page else []


def loops(facts: Facts) -> list[str]:
    """Find containers that start again and again, and those that are ill."""
    looping = [f"{name} restarts in a loop. Its last words: docker logs --tail 30 {name}" for name in facts.loops]
    ill = [f"{name} is unhealthy. What its check says: docker inspect {name}" for name in facts.unhealthy]
    return looping + ill


def versions(facts: Facts) -> list[str]:
    """Find Docker or its plugins too old."""
    return [f"This needs {text}. Run: ops/run setup" for text in facts.versions]


CHECKS: tuple[Callable[[Facts], list[str]], ...] = (
    clocks,
    buffers,
    queue,
    descriptors,
    memory,
    sockets,
    disk,
    clock,
    port,
    loops,
    versions,
)


def gather() -> Facts:
    """Read the running stack. Raises Stop if it does not run."""
    uwsgi, nginx, holder = (stack.workers(service) for service in ("uwsgi", "nginx", "uwsgi-socket"))
    published = stack.workers("nginx-socket")
    everything = [one for one in stack.containers() if one.service != "release"]
    effective = inside(nginx[0], "nginx", "-T")
    return Facts(
        nginx=dict(re.findall(r"^\s*([a-z_]+) ([^;{]+);", effective, re.MULTILINE)),
        uwsgi=uwsgi_options(uwsgi[0]),
        grace={one.service: inspected(one, "{{.Config.StopTimeout}}") for one in (nginx[0], uwsgi[0])},
        listen=int(ini(inside(holder[0], "cat", "/etc/uwsgi/uwsgi-socket.ini"))["listen"]),
        somaxconn=int(inside(holder[0], "cat", "/proc/sys/net/core/somaxconn")),
        descriptors=int(re.findall(r"Max open files +(\d+)", inside(nginx[0], "cat", "/proc/1/limits"))[0]),
        memory={one.name: (used_memory(one), int(inspected(one, "{{.HostConfig.Memory}}"))) for one in uwsgi},
        sockets=socket_modes(holder[0]),
        data_used=int(inside(uwsgi[0], "df", "--output=pcent", "/data").split()[-1].rstrip("%")) / 100,
        clock_offset=engine_clock() - time.time(),
        page=page_problem(published[0], nginx[0]),
        loops=[one.name for one in everything if one.restarts >= LOOP_RESTARTS and age(one) < LOOP_SECONDS],
        unhealthy=[one.name for one in everything if one.running and one.health == "unhealthy"],
        versions=engine.lacking(),
        disk=preflight.disk_problems(),
    )


def inside(one: Container, *command: str) -> str:
    """Return what a command prints in a container."""
    return stack.docker("exec", one.id, *command)


def inspected(one: Container, template: str) -> float:
    """Return a number that `docker inspect` knows."""
    return float(stack.docker("inspect", "--format", template, one.id))


def ini(text: str) -> dict[str, str]:
    """Return the section [uwsgi] of a configuration."""
    read = configparser.ConfigParser(strict=False, interpolation=None)
    read.read_string(text)
    return dict(read["uwsgi"])


def uwsgi_options(one: Container) -> dict[str, str]:
    """Return uWSGI's options as they are in force: those of the file, then those of the command line."""
    command = json.loads(stack.docker("inspect", "--format", "{{json .Config.Cmd}}", one.id))
    named = {word.removeprefix("--"): value for word, value in pairwise(command)}
    return {**ini(inside(one, "cat", "/etc/uwsgi/uwsgi.ini")), **named}


def used_memory(one: Container) -> int:
    """Return the memory of all workers of a container (PSS)."""
    return sum(int(worker["pss_kB"]) for worker in status.container(one)["stats"]["workers"]) * 1024


def socket_modes(holder: Container) -> dict[str, str]:
    """Return group and mode of each socket that uwsgi-socket has made."""
    told = inside(holder, "sh", "-c", "stat -c '%n %g %a' $(find /run/pool /run/wire -type s 2>/dev/null)")
    return {path: f"{group} {mode}" for path, group, mode in (line.split() for line in told.splitlines())}


def engine_clock() -> float:
    """Return the engine's time in seconds since 1970."""
    text = stack.docker("info", "--format", "{{.SystemTime}}").strip()
    return parse_time(text)


def age(one: Container) -> float:
    """Return how many seconds ago a container started."""
    return time.time() - parse_time(one.started)


def parse_time(text: str) -> float:
    """Return Docker's time format (nanoseconds, Z or an offset) in seconds since 1970."""
    return datetime.fromisoformat(re.sub(r"\.(\d{1,6})\d*", r".\1", text).replace("Z", "+00:00")).timestamp()


def page_problem(published: Container, nginx: Container) -> str:
    """Return what is wrong with the answer behind the published port, nothing if it comes from Django."""
    # On the host's network nothing is published: what it has bound is the address.
    bound = stack.docker("port", published.id).partition(" -> ")[2].splitlines()
    bound = bound or [str(json.loads(inside(published, "healthcheck.py"))["address"])]
    host, _, number = bound[0].rpartition(":")
    name = inside(nginx, "cat", "/run/nginx/server-names.conf").split()[1].rstrip(";").removeprefix(".")
    address = f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{number}/healthz"
    try:
        urllib.request.urlopen(urllib.request.Request(address, headers={"Host": name}), timeout=5).close()
    except urllib.error.HTTPError as answer:
        return f"{address} answers {answer.code}" if answer.code >= 500 else ""
    except OSError as problem:
        return f"{address} does not answer ({problem})"
    return ""


def seconds(text: str) -> float:
    """Return a clock as nginx or uWSGI writes it."""
    return float(text.removesuffix("s"))
