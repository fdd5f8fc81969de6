"""`make doctor`: reads the running stack, says what is wrong with it and how to fix it."""

from __future__ import annotations

import configparser
import json
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise

from ops import backup, certificate, engine, front_page, preflight, stack, state, status
from ops.console import Stop
from ops.needs import BREAKS, COULD
from ops.stack import Container

# Beyond this an access log, a cookie's age and a certificate's dates are wrong.
CLOCK_SECONDS = 5.0
MEMORY_SHARE = 0.8
DISK_SHARE = 0.9
# A container that started again this often and not longer ago is in a loop; a reload counts as one start.
LOOP_RESTARTS = 3
LOOP_SECONDS = 60.0
# A request's address is sent up to three times (REQUEST_URI, PATH_INFO, QUERY_STRING): two more than nginx counts.
ADDRESS_COPIES = 2
# What nginx adds to a request's headers (nginx/location/uwsgi-params.conf), rounded up
OWN_VARIABLES = 30
# Of a socket: which service makes it, with which group and mode; the group is that of the service that connects.
SOCKETS = {"/run/pool/nginx.sock": ("nginx-socket", "10101 770")}
OTHER_SOCKETS = ("uwsgi-socket", "10000 770")


Check = Callable[["Facts"], Iterator[str]]


@dataclass(frozen=True)
class Facts:
    """What was read of a stack, or of its files: times in seconds, sizes in bytes. What is not known is in order."""

    nginx: Mapping[str, str]
    uwsgi: Mapping[str, str]
    grace: Mapping[str, float]
    # Of each service that holds a socket: the length of its queue, and what the kernel allows
    queues: Mapping[str, tuple[int, int]]
    descriptors: int = sys.maxsize
    memory: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    sockets: Mapping[str, str] = field(default_factory=dict)
    data_used: float = 0
    clock_offset: float = 0
    # What a visitor gets, in a line, and what is wrong with it (ops/front_page.py)
    page: str = ""
    findings: Sequence[tuple[str, str]] = ()
    loops: Sequence[str] = ()
    unhealthy: Sequence[str] = ()
    versions: Sequence[str] = ()
    disk: Sequence[str] = ()
    certificate: Sequence[str] = ()
    # As `findings`
    backups: Sequence[tuple[str, str]] = ()


def doctor() -> None:
    """Print what is wrong, each with its fix. Raises Stop if anything is."""
    # Under `make dev` nothing is cut off: somebody may be in the debugger.
    development = stack.includes(state.current_files(), stack.DEVELOPMENT)
    checks = [check for check in CHECKS if not (development and check is timeouts)]
    facts = gather()
    print(f"Front page: {facts.page}")
    for word, text in (*facts.findings, *facts.backups):
        if word == COULD:
            print(f"  {word:<7} {text}")
    problems = examine(facts, checks)
    if problems:
        raise Stop("\n".join(f"  - {problem}" for problem in problems))
    print(f"{len(checks)} checks, nothing wrong.")


def examine(facts: Facts, checks: Sequence[Check] | None = None) -> list[str]:
    """Return what these checks find; all of them, if none are named."""
    return [problem for check in checks or CHECKS for problem in check(facts)]


def timeouts(facts: Facts) -> Iterator[str]:
    """Find timeouts that should contain each other and do not."""
    mercy = ("worker-reload-mercy (uwsgi/uwsgi.ini)", seconds(facts.uwsgi["worker-reload-mercy"]))
    request = [
        ("harakiri (REQUEST_SECONDS in .env)", seconds(facts.uwsgi["harakiri"])),
        mercy,
        ("uwsgi_read_timeout (nginx/entrypoint)", seconds(facts.nginx["uwsgi_read_timeout"])),
        ("worker_shutdown_timeout (nginx/entrypoint)", seconds(facts.nginx["worker_shutdown_timeout"])),
        ("stop_grace_period of nginx (compose.yaml)", facts.grace["nginx"]),
    ]
    shutdown = [mercy, ("stop_grace_period of uwsgi (compose.yaml)", facts.grace["uwsgi"])]
    for (shorter, before), (longer, after) in [*pairwise(request), *pairwise(shutdown)]:
        if after <= before:
            yield (
                f"{longer} is {after:g} s, not above {shorter}, {before:g} s: "
                "a request that should end is cut off. Raise it."
            )


def buffers(facts: Facts) -> Iterator[str]:
    """Find sizes that nginx accepts and that uWSGI would refuse with a 502."""
    number, size = facts.nginx["large_client_header_buffers"].split()
    accepted = (int(number) + ADDRESS_COPIES) * int(size.removesuffix("k")) * 1024
    if accepted >= int(facts.uwsgi["buffer-size"]):
        yield (
            f"buffer-size (uwsgi/uwsgi.ini) is {facts.uwsgi['buffer-size']}, not above the {accepted} bytes "
            "that nginx accepts: a large request ends in a 502. "
            "Lower large_client_header_buffers (nginx/http/client-limits.conf)."
        )
    if int(facts.nginx["max_headers"]) + OWN_VARIABLES >= int(facts.uwsgi["max-vars"]):
        yield (
            f"max-vars (uwsgi/uwsgi.ini) is {facts.uwsgi['max-vars']}, not above max_headers "
            f"{facts.nginx['max_headers']} (nginx/http/client-limits.conf) and nginx's own {OWN_VARIABLES}: "
            "a request with many headers ends in a 502. Raise it."
        )


def queue(facts: Facts) -> Iterator[str]:
    """Find a queue that the kernel cuts short."""
    for service, (listen, somaxconn) in facts.queues.items():
        if listen > somaxconn:
            yield (
                f"listen (sockets/{service}.ini) is {listen}, above net.core.somaxconn {somaxconn}: {service} will not "
                f"start again. Raise the sysctl of `{service}` in compose.yaml; on the host's network, this machine's."
            )


def descriptors(facts: Facts) -> Iterator[str]:
    """Find more connections than file descriptors."""
    connections = int(facts.nginx["worker_connections"])
    if facts.descriptors <= connections:
        yield (
            f"nginx may open {facts.descriptors} files (ulimits.nofile in compose.yaml), not above worker_connections "
            f"{connections} (nginx/nginx.conf): connections fail under load. Raise the first or lower the second."
        )


def memory(facts: Facts) -> Iterator[str]:
    """Find containers that have almost reached their memory limit."""
    for name, (used, limit) in facts.memory.items():
        if used > limit * MEMORY_SHARE:
            yield (
                f"{name} uses {used >> 20} MB of {limit >> 20} MB: a worker will be killed. "
                "Lower UWSGI_PROCESSES (.env) or raise mem_limit of `uwsgi` (compose.yaml)."
            )


def sockets(facts: Facts) -> Iterator[str]:
    """Find sockets that nginx and uwsgi may not open, or that others may."""
    for path, has in facts.sockets.items():
        service, wanted = SOCKETS.get(path, OTHER_SOCKETS)
        if has != wanted:
            yield (
                f"{path} has group and mode {has}, not {wanted}: nginx or uwsgi cannot open it, or others can. "
                f"Check `umask = 007` in sockets/{service}.ini and the volume in compose.yaml, "
                f"then: make restart S={service}"
            )


def disk(facts: Facts) -> Iterator[str]:
    """Find disks that are almost full."""
    yield from facts.disk
    if facts.data_used > DISK_SHARE:
        yield f"The volume data is {facts.data_used:.0%} full: writes will fail. Make room on its disk: df -h"


def clock(facts: Facts) -> Iterator[str]:
    """Find a clock of the Docker engine that is not this machine's (a virtual machine that slept)."""
    offset = facts.clock_offset
    if abs(offset) > CLOCK_SECONDS:
        yield f"The Docker engine's clock is {offset:+.0f} s off this machine's. Restart the engine, and run NTP."


def page(facts: Facts) -> Iterator[str]:
    """Find what is wrong with the front page and the settings behind it."""
    for word, text in facts.findings:
        if word != COULD:
            yield f"{word}: {text}"


def loops(facts: Facts) -> Iterator[str]:
    """Find containers that start again and again, and unhealthy ones."""
    for name in facts.loops:
        yield f"{name} restarts in a loop. The end of its log: docker logs --tail 30 {name}"
    for name in facts.unhealthy:
        yield f"{name} is unhealthy. What its check says: docker inspect {name}"


def versions(facts: Facts) -> Iterator[str]:
    """Find a Docker, or plugins of it, that are too old."""
    for text in facts.versions:
        yield f"This needs {text}. Run: ops/run setup"


def https(facts: Facts) -> Iterator[str]:
    """Say what is wrong with the certificate, with overrides/tls.yaml."""
    yield from facts.certificate


def backups(facts: Facts) -> Iterator[str]:
    """Find backups that are old, failed or suspect, and a restore that was cut off."""
    for word, text in facts.backups:
        if word != COULD:
            yield f"{word}: {text}"


CHECKS = (
    timeouts,
    buffers,
    queue,
    descriptors,
    memory,
    sockets,
    disk,
    clock,
    page,
    loops,
    versions,
    https,
    backups,
)


def gather() -> Facts:
    """Read the running stack. Raises Stop if it does not run."""
    uwsgi, (nginx, *_) = stack.workers("uwsgi"), stack.workers("nginx")
    holders = [stack.workers(service)[0] for service in ("nginx-socket", "uwsgi-socket")]
    everything = [container for container in stack.containers() if container.service != "release"]
    line, findings = front_page.look()
    return Facts(
        nginx=directives(inside(nginx, "nginx", "-T")),
        uwsgi=uwsgi_options(uwsgi[0]),
        grace={
            container.service: float(inspected(container, "{{.Config.StopTimeout}}")) for container in (nginx, uwsgi[0])
        },
        queues={holder.service: queue_of(holder) for holder in holders},
        descriptors=int(re.findall(r"Max open files +(\d+)", inside(nginx, "cat", "/proc/1/limits"))[0]),
        memory={container.name: memory_of(container) for container in uwsgi},
        sockets={path: modes for holder in holders for path, modes in socket_modes(holder).items()},
        data_used=int(inside(uwsgi[0], "df", "--output=pcent", "/data").split()[-1].rstrip("%")) / 100,
        clock_offset=parse_time(stack.docker("info", "--format", "{{.SystemTime}}").strip()) - time.time(),
        page=line,
        findings=findings,
        loops=[container.name for container in everything if is_looping(container)],
        unhealthy=[container.name for container in everything if container.running and container.health == "unhealthy"],
        versions=engine.lacking(),
        certificate=certificate.look(time.time()),
        disk=preflight.disk_problems(),
        backups=[*cut_off(uwsgi[0]), *backup.findings(state.current_files())],
    )


def cut_off(container: Container) -> Iterator[tuple[str, str]]:
    """Yield that a restore was killed in the middle of its swap, if one was (backup/restore.py)."""
    if inside(container, "sh", "-c", "ls /data/.backup/swap.json 2>/dev/null || true"):
        yield BREAKS, "a restore was cut off in the middle of its swap. End it: make restore FROM=latest"


def inside(container: Container, *command: str) -> str:
    """Return what a command prints in a container."""
    return stack.docker("exec", container.id, *command)


def inspected(container: Container, template: str) -> str:
    """Return a value that `docker inspect` knows."""
    return stack.docker("inspect", "--format", template, container.id).strip()


def directives(text: str) -> dict[str, str]:
    """Return the simple directives of an nginx configuration, the last of each name."""
    return dict(re.findall(r"^\s*([a-z_]+) ([^;{]+);", text, re.MULTILINE))


def ini(text: str) -> dict[str, str]:
    """Return the section [uwsgi] of a configuration."""
    read = configparser.ConfigParser(strict=False, interpolation=None)
    read.read_string(text)
    return dict(read["uwsgi"])


def uwsgi_options(container: Container) -> dict[str, str]:
    """Return uWSGI's options as they are in force."""
    command = json.loads(inspected(container, "{{json .Config.Cmd}}"))
    environment = json.loads(inspected(container, "{{json .Config.Env}}"))
    return in_force(environment, inside(container, "cat", "/etc/uwsgi/uwsgi.ini"), command)


def in_force(environment: Sequence[str], file: str, command: Sequence[str] = ()) -> dict[str, str]:
    """Return uWSGI's options: those of the environment, then of the file, then of the command line, with sums made."""
    variables = dict(variable.partition("=")[::2] for variable in environment)
    options = {
        **{
            name.removeprefix("UWSGI_").lower().replace("_", "-"): value
            for name, value in variables.items()
            if name.startswith("UWSGI_")
        },
        **ini(file),
        **{word.removeprefix("--"): value for word, value in pairwise(command)},
    }
    for name, value in options.items():
        if total := re.fullmatch(r"%\(([a-z-]+) \+ (\d+)\)", value):
            options[name] = str(int(options[total[1]]) + int(total[2]))
    return options


def memory_of(container: Container) -> tuple[int, int]:
    """Return the memory that all workers of a container use (PSS), and its limit."""
    workers = status.container_state(container)["stats"]["workers"]
    return sum(int(worker["pss_kB"]) for worker in workers) * 1024, int(inspected(container, "{{.HostConfig.Memory}}"))


def queue_of(holder: Container) -> tuple[int, int]:
    """Return the length of the queue that a service asks for, and what the kernel allows."""
    listen = ini(inside(holder, "cat", f"/etc/uwsgi/{holder.service}.ini"))["listen"]
    return int(listen), int(inside(holder, "cat", "/proc/sys/net/core/somaxconn"))


def socket_modes(holder: Container) -> dict[str, str]:
    """Return group and mode of each socket that nginx-socket or uwsgi-socket has made."""
    output = inside(holder, "sh", "-c", "stat -c '%n %g %a' $(find /run/pool /run/wire -type s 2>/dev/null)")
    return {path: modes for path, _, modes in (line.partition(" ") for line in output.splitlines())}


def is_looping(container: Container) -> bool:
    """Return whether a container has started again many times, and a moment ago."""
    return container.restarts >= LOOP_RESTARTS and time.time() - parse_time(container.started) < LOOP_SECONDS


def parse_time(text: str) -> float:
    """Return Docker's time format (nanoseconds, Z or an offset) in seconds since 1970."""
    return datetime.fromisoformat(re.sub(r"\.(\d{1,6})\d*", r".\1", text).replace("Z", "+00:00")).timestamp()


def seconds(text: str) -> float:
    """Return a number of seconds as nginx or uWSGI writes it."""
    return float(text.removesuffix("s"))
