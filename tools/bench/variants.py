"""What is compared: each is a stack of the shipped compose files and of what tools/bench/ adds."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import ops.base_image
from ops.console import ROOT, Stop
from ops.stack import docker
from tools.bench.cgroup import Cpu

# The default of the stack; every peer has as many.
WORKERS = 2
OURS = ["compose.yaml", "compose.{}.yaml", "tools/bench/compose.bench.yaml"]
PEER = [*OURS, "tools/bench/compose.peer.yaml", "tools/bench/compose.peer-{}.yaml"]
GUNICORN = f"/venv/bin/python -m gunicorn bench.wsgi --workers {WORKERS} --worker-tmp-dir /tmp"
# One thread, as every other has; its 128 for each worker meet pids_limit, and it ends.
GRANIAN = (
    "/venv/bin/python -m granian bench.wsgi:application --interface wsgi --no-ws --blocking-threads 1"
    f" --workers {WORKERS}"
)
THREADS = "--worker-class gthread --threads 2"
SOCKET = "/run/wire/peer.sock"
PORT = "0.0.0.0:20001"


@dataclass
class Variant:
    """One stack to be measured. `files` with {} take the transport."""

    name: str
    transport: str
    files: list[str]
    settings: Mapping[str, str] = field(default_factory=dict)
    containers: dict[str, str] = field(default_factory=dict)
    cpu: Cpu | None = None

    @property
    def project(self) -> str:
        """Return the name that Compose knows this stack by."""
        return "bench-" + re.sub(r"[^a-z]+", "-", self.name.lower())

    def compose(self, *arguments: str, seconds: float = 300, workers: int = WORKERS) -> str:
        """Run a docker compose command on this stack. Raises Stop with what it says if it fails."""
        files = [word for file in self.files for word in ("--file", file.format(self.transport))]
        done = subprocess.run(
            ["docker", "compose", "--env-file", "/dev/null", "--project-name", self.project, *files, *arguments],
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
            cwd=ROOT,
            env={**os.environ, **surroundings(), **self.settings, "UWSGI_PROCESSES": str(workers)},
        )
        if done.returncode != 0:
            raise Stop(f"{self.name}: docker compose {' '.join(arguments)}:\n{done.stderr.strip()[-1500:]}")
        return done.stdout

    def up(self, *arguments: str, workers: int = WORKERS) -> None:
        """Start, wait until all is healthy, and look up what the measurements need."""
        self.compose("up", "--detach", "--wait", "--wait-timeout", "60", "--no-build", *arguments, workers=workers)
        result = self.compose("ps", "--format", "{{.Service}} {{.ID}}").split()
        self.containers = dict(zip(result[::2], result[1::2], strict=True))
        serving = [
            self.containers[name]
            for name in ("nginx-socket", "nginx", "uwsgi-socket", "uwsgi")
            if name in self.containers
        ]
        self.cpu = Cpu(serving)

    def last_words(self) -> str:
        """Return the end of the logs of what is measured."""
        command = ["docker", "ps", "--all", "--quiet", "--filter", f"label=com.docker.compose.project={self.project}"]
        found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        tails = [
            subprocess.run(["docker", "logs", "--tail", "8", one], capture_output=True, text=True) for one in found
        ]
        return "".join(tail.stdout[-800:] + tail.stderr[-800:] for tail in tails)

    def down(self) -> None:
        """Remove everything but the images."""
        self.compose("kill")
        self.compose("down", "--volumes", "--remove-orphans")


@functools.cache
def base_image() -> str:
    """Return the base image that compose.yaml names, for the images that bench/ adds."""
    return ops.base_image.name()


def surroundings() -> dict[str, str]:
    """Return the settings that all stacks share; BENCH_APP is set once the project is copied."""
    return {
        "BASE_IMAGE": base_image(),
        "BENCH_IMAGES": "bench",
        "COMPOSE_FILE": "",
        "HTTP_ADDRESS": "127.0.0.1",
        "HTTP_PORT": "0",
        "UWSGI_MODULE": "bench.wsgi:application",
        "DJANGO_SETTINGS_MODULE": "bench.settings",
        "DJANGO_ALLOWED_HOSTS": "localhost,127.0.0.1",
        "DATABASE_URL": "sqlite:////data/bench.sqlite3",
        "PROJECT_ENV": "/dev/null",
        # The load is one client.
        "NGINX_REQUEST_RATE": "1000000r/s",
        "NGINX_LOGIN_RATE": "1000000r/s",
    }


def peer(name: str, transport: str, command: str) -> Variant:
    """Return another server behind our nginx."""
    return Variant(name, transport, PEER, {"PEER": command})


UNIX = Variant("ours, Unix socket", "unix-socket", [*OURS, "tools/bench/compose.bare.yaml"])
TCP = Variant("ours, TCP", "tcp", OURS)
SYNC_UNIX = peer("gunicorn sync, Unix socket", "unix-socket", f"{GUNICORN} --bind unix:{SOCKET} --umask 7")
GTHREAD_UNIX = peer(
    "gunicorn gthread, Unix socket", "unix-socket", f"{GUNICORN} {THREADS} --bind unix:{SOCKET} --umask 7"
)
# As many threads as gthread has above
THREADED = Variant("ours, 2 threads, Unix socket", "unix-socket", OURS, {"UWSGI_THREADS": "2"})
PEERS = [
    SYNC_UNIX,
    peer("gunicorn sync, TCP", "tcp", f"{GUNICORN} --bind {PORT}"),
    GTHREAD_UNIX,
    peer("gunicorn gthread, TCP", "tcp", f"{GUNICORN} {THREADS} --bind {PORT}"),
    peer("granian, Unix socket", "unix-socket", f"{GRANIAN} --uds {SOCKET} --uds-permissions 432"),
    peer("granian, TCP", "tcp", f"{GRANIAN} --host 0.0.0.0 --port 20001"),
]
BOUND = Variant("uWSGI's own socket", "unix-socket", [*OURS, "tests/overrides/control-unix-socket.yaml"])
EMPTY = Variant("empty WSGI app, Unix socket", "unix-socket", OURS, {"UWSGI_MODULE": "nothing:application"})
HOST_PORT = 18_088
HOST = Variant(
    "ours, host network", "unix-socket", [*OURS, "overrides/host-network.yaml"], {"HTTP_PORT": str(HOST_PORT)}
)


def remove_left_over() -> None:
    """Remove the stacks that a killed run has left behind."""
    for kind, removal in (("container", "rm --force --volumes"), ("network", "rm"), ("volume", "rm")):
        listing = ["docker", kind, "ls", "--quiet", "--filter", "name=^bench-"]
        names = subprocess.run(
            [*listing, "--all"] if kind == "container" else listing, capture_output=True, text=True, check=True
        ).stdout.split()
        if names:
            subprocess.run(["docker", kind, *removal.split(), *names], capture_output=True, check=True)


def make_networks() -> None:
    """Make the networks that all stacks share (tools/bench/compose.bench.yaml). Raises Stop if Docker has none left."""
    docker("network", "create", "bench-edge")
    docker("network", "create", "--internal", "bench-inside")


def copy_of_the_project(folder: Path) -> None:
    """Copy the measured project to `folder`, with static files of the three sizes, and name it to Compose."""
    shutil.copytree(ROOT / "tools/bench/project", folder, ignore=shutil.ignore_patterns("__pycache__"))
    static = folder / "bench/static/bench"
    static.mkdir(parents=True)
    for kilobytes in (4, 100, 1024):
        (static / f"{kilobytes}.bin").write_bytes(os.urandom(kilobytes * 1024))
    os.environ["BENCH_APP"] = str(folder)
