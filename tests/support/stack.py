"""The stack under test, and the few things that many tests do with it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import requests
from testcontainers.compose import DockerCompose

from tests.support import subnets

ROOT = Path(__file__).resolve().parent.parent.parent
# Tests of two checkouts may run at once on one machine.
CHECKOUT = hashlib.sha256(str(ROOT).encode()).hexdigest()[:8]
# A project of your own in app/ leaves out the tests that need the sample.
SAMPLE = (ROOT / "app/home/stack.py").is_file()
COMPOSE = "com.docker.compose"
TRANSPORTS = {"tcp": "compose.tcp.yaml", "unix-socket": "compose.unix-socket.yaml"}
TLS = ["overrides/tls.yaml", "tests/overrides/tls.yaml"]
# Docker's default pools hold 31, three of its own aside; a checkout takes up to three, and several may start at once.
MOST_NETWORKS = 24
Found = TypeVar("Found")


def wait_until(look: Callable[[], Found | None], what: str, seconds: float = 30) -> Found:
    """Return what `look` finds, asking until it is true. Fails with the last answer after `seconds`."""
    deadline = time.monotonic() + seconds
    last: object = None
    while time.monotonic() < deadline:
        try:
            last = found = look()
            if found:
                return found
        except (OSError, requests.RequestException, subprocess.SubprocessError) as problem:
            last = problem
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds} s: {what}; last: {last!r}")


def free_port() -> int:
    """Return a port of 127.0.0.1 that nothing listens on; not one of those that the kernel gives to clients."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def run(
    *command: str, seconds: float = 120, cwd: Path = ROOT, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command and return what it printed; its exit code is the caller's to judge."""
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **(environment or {})},
    )


def process_tree(container: str, *columns: str) -> list[list[str]]:
    """Return process id and these columns of `ps` for a container's PID 1, which comes first, and its descendants.

    `docker top` also lists what `docker exec` has started, such as a health check that is under way. The
    parent of that is not in the container.
    """
    first = run("docker", "inspect", "--format", "{{.State.Pid}}", container).stdout.strip()
    listed = run("docker", "top", container, "-o", ",".join(["pid", "ppid", *columns])).stdout
    rows = {process: (parent, rest) for process, parent, *rest in map(str.split, listed.splitlines()[1:])}

    def descends(process: str) -> bool:
        return process == first or (process in rows and descends(rows[process][0]))

    ours = [[process, *rest] for process, (_, rest) in rows.items() if descends(process)]
    return sorted(ours, key=lambda row: (row[0] != first, int(row[0])))


def wait_for_networks() -> None:
    """Wait a while for the checkouts of other processes to give back networks, of which Docker has about thirty."""
    with contextlib.suppress(AssertionError):
        wait_until(lambda: subnets.given_by_docker() <= MOST_NETWORKS, "room", 60)


def processes_of(container: str) -> list[str]:
    """Return the process ids of `process_tree`, as this machine sees them."""
    return [process for process, *_ in process_tree(container)]


class Stack:
    """The shipped compose files of one transport with tests/overrides/test.yaml, under a project name of its own."""

    def __init__(self, transport: str, role: str, extra: Sequence[str] = ()) -> None:
        self.transport = transport
        # Not a port that Docker chooses: it would be another one after each restart, and have to be asked for.
        self.port = free_port()
        # Bound only with overrides/tls.yaml
        self.https_port = free_port()
        self.project = f"test-{CHECKOUT}-{transport}-{role}"
        self.files = ["compose.yaml", TRANSPORTS[transport], "tests/overrides/test.yaml", *extra]
        self.compose = DockerCompose(
            ROOT,
            compose_file_name=[*self.files],
            wait=True,
            env_file="tests/stack.env",
            docker_command_path="docker",
        )
        # DockerCompose has no argument for the project's name; it goes where every call takes it from.
        self.compose.compose_command_property += ["--project-name", self.project]
        self.subnets = subnets.choose()

    def start(self) -> Stack:
        """Start, after whatever a killed run has left behind is gone."""
        self.stop()
        try:
            self("up", "--detach", "--wait")
        except AssertionError as failed:
            evidence = self.evidence()
            self.stop()
            raise AssertionError(f"{failed}\n{evidence}") from failed
        return self

    def healed(self) -> Stack:
        """Bring back one healthy container of each service; from nothing, if that does not help."""
        try:
            self("up", "--detach", "--wait", "--wait-timeout", "60", "--no-build", "--scale", "uwsgi=1")
            wait_until(self.serves, "it serves", 10)
        except AssertionError:
            self.start()
        return self

    def stop(self) -> None:
        """Remove containers, networks and volumes of this project."""
        # Killed first: a graceful stop would wait for requests that no one will read.
        self("kill", check=False)
        self("down", "--volumes", "--remove-orphans")

    def __call__(self, *arguments: str, check: bool = True) -> str:
        """Run a docker compose command on this stack and return what it prints."""
        settings = {"HTTP_PORT": str(self.port), "HTTPS_PORT": str(self.https_port), **self.subnets}
        done = run(*self.compose.docker_compose_command(), *arguments, environment=settings)
        assert not check or done.returncode == 0, done.stderr
        return done.stdout

    def exec(self, service: str, *command: str) -> str:
        """Run a command in a container of `service` and return what it prints, stderr included."""
        done = run("docker", "exec", self.container(service)["Id"], *command)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def log(self, service: str) -> str:
        """Return the whole log of the first container of `service`."""
        done = run("docker", "logs", self.container(service)["Id"])
        return done.stdout + done.stderr

    def complete_log(self, service: str) -> str:
        """Return the log with the lines of all requests answered so far."""
        # Each worker of nginx writes its own lines together, up to a second late (nginx/http/access-log.conf): a later
        # request's line, from another worker, says nothing about an earlier one's.
        time.sleep(1.5)
        return self.log(service)

    def processes(self, service: str) -> list[str]:
        """Return the process ids, as this machine sees them, of a container; its PID 1 comes first."""
        return processes_of(self.container(service)["Id"])

    def containers(self, service: str) -> list[dict[str, Any]]:
        """Return what `docker inspect` says of each container of `service`, stopped ones included."""
        # Not by `docker compose ps`, which takes four times as long.
        labels = {"project": self.project, "service": service, "oneoff": "False"}
        filters = [word for name, value in labels.items() for word in ("--filter", f"label={COMPOSE}.{name}={value}")]
        ids = run("docker", "ps", "--all", "--quiet", *filters).stdout.split()
        inspected: list[dict[str, Any]] = json.loads(run("docker", "inspect", *ids).stdout) if ids else []
        return sorted(inspected, key=lambda container: str(container["Name"]))

    def container(self, service: str) -> dict[str, Any]:
        """Return the first of `containers`."""
        return self.containers(service)[0]

    def address(self) -> tuple[str, int]:
        """Return where the stack is published."""
        return "127.0.0.1", self.port

    def url(self, path: str = "/") -> str:
        """Return the address of a path, by the name localhost."""
        return f"http://localhost:{self.port}{path}"

    def get(self, path: str, **options: Any) -> requests.Response:
        """Send a GET that is not repeated."""
        return requests.get(self.url(path), timeout=options.pop("timeout", 20), **options)

    def post(self, path: str, data: bytes | dict[str, str], **options: Any) -> requests.Response:
        """Send a POST that is not repeated."""
        return requests.post(self.url(path), data=data, timeout=options.pop("timeout", 20), **options)

    def raw(self, request: bytes, seconds: float = 15) -> bytes:
        """Send bytes as they are and return all that comes back until the connection closes."""
        with socket.create_connection(self.address(), timeout=seconds) as connection:
            connection.sendall(request)
            answer = b""
            try:
                while chunk := connection.recv(65_536):
                    answer += chunk
            except ConnectionResetError:
                pass
            return answer

    def serves(self) -> bool:
        """Return whether a request goes all the way to Django and back."""
        return self.get("/echo", timeout=5).status_code == 200

    def busy_workers(self) -> int:
        """Return how many workers have a request."""
        shown = self.exec("uwsgi", "uwsgi", "--connect-and-read", "/run/uwsgi/stats.sock")
        document, _ = json.JSONDecoder().raw_decode(shown)
        return sum(worker["status"] == "busy" for worker in document["workers"])

    def evidence(self) -> str:
        """Return what explains a failure: each service's log and the configuration nginx has in effect."""
        logs = self("logs", "--no-color", "--timestamps", "--tail", "80", check=False)
        effective = self("exec", "-T", "nginx", "nginx", "-T", check=False)
        return f"{self('ps', '--all', check=False)}\n{logs}\n{effective}"
